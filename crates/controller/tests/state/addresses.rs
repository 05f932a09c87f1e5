//! Pods to addresses: what is asked of the API server, step by step, and what a crash between two steps leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::support::{Controller, Server, now, read, vpc};
use ycloud_api::VNic;
use ycloud_compiler::{Event, Object, ObjectKey, ObjectRef, Owner, Settings};
use ycloud_controller::write::Action;
use ycloud_ovsdb::{Operation, nb};

fn base(cidr: &str) -> Vec<Object> {
    let subnet = format!(
        "{{apiVersion: iaas.yusur.io/v1, kind: Subnet, metadata: {{name: s1}}, spec: {{vpc: vpc1, cidr: {cidr}}}}}"
    );
    vec![vpc("vpc1"), Object::Subnet(read(&subnet))]
}

fn pod(name: &str) -> Object {
    Object::Pod(read(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, annotations: {{iaas.yusur.io/subnet: s1}}}},
          spec: {{nodeName: node-1, containers: []}}}}"
    )))
}

fn owner(pod: &str) -> Owner {
    let uid = format!("uid-{pod}");
    Owner::VNic(ObjectKey::new(
        "ns",
        ycloud_api::vnic::pod_vnic_name(pod, &uid),
    ))
}

/// The VNic as the API server would store it.
fn stored(mut vnic: VNic, version: u64) -> Arc<VNic> {
    vnic.metadata.uid = Some(format!("uid-{}", vnic.metadata.name.clone().unwrap()));
    vnic.metadata.resource_version = Some(version.to_string());
    Arc::new(vnic)
}

fn create(controller: &mut Controller, pod: &str) -> VNic {
    match controller
        .state
        .next_write(&owner(pod), &now())
        .map(|need| need.action)
    {
        Some(Action::CreateVNic(vnic)) => *vnic,
        other => panic!("{other:?}"),
    }
}

/// Asks for the address of a VNic that was stored, and returns it with its status as the API server would store it.
fn address(controller: &mut Controller, pod: &str, vnic: &VNic, version: u64) -> Arc<VNic> {
    let need = controller.state.next_write(&owner(pod), &now());
    let Some(Action::Patch {
        patch,
        subresource: Some("status"),
        ..
    }) = need.map(|need| need.action)
    else {
        panic!("no address")
    };
    let mut vnic = vnic.clone();
    vnic.status = Some(serde_json::from_value(patch["status"].clone()).unwrap());
    vnic.metadata.resource_version = Some(version.to_string());
    Arc::new(vnic)
}

fn ip(vnic: &VNic) -> String {
    vnic.status.clone().unwrap().ip.unwrap()
}

#[tokio::test]
async fn an_address_counts_at_once_and_has_a_port_once_it_is_confirmed() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    let mut pending = Vec::new();
    for n in 0..20 {
        let name = format!("p{n}");
        controller.state.take_in(Event::Apply(pod(&name)));
        let vnic = stored(create(&mut controller, &name), 10);
        controller
            .state
            .take_in(Event::Apply(Object::VNic(vnic.clone())));
        pending.push((name, vnic));
    }
    // All addresses are decided before any is confirmed.
    let decided: Vec<Arc<VNic>> = pending
        .iter()
        .map(|(name, vnic)| address(&mut controller, name, vnic, 20))
        .collect();
    let addresses: BTreeSet<String> = decided.iter().map(|vnic| ip(vnic)).collect();
    assert_eq!(addresses.len(), 20);
    controller.settle().await;
    let ports = |controller: &Controller| {
        let rows = controller.rows(nb::LogicalSwitchPort::TABLE);
        rows.iter()
            .filter(|row| {
                row.get("name")
                    .and_then(|n| n.as_str())
                    .unwrap()
                    .starts_with("ns/")
            })
            .count()
    };
    assert_eq!(ports(&controller), 0);
    // An event from before the address does not take it away, and a label's change neither.
    let (name, vnic) = &pending[0];
    let mut labelled = VNic::clone(vnic);
    labelled.metadata.resource_version = Some("15".into());
    controller
        .state
        .take_in(Event::Apply(Object::VNic(Arc::new(labelled.clone()))));
    assert_eq!(
        ip(&address(&mut controller, name, &labelled, 20)),
        ip(&decided[0])
    );
    for vnic in &decided {
        controller.state.take_answer(
            &Owner::VNic(key(vnic)),
            Some(Event::Apply(Object::VNic(vnic.clone()))),
        );
    }
    controller
        .state
        .take_in(Event::Apply(Object::VNic(vnic.clone())));
    controller.settle().await;
    assert_eq!(ports(&controller), 20);
}

fn key(vnic: &VNic) -> ObjectKey {
    ObjectKey::new("ns", vnic.metadata.name.clone().unwrap())
}

#[tokio::test]
async fn a_crash_between_any_two_steps_leaks_no_address() {
    let server = Server::start().await;
    // Two addresses are usable besides the gateway's.
    let cidr = "10.0.1.0/29";
    let mut objects = base(cidr);
    objects.extend((0..5).map(|n| pod(&format!("p{n}"))));
    for crash in 0..3 {
        let mut known = objects.clone();
        {
            let mut controller = Controller::start(&server, &known).await;
            let vnic = stored(create(&mut controller, "p0"), 10);
            if crash >= 1 {
                known.push(Object::VNic(vnic.clone()));
                controller
                    .state
                    .take_in(Event::Apply(Object::VNic(vnic.clone())));
                let addressed = address(&mut controller, "p0", &vnic, 20);
                controller.settle().await;
                if crash >= 2 {
                    known.pop();
                    known.push(Object::VNic(addressed));
                }
            }
        }
        // The successor gives all five addresses out, each once.
        let mut successor = Controller::start(&server, &known).await;
        let mut addresses = BTreeSet::new();
        for n in 0..5 {
            let name = format!("p{n}");
            let Owner::VNic(key) = owner(&name) else {
                unreachable!()
            };
            let held = successor.state.snapshot.vnic(&key).cloned();
            let vnic = match held {
                Some(vnic) => vnic,
                None => {
                    let vnic = stored(create(&mut successor, &name), 10);
                    successor
                        .state
                        .take_in(Event::Apply(Object::VNic(vnic.clone())));
                    vnic
                }
            };
            let has = vnic
                .status
                .as_ref()
                .is_some_and(|status| status.ip.is_some());
            let vnic = if has {
                vnic
            } else {
                address(&mut successor, &name, &vnic, 30)
            };
            addresses.insert(ip(&vnic));
        }
        assert_eq!(addresses.len(), 5, "crash after step {crash}");
    }
}

#[tokio::test]
async fn who_gets_no_address_gets_the_one_that_is_released() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/30")).await;
    let mut stored_vnics = Vec::new();
    for name in ["first", "second"] {
        controller.state.take_in(Event::Apply(pod(name)));
        let vnic = stored(create(&mut controller, name), 10);
        controller
            .state
            .take_in(Event::Apply(Object::VNic(vnic.clone())));
        stored_vnics.push(vnic);
    }
    let first = address(&mut controller, "first", &stored_vnics[0], 20);
    controller
        .state
        .take_in(Event::Apply(Object::VNic(first.clone())));
    let need = controller
        .state
        .next_write(&owner("second"), &now())
        .unwrap();
    let report = need.report.expect("no Event");
    assert_eq!(
        (report.reason.as_str(), report.regarding.name.as_deref()),
        ("AddressesExhausted", Some("second"))
    );
    assert!(
        report.message.contains("s1") && report.message.contains("10.0.1.0/30"),
        "{}",
        report.message
    );
    controller
        .state
        .take_in(Event::Delete(ObjectRef::Pod(ObjectKey::new("ns", "first"))));
    let deletion = controller
        .state
        .next_write(&owner("first"), &now())
        .unwrap()
        .action;
    assert!(
        matches!(deletion, Action::DeleteVNic { pod: Some(_), .. }),
        "{deletion:?}"
    );
    controller
        .state
        .take_in(Event::Delete(ObjectRef::VNic(key(&first))));
    let second = address(&mut controller, "second", &stored_vnics[1], 30);
    assert_eq!(ip(&second), ip(&first));
}

#[tokio::test]
async fn a_vnic_of_a_subnet_that_its_waiting_pod_does_not_belong_to_any_more_goes() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    controller.state.take_in(Event::Apply(pod("p")));
    let vnic = stored(create(&mut controller, "p"), 10);
    let applied = Event::Apply(Object::VNic(vnic.clone()));
    controller.state.take_in(applied);
    // Before it has an address, the Pod is to be in another Subnet.
    let subnet = "{metadata: {name: s2}, spec: {vpc: vpc1, cidr: 10.0.2.0/24}}";
    let other = Event::Apply(Object::Subnet(read(subnet)));
    controller.state.take_in(other);
    let moved =
        "{metadata: {name: p, namespace: ns, uid: uid-p, annotations: {iaas.yusur.io/subnet: s2}},
          spec: {nodeName: node-1, containers: []}}";
    let moved = Event::Apply(Object::Pod(read(moved)));
    controller.state.take_in(moved);
    let mut next = || controller.state.next_write(&owner("p"), &now()).unwrap();
    let deletion = next().action;
    // The Pod is there, and waits.
    assert!(
        matches!(deletion, Action::DeleteVNic { pod: None, .. }),
        "{deletion:?}"
    );
    let deleted = Event::Apply(Object::VNic(deleted(&vnic, 20)));
    controller.state.take_in(deleted);
    let mut next = || controller.state.next_write(&owner("p"), &now()).unwrap();
    let release = next().action;
    assert!(
        matches!(release, Action::ReleaseVNic { pod: None, .. }),
        "{release:?}"
    );
}

#[tokio::test]
async fn an_answer_does_not_bring_back_what_has_ended() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    controller.state.take_in(Event::Apply(pod("p")));
    let vnic = stored(create(&mut controller, "p"), 10);
    controller
        .state
        .take_in(Event::Apply(Object::VNic(vnic.clone())));
    let answer = address(&mut controller, "p", &vnic, 20);
    controller.state.objects.begin(&owner("p"));
    controller
        .state
        .take_in(Event::Delete(ObjectRef::VNic(key(&vnic))));
    controller.state.take_answer(
        &owner("p"),
        Some(Event::Apply(Object::VNic(answer.clone()))),
    );
    assert!(controller.state.snapshot.vnic(&key(&vnic)).is_none());
    // A later VNic of the name is another one.
    controller.state.answered(&owner("p"));
    let mut later = VNic::clone(&vnic);
    later.metadata.uid = Some("later".into());
    controller
        .state
        .take_in(Event::Apply(Object::VNic(Arc::new(later))));
    assert!(controller.state.snapshot.vnic(&key(&vnic)).is_some());
    // An absence is believed only of the object that was asked for.
    controller
        .state
        .take_absence(&owner("p"), vnic.metadata.uid.clone());
    assert!(controller.state.snapshot.vnic(&key(&vnic)).is_some());
    controller
        .state
        .take_absence(&owner("p"), Some("later".into()));
    assert!(controller.state.snapshot.vnic(&key(&vnic)).is_none());
}

/// The VNic as the API server has it after a deletion that a finalizer holds up.
fn deleted(vnic: &VNic, version: u64) -> Arc<VNic> {
    let mut vnic = vnic.clone();
    vnic.metadata.deletion_timestamp = Some(now());
    vnic.metadata.resource_version = Some(version.to_string());
    Arc::new(vnic)
}

#[tokio::test]
async fn a_vnic_that_is_deleted_keeps_its_port_while_its_pod_runs() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    controller.state.take_in(Event::Apply(pod("p")));
    let vnic = stored(create(&mut controller, "p"), 10);
    assert_eq!(
        vnic.metadata.finalizers,
        Some(vec![ycloud_api::key::IN_USE_FINALIZER.to_owned()])
    );
    controller
        .state
        .take_in(Event::Apply(Object::VNic(vnic.clone())));
    let vnic = address(&mut controller, "p", &vnic, 20);
    controller
        .state
        .take_in(Event::Apply(Object::VNic(vnic.clone())));
    controller.settle().await;
    // Its Namespace is being deleted, or somebody deletes it by hand.
    let vnic = deleted(&vnic, 30);
    controller
        .state
        .take_in(Event::Apply(Object::VNic(vnic.clone())));
    controller.settle().await;
    let name = ycloud_api::vnic::logical_port("ns", vnic.metadata.name.as_deref().unwrap());
    controller.named(nb::LogicalSwitchPort::TABLE, &name);
    let need = controller.state.next_write(&owner("p"), &now()).unwrap();
    let Action::Patch { patch, .. } = need.action else {
        panic!("{need:?}")
    };
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let in_use = conditions.iter().find(|c| c["type"] == "InUse").unwrap();
    let message = in_use["message"].as_str().unwrap();
    assert!(message.contains("1 user: Pod ns/p"), "{message}");
    // The Pod ends.
    controller
        .state
        .take_in(Event::Delete(ObjectRef::Pod(ObjectKey::new("ns", "p"))));
    let need = controller.state.next_write(&owner("p"), &now()).unwrap();
    let Action::ReleaseVNic {
        finalizers,
        pod: Some(pod),
        ..
    } = need.action
    else {
        panic!("{need:?}")
    };
    assert_eq!((finalizers.len(), pod.1.as_str()), (0, "uid-p"));
}

#[tokio::test]
async fn a_port_that_is_bound_outlives_its_pod_until_the_node_lets_go() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    let node = |ready: &str| {
        Event::Apply(Object::Node(read(&format!(
            "{{metadata: {{name: node-1}}, status: {{conditions: [{{type: Ready, status: '{ready}'}}]}}}}"
        ))))
    };
    controller.state.take_in(node("True"));
    controller.state.take_in(Event::Apply(pod("p")));
    let vnic = stored(create(&mut controller, "p"), 10);
    let taken = Event::Apply(Object::VNic(vnic.clone()));
    controller.state.take_in(taken);
    let vnic = address(&mut controller, "p", &vnic, 20);
    let taken = Event::Apply(Object::VNic(vnic.clone()));
    controller.state.take_in(taken);
    controller.settle().await;
    let name = ycloud_api::vnic::logical_port("ns", vnic.metadata.name.as_deref().unwrap());
    let port = controller.named(nb::LogicalSwitchPort::TABLE, &name);
    let up = |up: bool| {
        let row = nb::LogicalSwitchPort::new().up(Some(up));

        vec![Operation::update(nb::LogicalSwitchPort::TABLE, port, row)]
    };
    controller.by_hand(&server, up(true)).await;
    controller.settle_after_change().await;
    let gone = ObjectRef::Pod(ObjectKey::new("ns", "p"));
    controller.state.take_in(Event::Delete(gone));
    let taken = Event::Apply(Object::VNic(deleted(&vnic, 30)));
    controller.state.take_in(taken);
    controller.settle().await;
    let later = |seconds: i64| Time(Timestamp::from_second(1_000 + seconds).unwrap());
    let releases = |controller: &mut Controller, seconds: i64| {
        let need = controller.state.next_write(&owner("p"), &later(seconds));
        matches!(
            need.map(|need| need.action),
            Some(Action::ReleaseVNic { .. })
        )
    };
    assert!(!releases(&mut controller, 0), "the node has it bound");
    assert!(!releases(&mut controller, 29));
    assert!(releases(&mut controller, 30), "it is waited for too long");
    controller.state.take_in(node("False"));
    assert!(
        releases(&mut controller, 0),
        "a dead node lets go of nothing"
    );
    controller.state.take_in(node("True"));
    assert!(!releases(&mut controller, 0));
    controller.by_hand(&server, up(false)).await;
    controller.settle_after_change().await;
    assert!(releases(&mut controller, 0));
}

#[tokio::test]
async fn a_vnic_of_an_earlier_release_gets_its_finalizer() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    controller.state.take_in(Event::Apply(pod("p")));
    let mut vnic = create(&mut controller, "p");
    vnic.metadata.finalizers = Some(vec!["example.com/other".to_owned()]);
    let vnic = stored(vnic, 10);
    controller.state.take_in(Event::Apply(Object::VNic(vnic)));
    let need = controller.state.next_write(&owner("p"), &now()).unwrap();
    let Action::Patch { patch, version, .. } = need.action else {
        panic!("{need:?}")
    };
    assert_eq!(
        patch["metadata"]["finalizers"],
        serde_json::json!(["example.com/other", ycloud_api::key::IN_USE_FINALIZER])
    );
    assert_eq!(version.as_deref(), Some("10"));
}

/// A VNic in Subnet `s1` that holds an IPv4 address.
fn holder(kind: &str, name: &str, ip: &str) -> Arc<VNic> {
    read(&format!(
        "{{apiVersion: iaas.yusur.io/v1, kind: VNic,
          metadata: {{name: {name}, namespace: ns, uid: u-{name}, resourceVersion: '10'}},
          spec: {{subnet: s1, attachment: {{kind: {kind}, name: {name}, uid: u, chassis: node-1}}}},
          status: {{ip: {ip}, prefixLength: 24, gateway: 10.0.1.1, mac: '0a:00:0a:00:01:09', vpc: vpc1, phase: Up}}}}"
    ))
}

/// Whose a Service and its EndpointSlices are that yusurservice-controller made.
const MAKER: &str = "ownerReferences: [{apiVersion: iaas.yusur.io/v1, kind: YusurService, name: web, uid: uid-web, controller: true}]";

/// An EndpointSlice in `vpc1` with these endpoints, and this in its metadata.
fn slice(manager: &str, more: &str, endpoints: &str) -> Event {
    Event::Apply(Object::EndpointSlice(read(&format!(
        "{{metadata: {{name: w, namespace: ns, {more}, labels: {{kubernetes.io/service-name: web, iaas.yusur.io/vpc: vpc1,
             endpointslice.kubernetes.io/managed-by: {manager}}}}},
          addressType: IPv4, ports: [{{port: 80}}], endpoints: [{endpoints}]}}"
    ))))
}

#[tokio::test]
async fn a_machine_that_is_deleted_keeps_its_port_until_it_is_no_endpoint() {
    const OURS: &str = ycloud_api::key::ENDPOINTSLICE_MANAGED_BY;
    let server = Server::start().await;
    let mut objects = base("10.0.1.0/24");
    let machines = [
        holder("VM", "m-vm", "10.0.1.9"),
        holder("BM", "m-bm", "10.0.1.20"),
        holder("None", "m-none", "10.0.1.21"),
    ];
    objects.extend(machines.iter().cloned().map(Object::VNic));
    objects.push(Object::Service(read(&format!(
        "{{metadata: {{name: web, namespace: ns, {MAKER}, annotations: {{iaas.yusur.io/vpc: vpc1}}}},
          spec: {{clusterIP: 10.96.0.9, ports: [{{port: 80}}]}}}}"
    ))));
    let mut controller = Controller::start(&server, &objects).await;
    controller.settle().await;
    for vnic in &machines {
        let need = controller.state.next_write(&Owner::VNic(key(vnic)), &now());
        let patch = format!("{:?}", need.map(|need| need.action));
        assert!(patch.contains("iaas.yusur.io/in-use"), "{patch}");
    }

    let mut held = VNic::clone(&machines[0]);
    held.metadata.finalizers = Some(vec![ycloud_api::key::IN_USE_FINALIZER.to_owned()]);
    let deleted = deleted(&held, 30);
    let since = deleted.metadata.deletion_timestamp.clone().unwrap();
    let owner = Owner::VNic(key(&held));
    let released = |controller: &mut Controller| {
        let need = controller.state.next_write(&owner, &since);
        matches!(
            need.map(|need| need.action),
            Some(Action::ReleaseVNic { finalizers, pod: None, .. }) if finalizers.is_empty()
        )
    };
    let serves = "{addresses: [10.0.1.9], conditions: {ready: true}}";
    let drains =
        "{addresses: [10.0.1.9], conditions: {ready: false, serving: true, terminating: true}}";
    controller.state.take_in(slice(OURS, MAKER, serves));
    controller
        .state
        .take_in(Event::Apply(Object::VNic(deleted.clone())));
    assert!(!released(&mut controller));
    controller.state.take_in(slice(OURS, MAKER, drains));
    assert!(!released(&mut controller));
    controller.settle().await;
    controller.named(nb::LogicalSwitchPort::TABLE, "ns/m-vm");
    // It is taken out, and so its turn comes.
    while controller.state.objects.take(Instant::now()).is_some() {}
    controller
        .state
        .take_in(slice(OURS, MAKER, "{addresses: [10.0.1.77]}"));
    let mut turns = std::iter::from_fn(|| controller.state.objects.take(Instant::now()));
    assert!(turns.any(|turn| turn == owner));
    assert!(released(&mut controller));

    // A slice of somebody else holds nothing, whatever its label says, and none does for ever.
    let another = MAKER.replace("uid-web", "uid-another");
    for (manager, maker) in [("hand", MAKER), (OURS, "generation: 1"), (OURS, &another)] {
        controller.state.take_in(slice(manager, maker, serves));
        assert!(released(&mut controller), "{manager} {maker}");
    }
    controller.state.take_in(slice(OURS, MAKER, serves));
    assert!(!released(&mut controller));
    let late = Time(since.0 + Duration::from_secs(3661));
    let need = controller.state.next_write(&owner, &late);
    let action = need.map(|need| need.action);
    assert!(
        matches!(action, Some(Action::ReleaseVNic { .. })),
        "{action:?}"
    );
}

#[tokio::test]
async fn a_machine_gets_the_family_that_its_subnet_gains_and_keeps_its_port() {
    let server = Server::start().await;
    let mut objects = base("10.0.1.0/24");
    let (mut machine, pod) = (
        holder("VM", "m", "10.0.1.9"),
        holder("Pod", "p", "10.0.1.8"),
    );
    Arc::make_mut(&mut machine).metadata.finalizers =
        Some(vec![ycloud_api::key::IN_USE_FINALIZER.to_owned()]);
    objects.push(Object::VNic(machine.clone()));
    objects.push(Object::VNic(pod.clone()));
    let mut controller = Controller::start(&server, &objects).await;
    controller.settle().await;
    let addresses = |controller: &Controller| {
        let rows = controller.rows(nb::LogicalSwitchPort::TABLE);
        let name =
            |row: &ycloud_ovsdb::Row| row.get("name").and_then(|n| n.as_str()) == Some("ns/m");
        let row = rows.iter().find(|row| name(row)).expect("its port");
        format!("{:?}", row.get("addresses"))
    };
    let before = addresses(&controller);
    let subnet = "{apiVersion: iaas.yusur.io/v1, kind: Subnet, metadata: {name: s1},
                   spec: {vpc: vpc1, cidr: 10.0.1.0/24, ipv6: {cidr: 'fd00:1::/64'}}}";
    controller
        .state
        .take_in(Event::Apply(Object::Subnet(read(subnet))));
    let owner = |vnic: &VNic| Owner::VNic(key(vnic));
    let need = controller.state.next_write(&owner(&machine), &now());
    let Some(Action::Patch { patch, .. }) = need.map(|need| need.action) else {
        panic!("no address")
    };
    assert_eq!(patch["status"]["ipv6"]["ip"], "fd00:1::2");
    assert!(patch["status"]["ip"].is_null(), "unchanged: {patch}");
    // Until the API server has it, the port stays as it was; an event from before does not take the address away.
    controller.settle().await;
    assert_eq!(addresses(&controller), before);
    let mut labelled = VNic::clone(&machine);
    labelled.metadata.resource_version = Some("15".into());
    controller
        .state
        .take_in(Event::Apply(Object::VNic(Arc::new(labelled.clone()))));
    controller.settle().await;
    assert_eq!(addresses(&controller), before);
    let status = labelled.status.as_mut().unwrap();
    status.ipv6 = serde_json::from_value(patch["status"]["ipv6"].clone()).unwrap();
    labelled.metadata.resource_version = Some("20".into());
    controller
        .state
        .take_in(Event::Apply(Object::VNic(Arc::new(labelled))));
    controller.settle().await;
    assert!(addresses(&controller).contains("10.0.1.9 fd00:1::2"));
    // A Pod's interface was configured without it.
    let need = controller.state.next_write(&owner(&pod), &now());
    let patch = format!("{:?}", need.map(|need| need.action));
    assert!(!patch.contains("ipv6"), "{patch}");
}

#[tokio::test]
async fn the_default_subnets_are_made_with_ipv6_or_get_it() {
    let server = Server::start().await;
    let settings = Settings {
        default_subnet_ipv6_cidr: Some("fd00:10:16::/64".parse().unwrap()),
        ..Settings::default()
    };
    let older = "{apiVersion: iaas.yusur.io/v1, kind: Subnet,
                  metadata: {name: ovn-default, finalizers: [iaas.yusur.io/in-use]}, spec: {vpc: ovn-cluster, cidr: 10.16.0.0/16}}";
    let objects = [Object::Subnet(read(older))];
    let mut controller = Controller::start_with(&server, &objects, settings).await;
    let mut next = |name: &str| {
        let owner = Owner::Subnet(name.to_owned());
        let need = controller.state.next_write(&owner, &now());
        need.map(|need| need.action)
    };
    match next("subnet0") {
        Some(Action::CreateSubnet(subnet)) => {
            let cidrs: Vec<&str> = subnet.spec.cidrs().collect();
            assert_eq!(cidrs, ["100.64.0.0/16", "fd00:100:64::/64"]);
        }
        other => panic!("{other:?}"),
    }
    match next("ovn-default") {
        Some(Action::Patch {
            patch, subresource, ..
        }) => {
            assert_eq!(subresource, None);
            assert_eq!(patch["spec"]["ipv6"]["cidr"], "fd00:10:16::/64");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_on_whom_it_is_for() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    controller.state.take_in(Event::Apply(pod("p")));
    let vnic = create(&mut controller, "p");
    let told = |need: Option<ycloud_controller::objects::Need>| {
        let need = need.expect("nothing is told");
        let Action::PodCondition { pod, condition, .. } = need.action else {
            panic!("{:?}", need.action)
        };
        assert_eq!(pod, ObjectKey::new("ns", "p"));
        let words = need.report.map(|report| {
            assert_eq!(report.regarding.kind.as_deref(), Some("Pod"));
            assert!(report.warning);
            report.message
        });
        (condition.status, condition.message.unwrap(), words)
    };
    let why = "vnics is forbidden: exceeded quota: few (403)";
    let need = controller.state.refuse(&owner("p"), why, &now());
    let (status, message, words) = told(need);
    assert!(message.ends_with(why), "{message}");
    assert_eq!((status.as_str(), words), ("False", Some(message)));
    assert_eq!(
        controller.state.refuse(&owner("p"), why, &now()),
        None,
        "once"
    );
    // It is tried again, and taken back once there is an address.
    assert_eq!(create(&mut controller, "p"), vnic);
    controller.state.refused_no_more(&owner("p"));
    let vnic = stored(vnic, 10);
    controller
        .state
        .take_in(Event::Apply(Object::VNic(vnic.clone())));
    let vnic = address(&mut controller, "p", &vnic, 20);
    controller
        .state
        .take_answer(&owner("p"), Some(Event::Apply(Object::VNic(vnic.clone()))));
    let need = controller.state.next_write(&owner("p"), &now());
    let (status, _, words) = told(need);
    assert_eq!((status.as_str(), words), ("True", None));

    // Of an object that exists, its own condition says it.
    let why = "denied the request (403)";
    let need = controller.state.refuse(&owner("p"), why, &now()).unwrap();
    let Action::Conditions { conditions, .. } = need.action else {
        panic!("{:?}", need.action)
    };
    let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "Refused")
    );
    assert!(ready.message.ends_with(why), "{}", ready.message);
    assert_eq!(need.report.unwrap().regarding.kind.as_deref(), Some("VNic"));
}

#[tokio::test]
async fn what_is_refused_of_an_eip_is_told_on_its_service() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    let service = "{metadata: {name: web, namespace: ns, uid: u, resourceVersion: '5',
            annotations: {iaas.yusur.io/vpc: vpc1}},
          spec: {type: LoadBalancer, loadBalancerClass: iaas.yusur.io/eip, clusterIP: 10.96.0.7,
            clusterIPs: [10.96.0.7], ports: [{port: 80}]}}";
    let service = Event::Apply(Object::Service(read(service)));
    controller.state.take_in(service);
    controller.settle().await;
    let key = ObjectKey::new("ns", "web");
    let eip = Owner::Eip(key.clone());
    let why = "eips is forbidden: exceeded quota (403)";
    assert_eq!(controller.state.refuse(&eip, why, &now()), None);
    let need = controller.state.next_write(&Owner::Service(key), &now());
    let need = need.expect("nothing is told");
    let Action::ServiceConditions(conditions) = need.action else {
        panic!("{:?}", need.action)
    };
    let condition = &conditions[0];
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "Refused")
    );
    assert!(condition.message.ends_with(why), "{}", condition.message);
    let report = need.report.expect("no Event");
    assert!(report.warning && report.message == condition.message);
}

#[tokio::test]
async fn a_vnic_tells_what_is_wrong_with_it_and_that_it_is_ready() {
    let server = Server::start().await;
    let mut controller = Controller::start(&server, &base("10.0.1.0/24")).await;
    let key = ObjectKey::new("ns", "bm");
    let owner = Owner::VNic(key);
    let vnic: Arc<VNic> = read(
        "{metadata: {name: bm, namespace: ns, uid: u, resourceVersion: '10', finalizers: [iaas.yusur.io/in-use]},
          spec: {subnet: s1, attachment: {kind: BM, name: bm, chassis: dpu-9}},
          status: {ip: 10.0.1.9, prefixLength: 24, gateway: 10.0.1.1, mac: '0a:00:0a:00:01:09', vpc: vpc1, phase: Bound}}",
    );
    controller.state.take_in(Event::Apply(Object::VNic(vnic)));
    controller.settle().await;
    let report = |controller: &mut Controller| {
        let need = controller.state.next_write(&owner, &now());
        let report = need.and_then(|need| need.report).expect("no Event");
        assert_eq!(report.regarding.kind.as_deref(), Some("VNic"));
        (report.warning, report.reason, report.message)
    };
    let (warning, reason, message) = report(&mut controller);
    assert_eq!((warning, reason.as_str()), (true, "NotFound"));
    assert!(message.contains("no chassis dpu-9"), "{message}");
    let vnic: Arc<VNic> = read(
        "{metadata: {name: bm, namespace: ns, uid: u, resourceVersion: '11', finalizers: [iaas.yusur.io/in-use]},
          spec: {subnet: s1, attachment: {kind: None}},
          status: {ip: 10.0.1.9, prefixLength: 24, gateway: 10.0.1.1, mac: '0a:00:0a:00:01:09', vpc: vpc1, phase: Bound}}",
    );
    controller.state.take_in(Event::Apply(Object::VNic(vnic)));
    controller.settle().await;
    let (warning, reason, _) = report(&mut controller);
    assert_eq!((warning, reason.as_str()), (false, "Ready"));
}
