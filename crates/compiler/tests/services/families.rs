//! Services of both families.

use ycloud_compiler::hindrance;

use super::*;

/// Both protocols at "10.96.0.1" and "fd00:96::1".
fn dual() -> Arc<Service> {
    let service = objects::service("ns1", "a", Some("v1"), "10.96.0.1", PORTS);
    objects::with_ipv6(&service, "fd00:96::1")
}

fn slices(all: &Endpoints) -> [Arc<EndpointSlice>; 2] {
    let slice = objects::slice("ns1", "s", "a", PORTS, all);
    let mut ipv6 = objects::slice_ipv6(&slice);
    Arc::make_mut(&mut ipv6).metadata.name = Some("s6".to_owned());
    [slice, ipv6]
}

fn compiled(service: Arc<Service>, slices: &[Arc<EndpointSlice>]) -> Vec<Row> {
    let default = Object::Vpc(objects::vpc("ovn-cluster", &[]));
    let mut objects = vec![v1(), default, Object::Service(service)];
    objects.extend(slices.iter().cloned().map(Object::EndpointSlice));
    rows(objects).expect("accepted")
}

#[test]
fn each_family_has_its_own_backends_or_none() {
    let [ipv4, ipv6] = slices(&vec![("10.0.1.9".to_owned(), "ready")]);
    let rows = compiled(dual(), &[ipv4.clone(), ipv6]);
    let expected = [
        ("10.96.0.1:80", "10.0.1.9:1080"),
        ("[fd00:96::1]:80", "[fd00:10::9]:1080"),
    ];
    let expected = expected.map(|(vip, backends)| (vip.to_owned(), backends.to_owned()));
    assert_eq!(vips(&rows[0]), BTreeMap::from(expected));
    let rows = compiled(dual(), &[ipv4]);
    assert_eq!(vips(&rows[0])["[fd00:96::1]:80"], "", "refuses");
}

/// What ready endpoints there are of one family says nothing of the other.
#[test]
fn draining_endpoints_serve_in_the_family_that_has_no_others() {
    let [ipv4, _] = slices(&vec![("10.0.1.9".to_owned(), "ready")]);
    let [_, ipv6] = slices(&vec![("10.0.1.9".to_owned(), "draining")]);
    let rows = compiled(dual(), &[ipv4, ipv6]);
    assert_eq!(vips(&rows[0])["[fd00:96::1]:80"], "[fd00:10::9]:1080");
}

/// An upgrade from a release that knew IPv4 only writes nothing for a Service of IPv4 only, and tells no digest anew.
#[test]
fn slices_of_ipv6_do_not_change_a_service_of_ipv4() {
    let both = slices(&vec![("10.0.1.9".to_owned(), "ready")]);
    for service in [
        objects::service("ns1", "a", Some("v1"), "10.96.0.1", PORTS),
        objects::service_local("ns1", "a", "10.96.0.1", PORTS),
    ] {
        let of_both = compiled(service.clone(), &both);
        assert_eq!(of_both, compiled(service.clone(), &both[..1]));
        assert_eq!(digest_of(&service, &both), digest_of(&service, &both[..1]));
    }
    let mut local = objects::service_local("ns1", "a", "10.96.0.1", &PORTS[..1]);
    if let Some(spec) = &mut Arc::make_mut(&mut local).spec {
        spec.external_ips = Some(vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()]);
        spec.session_affinity = Some("ClientIP".to_owned());
    }
    let on = |node: &str, ip: &str| {
        let slice = objects::slice("ns1", node, "a", &PORTS[..1], &[(ip.to_owned(), "ready")]);
        objects::slice_on(&slice, node)
    };
    let slices = [on("n1", "10.16.0.5"), on("n2", "10.16.0.6")];
    assert_eq!(
        digest_of(&local, &slices),
        "7e8ef7a0ac0ec282",
        "as before IPv6"
    );
}

/// `ip_src` is a field of IPv4: without the MAC address all IPv6 clients would have one hash.
#[test]
fn clients_of_ipv6_are_told_apart() {
    let fields = |mut service: Arc<Service>| {
        if let Some(spec) = &mut Arc::make_mut(&mut service).spec {
            spec.session_affinity = Some("ClientIP".to_owned());
        }
        compiled(service, &[])[0]
            .columns
            .get("selection_fields")
            .cloned()
    };
    let single = objects::service("ns1", "a", Some("v1"), "10.96.0.1", PORTS);
    assert_eq!(fields(single), Some(Datum::from(vec!["ip_src"])));
    assert_eq!(fields(dual()), Some(Datum::from(vec!["eth_src", "ip_src"])));
}

#[test]
fn an_endpoint_on_a_node_is_reached_at_the_join_address_of_its_family() {
    let mut snapshot = Snapshot::new(Settings::default());
    let service = objects::service("ns1", "a", None, "10.96.0.1", &PORTS[..1]);
    let at_node = slices(&vec![("172.31.0.1".to_owned(), "ready")]);
    let vnic = objects::node_vnic("n1", "100.64.0.2");
    let mut apply = |object: Object| {
        let named = snapshot.apply(Event::Apply(object));
        let vip = compile(&snapshot, &Owner::Service(key()))
            .ok()
            .and_then(|rows| vips(rows.first()?).remove("[fd00:96::1]:80"));
        (
            vip.unwrap_or_default(),
            named.contains(&Owner::Service(key())),
        )
    };
    apply(Object::Vpc(objects::vpc("ovn-cluster", &[])));
    apply(Object::Service(objects::with_ipv6(&service, "fd00:96::1")));
    for slice in at_node {
        apply(Object::EndpointSlice(slice));
    }
    let node = objects::node("n1", "172.31.0.1");
    apply(Object::Node(objects::node_with_ipv6(&node, "fd00:172::1")));
    let own = "[fd00:172::1]:1080".to_owned();
    assert_eq!(
        apply(Object::VNic(vnic.clone())),
        (own, true),
        "a join address of IPv4 is no help"
    );
    let join = "[fd00:100:64::2]:1080".to_owned();
    let both = objects::vnic_ipv6(&vnic, "fd00:100:64::2");
    assert_eq!(apply(Object::VNic(both)), (join, true));
}

#[test]
fn a_service_of_ipv6_alone_takes_no_eip_and_says_so() {
    let six = objects::service("ns1", "a", Some("v1"), "fd00:96::1", PORTS);
    let said = |service: &Service| {
        let service = objects::with_eip(service, false, None);
        let takes = ycloud_compiler::desired::service::takes_eip(&service);
        let mut snapshot = Snapshot::new(Settings::default());
        snapshot.apply(Event::Apply(v1()));
        snapshot.apply(Event::Apply(Object::Service(service)));
        let hindrance = hindrance(&snapshot, &Owner::Service(key()));
        (takes, hindrance.map(|rejection| rejection.reason))
    };
    assert_eq!(said(&six), (false, Some(reason::NOT_SUPPORTED)));
    let waits = said(&dual());
    assert!(waits.0 && waits.1 != Some(reason::NOT_SUPPORTED));
}

proptest! {
    #[test]
    fn a_digest_of_both_families_differs_exactly_where_the_rows_do(one in endpoints(), other in endpoints()) {
        let mixed = |a: &Endpoints, b: &Endpoints| {
            let ([ipv4, _], [_, ipv6]) = (slices(a), slices(b));
            [ipv4, ipv6]
        };
        let (a, b) = (mixed(&one, &one), mixed(&one, &other));
        let same = balanced(&compiled(dual(), &a)) == balanced(&compiled(dual(), &b));
        prop_assert_eq!(digest_of(&dual(), &a) == digest_of(&dual(), &b), same);
    }
}
