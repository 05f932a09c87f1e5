//! The lab under test. Objects are asked for and changed by a client of the API server that stays
//! connected, and commands run in machines and Pods without a detour; [`kubectl`] and [`lab`] are
//! for what a user types itself.

use std::io::{Seek, Write};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use ycloud_lab::Lab;
use ycloud_lab::api::ApiServer;

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

    fn from(result: Result<String, anyhow::Error>) -> Self {
        let (out, err) = match &result {
            Ok(out) => (out.clone(), String::new()),
            Err(error) => (String::new(), format!("{error:#}")),
        };
        let ok = result.is_ok();
        Self { ok, out, err }
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

/// The lab under test: `YCLOUD_LAB`, or `test`.
pub fn the_lab() -> &'static Lab {
    static LAB: LazyLock<Lab> = LazyLock::new(|| {
        let name = std::env::var("YCLOUD_LAB").unwrap_or_else(|_| "test".into());
        Lab::named(&name).expect("a lab's name")
    });
    &LAB
}

/// The lab's API server.
pub fn api() -> &'static ApiServer {
    the_lab().api().expect("a lab that is up")
}

/// `lab --name $YCLOUD_LAB ARGS`.
pub fn lab(args: &[&str]) -> Printed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--name", the_lab().name()]).args(args);
    run(command)
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
    run(the_lab().kubectl(args).expect("a lab that is up"))
}

/// `kubectl apply -f -` of `yaml`, as a user would.
pub fn kubectl_apply(yaml: &str) -> Printed {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(yaml.as_bytes()).expect("room for it");
    file.rewind().expect("a file");
    let kubectl = the_lab().kubectl(["apply", "-f", "-"]);
    let mut kubectl = kubectl.expect("a lab that is up");
    Printed::of(kubectl.stdin(file).output().expect("it starts"))
}

/// Makes the objects of `yaml` what it says.
pub fn apply(yaml: &str) -> Printed {
    Printed::from(api().apply(yaml).map(|_| String::new()))
}

/// What `kubectl get WORDS -o json` prints: an object (`-n NAMESPACE KIND NAME`, or `KIND/NAME`),
/// or `items` (`KIND[,KIND …] [-l SELECTOR] [-A]`); panics if the API server does not answer, or
/// there is no such object.
#[track_caller]
pub fn get(words: &[&str]) -> Value {
    let (mut namespace, mut selector, mut rest) = ("default", "", Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-n" => namespace = words.next().expect("a namespace"),
            "-l" => selector = words.next().expect("a selector"),
            "-A" => namespace = "",
            word => rest.extend(word.split('/')),
        }
    }
    match rest[..] {
        [kind, name] => {
            let found = api().get(namespace, kind, name);
            let found = found.expect("the API server answers");
            found.unwrap_or_else(|| panic!("there is no {kind} {namespace}/{name}"))
        }
        [kinds] => {
            let list = |kind| api().list(namespace, kind, selector);
            let lists: Result<Vec<_>, _> = kinds.split(',').map(list).collect();
            let items = lists.expect("the API server answers").concat();
            serde_json::json!({ "items": items })
        }
        _ => panic!("not understood: {rest:?}"),
    }
}

/// Whether there is such an object; `namespace` is empty for kinds of the whole cluster.
#[track_caller]
pub fn exists(namespace: &str, kind: &str, name: &str) -> bool {
    let found = api().get(namespace, kind, name);
    found.expect("the API server answers").is_some()
}

/// Ends a Pod at once, whatever grace it has, and does not wait for its node to say so.
#[track_caller]
pub fn kill(namespace: &str, pod: &str) {
    let killed = api().delete(namespace, "pod", pod, Some(0));
    killed.unwrap_or_else(|error| panic!("Pod {namespace}/{pod}: {error:#}"));
}

/// Waits until the API server answers again.
#[track_caller]
pub fn api_ready() {
    eventually("the API server answers again", SLOW, || {
        match api().is_ready() {
            true => Ok(()),
            false => Err("it does not".to_owned()),
        }
    });
}

/// Deletes an object and waits until it is gone.
#[track_caller]
pub fn delete(namespace: &str, kind: &str, name: &str) {
    let uid = start_deleting(namespace, kind, name);
    let gone = api().wait_gone(namespace, kind, name, &uid, SLOW);
    gone.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Says that an object shall go, and returns its UID; how long it takes is its own affair.
#[track_caller]
pub fn start_deleting(namespace: &str, kind: &str, name: &str) -> String {
    let found = api().get(namespace, kind, name);
    let found = found.expect("the API server answers");
    let found = found.unwrap_or_else(|| panic!("there is no {kind} {namespace}/{name}"));
    let deleted = api().delete(namespace, kind, name, None);
    deleted.unwrap_or_else(|error| panic!("{kind} {namespace}/{name}: {error:#}"));
    let uid = found["metadata"]["uid"].as_str();
    uid.expect("a UID").to_owned()
}

/// Changes fields of an object: a merge patch.
pub fn patch(namespace: &str, kind: &str, name: &str, fields: &Value) -> Printed {
    let patched = api().patch(namespace, kind, name, fields);
    Printed::from(patched.map(|_| String::new()))
}

/// `ovn-nbctl ARGS`, standard output without the last line end.
#[track_caller]
pub fn nbctl(args: &[&str]) -> String {
    let command = the_lab().ovn_nbctl(args).expect("a lab that is up");
    run(command).must().trim_end().to_owned()
}

/// A shell command on a node, or in `external` or `control`.
#[track_caller]
pub fn on(machine: &str, script: &str) -> Printed {
    let machine = machine.parse().expect("a machine's name");
    let command = the_lab().exec(machine, ["sh", "-c", script]);
    run(command.expect("a machine that is up"))
}

/// A shell command in a Pod, as `kubectl exec` would run it, without asking the kubelet.
#[track_caller]
pub fn in_pod(namespace: &str, pod: &str, script: &str) -> Printed {
    match the_lab().exec_in_pod(namespace, pod, ["sh", "-c", script]) {
        Ok(command) => run(command),
        Err(error) => Printed::from(Err(error)),
    }
}

fn run(mut command: Command) -> Printed {
    Printed::of(command.stdin(Stdio::null()).output().expect("it starts"))
}

/// Asks again every 100 ms until `check` is content or `limit` is over; then panics with its last
/// words.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => {
                let took = start.elapsed();
                if took > Duration::from_secs(1) {
                    eprintln!("{took:>6.1?}: {what}");
                }
                return value;
            }
            Err(words) if start.elapsed() > limit => {
                panic!("{what}: not within {limit:?}: {words}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
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
