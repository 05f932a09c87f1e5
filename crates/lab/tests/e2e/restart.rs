//! Any part is killed, in any order: established connections live on, and a restarted controller writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use ycloud_lab::ask::{Held, Kept, Protocol};
use ycloud_lab::place::Place;
use ycloud_lab::{Machine, PartStatus};

use crate::asking::{Stream, ask_often, gateways, target};
use crate::backends::{FAST, Mixed, assert_served};
use crate::cluster::{SLOW, api, api_ready, apply, condition, eventually, get, lab, on, the_lab};
use crate::rows::{changed, rows, rows_at_rest, written};
use crate::scene::Scene;

/// How long a connection may wait for an answer and be the same one: TCP sends again after twice as long each time, so a node that
/// forwards nothing for four seconds is felt for up to eight.
const REPEATED: Duration = Duration::from_secs(15);
/// Of the check of [`Mixed`].
const PERIOD: Duration = Duration::from_secs(1);

/// Namespace of ycloud's workloads.
const SYSTEM: &str = "ycloud-system";

/// Deletes the Pods of a component and waits until new ones are ready.
pub fn restart_pods(app: &str) {
    let uids = || -> Vec<Value> {
        let all = pods(app).into_iter();
        all.map(|mut pod| pod["metadata"]["uid"].take()).collect()
    };
    let old = uids();
    for pod in pods(app) {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let deleted = api().delete(SYSTEM, "pod", name, Some(1));
        deleted.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    eventually(&format!("{app} ready again"), SLOW, || {
        let all = pods(app);
        let new = uids().iter().all(|uid| !old.contains(uid));
        let ready = all.iter().filter(|pod| condition(pod, "Ready").0 == "True");
        let ready = ready.count();
        match new && ready == all.len() && ready >= 2 {
            true => Ok(()),
            false => Err(format!(
                "{ready} of {} ready, all of them new: {new}",
                all.len()
            )),
        }
    });
}

/// The Pods of a component.
fn pods(app: &str) -> Vec<Value> {
    let selector = format!("app.kubernetes.io/component={app}");
    let found = api().list(SYSTEM, "pod", &selector);
    found.expect("the API server answers")
}

/// What goes on while a part dies and comes back.
struct Watched {
    mixed: Mixed,
    /// The address of a Service whose Pod nobody asks whether it is ready, neither a kubelet nor a NetworkProbe: what is found to be
    /// failing is cut off, and what is on a node whose switch is restarted may be, as one failure has its neighbours asked at once.
    steady: SocketAddr,
}

impl Watched {
    fn new() -> Self {
        let mixed = Mixed::fast("restart");
        let scene = &mixed.scene;
        let yaml = scene.server_yaml("steady", "a", "node-1", "steady", "");
        let (yaml, _) = yaml.split_once("      readinessProbe:").expect("a probe");
        apply(yaml).must();
        let unasked = "  healthCheck: {disabled: true}\n";
        scene.service(
            "steady",
            &scene.full("v"),
            &[(80, "8080")],
            "steady",
            unasked,
        );
        scene.pods_ready();
        let steady = target(&scene.programmed("steady", 1), 80);
        Self { mixed, steady }
    }

    /// A conversation with that Pod, by the Service, that is asked all the while.
    #[track_caller]
    fn talk(&self) -> Kept {
        let held = Held::open(&self.mixed.client, Protocol::Tcp, self.steady, REPEATED);
        Kept::start(held.expect("a connection"))
    }

    /// It had all its answers until now.
    #[track_caller]
    fn assert_alive(&self, talk: Kept, what: &str) {
        match talk.finish() {
            Ok(longest) => eprintln!("{what}: the longest answer took {longest:?}"),
            Err(error) => panic!("{what}: the conversation broke: {error}"),
        }
    }
}

/// The longest time between two connections of probes that arrive at a place, until `stop`.
fn longest_gap(at: &Place, stop: &AtomicBool) -> Duration {
    let anybody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let socket = at.raw(anybody, 6.into()).expect("a raw socket");
    let limit = Some(Duration::from_millis(100));
    socket.set_read_timeout(limit).expect("a time-out");
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        longest = longest.max(last.elapsed());
        let mut packet = [0_u8; 128];
        let Ok(length) = (&socket).read(&mut packet) else {
            continue;
        };
        let packet = &packet[..length];
        let header = usize::from(packet[0] & 0x0f) * 4;
        let syn = packet
            .get(header + 13)
            .is_some_and(|flags| flags & 0x12 == 0x02);
        if syn && packet[12..14] == [100, 68] {
            last = Instant::now();
        }
    }
    longest
}

/// States of the backends, if they were ever not all healthy, until `stop`.
fn any_unhealthy(mixed: &Mixed, stop: &AtomicBool) -> Option<BTreeMap<String, (String, String)>> {
    let mut worst = None;
    while !stop.load(Ordering::Relaxed) {
        let states = mixed.scene.states("svc");
        let healthy = |name: &&str| states.get(*name).is_some_and(|one| one.0 == "Healthy");
        if !FAST.iter().all(healthy) {
            worst = Some(states);
        }
        thread::sleep(Duration::from_millis(200));
    }
    worst
}

/// Restarts a program of ycloud, while the backends `bm` and `addr` have a probe each so often, no backend is found unhealthy, and so a
/// conversation with one that is probed lives on too.
fn restart_own(watched: &Watched, what: &str, bounds: [Duration; 2], restart: impl FnOnce()) {
    let (mixed, talk) = (&watched.mixed, watched.talk());
    let probed = Kept::start(mixed.held_by(Protocol::Tcp, "bm"));
    let stop = AtomicBool::new(false);
    let places = [&mixed.bm, &mixed.addr].map(|one| one.place().expect("a place"));
    let longest = thread::scope(|scope| {
        let gaps = places
            .each_ref()
            .map(|at| scope.spawn(|| longest_gap(at, &stop)));
        let states = scope.spawn(|| any_unhealthy(mixed, &stop));
        restart();
        thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
        let worst = states.join().expect("watched");
        assert!(worst.is_none(), "{what}: {worst:?}");
        gaps.map(|one| one.join().expect("watched"))
    });
    eprintln!("{what}: the longest time without a probe of bm, addr: {longest:?}");
    for (longest, bound) in longest.iter().zip(bounds) {
        assert!(*longest <= bound, "{what}: {longest:?}, at most {bound:?}");
    }
    watched.assert_alive(talk, what);
    watched.assert_alive(probed, what);
}

/// Every part of the lab's machines dies once, and ycloud's own programs.
#[test]
fn alone_restarts_of_every_part_lose_no_established_connection_and_no_endpoint_and_write_nothing() {
    rows_at_rest();
    let watched = Watched::new();
    let mixed = &watched.mixed;
    let before = rows();
    let none = Vec::<String>::new();
    let stream = Stream::start(
        &mixed.client,
        Protocol::Tcp,
        mixed.to,
        Duration::from_millis(50),
    );
    for (app, bounds) in [
        ("ycloud-controller", [PERIOD * 2; 2]),
        ("yusurservice-controller", [PERIOD * 2; 2]),
        // Pods end with a second's grace, and are made again by a kubelet.
        ("ycloud-cni", [PERIOD * 2, Duration::from_secs(12)]),
    ] {
        restart_own(&watched, app, bounds, || restart_pods(app));
        assert_eq!(changed(&before, &rows()), none, "{app}");
    }
    restart_own(
        &watched,
        "ycloud-cni of dpu-1",
        [PERIOD * 3, PERIOD * 2],
        || {
            lab(&["restart", "dpu-1", "ycloud-cni"]).must();
        },
    );
    assert_served(&stream.finish());

    // Who holds a machine's namespaces is the machine itself.
    let mut parts = the_lab().status().expect("a lab that is up");
    parts.retain(|part| part.part != "node" && part.part != "ycloud-cni");
    for PartStatus { machine, part, .. } in parts {
        let what = format!("{part} of {machine}");
        let talk = watched.talk();
        lab(&["restart", &machine.to_string(), part]).must();
        api_ready();
        // What is going to be written because of it, is written by then.
        thread::sleep(Duration::from_secs(2));
        if (machine, part) == (Machine::Node(3), "ovs-vswitchd") {
            // The client's own switch chose the backend; a datapath in user space forgets that with its process.
            drop(talk.finish());
        } else {
            watched.assert_alive(talk, &what);
        }
        // A node that forwards nothing for a while gives its gateways and probes away: that is written.
        if machine == Machine::Control {
            assert_eq!(changed(&before, &rows()), none, "{what}");
        }
        // Who lost backends has them again.
        mixed.scene.programmed("svc", FAST.len() as i64);
    }
    // Everything still works for newcomers.
    let answers = ask_often(&mixed.client, Protocol::Tcp, mixed.to, 40);
    assert_eq!(
        (answers.names(), answers.failed.len()),
        (FAST.to_vec(), 0),
        "{answers:?}"
    );
}

/// The value of a figure that a controller's Pod shows, summed over its labels; None where there is
/// none.
fn figure(pod: &Value, port: u16, name: &str) -> Option<f64> {
    let node = pod["spec"]["nodeName"].as_str()?;
    let script = format!("curl -sf -m 3 http://127.0.0.1:{port}/metrics");
    let shown = on(node, &script).must();
    assert!(shown.contains("# TYPE ycloud_"), "{shown}");
    let values = shown.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let named = rest.starts_with(' ') || rest.starts_with('{');
        let (_, value) = rest.rsplit_once(' ')?;
        named.then(|| value.parse().ok()).flatten()
    });
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// The Pod that leads, once it says that it has compared everything.
fn leader_at_work(app: &str, port: u16, prefix: &str, done: impl Fn(&Value) -> bool) -> Value {
    let what = format!("a new leader of {app} has compared all");
    eventually(&what, SLOW, || {
        let leads = |pod: &Value| figure(pod, port, &format!("{prefix}_leader")) == Some(1.0);
        let mut pods = pods(app).into_iter();
        let found = pods.find(|pod| leads(pod) && done(pod));
        found.ok_or_else(|| "none of its Pods says so".to_owned())
    })
}

#[test]
fn alone_a_controllers_restart_writes_nothing() {
    gateways();
    rows_at_rest();
    let mut scene = Scene::new("restart-quiet");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    let other = scene.vpc("w", &[("b", "10.0.1.0/24")]);
    scene.server("s0", "a", "node-1", "web");
    scene.server("s1", "b", "node-2", "web");
    scene.service("svc", &vpc, &[(80, "8080")], "web", "");
    scene.over_vpcs("several", &[&vpc, &other], "web", "");
    scene.pods_ready();
    scene.programmed("svc", 1);
    scene.programmed_eip("several", 2);
    let objects = || {
        let mut versions = BTreeMap::new();
        for kind in [
            "services",
            "endpointslices",
            "yusurservices",
            "networkprobes",
            "eips",
            "vnics",
            "vpcs",
            "subnets",
            "eipgateways",
        ] {
            for object in get(&["-A", kind])["items"].as_array().expect("a list") {
                let metadata = &object["metadata"];
                let name = format!("{kind} {}/{}", metadata["namespace"], metadata["name"]);
                versions.insert(name, metadata["resourceVersion"].to_string());
            }
        }
        versions
    };
    // What the last test left behind, and what chassis still have to say of this one, comes to
    // rest.
    let mut last = (rows(), objects());
    eventually("nothing is written any more", SLOW, || {
        thread::sleep(Duration::from_secs(2));
        let now = (rows(), objects());
        let moved = written(&last.0, &now.0);
        let same = moved.is_empty() && last.1 == now.1;
        last = now;
        same.then_some(()).ok_or_else(|| format!("{moved:?}"))
    });
    let (before, objects_before) = last;
    let tables: BTreeSet<&str> = before.values().map(|row| row.table.as_str()).collect();
    for table in [
        "NAT",
        "HA_Chassis",
        "HA_Chassis_Group",
        "Chassis_Template_Var",
    ] {
        assert!(
            tables.contains(table),
            "{table} has no row to be left alone"
        );
    }
    let none = Vec::<String>::new();

    restart_pods("ycloud-controller");
    let port = 9441;
    let compared = |pod: &Value| {
        let seconds = figure(pod, port, "ycloud_controller_first_pass_seconds");
        seconds.is_some_and(|seconds| seconds > 0.0)
    };
    let leader = leader_at_work("ycloud-controller", port, "ycloud_controller", compared);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(written(&before, &rows()), none, "ycloud-controller");
    assert_eq!(objects(), objects_before, "ycloud-controller");
    let sent = figure(&leader, port, "ycloud_controller_transactions_total");
    assert_eq!(sent.unwrap_or_default(), 0.0, "transactions");

    restart_pods("yusurservice-controller");
    let (port, prefix) = (9442, "ycloud_yusurservice_controller");
    let figure_of = |pod: &Value, name: &str| {
        let name = format!("{prefix}_{name}");
        figure(pod, port, &name).unwrap_or_default()
    };
    let compared = |pod: &Value| {
        let [done, there] = ["reconciles_total", "yusurservices"].map(|name| figure_of(pod, name));
        there >= 2.0 && done >= there && figure_of(pod, "queue_length") == 0.0
    };
    let leader = leader_at_work("yusurservice-controller", port, prefix, compared);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(written(&before, &rows()), none, "yusurservice-controller");
    assert_eq!(objects(), objects_before, "yusurservice-controller");
    assert_eq!(figure_of(&leader, "api_writes_total"), 0.0, "writes");
}
