//! One YusurService has backends of every kind at once, and each of them answers.

use std::net::Ipv4Addr;

use ycloud_lab::backend::Kind;

use crate::asking::{assert_answer, gateways, machine, target};
use crate::backends::{ALL, CHECK, Mixed};
use crate::cluster::get;
use crate::scene::Scene;

#[test]
fn backends_of_every_kind_answer_and_are_probed_where_they_are() {
    let mixed = Mixed::new("be-every-kind");
    let scene = &mixed.scene;
    assert_answer(&mixed.client, mixed.to, &ALL);

    let ysvc = get(&["-n", &scene.name, "ysvc", "svc"]);
    let items = ysvc["status"]["backends"]["items"].as_array().cloned();
    let items: Vec<[String; 3]> = items
        .unwrap_or_default()
        .iter()
        .map(|item| ["name", "kind", "state"].map(|f| item[f].as_str().unwrap_or("").to_owned()))
        .collect();
    assert_eq!(
        items,
        [
            ["addr", "VNicIP", "Healthy"],
            ["bm", "BM", "Healthy"],
            ["pod", "Pod", "Healthy"],
            ["vm", "VM", "Healthy"]
        ],
        "{}",
        ysvc["status"]
    );
    assert_eq!(ysvc["status"]["backends"]["summary"], "4/4");

    let probes = scene.probes();
    assert_eq!(probes.keys().collect::<Vec<_>>(), ALL);
    for (name, chassis) in [
        ("addr", "node-3"),
        ("bm", "dpu-1"),
        ("pod", "node-1"),
        ("vm", "node-2"),
    ] {
        let status = &probes[name]["status"];
        assert_eq!(status["prober"], chassis, "{name}: {status}");
        let source = status["source"].as_str().unwrap_or_default();
        let source: Ipv4Addr = source.parse().expect("an IPv4 address");
        assert_eq!(source.octets()[..2], [100, 68], "{name}: {status}");
    }
}

#[test]
fn backends_of_every_kind_are_found_by_labels() {
    let mut scene = Scene::new("be-labels");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("pod", "a", "node-1", "pod");
    scene.client("client", "a", "node-2");
    let _bm = scene.behind_vnic(Kind::Server, "bm", "a", "dpu-1", "");
    let _addr = scene.behind_vnic(Kind::Address, "addr", "a", "node-3", "");
    // The VNics of Pods are no backends by themselves, whatever their labels.
    let all = "selector: {matchExpressions: [{key: app, operator: Exists}]}";
    scene.service_over(
        "svc",
        &[
            &format!("{{kind: VNicIP, {all}}}"),
            &format!("{{kind: Pod, {all}}}"),
        ],
        &format!("  vpc: {vpc}\n{CHECK}"),
    );
    scene.pods_ready();
    let vip = scene.programmed("svc", 3);
    let client = crate::asking::pod(&scene, "client");
    assert_answer(&client, target(&vip, 80), &["addr", "bm", "pod"]);
}

#[test]
fn backends_of_several_vpcs_and_kinds_answer_at_one_eip() {
    gateways();
    let mut scene = Scene::new("be-vpcs");
    let p = scene.vpc("p", &[("p-net", "10.0.1.0/24")]);
    let q = scene.vpc("q", &[("q-net", "10.0.1.0/24")]);
    // The same address twice.
    let ip = ", ip: 10.0.1.77";
    let _bm = scene.behind_vnic(Kind::Server, "bm", "p-net", "dpu-1", ip);
    let _addr = scene.behind_vnic(Kind::Address, "addr", "q-net", "node-3", ip);
    scene.server("pod", "q-net", "node-1", "pod");
    scene.service_over(
        "svc",
        &[
            &format!("{{kind: BM, vpc: {p}, name: bm}}"),
            &format!("{{kind: VNicIP, vpc: {q}, ip: 10.0.1.77}}"),
            &format!("{{kind: Pod, vpc: {q}, name: pod}}"),
        ],
        &format!("  type: LoadBalancer\n  scope: multiVpc\n{CHECK}"),
    );
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 3);
    assert_answer(
        &machine("external"),
        target(&eip, 80),
        &["addr", "bm", "pod"],
    );
}
