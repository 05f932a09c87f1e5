//! How often an established packet goes through conntrack, and round the datapath again, in each scenario: each pass is
//! one more flow for a card to take over, and user space drops a packet after six or eight of them. Counted from the
//! datapath's flows.

use std::collections::BTreeMap;
use std::time::Duration;

use ycloud_lab::ask::{Held, Protocol};
use ycloud_lab::failover::Carriers;
use ycloud_lab::place::Place;

use crate::asking::{PATIENCE, gateways, machine, pod, target};
use crate::cluster::{NODES, get, lab};
use crate::failover::carriers;
use crate::scene::Scene;

/// Questions on one connection; each is at least two packets in either direction.
const QUESTIONS: u64 = 60;

/// How often all is counted at most.
const ATTEMPTS: usize = 3;

/// One flow of a node's datapath: what it matches, and what it does.
struct Flow {
    matches: String,
    packets: u64,
    actions: String,
}

/// What packets that come in at one place of a node go through.
#[derive(Debug, Default, PartialEq, Eq)]
struct Passes {
    conntrack: usize,
    again: usize,
}

fn appctl(node: &str, words: &[&str]) -> String {
    lab(&[&["exec", node, "--", "ovs-appctl"], words].concat()).must()
}

fn flows(node: &str) -> Vec<Flow> {
    let printed = appctl(node, &["dpctl/dump-flows", "--names"]);
    let flow = |line: &str| {
        let (matches, rest) = line.split_once(", packets:")?;
        let (packets, rest) = rest.split_once(',')?;
        let (_, actions) = rest.split_once("actions:")?;
        Some(Flow {
            matches: matches.to_owned(),
            packets: packets.parse().ok()?,
            actions: actions.to_owned(),
        })
    };
    printed.lines().filter_map(flow).collect()
}

/// The text between `name(` and the next `)`, or nothing.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let rest = text.split_once(&format!("{name}("));
    let value = rest.and_then(|(_, rest)| rest.split(')').next());
    value.unwrap_or_default()
}

/// Packets that a node dropped because they had been round its datapath too often. The counter is not shown while it is 0.
fn drops(node: &str) -> u64 {
    let printed = appctl(node, &["coverage/show"]);
    let of = |line: &str| line.starts_with("datapath_drop_recirc_error");
    let line = printed.lines().find(|line| of(line));
    let total = line.and_then(|line| line.rsplit_once("total: "));
    total
        .and_then(|(_, total)| total.trim().parse().ok())
        .unwrap_or(0)
}

/// What an established TCP connection's packets go through: by node and by where they come in, which tells the directions
/// apart.
fn passes(client: &Place, address: &str, port: u16) -> BTreeMap<(&'static str, String), Passes> {
    let opened = Held::open(client, Protocol::Tcp, target(address, port), PATIENCE);
    let mut held = opened.expect("a connection");
    let mut ask = |times| {
        for _ in 0..times {
            held.ask().expect("an answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    ask(5);
    let before = NODES.map(flows);
    ask(QUESTIONS);
    // The datapath's counters are read by its revalidators twice a second at most.
    std::thread::sleep(Duration::from_secs(1));
    let mut passes: BTreeMap<_, Passes> = BTreeMap::new();
    for (node, before) in NODES.into_iter().zip(before) {
        for flow in flows(node) {
            let old = before.iter().find(|old| old.matches == flow.matches);
            let old = old.map_or(0, |old| old.packets);
            let grown = flow.packets.saturating_sub(old);
            // A tunnel's end is no pass of the packet that was in it.
            if grown < QUESTIONS || flow.actions.contains("tnl_pop") {
                continue;
            }
            let tunnel = field(&flow.matches, "tunnel");
            let from = tunnel.split(',').find(|part| part.starts_with("src="));
            let port = field(&flow.matches, "in_port");
            let sum = passes.entry((node, format!("{port} {}", from.unwrap_or_default())));
            let sum = sum.or_default();
            sum.conntrack += flow.actions.matches("ct(").count();
            sum.again += flow.actions.matches("recirc(").count();
        }
    }
    passes
}

/// The address of a node on its own network.
fn address_of(node: &str) -> String {
    let address = get(&["node", node])["status"]["addresses"][0]["address"].clone();
    address.as_str().expect("an address").to_owned()
}

// Alone, so that no other test's packets are counted.
#[test]
fn alone_scenario_conntrack_passes_are_few() {
    gateways();
    // A gateway may move, as until all of the nodes see each other alive after the first of them was made. What was counted
    // then is of no use: the bounds are those of where it had been.
    for attempt in 1.. {
        let before = carriers();
        let faults = faults(&before, attempt);
        let after = carriers();
        if before == after {
            assert!(faults.is_empty(), "{}", faults.join("\n"));
            return;
        }
        assert!(
            attempt < ATTEMPTS,
            "the gateways moved each time: {before:?}, then {after:?}"
        );
        eprintln!("the gateways moved: {before:?}, then {after:?}");
    }
}

/// In which scenarios packets pass more often than they shall, with the gateways where `carriers` says.
fn faults(carriers: &Carriers, attempt: usize) -> Vec<String> {
    let mut scene = Scene::new(&format!("ct-passes-{attempt}"));
    let vpc = scene.vpc(
        "p",
        &[("p-net", "10.0.1.0/24"), ("p-clients", "10.0.2.0/24")],
    );
    let other = scene.vpc("q", &[("q-net", "10.0.1.0/24")]);
    // Where a gateway is, its passes and those of a backend or client there would add up.
    let gateway = carriers.gateway.to_string();
    let services = carriers.services.iter().map(|(_, node)| node.to_string());
    let services: Vec<String> = services.collect();
    let mut elsewhere = NODES.into_iter().filter(|node| *node != gateway);
    let (far, near) = elsewhere
        .next()
        .zip(elsewhere.next())
        .expect("two more nodes");
    let free = |node: &&str| services.iter().all(|carrier| carrier != node);
    let free = NODES
        .into_iter()
        .find(free)
        .expect("a node without a service gateway");
    scene.server("p0", "p-net", far, "web");
    scene.server("q0", "q-net", free, "several");
    scene.server("d0", "ovn-default", far, "default");
    // An earlier attempt may still have its own.
    let port = 18_600 + 2 * u16::try_from(attempt).expect("a few");
    scene.server_on_node("h0", far, "host", port);
    scene.client("own", "p-clients", near);
    scene.client("other", "q-net", near);
    scene.client("default", "ovn-default", near);
    scene.load_balancer("one", &vpc, "web", "");
    scene.over_vpcs("several", &[&other], "several", "");
    scene.cluster_service("nodes", "default");
    scene.load_balancer("entered", "ovn-cluster", "default", "");
    scene.pods_ready();
    let own = scene.programmed("one", 1);
    let one = scene.programmed_eip("one", 1);
    let several = scene.programmed_eip("several", 1);
    let nodes = scene.programmed("nodes", 1);
    let entered = scene.programmed_eip("entered", 1);
    let outside = address_of(far);
    let (before, mut faults) = (NODES.map(drops), Vec::new());
    // Three on the way to the backend and two back; both come by one tunnel where the EIP's gateway and the backend are on one
    // node.
    let over_vpcs = if gateway == free { 3 + 2 } else { 3 };
    // Passes at most: at the client's node, at the gateways', and at the backend's.
    let table = [
        (
            "1: a Pod to a ClusterIP",
            pod(&scene, "own"),
            &own,
            80,
            [1, 0, 1],
        ),
        (
            "2: a node to a ClusterIP",
            machine(near),
            &nodes,
            80,
            [1, 0, 1],
        ),
        (
            "2: a Pod to a ClusterIP",
            pod(&scene, "default"),
            &nodes,
            80,
            [1, 0, 1],
        ),
        (
            "3: outside to an EIP",
            machine("external"),
            &one,
            80,
            [0, 1, 1],
        ),
        (
            "another Vpc to an EIP",
            pod(&scene, "other"),
            &one,
            80,
            [1, 2, 1],
        ),
        ("a node to an EIP", machine(near), &one, 80, [1, 2, 1]),
        (
            "4: outside to an EIP",
            machine("external"),
            &several,
            80,
            [0, over_vpcs, 1],
        ),
        // Two more on the way in and one on the way back than in other Vpcs: of the backend's node's way back.
        (
            "outside to an EIP of the default Vpc",
            machine("external"),
            &entered,
            80,
            [0, 1, 3],
        ),
        // One of them is that of its way back, as an EIP leads to the default Vpc.
        (
            "the default Vpc to the outside",
            pod(&scene, "default"),
            &outside,
            port,
            [3, 0, 0],
        ),
    ];
    for (what, client, address, port, [at_client, at_gateway, at_backend]) in table {
        let passes = passes(&client, address, port);
        eprintln!("{what}: {passes:?}");
        let (over, outwards) = (what.starts_with('4'), address == &outside);
        for ((node, from), passes) in &passes {
            let carries = if over {
                free != *node
            } else {
                gateway == *node
            };
            let backend = if over { free } else { far };
            let roles = [
                (near == *node, at_client),
                (carries, at_gateway),
                (backend == *node, at_backend),
            ];
            let most = roles
                .iter()
                .filter(|(has, _)| *has)
                .map(|(_, most)| *most)
                .max();
            let most = most.unwrap_or(0);
            // The choice of a service gateway is a hash of each packet, which goes round once more. Where the chosen one is on
            // the same node, that adds to its passes.
            // Likewise that of a way back's routes, of which only one leads anywhere.
            let hashed = (over && gateway == *node) || outwards;
            let again = most + usize::from(hashed);
            if passes.conntrack > most || passes.again > again {
                faults.push(format!(
                    "{what}: {node} by {from}: more than {most}, or round more than {again}: {passes:?}"
                ));
            }
        }
        if !passes.values().any(|passes| passes.conntrack > 0) {
            faults.push(format!("{what}: no pass was seen at all"));
        }
    }
    let after = NODES.map(drops);
    if after != before {
        faults.push(format!(
            "packets were dropped for going round too often: {before:?}, then {after:?}"
        ));
    }
    faults
}
