//! Probes come from addresses that no tenant reaches, and neither probes nor endpoints suffer when parts restart or the API server is
//! away.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ycloud_lab::ask::{Heard, Protocol, Stream, knock, ping};
use ycloud_lab::place::Place;

use crate::asking::pod;
use crate::backends::{FAST, LEAVES, Mixed, assert_served};
use crate::cluster::{Stopped, always, api_ready, lab};
use crate::restart::restart_pods;

/// After how long nothing is nothing.
const SILENCE: Duration = Duration::from_secs(1);
/// Of the check of [`Mixed`].
const PERIOD: Duration = Duration::from_secs(1);

#[test]
fn backends_isolation_nobody_reaches_who_asks() {
    let mut mixed = Mixed::fast("be-isolation");
    let other = mixed.scene.vpc("w", &[("w1", "10.0.1.0/24")]);
    mixed.scene.client("stranger", "w1", "node-1");
    mixed.scene.pods_ready();
    let sources: BTreeSet<IpAddr> = mixed
        .scene
        .probes()
        .values()
        .filter_map(|probe| probe["status"]["source"].as_str()?.parse().ok())
        .collect();
    assert!(
        !sources.is_empty(),
        "{other}: no probe says where it asks from"
    );
    let places = [
        mixed.client.clone(),
        pod(&mixed.scene, "stranger"),
        mixed.bm.place().expect("a server"),
        mixed.addr.place().expect("an address"),
    ];
    let mut faults = Vec::new();
    thread::scope(|scope| {
        let mut asked = Vec::new();
        for place in &places {
            for ip in &sources {
                asked.push(scope.spawn(move || reached(place, *ip)));
            }
        }
        for one in asked {
            faults.extend(one.join().expect("asked"));
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// By which ways somebody answers or refuses there.
fn reached(place: &Place, ip: IpAddr) -> Vec<String> {
    let mut faults = Vec::new();
    let mut note = |how: String, heard: Heard| {
        if matches!(heard, Heard::Answer | Heard::Refusal) {
            faults.push(format!("{} → {ip} by {how}: {heard:?}", place.name()));
        }
    };
    for (protocol, port) in [
        (Protocol::Tcp, 22),
        (Protocol::Tcp, 80),
        (Protocol::Tcp, 8080),
        (Protocol::Tcp, 9440),
        (Protocol::Tcp, 40_000),
        (Protocol::Udp, 53),
        (Protocol::Udp, 40_000),
    ] {
        let heard = knock(place, protocol, (ip, port).into(), SILENCE);
        note(format!("{protocol} {port}"), heard);
    }
    note("ping".to_owned(), ping(place, ip, SILENCE));
    faults
}

/// The longest time between two connections of probes that arrive at a place, while something else goes on.
struct Gaps<'a> {
    stop: &'a AtomicBool,
}

impl Gaps<'_> {
    fn longest(&self, at: &Place) -> Duration {
        let anybody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let socket = at.raw(anybody, 6.into()).expect("a raw socket");
        let limit = Some(Duration::from_millis(100));
        socket.set_read_timeout(limit).expect("a time-out");
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while !self.stop.load(Ordering::Relaxed) {
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
}

#[test]
fn alone_backends_restarts_of_agents_and_controllers_lose_no_endpoint() {
    let mixed = Mixed::fast("be-restart");
    let stream = Stream::start(
        &mixed.client,
        Protocol::Tcp,
        mixed.to,
        Duration::from_millis(50),
    );
    for what in ["agents", "dpu-1's agent", "controllers"] {
        let stop = AtomicBool::new(false);
        let gaps = Gaps { stop: &stop };
        let places = [&mixed.bm, &mixed.addr].map(|one| one.place().expect("a place"));
        let longest = thread::scope(|scope| {
            let watched = places.each_ref().map(|at| scope.spawn(|| gaps.longest(at)));
            let states = scope.spawn(|| {
                let mut worst = None;
                while !stop.load(Ordering::Relaxed) {
                    let states = mixed.scene.states("svc");
                    let all = FAST.iter().all(|name| {
                        states
                            .get(*name)
                            .is_some_and(|(state, _)| state == "Healthy")
                    });
                    if !all {
                        worst = Some(states);
                    }
                    thread::sleep(Duration::from_millis(200));
                }
                worst
            });
            match what {
                "agents" => restart_pods("ycloud-cni"),
                "controllers" => {
                    restart_pods("ycloud-controller");
                    restart_pods("yusurservice-controller");
                }
                _ => {
                    lab(&["restart", "dpu-1", "ycloud-cni"]).must();
                }
            }
            thread::sleep(Duration::from_secs(5));
            stop.store(true, Ordering::Relaxed);
            let worst = states.join().expect("watched");
            assert!(worst.is_none(), "{what}: {worst:?}");
            watched.map(|one| one.join().expect("watched"))
        });
        eprintln!("{what}: the longest time without a probe of bm, addr: {longest:?}");
        // Pods end with a second's grace, and are made again by a kubelet.
        let bound = match what {
            "agents" => [PERIOD * 2, Duration::from_secs(12)],
            "controllers" => [PERIOD * 2; 2],
            _ => [PERIOD * 3, PERIOD * 2],
        };
        for (longest, bound) in longest.iter().zip(bound) {
            assert!(*longest <= bound, "{what}: {longest:?}, at most {bound:?}");
        }
    }
    let attempts = stream.finish();
    assert_served(&attempts);
}

#[test]
fn alone_backends_an_api_server_that_is_away_changes_nothing_and_is_caught_up_with() {
    let mixed = Mixed::fast("be-api");
    let stream = Stream::start(
        &mixed.client,
        Protocol::Tcp,
        mixed.to,
        Duration::from_millis(100),
    );
    let away = Stopped::begin("control", "kube-apiserver");
    // Longer than the Leases of probers.
    thread::sleep(Duration::from_secs(40));
    let attempts = stream.finish();
    assert_served(&attempts);
    // What happens meanwhile, nobody can be told yet.
    mixed.bm.stop().expect("killed");
    thread::sleep(LEAVES);
    drop(away);
    api_ready();
    mixed.scene.in_state("svc", "bm", "Unhealthy");
    // Kubernetes calls Pods of nodes that it has not heard of for so long unready, whatever else knows of them, and for how long is
    // its own affair.
    always("the other machine stays", Duration::from_secs(10), || {
        let states = mixed.scene.states("svc");
        match states.get("addr") {
            Some((state, _)) if state == "Healthy" => Ok(()),
            _ => Err(format!("{states:?}")),
        }
    });
    mixed.bm.start().expect("started");
    mixed.scene.in_state("svc", "bm", "Healthy");
}
