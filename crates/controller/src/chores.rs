//! Whose turn it is to be brought in line at the API server: pure, no clock.
//!
//! One write at a time for each object; what happens to it meanwhile leads to another look afterwards. A failed write
//! waits, longer each time. An object can be asked to rest after a write, so that counters that change all the time
//! are written at a bearable rate.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::queue::Delays;

/// First wait after a failed write.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait after failed writes.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The turns of keys; see the module.
#[derive(Debug, Clone)]
pub struct Chores<K> {
    ready: BTreeSet<K>,
    later: Delays<K>,
    busy: HashSet<K>,
    again: HashSet<K>,
    rest_until: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    /// To be looked at that long after the next [`Chores::take`].
    asked: Vec<(K, Duration)>,
}

impl<K: Ord + Clone + Hash> Default for Chores<K> {
    fn default() -> Self {
        Self {
            ready: BTreeSet::new(),
            later: Delays::default(),
            busy: HashSet::new(),
            again: HashSet::new(),
            rest_until: HashMap::new(),
            failures: HashMap::new(),
            asked: Vec::new(),
        }
    }
}

impl<K: Ord + Clone + Hash> Chores<K> {
    /// `key` is to be looked at.
    pub fn push(&mut self, key: K) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if !(self.failures.contains_key(&key) && self.later.contains(&key)) {
            self.ready.insert(key);
        }
        // One that failed has its turn when its wait is over.
    }

    /// `key` is to be looked at again after `wait`, even if nothing happens to it.
    pub fn push_in(&mut self, key: K, wait: Duration) {
        self.asked.push((key, wait));
    }

    /// The next key to look at, if any.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        for (key, wait) in std::mem::take(&mut self.asked) {
            self.later.push(key, now + wait);
        }
        for key in self.later.due(now) {
            self.ready.insert(key);
        }
        while let Some(key) = self.ready.pop_first() {
            match self.rest_until.get(&key) {
                Some(until) if *until > now => self.later.push(key, *until),
                Some(_) => {
                    self.rest_until.remove(&key);
                    return Some(key);
                }
                None => return Some(key),
            }
        }
        None
    }

    /// When a key becomes due.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.next()
    }

    /// A write for `key` was sent.
    pub fn begin(&mut self, key: &K) {
        // It may have been pushed while the write was decided.
        if self.ready.remove(key) {
            self.again.insert(key.clone());
        }
        self.busy.insert(key.clone());
    }

    /// Whether a write for `key` is under way.
    pub fn is_busy(&self, key: &K) -> bool {
        self.busy.contains(key)
    }

    /// The write succeeded: `key` is looked at again at once, or after `rest`.
    pub fn succeeded(&mut self, key: &K, rest: Option<Duration>, now: Instant) {
        self.busy.remove(key);
        self.again.remove(key);
        self.failures.remove(key);
        if let Some(rest) = rest {
            self.rest_until.insert(key.clone(), now + rest);
        }
        self.ready.insert(key.clone());
    }

    /// There is nothing to do, or nothing more after a write, unless something happened meanwhile.
    pub fn idle(&mut self, key: &K) {
        self.busy.remove(key);
        self.failures.remove(key);
        if self.again.remove(key) {
            self.ready.insert(key.clone());
        }
    }

    /// The write failed: `key` is looked at again after a wait.
    pub fn failed(&mut self, key: &K, now: Instant) {
        self.busy.remove(key);
        self.again.remove(key);
        let count = self.failures.entry(key.clone()).or_insert(0);
        let wait = FIRST_WAIT
            .saturating_mul(1 << (*count).min(10))
            .min(LONGEST_WAIT);
        *count = count.saturating_add(1);
        self.later.push(key.clone(), now + wait);
    }

    /// Number of writes under way.
    pub fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Number of keys that wait for a look.
    pub fn len(&self) -> usize {
        self.ready.len() + self.later.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_at_a_time_and_another_look_afterwards() {
        let now = Instant::now();
        let mut chores = Chores::default();
        chores.push("a");
        assert_eq!(chores.take(now), Some("a"));
        chores.push("a");
        chores.begin(&"a");
        chores.push("a");
        assert_eq!(chores.take(now), None);
        chores.succeeded(&"a", None, now);
        assert_eq!(chores.take(now), Some("a"));
        assert_eq!(chores.take(now), None);
    }

    #[test]
    fn a_key_that_rests_is_looked_at_once_afterwards() {
        let now = Instant::now();
        let rest = Duration::from_millis(500);
        let mut chores = Chores::default();
        chores.begin(&"s");
        chores.succeeded(&"s", Some(rest), now);
        chores.push("s");
        assert_eq!(chores.take(now), None);
        chores.push("s");
        assert_eq!(chores.next_due(), Some(now + rest));
        assert_eq!(chores.take(now + rest), Some("s"));
        assert_eq!(chores.take(now + rest), None);
    }

    #[test]
    fn a_key_that_failed_and_then_needs_no_write_is_looked_at_again_when_something_happens() {
        let now = Instant::now();
        let mut chores = Chores::default();
        chores.begin(&"a");
        chores.failed(&"a", now);
        let due = now + FIRST_WAIT;
        assert_eq!(chores.take(due), Some("a"));
        chores.push("a");
        assert_eq!(chores.take(due), Some("a"), "its wait is over");
        chores.idle(&"a");
        chores.begin(&"a");
        chores.failed(&"a", due);
        assert_eq!(chores.next_due(), Some(due + FIRST_WAIT), "counted anew");
    }

    #[test]
    fn failures_wait_longer_each_time_whatever_happens_meanwhile() {
        let now = Instant::now();
        let mut chores = Chores::default();
        chores.begin(&"a");
        chores.failed(&"a", now);
        chores.push("a");
        assert_eq!(chores.take(now), None);
        assert_eq!(chores.take(now + FIRST_WAIT), Some("a"));
        chores.begin(&"a");
        chores.failed(&"a", now);
        assert_eq!(chores.next_due(), Some(now + 2 * FIRST_WAIT));
        for _ in 0..20 {
            chores.failed(&"a", now);
        }
        assert!(chores.take(now + LONGEST_WAIT).is_some());
        chores.begin(&"a");
        chores.succeeded(&"a", None, now);
        assert_eq!(chores.take(now), Some("a"));
    }
}
