//! Which chassis ask NetworkProbes: those whose Lease holds. Pure: the time is passed in.
//!
//! As client-go takes it for leader election: a Lease holds for its time from when its renewal was *seen* here, so that the
//! clocks of nodes need not agree with this one. One that is there at the start counts as just renewed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use ycloud_api::key::{PROBER_LEASE_SECONDS, prober_lease};

/// Longest time that a Lease is believed to hold, whatever it says.
const LONGEST: Duration = Duration::from_secs(600);

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
    pub fn see(&mut self, lease: &Lease, now: Instant) -> Option<Change> {
        let chassis = Self::chassis(lease.metadata.name.as_deref()?)?.to_owned();
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.unwrap_or(PROBER_LEASE_SECONDS);
        let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST);
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let former = self.0.get(&chassis);
        let lived = former.is_some_and(|former| former.lives);
        // Given up: it ends at once.
        let held = holder.is_some() && spec.renew_time.is_some();
        let same = former.is_some_and(|former| {
            former.renewed == spec.renew_time && former.holder == holder && former.lasts == lasts
        });
        if same {
            return None;
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
        living.map(|seen| seen.at + seen.lasts).min()
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::jiff::Timestamp;

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

    #[test]
    fn a_lease_holds_from_when_its_renewal_was_seen() {
        let start = Instant::now();
        let (begun, ended) = (Change::Begun("a".into()), Change::Ended("a".into()));
        let mut leases = Leases::default();
        // The remote clock is far off, which does not matter.
        assert_eq!(
            leases.see(&lease("a", Some(9), Some(30)), start),
            Some(begun.clone())
        );
        assert_eq!(leases.next_due(), Some(start + 30 * SECOND));
        // The same again, as after a lost watch, is no renewal.
        let same = lease("a", Some(9), Some(30));
        assert_eq!(leases.see(&same, start + 20 * SECOND), None);
        assert_eq!(leases.next_due(), Some(start + 30 * SECOND));
        let renewed = lease("a", Some(10), Some(30));
        assert_eq!(leases.see(&renewed, start + 25 * SECOND), None);
        assert_eq!(leases.expire(start + 54 * SECOND), []);
        let expired = leases.expire(start + 55 * SECOND);
        assert_eq!(expired, std::slice::from_ref(&ended));
        assert_eq!(leases.expire(start + 56 * SECOND), []);
        assert_eq!(leases.next_due(), None);
        assert!(leases.is_known("a"));
        let back = lease("a", Some(60), None);
        assert_eq!(leases.see(&back, start + 60 * SECOND), Some(begun));
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
        leases.see(&lease("a", Some(1), Some(30)), now);
        let given_up = leases.see(&lease("a", None, Some(30)), now);
        assert_eq!(given_up, Some(Change::Ended("a".into())));
        assert_eq!(leases.see(&lease("b", None, None), now), None);
        assert_eq!(Leases::chassis("ycloud-controller"), None);
        assert_eq!(Leases::chassis("prober-"), None);
        assert_eq!(leases.expire(now + 1000 * SECOND), []);
    }
}
