//! Whether this node counts as able to ask: pure.
//!
//! Inability ends the Lease, and then the probes move to other nodes, so that here nothing is wanted and nothing fails any
//! more: that says nothing of the cause. So a node that was not able is believed again only after a while, which is longer
//! each time.

use std::time::{Duration, Instant};

/// What is wrong for no longer is no inability: ovsdb-server is started again, ovn-controller is busy.
const GRACE: Duration = Duration::from_secs(10);

/// First and last wait, from when nothing was wrong any more until it counts.
const WAIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// After being able for so long, the next wait is the first one again.
const FORGIVEN: Duration = Duration::from_secs(600);

/// How able this node is, and was.
#[derive(Debug, Default)]
pub struct Ability {
    /// Since when it is able.
    able: Option<Instant>,
    /// Since when something is wrong.
    wrong: Option<Instant>,
    /// It is not able again before.
    not_before: Option<Instant>,
    /// How often it ceased to be able, as far as that is not forgiven.
    times: u32,
}

impl Ability {
    /// Takes in whether all is well now. Returns whether the node is able.
    pub fn observe(&mut self, well: bool, now: Instant) -> bool {
        if well {
            self.wrong = None;
            if self.not_before.is_none_or(|then| now >= then) {
                let since = *self.able.get_or_insert(now);
                if now.saturating_duration_since(since) >= FORGIVEN {
                    self.times = 0;
                }
            }
            return self.able.is_some();
        }
        let since = *self.wrong.get_or_insert(now);
        if self.able.is_some() && now.saturating_duration_since(since) > GRACE {
            self.able = None;
            self.times += 1;
        }
        if self.able.is_none() && self.times > 0 {
            let (first, last) = WAIT;
            let wait = first * 2_u32.pow((self.times - 1).min(8));
            self.not_before = Some(now + wait.min(last));
        }
        self.able.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which ability begins and ends, where all is well but from and until these seconds.
    fn changes(wrong: &[(u64, u64)], end: u64) -> Vec<u64> {
        let (start, mut ability) = (Instant::now(), Ability::default());
        let (mut before, mut changes) = (false, Vec::new());
        for second in 0..end {
            let well = !wrong.iter().any(|(a, b)| (*a..*b).contains(&second));
            let able = ability.observe(well, start + Duration::from_secs(second));
            if std::mem::replace(&mut before, able) != able {
                changes.push(second);
            }
        }
        changes
    }

    #[test]
    fn a_node_is_able_at_once_and_stays_so_over_what_is_short() {
        assert_eq!(changes(&[], 60), [0]);
        assert_eq!(changes(&[(0, 40)], 60), [40], "it never was before");
        assert_eq!(changes(&[(20, 30), (31, 41)], 60), [0]);
    }

    #[test]
    fn each_time_it_takes_longer_until_it_is_believed_again() {
        // From the last second at which something was wrong: 30, 60, 120 seconds.
        let wrong = [(10, 50), (100, 120), (200, 220)];
        assert_eq!(changes(&wrong, 500), [0, 21, 79, 111, 179, 211, 339]);
        // Wrong again while it waits.
        assert_eq!(changes(&[(10, 50), (60, 62)], 200), [0, 21, 91]);
        // Never able for so long that it were forgiven.
        let wrong: Vec<(u64, u64)> = (0..8).map(|n| (n * 700 + 100, n * 700 + 200)).collect();
        let changes = changes(&wrong, 6_000);
        assert_eq!(changes[changes.len() - 1], 5_099 + 600, "at most");
    }

    #[test]
    fn what_was_long_ago_is_forgiven() {
        let wrong = [(10, 50), (800, 820)];
        assert_eq!(changes(&wrong, 1_000), [0, 21, 79, 811, 849]);
    }
}
