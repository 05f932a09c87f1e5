//! Scenes that tests share, one a subject: who only asks needs no Pods of its own. Each test adds Services and
//! Eips of names of its own, and changes nothing else.

use serde_json::json;

use crate::asking::gateways;
use crate::cluster::{NODES, apply, patch};
use crate::scene::Scene;

/// A tenant's Vpc, with a backend on each node in two Subnets and a client on each node in a third; and
/// another Vpc with the same range.
///
/// | Pods | Vpc, Subnet | on | label |
/// |---|---|---|---|
/// | `s0` `s1` `s2` | `v`, `a` `b` `a` | `node-1` `node-2` `node-3` | `app: web` |
/// | `c0` `c1` `c2` | `v`, `c` | each node | |
/// | `o0` `o1` `o2` | `w`, `w1` | each node | |
///
/// Returns the name of `v` too.
pub fn tenant() -> (Scene, String) {
    let scene = Scene::shared("tenant", |scene| {
        let subnets = [
            ("a", "10.0.1.0/24"),
            ("b", "10.0.2.0/24"),
            ("c", "10.0.3.0/24"),
        ];
        scene.vpc("v", &subnets);
        scene.vpc("w", &[("w1", "10.0.1.0/24")]);
        for (i, node) in NODES.iter().enumerate() {
            let subnet = if i == 1 { "b" } else { "a" };
            scene.server(&format!("s{i}"), subnet, node, "web");
            scene.client(&format!("c{i}"), "c", node);
            scene.client(&format!("o{i}"), "w1", node);
        }
    });
    let vpc = scene.full("v");
    (scene, vpc)
}

/// Pods of the default Vpc, which has both families.
///
/// | Pods | on | labels |
/// |---|---|---|
/// | `s0` `s1` | `node-1` `node-2` | `app: web`, `nodes: two`, `all: "yes"` |
/// | `s2` | `node-3` | `app: web`, `all: "yes"` |
/// | `h`, on the node's own network; its port `web` is 18480 | `node-2` | `app: host`, `all: "yes"` |
/// | `c0` `c1` `c2`, clients | each node | |
pub fn default_vpc() -> Scene {
    Scene::shared("default", |scene| {
        scene.server_on_node("h", "node-2", "host", 18_480);
        for (i, node) in NODES.iter().enumerate() {
            scene.server(&format!("s{i}"), "ovn-default", node, "web");
            scene.client(&format!("c{i}"), "ovn-default", node);
        }
        for pod in ["s0", "s1", "s2", "h"] {
            let two = ["s0", "s1"].contains(&pod).then_some("two");
            let fields = json!({"metadata": {"labels": {"all": "yes", "nodes": two}}});
            patch(&scene.name, "pod", pod, &fields).must();
        }
    })
}

/// A Vpc whose two Subnets have both families each; a backend in each of them, a client beside one of them
/// and one on a third node.
///
/// | Pods | Subnet | on | label |
/// |---|---|---|---|
/// | `s0` `s1` | `a` `b` | `node-1` `node-2` | `app: web` |
/// | `near` `far` | `a` `b` | `node-1` `node-3` | |
///
/// Returns the line that names the Vpc in a YusurService's spec too.
pub fn dual() -> (Scene, String) {
    let scene = Scene::shared("dual", |scene| {
        let a = ("a", "10.0.1.0/24,fd00:1:1::/64");
        let b = ("b", "10.0.2.0/24,fd00:1:2::/64");
        scene.vpc("v", &[a, b]);
        scene.server("s0", "a", "node-1", "web");
        scene.server("s1", "b", "node-2", "web");
        scene.client("near", "a", "node-1");
        scene.client("far", "b", "node-3");
    });
    let vpc = format!("  vpc: {}\n", scene.full("v"));
    (scene, vpc)
}

/// Three Vpcs with backends, of which `p` and `q` have the same range, and in it the same address twice; another one with that
/// range, `w`; and both EipGateways.
///
/// | Pods | Vpc | on | label |
/// |---|---|---|---|
/// | those of [`backends_of_three_vpcs`] | | | `app: web` |
/// | `c-p0` `c-p1` `c-p2`, and likewise `q` `r` `w` | by their names | each node | |
pub fn three_vpcs() -> Scene {
    gateways();
    Scene::shared("three-vpcs", |scene| {
        backends_of_three_vpcs(scene, "10.0.1.51");
        scene.vpc("w", &[("w-net", "10.0.1.0/24")]);
        for vpc in ["p", "q", "r", "w"] {
            for (i, node) in NODES.iter().enumerate() {
                scene.client(&format!("c-{vpc}{i}"), &format!("{vpc}-net"), node);
            }
        }
    })
}

/// Backends in three Vpcs `p`, `q` and `r`, of which the first two have the same range, and in it the same address `twice`: no two Pods
/// of a node have the same, so each scene has one of its own.
///
/// | Pods | Vpc | on | label |
/// |---|---|---|---|
/// | `p0` `p1` | `p` | `node-1` `node-2` | `app: web` |
/// | `q0`, whose address is that of `p0` | `q` | `node-3` | `app: web` |
/// | `r0` | `r` | `node-1` | `app: web` |
pub fn backends_of_three_vpcs(scene: &mut Scene, twice: &str) {
    for (vpc, cidr) in [
        ("p", "10.0.1.0/24"),
        ("q", "10.0.1.0/24"),
        ("r", "10.0.3.0/24"),
    ] {
        scene.vpc(vpc, &[(&format!("{vpc}-net"), cidr)]);
    }
    for (pod, subnet, node) in [("p0", "p-net", "node-1"), ("q0", "q-net", "node-3")] {
        let yaml = scene.server_yaml(pod, subnet, node, "web", "");
        let fixed = format!("annotations: {{iaas.yusur.io/ip: {twice}, ");
        apply(&yaml.replace("annotations: {", &fixed)).must();
    }
    scene.server("p1", "p-net", "node-2", "web");
    scene.server("r0", "r-net", "node-1", "web");
}
