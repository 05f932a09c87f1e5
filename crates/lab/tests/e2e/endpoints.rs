//! Backends come and go: nobody is sent to one that is gone, nobody who stays is disturbed.

use std::time::Duration;

use ycloud_lab::ask::{Heard, Held, Protocol};

use crate::asking::{PATIENCE, pod, target};
use crate::cluster::{
    SLOW, always, apply, condition, delete, eventually, get, in_pod, patch, start_deleting,
};
use crate::scene::Scene;

fn two_servers(name: &str) -> (Scene, String) {
    let mut scene = Scene::new(name);
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.server("s1", "a", "node-2", "web");
    scene.client("c", "a", "node-3");
    (scene, vpc)
}

#[test]
fn an_unready_pod_gets_nothing_and_comes_back() {
    let mut scene = Scene::new("ep-unready");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    for (name, node) in [("s0", "node-1"), ("s1", "node-2")] {
        // Ready as long as nobody removed the file.
        let yaml = scene.server_yaml(name, "a", node, "web", "");
        let yaml = yaml.replace(
            "httpGet: {path: /hostname, port: 8080}",
            "exec: {command: [test, '!', -e, /tmp/unready]}",
        );
        let yaml = yaml.replace("periodSeconds: 10", "periodSeconds: 1");
        apply(&yaml).must();
    }
    scene.client("c", "a", "node-3");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 2);
    in_pod(&scene.name, "s0", "touch /tmp/unready").must();
    scene.programmed("svc", 1);
    let answers = scene.ask("c", &vip, 80, 20);
    assert_eq!(
        (answers.names(), answers.failed.len()),
        (vec!["s1"], 0),
        "{answers:?}"
    );
    in_pod(&scene.name, "s0", "rm /tmp/unready").must();
    scene.programmed("svc", 2);
    let answers = scene.ask("c", &vip, 80, 30);
    assert_eq!(
        (answers.names(), answers.failed.len()),
        (vec!["s0", "s1"], 0),
        "{answers:?}"
    );
}

#[test]
fn publish_not_ready_addresses_counts_unready_pods() {
    let mut scene = Scene::new("ep-publish");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let yaml = scene.server_yaml("s0", "a", "node-1", "web", "").replace(
        "httpGet: {path: /hostname, port: 8080}",
        "exec: {command: [test, -e, /never]}",
    );
    apply(&yaml).must();
    scene.client("c", "a", "node-3");
    scene.service(
        "svc",
        &vpc,
        &[(80, "8080")],
        "web",
        "  publishNotReadyAddresses: true\n",
    );
    scene.pod_ready("c");
    let vip = scene.programmed("svc", 1);
    eventually("the unready Pod answers", SLOW, || {
        let answers = scene.ask("c", &vip, 80, 3);
        if answers.failed.is_empty() {
            Ok(())
        } else {
            Err(format!("{answers:?}"))
        }
    });
}

#[test]
fn scaled_to_zero_refuses_at_once_and_back_to_three_answers() {
    let mut scene = Scene::new("ep-scale");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let subnet = scene.full("a");
    let ns = scene.name.clone();
    apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {ns}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata:
      labels: {{app: web}}
      annotations: {{iaas.yusur.io/subnet: {subnet}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: server
          image: registry.k8s.io/e2e-test-images/agnhost:2.59
          imagePullPolicy: IfNotPresent
          args: [netexec, --http-port=8080, --udp-port=8081]
          readinessProbe: {{httpGet: {{path: /hostname, port: 8080}}, periodSeconds: 1}}
"
    ))
    .must();
    scene.client("c", "a", "node-3");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    let vip = scene.programmed("svc", 3);
    scene.pods_ready();
    assert_eq!(scene.ask("c", &vip, 80, 12).failed.len(), 0);
    let scale = |replicas: u32| {
        let fields = serde_json::json!({"spec": {"replicas": replicas}});
        patch(&ns, "deployment", "web", &fields).must();
    };
    scale(0);
    scene.programmed("svc", 0);
    let (heard, took) = scene.knock("c", &vip, 80);
    assert_eq!(heard, Heard::Refusal, "refused, not timed out");
    assert!(took < Duration::from_secs(1), "refused after {took:?}");
    let ysvc = get(&["-n", &ns, "ysvc", "svc"]);
    assert_eq!(condition(&ysvc, "Ready").0, "False", "{}", ysvc["status"]);
    scale(3);
    scene.programmed("svc", 3);
    let answers = scene.ask("c", &vip, 80, 40);
    assert_eq!(
        (answers.by.len(), answers.failed.len()),
        (3, 0),
        "{answers:?}"
    );
}

#[test]
fn a_deleted_backend_takes_no_new_connection() {
    let (scene, vpc) = two_servers("ep-delete");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 2);
    start_deleting(&scene.name, "pod", "s0");
    scene.programmed("svc", 1);
    always(
        "no connection goes to the deleted backend",
        Duration::from_secs(5),
        || {
            let answers = scene.ask("c", &vip, 80, 5);
            if answers.names() == ["s1"] && answers.failed.is_empty() {
                Ok(())
            } else {
                Err(format!("{answers:?}"))
            }
        },
    );
}

#[test]
fn an_established_connection_survives_the_loss_of_another_backend() {
    let (scene, vpc) = two_servers("ep-established");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 2);
    let (mut held, pinned, doomed) = hold_connection(&scene, &vip);
    delete(&scene.name, "pod", &doomed);
    scene.programmed("svc", 1);
    assert_still_answering(&mut held, &pinned);
}

/// Opens a connection that stays open; returns it, who answers on it, and who does not.
#[track_caller]
fn hold_connection(scene: &Scene, vip: &str) -> (Held, String, String) {
    let opened = Held::open(&pod(scene, "c"), Protocol::Tcp, target(vip, 80), PATIENCE);
    let mut held = opened.expect("a connection");
    let pinned = held.ask().expect("an answer").backend;
    let other = if pinned == "s0" { "s1" } else { "s0" };
    (held, pinned, other.into())
}

/// The connection of [`hold_connection`] is the same one and still answers, for a second at least.
#[track_caller]
fn assert_still_answering(held: &mut Held, pinned: &str) {
    for _ in 0..5 {
        let reply = held.ask().map(|reply| reply.backend);
        assert_eq!(reply.expect("the held connection answers on"), pinned);
        std::thread::sleep(Duration::from_millis(200));
    }
}
