//! The shape changes while traffic runs: a Subnet comes and goes, an EIP moves. Connections that the change does not concern
//! live on. Drained nodes are in `failover.rs`.

use std::time::Duration;

use ycloud_lab::ask::{Held, Protocol};
use ycloud_lab::place::Place;

use crate::asking::{PATIENCE, PROTOCOLS, Stream, assert_answer, gateways, machine, pod, target};
use crate::cluster::{SOON, eventually, get, kubectl};
use crate::scene::Scene;

/// One question each so often on new connections.
const PACE: Duration = Duration::from_millis(50);
/// How long they may fail where nothing that they need changes: one that is lost on a busy machine, not two in a row.
const HICCUP: Duration = Duration::from_millis(500);

/// Conversations by TCP and UDP that stay open, and new ones at a steady pace.
struct Watch {
    what: String,
    held: Vec<(Protocol, Held, String)>,
    streams: Vec<(Protocol, Stream)>,
}

impl Watch {
    fn start(what: &str, place: &Place, address: &str) -> Self {
        let to = target(address, 80);
        let open = |protocol| {
            let opened = Held::open(place, protocol, to, PATIENCE);
            let mut held = opened.unwrap_or_else(|error| panic!("{what} by {protocol}: {error}"));
            let reply = held.ask().expect("an answer");
            (protocol, held, reply.backend)
        };
        Self {
            what: what.to_owned(),
            held: PROTOCOLS.map(open).into(),
            streams: PROTOCOLS
                .map(|protocol| (protocol, Stream::start(place, protocol, to, PACE)))
                .into(),
        }
    }

    /// The conversations go on with whom they began.
    #[track_caller]
    fn assert_alive(&mut self, when: &str) {
        for (protocol, held, backend) in &mut self.held {
            let reply = held.ask();
            assert!(
                reply.as_ref().is_ok_and(|reply| reply.backend == *backend),
                "{} by {protocol}, {when}: held with {backend}: {reply:?}",
                self.what
            );
        }
    }

    /// No new conversation had to wait longer than `bound`.
    #[track_caller]
    fn assert_outage(self, bound: Duration) {
        for (protocol, stream) in self.streams {
            let attempts = stream.finish();
            let (failed, outage) = (attempts.failed(), attempts.longest_outage());
            eprintln!(
                "{} by {protocol}: {failed} of {} failed, at most {outage:?} without an answer",
                self.what,
                attempts.0.len()
            );
            assert!(!attempts.0.is_empty());
            assert!(
                outage <= bound,
                "{} by {protocol}: nobody answered for {outage:?}: {:?}",
                self.what,
                attempts.outages()
            );
        }
    }
}

fn all_alive(watches: &mut [Watch], when: &str) {
    for watch in watches {
        watch.assert_alive(when);
    }
}

/// A Vpc with a Service, its backends on two nodes and a client on the third.
fn served(name: &str) -> (Scene, String) {
    gateways();
    let mut scene = Scene::new(name);
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.server("s1", "a", "node-2", "web");
    scene.client("c", "a", "node-3");
    scene.load_balancer("svc", &vpc, "web", "");
    (scene, vpc)
}

#[test]
fn timed_a_subnet_comes_and_goes_while_connections_live_on() {
    let (mut scene, vpc) = served("shape-subnet");
    scene.pods_ready();
    let eip = scene.programmed_eip("svc", 2);
    let cluster_ip = scene.programmed("svc", 2);
    let mut watches = [
        Watch::start("ClusterIP", &pod(&scene, "c"), &cluster_ip),
        Watch::start("EIP from inside", &pod(&scene, "c"), &eip),
        Watch::start("EIP from outside", &machine("external"), &eip),
    ];
    for round in 1..=2 {
        scene.subnet(&vpc, "b", "10.0.2.0/24");
        all_alive(&mut watches, "a Subnet has come");
        // Its switch has the load balancers, of clients and of backends.
        scene.client("new-c", "b", "node-2");
        scene.server("new-s", "b", "node-3", "web");
        scene.pods_ready();
        scene.programmed("svc", 3);
        let all = ["new-s", "s0", "s1"];
        for address in [&cluster_ip, &eip] {
            assert_answer(&pod(&scene, "new-c"), target(address, 80), &all);
        }
        assert_answer(&machine("external"), target(&eip, 80), &all);
        all_alive(&mut watches, "the Subnet is used");
        let words = ["-n", &scene.name, "delete", "pod", "new-c", "new-s"];
        kubectl(&words).must();
        scene.programmed("svc", 2);
        scene.without_subnet("b");
        all_alive(&mut watches, &format!("the Subnet has gone, round {round}"));
    }
    for watch in watches {
        watch.assert_outage(HICCUP);
    }
}

#[test]
fn timed_an_eip_moves_and_connections_to_others_live_on() {
    let (scene, vpc) = served("shape-eip");
    scene.server("t0", "a", "node-3", "other");
    for eip in ["moving", "left"] {
        scene.eip(eip, None);
    }
    scene.load_balancer("one", &vpc, "web", "  eip: moving\n");
    scene.load_balancer("two", &vpc, "other", "  eip: left\n");
    scene.pods_ready();
    let unconcerned = scene.programmed_eip("svc", 2);
    let moving = scene.programmed_eip("one", 2);
    let [one, two] = [("one", 2), ("two", 1)].map(|(name, count)| scene.programmed(name, count));
    let (outside, client) = (machine("external"), pod(&scene, "c"));
    let mut watches = [
        Watch::start("another EIP", &outside, &unconcerned),
        Watch::start("another EIP from inside", &client, &unconcerned),
        Watch::start("ClusterIP of who loses the EIP", &client, &one),
        Watch::start("ClusterIP of who gets it", &client, &two),
    ];
    for (one_has, two_has, answers) in [
        ("left", "moving", ["t0"].as_slice()),
        ("moving", "left", &["s0", "s1"]),
    ] {
        scene.load_balancer("one", &vpc, "web", &format!("  eip: {one_has}\n"));
        scene.load_balancer("two", &vpc, "other", &format!("  eip: {two_has}\n"));
        let moved = if two_has == "moving" { "two" } else { "one" };
        eventually(&format!("Service {moved} has the EIP"), SOON, || {
            let ysvc = get(&["-n", &scene.name, "ysvc", moved]);
            let now = ysvc["status"]["eip"].as_str().unwrap_or_default();
            if now == moving {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        });
        scene.programmed("one", 2);
        scene.programmed("two", 1);
        assert_answer(&outside, target(&moving, 80), answers);
        all_alive(&mut watches, &format!("the EIP leads to {answers:?}"));
    }
    for watch in watches {
        watch.assert_outage(HICCUP);
    }
}
