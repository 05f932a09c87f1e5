//! What the user sees while something takes time: a line a step, with what it is doing now and how long it took.

use std::io::IsTerminal;
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
        if let Some(bar) = &step.bar {
            bar.finish_and_clear();
            self.bars.remove(bar);
        }
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
            return Step { bar: None };
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
        Step { bar: Some(bar) }
    }
}

/// A step under way.
pub(crate) struct Step {
    bar: Option<ProgressBar>,
}

impl Step {
    /// A step that nobody watches.
    pub fn silent() -> Self {
        Self { bar: None }
    }

    /// Says what the step is doing now, in place of what it said before. On no terminal, says nothing.
    pub fn note(&self, text: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.into());
        }
    }
}
