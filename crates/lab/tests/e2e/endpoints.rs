//! Backends come and go: nobody is sent to one that is gone, nobody who stays is disturbed.

use std::time::Duration;

use crate::cluster::{SLOW, SOON, always, apply, condition, eventually, get, in_pod, kubectl};
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
        let yaml = scene.server_yaml(name, "a", node, "web", "").replace(
            "httpGet: {path: /hostname, port: 8080}",
            "exec: {command: [test, '!', -e, /tmp/unready]}",
        );
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
        (answers.names(), answers.failed),
        (vec!["s1"], 0),
        "{answers:?}"
    );
    in_pod(&scene.name, "s0", "rm /tmp/unready").must();
    scene.programmed("svc", 2);
    let answers = scene.ask("c", &vip, 80, 30);
    assert_eq!(
        (answers.names(), answers.failed),
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
        if answers.failed == 0 {
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
    assert_eq!(scene.ask("c", &vip, 80, 12).failed, 0);
    kubectl(&["-n", &ns, "scale", "deployment/web", "--replicas=0"]).must();
    scene.programmed("svc", 0);
    let (code, milliseconds) = scene.curl_exit("c", &vip, 80);
    assert_eq!(code, 7, "refused, not timed out");
    assert!(milliseconds < 1_000, "refused after {milliseconds} ms");
    let ysvc = get(&["-n", &ns, "ysvc", "svc"]);
    assert_eq!(condition(&ysvc, "Ready").0, "False", "{}", ysvc["status"]);
    kubectl(&["-n", &ns, "scale", "deployment/web", "--replicas=3"]).must();
    scene.programmed("svc", 3);
    let answers = scene.ask("c", &vip, 80, 40);
    assert_eq!((answers.by.len(), answers.failed), (3, 0), "{answers:?}");
}

#[test]
fn a_deleted_backend_takes_no_new_connection() {
    let (scene, vpc) = two_servers("ep-delete");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 2);
    kubectl(&["-n", &scene.name, "delete", "pod", "s0", "--wait=false"]).must();
    scene.programmed("svc", 1);
    always(
        "no connection goes to the deleted backend",
        Duration::from_secs(5),
        || {
            let answers = scene.ask("c", &vip, 80, 5);
            if answers.names() == ["s1"] && answers.failed == 0 {
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
    let (pinned, doomed) = hold_connection(&scene, &vip);
    kubectl(&[
        "-n",
        &scene.name,
        "delete",
        "pod",
        &doomed,
        "--wait=true",
        "--timeout=60s",
    ])
    .must();
    scene.programmed("svc", 1);
    assert_still_answering(&scene, &pinned);
}

/// Opens one keep-alive connection in the background, one request every half second; returns who answers on it, and
/// who does not.
pub fn hold_connection(scene: &Scene, vip: &str) -> (String, String) {
    let script = format!(
        "rm -f /tmp/held; nohup sh -c '(while :; do printf \"GET /hostname HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"; sleep 0.5; done) | nc {vip} 80 >/tmp/held 2>/dev/null; echo CLOSED >>/tmp/held' >/dev/null 2>&1 &"
    );
    in_pod(&scene.name, "c", &script).must();
    let pinned = eventually("the held connection answers", SOON, || {
        let held = in_pod(&scene.name, "c", "cat /tmp/held").out;
        ["s0", "s1"]
            .into_iter()
            .find(|name| held.contains(name))
            .map(str::to_owned)
            .ok_or(held)
    });
    let other = if pinned == "s0" { "s1" } else { "s0" };
    (pinned, other.into())
}

/// The connection of [`hold_connection`] is the same one and still answers.
pub fn assert_still_answering(scene: &Scene, pinned: &str) {
    let count = || {
        let held = in_pod(&scene.name, "c", "cat /tmp/held").must();
        assert!(!held.contains("CLOSED"), "the held connection was closed");
        held.matches(pinned).count()
    };
    let before = count();
    eventually("the held connection answers on", SOON, || {
        let now = count();
        if now >= before + 3 {
            Ok(())
        } else {
            Err(format!("{before} answers, then {now}"))
        }
    });
}
