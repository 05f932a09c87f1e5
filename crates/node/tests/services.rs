//! The node's side of Services against a real kernel, a real Open vSwitch and a real OVN, with packets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::pod::{Sandbox, connect};
use support::{NODE, Node, eventually, on_node, pod_ref, run};
use ycloud_node::agent::services::facts;
use ycloud_node::agent::services::table::TABLE;
use ycloud_node::agent::services::world::{Change, Delta, World};
use ycloud_node::agent::{add, del, nft};
use ycloud_node::host_port::HostPort;
use ycloud_node::protocol::Failure;

const HOST: &str = "172.18.0.2";
const CLIENT: &str = "172.18.0.9";

fn key(name: &str) -> (String, String) {
    ("ns".into(), name.into())
}

fn service(name: &str, spec: Value) -> Change {
    let object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    let part = facts::service(&serde_json::from_value(object).unwrap());
    Change::Services(Delta::One(key(name), part))
}

fn slice(service: &str, protocol: &str, port: u16, endpoints: &[(&str, &str)]) -> Change {
    let endpoint = |(ip, node): &(&str, &str)| json!({"addresses": [ip], "nodeName": node});
    let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
    let object = json!({
        "metadata": {"name": service, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "", "port": port, "protocol": protocol}],
    });
    let part = facts::slice(&serde_json::from_value(object).unwrap());
    Change::Slices(Delta::One(key(service), part))
}

fn listed() -> [Change; 3] {
    let node = (
        (String::new(), NODE.to_owned()),
        vec![HOST.parse().unwrap()],
    );
    [
        Change::Services(Delta::All(BTreeMap::new())),
        Change::Slices(Delta::All(BTreeMap::new())),
        Change::Nodes(Delta::All([node].into())),
    ]
}

/// A node with the default Vpc, a node interface, a Pod that mirrors, and a machine beside the node.
async fn scene(node: &Node) -> (Sandbox, Sandbox) {
    let client = Sandbox::beside("under0", "172.18.0");
    // To whoever: a packet is translated only once there is a route for it.
    run("ip", &["route", "add", "default", "via", CLIENT]);
    let ovn = &node.ovn;
    ovn.switch("ovn-cluster", "subnet0", "100.64.0.1/16");
    ovn.switch("ovn-cluster", "ovn-default", "10.16.0.1/24");
    // The control plane's policy by node, for one node.
    ovn.nbctl(&["lr-route-add", "ovn-cluster", "0.0.0.0/0", "100.64.0.2"]);
    node.start_node_interface();
    node.node_vnic("100.64.0.2");
    node.ranges(
        &[
            ("subnet0", "100.64.0.0/16"),
            ("ovn-default", "10.16.0.0/24"),
        ],
        "10.96.0.0/16",
    );
    for change in listed() {
        node.objects.changes.send(change).unwrap();
    }
    let mut ready = node.agent.node_interface.clone();
    let ready = ready.wait_for(|ready| *ready);
    tokio::time::timeout(Duration::from_secs(10), ready)
        .await
        .unwrap()
        .unwrap();
    let pod = Sandbox::new();
    node.vnic(&pod_ref("p"), "ovn-default", "ovn-cluster", "10.16.0.5");
    (client, pod)
}

async fn wire(node: &Node, pod: &Sandbox, ports: &[&str]) {
    let ports: Vec<HostPort> = ports.iter().map(|port| port.parse().unwrap()).collect();
    add::add(&node.agent, &pod.id, &pod.path(), &pod_ref("p"), &ports)
        .await
        .unwrap();
    pod.serve_mirror(80).await;
}

/// Sends changes and waits until they are applied.
async fn told(node: &Node, changes: impl IntoIterator<Item = Change>) {
    for change in changes {
        node.objects.changes.send(change).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(node.agent.services.borrow().applied);
}

fn load_balancer(node: &Node, name: &str, vip: &str, backends: &str, protocol: &str) {
    node.ovn.nbctl(&["lb-add", name, vip, backends, protocol]);
    node.ovn
        .nbctl(&["set", "load_balancer", name, "options:reject=true"]);
    node.ovn.nbctl(&["--wait=hv", "ls-lb-add", "subnet0", name]);
}

#[test]
fn node_ports_and_external_addresses_lead_to_the_service() {
    on_node(|node| async move {
        let (client, pod) = scene(&node).await;
        wire(&node, &pod, &[]).await;
        load_balancer(&node, "web", "10.96.0.9:80", "10.16.0.5:80", "tcp");
        let spec = json!({
            "clusterIP": "10.96.0.9", "externalIPs": ["192.0.2.7"],
            "ports": [{"port": 80, "nodePort": 30080}],
        });
        told(
            &node,
            [
                service("web", spec.clone()),
                slice("web", "TCP", 80, &[("10.16.0.5", NODE)]),
            ],
        )
        .await;
        client.ip(&["route", "add", "192.0.2.7", "via", HOST]);
        for from_client in [
            format!("{HOST}:30080"),
            "192.0.2.7:80".into(),
            "100.64.0.2:30080".into(),
        ] {
            if from_client.starts_with("100") {
                client.ip(&["route", "add", "100.64.0.2", "via", HOST]);
            }
            assert_eq!(
                client.connect(&from_client).await.unwrap(),
                "100.64.0.2",
                "{from_client}"
            );
        }
        for from_node in [
            format!("{HOST}:30080"),
            "192.0.2.7:80".into(),
            "10.96.0.9:80".into(),
        ] {
            assert_eq!(
                connect(&from_node).await.unwrap(),
                "100.64.0.2",
                "{from_node}"
            );
        }
        // From a Pod, by its own node.
        assert_eq!(
            pod.connect(&format!("{HOST}:30080")).await.unwrap(),
            "100.64.0.2"
        );
        assert!(connect("127.0.0.1:30080").await.is_err());

        // The client's own address, for clients from outside only.
        let mut local = spec.clone();
        local["externalTrafficPolicy"] = "Local".into();
        local["healthCheckNodePort"] = 31000.into();
        told(&node, [service("web", local)]).await;
        assert_eq!(
            client.connect(&format!("{HOST}:30080")).await.unwrap(),
            CLIENT
        );
        assert_eq!(client.connect("192.0.2.7:80").await.unwrap(), CLIENT);
        assert_eq!(
            connect(&format!("{HOST}:30080")).await.unwrap(),
            "100.64.0.2"
        );
        assert_eq!(
            pod.connect(&format!("{HOST}:30080")).await.unwrap(),
            "100.64.0.2"
        );
        let health = async || {
            let get = || {
                std::process::Command::new("curl")
                    .args([
                        "-s",
                        "-w",
                        " %{http_code}",
                        "http://172.18.0.2:31000/healthz",
                    ])
                    .output()
            };
            let output = tokio::task::spawn_blocking(get).await.unwrap().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let page = health().await;
        assert!(
            page.contains(r#""localEndpoints":1"#) && page.ends_with(" 200"),
            "{page}"
        );
        told(&node, [slice("web", "TCP", 80, &[("10.16.0.5", "node-2")])]).await;
        assert_eq!(
            client
                .connect(&format!("{HOST}:30080"))
                .await
                .unwrap_err()
                .kind(),
            std::io::ErrorKind::TimedOut
        );
        let page = health().await;
        assert!(
            page.contains(r#""localEndpoints":0"#) && page.ends_with(" 503"),
            "{page}"
        );
        assert_eq!(
            connect(&format!("{HOST}:30080")).await.unwrap(),
            "100.64.0.2"
        );

        told(&node, [Change::Services(Delta::One(key("web"), None))]).await;
        assert_eq!(
            client
                .connect(&format!("{HOST}:30080"))
                .await
                .unwrap_err()
                .kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_its_node_port() {
    on_node(|node| async move {
        let (client, pod) = scene(&node).await;
        wire(&node, &pod, &[]).await;
        load_balancer(&node, "web", "10.96.0.9:80", "10.16.0.5:80", "tcp");
        node.ovn.nbctl(&[
            "--wait=hv",
            "set",
            "load_balancer",
            "web",
            r#"vips:"10.96.0.9:80"="""#,
        ]);
        let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]});
        told(&node, [service("web", spec)]).await;
        let refused = std::io::ErrorKind::ConnectionRefused;
        let at = format!("{HOST}:30080");
        assert_eq!(client.connect(&at).await.unwrap_err().kind(), refused);
        assert_eq!(connect(&at).await.unwrap_err().kind(), refused);
    });
}

#[test]
fn endpoints_outside_the_cluster_are_reached_from_the_node() {
    on_node(|node| async move {
        let (client, pod) = scene(&node).await;
        wire(&node, &pod, &[]).await;
        client.serve_mirror(6443).await;
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 443, "nodePort": 30443}]});
        told(
            &node,
            [
                service("kubernetes", spec),
                slice("kubernetes", "TCP", 6443, &[(CLIENT, "")]),
            ],
        )
        .await;
        eventually("a route", Duration::from_secs(3), || {
            run("ip", &["route"])
                .contains("10.96.0.1 via 100.64.0.1 dev node0 proto 157 src 172.18.0.2")
        })
        .await;
        assert_eq!(connect("10.96.0.1:443").await.unwrap(), HOST);
        assert_eq!(connect(&format!("{HOST}:30443")).await.unwrap(), HOST);
        // The node is a router for others: what calls it must get its answer through it.
        assert_eq!(pod.connect(&format!("{HOST}:30443")).await.unwrap(), HOST);
        assert_eq!(
            client.connect(&format!("{HOST}:30443")).await.unwrap(),
            HOST
        );
    });
}

#[test]
fn host_ports_lead_to_the_pod_until_it_goes() {
    on_node(|node| async move {
        let (client, pod) = scene(&node).await;
        wire(
            &node,
            &pod,
            &[
                "TCP/*/8080/80",
                "TCP/127.0.0.1/8081/80",
                "TCP/172.18.0.2/8082/80",
            ],
        )
        .await;
        let from_client = async |port: u16| client.connect(&format!("{HOST}:{port}")).await;
        assert_eq!(from_client(8080).await.unwrap(), CLIENT);
        assert_eq!(from_client(8082).await.unwrap(), CLIENT);
        assert!(from_client(8081).await.is_err());
        for at in [
            "127.0.0.1:8080",
            "172.18.0.2:8080",
            "127.0.0.1:8081",
            "172.18.0.2:8082",
        ] {
            assert_eq!(connect(at).await.unwrap(), "100.64.0.2", "{at}");
        }
        assert!(connect("127.0.0.1:8082").await.is_err());
        assert_eq!(
            pod.connect(&format!("{HOST}:8080")).await.unwrap(),
            "100.64.0.2"
        );
        let remembered = node
            .agent
            .ovs
            .view()
            .port(&pod.id)
            .unwrap()
            .facts
            .host_ports;
        assert_eq!(remembered.len(), 3);
        del::del(&node.agent, &pod.id).await.unwrap();
        eventually("rules gone", Duration::from_secs(3), || {
            !run("nft", &["list", "ruleset"]).contains("10.16.0.5")
        })
        .await;
        assert!(from_client(8080).await.is_err());
    });
}

#[test]
fn a_tenant_s_pod_with_a_host_port_is_refused_in_words() {
    on_node(|node| async move {
        let pod = Sandbox::new();
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5");
        let ports = ["TCP/*/8080/80".parse().unwrap()];
        let wired = add::add(&node.agent, &pod.id, &pod.path(), &pod_ref("a"), &ports).await;
        let failure = Failure::from(wired.unwrap_err());
        assert!(failure.to_string().contains("it is in Vpc v1"), "{failure}");
        assert!(node.ovn.pod_ports().is_empty());
    });
}

#[test]
fn a_client_that_sent_datagrams_before_there_was_a_rule_gets_through() {
    on_node(|node| async move {
        let (client, pod) = scene(&node).await;
        wire(&node, &pod, &[]).await;
        let server = pod.udp(53).await;
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                if &buffer[..length] == b"end" {
                    return;
                }
                let _ = server.send_to(b"pod", from);
            }
        });
        let socket = client.udp(5000).await;
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let ask = |what: &[u8]| {
            let mut buffer = [0; 8];
            let _ = socket.send_to(what, (HOST, 30053));
            socket
                .recv_from(&mut buffer)
                .map(|(length, _)| buffer[..length].to_vec())
        };
        assert!(ask(b"x").is_err());
        load_balancer(&node, "dns", "10.96.0.53:53", "10.16.0.5:53", "udp");
        let spec = |node_port: u16| json!({"clusterIP": "10.96.0.53", "ports": [{"port": 53, "nodePort": node_port, "protocol": "UDP"}]});
        let endpoints = slice("dns", "UDP", 53, &[("10.16.0.5", NODE)]);
        told(&node, [service("dns", spec(30053)), endpoints]).await;
        // A refusal of the first may still be waiting in the socket.
        let answer = ask(b"x").or_else(|_| ask(b"x"));
        assert_eq!(answer.unwrap(), b"pod");
        told(&node, [service("dns", spec(30054))]).await;
        assert!(ask(b"x").is_err(), "that port is nobody's now");
        let _ = socket.send_to(b"end", (HOST, 30054));
        echo.join().unwrap();
    });
}

#[test]
fn answers_of_the_join_address_leave_by_the_node_interface() {
    on_node(|node| async move {
        scene(&node).await;
        let route = || run("ip", &["route", "get", "203.0.113.9", "from", "100.64.0.2"]);
        eventually("a way back", Duration::from_secs(3), || {
            let known = run("ip", &["rule"]).contains("from 100.64.0.2 lookup 157");
            known && route().contains("via 100.64.0.1 dev node0")
        })
        .await;
        run("ip", &["rule", "del", "from", "100.64.0.2"]);
        eventually("put back", Duration::from_secs(3), || {
            run("ip", &["rule"]).matches("lookup 157").count() == 2
        })
        .await;
    });
}

/// Answers datagrams with what they say, until they say "end".
fn echo(address: &str) -> JoinHandle<()> {
    let server = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(&buffer[..length], from);
            if &buffer[..length] == b"end" {
                return;
            }
        }
    })
}

/// Services call hostNetwork servers at the join address, and many listen at the node's own address only.
#[test]
fn servers_on_the_node_are_called_at_the_join_address_wherever_they_listen() {
    on_node(|node| async move {
        let (_client, pod) = scene(&node).await;
        wire(&node, &pod, &[]).await;
        told(&node, []).await;
        let greet = |address: &str| {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"node").unwrap();
            })
        };
        let ask = async |port: u16, target: u16| {
            let socket = pod.udp(port).await;
            socket.connect(("100.64.0.2", target)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket.send(b"end").unwrap();
            let mut buffer = [0; 8];
            socket.recv(&mut buffer).map(|length| length == 3)
        };
        let everywhere = (greet("0.0.0.0:7000"), echo("0.0.0.0:7000"));
        assert_eq!(pod.connect("100.64.0.2:7000").await.unwrap(), "node");
        assert!(ask(5000, 7000).await.unwrap());
        // A client of an elastic address is one to whom the node has another route.
        run(
            "ip",
            &["route", "add", "default", "via", CLIENT, "table", "200"],
        );
        run(
            "ip",
            &[
                "rule",
                "add",
                "pref",
                "15800",
                "to",
                "10.16.0.5",
                "lookup",
                "200",
            ],
        );
        let there = format!("{HOST}:7001");
        let there = (greet(&there), echo(&there));
        assert_eq!(pod.connect("100.64.0.2:7001").await.unwrap(), "node");
        assert!(ask(5001, 7001).await.unwrap());
        for (tcp, udp) in [everywhere, there] {
            tcp.join().unwrap();
            udp.join().unwrap();
        }
    });
}

/// Whatever comes after whatever: the difference leads where the whole does, and nft takes it.
#[test]
fn differences_lead_to_the_same_table_as_the_whole() {
    on_node(|_| async move {
        let mut world = World::new(NODE);
        for change in listed() {
            world.apply(change);
        }
        let list = || run("nft", &["list", "table", "ip", TABLE]);
        let mut applied = world.table();
        nft::apply(&applied.whole()).await.unwrap();
        // A small generator: the same sequence each time (Numerical Recipes' constants).
        let mut state = 7_u32;
        let mut dice = move |sides: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % sides
        };
        let policies = ["Cluster", "Local"];
        for _ in 0..40 {
            for _ in 0..=dice(4) {
                let name = format!("s{}", dice(5));
                let policy = policies[dice(2) as usize];
                let affinity = ["None", "ClientIP"][dice(2) as usize];
                let ports: Vec<Value> = (0..=dice(2))
                    .map(|_| {
                        let protocol = ["TCP", "UDP", "SCTP"][dice(3) as usize];
                        json!({"port": 80 + dice(3), "nodePort": 30000 + dice(6), "protocol": protocol})
                    })
                    .collect();
                let spec = json!({
                    "clusterIP": format!("10.96.0.{}", 1 + dice(200)),
                    "externalIPs": [format!("192.0.2.{}", dice(4))],
                    "externalTrafficPolicy": policy, "sessionAffinity": affinity,
                    "ports": ports,
                });
                world.apply(match dice(5) {
                    0 => Change::Services(Delta::One(key(&name), None)),
                    _ => service(&name, spec),
                });
                let ip = format!("10.{}.0.{}", 15 + dice(2), dice(9));
                let other = format!("10.16.0.{}", 10 + dice(9));
                let protocol = ["TCP", "UDP", "SCTP"][dice(3) as usize];
                world.apply(slice(
                    &name,
                    protocol,
                    8080,
                    &[(ip.as_str(), NODE), (other.as_str(), "node-2")][..dice(3) as usize],
                ));
            }
            let ranges =
                ["10.16.0.0/16", "10.16.0.0/15", "10.17.0.0/24"].map(|r| r.parse().unwrap());
            world.set_default_vpc(ranges[..dice(4) as usize].iter().copied().collect());
            world.settle();
            let wanted = world.table();
            let difference = applied.difference(&wanted);
            if let Err(error) = nft::apply(&difference).await {
                panic!("{error}\n{difference}");
            }
            let stepped = list();
            assert!(wanted.stands().await);
            nft::apply(&wanted.whole()).await.unwrap();
            assert_eq!(sorted(&stepped), sorted(&list()));
            applied = wanted;
        }
        run("nft", &["flush", "table", "ip", TABLE]);
        assert!(!applied.stands().await);
        run("nft", &["delete", "table", "ip", TABLE]);
        assert!(!applied.stands().await);
    });
}

/// Elements and chains in whatever order nft has them.
fn sorted(listing: &str) -> Vec<&str> {
    let mut words: Vec<&str> = listing
        .split([' ', '\n', '\t', ','])
        .filter(|w| !w.is_empty())
        .collect();
    words.sort_unstable();
    words
}
