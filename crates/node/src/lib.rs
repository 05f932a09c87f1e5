//! The node's side of ycloud: the CNI plugin and the agent that does its work.
//!
//! ```text
//!   container runtime ── stdin, CNI_* ──► ycloud (plugin: thin, synchronous)
//!                                            │  one request, one answer: unix socket, protocol.rs
//!                                            ▼
//!   API server ── VNic, Service, … ────────► ycloud-cni (agent) ──► Open vSwitch: ports, and in their external_ids
//!                                            │                       all that the agent must remember
//!                                            └──► kernel: veth pairs, addresses, routes, nftables
//! ```
//!
//! The plugin's half ([`plugin`], [`protocol`]) uses neither tokio nor kube, so that it starts in a millisecond.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod agent;
pub mod host_port;
pub mod plugin;
pub mod protocol;
