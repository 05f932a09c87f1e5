//! Every entry to a Pod of the default Vpc beside every other: each question is answered by the way that it came, each ICMP error too,
//! and what the Pod itself begins leaves by its node, from whatever port.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use serde_json::json;
use ycloud_lab::ask::{self, Heard, Protocol};
use ycloud_lab::place::Place;

use crate::asking::{
    PATIENCE, SILENCE, assert_answer, clients_outside, gateways, machine, pod, target,
};
use crate::cluster::{SOON, apply, eventually, get, on, patch};
use crate::native::{node_address, service};
use crate::scene::{Scene, at, links_at_rest};

/// Ports of the Pod's node that lead to it: `hostPort` of TCP and UDP alike.
const HOST_PORT: u16 = 18_490;
/// Node ports of a Service with `externalTrafficPolicy: Local` and of one with `Cluster`; one more is for the closed port.
const LOCAL: u16 = 31_470;
const CLUSTER: u16 = 31_472;
/// A port at which the Pod answers by UDP that it is closed.
const CLOSED: u16 = 82;
/// A port that an EIP leads to and from which the Pod itself calls.
const OWN: u16 = 7_777;

/// Three ports, as numbers of node ports where there are some: HTTP, datagrams, and datagrams to a port where nobody listens.
fn ports(node_port: Option<u16>) -> String {
    let fixed = |offset| {
        node_port.map_or(String::new(), |port| {
            format!(", nodePort: {}", port + offset)
        })
    };
    format!(
        "  ports:
    - {{name: web, port: 80, protocol: TCP, targetPort: web{0}}}
    - {{name: dgram, port: 80, protocol: UDP, targetPort: dgram{0}}}
    - {{name: closed, port: {CLOSED}, protocol: UDP, targetPort: 9{1}}}
",
        fixed(0),
        fixed(1)
    )
}

/// A Service with an EIP; returns the address once it answers somebody outside, or refuses.
fn eip(scene: &Scene, name: &str, spec: &str, port: u16) -> String {
    let class = "  type: LoadBalancer\n  loadBalancerClass: iaas.yusur.io/eip\n  allocateLoadBalancerNodePorts: false\n";
    service(scene, name, &format!("{class}{spec}"));
    let address = eventually("the Service has its address", SOON, || {
        let service = get(&["-n", &scene.name, "service", name]);
        let ingress = &service["status"]["loadBalancer"]["ingress"][0];
        let address = ingress["ip"].as_str().map(str::to_owned);
        address.ok_or_else(|| service["status"].to_string())
    });
    eventually("the EIP leads there", SOON, || {
        match ask::knock(
            &machine("external"),
            Protocol::Tcp,
            target(&address, port),
            SILENCE,
        ) {
            Heard::Answer | Heard::Refusal => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    address
}

#[test]
fn entries_answer_by_the_way_they_came_and_the_pods_own_calls_by_its_node() {
    gateways();
    let scene = Scene::new("entries");
    let yaml = scene.server_yaml("p", "ovn-default", "node-1", "p", "");
    let tcp = format!("containerPort: 8080, hostPort: {HOST_PORT}");
    let udp = format!("containerPort: 8081, hostPort: {HOST_PORT}");
    let yaml = yaml
        .replace("containerPort: 8080", &tcp)
        .replace("containerPort: 8081", &udp);
    apply(&yaml).must();
    scene.client("c", "ovn-default", "node-1");
    let labels = json!({"metadata": {"labels": {"app": "c"}}});
    patch(&scene.name, "pod", "c", &labels).must();
    scene.pods_ready();
    let vip = service(
        &scene,
        "cluster-ip",
        &format!("  selector: {{app: p}}\n{}", ports(None)),
    );
    for (name, policy, port) in [("local", "Local", LOCAL), ("cluster", "Cluster", CLUSTER)] {
        let policy = format!("  type: NodePort\n  externalTrafficPolicy: {policy}\n");
        service(
            &scene,
            name,
            &format!("{policy}  selector: {{app: p}}\n{}", ports(Some(port))),
        );
    }
    let own_node = node_address("node-1");
    let other_node = node_address("node-2");
    let entries = [
        ("node port, Local", target(&own_node, LOCAL), true),
        ("node port, Cluster", target(&own_node, CLUSTER), false),
        ("another node's port", target(&other_node, CLUSTER), false),
        ("host port", target(&own_node, HOST_PORT), true),
    ];
    // The nodes know the way to this address of it alone.
    let outside = at("external");
    let route = on("external", &format!("ip route get {own_node}")).must();
    let (_, source) = route.split_once(" src ").expect("a source");
    let source = source.split_whitespace().next().expect("an address");
    let source: IpAddr = source.parse().expect("an address");
    let all_answer = || {
        for (entry, to, seen) in entries {
            let clients = assert_answer(&outside, to, &["p"]);
            let as_itself = clients == [source].into();
            assert!(
                !seen || as_itself,
                "{entry}: {clients:?} instead of {source}"
            );
        }
    };
    let closed = |client: &Place, to: SocketAddr| {
        let heard = ask::knock(client, Protocol::Udp, to, PATIENCE);
        assert_eq!(heard, Heard::Refusal, "{to} is closed");
    };
    for (entry, to, _) in entries {
        eventually(entry, SOON, || {
            match ask::knock(&outside, Protocol::Udp, to, SILENCE) {
                Heard::Answer => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    links_at_rest();
    all_answer();
    closed(&outside, target(&own_node, LOCAL + 1));

    // The same, beside an EIP of the same Pod and port; and the EIP beside them.
    let address = eip(
        &scene,
        "eip",
        &format!("  selector: {{app: p}}\n{}", ports(None)),
        80,
    );
    for _ in 0..2 {
        all_answer();
        for (client, source) in clients_outside() {
            let clients = assert_answer(&client, target(&address, 80), &["p"]);
            assert_eq!(clients, [source].into(), "the source is kept");
        }
    }
    closed(&outside, target(&own_node, LOCAL + 1));
    closed(&machine("external"), target(&address, CLOSED));
    let direct = scene.pod_ip("p");
    for client in [pod(&scene, "c"), machine("node-1"), machine("node-3")] {
        for to in [
            target(&vip, 80),
            target(&address, 80),
            target(&own_node, CLUSTER),
        ] {
            assert_answer(&client, to, &["p"]);
        }
        let answered = ask::ask(&client, Protocol::Tcp, target(&direct, 8080), PATIENCE);
        assert_eq!(
            answered.expect("an answer").backend,
            "p",
            "{}",
            client.name()
        );
    }

    // What a Pod begins from a port that an EIP leads to leaves by its node.
    let spec = format!(
        "  selector: {{app: c}}\n  ports:\n    - {{port: {OWN}, protocol: TCP, targetPort: {OWN}}}\n"
    );
    eip(&scene, "own", &spec, OWN);
    let listener = outside.listen(SocketAddr::new(source, 0));
    let listener = listener.expect("a listener");
    let to = listener.local_addr().expect("an address");
    let accepted = thread::spawn(move || listener.accept().map(|(_, from)| from.ip()));
    let caller = pod(&scene, "c").from_port(OWN);
    caller.connect(to, PATIENCE).expect("its own call");
    let seen = accepted.join().expect("no panic").expect("a connection");
    assert_eq!(seen, own_node.parse::<IpAddr>().expect("an address"));
    // Nobody listens there: it hears so, by way of its node.
    let nobody = SocketAddr::new(source, 9);
    let heard = ask::knock(&caller, Protocol::Udp, nobody, PATIENCE);
    assert_eq!(heard, Heard::Refusal);
}
