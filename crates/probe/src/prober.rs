//! Drives a [`Schedule`]: the clock, the rounds as tasks, the reports on a channel.
//!
//! ```text
//!   Handle ── set, remove ──► Prober::run ── Report ──► who acts on it
//!                              │      ▲
//!                        spawn │      │ outcome
//!                              ▼      │
//!                        one task a round, at most `Options::sockets` at once
//! ```
//! Everything that is decided is decided in the schedule, on one task. Reports wait in the schedule while the channel is
//! full, one for each target: a slow reader costs no memory and gets the latest.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::failure::Failure;
use crate::round::{Outcome, ask};
use crate::schedule::{Key, Known, Now, Report, Schedule, Start, Target};
use crate::suspicion::Rule;

/// How many reports may wait in the channel.
const REPORTS: usize = 64;

/// A round that starts later than this after it was due counts as late.
const LATE: Duration = Duration::from_secs(1);

/// Bounds of a prober.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Sockets at once, and so rounds at once. Rounds beyond it wait, the longest due first. Keep it well below
    /// `RLIMIT_NOFILE`. Default 8192.
    pub sockets: usize,
    /// An unchanged target is reported about this often. Default 1 h: 10,000 targets make three reports a second.
    pub heartbeat: Duration,
    /// When the prober suspects itself.
    pub rule: Rule,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sockets: 8192,
            heartbeat: Duration::from_secs(3600),
            rule: Rule::default(),
        }
    }
}

/// Asks all targets, for as long as [`run`](Self::run) runs. Dropping that aborts every round.
#[derive(Debug)]
pub struct Prober {
    schedule: Schedule,
    sockets: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    reports: mpsc::Sender<Report>,
    rounds: JoinSet<Outcome>,
    tasks: HashMap<Id, (Key, u64)>,
    aborts: HashMap<u64, AbortHandle>,
    figures: Arc<Counters>,
}

/// Changes the targets of a running prober.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    figures: Arc<Counters>,
}

#[derive(Debug)]
enum Command {
    Set(Key, Arc<Target>, Option<Known>),
    Remove(Key),
}

#[derive(Debug, Default)]
struct Counters {
    targets: AtomicU64,
    running: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
}

/// What a prober has done, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Targets.
    pub targets: u64,
    /// Rounds that run now.
    pub running: u64,
    /// Rounds that succeeded since the start.
    pub succeeded: u64,
    /// Rounds that failed since the start.
    pub failed: u64,
    /// Rounds that started more than a second after they were due: too few sockets, or too little processor.
    pub late: u64,
}

impl Handle {
    /// Adds a target or changes one; see [`Schedule::set`]. Nothing happens once the prober has ended.
    pub fn set(&self, key: impl Into<Key>, target: Target, known: Option<Known>) {
        let command = Command::Set(key.into(), Arc::new(target), known);
        // A prober that has ended has no targets.
        let _ = self.commands.send(command);
    }

    /// Removes a target. A report that waits in the channel may still come.
    pub fn remove(&self, key: impl Into<Key>) {
        let _ = self.commands.send(Command::Remove(key.into()));
    }

    /// What the prober has done so far.
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            targets: read(&self.figures.targets),
            running: read(&self.figures.running),
            succeeded: read(&self.figures.succeeded),
            failed: read(&self.figures.failed),
            late: read(&self.figures.late),
        }
    }
}

impl Prober {
    /// A prober without targets, the handle that gives it some, and where its reports arrive.
    pub fn new(options: Options) -> (Self, Handle, mpsc::Receiver<Report>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::channel(REPORTS);
        let figures = Arc::new(Counters::default());
        let prober = Self {
            schedule: Schedule::new(options.rule, options.heartbeat, rand::random()),
            sockets: options.sockets,
            commands: receiver,
            reports,
            rounds: JoinSet::new(),
            tasks: HashMap::new(),
            aborts: HashMap::new(),
            figures: figures.clone(),
        };
        (prober, Handle { commands, figures }, reported)
    }

    /// Asks until every handle is dropped, or the receiver of the reports is.
    pub async fn run(mut self) {
        let reports = self.reports.clone();
        loop {
            let free = self.rounds.len() < self.sockets;
            let next = self.schedule.next().filter(|_| free);
            let wait = next.unwrap_or_else(Instant::now).into();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.rounds.join_next_with_id() => self.finished(done),
                permit = reports.reserve(), if self.schedule.has_report() => match permit {
                    Ok(permit) => {
                        if let Some(report) = self.schedule.report(now()) {
                            permit.send(report);
                        }
                    }
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(wait), if next.is_some() => self.start(),
            }
            let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            let figures = &self.figures;
            figures
                .targets
                .store(count(self.schedule.len()), Ordering::Relaxed);
            figures
                .running
                .store(count(self.rounds.len()), Ordering::Relaxed);
        }
    }

    fn obey(&mut self, command: Command) {
        let useless = match command {
            Command::Set(key, target, known) => self.schedule.set(&key, target, known, now()),
            Command::Remove(key) => self.schedule.remove(&key),
        };
        if let Some(abort) = useless.and_then(|round| self.aborts.get(&round)) {
            abort.abort();
        }
    }

    /// Starts what is due, as far as there are sockets.
    fn start(&mut self) {
        let now = now();
        while self.rounds.len() < self.sockets {
            let Some(start) = self.schedule.start(now) else {
                return;
            };
            if start.late > LATE {
                self.figures.late.fetch_add(1, Ordering::Relaxed);
            }
            self.spawn(start);
        }
    }

    fn spawn(&mut self, start: Start) {
        let Start {
            key,
            round,
            target,
            turn,
            ..
        } = start;
        let abort = self
            .rounds
            .spawn(async move { ask(&target.probe, &*target.sockets, turn).await });
        self.tasks.insert(abort.id(), (key, round));
        self.aborts.insert(round, abort);
    }

    fn finished(&mut self, done: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => {
                let panic = io::Error::other("it panicked");
                (
                    error.id(),
                    Some(Err(Failure::prober("finish a round", &panic))),
                )
            }
        };
        let Some((key, round)) = self.tasks.remove(&id) else {
            return;
        };
        self.aborts.remove(&round);
        match &outcome {
            Some(Ok(_)) => self.figures.succeeded.fetch_add(1, Ordering::Relaxed),
            Some(Err(_)) => self.figures.failed.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
        self.schedule.finish(&key, round, outcome, now());
    }
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        time: SystemTime::now(),
    }
}
