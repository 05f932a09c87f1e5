//! What people do by hand to what ycloud made or accepted: edits that are refused, generated objects that are deleted,
//! endpoints that somebody else writes. Whoever is served goes on to be.

use std::time::Duration;

use serde_json::{Value, json};

use crate::asking::{assert_answer, gateways, machine, target, unanswered};
use crate::cluster::{
    SLOW, SOON, always, api, apply, condition, eventually, exists, get, patch, start_deleting,
};
use crate::scene::Scene;

/// Waits until a condition has this status and its message these words.
fn says(words: &[&str], kind: &str, status: &str, message: &[&str]) {
    eventually(&format!("{words:?} says {kind}={status}"), SOON, || {
        let object = get(words);
        let (is, reason, said) = condition(&object, kind);
        let complete = message.iter().all(|word| said.contains(word));
        match is == status && complete {
            true => Ok(()),
            false => Err(format!("{kind}={is} {reason}: {said}")),
        }
    });
}

/// The states of all NetworkProbes of a namespace.
fn states(scene: &Scene) -> Vec<String> {
    let probes = get(&["-n", &scene.name, "networkprobes"]);
    let all = probes["items"].as_array().cloned().unwrap_or_default();
    let state = |probe: &Value| {
        format!(
            "{} {}",
            probe["status"]["state"],
            condition(probe, "Accepted").0
        )
    };
    all.iter().map(state).collect()
}

#[test]
fn a_refused_edit_of_a_subnet_changes_nothing() {
    let mut scene = Scene::new("hand-subnet");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.client("c", "a", "node-3");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    let subnet = scene.full("a");
    for (cidr, words) in [
        ("10.99.0.0/24", "leaves out"),
        ("10.96.0.0/24", "overlaps the service range"),
    ] {
        patch("", "subnet", &subnet, &json!({"spec": {"cidr": cidr}})).must();
        let stays = "until then it stays 10.0.1.0/24";
        says(
            &["subnet", &subnet],
            "Ready",
            "False",
            &[cidr, words, stays],
        );
        let status = &get(&["subnet", &subnet])["status"];
        assert_eq!(
            (&status["cidr"], &status["gateway"]),
            (&json!("10.0.1.0/24"), &json!("10.0.1.1"))
        );
        always(
            "its NetworkProbes are asked",
            Duration::from_secs(3),
            || match states(&scene) {
                states if states == ["\"Healthy\" True"] => Ok(()),
                states => Err(format!("{states:?}")),
            },
        );
        let answers = scene.ask("c", &vip, 80, 5);
        assert_eq!((answers.names(), answers.failed.len()), (vec!["s0"], 0));
    }
    // Who comes meanwhile is served by what is in force.
    scene.server("s1", "a", "node-2", "web");
    scene.pod_ready("s1");
    scene.programmed("svc", 2);
    let answers = scene.ask("c", &vip, 80, 20);
    assert_eq!(
        (answers.names(), answers.failed.len()),
        (vec!["s0", "s1"], 0)
    );
    patch(
        "",
        "subnet",
        &subnet,
        &json!({"spec": {"cidr": "10.0.1.0/24"}}),
    )
    .must();
    says(&["subnet", &subnet], "Ready", "True", &[]);
}

#[test]
fn an_eip_that_was_given_stays() {
    gateways();
    let mut scene = Scene::new("hand-eip");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.load_balancer("svc", &vpc, "web", "");
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 1);
    let outside = machine("external");
    assert_answer(&outside, target(&eip, 80), &["s0"]);

    let uid = start_deleting(&scene.name, "service", "svc");
    let gone = api().wait_gone(&scene.name, "service", "svc", &uid, SLOW);
    gone.unwrap_or_else(|error| panic!("{error:#}"));
    // Others are given addresses meanwhile.
    scene.eip("other", None);
    eventually("the Service is there again, with its EIP", SOON, || {
        let service = api().get(&scene.name, "service", "svc");
        let service = service.expect("the API server answers").unwrap_or_default();
        let ip = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
        match *ip == eip.as_str() {
            true => Ok(()),
            false => Err(format!(
                "{eip} was given, and it says {}",
                service["status"]
            )),
        }
    });
    assert_eq!(scene.programmed_eip("svc", 1), eip);
    assert_answer(&outside, target(&eip, 80), &["s0"]);

    // Another type, which is taken back.
    let kind = json!({"spec": {"type": "ClusterIP"}});
    patch(&scene.name, "service", "svc", &kind).must();
    eventually("the Service is what it was", SOON, || {
        let service = get(&["-n", &scene.name, "service", "svc"]);
        let ip = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
        match service["spec"]["type"] == "LoadBalancer" && *ip == eip.as_str() {
            true => Ok(()),
            false => Err(format!("{eip} was given: {service}")),
        }
    });
    assert_answer(&outside, target(&eip, 80), &["s0"]);

    start_deleting(&scene.name, "eip", "svc");
    says(
        &["-n", &scene.name, "eip", "svc"],
        "InUse",
        "True",
        &["Service", "svc"],
    );
    assert_answer(&outside, target(&eip, 80), &["s0"]);
    assert_eq!(scene.programmed_eip("svc", 1), eip);
    start_deleting(&scene.name, "ysvc", "svc");
    eventually(
        "the Eip has gone with its YusurService",
        SOON,
        || match exists(&scene.name, "eip", "svc") {
            true => Err("it is there".to_owned()),
            false => Ok(()),
        },
    );
    unanswered(&eip);
}

/// A slice that names `service`, with one endpoint, which is in `vpc`; and this label.
fn slice_yaml(
    scene: &Scene,
    name: &str,
    (service, vpc): (&str, &str),
    ip: &str,
    port: &str,
    by: &str,
) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: {ns}
  labels:
    kubernetes.io/service-name: {service}
    endpointslice.kubernetes.io/managed-by: {by}
    iaas.yusur.io/vpc: {vpc}
addressType: IPv4
endpoints: [{{addresses: [{ip}]}}]
ports: [{{name: {port}, port: 8080, protocol: TCP}}]
",
        ns = scene.name
    )
}

/// Makes such a slice, as somebody would by hand.
fn slice(scene: &Scene, name: &str, service: &str, vpc: &str, ip: &str, port: &str) {
    apply(&slice_yaml(scene, name, (service, vpc), ip, port, "hand")).must();
}

#[test]
fn nobody_is_sent_to_endpoints_that_somebody_else_wrote() {
    gateways();
    let mut scene = Scene::new("hand-slices");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let other = scene.vpc("w", &[("b", "10.0.2.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.server("near", "a", "node-2", "victim");
    scene.server("far", "b", "node-2", "victim");
    scene.client("c", "a", "node-3");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.over_vpcs("several", &[&vpc], "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    let eip = scene.programmed_eip("several", 1);
    slice(&scene, "near", "svc", &vpc, &scene.pod_ip("near"), "p80");
    slice(
        &scene,
        "far",
        "several",
        &other,
        &scene.pod_ip("far"),
        "web",
    );
    slice(
        &scene,
        "node",
        "several",
        "ovn-cluster",
        "172.31.0.11",
        "web",
    );
    let ours = "yusurservice-controller.iaas.yusur.io";
    let forged = slice_yaml(
        &scene,
        "forged",
        ("svc", &vpc),
        &scene.pod_ip("near"),
        "p80",
        ours,
    );
    let refused = apply(&forged);
    assert!(
        !refused.ok
            && refused
                .err
                .contains("written by yusurservice-controller alone"),
        "{}",
        refused.err
    );
    for (service, names) in [("svc", "near"), ("several", "far and 1 more")] {
        let ysvc = ["-n", &scene.name, "ysvc", service];
        let words = [names, "nobody is sent to its endpoints"];
        says(&ysvc, "ForeignEndpoints", "True", &words);
        assert_eq!(condition(&get(&ysvc), "Ready").0, "True");
    }
    // A selector, which is taken out again; what Kubernetes wrote meanwhile goes.
    let selector = json!({"spec": {"selector": {"app": "victim"}}});
    patch(&scene.name, "service", "svc", &selector).must();
    eventually(
        "the selector and what was written for it are gone",
        SLOW,
        || {
            let service = get(&["-n", &scene.name, "service", "svc"]);
            let slices = get(&[
                "-n",
                &scene.name,
                "-l",
                "kubernetes.io/service-name=svc",
                "endpointslices",
            ]);
            let slices = slices["items"].as_array().cloned().unwrap_or_default();
            let names: Vec<&Value> = slices
                .iter()
                .map(|slice| &slice["metadata"]["name"])
                .collect();
            match service["spec"]["selector"].is_null() && names.len() == 2 {
                true => Ok(()),
                false => Err(format!(
                    "selector {}, {names:?}",
                    service["spec"]["selector"]
                )),
            }
        },
    );
    let answers = scene.ask("c", &vip, 80, 12);
    assert_eq!(
        (answers.names(), answers.failed.len()),
        (vec!["s0"], 0),
        "{answers:?}"
    );
    assert_answer(&machine("external"), target(&eip, 80), &["s0"]);
    for name in ["near", "far", "node"] {
        start_deleting(&scene.name, "endpointslice", name);
    }
    for service in ["svc", "several"] {
        says(
            &["-n", &scene.name, "ysvc", service],
            "ForeignEndpoints",
            "",
            &[],
        );
    }
}

#[test]
fn a_network_policy_says_that_nobody_enforces_it() {
    let scene = Scene::new("hand-policy");
    apply(&format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: closed, namespace: {}}}
spec: {{podSelector: {{}}, policyTypes: [Ingress]}}
",
        scene.name
    ))
    .must();
    eventually("an Event on the NetworkPolicy", SOON, || {
        let events = get(&["-n", &scene.name, "events"]);
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let told = |event: &&Value| {
            let about = event.get("regarding").unwrap_or(&event["involvedObject"]);
            about["kind"] == "NetworkPolicy" && event["reason"] == "NotEnforced"
        };
        let told = events.iter().filter(told).count();
        (told == 1)
            .then_some(())
            .ok_or_else(|| format!("{told} Events"))
    });
}
