//! Who asks NetworkProbes: by the chassis near the target, by another one when that is gone, and ten thousand of them.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use support::objects;
use ycloud_compiler::{
    Chassis, Event, Leaving, Object, ObjectKey, ObjectRef, Owner, Row, Settings, Snapshot, compile,
    wanted_chassis_probe, wanted_vnic,
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The default Vpc's join switch, with three nodes that ask.
fn probed() -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    let mut all = vec![
        Object::Vpc(objects::vpc("ovn-cluster", &[])),
        Object::Subnet(objects::subnet(
            "subnet0",
            "ovn-cluster",
            "100.64.0.0/16",
            0,
        )),
    ];
    for (n, node) in NODES.into_iter().enumerate() {
        let ip = format!("100.64.0.{}", n + 2);
        all.push(Object::Node(objects::node(node, &format!("172.31.0.{n}"))));
        all.push(Object::VNic(objects::node_vnic(node, &ip)));
        all.push(Object::Prober(objects::prober(node)));
    }
    for object in all {
        snapshot.apply(Event::Apply(object));
    }
    snapshot
}

fn tell(snapshot: &mut Snapshot, object: Object) -> BTreeSet<Owner> {
    snapshot.apply(Event::Apply(object))
}

/// The probes among them, but for those of chassis.
fn probes(owners: &BTreeSet<Owner>) -> BTreeSet<ObjectKey> {
    let all = owners.iter().filter_map(|owner| match owner {
        Owner::NetworkProbe(key) if key.namespace != "ycloud-system" => Some(key.clone()),
        _ => None,
    });
    all.collect()
}

fn prober(snapshot: &Snapshot, key: &ObjectKey) -> Option<String> {
    let assignment = snapshot.assignment(key)?.as_ref().ok()?;
    Some(assignment.prober.clone())
}

fn ports(snapshot: &Snapshot, vpc: &str) -> BTreeSet<String> {
    let rows = compile(snapshot, &Owner::Vpc(vpc.to_owned())).expect("Vpcs are never refused");
    let name = |row: &Row| Some(row.columns.get("name")?.as_str()?.to_owned());
    let ports = rows.iter().filter(|row| row.table == "Logical_Switch_Port");
    let names = ports.filter_map(name);
    names.filter(|name| name.starts_with("probe:")).collect()
}

#[test]
fn the_chassis_of_the_target_asks_while_it_can() {
    let mut snapshot = probed();
    tell(&mut snapshot, Object::Vpc(objects::vpc("v1", &[])));
    tell(
        &mut snapshot,
        Object::Subnet(objects::subnet("a", "v1", "10.0.1.0/24", 0)),
    );
    let key = ObjectKey::new("ns", "p");
    let owner = Owner::NetworkProbe(key.clone());
    let probe = Object::NetworkProbe(objects::probe("ns", "p", "v1", "10.0.1.5"));
    let named = tell(&mut snapshot, probe);
    assert!(named.contains(&owner) && named.contains(&Owner::Vpc("v1".into())));
    let anybody = prober(&snapshot, &key).unwrap();
    let near = *NODES.iter().find(|node| **node != anybody).unwrap();

    // The VNic that has the address comes, on another chassis.
    let vnic = objects::vnic("ns", "x", "a", Some(near), Some("10.0.1.5"));
    let named = tell(&mut snapshot, Object::VNic(vnic.clone()));
    assert!(named.contains(&owner));
    assert_eq!(prober(&snapshot, &key).as_deref(), Some(near));
    assert_eq!(ports(&snapshot, "v1"), [format!("probe:v1/{near}")].into());

    // A port that is still bound stays until it is told otherwise.
    let leaving = Leaving {
        vpc: "v1".into(),
        chassis: anybody.clone(),
    };
    tell(&mut snapshot, Object::Leaving(leaving.clone()));
    assert_eq!(ports(&snapshot, "v1").len(), 2);
    snapshot.apply(Event::Delete(ObjectRef::Leaving(leaving)));

    // OVN has bound it elsewhere.
    let bound = objects::vnic_bound(&vnic, &anybody);
    let named = tell(&mut snapshot, Object::VNic(bound));
    assert!(named.contains(&owner));
    assert_eq!(prober(&snapshot, &key).as_deref(), Some(anybody.as_str()));

    for node in NODES {
        snapshot.apply(Event::Delete(ObjectRef::Prober(node.to_owned())));
    }
    let rejection = compile(&snapshot, &owner).unwrap_err();
    assert_eq!(rejection.reason, "NoProber");
    assert!(ports(&snapshot, "v1").is_empty());
    let named = tell(&mut snapshot, Object::Prober(objects::prober("n3")));
    assert!(named.contains(&owner));
    assert_eq!(prober(&snapshot, &key).as_deref(), Some("n3"));

    snapshot.apply(Event::Delete(ObjectRef::NetworkProbe(key)));
    let rows = compile(&snapshot, &Owner::Vpc("v1".into())).unwrap();
    let of_probes = |row: &&Row| format!("{:?}", row.columns).contains("probe");
    assert_eq!(rows.iter().find(of_probes), None);
}

#[test]
fn a_chassis_without_a_node_has_a_join_vnic_and_asks() {
    let mut snapshot = probed();
    let key = ObjectKey::new("ycloud-system", "dpu-1");
    let chassis = |name: &str| {
        Object::Chassis(Chassis {
            name: name.to_owned(),
            ..Chassis::default()
        })
    };
    assert_eq!(wanted_vnic(&snapshot, &key), Ok(None));
    let named = tell(&mut snapshot, chassis("dpu-1"));
    assert!(named.contains(&Owner::VNic(key.clone())));
    let vnic = wanted_vnic(&snapshot, &key).unwrap().unwrap();
    assert_eq!(vnic.metadata.owner_references, None);
    assert_eq!(vnic.spec.attachment.chassis.as_deref(), Some("dpu-1"));

    // One whose name no object can have.
    let named = tell(&mut snapshot, chassis("DPU_2"));
    let odd = ObjectKey::new("ycloud-system", "DPU_2");
    assert_eq!(wanted_vnic(&snapshot, &odd), Ok(None));
    assert!(!named.contains(&Owner::Vpc("v1".into())));

    // A Node of its name comes: the VNic is as before, and belongs to it if it is made anew.
    tell(
        &mut snapshot,
        Object::Node(objects::node("dpu-1", "172.31.0.9")),
    );
    let of_node = wanted_vnic(&snapshot, &key).unwrap().unwrap();
    assert_eq!(of_node.spec, vnic.spec);
    assert!(of_node.metadata.owner_references.is_some());
    snapshot.apply(Event::Delete(ObjectRef::Chassis("dpu-1".into())));
    assert!(wanted_vnic(&snapshot, &key).unwrap().is_some());
    let named = snapshot.apply(Event::Delete(ObjectRef::Node("dpu-1".into())));
    assert!(named.contains(&Owner::VNic(key.clone())));
    assert_eq!(wanted_vnic(&snapshot, &key), Ok(None));
}

/// The NetworkProbe of a chassis, as ycloud-controller makes it, with what `by` found.
fn chassis_probe(snapshot: &Snapshot, chassis: &str, by: &str, state: &str) -> Object {
    let key = ObjectKey::new("ycloud-system", format!("chassis-{chassis}"));
    let mut probe = wanted_chassis_probe(snapshot, &key).expect("it is asked");
    let status = serde_json::json!({
        "state": state, "prober": by, "source": "100.68.0.9", "lastError": "no answer within 1 s", "roundTripMicroseconds": 300,
    });
    probe.status = serde_json::from_value(status).expect("a status");
    Object::NetworkProbe(Arc::new(probe))
}

#[test]
fn a_chassis_that_does_not_answer_asks_no_more_until_it_does() {
    let mut snapshot = probed();
    tell(&mut snapshot, Object::Vpc(objects::vpc("v1", &[])));
    let subnet = objects::subnet("a", "v1", "10.0.1.0/24", 0);
    tell(&mut snapshot, Object::Subnet(subnet));
    let vnic = objects::vnic("ns", "x", "a", Some("n2"), Some("10.0.1.5"));
    tell(&mut snapshot, Object::VNic(vnic));
    let probe = objects::probe("ns", "p", "v1", "10.0.1.5");
    tell(&mut snapshot, Object::NetworkProbe(probe));
    let (key, own) = (
        ObjectKey::new("ns", "p"),
        ObjectKey::new("ycloud-system", "chassis-n2"),
    );
    for (of, by) in [("n1", "n3"), ("n2", "n1"), ("n3", "n1")] {
        let healthy = chassis_probe(&snapshot, of, by, "Healthy");
        tell(&mut snapshot, healthy);
    }
    assert_eq!(prober(&snapshot, &key).as_deref(), Some("n2"));
    assert_ne!(prober(&snapshot, &own).as_deref(), Some("n2"));

    // One that never answered may be new.
    let silent = chassis_probe(&snapshot, "n2", "n1", "Unhealthy");
    let Object::NetworkProbe(mut never) = silent.clone() else {
        panic!("{silent:?}")
    };
    let status = &mut Arc::make_mut(&mut never).status;
    status.get_or_insert_default().round_trip_microseconds = None;
    tell(&mut snapshot, Object::NetworkProbe(never));
    assert_eq!(snapshot.dead_chassis("n2"), None);

    let named = tell(&mut snapshot, silent);
    assert!(named.contains(&Owner::NetworkProbe(key.clone())));
    assert_eq!(
        snapshot.dead_chassis("n2"),
        Some(
            "chassis n2 does not answer (NetworkProbe ycloud-system/chassis-n2: no answer within 1 s)"
        )
    );
    let other = prober(&snapshot, &key).expect("another one asks");
    assert_ne!(other, "n2");
    assert!(prober(&snapshot, &own).is_some());
    let all = snapshot.probes().map(|(key, _)| key.clone());
    let all: Vec<ObjectKey> = all.collect();
    assert!(
        all.iter()
            .all(|key| prober(&snapshot, key).as_deref() != Some("n2"))
    );

    let healthy = chassis_probe(&snapshot, "n2", "n1", "Healthy");
    let named = tell(&mut snapshot, healthy);
    assert!(named.contains(&Owner::NetworkProbe(key.clone())));
    assert_eq!(prober(&snapshot, &key).as_deref(), Some("n2"));

    // Its Lease ends: nobody asks it, nor is it believed dead.
    let named = snapshot.apply(Event::Delete(ObjectRef::Prober("n2".into())));
    assert!(named.contains(&Owner::NetworkProbe(own.clone())));
    assert!(named.contains(&Owner::Vpc("ovn-cluster".into())));
    assert_eq!(wanted_chassis_probe(&snapshot, &own), None);
    assert_eq!(prober(&snapshot, &own), None);
    // Of one alone nobody can tell.
    let last = ObjectKey::new("ycloud-system", "chassis-n3");
    assert!(wanted_chassis_probe(&snapshot, &last).is_some());
    let named = snapshot.apply(Event::Delete(ObjectRef::Prober("n1".into())));
    assert!(named.contains(&Owner::NetworkProbe(last.clone())));
    assert_eq!(wanted_chassis_probe(&snapshot, &last), None);
}

/// A chassis that was cut off knows the way back to the ports that were there before, and to no other.
#[test]
fn what_is_on_a_dead_chassis_is_asked_from_one_that_has_a_port_in_the_vpc() {
    let mut snapshot = probed();
    tell(&mut snapshot, Object::Vpc(objects::vpc("v1", &[])));
    let subnet = objects::subnet("a", "v1", "10.0.1.0/24", 0);
    tell(&mut snapshot, Object::Subnet(subnet));
    for (of, by) in [("n1", "n3"), ("n2", "n1"), ("n3", "n1")] {
        let healthy = chassis_probe(&snapshot, of, by, "Healthy");
        tell(&mut snapshot, healthy);
    }
    let keys: Vec<ObjectKey> = (0..20)
        .map(|n| ObjectKey::new("ns", format!("p{n}")))
        .collect();
    for (n, key) in keys.iter().enumerate() {
        let ip = format!("10.0.1.{}", n + 5);
        let vnic = objects::vnic("ns", &key.name, "a", Some("n2"), Some(&ip));
        tell(&mut snapshot, Object::VNic(vnic));
        let probe = objects::probe("ns", &key.name, "v1", &ip);
        tell(&mut snapshot, Object::NetworkProbe(probe));
    }
    // What is on no chassis goes by the hash alone: else all of that would move with one target.
    let anywhere: Vec<ObjectKey> = (0..20)
        .map(|n| ObjectKey::new("ns", format!("a{n}")))
        .collect();
    for (n, key) in anywhere.iter().enumerate() {
        let probe = objects::probe("ns", &key.name, "v1", &format!("10.0.1.{}", n + 200));
        tell(&mut snapshot, Object::NetworkProbe(probe));
    }
    let everywhere = |snapshot: &Snapshot| -> BTreeSet<String> {
        let probers = anywhere.iter().filter_map(|key| prober(snapshot, key));
        probers.collect()
    };
    assert_eq!(everywhere(&snapshot).len(), 3, "though n2 has a port");
    let probers = |snapshot: &Snapshot| -> BTreeSet<String> {
        keys.iter()
            .filter_map(|key| prober(snapshot, key))
            .collect()
    };
    let set = |all: &[&str]| -> BTreeSet<String> { all.iter().map(|s| (*s).to_owned()).collect() };
    let silent = chassis_probe(&snapshot, "n2", "n1", "Unhealthy");
    tell(&mut snapshot, silent);
    assert_eq!(probers(&snapshot), set(&["n1", "n3"]), "none has a port");

    // One that has a target of its own gets all, and gives back what was others' when that target goes.
    let own = ObjectKey::new("ns", "own");
    let vnic = objects::vnic("ns", "own", "a", Some("n3"), Some("10.0.1.100"));
    tell(&mut snapshot, Object::VNic(vnic));
    let probe = Object::NetworkProbe(objects::probe("ns", "own", "v1", "10.0.1.100"));
    let before: Vec<_> = keys.iter().map(|key| prober(&snapshot, key)).collect();
    let named = tell(&mut snapshot, probe);
    assert_eq!(probers(&snapshot), set(&["n3"]));
    let moved = before
        .iter()
        .filter(|prober| prober.as_deref() == Some("n1"));
    assert_eq!(
        probes(&named).len(),
        moved.count() + 1,
        "only those that move"
    );
    assert_eq!(everywhere(&snapshot), set(&["n1", "n3"]));
    snapshot.apply(Event::Delete(ObjectRef::NetworkProbe(own)));
    let after: Vec<_> = keys.iter().map(|key| prober(&snapshot, key)).collect();
    assert_eq!(after, before);

    let healthy = chassis_probe(&snapshot, "n2", "n1", "Healthy");
    tell(&mut snapshot, healthy);
    assert_eq!(probers(&snapshot), set(&["n2"]));
}

#[test]
fn of_ten_thousand_probes_only_those_concerned_are_named() {
    const VPCS: usize = 50;
    let mut snapshot = probed();
    for vpc in 0..VPCS {
        let (name, subnet) = (format!("v{vpc}"), format!("s{vpc}"));
        tell(&mut snapshot, Object::Vpc(objects::vpc(&name, &[])));
        let subnet = objects::subnet(&subnet, &name, "10.0.0.0/16", 0);
        tell(&mut snapshot, Object::Subnet(subnet));
    }
    let begun = std::time::Instant::now();
    let mut made = Vec::new();
    for n in 0..10_000 {
        let (vpc, at) = (n % VPCS, n / VPCS);
        let ip = format!("10.0.{}.{}", at / 100 + 1, at % 100 + 1);
        // Two thirds have a VNic, on one of the nodes.
        if n % 3 < 2 {
            let vnic = objects::vnic(
                "ns",
                &format!("x{n}"),
                &format!("s{vpc}"),
                Some(NODES[n % 2]),
                Some(&ip),
            );
            tell(&mut snapshot, Object::VNic(vnic));
        }
        let probe = objects::probe("ns", &format!("p{n}"), &format!("v{vpc}"), &ip);
        let named = tell(&mut snapshot, Object::NetworkProbe(probe.clone()));
        assert_eq!(probes(&named).len(), 1);
        made.push(probe);
    }
    println!("10,000 probes told in {:?}", begun.elapsed());

    // What its prober reports concerns nobody else.
    let mut reported = ycloud_api::NetworkProbe::clone(&made[7]);
    reported.status.get_or_insert_default().last_error = Some("timeout".into());
    let named = tell(&mut snapshot, Object::NetworkProbe(Arc::new(reported)));
    let own = Owner::NetworkProbe(ObjectKey::new("ns", "p7"));
    assert_eq!(named, BTreeSet::from([own]));

    let by_prober = |snapshot: &Snapshot| {
        let mut all: BTreeMap<String, BTreeSet<ObjectKey>> = BTreeMap::new();
        for (key, _) in snapshot.probes() {
            let prober = prober(snapshot, key).expect("somebody asks");
            all.entry(prober).or_default().insert(key.clone());
        }
        all
    };
    let before = by_prober(&snapshot);
    let begun = std::time::Instant::now();
    let named = snapshot.apply(Event::Delete(ObjectRef::Prober("n2".into())));
    assert_eq!(probes(&named), before["n2"]);
    println!("one of three probers gone in {:?}", begun.elapsed());
    let without = by_prober(&snapshot);
    assert!(before["n1"].is_subset(&without["n1"]) && before["n3"].is_subset(&without["n3"]));
    let begun = std::time::Instant::now();
    let named = tell(&mut snapshot, Object::Prober(objects::prober("n2")));
    assert_eq!(probes(&named), before["n2"]);
    println!("and back in {:?}", begun.elapsed());
    assert_eq!(by_prober(&snapshot), before);
}
