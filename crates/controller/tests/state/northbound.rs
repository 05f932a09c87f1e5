//! From objects to rows on a real ovsdb-server: what is written, when nothing is, and what is left alone.

use std::sync::Arc;

use crate::support::{Controller, Server, now, read, vpc};
use uuid::Uuid;
use ycloud_api::{Subnet, VNic, key};
use ycloud_compiler::{Event, Object, ObjectKey, ObjectRef, Owner};
use ycloud_controller::status::RowState;
use ycloud_controller::write::Action;
use ycloud_ovsdb::{Columns, Mutation, Operation, Where, nb};

fn subnet(name: &str, vpc: &str, cidr: &str) -> Object {
    let spec = serde_json::json!({"vpc": vpc, "cidr": cidr});
    let spec = serde_json::from_value(spec).unwrap();
    Object::Subnet(Arc::new(Subnet::new(name, spec)))
}

fn vnic(name: &str, ip: &str) -> Object {
    Object::VNic(read::<VNic>(&format!(
        "{{apiVersion: iaas.yusur.io/v1, kind: VNic, metadata: {{name: {name}, namespace: ns, uid: u-{name}}},
          spec: {{subnet: s1, attachment: {{kind: Pod, name: {name}, chassis: node-1}}}},
          status: {{ip: {ip}, prefixLength: 24, gateway: 10.0.1.1, mac: '0a:00:0a:00:01:09', vpc: vpc1, phase: Pending}}}}"
    )))
}

fn service(proxy: &str) -> [Object; 2] {
    let service = read(&format!(
        "{{metadata: {{name: web, namespace: ns, uid: u-web, resourceVersion: '5', annotations: {{iaas.yusur.io/vpc: vpc1}},
            labels: {{service.kubernetes.io/service-proxy-name: {proxy}}}}},
          spec: {{clusterIP: 10.96.1.1, clusterIPs: [10.96.1.1], ports: [{{name: a, port: 80, protocol: TCP}}, {{name: b, port: 53, protocol: UDP}}]}}}}"
    ));
    let slice = read(
        "{metadata: {name: web-1, namespace: ns, labels: {kubernetes.io/service-name: web}}, addressType: IPv4,
          ports: [{name: a, port: 8080, protocol: TCP}, {name: b, port: 5353, protocol: UDP}],
          endpoints: [{addresses: [10.0.1.9]}]}",
    );
    [Object::Service(service), Object::EndpointSlice(slice)]
}

fn objects() -> Vec<Object> {
    let [web, slice] = service(key::PROXY);
    vec![
        web,
        slice,
        vnic("p1", "10.0.1.9"),
        subnet("s1", "vpc1", "10.0.1.0/24"),
        vpc("vpc1"),
    ]
}

fn reference(object: &Object) -> ObjectRef {
    match object {
        Object::Vpc(o) => ObjectRef::Vpc(o.metadata.name.clone().unwrap()),
        Object::Subnet(o) => ObjectRef::Subnet(o.metadata.name.clone().unwrap()),
        Object::VNic(o) => ObjectRef::VNic(ObjectKey::new("ns", o.metadata.name.clone().unwrap())),
        Object::Service(_) => ObjectRef::Service(ObjectKey::new("ns", "web")),
        Object::EndpointSlice(_) => ObjectRef::EndpointSlice(ObjectKey::new("ns", "web-1")),
        other => panic!("{other:?}"),
    }
}

fn web() -> Owner {
    Owner::Service(ObjectKey::new("ns", "web"))
}

#[tokio::test]
async fn everything_goes_in_one_transaction_and_a_restart_writes_nothing() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &objects()).await;
    controller.settle().await;
    assert_eq!((controller.transactions, controller.nb_cfg()), (1, 1));
    assert_eq!(controller.rows(nb::LoadBalancer::TABLE).len(), 2);
    controller.named(nb::LogicalSwitchPort::TABLE, "ns/p1");
    assert_eq!(controller.state.row_state(&web()), &RowState::Settled);
    let before = controller.content();
    let mut successor = Controller::start(&server, &objects()).await;
    successor.settle().await;
    assert_eq!((successor.transactions, successor.nb_cfg()), (0, 1));
    assert_eq!(successor.content(), before);
}

#[tokio::test]
async fn edits_by_hand_are_undone_and_foreign_rows_are_left_alone() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &objects()).await;
    controller.settle().await;
    let before = controller.content();
    let switch = controller.named(nb::LogicalSwitch::TABLE, "s1");
    let balancer = controller.named(nb::LoadBalancer::TABLE, "ns/web:tcp");
    let vips = Columns::new().with("vips", [("9.9.9.9:1", "")]);
    let ids = Columns::new().with("external_ids", [("mine", "now")]);
    let edits = [
        vec![Operation::update(nb::LoadBalancer::TABLE, balancer, vips)],
        vec![Operation::update(nb::LogicalSwitch::TABLE, switch, ids)],
        vec![Operation::delete(nb::LoadBalancer::TABLE, balancer)],
        vec![Operation::delete(nb::LogicalSwitch::TABLE, switch)],
    ];
    for edit in edits {
        controller.by_hand(&server, edit.clone()).await;
        controller.settle_after_change().await;
        assert_eq!(controller.content(), before, "{edit:?}");
    }
    let port = Uuid::from_u128(7);
    let foreign = vec![
        Operation::insert(
            nb::LogicalSwitchPort::TABLE,
            port,
            nb::LogicalSwitchPort::new().name("foreign"),
        ),
        Operation::mutate(
            nb::LogicalSwitch::TABLE,
            switch,
            vec![Mutation::insert("ports", port)],
        ),
    ];
    let transactions = controller.transactions;
    controller.by_hand(&server, foreign).await;
    controller.settle_after_change().await;
    assert_eq!(controller.transactions, transactions);
    assert_eq!(
        controller.named(nb::LogicalSwitchPort::TABLE, "foreign"),
        port
    );
}

#[tokio::test]
async fn what_is_deleted_leaves_no_row_behind_even_while_nobody_looked() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &objects()).await;
    controller.settle().await;
    for object in objects() {
        controller.state.take_in(Event::Delete(reference(&object)));
    }
    controller.settle().await;
    assert_eq!(controller.content(), Vec::<String>::new());
    let mut controller = Controller::start(&server, &objects()).await;
    controller.settle().await;
    assert_ne!(controller.content(), Vec::<String>::new());
    let mut successor = Controller::start(&server, &[]).await;
    successor.settle().await;
    assert_eq!(successor.content(), Vec::<String>::new());
}

#[tokio::test]
async fn rows_that_the_server_refuses_hold_up_nobody_else() {
    let server = Server::start().await;
    let mut objects = objects();
    objects.extend((10..40).map(|n| subnet(&format!("s{n}"), "vpc1", &format!("10.0.{n}.0/24"))));
    let mut controller = Controller::start(&server, &[]).await;
    controller.settle().await;
    // Somebody else has a port of the name that Subnet s20's must have.
    let poison = {
        let mut trial = Controller::start(&server, &objects).await;
        trial.settle().await;
        let row = trial.rows(nb::LogicalSwitchPort::TABLE);
        let row = row.iter().find(|row| {
            row.get("name")
                .and_then(|n| n.as_str())
                .unwrap()
                .contains("s20")
        });
        let name = row
            .unwrap()
            .get("name")
            .and_then(|n| n.as_str())
            .unwrap()
            .to_owned();
        let mut cleaner = Controller::start(&server, &[]).await;
        cleaner.settle().await;
        name
    };
    let (switch, port) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let foreign = vec![
        Operation::insert(
            nb::LogicalSwitchPort::TABLE,
            port,
            nb::LogicalSwitchPort::new().name(poison),
        ),
        Operation::insert(
            nb::LogicalSwitch::TABLE,
            switch,
            nb::LogicalSwitch::new().name("foreign").ports([port]),
        ),
    ];
    controller.by_hand(&server, foreign).await;
    let mut controller = Controller::start(&server, &objects).await;
    controller.settle().await;
    let state = |n: u8| {
        controller
            .state
            .row_state(&Owner::Subnet(format!("s{n}")))
            .clone()
    };
    assert!(matches!(state(20), RowState::Failing(why) if why.contains("constraint violation")));
    for n in (10..40).filter(|n| *n != 20) {
        assert_eq!(state(n), RowState::Settled, "s{n}");
    }
    assert_eq!(controller.state.row_state(&web()), &RowState::Settled);
}

#[tokio::test]
async fn a_service_is_programmed_once_the_living_chassis_have_its_rows() {
    let server = Server::start().await;
    for (proxy, ours) in [(key::PROXY, true), ("other", false)] {
        let mut all = objects();
        all.splice(..2, service(proxy));
        let mut controller = Controller::start(&server, &all).await;
        controller.settle().await;
        let nb_cfg = controller.nb_cfg();
        controller.state.tracker.lives("node-1", true);
        controller.state.tracker.chassis("node-1", Some(nb_cfg - 1));
        controller.state.tracker.advance();
        assert_eq!(controller.state.next_write(&web(), &now()), None);
        controller.state.tracker.chassis("node-1", Some(nb_cfg));
        controller.state.tracker.advance();
        let need = controller.state.next_write(&web(), &now());
        if !ours {
            assert_eq!(need, None, "a Service of another proxy");
            continue;
        }
        let Some(Action::Patch { patch, version, .. }) = need.map(|need| need.action) else {
            panic!("no annotation")
        };
        let digest = controller
            .state
            .snapshot
            .digest(&ObjectKey::new("ns", "web"))
            .unwrap();
        assert_eq!(patch["metadata"]["annotations"][key::PROGRAMMED], digest);
        assert_eq!(version.as_deref(), Some("5"));
    }
}

#[tokio::test]
async fn a_service_that_changes_with_every_commit_is_settled_at_once_after_the_last() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &objects()).await;
    controller.settle().await;
    let endpoint = |n: u8| {
        Event::Apply(Object::EndpointSlice(read(&format!(
            "{{metadata: {{name: web-1, namespace: ns, labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4,
              ports: [{{name: a, port: 8080, protocol: TCP}}], endpoints: [{{addresses: [10.0.1.{n}]}}]}}"
        ))))
    };
    for n in 10..20 {
        controller.state.take_in(endpoint(n));
        assert!(controller.commit_once().await, "{n}");
    }
    controller.settle().await;
    assert_eq!(controller.state.row_state(&web()), &RowState::Settled);
}

#[tokio::test]
async fn the_options_of_nb_global_are_set_where_they_are_absent() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &[]).await;
    let chosen = Mutation::insert(nb::NbGlobal::OPTIONS, [("bfd-mult", "5"), ("mine", "1")]);
    let by_hand = Operation::mutate(nb::NbGlobal::TABLE, Where::all(), vec![chosen]);
    controller.by_hand(&server, vec![by_hand]).await;
    controller.settle_after_change().await;
    let option = |controller: &Controller, name: &str| {
        let rows = controller.rows(nb::NbGlobal::TABLE);
        let options = nb::NbGlobal::of(&rows[0]).options();
        options.get(name).map(str::to_owned)
    };
    for (name, value) in [
        ("bfd-mult", "5"),
        ("mine", "1"),
        ("bfd-min-rx", "100"),
        ("bfd-min-tx", "100"),
        ("use_common_zone", "true"),
    ] {
        assert_eq!(option(&controller, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(controller.transactions, 1);
}
