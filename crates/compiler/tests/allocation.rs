//! Addresses: who gets which, and that none is ever given twice or lost, whenever the controller dies.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use support::objects::{self, from};
use ycloud_api::VNic;
use ycloud_api::condition::reason;
use ycloud_api::vnic::VNicStatus;
use ycloud_compiler::{
    Allocation, Event, Object, ObjectKey, ObjectRef, Owner, Settings, Snapshot, allocate,
    node_vnic, pod_vnic, usage, users, wanted_vnic,
};

/// Two Vpcs with the same range, the second one smaller, and one excluded run.
const SUBNETS: &[(&str, &str, &str, &[&str])] = &[
    ("red", "v1", "10.0.1.0/28", &["10.0.1.4-10.0.1.6"]),
    ("blue", "v2", "10.0.1.0/29", &[]),
];

fn subnet(name: &str, vpc: &str, cidr: &str, excluded: &[&str]) -> Object {
    let subnet = serde_json::json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Subnet", "metadata": {"name": name},
        "spec": {"vpc": vpc, "cidr": cidr, "excludeIPs": excluded},
    });
    Object::Subnet(from(subnet))
}

/// What the API server holds: all that a crash leaves.
#[derive(Debug, Clone, Default)]
struct Store(BTreeMap<ObjectKey, VNic>);

impl Store {
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(Settings::default());
        for vpc in ["v1", "v2"] {
            snapshot.apply(Event::Apply(Object::Vpc(objects::vpc(vpc, &[]))));
        }
        for (name, vpc, cidr, excluded) in SUBNETS {
            snapshot.apply(Event::Apply(subnet(name, vpc, cidr, excluded)));
        }
        for vnic in self.0.values() {
            snapshot.apply(Event::Apply(Object::VNic(Arc::new(vnic.clone()))));
        }
        snapshot
    }

    /// No address twice in a Subnet, nor among the Pods of a node; none that is reserved.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut by_subnet = BTreeSet::new();
        let mut by_node = BTreeSet::new();
        for (key, vnic) in &self.0 {
            let Some(ip) = vnic.status.as_ref().and_then(|status| status.ip.clone()) else {
                continue;
            };
            prop_assert!(
                by_subnet.insert((vnic.spec.subnet.clone(), ip.clone())),
                "{} has {} twice",
                key,
                ip
            );
            if let Some(node) = &vnic.spec.attachment.chassis {
                prop_assert!(
                    by_node.insert((node.clone(), ip.clone())),
                    "{}: {} is twice on {}",
                    key,
                    ip,
                    node
                );
            }
            let last: u8 = ip
                .rsplit('.')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or_default();
            let reserved: &[u8] = if vnic.spec.subnet == "red" {
                &[0, 1, 4, 5, 6, 15]
            } else {
                &[0, 1, 7]
            };
            prop_assert!(!reserved.contains(&last), "{} has the reserved {}", key, ip);
        }
        Ok(())
    }
}

fn written(vnic: &VNic, allocation: &Allocation) -> VNic {
    VNic {
        status: Some(VNicStatus {
            ip: Some(allocation.ip.to_string()),
            prefix_length: Some(allocation.prefix_length.into()),
            gateway: Some(allocation.gateway.to_string()),
            mac: Some(allocation.mac.clone()),
            vpc: Some(allocation.vpc.clone()),
            ..VNicStatus::default()
        }),
        ..vnic.clone()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A VNic appears: subnet, node, fixed last byte.
    Create(usize, Option<u8>, Option<u8>),
    /// The controller decides on a VNic's address and, unless it dies in between, writes it.
    Allocate(Index, bool),
    Delete(Index),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2, proptest::option::of(0u8..2), proptest::option::weighted(0.2, 0u8..16)).prop_map(|(s, n, f)| Step::Create(s, n, f)),
        6 => (any::<Index>(), proptest::bool::weighted(0.8)).prop_map(|(i, survives)| Step::Allocate(i, survives)),
        2 => any::<Index>().prop_map(Step::Delete),
        1 => Just(Step::Crash),
    ]
}

fn perform(
    store: &mut Store,
    snapshot: &mut Snapshot,
    count: &mut usize,
    step: Step,
) -> Result<(), TestCaseError> {
    match step {
        Step::Create(subnet, node, fixed) => {
            *count += 1;
            let name = format!("v{count}");
            let node = node.map(|n| format!("n{n}"));
            let mut vnic = objects::vnic("ns", &name, SUBNETS[subnet].0, node.as_deref(), None);
            Arc::make_mut(&mut vnic).spec.ip = fixed.map(|last| format!("10.0.1.{last}"));
            store.0.insert(ObjectKey::new("ns", name), (*vnic).clone());
            snapshot.apply(Event::Apply(Object::VNic(vnic)));
        }
        Step::Allocate(at, survives) if !store.0.is_empty() => {
            let key = store
                .0
                .keys()
                .nth(at.index(store.0.len()))
                .cloned()
                .expect("within");
            let vnic = store.0[&key].clone();
            let Ok(allocation) = allocate(snapshot, &vnic) else {
                return Ok(());
            };
            if let Some(had) = vnic.status.as_ref().and_then(|status| status.ip.as_ref()) {
                prop_assert_eq!(had, &allocation.ip.to_string());
            }
            let vnic = written(&vnic, &allocation);
            if survives {
                store.0.insert(key, vnic.clone());
                snapshot.apply(Event::Apply(Object::VNic(Arc::new(vnic))));
            } else {
                *snapshot = store.snapshot();
            }
        }
        Step::Delete(at) if !store.0.is_empty() => {
            let key = store
                .0
                .keys()
                .nth(at.index(store.0.len()))
                .cloned()
                .expect("within");
            store.0.remove(&key);
            snapshot.apply(Event::Delete(ObjectRef::VNic(key)));
        }
        Step::Crash => *snapshot = store.snapshot(),
        Step::Allocate(..) | Step::Delete(_) => {}
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_address_is_given_twice_or_lost(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut store, mut count) = (Store::default(), 0);
        let mut snapshot = store.snapshot();
        for step in steps {
            perform(&mut store, &mut snapshot, &mut count, step)?;
            store.check()?;
            for (name, ..) in SUBNETS {
                let held = |v: &&VNic| v.spec.subnet == *name && v.status.as_ref().is_some_and(|s| s.ip.is_some());
                let counts = usage(&snapshot, name);
                prop_assert_eq!(counts.used, store.0.values().filter(held).count() as i64);
                prop_assert_eq!(counts.total, if *name == "red" { 10 } else { 5 });
                prop_assert_eq!(counts.total, counts.used + counts.free);
                prop_assert_eq!(users(&snapshot, &Owner::Subnet((*name).into())).len() as i64, counts.used);
            }
        }
        for key in store.0.keys() {
            snapshot.apply(Event::Delete(ObjectRef::VNic(key.clone())));
        }
        // Every address of an emptied Subnet can be had again, and not one more.
        for (at, (name, ..)) in SUBNETS.iter().enumerate() {
            let mut store = Store::default();
            let total = usage(&snapshot, name).total;
            for _ in 0..total {
                perform(&mut store, &mut snapshot, &mut count, Step::Create(at, None, None))?;
                let vnic = store.0.values().last().cloned().expect("just made");
                let vnic = store.0.values().find(|v| v.status.as_ref().is_none_or(|s| s.ip.is_none())).cloned().unwrap_or(vnic);
                let allocation = allocate(&snapshot, &vnic).map_err(|r| TestCaseError::fail(r.message))?;
                let key = ObjectKey::new("ns", vnic.metadata.name.clone().unwrap_or_default());
                let vnic = written(&vnic, &allocation);
                store.0.insert(key, vnic.clone());
                snapshot.apply(Event::Apply(Object::VNic(Arc::new(vnic))));
            }
            store.check()?;
            let one_more = objects::vnic("ns", "one-more", name, None, None);
            prop_assert_eq!(allocate(&snapshot, &one_more).unwrap_err().reason, reason::EXHAUSTED);
        }
    }
}

fn cluster(events: Vec<Object>) -> Snapshot {
    let mut snapshot = Store::default().snapshot();
    for object in events {
        snapshot.apply(Event::Apply(object));
    }
    snapshot
}

#[test]
fn an_address_just_freed_rests() {
    let mut snapshot = cluster(vec![Object::VNic(objects::vnic(
        "ns",
        "a",
        "red",
        None,
        Some("10.0.1.2"),
    ))]);
    snapshot.apply(Event::Delete(ObjectRef::VNic(ObjectKey::new("ns", "a"))));
    let next = allocate(&snapshot, &objects::vnic("ns", "b", "red", None, None)).unwrap();
    assert_eq!(next.ip, Ipv4Addr::new(10, 0, 1, 3));
    assert_eq!(
        (next.gateway, next.prefix_length),
        (Ipv4Addr::new(10, 0, 1, 1), 28)
    );
}

#[test]
fn exhaustion_names_subnet_range_and_size() {
    let held = |n: u8| {
        Object::VNic(objects::vnic(
            "ns",
            &format!("v{n}"),
            "blue",
            None,
            Some(&format!("10.0.1.{n}")),
        ))
    };
    let snapshot = cluster((2..7).map(held).collect());
    let rejection =
        allocate(&snapshot, &objects::vnic("ns", "late", "blue", None, None)).unwrap_err();
    assert_eq!(rejection.reason, reason::EXHAUSTED);
    assert!(
        rejection
            .message
            .contains("Subnet blue (10.0.1.0/29) has no free address: all 5"),
        "{}",
        rejection.message
    );
}

#[test]
fn a_fixed_address_is_refused_with_a_reason() {
    let snapshot = cluster(vec![
        Object::VNic(objects::vnic(
            "ns",
            "holder",
            "red",
            Some("n1"),
            Some("10.0.1.9"),
        )),
        Object::VNic(objects::vnic(
            "ns",
            "elsewhere",
            "red",
            Some("n1"),
            Some("10.0.1.3"),
        )),
    ]);
    let asked = |subnet: &str, ip: &str| {
        let mut vnic = objects::vnic("ns", "asker", subnet, Some("n1"), None);
        Arc::make_mut(&mut vnic).spec.ip = Some(ip.to_owned());
        allocate(&snapshot, &vnic)
    };
    for (subnet, ip, why, words) in [
        (
            "red",
            "10.0.1.9",
            reason::ADDRESS_TAKEN,
            "held by VNic ns/holder in Subnet red",
        ),
        (
            "blue",
            "10.0.1.3",
            reason::ADDRESS_TAKEN,
            "of another Vpc on node n1",
        ),
        (
            "red",
            "10.0.2.9",
            reason::ADDRESS_NOT_IN_SUBNET,
            "lies outside Subnet red (10.0.1.0/28)",
        ),
        (
            "red",
            "10.0.1.1",
            reason::ADDRESS_NOT_IN_SUBNET,
            "is the gateway of",
        ),
        (
            "red",
            "10.0.1.15",
            reason::ADDRESS_NOT_IN_SUBNET,
            "network or broadcast",
        ),
        ("red", "10.0.1.5", reason::ADDRESS_NOT_IN_SUBNET, "excluded"),
        ("red", "ten", reason::INVALID, "is no IPv4 address"),
        (
            "green",
            "10.0.1.2",
            reason::NOT_FOUND,
            "Subnet green does not exist",
        ),
    ] {
        let rejection = asked(subnet, ip).unwrap_err();
        assert_eq!(rejection.reason, why, "{}", rejection.message);
        assert!(
            rejection.message.contains(words) && rejection.message.contains("ns/asker"),
            "{}",
            rejection.message
        );
    }
    assert_eq!(
        asked("red", "10.0.1.10").unwrap().ip,
        Ipv4Addr::new(10, 0, 1, 10)
    );
}

#[test]
fn a_pod_gets_a_vnic_where_its_annotation_or_namespace_says() {
    let claiming = serde_json::json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Subnet", "metadata": {"name": "green", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"vpc": "v1", "cidr": "10.0.9.0/24", "namespaces": ["team"]},
    });
    let mut snapshot = cluster(vec![
        Object::Subnet(from(claiming)),
        Object::Vpc(objects::vpc("v2", &["other"])),
    ]);
    let mut place = |namespace: &str, node: Option<&str>, annotations: &[(&str, &str)]| {
        let pod = objects::pod(namespace, "p", node, annotations);
        let named = snapshot.apply(Event::Apply(Object::Pod(pod)));
        let facts = snapshot
            .pod(&ObjectKey::new(namespace, "p"))
            .cloned()
            .expect("the Pod");
        let vnic = pod_vnic(&snapshot, &facts);
        if facts.wants_vnic() {
            assert_eq!(wanted_vnic(&snapshot, &facts.vnic_key()), vnic);
            assert!(named.contains(&Owner::VNic(facts.vnic_key())), "{named:?}");
        }
        vnic.map(|vnic| {
            vnic.map(|vnic| (vnic.spec.subnet, vnic.spec.ip, vnic.spec.attachment.chassis))
        })
    };
    let on = |subnet: &str, ip: Option<&str>| {
        Ok(Some((
            subnet.to_owned(),
            ip.map(str::to_owned),
            Some("n1".to_owned()),
        )))
    };
    assert_eq!(place("team", None, &[]), Ok(None));
    assert_eq!(place("team", Some("n1"), &[]), on("green", None));
    let annotations = [
        ("iaas.yusur.io/subnet", "red"),
        ("iaas.yusur.io/ip", "10.0.1.9"),
    ];
    assert_eq!(
        place("team", Some("n1"), &annotations),
        on("red", Some("10.0.1.9"))
    );
    let reason_of = |result: Result<_, ycloud_compiler::Rejection>| result.unwrap_err().reason;
    assert_eq!(
        reason_of(place(
            "team",
            Some("n1"),
            &[("iaas.yusur.io/subnet", "gone")]
        )),
        reason::NOT_FOUND
    );
    assert_eq!(
        reason_of(place(
            "team",
            Some("n1"),
            &[("iaas.yusur.io/subnet", "blue")]
        )),
        reason::NOT_PERMITTED
    );
    assert_eq!(
        reason_of(place("team", Some("n1"), &[("iaas.yusur.io/ip", "x")])),
        reason::INVALID
    );
    // There is no default Subnet in this cluster.
    assert_eq!(
        reason_of(place("stray", Some("n1"), &[])),
        reason::NOT_FOUND
    );
}

#[test]
fn a_subnet_that_appears_wakes_the_pods_that_wait_for_it() {
    let mut snapshot = cluster(vec![Object::Pod(objects::pod(
        "ns",
        "p",
        Some("n1"),
        &[("iaas.yusur.io/subnet", "later")],
    ))]);
    let vnic = snapshot
        .pod(&ObjectKey::new("ns", "p"))
        .expect("the Pod")
        .vnic_key();
    assert!(wanted_vnic(&snapshot, &vnic).is_err());
    let named = snapshot.apply(Event::Apply(Object::Subnet(objects::subnet(
        "later",
        "v1",
        "10.0.7.0/24",
        0,
    ))));
    assert!(named.contains(&Owner::VNic(vnic.clone())), "{named:?}");
    assert!(wanted_vnic(&snapshot, &vnic).unwrap().is_some());
    let named = snapshot.apply(Event::Delete(ObjectRef::Pod(ObjectKey::new("ns", "p"))));
    assert!(named.contains(&Owner::VNic(vnic.clone())));
    assert_eq!(wanted_vnic(&snapshot, &vnic), Ok(None));
}

#[test]
fn an_address_that_comes_free_wakes_who_waits_for_one() {
    let held = |n: u8| {
        Object::VNic(objects::vnic(
            "ns",
            &format!("v{n}"),
            "blue",
            None,
            Some(&format!("10.0.1.{n}")),
        ))
    };
    let mut snapshot = cluster((2..7).map(held).collect());
    snapshot.apply(Event::Apply(Object::VNic(objects::vnic(
        "ns", "late", "blue", None, None,
    ))));
    let named = snapshot.apply(Event::Delete(ObjectRef::VNic(ObjectKey::new("ns", "v4"))));
    assert!(
        named.contains(&Owner::VNic(ObjectKey::new("ns", "late"))),
        "{named:?}"
    );
    let late = snapshot
        .vnic(&ObjectKey::new("ns", "late"))
        .cloned()
        .expect("the VNic");
    assert_eq!(
        allocate(&snapshot, &late).unwrap().ip,
        Ipv4Addr::new(10, 0, 1, 4)
    );
}

#[test]
fn an_echo_from_before_an_allocation_does_not_take_the_address_back() {
    let versioned = |version: &str, ip: Option<&str>| {
        let mut vnic = objects::vnic("ns", "a", "red", None, ip);
        let meta = &mut Arc::make_mut(&mut vnic).metadata;
        meta.resource_version = Some(version.to_owned());
        meta.uid = Some("u".to_owned());
        Event::Apply(Object::VNic(vnic))
    };
    let mut snapshot = cluster(Vec::new());
    snapshot.apply(versioned("7", None));
    snapshot.apply(versioned("7", Some("10.0.1.2")));
    snapshot.apply(versioned("6", None));
    snapshot.apply(versioned("7", None));
    assert_eq!(usage(&snapshot, "red").used, 1);
    snapshot.apply(versioned("9", None));
    assert_eq!(usage(&snapshot, "red").used, 0);
}

#[test]
fn a_node_gets_a_vnic_on_the_join_switch() {
    let mut snapshot = cluster(vec![
        Object::Vpc(objects::vpc("ovn-cluster", &["nobody"])),
        Object::Subnet(objects::subnet(
            "subnet0",
            "ovn-cluster",
            "100.64.0.0/16",
            0,
        )),
    ]);
    let named = snapshot.apply(Event::Apply(Object::Node(objects::node(
        "n1",
        "172.31.0.1",
    ))));
    let key = ObjectKey::new("ycloud-system", "n1");
    assert!(named.contains(&Owner::VNic(key.clone())));
    let vnic = node_vnic(&snapshot, "n1").expect("a VNic");
    assert_eq!(wanted_vnic(&snapshot, &key), Ok(Some(vnic.clone())));
    assert_eq!(
        allocate(&snapshot, &vnic).unwrap().ip,
        Ipv4Addr::new(100, 64, 0, 2)
    );
    // The next hop of the default route is nobody's address.
    let mut asking = vnic;
    asking.spec.ip = Some("100.64.255.254".to_owned());
    assert_eq!(
        allocate(&snapshot, &asking).unwrap_err().reason,
        reason::ADDRESS_NOT_IN_SUBNET
    );
}

#[test]
fn a_large_subnet_that_is_nearly_full_has_its_last_addresses() {
    let mut snapshot = cluster(vec![Object::Subnet(objects::subnet(
        "wide",
        "v1",
        "10.8.0.0/16",
        0,
    ))]);
    for n in 2..60_000u32 {
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 8, 0, 0)) + n).to_string();
        snapshot.apply(Event::Apply(Object::VNic(objects::vnic(
            "ns",
            &format!("v{n}"),
            "wide",
            None,
            Some(&ip),
        ))));
    }
    let vnic = objects::vnic("ns", "next", "wide", None, None);
    assert_eq!(
        allocate(&snapshot, &vnic).unwrap().ip,
        Ipv4Addr::new(10, 8, 234, 96)
    );
}
