//! The node interface against a real kernel, a real Open vSwitch and a real OVN.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::pod::{Sandbox, connect};
use support::{Node, eventually, on_node, pod_ref, run};
use tokio_util::sync::CancellationToken;
use ycloud_node::agent::{add, health};

/// A router between the join switch and the default Subnet, as the control plane makes it.
fn default_vpc(node: &Node) {
    let ovn = &node.ovn;
    ovn.switch("ovn-cluster", "subnet0", "100.64.0.1/16");
    ovn.switch("ovn-cluster", "ovn-default", "10.16.0.1/24");
}

fn routes() -> String {
    run("ip", &["route"])
}

async fn up(node: &Node) {
    let mut ready = node.agent.node_interface.clone();
    let ready = ready.wait_for(|ready| *ready);
    tokio::time::timeout(Duration::from_secs(10), ready)
        .await
        .expect("ready in time")
        .unwrap();
}

#[test]
fn the_node_reaches_the_default_vpc_and_a_restarted_switch_is_repaired() {
    on_node(|node| async move {
        default_vpc(&node);
        node.start_node_interface();
        assert!(node.agent.missing().contains(&"the node interface"));
        node.node_vnic("100.64.0.2");
        node.ranges(
            &[
                ("subnet0", "100.64.0.0/16"),
                ("ovn-default", "10.16.0.0/24"),
            ],
            "10.96.0.0/16",
        );
        up(&node).await;
        eventually("routes", Duration::from_secs(3), || {
            let routes = routes();
            routes.contains("10.16.0.0/24 via 100.64.0.1 dev node0 proto 157 src 100.64.0.2")
                && routes.contains("10.96.0.0/16 via 100.64.0.1 dev node0")
        })
        .await;
        assert!(!routes().contains("100.64.0.0/16 via"), "{}", routes());

        let pod = Sandbox::new();
        node.vnic(&pod_ref("p"), "ovn-default", "ovn-cluster", "10.16.0.5");
        add::add(&node.agent, &pod.id, &pod.path(), &pod_ref("p"), &[])
            .await
            .unwrap();
        pod.serve(80, "p").await;
        assert_eq!(connect("10.16.0.5:80").await.unwrap(), "p");

        // The link is made anew by a new ovs-vswitchd.
        node.ovn.kill("vswitchd");
        run("ip", &["link", "del", "node0"]);
        node.ovn.start_vswitchd();
        eventually("repaired", Duration::from_secs(3), || {
            routes().contains("10.96.0.0/16 via")
        })
        .await;
        eventually("packets again", Duration::from_secs(10), || {
            let link = run("ip", &["-brief", "address", "show", "node0"]);
            link.contains("100.64.0.2/16")
        })
        .await;
        let start = std::time::Instant::now();
        while connect("10.16.0.5:80").await.ok().as_deref() != Some("p") {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "no packets after the restart"
            );
        }
    });
}

#[test]
fn routes_follow_the_objects_and_others_are_left() {
    on_node(|node| async move {
        node.start_node_interface();
        node.node_vnic("100.64.0.2");
        node.ranges(
            &[("ovn-default", "10.16.0.0/24"), ("more", "10.17.0.0/24")],
            "10.96.0.0/16",
        );
        up(&node).await;
        eventually("both", Duration::from_secs(3), || {
            routes().contains("10.17.0.0/24")
        })
        .await;
        run(
            "ip",
            &[
                "route",
                "add",
                "198.51.100.0/24",
                "via",
                "100.64.0.9",
                "dev",
                "node0",
            ],
        );
        node.ranges(&[("ovn-default", "10.16.0.0/24")], "10.96.0.0/16");
        eventually("one is gone", Duration::from_secs(3), || {
            !routes().contains("10.17.0.0/24")
        })
        .await;
        assert!(routes().contains("10.16.0.0/24") && routes().contains("198.51.100.0/24"));
        run("ip", &["route", "del", "10.16.0.0/24"]);
        eventually("put back", Duration::from_secs(3), || {
            routes().contains("10.16.0.0/24")
        })
        .await;
        run("ip", &["address", "del", "100.64.0.2/16", "dev", "node0"]);
        eventually("put back, too", Duration::from_secs(3), || {
            routes().contains("10.16.0.0/24 via 100.64.0.1 dev node0 proto 157 src 100.64.0.2")
        })
        .await;
        let rules = run("nft", &["list", "table", "inet", "ycloud"]);
        assert!(
            rules.contains("ip saddr 10.16.0.0/24 ip daddr != 10.16.0.0/24"),
            "{rules}"
        );
    });
}

#[test]
fn without_the_api_server_the_node_interface_is_kept_from_what_the_port_remembers() {
    on_node(|node| async move {
        let interface = node.start_node_interface();
        node.node_vnic("100.64.0.2");
        node.ranges(&[("ovn-default", "10.16.0.0/24")], "10.96.0.0/16");
        up(&node).await;
        drop(interface);
        eventually("remembered", Duration::from_secs(3), || {
            node.ovn
                .vsctl(&["get", "interface", "node0", "external_ids"])
                .contains("ycloud-pod-cidrs=\"10.16.0.0/24\"")
        })
        .await;
        // All lists are empty and not complete: what an agent knows that has just started.
        node.objects.vnics.send_modify(|o| {
            o.synced = false;
            o.by_key.clear();
        });
        node.objects.subnets.send_modify(|o| {
            o.synced = false;
            o.by_key.clear();
        });
        node.objects.service_cidrs.send_modify(|o| {
            o.synced = false;
            o.by_key.clear();
        });
        run("ip", &["address", "flush", "dev", "node0"]);
        eventually("kept", Duration::from_secs(3), || {
            let routes = routes();
            routes.contains("10.16.0.0/24 via") && routes.contains("10.96.0.0/16 via")
        })
        .await;
    });
}

/// What the agent answers at `path`.
async fn page(path: &'static str) -> String {
    let get = move || {
        let mut stream = TcpStream::connect("127.0.0.1:9440").unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    };
    tokio::task::spawn_blocking(get).await.unwrap()
}

#[test]
fn metrics_and_readiness_tell_the_node_s_state_from_the_first_moment() {
    on_node(|node| async move {
        let stop = CancellationToken::new();
        let listen = ([127, 0, 0, 1], 9440).into();
        let (agent, registry) = (node.agent.clone(), node.registry.clone());
        let served = tokio::spawn(health::serve(listen, agent, registry, stop.clone()));
        eventually("it listens", Duration::from_secs(3), || {
            TcpStream::connect("127.0.0.1:9440").is_ok()
        })
        .await;
        let first = page("/metrics").await;
        for line in [
            "ycloud_cni_ports 0",
            "ycloud_cni_vnics 0",
            "ycloud_cni_ovs_connected 1",
            "ycloud_cni_nft_socket 1",
            "ycloud_cni_node_interface_ready 0",
            "ycloud_cni_ready 0",
        ] {
            assert!(first.lines().any(|l| l == line), "{line}: {first}");
        }
        assert!(page("/readyz").await.contains("the node interface"));

        node.start_node_interface();
        node.node_vnic("100.64.0.2");
        node.ranges(&[("ovn-default", "10.16.0.0/24")], "10.96.0.0/16");
        up(&node).await;
        let pod = Sandbox::new();
        node.vnic(&pod_ref("p"), "ovn-default", "ovn-cluster", "10.16.0.5");
        add::add(&node.agent, &pod.id, &pod.path(), &pod_ref("p"), &[])
            .await
            .unwrap();
        let second = page("/metrics").await;
        for line in [
            "ycloud_cni_ports 1",
            "ycloud_cni_ports_installed 1",
            "ycloud_cni_ports_not_probed 0",
            "ycloud_cni_vnics 2",
            "ycloud_cni_ready 1",
        ] {
            assert!(second.lines().any(|l| l == line), "{line}: {second}");
        }
        assert!(page("/readyz").await.starts_with("HTTP/1.1 200"));
        stop.cancel();
        served.await.unwrap().unwrap();
    });
}
