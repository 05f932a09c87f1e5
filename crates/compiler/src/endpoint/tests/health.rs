//! Probes decide who is an endpoint.

use ycloud_api::service::BackendState;

use super::*;

const SINCE: &str = "2026-01-01T00:00:00Z";

/// State and message of every backend.
fn items(translation: &Translation) -> Vec<String> {
    let items = translation.counts.items.iter();
    items
        .map(|item| {
            let message = item.message.clone().unwrap_or_default();
            format!("{} {:?} {message}", item.name, item.state)
        })
        .collect()
}

fn at(world: &mut World, text: &str) {
    world.now = time(text);
}

#[test]
fn endpoints_follow_their_probes() {
    let mut world = World::new().pod(1, true).pod(2, false);
    world.made = false;
    let none = world.translate(&web());
    assert_eq!(
        endpoints(&none),
        ["http=8080 10.0.0.3 ", "http=8080 10.0.0.4 "]
    );
    assert_eq!(
        items(&none),
        [
            "p0001 Unknown waiting for its first check",
            "p0002 NotReady not ready"
        ]
    );
    assert_eq!(none.counts.summary, "0/2");
    assert_eq!(none.changes, [], "it was none before");
    world.settle(&web());

    world.probed(&web(), ProbeState::Healthy, SINCE, "");
    let healthy = world.translate(&web());
    assert_eq!(
        endpoints(&healthy),
        ["http=8080 10.0.0.3 rs", "http=8080 10.0.0.4 "]
    );
    assert_eq!(
        items(&healthy),
        ["p0002 NotReady not ready", "p0001 Healthy "]
    );
    let change = &healthy.changes[0];
    assert_eq!(
        (change.name.as_str(), change.healthy),
        ("p0001 (10.0.0.3)", true)
    );
    world.settle(&web());
    assert_eq!(world.translate(&web()).changes, []);

    world.probed(&web(), ProbeState::Unhealthy, SINCE, "connection refused");
    let sick = world.translate(&web());
    assert_eq!(
        endpoints(&sick),
        ["http=8080 10.0.0.3 ", "http=8080 10.0.0.4 "]
    );
    assert_eq!(items(&sick)[0], "p0001 Unhealthy connection refused");
    assert_eq!(sick.counts.items[0].since, Some(time(SINCE)));
    assert_eq!(
        (sick.changes[0].healthy, sick.changes[0].why.as_str()),
        (false, "connection refused")
    );
    let mut all = web();
    all.spec.publish_not_ready_addresses = true;
    assert_eq!(endpoints(&world.translate(&all))[0], "http=8080 10.0.0.3 r");
}

#[test]
fn nobody_can_tell_for_five_minutes() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    world.made = false;
    world.probed(&web(), ProbeState::Unknown, SINCE, "no prober");
    at(&mut world, "2026-01-01T00:04:59Z");
    let kept = world.translate(&web());
    assert_eq!(endpoints(&kept), ["http=8080 10.0.0.3 rs"]);
    assert_eq!(kept.due, Some(time("2026-01-01T00:05:00Z")));
    assert_eq!(
        items(&kept),
        ["p0001 Unknown no prober; it stays an endpoint for up to 5 minutes"]
    );
    at(&mut world, "2026-01-01T00:05:00Z");
    let over = world.translate(&web());
    assert_eq!(endpoints(&over), ["http=8080 10.0.0.3 "]);
    assert_eq!(
        (over.due.clone(), items(&over)),
        (None, vec!["p0001 Unknown no prober".to_owned()])
    );
    world.settle(&web());
    at(&mut world, "2026-01-01T00:01:00Z");
    assert_eq!(
        endpoints(&world.translate(&web())),
        ["http=8080 10.0.0.3 "],
        "it was none"
    );
}

#[test]
fn another_check_leaves_endpoints_as_they_are() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    world.made = false;
    let mut other = web();
    other.spec.health_check = Some(yaml("{http: {path: /healthz}}"));
    assert_eq!(
        endpoints(&world.translate(&other)),
        ["http=8080 10.0.0.3 rs"]
    );
    assert_eq!(world.settle(&other), 0);
}

#[test]
fn what_is_deleted_drains_for_a_time() {
    let mut world = World::new().pod(1, true).vnic("ns/n1 None any 10.0.0.11");
    let mut both = web();
    both.spec.backends = yaml("[{kind: VNicIP, name: n1}]");
    world.settle(&both);
    // The Pod's grace is 30 s: its deletion began at 0.
    let meta = &mut world.pods[0].0.metadata;
    meta.deletion_timestamp = Some(time("2026-01-01T00:00:30Z"));
    meta.deletion_grace_period_seconds = Some(30);
    world.vnics[0].metadata.deletion_timestamp = Some(time("2026-01-01T00:00:10Z"));
    at(&mut world, "2026-01-01T00:00:20Z");
    let drains = world.translate(&both);
    let mut lines = endpoints(&drains);
    lines.sort();
    assert_eq!(lines, ["http=8080 10.0.0.11 st", "http=8080 10.0.0.3 st"]);
    assert_eq!((drains.counts.draining, drains.counts.healthy), (2, 0));
    assert_eq!(drains.due, Some(time("2026-01-01T00:00:30Z")));
    assert_eq!(drains.counts.items[0].state, BackendState::Draining);
    assert_eq!(drains.changes, [], "it leaves in order");
    at(&mut world, "2026-01-01T00:00:30Z");
    let less = world.translate(&both);
    assert_eq!(endpoints(&less), ["http=8080 10.0.0.11 st"]);
    assert_eq!(less.due, Some(time("2026-01-01T00:00:40Z")));
    both.spec.drain_seconds = Some(0);
    let none = world.translate(&both);
    assert_eq!((endpoints(&none), none.due), (Vec::new(), None));
    // With all endpoints published a Pod is one until it is gone; a VNic would then never go.
    both.spec.publish_not_ready_addresses = true;
    let published = world.translate(&both);
    assert_eq!(endpoints(&published), ["http=8080 10.0.0.3 rst"]);
    both.spec.publish_not_ready_addresses = false;

    both.spec.drain_seconds = None;
    at(&mut world, "2026-01-01T00:00:20Z");
    world.probed(&both, ProbeState::Unhealthy, SINCE, "gone");
    let dead = world.translate(&both);
    assert_eq!(dead.counts.draining, 0, "it does not answer any more");
}

#[test]
fn former_endpoints_of_a_refused_spec_follow_their_probes() {
    let mut world = World::new().pod(1, true).pod(2, true);
    world.settle(&web());
    world.probed(&web(), ProbeState::Healthy, SINCE, "");
    let refused = ysvc("{vpc: vpc1, healthCheck: {udp: {}}, ports: [{name: http, port: 80}]}");
    let kept = world.translate(&refused);
    assert_eq!(
        endpoints(&kept),
        ["http=8080 10.0.0.3 rs", "http=8080 10.0.0.4 rs"]
    );
    let names: Vec<&String> = world.probes.keys().collect();
    let wanted: Vec<&String> = kept.probes.iter().flat_map(|p| &p.metadata.name).collect();
    assert_eq!(wanted, names, "their probes stay");
    let first = world.probes.values_mut().next().unwrap();
    Arc::make_mut(first).status = Some(yaml("{state: Unhealthy, lastError: refused}"));
    assert_eq!(
        endpoints(&world.translate(&refused)),
        ["http=8080 10.0.0.3 ", "http=8080 10.0.0.4 rs"]
    );
}
