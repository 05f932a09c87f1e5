//! A running prober with real sockets: reports on changes, targets that come, go and change, bounds.

mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use servers::{black_hole, probe, tcp};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use ycloud_probe::{Handle, Known, Options, Prober, Report, Role, State, Target, Way};

fn start(options: Options) -> (Handle, Receiver<Report>, JoinHandle<()>) {
    let (prober, handle, reports) = Prober::new(options);
    (handle, reports, tokio::spawn(prober.run()))
}

fn target(port: u16, generation: i64) -> Target {
    let spec = format!(
        "{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 2}}"
    );
    Target {
        probe: probe(&spec).expect("a probe"),
        group: "v".into(),
        role: Role::Backend,
        far: false,
        sockets: Arc::new(Way::default()),
        generation,
    }
}

async fn next(reports: &mut Receiver<Report>) -> Report {
    let report = tokio::time::timeout(Duration::from_secs(10), reports.recv()).await;
    report.expect("a report in time").expect("a prober")
}

#[tokio::test]
async fn a_target_dies_and_returns() {
    let (handle, mut reports, _prober) = start(Options::default());
    let (port, server) = tcp().await;
    handle.set("ns/a", target(port, 7), None);
    let up = next(&mut reports).await;
    assert_eq!(
        (&*up.key, up.generation, up.state),
        ("ns/a", 7, State::Healthy)
    );
    assert!(
        up.round_trip
            .is_some_and(|taken| taken < Duration::from_millis(500))
    );
    assert!(up.error.is_none() && up.since <= SystemTime::now());

    drop(server);
    let died = Instant::now();
    let down = next(&mut reports).await;
    assert_eq!(down.state, State::Unhealthy);
    assert_eq!(
        down.error.as_deref(),
        Some("refused: nothing listens on the port")
    );
    assert!(
        died.elapsed() < Duration::from_millis(4_000),
        "{:?}",
        died.elapsed()
    );
    assert!(down.since > up.since);

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
    let _listener = listener.expect("the port again");
    let back = next(&mut reports).await;
    assert_eq!(back.state, State::Healthy);

    handle.remove("ns/a");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(handle.figures().targets, 0);
}

#[tokio::test]
async fn a_slow_reader_gets_the_latest_of_each() {
    let (handle, mut reports, _prober) = start(Options::default());
    let (port, _server) = tcp().await;
    for n in 0..500 {
        handle.set(n.to_string(), target(port, 1), None);
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        assert!(seen.insert(next(&mut reports).await.key), "one twice");
    }
    let more = tokio::time::timeout(Duration::from_millis(1_200), reports.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn sockets_are_bounded_and_a_change_aborts_the_round() {
    let options = Options {
        sockets: 10,
        ..Options::default()
    };
    let (handle, mut reports, prober) = start(options);
    let (hole, _full) = black_hole().await;
    for n in 0..50 {
        let mut target = target(hole, 1);
        target.probe.timing.timeout = Duration::from_secs(60);
        handle.set(n.to_string(), target, None);
    }
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(handle.figures().running <= 10);
    }
    assert_eq!(handle.figures().running, 10);
    // Every round hangs for a minute, unless its target changes.
    let (port, _server) = tcp().await;
    for n in 0..50 {
        handle.set(n.to_string(), target(port, 2), None);
    }
    for _ in 0..50 {
        let report = next(&mut reports).await;
        assert_eq!((report.generation, report.state), (2, State::Healthy));
    }
    drop(handle);
    prober.await.expect("it ends with its last handle");
}

#[tokio::test]
async fn a_restart_reports_nothing_that_was_known() {
    let (handle, mut reports, _prober) = start(Options::default());
    let (port, _server) = tcp().await;
    let known = Known {
        state: State::Healthy,
        since: SystemTime::UNIX_EPOCH,
        error: None,
        last_known: State::Unknown,
    };
    handle.set("ns/a", target(port, 1), Some(known));
    let more = tokio::time::timeout(Duration::from_millis(2_500), reports.recv()).await;
    assert!(more.is_err(), "{more:?}");
    assert!(handle.figures().succeeded >= 1);
}
