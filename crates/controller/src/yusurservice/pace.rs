//! How often health is told of and acted upon: pure, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ycloud_compiler::endpoint::HealthChange;

use super::plan::Transition;

/// How many plans probes may cause at once, and how often after that. What else happens is planned for at once.
///
/// That bounds what flapping backends write, however many flap and however often: at most [`PLANS`] plans and then two in
/// [`PLAN_EVERY`] (one that news cause, one that those that had to wait cause), of which each writes a slice at most once.
/// No memory of single backends is needed for that: how fast one may come and go is what the thresholds and the period
/// of its check say.
const PLANS: u32 = 20;

/// See [`PLANS`].
const PLAN_EVERY: Duration = Duration::from_secs(1);

/// How many Events of backends that come and go a YusurService may have at once.
const EVENTS: u32 = 10;

/// How often one may come after that.
const EVENT_EVERY: Duration = Duration::from_secs(30);

/// How many backends an Event names before it counts the rest.
const NAMED: usize = 5;

/// Lets through `burst` at once, and then one in `every`.
#[derive(Debug, Clone)]
pub struct Bucket {
    burst: u32,
    every: Duration,
    /// When all of `burst` are there again.
    full: Option<Instant>,
}

impl Bucket {
    /// A full one; `burst` is at least 1.
    pub fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            full: None,
        }
    }

    /// One that holds plans to their pace.
    pub fn of_plans() -> Self {
        Self::new(PLANS, PLAN_EVERY)
    }

    /// Takes one.
    ///
    /// # Errors
    /// There is none; when there will be.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full = self.full.unwrap_or(now).max(now);
        let spare = self.every * (self.burst - 1);
        match full > now + spare {
            true => Err(full - spare),
            false => {
                self.full = Some(full + self.every);
                Ok(())
            }
        }
    }
}

/// Makes Events of backends that come and go, each told once, and not too many.
#[derive(Debug)]
pub struct Teller {
    bucket: Bucket,
    /// What was said and is still to be done, as far as the watch shows: backend → whether it is healthy.
    said: BTreeMap<String, bool>,
    /// The backends that the last call told of.
    last: Vec<String>,
    /// How many changes were not told of.
    held_back: usize,
}

impl Default for Teller {
    fn default() -> Self {
        Self {
            bucket: Bucket::new(EVENTS, EVENT_EVERY),
            said: BTreeMap::new(),
            last: Vec::new(),
            held_back: 0,
        }
    }
}

impl Teller {
    /// What to say of `changes`, which are those of every plan. Those that were said before, because a plan was made anew
    /// before the watch showed what the former one wrote, are left out. Once it shows that, nothing is remembered: another
    /// change of that backend, or of one made anew under its name and address, is news.
    pub fn tell(&mut self, changes: &[HealthChange], now: Instant) -> Vec<Transition> {
        let open: BTreeSet<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        self.said.retain(|name, _| open.contains(name.as_str()));
        let new = |change: &&HealthChange| self.said.get(&change.name) != Some(&change.healthy);
        let new: Vec<&HealthChange> = changes.iter().filter(new).collect();
        self.last = new.iter().map(|change| change.name.clone()).collect();
        for change in &new {
            self.said.insert(change.name.clone(), change.healthy);
        }
        let (back, left): (Vec<_>, Vec<_>) = new.into_iter().partition(|change| change.healthy);
        let mut all = Vec::new();
        for (changes, warning) in [(left, true), (back, false)] {
            if changes.is_empty() {
                continue;
            }
            if self.bucket.take(now).is_err() {
                self.held_back += changes.len();
                continue;
            }
            let before = match std::mem::take(&mut self.held_back) {
                0 => String::new(),
                n => format!("; and {n} transitions before"),
            };
            all.push(transition(&changes, warning, &before));
        }
        all
    }

    /// What was last told was not published, as the writes failed: it is to be told again.
    pub fn take_back(&mut self) {
        for name in std::mem::take(&mut self.last) {
            self.said.remove(&name);
        }
    }
}

fn transition(changes: &[&HealthChange], warning: bool, before: &str) -> Transition {
    let line = |change: &&HealthChange| match (warning, change.served) {
        (true, true) => format!("{} left: {}", change.name, change.why),
        (true, false) => format!("{} takes no connections: {}", change.name, change.why),
        (false, _) => format!("{} takes connections", change.name),
    };
    let lines: Vec<String> = changes.iter().take(NAMED).map(line).collect();
    let rest = match changes.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let reason = match warning {
        true => "BackendUnhealthy",
        false => "BackendHealthy",
    };
    Transition {
        warning,
        reason: reason.to_owned(),
        action: "Health",
        message: format!("{}{rest}{before}", lines.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, healthy: bool) -> HealthChange {
        HealthChange {
            name: name.into(),
            healthy,
            served: !healthy,
            why: if healthy { "" } else { "connection refused" }.into(),
        }
    }

    #[test]
    fn flapping_backends_cause_a_bounded_number_of_plans() {
        let start = Instant::now();
        let mut bucket = Bucket::of_plans();
        let (mut plans, mut waits) = (0, None);
        // News each 10 ms for a minute; one that must wait is planned for when it may be.
        for step in 0..6000 {
            let now = start + Duration::from_millis(10 * step);
            if waits.is_some_and(|at| at <= now) {
                waits = None;
                plans += 1;
            }
            match bucket.take(now) {
                Ok(()) => plans += 1,
                Err(at) => waits = waits.or(Some(at)),
            }
        }
        assert!((20..=140).contains(&plans), "{plans}");
        let quiet = start + Duration::from_secs(120);
        let free = (0..30).filter(|_| bucket.take(quiet).is_ok()).count();
        assert_eq!(free, 20, "after a quiet minute all are there again");
    }

    #[test]
    fn events_name_who_left_and_why_and_are_told_once() {
        let now = Instant::now();
        let mut teller = Teller::default();
        let left = [change("vm-7 (10.2.0.7)", false)];
        let said = teller.tell(&left, now);
        assert_eq!(said[0].message, "vm-7 (10.2.0.7) left: connection refused");
        assert!(said[0].warning);
        assert_eq!(teller.tell(&left, now), [], "the watch lags");
        let never = [HealthChange {
            served: false,
            ..change("new (10.2.0.9:8081)", false)
        }];
        let said = Teller::default().tell(&never, now);
        let text = "new (10.2.0.9:8081) takes no connections: connection refused";
        assert_eq!((said[0].message.as_str(), said[0].warning), (text, true));
        let both = [
            change("vm-7 (10.2.0.7)", true),
            change("b (10.2.0.8)", false),
        ];
        let said = teller.tell(&both, now);
        assert_eq!(said.len(), 2);
        assert_eq!(said[1].message, "vm-7 (10.2.0.7) takes connections");
        assert!(!said[1].warning);
        teller.take_back();
        assert_eq!(teller.tell(&both, now).len(), 2, "told again");
        let many: Vec<HealthChange> = (0..7).map(|n| change(&format!("p{n}"), false)).collect();
        let said = teller.tell(&many, now);
        assert!(
            said[0]
                .message
                .ends_with("p4 left: connection refused; and 2 more")
        );
    }

    #[test]
    fn a_backend_made_anew_that_fails_again_is_news() {
        let now = Instant::now();
        let mut teller = Teller::default();
        let left = [change("vm-7 (10.2.0.7)", false)];
        assert_eq!(teller.tell(&left, now).len(), 1);
        assert_eq!(teller.tell(&left, now), []);
        // The watch caught up; the VNic is deleted and made anew, is healthy at its first look, and fails.
        assert_eq!(teller.tell(&[], now), []);
        assert_eq!(teller.tell(&left, now).len(), 1);
        assert_eq!(teller.said.len(), 1);
    }

    #[test]
    fn events_that_are_held_back_are_counted() {
        let now = Instant::now();
        let mut teller = Teller::default();
        let mut told = 0;
        for turn in 0..22 {
            told += teller.tell(&[change("a", turn % 2 == 1)], now).len();
        }
        assert_eq!(told, 10);
        let later = now + EVENT_EVERY;
        let said = teller.tell(&[change("a", false), change("a", true)], later);
        let message = &said[0].message;
        assert!(
            message.ends_with("; and 13 transitions before")
                || message.ends_with("; and 12 transitions before"),
            "{message}"
        );
    }
}
