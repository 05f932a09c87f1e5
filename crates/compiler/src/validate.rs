//! Whether an object can be done as its spec asks. May fail: a [`crate::Rejection`] becomes a condition.

pub mod eip;
pub mod eip_gateway;
pub(crate) mod external;
pub mod network;
pub mod network_probe;
pub mod service;
pub mod subnet;
pub mod vnic;
pub mod vpc;

use std::collections::BTreeMap;

use ycloud_api::Vpc;

use crate::snapshot::Snapshot;

/// Whether `vpc` or one of its Subnets permits `namespace`. A namespace that does not exist has no labels.
pub fn permits(snapshot: &Snapshot, vpc: &Vpc, namespace: &str) -> bool {
    let none = BTreeMap::new();
    let labels = snapshot.namespace(namespace).unwrap_or(&none);
    let name = vpc.metadata.name.as_deref().unwrap_or_default();
    vpc.permits(namespace, labels) || snapshot.names_namespace(name, namespace)
}
