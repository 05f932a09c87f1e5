//! Scenario ①: a client in a Vpc reaches a ClusterIP; the backends are Pods of the same Vpc.

use ycloud_lab::OvnVersion;

use crate::asking::{assert_pod_answers, assert_unanswered, pod, target};
use crate::city::{tenant, three_vpcs};
use crate::cluster::{
    NODES, SOON, apply, condition, delete, eventually, get, in_pod, nbctl, patch, the_lab,
};
use crate::scene::Scene;
use crate::sctp;

/// A Vpc with backends in two Subnets on three nodes, and a client on each node in a third Subnet.
fn spread(name: &str) -> (Scene, String) {
    let mut scene = Scene::new(name);
    let vpc = scene.vpc(
        "v",
        &[
            ("a", "10.0.1.0/24"),
            ("b", "10.0.2.0/24"),
            ("c", "10.0.3.0/24"),
        ],
    );
    for (i, node) in NODES.iter().enumerate() {
        scene.server(
            &format!("s{i}"),
            if i == 1 { "b" } else { "a" },
            node,
            "web",
        );
        scene.client(&format!("c{i}"), "c", node);
    }
    (scene, vpc)
}

#[test]
fn scenario_1_every_node_reaches_every_backend_and_the_backend_sees_the_client() {
    let (scene, vpc) = tenant();
    scene.service("tcp", &vpc, &[(80, "8080")], "web", "");
    let vip = scene.programmed("tcp", 3);
    for client in ["c0", "c1", "c2"] {
        let answers = scene.ask(client, &vip, 80, 30);
        assert_eq!(answers.names(), ["s0", "s1", "s2"], "{client}: {answers:?}");
        assert_eq!(answers.failed.len(), 0, "{client}: {answers:?}");
        assert_eq!(
            scene.source_seen(client, &vip, 80),
            scene.pod_ip(client),
            "{client}: the source is kept"
        );
    }
}

#[test]
fn scenario_1_hairpin_a_backend_is_its_own_client() {
    let (scene, vpc) = tenant();
    scene.service("hairpin", &vpc, &[(80, "web")], "web", "");
    let vip = scene.programmed("hairpin", 3);
    for client in ["s0", "s1"] {
        let answers = scene.ask(client, &vip, 80, 30);
        assert_eq!(
            answers.names(),
            ["s0", "s1", "s2"],
            "{client} reaches itself too: {answers:?}"
        );
        assert_eq!(answers.failed.len(), 0, "{client}: {answers:?}");
    }
}

#[test]
fn scenario_1_tcp_udp_and_sctp_ports_in_one_service() {
    let (scene, vpc) = tenant();
    apply(&format!(
        "apiVersion: iaas.yusur.io/v1
kind: YusurService
metadata: {{name: protocols, namespace: {ns}}}
spec:
  vpc: {vpc}
  selector: {{app: web}}
  ports:
    - {{name: web, port: 80, protocol: TCP, targetPort: web}}
    - {{name: dgram, port: 80, protocol: UDP, targetPort: dgram}}
    - {{name: assoc, port: 80, protocol: SCTP, targetPort: 80}}
",
        ns = scene.name
    ))
    .must();
    let vip = scene.programmed("protocols", 3);
    let tcp = scene.ask("c0", &vip, 80, 24);
    let udp = scene.ask_udp("c0", &vip, 80, 24);
    assert_eq!(tcp.names(), ["s0", "s1", "s2"], "{tcp:?}");
    assert_eq!(udp.names(), ["s0", "s1", "s2"], "{udp:?}");
    assert_eq!(
        (tcp.failed.len(), udp.failed.len()),
        (0, 0),
        "{tcp:?} {udp:?}"
    );
    let name = format!("name=\"{}/protocols:sctp\"", scene.name);
    let vips = nbctl(&["--bare", "--columns=vips", "find", "Load_Balancer", &name]);
    for backend in ["s0", "s1", "s2"] {
        let endpoint = format!("{}:80", scene.pod_ip(backend));
        assert!(vips.contains(&endpoint), "{vips}");
    }
}

/// Open vSwitch 3.1, as beside OVN 23.03, translates no ports of SCTP in user space.
#[test]
fn scenario_1_sctp_reaches_the_backend_or_says_why_it_cannot() {
    let (scene, vpc) = spread("sctp");
    let serve = |port: u16| {
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: YusurService
metadata: {{name: svc, namespace: {ns}}}
spec:
  vpc: {vpc}
  selector: {{app: web}}
  ports:
    - {{name: assoc, port: 80, protocol: SCTP, targetPort: {port}}}
",
            ns = scene.name
        ))
        .must();
    };
    serve(9999);
    scene.pods_ready();
    let port = if the_lab().ovn().expect("a lab that is up") == OvnVersion::V23_03 {
        eventually("it says what is not supported", SOON, || {
            let ysvc = get(&["-n", &scene.name, "ysvc", "svc"]);
            let (status, reason, message) = condition(&ysvc, "Programmed");
            let named = ["9999", "SCTP", "chassis"].iter();
            let named = named.filter(|word| message.contains(**word)).count();
            if (status.as_str(), reason.as_str(), named) == ("False", "NotSupported", 3) {
                return Ok(());
            }
            Err(format!("Programmed={status} {reason} {message}"))
        });
        serve(80);
        80
    } else {
        9999
    };
    let vip = scene.programmed("svc", 3);
    // One backend left, so that it is known who must get the packet.
    for out in ["s1", "s2"] {
        let fields = serde_json::json!({"metadata": {"labels": {"app": "out"}}});
        patch(&scene.name, "pod", out, &fields).must();
    }
    scene.programmed("svc", 1);
    let backend = scene.pod_ip("s0");
    for client in ["c0", "c1"] {
        let address = vip.parse().expect("an IPv4 address");
        let (init, answer) = sctp::handshake(&scene.name, client, "s0", address, 80);
        let init = init.unwrap_or_else(|| panic!("{client}: no INIT reached {backend}"));
        assert_eq!(
            (init.from.to_string(), init.destination_port, init.intact),
            (scene.pod_ip(client), port, true),
            "{init:?}"
        );
        let answer = answer.unwrap_or_else(|| panic!("{client}: no INIT ACK came back"));
        assert_eq!(
            (answer.from, answer.source_port, answer.intact),
            (address, 80, true),
            "{answer:?}"
        );
    }
}

#[test]
fn scenario_1_two_vpcs_with_the_same_cidrs_reach_only_their_own() {
    let scene = three_vpcs();
    // Both select the same label: the Vpc alone tells them apart.
    for (service, vpc) in [("left", "p"), ("right", "q")] {
        scene.service(service, &scene.full(vpc), &[(80, "8080")], "web", "");
    }
    let left = scene.programmed("left", 2);
    let right = scene.programmed("right", 1);
    for (client, vip, backends) in [
        ("c-p2", &left, ["p0", "p1"].as_slice()),
        ("c-q2", &right, &["q0"]),
    ] {
        let answers = scene.ask(client, vip, 80, 20);
        let met = (answers.names(), answers.failed.len());
        assert_eq!(met, (backends.to_vec(), 0), "{answers:?}");
    }
    let [own, other] = ["c-p2", "c-q2"].map(|client| pod(&scene, client));
    assert_unanswered(&own, target(&right, 80));
    assert_unanswered(&other, target(&left, 80));
    // A backend of the other Vpc has the very same address as one of the own.
    let address = scene.pod_ip("q0");
    assert_eq!(address, scene.pod_ip("p0"));
    assert_pod_answers(&own, target(&address, 8080), "p0");
    assert_pod_answers(&other, target(&address, 8080), "q0");
}

#[test]
fn scenario_1_balance_600_connections_over_three_backends() {
    let (scene, vpc) = tenant();
    scene.service("balance", &vpc, &[(80, "8080")], "web", "");
    let vip = scene.programmed("balance", 3);
    let answers = scene.ask("c1", &vip, 80, 600);
    assert_eq!(
        (answers.total(), answers.failed.len()),
        (600, 0),
        "{answers:?}"
    );
    for (backend, count) in &answers.by {
        assert!(
            (120..=282).contains(count),
            "{backend} got {count} of 600, not 20-47 %: {answers:?}"
        );
    }
}

#[test]
fn client_affinity_keeps_a_client_on_one_backend() {
    let (scene, vpc) = tenant();
    scene.service(
        "affinity",
        &vpc,
        &[(80, "8080")],
        "web",
        "  sessionAffinity: ClientIP\n",
    );
    let vip = scene.programmed("affinity", 3);
    for client in ["c0", "c1", "c2"] {
        let answers = scene.ask(client, &vip, 80, 12);
        assert_eq!(
            (answers.by.len(), answers.failed.len()),
            (1, 0),
            "{client}: {answers:?}"
        );
    }
}

#[test]
fn a_thousand_ports_answer() {
    let (scene, vpc) = tenant();
    let ports: Vec<(u16, &str)> = (1..=1000).map(|i| (20_000 + i, "8080")).collect();
    scene.service("ports", &vpc, &ports, "web", "");
    let vip = scene.programmed("ports", 3);
    for port in [20_001, 20_500, 21_000] {
        let answers = scene.ask("c0", &vip, port, 2);
        assert_eq!(
            (answers.total(), answers.failed.len()),
            (2, 0),
            "port {port}: {answers:?}"
        );
    }
    let refused = in_pod(
        &scene.name,
        "c0",
        &format!("curl -s -m 2 http://{vip}:21001/hostname"),
    );
    assert!(
        !refused.ok,
        "a port that the Service does not have answers: {}",
        refused.out
    );
    // Every chassis has them all, and others share the scene.
    delete(&scene.name, "ysvc", "ports");
}
