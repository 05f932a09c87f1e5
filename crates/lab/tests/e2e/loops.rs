//! What an EIP has no port for, and EIPs that nothing holds, are dropped: packets go round neither within a node nor
//! between nodes.

use std::thread;
use std::time::Duration;

use ycloud_lab::place::Place;

use crate::asking::{gateways, machine, pod, target};
use crate::cluster::{NODES, lab};
use crate::scene::Scene;

/// Datagrams from each place to each address.
const DATAGRAMS: u64 = 300;
/// Over how many tunnels one may pass: to the gateway, and on to a service gateway.
const TUNNELS: u64 = 2;
/// What Open vSwitch counts when a packet goes round within a node (ovs-appctl coverage/show).
const ROUNDS: [&str; 3] = [
    "datapath_drop_recirc_error",
    "drop_action_recursion_too_deep",
    "drop_action_too_many_resubmit",
];

/// How often packets went round too often within a node, and how many came by tunnels, so far.
fn counted(node: &str) -> (u64, u64) {
    let run = |words: &[&str]| lab(&[&["exec", node, "--"], words].concat()).must();
    let number = |text: Option<&str>| text.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
    let coverage = run(&["ovs-appctl", "coverage/show"]);
    let rounds = coverage
        .lines()
        .filter(|line| ROUNDS.iter().any(|name| line.starts_with(name)))
        .map(|line| number(line.rsplit_once("total: ").map(|(_, total)| total)));
    let ports = run(&["ovs-ofctl", "--names", "dump-ports", "br-int"]);
    let tunnels = ports
        .lines()
        .filter(|line| {
            line.trim_start()
                .trim_start_matches("port ")
                .trim_matches([' ', '"'])
                .starts_with("ovn-")
        })
        .map(|line| {
            let received = line.split_once("rx pkts=").map(|(_, rest)| rest);
            number(received.and_then(|rest| rest.split(',').next()))
        });
    (rounds.sum(), tunnels.sum())
}

fn all_counted() -> (u64, u64) {
    let all = NODES.map(counted);
    (
        all.iter().map(|one| one.0).sum(),
        all.iter().map(|one| one.1).sum(),
    )
}

/// How much the counters grow while `work` runs and for as long as Open vSwitch takes to count it.
fn grown(work: impl FnOnce()) -> (u64, u64) {
    let before = all_counted();
    work();
    thread::sleep(Duration::from_secs(2));
    let after = all_counted();
    (after.0 - before.0, after.1 - before.1)
}

fn send(place: &Place, address: &str) {
    let socket = place.datagrams(target(address, 81), Duration::from_secs(1));
    let socket = socket.expect("a socket");
    for _ in 0..DATAGRAMS {
        // What the network says of the last one is not this one's fault.
        let _ = socket.send(b"nobody");
        thread::sleep(Duration::from_millis(2));
    }
}

// Alone, so that no other test's packets are counted.
#[test]
fn alone_eips_without_a_port_for_a_packet_drop_it() {
    gateways();
    let mut scene = Scene::new("loops");
    let vpc = scene.vpc("p", &[("p-net", "10.0.1.0/24")]);
    let other = scene.vpc("q", &[("q-net", "10.0.1.0/24")]);
    scene.server("p0", "p-net", "node-1", "web");
    scene.server("q0", "q-net", "node-2", "web");
    for (i, node) in NODES.into_iter().enumerate() {
        scene.client(&format!("c{i}"), "q-net", node);
    }
    scene.load_balancer("one", &vpc, "web", "");
    scene.over_vpcs("several", &[&vpc, &other], "web", "");
    scene.pods_ready();
    let (one, several) = (
        scene.programmed_eip("one", 1),
        scene.programmed_eip("several", 2),
    );
    let mut places = vec![machine("external"), machine("node-2")];
    places.extend((0..NODES.len()).map(|i| pod(&scene, &format!("c{i}"))));
    // What the tunnels carry anyway: gateways watch each other.
    let quiet = || thread::sleep(Duration::from_millis(2) * DATAGRAMS as u32);
    let (_, noise) = grown(quiet);
    let mut faults = Vec::new();
    for (what, address) in [
        ("an EIP of one Vpc", one.as_str()),
        ("an EIP over Vpcs", several.as_str()),
        ("an EIP that nothing holds, on the link", "198.51.100.250"),
        ("an EIP that nothing holds, routed", "192.0.2.250"),
    ] {
        let (rounds, tunnelled) = grown(|| {
            thread::scope(|scope| {
                for place in &places {
                    scope.spawn(move || send(place, address));
                }
            });
        });
        let most = DATAGRAMS * places.len() as u64 * TUNNELS + 2 * noise;
        eprintln!(
            "{what}: {rounds} went round, {tunnelled} by tunnels of at most {most}, noise {noise}"
        );
        if rounds > 0 || tunnelled > most {
            faults.push(format!(
                "{what}: {rounds} went round, {tunnelled} by tunnels, more than {most}"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
