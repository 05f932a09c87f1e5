//! Edits of Subnets: what is in use stays as it is.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use support::objects;
use ycloud_api::condition::reason;
use ycloud_api::{EipGateway, EipGatewayStatus, Subnet, SubnetStatus, VNic};
use ycloud_compiler::{
    Event, Object, ObjectKey, ObjectRef, Owner, Rejection, Settings, Snapshot, allocate, compile,
    hindrance,
};

fn cluster(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    for object in objects {
        apply(&mut snapshot, object);
    }
    snapshot
}

fn apply(snapshot: &mut Snapshot, object: Object) -> BTreeSet<Owner> {
    snapshot.apply(Event::Apply(object))
}

fn vpc(name: &str) -> Object {
    Object::Vpc(objects::vpc(name, &[]))
}

fn subnet(name: &str, vpc: &str, cidr: &str, created: u32) -> Object {
    Object::Subnet(objects::subnet(name, vpc, cidr, created))
}

fn with_gateway(name: &str, vpc: &str, cidr: &str, gateway: &str) -> Object {
    let mut subnet = Subnet::clone(&objects::subnet(name, vpc, cidr, 0));
    subnet.spec.gateway = Some(gateway.to_owned());
    Object::Subnet(Arc::new(subnet))
}

/// A VNic of that Subnet with an address, set up as the Subnet then said.
fn user(subnet: &str, name: &str, ip: &str, set_up: (u8, &str)) -> Object {
    let vnic: Arc<VNic> = objects::vnic("ns", name, subnet, Some("n1"), Some(ip));
    Object::VNic(objects::vnic_set_up(&vnic, set_up))
}

fn owner(subnet: &str) -> Owner {
    Owner::Subnet(subnet.to_owned())
}

/// Why a Subnet is refused, and the network that stays in force all the same.
fn refusal(snapshot: &Snapshot, subnet: &str) -> (Rejection, Option<String>) {
    let stays = snapshot.network(subnet).map(ToString::to_string);
    match compile(snapshot, &owner(subnet)) {
        Ok(_) => {
            let why = hindrance(snapshot, &owner(subnet));
            (why.expect("the Subnet is accepted"), stays)
        }
        Err(why) => (why, stays),
    }
}

fn accepted(snapshot: &Snapshot, subnet: &str) -> bool {
    let compiled = compile(snapshot, &owner(subnet));
    compiled.is_ok_and(|rows| !rows.is_empty()) && hindrance(snapshot, &owner(subnet)).is_none()
}

#[test]
fn who_grows_into_a_range_in_use_is_refused_and_not_who_is_there() {
    let mut snapshot = cluster([
        vpc("v1"),
        subnet("old", "v1", "10.0.0.0/24", 0),
        subnet("young", "v1", "10.0.1.0/24", 1),
        user("old", "a", "10.0.0.2", (24, "10.0.0.1")),
        user("young", "b", "10.0.1.2", (24, "10.0.1.1")),
    ]);
    apply(&mut snapshot, subnet("old", "v1", "10.0.0.0/16", 0));
    let (why, stays) = refusal(&snapshot, "old");
    assert_eq!(
        (why.reason, stays.as_deref()),
        (reason::OVERLAPS, Some("10.0.0.0/24")),
        "{}",
        why.message
    );
    for word in ["spec.cidr 10.0.0.0/16", "10.0.1.0/24", "Subnet young"] {
        assert!(why.message.contains(word), "{}", why.message);
    }
    assert!(accepted(&snapshot, "young"), "it was there before");

    // Once the last user is gone, the older one wins, and both are named.
    let named = snapshot.apply(Event::Delete(ObjectRef::VNic(ObjectKey::new("ns", "b"))));
    assert!(accepted(&snapshot, "old"));
    assert_eq!(refusal(&snapshot, "young").1, None);
    assert!(named.contains(&owner("old")) && named.contains(&owner("young")));
}

#[test]
fn the_range_by_which_a_holder_is_set_up_stays_its_own_when_the_subnet_shrinks() {
    // Whoever has a /23 on its link would look there for a neighbour that is in another Subnet.
    let mut snapshot = cluster([
        vpc("v1"),
        subnet("wide", "v1", "10.0.0.0/24", 0),
        user("wide", "a", "10.0.0.2", (23, "10.0.0.1")),
        subnet("next", "v1", "10.0.1.0/24", 1),
    ]);
    assert!(accepted(&snapshot, "wide"));
    assert_eq!(refusal(&snapshot, "next").0.reason, reason::OVERLAPS);
    let named = snapshot.apply(Event::Delete(ObjectRef::VNic(ObjectKey::new("ns", "a"))));
    assert!(accepted(&snapshot, "next") && named.contains(&owner("next")));
}

#[test]
fn a_new_subnet_of_the_default_vpc_does_not_take_a_tenants_range_in_use() {
    let snapshot = cluster([
        vpc("ovn-cluster"),
        vpc("v1"),
        subnet("more", "ovn-cluster", "10.0.0.0/16", 0),
        subnet("tenant", "v1", "10.0.1.0/24", 1),
        user("tenant", "a", "10.0.1.2", (24, "10.0.1.1")),
    ]);
    assert!(accepted(&snapshot, "tenant"));
    let (why, _) = refusal(&snapshot, "more");
    assert!(why.message.contains("Subnet tenant"), "{}", why.message);
}

#[test]
fn the_gateway_stays_while_holders_use_it() {
    let mut snapshot = cluster([
        vpc("v1"),
        subnet("s", "v1", "10.0.1.0/24", 0),
        user("s", "a", "10.0.1.9", (24, "10.0.1.1")),
    ]);
    assert!(accepted(&snapshot, "s"));
    let edits = [
        with_gateway("s", "v1", "10.0.1.0/24", "10.0.1.254"),
        // The first address of the wider range would be another gateway.
        subnet("s", "v1", "10.0.0.0/23", 0),
    ];
    for edit in edits {
        apply(&mut snapshot, edit);
        let (why, stays) = refusal(&snapshot, "s");
        assert_eq!(
            (why.reason, stays.as_deref()),
            (reason::IN_USE, Some("10.0.1.0/24"))
        );
        assert!(
            why.message.contains("set spec.gateway to 10.0.1.1"),
            "{}",
            why.message
        );
    }
    // The cure.
    let cured = with_gateway("s", "v1", "10.0.0.0/23", "10.0.1.1");
    apply(&mut snapshot, cured);
    assert!(accepted(&snapshot, "s"));
    // Without holders it may change.
    let other = with_gateway("s", "v1", "10.0.0.0/23", "10.0.0.1");
    apply(&mut snapshot, other);
    assert!(!accepted(&snapshot, "s"));
    let named = snapshot.apply(Event::Delete(ObjectRef::VNic(ObjectKey::new("ns", "a"))));
    assert!(accepted(&snapshot, "s") && named.contains(&owner("s")));
}

#[test]
fn a_pod_that_waits_for_a_refused_subnet_is_named_when_its_last_wrong_holder_goes() {
    let waiting = objects::pod("ns", "p", Some("n1"), &[("iaas.yusur.io/subnet", "s")]);
    let mut snapshot = cluster([
        vpc("v1"),
        subnet("s", "v1", "10.0.1.0/28", 0),
        user("s", "a", "10.0.1.200", (24, "10.0.1.1")),
        Object::Pod(waiting),
    ]);
    let vnic = snapshot
        .owners()
        .into_iter()
        .find(|owner| matches!(owner, Owner::VNic(key) if key.name.starts_with("p-")))
        .expect("the Pod needs a VNic");
    assert_eq!(refusal(&snapshot, "s").0.reason, reason::IN_USE);
    let named = snapshot.apply(Event::Delete(ObjectRef::VNic(ObjectKey::new("ns", "a"))));
    assert!(accepted(&snapshot, "s"));
    assert!(named.contains(&vnic), "{named:?}");
}

/// A VNic of that Subnet with addresses of both families.
fn dual_user(subnet: &str, name: &str, ip: &str, ipv6: &str) -> Object {
    let vnic = objects::vnic("ns", name, subnet, Some("n1"), Some(ip));
    let vnic = objects::vnic_set_up(&vnic, (24, "10.0.1.1"));
    Object::VNic(objects::vnic_ipv6(&vnic, ipv6))
}

fn dual(name: &str, vpc: &str, cidr: &str, ipv6: &str, created: u32) -> Object {
    let subnet = objects::subnet(name, vpc, cidr, created);
    Object::Subnet(objects::subnet_ipv6(&subnet, ipv6))
}

#[test]
fn a_family_in_use_is_not_taken_away() {
    let mut snapshot = cluster([
        vpc("v1"),
        dual("s", "v1", "10.0.1.0/24", "fd00:1::/64", 0),
        dual_user("s", "a", "10.0.1.9", "fd00:1::9"),
    ]);
    assert!(accepted(&snapshot, "s"));
    let edits = [
        (
            subnet("s", "v1", "10.0.1.0/24", 0),
            "spec.ipv6.cidr is not set, and VNic ns/a holds fd00:1::9",
        ),
        (
            dual("s", "v1", "", "fd00:1::/64", 0),
            "spec.cidr is not set, and VNic ns/a holds 10.0.1.9",
        ),
        (
            dual("s", "v1", "10.0.1.0/24", "fd00:1::/126", 0),
            "spec.ipv6.cidr fd00:1::/126 leaves out fd00:1::9",
        ),
    ];
    for (edit, words) in edits {
        apply(&mut snapshot, edit);
        let (why, stays) = refusal(&snapshot, "s");
        assert_eq!(
            (why.reason, stays.as_deref()),
            (reason::IN_USE, Some("10.0.1.0/24, fd00:1::/64"))
        );
        assert!(why.message.contains(words), "{}", why.message);
    }
    let named = snapshot.apply(Event::Delete(ObjectRef::VNic(ObjectKey::new("ns", "a"))));
    assert!(accepted(&snapshot, "s") && named.contains(&owner("s")));
}

#[test]
fn ranges_of_either_family_are_kept_apart() {
    let snapshot = cluster([
        vpc("ovn-cluster"),
        vpc("v1"),
        vpc("v2"),
        dual("default", "ovn-cluster", "10.16.0.0/24", "fd00:16::/64", 0),
        dual("old", "v1", "10.0.1.0/24", "fd00:1::/64", 0),
        dual("young", "v1", "10.0.2.0/24", "fd00:1::/112", 1),
        dual("elsewhere", "v2", "10.0.2.0/24", "fd00:1::/112", 1),
        dual("routed", "v2", "", "fd00:16::/112", 1),
    ]);
    assert!(accepted(&snapshot, "old") && accepted(&snapshot, "elsewhere"));
    for (name, words) in [
        ("young", "spec.ipv6.cidr fd00:1::/112 overlaps Subnet old"),
        ("routed", "of the default Vpc, which the nodes route"),
    ] {
        let (why, _) = refusal(&snapshot, name);
        assert_eq!(why.reason, reason::OVERLAPS);
        assert!(why.message.contains(words), "{}", why.message);
    }
}

/// The Subnet with what its status says of the network in force.
fn in_force(subnet: &Object, cidr: &str, gateway: &str) -> Object {
    let Object::Subnet(subnet) = subnet else {
        panic!("a Subnet")
    };
    let mut subnet = Subnet::clone(subnet);
    subnet.status = Some(SubnetStatus {
        cidr: Some(cidr.to_owned()),
        gateway: Some(gateway.to_owned()),
        ..SubnetStatus::default()
    });
    Object::Subnet(Arc::new(subnet))
}

fn prober(snapshot: &Snapshot, probe: &str) -> bool {
    let key = ObjectKey::new("ns", probe);
    matches!(snapshot.assignment(&key), Some(Ok(_)))
}

#[test]
fn a_refused_edit_changes_nothing_for_anybody() {
    let mut snapshot = cluster([
        vpc("ovn-cluster"),
        subnet("subnet0", "ovn-cluster", "100.64.0.0/16", 0),
        vpc("v1"),
        Object::Node(objects::node("n1", "172.31.0.1")),
        Object::VNic(objects::node_vnic("n1", "100.64.0.2")),
        Object::Prober(objects::prober("n1")),
        in_force(
            &subnet("s", "v1", "10.0.1.0/24", 0),
            "10.0.1.0/24",
            "10.0.1.1",
        ),
        in_force(
            &subnet("next", "v1", "10.0.2.0/24", 1),
            "10.0.2.0/24",
            "10.0.2.1",
        ),
        user("s", "a", "10.0.1.9", (24, "10.0.1.1")),
        Object::NetworkProbe(objects::probe("ns", "p", "v1", "10.0.1.9")),
        Object::NetworkProbe(objects::probe("ns", "bare", "v1", "10.0.1.77")),
    ]);
    let rows = |snapshot: &Snapshot| {
        let owners = snapshot.owners().into_iter();
        owners
            .map(|owner| (compile(snapshot, &owner), owner))
            .collect::<Vec<_>>()
    };
    let before = rows(&snapshot);
    assert!(prober(&snapshot, "p") && prober(&snapshot, "bare"));
    let edits = [
        (subnet("s", "v1", "10.99.0.0/24", 0), reason::IN_USE),
        (subnet("s", "v1", "10.0.0.0/16", 0), reason::OVERLAPS),
        (subnet("s", "v1", "nonsense", 0), reason::INVALID),
        (
            with_gateway("s", "v1", "10.0.1.0/24", "10.0.1.9"),
            reason::IN_USE,
        ),
    ];
    for (edit, reason) in edits {
        apply(&mut snapshot, in_force(&edit, "10.0.1.0/24", "10.0.1.1"));
        let (why, stays) = refusal(&snapshot, "s");
        assert_eq!(why.reason, reason, "{}", why.message);
        assert!(why.message.ends_with("; until then it stays 10.0.1.0/24"));
        assert_eq!(stays.as_deref(), Some("10.0.1.0/24"));
        assert_eq!(rows(&snapshot), before);
        assert!(accepted(&snapshot, "next"));
        assert!(prober(&snapshot, "p") && prober(&snapshot, "bare"));
        // Who comes now is served as before.
        let new = objects::vnic("ns", "new", "s", None, None);
        let given = allocate(&snapshot, &new).expect("an address");
        let ips: Vec<String> = given.addresses.iter().map(|a| a.ip.to_string()).collect();
        assert_eq!(ips, ["10.0.1.10"]);
    }
}

#[test]
fn a_range_in_force_is_not_taken_by_an_older_subnet_that_is_edited() {
    // Nobody has an address of either.
    let old = subnet("old", "v1", "10.0.0.0/24", 0);
    let mut snapshot = cluster([
        vpc("v1"),
        in_force(&old, "10.0.0.0/24", "10.0.0.1"),
        in_force(
            &subnet("young", "v1", "10.0.1.0/24", 1),
            "10.0.1.0/24",
            "10.0.1.1",
        ),
    ]);
    let edit = subnet("old", "v1", "10.0.0.0/16", 0);
    apply(&mut snapshot, in_force(&edit, "10.0.0.0/24", "10.0.0.1"));
    assert!(accepted(&snapshot, "young"), "it was there before");
    let (why, stays) = refusal(&snapshot, "old");
    assert!(why.message.contains("Subnet young"), "{}", why.message);
    assert_eq!(stays.as_deref(), Some("10.0.0.0/24"));
    // Nor does what it asked for in vain keep another one away.
    apply(&mut snapshot, subnet("new", "v1", "10.0.2.0/24", 2));
    assert!(accepted(&snapshot, "new"));
}

#[test]
fn of_an_eip_gateway_and_a_subnet_the_one_stays_that_is_in_force() {
    let mut gateway = EipGateway::clone(&objects::eip_gateway("g1", "198.51.100.0/24", true, 1));
    gateway.status = Some(EipGatewayStatus {
        cidr: Some("198.51.100.0/24".to_owned()),
        ..EipGatewayStatus::default()
    });
    let old = subnet("s", "v1", "10.0.1.0/24", 0);
    let mut snapshot = cluster([
        vpc("v1"),
        in_force(&old, "10.0.1.0/24", "10.0.1.1"),
        Object::EipGateway(Arc::new(gateway)),
    ]);
    let gateway = Owner::EipGateway("g1".to_owned());
    assert!(compile(&snapshot, &gateway).is_ok());
    let edit = subnet("s", "v1", "198.51.100.128/25", 0);
    apply(&mut snapshot, in_force(&edit, "10.0.1.0/24", "10.0.1.1"));
    assert!(compile(&snapshot, &gateway).is_ok());
    let (why, stays) = refusal(&snapshot, "s");
    assert!(why.message.contains("EipGateway g1"), "{}", why.message);
    assert_eq!(stays.as_deref(), Some("10.0.1.0/24"));
}

#[test]
fn a_status_that_is_behind_its_holders_brings_no_former_network_back() {
    // The edit was accepted, VNics got addresses, and the status is not written yet.
    let behind = |cidr: &str| in_force(&subnet("s", "v1", cidr, 0), "10.0.1.0/24", "10.0.1.1");
    let mut snapshot = cluster([
        vpc("v1"),
        behind("10.0.2.0/24"),
        user("s", "a", "10.0.2.2", (24, "10.0.2.1")),
    ]);
    assert!(accepted(&snapshot, "s"));
    apply(&mut snapshot, behind("10.96.0.0/12"));
    let (_, stays) = refusal(&snapshot, "s");
    assert_eq!(stays.as_deref(), Some("10.0.2.0/24"));
}

#[test]
fn a_vpc_or_subnet_that_is_being_deleted_takes_no_newcomers() {
    let mut leaving = ycloud_api::Vpc::clone(&objects::vpc("v", &[]));
    let began = "2026-01-01T00:00:05Z".parse().unwrap();
    leaving.metadata.deletion_timestamp = Some(Time(began));
    let key = ObjectKey::new("ns", "late");
    let late = objects::vnic("ns", "late", "a", None, None);
    // In whichever order the watches tell.
    let mut snapshot = cluster([
        vpc("v"),
        subnet("a", "v", "10.0.1.0/24", 1),
        subnet("b", "v", "10.0.2.0/24", 9),
    ]);
    apply(
        &mut snapshot,
        user("a", "old", "10.0.1.9", (24, "10.0.1.1")),
    );
    apply(&mut snapshot, Object::VNic(late.clone()));
    assert!(allocate(&snapshot, &late).is_ok());
    let concerned = apply(&mut snapshot, Object::Vpc(Arc::new(leaving)));
    for owner in [owner("b"), Owner::VNic(key)] {
        assert!(concerned.contains(&owner), "{owner}");
    }
    let refused = |why: Rejection| {
        assert_eq!(why.reason, reason::DELETING);
        assert!(
            why.message.contains("takes no newcomers"),
            "{}",
            why.message
        );
    };
    refused(compile(&snapshot, &owner("b")).unwrap_err());
    refused(allocate(&snapshot, &late).unwrap_err());
    assert!(
        compile(&snapshot, &owner("a")).is_ok(),
        "who was there stays"
    );
    let mut service = objects::service("ns", "s", Some("v"), "10.96.0.7", &[("TCP", 80)]);
    let service_key = Owner::Service(ObjectKey::new("ns", "s"));
    for (second, comes) in [(5, true), (6, false)] {
        let made = format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
        Arc::make_mut(&mut service).metadata.creation_timestamp = Some(Time(made));
        apply(&mut snapshot, Object::Service(service.clone()));
        match compile(&snapshot, &service_key) {
            Ok(_) => assert!(comes),
            Err(why) => {
                assert!(!comes, "{why}");
                refused(why);
            }
        }
        let users = ycloud_compiler::users(&snapshot, &Owner::Vpc("v".to_owned()));
        let holds = users.contains(&"Service ns/s".to_owned());
        assert_eq!(holds, comes, "who comes too late holds nobody: {users:?}");
        assert!(!users.contains(&"Subnet b".to_owned()), "{users:?}");
    }

    let mut leaving = Subnet::clone(&objects::subnet("a", "v", "10.0.1.0/24", 1));
    leaving.metadata.deletion_timestamp = Some(Time(began));
    let mut snapshot = cluster([vpc("v"), Object::Subnet(Arc::new(leaving))]);
    apply(&mut snapshot, Object::VNic(late.clone()));
    refused(allocate(&snapshot, &late).unwrap_err());
}
