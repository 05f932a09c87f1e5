//! Devices of VNics against a real kernel, a real Open vSwitch and a real OVN, with packets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use support::pod::Sandbox;
use support::tap::{Tap, veth};
use support::{Node, eventually, mac, on_node, pod_ref, run};
use ycloud_node::agent::netns::Netns;
use ycloud_node::agent::{add, ethtool, gc};

const SOON: Duration = Duration::from_secs(5);

/// Waits until the VNic says this: status, reason, and what is in its message.
async fn says(node: &Node, name: &str, status: &str, reason: &str, part: &str) {
    let start = Instant::now();
    loop {
        let (is, why, message) = node.wired(name);
        if is == status && why == reason && message.contains(part) {
            return;
        }
        assert!(start.elapsed() < SOON, "{name}: {is} {why} {message}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn interface(node: &Node, name: &str) -> String {
    let find = ["--bare", "--columns=external_ids", "find", "interface"];
    let named = format!("name={name}");
    node.ovn.vsctl(&[&find[..], &[&named]].concat())
}

async fn pod(node: &Node, name: &str, ip: &str) -> Sandbox {
    let (pod, reference) = (Sandbox::new(), pod_ref(name));
    node.vnic(&reference, "s", "v", ip);
    let added = add::add(&node.agent, &pod.id, &pod.path(), &reference, &[]).await;
    added.unwrap();
    pod
}

fn forget(node: &Node, name: &str) {
    let key = ("team-a".to_owned(), name.to_owned());
    node.objects.vnics.send_modify(|objects| {
        objects.by_key.remove(&key);
    });
}

/// Whether a datagram from here is answered.
fn echoes(socket: &UdpSocket, target: &str) -> bool {
    let mut byte = [0];
    socket.send_to(b"?", target).is_ok() && socket.recv(&mut byte).is_ok()
}

async fn client(pod: &Sandbox) -> UdpSocket {
    let socket = pod.udp(0).await;
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    socket
}

#[test]
fn a_tap_is_wired_when_it_comes_and_unwired_when_it_goes() {
    on_node(|node| async move {
        node.ovn.switch("r", "s", "10.0.1.1/24");
        let asking = pod(&node, "asking", "10.0.1.5").await;
        let (ip, socket) = ("10.0.1.7", client(&asking).await);
        node.vm("vm-7", "tap7", "s", ip, 1);
        says(
            &node,
            "vm-7",
            "False",
            "DeviceNotFound",
            "chassis node-1 has no device tap7; ",
        )
        .await;
        assert!(!echoes(&socket, "10.0.1.7:9"));

        let mac = mac(ip.parse().unwrap());
        let tap = Tap::new("tap7", &mac, ip);
        let start = Instant::now();
        says(
            &node,
            "vm-7",
            "True",
            "Wired",
            "device tap7 is on br-int of chassis node-1",
        )
        .await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        let ids = interface(&node, "tap7");
        assert!(
            ids.contains("iface-id=team-a/vm-7")
                && ids.contains(&format!("attached-mac={mac}").replace('"', "")),
            "{ids}"
        );
        eventually("it answers", SOON, || echoes(&socket, "10.0.1.7:9")).await;
        assert!(tap.datagrams.load(Ordering::Relaxed) > 0);
        let rules = run("nft", &["list", "table", "netdev", "ycloud-devices"]);
        assert!(
            rules.contains("device \"tap7\"") && rules.contains("drop"),
            "{rules}"
        );
        let addresses = run("ip", &["-6", "address", "show", "dev", "tap7"]);
        assert!(!addresses.contains("inet6"), "{addresses}");

        // What sweeps up after Pods leaves it alone.
        gc::sweep(&node.agent).await.unwrap();
        gc::gc(&node.agent, std::slice::from_ref(&asking.id))
            .await
            .unwrap();
        assert!(echoes(&socket, "10.0.1.7:9"));

        drop(tap);
        says(&node, "vm-7", "False", "DeviceNotFound", "tap7").await;
        assert_eq!(interface(&node, "tap7"), "");
        // A machine that is started again, so fast that it is only seen as another one.
        let mut tap = Tap::new("tap7", &mac, ip);
        for _ in 0..4 {
            eventually("it answers", SOON, || echoes(&socket, "10.0.1.7:9")).await;
            drop(tap);
            tap = Tap::new("tap7", &mac, ip);
        }
        eventually("the last one answers", SOON, || {
            echoes(&socket, "10.0.1.7:9")
        })
        .await;
        assert!(tap.datagrams.load(Ordering::Relaxed) > 0);

        forget(&node, "vm-7");
        eventually("it goes", SOON, || interface(&node, "tap7").is_empty()).await;
        eventually("its rule goes last", SOON, || {
            !run("nft", &["list", "table", "netdev", "ycloud-devices"]).contains("tap7")
        })
        .await;
        let link = run("ip", &["-o", "link", "show", "tap7"]);
        assert!(!link.contains("UP"), "{link}");
    });
}

#[test]
fn a_server_behind_a_veth_is_reached() {
    on_node(|node| async move {
        node.ovn.switch("r", "s", "10.0.1.1/24");
        let asking = pod(&node, "asking", "10.0.1.5").await;
        let server = Sandbox::new();
        veth("port8", server.name());
        let mac = mac("10.0.1.8".parse().unwrap());
        server.ip(&["link", "set", "eth0", "address", &mac, "up"]);
        server.ip(&["address", "add", "10.0.1.8/24", "dev", "eth0"]);
        let netns = Netns::open(&server.path()).unwrap();
        netns
            .run(|| ethtool::offload_off("eth0"))
            .await
            .unwrap()
            .unwrap();
        server.serve(80, "eight").await;
        node.vm("bm-8", "port8", "s", "10.0.1.8", 1);
        says(&node, "bm-8", "True", "Wired", "port8").await;
        assert_eq!(asking.connect("10.0.1.8:80").await.unwrap(), "eight");
        // Its VNic moves to another chassis: it is no concern of this one any more.
        forget(&node, "bm-8");
        eventually("it goes", SOON, || interface(&node, "port8").is_empty()).await;
        assert!(asking.connect("10.0.1.8:80").await.is_err());
    });
}

#[test]
fn nobody_s_device_is_taken_away() {
    on_node(|node| async move {
        for name in [
            "uplink", "bridged", "brport", "byhand", "mine", "parent", "way",
        ] {
            run("ip", &["tuntap", "add", name, "mode", "tap"]);
        }
        run("ip", &["address", "add", "192.0.2.7/24", "dev", "uplink"]);
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        for add in [
            "link add tunnel type vxlan id 7 dstport 4789 dev parent",
            "link set way up",
            "route add 198.51.100.0/24 dev way",
        ] {
            run("ip", &add.split(' ').collect::<Vec<_>>());
        }
        run("ip", &["link", "set", "bridged", "master", "br0"]);
        node.ovn.vsctl(&[
            "add-br",
            "br-ex",
            "--",
            "set",
            "bridge",
            "br-ex",
            "datapath_type=netdev",
        ]);
        node.ovn.vsctl(&["add-port", "br-ex", "brport"]);
        node.ovn.vsctl(&["add-port", "br-int", "byhand"]);
        let ports = |bridge: &str| node.ovn.vsctl(&["list-ports", bridge]);
        let cases = [
            ("uplink", "has address 192.0.2.7/24"),
            ("bridged", "is a port of br0"),
            ("brport", "is a port of br-ex"),
            ("byhand", "is a port of br-int"),
            ("br-int", "is a port of br-int"),
            ("lo", "has address 127.0.0.1/8"),
            ("parent", "is what tunnel (vxlan) stands on"),
            ("br0", "has a port, bridged"),
            ("tunnel", "is the end of a tunnel (vxlan)"),
            ("way", "has the machine's route to 198.51.100.0/24"),
        ];
        for (number, (device, part)) in cases.into_iter().enumerate() {
            let name = format!("vm-{device}");
            node.vm(&name, device, "s", &format!("10.0.1.{}", 20 + number), 1);
            says(&node, &name, "False", "DeviceTaken", part).await;
        }
        node.vm("vm-b", "mine", "s", "10.0.1.12", 2);
        says(&node, "vm-b", "True", "Wired", "mine").await;
        node.vm("vm-a", "mine", "s", "10.0.1.11", 1);
        says(&node, "vm-a", "True", "Wired", "mine").await;
        says(
            &node,
            "vm-b",
            "False",
            "DeviceTaken",
            "VNic team-a/vm-a has device mine",
        )
        .await;
        assert!(interface(&node, "mine").contains("iface-id=team-a/vm-a"));
        forget(&node, "vm-a");
        says(&node, "vm-b", "True", "Wired", "mine").await;
        assert_eq!(
            (ports("br-int").as_str(), ports("br-ex").as_str()),
            ("byhand\nmine", "brport")
        );
        // A second interface of the same VNic.
        node.ovn.vsctl(&[
            "set",
            "interface",
            "byhand",
            "external_ids:iface-id=team-a/vm-b",
        ]);
        says(
            &node,
            "vm-b",
            "False",
            "DeviceTaken",
            "interfaces mine and byhand of chassis node-1",
        )
        .await;
        node.ovn
            .vsctl(&["remove", "interface", "byhand", "external_ids", "iface-id"]);
        says(&node, "vm-b", "True", "Wired", "mine").await;
    });
}

#[test]
fn a_device_that_cannot_be_set_up_is_its_own_vnic_s_affair() {
    on_node(|node| async move {
        for name in ["good", "low"] {
            run("ip", &["tuntap", "add", name, "mode", "tap"]);
        }
        // With such an MTU the kernel has no IPv6 on it that could be switched.
        run("ip", &["link", "set", "low", "mtu", "1200"]);
        node.vm("vm-a", "low", "s", "10.0.1.11", 1);
        let said =
            "device low of chassis node-1 cannot be set up: failed to keep IPv6 off link low";
        says(&node, "vm-a", "False", "Pending", said).await;
        node.vm("vm-b", "good", "s", "10.0.1.12", 2);
        says(&node, "vm-b", "True", "Wired", "good").await;
        assert_eq!(interface(&node, "low"), "");
        run("ip", &["link", "set", "low", "mtu", "1500"]);
        says(&node, "vm-a", "True", "Wired", "low").await;
    });
}
