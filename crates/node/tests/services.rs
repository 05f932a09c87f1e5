//! The node's side of Services against a real kernel, a real Open vSwitch and a real OVN, with packets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::pod::{Sandbox, at, connect};
use support::{NODE, Node, eventually, on_node, pod_ref, run};
use ycloud_api::{EipGateway, EipGatewaySpec};
use ycloud_node::agent::services::facts::{self, NodeAddresses};
use ycloud_node::agent::services::table::TABLE;
use ycloud_node::agent::services::world::{Change, Delta, World};
use ycloud_node::agent::{add, del, nft};
use ycloud_node::host_port::HostPort;
use ycloud_node::protocol::Failure;

/// Addresses of one family.
struct Net {
    host: &'static str,
    client: &'static str,
    external: &'static str,
    /// The node on the join switch, and the router there.
    join: &'static str,
    join_router: &'static str,
    join_range: &'static str,
    pod: &'static str,
    pods_router: &'static str,
    pods_range: &'static str,
    /// A Service's address, and one of which no load balancer knows.
    cluster: &'static str,
    outside: &'static str,
    services: &'static str,
    /// For all addresses, and all networks.
    any: &'static str,
    everywhere: &'static str,
}

const V4: Net = Net {
    host: "172.18.0.2",
    client: "172.18.0.9",
    external: "192.0.2.7",
    join: "100.64.0.2",
    join_router: "100.64.0.1/16",
    join_range: "100.64.0.0/16",
    pod: "10.16.0.5",
    pods_router: "10.16.0.1/24",
    pods_range: "10.16.0.0/24",
    cluster: "10.96.0.9",
    outside: "10.96.0.1",
    services: "10.96.0.0/16",
    any: "0.0.0.0",
    everywhere: "0.0.0.0/0",
};

const V6: Net = Net {
    host: "fd00:18::2",
    client: "fd00:18::9",
    external: "2001:db8::7",
    join: "fd00:100:64::2",
    join_router: "fd00:100:64::1/64",
    join_range: "fd00:100:64::/64",
    pod: "fd00:10:16::5",
    pods_router: "fd00:10:16::1/64",
    pods_range: "fd00:10:16::/64",
    cluster: "fd00:10:96::9",
    outside: "fd00:10:96::1",
    services: "fd00:10:96::/112",
    any: "::",
    everywhere: "::/0",
};

/// A cluster of IPv4 alone, and a cluster of both.
const IPV4: &[&Net] = &[&V4];
const BOTH: &[&Net] = &[&V4, &V6];

fn key(name: &str) -> (String, String) {
    ("ns".into(), name.into())
}

fn service(name: &str, spec: Value) -> Change {
    let object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    let part = facts::service(&serde_json::from_value(object).unwrap());
    Change::Services(Delta::One(key(name), part))
}

fn slice(service: &str, protocol: &str, port: u16, endpoints: &[(&str, &str)]) -> Change {
    let ipv6 = endpoints.iter().any(|(ip, _)| ip.contains(':'));
    let endpoint = |(ip, node): &(&str, &str)| json!({"addresses": [ip], "nodeName": node});
    let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
    let object = json!({
        "metadata": {"name": service, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
        "addressType": if ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{"name": "", "port": port, "protocol": protocol}],
    });
    let part = facts::slice(&serde_json::from_value(object).unwrap());
    Change::Slices(Delta::One(key(service), part))
}

fn listed() -> [Change; 3] {
    let addresses = NodeAddresses {
        internal: [V4, V6].map(|net| net.host.parse().unwrap()).into(),
        external: Vec::new(),
    };
    let node = ((String::new(), NODE.to_owned()), addresses);
    [
        Change::Services(Delta::All(BTreeMap::new())),
        Change::Slices(Delta::All(BTreeMap::new())),
        Change::Nodes(Delta::All([node].into())),
    ]
}

/// A node with the default Vpc, a node interface, a Pod that mirrors, and a machine beside the node: of these families.
async fn scene(node: &Node, nets: &[&Net]) -> (Sandbox, Sandbox) {
    let client = Sandbox::beside("under0", "172.18.0");
    let all = |of: fn(&Net) -> &str| nets.iter().map(|net| of(net)).collect::<Vec<_>>().join(" ");
    let ovn = &node.ovn;
    ovn.switch("ovn-cluster", "subnet0", &all(|net| net.join_router));
    ovn.switch("ovn-cluster", "ovn-default", &all(|net| net.pods_router));
    for net in nets {
        // To whoever: a packet is translated only once there is a route for it.
        run("ip", &["route", "add", net.everywhere, "via", net.client]);
        // The control plane's policy by node, for one node.
        ovn.nbctl(&["lr-route-add", "ovn-cluster", net.everywhere, net.join]);
    }
    node.start_node_interface();
    node.node_vnic(&all(|net| net.join));
    let (join, pods) = (all(|net| net.join_range), all(|net| net.pods_range));
    let subnets = [("subnet0", join.as_str()), ("ovn-default", pods.as_str())];
    node.ranges(&subnets, &all(|net| net.services));
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
    let ips = all(|net| net.pod);
    node.vnic(&pod_ref("p"), "ovn-default", "ovn-cluster", &ips);
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

/// The node's routes of a family.
fn routes(net: &Net) -> String {
    run("ip", &[if net.any == "::" { "-6" } else { "-4" }, "route"])
}

fn load_balancer(node: &Node, name: &str, vip: &str, backends: &str, protocol: &str) {
    node.ovn.nbctl(&["lb-add", name, vip, backends, protocol]);
    node.ovn
        .nbctl(&["set", "load_balancer", name, "options:reject=true"]);
    node.ovn.nbctl(&["--wait=hv", "ls-lb-add", "subnet0", name]);
}

#[test]
fn node_ports_and_external_addresses_lead_to_the_service() {
    on_node(|node| async move { node_ports(&node, &V4, IPV4).await });
}

#[test]
fn node_ports_and_external_addresses_lead_to_the_service_with_ipv6() {
    on_node(|node| async move { node_ports(&node, &V6, BOTH).await });
}

async fn node_ports(node: &Node, net: &Net, nets: &[&Net]) {
    let (client, pod) = scene(node, nets).await;
    let (node_port, external) = (at(net.host, 30080), at(net.external, 80));
    wire(node, &pod, &[]).await;
    load_balancer(node, "web", &at(net.cluster, 80), &at(net.pod, 80), "tcp");
    let spec = json!({
        "clusterIP": net.cluster, "externalIPs": [net.external],
        "ports": [{"port": 80, "nodePort": 30080}],
    });
    told(
        node,
        [
            service("web", spec.clone()),
            slice("web", "TCP", 80, &[(net.pod, NODE)]),
        ],
    )
    .await;
    client.ip(&["route", "add", net.external, "via", net.host]);
    for from_client in [node_port.clone(), external.clone(), at(net.join, 30080)] {
        if from_client == at(net.join, 30080) {
            client.ip(&["route", "add", net.join, "via", net.host]);
        }
        assert_eq!(
            client.connect(&from_client).await.unwrap(),
            net.join,
            "{from_client}"
        );
    }
    for from_node in [node_port.clone(), external.clone(), at(net.cluster, 80)] {
        assert_eq!(connect(&from_node).await.unwrap(), net.join, "{from_node}");
    }
    // From a Pod, by its own node.
    assert_eq!(pod.connect(&node_port).await.unwrap(), net.join);
    assert!(connect("127.0.0.1:30080").await.is_err());
    assert!(connect("[::1]:30080").await.is_err());

    // The client's own address, for clients from outside only.
    let mut local = spec.clone();
    local["externalTrafficPolicy"] = "Local".into();
    local["healthCheckNodePort"] = 31000.into();
    told(node, [service("web", local)]).await;
    assert_eq!(client.connect(&node_port).await.unwrap(), net.client);
    assert_eq!(client.connect(&external).await.unwrap(), net.client);
    assert_eq!(connect(&node_port).await.unwrap(), net.join);
    assert_eq!(pod.connect(&node_port).await.unwrap(), net.join);
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
    told(node, [slice("web", "TCP", 80, &[(net.pod, "node-2")])]).await;
    assert_eq!(
        client.connect(&node_port).await.unwrap_err().kind(),
        std::io::ErrorKind::TimedOut
    );
    let page = health().await;
    assert!(
        page.contains(r#""localEndpoints":0"#) && page.ends_with(" 503"),
        "{page}"
    );
    assert_eq!(connect(&node_port).await.unwrap(), net.join);

    told(node, [Change::Services(Delta::One(key("web"), None))]).await;
    assert_eq!(
        client.connect(&node_port).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}

#[test]
fn a_service_takes_no_address_of_others() {
    on_node(|node| async move { others(&node, &V4, IPV4).await });
}

#[test]
fn a_service_takes_no_address_of_others_with_ipv6() {
    on_node(|node| async move { others(&node, &V6, BOTH).await });
}

/// What the node's servers and Eips have stays theirs, and what is nobody's works.
async fn others(node: &Node, net: &Net, nets: &[&Net]) {
    let (client, pod) = scene(node, nets).await;
    wire(node, &pod, &[]).await;
    let mut gateway = EipGateway::new("gw", EipGatewaySpec::default());
    gateway.spec.cidr = "198.51.100.0/24".into();
    gateway.spec.gateway = "198.51.100.1".into();
    node.objects.eip_gateways.send_modify(|objects| {
        let key = (String::new(), "gw".to_owned());
        objects.by_key.insert(key, gateway);
    });
    load_balancer(node, "web", &at(net.cluster, 80), &at(net.pod, 80), "tcp");
    let listener = TcpListener::bind(at(net.host, 80)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"node");
        }
    });
    let spec = json!({
        "clusterIP": net.cluster, "ports": [{"port": 80}],
        "externalIPs": [net.external, net.host, net.join, "198.51.100.9", "198.51.100.1"],
    });
    let endpoints = slice("web", "TCP", 80, &[(net.pod, NODE)]);
    told(node, [service("web", spec), endpoints]).await;
    assert_eq!(connect(&at(net.external, 80)).await.unwrap(), net.join);
    for host in [
        client.connect(&at(net.host, 80)).await,
        connect(&at(net.host, 80)).await,
    ] {
        assert_eq!(host.unwrap(), "node");
    }
    let rules = run("nft", &["list", "ruleset"]);
    assert!(!rules.contains("198.51.100."), "{rules}");
    if net.any != V4.any {
        return;
    }
    // OVN has the Eip, and the node gets there.
    load_balancer(node, "eip", "198.51.100.9:80", &at(net.pod, 80), "tcp");
    eventually("a route", Duration::from_secs(3), || {
        routes(net).contains("198.51.100.0/24 via 100.64.0.1 dev node0")
    })
    .await;
    assert_eq!(connect("198.51.100.9:80").await.unwrap(), net.join);
    client.ip(&["route", "add", "198.51.100.9", "via", net.host]);
    assert_eq!(client.connect("198.51.100.9:80").await.unwrap(), net.join);
}

#[test]
fn a_service_without_endpoints_refuses_at_its_node_port() {
    on_node(|node| async move {
        let (client, pod) = scene(&node, IPV4).await;
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
        let at = self::at(V4.host, 30080);
        assert_eq!(client.connect(&at).await.unwrap_err().kind(), refused);
        assert_eq!(connect(&at).await.unwrap_err().kind(), refused);
    });
}

#[test]
fn endpoints_outside_the_cluster_are_reached_from_the_node() {
    on_node(|node| async move { outside(&node, &V4, IPV4).await });
}

#[test]
fn endpoints_outside_the_cluster_are_reached_from_the_node_with_ipv6() {
    on_node(|node| async move { outside(&node, &V6, BOTH).await });
}

async fn outside(node: &Node, net: &Net, nets: &[&Net]) {
    let (client, pod) = scene(node, nets).await;
    wire(node, &pod, &[]).await;
    client.serve_mirror(6443).await;
    let spec = json!({"clusterIP": net.outside, "ports": [{"port": 443, "nodePort": 30443}]});
    told(
        node,
        [
            service("kubernetes", spec),
            slice("kubernetes", "TCP", 6443, &[(net.client, "")]),
        ],
    )
    .await;
    eventually("a route", Duration::from_secs(3), || {
        let (router, _) = net.join_router.split_once('/').unwrap();
        let (outside, host) = (net.outside, net.host);
        let line = format!("{outside} via {router} dev node0 proto 157 src {host}");
        routes(net).contains(&line)
    })
    .await;
    assert_eq!(connect(&at(net.outside, 443)).await.unwrap(), net.host);
    assert_eq!(connect(&at(net.host, 30443)).await.unwrap(), net.host);
    // The node is a router for others: what calls it must get its answer through it.
    assert_eq!(pod.connect(&at(net.host, 30443)).await.unwrap(), net.host);
    assert_eq!(
        client.connect(&at(net.host, 30443)).await.unwrap(),
        net.host
    );
}

#[test]
fn host_ports_lead_to_the_pod_until_it_goes() {
    on_node(|node| async move { host_ports(&node, &V4, IPV4).await });
}

#[test]
fn host_ports_lead_to_the_pod_until_it_goes_with_ipv6() {
    on_node(|node| async move { host_ports(&node, &V6, BOTH).await });
}

async fn host_ports(node: &Node, net: &Net, nets: &[&Net]) {
    let (client, pod) = scene(node, nets).await;
    wire(
        node,
        &pod,
        &[
            "TCP/*/8080/80",
            "TCP/127.0.0.1/8081/80",
            &format!("TCP/{}/8082/80", net.host),
            &format!("TCP/{}/8083/80", net.any),
        ],
    )
    .await;
    let from_client = async |port: u16| client.connect(&at(net.host, port)).await;
    assert_eq!(from_client(8080).await.unwrap(), net.client);
    assert_eq!(from_client(8082).await.unwrap(), net.client);
    assert_eq!(from_client(8083).await.unwrap(), net.client);
    assert!(from_client(8081).await.is_err());
    for (ip, port, source) in [
        ("127.0.0.1", 8080, V4.join),
        ("127.0.0.1", 8081, V4.join),
        (net.host, 8080, net.join),
        (net.host, 8082, net.join),
    ] {
        assert_eq!(connect(&at(ip, port)).await.unwrap(), source, "{ip} {port}");
    }
    assert!(connect("127.0.0.1:8082").await.is_err());
    assert_eq!(pod.connect(&at(net.host, 8080)).await.unwrap(), net.join);
    let remembered = node
        .agent
        .ovs
        .view()
        .port(&pod.id)
        .unwrap()
        .facts
        .host_ports;
    assert_eq!(remembered.len(), 4);
    del::del(&node.agent, &pod.id).await.unwrap();
    eventually("rules gone", Duration::from_secs(3), || {
        !run("nft", &["list", "ruleset"]).contains(net.pod)
    })
    .await;
    assert!(from_client(8080).await.is_err());
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
    on_node(|node| async move { datagrams(&node, &V4, IPV4).await });
}

#[test]
fn a_client_that_sent_datagrams_before_there_was_a_rule_gets_through_with_ipv6() {
    on_node(|node| async move { datagrams(&node, &V6, BOTH).await });
}

async fn datagrams(node: &Node, net: &Net, nets: &[&Net]) {
    let (client, pod) = scene(node, nets).await;
    wire(node, &pod, &[]).await;
    let server = pod.udp_at(net.any, 53).await;
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            if &buffer[..length] == b"end" {
                return;
            }
            let _ = server.send_to(b"pod", from);
        }
    });
    let socket = client.udp_at(net.any, 5000).await;
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let ask = |what: &[u8]| {
        let mut buffer = [0; 8];
        let _ = socket.send_to(what, (net.host, 30053));
        socket
            .recv_from(&mut buffer)
            .map(|(length, _)| buffer[..length].to_vec())
    };
    assert!(ask(b"x").is_err());
    load_balancer(node, "dns", &at(net.cluster, 53), &at(net.pod, 53), "udp");
    let spec = |node_port: u16| json!({"clusterIP": net.cluster, "ports": [{"port": 53, "nodePort": node_port, "protocol": "UDP"}]});
    let endpoints = slice("dns", "UDP", 53, &[(net.pod, NODE)]);
    told(node, [service("dns", spec(30053)), endpoints]).await;
    // A refusal of the first may still be waiting in the socket.
    let answer = ask(b"x").or_else(|_| ask(b"x"));
    assert_eq!(answer.unwrap(), b"pod");
    told(node, [service("dns", spec(30054))]).await;
    assert!(ask(b"x").is_err(), "that port is nobody's now");
    let _ = socket.send_to(b"end", (net.host, 30054));
    echo.join().unwrap();
}

#[test]
fn answers_of_the_join_address_leave_by_the_node_interface() {
    on_node(|node| async move {
        scene(&node, BOTH).await;
        for (net, client) in [(V4, "203.0.113.9"), (V6, "2001:db8::99")] {
            way_back(&net, client).await;
        }
    });
}

async fn way_back(net: &Net, client: &str) {
    let family = if net.any == "::" { "-6" } else { "-4" };
    let route = || run("ip", &["route", "get", client, "from", net.join]);
    let (router, _) = net.join_router.split_once('/').unwrap();
    let rules = || run("ip", &[family, "rule"]);
    eventually("a way back", Duration::from_secs(3), || {
        let known = rules().contains(&format!("from {} lookup 157", net.join));
        known && route().contains(&format!("via {router} dev node0"))
    })
    .await;
    run("ip", &[family, "rule", "del", "from", net.join]);
    eventually("put back", Duration::from_secs(3), || {
        rules().matches("lookup 157").count() == 2
    })
    .await;
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

#[test]
fn servers_on_the_node_are_called_at_the_join_address_wherever_they_listen() {
    on_node(|node| async move { servers(&node, &V4, IPV4).await });
}

#[test]
fn servers_on_the_node_are_called_at_the_join_address_wherever_they_listen_with_ipv6() {
    on_node(|node| async move { servers(&node, &V6, BOTH).await });
}

/// Services call hostNetwork servers at the join address, and many listen at the node's own address only.
async fn servers(node: &Node, net: &Net, nets: &[&Net]) {
    let (_client, pod) = scene(node, nets).await;
    wire(node, &pod, &[]).await;
    told(node, []).await;
    let greet = |address: &str| {
        let listener = TcpListener::bind(address).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"node").unwrap();
        })
    };
    let ask = async |port: u16, target: u16| {
        let socket = pod.udp_at(net.any, port).await;
        socket.connect((net.join, target)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket.send(b"end").unwrap();
        let mut buffer = [0; 8];
        socket.recv(&mut buffer).map(|length| length == 3)
    };
    let everywhere = (greet(&at(net.any, 7000)), echo(&at(net.any, 7000)));
    assert_eq!(pod.connect(&at(net.join, 7000)).await.unwrap(), "node");
    assert!(ask(5000, 7000).await.unwrap());
    // A client of an elastic address is one to whom the node has another route.
    run(
        "ip",
        &[
            "route",
            "add",
            net.everywhere,
            "via",
            net.client,
            "table",
            "200",
        ],
    );
    run(
        "ip",
        &[
            if net.any == "::" { "-6" } else { "-4" },
            "rule",
            "add",
            "pref",
            "15800",
            "to",
            net.pod,
            "lookup",
            "200",
        ],
    );
    let there = at(net.host, 7001);
    let there = (greet(&there), echo(&there));
    assert_eq!(pod.connect(&at(net.join, 7001)).await.unwrap(), "node");
    assert!(ask(5001, 7001).await.unwrap());
    for (tcp, udp) in [everywhere, there] {
        tcp.join().unwrap();
        udp.join().unwrap();
    }
}

/// Whatever comes after whatever: the difference leads where the whole does, and nft takes it.
#[test]
fn differences_lead_to_the_same_table_as_the_whole() {
    on_node(|_| async move {
        let mut world = World::new(NODE);
        for change in listed() {
            world.apply(change);
        }
        let list = || run("nft", &["list", "ruleset"]);
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
                let ips = [("10.96.0.", 1 + dice(200)), ("fd00:96::", 1 + dice(200))];
                let ips = ips.map(|(net, number)| format!("{net}{number}"));
                let spec = json!({
                    "clusterIPs": ips[..=dice(2) as usize],
                    "externalIPs": [format!("192.0.2.{}", dice(4)), format!("2001:db8::{}", dice(4))],
                    "externalTrafficPolicy": policy, "sessionAffinity": affinity,
                    "ports": ports,
                });
                world.apply(match dice(5) {
                    0 => Change::Services(Delta::One(key(&name), None)),
                    _ => service(&name, spec),
                });
                let ip = format!("10.{}.0.{}", 15 + dice(2), dice(9));
                let other = format!("10.16.0.{}", 10 + dice(9));
                let (ip, other) = match dice(2) {
                    0 => (ip, other),
                    _ => (
                        format!("fd00:15::{}", dice(9)),
                        format!("fd00:16::{}", dice(9)),
                    ),
                };
                let protocol = ["TCP", "UDP", "SCTP"][dice(3) as usize];
                world.apply(slice(
                    &name,
                    protocol,
                    8080,
                    &[(ip.as_str(), NODE), (other.as_str(), "node-2")][..dice(3) as usize],
                ));
            }
            let ranges = [
                "10.16.0.0/16",
                "10.16.0.0/15",
                "10.17.0.0/24",
                "fd00:16::/64",
            ]
            .map(|r| r.parse().unwrap());
            world.set_default_vpc(ranges[dice(5) as usize..].iter().copied().collect());
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
