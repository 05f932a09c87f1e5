//! Nodes and parts that carry EIPs die and return. New connections work again soon, and nobody pays a second time when
//! what died comes back. The bounds are for two busy cores: `cargo lab bench` has the figures.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use ycloud_lab::Machine;
use ycloud_lab::ask::{Held, Protocol};
use ycloud_lab::failover::{Carriers, Death, Outcome, ask_for};

use crate::asking::{GATEWAY, ask_often, gateways, machine, target};
use crate::cluster::{NODES, Printed, SOON, eventually, get, patch, the_lab};
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

/// A Service of one Vpc, `one`, and one of two, `several`, whose backends are not on the doomed node.
///
/// | Pods | Vpc | on | label |
/// |---|---|---|---|
/// | `p0` `p1` `p2` | `p` | each node | `app: web`, on the doomed node `app: out` |
/// | `q0` `q1` `q2` | `q` | each node | likewise |
struct Services {
    scene: Scene,
    doomed: usize,
}

impl Services {
    /// With their EIPs.
    fn without(doomed: Machine) -> (Self, [SocketAddr; 2]) {
        let scene = Scene::shared("failover", |scene| {
            for vpc in ["p", "q"] {
                let subnet = format!("{vpc}-net");
                scene.vpc(vpc, &[(&subnet, "10.0.1.0/24")]);
                for (i, node) in NODES.iter().enumerate() {
                    scene.server(&format!("{vpc}{i}"), &subnet, node, "web");
                }
            }
        });
        let at = NODES.iter().position(|node| *node == doomed.to_string());
        let doomed = at.expect("a node");
        let made = Self { scene, doomed };
        for i in 0..NODES.len() {
            made.label(i, if i == doomed { "out" } else { "web" });
        }
        let scene = &made.scene;
        let [p, q] = ["p", "q"].map(|vpc| scene.full(vpc));
        scene.load_balancer("one", &p, "web", "");
        scene.over_vpcs("several", &[&p, &q], "web", "");
        let to = [("one", 2), ("several", 4)];
        let to = to.map(|(service, healthy)| target(&scene.programmed_eip(service, healthy), 80));
        let outside = machine("external");
        let alive = ["p0", "p1", "p2", "q0", "q1", "q2"];
        let alive: Vec<&str> = alive
            .into_iter()
            .filter(|pod| !pod.ends_with(&doomed.to_string()))
            .collect();
        for (to, names) in to.iter().zip([&alive[..2], &alive]) {
            // What was said of the labels before may be as good a number.
            eventually(&format!("{names:?} answer at {to}"), SOON, || {
                let answered = ask_often(&outside, Protocol::Tcp, *to, 10 * names.len() as u32);
                let right = answered.names() == names && answered.failed.is_empty();
                right.then_some(()).ok_or_else(|| format!("{answered:?}"))
            });
        }
        (made, to)
    }

    /// Those of a node.
    fn label(&self, node: usize, app: &str) {
        for vpc in ["p", "q"] {
            let fields = json!({"metadata": {"labels": {"app": app}}});
            let printed = patch(&self.scene.name, "pod", &format!("{vpc}{node}"), &fields);
            if !printed.ok {
                eprintln!("{vpc}{node}: {}", printed.err.trim_end());
            }
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.label(self.doomed, "web");
    }
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
        // Probers move to other nodes with links of their own.
        let [death, back] = [death, back].map(|seen| seen.clone().excuse(&outcome.changes));
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
    let held = &outcome.held;
    assert!(
        held.iter().all(Result::is_ok),
        "of those held: {held:?}; the gateways are now {:?}; {}",
        lab.carriers(GATEWAY),
        moves()
    );
    outcome
}

/// What the gateways' Events say of where they went.
fn moves() -> String {
    let all = get(&["-A", "events"]);
    let events = all["items"].as_array().into_iter().flatten();
    let events = events.filter(|event| event["reason"] == "Moved");
    let texts = events.map(|event| {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("eventTime"), text("message"))
    });
    texts.collect::<Vec<_>>().join("; ")
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

fn of_the_gateway(death: Death, bound: Duration) {
    gateways();
    let node = carriers().gateway;
    let (_services, to) = Services::without(node);
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

fn of_a_service_gateway(death: Death, bound: Duration) {
    gateways();
    let carriers = spread_carriers();
    let doomed = |(_, node): &&(u8, Machine)| *node != carriers.gateway;
    let doomed = carriers.services.iter().find(doomed);
    let (number, node) = *doomed.expect("service gateways are spread over nodes");
    let (_services, to) = Services::without(node);
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
    of_the_gateway(Death::Node, NODE);
}

#[test]
fn alone_failover_of_the_gateways_ovn_controller() {
    of_the_gateway(Death::Controller, PART);
}

#[test]
fn alone_failover_of_the_gateways_ovn_controller_that_exits() {
    of_the_gateway(Death::Exit, PART);
}

#[test]
fn alone_failover_of_the_gateways_ovs_vswitchd() {
    of_the_gateway(Death::Switch, PART);
}

#[test]
fn alone_failover_of_a_service_gateways_node_spares_the_others_connections() {
    of_a_service_gateway(Death::Node, NODE);
}

#[test]
fn alone_failover_of_a_service_gateways_ovn_controller() {
    of_a_service_gateway(Death::Controller, PART);
}

#[test]
fn alone_failover_of_a_service_gateways_ovs_vswitchd() {
    of_a_service_gateway(Death::Switch, PART);
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
    let (_services, to) = Services::without(node);
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
    let held = &outcome.held;
    assert!(held.iter().all(Result::is_ok), "of those held: {held:?}");
    let after = carriers();
    assert_ne!(after.gateway, node);
    assert!(
        after.services.iter().all(|(_, on)| *on != node),
        "{after:?}"
    );
}
