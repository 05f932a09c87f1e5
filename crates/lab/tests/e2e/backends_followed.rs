//! A backend that vanishes, changes address or moves is followed; who stays is not disturbed.

use std::thread;
use std::time::Duration;

use serde_json::json;
use ycloud_lab::ask::Protocol;
use ycloud_lab::backend::Kind;
use ycloud_lab::place::Place;

use crate::asking::{Stream, assert_answer, pod, target};
use crate::backends::{CHECK, assert_served};
use crate::cluster::{SLOW, SOON, condition, delete, eventually, get, patch};
use crate::scene::Scene;

/// How often the client asks.
const PACE: Duration = Duration::from_millis(50);

/// A Pod `pod` on node-1 and a client on node-3; the Vpc's name, and the client.
fn beside(name: &str) -> (Scene, String, Place) {
    let mut scene = Scene::new(name);
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("pod", "a", "node-1", "pod");
    scene.client("client", "a", "node-3");
    scene.pods_ready();
    let client = pod(&scene, "client");
    (scene, vpc, client)
}

/// Addresses of the endpoints of a Service, with the node of each.
fn endpoints(scene: &Scene, service: &str) -> Vec<(String, String)> {
    let label = format!("kubernetes.io/service-name={service}");
    let slices = get(&["-n", &scene.name, "endpointslices", "-l", &label]);
    let slices = slices["items"].as_array().cloned().unwrap_or_default();
    let all = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().cloned());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<(String, String)> = all
        .flatten()
        .map(|endpoint| (text(&endpoint["addresses"][0]), text(&endpoint["nodeName"])))
        .collect();
    found.sort();
    found
}

#[test]
fn timed_backends_followed_to_another_address_and_when_they_vanish() {
    let (scene, vpc, client) = beside("be-readdress");
    let at = |ip: &str| scene.behind_vnic(Kind::Server, "bm", "a", "dpu-1", &format!(", ip: {ip}"));
    let first = at("10.0.1.66");
    scene.service_over(
        "svc",
        &["{kind: BM, name: bm}", "{kind: Pod, name: pod}"],
        &format!("  vpc: {vpc}\n  drainSeconds: 1\n{CHECK}"),
    );
    let to = target(&scene.programmed("svc", 2), 80);
    assert_answer(&client, to, &["bm", "pod"]);

    // It vanishes, in order: its device answers until the VNic is gone.
    let stream = Stream::start(&client, Protocol::Tcp, to, PACE);
    thread::sleep(Duration::from_secs(1));
    delete(&scene.name, "vnic", "bm");
    scene.programmed("svc", 1);
    assert_served(&stream.finish());
    drop(first);
    assert_answer(&client, to, &["pod"]);
    let said = condition(
        &get(&["-n", &scene.name, "ysvc", "svc"]),
        "BackendsResolved",
    )
    .2;
    assert!(
        said.ends_with("spec.backends[0].name bm: there is no such BM"),
        "{said}"
    );
    eventually("nobody asks where it was", SOON, || {
        let probes = scene.probes();
        if probes.contains_key("bm") {
            Err(format!("{probes:?}"))
        } else {
            Ok(())
        }
    });

    // The same machine comes back at another address.
    let stream = Stream::start(&client, Protocol::Tcp, to, PACE);
    let _second = at("10.0.1.99");
    scene.programmed("svc", 2);
    thread::sleep(Duration::from_secs(1));
    assert_served(&stream.finish());
    let found = endpoints(&scene, "svc");
    let found: Vec<&str> = found.iter().map(|(ip, _)| ip.as_str()).collect();
    assert!(
        found.contains(&"10.0.1.99") && !found.contains(&"10.0.1.66"),
        "{found:?}"
    );
    assert_eq!(scene.probes()["bm"]["spec"]["target"]["ip"], "10.0.1.99");
    assert_answer(&client, to, &["bm", "pod"]);
}

#[test]
fn backends_followed_to_another_chassis() {
    let (scene, vpc, client) = beside("be-move");
    let first = scene.behind_vnic(Kind::Server, "bm", "a", "dpu-1", "");
    let device = first.device().to_owned();
    scene.service_over(
        "svc",
        &["{kind: BM, name: bm}", "{kind: Pod, name: pod}"],
        &format!("  vpc: {vpc}\n{CHECK}"),
    );
    let to = target(&scene.programmed("svc", 2), 80);
    assert_answer(&client, to, &["bm", "pod"]);
    assert_eq!(scene.probes()["bm"]["status"]["prober"], "dpu-1");

    drop(first);
    let attachment =
        json!({"spec": {"attachment": {"chassis": "node-2", "device": {"port": device}}}});
    patch(&scene.name, "vnic", "bm", &attachment).must();
    let _second = scene.behind("bm");
    scene.in_state("svc", "bm", "Healthy");
    scene.programmed("svc", 2);
    eventually("its endpoint and its prober are there", SLOW, || {
        let (found, probes) = (endpoints(&scene, "svc"), scene.probes());
        let there = found.iter().filter(|(_, node)| node == "node-2").count() == 1;
        let prober = &probes["bm"]["status"]["prober"];
        match there && prober == "node-2" {
            true => Ok(()),
            false => Err(format!("{found:?}, asked by {prober}")),
        }
    });
    assert_answer(&client, to, &["bm", "pod"]);
}
