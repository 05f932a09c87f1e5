//! A backend that fails, in whatever way, is left out in time, and comes back when it serves again.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ycloud_lab::ask::{Attempts, Heard, Protocol, ask, knock};
use ycloud_lab::backend::{Backend, Kind};

use crate::asking::{Stream, ask_often, assert_answer, assert_met, pod, target};
use crate::backends::{ALL, CHECK, FAST, LEAVES, Mixed, assert_served};
use crate::cluster::{always, condition, eventually, get, lab};
use crate::scene::Scene;

/// How often the client asks.
const PACE: Duration = Duration::from_millis(50);
/// How long is watched once the backend must have left.
const AFTER: Duration = Duration::from_secs(3);

/// Breaks one backend while a client asks, sees it leave, mends it, and sees it return to the others.
fn leaves_and_returns(
    mixed: &Mixed,
    backend: &Backend,
    (name, how): (&str, &str),
    destroy: impl FnOnce(&Backend),
    mend: impl FnOnce(&Backend),
    all: &[&str],
) {
    let stream = Stream::start(&mixed.client, Protocol::Tcp, mixed.to, PACE);
    std::thread::sleep(Duration::from_secs(2));
    let broken = stream.elapsed();
    destroy(backend);
    std::thread::sleep(LEAVES + AFTER);
    let attempts = stream.finish();
    // Those of the last second may have been under way.
    let before = attempts.between(Duration::ZERO, broken - Duration::from_secs(1));
    assert_served(&before);
    let last = last_sign(&attempts, name);
    let took = last.saturating_sub(broken);
    eprintln!("{name}, {how}: asked for {took:?} after it broke");
    assert!(
        took <= LEAVES,
        "{name}, {how}: still asked after {took:?}; at most {LEAVES:?}"
    );
    let message = mixed.scene.in_state("svc", name, "Unhealthy");
    assert!(
        !message.is_empty(),
        "{name}, {how}: unhealthy without a word"
    );
    eprintln!("{name}, {how}: {message}");
    mend(backend);
    mixed.scene.in_state("svc", name, "Healthy");
    mixed.scene.programmed("svc", all.len() as i64);
    assert_answer(&mixed.client, mixed.to, all);
}

/// The last time at which somebody began to ask the backend, or asked in vain.
fn last_sign(attempts: &Attempts, name: &str) -> Duration {
    let answers = attempts.0.iter().filter(|attempt| {
        let reply = attempt.result.as_ref();
        reply.is_ok_and(|reply| reply.backend == name)
    });
    let signs = answers.chain(attempts.failures());
    signs.map(|attempt| attempt.at).max().unwrap_or_default()
}

#[test]
fn timed_backends_unhealthy_servers_and_cables_leave_in_time_and_return() {
    let mixed = Mixed::fast("be-unhealthy");
    leaves_and_returns(
        &mixed,
        &mixed.bm,
        ("bm", "its server is killed"),
        |bm| bm.stop().expect("killed"),
        |bm| bm.start().expect("started"),
        &FAST,
    );
    leaves_and_returns(
        &mixed,
        &mixed.bm,
        ("bm", "its cable is cut"),
        |bm| bm.set_cable(false).expect("cut"),
        |bm| bm.set_cable(true).expect("joined"),
        &FAST,
    );
    leaves_and_returns(
        &mixed,
        &mixed.addr,
        ("addr", "its server accepts and says nothing"),
        |addr| addr.suspend().expect("suspended"),
        |addr| addr.resume().expect("resumed"),
        &FAST,
    );
}

#[test]
fn timed_backends_unhealthy_a_virtual_machine_without_power_leaves_in_time_and_returns() {
    let mixed = Mixed::new("be-power");
    let vm = mixed.vm.as_ref().expect("a virtual machine");
    leaves_and_returns(
        &mixed,
        vm,
        ("vm", "its power goes"),
        |vm| vm.stop().expect("off"),
        |vm| vm.start().expect("on"),
        &ALL,
    );
}

/// A machine is cut off from all networks, while it is in scope.
struct CutOff(&'static str);

impl CutOff {
    fn begin(machine: &'static str) -> Self {
        lab(&["isolate", machine]).must();
        Self(machine)
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        let joined = lab(&["rejoin", self.0]);
        if !joined.ok {
            eprintln!("clean-up: {}", joined.err);
        }
    }
}

/// Who asks a backend is on its own chassis, and dies with it.
#[test]
fn alone_backends_unhealthy_with_the_chassis_that_they_are_on() {
    let mixed = Mixed::fast("be-chassis");
    let cut = RefCell::new(None);
    leaves_and_returns(
        &mixed,
        &mixed.bm,
        ("bm", "its chassis is cut off"),
        |_| *cut.borrow_mut() = Some(CutOff::begin("dpu-1")),
        |_| drop(cut.take()),
        &FAST,
    );
}

#[test]
fn timed_backends_unhealthy_all_of_them_refuse_at_once() {
    let mut scene = Scene::new("be-none");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let bm = scene.behind_vnic(Kind::Server, "bm", "a", "dpu-1", "");
    let addr = scene.behind_vnic(Kind::Address, "addr", "a", "node-3", "");
    scene.client("client", "a", "node-1");
    scene.service_over(
        "svc",
        &["{kind: BM, name: bm}", "{kind: VNicIP, name: addr}"],
        &format!("  vpc: {vpc}\n{CHECK}"),
    );
    scene.pods_ready();
    let to = target(&scene.programmed("svc", 2), 80);
    let client = pod(&scene, "client");
    assert_answer(&client, to, &["addr", "bm"]);
    // Without a word from either: what refuses is not their kernels.
    bm.set_cable(false).expect("cut");
    addr.set_cable(false).expect("cut");
    let broken = Instant::now();
    eventually("nobody is asked any more", LEAVES, || {
        match knock(&client, Protocol::Tcp, to, Duration::from_millis(300)) {
            Heard::Refusal => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eprintln!("refused {:?} after the last one broke", broken.elapsed());
    scene.programmed("svc", 0);
    assert_met(&client, to, Heard::Refusal);
    let ysvc = get(&["-n", &scene.name, "ysvc", "svc"]);
    assert_eq!(condition(&ysvc, "Ready").0, "False", "{}", ysvc["status"]);
    assert_eq!(ysvc["status"]["backends"]["summary"], "0/2");
    bm.set_cable(true).expect("joined");
    scene.programmed("svc", 1);
    assert_answer(&client, to, &["bm"]);
}

#[test]
fn backends_unhealthy_in_one_vpc_are_healthy_in_another_at_the_same_address() {
    let mut scene = Scene::new("be-two-vpcs");
    let ip = ", ip: 10.0.1.66";
    let mut made = Vec::new();
    for (vpc, chassis) in [("l", "node-1"), ("r", "node-2")] {
        let subnet = format!("{vpc}1");
        let name = scene.vpc(vpc, &[(&subnet, "10.0.1.0/24")]);
        let same = format!("same-{vpc}");
        made.push(scene.behind_vnic(Kind::Address, &same, &subnet, chassis, ip));
        let other = format!("other-{vpc}");
        made.push(scene.behind_vnic(Kind::Server, &other, &subnet, "dpu-1", ""));
        scene.client(&format!("client-{vpc}"), &subnet, "node-3");
        scene.service_over(
            vpc,
            &[
                &format!("{{kind: VNicIP, name: {same}}}"),
                &format!("{{kind: BM, name: {other}}}"),
            ],
            &format!("  vpc: {name}\n{CHECK}"),
        );
    }
    scene.pods_ready();
    let [l, r] = ["l", "r"].map(|service| target(&scene.programmed(service, 2), 80));
    made[0].stop().expect("killed");
    let message = scene.in_state("l", "same-l", "Unhealthy");
    assert!(message.contains("refused"), "{message}");
    always("the other Vpc's is healthy", Duration::from_secs(6), || {
        let states = scene.states("r");
        match states.values().all(|(state, _)| state == "Healthy") && states.len() == 2 {
            true => Ok(()),
            false => Err(format!("{states:?}")),
        }
    });
    scene.programmed("l", 1);
    assert_answer(&pod(&scene, "client-l"), l, &["other-l"]);
    assert_answer(&pod(&scene, "client-r"), r, &["other-r", "same-r"]);
}

/// How ClientIP affinity is asked for: by a hash of the address, and with a memory of the client
/// for ten minutes.
const AFFINITIES: [&str; 2] = [
    "  sessionAffinity: ClientIP\n",
    "  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}\n",
];

#[test]
fn timed_backends_unhealthy_do_not_keep_the_clients_that_affinity_gave_them() {
    let mixed = Mixed::fast("be-affinity");
    let place = |name: &str| match name {
        "bm" => mixed.bm.place().expect("plugged"),
        "addr" => mixed.addr.place().expect("plugged"),
        pod_name => pod(&mixed.scene, pod_name),
    };
    // The one backend that a client has all the time.
    let only = || {
        let answered = ask_often(&mixed.client, Protocol::Tcp, mixed.to, 12);
        assert_eq!(
            (answered.by.len(), answered.failed.len()),
            (1, 0),
            "{answered:?}"
        );
        answered.names()[0].to_owned()
    };
    for affinity in AFFINITIES {
        mixed.serve(affinity);
        mixed.scene.programmed("svc", FAST.len() as i64);
        let first = only();
        // Without a word: nothing tells the client that its backend is gone.
        place(&first).set_cable(false).expect("cut");
        let broken = Instant::now();
        let next = eventually("the client has another backend", LEAVES, || {
            let limit = Duration::from_millis(300);
            let reply = ask(&mixed.client, Protocol::Tcp, mixed.to, limit);
            reply.map_err(|error| error.to_string())
        });
        eprintln!(
            "{affinity:?}: {next:?} {:?} after {first} broke",
            broken.elapsed()
        );
        assert_ne!(next.backend, first);
        mixed.scene.programmed("svc", FAST.len() as i64 - 1);
        assert_ne!(only(), first);
        place(&first).set_cable(true).expect("joined");
        mixed.scene.in_state("svc", &first, "Healthy");
        mixed.scene.programmed("svc", FAST.len() as i64);
        only();
    }
}
