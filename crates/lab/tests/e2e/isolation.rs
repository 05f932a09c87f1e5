//! Who must not be reached: other Vpcs, the nodes' network, the join network.

use std::thread;

use ycloud_lab::ask::{Heard, ping};

use crate::asking::{SILENCE, assert_unanswered, pod, target};
use crate::cluster::{apply, get, in_pod};
use crate::scene::Scene;

#[test]
fn a_tenant_reaches_neither_other_vpcs_nor_nodes_nor_the_outside() {
    let mut scene = Scene::new("isolation");
    scene.vpc("l", &[("l1", "10.7.1.0/24")]);
    scene.vpc("r", &[("r1", "10.8.1.0/24")]);
    scene.server("left", "l1", "node-1", "left");
    scene.server("right", "r1", "node-1", "right");
    scene.server("default", "ovn-default", "node-1", "default");
    scene.client("c", "l1", "node-2");
    scene.pods_ready();
    let nodes = get(&["nodes"]);
    let node = nodes["items"][0]["status"]["addresses"][0]["address"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let join = get(&["-n", "ycloud-system", "vnic", "node-1"])["status"]["ip"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(!join.is_empty() && !node.is_empty());
    // The client can reach what it should: otherwise silence proves nothing.
    assert_eq!(
        scene.ask("c", &scene.pod_ip("left"), 8080, 1).names(),
        ["left"]
    );
    let client = &pod(&scene, "c");
    let others = [
        ("a Pod of another Vpc", scene.pod_ip("right"), 8080),
        ("a Pod of the default Vpc", scene.pod_ip("default"), 8080),
        ("a node", node, 10250),
        ("a node's join address", join, 10250),
        ("the API server's ClusterIP", "10.96.0.1".into(), 443),
    ];
    thread::scope(|scope| {
        for (what, address, port) in others {
            scope.spawn(move || {
                let to = target(&address, port);
                assert_unanswered(client, to);
                assert_ne!(ping(client, to.ip(), SILENCE), Heard::Answer, "{what}");
            });
        }
    });
}

/// A client that may change its own network, as a hostile guest can.
pub fn hostile(scene: &Scene, name: &str, subnet: &str, node: &str) {
    let subnet = scene.full(subnet);
    apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, annotations: {{iaas.yusur.io/subnet: {subnet}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
    - name: tools
      image: ycloud.io/tools:v1
      imagePullPolicy: IfNotPresent
      command: [sleep, infinity]
      securityContext: {{capabilities: {{add: [NET_ADMIN]}}}}
",
        ns = scene.name
    ))
    .must();
}

#[test]
fn a_spoofed_source_address_does_not_pass() {
    let mut scene = Scene::new("spoof");
    scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    hostile(&scene, "c", "a", "node-2");
    scene.pods_ready();
    let server = scene.pod_ip("s0");
    assert_eq!(scene.ask("c", &server, 8080, 1).failed.len(), 0);
    in_pod(&scene.name, "c", "ip address add 10.0.1.77/32 dev eth0").must();
    let spoofed = in_pod(
        &scene.name,
        "c",
        &format!("curl -s -m 2 --interface 10.0.1.77 http://{server}:8080/clientip"),
    );
    assert!(
        !spoofed.ok,
        "a source address that is not its own passed: {}",
        spoofed.out
    );
}
