//! Which YusurServices are to be planned for, and when: pure, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ycloud_compiler::ObjectKey;

use super::pace::Bucket;
use crate::queue::Delays;

/// Keys to plan for, now or later.
///
/// What probes say is planned for at the pace of [`Bucket::of_plans`], all else at once. That bounds what flapping backends
/// write: a YusurService is planned for 20 times at most at once, and then twice a second, and each plan writes each of its
/// EndpointSlices at most once, which is at most one transaction of the Northbound database.
#[derive(Debug, Default)]
pub struct Pending {
    dirty: BTreeSet<ObjectKey>,
    later: Delays<ObjectKey>,
    /// How often probes may cause a plan.
    paces: BTreeMap<ObjectKey, Bucket>,
}

impl Pending {
    /// Something of these may have changed.
    pub fn changed(&mut self, keys: impl IntoIterator<Item = ObjectKey>) {
        self.dirty.extend(keys);
    }

    /// A probe has news of `key`: it is planned for, but not too often.
    pub fn probed(&mut self, key: ObjectKey, now: Instant) {
        if self.dirty.contains(&key) {
            return;
        }
        let pace = self.paces.entry(key.clone());
        let pace = pace.or_insert_with(Bucket::of_plans);
        match pace.take(now) {
            Ok(()) => {
                self.dirty.insert(key);
            }
            Err(at) => self.later.push(key, at),
        }
    }

    /// `key` is to be planned for at `at`, or earlier if that was asked for before.
    pub fn at(&mut self, key: ObjectKey, at: Instant) {
        self.later.push(key, at);
    }

    /// When [`Self::pass`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.next()
    }

    /// It is `now`.
    pub fn pass(&mut self, now: Instant) {
        self.dirty.extend(self.later.due(now));
    }

    /// A key to plan for at once that is not among `busy`; it waits no more.
    pub fn take(&mut self, busy: &BTreeSet<ObjectKey>) -> Option<ObjectKey> {
        let key = self.dirty.iter().find(|key| !busy.contains(key)).cloned()?;
        self.dirty.remove(&key);
        self.later.forget(&key);
        Some(key)
    }

    /// There is no such YusurService any more.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.paces.remove(key);
    }

    /// How many are to be planned for at once.
    pub fn len(&self) -> usize {
        self.dirty.len()
    }

    /// Whether none is to be planned for at once.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }
}
