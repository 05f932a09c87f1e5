//! An Eip's life: shared by Services, in use, moved while traffic runs, released.

use std::time::Duration;

use serde_json::json;
use ycloud_lab::ask::{Heard, Protocol};

use crate::asking::{
    Stream, ask_often, assert_answer, assert_met, gateways, machine, target, unanswered,
};
use crate::backends::assert_served;
use crate::cluster::{
    SLOW, SOON, api, apply, condition, eventually, exists, get, on, patch, start_deleting,
};
use crate::scene::Scene;

/// A Vpc with two backends of different Services.
fn two(name: &str) -> (Scene, String) {
    gateways();
    let mut scene = Scene::new(name);
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "one");
    scene.server("s1", "a", "node-2", "two");
    (scene, vpc)
}

/// The Eip's address, once it has one.
fn address_of(scene: &Scene, eip: &str) -> String {
    eventually(&format!("Eip {eip} has an address"), SOON, || {
        let object = get(&["-n", &scene.name, "eip", eip]);
        let address = object["status"]["address"].as_str().map(str::to_owned);
        address.ok_or_else(|| object["status"].to_string())
    })
}

/// Deletes without waiting for it to be gone.
fn delete(scene: &Scene, kind: &str, name: &str) {
    start_deleting(&scene.name, kind, name);
}

/// An EipGateway of a test's own, whose range the upstream router sends to it. Removed when
/// dropped.
struct OwnGateway(&'static str);

impl OwnGateway {
    /// Of 198.18.x.0/24 (RFC 2544), at an address of the link that the suite's gateway gives to
    /// nobody.
    const RANGE: &str = "198.18.14.0/24";
    const ADDRESS: &str = "198.51.100.240";

    fn new(name: &'static str) -> Self {
        let made = Self(name);
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: EipGateway
metadata: {{name: {name}}}
spec: {{cidr: {}, gateway: 198.51.100.1, address: {}/24, physicalNetwork: ext, allowedNamespaces: {{selector: {{}}}}}}
",
            Self::RANGE,
            Self::ADDRESS
        ))
        .must();
        let (range, address) = (Self::RANGE, Self::ADDRESS);
        let route = format!("ip route replace {range} via {address}");
        on("upstream", &route).must();
        made
    }
}

impl Drop for OwnGateway {
    fn drop(&mut self) {
        let gone = api().delete("", "eipgateway", self.0, None);
        let route = on("upstream", &format!("ip route del {}", Self::RANGE));
        if gone.is_err() || !route.ok {
            eprintln!("clean-up: {gone:?} {}", route.err);
        }
    }
}

fn is_gone(scene: &Scene, kind: &str, name: &str) -> Result<(), String> {
    match exists(&scene.name, kind, name) {
        true => Err(format!("{kind} {name} is there")),
        false => Ok(()),
    }
}

fn gateway_goes(gateway: &OwnGateway) {
    eventually("the EipGateway is gone", SLOW, || {
        let left = api().get("", "eipgateway", gateway.0);
        match left.expect("the API server answers") {
            Some(left) => Err(left["status"].to_string()),
            None => Ok(()),
        }
    });
}

#[test]
fn services_share_an_eip_on_different_ports() {
    let (scene, vpc) = two("eip-shared");
    scene.eip("both", None);
    scene.load_balancer_on(80, "one", &vpc, "one", "  eip: both\n");
    scene.load_balancer_on(81, "two", &vpc, "two", "  eip: both\n");
    scene.pods_ready();
    let eip = scene.programmed_eip("one", 1);
    assert_eq!(scene.programmed_eip("two", 1), eip);
    let outside = machine("external");
    assert_answer(&outside, target(&eip, 80), &["s0"]);
    assert_answer(&outside, target(&eip, 81), &["s1"]);
    let object = get(&["-n", &scene.name, "eip", "both"]);
    let bound = object["status"]["boundTo"].to_string();
    assert_eq!(bound, r#"["Service/one","Service/two"]"#);

    // A third one on a port that is taken is refused by name, and takes nothing from the others.
    scene.load_balancer_on(81, "three", &vpc, "one", "  eip: both\n");
    eventually("the newer one is refused", SOON, || {
        let ysvc = get(&["-n", &scene.name, "ysvc", "three"]);
        let (accepted, reason, message) = condition(&ysvc, "Accepted");
        if accepted == "False" && message.contains("two") {
            Ok(())
        } else {
            Err(format!("Accepted={accepted} {reason}: {message}"))
        }
    });
    assert_answer(&outside, target(&eip, 81), &["s1"]);

    // Nor does an older one get that port by an edit; it keeps the one that it has.
    let port = |name: &str, port: u16, protocol: &str, target: &str| json!({"name": name, "port": port, "protocol": protocol, "targetPort": target});
    let ports = json!({"spec": {"ports": [
        port("web", 80, "TCP", "web"),
        port("dgram", 80, "UDP", "dgram"),
        port("more", 81, "TCP", "web"),
    ]}});
    patch(&scene.name, "ysvc", "one", &ports).must();
    eventually("the edit is refused", SOON, || {
        let ysvc = get(&["-n", &scene.name, "ysvc", "one"]);
        let (accepted, reason, message) = condition(&ysvc, "Accepted");
        match accepted == "False" && message.contains("port 81/TCP") && message.contains("two") {
            true => Ok(()),
            false => Err(format!("Accepted={accepted} {reason}: {message}")),
        }
    });
    assert_answer(&outside, target(&eip, 81), &["s1"]);
    assert_answer(&outside, target(&eip, 80), &["s0"]);
}

#[test]
fn an_eip_in_use_stays_until_its_service_lets_go() {
    let (scene, vpc) = two("eip-in-use");
    // An address by name: one that is allocated may be the next test's as soon as it is free.
    scene.eip("kept", Some("198.51.100.78"));
    scene.load_balancer("svc", &vpc, "one", "  eip: kept\n");
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 1);
    delete(&scene, "eip", "kept");
    eventually("the Eip says who uses it", SOON, || {
        let object = get(&["-n", &scene.name, "eip", "kept"]);
        let (status, _, message) = condition(&object, "InUse");
        if status == "True" && message.contains("svc") {
            Ok(())
        } else {
            Err(object["status"].to_string())
        }
    });
    assert_answer(&machine("external"), target(&eip, 80), &["s0"]);
    delete(&scene, "ysvc", "svc");
    eventually("the Eip is gone", SOON, || is_gone(&scene, "eip", "kept"));
    unanswered(&eip);
}

#[test]
fn a_released_address_serves_the_next_one() {
    let (scene, vpc) = two("eip-released");
    let asked = "198.51.100.77";
    scene.load_balancer("svc", &vpc, "one", &format!("  eip: {asked}\n"));
    scene.pods_ready();
    assert_eq!(scene.programmed_eip("svc", 1), asked);
    assert_answer(&machine("external"), target(asked, 80), &["s0"]);
    delete(&scene, "ysvc", "svc");
    eventually("the Eip that was made for it is gone", SOON, || {
        is_gone(&scene, "eip", "svc")
    });
    unanswered(asked);
    scene.load_balancer("next", &vpc, "two", &format!("  eip: {asked}\n"));
    assert_eq!(scene.programmed_eip("next", 1), asked);
    assert_answer(&machine("external"), target(asked, 80), &["s1"]);
}

#[test]
fn a_released_address_rests_before_another_namespace_has_it() {
    gateways();
    let gateway = OwnGateway::new("own-rest");
    let (former, other) = (Scene::new("eip-rest-a"), Scene::new("eip-rest-b"));
    let asked = "198.18.14.77";
    let make = |scene: &Scene, name: &str, address: &str| {
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: Eip
metadata: {{name: {name}, namespace: {}}}
spec: {{eipGateway: {}{address}}}
",
            scene.name, gateway.0
        ))
        .must();
    };
    let by_name = format!(", address: {asked}");
    make(&former, "x", &by_name);
    assert_eq!(address_of(&former, "x"), asked);
    delete(&former, "eip", "x");
    eventually("the Eip is gone", SOON, || is_gone(&former, "eip", "x"));

    make(&other, "y", &by_name);
    let refused = || {
        let eip = get(&["-n", &other.name, "eip", "y"]);
        let (ready, reason, message) = condition(&eip, "Ready");
        let words = message.contains(&format!("{asked} rests until"));
        let names = message.contains(&former.name);
        match (ready.as_str(), reason.as_str(), words, names) {
            ("False", "AddressTaken", true, false) => Ok(()),
            _ => Err(format!("Ready={ready} {reason}: {message}")),
        }
    };
    eventually("another namespace is refused in words", SOON, refused);
    make(&other, "any", "");
    assert_ne!(address_of(&other, "any"), asked);

    // Its own namespace has it again, without asking for it by name, and its rest begins anew.
    make(&former, "again", "");
    assert_eq!(address_of(&former, "again"), asked);
    delete(&former, "eip", "again");
    eventually("the Eip is gone", SOON, || is_gone(&former, "eip", "again"));
    eventually("another namespace is refused again", SOON, refused);
    let object = get(&["eipgateway", gateway.0]);
    let released = &object["status"]["released"][0];
    let entry = (&released["address"], &released["namespace"]);
    assert_eq!(entry, (&json!(asked), &json!(former.name)), "{released}");

    let short = json!({"spec": {"reuseAfterSeconds": 1}});
    patch("", "eipgateway", gateway.0, &short).must();
    assert_eq!(address_of(&other, "y"), asked);

    // What rests holds no EipGateway.
    let long = json!({"spec": {"reuseAfterSeconds": 600}});
    patch("", "eipgateway", gateway.0, &long).must();
    for eip in ["y", "any"] {
        delete(&other, "eip", eip);
        eventually("the Eip is gone", SOON, || is_gone(&other, "eip", eip));
    }
    start_deleting("", "eipgateway", gateway.0);
    gateway_goes(&gateway);
}

#[test]
fn timed_an_eip_moves_to_another_service_while_traffic_runs() {
    let (scene, vpc) = two("eip-moved");
    scene.eip("moving", None);
    scene.eip("other", None);
    scene.load_balancer("one", &vpc, "one", "  eip: moving\n");
    scene.load_balancer("two", &vpc, "two", "  eip: other\n");
    scene.pods_ready();
    let eip = scene.programmed_eip("one", 1);
    scene.programmed("two", 1);
    let to = target(&eip, 80);
    let outside = machine("external");
    assert_answer(&outside, to, &["s0"]);
    let pace = Duration::from_millis(50);
    let tcp = Stream::start(&outside, Protocol::Tcp, to, pace);
    let udp = Stream::start(&outside, Protocol::Udp, to, pace);
    std::thread::sleep(Duration::from_secs(1));
    // The two change places.
    let other = address_of(&scene, "other");
    scene.load_balancer("one", &vpc, "one", "  eip: other\n");
    scene.load_balancer("two", &vpc, "two", "  eip: moving\n");
    eventually("the Eip leads to the other Service", SOON, || {
        let answered = ask_often(&outside, Protocol::Tcp, to, 3);
        let moved = (answered.names(), answered.failed.len()) == (vec!["s1"], 0);
        moved.then_some(()).ok_or_else(|| format!("{answered:?}"))
    });
    std::thread::sleep(Duration::from_secs(1));
    for attempts in [tcp.finish(), udp.finish()] {
        let replies: Vec<&str> = attempts
            .0
            .iter()
            // What was repeated went where the later one led.
            .filter(|attempt| attempt.is_prompt())
            .filter_map(|attempt| attempt.result.as_ref().ok())
            .map(|reply| reply.backend.as_str())
            .collect();
        let first_moved = replies.iter().position(|name| *name == "s1");
        let first_moved = first_moved.expect("answers of the other Service");
        assert!(
            replies[first_moved..].iter().all(|name| *name == "s1"),
            "the old Service answers again: {replies:?}"
        );
        let outage = attempts.longest_outage();
        assert!(
            outage < Duration::from_secs(10),
            "nobody answered for {outage:?}"
        );
    }
    scene.programmed("one", 1);
    assert_answer(&outside, target(&other, 80), &["s0"]);
}

#[test]
fn an_eip_of_another_vpcs_gateway_is_refused_by_both_names() {
    let (scene, vpc) = two("eip-gateway");
    scene.load_balancer("svc", &vpc, "one", "  eipGateway: e2e-routed\n");
    scene.pods_ready();
    eventually("the YusurService is refused", SOON, || {
        let ysvc = get(&["-n", &scene.name, "ysvc", "svc"]);
        let (accepted, reason, message) = condition(&ysvc, "Accepted");
        let names_both = message.contains("e2e-routed") && message.contains(&vpc);
        if accepted == "False" && names_both {
            Ok(())
        } else {
            Err(format!("Accepted={accepted} {reason}: {message}"))
        }
    });
    // The cure that the message names.
    scene.eip("own", None);
    scene.load_balancer("svc", &vpc, "one", "  eip: own\n");
    let eip = scene.programmed_eip("svc", 1);
    assert_answer(&machine("external"), target(&eip, 80), &["s0"]);
    assert_met(&machine("external"), target(&eip, 81), Heard::Silence);
}

#[test]
fn timed_an_eip_gateway_in_use_stays_until_nobody_uses_it() {
    let gateway = OwnGateway::new("own-deleted");
    let mut scene = Scene::new("eipgw-in-use");
    let vpc = scene.vpc_of_gateway("v", gateway.0, &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "one");
    scene.load_balancer("svc", &vpc, "one", "");
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 1);
    assert!(eip.starts_with("198.18.14."), "{eip}");
    let outside = machine("external");
    let to = target(&eip, 80);
    assert_answer(&outside, to, &["s0"]);

    let stream = Stream::start(&outside, Protocol::Tcp, to, Duration::from_millis(50));
    start_deleting("", "eipgateway", gateway.0);
    eventually("the EipGateway says who uses it", SOON, || {
        let object = get(&["eipgateway", gateway.0]);
        let (status, _, message) = condition(&object, "InUse");
        match status == "True" && message.contains("svc") {
            true => Ok(()),
            false => Err(object["status"].to_string()),
        }
    });
    // It serves those whom it has, for as long as they are there.
    std::thread::sleep(Duration::from_secs(2));
    assert_answer(&outside, to, &["s0"]);
    assert_served(&stream.finish());
    delete(&scene, "ysvc", "svc");
    unanswered(&eip);
    drop(scene);
    gateway_goes(&gateway);
}
