use ycloud_api::{NetworkProbeSpec, NetworkProbeStatus};

use super::*;

fn object(version: &str, state: ProbeState) -> NetworkProbe {
    let mut object = NetworkProbe::new(
        "p",
        NetworkProbeSpec {
            target: Default::default(),
            check: Default::default(),
        },
    );
    object.metadata.namespace = Some("ns".into());
    object.metadata.uid = Some("u".into());
    object.metadata.resource_version = Some(version.into());
    object.status = Some(NetworkProbeStatus {
        state,
        last_error: (state != ProbeState::Healthy).then(|| "was wrong".to_owned()),
        ..Default::default()
    });
    object
}

fn report(state: State) -> Report {
    Report {
        key: "k".into(),
        generation: 1,
        state,
        last_known: State::Unknown,
        since: SystemTime::UNIX_EPOCH,
        error: (state != State::Healthy).then(|| "dead".to_owned()),
        round_trip: Some(Duration::from_micros(700)),
        time: SystemTime::UNIX_EPOCH,
    }
}

struct World {
    records: Records,
    key: Key,
    now: Instant,
}

impl World {
    /// A target whose object is as given.
    fn new(state: ProbeState) -> Self {
        let mut world = Self {
            records: Records::default(),
            key: "k".into(),
            now: Instant::now(),
        };
        world.see("1", state);
        world
    }

    fn see(&mut self, version: &str, state: ProbeState) {
        assert!(!self.is_told(version, state));
    }

    /// Whether what the prober knows is to be forgotten.
    fn is_told(&mut self, version: &str, state: ProbeState) -> bool {
        let object = object(version, state);
        self.records.observe(&self.key, &object, self.now)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn write(&mut self) -> Option<Write> {
        self.records.write(self.now, Timestamp::UNIX_EPOCH)
    }

    fn written(&mut self, outcome: Result<&str, Refusal>) {
        let outcome = outcome.map(str::to_owned);
        self.records.written(&self.key, outcome, self.now);
    }
}

#[test]
fn what_is_known_already_is_not_written() {
    let mut world = World::new(ProbeState::Unhealthy);
    let known = world.records.known(&world.key).expect("known");
    assert_eq!(known.state, State::Unhealthy);
    assert_eq!(known.error.as_deref(), Some("was wrong"));
    world.pass(60);
    world.see("2", ProbeState::Unhealthy);
    assert_eq!((world.write(), world.records.waiting()), (None, 0));
}

/// As ycloud-controller leaves a target whose chassis is dead.
#[test]
fn what_is_unhealthy_for_its_chassis_alone_stays_so_until_its_own_failures_count() {
    let mut world = World::new(ProbeState::Healthy);
    let mut object = object("2", ProbeState::Unhealthy);
    if let Some(status) = &mut object.status {
        status.last_known = Some(ProbeState::Healthy);
    }
    assert!(world.records.observe(&world.key, &object, world.now));
    let known = world.records.known(&world.key).expect("known");
    let states = (known.state, known.last_known);
    assert_eq!(states, (State::Unhealthy, State::Healthy));

    let mut heard = report(State::Unhealthy);
    for (last_known, expected) in [
        (State::Healthy, json!("Healthy")),
        (State::Unhealthy, Value::Null),
        (State::Healthy, json!("Healthy")),
    ] {
        heard.last_known = last_known;
        world.records.report(&heard, world.now);
        let patch = world.write().expect("a write").patch;
        assert_eq!(patch["status"]["lastKnown"], expected);
        world.written(Ok("3"));
    }
    let words = "no device".to_owned();
    let (now, time) = (world.now, Timestamp::UNIX_EPOCH);
    world.records.refuse(&world.key, words, now, time);
    let patch = world.write().expect("a write").patch;
    let states = (&patch["status"]["state"], &patch["status"]["lastKnown"]);
    assert_eq!(states, (&json!("Unknown"), &json!("Healthy")));
}

#[test]
fn a_report_is_written_for_the_object_that_was_seen() {
    let mut world = World::new(ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    let write = world.write().expect("a write");
    assert_eq!((&*write.namespace, &*write.name), ("ns", "p"));
    let expected = json!({
        "metadata": {"resourceVersion": "1"},
        "status": {
            "state": "Healthy",
            "lastKnown": null,
            "since": "1970-01-01T00:00:00Z",
            "lastError": null,
            "reported": "1970-01-01T00:00:00Z",
            "roundTripMicroseconds": 700,
        },
    });
    assert_eq!(write.patch, expected);
    assert_eq!(world.write(), None);
    world.written(Ok("2"));
    assert_eq!(world.write(), None);
    world.records.report(&report(State::Unhealthy), world.now);
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["metadata"]["resourceVersion"], "2");
    assert_eq!(patch["status"]["lastError"], "dead");
}

#[test]
fn while_the_api_server_is_away_the_latest_waits() {
    let mut world = World::new(ProbeState::Healthy);
    world.records.report(&report(State::Unhealthy), world.now);
    for _ in 0..10 {
        assert!(world.write().is_some());
        world.written(Err(Refusal::Failed("away".into())));
        assert_eq!(world.write(), None, "not at once");
        world.records.report(&report(State::Unknown), world.now);
        world.pass(8);
    }
    world.records.report(&report(State::Healthy), world.now);
    assert_eq!(world.records.waiting(), 1);
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["status"]["state"], "Healthy");
    world.written(Ok("9"));
    world.pass(60);
    assert_eq!(world.write(), None);
}

#[test]
fn a_report_that_comes_during_a_write_is_written_after_it() {
    let mut world = World::new(ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    assert!(world.write().is_some());
    world.records.report(&report(State::Unhealthy), world.now);
    assert_eq!(world.write(), None, "one at a time");
    world.written(Ok("2"));
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["status"]["state"], "Unhealthy");
    world.written(Ok("3"));
    assert_eq!(world.write(), None);
}

#[test]
fn a_state_that_somebody_else_wrote_is_where_it_goes_on_but_an_echo_is_none() {
    let mut world = World::new(ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    assert!(world.write().is_some());
    world.written(Ok("2"));
    world.see("1", ProbeState::Unknown);
    assert_eq!(world.write(), None, "what was before the write");
    world.pass(3);
    world.see("2", ProbeState::Healthy);
    assert!(world.is_told("7", ProbeState::Unknown));
    assert_eq!(world.write(), None, "not from memory");
    assert_eq!(
        world.records.known(&world.key).map(|known| known.state),
        Some(State::Unknown)
    );
    world.see("7", ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["status"]["state"], "Healthy");
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
}

#[test]
fn what_waits_to_be_written_when_the_chassis_was_called_dead_is_dropped() {
    let mut world = World::new(ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    assert!(world.write().is_some());
    world.written(Ok("2"));
    // It is cut off: it finds others silent, and cannot say so.
    world.records.report(&report(State::Unknown), world.now);
    assert!(world.write().is_some());
    world.written(Err(Refusal::Failed("away".into())));
    assert!(world.is_told("8", ProbeState::Unhealthy));
    assert_eq!((world.write(), world.records.waiting()), (None, 0));
    let known = world.records.known(&world.key).expect("known");
    assert_eq!(known.state, State::Unhealthy);
    assert_eq!(known.error.as_deref(), Some("was wrong"));
    world.pass(60);
    world.see("9", ProbeState::Unhealthy);
    assert_eq!(world.write(), None);
}

#[test]
fn what_the_watch_tells_late_of_its_own_writes_is_no_news() {
    let mut world = World::new(ProbeState::Unknown);
    for (version, state) in [("2", State::Unhealthy), ("3", State::Healthy)] {
        world.records.report(&report(state), world.now);
        assert!(world.write().is_some());
        world.written(Ok(version));
    }
    world.see("2", ProbeState::Unhealthy);
    world.see("3", ProbeState::Healthy);
    // One whose answer is still under way.
    world.records.report(&report(State::Unhealthy), world.now);
    assert!(world.write().is_some());
    world.records.report(&report(State::Healthy), world.now);
    world.see("4", ProbeState::Unhealthy);
    world.written(Ok("4"));
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["status"]["state"], "Healthy");
}

#[test]
fn a_conflict_is_tried_again_when_the_version_that_is_there_is_seen() {
    let mut world = World::new(ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    assert!(world.write().is_some());
    world.written(Err(Refusal::Conflict));
    world.pass(60);
    assert_eq!(world.write(), None, "the clock tells nothing");
    world.records.report(&report(State::Unhealthy), world.now);
    world.see("1", ProbeState::Unknown);
    assert_eq!(world.write(), None, "that is no news");
    world.see("5", ProbeState::Unknown);
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["metadata"]["resourceVersion"], "5");
    assert_eq!(patch["status"]["state"], "Unhealthy");
    world.written(Ok("6"));
    assert_eq!((world.write(), world.records.next()), (None, None));
}

#[test]
fn a_conflict_that_the_watch_foretold_is_tried_again_at_once() {
    let mut world = World::new(ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    assert!(world.write().is_some());
    world.see("5", ProbeState::Unknown);
    world.written(Err(Refusal::Conflict));
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["metadata"]["resourceVersion"], "5");
    world.written(Err(Refusal::Conflict));
    world.records.retain(|_| false);
    assert_eq!((world.write(), world.records.next()), (None, None));
}

#[test]
fn what_cannot_be_asked_is_unknown_and_says_why_once() {
    let mut world = World::new(ProbeState::Healthy);
    let refuse = |world: &mut World| {
        let (key, now) = (world.key.clone(), world.now);
        let words = "spec.https.caBundle: x".to_owned();
        world
            .records
            .refuse(&key, words, now, Timestamp::UNIX_EPOCH);
    };
    refuse(&mut world);
    let patch = world.write().expect("a write").patch;
    assert_eq!(patch["status"]["state"], "Unknown");
    assert_eq!(patch["status"]["lastError"], "spec.https.caBundle: x");
    world.written(Ok("2"));
    refuse(&mut world);
    assert_eq!(world.write(), None);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut world = World::new(ProbeState::Unknown);
    world.records.report(&report(State::Healthy), world.now);
    assert!(world.write().is_some());
    world.records.report(&report(State::Unhealthy), world.now);
    world.written(Err(Refusal::Gone));
    assert_eq!(world.write(), None);
    world.records.report(&report(State::Healthy), world.now);
    world.records.retain(|_| false);
    assert_eq!((world.write(), world.records.waiting()), (None, 0));
    world.records.report(&report(State::Healthy), world.now);
    assert_eq!(world.write(), None);
}
