//! Which owners wait to be reconciled: pure, no clock.
//!
//! ```text
//!   push ──► ready ──────────── take (a batch) ──► transaction ── committed ──► done
//!              ▲                                        │
//!              │ promote(now)                           │ refused by the server
//!            later ◄── one owner ── refuse ◄────────────┤
//!                                     │ several         │
//!            groups ◄── two halves ───┘   (taken before `ready`)
//! ```
//!
//! A batch that the server refuses is halved until the owner at fault stands alone; it then waits, longer each time,
//! and everybody else goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// First wait of an owner whose rows the server refused.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait of an owner whose rows the server refused.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Keys that wait for a moment in time; each at most once, for the earliest moment asked for.
#[derive(Debug, Clone)]
pub struct Delays<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> Default for Delays<K> {
    fn default() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Delays<K> {
    /// `key` becomes due at `at`, or earlier if that was asked for before.
    pub fn push(&mut self, key: K, at: Instant) {
        if let Some(former) = self.by_key.get(&key).copied() {
            if former <= at {
                return;
            }
            self.by_time.remove(&(former, key.clone()));
        }
        self.by_key.insert(key.clone(), at);
        self.by_time.insert((at, key));
    }

    /// Removes and returns the keys that are due.
    pub fn due(&mut self, now: Instant) -> Vec<K> {
        let mut keys = Vec::new();
        while self.by_time.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.by_time.pop_first() {
                self.by_key.remove(&key);
                keys.push(key);
            }
        }
        keys
    }

    /// When the next key is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Whether `key` waits.
    pub fn contains(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// Removes `key`.
    pub fn forget(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

/// The queue of one kind of key; see the module.
#[derive(Debug, Clone)]
pub struct Queue<K> {
    ready: BTreeSet<K>,
    groups: VecDeque<BTreeSet<K>>,
    later: Delays<K>,
    refusals: HashMap<K, u32>,
    /// Refused keys that something happened to: their wait is cut short.
    changed: BTreeSet<K>,
}

impl<K: Ord + Clone + std::hash::Hash> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: BTreeSet::new(),
            groups: VecDeque::new(),
            later: Delays::default(),
            refusals: HashMap::new(),
            changed: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone + std::hash::Hash> Queue<K> {
    /// `key` is to be reconciled. One that was refused before still waits [`FIRST_WAIT`], as what happened to it may
    /// be no more than the report of its refusal, and is then tried by itself.
    pub fn push(&mut self, key: K) {
        if self.refusals.contains_key(&key) {
            self.changed.insert(key);
        } else {
            self.insert(key);
        }
    }

    fn insert(&mut self, key: K) {
        self.later.forget(&key);
        if self.groups.iter().any(|group| group.contains(&key)) {
            return;
        }
        if self.refusals.contains_key(&key) {
            self.groups.push_back(BTreeSet::from([key]));
        } else {
            self.ready.insert(key);
        }
    }

    /// `key` is to be reconciled at `at`, or earlier.
    pub fn push_at(&mut self, key: K, at: Instant) {
        if !self.ready.contains(&key) {
            self.later.push(key, at);
        }
    }

    /// Makes ready what is due at `now`.
    pub fn promote(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.changed) {
            self.later.push(key, now + FIRST_WAIT);
        }
        for key in self.later.due(now) {
            self.insert(key);
        }
    }

    /// When the next key becomes due.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.next()
    }

    /// Removes and returns at most `limit` keys that may go in one transaction, in their order.
    pub fn take(&mut self, limit: usize) -> Vec<K> {
        if let Some(group) = self.groups.pop_front() {
            return group.into_iter().collect();
        }
        let mut keys = Vec::new();
        while keys.len() < limit
            && let Some(key) = self.ready.pop_first()
        {
            keys.push(key);
        }
        keys
    }

    /// Gives back what was taken and not looked at.
    pub fn put_back(&mut self, keys: impl IntoIterator<Item = K>) {
        let rest: BTreeSet<K> = keys.into_iter().collect();
        if rest.iter().any(|key| self.refusals.contains_key(key)) {
            self.groups.push_front(rest);
        } else {
            self.ready.extend(rest);
        }
    }

    /// The server refused the transaction of `batch`. Returns the key at fault if it is known: the only one of the
    /// batch; it waits. Otherwise both halves are tried by themselves next.
    pub fn refuse(&mut self, batch: &[K], now: Instant) -> Option<K> {
        match batch {
            [] => None,
            [key] => {
                let count = self.refusals.entry(key.clone()).or_insert(0);
                *count = count.saturating_add(1);
                let wait = FIRST_WAIT
                    .saturating_mul(1 << (*count - 1).min(10))
                    .min(LONGEST_WAIT);
                self.later.push(key.clone(), now + wait);
                Some(key.clone())
            }
            _ => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.groups.push_front(second.iter().cloned().collect());
                self.groups.push_front(first.iter().cloned().collect());
                None
            }
        }
    }

    /// `key` is as it should be: forgets that it was refused.
    pub fn settled(&mut self, key: &K) {
        self.refusals.remove(key);
    }

    /// True if [`Queue::take`] would return something.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.groups.is_empty()
    }

    /// Whether `key` waits, whatever for.
    pub fn contains(&self, key: &K) -> bool {
        self.ready.contains(key)
            || self.groups.iter().any(|group| group.contains(key))
            || self.later.contains(key)
            || self.changed.contains(key)
    }

    /// Number of keys that wait, whatever for.
    pub fn len(&self) -> usize {
        let grouped: usize = self.groups.iter().map(BTreeSet::len).sum();
        self.ready.len() + grouped + self.later.len() + self.changed.len()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_keys_wait_once_and_come_in_order() {
        let mut queue = Queue::default();
        for key in [3, 1, 3, 2] {
            queue.push(key);
        }
        assert_eq!(queue.take(2), [1, 2]);
        assert_eq!(queue.take(2), [3]);
        assert_eq!(queue.take(2), Vec::<i32>::new());
        assert!(queue.is_empty());
    }

    #[test]
    fn the_earliest_moment_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut delays = Delays::default();
        delays.push("a", now + 5 * second);
        delays.push("a", now + second);
        delays.push("a", now + 9 * second);
        delays.push("b", now + 2 * second);
        assert_eq!(delays.next(), Some(now + second));
        assert_eq!(delays.due(now + second), ["a"]);
        assert_eq!(delays.due(now + 9 * second), ["b"]);
        assert!(delays.is_empty());
    }

    #[test]
    fn a_refused_key_waits_longer_each_time_and_is_tried_alone() {
        let mut queue = Queue::default();
        let now = Instant::now();
        assert_eq!(queue.refuse(&[7], now), Some(7));
        assert_eq!(queue.next_due(), Some(now + FIRST_WAIT));
        queue.promote(now + FIRST_WAIT);
        queue.push(1);
        assert_eq!(queue.take(10), [7]);
        assert_eq!(queue.take(10), [1]);
        queue.refuse(&[7], now);
        assert_eq!(queue.next_due(), Some(now + 2 * FIRST_WAIT));
        queue.push(7);
        assert_eq!(queue.take(10), Vec::<i32>::new());
        queue.promote(now);
        assert_eq!(queue.next_due(), Some(now + FIRST_WAIT));
        queue.promote(now + FIRST_WAIT);
        assert_eq!(queue.take(10), [7]);
        queue.settled(&7);
        queue.push(7);
        queue.push(1);
        assert_eq!(queue.take(10), [1, 7]);
        for _ in 0..40 {
            queue.refuse(&[7], now);
        }
        assert_eq!(queue.next_due(), Some(now + FIRST_WAIT));
        queue.promote(now + FIRST_WAIT);
        queue.take(10);
        queue.refuse(&[7], now);
        assert_eq!(queue.next_due(), Some(now + LONGEST_WAIT));
    }

    proptest! {
        /// Whatever keys are poison, halving finds exactly these, commits all others, and ends.
        #[test]
        fn poison_is_isolated(count in 1u8..60, poison in proptest::collection::btree_set(0u8..60, 0..5), limit in 1usize..70) {
            let mut queue = Queue::default();
            (0..count).for_each(|key| queue.push(key));
            let (mut committed, mut found) = (BTreeSet::new(), BTreeSet::new());
            let now = Instant::now();
            let mut turns = 0;
            while queue.has_ready() {
                turns += 1;
                prop_assert!(turns < 1000);
                let batch = queue.take(limit);
                if batch.iter().any(|key| poison.contains(key)) {
                    found.extend(queue.refuse(&batch, now));
                } else {
                    committed.extend(batch);
                }
            }
            let poison: BTreeSet<u8> = poison.into_iter().filter(|key| *key < count).collect();
            let healthy: BTreeSet<u8> = (0..count).filter(|key| !poison.contains(key)).collect();
            prop_assert_eq!(found, poison);
            prop_assert_eq!(committed, healthy);
        }
    }
}
