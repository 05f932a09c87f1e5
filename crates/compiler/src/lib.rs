//! Pure: a snapshot of Kubernetes objects in, owned OVN Northbound rows and their difference to the replica out.
//!
//! The walk: events change a [`Snapshot`]; [`compile()`] validates one [`Owner`] and says which rows it must have;
//! [`mod@diff`] says which operations make the database so. [`ipam`] picks addresses. Nothing here reads a clock, the
//! environment or randomness, does input or output, or writes a log: the same objects give the same rows, in whatever
//! order their events came.

mod address;
pub mod compile;
pub mod desired;
pub mod diff;
pub mod digest;
pub mod eip;
pub mod endpoint;
pub mod ipam;
pub mod layout;
pub mod owner;
pub mod ownerindex;
pub mod prober;
pub mod released;
pub mod row;
pub mod slot;
pub mod snapshot;
pub mod validate;

pub use compile::{Rejection, compile, hindrance, keep_connections, prerequisites};
pub use diff::Batch;
pub use digest::digest;
pub use eip::{
    EipAllocation, active_node, allocate_eip, eip_address, eip_binding, eip_gateway_address,
    eip_gateway_cidr, eip_usage, eligible_nodes, is_outdated, service_gateways, wanted_eip,
    with_whom_it_goes,
};
pub use ipam::{Allocated, Allocation, allocate, node_vnic, pod_vnic, usage, users, wanted_vnic};
pub use owner::{ObjectKey, Owner};
pub use ownerindex::OwnerIndex;
pub use prober::{Assignment, is_chassis_probe, wanted_chassis_probe};
pub use released::{Recorded, Released, RestingPlace, released, resting_place};
pub use row::{Parent, Row};
pub use snapshot::{
    Chassis, Claim, Event, Leaving, MtuCheck, NodeFacts, Object, ObjectRef, PodFacts, Prober,
    Settings, Snapshot,
};
