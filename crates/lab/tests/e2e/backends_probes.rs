//! Probes come from addresses that no tenant reaches, and neither probes nor endpoints suffer when the API server is away. What
//! restarts cost them is in `restart.rs`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use ycloud_lab::ask::{Heard, Protocol, knock, ping};
use ycloud_lab::place::Place;

use crate::asking::{Stream, pod};
use crate::backends::{LEAVES, Mixed, assert_served};
use crate::cluster::{Stopped, always, api_ready};

/// After how long nothing is nothing.
const SILENCE: Duration = Duration::from_secs(1);
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
