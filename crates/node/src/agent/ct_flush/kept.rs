//! The pairs that there are, in a file: what leaves while the agent is away is found by it when it is back.
//!
//! A line a pair: `6 10.96.0.7:80 10.0.1.9:8080`. The folder is one that a reboot empties, as it does with the connections.
//!
//! # Guarantees
//! * The file is whole, or as it was before: it is written aside.
//! * A pair that is gone stays in it until its connections are flushed.
//! * It is at most [`REST`] old.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::pairs::Pair;

/// How often it is written at most: it has all pairs of the cluster.
pub const REST: Duration = Duration::from_secs(10);

/// The file.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    /// When it is to be written, if it is.
    due: Option<Instant>,
    /// When it was last written, or that was last tried.
    last: Option<Instant>,
    /// Whether that failed: said once.
    failed: bool,
}

impl Kept {
    /// The file `path`; its folder is made where it is missing.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            due: None,
            last: None,
            failed: false,
        }
    }

    /// What a former agent left; nothing, if there was none. A line that cannot be read is another version's, and left out.
    pub fn load(&self) -> BTreeSet<Pair> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter_map(pair).collect()
    }

    /// The pairs are others than before.
    pub fn change(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| (last + REST).max(now));
        self.due.get_or_insert(earliest);
    }

    /// When it is to be written.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes it, if it is time.
    pub fn pass<'a>(&mut self, pairs: impl Iterator<Item = &'a Pair>, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        (self.due, self.last) = (None, Some(now));
        let mut text = String::new();
        for pair in pairs {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {} {}", pair.protocol, pair.vip, pair.backend);
        }
        let stored = store(&self.path, &text);
        let failed = std::mem::replace(&mut self.failed, stored.is_err());
        if let Err(error) = stored {
            self.change(now);
            if !failed {
                let (path, error) = (self.path.display(), &error as &dyn std::error::Error);
                tracing::warn!(%path, error, "failed to note which backends there are; what leaves while this agent is away keeps its connections");
            }
        }
    }
}

fn store(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let aside = path.with_extension("new");
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, path)
}

fn pair(line: &str) -> Option<Pair> {
    let mut words = line.split(' ');
    let pair = Pair {
        protocol: words.next()?.parse().ok()?,
        vip: words.next()?.parse().ok()?,
        backend: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_is_written_at_leisure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/pairs");
        let pairs = ["6 10.96.0.7:80 10.0.0.1:80", "17 [fd00::7]:53 [fd00::1]:53"];
        let pairs: BTreeSet<Pair> = pairs.iter().filter_map(|line| pair(line)).collect();
        assert_eq!(pairs.len(), 2);
        let now = Instant::now();
        let mut kept = Kept::new(path.clone());
        assert_eq!((kept.load(), kept.due()), (BTreeSet::new(), None));
        kept.pass(pairs.iter(), now);
        assert!(!path.exists(), "nothing changed");
        kept.change(now);
        kept.pass(pairs.iter(), now);
        assert_eq!(Kept::new(path.clone()).load(), pairs);
        let soon = now + Duration::from_secs(1);
        kept.change(soon);
        kept.change(soon);
        assert_eq!(kept.due(), Some(now + REST));
        kept.pass(pairs.iter().take(1), soon);
        assert_eq!(kept.load().len(), 2, "not yet");
        kept.pass(pairs.iter().take(1), now + REST);
        assert_eq!((kept.load().len(), kept.due()), (1, None));
        std::fs::write(
            &path,
            "6 10.96.0.7:80 10.0.0.1:80\n6 x y\n6 1.2.3.4:1 1.2.3.4:2 more\n",
        )
        .unwrap();
        assert_eq!(kept.load().len(), 1);
    }
}
