//! Scenario ④: one EIP, backends in several Vpcs, some of them with equal ranges and equal addresses.
//!
//! Tests named `inside_…` ask from within. They do not hold on OVN 23.03 (ARCHITECTURE, Known limits).

use std::thread;
use std::time::Duration;

use ycloud_lab::ask::{Heard, Held, Protocol, ping};

use crate::asking::{
    Answered, PROTOCOLS, SILENCE, ask_often, assert_answer, assert_met, assert_silent,
    behind_a_service_gateway, clients_outside, gateways, machine, pod, target,
};
use crate::cluster::{NODES, apply};
use crate::scene::Scene;

const BACKENDS: [&str; 4] = ["p0", "p1", "q0", "r0"];

/// Three Vpcs, of which `p` and `q` have the same range, and in it the same address `twice`; backends on three nodes. Tests
/// run side by side, and no two Pods of a node have the same address: each test has one of its own.
fn three_vpcs(name: &str, twice: &str) -> Scene {
    gateways();
    let mut scene = Scene::new(name);
    for (vpc, cidr) in [
        ("p", "10.0.1.0/24"),
        ("q", "10.0.1.0/24"),
        ("r", "10.0.3.0/24"),
    ] {
        scene.vpc(vpc, &[(&format!("{vpc}-net"), cidr)]);
    }
    for (backend, node) in BACKENDS
        .iter()
        .zip(["node-1", "node-2", "node-3", "node-1"])
    {
        let yaml = scene.server_yaml(backend, &format!("{}-net", &backend[..1]), node, "web", "");
        let fixed = format!("annotations: {{iaas.yusur.io/ip: {twice}, ");
        apply(&match *backend {
            "p0" | "q0" => yaml.replace("annotations: {", &fixed),
            _ => yaml,
        })
        .must();
    }
    scene
}

/// A YusurService over the backends of these Vpcs.
fn over(scene: &Scene, vpcs: &[&str], more: &str) {
    let vpcs: Vec<String> = vpcs.iter().map(|vpc| scene.full(vpc)).collect();
    let vpcs: Vec<&str> = vpcs.iter().map(String::as_str).collect();
    scene.over_vpcs("svc", &vpcs, "web", more);
}

#[track_caller]
fn assert_balanced(answered: &Answered, times: u32) {
    assert_eq!(answered.failed, vec![], "{answered:?}");
    assert_eq!(answered.names(), BACKENDS, "{answered:?}");
    for (backend, count) in &answered.by {
        assert!(
            (times / 8..=times / 2).contains(count),
            "{backend} got {count} of {times}, a fourth is its part: {answered:?}"
        );
    }
}

#[test]
fn scenario_4_the_world_reaches_the_backends_of_every_vpc_evenly() {
    let scene = three_vpcs("s4-world", "10.0.1.51");
    over(&scene, &["p", "q", "r"], "");
    scene.pods_ready();
    assert_eq!(scene.pod_ip("p0"), scene.pod_ip("q0"));
    let eip = scene.programmed_eip("svc", 4);
    for (place, _) in clients_outside() {
        for protocol in PROTOCOLS {
            let answered = ask_often(&place, protocol, target(&eip, 80), 160);
            assert_balanced(&answered, 160);
            assert!(
                answered.clients.iter().all(behind_a_service_gateway),
                "{protocol}: {answered:?}"
            );
        }
        let address = eip.parse().expect("an address");
        assert_eq!(ping(&place, address, SILENCE), Heard::Answer, "ping {eip}");
        assert_silent(&place, &eip, 81);
    }
}

#[test]
fn scenario_4_affinity_keeps_a_client_on_one_backend() {
    let scene = three_vpcs("s4-affinity", "10.0.1.52");
    over(&scene, &["p", "q", "r"], "  sessionAffinity: ClientIP\n");
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 4);
    for (place, source) in clients_outside() {
        let answered = ask_often(&place, Protocol::Tcp, target(&eip, 80), 20);
        assert_eq!(
            (answered.by.len(), &answered.failed),
            (1, &vec![]),
            "{source}: {answered:?}"
        );
    }
}

#[test]
fn scenario_4_a_vpc_comes_and_goes_while_the_others_connections_live_on() {
    let scene = three_vpcs("s4-change", "10.0.1.53");
    over(&scene, &["p"], "");
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 2);
    let outside = machine("external");
    let to = target(&eip, 80);
    let mut held: Vec<(Held, String)> = PROTOCOLS
        .into_iter()
        .map(|protocol| {
            let mut held =
                Held::open(&outside, protocol, to, Duration::from_secs(5)).expect("open");
            let backend = held.ask().expect("an answer").backend;
            (held, backend)
        })
        .collect();
    for (vpcs, backends) in [
        (["p", "q", "r"].as_slice(), BACKENDS.as_slice()),
        (&["p", "r"], &["p0", "p1", "r0"]),
        (&["p"], &["p0", "p1"]),
    ] {
        over(&scene, vpcs, "");
        scene.programmed("svc", backends.len() as i64);
        assert_answer(&outside, to, backends);
        for (held, backend) in &mut held {
            let reply = held.ask().expect("the held one answers on");
            assert_eq!(&reply.backend, backend, "after the change to {vpcs:?}");
        }
    }
}

#[test]
fn scenario_4_without_backends_it_refuses_at_once() {
    let scene = three_vpcs("s4-empty", "10.0.1.54");
    over(&scene, &["p", "q"], "");
    scene.pods_ready();
    scene.programmed("svc", 3);
    for pod in ["p0", "p1", "q0"] {
        let words = ["-n", &scene.name, "label", "pod", pod, "app-", "out=yes"];
        crate::cluster::kubectl(&words).must();
    }
    let eip = scene.programmed_eip("svc", 0);
    assert_met(&machine("external"), target(&eip, 80), Heard::Refusal);
}

#[test]
fn inside_4_every_vpc_and_every_node_reaches_the_eip() {
    let mut scene = three_vpcs("s4-inside", "10.0.1.55");
    scene.vpc("w", &[("w-net", "10.0.1.0/24")]);
    let mut clients = Vec::new();
    for (i, node) in ["node-1", "node-2", "node-3"].iter().enumerate() {
        for subnet in ["p-net", "q-net", "r-net", "w-net", "ovn-default"] {
            let client = format!("c-{subnet}-{i}");
            scene.client(&client, subnet, node);
            clients.push(client);
        }
    }
    over(&scene, &["p", "q", "r"], "");
    scene.pods_ready();
    let to = target(&scene.programmed_eip("svc", 4), 80);
    thread::scope(|scope| {
        for client in clients.iter().map(|client| pod(&scene, client)) {
            scope.spawn(move || {
                let seen = assert_answer(&client, to, &BACKENDS);
                let behind = seen.iter().all(behind_a_service_gateway);
                assert!(behind, "{}: {seen:?}", client.name());
            });
        }
        // A backend that asks may be sent to itself.
        let others = NODES.map(machine).into_iter().chain([pod(&scene, "q0")]);
        for other in others {
            scope.spawn(move || assert_answer(&other, to, &BACKENDS));
        }
    });
}
