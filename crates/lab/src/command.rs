//! Running other programs to their end, with errors that say what they said.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress::Step;

/// A command of `program` and `args`.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// The command as one would type it, shortened.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    if text.chars().count() > 200 {
        text = text.chars().take(200).collect::<String>() + "…";
    }
    text
}

/// Runs to the end and returns standard output.
///
/// # Errors
/// When it cannot be started, or ends with another code than 0: the message has the end of what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", shown(command)))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{} ended with {}\n{}",
            shown(command),
            output.status,
            last_lines(&String::from_utf8_lossy(&said), 12)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `run` for words known when writing.
pub(crate) fn run_words(words: &[&str]) -> Result<String> {
    let (program, args) = words.split_first().context("an empty command")?;
    run(&mut command(program, args))
}

/// Whether the command could be run and ended with 0; what it prints is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs something long: each line it prints becomes the step's note, and all of them go to the file `log`.
///
/// # Errors
/// As [`run`]; the message also names the log.
pub(crate) fn run_long(command: &mut Command, log: &Path, step: &Step) -> Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
    }
    let mut file =
        File::create(log).with_context(|| format!("failed to write {}", log.display()))?;
    let (reader, writer) = std::io::pipe().context("failed to make a pipe")?;
    let name = shown(command);
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("failed to start {name}"))?;
    // The command holds the pipe's writing ends: without this the reader would never see its end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("failed to read what a command printed")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(file, "{line}")?;
        // Messages for programs are for the log only.
        if !line.starts_with('{') {
            step.note(line.trim());
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("failed to wait for {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}\n{}", tail(log, 20));
    }
    Ok(())
}

/// The last `count` lines of a log, headed by its path.
pub(crate) fn tail(log: &Path, count: usize) -> String {
    match fs::read(log) {
        Ok(bytes) => {
            // A log may be long; lines of a program are far shorter than 64 KiB in all.
            let from = bytes.len().saturating_sub(64 * 1024);
            format!(
                "end of {}:\n{}",
                log.display(),
                last_lines(&String::from_utf8_lossy(&bytes[from..]), count)
            )
        }
        Err(error) => format!("there is no log {}: {error}", log.display()),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('{'))
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| format!("    {}", line.chars().take(400).collect::<String>()))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Asks `ready` again and again until it says yes. `false` after `limit`.
///
/// # Errors
/// The first error of `ready`.
pub(crate) fn wait_until(
    limit: Duration,
    pause: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    let start = Instant::now();
    loop {
        if ready()? {
            return Ok(true);
        }
        if start.elapsed() > limit {
            return Ok(false);
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_says_what_it_printed() {
        let error = run_words(&["sh", "-c", "echo one; echo two >&2; exit 3"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("two") && error.contains("3"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = format!("{:#}", run_words(&["no-such-program-here"]).unwrap_err());
        assert!(error.contains("no-such-program-here"), "{error}");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(last_lines("a\nb\n\nc\n", 2), "    b\n    c");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn waiting_ends_at_the_limit() {
        let mut asked = 0;
        let ready = wait_until(Duration::from_millis(5), Duration::from_millis(1), || {
            asked += 1;
            Ok(false)
        });
        assert!(!ready.unwrap());
        assert!(asked > 1);
    }
}
