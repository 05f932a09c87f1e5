//! VirtualMachineInstances of KubeVirt as backends.
//!
//! KubeVirt itself does not run here: its images are no part of the lab. Its kind is real, under its real group, versions and
//! names (`pkg/virt-operator/resource/generate/components/crds.go`: no subresource `status`), with a schema that takes whatever is
//! written; the test plays KubeVirt, by the order in which its controllers write. A launcher Pod is a Pod with the labels that KubeVirt
//! gives it; the guest is a server that begins to listen when the guest arrives.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use ycloud_lab::ask::{Attempt, Protocol};

use crate::asking::{Stream, ask_often, assert_answer, assert_pod_answers, pod, target};
use crate::backends::{CHECK, assert_served};
use crate::cluster::{SOON, api, apply, condition, delete, eventually, exists, get, kill, patch};
use crate::scene::Scene;

const DEFINITION: &str = "virtualmachineinstances.kubevirt.io";
/// How often the client asks.
const PACE: Duration = Duration::from_millis(50);

/// KubeVirt's kind, while it is in scope.
struct KubeVirt;

impl KubeVirt {
    fn install() -> Self {
        let version = |name: &str, storage: bool| {
            format!(
                "    - {{name: {name}, served: true, storage: {storage}, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}\n"
            )
        };
        apply(&format!(
            "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {DEFINITION}}}
spec:
  group: kubevirt.io
  scope: Namespaced
  names: {{plural: virtualmachineinstances, singular: virtualmachineinstance, kind: VirtualMachineInstance, shortNames: [vmi, vmis]}}
  versions:
{}{}",
            version("v1", true),
            version("v1alpha3", false)
        ))
        .must();
        let installed = Self;
        eventually("the definition is established", SOON, || {
            let object = get(&["customresourcedefinition", DEFINITION]);
            match condition(&object, "Established") {
                (status, ..) if status == "True" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        installed
    }

    fn remove(&self) {
        if exists("", "customresourcedefinition", DEFINITION) {
            delete("", "customresourcedefinition", DEFINITION);
        }
    }
}

impl Drop for KubeVirt {
    fn drop(&mut self) {
        if let Err(error) = api().delete("", "customresourcedefinition", DEFINITION, None) {
            eprintln!("clean-up: {error:#}");
        }
    }
}

impl Scene {
    /// A VirtualMachineInstance labelled app=`name`, of which nothing is known; its UID.
    fn guest(&self, name: &str) -> String {
        let yaml = format!(
            "apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {{name: {name}, namespace: {ns}, labels: {{app: {name}}}}}
spec: {{domain: {{devices: {{}}}}}}
",
            ns = self.name
        );
        eventually("the new kind is served", SOON, || {
            let applied = apply(&yaml);
            if applied.ok { Ok(()) } else { Err(applied.err) }
        });
        let made = get(&["-n", &self.name, DEFINITION, name]);
        made["metadata"]["uid"].as_str().expect("a UID").to_owned()
    }

    /// A launcher Pod of the guest; it serves from when it is told to.
    fn launcher(&self, guest: (&str, &str), name: &str, node: &str) {
        let (app, uid) = guest;
        let yaml = self
            .server_yaml(name, "a", node, app, "")
            .replace(
                &format!("labels: {{app: {app}, name: {name}}}"),
                &format!(
                    "labels: {{app: {app}, kubevirt.io: virt-launcher, kubevirt.io/created-by: {uid:?}}}"
                ),
            )
            .replace(
                "args: [netexec, --http-port=8080, --udp-port=8081]",
                "command: [sh, -c, 'until [ -e /tmp/guest ]; do sleep 0.1; done; exec /agnhost netexec --http-port=8080 --udp-port=8081']",
            );
        apply(&yaml).must();
        eventually(&format!("Pod {name} runs"), crate::cluster::SLOW, || {
            let pod = get(&["-n", &self.name, "pod", name]);
            match pod["status"]["phase"].as_str() {
                Some("Running") => Ok(()),
                _ => Err(pod["status"].to_string()),
            }
        });
    }

    /// The guest is in this launcher Pod from now on.
    fn arrives(&self, launcher: &str, client: &str) {
        crate::cluster::in_pod(&self.name, launcher, "touch /tmp/guest").must();
        let to = target(&self.pod_ip(launcher), 8080);
        let client = pod(self, client);
        eventually("the guest answers in its launcher", SOON, || {
            let answered = ask_often(&client, Protocol::Tcp, to, 1);
            if answered.failed.is_empty() {
                Ok(())
            } else {
                Err(format!("{answered:?}"))
            }
        });
        assert_pod_answers(&client, to, launcher);
    }

    fn told(&self, guest: &str, status: &Value) {
        let status = json!({ "status": status });
        patch(&self.name, DEFINITION, guest, &status).must();
    }

    /// What the status says of the guest: its address.
    fn address_of(&self, service: &str, guest: &str) -> String {
        let ysvc = get(&["-n", &self.name, "ysvc", service]);
        let items = ysvc["status"]["backends"]["items"].as_array().cloned();
        let items = items.unwrap_or_default();
        let item = items.iter().find(|item| item["name"] == guest);
        let address = item.and_then(|item| item["address"].as_str());
        address.unwrap_or_default().to_owned()
    }
}

#[test]
fn timed_backends_kubevirt_a_guest_migrates_without_a_gap_and_leaves_with_its_kind() {
    let mut scene = Scene::new("be-kubevirt");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("stays", "a", "node-1", "stays");
    scene.client("client", "a", "node-3");
    // The launchers have the guest's labels, so the Pod backend means them too.
    let backends = [
        "{kind: VM, selector: {matchLabels: {app: guest}}}",
        "{kind: Pod, selector: {matchLabels: {app: guest}}}",
    ];
    let more = format!("  vpc: {vpc}\n{CHECK}");
    scene.service_over("svc", &backends, &more);
    let beside = ["{kind: VM, name: guest}", "{kind: Pod, name: stays}"];
    scene.service_over("beside", &beside, &more);
    scene.pods_ready();
    scene.programmed("beside", 1);
    let said = condition(
        &get(&["-n", &scene.name, "ysvc", "svc"]),
        "BackendsResolved",
    )
    .2;
    assert!(
        !said.contains("VirtualMachineInstance"),
        "there is no KubeVirt: {said}"
    );

    let kubevirt = KubeVirt::install();
    let uid = scene.guest("guest");
    scene.launcher(("guest", &uid), "from", "node-1");
    let message = scene.in_state("svc", "guest", "NotReady");
    assert_eq!(message, "the VirtualMachineInstance is not started yet");
    scene.told("guest", &json!({"phase": "Running", "nodeName": "node-1"}));
    scene.arrives("from", "client");
    let to = target(&scene.programmed("svc", 1), 80);
    let both = target(&scene.programmed("beside", 2), 80);
    let client = pod(&scene, "client");
    assert_answer(&client, to, &["from"]);
    assert_answer(&client, both, &["from", "stays"]);
    let ysvc = get(&["-n", &scene.name, "ysvc", "svc"]);
    let item = &ysvc["status"]["backends"]["items"][0];
    assert_eq!(
        (&item["kind"], &item["name"]),
        (&json!("VM"), &json!("guest"))
    );
    assert_eq!(ysvc["status"]["backends"]["total"], 1, "{}", ysvc["status"]);

    migrates(&scene, &uid);
    assert_answer(&client, both, &["stays", "to"]);

    let paused = json!({"conditions": [{"type": "Paused", "status": "True"}]});
    scene.told("guest", &paused);
    let message = scene.in_state("svc", "guest", "NotReady");
    assert_eq!(message, "the VirtualMachineInstance is paused");
    scene.programmed("beside", 1);
    scene.told("guest", &json!({"conditions": []}));
    scene.programmed("beside", 2);

    let stream = Stream::start(&client, Protocol::Tcp, both, PACE);
    kubevirt.remove();
    scene.programmed("beside", 1);
    thread::sleep(Duration::from_secs(1));
    // Answers that were under way when the guest left may be lost with their connections; nobody is sent to it any more.
    let outage = stream.finish().longest_outage();
    assert!(outage < Duration::from_millis(500), "{outage:?}");
    assert_answer(&client, both, &["stays"]);
    // The last VirtualMachineInstance goes before its kind.
    eventually("nothing is said of VirtualMachineInstances", SOON, || {
        let said = condition(
            &get(&["-n", &scene.name, "ysvc", "beside"]),
            "BackendsResolved",
        )
        .2;
        match said.ends_with("spec.backends[0].name guest: there is no such VM") {
            true => Ok(()),
            false => Err(said),
        }
    });
}

/// Moves the guest from Pod `from` to Pod `to`, as KubeVirt tells it, while a client asks a Service that has nobody else.
fn migrates(scene: &Scene, uid: &str) {
    let client = pod(scene, "client");
    let to = target(&scene.programmed("svc", 1), 80);
    scene.launcher(("guest", uid), "to", "node-2");
    let state = json!({"sourceNode": "node-1", "sourcePod": "from", "targetNode": "node-2", "targetPod": "to"});
    scene.told("guest", &json!({ "migrationState": state }));
    let stream = Stream::start(&client, Protocol::Tcp, to, PACE);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(scene.address_of("svc", "guest"), scene.pod_ip("from"));

    let leaves = stream.elapsed();
    scene.arrives("to", "client");
    let told = stream.elapsed();
    let there = json!({"targetNodeDomainReadyTimestamp": "2026-01-01T00:00:00Z"});
    scene.told("guest", &json!({ "migrationState": there }));
    scene.told(
        "guest",
        &json!({"nodeName": "node-2", "migrationState": {"completed": true}}),
    );
    let address = scene.pod_ip("to");
    eventually("the endpoint is where the guest is", SOON, || {
        let found = scene.address_of("svc", "guest");
        if found == address { Ok(()) } else { Err(found) }
    });
    scene.programmed("svc", 1);
    let moved = stream.elapsed();
    // KubeVirt ends the source now.
    kill(&scene.name, "from");
    scene.in_state("svc", "guest", "Healthy");
    thread::sleep(Duration::from_secs(3));
    let end = stream.elapsed();
    let attempts = stream.finish();
    // What is under way while the endpoint moves ends with its connection.
    assert_served(&attempts.between(Duration::ZERO, leaves));
    assert_served(&attempts.between(moved, end));
    let refused = attempts
        .0
        .iter()
        .filter(|attempt| matches!(attempt.result, Err(ErrorKind::ConnectionRefused)));
    assert_eq!(refused.count(), 0, "the Service was empty for a moment");
    let names = |from, to| -> Vec<String> {
        let answers = attempts.between(from, to).0.into_iter();
        let mut names: Vec<String> = answers
            // What was repeated went where the later one led.
            .filter(Attempt::is_prompt)
            .filter_map(|attempt| Some(attempt.result.ok()?.backend))
            .collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(
        names(Duration::ZERO, told),
        ["from"],
        "the guest was not there yet"
    );
    assert_eq!(names(moved, end), ["to"]);
    eprintln!("the endpoint moved within {:?}", moved - told);
}
