//! What becomes of the connections of a backend that goes: with notice they live on for a while, without they end at once.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use ycloud_lab::ask::Protocol;

use crate::asking::{ask_often, assert_answer, pod, target};
use crate::backends::{CHECK, LEAVES, Mixed, hold};
use crate::cluster::{SOON, apply, eventually, kill, start_deleting};
use crate::scene::Scene;

/// `drainSeconds` of the test's YusurService.
const DRAIN: Duration = Duration::from_secs(12);

#[test]
fn backends_draining_a_terminating_pods_connection_lives_on_and_then_ends() {
    let mut scene = Scene::new("be-drain");
    let vpc = scene.vpc("v", &[("a", "10.0.1.0/24")]);
    scene.server("stays", "a", "node-1", "stays");
    // It serves for a minute after it has been told to go.
    let yaml = scene.server_yaml("goes", "a", "node-2", "goes", "");
    let yaml = yaml
        .replace("--udp-port=8081]", "--udp-port=8081, --delay-shutdown=60]")
        .replace(
            "terminationGracePeriodSeconds: 0",
            "terminationGracePeriodSeconds: 70",
        );
    apply(&yaml).must();
    scene.client("client", "a", "node-3");
    let more = format!("  vpc: {vpc}\n  drainSeconds: {}\n{CHECK}", DRAIN.as_secs());
    scene.service_over(
        "svc",
        &["{kind: Pod, name: stays}", "{kind: Pod, name: goes}"],
        &more,
    );
    scene.pods_ready();
    let to = target(&scene.programmed("svc", 2), 80);
    let client = pod(&scene, "client");
    let mut held = hold(&client, Protocol::Tcp, to, "goes");

    let told = Instant::now();
    start_deleting(&scene.name, "pod", "goes");
    scene.in_state("svc", "goes", "Draining");
    scene.programmed("svc", 1);
    assert_answer(&client, to, &["stays"]);
    while told.elapsed() < DRAIN - Duration::from_secs(3) {
        let reply = held.ask().map(|reply| reply.backend);
        let at = told.elapsed();
        assert!(
            reply.as_ref().is_ok_and(|backend| backend == "goes"),
            "after {at:?} of {DRAIN:?}: {reply:?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    let error = eventually("the held connection ends", DRAIN + SOON, || {
        match held.ask() {
            Ok(reply) => Err(format!("{} answers", reply.backend)),
            // Its answer was under way when the connection ended. The client finds out with its next packet.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error.to_string()),
            Err(error) => Ok(error),
        }
    });
    let at = told.elapsed();
    eprintln!("the held connection ended after {at:?}: {error}");
    let ended = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];
    assert!(ended.contains(&error.kind()), "{error}");
    // The API server notes whole seconds.
    assert!(at + Duration::from_secs(1) >= DRAIN, "after {at:?} already");
    // The Pod itself would have gone on; afterwards nothing tells of it. What is left of its grace period is not waited for.
    kill(&scene.name, "goes");
}

#[test]
fn timed_backends_draining_is_not_for_a_backend_that_fails_its_connections_end_at_once() {
    let mixed = Mixed::fast("be-flush");
    let mut tcp = mixed.held_by(Protocol::Tcp, "bm");
    let mut udp = mixed.held_by(Protocol::Udp, "bm");
    let mut others = ["addr", "pod"].map(|name| mixed.held_by(Protocol::Tcp, name));
    // Without a word from the server: its kernel would reset connections by itself.
    mixed.bm.set_cable(false).expect("cut");
    mixed.scene.in_state("svc", "bm", "Unhealthy");
    mixed.scene.programmed("svc", 2);
    let start = Instant::now();
    let reply = eventually("the UDP client has another backend", LEAVES, || {
        udp.ask().map_err(|error| error.to_string())
    });
    eprintln!("the UDP client moved {:?} after that", start.elapsed());
    assert_ne!(reply.backend, "bm");
    let start = Instant::now();
    let error = tcp.ask().map(|reply| reply.backend);
    let error = error.expect_err("nobody takes another's connection");
    // Its own kernel ended it, before it asked.
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
    for held in &mut others {
        held.ask().expect("others' connections live on");
    }
    let answered = ask_often(&mixed.client, Protocol::Tcp, mixed.to, 20);
    assert_eq!(answered.names(), ["addr", "pod"], "{answered:?}");
}
