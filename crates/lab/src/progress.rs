//! What the user sees while something takes time: a line a step, with what it is doing now and how long it took.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shows the steps of one run on standard error. Steps may run at the same time.
pub(crate) struct Progress {
    bars: MultiProgress,
    terminal: bool,
    started: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
            terminal: std::io::stderr().is_terminal(),
            started: Instant::now(),
        }
    }

    /// Since this run began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Does `work` as one step. Its line stays, with the time it took; a step that was instant leaves none.
    pub fn step<T>(&self, title: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = self.begin(title);
        let started = Instant::now();
        let result = work(&step);
        if let Watched::Bar(bar) = &step.watched {
            bar.finish_and_clear();
            self.bars.remove(bar);
        }
        drop(step);
        let took = started.elapsed().as_secs_f32();
        match &result {
            Ok(_) if took < 0.05 => {}
            Ok(_) => self.say(&format!("  ok     {took:6.1} s  {title}")),
            Err(_) => self.say(&format!("  FAILED {took:6.1} s  {title}")),
        }
        result
    }

    /// Prints a line above the steps that are under way.
    pub fn say(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }

    fn begin(&self, title: &str) -> Step {
        if !self.terminal {
            return Step {
                watched: Watched::Lines(Lines::begin(title)),
            };
        }
        let style =
            ProgressStyle::with_template("  {spinner} {elapsed:>8}  {prefix}  {wide_msg:.dim}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = self.bars.add(
            ProgressBar::new_spinner()
                .with_style(style)
                .with_prefix(title.to_owned()),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        Step {
            watched: Watched::Bar(bar),
        }
    }
}

/// A step under way.
pub(crate) struct Step {
    watched: Watched,
}

/// How somebody sees what a step is at.
enum Watched {
    Not,
    /// On a terminal.
    Bar(ProgressBar),
    /// On none.
    Lines(Lines),
}

impl Step {
    /// A step that nobody watches.
    pub fn silent() -> Self {
        Self {
            watched: Watched::Not,
        }
    }

    /// Says what the step is doing now, in place of what it said before.
    pub fn note(&self, text: impl Into<String>) {
        match &self.watched {
            Watched::Not => {}
            Watched::Bar(bar) => bar.set_message(text.into()),
            Watched::Lines(lines) => {
                *lines.note.lock().unwrap_or_else(PoisonError::into_inner) = text.into()
            }
        }
    }
}

/// How often a step that takes long says on no terminal what it is at.
const LINE_PERIOD: Duration = Duration::from_secs(30);

/// Says every half minute what a step is at, until it is dropped.
struct Lines {
    note: Arc<Mutex<String>>,
    /// The thread ends with it.
    _ends: mpsc::Sender<()>,
}

impl Lines {
    fn begin(title: &str) -> Self {
        let (ends, ended) = mpsc::channel::<()>();
        let note = Arc::new(Mutex::new(String::new()));
        let (title, told) = (title.to_owned(), note.clone());
        thread::spawn(move || {
            let started = Instant::now();
            while ended.recv_timeout(LINE_PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                let note = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
                eprintln!("{}", line(started.elapsed(), &title, &note));
            }
        });
        Self { note, _ends: ends }
    }
}

fn line(elapsed: Duration, title: &str, note: &str) -> String {
    let seconds = elapsed.as_secs_f32();
    let separator = if note.is_empty() { "" } else { ": " };
    format!("  still  {seconds:6.1} s  {title}{separator}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_says_what_it_is_at() {
        let said = line(Duration::from_secs(30), "building the image", "etcd");
        assert_eq!(said, "  still    30.0 s  building the image: etcd");
        let said = line(Duration::from_secs(60), "building the image", "");
        assert_eq!(said, "  still    60.0 s  building the image");
    }
}
