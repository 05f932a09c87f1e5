//! The lab's long-running processes: started so that none is ever lost, found again, stopped.
//!
//! A process is known by its pid file, which it writes itself before it becomes the program, and by a mark in its
//! environment that no other process has. So a run that was killed at any moment leaves nothing that the next does not
//! find, and a reused pid is never mistaken for ours.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{tail, wait_until};
use crate::layout::{Layout, Machine};

/// The environment variable that marks a process of a lab: `<lab>/<machine>/<part>`.
const MARK: &str = "YCLOUD_LAB_PROCESS";

/// A process that a lab has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process<'a> {
    pub layout: &'a Layout,
    pub machine: Machine,
    pub part: &'a str,
}

impl Process<'_> {
    pub fn log(&self) -> PathBuf {
        self.layout.log(self.machine, self.part)
    }

    fn pid_file(&self) -> PathBuf {
        self.layout.pid_file(self.machine, self.part)
    }

    fn mark(&self) -> String {
        format!("{}/{}/{}", self.layout.name, self.machine, self.part)
    }

    /// The environment variable that marks the process, for one that is not started in the background.
    pub fn mark_variable(&self) -> (&'static str, String) {
        (MARK, self.mark())
    }

    /// The process, if it lives.
    pub fn pid(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.pid_file())
            .ok()?
            .trim()
            .parse()
            .ok()?;
        (mark_of(pid)? == self.mark()).then_some(pid)
    }

    /// Kills the process and what it started for itself.
    pub fn kill(&self) {
        end(&self.family(), Duration::ZERO);
    }

    /// Sends a signal to the process and to what it started for itself.
    pub fn signal(&self, signal: Signal) {
        for pid in self.family() {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// The process and all that it started for itself, also when it is dead itself. What it runs for others, as containerd
    /// its shims, is not among them: that outlives it by design.
    fn family(&self) -> Vec<i32> {
        let for_others = |pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("containerd-shim") || name.starts_with("runc")
        };
        let ours = |pid: &i32| mark_of(*pid).is_some_and(|mark| mark == self.mark());
        all()
            .map(|(pid, _)| pid)
            .filter(|pid| ours(pid) && !for_others(*pid))
            .collect()
    }

    /// Starts `words` (which may begin with `nsenter …`) in the background, unless the process lives. Returns whether it
    /// was started.
    pub fn start<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        path: &OsStr,
    ) -> Result<bool> {
        if self.pid().is_some() {
            return Ok(false);
        }
        // A monitor that was killed leaves what it monitored, which would stand in the way.
        self.kill();
        for folder in [self.log(), self.pid_file()] {
            if let Some(folder) = folder.parent() {
                fs::create_dir_all(folder)
                    .with_context(|| format!("failed to make {}", folder.display()))?;
            }
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        // The shell names itself in the pid file, then becomes the program: there is no moment in which it runs unknown.
        let mut shell = Command::new("setsid");
        shell.args([
            "sh",
            "-c",
            r#"echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@""#,
        ]);
        shell.arg(self.pid_file()).args(words);
        // Nothing of the caller's environment: a proxy's variable would cut the cluster in pieces.
        shell
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            // Programs in Go collect garbage a quarter as often: a lab has less processor than memory.
            .env("GOGC", "400")
            .env(MARK, self.mark());
        shell
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/");
        let mut child = shell
            .spawn()
            .with_context(|| format!("failed to start {}", self.part))?;
        // The mark is there from the first instant; the pid file a moment later.
        let id = i32::try_from(child.id())?;
        let known = wait_until(Duration::from_secs(10), Duration::from_millis(2), || {
            Ok(self.pid() == Some(id) || child.try_wait()?.is_some())
        })?;
        if !known || child.try_wait()?.is_some() {
            bail!(
                "{} on {} could not be started\n{}",
                self.part,
                self.machine,
                tail(&self.log(), 15)
            );
        }
        // Reaps it should it end while this run lasts; else it is init's.
        std::thread::spawn(move || child.wait());
        Ok(true)
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    /// When the process ends, or is not ready within `limit`: with the end of its log.
    pub fn wait_ready(
        &self,
        limit: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let came = wait_until(limit, Duration::from_millis(150), || {
            if self.pid().is_none() {
                bail!(
                    "{} on {} has ended\n{}",
                    self.part,
                    self.machine,
                    tail(&self.log(), 15)
                );
            }
            ready()
        })?;
        if !came {
            let limit = limit.as_secs();
            bail!(
                "{} on {} was not ready within {limit} s\n{}",
                self.part,
                self.machine,
                tail(&self.log(), 15)
            );
        }
        Ok(())
    }
}

/// The mark in a process's environment. A process that has ended, or is a zombie, has none.
fn mark_of(pid: i32) -> Option<String> {
    let environment = environment(pid)?;
    let prefix = format!("{MARK}=");
    let mark = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(mark).into_owned())
}

/// The process's environment (proc_pid_environ(5)), its first 256 KiB. In the middle of an execve(2) it looks empty for an
/// instant: a process that has a program, and no environment, is asked again for a while.
fn environment(pid: i32) -> Option<Vec<u8>> {
    // In one read: between two, the process may become another program, and the rest be missing.
    let mut buffer = vec![0; 256 * 1024];
    for _ in 0..100 {
        let count = File::open(format!("/proc/{pid}/environ"))
            .ok()?
            .read(&mut buffer)
            .ok()?;
        if count > 0 || fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            buffer.truncate(count);
            return Some(buffer);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Ends processes: TERM, then KILL to those that live after `grace`. Returns once they are gone, or after 5 s more.
pub(crate) fn end(pids: &[i32], grace: Duration) {
    let signal = |signal| {
        for pid in pids {
            // It may be gone already, which is what is wanted.
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    };
    let gone = |limit| {
        wait_until(limit, Duration::from_millis(20), || {
            Ok(!pids.iter().any(|pid| lives(*pid)))
        })
    };
    if !grace.is_zero() {
        signal(Signal::SIGTERM);
        // Stopped processes (a test may have left one so) do not see TERM.
        signal(Signal::SIGCONT);
        if gone(grace).unwrap_or(false) {
            return;
        }
    }
    signal(Signal::SIGKILL);
    let _ = gone(Duration::from_secs(5));
}

/// Whether the process is there, or anything of it: a zombie (proc_pid_stat(5): the state follows its name in parentheses) whose
/// other threads are still ending has its files yet, and its ports listen.
fn lives(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let zombie = stat
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'));
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !zombie || threads() > 1
}

/// All processes of this machine, with the folder of each in `/proc`.
fn all() -> impl Iterator<Item = (i32, PathBuf)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.path()))
        })
}

/// All processes that bear a mark that begins with `prefix` (`<lab>/` or `<lab>/<machine>/`), also those that a marked one
/// has started.
pub(crate) fn marked(prefix: &str) -> Vec<i32> {
    all()
        .filter(|(pid, _)| mark_of(*pid).is_some_and(|mark| mark.starts_with(prefix)))
        .map(|(pid, _)| pid)
        .collect()
}

/// Those of [`marked`] that are the part `part` itself or were started by it.
pub(crate) fn marked_part(prefix: &str, part: &str) -> Vec<i32> {
    let ours = |mark: String| mark.starts_with(prefix) && mark.rsplit('/').next() == Some(part);
    all()
        .filter(|(pid, _)| mark_of(*pid).is_some_and(ours))
        .map(|(pid, _)| pid)
        .collect()
}

/// All processes whose namespace of this `kind` (`net`, `mnt`) is the one of the file `namespace`.
pub(crate) fn within(kind: &str, namespace: &Path) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt;
    let Ok(wanted) = fs::metadata(namespace).map(|meta| meta.ino()) else {
        return Vec::new();
    };
    all()
        .filter(|(_, folder)| {
            fs::metadata(folder.join("ns").join(kind)).is_ok_and(|meta| meta.ino() == wanted)
        })
        .map(|(pid, _)| pid)
        .collect()
}

/// The words that run a command within the lab's machine: its network namespace, and a chassis' mounts and host name too.
///
/// # Errors
/// When the machine is a chassis that is not up.
pub(crate) fn enter(layout: &Layout, machine: Machine) -> Result<Vec<OsString>> {
    Ok(match machine {
        Machine::Node(_) | Machine::Dpu => {
            let holder = Process {
                layout,
                machine,
                part: "node",
            }
            .pid()
            .with_context(|| format!("{machine} of the lab {} is not up", layout.name))?;
            vec![
                "nsenter".into(),
                "-t".into(),
                holder.to_string().into(),
                "-n".into(),
                "-m".into(),
                "-u".into(),
                "--".into(),
            ]
        }
        Machine::Control | Machine::External | Machine::Upstream => {
            vec![
                "nsenter".into(),
                format!("--net=/run/netns/{}", layout.netns(machine)).into(),
                "--".into(),
            ]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::OvnVersion;

    #[test]
    fn this_process_has_no_mark_and_lives() {
        let me = std::process::id() as i32;
        assert_eq!(mark_of(me), None);
        assert!(lives(me));
        assert!(!lives(i32::MAX));
    }

    #[test]
    fn a_process_is_found_by_its_mark_and_ended() {
        let mut child = Command::new("sleep")
            .arg("600")
            .env(MARK, "unit-test-x/control/sleep")
            .spawn()
            .unwrap();
        let id = child.id() as i32;
        let found = wait_until(Duration::from_secs(5), Duration::from_millis(5), || {
            Ok(marked("unit-test-x/") == [id])
        });
        assert!(found.unwrap());
        assert!(marked("unit-test/").is_empty());
        end(&[id], Duration::from_secs(2));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        // Its first thread ends (exit(2) as the kernel has it), which makes it a zombie; another holds its standard output.
        let first_ends = r#"
            require "syscall.ph"; use threads;
            threads->create(sub { sleep 600 }); syscall(&SYS_exit, 0);"#;
        let mut child = Command::new("perl")
            .args(["-e", first_ends])
            .spawn()
            .unwrap();
        let id = child.id() as i32;
        let zombie = || {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            Ok(stat.contains(") Z "))
        };
        let turned = wait_until(Duration::from_secs(5), Duration::from_millis(5), zombie);
        assert!(turned.unwrap());
        assert!(lives(id));
        end(&[id], Duration::ZERO);
        assert!(!lives(id));
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_becomes_one_program_after_another_keeps_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("chain");
        fs::write(
            &script,
            r#"[ "$1" -gt 0 ] && exec sh "$0" $(($1-1)); exec sleep 600"#,
        )
        .unwrap();
        let mark = "unit-test-y/control/chain";
        let mut child = Command::new("sh")
            .arg(&script)
            .arg("300")
            .env(MARK, mark)
            .spawn()
            .unwrap();
        let id = child.id() as i32;
        while fs::read_to_string(format!("/proc/{id}/comm"))
            .unwrap()
            .trim()
            != "sleep"
        {
            assert_eq!(mark_of(id).as_deref(), Some(mark));
        }
        end(&[id], Duration::ZERO);
        child.wait().unwrap();
    }

    #[test]
    fn a_stale_pid_file_names_nobody() {
        let layout = Layout {
            name: "no-such-lab".into(),
            index: 0,
            nodes: 1,
            ovn: OvnVersion::V25_03,
        };
        assert_eq!(
            Process {
                layout: &layout,
                machine: Machine::Control,
                part: "etcd"
            }
            .pid(),
            None
        );
        assert!(enter(&layout, Machine::Node(1)).is_err());
    }
}
