//! The schedule on a clock of the tests' own, with targets that are a function of time.

use proptest::prelude::*;

use super::*;
use crate::failure::{Failure, Step};
use crate::kind::Check;
use crate::kind::https::Trust;
use crate::probe::Timing;
use crate::socket::Way;

const HOUR: Duration = Duration::from_secs(3600);

/// What a target does at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Answer,
    Refuse,
    Nothing,
}

/// A prober without sockets: rounds end when and how the targets say.
struct Simulation {
    schedule: Schedule,
    start: Instant,
    clock: Duration,
    running: Vec<(Duration, Key, u64, Outcome)>,
    /// Starts of rounds, by target.
    starts: BTreeMap<Key, Vec<Duration>>,
    reports: Vec<(Duration, Report)>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            schedule: Schedule::new(Rule::default(), HOUR, seed),
            start: Instant::now(),
            clock: Duration::ZERO,
            running: Vec::new(),
            starts: BTreeMap::new(),
            reports: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            instant: self.start + self.clock,
            time: SystemTime::UNIX_EPOCH + self.clock,
        }
    }

    fn set(&mut self, key: &str, target: Target, known: Option<Known>) {
        let now = self.now();
        let useless = self.schedule.set(&key.into(), Arc::new(target), known, now);
        self.abort(useless);
    }

    fn remove(&mut self, key: &str) {
        let useless = self.schedule.remove(&key.into());
        self.abort(useless);
    }

    fn abort(&mut self, round: Option<u64>) {
        let Some(round) = round else { return };
        let at = self.running.iter().position(|(_, _, r, _)| *r == round);
        let (_, key, round, _) = self.running.swap_remove(at.expect("it runs"));
        self.schedule.finish(&key, round, None, self.now());
    }

    /// Lets time pass until `end`; each target does as `does` says at the moment in which it is asked.
    fn run(&mut self, end: Duration, does: impl Fn(&str, Duration) -> Does) {
        loop {
            let now = self.now();
            while let Some(start) = self.schedule.start(now) {
                let doing = does(&start.key, self.clock);
                self.begin(start, doing);
            }
            while let Some(report) = self.schedule.report(now) {
                self.reports.push((self.clock, report));
            }
            let due = self.schedule.next().map(|due| due - self.start);
            let done = self.running.iter().map(|(done, ..)| *done).min();
            let Some(next) = due.into_iter().chain(done).min().filter(|n| *n < end) else {
                self.clock = end;
                return;
            };
            self.clock = self.clock.max(next);
            if let Some(at) = self.running.iter().position(|(done, ..)| *done <= next) {
                let (_, key, round, outcome) = self.running.swap_remove(at);
                let now = self.now();
                self.schedule.finish(&key, round, Some(outcome), now);
            }
        }
    }

    fn begin(&mut self, start: Start, does: Does) {
        let twice = self.running.iter().any(|(_, key, ..)| *key == start.key);
        assert!(!twice, "two rounds of {} at once", start.key);
        let timeout = start.target.probe.timing.timeout;
        let quick = Duration::from_millis(1);
        let (takes, outcome) = match does {
            Does::Answer => (quick, Ok(quick)),
            Does::Refuse => (quick, Err(Failure::Refused)),
            Does::Nothing => (timeout, Err(silent(timeout))),
        };
        let starts = self.starts.entry(start.key.clone()).or_default();
        starts.push(self.clock);
        let done = self.clock + takes;
        self.running.push((done, start.key, start.round, outcome));
    }

    /// The states that were told of a target since `since`, and when.
    fn told(&self, key: &str, since: Duration) -> Vec<(Duration, State)> {
        let of = |(at, report): &(Duration, Report)| {
            let counts = &*report.key == key && *at >= since;
            counts.then_some((*at, report.state))
        };
        self.reports.iter().filter_map(of).collect()
    }
}

fn silent(after: Duration) -> Failure {
    Failure::TimedOut {
        step: Step::Connect,
        after,
    }
}

fn target(timing: Timing) -> Target {
    let spec = serde_yaml::from_str("{}").expect("a spec");
    Target {
        probe: Probe {
            address: [10, 0, 0, 1].into(),
            check: Check::new(&spec, Some(80), &mut Trust::default()).expect("a check"),
            timing,
        },
        group: "vpc1".into(),
        role: Role::Backend,
        far: false,
        sockets: Arc::new(Way::default()),
        generation: 1,
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn timing() -> impl Strategy<Value = Timing> {
    (1u64..10, 1u64..10, 1u32..5, 1u32..5).prop_map(|(a, b, successes, failures)| Timing {
        period: secs(a.max(b)),
        timeout: secs(a.min(b)),
        successes,
        failures,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Dead is noticed within period × failures + timeout + 1 s, alive within period × successes + timeout + 1 s.
    #[test]
    fn changes_are_noticed_in_time(timing in timing(), seed: u64, dies in 20_000u64..40_000, refuses: bool) {
        let mut simulation = Simulation::new(seed);
        simulation.set("a", target(timing), None);
        let dead = if refuses { Does::Refuse } else { Does::Nothing };
        let dies = Duration::from_millis(dies);
        simulation.run(dies, |_, _| Does::Answer);
        prop_assert_eq!(simulation.told("a", Duration::ZERO).len(), 1);

        let bound = |rounds: u32| timing.period * rounds + timing.timeout + secs(1);
        let returns = dies + secs(60);
        simulation.run(returns, |_, _| dead);
        let told = simulation.told("a", dies);
        prop_assert_eq!(told.len(), 1, "{:?}", told);
        prop_assert_eq!(told[0].1, State::Unhealthy);
        prop_assert!(told[0].0 <= dies + bound(timing.failures), "{:?} after {:?}", told, dies);

        simulation.run(returns + secs(60), |_, _| Does::Answer);
        let told = simulation.told("a", returns);
        prop_assert_eq!(told.len(), 1, "{:?}", told);
        prop_assert_eq!(told[0].1, State::Healthy);
        prop_assert!(told[0].0 <= returns + bound(timing.successes));
    }

    /// Whatever is added, changed and removed: one round at a time (asserted in the simulation), nothing is told of what
    /// was removed, and everything that stays is asked at least once a period.
    #[test]
    fn targets_change_at_any_time(
        seed: u64,
        steps in prop::collection::vec((0usize..4, 0u8..4, timing(), 0u64..4_000), 1..60),
    ) {
        let names = ["a", "b", "c", "d"];
        let mut simulation = Simulation::new(seed);
        let mut there: BTreeMap<&str, Timing> = BTreeMap::new();
        let does = |_: &str, at: Duration| match at.as_secs() % 3 {
            0 => Does::Answer,
            1 => Does::Refuse,
            _ => Does::Nothing,
        };
        for (name, step, timing, wait) in steps {
            let name = names[name];
            match step {
                0 => {
                    there.remove(name);
                    simulation.remove(name);
                }
                octet => {
                    there.insert(name, timing);
                    let mut target = target(timing);
                    target.probe.address = [10, 0, 0, octet].into();
                    simulation.set(name, target, None);
                }
            }
            let before = simulation.reports.len();
            let clock = simulation.clock + Duration::from_millis(wait);
            simulation.run(clock, does);
            for (_, report) in &simulation.reports[before..] {
                prop_assert!(there.contains_key(&*report.key), "told of {}", report.key);
            }
        }
        let begin = simulation.clock;
        simulation.run(begin + secs(60), does);
        for (name, timing) in there {
            let starts = &simulation.starts[name];
            let recent: Vec<_> = starts.iter().filter(|at| **at >= begin).collect();
            prop_assert!(recent.len() as u64 >= 60 / timing.period.as_secs() - 1, "{name}: {recent:?}");
        }
        prop_assert!(simulation.schedule.len() <= names.len());
    }
}

#[test]
fn a_steady_target_is_told_of_once_and_then_once_an_hour() {
    let mut simulation = Simulation::new(1);
    for n in 0..100 {
        simulation.set(&n.to_string(), target(Timing::default()), None);
    }
    simulation.run(HOUR * 4, |_, _| Does::Answer);
    for n in 0..100 {
        let told = simulation.told(&n.to_string(), Duration::ZERO);
        assert!((4..=7).contains(&told.len()), "{told:?}");
        assert!(told.iter().all(|(_, state)| *state == State::Healthy));
    }
}

#[test]
fn a_restart_tells_nothing() {
    let mut simulation = Simulation::new(1);
    let known = |state| Known {
        state,
        since: SystemTime::UNIX_EPOCH,
        error: None,
        last_known: State::Unknown,
    };
    simulation.set("up", target(Timing::default()), Some(known(State::Healthy)));
    simulation.set(
        "down",
        target(Timing::default()),
        Some(known(State::Unhealthy)),
    );
    // One failure in the first moment is no reason to flap.
    simulation.run(secs(30), |key, at| match (key, at.as_secs()) {
        ("up", 0) | ("down", _) => Does::Refuse,
        _ => Does::Answer,
    });
    let heartbeats = simulation.told("up", Duration::ZERO);
    assert!(heartbeats.iter().all(|(_, state)| *state == State::Healthy));
    let heartbeats = simulation.told("down", Duration::ZERO);
    assert!(
        heartbeats
            .iter()
            .all(|(_, state)| *state == State::Unhealthy)
    );
}

#[test]
fn thresholds_change_without_a_new_beginning() {
    let mut simulation = Simulation::new(3);
    simulation.set("a", target(Timing::default()), None);
    simulation.run(secs(20), |_, _| Does::Answer);
    let slower = Timing {
        failures: 5,
        period: secs(10),
        ..Timing::default()
    };
    simulation.set("a", target(slower), None);
    simulation.run(secs(60), |_, _| Does::Answer);
    assert_eq!(simulation.told("a", secs(20)), []);
    let starts: Vec<_> = simulation.starts[&Key::from("a")].clone();
    let gaps: Vec<_> = starts
        .windows(2)
        .map(|w| w[1] - w[0])
        .rev()
        .take(3)
        .collect();
    assert!(gaps.iter().all(|gap| *gap == secs(10)), "{gaps:?}");
    // A target that is asked elsewhere begins anew.
    let mut other = target(slower);
    other.probe.address = [10, 0, 0, 2].into();
    simulation.set("a", other, None);
    simulation.run(secs(120), |_, _| Does::Refuse);
    let told = simulation.told("a", secs(60));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1, State::Unhealthy);
}

#[test]
fn a_shorter_timeout_does_not_wait_for_the_longer_one() {
    let mut simulation = Simulation::new(3);
    let long = Timing {
        period: secs(9),
        timeout: secs(9),
        ..Timing::default()
    };
    simulation.set("a", target(long), None);
    simulation.run(secs(2), |_, _| Does::Nothing);
    let short = Timing {
        period: secs(1),
        timeout: secs(1),
        ..Timing::default()
    };
    simulation.set("a", target(short), None);
    simulation.run(secs(4), |_, _| Does::Answer);
    assert_eq!(simulation.told("a", secs(2)).len(), 1);
    let starts = &simulation.starts[&Key::from("a")];
    assert!(starts[1] <= secs(3), "{starts:?}");
}

#[test]
fn ten_thousand_targets_that_arrive_together_are_spread() {
    let mut simulation = Simulation::new(4);
    for n in 0..10_000 {
        simulation.set(&n.to_string(), target(Timing::default()), None);
    }
    simulation.run(secs(20), |_, _| Does::Answer);
    let mut tenths = [0; 200];
    let mut first = Duration::ZERO;
    for starts in simulation.starts.values() {
        first = first.max(starts[0]);
        for at in starts {
            tenths[usize::try_from(at.as_millis() / 100).expect("few")] += 1;
        }
    }
    let limit = 6 * FIRST;
    assert!(first <= limit, "the last was first asked after {first:?}");
    // 200 a tenth of a second are even; the first six seconds have everybody's first round too.
    let (early, later) = tenths.split_at(100);
    assert!(early.iter().all(|n| *n < 500), "{early:?}");
    assert!(later.iter().all(|n| (100..320).contains(n)), "{later:?}");
}

#[test]
fn what_others_are_judged_by_waits_for_no_crowd() {
    let mut simulation = Simulation::new(5);
    for n in 0..10_000 {
        simulation.set(&n.to_string(), target(Timing::default()), None);
    }
    for role in [Role::Control, Role::Machine] {
        let mut target = target(Timing::default());
        target.role = role;
        simulation.set(&format!("{role:?}"), target, None);
    }
    simulation.run(secs(2), |_, _| Does::Answer);
    for role in ["Control", "Machine"] {
        let starts = &simulation.starts[&Key::from(role)];
        assert!(starts[0] <= FIRST, "{role}: {starts:?}");
    }
}

#[test]
fn that_its_own_failures_count_is_told() {
    let mut simulation = Simulation::new(6);
    let known = Known {
        state: State::Unhealthy,
        since: SystemTime::now(),
        error: Some("its machine does not answer".to_owned()),
        last_known: State::Healthy,
    };
    simulation.set("a", target(Timing::default()), Some(known));
    simulation.run(secs(30), |_, _| Does::Refuse);
    let told = simulation.told("a", Duration::ZERO);
    let states: Vec<State> = told.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [State::Unhealthy]);
}

/// Ten targets fall silent at second 30; a control does as `control` says.
fn accident(control: Option<Does>) -> Simulation {
    accident_of(false, control, None)
}

/// The same, near or far, with another machine that does as `machine` says.
fn accident_of(far: bool, control: Option<Does>, machine: Option<Does>) -> Simulation {
    let mut simulation = Simulation::new(5);
    for n in 0..10 {
        let mut target = target(Timing::default());
        target.far = far;
        simulation.set(&n.to_string(), target, None);
    }
    let others = [
        ("router", control, Role::Control),
        ("machine", machine, Role::Machine),
    ];
    for (name, does, role) in others {
        if does.is_some() {
            let mut target = target(Timing::default());
            (target.role, target.far) = (role, role == Role::Machine);
            simulation.set(name, target, None);
        }
    }
    simulation.run(secs(150), |key, at| match (key, at.as_secs()) {
        (_, 0..30) => Does::Answer,
        ("router", _) => control.unwrap_or(Does::Answer),
        ("machine", _) => machine.unwrap_or(Does::Answer),
        _ => Does::Nothing,
    });
    simulation
}

#[test]
fn when_all_fall_silent_the_prober_is_suspected_for_a_minute() {
    for simulation in [accident(None), accident(Some(Does::Nothing))] {
        for n in 0..10 {
            let told = simulation.told(&n.to_string(), secs(30));
            let states: Vec<_> = told.iter().map(|(_, state)| *state).collect();
            assert_eq!(states, [State::Unknown, State::Unhealthy], "{told:?}");
            assert!(
                told[0].0 <= secs(30 + 18) && told[1].0 >= secs(30 + 60),
                "{told:?}"
            );
        }
        let words = simulation
            .reports
            .iter()
            .find_map(|(_, report)| report.error.clone());
        let words = words.expect("an error");
        assert!(words.starts_with("the prober is suspected"), "{words}");
    }
}

#[test]
fn when_the_router_answers_all_are_believed_to_be_dead() {
    let simulation = accident(Some(Does::Answer));
    for n in 0..10 {
        let told = simulation.told(&n.to_string(), secs(30));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].1, State::Unhealthy);
        assert!(told[0].0 <= secs(30 + 18), "{told:?}");
    }
}

#[test]
fn far_targets_that_all_fall_silent_are_suspect_though_the_router_answers() {
    let (yes, no) = (Some(Does::Answer), Some(Does::Nothing));
    let cases = [
        (true, None, State::Unknown),
        (true, no, State::Unknown),
        (true, yes, State::Unhealthy),
        (false, no, State::Unhealthy),
    ];
    for (far, machine, expected) in cases {
        let simulation = accident_of(far, yes, machine);
        for n in 0..10 {
            let told = simulation.told(&n.to_string(), secs(30));
            assert_eq!(told[0].1, expected, "{far} {machine:?} {told:?}");
            assert!(told[0].0 <= secs(30 + 18), "{told:?}");
        }
        // A machine is called silent at once: whether its chassis is dead is not decided here.
        if machine == no {
            let told = simulation.told("machine", secs(30));
            assert_eq!(told[0].1, State::Unhealthy);
        }
    }
}

#[test]
fn a_flapping_error_is_told_once_a_minute() {
    let mut simulation = Simulation::new(6);
    let quick = Timing {
        period: secs(1),
        timeout: secs(1),
        ..Timing::default()
    };
    simulation.set("a", target(quick), None);
    simulation.run(secs(600), |_, at| match at.as_secs() % 2 {
        0 => Does::Refuse,
        _ => Does::Nothing,
    });
    let told = simulation.told("a", Duration::ZERO);
    assert!((5..=11).contains(&told.len()), "{} reports", told.len());
}
