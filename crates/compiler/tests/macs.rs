//! MACs: who has which in a Subnet.

mod support;

use std::sync::Arc;

use support::objects;
use ycloud_api::VNic;
use ycloud_api::address::Family;
use ycloud_api::condition::reason;
use ycloud_api::vnic::VNicStatus;
use ycloud_compiler::{
    Event, Object, ObjectKey, ObjectRef, Owner, Rejection, Settings, Snapshot, allocate, compile,
};

/// A VNic of Subnet `blue` that asks for this MAC.
fn of_mac(name: &str, mac: Option<&str>) -> VNic {
    let mut vnic = VNic::clone(&objects::vnic("ns", name, "blue", None, None));
    vnic.spec.mac = mac.map(str::to_owned);
    vnic.status = None;
    vnic
}

/// Gives a VNic what it asks for; its MAC.
fn give(snapshot: &mut Snapshot, vnic: &VNic) -> Result<String, Rejection> {
    snapshot.apply(Event::Apply(Object::VNic(Arc::new(vnic.clone()))));
    let allocation = allocate(snapshot, vnic)?;
    let mut given = vnic.clone();
    given.status = Some(VNicStatus {
        ip: allocation.of(Family::Ipv4).map(|of| of.ip.to_string()),
        mac: Some(allocation.mac.clone()),
        ..VNicStatus::default()
    });
    snapshot.apply(Event::Apply(Object::VNic(Arc::new(given))));
    Ok(allocation.mac)
}

#[test]
fn a_mac_is_its_holders_alone() {
    let mut snapshot = Snapshot::new(Settings::default());
    let vpc = Object::Vpc(objects::vpc("v", &[]));
    let subnet = Object::Subnet(objects::subnet("blue", "v", "10.0.1.0/28", 0));
    for object in [vpc, subnet] {
        snapshot.apply(Event::Apply(object));
    }
    let chosen = "0a:00:00:00:01:09";
    assert_eq!(
        give(&mut snapshot, &of_mac("a", Some(chosen))).unwrap(),
        chosen
    );
    let refused = |snapshot: &mut Snapshot, vnic: &VNic, words: &str| {
        let rejection = give(snapshot, vnic).unwrap_err();
        assert_eq!(rejection.reason, reason::ADDRESS_TAKEN);
        assert!(rejection.message.contains(words), "{}", rejection.message);
    };
    let second = of_mac("b", Some("0a:00:00:00:01:09"));
    refused(
        &mut snapshot,
        &second,
        "MAC 0a:00:00:00:01:09 is that of VNic ns/a",
    );
    let rows = compile(&snapshot, &Owner::Subnet("blue".to_owned())).unwrap();
    let text = format!("{rows:?}");
    let router = &text[text.find("0e:").expect("the router's MAC")..][..17];
    refused(&mut snapshot, &of_mac("c", Some(router)), "the router");

    // Who names the MAC that would be the next one's does not hinder it.
    let own = give(&mut snapshot, &of_mac("d", None)).unwrap();
    let (head, last) = own.rsplit_once(':').unwrap();
    let last = u8::from_str_radix(last, 16).unwrap();
    let of_the_next = format!("{head}:{:02x}", last + 2);
    give(&mut snapshot, &of_mac("e", Some(&of_the_next))).unwrap();
    let other = give(&mut snapshot, &of_mac("f", None)).unwrap();
    assert_eq!(other, of_the_next.replacen("0a:", "1a:", 1));

    // With its holder it is free, and who waits for it is woken.
    let first = ObjectRef::VNic(ObjectKey::new("ns", "a"));
    let woken = snapshot.apply(Event::Delete(first));
    assert!(woken.contains(&Owner::VNic(ObjectKey::new("ns", "b"))));
    give(&mut snapshot, &second).unwrap();
}
