//! An agent writes of its own chassis alone: what it may not do, the API server refuses in words.

use serde_json::{Value, json};

use crate::cluster::{SLOW, apply, eventually, get, kubectl, on, the_lab};
use crate::scene::Scene;

/// Where the control machine reaches the API server.
const API: &str = "https://127.0.0.1:6443";

/// A token as node-1's agent has one, and one that is bound to no Pod.
fn tokens() -> [String; 2] {
    let selector = "app.kubernetes.io/component=ycloud-cni";
    let pods = get(&["-n", "ycloud-system", "pods", "-l", selector]);
    let mut pods = pods["items"].as_array().expect("Pods").iter();
    let pod = pods.find(|pod| pod["spec"]["nodeName"] == "node-1");
    let pod = pod.expect("an agent on node-1")["metadata"]["name"].as_str();
    let token = ["-n", "ycloud-system", "create", "token", "ycloud-cni"];
    let bound = ["--bound-object-kind=Pod", "--bound-object-name"];
    let bound = [&token[..], &bound, &[pod.expect("a name")]].concat();
    [&bound[..], &token].map(|words| kubectl(words).must().trim().to_owned())
}

/// A merge patch as the agent sends it, which reads nothing first; the API server's answer.
fn patch(token: &str, path: &str, body: &Value) -> Value {
    patch_by(&format!("-H 'Authorization: Bearer {token}'"), path, body)
}

fn patch_by(who: &str, path: &str, body: &Value) -> Value {
    let script = format!(
        "curl -sk -X PATCH {who} -H 'Content-Type: application/merge-patch+json' -d '{body}' {API}{path}"
    );
    serde_json::from_str(&on("control", &script).must()).expect("the API server answers in JSON")
}

#[test]
fn an_agent_writes_of_its_own_chassis_alone() {
    let mut scene = Scene::new("own-chassis");
    scene.vpc("v", &[("s", "10.0.1.0/24")]);
    let nodes = ["node-1", "node-2"];
    for node in nodes {
        scene.server(node, "s", node, "a");
    }
    scene.pods_ready();
    for node in nodes {
        let (vpc, ip) = (scene.full("v"), scene.pod_ip(node));
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: NetworkProbe
metadata: {{name: {node}, namespace: {ns}}}
spec: {{target: {{vpc: {vpc}, ip: {ip}, port: 8080}}, tcp: {{}}, periodSeconds: 1, timeoutSeconds: 1}}
",
            ns = scene.name
        ))
        .must();
        eventually("its own node's agent asks it", SLOW, || {
            let probe = get(&["-n", &scene.name, "networkprobe", node]);
            let status = &probe["status"];
            match status["prober"] == node && status["state"] == "Healthy" {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        });
    }
    let [bound, unbound] = tokens();
    let probe = |node: &str| {
        format!(
            "/apis/iaas.yusur.io/v1/namespaces/{}/networkprobes/{node}/status",
            scene.name
        )
    };
    let (error, own) = (json!({"status": {"lastError": "test"}}), probe("node-1"));
    let refused = |answer: Value, words: &str| {
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(answer["code"] == 403 && message.contains(words), "{answer}");
    };
    let answer = patch(&bound, &own, &error);
    assert_eq!(answer["kind"], "NetworkProbe", "{answer}");
    refused(patch(&bound, &probe("node-2"), &error), "node-2");
    refused(patch(&unbound, &own, &error), "must be bound to its Pod");
    let other = json!({"status": {"prober": "node-2"}});
    refused(patch(&bound, &own, &other), "status.prober");

    let vnics = get(&["-n", &scene.name, "vnics"]);
    let on_two = |vnic: &&Value| vnic["spec"]["attachment"]["chassis"] == "node-2";
    let vnic = vnics["items"].as_array().expect("VNics").iter();
    let vnic = vnic.clone().find(on_two).expect("one on node-2");
    let name = vnic["metadata"]["name"].as_str().expect("a name");
    let path = format!(
        "/apis/iaas.yusur.io/v1/namespaces/{}/vnics/{name}/status",
        scene.name
    );
    refused(
        patch(&bound, &path, &json!({"status": {"phase": "Pending"}})),
        "spec.attachment.chassis is node-2",
    );
    let lease = "/apis/coordination.k8s.io/v1/namespaces/ycloud-probers/leases/prober-node-2";
    refused(patch(&bound, lease, &json!({"spec": {}})), "prober-node-1");

    // The chassis without a kubelet, by its certificate.
    let kubeconfig = the_lab().kubeconfig().expect("a lab");
    let pki = kubeconfig.parent().expect("its folder").join("pki");
    let file = |kind: &str| pki.join(format!("dpu-1-chassis.{kind}"));
    let dpu = format!(
        "--cert {} --key {}",
        file("crt").display(),
        file("key").display()
    );
    let chassis = "the agent of chassis dpu-1 may not write";
    refused(patch_by(&dpu, &own, &error), chassis);
    refused(patch_by(&dpu, &path, &json!({"status": {}})), chassis);
    eventually("dpu-1 renews its Lease", SLOW, || {
        let lease = get(&["-n", "ycloud-probers", "lease", "prober-dpu-1"]);
        match lease["spec"]["holderIdentity"] == "dpu-1" {
            true => Ok(()),
            false => Err(lease.to_string()),
        }
    });
}
