//! What the installed ovn-northd makes of the rows of every case: it takes them without a warning, and its logical flows
//! carry a client's packet to a backend.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use support::cases::{names, snapshot};
use support::nb::{Server, settle};
use support::objects;
use support::world::events;
use ycloud_compiler::{Event, Object, OwnerIndex, Settings, Snapshot};

/// Random clusters.
const HISTORIES: usize = 16;

struct Northd {
    child: Child,
    folder: tempfile::TempDir,
    nb: Server,
    sb: Server,
}

impl Drop for Northd {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Northd {
    fn start() -> Northd {
        let schemas = Path::new("../ovsdb/schemas");
        let nb = Server::start(&schemas.join("ovn-nb.ovsschema"));
        let sb = Server::start(&schemas.join("ovn-sb.ovsschema"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let child = Command::new("ovn-northd")
            .arg(format!("--ovnnb-db={}", nb.remote))
            .arg(format!("--ovnsb-db={}", sb.remote))
            .arg(format!("--unixctl={}", folder.path().join("ctl").display()))
            .arg(format!(
                "--log-file={}",
                folder.path().join("log").display()
            ))
            .args(["-vconsole:off", "-vsyslog:off"])
            .env("OVN_RUNDIR", folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("ovn-northd");
        let northd = Northd {
            child,
            folder,
            nb,
            sb,
        };
        northd.nbctl(&["init"]);
        northd
    }

    fn nbctl(&self, arguments: &[&str]) -> String {
        run(Command::new("ovn-nbctl")
            .arg(format!("--db={}", self.nb.remote))
            .arg("--timeout=20")
            .args(arguments))
    }

    /// Its logical flows, of everything that it was told.
    fn flows(&self) -> BTreeSet<String> {
        self.nbctl(&["--wait=sb", "sync"]);
        let flows = run(Command::new("ovn-sbctl")
            .arg(format!("--db={}", self.sb.remote))
            .arg("lflow-list"));
        flows.lines().map(str::to_owned).collect()
    }

    /// Lets it make all anew, instead of what changed.
    fn recompute(&self) {
        run(Command::new("ovn-appctl")
            .arg(format!(
                "--target={}",
                self.folder.path().join("ctl").display()
            ))
            .arg("inc-engine/recompute"));
    }

    /// Asserts that what it made step by step is what it makes anew, which is returned.
    fn follows(&self, step: &str) -> BTreeSet<String> {
        let followed = self.flows();
        self.recompute();
        let anew = self.flows();
        assert!(
            followed == anew,
            "{step}: too much {:#?}, too little {:#?}",
            followed.difference(&anew).collect::<Vec<_>>(),
            anew.difference(&followed).collect::<Vec<_>>()
        );
        anew
    }

    /// Lines of its log that warn.
    fn warnings(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("|WARN|") || line.contains("|ERR|"))
            .map(str::to_owned)
            .collect()
    }
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn northd_takes_every_case_and_a_packet_finds_its_backend() {
    let northd = Northd::start();
    let client = northd.nb.client().await;
    let mut index = OwnerIndex::build(&client.snapshot());
    for case in names() {
        settle(&client, &snapshot(&case), &mut index).await;
        northd.nbctl(&["--wait=sb", "sync"]);
        assert_eq!(
            northd.warnings(),
            Vec::<String>::new(),
            "{}",
            case.display()
        );
        if case.ends_with("cluster-vip") {
            a_packet_finds_its_backend(&northd);
        }
        if case.ends_with("dual-stack") {
            an_ipv6_packet_leaves_by_its_node(&northd);
        }
        if case.ends_with("scenario-4-eip-default-vpc") {
            a_service_gateway_and_the_default_vpc_find_each_other(&northd);
        }
        if case.ends_with("probe-network") {
            a_prober_is_answered_and_asked_nothing(&northd);
        }
        if case.ends_with("dead-chassis") {
            a_chassis_answers_probers_and_nobody_else(&northd);
        }
        settle(&client, &Snapshot::new(Settings::default()), &mut index).await;
    }
    northd.nbctl(&["--wait=sb", "sync"]);
    let left = run(Command::new("ovn-sbctl")
        .arg(format!("--db={}", northd.sb.remote))
        .args(["list", "Datapath_Binding"]));
    assert_eq!(left, "");
}

/// northd works out what a change does to what it made before, and what it keeps for that may become wrong: of the addresses
/// of a router's load balancers it forgets one that leaves a row, though another row has it, and drops what comes for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_eips_lead_northd_to_what_it_makes_anew() {
    let northd = Northd::start();
    let client = northd.nb.client().await;
    let mut index = OwnerIndex::build(&client.snapshot());
    let mut snapshot = Snapshot::new(Settings::default());
    let address_of = |eip: &str| match eip {
        "left" => "198.51.100.11",
        "right" => "198.51.100.12",
        _ => "198.51.100.13",
    };
    let eips = ["left", "right", "shared"].map(|name| {
        let held = Some(address_of(name));
        Object::Eip(objects::eip("ns", name, Some("g1"), None, held))
    });
    let service = |name: &str, several: bool, ports: &[(&str, i32)], eip: &str| {
        let vpc = (!several).then_some("v1");
        let service = objects::service("ns", name, vpc, &format!("10.96.0.{}", name.len()), ports);
        Object::Service(objects::with_eip(&service, several, Some(eip)))
    };
    let world = [
        Object::Node(objects::node("n1", "172.31.0.1")),
        Object::EipGateway(objects::eip_gateway("g1", "198.51.100.0/24", true, 1)),
        Object::Vpc(objects::vpc("v1", &["ns"])),
        Object::Subnet(objects::subnet("s1", "v1", "10.0.1.0/24", 1)),
    ];
    let (both, udp): (&[_], &[_]) = (&[("TCP", 80), ("UDP", 80)], &[("UDP", 80)]);
    let (one, two): (&[_], &[_]) = (&[("TCP", 1)], &[("TCP", 2)]);
    let steps = [
        [("a", false, both, "left"), ("bb", false, both, "right")],
        // They change places, there and back.
        [("a", false, both, "right"), ("bb", false, both, "left")],
        [("a", false, both, "left"), ("bb", false, both, "right")],
        // Two at one, of which one leaves.
        [
            ("ccc", false, one, "shared"),
            ("dddd", false, two, "shared"),
        ],
        [("ccc", false, one, "right"), ("bb", false, both, "shared")],
        // A protocol leaves, and returns.
        [("a", false, udp, "left"), ("bb", false, both, "shared")],
        [("a", false, both, "left"), ("dddd", false, two, "left")],
        // Over several Vpcs, and back.
        [("a", true, both, "left"), ("dddd", false, two, "right")],
        [("a", true, both, "shared"), ("bb", true, both, "left")],
        [("a", false, both, "left"), ("bb", false, both, "shared")],
    ];
    for object in world.into_iter().chain(eips) {
        snapshot.apply(Event::Apply(object));
    }
    for (number, services) in steps.into_iter().enumerate() {
        for (name, several, ports, eip) in services {
            snapshot.apply(Event::Apply(service(name, several, ports, eip)));
        }
        settle(&client, &snapshot, &mut index).await;
        let flows = northd.follows(&format!("step {number}"));
        for (_, _, ports, eip) in services {
            let (address, port) = (address_of(eip), ports[0].1);
            let balanced = flows.iter().any(|flow| {
                flow.contains("lr_in_dnat")
                    && flow.contains(&format!("ip4.dst == {address} && "))
                    && flow.contains(&format!(".dst == {port}"))
            });
            assert!(balanced, "step {number}: {address} {port}");
        }
    }
    assert_eq!(northd.warnings(), Vec::<String>::new());
}

/// The same of whatever comes to random clusters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_lead_northd_to_what_it_makes_anew() {
    let northd = Northd::start();
    let client = northd.nb.client().await;
    let mut index = OwnerIndex::build(&client.snapshot());
    let mut runner = TestRunner::deterministic();
    let mut seen = 0;
    for number in 0..HISTORIES {
        let history = events(60..90).new_tree(&mut runner);
        let history = history.expect("a history").current();
        let mut snapshot = Snapshot::new(Settings::default());
        // Something to begin with, or few EIPs would ever come to serve.
        let service = objects::service("ns1", "e", Some("v1"), "10.96.0.9", &[("TCP", 80)]);
        for object in [
            Object::Node(objects::node("n1", "172.31.0.1")),
            Object::EipGateway(objects::eip_gateway("g1", "198.51.100.0/24", true, 0)),
            Object::Vpc(objects::vpc("v1", &["ns1", "ns2"])),
            Object::Subnet(objects::subnet("a", "v1", "10.0.1.0/24", 0)),
            Object::Eip(objects::eip(
                "ns1",
                "e",
                Some("g1"),
                None,
                Some("198.51.100.9"),
            )),
            Object::Service(objects::with_eip(&service, false, Some("e"))),
        ] {
            snapshot.apply(Event::Apply(object));
        }
        // What it keeps wrong adds up, and is looked at now and then.
        for (at, step) in history.chunks(3).enumerate() {
            for event in step {
                snapshot.apply(event.clone());
            }
            settle(&client, &snapshot, &mut index).await;
            northd.nbctl(&["--wait=sb", "sync"]);
            if at % 10 == 9 {
                northd.follows(&format!("history {number}, step {at}: {step:#?}"));
            }
        }
        let flows = northd.follows(&format!("history {number}"));
        let balanced = |flow: &&String| flow.contains("lr_in_dnat") && flow.contains("ct.new");
        seen += flows.iter().filter(balanced).count();
    }
    assert!(seen > 0, "no history ended with an EIP that is balanced");
}

fn a_packet_finds_its_backend(northd: &Northd) {
    let mac = northd.nbctl(&["get", "Logical_Router_Port", "lrp:vpc1/subnet3", "mac"]);
    let packet = format!(
        "inport == \"default/client-8293a4b5\" && eth.src == 0a:11:0a:00:03:04 && eth.dst == {} && ip4.src == 10.0.3.4 \
         && ip4.dst == 10.96.46.185 && ip.ttl == 64 && tcp && tcp.src == 40000 && tcp.dst == 5001",
        mac.trim().trim_matches('"')
    );
    for (backend, port) in [
        ("10.0.1.5:5001", "default/ep1-0a1b2c3d"),
        ("10.0.2.7:5001", "default/ep2-4e5f6071"),
    ] {
        let trace = run(Command::new("ovn-trace")
            .arg(format!("--db={}", northd.sb.remote))
            .args([
                "--ct=new",
                "--lb-dst",
                backend,
                "--summary",
                "subnet3",
                &packet,
            ]));
        assert!(
            trace.contains(&format!("/* output to \"{port}\"")),
            "{backend}: {trace}"
        );
    }
}

fn an_ipv6_packet_leaves_by_its_node(northd: &Northd) {
    let port = "lrp:ovn-cluster/ovn-default";
    let mac = northd.nbctl(&["get", "Logical_Router_Port", port, "mac"]);
    let to = |destination: &str| {
        let packet = format!(
            "inport == \"kube-system/dns-c0ffee00\" && eth.src == 0a:33:0a:10:00:02 && eth.dst == {} \
             && ip6.src == fd00:10:16::2 && ip6.dst == {destination} && ip.ttl == 64 && tcp && tcp.src == 40000 && tcp.dst == 80",
            mac.trim().trim_matches('"')
        );
        run(Command::new("ovn-trace")
            .arg(format!("--db={}", northd.sb.remote))
            .args(["--summary", "ovn-default", &packet]))
    };
    let outside = to("2001:db8::1");
    assert!(
        outside.contains("/* output to \"ycloud-system/node-1\""),
        "{outside}"
    );
    // No Service has this address.
    let dropped = to("fd00:10:96::77");
    assert!(dropped.contains(" drop;"), "{dropped}");
    // A node's address on the join switch is within the default Vpc.
    let node = to("fd00:100:64::2");
    assert!(
        node.contains("/* output to \"ycloud-system/node-1\""),
        "{node}"
    );
}

/// A trace of a packet that enters `datapath`, step by step.
fn trace(northd: &Northd, datapath: &str, options: &[&str], packet: &str) -> String {
    run(Command::new("ovn-trace")
        .arg(format!("--db={}", northd.sb.remote))
        .args(["--summary"])
        .args(options)
        .args([datapath, packet]))
}

/// In both of two Vpcs that have one range, a prober's question reaches the address that is meant, and the answer the prober.
/// What is no answer does not.
fn a_prober_is_answered_and_asked_nothing(northd: &Northd) {
    let of = |vpc, subnet, port, prober, chassis| Probed {
        northd,
        vpc,
        subnet,
        port,
        prober,
        chassis,
    };
    let both = [
        of("vpc1", "red", "team-a/vm-7", 0x0002, "node-1"),
        of("vpc2", "blue", "team-b/bm-1", 0x0107, "rack-7.dpu"),
    ];
    for probed in &both {
        probed.check("ip4", "10.0.1.5", "100.68");
    }
    both[0].check("ip6", "fd00:1::5", "fd00:100:64:44");
}

/// The router of a chassis answers a prober's echo request; no other question, and none from elsewhere, gets there.
fn a_chassis_answers_probers_and_nobody_else(northd: &Northd) {
    let mac = |port: &str| {
        let mac = northd.nbctl(&["get", "Logical_Router_Port", port, "mac"]);
        mac.trim().trim_matches('"').to_owned()
    };
    let to = mac("lrp:ovn-cluster/probe:ovn-cluster");
    let ask = |what: &str| {
        let packet = format!(
            "inport == \"probe:ovn-cluster/hv-1\" && eth.src == 0e:00:00:00:00:02 && eth.dst == {to} \
             && ip4.src == 100.68.0.2 && ip4.dst == 100.70.0.4 && ip.ttl == 64 && {what}"
        );
        trace(northd, "probe:ovn-cluster", &[], &packet)
    };
    let answered = ask("icmp4.type == 8 && icmp4.code == 0");
    let there = "ingress(dp=\"chassis/hv-3\"";
    let back = "/* output to \"probe:ovn-cluster/hv-1\"";
    assert!(
        answered.contains(there) && answered.contains(back),
        "{answered}"
    );
    for what in ["udp && udp.dst == 53", "tcp && tcp.dst == 80"] {
        let dropped = ask(what);
        assert!(!dropped.contains(there), "{dropped}");
    }
    let router = mac("lrp:ovn-cluster/subnet0");
    let packet = format!(
        "inport == \"ycloud-system/hv-1\" && eth.src == 0a:00:64:40:00:02 && eth.dst == {router} && ip4.src == 100.64.0.2 \
         && ip4.dst == 100.70.0.4 && ip.ttl == 64 && icmp4.type == 8 && icmp4.code == 0"
    );
    let dropped = trace(northd, "subnet0", &[], &packet);
    assert!(!dropped.contains(there), "{dropped}");
}

/// An address that a prober asks.
struct Probed<'a> {
    northd: &'a Northd,
    vpc: &'a str,
    subnet: &'a str,
    /// The port that has the address.
    port: &'a str,
    /// The lower bits of the prober's address.
    prober: u16,
    chassis: &'a str,
}

impl Probed<'_> {
    fn check(&self, ip: &str, address: &str, network: &str) {
        let [high, low] = self.prober.to_be_bytes();
        let source = match ip {
            "ip4" => format!("{network}.{high}.{low}"),
            _ => format!("{network}::{:x}", self.prober),
        };
        let prober = format!("probe:{}/{}", self.vpc, self.chassis);
        let to_target = format!("/* output to \"{}\"", self.port);
        let to_prober = format!("/* output to \"{prober}\"");
        let switch = format!("probe:{}", self.vpc);
        let ask = |what: &str| {
            let mac = format!("0e:00:00:00:{high:02x}:{low:02x}");
            self.send(&switch, &prober, &mac, ip, &source, address, what)
        };
        let answer = |what: &str| {
            let second = if self.vpc == "vpc1" { "11" } else { "22" };
            let mac = format!("0a:{second}:0a:00:01:05");
            self.send(self.subnet, self.port, &mac, ip, address, &source, what)
        };
        let icmp = ip.replace("ip", "icmp");
        let (echo, reply) = if ip == "ip4" { (8, 0) } else { (128, 129) };
        let syn = "tcp && tcp.src == 40000 && tcp.dst == 80 && tcp.flags == 2";
        for question in [
            syn.to_owned(),
            "udp && udp.dst == 53".to_owned(),
            format!("{icmp}.type == {echo}"),
        ] {
            let trace = ask(&question);
            assert!(trace.contains(&to_target), "{question}: {trace}");
        }
        for passes in [
            "tcp && tcp.src == 80 && tcp.dst == 40000 && tcp.flags == 0x12".to_owned(),
            "tcp && tcp.src == 80 && tcp.dst == 40000 && tcp.flags == 0x10".to_owned(),
            "tcp && tcp.src == 80 && tcp.dst == 40000 && tcp.flags == 0x14".to_owned(),
            "udp && udp.src == 53".to_owned(),
            format!("{icmp}.type == {reply}"),
        ] {
            let trace = answer(&passes);
            assert!(trace.contains(&to_prober), "{passes}: {trace}");
        }
        for dropped in [
            "tcp && tcp.dst == 80 && tcp.flags == 2".to_owned(),
            format!("{icmp}.type == {echo}"),
            "ip.proto == 132".to_owned(),
        ] {
            let trace = answer(&dropped);
            assert!(!trace.contains(&to_prober), "{dropped}: {trace}");
            assert!(trace.contains("drop;"), "{dropped}: {trace}");
        }
        // The router answers pings, and nobody takes another's address.
        let other = source.replace(&format!("{low:x}"), "9");
        let spoofed = self.send(
            &switch,
            &prober,
            "0e:00:00:00:00:09",
            ip,
            &other,
            address,
            syn,
        );
        assert!(!spoofed.contains(&to_target), "{spoofed}");
    }

    /// A trace of a packet that a port sends by its router.
    #[allow(clippy::too_many_arguments, reason = "the fields of a packet")]
    fn send(
        &self,
        switch: &str,
        port: &str,
        mac: &str,
        ip: &str,
        source: &str,
        destination: &str,
        what: &str,
    ) -> String {
        let router = format!("lrp:{}/{switch}", self.vpc);
        let router = self
            .northd
            .nbctl(&["get", "Logical_Router_Port", &router, "mac"]);
        let packet = format!(
            "inport == \"{port}\" && eth.src == {mac} && eth.dst == {} && {ip}.src == {source} && {ip}.dst == {destination} \
             && ip.ttl == 64 && {what}",
            router.trim().trim_matches('"')
        );
        trace(self.northd, switch, &[], &packet)
    }
}

/// A client's packet comes by a service gateway to a Pod of the default Vpc, and to its node; and what they answer goes back to
/// the service gateway, not out by the node.
fn a_service_gateway_and_the_default_vpc_find_each_other(northd: &Northd) {
    let mac = |port: &str| {
        let mac = northd.nbctl(&["get", "Logical_Router_Port", port, "mac"]);
        mac.trim().trim_matches('"').to_owned()
    };
    let gateway = mac("lrp:sg/gw-a/1/transit/gw-a");
    for (address, port, source, subnet) in [
        (
            "10.16.0.5",
            "default/pod-1",
            "0a:00:0a:10:00:05",
            "ovn-default",
        ),
        (
            "100.64.0.2",
            "ycloud-system/node-1",
            "0a:00:64:40:00:02",
            "subnet0",
        ),
    ] {
        let alias = northd.nbctl(&[
            "--bare",
            "--columns=external_ip",
            "find",
            "NAT",
            &format!("logical_ip={address}"),
        ]);
        let backend = format!("{}:8080", alias.trim());
        let question = trace(
            northd,
            "transit/gw-a",
            &["--ct=new", "--lb-dst", &backend],
            &format!(
                "inport == \"lsp:eipgw/gw-a/transit/gw-a\" && eth.src == 0e:00:00:00:00:01 && eth.dst == {gateway} \
                 && ip4.src == 203.0.113.9 && ip4.dst == 198.51.100.10 && ip.ttl == 60 && tcp && tcp.src == 40000 \
                 && tcp.dst == 80"
            ),
        );
        let reached = format!("/* output to \"{port}\"");
        assert!(question.contains(&reached), "{address}: {question}");
        let router = mac(&format!("lrp:ovn-cluster/{subnet}"));
        let answer = trace(
            northd,
            subnet,
            &["--ct=est,rpl"],
            &format!(
                "inport == \"{port}\" && eth.src == {source} && eth.dst == {router} && ip4.src == {address} \
                 && ip4.dst == 100.83.255.1 && ip.ttl == 64 && tcp && tcp.src == 8080 && tcp.dst == 40000"
            ),
        );
        let back = "ingress(dp=\"sg/gw-a/1\"";
        assert!(answer.contains(back), "{address}: {answer}");
    }
}
