//! Requests that are under way while the endpoints of a Service change: none waits for nothing, and none is cut off by the
//! leaving of a backend that lives. Who waits for a backend that fails learns of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use ycloud_lab::ask::{Heard, Protocol};
use ycloud_lab::place::Place;

use crate::asking::{assert_answer, assert_met, pod, target};
use crate::backends::{CHECK, LEAVES, Mixed, hold};
use crate::cluster::{SOON, apply, eventually, get, patch};
use crate::scene::Scene;

/// How long a client waits for an answer: far longer than any takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request takes, in milliseconds, one after the other.
const LENGTHS: [u32; 6] = [5, 500, 20, 200, 50, 100];
/// How many clients ask at the same time.
const CLIENTS: usize = 4;

/// Clients that never stop asking, each with a new connection for each request.
struct Clients {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<io::Error>>>,
}

impl Clients {
    fn start(place: &Place, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let threads = (0..CLIENTS).map(|number| {
            let (place, stop, asked) = (place.clone(), stop.clone(), asked.clone());
            thread::spawn(move || {
                let mut failed = Vec::new();
                let lengths = LENGTHS.iter().cycle().skip(number);
                for length in lengths.take_while(|_| !stop.load(Ordering::Relaxed)) {
                    failed.extend(request(&place, to, *length).err());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            asked,
        }
    }

    /// Makes changes, so long after one another, until there were many and many requests were under way meanwhile.
    fn meanwhile(&self, pause: Duration, mut change: impl FnMut(usize)) {
        let enough = |round| round >= 24 && self.asked.load(Ordering::Relaxed) >= 200;
        for round in (0..).take_while(|round| !enough(*round)) {
            change(round);
            thread::sleep(pause);
        }
    }

    /// How many asked, of whom those that waited in vain, and those that failed at once.
    fn finish(self) -> (usize, Vec<io::Error>, Vec<io::Error>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut hung, mut failed) = (Vec::new(), Vec::new());
        for thread in self.threads {
            for error in thread.join().expect("a client") {
                match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => hung.push(error),
                    _ => failed.push(error),
                }
            }
        }
        (self.asked.load(Ordering::Relaxed), hung, failed)
    }

    /// Every one of them was answered.
    #[track_caller]
    fn all_answered(self, what: &str) {
        let (asked, hung, failed) = self.finish();
        eprintln!("{what}: {asked} requests");
        assert!(
            hung.is_empty() && failed.is_empty(),
            "{what}: of {asked} requests {} hung and {} failed: {failed:?}",
            hung.len(),
            failed.len()
        );
    }
}

/// Asks for something that takes so many milliseconds.
fn request(place: &Place, to: SocketAddr, length: u32) -> io::Result<()> {
    let mut connection = place.connect(to, PATIENCE)?;
    let seconds = f64::from(length) / 1000.0;
    let text =
        format!("GET /shell?shellCommand=sleep+{seconds}%3Bhostname HTTP/1.0\r\nHost: lab\r\n\r\n");
    connection.write_all(text.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    match answer.contains("\"output\":\"server-") {
        true => Ok(()),
        false => Err(io::Error::other(answer)),
    }
}

/// Two servers in a Vpc, and a client on a third node.
fn scene(name: &str) -> (Scene, String) {
    let mut scene = Scene::new(name);
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("server-1", "a", "node-1", "web");
    scene.server("server-2", "a", "node-2", "web");
    scene.client("c", "a", "node-3");
    scene.pods_ready();
    (scene, vpc)
}

#[test]
fn an_endpoint_that_leaves_and_lives_ends_no_request() {
    let (scene, vpc) = scene("under-way");
    apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: by-hand, namespace: {ns}, annotations: {{iaas.yusur.io/vpc: {vpc}}}}}
spec: {{ports: [{{name: web, port: 80, targetPort: 8080}}]}}
",
        ns = scene.name
    ))
    .must();
    let only = |server: &str| {
        apply(&format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: by-hand, namespace: {ns}, labels: {{kubernetes.io/service-name: by-hand}}}}
addressType: IPv4
ports: [{{name: web, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]
",
            ns = scene.name,
            ip = scene.pod_ip(server),
        ))
        .must();
    };
    only("server-1");
    scene.service("svc", &vpc, &[(80, "8080")], "web", CHECK);
    let svc = target(&scene.programmed("svc", 2), 80);
    let service = get(&["-n", &scene.name, "service", "by-hand"]);
    let by_hand = target(
        service["spec"]["clusterIP"].as_str().unwrap_or_default(),
        80,
    );
    let client = pod(&scene, "c");
    eventually("the hand-made one serves", SOON, || {
        request(&client, by_hand, 1).map_err(|error| error.to_string())
    });

    let clients = Clients::start(&client, by_hand);
    clients.meanwhile(Duration::from_millis(250), |round| {
        only(["server-2", "server-1"][round % 2]);
    });
    clients.all_answered("one endpoint after the other");

    let clients = Clients::start(&client, svc);
    clients.meanwhile(Duration::from_millis(400), |round| {
        let server = ["server-1", "server-2"][round / 2 % 2];
        let label = ["else", "web"][round % 2];
        let fields = json!({"metadata": {"labels": {"app": label}}});
        patch(&scene.name, "pod", server, &fields).must();
        // Who comes back is checked before it serves; until then the other one must not go.
        scene.programmed("svc", [1, 2][round % 2]);
    });
    clients.all_answered("Pods that are relabelled");
}

#[test]
fn timed_who_waits_for_a_backend_that_fails_learns_of_it_unless_connections_are_kept() {
    let mixed = Mixed::fast("be-wait");
    let only = ["{kind: BM, name: bm}"];
    let more = format!("  vpc: {}\n{CHECK}", mixed.vpc());
    mixed.scene.service_over("lone", &only, &more);
    let more = format!("{more}  onBackendFailure: Keep\n");
    mixed.scene.service_over("keeps", &only, &more);
    let [lone, keeps] = ["lone", "keeps"].map(|name| target(&mixed.scene.programmed(name, 1), 80));
    let mut kept = hold(&mixed.client, Protocol::Tcp, keeps, "bm");
    // It says nothing, and so would never learn of anything by itself.
    let mut waiting = mixed.client.connect(lone, PATIENCE).expect("a connection");
    let waits = thread::spawn(move || {
        let heard = waiting.read(&mut [0]);
        (heard, Instant::now())
    });

    // Without a word from the server: its kernel would reset connections by itself.
    mixed.bm.set_cable(false).expect("cut");
    let cut = Instant::now();
    let (heard, at) = waits.join().expect("a client");
    let error = heard.expect_err("nobody answers");
    let ended = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];
    assert!(ended.contains(&error.kind()), "{error}");
    let after = at - cut;
    eprintln!("the client that waited learned of it after {after:?}");
    assert!(after <= LEAVES, "after {after:?}");
    assert_met(&mixed.client, lone, Heard::Refusal);

    mixed.bm.set_cable(true).expect("joined");
    mixed.scene.programmed("keeps", 1);
    eventually("the kept connection goes on", SOON, || {
        kept.ask().map(drop).map_err(|error| error.to_string())
    });
    mixed.scene.programmed("lone", 1);
    assert_answer(&mixed.client, lone, &["bm"]);
}
