//! Kubernetes' own Services, by their cluster address: from Pods, from nodes, from Pods on a node's network.

use crate::cluster::{SOON, eventually, get, kubectl, on};
use crate::native::{Client, NODES, PORTS, answered_by, refused, service};
use crate::scene::Scene;

#[test]
fn native_pods_and_nodes_reach_pods_and_host_network_pods() {
    let scene = Scene::new("native-reach");
    for (i, node) in NODES.iter().enumerate() {
        scene.server(&format!("s{i}"), "ovn-default", node, "web");
    }
    // Its port `web` is another number than the others'. It answers with its node's name.
    scene.server_on_node("h", "node-2", "web", 18_480);
    scene.client("near", "ovn-default", "node-2");
    scene.client("far", "ovn-default", "node-3");
    let vip = service(&scene, "svc", &format!("  selector: {{app: web}}\n{PORTS}"));
    scene.pods_ready();
    let all = ["node-2", "s0", "s1", "s2"];
    for client in ["near", "far", "h"] {
        answered_by(&scene, Client::Pod(client), &vip, 80, &all);
    }
    for node in NODES {
        answered_by(&scene, Client::Machine(node), &vip, 80, &all);
    }
    assert_eq!(
        scene.source_seen("near", &vip, 80),
        scene.pod_ip("near"),
        "a Pod's address is kept"
    );
}

#[test]
fn native_a_lone_backend_is_its_own_client() {
    let scene = Scene::new("native-hairpin");
    scene.server("pod", "ovn-default", "node-1", "pod");
    scene.server_on_node("host", "node-2", "host", 18_482);
    let pod = service(&scene, "pod", &format!("  selector: {{app: pod}}\n{PORTS}"));
    let host = service(
        &scene,
        "host",
        &format!("  selector: {{app: host}}\n{PORTS}"),
    );
    scene.pods_ready();
    answered_by(&scene, Client::Pod("pod"), &pod, 80, &["pod"]);
    answered_by(&scene, Client::Pod("host"), &host, 80, &["node-2"]);
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
    let scene = Scene::new("native-affinity");
    for (i, node) in NODES.iter().enumerate() {
        scene.server(&format!("s{i}"), "ovn-default", node, "web");
    }
    scene.client("c", "ovn-default", "node-1");
    let selector = "  selector: {app: web}\n";
    let vip = service(
        &scene,
        "svc",
        &format!("{selector}  sessionAffinity: ClientIP\n{PORTS}"),
    );
    scene.pods_ready();
    for client in [
        Client::Pod("c"),
        Client::Machine("node-1"),
        Client::Machine("node-3"),
    ] {
        eventually(&format!("{client} is answered by one"), SOON, || {
            let answers = client.tcp(&scene, &vip, 80, 15);
            match (answers.by.len(), answers.failed) {
                (1, 0) => Ok(()),
                _ => Err(format!("{answers:?}")),
            }
        });
    }
    service(
        &scene,
        "svc",
        &format!("{selector}  sessionAffinity: None\n{PORTS}"),
    );
    answered_by(&scene, Client::Pod("c"), &vip, 80, &["s0", "s1", "s2"]);
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
    kubectl(&["-n", &scene.name, "delete", "pod", "s0"]).must();
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
}
