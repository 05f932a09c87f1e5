//! Kubernetes' own Services, by the nodes' addresses and by external ones.

use crate::asking::{assert_unanswered, machine, target};
use crate::city::default_vpc;
use crate::cluster::{NODES, SOON, api, apply, delete, eventually, get, on};
use crate::native::{Client, PORTS, answered_by, node_address, service};
use crate::scene::{Scene, ask_on};

/// Selects two servers on two of three nodes.
const TWO: &str = "  selector: {nodes: two}\n";

/// The node port of the Service's port `web`; both ports have the same one.
fn node_port(scene: &Scene, service: &str) -> u16 {
    let service = get(&["-n", &scene.name, "service", service]);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64();
    u16::try_from(port.expect("a node port")).expect("a port")
}

#[test]
fn native_node_ports_answer_on_every_node_whoever_asks() {
    let scene = default_vpc();
    let ports = PORTS.replace("targetPort", "nodePort: 31480, targetPort");
    let spec = format!("  type: NodePort\n{TWO}{ports}");
    service(&scene, "node-port", &spec);
    let port = node_port(&scene, "node-port");
    for node in NODES {
        let address = node_address(node);
        for client in [
            Client::Machine("external"),
            Client::Machine("node-1"),
            Client::Machine("node-3"),
            Client::Pod("c2"),
            Client::Pod("s0"),
        ] {
            answered_by(&scene, client, &address, port, &["s0", "s1"]);
        }
    }
}

#[test]
fn native_node_ports_lead_to_host_network_pods() {
    let scene = default_vpc();
    let ports = PORTS.replace("targetPort", "nodePort: 31481, targetPort");
    let spec = format!("  type: NodePort\n  selector: {{app: host}}\n{ports}");
    service(&scene, "node-port-host", &spec);
    for node in NODES {
        let address = node_address(node);
        for client in ["external", "node-1", "node-2"] {
            let client = Client::Machine(client);
            answered_by(&scene, client, &address, 31_481, &["node-2"]);
        }
    }
}

#[test]
fn native_a_node_port_that_is_taken_is_refused_and_its_holder_serves_on() {
    let scene = default_vpc();
    // What an earlier run may have left in the shared scene.
    for name in ["first", "second"] {
        let deleted = api().delete(&scene.name, "service", name, None);
        deleted.expect("the API server answers");
    }
    let ports = PORTS.replace("targetPort", "nodePort: 31483, targetPort");
    let first = format!("  type: NodePort\n{TWO}{ports}");
    service(&scene, "first", &first);
    let second = first.replace("nodes: two", "name: s2");
    let yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: second, namespace: {}}}\nspec:\n{second}",
        scene.name
    );
    let refused = apply(&yaml);
    let words = ["31483", "already allocated"];
    assert!(
        !refused.ok && words.iter().all(|word| refused.err.contains(word)),
        "{refused:?}"
    );
    let (external, node) = (Client::Machine("external"), node_address("node-3"));
    answered_by(&scene, external, &node, 31_483, &["s0", "s1"]);
    // The port is free with its holder's end, and belongs to whoever comes then.
    delete(&scene.name, "service", "first");
    service(&scene, "second", &second);
    for node in NODES {
        answered_by(&scene, external, &node_address(node), 31_483, &["s2"]);
    }
    delete(&scene.name, "service", "second");
}

#[test]
fn native_external_policy_local_keeps_the_client_and_its_node() {
    let scene = default_vpc();
    let ports = PORTS.replace("targetPort", "nodePort: 31482, targetPort");
    let local = "  externalTrafficPolicy: Local\n";
    let spec = format!("  type: NodePort\n{local}{TWO}{ports}");
    service(&scene, "external-local", &spec);
    let external = Client::Machine("external");
    for (node, server) in [("node-1", "s0"), ("node-2", "s1")] {
        let address = node_address(node);
        answered_by(&scene, external, &address, 31_482, &[server]);
        let route = on("external", &format!("ip route get {address}")).must();
        let seen = ask_on("external", &address, 31_482, 4);
        let sources: Vec<_> = seen.clients.iter().collect();
        let [source] = sources[..] else {
            panic!("{seen:?}");
        };
        assert!(
            route.contains(&format!("src {source} ")),
            "{seen:?}: {route}"
        );
    }
    let elsewhere = node_address("node-3");
    // It has no endpoint.
    assert_unanswered(&machine("external"), target(&elsewhere, 31_482));
}

/// A route of `external` that goes with the test.
struct Route(String);

impl Drop for Route {
    fn drop(&mut self) {
        on("external", &format!("ip route del {}", self.0));
    }
}

#[test]
fn native_external_addresses_answer_pods_nodes_and_the_outside() {
    let scene = default_vpc();
    // Of the nodes' own network, as they have no route to anywhere else, but nobody's.
    let node = node_address("node-3");
    let (network, _) = node.rsplit_once('.').expect("an IPv4 address");
    let address = &format!("{network}.222");
    let spec = format!("  externalIPs: [{address}]\n{TWO}{PORTS}");
    let vip = service(&scene, "external-ips", &spec);
    for client in [
        Client::Pod("c2"),
        Client::Pod("s0"),
        Client::Machine("node-1"),
        Client::Machine("node-3"),
    ] {
        answered_by(&scene, client, address, 80, &["s0", "s1"]);
    }
    answered_by(&scene, Client::Pod("c2"), &vip, 80, &["s0", "s1"]);
    let route = Route(format!("{address}/32 via {node}"));
    on("external", &format!("ip route replace {}", route.0)).must();
    let external = Client::Machine("external");
    answered_by(&scene, external, address, 80, &["s0", "s1"]);
}

#[test]
fn native_the_health_check_port_says_which_nodes_have_endpoints() {
    let scene = default_vpc();
    // Of a class that nobody serves: the type is what brings the health check's port.
    let spec = format!(
        "  type: LoadBalancer\n  loadBalancerClass: example.org/nobody\n  externalTrafficPolicy: Local\n{TWO}{PORTS}"
    );
    service(&scene, "health-check", &spec);
    let service = get(&["-n", &scene.name, "service", "health-check"]);
    let port = service["spec"]["healthCheckNodePort"]
        .as_u64()
        .expect("a port");
    for (node, code) in [("node-1", "200"), ("node-2", "200"), ("node-3", "503")] {
        let script = format!(
            "curl -s -m 3 -o /dev/null -w '%{{http_code}}' http://{}:{port}/healthz",
            node_address(node)
        );
        eventually(&format!("{node} says {code}"), SOON, || {
            let printed = on("external", &script);
            match printed.out.trim() {
                said if said == code => Ok(()),
                said => Err(said.to_owned()),
            }
        });
    }
}
