//! Scenario ③: the world reaches backends of one Vpc by an EIP, and they see who asks.

use std::thread;
use std::time::Instant;

use ycloud_lab::ask::{self, Heard, knock, ping};

use crate::asking::{
    ROUTED_GATEWAY, SILENCE, ask_often, assert_answer, assert_met, assert_silent, behind_its_vpc,
    clients_outside, gateways, machine, met, pod, target, unanswered,
};
use crate::city::{default_vpc, tenant};
use crate::cluster::{NODES, SOON, apply, eventually, get};
use crate::scene::Scene;

const BACKENDS: [&str; 3] = ["s0", "s1", "s2"];

#[test]
fn scenario_3_the_world_reaches_every_backend_and_is_seen() {
    gateways();
    let (scene, vpc) = tenant();
    scene.load_balancer("world", &vpc, "web", "");
    let eip = scene.programmed_eip("world", 3);
    for (place, source) in clients_outside() {
        let seen = assert_answer(&place, target(&eip, 80), &BACKENDS);
        assert_eq!(seen, [source].into(), "the source is kept");
        let address = eip.parse().expect("an address");
        assert_eq!(ping(&place, address, SILENCE), Heard::Answer, "ping {eip}");
        assert_silent(&place, &eip, 81);
    }
    let service = get(&["-n", &scene.name, "service", "world"]);
    let ingress = &service["status"]["loadBalancer"]["ingress"][0];
    assert_eq!(ingress["ip"], eip.as_str(), "{service}");
    let object = get(&["-n", &scene.name, "eip", "world"]);
    let status = &object["status"];
    assert_eq!(status["address"], eip.as_str(), "{status}");
    assert_eq!(status["phase"], "Bound", "{status}");
    assert_eq!(status["vpc"], vpc.as_str(), "{status}");
    assert_eq!(status["boundTo"][0], "Service/world", "{status}");
}

#[test]
fn scenario_3_a_routed_eip() {
    gateways();
    let mut scene = Scene::new("s3-routed");
    let vpc = scene.vpc_of_gateway("v", ROUTED_GATEWAY, &[("a", "10.0.1.0/24")]);
    for (backend, node) in BACKENDS.iter().zip(NODES) {
        scene.server(backend, "a", node, "web");
    }
    scene.client("c", "a", "node-1");
    scene.load_balancer("svc", &vpc, "web", "");
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 3);
    assert!(eip.starts_with("192.0.2."), "{eip} is not routed");
    for (place, source) in clients_outside() {
        let seen = assert_answer(&place, target(&eip, 80), &BACKENDS);
        assert_eq!(seen, [source].into(), "the source is kept");
        let address = eip.parse().expect("an address");
        assert_eq!(ping(&place, address, SILENCE), Heard::Answer, "ping {eip}");
        assert_silent(&place, &eip, 81);
        assert_silent(&place, "192.0.2.250", 80);
    }
    assert_answer(&pod(&scene, "c"), target(&eip, 80), &BACKENDS);
}

#[test]
fn scenario_3_every_vpc_and_every_node_reaches_the_eip() {
    gateways();
    let (scene, vpc) = tenant();
    let default = default_vpc();
    scene.load_balancer("inside", &vpc, "web", "");
    let eip = scene.programmed_eip("inside", 3);
    let to = target(&eip, 80);
    thread::scope(|scope| {
        for (i, node) in NODES.iter().enumerate() {
            let own = format!("c{i}");
            let others = [pod(&scene, &format!("o{i}")), pod(&default, &own)];
            let address = scene.pod_ip(&own).parse().expect("an address");
            let own = pod(&scene, &own);
            scope.spawn(move || {
                let seen = assert_answer(&own, to, &BACKENDS);
                assert_eq!(seen, [address].into(), "{} is seen as itself", own.name());
            });
            for client in others {
                let eip = eip.as_str();
                scope.spawn(move || {
                    let seen = assert_answer(&client, to, &BACKENDS);
                    let name = client.name();
                    assert!(
                        seen.iter().all(behind_its_vpc),
                        "{name} is seen as {seen:?}"
                    );
                    assert_silent(&client, eip, 81);
                });
            }
            scope.spawn(move || assert_answer(&machine(node), to, &BACKENDS));
        }
        // A backend that asks may be sent to itself.
        scope.spawn(|| assert_answer(&pod(&scene, "s0"), to, &BACKENDS));
    });
}

#[test]
fn scenario_3_nobody_answers_for_an_eip_that_nothing_holds() {
    gateways();
    let (scene, default) = (tenant().0, default_vpc());
    scene.eip("idle", None);
    let idle = eventually("the Eip has an address", SOON, || {
        let eip = get(&["-n", &scene.name, "eip", "idle"]);
        let address = eip["status"]["address"].as_str().map(str::to_owned);
        address.ok_or_else(|| eip["status"].to_string())
    });
    // Of a Vpc with EIPs, of one without, of the default one, and a node.
    let places = [
        pod(&scene, "c1"),
        pod(&scene, "o1"),
        pod(&default, "c0"),
        machine("node-3"),
    ];
    // It may have been another's a moment ago.
    unanswered(&idle);
    for address in [idle.as_str(), "198.51.100.250", "192.0.2.250"] {
        thread::scope(|scope| {
            for place in &places {
                scope.spawn(move || assert_silent(place, address, 80));
            }
        });
        // From outside it is the upstream router that may say so: nobody answers its question for the address.
        let met = met(&machine("external"), target(address, 80));
        let silent = [Heard::Silence, Heard::Unreachable];
        assert!(
            met.iter().all(|met| silent.contains(met)),
            "{address}: {met:?}"
        );
    }
}

#[test]
fn scenario_3_without_backends_it_refuses_at_once() {
    gateways();
    let (scene, vpc) = tenant();
    scene.load_balancer("empty", &vpc, "nobody", "");
    let eip = scene.programmed_eip("empty", 0);
    for place in [
        machine("external"),
        machine("node-1"),
        pod(&scene, "c0"),
        pod(&scene, "o1"),
    ] {
        assert_met(&place, target(&eip, 80), Heard::Refusal);
    }
}

#[test]
fn scenario_3_source_ranges_let_in_only_their_own() {
    gateways();
    let (scene, vpc) = tenant();
    scene.load_balancer(
        "ranges",
        &vpc,
        "web",
        "  loadBalancerSourceRanges: [203.0.113.11/32]\n",
    );
    let eip = scene.programmed_eip("ranges", 3);
    let [(first, _), (second, _)] = clients_outside();
    assert_answer(&second, target(&eip, 80), &BACKENDS);
    assert_met(&first, target(&eip, 80), Heard::Silence);
    scene.load_balancer(
        "ranges",
        &vpc,
        "web",
        "  loadBalancerSourceRanges: [203.0.113.10/32, 192.0.2.128/25]\n",
    );
    eventually("the other one is let in", SOON, || {
        let met = knock(&first, ask::Protocol::Tcp, target(&eip, 80), SILENCE);
        if met == Heard::Answer {
            Ok(())
        } else {
            Err(format!("{met:?}"))
        }
    });
    assert_answer(&first, target(&eip, 80), &BACKENDS);
    assert_met(&second, target(&eip, 80), Heard::Silence);
    scene.load_balancer("ranges", &vpc, "web", "");
    eventually("all are let in", SOON, || {
        let met = knock(&second, ask::Protocol::Tcp, target(&eip, 80), SILENCE);
        if met == Heard::Answer {
            Ok(())
        } else {
            Err(format!("{met:?}"))
        }
    });
}

#[test]
fn scenario_3_a_native_service_of_the_default_vpc() {
    gateways();
    let scene = default_vpc();
    apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: eip, namespace: {ns}}}
spec:
  type: LoadBalancer
  loadBalancerClass: iaas.yusur.io/eip
  allocateLoadBalancerNodePorts: false
  selector: {{app: web}}
  ports:
    - {{name: web, port: 80, protocol: TCP, targetPort: web}}
    - {{name: dgram, port: 80, protocol: UDP, targetPort: dgram}}
",
        ns = scene.name
    ))
    .must();
    let eip = eventually("the Service has its address", SOON, || {
        let service = get(&["-n", &scene.name, "service", "eip"]);
        let ingress = &service["status"]["loadBalancer"]["ingress"][0];
        let address = ingress["ip"].as_str().map(str::to_owned);
        address.ok_or_else(|| service["status"].to_string())
    });
    let to = target(&eip, 80);
    let start = Instant::now();
    eventually("the Service is programmed", SOON, || {
        let answered = ask_often(&machine("external"), ask::Protocol::Tcp, to, 12);
        // Kubernetes may have made the slice before the last Pod was ready.
        match answered.names() == BACKENDS {
            true => Ok(()),
            false => Err(format!("{answered:?}")),
        }
    });
    eprintln!("its EIP answers {:?} after it is known", start.elapsed());
    for (place, source) in clients_outside() {
        let seen = assert_answer(&place, to, &BACKENDS);
        assert_eq!(seen, [source].into(), "the source is kept");
        assert_silent(&place, &eip, 81);
    }
    assert_answer(&pod(&scene, "c0"), to, &BACKENDS);
    for node in NODES {
        assert_answer(&machine(node), to, &BACKENDS);
    }
}
