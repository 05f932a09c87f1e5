//! VNics and NetworkProbes that cannot work say so, in words and at the place where one looks.

use crate::backends::CHECK;
use crate::cluster::{SOON, apply, condition, eventually, get, nbctl};
use crate::scene::Scene;

/// Waits for a condition that is False, with a reason, and a message of these words.
fn says(scene: &Scene, object: &str, kind: &str, reason: &str, words: &[&str]) {
    eventually(&format!("{object}: {kind} says {words:?}"), SOON, || {
        let found = condition(&get(&["-n", &scene.name, object]), kind);
        let (status, said, message) = &found;
        let all = words.iter().all(|word| message.contains(word));
        match status == "False" && said == reason && all {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
}

#[test]
fn backends_wiring_a_device_that_is_not_there_or_taken_is_named() {
    let mut scene = Scene::new("be-wiring");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let attachment = |kind: &str, name: &str, chassis: &str, device: &str| {
        format!("kind: {kind}, name: {name}, chassis: {chassis}, device: {device}")
    };
    let none = scene.device("none");
    let tap = format!("{{tap: {none}}}");
    scene.vnic(
        "absent",
        "a",
        &attachment("VM", "absent", "node-2", &tap),
        "",
    );
    let port = format!("{{port: {none}}}");
    scene.vnic(
        "absent-bm",
        "a",
        &attachment("BM", "absent-bm", "dpu-1", &port),
        "",
    );
    for (vnic, chassis) in [("absent", "node-2"), ("absent-bm", "dpu-1")] {
        let object = format!("vnic/{vnic}");
        says(
            &scene,
            &object,
            "Wired",
            "DeviceNotFound",
            &[chassis, &none],
        );
    }

    // The older one has it.
    let first = scene.behind_vnic(ycloud_lab::backend::Kind::Server, "first", "a", "dpu-1", "");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let port = format!("{{port: {}}}", first.device());
    scene.vnic(
        "second",
        "a",
        &attachment("BM", "second", "dpu-1", &port),
        "",
    );
    says(
        &scene,
        "vnic/second",
        "Wired",
        "DeviceTaken",
        &["first", first.device()],
    );
    let owner = get(&["-n", &scene.name, "vnic", "first"]);
    assert_eq!(condition(&owner, "Wired").0, "True", "{}", owner["status"]);

    // A backend without a device is told, and is no endpoint.
    scene.service_over(
        "svc",
        &["{kind: VM, name: absent}", "{kind: BM, name: first}"],
        &format!("  vpc: {vpc}\n{CHECK}"),
    );
    scene.programmed("svc", 1);
    let message = scene.in_state("svc", "absent", "Unhealthy");
    assert!(!message.is_empty());
    scene.in_state("svc", "first", "Healthy");
}

#[test]
fn backends_wiring_what_contradicts_itself_is_not_admitted() {
    for (spec, words) in [
        (
            "{subnet: s, attachment: {kind: VM, name: x, device: {tap: t}}}",
            "spec.attachment.device: needs spec.attachment.chassis",
        ),
        (
            "{subnet: s, attachment: {kind: VM, name: x, chassis: node-1, device: {tap: t, port: p}}}",
            "exactly one of tap, representor and port",
        ),
        (
            "{subnet: s, attachment: {kind: VM, name: x, chassis: node-1, device: {}}}",
            "exactly one of tap, representor and port",
        ),
        (
            "{subnet: s, attachment: {kind: VM, name: x, chassis: node-1, device: {tap: sixteen-letters-}}}",
            "15",
        ),
        (
            "{subnet: s, attachment: {kind: VM, name: x, chassis: node-1, device: {tap: ../x}}}",
            "tap",
        ),
        (
            "{subnet: s, attachment: {kind: Pod, name: x, uid: u, chassis: node-1, device: {tap: t}}}",
            "not with kind Pod or Node",
        ),
    ] {
        let yaml = format!(
            "apiVersion: iaas.yusur.io/v1\nkind: VNic\nmetadata: {{name: bad-wiring}}\nspec: {spec}\n"
        );
        let printed = apply(&yaml);
        assert!(!printed.ok, "admitted: {spec}");
        assert!(printed.err.contains(words), "{spec}: {}", printed.err);
    }
}

#[test]
fn backends_wiring_a_probe_that_nobody_can_ask_says_so() {
    let mut scene = Scene::new("be-probe-bad");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let probe = |name: &str, vpc: &str, ip: &str| {
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: NetworkProbe
metadata: {{name: {name}, namespace: {ns}}}
spec: {{target: {{vpc: {vpc}, ip: {ip:?}, port: 80}}, periodSeconds: 1, timeoutSeconds: 1}}
",
            ns = scene.name
        ))
        .must();
    };
    probe("outside", &vpc, "10.99.0.7");
    probe("outside-v6", &vpc, "fd00:99::7");
    probe("nowhere", "no-such-vpc", "10.0.1.7");
    for (name, word) in [
        ("outside", "10.99.0.7"),
        ("outside-v6", "fd00:99::7"),
        ("nowhere", "no-such-vpc"),
    ] {
        let object = format!("networkprobe/{name}");
        eventually(&format!("{name} is refused in words"), SOON, || {
            let found = get(&["-n", &scene.name, &object]);
            let (status, _, message) = condition(&found, "Accepted");
            match status == "False" && message.contains(word) {
                true => Ok(()),
                false => Err(found["status"].to_string()),
            }
        });
        let found = get(&["-n", &scene.name, &object]);
        let state = found["status"]["state"].as_str().unwrap_or("Unknown");
        assert_eq!(state, "Unknown", "{}", found["status"]);
    }
    // And nothing is made for them.
    let ports = nbctl(&["--bare", "--columns=name", "list", "Logical_Switch_Port"]);
    let own = format!("probe:{vpc}/");
    assert!(!ports.contains(&own), "{ports}");
}
