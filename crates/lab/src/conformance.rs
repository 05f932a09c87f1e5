//! Kubernetes' own end-to-end tests, as upstream builds them, against a lab with ycloud installed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use serde::Deserialize;

use crate::command::run;
use crate::lab::Lab;
use crate::layout::{Layout, Machine, RUNTIME};
use crate::process::{Process, enter};
use crate::progress::{Progress, Step};
use crate::toolchain;
use crate::{kubernetes, state};

/// The part that the tests are, for their mark and their log.
const PART: &str = "e2e";
/// The label of every namespace that a test makes.
const NAMESPACES: &str = "e2e-framework";
/// Beyond the tests' own time limit, after which they clean up.
const GRACE: Duration = Duration::from_secs(60);

/// What of `sig-network` every cluster must have.
const CONFORMANCE: &str = r"\[sig-network\].*\[Conformance\]";

/// Which of Kubernetes' tests run, and how.
#[derive(Clone, Debug)]
pub struct ConformanceOptions {
    /// A regular expression of tests' full names. Default: what of `sig-network` is Conformance.
    pub focus: String,
    /// A regular expression of tests that are left out. Default: those that take long, disturb others, or need what a
    /// cluster need not have, unless the focus names it ([`ConformanceOptions::skip_for`]).
    pub skip: String,
    /// How many run at the same time, 1..=64. Default: 4.
    pub procs: u32,
    /// Minutes until the run is ended, 1..=600. Default: 30.
    pub minutes: u32,
}

impl Default for ConformanceOptions {
    fn default() -> Self {
        Self {
            skip: Self::skip_for(CONFORMANCE),
            focus: CONFORMANCE.into(),
            procs: 4,
            minutes: 30,
        }
    }
}

impl ConformanceOptions {
    /// What is left out of `focus` by default. Whoever names a feature means its tests, but not those of them that need
    /// SCTP too: many kernels have none.
    #[must_use]
    pub fn skip_for(focus: &str) -> String {
        let feature = match (focus.contains("Feature:"), focus.contains("SCTP")) {
            (false, _) => r"|\[Feature:",
            (true, false) => r"|\[Feature:SCTP",
            (true, true) => "",
        };
        format!(r"\[(Serial|Slow|Disruptive)\]|\[Provider:{feature}")
    }
}

/// What ginkgo's JSON report says of a run.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
}

/// What it says of one test.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Spec {
    fn name(&self) -> String {
        let mut words = self.container_hierarchy_texts.clone().unwrap_or_default();
        if !self.leaf_node_text.is_empty() {
            words.push(self.leaf_node_text.clone());
        }
        if words.is_empty() {
            // What runs before or after all tests has a kind only.
            words.push(self.leaf_node_type.clone());
        }
        words.join(" ")
    }

    /// The first line of what went wrong.
    fn cause(&self) -> &str {
        self.failure
            .as_ref()
            .and_then(|failure| failure.message.lines().find(|line| !line.trim().is_empty()))
            .unwrap_or("it says no reason")
    }
}

/// How a run ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: usize,
    /// Name and cause.
    failed: BTreeMap<String, String>,
    /// Why the run as a whole failed, where no test says so.
    reasons: Vec<String>,
}

impl Summary {
    fn of(suites: Vec<Suite>) -> Self {
        let mut summary = Self::default();
        for suite in suites {
            let reasons = suite.special_suite_failure_reasons;
            summary.reasons.extend(reasons.unwrap_or_default());
            for spec in suite.spec_reports.unwrap_or_default() {
                match spec.state.as_str() {
                    "passed" if spec.leaf_node_type == "It" => summary.passed += 1,
                    "passed" | "skipped" | "pending" => {}
                    _ => {
                        let cause = spec.cause().chars().take(300).collect();
                        summary.failed.insert(spec.name(), cause);
                    }
                }
            }
        }
        summary
    }

    fn read(report: &Path) -> Result<Self> {
        let file = File::open(report).context("the tests ended without a report: see their log")?;
        Ok(Self::of(
            serde_json::from_reader(BufReader::new(file))
                .with_context(|| format!("failed to understand {}", report.display()))?,
        ))
    }
}

impl Lab {
    /// Runs Kubernetes' own end-to-end tests in the external machine, against the cluster. Builds them the first time.
    /// Leaves log, JSON and JUnit reports among the lab's logs, and no namespace of the tests.
    ///
    /// # Errors
    /// When a test failed, none was chosen, or the time is over.
    pub fn conformance(&self, options: &ConformanceOptions) -> Result<()> {
        // Before there is a thread that would not hold them back. What is started from here on gets them as ever.
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals
            .thread_block()
            .context("failed to hold signals back")?;
        let progress = Progress::new();
        let tests = progress.step(
            "Kubernetes' end-to-end tests, built from source (minutes, the first time)",
            toolchain::tests,
        )?;
        let locks = Path::new(RUNTIME).join("locks");
        let _lock = state::lock(&locks.join(format!("e2e-{}", self.name())), || {
            eprintln!("other end-to-end tests run in this lab; waiting for them");
        })?;
        let layout = self.layout()?;
        let process = Process {
            layout: &layout,
            machine: Machine::External,
            part: PART,
        };
        // Of a run that was killed.
        process.kill();
        self.remove_namespaces(&progress)?;
        let folder = layout.state().join("log").join(PART);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        pass_on(signals, &process);
        let limit = Duration::from_secs(u64::from(options.minutes) * 60) + GRACE;
        let ran = progress.step(&format!("tests {}", options.focus), |step| {
            let mut ginkgo = ginkgo(&layout, &tests, &folder, options, self)?;
            ginkgo.envs([process.mark_variable()]);
            watch(
                &mut ginkgo,
                limit,
                &process,
                &folder.join("e2e.log"),
                (&progress, step),
            )
        });
        // Also what ginkgo started, if it was killed itself.
        process.kill();
        self.remove_namespaces(&progress)?;
        ran?;
        let summary = Summary::read(&folder.join("report.json"))?;
        report(&summary, &folder)
    }

    /// Removes what namespaces the tests left, and waits until they are gone. One that does not go is said, and no failure:
    /// the next run's have other names.
    fn remove_namespaces(&self, progress: &Progress) -> Result<()> {
        let label = ["get", "namespaces", "-l", NAMESPACES, "-o", "name"];
        let left = run(&mut self.kubectl(label)?)?;
        if left.is_empty() {
            return Ok(());
        }
        let count = left.lines().count();
        let removed = progress.step(&format!("removing {count} namespaces of tests"), |_| {
            run(self
                .kubectl(["delete", "--ignore-not-found", "--timeout=60s"])?
                .args(left.lines()))
        });
        if let Err(error) = removed {
            progress.say(&format!("{error:#}"));
        }
        Ok(())
    }
}

/// The command that runs the tests in the external machine, as somebody outside the cluster would.
fn ginkgo(
    layout: &Layout,
    tests: &Path,
    folder: &Path,
    options: &ConformanceOptions,
    lab: &Lab,
) -> Result<Command> {
    let kubeconfig = folder.join("kubeconfig");
    fs::write(&kubeconfig, outside(layout)?)
        .with_context(|| format!("failed to write {}", kubeconfig.display()))?;
    let mut words = enter(layout, Machine::External)?;
    words.push(tests.join("ginkgo").into());
    words.extend(
        [
            "--no-color".to_owned(),
            "-v".to_owned(),
            "--keep-separate-reports=false".to_owned(),
            format!("--procs={}", options.procs),
            format!("--timeout={}m", options.minutes),
            format!("--focus={}", options.focus),
            format!("--skip={}", options.skip),
            format!("--output-dir={}", folder.display()),
            "--json-report=report.json".to_owned(),
            "--junit-report=junit.xml".to_owned(),
        ]
        .map(Into::into),
    );
    words.push(tests.join("e2e.test").into());
    words.push("--".into());
    words.extend(
        [
            format!("--kubeconfig={}", kubeconfig.display()),
            "--provider=skeleton".to_owned(),
            format!("--num-nodes={}", layout.nodes),
            "--dump-logs-on-failure=false".to_owned(),
        ]
        .map(Into::into),
    );
    let (program, args) = words.split_first().context("an empty command")?;
    let mut ginkgo = Command::new(program);
    ginkgo.args(args).current_dir(folder);
    for (name, value) in lab.environment()? {
        ginkgo.env(name, value);
    }
    for name in kubernetes::PROXIES {
        ginkgo.env_remove(name);
    }
    Ok(ginkgo)
}

/// The administrator's kubeconfig for the nodes' network.
fn outside(layout: &Layout) -> Result<String> {
    let path = layout.kubeconfig();
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text.replace(
        &layout.control_address().to_string(),
        &layout.address(Machine::Control).to_string(),
    ))
}

/// Runs the tests to their end, at most for `limit`. Shows how far they are, and each failure as it comes; all they print
/// goes to `log`.
fn watch(
    ginkgo: &mut Command,
    limit: Duration,
    process: &Process<'_>,
    log: &Path,
    (progress, step): (&Progress, &Step),
) -> Result<()> {
    let mut file =
        File::create(log).with_context(|| format!("failed to write {}", log.display()))?;
    let (reader, writer) = std::io::pipe().context("failed to make a pipe")?;
    let mut child = ginkgo
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .context("failed to start ginkgo")?;
    let _ended = end_after(limit, process);
    // The command holds the pipe's writing ends: without this the reader would never see its end.
    ginkgo.stdout(Stdio::null()).stderr(Stdio::null());
    let (mut of, mut done, mut failed) = (String::from("?"), 0, 0);
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next() {
        let line = line.context("failed to read what the tests print")?;
        writeln!(file, "{line}")?;
        match Line::read(&line) {
            Line::Chosen(count) => of = count.to_owned(),
            Line::Passed => done += 1,
            Line::Failed => {
                (done, failed) = (done + 1, failed + 1);
                // Its name is on the next line.
                if let Some(Ok(name)) = lines.next() {
                    writeln!(file, "{name}")?;
                    progress.say(&format!("  FAILED            {}", name.trim()));
                }
            }
            Line::Other => continue,
        }
        step.note(format!("{done} of {of}, {failed} failed"));
    }
    let status = child.wait().context("failed to wait for ginkgo")?;
    if status.code().is_none() {
        bail!(
            "the tests did not end in time and were killed: see {}",
            log.display()
        );
    }
    Ok(())
}

/// Kills the tests after `limit`, unless what is returned is dropped before.
fn end_after(limit: Duration, process: &Process<'_>) -> Sender<()> {
    let (ended, waiting) = std::sync::mpsc::channel();
    let layout = process.layout.clone();
    let (machine, part) = (process.machine, process.part.to_owned());
    std::thread::spawn(move || {
        if waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            Process {
                layout: &layout,
                machine,
                part: &part,
            }
            .kill();
        }
    });
    ended
}

/// Passes on to the tests what only this process gets, so that they clean up, and this run goes on until they have. An
/// interrupt from the keyboard reaches them by itself.
fn pass_on(signals: SigSet, process: &Process<'_>) {
    let layout = process.layout.clone();
    let (machine, part) = (process.machine, process.part.to_owned());
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if signal != Signal::SIGINT {
                Process {
                    layout: &layout,
                    machine,
                    part: &part,
                }
                .signal(Signal::SIGTERM);
            }
        }
    });
}

/// What a line of ginkgo's output means for the progress.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// So many tests will run.
    Chosen(&'a str),
    Passed,
    Failed,
    Other,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        if let Some(rest) = line.strip_prefix("Will run ") {
            return rest.split(' ').next().map_or(Self::Other, Self::Chosen);
        }
        // In parallel runs, an S for each test left out may stand before it on the same line.
        match line.trim_start_matches('S').strip_prefix("• [") {
            Some(rest) if rest.starts_with(|first: char| first.is_ascii_digit()) => Self::Passed,
            Some(_) => Self::Failed,
            None => Self::Other,
        }
    }
}

/// Prints the summary.
///
/// # Errors
/// When not all went well.
fn report(summary: &Summary, folder: &Path) -> Result<()> {
    for (name, cause) in &summary.failed {
        println!("FAILED {name}\n       {cause}");
    }
    let logs: PathBuf = folder.into();
    let (passed, failed) = (summary.passed, summary.failed.len());
    println!("{passed} passed, {failed} failed");
    println!("log and reports: {}", logs.display());
    if failed > 0 {
        bail!("{failed} of Kubernetes' end-to-end tests failed");
    }
    if !summary.reasons.is_empty() {
        bail!("the tests failed: {}", summary.reasons.join("; "));
    }
    if passed == 0 {
        bail!("no test was chosen: is the expression right?");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_summed_up_by_name_and_cause() {
        let text = r#"[{"SpecialSuiteFailureReasons": null, "SpecReports": [
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed"},
            {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeType": "It", "LeafNodeText": "answers", "State": "passed"},
            {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeType": "It", "LeafNodeText": "rests", "State": "skipped"},
            {"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It", "LeafNodeText": "serves", "State": "timedout",
             "Failure": {"Message": "\nno answer\nmore"}}]}]"#;
        let summary = Summary::of(serde_json::from_str(text).unwrap());
        assert_eq!(summary.passed, 1);
        assert_eq!(
            summary.failed,
            BTreeMap::from([("[sig-network] Services serves".into(), "no answer".into())])
        );
    }

    #[test]
    fn a_feature_is_left_out_unless_it_is_named() {
        let skip = |focus| ConformanceOptions::skip_for(focus);
        assert!(skip(CONFORMANCE).ends_with(r"|\[Provider:|\[Feature:"));
        assert!(skip("Feature:IPv6DualStack").ends_with(r"|\[Provider:|\[Feature:SCTP"));
        assert!(skip("Feature:SCTPConnectivity").ends_with(r"|\[Provider:"));
    }

    #[test]
    fn ginkgos_lines_tell_how_far_it_is() {
        assert_eq!(Line::read("Will run 47 of 7355 specs"), Line::Chosen("47"));
        assert_eq!(Line::read("SS• [1.234 seconds]"), Line::Passed);
        assert_eq!(Line::read("• [FAILED] [12.0 seconds]"), Line::Failed);
        assert_eq!(Line::read("• [TIMEDOUT] [12.0 seconds]"), Line::Failed);
        assert_eq!(Line::read("  something"), Line::Other);
    }
}
