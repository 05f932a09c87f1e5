//! Addresses: who gets which, and that none is ever given twice or lost, whenever the controller dies.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use support::objects::{self, from};
use ycloud_api::VNic;
use ycloud_api::address::Family;
use ycloud_api::condition::reason;
use ycloud_api::subnet::Addresses;
use ycloud_api::vnic::{VNicIpv6, VNicStatus};
use ycloud_compiler::{
    Allocated, Allocation, Event, Object, ObjectKey, ObjectRef, Owner, Rejection, Settings,
    Snapshot, allocate, node_vnic, pod_vnic, usage, users, wanted_vnic,
};

/// A Subnet: name, Vpc, IPv4 range, IPv6 range, excluded addresses.
type Sketch = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

/// Two Vpcs with the same ranges, smaller in the second one, where they are of two Subnets; and excluded runs.
const SUBNETS: &[Sketch] = &[
    (
        "red",
        "v1",
        "10.0.1.0/28",
        "fd00:1::/124",
        &["10.0.1.4-10.0.1.6", "fd00:1::4-fd00:1::6"],
    ),
    ("blue", "v2", "10.0.1.0/29", "", &[]),
    ("green", "v2", "", "fd00:1::8/125", &[]),
];
/// What `blue` gains.
const GAINED: &str = "fd00:1::/125";

/// What a Subnet gives out of a family: last bytes.
fn room(name: &str, family: Family, grown: bool) -> Vec<u8> {
    match (name, family) {
        ("red", Family::Ipv4) => vec![2, 3, 7, 8, 9, 10, 11, 12, 13, 14],
        ("red", Family::Ipv6) => vec![2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        ("blue", Family::Ipv4) => (2..7).collect(),
        ("blue", Family::Ipv6) if grown => (2..8).collect(),
        ("green", Family::Ipv6) => (10..16).collect(),
        _ => Vec::new(),
    }
}

fn last_byte(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

fn subnet((name, vpc, cidr, ipv6, excluded): Sketch) -> Object {
    let mut spec = serde_json::json!({"vpc": vpc, "excludeIPs": excluded});
    if !cidr.is_empty() {
        spec["cidr"] = cidr.into();
    }
    if !ipv6.is_empty() {
        spec["ipv6"] = serde_json::json!({"cidr": ipv6});
    }
    Object::Subnet(from(serde_json::json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Subnet", "metadata": {"name": name}, "spec": spec,
    })))
}

/// What the API server holds: all that a crash leaves.
#[derive(Debug, Clone, Default)]
struct Store {
    vnics: BTreeMap<ObjectKey, VNic>,
    /// Subnet `blue` has gained IPv6.
    grown: bool,
}

/// The addresses that a VNic holds.
fn held(vnic: &VNic) -> Vec<IpAddr> {
    let links = vnic.status.iter().flat_map(|status| status.links());
    links.filter_map(|link| link.ip.parse().ok()).collect()
}

fn of(vnic: &VNic, family: Family) -> Option<IpAddr> {
    held(vnic).into_iter().find(|ip| Family::of(*ip) == family)
}

impl Store {
    fn subnets(&self) -> impl Iterator<Item = Object> {
        let gained = self.grown;
        SUBNETS.iter().map(move |sketch| match sketch.0 {
            "blue" if gained => subnet((sketch.0, sketch.1, sketch.2, GAINED, sketch.4)),
            _ => subnet(*sketch),
        })
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(Settings::default());
        for vpc in ["v1", "v2"] {
            snapshot.apply(Event::Apply(Object::Vpc(objects::vpc(vpc, &[]))));
        }
        for subnet in self.subnets() {
            snapshot.apply(Event::Apply(subnet));
        }
        for vnic in self.vnics.values() {
            snapshot.apply(Event::Apply(Object::VNic(Arc::new(vnic.clone()))));
        }
        snapshot
    }

    /// No address twice in a Subnet, nor among the Pods of a node; none that is reserved.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut by_subnet = BTreeSet::new();
        let mut by_node = BTreeSet::new();
        for (key, vnic) in &self.vnics {
            for ip in held(vnic) {
                let subnet = &vnic.spec.subnet;
                prop_assert!(
                    by_subnet.insert((subnet.clone(), ip)),
                    "{} has {} twice",
                    key,
                    ip
                );
                if let Some(node) = &vnic.spec.attachment.chassis {
                    prop_assert!(
                        by_node.insert((node.clone(), ip)),
                        "{}: {} is twice on {}",
                        key,
                        ip,
                        node
                    );
                }
                let room = room(subnet, Family::of(ip), self.grown);
                prop_assert!(
                    room.contains(&last_byte(ip)),
                    "{} has the reserved {}",
                    key,
                    ip
                );
            }
        }
        Ok(())
    }
}

/// The IPv4 address of an allocation.
fn ipv4(allocation: Result<Allocation, Rejection>) -> IpAddr {
    let allocation = allocation.unwrap_or_else(|why| panic!("{why}"));
    allocation.of(Family::Ipv4).expect("an IPv4 address").ip
}

fn written(vnic: &VNic, allocation: &Allocation) -> VNic {
    let (ipv4, ipv6) = (allocation.of(Family::Ipv4), allocation.of(Family::Ipv6));
    VNic {
        status: Some(VNicStatus {
            ip: ipv4.map(|address| address.ip.to_string()),
            prefix_length: ipv4.map(|address| address.prefix_length.into()),
            gateway: ipv4.map(|address| address.gateway.to_string()),
            ipv6: ipv6.map(|address| VNicIpv6 {
                ip: address.ip.to_string(),
                prefix_length: address.prefix_length.into(),
                gateway: address.gateway.to_string(),
            }),
            mac: Some(allocation.mac.clone()),
            vpc: Some(allocation.vpc.clone()),
            ..VNicStatus::default()
        }),
        ..vnic.clone()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A VNic appears: subnet, node, fixed last byte of each family.
    Create(usize, Option<u8>, [Option<u8>; 2]),
    /// The controller decides on a VNic's addresses and, unless it dies in between, writes them.
    Allocate(Index, bool),
    Delete(Index),
    Crash,
    /// Subnet `blue` gains IPv6.
    Grow,
}

fn step() -> impl Strategy<Value = Step> {
    let fixed = || proptest::option::weighted(0.1, 0u8..16);
    prop_oneof![
        6 => (0usize..3, proptest::option::of(0u8..2), fixed(), fixed()).prop_map(|(s, n, a, b)| Step::Create(s, n, [a, b])),
        9 => (any::<Index>(), proptest::bool::weighted(0.8)).prop_map(|(i, survives)| Step::Allocate(i, survives)),
        3 => any::<Index>().prop_map(Step::Delete),
        2 => Just(Step::Crash),
        1 => Just(Step::Grow),
    ]
}

fn perform(
    store: &mut Store,
    snapshot: &mut Snapshot,
    count: &mut usize,
    step: Step,
) -> Result<(), TestCaseError> {
    let pick = |store: &Store, at: Index| {
        let mut keys = store.vnics.keys();
        keys.nth(at.index(store.vnics.len())).cloned()
    };
    match step {
        Step::Create(subnet, node, [ipv4, ipv6]) => {
            *count += 1;
            let name = format!("v{count}");
            let node = node.map(|n| format!("n{n}"));
            let mut vnic = objects::vnic("ns", &name, SUBNETS[subnet].0, node.as_deref(), None);
            let spec = &mut Arc::make_mut(&mut vnic).spec;
            spec.ip = ipv4.map(|last| format!("10.0.1.{last}"));
            spec.ipv6 = ipv6.map(|last| format!("fd00:1::{last:x}"));
            let key = ObjectKey::new("ns", name);
            store.vnics.insert(key, (*vnic).clone());
            snapshot.apply(Event::Apply(Object::VNic(vnic)));
        }
        Step::Allocate(at, survives) if !store.vnics.is_empty() => {
            let key = pick(store, at).expect("within");
            let vnic = store.vnics[&key].clone();
            let Ok(allocation) = allocate(snapshot, &vnic) else {
                return Ok(());
            };
            let lacked = snapshot.lacks_address(&vnic);
            let after = written(&vnic, &allocation);
            let before = held(&vnic);
            prop_assert!(before.iter().all(|ip| held(&after).contains(ip)));
            prop_assert_eq!(lacked, held(&after).len() > before.len());
            if vnic.spec.attachment.chassis.is_some() && !before.is_empty() {
                prop_assert!(!lacked, "a Pod keeps its families");
            }
            if survives {
                store.vnics.insert(key, after.clone());
                snapshot.apply(Event::Apply(Object::VNic(Arc::new(after))));
            } else {
                *snapshot = store.snapshot();
            }
        }
        Step::Delete(at) if !store.vnics.is_empty() => {
            let key = pick(store, at).expect("within");
            store.vnics.remove(&key);
            snapshot.apply(Event::Delete(ObjectRef::VNic(key)));
        }
        Step::Crash => *snapshot = store.snapshot(),
        Step::Grow => {
            let lacked = |snapshot: &Snapshot, vnic: &VNic| snapshot.lacks_address(vnic);
            let before: Vec<bool> = store.vnics.values().map(|v| lacked(snapshot, v)).collect();
            store.grown = true;
            let mut named = BTreeSet::new();
            for subnet in store.subnets() {
                named.extend(snapshot.apply(Event::Apply(subnet)));
            }
            for ((key, vnic), before) in store.vnics.iter().zip(before) {
                let newly = !before && lacked(snapshot, vnic);
                prop_assert!(!newly || named.contains(&Owner::VNic(key.clone())));
            }
        }
        Step::Allocate(..) | Step::Delete(_) => {}
    }
    Ok(())
}

fn counted(store: &Store, snapshot: &Snapshot) -> Result<(), TestCaseError> {
    for (name, ..) in SUBNETS {
        let here = || store.vnics.values().filter(|v| v.spec.subnet == *name);
        for family in Family::ALL {
            let room = room(name, family, store.grown).len() as i64;
            let counts = usage(snapshot, name, family);
            prop_assert_eq!(counts.is_some(), room > 0);
            let counts = counts.unwrap_or(Addresses::new(0, 0));
            let used = here().filter(|v| of(v, family).is_some()).count();
            prop_assert_eq!(counts.used, used as i64);
            prop_assert_eq!(counts.total, Some(room));
            prop_assert_eq!(counts.free, Some(room - counts.used));
        }
        let holders = here().filter(|v| !held(v).is_empty()).count();
        let subnet = Owner::Subnet((*name).into());
        prop_assert_eq!(users(snapshot, &subnet).len(), holders);
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
            counted(&store, &snapshot)?;
        }
        for key in store.vnics.keys() {
            snapshot.apply(Event::Delete(ObjectRef::VNic(key.clone())));
        }
        // Every address of an emptied Subnet can be had again, and not one more.
        for (name, ..) in SUBNETS {
            let mut filled = Store { grown: store.grown, ..Store::default() };
            let rooms = Family::ALL.map(|family| room(name, family, store.grown).len());
            let total = rooms.into_iter().filter(|room| *room > 0).min().unwrap_or_default();
            for n in 0..total {
                let vnic = objects::vnic("ns", &format!("filling-{n}"), name, None, None);
                let allocation = allocate(&snapshot, &vnic).map_err(|r| TestCaseError::fail(r.message))?;
                let vnic = written(&vnic, &allocation);
                let families = rooms.into_iter().filter(|room| *room > 0).count();
                prop_assert_eq!(held(&vnic).len(), families);
                filled.vnics.insert(ObjectKey::new("ns", format!("filling-{n}")), vnic.clone());
                snapshot.apply(Event::Apply(Object::VNic(Arc::new(vnic))));
            }
            filled.check()?;
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
    let texts = |address: &Allocated| {
        let (ip, gateway) = (address.ip.to_string(), address.gateway.to_string());
        (ip, address.prefix_length, gateway)
    };
    assert_eq!(
        next.addresses.iter().map(texts).collect::<Vec<_>>(),
        [
            ("10.0.1.3".to_owned(), 28, "10.0.1.1".to_owned()),
            ("fd00:1::2".to_owned(), 124, "fd00:1::1".to_owned()),
        ]
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
        Object::VNic(objects::vnic_ipv6(
            &objects::vnic("ns", "dual", "red", Some("n2"), Some("10.0.1.13")),
            "fd00:1::9",
        )),
    ]);
    let asked = |subnet: &str, ip: &str| {
        let mut vnic = objects::vnic("ns", "asker", subnet, Some("n1"), None);
        let spec = &mut Arc::make_mut(&mut vnic).spec;
        match ip.contains(':') {
            true => spec.ipv6 = Some(ip.to_owned()),
            false => spec.ip = Some(ip.to_owned()),
        }
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
            "gone",
            "10.0.1.2",
            reason::NOT_FOUND,
            "Subnet gone does not exist",
        ),
        (
            "red",
            "fd00:1::9",
            reason::ADDRESS_TAKEN,
            "held by VNic ns/dual in Subnet red",
        ),
        (
            "red",
            "fd00:1::",
            reason::ADDRESS_NOT_IN_SUBNET,
            "is the address of every router of",
        ),
        (
            "red",
            "fd00:1::1",
            reason::ADDRESS_NOT_IN_SUBNET,
            "is the gateway of",
        ),
        (
            "red",
            "fd00:1::5",
            reason::ADDRESS_NOT_IN_SUBNET,
            "excluded",
        ),
        (
            "green",
            "10.0.1.2",
            reason::ADDRESS_NOT_IN_SUBNET,
            "lies outside Subnet green (fd00:1::8/125), which has no IPv4",
        ),
        (
            "blue",
            "fd00:1::2",
            reason::ADDRESS_NOT_IN_SUBNET,
            "set spec.ipv6.cidr there",
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
    assert_eq!(ipv4(asked("red", "10.0.1.10")), Ipv4Addr::new(10, 0, 1, 10));
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
    assert_eq!(ipv4(allocate(&snapshot, &late)), Ipv4Addr::new(10, 0, 1, 4));
}

fn used(snapshot: &Snapshot) -> i64 {
    usage(snapshot, "red", Family::Ipv4).map_or(-1, |counts| counts.used)
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
    assert_eq!(used(&snapshot), 1);
    snapshot.apply(versioned("9", None));
    assert_eq!(used(&snapshot), 0);
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
        ipv4(allocate(&snapshot, &vnic)),
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
        ipv4(allocate(&snapshot, &vnic)),
        Ipv4Addr::new(10, 8, 234, 96)
    );
}

/// Whether a Pod of namespace `ns` that asks for this Subnet may have an address there, and why not.
fn admitted(snapshot: &Snapshot, subnet: &str) -> Result<(), String> {
    let pod = objects::pod("ns", "p", Some("n1"), &[("iaas.yusur.io/subnet", subnet)]);
    let facts = ycloud_compiler::PodFacts::of(&pod).expect("a name");
    let wanted = ycloud_compiler::pod_vnic(snapshot, &facts);
    wanted
        .map(drop)
        .map_err(|why| format!("{}: {}", why.reason, why.message))
}

#[test]
fn a_vpc_that_names_nobody_permits_whom_its_subnets_name_and_nobody_else() {
    let closed = |name: &str| Object::Vpc(ycloud_api::Vpc::new(name, Default::default()).into());
    let mut snapshot = Snapshot::new(Settings::default());
    for object in [
        closed("ovn-cluster"),
        closed("v1"),
        Object::Subnet(objects::subnet(
            "subnet0",
            "ovn-cluster",
            "100.64.0.0/16",
            0,
        )),
        Object::Subnet(objects::subnet(
            "ovn-default",
            "ovn-cluster",
            "10.16.0.0/16",
            0,
        )),
        Object::Subnet(objects::subnet("s", "v1", "10.0.1.0/24", 0)),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    assert_eq!(
        admitted(&snapshot, "ovn-default"),
        Ok(()),
        "it is everybody's"
    );
    let why = admitted(&snapshot, "subnet0").unwrap_err();
    assert!(
        why.contains("permits nobody else") && why.starts_with("NotPermitted"),
        "{why}"
    );
    let why = admitted(&snapshot, "s").unwrap_err();
    assert!(why.contains("does not permit namespace ns"), "{why}");
    // Whom one of its Subnets names may use all of them.
    let other = objects::subnet("t", "v1", "10.0.2.0/24", 0);
    snapshot.apply(Event::Apply(Object::Subnet(objects::subnet_of(
        &other,
        &["ns"],
    ))));
    assert_eq!(admitted(&snapshot, "s"), Ok(()));
    snapshot.apply(Event::Apply(Object::Subnet(objects::subnet_of(
        &other,
        &["else"],
    ))));
    assert!(admitted(&snapshot, "s").is_err());
}
