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
    /// Notes who asks a probe, and on which chassis its target is. `None`: there is no such probe any more.
    pub(super) fn note(
        &mut self,
        key: &ObjectKey,
        verdict: Option<&Result<Assignment, Rejection>>,
        on: Option<String>,
    ) {
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
        put(&mut self.far, key, far);
        let before = put(&mut self.prober, key, prober.clone());
        if before == prober {
            return;
        }
        if let Some(before) = before {
            remove(&mut self.by, &before, key);
        }
        if let Some(prober) = prober {
            insert(&mut self.by, &prober, key.clone());
        }
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
            asked.note(&key(n), Some(&verdict("a")), Some("a".into()));
        }
        assert!(asked.concerned("b", true).is_empty(), "all are near");
        assert_eq!(asked.concerned("a", false).len(), 1000);
        // From afar: a tenth, as b would be one of ten.
        let all = ["a", "c", "d", "e", "f", "g", "h", "i", "j"];
        for n in 0..1000 {
            let seed = Seed::of(&key(n));
            let chosen = all.iter().max_by_key(|chassis| seed.weight(chassis));
            asked.note(&key(n), Some(&verdict(chosen.unwrap())), None);
        }
        let concerned = asked.concerned("b", true).len();
        assert!((60..150).contains(&concerned), "{concerned}");
        assert!(asked.concerned("b", false).is_empty());
        // What is on b is b's to ask, whatever its weight; what nobody asks is anybody's.
        let none = Err(Rejection::new(reason::NO_PROBER, "nobody"));
        let other = Err(Rejection::new(reason::NOT_FOUND, "no Vpc"));
        for n in 0..1000 {
            asked.note(&key(n), Some(&other), None);
        }
        asked.note(&key(1), Some(&verdict("a")), Some("b".into()));
        asked.note(&key(2), Some(&none), None);
        assert_eq!(asked.concerned("b", true), [key(1), key(2)].into());
        for n in 0..1000 {
            asked.note(&key(n), None, None);
        }
        let Asked {
            by,
            unasked,
            far,
            prober,
        } = asked;
        assert!(by.is_empty() && unasked.is_empty() && far.is_empty() && prober.is_empty());
    }
}
