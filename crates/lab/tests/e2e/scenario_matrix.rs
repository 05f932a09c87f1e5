//! Each scenario by TCP and UDP, with the backend on the node where the client's packets enter and on another one: who
//! answers, and whom the backend sees.

use std::net::IpAddr;

use ycloud_lab::ext;
use ycloud_lab::place::Place;

use crate::asking::{
    PROTOCOLS, ask_often, behind_a_service_gateway, behind_its_vpc, gateways, machine, pod, target,
};
use crate::cluster::{NODES, get};
use crate::failover::carriers;
use crate::scene::Scene;

/// Questions to three backends: one in 100,000 times one of them is asked never.
const QUESTIONS: u32 = 30;

/// Whom a backend must see.
enum Seen {
    Exactly(IpAddr),
    One(fn(&IpAddr) -> bool),
}

struct Case {
    what: &'static str,
    client: Place,
    address: String,
    /// Backends on `node-1`, `node-2` and `node-3`.
    backends: [&'static str; 3],
    seen: Seen,
}

impl Case {
    /// What is wrong, in words.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for protocol in PROTOCOLS {
            let to = target(&self.address, 80);
            let answered = ask_often(&self.client, protocol, to, QUESTIONS);
            let right = |client: &IpAddr| match self.seen {
                Seen::Exactly(expected) => *client == expected,
                Seen::One(is) => is(client),
            };
            if answered.names() != self.backends
                || !answered.clients.iter().all(right)
                || !answered.failed.is_empty()
            {
                faults.push(format!("{} by {protocol}: {answered:?}", self.what));
            }
        }
        faults
    }
}

#[test]
fn scenario_matrix_every_scenario_by_tcp_and_udp_near_and_far() {
    gateways();
    let mut scene = Scene::new("s-matrix");
    let vpc = scene.vpc(
        "v",
        &[("v-net", "10.0.1.0/24"), ("v-clients", "10.0.2.0/24")],
    );
    let other = scene.vpc("w", &[("w-net", "10.0.1.0/24")]);
    for (i, node) in NODES.into_iter().enumerate() {
        scene.server(&format!("v{i}"), "v-net", node, "web");
        scene.server(&format!("w{i}"), "w-net", node, "several");
        scene.server(&format!("d{i}"), "ovn-default", node, "default");
    }
    scene.client("own", "v-clients", "node-2");
    scene.load_balancer("one", &vpc, "web", "");
    scene.over_vpcs("several", &[&vpc, &other], "several", "");
    scene.cluster_service("nodes", "default");
    scene.pods_ready();
    let own = scene.programmed("one", 3);
    let nodes = scene.programmed("nodes", 3);
    let (one, several) = (
        scene.programmed_eip("one", 3),
        scene.programmed_eip("several", 3),
    );
    let address = |text: &str| Seen::Exactly(text.parse().expect("an address"));
    let join = get(&["-n", "ycloud-system", "vnic", "node-3"])["status"]["ip"].clone();
    let external = || (machine("external"), Seen::Exactly(ext::EXTERNAL.into()));
    let (v, w, d) = (["v0", "v1", "v2"], ["w0", "w1", "w2"], ["d0", "d1", "d2"]);
    let case = |what, (client, seen), address: &str, backends| Case {
        what,
        client,
        address: address.to_owned(),
        backends,
        seen,
    };
    let cases = [
        case(
            "1",
            (pod(&scene, "own"), address(&scene.pod_ip("own"))),
            &own,
            v,
        ),
        case(
            "2",
            (
                machine("node-3"),
                address(join.as_str().unwrap_or_default()),
            ),
            &nodes,
            d,
        ),
        case("3", external(), &one, v),
        case(
            "3 from another Vpc",
            (pod(&scene, "w1"), Seen::One(behind_its_vpc)),
            &one,
            v,
        ),
        case(
            "4",
            (machine("external"), Seen::One(behind_a_service_gateway)),
            &several,
            w,
        ),
    ];
    let faults: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = cases
            .iter()
            .map(|case| scope.spawn(|| case.faults()))
            .collect();
        let ended = asking
            .into_iter()
            .flat_map(|case| case.join().expect("a case ends"));
        ended.collect()
    });
    assert!(
        faults.is_empty(),
        "{:?}:\n{}",
        carriers(),
        faults.join("\n")
    );
}
