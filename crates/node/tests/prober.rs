//! The prober against a real kernel, a real Open vSwitch and a real OVN: Vpcs with equal addresses, asked from one network
//! namespace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::pod::{Sandbox, at};
use support::{NODE, Node, eventually, on_node, run};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use ycloud_api::NetworkProbe;
use ycloud_api::network_probe::{ProbeState, prober_port, source_mac};
use ycloud_client::Supervisor;
use ycloud_node::agent::behind;
use ycloud_node::agent::ct_flush::pairs;
use ycloud_node::agent::netlink::Netlink;
use ycloud_node::agent::objects::Objects;
use ycloud_node::agent::ovs::Ovs;
use ycloud_node::agent::prober::records::{Refusal, Write};
use ycloud_node::agent::prober::{self, Prober};
use ycloud_ovsdb::{Client, Config};

const SOON: Duration = Duration::from_secs(15);

/// This node's addresses on the probe networks.
const SOURCES: [&str; 2] = ["100.68.0.7", "fd00:100:64:44::7"];

/// A machine's addresses, in whichever Vpc it is.
const SELF: [&str; 2] = ["10.0.1.5", "fd00:1::5"];

/// What an API server would do with NetworkProbes.
#[derive(Clone)]
struct Api {
    objects: watch::Sender<Objects<NetworkProbe>>,
    /// Versions that were given out, and whether it can be reached.
    state: Arc<Mutex<(u64, bool)>>,
    written: Arc<Mutex<Vec<Write>>>,
}

impl Api {
    fn new() -> Self {
        let (objects, _) = watch::channel(Objects {
            synced: true,
            by_key: BTreeMap::new(),
        });
        Self {
            objects,
            state: Arc::new(Mutex::new((0, true))),
            written: Arc::default(),
        }
    }

    /// Adds a NetworkProbe that this node asks each second; `check` is what more its spec says.
    fn add(&self, name: &str, vpc: &str, ip: &str, check: Value) {
        let source = SOURCES[usize::from(ip.contains(':'))];
        let mut object = json!({
            "apiVersion": "iaas.yusur.io/v1",
            "kind": "NetworkProbe",
            "metadata": {"namespace": "ns", "name": name, "uid": format!("{name}-uid"), "generation": 1},
            "spec": {
                "target": {"vpc": vpc, "ip": ip, "port": 80},
                "periodSeconds": 1, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 2,
            },
            "status": {"prober": NODE, "source": source},
        });
        let spec = object["spec"].as_object_mut().unwrap();
        spec.extend(check.as_object().unwrap().clone());
        self.put(object);
    }

    fn put(&self, mut object: Value) {
        let version = {
            let mut state = self.state.lock().unwrap();
            state.0 += 1;
            state.0.to_string()
        };
        object["metadata"]["resourceVersion"] = version.into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let object: NetworkProbe = serde_json::from_value(object).unwrap();
        self.objects.send_modify(|objects| {
            objects.by_key.insert(("ns".into(), name), object);
        });
    }

    fn remove(&self, name: &str) {
        self.objects.send_modify(|objects| {
            objects.by_key.remove(&("ns".to_owned(), name.to_owned()));
        });
    }

    fn get(&self, name: &str) -> NetworkProbe {
        let objects = self.objects.borrow();
        objects.by_key[&("ns".to_owned(), name.to_owned())].clone()
    }

    fn state(&self, name: &str) -> (ProbeState, Option<String>) {
        let status = self.get(name).status.unwrap();
        (status.state, status.last_error)
    }

    async fn until(&self, name: &str, state: ProbeState) -> Option<String> {
        let start = Instant::now();
        while self.state(name).0 != state {
            assert!(
                start.elapsed() < SOON,
                "{name}: {:?}, not {state:?}",
                self.state(name)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.state(name).1
    }

    fn patch(&self, write: &Write) -> Result<String, Refusal> {
        if !self.state.lock().unwrap().1 {
            return Err(Refusal::Failed("away".into()));
        }
        let now = self.get(&write.name).metadata;
        if write.patch["metadata"]["resourceVersion"] != json!(now.resource_version) {
            return Err(Refusal::Conflict);
        }
        self.written.lock().unwrap().push(write.clone());
        let mut object = serde_json::to_value(self.get(&write.name)).unwrap();
        for (key, value) in write.patch["status"].as_object().unwrap() {
            let status = object["status"].as_object_mut().unwrap();
            match value {
                Value::Null => status.remove(key),
                value => status.insert(key.clone(), value.clone()),
            };
        }
        self.put(object);
        Ok(self.get(&write.name).metadata.resource_version.unwrap())
    }

    fn writes(&self) -> usize {
        self.written.lock().unwrap().len()
    }
}

/// A prober with threads of its own, as in a process of its own.
struct Running {
    prober: Prober,
    runtime: Option<Runtime>,
}

impl Running {
    fn start(node: &Node, api: &Api) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _context = runtime.enter();
        let remote = format!("unix:{}", node.ovn.path("db.sock").display());
        let writer = api.clone();
        let southbound = format!("unix:{}", node.ovn.path("sb.sock").display());
        let southbound = Config::new(vec![southbound.parse().unwrap()], "OVN_Southbound");
        let southbound = Client::spawn(pairs::monitored(southbound));
        let supervisor = Supervisor::new(CancellationToken::new());
        let bridge = behind::client(&supervisor, remote.parse().unwrap());
        let parts = prober::Parts {
            ovs: Ovs::start(&supervisor, remote.parse().unwrap()),
            netlink: Netlink::open(&supervisor).unwrap(),
            node: NODE.into(),
            mtu: 1400,
            probes: api.objects.subscribe(),
            vnics: watch::channel(Objects {
                synced: false,
                by_key: BTreeMap::new(),
            })
            .1,
            writer: Arc::new(move |write| {
                let api = writer.clone();
                Box::pin(async move { api.patch(&write) })
            }),
            behind: behind::watch(&supervisor, southbound, bridge),
        };
        let prober = prober::start_with(&supervisor, parts).unwrap();
        drop(_context);
        Self {
            prober,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A Vpc with a Subnet and a probe network, of both families.
fn vpc(node: &Node, vpc: &str) {
    let ovn = &node.ovn;
    let probe = format!("probe:{vpc}");
    ovn.switch(vpc, &format!("{vpc}-s"), "10.0.1.1/24 fd00:1::1/64");
    ovn.switch(vpc, &probe, "100.68.0.1/16 fd00:100:64:44::1/64");
    let mac = source_mac(SOURCES[0].parse().unwrap());
    ovn.port(&prober_port(vpc, NODE), &probe, &mac, &SOURCES.join(" "));
}

/// A machine in a Vpc. An agent would not give two Pods of its node the same address.
fn machine(node: &Node, vpc: &str) -> Sandbox {
    let machine = Sandbox::new();
    let (link, port) = (format!("vm-{vpc}"), format!("ns/{vpc}"));
    let mac = "0a:00:0a:00:01:05";
    let peer = ["type", "veth", "peer", "eth0", "address", mac, "netns"];
    let add = ["link", "add", &link, "mtu", "1400"];
    run("ip", &[&add[..], &peer, &[machine.name()]].concat());
    run("ip", &["link", "set", &link, "up"]);
    run("ethtool", &["-K", &link, "tx", "off"]);
    let offload = [
        "netns",
        "exec",
        machine.name(),
        "ethtool",
        "-K",
        "eth0",
        "tx",
        "off",
    ];
    run("ip", &offload);
    machine.ip(&["link", "set", "eth0", "mtu", "1400", "up"]);
    for (own, length, router) in [(SELF[0], 24, "10.0.1.1"), (SELF[1], 64, "fd00:1::1")] {
        let own = format!("{own}/{length}");
        machine.ip(&["address", "add", &own, "dev", "eth0", "nodad"]);
        machine.ip(&["route", "add", "default", "via", router, "dev", "eth0"]);
    }
    node.ovn
        .port(&port, &format!("{vpc}-s"), mac, &SELF.join(" "));
    let id = format!("external_ids:iface-id={port}");
    let add = ["add-port", "br-int", &link, "--", "set", "interface", &link];
    node.ovn.vsctl(&[&add[..], &[&id]].concat());
    machine
}

/// Runs a program in the network namespace of this node's prober. Other tests of this process have theirs, so it is known by
/// the name of a device.
fn inside(node: &Node, arguments: &[&str]) -> Option<String> {
    let device = format!(": {}@", ports(node).first()?);
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = descriptors.filter_map(|d| Some((d.path(), std::fs::read_link(d.path()).ok()?)));
    let spaces = links.filter(|(_, link)| link.to_string_lossy().starts_with("net:"));
    let process = std::process::id();
    for (path, _) in spaces {
        let number = path.file_name().unwrap().to_string_lossy().into_owned();
        let netns = format!("--net=/proc/{process}/fd/{number}");
        let links = run("nsenter", &[&netns, "ip", "-o", "link"]);
        if links.contains(&device) {
            return Some(run("nsenter", &[&[&*netns], arguments].concat()));
        }
    }
    None
}

fn ports(node: &Node) -> Vec<String> {
    let ports = node.ovn.vsctl(&["list-ports", "br-int"]);
    let own = ports.lines().filter(|port| port.starts_with("yp"));
    own.map(str::to_owned).collect()
}

/// Ticks, hundredths of a second, that ovs-vswitchd has used: proc_pid_stat(5).
fn processor(node: &Node) -> u64 {
    let process = std::fs::read_to_string(node.ovn.path("vswitchd.pid")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap();
    let times = stat.split(' ').skip(13).take(2);
    times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn pings(pod: &Sandbox, ip: &str) -> bool {
    let ping = ["netns", "exec", pod.name(), "ping", "-c1", "-W1", ip];
    let output = std::process::Command::new("ip").args(ping).output();
    output.unwrap().status.success()
}

#[test]
fn vpcs_with_equal_addresses_are_asked_at_once_and_get_no_answer_from_the_prober() {
    on_node(|node| async move {
        let api = Api::new();
        let running = Running::start(&node, &api);
        for name in ["vpc1", "vpc2"] {
            vpc(&node, name);
        }
        let one = machine(&node, "vpc1");
        let two = machine(&node, "vpc2");
        one.serve(80, "one").await;
        for name in ["vpc1", "vpc2"] {
            api.add(&format!("{name}-v4"), name, "10.0.1.5", json!({}));
            api.add(
                &format!("{name}-v6"),
                name,
                "fd00:1::5",
                json!({"http": {"port": 80}}),
            );
            api.add(
                &format!("{name}-ping"),
                name,
                "10.0.1.5",
                json!({"icmp": {}}),
            );
            api.add(
                &format!("{name}-ping6"),
                name,
                "fd00:1::5",
                json!({"icmp": {}}),
            );
        }
        // It greets and knows no HTTP, which is an answer too.
        for (name, state) in [
            ("vpc1-v4", ProbeState::Healthy),
            ("vpc1-v6", ProbeState::Unhealthy),
            ("vpc2-v4", ProbeState::Unhealthy),
            ("vpc2-v6", ProbeState::Unhealthy),
        ] {
            let error = api.until(name, state).await.unwrap_or_default();
            let refused = error.contains("refused: nothing listens");
            assert_eq!(refused, name.starts_with("vpc2"), "{name}: {error}");
        }
        for name in ["vpc1-ping", "vpc2-ping", "vpc1-ping6", "vpc2-ping6"] {
            api.until(name, ProbeState::Healthy).await;
        }
        assert_eq!(ports(&node).len(), 2);
        assert!(api.get("vpc1-v4").status.unwrap().round_trip_microseconds > Some(0));

        // Eight targets, and a router of each Vpc for each family, which answers.
        let figures = running.prober.figures();
        assert_eq!(figures.targets, 12, "{figures:?}");

        for pod in [&one, &two] {
            for ip in SOURCES {
                assert!(!pings(pod, ip), "{ip} answers");
                let (source, target) = (SELF[usize::from(ip.contains(':'))], at(ip, 80));
                let error = pod.connect_from(source, &target).await.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{ip}: {error}");
            }
        }
        // It is the rules that keep it silent: the way there is open.
        inside(
            &node,
            &["sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=0"],
        )
        .unwrap();
        assert!(!pings(&one, SOURCES[0]));
        inside(&node, &["nft", "delete", "table", "inet", "ycloud-prober"]).unwrap();
        // The kernel's answer takes the route of whichever device was first, so it comes to one Vpc or to the other.
        let open = [&one, &two].map(|machine| pings(machine, SOURCES[0]));
        assert!(open.contains(&true), "the way there is not open");

        for name in ["vpc1-v4", "vpc1-v6", "vpc1-ping", "vpc1-ping6"] {
            api.remove(name);
        }
        // The port stays for a while: what returns meanwhile has the same one, to which others know the way.
        let known = ports(&node);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(ports(&node), known);
        api.add("vpc1-again", "vpc1", "10.0.1.5", json!({}));
        api.until("vpc1-again", ProbeState::Healthy).await;
        assert_eq!(ports(&node), known);
        api.remove("vpc1-again");
        eventually("the device goes", SOON * 2, || ports(&node).len() == 1).await;
        eventually("its targets go", SOON, || {
            running.prober.figures().targets == 6
        })
        .await;
    });
}

#[test]
fn a_restart_changes_no_state_and_is_over_within_two_seconds() {
    on_node(|node| async move {
        let api = Api::new();
        let running = Running::start(&node, &api);
        for name in ["vpc1", "vpc2"] {
            vpc(&node, name);
        }
        let one = machine(&node, "vpc1");
        let _two = machine(&node, "vpc2");
        one.serve(80, "one").await;
        for name in ["vpc1", "vpc2"] {
            api.add(&format!("{name}-v4"), name, "10.0.1.5", json!({}));
            api.add(&format!("{name}-v6"), name, "fd00:1::5", json!({}));
        }
        let expected = [
            ("vpc1-v4", ProbeState::Healthy),
            ("vpc1-v6", ProbeState::Healthy),
            ("vpc2-v4", ProbeState::Unhealthy),
            ("vpc2-v6", ProbeState::Unhealthy),
        ];
        for (name, state) in expected {
            api.until(name, state).await;
        }
        let (before, writes) = (ports(&node), api.writes());
        let since = api.get("vpc1-v4").status.unwrap().since;
        drop(running);
        // Nor does ovs-vswitchd spin meanwhile on what is gone: that would be most of these seconds.
        let before_it = processor(&node);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let spent = processor(&node) - before_it;
        assert!(spent < 25, "{spent} of 200 ticks");

        let running = Running::start(&node, &api);
        let start = Instant::now();
        let asked = || running.prober.figures().succeeded >= 4;
        eventually("it asks again", SOON, asked).await;
        let took = start.elapsed();
        println!("asks again after {took:?}");
        assert!(took < Duration::from_millis(2_500), "{took:?}");
        let after = ports(&node);
        assert!(after.len() == 2 && after.iter().all(|port| !before.contains(port)));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(api.writes(), writes, "{:?}", api.written.lock().unwrap());
        assert_eq!(api.get("vpc1-v4").status.unwrap().since, since);

        // Somebody believed it dead meanwhile.
        let mut object = serde_json::to_value(api.get("vpc1-v4")).unwrap();
        object["status"]["state"] = "Unknown".into();
        api.put(object);
        api.until("vpc1-v4", ProbeState::Healthy).await;

        // A new ovs-vswitchd.
        node.ovn.kill("vswitchd");
        node.ovn.start_vswitchd();
        let succeeded = running.prober.figures().succeeded;
        eventually("it asks again", SOON, || {
            running.prober.figures().succeeded >= succeeded + 6
        })
        .await;
        for (name, state) in expected {
            api.until(name, state).await;
        }
    });
}

#[test]
fn silence_is_unhealthy_while_the_router_answers_and_unknown_if_it_is_silent_too() {
    on_node(|node| async move {
        let api = Api::new();
        let _running = Running::start(&node, &api);
        for name in ["vpc1", "vpc2"] {
            vpc(&node, name);
        }
        let pods = [machine(&node, "vpc1"), machine(&node, "vpc2")];
        for (name, pod) in ["vpc1", "vpc2"].into_iter().zip(&pods) {
            pod.serve(80, name).await;
            api.add(name, name, "10.0.1.5", json!({}));
            api.until(name, ProbeState::Healthy).await;
        }
        // While the API server is away, things go on changing.
        api.state.lock().unwrap().1 = false;
        pods[0].ip(&["link", "set", "eth0", "down"]);
        node.ovn
            .nbctl(&["lsp-set-enabled", &prober_port("vpc2", NODE), "disabled"]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(api.state("vpc1").0, ProbeState::Healthy);
        api.state.lock().unwrap().1 = true;
        let error = api.until("vpc1", ProbeState::Unhealthy).await.unwrap();
        assert!(!error.contains("suspected"), "{error}");
        let error = api.until("vpc2", ProbeState::Unknown).await.unwrap();
        assert!(error.contains("the prober is suspected"), "{error}");
    });
}

/// A router on a chassis, as ycloud-controller has one for each: Open vSwitch answers by itself, and to the prober only.
#[test]
fn a_chassis_answers_without_its_agent() {
    on_node(|node| async move {
        let api = Api::new();
        let running = Running::start(&node, &api);
        vpc(&node, "vpc1");
        let probe = "vpc1-probe:vpc1";
        let networks = r#"networks=["100.68.0.1/16","100.70.0.1/16","fd00:100:64:44::1/64"]"#;
        node.ovn
            .nbctl(&["set", "logical_router_port", probe, networks]);
        node.ovn.switch("answerer", "probe:vpc1", "100.70.0.8/14");
        let machine = machine(&node, "vpc1");
        machine.serve(80, "one").await;
        api.add("machine", "vpc1", "10.0.1.5", json!({}));
        api.add("chassis", "vpc1", "100.70.0.8", json!({"icmp": {}}));
        api.until("machine", ProbeState::Healthy).await;
        let on = |chassis: &str| {
            let option = format!("options:chassis={chassis}");
            node.ovn
                .nbctl(&["set", "logical_router", "answerer", &option]);
        };
        on(NODE);
        api.until("chassis", ProbeState::Healthy).await;
        assert!(!pings(&machine, "100.70.0.8"), "a tenant gets an answer");

        // Elsewhere, where there is nothing.
        on("nowhere");
        let start = Instant::now();
        api.until("chassis", ProbeState::Unhealthy).await;
        println!("silent after {:?}", start.elapsed());
        on(NODE);
        api.until("chassis", ProbeState::Healthy).await;
        assert_eq!(api.state("machine").0, ProbeState::Healthy);
        drop(running);
    });
}

#[test]
fn without_ovn_controller_what_is_new_is_unknown_and_the_node_is_not_able() {
    on_node(|node| async move {
        let api = Api::new();
        let running = Running::start(&node, &api);
        for name in ["vpc1", "vpc2"] {
            vpc(&node, name);
        }
        let pods = [machine(&node, "vpc1"), machine(&node, "vpc2")];
        for (name, pod) in ["vpc1", "vpc2"].into_iter().zip(&pods) {
            pod.serve(80, name).await;
        }
        api.add("vpc1", "vpc1", "10.0.1.5", json!({}));
        api.until("vpc1", ProbeState::Healthy).await;
        assert!(running.prober.progress().able);
        node.ovn.kill("controller");
        node.ovn.nbctl(&["--wait=sb", "sync"]);
        api.add("vpc2", "vpc2", "10.0.1.5", json!({}));
        let mut object = serde_json::to_value(api.get("vpc2")).unwrap();
        object["status"]["state"] = "Healthy".into();
        api.put(object);
        let error = api.until("vpc2", ProbeState::Unknown).await.unwrap();
        let said = format!("no device in Vpc vpc2 on {NODE}: it is not set up, or ovn-controller");
        assert!(error.starts_with(&said), "{error}");
        assert!(running.prober.progress().able, "not for a moment's wait");
        let limit = Duration::from_secs(30);
        let able = || running.prober.progress().able;
        eventually("it is not able", limit, || !able()).await;
        assert_eq!(
            api.state("vpc1").0,
            ProbeState::Healthy,
            "its flows are there"
        );
        // The probe moves, and nothing is wrong any more.
        api.remove("vpc2");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!able(), "that it failed is not forgotten");
        node.ovn.start_controller();
        api.add("vpc2", "vpc2", "10.0.1.5", json!({}));
        api.until("vpc2", ProbeState::Healthy).await;
        assert!(!able(), "it has to be well for a while");
    });
}

#[test]
fn what_moves_away_while_open_vswitch_s_database_is_away_is_asked_no_more() {
    on_node(|node| async move {
        let api = Api::new();
        let running = Running::start(&node, &api);
        vpc(&node, "vpc1");
        let pod = machine(&node, "vpc1");
        pod.serve(80, "one").await;
        for name in ["stays", "moves"] {
            api.add(name, "vpc1", "10.0.1.5", json!({}));
            api.until(name, ProbeState::Healthy).await;
        }
        node.ovn.kill("conf");
        tokio::time::sleep(Duration::from_secs(1)).await;
        api.remove("moves");
        eventually("it is asked no more", SOON, || {
            running.prober.figures().targets == 2
        })
        .await;
        pod.ip(&["link", "set", "eth0", "down"]);
        eventually("the other one is asked still", SOON, || {
            api.state("stays").0 != ProbeState::Healthy
        })
        .await;
    });
}

#[test]
fn ten_thousand_steady_probes_write_nothing_nor_does_a_restart() {
    const PROBES: usize = 10_000;
    const STEADY: Duration = Duration::from_secs(10);
    on_node(|node| async move {
        let api = Api::new();
        vpc(&node, "vpc1");
        let one = machine(&node, "vpc1");
        one.serve(80, "one").await;
        for n in 0..PROBES {
            let period = json!({"periodSeconds": 5, "timeoutSeconds": 2});
            api.add(&format!("p{n}"), "vpc1", "10.0.1.5", period);
        }
        let healthy = || {
            let objects = api.objects.borrow();
            let states = objects.by_key.values().filter_map(|o| o.status.as_ref());
            states.filter(|s| s.state == ProbeState::Healthy).count()
        };
        let running = Running::start(&node, &api);
        eventually("all are Healthy", 4 * SOON, || healthy() == PROBES).await;
        let writes = api.writes();
        tokio::time::sleep(STEADY).await;
        // The heartbeats of an hour are spread over it: 28 are due.
        let heartbeats = api.writes() - writes;
        assert!(heartbeats < 80, "{heartbeats}");

        drop(running);
        let writes = api.writes();
        let running = Running::start(&node, &api);
        let asked = || running.prober.figures().succeeded > 0;
        eventually("it asks again", SOON, asked).await;
        tokio::time::sleep(STEADY).await;
        assert_eq!(healthy(), PROBES);
        let after = api.writes() - writes;
        assert!(after < 80, "{after}");
    });
}
