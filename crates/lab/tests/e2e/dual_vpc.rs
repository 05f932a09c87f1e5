//! Scenario ① by IPv6: Subnets of both families, and of IPv6 alone.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use ycloud_lab::ask::{Heard, Protocol, knock, ping};

use crate::asking::{SILENCE, assert_answer, assert_met, assert_pod_answers, pod};
use crate::city::dual;
use crate::cluster::{SLOW, always, apply, condition, eventually, get, in_pod};
use crate::dual::{BOTH, V6, are_both, join_ips, node_ips, of_family, pod_ips, v6, yusur_service};
use crate::isolation::hostile;
use crate::probes;
use crate::scene::Scene;

/// Two Subnets of these ranges with a backend each, on two nodes; a client beside one of them, and one on a third node.
fn spread(name: &str, a: &str, b: &str) -> (Scene, String) {
    let mut scene = Scene::new(name);
    let vpc = scene.vpc("v", &[("a", a), ("b", b)]);
    scene.server("s0", "a", "node-1", "web");
    scene.server("s1", "b", "node-2", "web");
    scene.client("near", "a", "node-1");
    scene.client("far", "b", "node-3");
    (scene, format!("  vpc: {vpc}\n"))
}

/// Every client reaches every backend at each address of the Service, and is seen by its own address of that family.
#[track_caller]
fn assert_reached(scene: &Scene, vips: &[IpAddr]) {
    for client in ["near", "far"] {
        let (place, own) = (pod(scene, client), pod_ips(scene, client));
        for vip in vips {
            let seen = assert_answer(&place, SocketAddr::new(*vip, 80), &["s0", "s1"]);
            assert_eq!(seen, [of_family(&own, *vip)].into(), "{client} at {vip}");
        }
    }
}

#[test]
fn dual_1_a_service_answers_at_an_address_of_each_family() {
    let (scene, vpc) = dual();
    let vips = yusur_service(&scene, "both", (&vpc, "web", BOTH), 2);
    assert!(are_both(&vips), "{vips:?}");
    for name in ["s0", "s1", "near", "far"] {
        let own = pod_ips(&scene, name);
        assert!(are_both(&own), "{name}: {own:?}");
    }
    assert_reached(&scene, &vips);
}

#[test]
fn dual_1_subnets_of_ipv6_alone() {
    let (scene, vpc) = spread("d1-v6", "fd00:1:1::/64", "fd00:1:2::/64");
    let vips = yusur_service(&scene, "svc", (&vpc, "web", V6), 2);
    assert!(matches!(vips[..], [IpAddr::V6(_)]), "{vips:?}");
    for name in ["s0", "s1", "near", "far"] {
        let own = pod_ips(&scene, name);
        assert!(matches!(own[..], [IpAddr::V6(_)]), "{name}: {own:?}");
    }
    assert_reached(&scene, &vips);
    let (far, server) = (pod(&scene, "far"), v6(&pod_ips(&scene, "s0")));
    assert_eq!(ping(&far, server, SILENCE), Heard::Answer);
}

#[test]
fn dual_1_vpcs_with_equal_ranges_reach_only_their_own() {
    let mut scene = Scene::new("d1-overlap");
    let range = "10.0.1.0/24,fd00:1:1::/64";
    let mut vips = Vec::new();
    for (side, node) in [("l", "node-1"), ("r", "node-2")] {
        let vpc = scene.vpc(side, &[(&format!("{side}1"), range)]);
        let subnet = format!("{side}1");
        scene.server(side, &subnet, node, side);
        scene.client(&format!("c{side}"), &subnet, "node-3");
        let vpc = format!("  vpc: {vpc}\n");
        vips.push((side, yusur_service(&scene, side, (&vpc, side, BOTH), 1)));
    }
    for (side, own) in &vips {
        let client = pod(&scene, &format!("c{side}"));
        for vip in own {
            assert_answer(&client, SocketAddr::new(*vip, 80), &[side]);
        }
        let others = vips.iter().filter(|(other, _)| other != side);
        for vip in others.flat_map(|(_, theirs)| theirs) {
            assert_met(&client, SocketAddr::new(*vip, 80), Heard::Silence);
        }
    }
}

#[test]
fn dual_1_hairpin_a_backend_is_its_own_client() {
    let (scene, vpc) = dual();
    let vips = yusur_service(&scene, "hairpin", (&vpc, "web", BOTH), 2);
    for vip in vips {
        let to = SocketAddr::new(vip, 80);
        assert_answer(&pod(&scene, "s0"), to, &["s0", "s1"]);
    }
}

#[test]
fn dual_1_a_service_without_backends_refuses_at_once() {
    let (scene, vpc) = spread("d1-none", "10.0.1.0/24,fd00:1:1::/64", "fd00:1:2::/64");
    let vips = yusur_service(&scene, "svc", (&vpc, "nobody", BOTH), 0);
    assert!(are_both(&vips), "{vips:?}");
    for vip in &vips {
        let to = SocketAddr::new(*vip, 80);
        assert_met(&pod(&scene, "near"), to, Heard::Refusal);
    }
    let to = SocketAddr::new(v6(&vips), 80);
    assert_met(&pod(&scene, "far"), to, Heard::Refusal);
}

#[test]
fn dual_a_pod_has_the_addresses_that_it_names() {
    let mut scene = Scene::new("d-named");
    scene.vpc("v", &[("a", "10.0.1.0/24,fd00:1:1::/64")]);
    let yaml = scene.server_yaml("s0", "a", "node-1", "web", "").replace(
        "annotations: {",
        "annotations: {iaas.yusur.io/ip: \"10.0.1.77,fd00:1:1::77\", ",
    );
    apply(&yaml).must();
    scene.pods_ready();
    let own: Vec<String> = pod_ips(&scene, "s0")
        .iter()
        .map(IpAddr::to_string)
        .collect();
    assert_eq!(own, ["10.0.1.77", "fd00:1:1::77"]);
}

#[test]
fn dual_a_tenant_reaches_neither_other_vpcs_nor_nodes() {
    let mut scene = Scene::new("d-isolation");
    scene.vpc("l", &[("l1", "fd00:7:1::/64")]);
    scene.vpc("r", &[("r1", "fd00:8:1::/64")]);
    scene.server("left", "l1", "node-1", "left");
    scene.server("right", "r1", "node-1", "right");
    scene.server("default", "ovn-default", "node-1", "default");
    scene.client("c", "l1", "node-2");
    scene.pods_ready();
    let client = pod(&scene, "c");
    let of_pod = |name| v6(&pod_ips(&scene, name));
    // The client can reach what it should: otherwise silence proves nothing.
    let left = of_pod("left");
    assert_pod_answers(&client, SocketAddr::new(left, 8080), "left");
    let others = [
        ("a Pod of another Vpc", of_pod("right"), 8080),
        ("a Pod of the default Vpc", of_pod("default"), 8080),
        ("a node", v6(&node_ips("node-1")), 10250),
        ("its own node", v6(&node_ips("node-2")), 10250),
        ("a node's join address", v6(&join_ips("node-1")), 10250),
    ];
    let client = &client;
    thread::scope(|scope| {
        for (what, address, port) in others {
            scope.spawn(move || {
                let to = SocketAddr::new(address, port);
                for (heard, how) in [
                    (knock(client, Protocol::Tcp, to, SILENCE), "TCP"),
                    (ping(client, address, SILENCE), "ICMP"),
                ] {
                    assert!(
                        !matches!(heard, Heard::Answer | Heard::Refusal),
                        "{what} at {to} answers {how} to a tenant: {heard:?}"
                    );
                }
            });
        }
    });
}

#[test]
fn dual_a_spoofed_ipv6_source_does_not_pass() {
    let mut scene = Scene::new("d-spoof");
    scene.vpc("v", &[("a", "fd00:1:1::/64")]);
    scene.server("s0", "a", "node-1", "web");
    hostile(&scene, "c", "a", "node-2");
    scene.pods_ready();
    let server = SocketAddr::new(v6(&pod_ips(&scene, "s0")), 8080);
    let client = pod(&scene, "c");
    assert_pod_answers(&client, server, "s0");
    let add = "ip address add fd00:1:1::77/128 dev eth0 nodad";
    in_pod(&scene.name, "c", add).must();
    let spoofed: IpAddr = "fd00:1:1::77".parse().expect("an address");
    let met = knock(&client.from(spoofed), Protocol::Tcp, server, SILENCE);
    assert_ne!(met, Heard::Answer, "a source that is not its own passed");
}

#[test]
fn dual_kubelets_probes_reach_pods_of_ipv6_alone_in_vpcs_with_equal_ranges() {
    let mut scene = Scene::new("d-probes");
    let netexec = "netexec, --http-port=8080, --udp-port=8081";
    let kinds = [
        ("http", netexec, "httpGet: {path: /hostname, port: 8080}"),
        ("tcp", netexec, "tcpSocket: {port: 8080}"),
        (
            "grpc",
            "grpc-health-checking, --port=5000",
            "grpc: {port: 5000}",
        ),
        ("closed", netexec, "tcpSocket: {port: 8099}"),
    ];
    for side in ["l", "r"] {
        scene.vpc(side, &[(side, "fd00:1:1::/64")]);
        for (kind, args, probe) in kinds {
            probes::pod(&scene, &format!("{side}-{kind}"), side, args, probe);
        }
    }
    for side in ["l", "r"] {
        for kind in ["http", "tcp", "grpc"] {
            scene.pod_ready(&format!("{side}-{kind}"));
        }
        let closed = format!("{side}-closed");
        eventually(&format!("{closed} runs"), SLOW, || {
            let printed = in_pod(&scene.name, &closed, "true");
            if printed.ok { Ok(()) } else { Err(printed.err) }
        });
    }
    let what = "a closed port never becomes ready";
    always(what, Duration::from_secs(3), || {
        for name in ["l-closed", "r-closed"] {
            let pod = get(&["-n", &scene.name, "pod", name]);
            if condition(&pod, "Ready").0 == "True" {
                return Err(format!("{name} is ready"));
            }
        }
        Ok(())
    });
}
