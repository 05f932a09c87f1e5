//! The lab under test, through the same commands that a user types.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The lab's nodes; its machines beside them are `control` and `external`.
pub const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// How long the cluster may take for something that involves starting Pods, on two busy cores.
pub const SLOW: Duration = Duration::from_secs(120);
/// How long the control plane may take to bring a change of objects into the data plane, on two busy cores.
pub const SOON: Duration = Duration::from_secs(30);

/// What a command printed.
#[derive(Debug)]
pub struct Printed {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Printed {
    fn of(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The standard output of a command that must have succeeded.
    #[track_caller]
    pub fn must(self) -> String {
        assert!(
            self.ok,
            "command failed\nstdout: {}\nstderr: {}",
            self.out, self.err
        );
        self.out
    }
}

/// `lab --name $YCLOUD_LAB ARGS`.
pub fn lab(args: &[&str]) -> Printed {
    lab_with_input(args, "")
}

fn lab_with_input(args: &[&str], input: &str) -> Printed {
    let name = std::env::var("YCLOUD_LAB").unwrap_or_else(|_| "test".into());
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["--name", &name])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the lab's binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A command that does not read its input closes the pipe: no fault of the test's.
        let _ = stdin.write_all(input.as_bytes());
    });
    let printed = Printed::of(child.wait_with_output().expect("the lab's binary ends"));
    writer.join().expect("the writer ends");
    printed
}

/// A part of a machine does not run, as after `cargo lab stop`; what the machine lacks is started when this is dropped.
pub struct Stopped {
    machine: &'static str,
}

impl Stopped {
    pub fn begin(machine: &'static str, part: &str) -> Self {
        lab(&["stop", machine, part]).must();
        Self { machine }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let started = lab(&["start", self.machine]);
        if !started.ok {
            eprintln!("clean-up: {}", started.err);
        }
    }
}

/// `kubectl ARGS`.
pub fn kubectl(args: &[&str]) -> Printed {
    let mut all = vec!["kubectl"];
    all.extend(args);
    lab(&all)
}

/// `kubectl apply -f -` of `yaml`.
pub fn apply(yaml: &str) -> Printed {
    lab_with_input(&["kubectl", "apply", "-f", "-"], yaml)
}

/// `kubectl get ARGS -o json`; panics if the API server does not answer.
#[track_caller]
pub fn get(args: &[&str]) -> Value {
    let mut all = vec!["get"];
    all.extend(args);
    all.extend(["-o", "json"]);
    serde_json::from_str(&kubectl(&all).must()).expect("kubectl prints JSON")
}

/// `ovn-nbctl ARGS`, standard output without the last line end.
#[track_caller]
pub fn nbctl(args: &[&str]) -> String {
    let mut all = vec!["ovn-nbctl"];
    all.extend(args);
    lab(&all).must().trim_end().to_owned()
}

/// A shell command on a node, or in `external` or `control`.
pub fn on(place: &str, script: &str) -> Printed {
    lab(&["exec", place, "--", "sh", "-c", script])
}

/// A shell command in a Pod.
pub fn in_pod(namespace: &str, pod: &str, script: &str) -> Printed {
    kubectl(&["-n", namespace, "exec", pod, "--", "sh", "-c", script])
}

/// Asks again every 200 ms until `check` is content or `limit` is over; then panics with its last words.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(words) if start.elapsed() > limit => {
                panic!("{what}: not within {limit:?}: {words}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Asks every 200 ms for the whole of `span`; panics at the first time that `check` is not content.
#[track_caller]
pub fn always(what: &str, span: Duration, mut check: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(words) = check() {
            panic!("{what}: not any more after {:?}: {words}", start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A condition of an object: (status, reason, message); empty texts where it is not there.
pub fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let found = object["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|c| c["type"] == kind))
        .cloned()
        .unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}
