//! Who watches the tasks of a program: a [`Supervisor`] starts them by name, notices an end, and knows each one's last pass.
//!
//! ```text
//!   spawn(name, limit, task) ──► task ── Heartbeat::pass, beat ──► readiness: [+]name ok, or [-]name failed
//!                                 │
//!                                 └── returns or panics before `stop` ──► fault() ──► the process ends, and says why
//! ```
//!
//! A pass is a piece of work that must end: what a task does between two waits. A task that waits for something to do is well however
//! long that is; one whose pass takes longer than its limit hangs, and nothing else would tell.
//!
//! # Guarantees
//! * A task that ends before the program was told to stop is a fault, whether it returned or panicked.
//! * An end after that is none.
//!
//! # Caveats
//! * Work that ends by itself (a write, a connection) is its parent's: joined, or carried out by [`reported`].
//! * A task that hangs is told of and not ended: what it holds would stay as it is.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a pass may take where nothing speaks for another bound: what it asks answers, or is given up, within seconds.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Starts tasks that run as long as the process, and watches them. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stop: CancellationToken,
    /// In the order in which they began.
    tasks: Mutex<Vec<Heartbeat>>,
    /// The first one.
    fault: watch::Sender<Option<Fault>>,
}

/// A task ended that was to run as long as the process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task:?} {end}")]
pub struct Fault {
    /// Its name.
    pub task: String,
    /// How.
    pub end: End,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It returned.
    Returned,
    /// It panicked, with this message.
    Panicked(String),
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Returned => f.write_str("returned, and nothing does its work any more"),
            End::Panicked(message) => write!(f, "panicked: {message}"),
        }
    }
}

impl Supervisor {
    /// `stop`: cancelled when the process shall end. From then on, tasks may end.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                stop,
                tasks: Mutex::default(),
                fault: watch::channel(None).0,
            }),
        }
    }

    /// Starts a task. It says by its heartbeat when a pass begins and ends; none may take longer than `limit`.
    pub fn spawn<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        limit: Duration,
        task: impl FnOnce(Heartbeat) -> F,
    ) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let heartbeat = self.heartbeat(name, limit);
        self.start(heartbeat.clone(), task(heartbeat))
    }

    /// Starts a task that has no passes, as one that carries a connection: only its end is noticed.
    pub fn carry<F>(&self, name: impl Into<Cow<'static, str>>, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(self.add(name.into(), None), task)
    }

    /// The heartbeat of a task that the caller runs, and whose end is the caller's affair.
    pub fn heartbeat(&self, name: impl Into<Cow<'static, str>>, limit: Duration) -> Heartbeat {
        self.add(name.into(), Some(limit))
    }

    /// Waits until a task has ended that should not have: the reason for which the process has to.
    pub async fn fault(&self) -> Fault {
        let mut fault = self.shared.fault.subscribe();
        loop {
            if let Some(fault) = fault.borrow_and_update().clone() {
                return fault;
            }
            if fault.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What `/readyz` answers: `Err` if something is `missing`, or a task is not well. With `verbose` a line for each, in the form in
    /// which the API server has it.
    ///
    /// # Errors
    /// The text for a program that is not ready; it names what is not well in either form.
    pub fn readiness(
        &self,
        missing: &[&str],
        verbose: bool,
        now: Instant,
    ) -> Result<String, String> {
        let tasks = self.tasks().clone();
        let checks: Vec<(&str, Check)> = tasks
            .iter()
            .map(|task| (&*task.0.name, task.check(now)))
            .collect();
        let well = missing.is_empty() && checks.iter().all(|(_, check)| check.well);
        let mut text = String::new();
        // Writing to a String does not fail.
        if verbose {
            for part in missing {
                let _ = writeln!(text, "[-]{part} failed: waiting for it");
            }
            for (name, Check { well, words }) in &checks {
                let _ = match well {
                    true => writeln!(text, "[+]{name} ok: {words}"),
                    false => writeln!(text, "[-]{name} failed: {words}"),
                };
            }
            let passed = if well { "passed" } else { "failed" };
            let _ = writeln!(text, "readyz check {passed}");
        } else if well {
            text.push_str("ok\n");
        } else {
            if !missing.is_empty() {
                let _ = writeln!(text, "waiting for {}", missing.join(", "));
            }
            for (name, check) in checks.iter().filter(|(_, check)| !check.well) {
                let _ = writeln!(text, "task {name:?}: {}", check.words);
            }
        }
        match well {
            true => Ok(text),
            false => Err(text),
        }
    }

    fn add(&self, name: Cow<'static, str>, limit: Option<Duration>) -> Heartbeat {
        let heartbeat = Heartbeat(Arc::new(Task {
            name,
            limit,
            progress: Mutex::default(),
        }));
        self.tasks().push(heartbeat.clone());
        heartbeat
    }

    fn start<F>(&self, heartbeat: Heartbeat, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let supervisor = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "this is who watches: the task's end is noticed right here"
        )]
        tokio::spawn(async move {
            let end = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) => End::Returned,
                Err(panic) => End::Panicked(message(&*panic)),
            };
            supervisor.ended(&heartbeat, end);
        })
    }

    fn ended(&self, heartbeat: &Heartbeat, end: End) {
        let fault = Fault {
            task: heartbeat.0.name.clone().into_owned(),
            end: end.clone(),
        };
        heartbeat.progress().end = Some(end);
        if self.shared.stop.is_cancelled() {
            tracing::debug!("{fault}, while the program stops");
            return;
        }
        tracing::error!("{fault}; the process ends");
        // What ends after the first one ends by it, more often than not.
        self.shared.fault.send_if_modified(|first| {
            let news = first.is_none();
            first.get_or_insert(fault);
            news
        });
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Heartbeat>> {
        let tasks = self.shared.tasks.lock();
        tasks.unwrap_or_else(PoisonError::into_inner)
    }
}

/// By which a task says that it goes on. Cheap to clone; all clones are one. One that is made by `default` nobody looks at.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<Task>);

#[derive(Debug, Default)]
struct Task {
    name: Cow<'static, str>,
    /// How long a pass may take; `None`: there are none.
    limit: Option<Duration>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// When the pass that is under way began.
    begun: Option<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
    end: Option<End>,
}

/// How a task is.
struct Check {
    well: bool,
    words: String,
}

impl Heartbeat {
    /// A pass begins; it ends when this is dropped.
    #[must_use = "the pass ends when this is dropped"]
    pub fn pass(&self) -> Pass<'_> {
        self.progress().begun = Some(Instant::now());
        Pass(self)
    }

    /// A pass that was over as soon as it had begun.
    pub fn beat(&self) {
        drop(self.pass());
    }

    fn check(&self, now: Instant) -> Check {
        let progress = self.progress();
        let for_seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let last = match progress.ended {
            Some(ended) => format!("last pass ended {} s ago", for_seconds(ended)),
            None => "no pass has ended yet".to_owned(),
        };
        let (well, words) = match (&progress.end, progress.begun, self.0.limit) {
            (Some(end), ..) => (false, end.to_string()),
            (None, _, None) => (true, "runs".to_owned()),
            (None, None, Some(_)) => (true, format!("waits, {last}")),
            (None, Some(begun), Some(limit)) => {
                let under_way = for_seconds(begun);
                let well = now.saturating_duration_since(begun) <= limit;
                let most = if well {
                    "it may take"
                } else {
                    "overdue: it may take"
                };
                let words = format!(
                    "a pass is under way for {under_way} s, {most} {} s; {last}",
                    limit.as_secs()
                );
                (well, words)
            }
        };
        Check { well, words }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        let progress = self.0.progress.lock();
        progress.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pass under way, see [`Heartbeat::pass`].
#[derive(Debug)]
pub struct Pass<'a>(&'a Heartbeat);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut progress = self.0.progress();
        (progress.begun, progress.ended) = (None, Some(Instant::now()));
    }
}

/// Carries out work that ends by itself. `None` if it panicked, which the log tells with the name of the work; others go on.
pub async fn reported<T>(work: &str, future: impl Future<Output = T>) -> Option<T> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(done) => Some(done),
        Err(panic) => {
            tracing::error!(work, panic = message(&*panic), "a task panicked");
            None
        }
    }
}

/// Whether a query asks for a line a task: `verbose`, with or without a value, as the API server has it.
pub fn is_verbose(query: Option<&str>) -> bool {
    let mut words = query.unwrap_or_default().split('&');
    words.any(|word| word == "verbose" || word.starts_with("verbose="))
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it does not say why").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn supervisor() -> (Supervisor, CancellationToken) {
        let stop = CancellationToken::new();
        (Supervisor::new(stop.clone()), stop)
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_process_with_its_name_and_the_message() {
        let (supervisor, _stop) = supervisor();
        supervisor.carry("others", std::future::pending());
        supervisor.spawn("devices", LIMIT, |_| async { panic!("port {} is lost", 7) });
        let fault = supervisor.fault().await;
        assert_eq!(
            fault.to_string(),
            "task \"devices\" panicked: port 7 is lost"
        );
        let words = supervisor.readiness(&[], false, Instant::now());
        assert_eq!(
            words.unwrap_err(),
            "task \"devices\": panicked: port 7 is lost\n"
        );
    }

    #[tokio::test]
    async fn a_task_that_returns_is_a_fault_too_and_the_first_one_counts() {
        let (supervisor, _stop) = supervisor();
        let first = supervisor.carry("netlink", async {});
        first.await.unwrap();
        supervisor.carry("what needs it", async {}).await.unwrap();
        let fault = supervisor.fault().await;
        assert_eq!((fault.task.as_str(), fault.end), ("netlink", End::Returned));
    }

    #[tokio::test]
    async fn what_ends_once_the_program_stops_is_no_fault() {
        let (supervisor, stop) = supervisor();
        let token = stop.clone();
        let task = supervisor.carry("signals", async move { token.cancelled().await });
        stop.cancel();
        task.await.unwrap();
        assert_eq!(supervisor.fault().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_task_that_hangs_in_a_pass_is_named_and_one_that_waits_is_not() {
        let (supervisor, _stop) = supervisor();
        let waits = supervisor.heartbeat("pod links", 5 * SECOND);
        let hangs = supervisor.heartbeat("services", 5 * SECOND);
        supervisor.carry("netlink", std::future::pending());
        let start = Instant::now();
        waits.beat();
        let pass = hangs.pass();
        assert!(supervisor.readiness(&[], false, start + 4 * SECOND).is_ok());
        let later = Instant::now() + 6 * SECOND;
        let words = supervisor.readiness(&[], false, later).unwrap_err();
        assert!(words.starts_with("task \"services\": "), "{words}");
        let words = supervisor.readiness(&["Open vSwitch"], true, later);
        let expected = "\
[-]Open vSwitch failed: waiting for it
[+]pod links ok: waits, last pass ended 6 s ago
[-]services failed: a pass is under way for 6 s, overdue: it may take 5 s; no pass has ended yet
[+]netlink ok: runs
readyz check failed
";
        assert_eq!(words.unwrap_err(), expected);
        drop(pass);
        assert_eq!(supervisor.readiness(&[], false, later), Ok("ok\n".into()));
        let words = supervisor.readiness(&[], true, later).unwrap();
        assert!(words.ends_with("\nreadyz check passed\n"), "{words}");
    }

    #[tokio::test]
    async fn work_that_panics_is_told_of_and_others_go_on() {
        assert_eq!(reported("a write", async { 1 }).await, Some(1));
        assert_eq!(
            reported("a write", async { panic!("no") }).await,
            None::<u8>
        );
    }
}
