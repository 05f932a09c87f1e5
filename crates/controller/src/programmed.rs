//! When the hypervisors have a Service's rows in their flow tables: pure.
//!
//! A transaction that changes rows adds one to `NB_Global:nb_cfg`. `ovn-northd` passes the number on once it has
//! translated the rows, and each `ovn-controller` writes it to its own `Chassis_Private:nb_cfg` once the flows are
//! installed (ovn-sb(5)). A Service is programmed when every living chassis has reached the number that the Northbound
//! database had when the Service's rows were seen to be as they should. Dead chassis are not waited for: a chassis
//! lives while the Node of its name is Ready or, where there is no such Node (a DPU, a bare-metal server's chassis), while
//! its ycloud-cni's Lease holds, which nobody but that agent renews. While none lives, nothing becomes programmed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// What a Service's rows were when they were right.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settled {
    digest: String,
    nb_cfg: i64,
    programmed: bool,
}

/// Follows Services, of key `K`, from the Northbound database to the hypervisors.
#[derive(Debug, Clone)]
pub struct Tracker<K> {
    services: HashMap<K, Settled>,
    waiting: BTreeSet<(i64, K)>,
    chassis: BTreeMap<String, i64>,
    living: BTreeSet<String>,
}

impl<K: Ord + Clone + Hash> Default for Tracker<K> {
    fn default() -> Self {
        Self {
            services: HashMap::new(),
            waiting: BTreeSet::new(),
            chassis: BTreeMap::new(),
            living: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone + Hash> Tracker<K> {
    /// The database holds exactly the rows of content `digest`, and its `nb_cfg` is this. The same content seen again
    /// keeps its first number, so that a Service does not wait for changes of others.
    pub fn settle(&mut self, key: &K, digest: String, nb_cfg: i64) {
        if let Some(settled) = self.services.get(key) {
            // A number below the one waited for means that the database was made anew.
            if settled.digest == digest && settled.nb_cfg <= nb_cfg {
                return;
            }
            self.waiting.remove(&(settled.nb_cfg, key.clone()));
        }
        self.waiting.insert((nb_cfg, key.clone()));
        let settled = Settled {
            digest,
            nb_cfg,
            programmed: false,
        };
        self.services.insert(key.clone(), settled);
    }

    /// The rows of `key` are not (any more) as they should be.
    pub fn unsettle(&mut self, key: &K) {
        if let Some(settled) = self.services.remove(key) {
            self.waiting.remove(&(settled.nb_cfg, key.clone()));
        }
    }

    /// Whether the chassis `name` lives; there need not be such a chassis.
    pub fn lives(&mut self, name: &str, lives: bool) {
        if lives {
            self.living.insert(name.to_owned());
        } else {
            self.living.remove(name);
        }
    }

    /// What chassis `name` has reached; `None`: there is no such chassis any more.
    pub fn chassis(&mut self, name: &str, nb_cfg: Option<i64>) {
        match nb_cfg {
            Some(nb_cfg) => self.chassis.insert(name.to_owned(), nb_cfg),
            None => self.chassis.remove(name),
        };
    }

    /// Whether chassis `name` has reached this number.
    pub fn has_reached(&self, name: &str, nb_cfg: i64) -> bool {
        self.chassis
            .get(name)
            .is_some_and(|reached| *reached >= nb_cfg)
    }

    /// Forgets all chassis.
    pub fn forget_chassis(&mut self) {
        self.chassis.clear();
    }

    /// The number that every living chassis has reached; `None` while none lives.
    pub fn reached(&self) -> Option<i64> {
        let living = self
            .chassis
            .iter()
            .filter(|(name, _)| self.living.contains(*name));
        living.map(|(_, nb_cfg)| *nb_cfg).min()
    }

    /// Marks and returns what has become programmed since the last call, sorted.
    pub fn advance(&mut self) -> BTreeSet<K> {
        let mut done = BTreeSet::new();
        let Some(reached) = self.reached() else {
            return done;
        };
        while self
            .waiting
            .first()
            .is_some_and(|(nb_cfg, _)| *nb_cfg <= reached)
        {
            if let Some((_, key)) = self.waiting.pop_first() {
                if let Some(settled) = self.services.get_mut(&key) {
                    settled.programmed = true;
                }
                done.insert(key);
            }
        }
        done
    }

    /// The digest of what the hypervisors have of `key`; `None` while they are behind.
    pub fn programmed(&self, key: &K) -> Option<&str> {
        let settled = self.services.get(key)?;
        settled.programmed.then_some(settled.digest.as_str())
    }

    /// Number of Services that wait for hypervisors.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(tracker: &mut Tracker<&'static str>) -> Vec<&'static str> {
        tracker.advance().into_iter().collect()
    }

    #[test]
    fn every_living_chassis_is_waited_for_and_no_dead_one() {
        let mut tracker = Tracker::default();
        for node in ["a", "b", "dead"] {
            tracker.lives(node, true);
            tracker.chassis(node, Some(4));
        }
        tracker.settle(&"s", "d1".into(), 5);
        assert!(done(&mut tracker).is_empty());
        tracker.chassis("a", Some(5));
        assert!(done(&mut tracker).is_empty());
        tracker.chassis("b", Some(7));
        assert!(done(&mut tracker).is_empty());
        tracker.lives("dead", false);
        assert_eq!(done(&mut tracker), ["s"]);
        assert_eq!(tracker.programmed(&"s"), Some("d1"));
        assert!(done(&mut tracker).is_empty());
    }

    #[test]
    fn without_a_living_chassis_nothing_is_programmed() {
        let mut tracker = Tracker::default();
        tracker.settle(&"s", "d".into(), 0);
        assert!(done(&mut tracker).is_empty());
        tracker.lives("a", true);
        assert!(done(&mut tracker).is_empty(), "a Node without a chassis");
        tracker.lives("a", false);
        tracker.chassis("a", Some(9));
        assert!(done(&mut tracker).is_empty(), "a chassis without a Node");
        tracker.lives("a", true);
        assert_eq!(done(&mut tracker), ["s"]);
        tracker.chassis("a", None);
        assert_eq!(tracker.reached(), None);
    }

    #[test]
    fn the_same_content_keeps_its_number_and_new_content_waits_again() {
        let mut tracker = Tracker::default();
        tracker.lives("a", true);
        tracker.chassis("a", Some(3));
        tracker.settle(&"s", "d1".into(), 3);
        assert_eq!(done(&mut tracker), ["s"]);
        tracker.settle(&"s", "d1".into(), 9);
        assert_eq!(tracker.programmed(&"s"), Some("d1"));
        tracker.settle(&"s", "d2".into(), 10);
        assert_eq!(tracker.programmed(&"s"), None);
        tracker.settle(&"s", "d2".into(), 12);
        tracker.chassis("a", Some(10));
        assert_eq!(done(&mut tracker), ["s"]);
        tracker.unsettle(&"s");
        assert_eq!((tracker.programmed(&"s"), tracker.waiting()), (None, 0));
    }

    #[test]
    fn a_database_made_anew_counts_from_zero_again() {
        let mut tracker = Tracker::default();
        tracker.lives("a", true);
        tracker.chassis("a", Some(0));
        tracker.settle(&"s", "d".into(), 500);
        tracker.settle(&"s", "d".into(), 1);
        tracker.chassis("a", Some(1));
        assert_eq!(done(&mut tracker), ["s"]);
    }
}
