//! Addresses that were given out and that the API server has not confirmed.
//!
//! An address is decided in one place and stands in the snapshot from then on, so that the next decision sees it. It
//! counts for others (rows, the node agent) only once the API server has it: until then its object has no rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use kube::Resource;
use ycloud_api::{Eip, EipStatus, VNic, VNicStatus};
use ycloud_compiler::{ObjectKey, Owner};

/// A kind whose status records an address.
pub(crate) trait Addressed: Resource + Clone {
    /// Its status.
    type Status: Clone + Debug;

    /// The status.
    fn status(&mut self) -> &mut Option<Self::Status>;

    /// Whether it holds an address.
    fn has_address(&self) -> bool;

    /// Whether it holds an address of every family of which `given` has one.
    fn confirms(&self, given: &Self::Status) -> bool;
}

impl Addressed for VNic {
    type Status = VNicStatus;

    fn status(&mut self) -> &mut Option<VNicStatus> {
        &mut self.status
    }

    fn has_address(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.links().next().is_some())
    }

    fn confirms(&self, given: &VNicStatus) -> bool {
        let status = self.status.as_ref();
        let ip = status.is_some_and(|status| status.ip.is_some());
        let ipv6 = status.is_some_and(|status| status.ipv6.is_some());
        (ip || given.ip.is_none()) && (ipv6 || given.ipv6.is_none())
    }
}

impl Addressed for Eip {
    type Status = EipStatus;

    fn status(&mut self) -> &mut Option<EipStatus> {
        &mut self.status
    }

    fn has_address(&self) -> bool {
        let status = self.status.as_ref();
        status.is_some_and(|status| status.address.is_some())
    }

    fn confirms(&self, _: &EipStatus) -> bool {
        self.has_address()
    }
}

#[derive(Debug, Clone)]
struct Given<S> {
    uid: Option<String>,
    status: S,
    owners: BTreeSet<Owner>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Unconfirmed<K: Addressed>(BTreeMap<ObjectKey, Given<K::Status>>);

impl<K: Addressed> Default for Unconfirmed<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Addressed> Unconfirmed<K> {
    /// The object of `key` was given an address, which stands in `status`; the rows of `owners` follow from it.
    pub fn give(&mut self, key: ObjectKey, object: &K, status: K::Status, owners: BTreeSet<Owner>) {
        let uid = object.meta().uid.clone();
        let given = Given {
            uid,
            status,
            owners,
        };
        self.0.insert(key, given);
    }

    /// The status to be written for `key`.
    pub fn status(&self, key: &ObjectKey) -> Option<&K::Status> {
        self.0.get(key).map(|given| &given.status)
    }

    /// Whether the address of `key` is not confirmed.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.0.contains_key(key)
    }

    /// The object of `key` is gone.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// The object as it is to be taken in, and whose rows are to be compared: an address that was given out stays
    /// until the API server has confirmed it, whatever older version of the object comes by.
    pub fn restore(&mut self, key: &ObjectKey, object: Arc<K>) -> (Arc<K>, BTreeSet<Owner>) {
        let Some(given) = self.0.remove(key) else {
            return (object, BTreeSet::new());
        };
        if object.confirms(&given.status) || given.uid != object.meta().uid {
            return (object, given.owners);
        }
        let mut object = Arc::unwrap_or_clone(object);
        *object.status() = Some(given.status.clone());
        self.0.insert(key.clone(), given);
        (Arc::new(object), BTreeSet::new())
    }
}
