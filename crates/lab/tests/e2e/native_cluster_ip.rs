//! Kubernetes' own Services, by their cluster address: from Pods, from nodes, from Pods on a node's network.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use crate::city::default_vpc;
use crate::cluster::{NODES, SOON, delete, eventually, get, in_pod, on};
use crate::native::{Client, PORTS, answered_by, refused, service};
use crate::scene::{Scene, probers_gone};

#[test]
fn native_pods_and_nodes_reach_pods_and_host_network_pods() {
    let scene = default_vpc();
    // The port `web` of `h` is another number than the others'. It answers with its node's name.
    let all = "  selector: {all: \"yes\"}\n";
    let vip = service(&scene, "reach", &format!("{all}{PORTS}"));
    let all = ["node-2", "s0", "s1", "s2"];
    for client in ["c1", "c2", "h"] {
        answered_by(&scene, Client::Pod(client), &vip, 80, &all);
    }
    for node in NODES {
        answered_by(&scene, Client::Machine(node), &vip, 80, &all);
    }
    assert_eq!(
        scene.source_seen("c1", &vip, 80),
        scene.pod_ip("c1"),
        "a Pod's address is kept"
    );
}

#[test]
fn native_a_lone_backend_is_its_own_client() {
    let scene = default_vpc();
    for (backend, says) in [("s0", "s0"), ("h", "node-2")] {
        let spec = format!("  selector: {{name: {backend}}}\n{PORTS}");
        let vip = service(&scene, &format!("lone-{backend}"), &spec);
        answered_by(&scene, Client::Pod(backend), &vip, 80, &[says]);
    }
}

#[test]
fn native_nodes_reach_the_api_server_by_its_cluster_ip() {
    let service = get(&["-n", "default", "service", "kubernetes"]);
    let vip = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    for node in NODES {
        let script =
            format!("curl -sk -m 5 -o /dev/null -w '%{{http_code}}' https://{vip}:443/version");
        eventually(&format!("{node} reaches the API server"), SOON, || {
            let printed = on(node, &script);
            // Answered at all: anonymous requests are refused or served as the cluster's RBAC has it.
            match printed.out.trim() {
                "200" | "401" | "403" => Ok(()),
                _ => Err(format!("{printed:?}")),
            }
        });
    }
}

#[test]
fn native_affinity_keeps_a_client_on_one_backend_until_it_is_switched_off() {
    let scene = default_vpc();
    let selector = "  selector: {app: web}\n";
    let vip = service(
        &scene,
        "affinity",
        &format!("{selector}  sessionAffinity: ClientIP\n{PORTS}"),
    );
    for client in [
        Client::Pod("c0"),
        Client::Machine("node-1"),
        Client::Machine("node-3"),
    ] {
        eventually(&format!("{client} is answered by one"), SOON, || {
            let answers = client.tcp(&scene, &vip, 80, 15);
            match (answers.by.len(), answers.failed.len()) {
                (1, 0) => Ok(()),
                _ => Err(format!("{answers:?}")),
            }
        });
    }
    service(
        &scene,
        "affinity",
        &format!("{selector}  sessionAffinity: None\n{PORTS}"),
    );
    answered_by(&scene, Client::Pod("c0"), &vip, 80, &["s0", "s1", "s2"]);
}

#[test]
fn timed_native_affinity_timeout_loses_no_first_connection_and_holds_until_it_was_idle() {
    let scene = default_vpc();
    // Each port remembers its clients for itself: 40 ports are to one client what one port is to 40.
    let fresh: String = (0..40)
        .map(|n| {
            let (protocol, target) = if n % 4 == 3 {
                ("UDP", "dgram")
            } else {
                ("TCP", "web")
            };
            let port = 2_000 + n;
            format!(
                "    - {{name: p{n}, port: {port}, protocol: {protocol}, targetPort: {target}}}\n"
            )
        })
        .collect();
    let affinity = "  selector: {app: web}
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 10}}
";
    let vip = service(
        &scene,
        "affinity-timeout",
        &format!("{affinity}{PORTS}{fresh}"),
    );
    for client in [
        Client::Pod("c0"),
        Client::Machine("node-1"),
        Client::Machine("node-3"),
    ] {
        eventually(&format!("{client} is answered"), SOON, || {
            let answers = client.tcp(&scene, &vip, 80, 1);
            match answers.failed.len() {
                0 => Ok(()),
                _ => Err(format!("{answers:?}")),
            }
        });
        probers_gone();
        let connections = connection_times(&scene, client, &vip, 2_000..2_040);
        // A SYN is repeated after a second.
        let at_once = |seconds: &f64| *seconds > 0.0 && *seconds < 0.9;
        assert!(
            connections.len() == 30 && connections.iter().all(at_once),
            "{client}: {connections:?}"
        );
        for port in (2_000..2_040).filter(|port| port % 4 == 3) {
            let answers = client.udp(&scene, &vip, port, 1);
            assert_eq!(answers.failed.len(), 0, "{client}, UDP port {port}");
        }
    }
    holds_until_idle(&scene, Client::Pod("c0"), &vip);
}

/// Seconds until each TCP port of these was connected; 0 if it was not.
fn connection_times(scene: &Scene, client: Client<'_>, vip: &str, ports: Range<u16>) -> Vec<f64> {
    let tcp: Vec<String> = ports
        .filter(|port| port % 4 != 3)
        .map(|port| port.to_string())
        .collect();
    let script = format!(
        "for p in {}; do curl -s -o /dev/null -m 5 -w '%{{time_connect}}\\n' http://{vip}:$p/hostname || true; done",
        tcp.join(" ")
    );
    let printed = match client {
        Client::Pod(pod) => in_pod(&scene.name, pod, &script),
        Client::Machine(machine) => on(machine, &script),
    };
    let printed = printed.must();
    printed
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect()
}

/// With a timeout of ten seconds: new connections begin it anew, and after it a client is balanced again.
fn holds_until_idle(scene: &Scene, client: Client<'_>, vip: &str) {
    let one = || {
        let answers = client.tcp(scene, vip, 80, 5);
        assert_eq!(
            (answers.by.len(), answers.failed.len()),
            (1, 0),
            "{answers:?}"
        );
        answers.by.into_keys().next()
    };
    client.tcp(scene, vip, 80, 1);
    // What is learned from the first connection counts once the datapath's cache follows.
    sleep(Duration::from_secs(1));
    let first = one();
    for _ in 0..3 {
        sleep(Duration::from_secs(6));
        assert_eq!(one(), first, "before ten seconds without a connection");
    }
    // By chance it is the same one again, but not this often.
    let moves = (0..10).any(|_| {
        sleep(Duration::from_secs(13));
        let answers = client.tcp(scene, vip, 80, 1);
        assert_eq!(answers.failed.len(), 0);
        answers.by.into_keys().next() != first
    });
    assert!(moves, "it stays beyond the timeout");
}

#[test]
fn native_internal_policy_local_leads_to_the_own_node_or_refuses() {
    let scene = Scene::new("native-local");
    scene.server("s0", "ovn-default", "node-1", "web");
    scene.server("s2", "ovn-default", "node-3", "web");
    for (i, node) in NODES.iter().enumerate() {
        scene.client(&format!("c{i}"), "ovn-default", node);
    }
    let spec = format!("  internalTrafficPolicy: Local\n  selector: {{app: web}}\n{PORTS}");
    let vip = service(&scene, "svc", &spec);
    scene.pods_ready();
    for (client, server) in [
        (Client::Pod("c0"), "s0"),
        (Client::Machine("node-1"), "s0"),
        (Client::Pod("s0"), "s0"),
        (Client::Pod("c2"), "s2"),
        (Client::Machine("node-3"), "s2"),
    ] {
        answered_by(&scene, client, &vip, 80, &[server]);
    }
    refused(&scene, Client::Pod("c1"), &vip, 80);
    refused(&scene, Client::Machine("node-2"), &vip, 80);
    delete(&scene.name, "pod", "s0");
    refused(&scene, Client::Pod("c0"), &vip, 80);
    scene.server("s1", "ovn-default", "node-2", "web");
    scene.pods_ready();
    answered_by(&scene, Client::Pod("c1"), &vip, 80, &["s1"]);
    service(
        &scene,
        "svc",
        &spec.replace("Policy: Local", "Policy: Cluster"),
    );
    answered_by(&scene, Client::Pod("c0"), &vip, 80, &["s1", "s2"]);
    // The last of its kind goes, and one comes again: ovn-controller must live through both.
    delete(&scene.name, "service", "svc");
    let vip = service(&scene, "svc", &spec);
    answered_by(&scene, Client::Pod("c1"), &vip, 80, &["s1"]);
}
