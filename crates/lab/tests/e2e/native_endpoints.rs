//! Endpoints of Kubernetes' own Services: written by hand, not ready, terminating.

use std::time::Duration;

use crate::cluster::{SOON, always, apply, delete, eventually, get, kill, start_deleting};
use crate::native::{Client, PORTS, answered_by, node_address, refused, service};
use crate::scene::Scene;

#[test]
fn native_endpoints_may_be_written_by_hand() {
    let scene = Scene::new("native-by-hand");
    let ns = &scene.name;
    scene.server("s0", "ovn-default", "node-1", "none");
    scene.server_on_node("h", "node-2", "none", 18_490);
    scene.client("c", "ovn-default", "node-2");
    let slices = service(&scene, "slices", PORTS);
    let endpoints = service(&scene, "endpoints", PORTS);
    scene.pods_ready();
    refused(&scene, Client::Pod("c"), &slices, 80);
    let (pod, node) = (scene.pod_ip("s0"), node_address("node-2"));
    let slice = |name: &str, address: &str, web: u16| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: {ns}, labels: {{kubernetes.io/service-name: slices}}}}
addressType: IPv4
ports:
  - {{name: web, protocol: TCP, port: {web}}}
  - {{name: dgram, protocol: UDP, port: {}}}
endpoints:
  - addresses: [{address}]
---
",
            web + 1
        )
    };
    apply(&(slice("by-hand-1", &pod, 8080) + &slice("by-hand-2", &node, 18_490))).must();
    apply(&format!(
        "apiVersion: v1
kind: Endpoints
metadata: {{name: endpoints, namespace: {ns}}}
subsets:
  - addresses: [{{ip: {pod}}}]
    ports: [{{name: web, port: 8080}}, {{name: dgram, port: 8081, protocol: UDP}}]
"
    ))
    .must();
    for client in [Client::Pod("c"), Client::Machine("node-2")] {
        answered_by(&scene, client, &slices, 80, &["node-2", "s0"]);
        answered_by(&scene, client, &endpoints, 80, &["s0"]);
    }
    delete(ns, "endpointslice", "by-hand-2");
    answered_by(&scene, Client::Pod("c"), &slices, 80, &["s0"]);
}

#[test]
fn native_unready_pods_count_only_where_they_are_published() {
    let scene = Scene::new("native-unready");
    let yaml = scene
        .server_yaml("s0", "ovn-default", "node-1", "web", "")
        .replace(
            "httpGet: {path: /hostname, port: 8080}",
            "exec: {command: [test, -e, /never]}",
        );
    apply(&yaml).must();
    scene.client("c", "ovn-default", "node-2");
    let selector = "  selector: {app: web}\n";
    let plain = service(&scene, "plain", &format!("{selector}{PORTS}"));
    let published = service(
        &scene,
        "published",
        &format!("{selector}  publishNotReadyAddresses: true\n{PORTS}"),
    );
    scene.pod_ready("c");
    for client in [Client::Pod("c"), Client::Machine("node-3")] {
        answered_by(&scene, client, &published, 80, &["s0"]);
        refused(&scene, client, &plain, 80);
    }
}

#[test]
fn native_the_last_terminating_pods_serve_until_another_is_ready() {
    let scene = Scene::new("native-terminating");
    // Answers on for half a minute after it was told to stop, and stays ready meanwhile.
    let yaml = scene
        .server_yaml("old", "ovn-default", "node-1", "web", "")
        .replace("GracePeriodSeconds: 0", "GracePeriodSeconds: 60")
        .replace("--udp-port=8081", "--udp-port=8081, --delay-shutdown=40");
    apply(&yaml).must();
    scene.client("c", "ovn-default", "node-2");
    let vip = service(&scene, "svc", &format!("  selector: {{app: web}}\n{PORTS}"));
    scene.pods_ready();
    answered_by(&scene, Client::Pod("c"), &vip, 80, &["old"]);
    start_deleting(&scene.name, "pod", "old");
    eventually("the endpoint is terminating", SOON, || {
        let selector = "kubernetes.io/service-name=svc";
        let slices = get(&["-n", &scene.name, "endpointslice", "-l", selector]);
        let conditions = &slices["items"][0]["endpoints"][0]["conditions"];
        match (&conditions["terminating"], &conditions["serving"]) {
            (terminating, serving) if terminating == true && serving == true => Ok(()),
            _ => Err(slices["items"][0]["endpoints"].to_string()),
        }
    });
    always(
        "the terminating Pod still answers",
        Duration::from_secs(4),
        || {
            let answers = Client::Pod("c").tcp(&scene, &vip, 80, 3);
            match answers.failed.len() {
                0 => Ok(()),
                _ => Err(format!("{answers:?}")),
            }
        },
    );
    scene.server("new", "ovn-default", "node-3", "web");
    scene.pod_ready("new");
    answered_by(&scene, Client::Pod("c"), &vip, 80, &["new"]);
    kill(&scene.name, "old");
}
