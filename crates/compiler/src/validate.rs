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

/// Whether `vpc` permits `namespace`. A namespace that does not exist has no labels.
pub fn permits(snapshot: &Snapshot, vpc: &Vpc, namespace: &str) -> bool {
    let none = BTreeMap::new();
    let labels = snapshot.namespace(namespace).unwrap_or(&none);
    vpc.spec.permits(namespace, labels)
}
