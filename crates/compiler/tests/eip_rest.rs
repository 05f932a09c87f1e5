//! Addresses that Eips gave up: who gets them while they rest, and what an EipGateway's status is to record.

mod support;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use support::objects;
use ycloud_api::condition::reason;
use ycloud_api::eip_gateway::ReleasedAddress;
use ycloud_api::{Eip, EipGateway};
use ycloud_compiler::{
    Event, Object, ObjectKey, ObjectRef, Owner, Recorded, Settings, Snapshot, allocate_eip,
    eip_usage, hindrance, released, resting_place,
};

const FIRST: &str = "198.51.100.3";
const SECOND: &str = "198.51.100.4";

/// EipGateway g1 with the EIPs 198.51.100.3 to .6, of which these rest: address and namespace.
fn world(resting: &[(&str, &str)]) -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    rest(&mut snapshot, resting);
    snapshot
}

/// Tells the snapshot that these rest, and no others; returns who is concerned.
fn rest(snapshot: &mut Snapshot, resting: &[(&str, &str)]) -> Vec<Owner> {
    let gateway = objects::eip_gateway("g1", "198.51.100.0/29", false, 1);
    let gateway = objects::eip_gateway_releasing(&gateway, resting);
    let event = Event::Apply(Object::EipGateway(gateway));
    snapshot.apply(event).into_iter().collect()
}

/// Makes an Eip and gives it an address; the address, or reason and message of why it has none.
fn allocated(
    snapshot: &mut Snapshot,
    namespace: &str,
    name: &str,
    asked: Option<&str>,
) -> Result<String, (&'static str, String)> {
    let eip = objects::eip(namespace, name, None, asked, None);
    snapshot.apply(Event::Apply(Object::Eip(eip.clone())));
    let allocation = allocate_eip(snapshot, &eip).map_err(|r| (r.reason, r.message))?;
    let held = objects::eip_given(&eip, &allocation);
    snapshot.apply(Event::Apply(Object::Eip(held)));
    Ok(allocation.address.to_string())
}

fn gone(snapshot: &mut Snapshot, namespace: &str, name: &str) {
    let eip = ObjectRef::Eip(ObjectKey::new(namespace, name));
    snapshot.apply(Event::Delete(eip));
}

/// The Eip is told to go.
fn told_to_go(snapshot: &mut Snapshot, namespace: &str, name: &str, at: &Time) {
    let key = ObjectKey::new(namespace, name);
    let mut eip = Eip::clone(snapshot.eip(&key).expect("an Eip"));
    eip.metadata.deletion_timestamp = Some(at.clone());
    snapshot.apply(Event::Apply(Object::Eip(Arc::new(eip))));
}

/// So many seconds after those that rest were given up.
fn after(seconds: i64) -> Time {
    let given_up: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    Time(given_up + SignedDuration::from_secs(seconds))
}

/// What the EipGateway's status is to record: addresses with their namespaces.
fn recorded(snapshot: &Snapshot, now: &Time) -> Vec<(String, String)> {
    let released = released(snapshot, "g1", now, |_| true);
    let addresses = released.addresses.into_iter();
    addresses
        .map(|entry| (entry.address, entry.namespace))
        .collect()
}

#[test]
fn a_resting_address_is_its_own_namespaces_first_and_of_others_last() {
    let mut snapshot = world(&[(SECOND, "a"), ("198.51.100.6", "b")]);
    let mut next = |namespace: &str, name: &str| allocated(&mut snapshot, namespace, name, None);
    assert_eq!(next("a", "one").expect("its own"), SECOND);
    assert_eq!(next("c", "one").expect("a free one"), FIRST);
    assert_eq!(next("a", "two").expect("a free one"), "198.51.100.5");
    // Nothing else is left.
    assert_eq!(next("c", "two").expect("b's"), "198.51.100.6");
    let (why, _) = next("b", "one").expect_err("all are held");
    assert_eq!(why, reason::EXHAUSTED);
}

#[test]
fn a_resting_address_that_is_asked_for_is_refused_in_words_and_given_once_it_has_rested() {
    let mut snapshot = world(&[(FIRST, "secret")]);
    let (why, message) = allocated(&mut snapshot, "b", "y", Some(FIRST)).expect_err("it rests");
    assert_eq!(why, reason::ADDRESS_TAKEN);
    for words in [
        "Eip b/y: address 198.51.100.3 rests until 2026-01-01T00:10:00Z",
        "spec.reuseAfterSeconds of EipGateway g1",
        "make this Eip anew with another one",
    ] {
        assert!(message.contains(words), "{message}");
    }
    assert!(!message.contains("secret"), "{message}");
    let told = hindrance(&snapshot, &Owner::Eip(ObjectKey::new("b", "y")));
    assert_eq!(told.map(|told| told.message), Some(message));
    // Who asks in vain keeps nobody away, whether that one asks for the address or not.
    assert_eq!(
        allocated(&mut snapshot, "secret", "x", Some(FIRST)).as_deref(),
        Ok(FIRST)
    );
    gone(&mut snapshot, "secret", "x");
    assert_eq!(
        allocated(&mut snapshot, "secret", "x", None).as_deref(),
        Ok(FIRST)
    );
    gone(&mut snapshot, "secret", "x");
    let named = rest(&mut snapshot, &[]);
    assert!(
        named.contains(&Owner::Eip(ObjectKey::new("b", "y"))),
        "{named:?}"
    );
    assert_eq!(
        allocated(&mut snapshot, "b", "y", Some(FIRST)).as_deref(),
        Ok(FIRST)
    );
}

#[test]
fn who_makes_eips_and_deletes_them_uses_up_one_address() {
    let mut snapshot = world(&[]);
    for n in 0..20 {
        let name = format!("e{n}");
        let address = allocated(&mut snapshot, "a", &name, None);
        assert_eq!(address.as_deref(), Ok(FIRST), "{n}");
        let now = after(n);
        told_to_go(&mut snapshot, "a", &name, &now);
        let entries = recorded(&snapshot, &now);
        assert_eq!(entries, [(FIRST.to_owned(), "a".to_owned())]);
        rest(&mut snapshot, &[(FIRST, "a")]);
        gone(&mut snapshot, "a", &name);
    }
    assert_eq!(
        allocated(&mut snapshot, "b", "y", None).as_deref(),
        Ok(SECOND)
    );
}

#[test]
fn what_is_no_address_of_the_range_does_not_rest_and_one_that_does_is_neither_used_nor_free() {
    let bad = [
        ("nonsense", "a"),
        ("203.0.113.9", "a"),
        ("198.51.100.1", "a"),
        ("fd00::1", "a"),
    ];
    let mut snapshot = world(&bad);
    let usage = eip_usage(&snapshot, "g1");
    assert_eq!((usage.total, usage.used, usage.free), (Some(4), 0, Some(4)));
    assert_eq!(
        allocated(&mut snapshot, "a", "x", None).as_deref(),
        Ok(FIRST)
    );
    rest(
        &mut snapshot,
        &[bad[0], bad[1], (FIRST, "a"), (SECOND, "b")],
    );
    let usage = eip_usage(&snapshot, "g1");
    assert_eq!((usage.total, usage.used, usage.free), (Some(4), 1, Some(2)));
}

#[test]
fn nothing_rests_where_the_spec_lets_nothing_rest() {
    let mut snapshot = world(&[(FIRST, "a")]);
    let mut gateway = EipGateway::clone(snapshot.eip_gateway("g1").expect("a gateway"));
    gateway.spec.reuse_after_seconds = 0;
    snapshot.apply(Event::Apply(Object::EipGateway(Arc::new(gateway))));
    assert_eq!(
        allocated(&mut snapshot, "b", "y", None).as_deref(),
        Ok(FIRST)
    );
    told_to_go(&mut snapshot, "b", "y", &after(1));
    assert_eq!(recorded(&snapshot, &after(1)), []);
}

#[test]
fn the_record_loses_what_has_rested_or_is_held_again_and_says_when_the_next_one_has() {
    let mut snapshot = world(&[(FIRST, "a"), (SECOND, "b")]);
    assert_eq!(recorded(&snapshot, &after(599)).len(), 2);
    let due = released(&snapshot, "g1", &after(0), |_| true).due;
    assert_eq!(due, Some(after(600).0));
    assert_eq!(recorded(&snapshot, &after(600)), []);
    allocated(&mut snapshot, "a", "x", None).expect("its own");
    // Not before the API server has the address with the Eip: a crash would forget both.
    let unsure = released(&snapshot, "g1", &after(1), |_| false);
    assert_eq!(unsure.addresses.len(), 2);
    let left = recorded(&snapshot, &after(1));
    assert_eq!(left, [(SECOND.to_owned(), "b".to_owned())]);
    // A clock was wrong: it rests from now on.
    let long_before = released(&snapshot, "g1", &after(-100_000), |_| true);
    assert_eq!(long_before.due, Some(after(-100_000 + 600).0));
}

#[test]
fn what_was_recorded_before_the_eip_was_deleted_is_recorded_anew() {
    let mut snapshot = world(&[(FIRST, "a")]);
    allocated(&mut snapshot, "a", "x", None).expect("its own");
    let recorded = |snapshot: &Snapshot| {
        let place = resting_place(snapshot, &ObjectKey::new("a", "x"));
        place.expect("it is to rest").recorded
    };
    assert_eq!(recorded(&snapshot), Recorded::Before);
    told_to_go(&mut snapshot, "a", "x", &after(500));
    assert_eq!(recorded(&snapshot), Recorded::Before);
    let entry = ReleasedAddress {
        address: FIRST.to_owned(),
        namespace: "a".to_owned(),
        time: after(501),
    };
    let anew = released(&snapshot, "g1", &after(501), |_| true).addresses;
    assert_eq!(anew, std::slice::from_ref(&entry));
    // The API server's clock is ahead.
    let anew = released(&snapshot, "g1", &after(400), |_| true).addresses;
    let time = after(500);
    assert_eq!(anew, [ReleasedAddress { time, ..entry }]);
    let mut gateway = EipGateway::clone(snapshot.eip_gateway("g1").expect("a gateway"));
    gateway.status.get_or_insert_default().released = anew;
    snapshot.apply(Event::Apply(Object::EipGateway(Arc::new(gateway))));
    assert_eq!(recorded(&snapshot), Recorded::Now);
}

#[test]
fn the_record_has_an_end_and_keeps_what_eips_wait_for_and_then_what_is_newest() {
    let mut gateway = EipGateway::clone(&objects::eip_gateway("g1", "198.51.0.0/16", false, 1));
    gateway.spec.gateway = "198.51.0.1".to_owned();
    let entry = |n: u32| ReleasedAddress {
        address: format!("198.51.{}.{}", n / 200, 5 + n % 200),
        namespace: "a".to_owned(),
        time: after(i64::from(n % 125)),
    };
    gateway.status.get_or_insert_default().released = (0..256).map(entry).collect();
    let mut snapshot = Snapshot::new(Settings::default());
    snapshot.apply(Event::Apply(Object::EipGateway(Arc::new(gateway))));
    let waiting = [("b", "x", "198.51.9.9"), ("b", "y", "198.51.9.10")];
    for (namespace, name, address) in waiting {
        allocated(&mut snapshot, namespace, name, Some(address)).expect("free");
        told_to_go(&mut snapshot, namespace, name, &after(1));
    }
    let left = recorded(&snapshot, &after(1));
    assert_eq!(left.len(), 256);
    for (_, _, address) in waiting {
        assert!(left.iter().any(|(found, _)| found == address), "{address}");
    }
    // Of those that were given up first, two had to go.
    let oldest = [0, 125, 250].map(|n| entry(n).address);
    let kept = |address: &&String| left.iter().any(|(found, _)| found == *address);
    assert_eq!(oldest.iter().filter(kept).count(), 1);
}

/// Whoever makes and deletes many Eips by name ends nobody's rest but his own, and keeps nobody out.
#[test]
fn what_a_namespace_gave_up_keeps_nobody_out_and_ends_no_rest_of_others() {
    let resting = [
        (FIRST, "victim"),
        (SECOND, "many"),
        ("198.51.100.5", "many"),
        ("198.51.100.6", "many"),
    ];
    let mut snapshot = world(&resting);
    for (name, expected) in [("x", SECOND), ("y", "198.51.100.5")] {
        let given = allocated(&mut snapshot, "b", name, None);
        assert_eq!(given.as_deref(), Ok(expected), "{name}");
    }
    let own = allocated(&mut snapshot, "victim", "z", None);
    assert_eq!(own.as_deref(), Ok(FIRST));
    assert!(allocated(&mut snapshot, "b", "last", None).is_ok());
    let (why, message) = allocated(&mut snapshot, "b", "more", None).expect_err("none is left");
    assert_eq!(why, reason::EXHAUSTED);
    assert!(message.contains("all 4 are in use"), "{message}");
    // In the record, too, it is the one with most that makes room.
    let mut gateway = EipGateway::clone(&objects::eip_gateway("g2", "203.0.0.0/16", false, 1));
    gateway.spec.gateway = "203.0.0.1".to_owned();
    let entry = |n: u32| ReleasedAddress {
        address: format!("203.0.{}.{}", 1 + n / 200, 5 + n % 200),
        namespace: if n < 3 { "victim" } else { "many" }.to_owned(),
        time: after(i64::from(n)),
    };
    gateway.status.get_or_insert_default().released = (0..300).map(entry).collect();
    snapshot.apply(Event::Apply(Object::EipGateway(Arc::new(gateway))));
    let left = released(&snapshot, "g2", &after(300), |_| true).addresses;
    assert_eq!(left.len(), 256);
    for n in [0, 2, 47, 299] {
        assert!(
            left.iter().any(|kept| kept.address == entry(n).address),
            "{n}"
        );
    }
    assert!(left.iter().all(|kept| kept.address != entry(46).address));
}

#[test]
fn a_resting_address_is_no_external_ip_of_another_namespace() {
    let mut snapshot = world(&[]);
    let service = objects::service_external("b", "svc", "10.96.0.1", &[FIRST], &[("TCP", 80)]);
    snapshot.apply(Event::Apply(Object::Service(service)));
    let owner = Owner::Service(ObjectKey::new("b", "svc"));
    assert_eq!(hindrance(&snapshot, &owner), None);
    let named = rest(&mut snapshot, &[(FIRST, "a")]);
    assert!(named.contains(&owner), "{named:?}");
    let why = hindrance(&snapshot, &owner).expect("it rests");
    assert!(
        why.message
            .contains("198.51.100.3 is EipGateway g1's, where it rests"),
        "{}",
        why.message
    );
    rest(&mut snapshot, &[(FIRST, "b")]);
    assert_eq!(hindrance(&snapshot, &owner), None);
}
