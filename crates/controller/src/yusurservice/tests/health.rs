//! Machines as backends, and the probes of all backends.

use ycloud_api::NetworkProbe;

use super::*;
use crate::yusurservice::probes::reduce_probe;

fn machine(name: &str, status: &str) -> News {
    News::VNic(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, labels: {{app: db}}}}, status: {status},
           spec: {{subnet: s, attachment: {{kind: VM, name: vm-{name}}}}}}}"
    ))))
}

fn of(name: &str, backends: &str) -> News {
    News::YusurService(Box::new(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, generation: 1}},
           spec: {{vpc: vpc1, backends: [{backends}], ports: [{{name: http, port: 80}}]}}}}"
    )))))
}

fn apply(world: &mut World, probe: &NetworkProbe) -> Vec<String> {
    let mut probe = probe.clone();
    reduce_probe(&mut probe);
    concerned(world, News::NetworkProbe(Box::new(Change::Apply(probe))))
}

#[test]
fn vnics_concern_those_who_mean_them() {
    let mut world = World::default();
    world.apply(of("a", "{kind: VM, name: vm-n}"));
    world.apply(of("b", "{kind: VNicIP, ip: 10.0.0.9}"));
    world.apply(of("c", "{kind: VM, selector: {matchLabels: {app: db}}}"));
    world.apply(of("d", "{kind: BM, name: vm-n}"));
    assert_eq!(
        concerned(&mut world, machine("n", "{phase: Pending}")),
        ["ns/a", "ns/c"]
    );
    let bound = "{ip: 10.0.0.9, vpc: vpc1, phase: Bound}";
    assert_eq!(
        concerned(&mut world, machine("n", bound)),
        ["ns/a", "ns/b", "ns/c"]
    );
    let up = "{ip: 10.0.0.9, vpc: vpc1, phase: Up}";
    assert_eq!(concerned(&mut world, machine("n", up)), [""; 0]);
    let news = News::VNic(Change::Delete(gone("ns", "n")));
    assert_eq!(concerned(&mut world, news), ["ns/a", "ns/b", "ns/c"]);
}

#[test]
fn probes_are_made_shared_and_left() {
    let mut world = World::default();
    world.apply(vpc());
    for name in ["svc", "two"] {
        world.apply(of(name, "{kind: VM, name: vm-n}"));
    }
    world.apply(machine("n", "{ip: 10.0.0.9, vpc: vpc1}"));
    let first = plan(&world, &svc()).unwrap();
    let mut probe = first.wanted_probes[0].clone();
    assert_eq!(apply(&mut world, &probe), ["ns/svc"]);
    assert!(plan(&world, &svc()).unwrap().wanted_probes.is_empty());

    let two = plan(&world, &ObjectKey::new("ns", "two")).unwrap();
    assert_eq!(two.wanted_probes[0].metadata.name, probe.metadata.name);
    let owners = two.wanted_probes[0].metadata.owner_references.clone();
    let mine = probe.metadata.owner_references.as_mut().unwrap();
    mine.extend(owners.unwrap());
    assert_eq!(apply(&mut world, &probe), ["ns/svc", "ns/two"]);
    let two = plan(&world, &ObjectKey::new("ns", "two")).unwrap();
    assert!(two.wanted_probes.is_empty() && two.surplus_probes.is_empty());

    probe.status = Some(yaml(
        "{state: Healthy, since: 2026-01-01T00:00:00Z, roundTripMicroseconds: 7}",
    ));
    assert_eq!(apply(&mut world, &probe), ["ns/svc", "ns/two"]);
    let status = probe.status.as_mut().unwrap();
    status.reported = Some(now(1));
    assert_eq!(
        apply(&mut world, &probe),
        ["ns/svc", "ns/two"],
        "its first result"
    );
    probe.status.as_mut().unwrap().reported = Some(now(2));
    probe.status.as_mut().unwrap().round_trip_microseconds = Some(9);
    probe.metadata.resource_version = Some("9".into());
    assert_eq!(
        apply(&mut world, &probe),
        [""; 0],
        "a figure concerns nobody"
    );

    world.apply(of("svc", ""));
    let less = plan(&world, &svc()).unwrap();
    assert_eq!(less.surplus_probes, [probe.metadata.name.clone().unwrap()]);
    let name = probe.metadata.name.clone().unwrap();
    let news = News::NetworkProbe(Box::new(Change::Delete(gone("ns", &name))));
    assert_eq!(concerned(&mut world, news), ["ns/svc", "ns/two"]);
}

#[test]
fn while_none_is_healthy_clients_are_refused() {
    let mut world = World::default();
    world.apply(vpc());
    world.apply(of("svc", "{kind: VM, name: vm-n}"));
    world.apply(machine("n", "{ip: 10.0.0.9, vpc: vpc1}"));
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    program(&mut world);
    let told = plan(&world, &svc()).unwrap().status(None, None, &now(1));
    assert_eq!(state(&told)[3], "Ready=True Ready");

    probe(&mut world, &first, "Unhealthy");
    let sick = plan(&world, &svc()).unwrap();
    assert_eq!((sick.slices.len(), sick.changes().len()), (1, 1));
    world.apply(News::EndpointSlice(Change::Apply(sick.slices[0].clone())));
    program(&mut world);
    let sick = plan(&world, &svc()).unwrap();
    assert!(!sick.writes(), "a second look finds nothing to write");
    let told = sick.status(None, Some(&told), &now(2));
    assert_eq!(state(&told)[3], "Ready=False NoBackends");
    let message = "none of 1 backends is healthy; clients are refused";
    assert_eq!(told.conditions[3].message, message);
    let counts = told.backends.unwrap();
    assert_eq!(counts.summary, "0/1");
    assert_eq!(counts.items[0].message.as_deref(), Some("its check fails"));
}

#[test]
fn that_probes_cannot_be_written_is_said() {
    let mut world = World::default();
    world.apply(vpc());
    world.apply(of("svc", "{kind: VM, name: vm-n}"));
    world.apply(machine("n", "{ip: 10.0.0.9, vpc: vpc1}"));
    let first = plan(&world, &svc()).unwrap();
    for slice in &first.slices {
        world.apply(News::EndpointSlice(Change::Apply(slice.clone())));
    }
    let mut service = first.service.unwrap();
    service.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.7".into());
    world.apply(News::Service(Change::Apply(service)));
    program(&mut world);
    let mut plan = plan(&world, &svc()).unwrap();
    plan.unwritten = Some("quota".into());
    let told = plan.status(None, None, &now(1));
    for at in [1, 3] {
        let message = &told.conditions[at].message;
        assert!(
            message.ends_with("; its NetworkProbes cannot be written, and without one a backend stays as it is: quota"),
            "{message}"
        );
    }
}
