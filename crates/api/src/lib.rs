//! The custom resources of `iaas.yusur.io/v1`: types, CEL rules, conditions and annotation keys.
//!
//! This crate depends on nothing else of ycloud. Everything that two parts must agree on by name
//! (annotations, labels, finalizers, condition types and reasons) stands here once.

pub mod address;
pub mod backend;
pub mod condition;
pub mod eip;
pub mod eip_gateway;
pub mod key;
pub mod kubevirt;
pub mod made;
pub mod mirror;
pub mod network_probe;
pub mod probe;
pub mod schema;
pub mod selector;
pub mod service;
pub mod subnet;
pub mod vnic;
pub mod vpc;

pub use eip::{Eip, EipSpec, EipStatus};
pub use eip_gateway::{EipGateway, EipGatewaySpec, EipGatewayStatus};
pub use network_probe::{NetworkProbe, NetworkProbeSpec, NetworkProbeStatus};
pub use service::{YusurService, YusurServiceSpec, YusurServiceStatus};
pub use subnet::{Subnet, SubnetSpec, SubnetStatus};
pub use vnic::{VNic, VNicSpec, VNicStatus};
pub use vpc::{Vpc, VpcSpec, VpcStatus};

/// The API group of every kind in this crate.
pub const GROUP: &str = "iaas.yusur.io";

/// The version of every kind in this crate.
pub const VERSION: &str = "v1";
