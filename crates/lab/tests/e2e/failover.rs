//! Nodes and parts that carry EIPs die and return. New connections work again soon, and nobody pays a second time when
//! what died comes back. The bounds are for two busy cores: `cargo lab bench` has the figures.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use ycloud_lab::Machine;
use ycloud_lab::ask::{Held, Protocol};
use ycloud_lab::failover::{Carriers, Death, Outcome, ask_for};

use crate::asking::{GATEWAY, assert_answer, gateways, machine, target};
use crate::cluster::{NODES, Printed, SOON, eventually, patch, the_lab};
use crate::scene::Scene;

/// How long new connections may fail when a node dies.
const NODE: Duration = Duration::from_millis(1_500);
/// The same when a part of it ends.
const PART: Duration = Duration::from_secs(4);
/// How long they may fail once more when it returns.
const RETURN: Duration = Duration::from_millis(1_000);
/// The same where an ovn-controller begins anew: until its tunnels' BFD sessions are up it claims every gateway, for half a second in
/// the Southbound database; what the switches have learned by then lasts longer.
const ANEW: Duration = Duration::from_secs(4);
/// How long what cuts a node off is dead: longer than a Lease of the controllers.
const CUT_OFF: Duration = Duration::from_secs(20);
/// How long an ovn-controller is dead, without which its node's Leases are renewed as ever.
const DEAD: Duration = Duration::from_secs(8);
/// How long is watched after its return.
const AFTER: Duration = Duration::from_secs(8);

pub fn carriers() -> Carriers {
    eventually("every gateway is carried", SOON, || {
        let found = the_lab().carriers(GATEWAY).map_err(|e| e.to_string())?;
        found.ok_or_else(|| "not yet".to_owned())
    })
}

/// As [`carriers`], with the service gateways on more than one node. A node that was drained takes nothing back, so they may be
/// together on one: it is drained too, until they are not.
fn spread_carriers() -> Carriers {
    let spread = |found: &Carriers| {
        let mut nodes = found.services.iter().map(|(_, node)| *node);
        let first = nodes.next();
        nodes.any(|node| Some(node) != first)
    };
    let found = carriers();
    if spread(&found) {
        return found;
    }
    let (_, all_on) = found.services[0];
    let drained = Without::node(all_on);
    eventually("service gateways are on several nodes", SOON, || {
        let now = carriers();
        spread(&now).then_some(()).ok_or_else(|| format!("{now:?}"))
    });
    drop(drained);
    carriers()
}

/// A Service of one Vpc and one of two, whose backends are not on `doomed`. Returns their EIPs.
fn services(name: &str, doomed: Machine) -> (Scene, [SocketAddr; 2]) {
    let mut scene = Scene::new(name);
    let vpc = scene.vpc("p", &[("p-net", "10.0.1.0/24")]);
    let other = scene.vpc("q", &[("q-net", "10.0.1.0/24")]);
    let alive = |node: &&str| **node != doomed.to_string();
    let mut alive = NODES.into_iter().filter(alive).cycle();
    for (backend, subnet) in [
        ("p0", "p-net"),
        ("p1", "p-net"),
        ("q0", "q-net"),
        ("q1", "q-net"),
    ] {
        scene.server(backend, subnet, alive.next().expect("a node"), "web");
    }
    scene.load_balancer("one", &vpc, "web", "");
    scene.over_vpcs("several", &[&vpc, &other], "web", "");
    scene.pods_ready();
    let to = [("one", 2), ("several", 4)];
    let to = to.map(|(service, healthy)| target(&scene.programmed_eip(service, healthy), 80));
    let outside = machine("external");
    assert_answer(&outside, to[0], &["p0", "p1"]);
    assert_answer(&outside, to[1], &["p0", "p1", "q0", "q1"]);
    (scene, to)
}

/// The part dies and returns; connections that `held` names live on.
fn survive(
    doomed: (Machine, Death),
    to: &[SocketAddr],
    held: Vec<Held>,
    bound: Duration,
) -> Outcome {
    let lab = the_lab();
    let dead = match doomed.1 {
        Death::Exit | Death::Controller => DEAD,
        Death::Switch | Death::Node => CUT_OFF,
    };
    let outcome = lab
        .die_and_return(doomed, (dead, AFTER), &machine("external"), to, held)
        .expect("it dies and returns");
    let kinds = ["one Vpc", "several Vpcs"];
    for ((kind, death), back) in kinds.iter().zip(&outcome.death).zip(&outcome.back) {
        let (first, all) = (death.longest_outage(), death.disturbance());
        let again = back.disturbance();
        eprintln!(
            "{kind}: {} of {} failed, for {first:?}, the last after {all:?}: {:?}; at the return {} for {again:?}: {:?}",
            death.failed(),
            death.0.len(),
            death.outages(),
            back.failed(),
            back.outages()
        );
        assert!(all <= bound, "{kind}: new connections failed for {all:?}");
        let most = if doomed.1 == Death::Exit {
            ANEW
        } else {
            RETURN
        };
        assert!(again <= most, "{kind}: a second outage of {again:?}");
    }
    let broken = outcome.held.iter().filter(|held| held.is_none()).count();
    assert_eq!(broken, 0, "of {} held ones", outcome.held.len());
    outcome
}

/// Connections that had an answer each.
fn held_open(to: SocketAddr) -> Vec<Held> {
    let outside = machine("external");
    let open = || {
        let opened = Held::open(&outside, Protocol::Tcp, to, Duration::from_secs(5));
        let mut held = opened.expect("a connection");
        held.ask().expect("an answer");
        held
    };
    std::iter::repeat_with(open).take(6).collect()
}

/// Connections through service gateways that `wanted` chooses: which one, the client's address tells the backend.
fn held_through(to: SocketAddr, wanted: impl Fn(u8) -> bool) -> Vec<Held> {
    let outside = machine("external");
    let mut held = Vec::new();
    for _ in 0..24 {
        let opened = Held::open(&outside, Protocol::Tcp, to, Duration::from_secs(5));
        let mut one = opened.expect("a connection");
        let IpAddr::V4(client) = one.ask().expect("an answer").client.ip() else {
            panic!("a client of IPv6");
        };
        let [.., by] = client.octets();
        if wanted(by) {
            held.push(one);
        }
    }
    assert!(!held.is_empty(), "none goes that way");
    held
}

fn of_the_gateway(name: &str, death: Death, bound: Duration) {
    gateways();
    let node = carriers().gateway;
    let (_scene, to) = services(name, node);
    // What is established is in the switch's tables, which live on without their controller.
    // Another node has not got them.
    let held = match death {
        Death::Controller => to.iter().flat_map(|to| held_open(*to)).collect(),
        Death::Exit | Death::Switch | Death::Node => Vec::new(),
    };
    survive((node, death), &to, held, bound);
    if death == Death::Node {
        let now = carriers().gateway;
        assert_ne!(now, node, "the node that returned took the gateway back");
    }
}

fn of_a_service_gateway(name: &str, death: Death, bound: Duration) {
    gateways();
    let carriers = spread_carriers();
    let doomed = |(_, node): &&(u8, Machine)| *node != carriers.gateway;
    let doomed = carriers.services.iter().find(doomed);
    let (number, node) = *doomed.expect("service gateways are spread over nodes");
    let (_scene, to) = services(name, node);
    let on_others = |by: u8| {
        let mut all = carriers.services.iter();
        all.any(|(k, on)| *k == by && *on != node)
    };
    let mut held = held_through(to[1], on_others);
    if death == Death::Controller {
        held.extend(held_through(to[1], |by| !on_others(by)));
    }
    let outcome = survive((node, death), &to, held, bound);
    let longest = outcome.held.iter().flatten().max();
    eprintln!("held through others than {number}: an answer took at most {longest:?}");
}

#[test]
fn alone_failover_of_the_gateways_node() {
    of_the_gateway("fo-gw-node", Death::Node, NODE);
}

#[test]
fn alone_failover_of_the_gateways_ovn_controller() {
    of_the_gateway("fo-gw-controller", Death::Controller, PART);
}

#[test]
fn alone_failover_of_the_gateways_ovn_controller_that_exits() {
    of_the_gateway("fo-gw-exit", Death::Exit, PART);
}

#[test]
fn alone_failover_of_the_gateways_ovs_vswitchd() {
    of_the_gateway("fo-gw-vswitchd", Death::Switch, PART);
}

#[test]
fn alone_failover_of_a_service_gateways_node_spares_the_others_connections() {
    of_a_service_gateway("fo-sg-node", Death::Node, NODE);
}

#[test]
fn alone_failover_of_a_service_gateways_ovn_controller() {
    of_a_service_gateway("fo-sg-controller", Death::Controller, PART);
}

#[test]
fn alone_failover_of_a_service_gateways_ovs_vswitchd() {
    of_a_service_gateway("fo-sg-vswitchd", Death::Switch, PART);
}

/// Which nodes may carry the suite's EipGateway; all of them again when dropped.
struct Without;

impl Without {
    fn node(node: Machine) -> Self {
        let made = Self;
        let name = node.to_string();
        let elsewhere =
            json!({"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [name]});
        made.select(&json!({ "matchExpressions": [elsewhere] }))
            .must();
        made
    }

    fn select(&self, selector: &Value) -> Printed {
        let fields = json!({"spec": {"nodeSelector": selector}});
        patch("", "eipgateway", GATEWAY, &fields)
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        let printed = self.select(&Value::Null);
        if !printed.ok {
            eprintln!("clean-up: {}", printed.err.trim_end());
        }
    }
}

#[test]
fn alone_failover_a_drained_node_gives_its_gateways_away() {
    gateways();
    let before = carriers();
    let node = before.gateway;
    let (_scene, to) = services("fo-drain", node);
    let elsewhere = |by: u8| {
        let mut all = before.services.iter();
        all.any(|(k, on)| *k == by && *on != node)
    };
    let held = held_through(to[1], elsewhere);
    let drained = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        Without::node(node)
    });
    let outcome = ask_for(Duration::from_secs(12), &machine("external"), &to, held);
    let _drained = drained.join().expect("the patch is taken");
    for (kind, seen) in ["one Vpc", "several Vpcs"].iter().zip(&outcome.death) {
        let all = seen.disturbance();
        eprintln!(
            "{kind}: {} of {} failed, for {all:?}",
            seen.failed(),
            seen.0.len()
        );
        assert!(all <= PART, "{kind}: new connections failed for {all:?}");
    }
    let broken = outcome.held.iter().filter(|held| held.is_none()).count();
    assert_eq!(broken, 0, "of {} held ones", outcome.held.len());
    let after = carriers();
    assert_ne!(after.gateway, node);
    assert!(
        after.services.iter().all(|(_, on)| *on != node),
        "{after:?}"
    );
}
