//! KubeVirt comes and goes, and its guests migrate.

use ycloud_api::kubevirt::VirtualMachineInstance;

use super::*;
use crate::yusurservice::kubevirt::{Instances, reduce_vmi};

const ON_N1: &str = "{phase: Running, nodeName: n1}";
const ON_N2: &str = "{phase: Running, nodeName: n2, migrationState: {sourceNode: n1, sourcePod: a, targetNode: n2, targetPod: b, completed: true}}";

fn found() -> News {
    News::Instances(Instances::Found)
}

fn absent() -> News {
    News::Instances(Instances::Gone)
}

fn listed() -> News {
    News::Instances(Instances::Changed(Box::new(Change::Synced)))
}

fn read(status: &str, more: &str) -> VirtualMachineInstance {
    yaml(&format!(
        "{{metadata: {{name: vm, namespace: ns, uid: uid-vm, labels: {{app: db}}, resourceVersion: '7', annotations: {{big: text}}{more}}},
           spec: {{domain: {{devices: {{}}}}, evenThis: [1]}}, status: {status}}}"
    ))
}

fn vmi(status: &str) -> News {
    let mut vmi = read(status, "");
    reduce_vmi(&mut vmi);
    News::Instances(Instances::Changed(Box::new(Change::Apply(vmi))))
}

/// A launcher Pod and its VNic.
fn launcher(world: &mut World, name: &str, node: &str, ip: &str) -> Vec<String> {
    let mut pod = pod(name, "db", true);
    let labels = "{app: db, kubevirt.io: virt-launcher, kubevirt.io/created-by: uid-vm}";
    pod.metadata.labels = Some(yaml(labels));
    pod.spec.as_mut().unwrap().node_name = Some(node.into());
    let mut keys = concerned(world, pod_news(pod));
    let of_vnic = concerned(world, vnic(name, &format!("{{ip: {ip}, vpc: vpc1}}")));
    keys.extend(of_vnic);
    keys
}

fn of(name: &str, backends: &str) -> News {
    News::YusurService(Box::new(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, generation: 1}},
           spec: {{vpc: vpc1, backends: [{backends}], ports: [{{name: http, port: 80}}]}}}}"
    )))))
}

const DB: &str = "{kind: VM, selector: {matchLabels: {app: db}}}";

/// Addresses of the slices that the plan writes.
fn addresses(plan: &Plan) -> Vec<String> {
    let endpoints = plan.slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints.flat_map(|e| e.addresses.clone()).collect()
}

#[test]
fn only_who_means_machines_waits_for_kubevirt() {
    let mut world = World::default();
    let other = ObjectKey::new("ns", "other");
    world.apply(of("svc", DB));
    world.apply(of("other", "{kind: BM, name: bm-1}"));
    assert!(!world.knows(&svc()) && world.knows(&other));
    assert_eq!(concerned(&mut world, found()), [""; 0]);
    assert!(!world.knows(&svc()), "they are not listed yet");
    assert_eq!(concerned(&mut world, listed()), ["ns/svc"]);
    assert!(world.knows(&svc()));

    let mut world = World::default();
    world.apply(of("svc", DB));
    assert_eq!(concerned(&mut world, absent()), ["ns/svc"]);
    assert!(world.knows(&svc()));
    world.apply(found());
    assert!(
        world.knows(&svc()),
        "one that comes later takes nothing away"
    );
}

#[test]
fn guests_and_their_launchers_concern_who_means_them() {
    let mut world = World::default();
    for news in [
        vpc(),
        of("svc", DB),
        of("named", "{kind: VM, name: vm}"),
        found(),
    ] {
        world.apply(news);
    }
    world.apply(of("pods", "{kind: Pod, name: a}"));
    let both = ["ns/named", "ns/svc"];
    assert_eq!(concerned(&mut world, vmi(ON_N1)), both);
    assert_eq!(
        concerned(&mut world, vmi(ON_N1)),
        [""; 0],
        "nothing that matters"
    );
    let guest = "{phase: Running, nodeName: n1, guestOSInfo: {name: x}, interfaces: [{ipAddress: 10.0.0.7}], conditions: [{type: Ready, status: 'True'}]}";
    assert_eq!(concerned(&mut world, vmi(guest)), [""; 0], "nor this");
    let paused = "{phase: Running, nodeName: n1, conditions: [{type: Paused, status: 'True'}]}";
    assert_eq!(concerned(&mut world, vmi(paused)), both);
    world.apply(vmi(ON_N1));
    let three = ["ns/named", "ns/pods", "ns/svc"];
    let all = launcher(&mut world, "a", "n1", "10.0.0.9");
    assert_eq!(all, [three, three].concat());
    let news = News::Instances(Instances::Changed(Box::new(Change::Delete(gone(
        "ns", "vm",
    )))));
    assert_eq!(concerned(&mut world, news), both);
    let alone = News::Pod(Box::new(Change::Delete(gone("ns", "a"))));
    assert_eq!(concerned(&mut world, alone), ["ns/pods"]);
}

#[test]
fn a_migration_changes_one_slice_once() {
    let mut world = World::default();
    for news in [vpc(), of("svc", DB), found(), vmi(ON_N1), listed()] {
        world.apply(news);
    }
    launcher(&mut world, "a", "n1", "10.0.0.9");
    let first = plan(&world, &svc()).unwrap();
    assert_eq!(addresses(&first), ["10.0.0.9"]);
    carry_out(&mut world, &first);
    launcher(&mut world, "b", "n2", "10.0.0.10");
    assert!(
        !plan(&world, &svc()).unwrap().writes(),
        "the target is nobody yet"
    );
    assert_eq!(concerned(&mut world, vmi(ON_N2)), ["ns/svc"]);
    let moved = plan(&world, &svc()).unwrap();
    assert_eq!(addresses(&moved), ["10.0.0.10"]);
    let state = moved.slices[0].endpoints[0].conditions.clone().unwrap();
    assert_eq!(state.ready, Some(true), "before anybody asked it there");
    assert_eq!(
        (moved.wanted_probes.len(), moved.surplus_probes.len()),
        (1, 1)
    );
    assert_eq!(moved.changes(), []);
}

#[test]
fn without_kubevirt_its_guests_leave_and_all_else_stays() {
    let mut world = World::default();
    let both = format!("{DB}, {{kind: VM, name: vm-n}}");
    for news in [vpc(), of("svc", &both), found(), vmi(ON_N1), listed()] {
        world.apply(news);
    }
    world.apply(News::VNic(Change::Apply(yaml(
        "{metadata: {name: n, namespace: ns, uid: uid-n}, status: {ip: 10.0.0.7, vpc: vpc1},
          spec: {subnet: s, attachment: {kind: VM, name: vm-n}}}",
    ))));
    launcher(&mut world, "a", "n1", "10.0.0.9");
    let first = plan(&world, &svc()).unwrap();
    assert_eq!(addresses(&first), ["10.0.0.7", "10.0.0.9"]);
    carry_out(&mut world, &first);
    assert_eq!(concerned(&mut world, absent()), ["ns/svc"]);
    let less = plan(&world, &svc()).unwrap();
    assert_eq!(addresses(&less), ["10.0.0.7"]);
    // It comes back.
    world.apply(found());
    assert_eq!(concerned(&mut world, vmi(ON_N1)), ["ns/svc"]);
    let again = plan(&world, &svc()).unwrap();
    assert!(!again.writes(), "it was never written without");
}

#[test]
fn little_is_kept_of_a_guest() {
    let mut vmi = read(ON_N1, ", finalizers: [f]");
    reduce_vmi(&mut vmi);
    let kept = serde_json::to_value(&vmi).unwrap();
    let expected: serde_json::Value = yaml(&format!(
        "{{metadata: {{name: vm, namespace: ns, uid: uid-vm, resourceVersion: '7', labels: {{app: db}}}}, status: {ON_N1}}}"
    ));
    assert_eq!(kept, expected);
}
