//! Who reaches whom: from Pods of overlapping Vpcs, Pods of the default Vpc, nodes, and the link outside, to every address
//! that the system owns or another Vpc holds, by TCP, UDP and ICMP.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ycloud_lab::ask::{Heard, Protocol, ask, knock, ping};
use ycloud_lab::ext;
use ycloud_lab::icmp::{Icmp, Message};
use ycloud_lab::place::Place;

use crate::asking::{PATIENCE, gateways, links_changed, machine, pod, target};
use crate::cluster::{NODES, apply, get, nbctl, on};
use crate::scene::Scene;

/// After how long nothing is nothing.
const SILENCE: Duration = Duration::from_secs(1);
/// Probes at once from one place.
const AT_ONCE: usize = 64;
const TCP: [u16; 4] = [80, 443, 8080, 10250];
const UDP: [u16; 2] = [80, 8081];
/// Of both tenants, and of no other test: a node reaches the Pods that run on it.
const RANGE: &str = "10.91.1.0/24";
/// An address of a Pod of either tenant, on different nodes.
const TWICE: &str = "10.91.1.61";
/// An address of a Pod of the second tenant only.
const OTHERS: &str = "10.91.1.203";
/// Who leads to the inside, seen from outside: the address of the EipGateway of the suite.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// What must be met at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Nothing answers, and nothing refuses.
    Nothing,
    /// As nothing, but pings may be answered: a router of one's own.
    OwnRouter,
    /// Pings are answered, no port is: the router of one's Subnet.
    Gateway,
    /// Port 80 and pings are answered, no other port is: an EIP of one Vpc.
    Eip,
    /// As [`Reach::Eip`]; port 80 is `scenario_multi_vpc`'s matter.
    EipOverVpcs,
    /// Answers as `agnhost netexec` does: a Pod of one's own Vpc.
    Pod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Tcp(u16),
    Udp(u16),
    Ping,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "TCP {port}"),
            Self::Udp(port) => write!(f, "UDP {port}"),
            Self::Ping => f.write_str("ping"),
        }
    }
}

impl How {
    fn all() -> impl Iterator<Item = Self> {
        let tcp = TCP.map(Self::Tcp);
        let udp = UDP.map(Self::Udp);
        tcp.into_iter().chain(udp).chain([Self::Ping])
    }

    fn try_at(self, place: &Place, ip: Ipv4Addr, limit: Duration) -> Heard {
        let at = |port| target(&ip.to_string(), port);
        match self {
            Self::Tcp(port) => knock(place, Protocol::Tcp, at(port), limit),
            Self::Udp(port) => knock(place, Protocol::Udp, at(port), limit),
            Self::Ping => ping(place, ip.into(), limit),
        }
    }
}

/// Whether one more ping or datagram may be lost for no known reason: of some sixty that are answered, as of others' thirty
/// (`ask_often`).
fn may_be_lost() -> bool {
    static LOST: AtomicUsize = AtomicUsize::new(0);
    LOST.fetch_add(1, Ordering::Relaxed) < 2
}

impl Reach {
    /// Whether there must be an answer, or must be none; `None` where it does not matter.
    fn answers(self, how: How) -> Option<bool> {
        match (self, how) {
            (Self::OwnRouter, How::Ping) => None,
            (Self::Gateway | Self::Eip | Self::EipOverVpcs | Self::Pod, How::Ping)
            | (Self::Eip, How::Tcp(80) | How::Udp(80))
            | (Self::Pod, How::Tcp(8080) | How::Udp(8081)) => Some(true),
            (Self::EipOverVpcs, How::Tcp(80) | How::Udp(80)) | (Self::Pod, _) => None,
            _ => Some(false),
        }
    }

    /// What is wrong, in words.
    fn fault(self, how: How, place: &Place, ip: Ipv4Addr) -> Option<String> {
        let heard = if self.answers(how)? {
            links_changed(Instant::now());
            let began = Instant::now();
            let mut heard = how.try_at(place, ip, PATIENCE);
            // Open vSwitch in user space loses one now and then, most while links change, and nobody sends it again
            // (ARCHITECTURE, Known limits).
            let lost = heard == Heard::Silence && !matches!(how, How::Tcp(_));
            if lost && (links_changed(began) || may_be_lost()) {
                eprintln!("{} → {ip} by {how}: asked again", place.name());
                heard = how.try_at(place, ip, PATIENCE);
            }
            Some(heard).filter(|heard| *heard != Heard::Answer)?
        } else {
            let heard = how.try_at(place, ip, SILENCE);
            Some(heard).filter(|heard| matches!(heard, Heard::Answer | Heard::Refusal))?
        };
        Some(format!("by {how}: {heard:?}"))
    }
}

/// Each address once: the first that is said of it counts.
#[derive(Clone, Debug, Default)]
struct Targets(BTreeMap<Ipv4Addr, (Reach, String)>);

impl Targets {
    fn add(&mut self, reach: Reach, what: &str, ip: Ipv4Addr) {
        let said = || (reach, what.to_owned());
        self.0.entry(ip).or_insert_with(said);
    }

    fn add_all(&mut self, reach: Reach, named: &[(String, Ipv4Addr)]) {
        for (what, ip) in named {
            self.add(reach, what, *ip);
        }
    }

    /// Probes all of them from a place, and tells what is wrong. No packet may go in circles until its time to live is over.
    fn faults(&self, place: &Place) -> Vec<String> {
        let errors = Icmp::open(place, GATEWAY.into()).expect("a raw socket");
        let probes: Vec<_> = self
            .0
            .iter()
            .flat_map(|(ip, (reach, what))| How::all().map(move |how| (*ip, *reach, what, how)))
            .collect();
        let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some((ip, reach, what, how)) =
                probes.get(next.fetch_add(1, Ordering::Relaxed))
            {
                if let Some(fault) = reach.fault(*how, place, *ip) {
                    let fault = format!("{} → {what} {ip} {fault}", place.name());
                    faults.lock().expect("no probe panics").push(fault);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        let mut faults = faults.into_inner().expect("no probe panics");
        while let Some(message) = errors.hear(Duration::from_millis(50)).expect("ICMP") {
            if let Message::TimeExceeded { to, from, .. } = message {
                faults.push(format!(
                    "{} → {to} goes in circles, says {from}",
                    place.name()
                ));
            }
        }
        faults
    }
}

/// What the system owns at this moment.
struct Owned {
    /// Routers' ports, by name, without the EIPs that they hold.
    ports: Vec<(String, Ipv4Addr)>,
    /// Behind which addresses others appear, and aliases of backends.
    translated: Vec<(String, Ipv4Addr)>,
    /// Chassis on the join switch, and the address there that nobody has.
    join: Vec<(String, Ipv4Addr)>,
    /// What chassis probe from, inside each Vpc.
    probers: Vec<(String, Ipv4Addr)>,
    /// Nodes' own addresses.
    nodes: Vec<(String, Ipv4Addr)>,
}

impl Owned {
    fn now() -> Self {
        let csv = ["--format=csv", "--data=bare", "--no-headings"];
        let list =
            |columns: &str, table: &str| nbctl(&[&csv[..], &[columns, "list", table]].concat());
        let mut ports = Vec::new();
        for line in list("--columns=name,networks", "Logical_Router_Port").lines() {
            let (name, networks) = line.split_once(',').expect("two columns");
            let networks = networks.split(|c: char| c.is_whitespace() || c == '"');
            let addresses = networks.filter_map(|network| network.split_once('/'));
            // Those of one address are EIPs, which answer.
            let addresses = addresses.filter(|(_, length)| *length != "32");
            ports.extend(addresses.filter_map(|(ip, _)| Some((name.to_owned(), ip.parse().ok()?))));
        }
        let mut translated = Vec::new();
        for line in list("--columns=external_ip,logical_ip", "NAT").lines() {
            let (outer, inner) = line.split_once(',').expect("two columns");
            // An EIP is translated to itself, so that it is announced.
            if outer != inner {
                translated.extend(outer.parse().ok().map(|ip| (format!("NAT of {inner}"), ip)));
            }
        }
        for k in 1..=2 {
            let what = format!("clients of service gateway {k}");
            translated.push((what, Ipv4Addr::new(100, 83, 255, k)));
        }
        let mut join = addresses(&["-n", "ycloud-system", "vnics"], "/status/ip");
        // The probe network's addresses have the lower half of those.
        let prober = |(name, ip): &(String, Ipv4Addr)| {
            let [.., c, d] = ip.octets();
            (format!("prober {name}"), Ipv4Addr::new(100, 68, c, d))
        };
        let probers = join.iter().map(prober).collect();
        join.push((
            "nobody on the join switch".into(),
            Ipv4Addr::new(100, 64, 255, 254),
        ));
        let nodes = addresses(&["nodes"], "/status/addresses/0/address");
        Self {
            ports,
            translated,
            join,
            probers,
            nodes,
        }
    }

    fn ports_of<'a>(&'a self, router: &str) -> Vec<(String, Ipv4Addr)> {
        let prefix = format!("lrp:{router}/");
        let of = |(name, _): &&'a (String, Ipv4Addr)| name.starts_with(&prefix);
        self.ports.iter().filter(of).cloned().collect()
    }
}

/// An address of each object, with its name.
fn addresses(words: &[&str], pointer: &str) -> Vec<(String, Ipv4Addr)> {
    let list = get(words);
    let items = list["items"].as_array().into_iter().flatten();
    let address = |object: &serde_json::Value| {
        let name = object["metadata"]["name"].as_str()?;
        let ip = object.pointer(pointer)?.as_str()?;
        Some((name.to_owned(), ip.parse().ok()?))
    };
    items.filter_map(address).collect()
}

/// Two tenants with the same range and the default Vpc, each with a Pod on each node; an EIP of the first tenant's, and one
/// of both.
struct Matrix {
    scene: Scene,
    /// The tenants' Vpcs and the default one, and the first letter of their Pods' names.
    vpcs: [(String, char); 3],
    pods: Vec<(String, Ipv4Addr)>,
    cluster_ips: Vec<(String, Ipv4Addr)>,
    one: Ipv4Addr,
    several: Ipv4Addr,
}

impl Matrix {
    fn new() -> Self {
        gateways();
        let mut scene = Scene::new("matrix");
        let tenants = ["p", "q"].map(|vpc| scene.vpc(vpc, &[(&format!("{vpc}-net"), RANGE)]));
        for (vpc, subnet) in [("p", "p-net"), ("q", "q-net"), ("d", "ovn-default")] {
            for (i, node) in NODES.iter().enumerate() {
                let name = format!("{vpc}{i}");
                let yaml = scene.server_yaml(&name, subnet, node, "web", "");
                let address = |ip| {
                    yaml.replace(
                        "annotations: {",
                        &format!("annotations: {{iaas.yusur.io/ip: {ip}, "),
                    )
                };
                apply(&match name.as_str() {
                    "p0" | "q1" => address(TWICE),
                    "q2" => address(OTHERS),
                    _ => yaml,
                })
                .must();
            }
        }
        scene.load_balancer("one", &tenants[0], "web", "");
        scene.over_vpcs("several", &[&tenants[0], &tenants[1]], "web", "");
        scene.pods_ready();
        let [one, several] = [("one", 3), ("several", 6)].map(|(service, backends)| {
            let eip = scene.programmed_eip(service, backends);
            eip.parse().expect("an address")
        });
        let [p, q] = tenants;
        Self {
            vpcs: [(p, 'p'), (q, 'q'), ("ovn-cluster".into(), 'd')],
            pods: addresses(&["-n", &scene.name, "pods"], "/status/podIP"),
            cluster_ips: addresses(&["-n", &scene.name, "services"], "/spec/clusterIP"),
            one,
            several,
            scene,
        }
    }

    /// What everybody is told alike: EIPs answer, those that nothing holds do not.
    fn targets(&self) -> Targets {
        let mut targets = Targets::default();
        targets.add(Reach::Eip, "EIP of one Vpc", self.one);
        targets.add(Reach::EipOverVpcs, "EIP over Vpcs", self.several);
        for ip in [[198, 51, 100, 250], [192, 0, 2, 250]] {
            targets.add(Reach::Nothing, "unheld EIP", ip.into());
        }
        targets
    }

    fn pods_of(&self, letter: char) -> Vec<(String, Ipv4Addr)> {
        let of = |(name, _): &&(String, Ipv4Addr)| name.starts_with(letter);
        self.pods.iter().filter(of).cloned().collect()
    }

    /// For Pods of the Vpc: their own Pods and routers, and nothing of what is the system's, others', or the nodes'.
    fn for_pods(&self, vpc: &str, letter: char, owned: &Owned) -> Targets {
        let mut targets = self.targets();
        let subnet = |name: &str| name.ends_with("-net") || name.ends_with("ovn-default");
        for (name, ip) in owned.ports_of(vpc) {
            let reach = if subnet(&name) {
                Reach::Gateway
            } else {
                Reach::OwnRouter
            };
            targets.add(reach, &name, ip);
        }
        targets.add(Reach::OwnRouter, "EipGateway", GATEWAY);
        targets.add_all(Reach::Pod, &self.pods_of(letter));
        let mut foreign = [&owned.translated[..], &owned.ports, &self.pods].concat();
        if letter == 'd' {
            // Pods of the default Vpc reach nodes, and by their node what that reaches: as in Kubernetes.
            let nodes = |ip: &Ipv4Addr| owned.join.iter().any(|(_, join)| join == ip);
            foreign.retain(|(_, ip)| !nodes(ip));
        } else {
            foreign.extend([&owned.join[..], &owned.nodes].concat());
            let probes = Ipv4Addr::new(169, 254, 77, 1);
            foreign.push(("who probes Pods".into(), probes));
            foreign.extend(outside());
            foreign.extend(addresses(&["services"], "/spec/clusterIP"));
        }
        foreign.extend(owned.probers.iter().cloned());
        if letter != 'p' {
            foreign.extend(self.cluster_ips.iter().cloned());
        }
        targets.add_all(Reach::Nothing, &foreign);
        targets
    }

    /// For a node: what the default Vpc's router is, and nothing of the tenants'. That it reaches the Pods that run on it
    /// is the probes' matter.
    fn for_node(&self, i: usize, owned: &Owned) -> Targets {
        let mut targets = self.targets();
        targets.add_all(Reach::OwnRouter, &owned.ports_of("ovn-cluster"));
        targets.add(Reach::OwnRouter, "EipGateway", GATEWAY);
        targets.add_all(Reach::Pod, &self.pods_of('d'));
        let here = |name: &str| name.ends_with(&i.to_string());
        let here: Vec<Ipv4Addr> = self
            .pods
            .iter()
            .filter(|(name, _)| here(name))
            .map(|(_, ip)| *ip)
            .collect();
        let mut foreign = [
            &owned.translated[..],
            &owned.ports,
            &owned.probers,
            &self.pods,
            &self.cluster_ips,
        ]
        .concat();
        foreign.retain(|(_, ip)| !here.contains(ip));
        targets.add_all(Reach::Nothing, &foreign);
        targets
    }

    /// For the link outside: EIPs, and the EipGateway itself.
    fn for_outside(&self, owned: &Owned) -> Targets {
        let mut targets = self.targets();
        targets.add(Reach::Gateway, "EipGateway", GATEWAY);
        let foreign = [
            &owned.translated[..],
            &owned.ports,
            &owned.join,
            &owned.probers,
            &self.pods,
            &self.cluster_ips,
        ]
        .concat();
        // What is on the link itself is not behind the gateway.
        let behind = |ip: &Ipv4Addr| ip.octets()[..3] != GATEWAY.octets()[..3];
        let foreign: Vec<_> = foreign.into_iter().filter(|(_, ip)| behind(ip)).collect();
        targets.add_all(Reach::Nothing, &foreign);
        targets
    }
}

/// The upstream router and who is behind it.
fn outside() -> Vec<(String, Ipv4Addr)> {
    [
        ("upstream router", ext::ROUTER),
        ("upstream router", ext::VLAN_ROUTER),
        ("outside", ext::EXTERNAL),
    ]
    .map(|(what, ip)| (what.to_owned(), ip))
    .to_vec()
}

/// Routes of the upstream router by the EipGateway to addresses that it would not look for there; taken back when dropped.
struct Routes(Vec<Ipv4Addr>);

impl Routes {
    fn to(targets: &Targets) -> Self {
        let inside = |(ip, (reach, what)): (&Ipv4Addr, &(Reach, String))| {
            (*reach == Reach::Nothing && what != "unheld EIP").then_some(*ip)
        };
        let routes = Self(targets.0.iter().filter_map(inside).collect());
        on(
            "upstream",
            &routes.script("replace", &format!(" via {GATEWAY}")),
        )
        .must();
        routes
    }

    fn script(&self, action: &str, way: &str) -> String {
        let line = |ip: &Ipv4Addr| format!("ip route {action} {ip}/32{way}\n");
        self.0.iter().map(line).collect()
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        let printed = on("upstream", &self.script("del", ""));
        if !printed.ok {
            eprintln!("clean-up: {}", printed.err);
        }
    }
}

#[test]
fn isolation_matrix_nobody_reaches_what_is_not_for_him() {
    let matrix = Matrix::new();
    let start = Instant::now();
    let owned = Owned::now();
    assert!(
        owned.ports.len() > 20 && owned.translated.len() > 10,
        "{:?}",
        owned.ports
    );
    let mut rows = Vec::new();
    for (vpc, letter) in &matrix.vpcs {
        let targets = matrix.for_pods(vpc, *letter, &owned);
        for (name, _) in matrix.pods_of(*letter) {
            rows.push((pod(&matrix.scene, &name), targets.clone()));
        }
    }
    for (i, node) in NODES.iter().enumerate() {
        rows.push((machine(node), matrix.for_node(i, &owned)));
    }
    let outside = matrix.for_outside(&owned);
    let _routes = Routes::to(&outside);
    rows.push((machine("upstream"), outside));
    let mut faults: Vec<String> = thread::scope(|scope| {
        let row = |(place, targets): &(Place, Targets)| targets.faults(place);
        let rows: Vec<_> = rows
            .iter()
            .map(|one| scope.spawn(move || row(one)))
            .collect();
        let ended = rows
            .into_iter()
            .flat_map(|row| row.join().expect("a row ends"));
        ended.collect()
    });
    // Who has an address twice is reached by neighbours only.
    for (letter, own) in [('p', "p0"), ('q', "q1")] {
        for (name, _) in matrix.pods_of(letter) {
            let reply = ask(
                &pod(&matrix.scene, &name),
                Protocol::Tcp,
                target(TWICE, 8080),
                PATIENCE,
            );
            if !reply.as_ref().is_ok_and(|reply| reply.backend == own) {
                faults.push(format!("{name} → {own} {TWICE}: {reply:?}"));
            }
        }
    }
    let probes: usize = rows.iter().map(|(_, targets)| targets.0.len()).sum();
    eprintln!(
        "{probes} addresses from {} places in {:?}",
        rows.len(),
        start.elapsed()
    );
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
