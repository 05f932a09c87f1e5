//! Which chassis ask NetworkProbes: those whose Lease holds. Pure: the time is passed in.
//!
//! As client-go takes it for leader election: a Lease holds for its time from when its renewal was *seen* here, so that the
//! clocks of nodes need not agree with this one. One that is there at the start counts as just renewed, unless it is stale beyond
//! what clocks may differ by.
//!
//! Where none of several Leases is renewed any more, it is this controller that hears nothing, as while the API server is away:
//! none ends then, and when it hears of one again, each has its whole time anew. Else a standby that takes over after an outage would
//! call every prober dead until its next renewal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use ycloud_api::key::{PROBER_LEASE_SECONDS, prober_lease};

/// Longest time that a Lease is believed to hold, whatever it says.
const LONGEST: Duration = Duration::from_secs(600);

/// How long nothing may be heard of any prober before that is believed.
const DEAF: Duration = Duration::from_secs(600);

/// How many times its duration a Lease that is seen for the first time may be old, by its own clock.
const STALE: i64 = 10;

/// What a Lease said, and when that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    renewed: Option<MicroTime>,
    holder: Option<String>,
    at: Instant,
    lasts: Duration,
    lives: bool,
}

/// Whether a chassis asks, and since when not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It began to ask.
    Begun(String),
    /// It does so no more.
    Ended(String),
}

/// The Leases of probers, by chassis.
#[derive(Debug, Clone, Default)]
pub struct Leases(BTreeMap<String, Seen>);

impl Leases {
    /// The chassis of a Lease's name; `None` if the name is that of another Lease.
    pub fn chassis(lease: &str) -> Option<&str> {
        let chassis = lease.strip_prefix(&prober_lease(""))?;
        (!chassis.is_empty()).then_some(chassis)
    }

    /// A Lease reads so at `now`.
    ///
    /// `time`: the same by this machine's clock.
    pub fn see(&mut self, lease: &Lease, now: Instant, time: Timestamp) -> Option<Change> {
        let chassis = Self::chassis(lease.metadata.name.as_deref()?)?.to_owned();
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.unwrap_or(PROBER_LEASE_SECONDS);
        let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST);
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let former = self.0.get(&chassis);
        let lived = former.is_some_and(|former| former.lives);
        // Given up: it ends at once.
        let held = holder.is_some() && spec.renew_time.is_some();
        let stale = former.is_none() && is_stale(spec.renew_time.as_ref(), lasts, time);
        let held = held && !stale;
        let same = former.is_some_and(|former| {
            former.renewed == spec.renew_time && former.holder == holder && former.lasts == lasts
        });
        if same {
            return None;
        }
        if self.is_deaf(now) {
            let living = self.0.values_mut().filter(|seen| seen.lives);
            living.for_each(|seen| seen.at = now);
        }
        let seen = Seen {
            renewed: spec.renew_time,
            holder,
            at: now,
            lasts,
            lives: held,
        };
        self.0.insert(chassis.clone(), seen);
        match (lived, held) {
            (false, true) => Some(Change::Begun(chassis)),
            (true, false) => Some(Change::Ended(chassis)),
            _ => None,
        }
    }

    /// There is no such Lease any more.
    pub fn forget(&mut self, lease: &str) -> Option<Change> {
        let chassis = Self::chassis(lease)?;
        let former = self.0.remove(chassis)?;
        former.lives.then(|| Change::Ended(chassis.to_owned()))
    }

    /// Those whose Lease has ended by `now`, each once.
    pub fn expire(&mut self, now: Instant) -> Vec<Change> {
        if self.is_deaf(now) {
            return Vec::new();
        }
        let due = self
            .0
            .iter_mut()
            .filter(|(_, seen)| seen.lives && seen.at + seen.lasts <= now);
        due.map(|(chassis, seen)| {
            seen.lives = false;
            Change::Ended(chassis.clone())
        })
        .collect()
    }

    /// When the next Lease ends unless it is renewed.
    pub fn next_due(&self) -> Option<Instant> {
        let living = self.0.values().filter(|seen| seen.lives);
        let due = living.map(|seen| seen.at + seen.lasts).min()?;
        match self.is_deaf(due) {
            true => self.heard().map(|(heard, _)| heard + DEAF),
            false => Some(due),
        }
    }

    /// Whether at `now` nothing has been heard for so long that it must be this controller's fault.
    fn is_deaf(&self, now: Instant) -> bool {
        let silent = |(heard, lasts): (Instant, Duration)| {
            let silence = now.saturating_duration_since(heard);
            silence >= lasts / 2 && silence < DEAF
        };
        self.living() > 1 && self.heard().is_some_and(silent)
    }

    /// When something was last heard of any living one, and how long its Lease lasts.
    fn heard(&self) -> Option<(Instant, Duration)> {
        let living = self.0.values().filter(|seen| seen.lives);
        living.map(|seen| (seen.at, seen.lasts)).max()
    }

    /// Whether there is a Lease of this chassis, even one that has ended.
    pub fn is_known(&self, chassis: &str) -> bool {
        self.0.contains_key(chassis)
    }

    /// How many hold.
    pub fn living(&self) -> usize {
        self.0.values().filter(|seen| seen.lives).count()
    }
}

/// Whether a Lease of this renewal was given up long ago, whatever clocks differ by.
fn is_stale(renewed: Option<&MicroTime>, lasts: Duration, time: Timestamp) -> bool {
    let Some(renewed) = renewed else {
        return false;
    };
    let age = time.as_second().saturating_sub(renewed.0.as_second());
    let lasts = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
    age > lasts.saturating_mul(STALE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    fn lease(chassis: &str, renewed: Option<i64>, seconds: Option<i32>) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.name = Some(prober_lease(chassis));
        lease.spec = Some(LeaseSpec {
            holder_identity: renewed.map(|_| chassis.to_owned()),
            renew_time: renewed.map(|at| MicroTime(Timestamp::from_second(at).unwrap())),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        });
        lease
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// This machine's clock, soon after the Leases' own.
    fn clock() -> Timestamp {
        Timestamp::from_second(100).unwrap()
    }

    #[test]
    fn none_ends_while_nothing_is_heard_of_any_of_several() {
        let start = Instant::now();
        let mut leases = Leases::default();
        for name in ["a", "b", "c"] {
            leases.see(&lease(name, Some(1), Some(30)), start, clock());
        }
        // The API server is away; nobody is looked at before ten minutes.
        assert_eq!(leases.next_due(), Some(start + DEAF));
        assert_eq!(leases.expire(start + 60 * SECOND), []);
        // It is back. The others have their whole time to be heard of.
        let back = start + 90 * SECOND;
        leases.see(&lease("a", Some(91), Some(30)), back, clock());
        assert_eq!(leases.living(), 3);
        assert_eq!(leases.expire(back + 14 * SECOND), []);
        leases.see(
            &lease("a", Some(101), Some(30)),
            back + 10 * SECOND,
            clock(),
        );
        leases.see(
            &lease("b", Some(101), Some(30)),
            back + 10 * SECOND,
            clock(),
        );
        leases.see(
            &lease("a", Some(111), Some(30)),
            back + 20 * SECOND,
            clock(),
        );
        assert_eq!(leases.next_due(), Some(back + 30 * SECOND));
        let ended = leases.expire(back + 30 * SECOND);
        assert_eq!(
            ended,
            [Change::Ended("c".into())],
            "which did not come back"
        );
        // Nothing for very long is believed.
        let ended = leases.expire(back + 20 * SECOND + DEAF);
        assert_eq!(ended.len(), 2);
    }

    #[test]
    fn a_lease_of_long_ago_does_not_begin() {
        let now = Instant::now();
        let mut leases = Leases::default();
        let late = Timestamp::from_second(1 + 301).unwrap();
        assert_eq!(leases.see(&lease("a", Some(1), Some(30)), now, late), None);
        assert_eq!((leases.living(), leases.next_due()), (0, None));
        let renewed = lease("a", Some(2), Some(30));
        let begun = Some(Change::Begun("a".into()));
        assert_eq!(
            leases.see(&renewed, now, late),
            begun,
            "it is renewed after all"
        );
    }

    #[test]
    fn a_lease_holds_from_when_its_renewal_was_seen() {
        let start = Instant::now();
        let (begun, ended) = (Change::Begun("a".into()), Change::Ended("a".into()));
        let mut leases = Leases::default();
        // The remote clock is far off, which does not matter.
        assert_eq!(
            leases.see(&lease("a", Some(9), Some(30)), start, clock()),
            Some(begun.clone())
        );
        assert_eq!(leases.next_due(), Some(start + 30 * SECOND));
        // The same again, as after a lost watch, is no renewal.
        let same = lease("a", Some(9), Some(30));
        assert_eq!(leases.see(&same, start + 20 * SECOND, clock()), None);
        assert_eq!(leases.next_due(), Some(start + 30 * SECOND));
        let renewed = lease("a", Some(10), Some(30));
        assert_eq!(leases.see(&renewed, start + 25 * SECOND, clock()), None);
        assert_eq!(leases.expire(start + 54 * SECOND), []);
        let expired = leases.expire(start + 55 * SECOND);
        assert_eq!(expired, std::slice::from_ref(&ended));
        assert_eq!(leases.expire(start + 56 * SECOND), []);
        assert_eq!(leases.next_due(), None);
        assert!(leases.is_known("a"));
        let back = lease("a", Some(60), None);
        assert_eq!(leases.see(&back, start + 60 * SECOND, clock()), Some(begun));
        assert_eq!(leases.next_due(), Some(start + 90 * SECOND), "by default");
        assert_eq!(
            (leases.living(), leases.forget("prober-a")),
            (1, Some(ended))
        );
        assert!(!leases.is_known("a"));
        assert_eq!(leases.forget("prober-a"), None);
    }

    #[test]
    fn a_lease_that_is_given_up_ends_at_once_and_others_are_not_looked_at() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.see(&lease("a", Some(1), Some(30)), now, clock());
        let given_up = leases.see(&lease("a", None, Some(30)), now, clock());
        assert_eq!(given_up, Some(Change::Ended("a".into())));
        assert_eq!(leases.see(&lease("b", None, None), now, clock()), None);
        assert_eq!(Leases::chassis("ycloud-controller"), None);
        assert_eq!(Leases::chassis("prober-"), None);
        assert_eq!(leases.expire(now + 1000 * SECOND), []);
    }
}
