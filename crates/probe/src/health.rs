//! The state machine of one target: outcomes in, Healthy, Unhealthy or Unknown out. Pure.
//!
//! ```text
//!            one success, see below              `failures` in a row
//!   Unknown ──────────────────► Healthy ──────────────────────────► Unhealthy
//!      ▲  └────────────────────────────── `failures` in a row ───────►  │
//!      │                           ▲                                    │
//!      │                           └───────── `successes` in a row ─────┘
//!      └── `failures` in a row that are the prober's own, or that the prober is suspected for
//! ```
//! From Unknown one success is enough: a target that answers is one that answers, and a backend that is new waits for it. But one
//! that was Unhealthy before it became Unknown needs as many as if it still were: that nobody could tell for a while has not
//! mended it. And one is enough for what was called Unhealthy although it failed in no round, as its machine was cut off: until
//! there are `failures` in a row of which the last is its own, because it says something wrong, or is silent to a prober on its own
//! machine.

use crate::failure::Origin;
use crate::probe::Timing;
use crate::round::Outcome;
use crate::suspicion::Verdict;

/// What is known of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Not asked yet, or nobody can tell.
    #[default]
    Unknown,
    /// It passes its checks.
    Healthy,
    /// It fails them.
    Unhealthy,
}

/// A target's state, and the outcomes in a row that led there or lead on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    state: State,
    /// The last state that rounds came to; Unknown: none did. Another one than `state` while that is Unknown, or Unhealthy for
    /// no failure of its own.
    last_known: State,
    successes: u32,
    failures: u32,
    /// Rounds in a row that the prober itself spoiled. They say nothing of the target: its own counts stand.
    spoiled: u32,
}

impl Health {
    /// As it was left by an earlier prober, or by this one before a restart. `last_known`: see [`Self::last_known`]; Unknown
    /// also where it is `state`.
    pub fn resume(state: State, last_known: State) -> Self {
        let kept = match state {
            State::Unknown => true,
            State::Unhealthy => last_known == State::Healthy,
            State::Healthy => false,
        };
        Self {
            state,
            last_known: if kept { last_known } else { state },
            ..Self::default()
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The last state that rounds came to; Unknown if none did. It is another one than the state while that is Unknown, or
    /// Unhealthy although the target failed in no round: somebody else found that its machine is cut off.
    pub fn last_known(&self) -> State {
        self.last_known
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        if state != State::Unknown {
            self.last_known = state;
        }
    }

    /// Takes in the outcome of a round. `far`: whether the target is on another machine, whose silence may be that machine's.
    /// `verdict` is asked before a target that fell silent is called unhealthy.
    pub fn take(
        &mut self,
        outcome: &Outcome,
        timing: &Timing,
        far: bool,
        verdict: impl FnOnce() -> Verdict,
    ) {
        match outcome.as_ref().err().map(|failure| failure.origin()) {
            None => self.succeed(timing),
            Some(Origin::Prober) => self.spoil(timing),
            Some(Origin::Target) => self.fail(timing, true, || Verdict::Trust),
            Some(Origin::Silence) => self.fail(timing, !far, verdict),
        }
    }

    fn succeed(&mut self, timing: &Timing) {
        self.failures = 0;
        self.spoiled = 0;
        self.successes = self.successes.saturating_add(1);
        let enough = match self.last_known {
            State::Unhealthy => self.successes >= timing.successes,
            State::Unknown | State::Healthy => true,
        };
        if enough {
            self.enter(State::Healthy);
        }
    }

    /// `own`: whether it is the target's for certain, and not its machine's.
    fn fail(&mut self, timing: &Timing, own: bool, verdict: impl FnOnce() -> Verdict) {
        self.successes = 0;
        self.spoiled = 0;
        self.failures = self.failures.saturating_add(1);
        if self.failures < timing.failures {
            return;
        }
        if self.state == State::Unhealthy {
            if own {
                self.last_known = State::Unhealthy;
            }
            return;
        }
        self.enter(match verdict() {
            Verdict::Trust => State::Unhealthy,
            Verdict::Suspect => State::Unknown,
        });
    }

    fn spoil(&mut self, timing: &Timing) {
        self.spoiled = self.spoiled.saturating_add(1);
        if self.spoiled >= timing.failures {
            self.enter(State::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::failure::{Failure, Step};

    fn success() -> Outcome {
        Ok(Duration::from_millis(1))
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        let silent = Failure::TimedOut {
            step: Step::Connect,
            after: Duration::from_secs(1),
        };
        let own = Failure::prober("open a socket", &io::Error::other("full"));
        prop_oneof![
            4 => Just(success()),
            3 => Just(Err(Failure::Refused)),
            2 => Just(Err(silent)),
            1 => Just(Err(own)),
        ]
    }

    fn timing() -> impl Strategy<Value = Timing> {
        (1u32..5, 1u32..5).prop_map(|(successes, failures)| Timing {
            successes,
            failures,
            ..Timing::default()
        })
    }

    /// The last outcomes of `rounds` for which `is` holds, in a row, passing over those for which `over` holds.
    fn tail(
        rounds: &[Outcome],
        is: impl Fn(&Outcome) -> bool,
        over: impl Fn(&Outcome) -> bool,
    ) -> u32 {
        let told = rounds.iter().rev().filter(|o| !over(o));
        u32::try_from(told.take_while(|o| is(o)).count()).expect("few")
    }

    fn own(outcome: &Outcome) -> bool {
        matches!(outcome, Err(Failure::Prober { .. }))
    }

    proptest! {
        /// The machine against its words: each state is entered exactly by the outcomes in a row that the drawing names.
        #[test]
        fn thresholds_hold(
            timing in timing(),
            rounds in prop::collection::vec(outcome(), 0..60),
            cut_off: bool,
        ) {
            let mut health = match cut_off {
                true => Health::resume(State::Unhealthy, State::Healthy),
                false => Health::default(),
            };
            for end in 1..=rounds.len() {
                let (before, known) = (health.state(), health.last_known());
                health.take(&rounds[end - 1], &timing, false, || Verdict::Trust);
                let done = &rounds[..end];
                let succeeded = tail(done, Result::is_ok, own);
                let failed = tail(done, |o| o.is_err() && !own(o), own);
                let spoiled = tail(done, own, |_| false);
                let expected = match before {
                    _ if own(&rounds[end - 1]) => {
                        if spoiled >= timing.failures { State::Unknown } else { before }
                    }
                    _ if known == State::Unhealthy && succeeded >= timing.successes => State::Healthy,
                    _ if known != State::Unhealthy && succeeded >= 1 => State::Healthy,
                    _ if failed >= timing.failures => State::Unhealthy,
                    _ => before,
                };
                prop_assert_eq!(health.state(), expected, "after {:?}", done);
            }
        }

        #[test]
        fn a_suspected_prober_calls_nothing_unhealthy(timing in timing(), rounds in prop::collection::vec(outcome(), 0..60)) {
            let mut health = Health::resume(State::Healthy, State::Unknown);
            let mut answered_wrongly = false;
            for round in &rounds {
                answered_wrongly |= matches!(round, Err(Failure::Refused));
                health.take(round, &timing, false, || Verdict::Suspect);
                prop_assert!(answered_wrongly || health.state() != State::Unhealthy);
            }
        }
    }

    #[test]
    fn one_success_does_not_mend_what_was_unhealthy_before_nobody_could_tell() {
        let timing = Timing::default();
        let own = Err(Failure::prober("open a socket", &io::Error::other("full")));
        let mut spoiled = Health::resume(State::Unhealthy, State::Unhealthy);
        for _ in 0..timing.failures {
            spoiled.take(&own, &timing, false, || Verdict::Trust);
        }
        assert_eq!(spoiled.state(), State::Unknown);
        // Its prober was lost, and another one goes on.
        let moved = Health::resume(State::Unknown, State::Unhealthy);
        for mut health in [spoiled, moved] {
            health.take(&success(), &timing, false, || Verdict::Trust);
            assert_eq!(health.state(), State::Unknown);
            health.take(&success(), &timing, false, || Verdict::Trust);
            assert_eq!(health.state(), State::Healthy);
        }
        for before in [State::Unknown, State::Healthy] {
            let mut health = Health::resume(State::Unknown, before);
            health.take(&success(), &timing, false, || Verdict::Trust);
            assert_eq!(health.state(), State::Healthy);
        }
    }

    #[test]
    fn one_success_readmits_what_was_called_unhealthy_for_its_machine_alone() {
        let timing = Timing::default();
        let silent = || {
            let step = Step::Connect;
            let after = Duration::from_secs(1);
            Err(Failure::TimedOut { step, after })
        };
        let silences = || vec![silent(), silent(), silent(), silent()];
        for (rounds, far, needed) in [
            (vec![], true, 1),
            // As it is of no machine that is cut off.
            (silences(), true, 1),
            // Its machine is back, and asks it.
            (silences(), false, timing.successes),
            (vec![silent(), Err(Failure::Refused)], true, 1),
            (
                vec![silent(), silent(), Err(Failure::Refused)],
                true,
                timing.successes,
            ),
        ] {
            let mut health = Health::resume(State::Unhealthy, State::Healthy);
            for round in &rounds {
                health.take(round, &timing, far, || Verdict::Trust);
                assert_eq!(health.state(), State::Unhealthy);
            }
            for count in 1..=needed {
                health.take(&success(), &timing, far, || Verdict::Trust);
                let expected = [State::Unhealthy, State::Healthy][usize::from(count == needed)];
                assert_eq!(health.state(), expected, "{rounds:?}, {far}, {count}");
            }
        }
    }

    #[test]
    fn a_target_resumes_as_it_was_left() {
        let timing = Timing::default();
        let mut health = Health::resume(State::Healthy, State::Unknown);
        health.take(&Err(Failure::Refused), &timing, false, || Verdict::Trust);
        health.take(&Err(Failure::Refused), &timing, false, || Verdict::Trust);
        assert_eq!(health.state(), State::Healthy);
        health.take(&Err(Failure::Refused), &timing, false, || Verdict::Trust);
        assert_eq!(health.state(), State::Unhealthy);
        health.take(&success(), &timing, false, || Verdict::Trust);
        assert_eq!(health.state(), State::Unhealthy);
        health.take(&success(), &timing, false, || Verdict::Trust);
        assert_eq!(health.state(), State::Healthy);
    }
}
