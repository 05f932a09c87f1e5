//! Scenario ④: one EIP, backends in several Vpcs, some of them with equal ranges and equal addresses.
//!
//! Tests named `inside_…` ask from within. They do not hold on OVN 23.03 (ARCHITECTURE, Known limits).

use std::thread;
use std::time::Duration;

use ycloud_lab::ask::{Heard, Held, Protocol, ping};
use ycloud_lab::place::Place;

use crate::asking::{
    Answered, PROTOCOLS, SILENCE, ask_often, assert_answer, assert_met, assert_silent,
    behind_a_service_gateway, clients_outside, gateways, machine, pod, target,
};
use crate::city;
use crate::cluster::NODES;
use crate::scene::Scene;

const BACKENDS: [&str; 4] = ["p0", "p1", "q0", "r0"];

/// A YusurService `name` over the backends of these Vpcs.
fn over(scene: &Scene, name: &str, vpcs: &[&str], more: &str) {
    let vpcs: Vec<String> = vpcs.iter().map(|vpc| scene.full(vpc)).collect();
    let vpcs: Vec<&str> = vpcs.iter().map(String::as_str).collect();
    scene.over_vpcs(name, &vpcs, "web", more);
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
    let scene = city::three_vpcs();
    over(&scene, "world", &["p", "q", "r"], "");
    assert_eq!(scene.pod_ip("p0"), scene.pod_ip("q0"));
    let eip = scene.programmed_eip("world", 4);
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
    let scene = city::three_vpcs();
    let affinity = "  sessionAffinity: ClientIP\n";
    over(&scene, "affinity", &["p", "q", "r"], affinity);
    let eip = scene.programmed_eip("affinity", 4);
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
    // Its own: what a Vpc needs to be among several goes with the last Service that has it so.
    gateways();
    let mut scene = Scene::new("s4-change");
    city::backends_of_three_vpcs(&mut scene, "10.0.1.151");
    over(&scene, "change", &["p"], "");
    scene.pods_ready();
    let eip = scene.programmed_eip("change", 2);
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
        over(&scene, "change", vpcs, "");
        scene.programmed("change", backends.len() as i64);
        assert_answer(&outside, to, backends);
        for (held, backend) in &mut held {
            let reply = held.ask().expect("the held one answers on");
            assert_eq!(&reply.backend, backend, "after the change to {vpcs:?}");
        }
    }
}

#[test]
fn scenario_4_without_backends_it_refuses_at_once() {
    let scene = city::three_vpcs();
    over(&scene, "empty", &["p", "q"], "");
    let eip = scene.programmed_eip("empty", 3);
    assert_answer(&machine("external"), target(&eip, 80), &BACKENDS[..3]);
    let [p, q] = ["p", "q"].map(|vpc| scene.full(vpc));
    scene.over_vpcs("empty", &[&p, &q], "nobody", "");
    assert_eq!(scene.programmed_eip("empty", 0), eip);
    assert_met(&machine("external"), target(&eip, 80), Heard::Refusal);
}

#[test]
fn inside_4_every_vpc_and_every_node_reaches_the_eip() {
    let (scene, default) = (city::three_vpcs(), city::default_vpc());
    let mut clients: Vec<Place> = Vec::new();
    for i in 0..NODES.len() {
        let own = ["p", "q", "r", "w"].map(|vpc| pod(&scene, &format!("c-{vpc}{i}")));
        clients.extend(own);
        clients.push(pod(&default, &format!("c{i}")));
    }
    over(&scene, "inside", &["p", "q", "r"], "");
    let to = target(&scene.programmed_eip("inside", 4), 80);
    thread::scope(|scope| {
        for client in clients {
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
