//! Scenario ② by IPv6: nodes, Pods of the default Vpc, Pods on a node's own network.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ycloud_lab::ask::{Heard, ping};

use crate::asking::{SILENCE, assert_answer, assert_met, assert_pod_answers, machine, pod};
use crate::city::default_vpc;
use crate::cluster::{NODES, delete};
use crate::dual::{BOTH, are_both, join_ips, node_ips, of_family, pod_ips, v6, yusur_service};
use crate::scene::Scene;

const CLUSTER: &str = "  scope: cluster\n";

#[test]
fn dual_nodes_have_an_address_of_each_family_and_reach_each_other() {
    for node in NODES {
        let (own, join) = (node_ips(node), join_ips(node));
        assert!(
            are_both(&own) && are_both(&join),
            "{node}: {own:?} {join:?}"
        );
    }
    for from in NODES.into_iter().chain(["control", "external"]) {
        let place = machine(from);
        for to in NODES {
            let address = v6(&node_ips(to));
            assert_eq!(
                ping(&place, address, SILENCE),
                Heard::Answer,
                "{from} pings {to} at {address}"
            );
        }
    }
}

#[test]
fn dual_2_nodes_reach_every_backend_and_are_seen_by_their_join_address() {
    let scene = default_vpc();
    let vips = yusur_service(&scene, "dual-nodes", (CLUSTER, "web", BOTH), 3);
    assert!(are_both(&vips), "{vips:?}");
    for node in NODES {
        let join = join_ips(node);
        for vip in &vips {
            let seen = assert_answer(
                &machine(node),
                SocketAddr::new(*vip, 80),
                &["s0", "s1", "s2"],
            );
            assert_eq!(seen, [of_family(&join, *vip)].into(), "{node} at {vip}");
        }
        for server in ["s0", "s1", "s2"] {
            let to = SocketAddr::new(v6(&pod_ips(&scene, server)), 8080);
            assert_pod_answers(&machine(node), to, server);
        }
    }
}

#[test]
fn dual_2_pods_of_the_default_vpc_keep_their_address() {
    let scene = default_vpc();
    let vips = yusur_service(&scene, "dual-cluster", (CLUSTER, "web", BOTH), 3);
    let own = pod_ips(&scene, "c0");
    assert!(are_both(&own), "{own:?}");
    for vip in &vips {
        let to = SocketAddr::new(*vip, 80);
        let seen = assert_answer(&pod(&scene, "c0"), to, &["s0", "s1", "s2"]);
        assert_eq!(seen, [of_family(&own, *vip)].into());
        assert_answer(&pod(&scene, "s0"), to, &["s0", "s1", "s2"]);
    }
}

#[test]
fn dual_2_pods_on_a_nodes_network_are_backends_and_clients() {
    let scene = Scene::new("d2-host");
    scene.server_on_node("h1", "node-1", "web", 18_580);
    scene.server("pod", "ovn-default", "node-2", "web");
    scene.client("near", "ovn-default", "node-1");
    scene.client("far", "ovn-default", "node-3");
    let vips = yusur_service(&scene, "svc", (CLUSTER, "web", BOTH), 2);
    // A server on the node's network answers with the node's name.
    let all = ["node-1", "pod"];
    for vip in vips {
        let to = SocketAddr::new(vip, 80);
        for client in ["near", "far", "h1"] {
            assert_answer(&pod(&scene, client), to, &all);
        }
        for node in NODES {
            assert_answer(&machine(node), to, &all);
        }
    }
}

#[test]
fn dual_2_a_service_without_backends_refuses_nodes_at_once() {
    let scene = Scene::new("d2-none");
    scene.server("only", "ovn-default", "node-1", "web");
    let vips = yusur_service(&scene, "svc", (CLUSTER, "web", BOTH), 1);
    let to = SocketAddr::new(v6(&vips), 80);
    assert_answer(&machine("node-2"), to, &["only"]);
    delete(&scene.name, "pod", "only");
    scene.programmed("svc", 0);
    for node in NODES {
        assert_met(&machine(node), to, Heard::Refusal);
    }
}

#[test]
fn dual_2_other_vpcs_do_not_reach_the_service() {
    let mut scene = Scene::new("d2-isolation");
    scene.vpc("v", &[("a", "10.0.1.0/24,fd00:1:1::/64")]);
    scene.server("own", "ovn-default", "node-1", "web");
    scene.client("outsider", "a", "node-1");
    let vips = yusur_service(&scene, "svc", (CLUSTER, "web", BOTH), 1);
    let to = SocketAddr::new(v6(&vips), 80);
    assert_answer(&machine("node-2"), to, &["own"]);
    assert_met(&pod(&scene, "outsider"), to, Heard::Silence);
}

#[test]
fn dual_the_control_machine_reaches_pods_by_the_nodes() {
    let scene = default_vpc();
    for address in pod_ips(&scene, "s1") {
        let to = SocketAddr::new(address, 8080);
        assert_pod_answers(&machine("control"), to, "s1");
    }
}

#[test]
fn dual_pods_of_the_default_vpc_leave_by_their_nodes_address() {
    let scene = default_vpc();
    let outside = machine("external");
    let lab = crate::cluster::the_lab();
    let external = ycloud_lab::Machine::External;
    let address = lab.address(external).expect("a lab that is up");
    let address_v6 = lab.address_v6(external).expect("a lab that is up");
    for to in [
        SocketAddr::new(address.into(), 18_590),
        SocketAddr::new(address_v6.into(), 18_590),
    ] {
        let listener = outside.listen(to).expect("a free port");
        let mut seen = BTreeSet::new();
        for client in ["c0", "c1", "c2"] {
            let connected = pod(&scene, client).connect(to, std::time::Duration::from_secs(5));
            let _open = connected.unwrap_or_else(|error| panic!("{client} to {to}: {error}"));
            let (_, from) = listener.accept().expect("the connection that was made");
            seen.insert(from.ip());
        }
        let nodes = NODES.map(|node| of_family(&node_ips(node), to.ip()));
        assert_eq!(seen, nodes.into(), "each by its own node's");
    }
}
