//! Which addresses Eips get, which Eips are made, and where EipGateways are.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use support::objects;
use ycloud_api::condition::reason;
use ycloud_api::{Eip, EipGateway, Vpc, VpcStatus};
use ycloud_compiler::{
    Chassis, Claim, Event, Object, ObjectKey, Owner, Settings, Snapshot, active_node, allocate_eip,
    compile, eip_address, eip_usage, eligible_nodes, hindrance, prerequisites, service_gateways,
    users, wanted_eip,
};

fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    for object in objects {
        snapshot.apply(Event::Apply(object));
    }
    snapshot
}

/// Three nodes, an EipGateway with four addresses, of which its own and the upstream router's are two.
fn world() -> Snapshot {
    let nodes = [
        ("n1", "172.31.0.1"),
        ("n2", "172.31.0.2"),
        ("n3", "172.31.0.3"),
    ];
    let nodes = nodes.map(|(name, ip)| Object::Node(objects::node(name, ip)));
    let gateway = objects::eip_gateway("g1", "198.51.100.0/29", false, 1);
    let vpc = Object::Vpc(objects::vpc("v1", &[]));
    snapshot(nodes.into_iter().chain([Object::EipGateway(gateway), vpc]))
}

/// Allocates for an Eip and tells the snapshot; the address, or the reason why there is none.
fn allocated(snapshot: &mut Snapshot, name: &str, asked: Option<&str>) -> Result<String, String> {
    let eip = objects::eip("ns", name, None, asked, None);
    snapshot.apply(Event::Apply(Object::Eip(eip.clone())));
    let allocation =
        allocate_eip(snapshot, &eip).map_err(|r| format!("{}: {}", r.reason, r.message))?;
    let held = objects::eip_given(&eip, &allocation);
    snapshot.apply(Event::Apply(Object::Eip(held)));
    Ok(allocation.address.to_string())
}

fn service(name: &str, eip: Option<&str>) -> Arc<Service> {
    let service = objects::service("ns", name, Some("v1"), "10.96.0.1", &[("TCP", 80)]);
    objects::with_eip(&service, false, eip)
}

#[test]
fn addresses_are_given_out_once_and_only_those_that_can_be() {
    let mut snapshot = world();
    // .1 is the upstream router, .2 the gateway itself.
    assert_eq!(allocated(&mut snapshot, "a", None).unwrap(), "198.51.100.3");
    assert_eq!(
        allocated(&mut snapshot, "b", Some("198.51.100.5")).unwrap(),
        "198.51.100.5"
    );
    assert_eq!(allocated(&mut snapshot, "c", None).unwrap(), "198.51.100.4");
    let cases = [
        (
            "taken",
            "198.51.100.5",
            reason::ADDRESS_TAKEN,
            "is Eip ns/b's",
        ),
        (
            "outside",
            "192.0.2.1",
            reason::ADDRESS_NOT_IN_SUBNET,
            "lies outside the range of",
        ),
        (
            "own",
            "198.51.100.2",
            reason::ADDRESS_NOT_IN_SUBNET,
            "is the own address of",
        ),
        (
            "upstream",
            "198.51.100.1",
            reason::ADDRESS_NOT_IN_SUBNET,
            "is the upstream router of",
        ),
        (
            "last",
            "198.51.100.7",
            reason::ADDRESS_NOT_IN_SUBNET,
            "broadcast address of",
        ),
    ];
    for (name, asked, reason, words) in cases {
        let error = allocated(&mut snapshot, name, Some(asked)).unwrap_err();
        assert!(
            error.starts_with(reason) && error.contains(words),
            "{error}"
        );
    }
    assert_eq!(allocated(&mut snapshot, "d", None).unwrap(), "198.51.100.6");
    let error = allocated(&mut snapshot, "e", None).unwrap_err();
    assert!(error.contains("all 4 are in use"), "{error}");
    let usage = eip_usage(&snapshot, "g1");
    assert_eq!((usage.total, usage.used, usage.free), (Some(4), 4, Some(0)));
    // One that goes makes room for those who wait.
    let gone = ycloud_compiler::ObjectRef::Eip(ObjectKey::new("ns", "c"));
    let named = snapshot.apply(Event::Delete(gone));
    assert!(named.contains(&Owner::Eip(ObjectKey::new("ns", "e"))));
    assert_eq!(allocated(&mut snapshot, "e", None).unwrap(), "198.51.100.4");
}

#[test]
fn an_answer_from_before_the_allocation_does_not_take_the_address_away() {
    let mut snapshot = world();
    allocated(&mut snapshot, "a", None).unwrap();
    let mut echo = Eip::clone(&objects::eip("ns", "a", None, None, None));
    let mut held = Eip::clone(snapshot.eip(&ObjectKey::new("ns", "a")).unwrap());
    held.metadata.resource_version = Some("7".into());
    echo.metadata.resource_version = Some("7".into());
    snapshot.apply(Event::Apply(Object::Eip(Arc::new(held))));
    snapshot.apply(Event::Apply(Object::Eip(Arc::new(echo))));
    assert_eq!(eip_usage(&snapshot, "g1").used, 1);
}

#[test]
fn a_service_that_names_no_eip_gets_one_of_its_own() {
    let mut snapshot = world();
    let key = ObjectKey::new("ns", "web");
    snapshot.apply(Event::Apply(Object::Service(service("web", None))));
    let wanted = wanted_eip(&snapshot, &key).expect("an Eip to be made");
    assert_eq!(wanted.metadata.name.as_deref(), Some("web"));
    assert_eq!(wanted.spec.eip_gateway.as_deref(), Some("g1"));
    let waits = hindrance(&snapshot, &Owner::Service(key.clone())).expect("no address yet");
    assert_eq!(waits.reason, reason::PENDING);

    let named = snapshot.apply(Event::Apply(Object::Eip(Arc::new(wanted))));
    assert!(named.contains(&Owner::Service(key.clone())));
    assert_eq!(wanted_eip(&snapshot, &key), None);
    allocated(&mut snapshot, "web", None).unwrap();
    assert_eq!(hindrance(&snapshot, &Owner::Service(key.clone())), None);
    assert_eq!(
        eip_address(&snapshot, &key)
            .map(|ip| ip.to_string())
            .as_deref(),
        Some("198.51.100.3")
    );
    let expected: BTreeSet<Owner> = [
        Owner::EipGateway("g1".into()),
        Owner::Vpc("v1".into()),
        Owner::Eip(key.clone()),
    ]
    .into();
    let found: BTreeSet<Owner> = prerequisites(&snapshot, &Owner::Service(key))
        .into_iter()
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        users(&snapshot, &Owner::EipGateway("g1".into())),
        ["Eip ns/web (198.51.100.3)"]
    );
}

#[test]
fn a_service_that_names_an_address_gets_an_eip_with_it_and_one_that_names_an_eip_waits_for_it() {
    let mut snapshot = world();
    let by_address = service("by-address", Some("198.51.100.6"));
    snapshot.apply(Event::Apply(Object::Service(by_address)));
    let wanted = wanted_eip(&snapshot, &ObjectKey::new("ns", "by-address")).expect("an Eip");
    assert_eq!(wanted.spec.address.as_deref(), Some("198.51.100.6"));

    snapshot.apply(Event::Apply(Object::Service(service(
        "by-name",
        Some("shared"),
    ))));
    let key = ObjectKey::new("ns", "by-name");
    assert_eq!(wanted_eip(&snapshot, &key), None);
    let missing = hindrance(&snapshot, &Owner::Service(key)).expect("no such Eip");
    assert_eq!(missing.reason, reason::NOT_FOUND);
}

#[test]
fn another_default_gateway_moves_only_vpcs_that_are_not_reached_at_eips() {
    let mut snapshot = world();
    let hangs_on = |name: &str, gateway: &str| {
        let mut vpc = Vpc::clone(&objects::vpc(name, &[]));
        vpc.status = Some(VpcStatus {
            eip_gateway: Some(gateway.to_owned()),
            ..VpcStatus::default()
        });
        Event::Apply(Object::Vpc(Arc::new(vpc)))
    };
    snapshot.apply(hangs_on("v1", "g1"));
    snapshot.apply(hangs_on("idle", "g1"));
    let web = ObjectKey::new("ns", "web");
    let (service_web, of_web) = (service("web", None), Owner::Service(web.clone()));
    snapshot.apply(Event::Apply(Object::Service(service_web)));
    allocated(&mut snapshot, "web", None).unwrap();
    let newer = objects::eip_gateway("g2", "203.0.113.0/29", true, 2);
    snapshot.apply(Event::Apply(Object::EipGateway(newer)));
    assert_eq!(snapshot.eip_gateway_of("v1"), Some("g1"));
    assert_eq!(snapshot.eip_gateway_of("idle"), Some("g2"));
    assert_eq!(hindrance(&snapshot, &of_web), None);
    // What else is made there is of the same EipGateway.
    let second = ObjectKey::new("ns", "second");
    let event = Event::Apply(Object::Service(service("second", None)));
    snapshot.apply(event);
    let wanted = wanted_eip(&snapshot, &second).expect("an Eip to be made");
    assert_eq!(wanted.spec.eip_gateway.as_deref(), Some("g1"));
    // The last EIP is released.
    let named = snapshot.apply(Event::Delete(ycloud_compiler::ObjectRef::Service(web)));
    assert_eq!(snapshot.eip_gateway_of("v1"), Some("g2"));
    assert!(named.contains(&Owner::Vpc("v1".into())));
}

#[test]
fn who_has_the_ports_stays_first_if_it_may_carry_them() {
    let mut snapshot = world();
    let first = active_node(&snapshot, "g1").expect("a node");
    let other = ["n1", "n2", "n3"]
        .into_iter()
        .find(|node| *node != first)
        .unwrap();
    let claim = |chassis: &str| {
        Event::Apply(Object::Claim(Claim {
            group: "eipgw/g1".into(),
            chassis: chassis.into(),
        }))
    };
    let named = snapshot.apply(claim(other));
    assert!(named.contains(&Owner::EipGateway("g1".into())));
    assert_eq!(active_node(&snapshot, "g1").as_deref(), Some(other));
    snapshot.apply(claim("elsewhere"));
    assert_eq!(active_node(&snapshot, "g1"), Some(first));
}

#[test]
fn service_gateways_are_on_different_nodes_while_there_are_enough() {
    let mut snapshot = world();
    let nodes = |snapshot: &Snapshot| -> Vec<String> {
        let all = service_gateways(snapshot, "g1").into_iter();
        all.filter_map(|(_, node)| node).collect()
    };
    let found = nodes(&snapshot);
    assert_eq!(found.len(), 2);
    assert_ne!(found[0], found[1]);
    let chassis = |name: &str, network: &str| {
        Event::Apply(Object::Chassis(Chassis {
            name: name.into(),
            physical_networks: [network.to_owned()].into(),
            ..Chassis::default()
        }))
    };
    for node in ["n1", "n2"] {
        snapshot.apply(chassis(node, "other"));
    }
    assert_eq!(eligible_nodes(&snapshot, "g1"), ["n3"]);
    assert_eq!(nodes(&snapshot), ["n3", "n3"]);
    snapshot.apply(chassis("n3", "other"));
    let owner = Owner::EipGateway("g1".into());
    assert_eq!(
        hindrance(&snapshot, &owner).expect("no nodes").reason,
        reason::NO_NODES
    );
    assert!(compile(&snapshot, &owner).is_ok(), "its rows stay");
}

#[test]
fn the_default_is_the_oldest_that_is_marked_or_else_the_oldest() {
    let gateway = |name: &str, cidr: &str, default, created| -> Object {
        Object::EipGateway(objects::eip_gateway(name, cidr, default, created))
    };
    let one = gateway("g1", "198.51.100.0/24", false, 1);
    let mut snapshot = snapshot([one]);
    assert_eq!(snapshot.default_eip_gateway(), Some("g1"));
    snapshot.apply(Event::Apply(gateway("g2", "203.0.113.0/24", false, 2)));
    assert_eq!(snapshot.default_eip_gateway(), Some("g1"));
    snapshot.apply(Event::Apply(gateway("g2", "203.0.113.0/24", true, 2)));
    snapshot.apply(Event::Apply(gateway("g3", "192.0.2.0/24", true, 3)));
    assert_eq!(snapshot.default_eip_gateway(), Some("g2"));
    let marked = |gateway: &&Arc<EipGateway>| gateway.spec.default;
    assert_eq!(
        snapshot
            .eip_gateways()
            .map(|(_, g)| g)
            .filter(marked)
            .count(),
        2
    );
}

#[test]
fn two_gateways_share_a_link_if_the_one_excludes_the_others_address() {
    let mut first = EipGateway::clone(&objects::eip_gateway("g1", "198.51.100.0/24", false, 1));
    first.spec.address = Some("198.51.100.3/24".into());
    let mut second = EipGateway::clone(&objects::eip_gateway("g2", "192.0.2.0/24", false, 2));
    second.spec.gateway = first.spec.gateway.clone();
    second.spec.address = Some("198.51.100.2/24".into());
    let mut snapshot = world();
    let mut told = |gateway: &EipGateway| {
        snapshot.apply(Event::Apply(Object::EipGateway(Arc::new(gateway.clone()))));
        let verdict = compile(&snapshot, &Owner::EipGateway("g2".into()));
        verdict.map(drop).map_err(|r| r.message)
    };
    let _ = told(&first);
    let refused = told(&second).unwrap_err();
    assert!(
        refused.contains("spec.address 198.51.100.2/24 is one of EipGateway g1"),
        "{refused}"
    );
    first.spec.exclude_ips = vec!["198.51.100.2".into()];
    assert_eq!(told(&first), Ok(()));
}

/// A client there could not be told from a Pod of the Subnet, and would get no answer.
#[test]
fn a_subnet_is_not_on_the_link_to_the_upstream_router() {
    let link = |created| {
        let gateway = objects::eip_gateway("g2", "203.0.113.0/24", false, created);
        Object::EipGateway(objects::eip_gateway_behind(
            &gateway,
            "192.0.2.1",
            "192.0.2.2/24",
        ))
    };
    let subnet = |created| Object::Subnet(objects::subnet("s", "v1", "192.0.2.0/25", created));
    let (of_gateway, of_subnet) = (Owner::EipGateway("g2".into()), Owner::Subnet("s".into()));
    // The one that was there first stays.
    let mut snapshot = world();
    snapshot.apply(Event::Apply(link(1)));
    snapshot.apply(Event::Apply(subnet(2)));
    let refused = compile(&snapshot, &of_subnet).unwrap_err().message;
    assert!(
        refused.contains("overlaps EipGateway g2 (192.0.2.0/24)"),
        "{refused}"
    );
    assert!(compile(&snapshot, &of_gateway).is_ok());
    let named = snapshot.apply(Event::Delete(ycloud_compiler::ObjectRef::EipGateway(
        "g2".into(),
    )));
    assert!(named.contains(&of_subnet));
    assert!(compile(&snapshot, &of_subnet).is_ok());
    snapshot.apply(Event::Apply(link(3)));
    let refused = compile(&snapshot, &of_gateway).unwrap_err().message;
    assert!(
        refused.contains(
            "spec.address 192.0.2.2/24 is on a link that overlaps Subnet s (192.0.2.0/25) of Vpc v1"
        ),
        "{refused}"
    );
    let named = snapshot.apply(Event::Delete(ycloud_compiler::ObjectRef::Subnet(
        "s".into(),
    )));
    assert!(named.contains(&of_gateway));
}

#[test]
fn a_gateway_that_a_later_service_range_overlaps_is_refused_until_that_goes() {
    let mut snapshot = world();
    let owner = Owner::EipGateway("g1".into());
    let range = objects::service_cidr("more", "198.51.100.0/24");
    let named = snapshot.apply(Event::Apply(Object::ServiceCidr(range)));
    assert!(named.contains(&owner));
    assert_eq!(
        compile(&snapshot, &owner).unwrap_err().reason,
        reason::OVERLAPS
    );
    snapshot.apply(Event::Delete(ycloud_compiler::ObjectRef::ServiceCidr(
        "more".into(),
    )));
    assert!(compile(&snapshot, &owner).is_ok());
}

#[test]
fn a_gateway_that_is_being_deleted_gives_out_nothing_more() {
    let mut snapshot = world();
    allocated(&mut snapshot, "before", None).unwrap();
    let mut leaving = EipGateway::clone(snapshot.eip_gateway("g1").unwrap());
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    snapshot.apply(Event::Apply(Object::EipGateway(Arc::new(leaving))));
    for asked in [None, Some("198.51.100.5")] {
        let error = allocated(&mut snapshot, "after", asked).unwrap_err();
        assert!(
            error.contains("EipGateway g1 is being deleted; make the Eip anew"),
            "{error}"
        );
    }
    assert_eq!(
        users(&snapshot, &Owner::EipGateway("g1".into())),
        ["Eip ns/before (198.51.100.3)"]
    );
}

/// Whoever waits for the last Vpc must hear that it is gone, or names another gateway now.
#[test]
fn a_vpc_that_names_a_gateway_concerns_it_when_it_comes_changes_and_goes() {
    let mut snapshot = world();
    let gateway = Owner::EipGateway("g1".into());
    let vpc = |name: Option<&str>| {
        let mut vpc = Vpc::clone(&objects::vpc("tenant", &[]));
        vpc.spec.eip_gateway = name.map(str::to_owned);
        Event::Apply(Object::Vpc(Arc::new(vpc)))
    };
    let gone = Event::Delete(ycloud_compiler::ObjectRef::Vpc("tenant".into()));
    for (event, named) in [
        (vpc(Some("g1")), true),
        (vpc(Some("other")), false),
        (vpc(Some("g1")), true),
        (gone, false),
    ] {
        assert!(snapshot.apply(event).contains(&gateway));
        let named = if named { vec!["Vpc tenant"] } else { vec![] };
        assert_eq!(users(&snapshot, &gateway), named);
    }
}

/// A spec that is refused while Eips hold addresses leaves all as it is: also what others have of the gateway.
#[test]
fn a_gateways_refused_edit_changes_nothing_for_the_vpcs_on_it() {
    let mut snapshot = world();
    let vpc = Owner::Vpc("ovn-cluster".into());
    let backends = [("10.16.0.9".to_owned(), "ready")];
    let slice = objects::slice("ns", "s", "web", &[("TCP", 80)], &backends);
    for object in [
        Object::Vpc(objects::vpc("ovn-cluster", &[])),
        Object::Service(objects::with_eip(
            &objects::service("ns", "web", None, "10.96.0.1", &[("TCP", 80)]),
            true,
            None,
        )),
        Object::EndpointSlice(objects::slice_of_vpc(&slice, "ovn-cluster")),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    allocated(&mut snapshot, "web", None).unwrap();
    let before = compile(&snapshot, &vpc).unwrap();
    let mut edited = EipGateway::clone(snapshot.eip_gateway("g1").unwrap());
    edited.status = Some(
        serde_json::from_value(serde_json::json!({
            "cidr": "198.51.100.0/29", "serviceGateways": [{"index": 1}, {"index": 2}],
        }))
        .unwrap(),
    );
    edited.spec.cidr = "203.0.113.0/29".into();
    edited.spec.gateway = "203.0.113.1".into();
    edited.spec.service_gateways = 1;
    snapshot.apply(Event::Apply(Object::EipGateway(Arc::new(edited))));
    let refused = compile(&snapshot, &Owner::EipGateway("g1".into())).unwrap_err();
    assert!(
        refused.keep && refused.message.contains("Eip ns/web holds 198.51.100.3"),
        "{refused}"
    );
    assert_eq!(compile(&snapshot, &vpc).unwrap(), before);
}

/// A Service of a Vpc with these ports of TCP, that means the Eip `shared`; `created` at this second.
fn sharing(name: &str, vpc: &str, ports: &[i32], created: u32) -> Object {
    let ports: Vec<_> = ports.iter().map(|port| ("TCP", *port)).collect();
    let service = objects::service("ns", name, Some(vpc), "10.96.0.1", &ports);
    let mut service = Service::clone(&objects::with_eip(&service, false, Some("shared")));
    let time = format!("2026-01-01T00:00:{created:02}Z");
    service.metadata.creation_timestamp =
        Some(serde_json::from_value(time.into()).expect("a time"));
    Object::Service(Arc::new(service))
}

/// The Eip `shared`, of which these Services have these ports.
fn shared(ports: &[(i32, &str)]) -> Object {
    let mut eip = objects::eip("ns", "shared", None, None, Some("198.51.100.3"));
    for (port, service) in ports {
        eip = objects::eip_port(&eip, ("TCP", *port), service);
    }
    Object::Eip(eip)
}

/// The ports of the Eip that a Service's load balancers have.
fn ports_at_eip(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let owner = Owner::Service(ObjectKey::new("ns", name));
    let rows = compile(snapshot, &owner).expect("accepted");
    let text = format!(
        "{:?}",
        rows.iter().map(|row| &row.columns).collect::<Vec<_>>()
    );
    let vips = text.match_indices("198.51.100.3:").map(|(at, vip)| {
        let rest = &text[at + vip.len()..];
        rest.chars().take_while(char::is_ascii_digit).collect()
    });
    vips.collect()
}

#[test]
fn who_has_a_port_of_an_eip_keeps_it_when_an_older_service_asks_for_it() {
    let mut snapshot = world();
    for object in [
        sharing("old", "v1", &[80], 1),
        sharing("young", "v1", &[443], 2),
        shared(&[(80, "old"), (443, "young")]),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    assert_eq!(ports_at_eip(&snapshot, "old"), ["80"]);
    assert_eq!(ports_at_eip(&snapshot, "young"), ["443"]);
    snapshot.apply(Event::Apply(sharing("old", "v1", &[80, 443, 8080], 1)));
    assert_eq!(ports_at_eip(&snapshot, "young"), ["443"]);
    assert_eq!(
        ports_at_eip(&snapshot, "old"),
        ["80", "8080"],
        "what it had, and what is free"
    );
    let why = hindrance(&snapshot, &Owner::Service(ObjectKey::new("ns", "old"))).unwrap();
    assert_eq!(why.reason, reason::CONFLICT);
    assert!(
        why.message
            .contains("port 443/TCP of Eip ns/shared is Service ns/young's"),
        "{}",
        why.message
    );
    // Once nobody has it, it is free.
    snapshot.apply(Event::Apply(sharing("young", "v1", &[8443], 2)));
    assert_eq!(ports_at_eip(&snapshot, "old"), ["443", "80", "8080"]);
}

#[test]
fn an_older_service_of_another_vpc_does_not_take_an_eip_that_serves() {
    let mut snapshot = world();
    for object in [
        Object::Vpc(objects::vpc("v2", &[])),
        sharing("young", "v1", &[443], 2),
        shared(&[(443, "young")]),
        sharing("old", "v2", &[80], 1),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    assert_eq!(ports_at_eip(&snapshot, "young"), ["443"]);
    assert_eq!(ports_at_eip(&snapshot, "old"), [""; 0]);
    let why = hindrance(&snapshot, &Owner::Service(ObjectKey::new("ns", "old"))).unwrap();
    assert!(
        why.message.contains("serves Service ns/young"),
        "{}",
        why.message
    );
}

#[test]
fn the_eip_of_a_yusurservice_goes_with_that_and_waits_for_its_service() {
    let mut snapshot = world();
    let owner = serde_json::json!([{"apiVersion": "iaas.yusur.io/v1", "kind": "YusurService", "name": "web", "uid": "7", "controller": true}]);
    let mut made = Service::clone(&service("web", None));
    made.metadata.owner_references = serde_json::from_value(owner).unwrap();
    snapshot.apply(Event::Apply(Object::Service(Arc::new(made))));
    let key = ObjectKey::new("ns", "web");
    let mut eip = wanted_eip(&snapshot, &key).expect("an Eip to be made");
    let owners = eip.metadata.owner_references.clone().unwrap();
    assert_eq!(
        (owners[0].kind.as_str(), owners[0].uid.as_str()),
        ("YusurService", "7")
    );
    eip.status = objects::eip("ns", "web", None, None, Some("198.51.100.3"))
        .status
        .clone();
    snapshot.apply(Event::Apply(Object::Eip(Arc::new(eip))));
    let owner = Owner::Eip(key);
    assert_eq!(users(&snapshot, &owner), ["Service ns/web"]);
}

#[test]
fn who_moves_to_another_vpc_does_not_take_a_shared_eip_along() {
    let Object::Eip(eip) = shared(&[(80, "old"), (443, "young")]) else {
        panic!("an Eip")
    };
    let mut eip = Eip::clone(&eip);
    eip.status.as_mut().expect("a status").vpc = Some("v1".to_owned());
    let mut snapshot = world();
    for object in [
        Object::Vpc(objects::vpc("v2", &[])),
        sharing("old", "v1", &[80], 1),
        sharing("young", "v1", &[443], 2),
        Object::Eip(Arc::new(eip)),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    snapshot.apply(Event::Apply(sharing("old", "v2", &[80], 1)));
    assert_eq!(ports_at_eip(&snapshot, "young"), ["443"]);
    assert_eq!(ports_at_eip(&snapshot, "old"), [""; 0]);
}

/// The EipGateway, as it was accepted with this range and own address.
fn accepted(gateway: &EipGateway, cidr: &str, address: &str) -> Object {
    let mut gateway = EipGateway::clone(&objects::eip_gateway_in_force(gateway, cidr));
    gateway.status.as_mut().expect("a status").address = Some(address.to_owned());
    Object::EipGateway(Arc::new(gateway))
}

#[test]
fn a_gateway_whose_edit_is_refused_keeps_its_range_from_others() {
    let gateway = |name: &str, cidr: &str, created| {
        EipGateway::clone(&objects::eip_gateway(name, cidr, false, created))
    };
    let mut old = gateway("g1", "198.51.100.0/24", 1);
    old.spec.exclude_ips = vec!["10.0.0.1".to_owned()];
    let young = gateway("g2", "198.51.100.0/25", 2);
    let snapshot = snapshot([
        accepted(&old, "198.51.100.0/24", "198.51.100.2/24"),
        Object::EipGateway(Arc::new(young)),
    ]);
    let why = compile(&snapshot, &Owner::EipGateway("g1".into())).unwrap_err();
    assert!(
        why.keep && why.message.contains("excludeIPs"),
        "{}",
        why.message
    );
    let why = compile(&snapshot, &Owner::EipGateway("g2".into())).unwrap_err();
    assert!(
        !why.keep && why.message.contains("EipGateway g1"),
        "{}",
        why.message
    );
}

/// `spec.allowedNamespaces` of `other`, whether that is the default EipGateway, and whether Eips of `ns`, new ones and
/// those that hold an address, are refused.
const PERMITTED: &[(&str, bool, bool, bool)] = &[
    // (allowedNamespaces, default, new refused, held refused)
    ("null", false, true, false),
    ("null", true, false, false),
    ("{}", false, true, true),
    ("{}", true, true, true),
    (r#"{"names": ["ns"]}"#, false, false, false),
    (r#"{"names": ["else"]}"#, false, true, true),
    (r#"{"selector": {}}"#, false, false, false),
    (
        r#"{"selector": {"matchLabels": {"team": "a"}}}"#,
        false,
        false,
        false,
    ),
    (
        r#"{"selector": {"matchLabels": {"team": "b"}}}"#,
        false,
        true,
        true,
    ),
];

#[test]
fn an_eip_gateway_permits_whom_it_names_and_the_default_one_everybody_unless_it_names_somebody() {
    for &(allowed, default, new_refused, held_refused) in PERMITTED {
        let mut snapshot = world();
        let labels = objects::namespace("ns", &[("team", "a")]);
        snapshot.apply(Event::Apply(Object::Namespace(labels)));
        let gateway = objects::eip_gateway("other", "203.0.113.0/24", default, 2);
        let gateway =
            objects::eip_gateway_for(&gateway, serde_json::from_str(allowed).expect("JSON"));
        snapshot.apply(Event::Apply(Object::EipGateway(gateway)));
        let new = objects::eip("ns", "new", Some("other"), None, None);
        snapshot.apply(Event::Apply(Object::Eip(new.clone())));
        let refused = allocate_eip(&snapshot, &new).err();
        let reason = refused.as_ref().map(|refused| refused.reason);
        let expected = new_refused.then_some(reason::NOT_PERMITTED);
        assert_eq!(reason, expected, "{allowed} {default}: {refused:?}");
        let held = objects::eip("ns", "held", Some("other"), None, Some("203.0.113.9"));
        snapshot.apply(Event::Apply(Object::Eip(held)));
        let compiled = compile(&snapshot, &Owner::Eip(ObjectKey::new("ns", "held")));
        let refused = compiled.err();
        let reason = refused.as_ref().map(|refused| refused.reason);
        let expected = held_refused.then_some(reason::NOT_PERMITTED);
        assert_eq!(reason, expected, "{allowed} {default}: {refused:?}");
    }
}

/// A tenant names another's Vpc in its Services. They are refused, and that Vpc does not know of them.
#[test]
fn who_may_not_use_a_vpc_leaves_nothing_in_it_and_does_not_hold_it() {
    let mut snapshot = world();
    let vpc = objects::vpc("v1", &["good"]);
    snapshot.apply(Event::Apply(Object::Vpc(vpc.clone())));
    let owner = Owner::Vpc("v1".into());
    let before = compile(&snapshot, &owner).expect("rows");
    let ports = &[("TCP", 80)];
    let own = objects::service("bad", "own", Some("v1"), "10.96.0.1", ports);
    let over = objects::service("bad", "over", None, "10.96.0.2", ports);
    let over = objects::with_eip(&over, true, None);
    let endpoints = [("10.0.1.5".to_owned(), "ready")];
    let slice = objects::slice("bad", "over", "over", ports, &endpoints);
    let slice = objects::slice_of_vpc(&slice, "v1");
    let eip = objects::eip("bad", "over", None, None, Some("198.51.100.4"));
    for object in [
        Object::Service(own),
        Object::Service(over),
        Object::EndpointSlice(slice),
        Object::Eip(eip),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    for service in ["own", "over"] {
        let refused = compile(&snapshot, &Owner::Service(ObjectKey::new("bad", service)));
        let refused = refused.expect_err(service);
        assert_eq!(refused.reason, reason::NOT_PERMITTED, "{service}");
    }
    assert_eq!(compile(&snapshot, &owner).expect("rows"), before);
    assert_eq!(users(&snapshot, &owner), Vec::<String>::new());

    let vpc = objects::vpc("v1", &["good", "bad"]);
    let named = snapshot.apply(Event::Apply(Object::Vpc(vpc)));
    assert!(named.contains(&Owner::Service(ObjectKey::new("bad", "over"))));
    assert_ne!(compile(&snapshot, &owner).expect("rows"), before);
    let held = users(&snapshot, &owner);
    assert_eq!(held, ["Service bad/own", "Service bad/over"]);
}
