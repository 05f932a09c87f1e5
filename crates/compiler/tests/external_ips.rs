//! `spec.externalIPs`: which addresses a Service may have, and who is told when one becomes somebody's.

mod support;

use support::objects;
use ycloud_api::condition::reason;
use ycloud_compiler::{
    Event, Object, ObjectKey, ObjectRef, Owner, Settings, Snapshot, compile, hindrance,
};
use ycloud_ovsdb::Datum;

const ASKED: &[&str] = &[
    "192.0.2.1",
    "172.31.0.1",
    "100.64.0.2",
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.9",
    "198.51.100.10",
];

fn web() -> Owner {
    Owner::Service(ObjectKey::new("ns", "web"))
}

/// A Service that asks for everything: nobody's, a node's, a join address, upstream router, EipGateway, and two Eips.
fn world() -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    let service = objects::service_external("ns", "web", "10.96.0.1", ASKED, &[("TCP", 80)]);
    for object in [
        Object::Vpc(objects::vpc("ovn-cluster", &[])),
        Object::Node(objects::node("n1", "172.31.0.1")),
        Object::EipGateway(objects::eip_gateway("g1", "198.51.100.0/24", false, 1)),
        Object::Eip(objects::eip("ns", "ours", None, None, Some("198.51.100.9"))),
        Object::Eip(objects::eip(
            "other",
            "theirs",
            None,
            None,
            Some("198.51.100.10"),
        )),
        Object::Service(service),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    snapshot
}

fn vips(snapshot: &Snapshot) -> Vec<String> {
    let rows = compile(snapshot, &web()).expect("rows");
    let vips = rows[0].columns.get("vips").and_then(Datum::as_map);
    let vips = vips.expect("vips").iter();
    let text = |vip: &ycloud_ovsdb::Atom| vip.as_str().expect("a string").to_owned();
    vips.map(|(vip, _)| text(vip)).collect()
}

#[test]
fn addresses_of_others_are_left_out_and_named_and_the_rest_is_served() {
    let snapshot = world();
    assert_eq!(
        vips(&snapshot),
        ["10.96.0.1:80", "192.0.2.1:80", "198.51.100.9:80"]
    );
    let rejection = hindrance(&snapshot, &web()).expect("a hindrance");
    assert_eq!(rejection.reason, reason::NOT_PERMITTED);
    for whose in [
        "172.31.0.1 is the address of Node n1",
        "100.64.0.2 is of the system range 100.64.0.0/10",
        "198.51.100.1 is EipGateway g1's own",
        "198.51.100.2 is EipGateway g1's own",
        "198.51.100.10 is Eip other/theirs's",
    ] {
        assert!(rejection.message.contains(whose), "{}", rejection.message);
    }
    assert!(
        !rejection.message.contains("192.0.2.1 "),
        "{}",
        rejection.message
    );
}

/// Who has the API server's address in a VPC has what its Pods tell the API server.
#[test]
fn the_api_servers_address_is_nobodys() {
    let mut snapshot = world();
    let slice = |ip: &str| {
        let endpoints = [(ip.to_owned(), "ready")];
        let ports = [("TCP", 443)];
        Event::Apply(Object::EndpointSlice(objects::slice(
            "default",
            "kubernetes",
            "kubernetes",
            &ports,
            &endpoints,
        )))
    };
    let named = snapshot.apply(slice("192.0.2.1"));
    assert!(named.contains(&web()), "{named:?}");
    assert_eq!(vips(&snapshot), ["10.96.0.1:80", "198.51.100.9:80"]);
    let told = hindrance(&snapshot, &web()).expect("a hindrance").message;
    assert!(
        told.contains("192.0.2.1 is an address of the API server"),
        "{told}"
    );
    // It moves.
    let named = snapshot.apply(slice("192.0.2.7"));
    assert!(named.contains(&web()), "{named:?}");
    assert!(vips(&snapshot).contains(&"192.0.2.1:80".to_owned()));
    let subnet = objects::subnet("s", "ovn-cluster", "192.0.2.0/24", 1);
    snapshot.apply(Event::Apply(Object::Subnet(subnet)));
    let refused = compile(&snapshot, &Owner::Subnet("s".into())).unwrap_err();
    assert!(
        refused
            .message
            .contains("overlaps 192.0.2.7, an address of the API server"),
        "{}",
        refused.message
    );
    let named = snapshot.apply(Event::Delete(ObjectRef::EndpointSlice(ObjectKey::new(
        "default",
        "kubernetes",
    ))));
    assert!(named.contains(&Owner::Subnet("s".into())), "{named:?}");
    assert!(compile(&snapshot, &Owner::Subnet("s".into())).is_ok());
}

#[test]
fn who_gets_or_gives_up_an_address_wakes_the_service() {
    let mut snapshot = world();
    for gone in [
        ObjectRef::Eip(ObjectKey::new("other", "theirs")),
        ObjectRef::Node("n1".into()),
        ObjectRef::EipGateway("g1".into()),
    ] {
        let named = snapshot.apply(Event::Delete(gone.clone()));
        assert!(named.contains(&web()), "{gone:?}: {named:?}");
    }
    let rejection = hindrance(&snapshot, &web()).expect("a hindrance");
    assert!(
        rejection.message.contains("externalIPs: 100.64.0.2 is of"),
        "{}",
        rejection.message
    );
    let theirs = objects::eip("other", "theirs", None, None, Some("198.51.100.10"));
    let named = snapshot.apply(Event::Apply(Object::Eip(theirs)));
    assert!(named.contains(&web()));
}
