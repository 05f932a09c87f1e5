//! What shall stand in each NetworkProbe's status, and which of it still has to be written. Pure: time comes in.
//!
//! There is one record a target, and in it the latest that is known: however long the API server is away, nothing more is
//! kept, and what is written then is how things are then. A write carries the resource version that was read last: an agent
//! that has not heard yet that another prober took over, or that the object is another of the same name, writes nothing.
//! (A UID beside it would guard nothing: the API server ignores it in a write of a status.)
//!
//! ```text
//!   Report ──► stands ──► waits ──► Write ──► API server
//!                ▲          ▲                    │
//!                │          └──── failed ────────┤
//!    object as the watch has it ◄── written ─────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use ycloud_api::NetworkProbe;
use ycloud_api::network_probe::ProbeState;
use ycloud_probe::{Known, Report, State};

/// How long after a write what the watch says of the state may be older than it.
const ECHO: Duration = Duration::from_secs(2);

/// First and last wait before a write that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// A target's name: namespace, name and UID of its NetworkProbe, with slashes between.
pub type Key = Arc<str>;

/// What is known of a target.
#[derive(Debug, Clone, PartialEq)]
struct Standing {
    state: ProbeState,
    /// The last one that rounds came to, if it is another.
    last_known: Option<ProbeState>,
    since: Option<Timestamp>,
    error: Option<String>,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Record {
    namespace: String,
    name: String,
    version: String,
    stands: Standing,
    /// The state as it is in the API server, as far as this is known.
    there: ProbeState,
    /// The state that is being written.
    sent: Option<ProbeState>,
    /// Version of this agent's last write, 0 before.
    own: u64,
    /// When it is to be written, if it is.
    due: Option<Instant>,
    writing: bool,
    /// The version that the write which is under way is for, or the last one was.
    written_for: String,
    /// The API server has another version by now: nothing is written until the watch tells of it.
    stale: bool,
    /// Until then the watch may tell what was before the last write.
    echo: Option<Instant>,
    failures: u32,
}

/// A write of what a prober knows into the status of a NetworkProbe.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The target, for [`Records::written`].
    pub key: Key,
    /// The NetworkProbe.
    pub namespace: String,
    /// The NetworkProbe.
    pub name: String,
    /// A JSON merge patch (RFC 7386) of its status, for one resource version.
    pub patch: Value,
}

/// Why a status was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The object is another by now, or its version is.
    Conflict,
    /// There is no such object any more.
    Gone,
    /// The API server could not be reached, or did not do it, in words.
    Failed(String),
}

/// The records of all targets.
#[derive(Debug, Default)]
pub struct Records {
    by_key: BTreeMap<Key, Record>,
    due: BTreeSet<(Instant, Key)>,
}

impl Records {
    /// Takes in the object as it is in the API server. A new one's state is where the prober goes on. So it is where
    /// ycloud-controller wrote another state, having believed this prober, or its whole chassis, dead: then this returns
    /// true, and what the prober knows is to be forgotten. It may be from before the chassis was cut off or stood still, and
    /// the target is asked soon anyway.
    #[must_use]
    pub fn observe(&mut self, key: &Key, object: &NetworkProbe, now: Instant) -> bool {
        let version = object.metadata.resource_version.clone();
        let version = version.unwrap_or_default();
        let seen = standing(object);
        let Some(record) = self.by_key.get_mut(key) else {
            let meta = object.metadata.clone();
            let record = Record {
                namespace: meta.namespace.unwrap_or_default(),
                name: meta.name.unwrap_or_default(),
                version,
                there: seen.state,
                stands: seen,
                sent: None,
                own: 0,
                due: None,
                writing: false,
                written_for: String::new(),
                stale: false,
                echo: None,
                failures: 0,
            };
            self.by_key.insert(key.clone(), record);
            return false;
        };
        if number(&version) < record.own {
            // While the first list is read, an object stays as it was read.
            return false;
        }
        let news = record.version != version;
        let later = number(&version) > record.own;
        record.version = version;
        let own = [Some(record.there), Some(record.stands.state), record.sent];
        if later && !own.contains(&Some(seen.state)) {
            record.there = seen.state;
            record.stands = seen;
            record.stale = false;
            self.stop(key);
            return true;
        }
        if later {
            record.there = seen.state;
        }
        if news && std::mem::take(&mut record.stale) && record.due.is_some() {
            self.wait(key, now);
            return false;
        }
        let echo = record.echo.is_some_and(|until| now < until);
        let waits = record.writing || record.due.is_some();
        if !echo && !waits && seen.state != record.stands.state {
            self.wait(key, now);
        }
        false
    }

    /// Forgets those of which `keep` does not hold.
    pub fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        self.by_key.retain(|key, _| keep(key));
        self.due.retain(|(_, key)| keep(key));
    }

    /// What a prober shall begin with.
    pub fn known(&self, key: &Key) -> Option<Known> {
        let stands = &self.by_key.get(key)?.stands;
        let since = stands.since.map(SystemTime::from);
        Some(Known {
            state: of_probe(stands.state),
            last_known: stands.last_known.map(of_probe).unwrap_or_default(),
            since: since.unwrap_or_else(SystemTime::now),
            error: stands.error.clone(),
        })
    }

    /// Takes in what a prober tells.
    pub fn report(&mut self, report: &Report, now: Instant) {
        let Some(record) = self.by_key.get_mut(&report.key) else {
            return;
        };
        let stands = &mut record.stands;
        stands.state = to_probe(report.state);
        let last_known = to_probe(report.last_known);
        let another = last_known != stands.state && last_known != ProbeState::Unknown;
        stands.last_known = another.then_some(last_known);
        stands.since = Timestamp::try_from(report.since).ok();
        stands.error.clone_from(&report.error);
        stands.round_trip = report.round_trip;
        self.wait(&report.key, now);
    }

    /// Notes that a target cannot be asked, and why. What has not changed is not written again.
    pub fn refuse(&mut self, key: &Key, words: String, now: Instant, time: Timestamp) {
        let Some(record) = self.by_key.get_mut(key) else {
            return;
        };
        let stands = &mut record.stands;
        let known = stands.state == ProbeState::Unknown;
        if known && stands.error.as_ref() == Some(&words) {
            return;
        }
        stands.since = stands.since.filter(|_| known).or(Some(time));
        if !known {
            stands.last_known.get_or_insert(stands.state);
        }
        stands.state = ProbeState::Unknown;
        stands.error = Some(words);
        stands.round_trip = None;
        self.wait(key, now);
    }

    /// When the next write is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many can be written and wait for it, without those that are being written.
    pub fn waiting(&self) -> usize {
        self.due.len()
    }

    /// A write that is due; its outcome is to be told.
    pub fn write(&mut self, now: Instant, time: Timestamp) -> Option<Write> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let record = self.by_key.get_mut(&key)?;
        record.due = None;
        record.writing = true;
        record.sent = Some(record.stands.state);
        record.written_for.clone_from(&record.version);
        Some(Write {
            namespace: record.namespace.clone(),
            name: record.name.clone(),
            patch: record.patch(time),
            key,
        })
    }

    /// Takes in the outcome of a write: the object's new version, or why there is none.
    pub fn written(&mut self, key: &Key, outcome: Result<String, Refusal>, now: Instant) {
        let Some(record) = self.by_key.get_mut(key) else {
            return;
        };
        record.writing = false;
        let sent = record.sent.take();
        match outcome {
            Ok(version) => {
                record.own = number(&version);
                record.there = sent.unwrap_or(record.there);
                record.version = version;
                record.failures = 0;
                record.echo = Some(now + ECHO);
                if record.due.is_some() {
                    self.wait(key, now);
                }
            }
            // The watch will say so.
            Err(Refusal::Gone) => self.stop(key),
            // Whatever the object is by now: the watch will say, or that it is none of ours any more.
            Err(Refusal::Conflict) => {
                record.stale = record.version == record.written_for;
                self.wait(key, now);
            }
            Err(Refusal::Failed(_)) => {
                let (first, last) = RETRY;
                let wait = (first * 2_u32.pow(record.failures.min(5))).min(last);
                record.failures += 1;
                self.wait(key, now + wait);
            }
        }
    }

    /// Lets it be written at `due`, or when the write that is under way has ended, or when the watch has told of the version
    /// that there is.
    fn wait(&mut self, key: &Key, due: Instant) {
        let Some(record) = self.by_key.get_mut(key) else {
            return;
        };
        if let Some(before) = record.due.replace(due) {
            self.due.remove(&(before, key.clone()));
        }
        if !record.writing && !record.stale {
            self.due.insert((due, key.clone()));
        }
    }

    fn stop(&mut self, key: &Key) {
        let due = self
            .by_key
            .get_mut(key)
            .and_then(|record| record.due.take());
        if let Some(due) = due {
            self.due.remove(&(due, key.clone()));
        }
    }
}

impl Record {
    fn patch(&self, time: Timestamp) -> Value {
        let stands = &self.stands;
        let mut status = json!({
            "state": stands.state,
            "lastKnown": stands.last_known,
            "since": stands.since.map(seconds),
            "lastError": stands.error,
            "reported": seconds(time),
        });
        let micros = stands.round_trip.map(|taken| taken.as_micros());
        if let Some(micros) = micros.and_then(|micros| i64::try_from(micros).ok()) {
            status["roundTripMicroseconds"] = micros.into();
        }
        json!({
            "metadata": {"resourceVersion": self.version},
            "status": status,
        })
    }
}

/// Resource versions of one object grow; an unreadable one counts as 0. Source: KEP-5504, comparable resource versions.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

/// As the API server writes times: whole seconds.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn of_probe(state: ProbeState) -> State {
    match state {
        ProbeState::Healthy => State::Healthy,
        ProbeState::Unhealthy => State::Unhealthy,
        ProbeState::Unknown => State::Unknown,
    }
}

fn to_probe(state: State) -> ProbeState {
    match state {
        State::Healthy => ProbeState::Healthy,
        State::Unhealthy => ProbeState::Unhealthy,
        State::Unknown => ProbeState::Unknown,
    }
}

fn standing(object: &NetworkProbe) -> Standing {
    let status = object.status.as_ref();
    Standing {
        state: status.map(|status| status.state).unwrap_or_default(),
        last_known: status.and_then(|status| status.last_known),
        since: status.and_then(|s| s.since.as_ref()).map(|time| time.0),
        error: status.and_then(|status| status.last_error.clone()),
        round_trip: None,
    }
}

#[cfg(test)]
mod tests;
