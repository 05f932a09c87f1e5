//! A lab comes up, is repaired, survives the death of its own commands, and goes without a trace. Each test has a lab of
//! its own and they run at the same time: labs do not disturb each other.

#![allow(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ycloud_lab::{Lab, Machine, PartStatus, UpOptions};

/// Takes the lab away also when its test fails.
struct Guard(Lab);

impl Guard {
    fn new(name: &str) -> Self {
        let lab = Lab::named(name).unwrap();
        lab.down().unwrap();
        Self(lab)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Of a test that fails already; one that succeeds has taken its lab away.
        let _ = self.0.down();
    }
}

fn options() -> UpOptions {
    UpOptions {
        nodes: Some(1),
        ycloud: false,
        ..UpOptions::default()
    }
}

fn dead(lab: &Lab) -> Vec<PartStatus> {
    let mut parts = lab.status().unwrap();
    parts.retain(|part| part.pid.is_none());
    parts
}

fn kill(lab: &Lab, machine: Machine, part: &str) {
    let parts = lab.status().unwrap();
    let found = parts
        .iter()
        .find(|known| known.machine == machine && known.part == part);
    let pid = found.unwrap().pid.unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    // The signal is sent, but death takes a moment.
    for _ in 0..200 {
        if fs::read(format!("/proc/{pid}/environ"))
            .unwrap_or_default()
            .is_empty()
        {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{part} does not die");
}

/// Everything of the lab `name` that can be seen on the machine.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mark = format!("YCLOUD_LAB_PROCESS={name}/");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|one| one.starts_with(mark.as_bytes()))
        {
            found.push(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let netns = entry.file_name().to_string_lossy().into_owned();
        if netns.starts_with(&format!("yc.{name}.")) {
            found.push(format!("network namespace {netns}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for line in mounts.lines() {
        if line.contains(&format!("/ycloud-lab/{name}")) || line.contains(&format!("/labs/{name}"))
        {
            found.push(format!("mount {line}"));
        }
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some("cgroup" | "cgroup2")) = (words.next(), words.next())
            && Path::new(point).join("ycloud-lab").join(name).exists()
        {
            found.push(format!("cgroup in {point}"));
        }
    }
    for folder in ["/var/lib/ycloud-lab", "/run/ycloud-lab/labs"] {
        if Path::new(folder).join(name).exists() {
            found.push(format!("folder {folder}/{name}"));
        }
    }
    found
}

/// The settings that kubelets and labs change, if no lab is there to have changed them.
fn settings() -> Option<BTreeMap<&'static str, String>> {
    let names = [
        "vm/overcommit_memory",
        "kernel/panic",
        "fs/inotify/max_user_instances",
    ];
    let values = names.map(|name| {
        (
            name,
            fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap(),
        )
    });
    (!Path::new("/run/ycloud-lab/host.json").exists()).then(|| values.into())
}

#[test]
fn what_died_is_reported_and_repaired_and_down_leaves_nothing() {
    let name = "life-repair";
    let lab = Guard::new(name);
    let before = settings();
    lab.0.up(&options()).unwrap();
    assert_eq!(dead(&lab.0), []);
    let ping = |machine| {
        let to = lab.0.address(Machine::Control).unwrap().to_string();
        lab.0
            .exec(machine, ["ping", "-c1", "-W5", &to])
            .unwrap()
            .stdout(Stdio::null())
            .status()
            .unwrap()
    };
    assert!(ping(Machine::External).success());

    let node = Machine::Node(1);
    for (machine, part) in [
        (Machine::Control, "etcd"),
        (node, "kubelet"),
        (node, "ovs-vswitchd"),
        (node, "node"),
    ] {
        kill(&lab.0, machine, part);
        let found = dead(&lab.0);
        assert!(
            found
                .iter()
                .any(|one| one.machine == machine && one.part == part),
            "{part}: {found:?}"
        );
        lab.0
            .up(&options())
            .unwrap_or_else(|error| panic!("up after {part} died: {error:#}"));
        assert_eq!(dead(&lab.0), [], "after {part}");
        assert!(
            ping(node).success(),
            "the node is cut off after {part} died"
        );
    }
    let nodes = lab
        .0
        .kubectl(["get", "nodes", "-o", "name"])
        .unwrap()
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&nodes.stdout), "node/node-1\n");

    lab.0.down().unwrap();
    assert_eq!(traces(name), Vec::<String>::new());
    if let (Some(before), Some(after)) = (before, settings()) {
        assert_eq!(before, after);
    }
}

#[test]
fn an_up_that_is_killed_at_any_moment_is_no_obstacle() {
    let name = "life-kill";
    let lab = Guard::new(name);
    let killed_after = |milliseconds| {
        let mut up = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["--name", name, "up", "--nodes", "1", "--no-ycloud"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        up.kill().unwrap();
        up.wait().unwrap();
    };
    for milliseconds in [200, 400, 700, 1000, 1500, 2500] {
        killed_after(milliseconds);
        lab.0
            .down()
            .unwrap_or_else(|error| panic!("down after {milliseconds} ms: {error:#}"));
        assert_eq!(
            traces(name),
            Vec::<String>::new(),
            "after {milliseconds} ms"
        );
    }
    for milliseconds in [300, 600, 900, 1300] {
        killed_after(milliseconds);
    }
    lab.0.up(&options()).unwrap();
    assert_eq!(dead(&lab.0), []);
    lab.0.down().unwrap();
    assert_eq!(traces(name), Vec::<String>::new());
}
