//! Objects of one kind, by namespace and name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use ycloud_compiler::ObjectKey;

use crate::watch::Key;

/// Namespace → name → object.
pub type ByNamespace<T> = BTreeMap<String, BTreeMap<String, Arc<T>>>;

/// Puts an object in; its key, and what it was before.
pub fn insert<T: ResourceExt>(all: &mut ByNamespace<T>, object: T) -> (ObjectKey, Option<Arc<T>>) {
    let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
    let namespace = all.entry(key.namespace.clone()).or_default();
    let former = namespace.insert(key.name.clone(), Arc::new(object));
    (key, former)
}

/// Takes an object out; its key, and what it was.
pub fn remove<T>(all: &mut ByNamespace<T>, key: Key) -> (ObjectKey, Option<Arc<T>>) {
    let key = ObjectKey::new(key.namespace.unwrap_or_default(), key.name);
    let mut former = None;
    if let Some(namespace) = all.get_mut(&key.namespace) {
        former = namespace.remove(&key.name);
        if namespace.is_empty() {
            all.remove(&key.namespace);
        }
    }
    (key, former)
}

/// Takes `member` out of the set of `key`, and the set out if it is empty.
pub fn take<K: Ord, T: Ord>(sets: &mut BTreeMap<K, BTreeSet<T>>, key: &K, member: &T) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(member);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
