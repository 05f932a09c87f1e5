//! When which target is asked, and what is told of it. Pure: time and outcomes come in, rounds and reports go out.
//!
//! Rounds of a target start one period after another, however long they take; so a target that dies is called unhealthy
//! within `period × failures + timeout`. The first round comes within a second, and for each backend that
//! came just before half a millisecond ([`CROWD`]); the second at a random point of the first period: ten thousand targets that
//! arrive together are spread over their period from then on. A target never has two rounds at once: where one ends late, the next starts then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::failure::Origin;
use crate::health::{Health, State};
use crate::probe::{Probe, Timing};
use crate::round::Outcome;
use crate::socket::Sockets;
use crate::suspicion::{self, Case, Rule, Tally, Verdict};

/// How soon a new target is asked, at most, if it arrives alone.
pub const FIRST: Duration = Duration::from_secs(1);

/// How many new backends are asked within [`FIRST`]; those that arrive together wait for each other. A restarted prober that asked
/// all of ten thousand at once would be too busy to hear all the answers in time.
pub const CROWD: u32 = 2_000;

/// A changed error of an unhealthy target is told at most this often: what a target says must not drive API writes.
pub const ERRORS: Duration = Duration::from_secs(60);

/// Tallies are taken at most this often: they cost a look at every target, and after an accident every target asks.
const TALLIES: Duration = Duration::from_millis(100);

/// A target's name, such as `namespace/name`.
pub type Key = Arc<str>;

/// A moment, by both clocks: intervals are measured by one, people read the other.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic.
    pub instant: Instant,
    /// Of the wall.
    pub time: SystemTime,
}

/// What is asked, and how it is reached.
#[derive(Debug)]
pub struct Target {
    /// The question.
    pub probe: Probe,
    /// What shares a way with others, such as a Vpc; see [`suspicion`].
    pub group: Arc<str>,
    /// Whether it is a backend, or vouches for a way.
    pub role: Role,
    /// Whether it is on another machine, to which a tunnel leads.
    pub far: bool,
    /// The sockets of its rounds.
    pub sockets: Arc<dyn Sockets>,
    /// Handed back in each [`Report`], such as `metadata.generation`.
    pub generation: i64,
}

impl Target {
    /// Whether what is known of `self` holds for `other`: the same address is asked the same in the same group.
    fn is_same(&self, other: &Target) -> bool {
        let (a, b) = (&self.probe, &other.probe);
        a.address == b.address && a.check == b.check && self.group == other.group
    }
}

/// What a target is to the prober.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is asked for its own sake.
    Backend,
    /// It tells whether the way to the other targets of its group works.
    Control,
    /// It is another machine, asked for its own sake; that it answers tells that the way to other machines works.
    Machine,
}

/// What was known of a target before: by an earlier prober, or before a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// What was wrong the last time.
    pub error: Option<String>,
    /// The last state that rounds came to, if it is another one; else Unknown. See [`Health::last_known`].
    pub last_known: State,
}

/// What is known of a target; sent on a change of state, on a changed error (at most every [`ERRORS`]), and as a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The target.
    pub key: Key,
    /// [`Target::generation`].
    pub generation: i64,
    /// Its state.
    pub state: State,
    /// The last state that rounds came to; Unknown: none did. See [`Health::last_known`].
    pub last_known: State,
    /// Since when.
    pub since: SystemTime,
    /// What was wrong the last time, in words; none while it is healthy.
    pub error: Option<String>,
    /// How long the last success took.
    pub round_trip: Option<Duration>,
    /// When this was so.
    pub time: SystemTime,
}

/// A round to run now.
#[derive(Debug, Clone)]
pub struct Start {
    /// The target's name, for [`Schedule::finish`].
    pub key: Key,
    /// The round, for [`Schedule::finish`].
    pub round: u64,
    /// The target.
    pub target: Arc<Target>,
    /// Picks the source port.
    pub turn: u64,
    /// How late it is.
    pub late: Duration,
}

/// All targets of a prober.
#[derive(Debug)]
pub struct Schedule {
    entries: BTreeMap<Key, Entry>,
    /// Those without a running round, by when the next is due.
    queue: BTreeSet<(Instant, Key)>,
    /// Those of which there is something to tell, in the order in which it came up.
    told: VecDeque<Key>,
    rounds: u64,
    rule: Rule,
    heartbeat: Duration,
    random: StdRng,
    tallies: Option<Tallies>,
    /// From when on the next backend that is new may be asked.
    free: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// `None`: removed while a round runs.
    target: Option<Arc<Target>>,
    health: Health,
    since: SystemTime,
    error: Option<String>,
    round_trip: Option<Duration>,
    /// When the next round is due; while one runs, the earliest start of the next.
    due: Instant,
    running: Option<Running>,
    turn: u64,
    /// Whether the phase of its rounds is still to be drawn.
    fresh: bool,
    /// When it fell silent, if it was healthy then.
    silent: Option<Instant>,
    /// Whether the last round succeeded.
    answers: Option<bool>,
    /// The error that was told last, and when anything was.
    told: (Option<String>, Instant),
    heartbeat: Instant,
    /// Whether it is in `Schedule::told`.
    waits: bool,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    round: u64,
    /// Its outcome counts for nothing: the target was changed or removed.
    stale: bool,
}

#[derive(Debug)]
struct Tallies {
    taken: Instant,
    groups: BTreeMap<Arc<str>, Tally>,
    prober: Tally,
    afar: Tally,
}

impl Schedule {
    /// An empty one. A target that does not change is told about every three quarters to whole `heartbeat`.
    pub fn new(rule: Rule, heartbeat: Duration, seed: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
            told: VecDeque::new(),
            rounds: 0,
            rule,
            heartbeat,
            random: StdRng::seed_from_u64(seed),
            tallies: None,
            free: None,
        }
    }

    /// Adds a target or changes one. What is known of it is kept if it is the same target, asked the same; else it begins
    /// with `known`. Returns a running round that has become useless: abort it.
    pub fn set(
        &mut self,
        key: &Key,
        target: Arc<Target>,
        known: Option<Known>,
        now: Now,
    ) -> Option<u64> {
        let Some(entry) = self.entries.get_mut(key) else {
            let entry = self.entry(target, known, now);
            self.queue.insert((entry.due, key.clone()));
            self.entries.insert(key.clone(), entry);
            return None;
        };
        let old = entry.target.replace(target.clone());
        if let Some(old) = old.filter(|old| old.is_same(&target)) {
            return self.retime(key, old.probe.timing, target.probe.timing, now);
        }
        let running = entry.running.map(|running| Running {
            stale: true,
            ..running
        });
        if running.is_none() {
            let due = entry.due;
            self.queue.remove(&(due, key.clone()));
        }
        let (waits, turn) = (entry.waits, entry.turn);
        let mut entry = self.entry(target, known, now);
        // The address may be the same: its last source ports stay used.
        entry.turn = turn;
        entry.running = running;
        entry.waits = waits;
        if running.is_none() {
            self.queue.insert((entry.due, key.clone()));
        }
        self.entries.insert(key.clone(), entry);
        running.map(|running| running.round)
    }

    /// Removes a target; nothing more is told of it. Returns a running round: abort it.
    pub fn remove(&mut self, key: &Key) -> Option<u64> {
        let entry = self.entries.get_mut(key)?;
        entry.target = None;
        match &mut entry.running {
            Some(running) => {
                running.stale = true;
                Some(running.round)
            }
            None => {
                let due = entry.due;
                self.queue.remove(&(due, key.clone()));
                self.entries.remove(key);
                None
            }
        }
    }

    /// How many targets there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the next round is due.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// The round that has been due for the longest, if one is. It runs until [`finish`](Self::finish).
    pub fn start(&mut self, now: Now) -> Option<Start> {
        if self.next()? > now.instant {
            return None;
        }
        let (due, key) = self.queue.pop_first()?;
        let random = self.random.random_range(0.0..1.0);
        let entry = self.entries.get_mut(&key)?;
        let target = entry.target.clone()?;
        self.rounds += 1;
        entry.running = Some(Running {
            round: self.rounds,
            stale: false,
        });
        entry.turn = entry.turn.wrapping_add(1);
        let period = target.probe.timing.period;
        entry.due = if std::mem::take(&mut entry.fresh) {
            now.instant + period.mul_f64(random)
        } else {
            due + period
        };
        Some(Start {
            key,
            round: self.rounds,
            target,
            turn: entry.turn,
            late: now.instant.saturating_duration_since(due),
        })
    }

    /// Takes in what a round came to; `None` if it was aborted.
    pub fn finish(&mut self, key: &Key, round: u64, outcome: Option<Outcome>, now: Now) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(running) = entry.running.filter(|running| running.round == round) else {
            return;
        };
        entry.running = None;
        let Some(target) = entry.target.clone() else {
            self.entries.remove(key);
            return;
        };
        // What was missed is not caught up with.
        entry.due = entry.due.max(now.instant);
        self.queue.insert((entry.due, key.clone()));
        if let Some(outcome) = outcome.filter(|_| !running.stale) {
            self.take(key, &target, &outcome, now);
        }
    }

    /// What there is to tell, oldest first; each target at most once, as it is now.
    pub fn report(&mut self, now: Now) -> Option<Report> {
        loop {
            let key = self.told.pop_front()?;
            let jitter = self.random.random_range(0.75..1.0);
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let waited = std::mem::take(&mut entry.waits);
            let Some(target) = entry.target.as_ref().filter(|_| waited) else {
                continue;
            };
            entry.told = (entry.error.clone(), now.instant);
            entry.heartbeat = now.instant + self.heartbeat.mul_f64(jitter);
            return Some(Report {
                key,
                generation: target.generation,
                state: entry.health.state(),
                last_known: entry.health.last_known(),
                since: entry.since,
                error: entry.error.clone(),
                round_trip: entry.round_trip,
                time: now.time,
            });
        }
    }

    /// Whether there is something to tell.
    pub fn has_report(&self) -> bool {
        !self.told.is_empty()
    }

    fn entry(&mut self, target: Arc<Target>, known: Option<Known>, now: Now) -> Entry {
        let first = FIRST.min(target.probe.timing.period);
        let from = match target.role {
            Role::Backend => self.arrive(now.instant),
            // What others are judged by waits for nobody.
            Role::Control | Role::Machine => now.instant,
        };
        let due = from + first.mul_f64(self.random.random_range(0.0..1.0));
        let heartbeat = self.heartbeat.mul_f64(self.random.random_range(0.0..1.0));
        let state = known.as_ref().map(|known| known.state).unwrap_or_default();
        let error = known.as_ref().and_then(|known| known.error.clone());
        let last_known = known.as_ref().map(|known| known.last_known);
        Entry {
            target: Some(target),
            health: Health::resume(state, last_known.unwrap_or_default()),
            since: known.map_or(now.time, |known| known.since),
            told: (error.clone(), now.instant),
            error,
            round_trip: None,
            due,
            running: None,
            turn: self.random.random(),
            fresh: true,
            silent: None,
            answers: None,
            heartbeat: now.instant + heartbeat,
            waits: false,
        }
    }

    /// From when on a backend may be asked that is new at `now`.
    fn arrive(&mut self, now: Instant) -> Instant {
        let at = self.free.map_or(now, |free| free.max(now));
        self.free = Some(at + FIRST / CROWD);
        at
    }

    /// Moves the next round to where the new period wants it. A round that may hang for longer than the new timeout allows
    /// is useless: the next would wait for it.
    fn retime(&mut self, key: &Key, before: Timing, after: Timing, now: Now) -> Option<u64> {
        let entry = self.entries.get_mut(key)?;
        let shorter = after.timeout < before.timeout;
        let running = entry.running.as_mut().filter(|_| shorter);
        let useless = running.map(|running| {
            running.stale = true;
            running.round
        });
        if before.period != after.period {
            let due = (entry.due + after.period).checked_sub(before.period);
            self.move_to(key, due.map_or(now.instant, |due| due.max(now.instant)));
        }
        useless
    }

    fn move_to(&mut self, key: &Key, due: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut entry.due, due);
        if self.queue.remove(&(before, key.clone())) {
            self.queue.insert((due, key.clone()));
        }
    }

    fn take(&mut self, key: &Key, target: &Target, outcome: &Outcome, now: Now) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let before = entry.health.state();
        let origin = outcome.as_ref().err().map(|failure| failure.origin());
        match origin {
            Some(Origin::Silence) if before == State::Healthy => {
                entry.silent.get_or_insert(now.instant);
            }
            Some(Origin::Silence | Origin::Prober) => {}
            Some(Origin::Target) | None => entry.silent = None,
        }
        entry.answers = Some(matches!(origin, Some(Origin::Target) | None));
        let silent = entry.silent;
        let mut health = entry.health;
        health.take(outcome, &target.probe.timing, target.far, || {
            // What was never well has nothing to lose, and a control does not vouch for itself.
            match silent.filter(|_| target.role != Role::Control) {
                Some(since) => self.judge(target, now.instant - since, now),
                None => Verdict::Trust,
            }
        });
        self.note(key, health, outcome, now);
    }

    /// Writes down what a round has changed, and whether that is worth telling.
    fn note(&mut self, key: &Key, health: Health, outcome: &Outcome, now: Now) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let changed = entry.health.state() != health.state();
        // Its own failures begin to count: whoever asks it next must know.
        let owns = entry.health.last_known() != health.last_known();
        entry.health = health;
        let state = health.state();
        match outcome {
            Ok(round_trip) => {
                entry.round_trip = Some(*round_trip);
                if state == State::Healthy {
                    entry.error = None;
                }
            }
            // A failure that has not made it unhealthy yet is not its state.
            Err(_) if state == State::Healthy => {}
            Err(failure) => entry.error = Some(words(state, failure, entry.silent)),
        }
        if changed {
            entry.since = now.time;
        }
        let news = entry.error != entry.told.0 && now.instant >= entry.told.1 + ERRORS;
        if (changed || owns || news || now.instant >= entry.heartbeat) && !entry.waits {
            entry.waits = true;
            self.told.push_back(key.clone());
        }
    }

    fn judge(&mut self, target: &Target, silent: Duration, now: Now) -> Verdict {
        let old = self.tallies.take();
        let tallies = old.filter(|old| now.instant < old.taken + TALLIES);
        let tallies = tallies.unwrap_or_else(|| self.tally(now.instant));
        let group = tallies.groups.get(&target.group);
        let case = Case {
            silent,
            // Of other machines each is asked by one prober alone, and whom to believe then is decided elsewhere.
            far: target.far && target.role == Role::Backend,
            group: group.copied().unwrap_or_default(),
            prober: tallies.prober,
            afar: tallies.afar,
        };
        let verdict = suspicion::judge(&case, &self.rule);
        self.tallies = Some(tallies);
        verdict
    }

    fn tally(&self, now: Instant) -> Tallies {
        let mut groups: BTreeMap<Arc<str>, Tally> = BTreeMap::new();
        let (mut prober, mut afar) = (Tally::default(), Tally::default());
        for entry in self.entries.values() {
            let Some(target) = &entry.target else {
                continue;
            };
            if target.role == Role::Control {
                let group = groups.entry(target.group.clone()).or_default();
                group.control = group.control.max(entry.answers);
                continue;
            }
            if target.role == Role::Machine {
                afar.control = afar.control.max(entry.answers);
            }
            let silent = entry
                .silent
                .is_some_and(|since| now < since + self.rule.patience);
            if !silent && entry.health.state() != State::Healthy {
                continue;
            }
            let group = groups.entry(target.group.clone()).or_default();
            let far = (target.far && target.role == Role::Backend).then_some(&mut afar);
            for tally in [group, &mut prober].into_iter().chain(far) {
                tally.targets += 1;
                tally.silent += usize::from(silent);
            }
        }
        Tallies {
            taken: now,
            groups,
            prober,
            afar,
        }
    }
}

fn words(state: State, failure: &crate::Failure, silent: Option<Instant>) -> String {
    let words = failure.words();
    if state == State::Unknown && silent.is_some() && failure.origin() == Origin::Silence {
        let suspicion = "the prober is suspected, as most of its targets fell silent at once: ";
        return suspicion
            .chars()
            .chain(words.chars())
            .take(crate::failure::MAX_WORDS)
            .collect();
    }
    words
}

#[cfg(test)]
mod tests;
