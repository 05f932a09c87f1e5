//! Leases to probers, probers to NetworkProbes: what is written into their status, and which ports stay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use ycloud_api::NetworkProbe;
use ycloud_compiler::{Chassis, Event, Object, ObjectKey, ObjectRef, Owner, wanted_chassis_probe};
use ycloud_controller::write::Action;
use ycloud_ovsdb::{Columns, Operation, nb};

use crate::support::{Controller, Server, now, read, vpc};

fn lease(chassis: &str, renewed: u32) -> Lease {
    serde_yaml::from_str(&format!(
        "{{metadata: {{name: prober-{chassis}, namespace: ycloud-probers}},
          spec: {{holderIdentity: {chassis}, leaseDurationSeconds: 30,
                  renewTime: '2026-01-01T00:00:{renewed:02}.000000Z'}}}}"
    ))
    .unwrap()
}

/// This machine's clock, soon after the Leases' own.
fn clock() -> k8s_openapi::jiff::Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

fn join(chassis: &str, ip: &str) -> Object {
    Object::VNic(read(&format!(
        "{{metadata: {{name: {chassis}, namespace: ycloud-system, uid: uid-{chassis}}},
          spec: {{subnet: subnet0, attachment: {{kind: Node, name: {chassis}, chassis: {chassis}}}}},
          status: {{ip: {ip}, phase: Up, chassis: {chassis}}}}}"
    )))
}

fn subnet(name: &str, vpc: &str, cidr: &str) -> Object {
    Object::Subnet(read(&format!(
        "{{metadata: {{name: {name}}}, spec: {{vpc: {vpc}, cidr: {cidr}}}}}"
    )))
}

/// A Vpc with a VM on chassis `a`, which a probe asks; chassis `a` and `b` could.
fn world() -> Vec<Object> {
    vec![
        vpc("ovn-cluster"),
        vpc("vpc1"),
        subnet("subnet0", "ovn-cluster", "100.64.0.0/16"),
        subnet("s1", "vpc1", "10.0.1.0/24"),
        join("a", "100.64.0.2"),
        join("b", "100.64.0.3"),
        vm("a"),
        Object::NetworkProbe(probe(None)),
    ]
}

fn vm(chassis: &str) -> Object {
    Object::VNic(read(&format!(
        "{{metadata: {{name: vm, namespace: ns}},
          spec: {{subnet: s1, attachment: {{kind: VM, name: vm, chassis: {chassis}}}}}, status: {{ip: 10.0.1.5}}}}"
    )))
}

fn probe(status: Option<Value>) -> Arc<NetworkProbe> {
    let mut probe: Arc<NetworkProbe> = read(
        "{metadata: {name: p, namespace: ns, uid: u, resourceVersion: '1'},
          spec: {target: {vpc: vpc1, ip: 10.0.1.5, port: 80}}}",
    );
    let to = Arc::make_mut(&mut probe);
    to.status = status.map(|status| serde_json::from_value(status).unwrap());
    probe
}

fn owner() -> Owner {
    Owner::NetworkProbe(ObjectKey::new("ns", "p"))
}

/// What is to be written into the probe's status.
fn patch(controller: &mut Controller) -> Option<Value> {
    let need = controller.state.next_write(&owner(), &now())?;
    match need.action {
        Action::Patch {
            patch,
            subresource: Some("status"),
            version: Some(_),
        } => Some(patch["status"].clone()),
        other => panic!("{other:?}"),
    }
}

/// The API server took the patch.
fn written(controller: &mut Controller, patch: &Value) {
    let former = controller.state.snapshot.probe(&ObjectKey::new("ns", "p"));
    let former = former.unwrap().status.clone();
    let mut status = serde_json::to_value(former.unwrap_or_default()).unwrap();
    for (name, value) in patch.as_object().unwrap() {
        match value {
            Value::Null => status.as_object_mut().unwrap().remove(name),
            value => status
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    let probe = Object::NetworkProbe(probe(Some(status)));
    controller.state.take_in(Event::Apply(probe));
}

fn names(controller: &Controller, table: &str) -> Vec<String> {
    let rows = controller.rows(table);
    let names = rows
        .iter()
        .filter_map(|row| row.get("name")?.as_str().map(str::to_owned));
    let mut names: Vec<String> = names.filter(|name| name.starts_with("probe:")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_prober_s_lease_ends_and_another_one_asks() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &world()).await;
    let refused = patch(&mut controller).unwrap();
    assert_eq!(refused["conditions"][0]["reason"], "NoProber");
    let start = Instant::now();
    let second = Duration::from_secs(1);
    for chassis in ["a", "b"] {
        controller
            .state
            .take_lease(&lease(chassis, 0), start, clock());
    }
    let first = patch(&mut controller).unwrap();
    assert_eq!(
        (&first["prober"], &first["source"]),
        (&"a".into(), &"100.68.0.2".into())
    );
    assert_eq!(first["conditions"][0]["status"], "True");
    written(&mut controller, &first);
    assert_eq!(patch(&mut controller), None);
    controller.settle().await;
    assert_eq!(names(&controller, nb::LogicalSwitch::TABLE), ["probe:vpc1"]);
    assert_eq!(
        names(&controller, nb::LogicalSwitchPort::TABLE),
        ["probe:vpc1/a"]
    );

    // It is heard of in time, and then no more.
    let healthy = serde_json::json!({"state": "Healthy", "since": "2026-01-01T00:00:05Z", "roundTripMicroseconds": 900});
    written(&mut controller, &healthy);
    for (chassis, renewed) in [("a", 10), ("b", 10), ("b", 20), ("b", 30)] {
        let at = start + second * renewed;
        controller
            .state
            .take_lease(&lease(chassis, renewed), at, clock());
        controller.state.pass(at);
    }
    assert_eq!(patch(&mut controller), None);
    assert_eq!(controller.state.next_due(), Some(start + 40 * second));
    controller.state.pass(start + 40 * second);
    let other = patch(&mut controller).unwrap();
    assert_eq!(
        (&other["prober"], &other["source"]),
        (&"b".into(), &"100.68.0.3".into())
    );
    assert_eq!(other["state"], "Unknown");
    assert_eq!(
        other["lastError"],
        "prober a has not been heard of for 30 s"
    );
    assert_eq!(other.get("roundTripMicroseconds"), None, "the prober's own");
    written(&mut controller, &other);
    controller.settle().await;
    assert_eq!(
        names(&controller, nb::LogicalSwitchPort::TABLE),
        ["probe:vpc1/b"]
    );

    // It is there again: it takes over, and nothing is said of the state; but not before its ovn-controller may have heard of it.
    written(&mut controller, &healthy);
    controller
        .state
        .take_lease(&lease("a", 50), start + 50 * second, clock());
    controller.state.pass(start + 51 * second);
    assert_eq!(patch(&mut controller), None);
    for renewed in (60..=170).step_by(10) {
        assert_eq!(patch(&mut controller), None, "{renewed}");
        for chassis in ["a", "b"] {
            let lease = lease(chassis, renewed % 60);
            controller
                .state
                .take_lease(&lease, start + renewed * second, clock());
        }
        controller.state.pass(start + renewed * second);
    }
    let back = patch(&mut controller).unwrap();
    assert_eq!((&back["prober"], back.get("state")), (&"a".into(), None));
    written(&mut controller, &back);
    controller.state.forget_lease("prober-a");
    let ended = patch(&mut controller).unwrap();
    assert_eq!(
        ended["lastError"],
        "prober a has ended: it has no Lease any more"
    );
}

/// The NetworkProbe of a chassis as it is in the API server, with this status.
fn chassis_probe(controller: &Controller, chassis: &str, status: Value) -> Object {
    let key = ObjectKey::new("ycloud-system", format!("chassis-{chassis}"));
    let mut probe = wanted_chassis_probe(&controller.state.snapshot, &key).unwrap();
    probe.metadata.uid = Some(format!("uid-{chassis}"));
    probe.status = serde_json::from_value(status).unwrap();
    Object::NetworkProbe(Arc::new(probe))
}

#[tokio::test]
async fn what_is_on_a_dead_chassis_is_unhealthy_and_what_it_asked_unknown() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &world()).await;
    let start = Instant::now();
    for chassis in ["a", "b"] {
        controller
            .state
            .take_lease(&lease(chassis, 0), start, clock());
    }
    // Each is asked by the other.
    let own = |chassis: &str| {
        Owner::NetworkProbe(ObjectKey::new(
            "ycloud-system",
            format!("chassis-{chassis}"),
        ))
    };
    for (chassis, by) in [("a", "b"), ("b", "a")] {
        let need = controller.state.next_write(&own(chassis), &now()).unwrap();
        let Action::CreateProbe(probe) = need.action else {
            panic!("{:?}", need.action)
        };
        assert_eq!(probe.spec.target.name.as_deref(), Some(chassis));
        let status = serde_json::json!({
            "state": "Healthy", "prober": by, "source": "100.68.0.9", "roundTripMicroseconds": 300,
        });
        let probe = chassis_probe(&controller, chassis, status);
        controller.state.take_in(Event::Apply(probe));
    }
    controller.settle().await;
    let switches = names(&controller, nb::LogicalSwitch::TABLE);
    assert_eq!(switches, ["probe:ovn-cluster", "probe:vpc1"]);

    let first = patch(&mut controller).unwrap();
    assert_eq!(first["prober"], "a");
    written(&mut controller, &first);
    let healthy = serde_json::json!({"state": "Healthy", "since": "2026-01-01T00:00:05Z"});
    written(&mut controller, &healthy);
    assert_eq!(patch(&mut controller), None);

    let silent = serde_json::json!({
        "state": "Unhealthy", "prober": "b", "source": "100.68.0.3", "lastError": "no answer within 1 s",
        "roundTripMicroseconds": 300,
    });
    let silent = chassis_probe(&controller, "a", silent);
    controller.state.take_in(Event::Apply(silent));
    let dead = patch(&mut controller).unwrap();
    assert_eq!(
        (&dead["state"], &dead["prober"]),
        (&"Unhealthy".into(), &"b".into())
    );
    let words =
        "chassis a does not answer (NetworkProbe ycloud-system/chassis-a: no answer within 1 s)";
    assert_eq!(dead["lastError"], words);
    written(&mut controller, &dead);
    assert_eq!(patch(&mut controller), None, "one write");
    // Nobody else can ask whether b is there.
    let need = controller.state.next_write(&own("b"), &now()).unwrap();
    let Action::Patch { patch: status, .. } = need.action else {
        panic!("{:?}", need.action)
    };
    assert_eq!(status["status"]["state"], "Unknown");
    assert_eq!(status["status"]["lastError"], words);

    // It is back; nothing is said of what is on it.
    let back = serde_json::json!({
        "state": "Healthy", "prober": "b", "source": "100.68.0.3", "roundTripMicroseconds": 300,
    });
    let back = chassis_probe(&controller, "a", back);
    controller.state.take_in(Event::Apply(back));
    let moved = patch(&mut controller).unwrap();
    assert_eq!((&moved["prober"], moved.get("state")), (&"a".into(), None));

    // Its Lease ends: it is asked no more.
    controller.state.forget_lease("prober-a");
    for chassis in ["a", "b"] {
        let need = controller.state.next_write(&own(chassis), &now()).unwrap();
        let uid = Some(format!("uid-{chassis}"));
        assert_eq!(need.action, Action::DeleteProbe { uid });
    }
}

#[tokio::test]
async fn a_port_stays_while_a_living_chassis_has_it_bound() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &world()).await;
    for chassis in ["a", "b"] {
        controller
            .state
            .take_lease(&lease(chassis, 0), Instant::now(), clock());
    }
    controller.settle().await;
    let port = controller.named(nb::LogicalSwitchPort::TABLE, "probe:vpc1/a");
    let up = |up: bool| {
        let columns = Columns::new().with("up", up);
        vec![Operation::update(
            nb::LogicalSwitchPort::TABLE,
            port,
            columns,
        )]
    };
    controller.by_hand(&server, up(true)).await;
    controller.settle_after_change().await;

    // The VM moves.
    controller.state.take_in(Event::Apply(vm("b")));
    controller.settle().await;
    let both = ["probe:vpc1/a", "probe:vpc1/b"];
    assert_eq!(names(&controller, nb::LogicalSwitchPort::TABLE), both);
    let due = controller.state.next_due();
    assert!(due.is_some_and(|due| due > Instant::now() + Duration::from_secs(20)));
    // The agent lets go.
    controller.by_hand(&server, up(false)).await;
    controller.settle_after_change().await;
    assert_eq!(names(&controller, nb::LogicalSwitchPort::TABLE), both[1..]);

    // One that is held for too long goes all the same, and so does that of a chassis that ends.
    let port = controller.named(nb::LogicalSwitchPort::TABLE, "probe:vpc1/b");
    let columns = Columns::new().with("up", true);
    let held = vec![Operation::update(
        nb::LogicalSwitchPort::TABLE,
        port,
        columns,
    )];
    controller.by_hand(&server, held).await;
    controller.settle_after_change().await;
    controller.state.take_in(Event::Apply(vm("a")));
    controller.settle().await;
    assert_eq!(names(&controller, nb::LogicalSwitchPort::TABLE), both);
    controller.state.take_lease(
        &lease("a", 20),
        Instant::now() + Duration::from_secs(20),
        now().0,
    );
    controller.state.take_lease(
        &lease("b", 20),
        Instant::now() + Duration::from_secs(20),
        now().0,
    );
    controller
        .state
        .pass(Instant::now() + Duration::from_secs(31));
    controller.settle().await;
    assert_eq!(names(&controller, nb::LogicalSwitchPort::TABLE), both[..1]);
}

#[tokio::test]
async fn a_chassis_without_a_node_gets_a_join_vnic_and_loses_it_long_after_itself() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &world()[..3]).await;
    let chassis = Chassis {
        name: "dpu".into(),
        ..Chassis::default()
    };
    controller
        .state
        .take_in(Event::Apply(Object::Chassis(chassis.clone())));
    let owner = Owner::VNic(ObjectKey::new("ycloud-system", "dpu"));
    let need = controller
        .state
        .next_write(&owner, &now())
        .map(|need| need.action);
    let Some(Action::CreateVNic(mut vnic)) = need else {
        panic!("{need:?}")
    };
    assert_eq!(vnic.metadata.finalizers, None);
    vnic.metadata.uid = Some("u".into());
    controller
        .state
        .take_in(Event::Apply(Object::VNic(Arc::from(vnic))));
    // Its ovn-controller is stopped in good order, and starts again after nine minutes; and then is gone for good.
    let gone = || Event::Delete(ObjectRef::Chassis("dpu".into()));
    let next = |controller: &mut Controller, seconds: i64| {
        let now = Time(now().0 + Duration::from_secs(seconds.unsigned_abs()));
        let need = controller.state.next_write(&owner, &now);
        need.map(|need| need.action)
            .filter(|action| matches!(action, Action::DeleteVNic { .. }))
    };
    controller.state.take_in(gone());
    assert_eq!(next(&mut controller, 0), None);
    assert_eq!(next(&mut controller, 540), None);
    controller
        .state
        .take_in(Event::Apply(Object::Chassis(chassis)));
    assert_eq!(next(&mut controller, 541), None);
    controller.state.take_in(gone());
    assert_eq!(next(&mut controller, 600), None);
    assert_eq!(next(&mut controller, 1199), None);
    // Longer if its agent lives, which is there without OVN too.
    let lease = lease("dpu", 1);
    controller.state.take_lease(&lease, Instant::now(), clock());
    assert_eq!(next(&mut controller, 1300), None);
    controller.state.forget_lease("prober-dpu");
    let need = next(&mut controller, 1301);
    let wanted = Action::DeleteVNic {
        uid: Some("u".into()),
        pod: None,
    };
    assert_eq!(need, Some(wanted));
}
