//! Scenario ②: a node, or a Pod of the default Vpc, reaches a ClusterIP; the backends are Pods of the default Vpc and
//! Pods on the nodes' own network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ycloud_lab::ask::{Heard, Protocol, knock};

use crate::asking::{PATIENCE, assert_unanswered, pod, target};
use crate::city::default_vpc;
use crate::cluster::{NODES, SOON, condition, delete, eventually, get};
use crate::scene::{Scene, ask_on, ask_udp_on, at};

/// The node's address on the join switch.
fn join_address(node: &str) -> String {
    let vnic = get(&["-n", "ycloud-system", "vnic", node]);
    vnic["status"]["ip"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn scenario_2_every_node_reaches_every_backend_by_tcp_and_udp() {
    let scene = default_vpc();
    scene.cluster_service("nodes", "web");
    let vip = scene.programmed("nodes", 3);
    for node in NODES {
        let tcp = ask_on(node, &vip, 80, 30);
        assert_eq!(tcp.names(), ["s0", "s1", "s2"], "{node}: {tcp:?}");
        let udp = ask_udp_on(node, &vip, 80, 30);
        assert_eq!(udp.names(), ["s0", "s1", "s2"], "{node}: {udp:?}");
        assert_eq!(
            (tcp.failed.len(), udp.failed.len()),
            (0, 0),
            "{node}: {tcp:?} {udp:?}"
        );
    }
}

#[test]
fn scenario_2_the_backend_sees_the_nodes_join_address_wherever_it_is() {
    let scene = Scene::new("s2-source");
    scene.server("only", "ovn-default", "node-1", "web");
    scene.cluster_service("svc", "web");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    for (node, place) in [("node-1", "its own node"), ("node-2", "another node")] {
        let join = join_address(node);
        let join: BTreeSet<IpAddr> = [join.parse().expect("an address")].into();
        for answers in [ask_on(node, &vip, 80, 4), ask_udp_on(node, &vip, 80, 4)] {
            assert_eq!(
                (&answers.clients, answers.total()),
                (&join, 4),
                "from {place}: {answers:?}"
            );
        }
    }
}

#[test]
fn scenario_2_pods_of_the_default_vpc_are_clients_too_and_keep_their_address() {
    let scene = default_vpc();
    scene.cluster_service("pods", "web");
    let vip = scene.programmed("pods", 3);
    let tcp = scene.ask("c0", &vip, 80, 30);
    let udp = scene.ask_udp("c0", &vip, 80, 30);
    for answers in [tcp, udp] {
        let names = (answers.names(), answers.failed.len());
        assert_eq!(names, (vec!["s0", "s1", "s2"], 0), "{answers:?}");
    }
    assert_eq!(scene.source_seen("c0", &vip, 80), scene.pod_ip("c0"));
}

#[test]
fn scenario_2_pods_on_a_nodes_network_are_backends_for_nodes_and_pods() {
    let scene = Scene::new("s2-host");
    scene.server_on_node("h1", "node-1", "web", 18_380);
    scene.server("pod", "ovn-default", "node-2", "web");
    scene.client("near", "ovn-default", "node-1");
    scene.client("far", "ovn-default", "node-3");
    scene.cluster_service("svc", "web");
    scene.pods_ready();
    let vip = scene.programmed("svc", 2);
    // A server on the node's network answers with the node's name.
    for node in NODES {
        let tcp = ask_on(node, &vip, 80, 20);
        let udp = ask_udp_on(node, &vip, 80, 20);
        assert_eq!(tcp.names(), ["node-1", "pod"], "{node}: {tcp:?}");
        assert_eq!(udp.names(), ["node-1", "pod"], "{node}: {udp:?}");
        assert_eq!(
            (tcp.failed.len(), udp.failed.len()),
            (0, 0),
            "{node}: {tcp:?} {udp:?}"
        );
    }
    for client in ["near", "far"] {
        let tcp = scene.ask(client, &vip, 80, 20);
        let udp = scene.ask_udp(client, &vip, 80, 20);
        assert_eq!(tcp.names(), ["node-1", "pod"], "{client}: {tcp:?}");
        assert_eq!(udp.names(), ["node-1", "pod"], "{client}: {udp:?}");
        assert_eq!(
            (tcp.failed.len(), udp.failed.len()),
            (0, 0),
            "{client}: {tcp:?} {udp:?}"
        );
    }
}

#[test]
fn scenario_2_a_service_without_backends_refuses_nodes_at_once() {
    let scene = Scene::new("s2-none");
    scene.server("only", "ovn-default", "node-1", "web");
    scene.cluster_service("svc", "web");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    assert_eq!(ask_on("node-2", &vip, 80, 4).failed.len(), 0);
    delete(&scene.name, "pod", "only");
    scene.programmed("svc", 0);
    for node in NODES {
        let heard = knock(&at(node), Protocol::Tcp, target(&vip, 80), PATIENCE);
        assert_eq!(heard, Heard::Refusal, "{node}: refused, not timed out");
    }
}

#[test]
fn scenario_2_other_vpcs_neither_reach_the_service_nor_lend_it_backends() {
    let mut scene = Scene::new("s2-isolation");
    scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("own", "ovn-default", "node-1", "web");
    scene.server("other", "a", "node-2", "web");
    scene.client("outsider", "a", "node-1");
    scene.cluster_service("svc", "web");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    eventually("the Pod that is left out is named", SOON, || {
        let ysvc = get(&["-n", &scene.name, "ysvc", "svc"]);
        let (_, _, message) = condition(&ysvc, "BackendsResolved");
        let wanted = "1 selected but not in Vpc ovn-cluster: other";
        message.contains(wanted).then_some(()).ok_or(message)
    });
    let answers = ask_on("node-2", &vip, 80, 10);
    assert_eq!(
        (answers.names(), answers.failed.len()),
        (vec!["own"], 0),
        "{answers:?}"
    );
    assert_unanswered(&pod(&scene, "outsider"), target(&vip, 80));
}
