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
        ("p0001 (10.0.0.3:8080)", true)
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
    assert_eq!(sick.counts.items[0].node.as_deref(), Some("node-1"));
    assert_eq!(
        (sick.changes[0].healthy, sick.changes[0].why.as_str()),
        (false, "connection refused")
    );
    let mut all = web();
    all.spec.publish_not_ready_addresses = true;
    assert_eq!(endpoints(&world.translate(&all))[0], "http=8080 10.0.0.3 r");
}

#[test]
fn the_first_failure_of_who_never_served_is_news_once() {
    let mut world = World::new().pod(1, true).pod(2, false);
    world.made = false;
    let mut web = web();
    world.settle(&web);
    world.probed(&web, ProbeState::Unhealthy, SINCE, "connection refused");
    let failed = world.translate(&web);
    // The second one does not call itself ready: it begins, and its kubelet tells of it.
    let [change] = failed.changes.as_slice() else {
        panic!("{:?}", failed.changes);
    };
    assert_eq!(
        (change.name.as_str(), change.why.as_str()),
        ("p0001 (10.0.0.3:8080)", "connection refused")
    );
    assert!(!change.healthy && !change.served);
    assert_eq!(items(&failed)[1], "p0002 NotReady not ready");

    let told = web.status.get_or_insert_default();
    told.backends = Some(failed.counts);
    assert_eq!(world.translate(&web).changes, [], "the status says it");
    world.pods[1] = pod(2, true);
    let ready = world.translate(&web);
    assert_eq!(ready.changes[0].name, "p0002 (10.0.0.4:8080)");
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

/// What ycloud-controller writes: the verdict since then, over a state that is Unknown since the first of January.
fn assigned(world: &mut World, ysvc: &YusurService, accepted: &str, reported: &str) {
    for mut probe in world.translate(ysvc).probes {
        probe.status = Some(yaml(&format!(
            "{{state: Unknown, since: {SINCE}, lastError: no chassis can ask{reported}, conditions: [{{type: Accepted, message: m, {accepted}}}]}}"
        )));
        let name = probe.metadata.name.clone().unwrap_or_default();
        world.probes.insert(name, Arc::new(probe));
    }
}

const NOBODY: &str = "status: 'False', reason: NoProber, lastTransitionTime: 2026-01-01T00:00:00Z";

#[test]
fn endpoints_stay_while_no_chassis_can_ask_them() {
    let mut world = World::new().pod(1, true).vnic("ns/n1 None any 10.0.0.11");
    let mut both = web();
    both.spec.backends = yaml("[{kind: VNicIP, name: n1}]");
    world.settle(&both);
    world.made = false;
    let all = ["http=8080 10.0.0.11 rs", "http=8080 10.0.0.3 rs"];
    let sorted = |translation: &Translation| {
        let mut lines = endpoints(translation);
        lines.sort();
        lines
    };
    assigned(
        &mut world,
        &both,
        NOBODY,
        ", reported: 2025-12-31T00:00:00Z",
    );
    at(&mut world, "2026-01-09T00:00:00Z");
    let kept = world.translate(&both);
    assert_eq!(
        (sorted(&kept), kept.due.clone()),
        (all.map(str::to_owned).to_vec(), None)
    );
    assert_eq!(
        items(&kept)[0],
        "n1 Unknown no chassis can ask; until it is asked it stays an endpoint"
    );
    // Five minutes begin anew when one can.
    let somebody = "status: 'True', reason: Accepted, lastTransitionTime: 2026-01-09T00:00:00Z";
    assigned(&mut world, &both, somebody, "");
    at(&mut world, "2026-01-09T00:04:59Z");
    let kept = world.translate(&both);
    assert_eq!(sorted(&kept), all);
    assert_eq!(kept.due, Some(time("2026-01-09T00:05:00Z")));
    at(&mut world, "2026-01-09T00:05:00Z");
    let over = world.translate(&both);
    assert_eq!(
        sorted(&over),
        ["http=8080 10.0.0.11 ", "http=8080 10.0.0.3 "]
    );
}

#[test]
fn new_pods_count_by_their_readiness_while_no_chassis_can_ask() {
    let mut world = World::new().pod(1, true).pod(2, false);
    world.vnics.push(vnic("ns/n1 None any 10.0.0.11"));
    let mut both = web();
    both.spec.backends = yaml("[{kind: VNicIP, name: n1}]");
    world.made = false;
    assigned(&mut world, &both, NOBODY, "");
    let first = world.translate(&both);
    let expected = [
        "http=8080 10.0.0.11 ",
        "http=8080 10.0.0.3 rs",
        "http=8080 10.0.0.4 ",
    ];
    assert_eq!(
        endpoints(&first).into_iter().collect::<BTreeSet<_>>(),
        expected.map(str::to_owned).into()
    );
    assert_eq!(
        items(&first),
        [
            "n1 Unknown no chassis can ask",
            "p0001 Unknown no chassis can ask; until it is asked its readiness decides",
            "p0002 NotReady not ready"
        ]
    );
    // One that was asked before may have failed.
    assigned(
        &mut world,
        &both,
        NOBODY,
        ", reported: 2025-12-31T00:00:00Z",
    );
    let asked = world.translate(&both);
    assert_eq!(asked.counts.summary, "0/3");
    // A spec that cannot be carried out is no lack of probers.
    let invalid = NOBODY.replace("NoProber", "Invalid");
    assigned(&mut world, &both, &invalid, "");
    assert_eq!(world.translate(&both).counts.summary, "0/3");
}

#[test]
fn a_probe_that_nobody_took_up_takes_nothing_away() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    world.made = false;
    let probe = world.translate(&web()).probes.remove(0);
    let name = probe.metadata.name.clone().unwrap();
    world.probes.insert(name.clone(), Arc::new(probe));
    at(&mut world, "2026-01-09T00:00:00Z");
    let kept = world.translate(&web());
    assert_eq!(endpoints(&kept), ["http=8080 10.0.0.3 rs"]);
    let expected = format!(
        "p0001 Unknown waiting for ycloud-controller to say who asks, in NetworkProbe {name}; until it is asked it stays an endpoint"
    );
    assert_eq!((items(&kept), kept.due), (vec![expected], None));
}

/// Annotation [`key::ENDED`] of all slices.
fn ended(translation: &Translation) -> String {
    let objects = translation.objects.as_ref().expect("objects");
    let annotations = objects.slices.iter().flat_map(|s| &s.metadata.annotations);
    let ended = annotations.filter_map(|all| all.get(ycloud_api::key::ENDED));
    ended.cloned().collect::<Vec<_>>().join(" ")
}

#[test]
fn connections_end_with_a_check_that_fails_and_when_draining_is_over() {
    // (onBackendFailure and so on, state, when, those whose connections end, when it may change)
    let cases = [
        ("", ProbeState::Unhealthy, "00:00:00", "10.0.0.3", None),
        ("", ProbeState::Healthy, "00:00:00", "", None),
        ("", ProbeState::Unknown, "01:00:00", "", None),
        (
            "onBackendFailure: Keep",
            ProbeState::Unhealthy,
            "01:00:00",
            "",
            None,
        ),
        (
            "resetAfterSeconds: 30",
            ProbeState::Unhealthy,
            "00:00:29",
            "",
            Some("00:00:30"),
        ),
        (
            "resetAfterSeconds: 30",
            ProbeState::Unhealthy,
            "00:00:30",
            "10.0.0.3",
            None,
        ),
    ];
    for (spec, state, now, expected, due) in cases {
        let mut world = World::new().pod(1, true);
        let web = ysvc(&format!(
            "{{vpc: vpc1, selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}], {spec}}}"
        ));
        world.settle(&web);
        world.probed(&web, state, SINCE, "");
        at(&mut world, &format!("2026-01-01T{now}Z"));
        let found = world.translate(&web);
        assert_eq!(ended(&found), expected, "{spec} {state:?} at {now}");
        let due = due.map(|due| time(&format!("2026-01-01T{due}Z")));
        assert_eq!(found.due, due, "{spec} {state:?} at {now}");
    }

    let mut world = World::new().pod(1, true).pod(2, true);
    world.settle(&web());
    let meta = &mut world.pods[0].0.metadata;
    meta.deletion_timestamp = Some(time("2026-01-01T00:00:30Z"));
    meta.deletion_grace_period_seconds = Some(30);
    at(&mut world, "2026-01-01T00:00:29Z");
    assert_eq!(ended(&world.translate(&web())), "", "it drains");
    at(&mut world, "2026-01-01T00:00:30Z");
    assert_eq!(ended(&world.translate(&web())), "10.0.0.3");
    // Also where it was the only one.
    world.pods.truncate(1);
    let last = world.translate(&web());
    assert_eq!(
        (endpoints(&last), ended(&last)),
        (vec![], "10.0.0.3".to_owned())
    );
}
