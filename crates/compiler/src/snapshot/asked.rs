//! Which NetworkProbes it concerns that a chassis begins or ceases to ask: read off an index of the verdicts, so that with
//! thousands of probes and hundreds of chassis only those are judged again that may get another prober.

use std::collections::{BTreeMap, BTreeSet};

use ycloud_api::condition::reason;

use super::apply::{insert, put, remove};
use crate::compile::Rejection;
use crate::owner::ObjectKey;
use crate::prober::{Assignment, Seed};

/// The verdicts, by what may change them.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// The probes that each chassis asks.
    by: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Those that nobody can ask.
    unasked: BTreeSet<ObjectKey>,
    /// Those that another chassis asks than the one on which the target is.
    far: BTreeMap<ObjectKey, Far>,
    /// Who asks each, as above.
    prober: BTreeMap<ObjectKey, String>,
    /// Of those that the chassis of the target asks: the Vpc.
    near: BTreeMap<ObjectKey, String>,
    /// How many of a Vpc each chassis asks that are its own.
    at_home: BTreeMap<String, BTreeMap<String, usize>>,
}

/// A probe that is asked from afar.
#[derive(Debug, Clone)]
struct Far {
    /// The chassis of its target, which cannot ask, if it has one.
    on: Option<String>,
    seed: Seed,
    /// The weight of the chassis that asks.
    weight: u64,
}

impl Asked {
    /// Notes who asks a probe of `vpc`, and on which chassis its target is. `None`: there is no such probe any more. Returns
    /// the Vpcs in which other chassis ask what is their own than before.
    pub(super) fn note(
        &mut self,
        key: &ObjectKey,
        vpc: &str,
        verdict: Option<&Result<Assignment, Rejection>>,
        on: Option<String>,
    ) -> Vec<String> {
        let prober = match verdict {
            Some(Ok(assignment)) => Some(assignment.prober.clone()),
            Some(Err(_)) | None => None,
        };
        let waits = matches!(verdict, Some(Err(why)) if why.reason == reason::NO_PROBER);
        match waits {
            true => self.unasked.insert(key.clone()),
            false => self.unasked.remove(key),
        };
        let far = prober
            .as_ref()
            .filter(|prober| Some(*prober) != on.as_ref());
        let far = far.map(|prober| {
            let seed = Seed::of(key);
            let weight = seed.weight(prober);
            Far { on, seed, weight }
        });
        let near = prober.is_some() && far.is_none();
        put(&mut self.far, key, far);
        let before = put(&mut self.prober, key, prober.clone());
        let near = near.then(|| vpc.to_owned());
        let was_near = put(&mut self.near, key, near.clone());
        if before == prober && was_near == near {
            return Vec::new();
        }
        let mut changed = Vec::new();
        if let Some((vpc, chassis)) = was_near.zip(before.clone())
            && self.leaves(&vpc, &chassis)
        {
            changed.push(vpc);
        }
        if let Some((vpc, chassis)) = near.zip(prober.clone())
            && self.comes(&vpc, &chassis)
        {
            changed.push(vpc);
        }
        if let Some(before) = before {
            remove(&mut self.by, &before, key);
        }
        if let Some(prober) = prober {
            insert(&mut self.by, &prober, key.clone());
        }
        changed
    }

    /// Counts a probe of a chassis' own more; whether it is the first.
    fn comes(&mut self, vpc: &str, chassis: &str) -> bool {
        let chassis_of = self.at_home.entry(vpc.to_owned()).or_default();
        let count = chassis_of.entry(chassis.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Counts one less; whether it was the last.
    fn leaves(&mut self, vpc: &str, chassis: &str) -> bool {
        let Some(chassis_of) = self.at_home.get_mut(vpc) else {
            return false;
        };
        let Some(count) = chassis_of.get_mut(chassis) else {
            return false;
        };
        *count -= 1;
        let last = *count == 0;
        if last {
            chassis_of.remove(chassis);
        }
        if chassis_of.is_empty() {
            self.at_home.remove(vpc);
        }
        last
    }

    /// Whether a chassis asks something of a Vpc that is on the chassis itself.
    pub(super) fn is_at_home(&self, vpc: &str, chassis: &str) -> bool {
        let chassis_of = self.at_home.get(vpc);
        chassis_of.is_some_and(|all| all.contains_key(chassis))
    }

    /// Whether the target of a probe is on a chassis, and another one asks.
    pub(super) fn is_taken_over(&self, key: &ObjectKey) -> bool {
        self.far.get(key).is_some_and(|far| far.on.is_some())
    }

    /// The probes that may get another prober, or another source address, as `chassis` can ask now, or cannot.
    pub(super) fn concerned(&self, chassis: &str, able: bool) -> BTreeSet<ObjectKey> {
        let mut concerned = self.by.get(chassis).cloned().unwrap_or_default();
        if !able {
            return concerned;
        }
        concerned.extend(self.unasked.iter().cloned());
        let gains = |far: &Far| {
            far.on.as_deref() == Some(chassis) || far.seed.weight(chassis) >= far.weight
        };
        let far = self.far.iter().filter(|(_, far)| gains(far));
        concerned.extend(far.map(|(key, _)| key.clone()));
        concerned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(prober: &str) -> Result<Assignment, Rejection> {
        Ok(Assignment {
            prober: prober.into(),
            source: [100, 68, 0, 2].into(),
        })
    }

    #[test]
    fn a_chassis_that_begins_concerns_only_probes_that_may_be_its_own() {
        let key = |n: usize| ObjectKey::new("ns", format!("p{n}"));
        let mut asked = Asked::default();
        for n in 0..1000 {
            asked.note(&key(n), "v", Some(&verdict("a")), Some("a".into()));
        }
        assert!(asked.concerned("b", true).is_empty(), "all are near");
        assert_eq!(asked.concerned("a", false).len(), 1000);
        // From afar: a tenth, as b would be one of ten.
        let all = ["a", "c", "d", "e", "f", "g", "h", "i", "j"];
        for n in 0..1000 {
            let seed = Seed::of(&key(n));
            let chosen = all.iter().max_by_key(|chassis| seed.weight(chassis));
            asked.note(&key(n), "v", Some(&verdict(chosen.unwrap())), None);
        }
        let concerned = asked.concerned("b", true).len();
        assert!((60..150).contains(&concerned), "{concerned}");
        assert!(asked.concerned("b", false).is_empty());
        // What is on b is b's to ask, whatever its weight; what nobody asks is anybody's.
        let none = Err(Rejection::new(reason::NO_PROBER, "nobody"));
        let other = Err(Rejection::new(reason::NOT_FOUND, "no Vpc"));
        for n in 0..1000 {
            asked.note(&key(n), "v", Some(&other), None);
        }
        asked.note(&key(1), "v", Some(&verdict("a")), Some("b".into()));
        asked.note(&key(2), "v", Some(&none), None);
        assert_eq!(asked.concerned("b", true), [key(1), key(2)].into());
        for n in 0..1000 {
            asked.note(&key(n), "v", None, None);
        }
        let Asked {
            by,
            unasked,
            far,
            prober,
            near,
            at_home,
        } = asked;
        assert!(by.is_empty() && unasked.is_empty() && far.is_empty() && prober.is_empty());
        assert!(near.is_empty() && at_home.is_empty());
    }

    #[test]
    fn a_vpc_is_named_when_a_chassis_begins_or_ceases_to_ask_what_is_its_own() {
        let (one, two) = (ObjectKey::new("ns", "one"), ObjectKey::new("ns", "two"));
        let mut asked = Asked::default();
        let mut note = |key, vpc, prober: &str, on: &str| -> Vec<String> {
            asked.note(key, vpc, Some(&verdict(prober)), Some(on.to_owned()))
        };
        for (key, vpc, prober, on, changed) in [
            (&one, "v", "a", "a", &["v"][..]),
            (&two, "v", "a", "a", &[]),
            (&two, "v", "a", "a", &[]),
            // Its chassis changes, or is dead, or its target moves to another Vpc.
            (&two, "v", "b", "b", &["v"]),
            (&two, "v", "a", "b", &["v"]),
            (&one, "w", "a", "a", &["v", "w"]),
        ] {
            assert_eq!(note(key, vpc, prober, on), changed, "{key} {prober} {on}");
        }
        assert!(asked.is_at_home("w", "a") && !asked.is_at_home("v", "a"));
        assert!(asked.is_taken_over(&two) && !asked.is_taken_over(&one));
    }
}
