//! Pods of both families, and of IPv6 alone, against a real kernel, a real Open vSwitch and a real OVN.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use support::pod::{Sandbox, at, connect};
use support::{Node, eventually, on_node, pod_ref, run};
use ycloud_node::agent::pod_links::{SOURCE_V6, host_interface};
use ycloud_node::agent::{add, check, del};
use ycloud_node::protocol::{Failure, Wiring};

async fn wire(node: &Node, sandbox: &Sandbox, pod: &str) -> Wiring {
    let (id, path) = (&sandbox.id, sandbox.path());
    let wired = add::add(&node.agent, id, &path, &pod_ref(pod), &[]).await;
    wired.unwrap_or_else(|error| panic!("{pod}: {}", Failure::from(error)))
}

fn texts<T: ToString>(all: impl Iterator<Item = T>) -> Vec<String> {
    all.map(|one| one.to_string()).collect()
}

/// A Vpc of a Subnet of both families and one of IPv6 alone.
fn vpc(node: &Node) {
    node.ovn.switch("v1", "s1", "10.0.1.1/24 fd00:1::1/64");
    node.ovn.switch("v1", "s6", "fd00:6::1/64");
    let pods = [
        ("a", "s1", "10.0.1.5 fd00:1::5"),
        ("b", "s1", "10.0.1.6 fd00:1::6"),
    ];
    for (pod, switch, ips) in pods.into_iter().chain([("c", "s6", "fd00:6::7")]) {
        node.vnic(&pod_ref(pod), switch, "v1", ips);
    }
}

#[test]
fn pods_have_what_their_subnet_has_and_reach_each_other() {
    on_node(|node| async move {
        let [a, b, c] = [(); 3].map(|()| Sandbox::new());
        vpc(&node);
        let wiring = wire(&node, &a, "a").await;
        let nets = texts(wiring.addresses.iter().map(|address| address.net()));
        assert_eq!(nets, ["10.0.1.5/24", "fd00:1::5/64"]);
        wire(&node, &b, "b").await;
        let only = wire(&node, &c, "c").await;
        assert_eq!(texts(only.addresses.ips()), ["fd00:6::7"]);
        // Without duplicate address detection an address is of use at once.
        let addresses = c.ip(&["-6", "address", "show", "dev", "eth0"]);
        let own = addresses.lines().find(|line| line.contains("fd00:6::7"));
        let usable = |line: &str| line.contains("nodad") && !line.contains("tentative");
        assert!(own.is_some_and(usable), "{addresses}");
        b.serve(80, "b").await;
        c.serve(80, "c").await;
        for (ip, name) in [("10.0.1.6", "b"), ("fd00:1::6", "b"), ("fd00:6::7", "c")] {
            assert_eq!(a.connect(&at(ip, 80)).await.unwrap(), name, "{ip}");
        }
        assert_eq!(c.connect("[fd00:1::6]:80").await.unwrap(), "b");
        assert!(
            a.ip(&["-6", "route"])
                .contains("default via fd00:1::1 dev eth0")
        );
        assert!(c.ip(&["-4", "route"]).is_empty());

        // What the runtime gives back, in whatever order.
        for addresses in [
            ["10.0.1.5/24", "fd00:1::5/64"],
            ["fd00:1:0::5/64", "10.0.1.5/24"],
        ] {
            let addresses = addresses.map(str::to_owned);
            let checked = check::check(&node.agent, &a.id, &a.path(), &addresses).await;
            checked.unwrap();
        }
        let checked = async || {
            let addresses = nets.clone();
            let checked = check::check(&node.agent, &a.id, &a.path(), &addresses).await;
            checked.unwrap_err().to_string()
        };
        a.ip(&["-6", "route", "del", "default"]);
        assert!(checked().await.contains("no default route by fd00:1::1"));
        a.ip(&["address", "del", "fd00:1::5/64", "dev", "eth0"]);
        assert!(checked().await.contains("has not address fd00:1::5/64"));
        // A retry of the same ADD repairs and keeps the port.
        let port = || node.agent.ovs.view().port(&a.id).unwrap();
        let before = port();
        assert_eq!(wire(&node, &a, "a").await, wiring);
        assert_eq!(port().interface, before.interface);
        assert_eq!(port().facts.addresses, wiring.addresses);
        assert_eq!(a.connect("[fd00:1::6]:80").await.unwrap(), "b");
        for pod in [&a, &b, &c] {
            del::del(&node.agent, &pod.id).await.unwrap();
        }
        assert!(node.ovn.pod_ports().is_empty());
    });
}

/// As the kubelet's probes do, which know nothing of Vpcs.
#[test]
fn the_node_reaches_pods_of_vpcs_by_ipv6_and_they_cannot_reach_it() {
    on_node(|node| async move {
        let [a, c, r] = [(); 3].map(|()| Sandbox::new());
        vpc(&node);
        // Another Vpc of the same range.
        node.ovn.switch("v2", "s2", "fd00:1::1/64");
        node.vnic(&pod_ref("r"), "s2", "v2", "fd00:1::9");
        let pods = [
            (&a, "a", "fd00:1::5"),
            (&c, "c", "fd00:6::7"),
            (&r, "r", "fd00:1::9"),
        ];
        for (pod, name, ip) in pods {
            wire(&node, pod, name).await;
            pod.serve(80, name).await;
            assert_eq!(connect(&at(ip, 80)).await.unwrap(), name);
            let refused = connect(&at(ip, 81)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{ip}");
        }
        assert!(a.connect("[fd00:1::9]:80").await.is_err(), "across Vpcs");
        a.serve_mirror(82).await;
        assert_eq!(
            connect("[fd00:1::5]:82").await.unwrap(),
            SOURCE_V6.to_string()
        );

        // The node has that address for these routes alone.
        let listener = std::net::TcpListener::bind("[::]:8080").unwrap();
        run(
            "ip",
            &["address", "add", "2001:db8::1/128", "dev", "lo", "nodad"],
        );
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let host = node
            .agent
            .netlink
            .need_link(&host_interface(&a.id))
            .await
            .unwrap();
        let mac = host.mac.to_string();
        for target in ["2001:db8::1", &SOURCE_V6.to_string(), "fd00:1::9"] {
            for straight in [false, true] {
                if straight {
                    a.ip(&["route", "add", target, "dev", "eth0"]);
                    let neighbour = ["neighbour", "replace", target, "lladdr", &mac];
                    a.ip(&[&neighbour[..], &["dev", "eth0"]].concat());
                }
                let tcp = a.connect_from("fd00:1::5", &at(target, 8080)).await;
                assert!(tcp.is_err(), "{target}, straight: {straight}");
            }
        }
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let link = run("ip", &["-6", "address", "show", "dev", &host.name]);
        assert!(link.is_empty(), "nothing to solicit: {link}");
        assert_eq!(connect("[fd00:1::5]:80").await.unwrap(), "a");

        del::del(&node.agent, &a.id).await.unwrap();
        eventually("no route", Duration::from_secs(3), || {
            !run("ip", &["-6", "route"]).contains("fd00:1::5 dev yc")
        })
        .await;
    });
}

#[test]
fn the_node_is_no_router_into_a_vpc() {
    on_node(|node| async move {
        let pod = Sandbox::new();
        vpc(&node);
        wire(&node, &pod, "a").await;
        pod.serve(80, "a").await;
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        let outside = Sandbox::beside("under0", "172.18.0");
        outside.ip(&["-6", "route", "add", "default", "via", "fd00:18::2"]);
        assert_eq!(connect("[fd00:1::5]:80").await.unwrap(), "a");
        assert!(
            outside
                .connect_from("fd00:18::9", "[fd00:1::5]:80")
                .await
                .is_err()
        );
        let source = SOURCE_V6.to_string();
        outside.ip(&["address", "add", &source, "dev", "eth0", "nodad"]);
        assert!(
            outside
                .connect_from(&source, "[fd00:1::5]:80")
                .await
                .is_err()
        );
    });
}

#[test]
fn a_pod_never_gets_what_the_node_sends_to_its_neighbours() {
    on_node(|node| async move {
        let (pod, other, _beside) = (
            Sandbox::new(),
            Sandbox::new(),
            Sandbox::beside("under0", "172.18.0"),
        );
        node.ovn.switch("v1", "s1", "10.0.1.1/24 fd00:18::1/64");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5 fd00:18::77");
        node.vnic(&pod_ref("b"), "s1", "v1", "10.0.1.6 fd00:18::9");
        wire(&node, &pod, "a").await;
        wire(&node, &other, "b").await;
        pod.serve(80, "a").await;
        assert!(run("ip", &["route", "get", "fd00:18::77"]).contains("dev under0"));
        assert_eq!(node.agent.pod_links.not_probed(), 2);
        // By its other address it is reached, and its Vpc is its own matter.
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "a");
        assert_eq!(other.connect("[fd00:18::77]:80").await.unwrap(), "a");
    });
}

#[test]
fn the_node_interface_has_both_and_pods_leave_by_it() {
    on_node(|node| async move {
        let beside = Sandbox::beside("under0", "172.18.0");
        node.ovn
            .switch("ovn-cluster", "subnet0", "100.64.0.1/16 fd00:100:64::1/64");
        node.ovn.switch(
            "ovn-cluster",
            "ovn-default",
            "10.16.0.1/24 fd00:10:16::1/64",
        );
        node.ovn
            .nbctl(&["lr-route-add", "ovn-cluster", "::/0", "fd00:100:64::2"]);
        std::fs::write("/proc/sys/net/ipv6/conf/under0/accept_ra", "1").unwrap();
        node.start_node_interface();
        // First of IPv4 alone: the second family comes while the interface is there.
        node.node_vnic("100.64.0.2");
        node.ranges(&[("ovn-default", "10.16.0.0/24")], "10.96.0.0/16");
        let routes = || run("ip", &["-6", "route"]);
        let ready = |node: &Node| *node.agent.node_interface.borrow();
        eventually("ready", Duration::from_secs(10), || ready(&node)).await;
        assert!(!routes().contains("node0"), "{}", routes());
        assert!(!run("ip", &["-6", "address", "show", "dev", "node0"]).contains("inet6"));
        node.node_vnic_gone();
        node.node_vnic("100.64.0.2 fd00:100:64::2");
        let subnets = [
            ("subnet0", "100.64.0.0/16 fd00:100:64::/64"),
            ("ovn-default", "10.16.0.0/24 fd00:10:16::/64"),
        ];
        node.ranges(&subnets, "10.96.0.0/16 fd00:10:96::/112");
        eventually("routes", Duration::from_secs(3), || {
            let by = "via fd00:100:64::1 dev node0 proto 157 src fd00:100:64::2";
            routes().contains(&format!("fd00:10:16::/64 {by}"))
                && routes().contains(&format!("fd00:10:96::/112 {by}"))
        })
        .await;
        assert!(run("ip", &["route"]).contains("10.16.0.0/24 via 100.64.0.1 dev node0"));
        // It is a router now, and listens to its own routers all the same.
        let read = |key: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{key}"));
        assert_eq!(read("all/forwarding").unwrap().trim(), "1");
        assert_eq!(read("under0/accept_ra").unwrap().trim(), "2");
        assert_eq!(read("node0/accept_ra").unwrap().trim(), "0");

        let pod = Sandbox::new();
        node.vnic(
            &pod_ref("p"),
            "ovn-default",
            "ovn-cluster",
            "10.16.0.5 fd00:10:16::5",
        );
        wire(&node, &pod, "p").await;
        pod.serve(80, "p").await;
        let start = Instant::now();
        while connect("[fd00:10:16::5]:80").await.ok().as_deref() != Some("p") {
            assert!(start.elapsed() < Duration::from_secs(10), "not reached");
        }
        assert_eq!(connect("10.16.0.5:80").await.unwrap(), "p");
        // Beyond the node, behind its address. An answer of neighbour discovery may come later than the first packets.
        beside.serve_mirror(80).await;
        let start = Instant::now();
        while pod.connect("[fd00:18::9]:80").await.ok().as_deref() != Some("fd00:18::2") {
            assert!(start.elapsed() < Duration::from_secs(10), "not reached");
        }

        run(
            "ip",
            &["address", "del", "fd00:100:64::2/64", "dev", "node0"],
        );
        eventually("put back", Duration::from_secs(3), || {
            routes().contains("fd00:10:16::/64 via fd00:100:64::1 dev node0")
        })
        .await;
        // The kernel takes routes away some time after their address, so these may be the old ones.
        let start = Instant::now();
        while connect("[fd00:10:16::5]:80").await.ok().as_deref() != Some("p") {
            assert!(start.elapsed() < Duration::from_secs(3), "not reached");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        // The Subnets lose it again.
        node.node_vnic_gone();
        node.node_vnic("100.64.0.2");
        eventually("nothing of it is left", Duration::from_secs(3), || {
            !routes().contains("node0") && !run("ip", &["-6", "rule"]).contains("157")
        })
        .await;
    });
}
