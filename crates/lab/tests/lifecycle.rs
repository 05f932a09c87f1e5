//! A lab comes up, is repaired, survives the death of its own commands, and goes without a trace. Each test has a lab of
//! its own and they run at the same time: labs do not disturb each other.

#![allow(clippy::unwrap_used, reason = "a test that cannot look has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ycloud_lab::ask::{Heard, Protocol, ask, knock};
use ycloud_lab::{Lab, Machine, PartStatus, UpOptions, server};

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
        (Machine::Dpu, "ovn-controller"),
        (Machine::Dpu, "node"),
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
        for chassis in [node, Machine::Dpu] {
            assert!(
                ping(chassis).success(),
                "{chassis} is cut off after {part} of {machine} died"
            );
        }
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

#[test]
fn elastic_addresses_have_a_physical_network_and_a_node_can_be_cut_off() {
    let name = "life-ext";
    let lab = Guard::new(name);
    lab.0.up(&options()).unwrap();
    let node = Machine::Node(1);
    let says = |machine, script: &str| {
        let mut command = lab.0.exec(machine, ["sh", "-c", script]).unwrap();
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    // What OVN will be: ports of `br-ext` that own the gateway's address and one elastic address, untagged and in the VLAN.
    let (made, _) = says(
        node,
        "set -e
        ip netns add gateway
        ovs-vsctl add-port br-ext u0 -- set interface u0 type=internal
        ovs-vsctl add-port br-ext v0 tag=100 -- set interface v0 type=internal
        ip link set u0 netns gateway
        ip link set v0 netns gateway
        ip netns exec gateway sysctl -qw net.ipv4.conf.all.arp_ignore=1
        ip -n gateway link set u0 up
        ip -n gateway link set v0 up
        ip -n gateway addr add 198.51.100.2/24 dev u0
        ip -n gateway addr add 192.0.2.7/32 dev u0
        ip -n gateway addr add 2001:db8:200::2/64 dev u0 nodad
        ip -n gateway addr add 2001:db8:201::7/128 dev u0 nodad
        ip -n gateway addr add 203.0.113.130/25 dev v0
        ip -n gateway addr add 203.0.113.131/32 dev u0
        ip -n gateway route add default via 198.51.100.1
        ip -n gateway route add default via 2001:db8:200::1",
    );
    assert!(made);
    let reaches =
        |machine, to: &str| says(machine, &format!("ping -c 1 -W 2 {to} >/dev/null 2>&1")).0;
    for to in [
        "198.51.100.1",
        "198.51.100.2",
        "192.0.2.7",
        "203.0.113.130",
        "2001:db8:201::7",
    ] {
        assert!(reaches(Machine::External, to), "{to} does not answer");
    }
    // The VLAN and the untagged network are two.
    assert!(!reaches(Machine::External, "203.0.113.131"));

    lab.0.isolate(node).unwrap();
    assert!(!reaches(Machine::External, "192.0.2.7"));
    assert!(!reaches(
        Machine::Control,
        &lab.0.address(node).unwrap().to_string()
    ));
    lab.0.rejoin(node).unwrap();
    assert!(reaches(Machine::External, "192.0.2.7"));
    assert!(reaches(
        Machine::Control,
        &lab.0.address(node).unwrap().to_string()
    ));

    // No way out: neither to this machine nor beyond it.
    let (_, routes) = says(Machine::Upstream, "ip route; ip -6 route");
    assert!(!routes.contains("default"), "{routes}");
    for (machine, to) in [
        (Machine::Upstream, "172.30.0.1"),
        (Machine::External, "172.30.0.1"),
    ] {
        assert!(!reaches(machine, to), "{machine} reaches {to}");
    }

    lab.0.stop(node, "ovs-vswitchd").unwrap();
    assert_eq!(dead(&lab.0).len(), 1);
    lab.0.start(node).unwrap();
    assert_eq!(dead(&lab.0), []);
    lab.0.down().unwrap();
    assert_eq!(traces(name), Vec::<String>::new());
}

/// VNics as ycloud makes them: on node-1 a virtual machine and a bare address, on the DPU a bare-metal server.
const VNICS: &str = "
apiVersion: iaas.yusur.io/v1
kind: VNic
metadata: {name: vm-1}
spec: {subnet: s, attachment: {kind: VM, name: vm-1, chassis: node-1, device: {tap: tap1}}}
---
apiVersion: iaas.yusur.io/v1
kind: VNic
metadata: {name: bm-1}
spec: {subnet: s, attachment: {kind: BM, name: bm-1, chassis: dpu-1, device: {port: bm1}}}
---
apiVersion: iaas.yusur.io/v1
kind: VNic
metadata: {name: addr-1}
spec: {subnet: s, attachment: {kind: None, chassis: node-1}}
";

#[test]
fn what_is_behind_vnics_answers_and_goes_with_the_lab() {
    let name = "life-vnics";
    let lab = Guard::new(name);
    lab.0.up(&options()).unwrap();
    let must = |mut command: Command| {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {said}");
    };
    let kubectl = |words: &[&str]| must(lab.0.kubectl(words).unwrap());
    let nbctl = |line: &str| must(lab.0.ovn_nbctl(line.split(' ')).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let vnics = folder.path().join("vnics.yaml");
    fs::write(&vnics, VNICS).unwrap();
    kubectl(&["apply", "--server-side", "-f", "../../deploy/crds"]);
    let crd = "crd/vnics.iaas.yusur.io";
    kubectl(&["wait", "--for=condition=Established", crd, "--timeout=30s"]);
    kubectl(&["apply", "-f", vnics.to_str().unwrap()]);
    // What ycloud would do: a network, ports, addresses, and the devices on br-int.
    nbctl("ls-add s");
    let names = ["vm-1", "bm-1", "addr-1"];
    for (i, vnic) in names.iter().enumerate() {
        let (ip, mac) = (format!("10.0.1.1{i}"), format!("0a:00:00:00:00:1{i}"));
        nbctl(&format!("lsp-add s default/{vnic}"));
        let port = format!("default/{vnic}");
        let words = ["lsp-set-addresses", &port, &format!("{mac} {ip}")];
        must(lab.0.ovn_nbctl(words).unwrap());
        let status = format!(
            r#"{{"status": {{"ip": "{ip}", "prefixLength": 24, "gateway": "10.0.1.1", "mac": "{mac}"}}}}"#
        );
        kubectl(&[
            "patch",
            "vnic",
            vnic,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ]);
    }
    for (machine, device, vnic) in [
        (Machine::Node(1), "tap1", "vm-1"),
        (Machine::Dpu, "bm1", "bm-1"),
    ] {
        lab.0.backend("default", vnic).unwrap().plug().unwrap();
        let line = format!(
            "ovs-vsctl add-port br-int {device} -- set interface {device} external_ids:iface-id=default/{vnic}"
        );
        must(lab.0.exec(machine, line.split(' ')).unwrap());
    }
    let backends = names.map(|vnic| lab.0.backend("default", vnic).unwrap());
    for backend in &backends {
        backend.start().unwrap();
    }
    let client = backends[2].place().unwrap();
    for (i, vnic) in names.iter().enumerate() {
        let at = |port| format!("10.0.1.1{i}:{port}").parse().unwrap();
        for (protocol, port) in [(Protocol::Tcp, server::HTTP), (Protocol::Udp, server::UDP)] {
            let reply = ask(&client, protocol, at(port), Duration::from_secs(5));
            let reply = reply.unwrap_or_else(|error| panic!("{vnic} by {protocol}: {error}"));
            assert_eq!(reply.backend, *vnic);
            assert_eq!(reply.client.ip().to_string(), "10.0.1.12");
        }
    }
    // A server that ends leaves a kernel that refuses; a virtual machine leaves nobody.
    let limit = Duration::from_secs(1);
    for (i, heard) in [(0, Heard::Silence), (1, Heard::Refusal)] {
        backends[i].stop().unwrap();
        let at = format!("10.0.1.1{i}:{}", server::HTTP).parse().unwrap();
        assert_eq!(
            knock(&client, Protocol::Tcp, at, limit),
            heard,
            "{}",
            names[i]
        );
    }
    backends[1].start().unwrap();
    let at = format!("10.0.1.11:{}", server::HTTP).parse().unwrap();
    for (joined, heard) in [(false, Heard::Silence), (true, Heard::Answer)] {
        backends[1].set_cable(joined).unwrap();
        assert_eq!(knock(&client, Protocol::Tcp, at, limit), heard);
    }
    backends[1].remove().unwrap();
    lab.0.down().unwrap();
    assert_eq!(traces(name), Vec::<String>::new());
}
