//! The panic threshold: when most targets fall silent at once, the prober is suspected, not they. Pure.
//!
//! Every target of a prober hangs on the same device, bridge and machine. When that breaks, all fall silent together, and
//! a prober that believed itself would empty every endpoint list it has a say in, although clients elsewhere may reach the
//! backends well. So a target that fell silent is called Unhealthy only if the prober is not suspected; else it becomes
//! Unknown, which keeps it among the endpoints for a bounded time.
//!
//! * **Only silence is suspect.** A refused connection, a wrong certificate or HTTP 500 is an answer: the way there and
//!   back works, and the target is believed at once, however many fail so.
//! * **A control decides.** A control is a target that says nothing of any backend but shares the way to them, such as the
//!   group's router. It answers: the prober is well, the targets are believed. It is silent: the prober is suspected,
//!   were it for one target.
//! * **Without a control, numbers decide**: at least [`Rule::minimum`] targets of a group (or of the prober as a whole) are
//!   silent, and more than [`Rule::percent`] of those that were well. Fewer prove nothing: two machines of a tenant may
//!   well have been switched off together.
//! * **It ends.** After [`Rule::patience`] of silence a target is Unhealthy all the same: a prober that was wrong for so
//!   long has been replaced, or its targets are dead.
//!
//! A failure threshold of 1 asks for haste: the first targets to be asked after an accident are called unhealthy before
//! there is anything to compare them with. From 2 on, with equal periods, every target has been asked since.

use std::time::Duration;

/// When a prober suspects itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Fewest silent targets that can raise suspicion without a control. Default 4.
    pub minimum: usize,
    /// Percent of the targets that were well; more than that must be silent. Default 50.
    pub percent: usize,
    /// How long a silent target is given the benefit of the doubt. Default 60 s.
    pub patience: Duration,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            minimum: 4,
            percent: 50,
            patience: Duration::from_secs(60),
        }
    }
}

/// The targets of a group, or of a whole prober, that were well until [`Rule::patience`] ago or are still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many there are.
    pub targets: usize,
    /// How many of them are silent since.
    pub silent: usize,
    /// Whether a control answered the last time that it was asked; `None` without one.
    pub control: Option<bool>,
}

/// Whether a prober is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: the target is Unhealthy.
    Trust,
    /// No: the target is Unknown.
    Suspect,
}

/// Whether to believe that a target of `group`, silent for `silent`, is unhealthy. `prober` counts all groups.
pub fn judge(silent: Duration, group: &Tally, prober: &Tally, rule: &Rule) -> Verdict {
    let most = |tally: &Tally| {
        tally.silent >= rule.minimum && tally.silent * 100 > tally.targets * rule.percent
    };
    let suspected = match group.control {
        Some(answers) => !answers,
        None => most(group) || most(prober),
    };
    if suspected && silent < rule.patience {
        Verdict::Suspect
    } else {
        Verdict::Trust
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(targets: usize, silent: usize, control: Option<bool>) -> Tally {
        Tally {
            targets,
            silent,
            control,
        }
    }

    #[test]
    fn when_the_prober_is_suspected() {
        use Verdict::{Suspect, Trust};
        let cases = [
            ("one of many", tally(10, 1, None), tally(50, 1, None), Trust),
            ("two of two", tally(2, 2, None), tally(2, 2, None), Trust),
            ("half", tally(10, 5, None), tally(50, 5, None), Trust),
            (
                "most of a group",
                tally(10, 6, None),
                tally(50, 6, None),
                Suspect,
            ),
            (
                "most of the prober",
                tally(2, 2, None),
                tally(50, 40, None),
                Suspect,
            ),
            (
                "all, but the router answers",
                tally(9, 9, Some(true)),
                tally(9, 9, None),
                Trust,
            ),
            (
                "one, and the router too",
                tally(9, 1, Some(false)),
                tally(50, 1, None),
                Suspect,
            ),
        ];
        for (name, group, prober, expected) in cases {
            let after = |seconds| {
                judge(
                    Duration::from_secs(seconds),
                    &group,
                    &prober,
                    &Rule::default(),
                )
            };
            assert_eq!(after(15), expected, "{name}");
            assert_eq!(after(60), Trust, "{name}, for too long");
        }
    }
}
