//! Real etcd, Kubernetes, containerd and OVN/Open vSwitch on one machine: each node is a set of namespaces.
//!
//! A lab has a control machine (etcd, Kubernetes' control plane, OVN's databases and northd), nodes (kubelet,
//! containerd, Open vSwitch, ovn-controller), a DPU (Open vSwitch, ovn-controller) and an external machine, joined by a bridge in
//! a namespace of its own. Virtual machines, bare-metal servers and bare addresses come and go with VNics ([`backend`]). A second
//! network, `ext`, carries elastic addresses between the nodes and an upstream router ([`ext`]). The only link to the root
//! namespace leads to the control machine, so that `kubectl` reaches the API server; nothing in a lab has a route beyond
//! it.
//!
//! ```no_run
//! use ycloud_lab::{Lab, Machine, UpOptions};
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::named("try")?;
//! lab.up(&UpOptions { nodes: Some(2), ..UpOptions::default() })?;
//! lab.kubectl(["get", "nodes"])?.status()?;
//! lab.exec(Machine::Node(1), ["ovs-vsctl", "show"])?.status()?;
//! lab.down()
//! # }
//! ```

mod agent;
pub mod api;
mod apt;
pub mod ask;
pub mod backend;
mod bench;
mod bringup;
mod cache;
mod certs;
mod cgroup;
mod cleanup;
mod command;
mod conformance;
mod demo;
pub mod ext;
pub mod failover;
mod guest;
mod host;
pub mod icmp;
mod image;
mod install;
mod kubernetes;
mod lab;
mod layout;
pub mod links;
mod net;
mod node;
mod ovn;
mod ovn_packages;
pub mod place;
mod process;
mod programs;
mod progress;
pub mod server;
mod state;
mod toolchain;

pub use bench::BenchOptions;
pub use conformance::ConformanceOptions;
pub use image::Profile;
pub use lab::{Lab, PartStatus, UpOptions};
pub use layout::{Machine, OvnVersion};
