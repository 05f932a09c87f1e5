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
//! * **The router is near.** It is in the prober's own switch, and knows nothing of tunnels. So of far targets, which are on
//!   other machines, it says only that it is silent: where it answers, numbers decide, as without a control, but of the
//!   prober's far targets. Unless one of the other machines themselves is asked by this prober, and answers: the tunnels are well.
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
    /// Whether a control answered the last time that it was asked; `None` without one. Of a prober as a whole: whether another
    /// machine did.
    pub control: Option<bool>,
}

/// Whom a verdict is about, and what it is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Case {
    /// How long the target has been silent.
    pub silent: Duration,
    /// Whether it is on another machine than the prober.
    pub far: bool,
    /// The targets of its group.
    pub group: Tally,
    /// Those of all groups.
    pub prober: Tally,
    /// Those of all groups that are far.
    pub afar: Tally,
}

/// Whether a prober is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: the target is Unhealthy.
    Trust,
    /// No: the target is Unknown.
    Suspect,
}

/// Whether to believe that a target that is silent is unhealthy.
pub fn judge(case: &Case, rule: &Rule) -> Verdict {
    let most = |tally: &Tally| {
        tally.silent >= rule.minimum && tally.silent * 100 > tally.targets * rule.percent
    };
    let suspected = match case.group.control {
        Some(false) => true,
        Some(true) => case.far && case.afar.control != Some(true) && most(&case.afar),
        None => most(&case.group) || most(&case.prober),
    };
    if suspected && case.silent < rule.patience {
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
            let case = Case {
                group,
                prober,
                ..Case::default()
            };
            expect(name, case, expected);
        }
    }

    fn expect(name: &str, case: Case, expected: Verdict) {
        let after = |seconds| {
            let silent = Duration::from_secs(seconds);
            judge(&Case { silent, ..case }, &Rule::default())
        };
        assert_eq!(after(15), expected, "{name}");
        assert_eq!(after(60), Verdict::Trust, "{name}, for too long");
    }

    #[test]
    fn a_router_that_answers_does_not_vouch_for_tunnels() {
        use Verdict::{Suspect, Trust};
        let cases = [
            ("most", 10, 6, None, Suspect),
            ("half", 10, 5, None, Trust),
            ("too few to tell", 3, 3, None, Trust),
            ("and no other machine", 10, 10, Some(false), Suspect),
            ("but another machine answers", 10, 10, Some(true), Trust),
        ];
        for (name, targets, silent, machine, expected) in cases {
            let case = Case {
                far: true,
                group: tally(targets, silent, Some(true)),
                prober: tally(100, silent, None),
                afar: tally(targets, silent, machine),
                ..Case::default()
            };
            expect(name, case, expected);
            let near = Case { far: false, ..case };
            expect(name, near, Trust);
        }
    }
}
