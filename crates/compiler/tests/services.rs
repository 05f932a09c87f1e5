//! Services: their load balancers, their digest, and who may have one where.

#[path = "services/families.rs"]
mod families;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, SessionAffinityConfig};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::objects::{self, from};
use ycloud_api::condition::reason;
use ycloud_compiler::snapshot::Chassis;
use ycloud_compiler::{
    Event, Object, ObjectKey, ObjectRef, Owner, Rejection, Row, Settings, Snapshot, compile,
    digest, hindrance,
};
use ycloud_ovsdb::Datum;

fn key() -> ObjectKey {
    ObjectKey::new("ns1", "a")
}

fn rows(objects: Vec<Object>) -> Result<Vec<Row>, Rejection> {
    let mut snapshot = Snapshot::new(Settings::default());
    for object in objects {
        snapshot.apply(Event::Apply(object));
    }
    compile(&snapshot, &Owner::Service(key()))
}

fn vips(row: &Row) -> BTreeMap<String, String> {
    let map = row
        .columns
        .get("vips")
        .and_then(Datum::as_map)
        .expect("vips");
    let text = |atom: &ycloud_ovsdb::Atom| atom.as_str().expect("a string").to_owned();
    map.iter()
        .map(|(vip, backends)| (text(vip), text(backends)))
        .collect()
}

fn service(spec: Value) -> Object {
    Object::Service(from(json!({
        "metadata": {"namespace": "ns1", "name": "a", "annotations": {"iaas.yusur.io/vpc": "v1"}}, "spec": spec,
    })))
}

fn slice(value: Value) -> Object {
    Object::EndpointSlice(from(value))
}

fn v1() -> Object {
    Object::Vpc(objects::vpc("v1", &[]))
}

#[test]
fn an_unnamed_port_meets_an_unnamed_port_and_the_default_protocol() {
    let service = service(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    let slice = slice(json!({
        "metadata": {"namespace": "ns1", "name": "s", "labels": {"kubernetes.io/service-name": "a"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}, {"name": "other", "port": 1}, {"port": null}],
        "endpoints": [{"addresses": ["10.0.0.10"]}, {"addresses": ["10.0.0.9", "10.0.0.99"], "conditions": {}}],
    }));
    let rows = rows(vec![v1(), service, slice]).unwrap();
    assert_eq!(rows.len(), 1);
    let expected = [(
        "10.96.0.1:80".to_owned(),
        "10.0.0.9:8080,10.0.0.10:8080".to_owned(),
    )];
    assert_eq!(vips(&rows[0]), BTreeMap::from(expected));
}

#[test]
fn endpoints_of_another_vpc_do_not_count() {
    let service = service(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    let make = |name: &str, vpc: &str, address: &str| {
        slice(json!({
            "metadata": {"namespace": "ns1", "name": name, "labels": {"kubernetes.io/service-name": "a", "iaas.yusur.io/vpc": vpc}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [address]}],
        }))
    };
    let rows = rows(vec![
        v1(),
        service,
        make("s", "v1", "10.0.0.1"),
        make("t", "v2", "10.0.0.2"),
    ])
    .unwrap();
    assert_eq!(vips(&rows[0])["10.96.0.1:80"], "10.0.0.1:8080");
}

/// A Service of the default Vpc whose only endpoint is on node n1's own network, and one that has none there.
fn on_a_node() -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    let at = |ip: &str| vec![(ip.to_owned(), "ready")];
    for object in [
        Object::Vpc(objects::vpc("ovn-cluster", &[])),
        Object::Service(objects::service("ns1", "a", None, "10.96.0.1", &PORTS[..1])),
        Object::EndpointSlice(objects::slice(
            "ns1",
            "s",
            "a",
            &PORTS[..1],
            &at("172.31.0.1"),
        )),
        Object::Service(objects::service("ns1", "b", None, "10.96.0.2", &PORTS[..1])),
        Object::EndpointSlice(objects::slice(
            "ns1",
            "t",
            "b",
            &PORTS[..1],
            &at("10.16.0.5"),
        )),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    snapshot
}

#[test]
fn an_endpoint_on_a_node_is_reached_at_the_join_address() {
    let mut snapshot = on_a_node();
    let backends = |snapshot: &Snapshot| {
        let rows = compile(snapshot, &Owner::Service(key())).unwrap();
        vips(&rows[0])["10.96.0.1:80"].clone()
    };
    let node = |ip: &str| Event::Apply(Object::Node(objects::node("n1", ip)));
    let vnic = |ip: &str| Event::Apply(Object::VNic(objects::node_vnic("n1", ip)));
    let gone = Event::Delete(ObjectRef::VNic(ObjectKey::new("ycloud-system", "n1")));
    let steps = [
        (node("172.31.0.1"), "172.31.0.1:1080"),
        (vnic("100.64.0.2"), "100.64.0.2:1080"),
        (node("172.31.0.9"), "172.31.0.1:1080"),
        (node("172.31.0.1"), "100.64.0.2:1080"),
        (vnic("100.64.0.3"), "100.64.0.3:1080"),
        (gone, "172.31.0.1:1080"),
    ];
    let mut before = backends(&snapshot);
    for (event, expected) in steps {
        let named = snapshot.apply(event.clone());
        assert_eq!(backends(&snapshot), expected, "{event:?}");
        let other = Owner::Service(ObjectKey::new("ns1", "b"));
        assert!(
            !named.contains(&other),
            "{event:?} concerns only who is on the node"
        );
        assert!(
            before == expected || named.contains(&Owner::Service(key())),
            "{event:?} names the Service"
        );
        before = expected.to_owned();
    }
}

#[test]
fn two_slices_may_have_the_same_node_and_one_may_go() {
    let mut snapshot = on_a_node();
    let second = [("172.31.0.1".to_owned(), "ready")];
    let second = objects::slice("ns1", "s2", "a", PORTS, &second);
    snapshot.apply(Event::Apply(Object::EndpointSlice(second)));
    let gone = ObjectRef::EndpointSlice(ObjectKey::new("ns1", "s2"));
    snapshot.apply(Event::Delete(gone));
    let node = Event::Apply(Object::Node(objects::node("n1", "172.31.0.1")));
    assert!(snapshot.apply(node).contains(&Owner::Service(key())));
}

/// The variables of a node's chassis: those that have backends, and how many refuse.
fn variables(snapshot: &Snapshot, node: &str) -> (Vec<String>, usize) {
    let rows = compile(snapshot, &Owner::Node(node.to_owned())).expect("a Node is never refused");
    let of_chassis = rows.iter().find(|row| row.table == "Chassis_Template_Var");
    let map = of_chassis.and_then(|row| row.columns.get("variables")?.as_map());
    let text = |atom: &ycloud_ovsdb::Atom| atom.as_str().expect("a string").to_owned();
    let all: Vec<(String, String)> = map
        .into_iter()
        .flat_map(|map| map.iter())
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let (backends, refused): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(name, _)| name.starts_with("backends_"));
    (
        backends.into_iter().map(|(_, value)| value).collect(),
        refused.len(),
    )
}

#[test]
fn an_internal_policy_of_local_gives_each_node_its_own_endpoints() {
    let mut snapshot = Snapshot::new(Settings::default());
    let node = |name: &str| Owner::Node(name.to_owned());
    let slice_on = |ip: &str, state, name| {
        let slice = objects::slice("ns1", "s", "a", &PORTS[..1], &[(ip.to_owned(), state)]);
        Event::Apply(Object::EndpointSlice(objects::slice_on(&slice, name)))
    };
    for (name, ip) in [("n1", "172.31.0.1"), ("n2", "172.31.0.2")] {
        snapshot.apply(Event::Apply(Object::Node(objects::node(name, ip))));
    }
    let service = objects::service_local("ns1", "a", "10.96.0.1", &PORTS[..1]);
    let named = snapshot.apply(Event::Apply(Object::Service(service.clone())));
    assert!(named.contains(&node("n1")) && named.contains(&node("n2")));
    assert_eq!(variables(&snapshot, "n1"), (vec![], 1));

    let named = snapshot.apply(slice_on("10.16.0.5", "ready", "n1"));
    assert!(named.contains(&node("n1")) && !named.contains(&node("n2")));
    let own = vec!["10.16.0.5:1080".to_owned()];
    assert_eq!(variables(&snapshot, "n1"), (own, 0));
    assert_eq!(variables(&snapshot, "n2"), (vec![], 1));

    let digest = snapshot.digest(&key());
    let named = snapshot.apply(slice_on("10.16.0.5", "draining", "n2"));
    assert!(named.contains(&node("n1")) && named.contains(&node("n2")));
    assert_eq!(variables(&snapshot, "n1"), (vec![], 1));
    let own = vec!["10.16.0.5:1080".to_owned()];
    assert_eq!(variables(&snapshot, "n2"), (own, 0));
    assert_ne!(snapshot.digest(&key()), digest);

    let gone = ObjectRef::Service(key());
    let named = snapshot.apply(Event::Delete(gone));
    assert!(named.contains(&node("n1")) && named.contains(&node("n2")));
    assert_eq!(variables(&snapshot, "n1"), (vec![], 0));
}

/// An ovn-controller whose row goes and comes again while it has variables ends with a failed assertion.
#[test]
fn the_row_of_variables_lives_as_long_as_the_node_or_its_chassis() {
    let mut snapshot = Snapshot::new(Settings::default());
    let node = Owner::Node("n1".to_owned());
    let tables = |snapshot: &Snapshot| {
        let rows = compile(snapshot, &node).expect("a Node is never refused");
        let of_chassis = |row: &&Row| row.table == "Chassis_Template_Var";
        (rows.len(), rows.iter().filter(of_chassis).count())
    };
    let chassis = Chassis {
        name: "n1".to_owned(),
        ..Chassis::default()
    };
    let appear = Event::Apply(Object::Node(objects::node("n1", "172.31.0.1")));
    assert!(snapshot.apply(appear).contains(&node));
    assert_eq!(tables(&snapshot), (2, 1), "without any Service");
    let live = Event::Apply(Object::Chassis(chassis));
    assert!(snapshot.apply(live).contains(&node));
    let gone = Event::Delete(ObjectRef::Node("n1".to_owned()));
    assert!(snapshot.apply(gone).contains(&node));
    assert_eq!(tables(&snapshot), (1, 1), "the chassis lives");
    assert!(snapshot.owners().contains(&node));
    assert_eq!(variables(&snapshot, "n1"), (vec![], 0));
    let gone = Event::Delete(ObjectRef::Chassis("n1".to_owned()));
    assert!(snapshot.apply(gone).contains(&node));
    assert_eq!(tables(&snapshot), (0, 0));
}

/// Open vSwitch in user space before 3.2 sends the packet to the right address and the wrong port.
#[test]
fn another_port_of_sctp_is_not_supported_where_a_chassis_does_not_translate_it() {
    let chassis = |name: &str, without_sctp_ports| {
        Event::Apply(Object::Chassis(Chassis {
            name: name.to_owned(),
            without_sctp_ports,
            ..Chassis::default()
        }))
    };
    let owner = Owner::Service(key());
    for (protocol, there, supported) in [
        ("SCTP", 132, true),
        ("SCTP", 1132, false),
        ("TCP", 1132, true),
    ] {
        let mut snapshot = Snapshot::new(Settings::default());
        let ports = json!([{"name": "p", "protocol": protocol, "port": 132, "targetPort": there}]);
        for object in [
            v1(),
            service(json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": ports})),
            slice(json!({
                "metadata": {"namespace": "ns1", "name": "a-1", "labels": {"kubernetes.io/service-name": "a"}},
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.1.1"]}],
                "ports": [{"name": "p", "protocol": protocol, "port": there}],
            })),
        ] {
            snapshot.apply(Event::Apply(object));
        }
        snapshot.apply(chassis("n1", false));
        assert_eq!(hindrance(&snapshot, &owner), None);
        let named = snapshot.apply(chassis("n2", true)).contains(&owner);
        assert_eq!(named, protocol == "SCTP", "the Service's status may change");
        let said = hindrance(&snapshot, &owner);
        assert_eq!(said.is_none(), supported, "{protocol} {there}: {said:?}");
        if let Some(said) = said {
            assert_eq!(said.reason, reason::NOT_SUPPORTED);
            for word in ["ns1/a", "132", "1132", "n2"] {
                assert!(said.message.contains(word), "{word}: {}", said.message);
            }
        }
        assert!(compile(&snapshot, &owner).is_ok(), "its other ports serve");
        let named = snapshot.apply(chassis("n2", false)).contains(&owner);
        assert_eq!(named, protocol == "SCTP");
        assert_eq!(hindrance(&snapshot, &owner), None);
    }
}

#[test]
fn services_without_a_cluster_address_have_no_rows() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
        json!({"ports": [{"port": 80}]}),
        json!({"clusterIP": "10.96.0.1"}),
    ] {
        assert_eq!(
            rows(vec![v1(), service(spec.clone())]),
            Ok(Vec::new()),
            "{spec}"
        );
    }
}

#[test]
fn a_thousand_ports_are_one_row() {
    let ports: Vec<Value> = (1..=1000)
        .map(|n| json!({"name": format!("p{n}"), "port": n, "protocol": "UDP"}))
        .collect();
    let targets: Vec<Value> = (1..=1000)
        .map(|n| json!({"name": format!("p{n}"), "port": n + 1000, "protocol": "UDP"}))
        .collect();
    let slice = slice(json!({
        "metadata": {"namespace": "ns1", "name": "s", "labels": {"kubernetes.io/service-name": "a"}}, "addressType": "IPv4",
        "ports": targets, "endpoints": [{"addresses": ["10.0.0.9"]}],
    }));
    let rows = rows(vec![
        v1(),
        service(json!({"clusterIP": "10.96.0.1", "ports": ports})),
        slice,
    ])
    .unwrap();
    assert_eq!(rows.len(), 1);
    let vips = vips(&rows[0]);
    assert_eq!(vips.len(), 1000);
    assert_eq!(vips["10.96.0.1:777"], "10.0.0.9:1777");
}

#[test]
fn a_service_is_refused_where_its_vpc_is_missing_or_does_not_permit_it() {
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    let missing = rows(vec![service(spec.clone())]).unwrap_err();
    assert_eq!((missing.reason, missing.keep), (reason::NOT_FOUND, false));
    for words in ["Service ns1/a", "Vpc v1", "iaas.yusur.io/vpc", "create it"] {
        assert!(missing.message.contains(words), "{}", missing.message);
    }
    let closed = Object::Vpc(objects::vpc("v1", &["ns2"]));
    let refused = rows(vec![closed, service(spec.clone())]).unwrap_err();
    assert_eq!(refused.reason, reason::NOT_PERMITTED);
    assert!(
        refused.message.contains("namespace ns1")
            && refused.message.contains("spec.allowedNamespaces"),
        "{}",
        refused.message
    );
    let open = Object::Vpc(objects::vpc("v1", &["ns2", "ns1"]));
    assert_eq!(rows(vec![open, service(spec)]).unwrap().len(), 1);
}

#[test]
fn labels_of_the_namespace_can_permit_it() {
    let service = || service(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    let permitted = |selector: Value, labels: &[(&str, &str)]| {
        let vpc = json!({
            "apiVersion": "iaas.yusur.io/v1", "kind": "Vpc", "metadata": {"name": "v1"}, "spec": {"allowedNamespaces": {"selector": selector}},
        });
        let namespace = Object::Namespace(objects::namespace("ns1", labels));
        rows(vec![Object::Vpc(from(vpc)), namespace, service()]).is_ok()
    };
    let expression = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]});
    assert!(permitted(json!({}), &[]));
    assert!(permitted(
        json!({"matchLabels": {"team": "a"}}),
        &[("team", "a"), ("x", "y")]
    ));
    assert!(!permitted(
        json!({"matchLabels": {"team": "a"}}),
        &[("team", "b")]
    ));
    assert!(permitted(expression("In", &["a", "b"]), &[("team", "b")]));
    assert!(!permitted(expression("In", &["a", "b"]), &[]));
    assert!(permitted(expression("NotIn", &["a"]), &[]));
    assert!(!permitted(expression("NotIn", &["a"]), &[("team", "a")]));
    assert!(permitted(expression("Exists", &[]), &[("team", "")]));
    assert!(!permitted(expression("Exists", &[]), &[]));
    assert!(permitted(expression("DoesNotExist", &[]), &[]));
    assert!(!permitted(expression("Near", &["a"]), &[("team", "a")]));
}

type Endpoints = Vec<(String, &'static str)>;

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let state = prop::sample::select(&["ready", "ready", "unready", "draining"][..]);
    proptest::collection::btree_map(1u8..30, state, 0..12).prop_map(|all| {
        all.into_iter()
            .map(|(n, state)| (format!("10.0.1.{n}"), state))
            .collect()
    })
}

const PORTS: &[(&str, i32)] = &[("TCP", 80), ("UDP", 53)];

fn split(endpoints: &Endpoints, parts: usize) -> Vec<Arc<EndpointSlice>> {
    let part = |at: usize| -> Endpoints {
        endpoints
            .iter()
            .skip(at)
            .step_by(parts)
            .rev()
            .cloned()
            .collect()
    };
    (0..parts)
        .map(|at| objects::slice("ns1", &format!("s{at}"), "a", PORTS, &part(at)))
        .collect()
}

/// What rows balance. Which backends drain is in them too, but nobody waits for it: a digest does not tell.
fn balanced(rows: &[Row]) -> Vec<BTreeMap<String, String>> {
    rows.iter().map(vips).collect()
}

fn digest_of(service: &Service, slices: &[Arc<EndpointSlice>]) -> String {
    digest(service, &slices.iter().map(Arc::as_ref).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn a_digest_says_the_same_of_the_same_endpoints_however_they_are_split(all in endpoints(), parts in 1usize..5) {
        let service = objects::service("ns1", "a", Some("v1"), "10.96.0.1", PORTS);
        let whole = digest_of(&service, &split(&all, 1));
        prop_assert_eq!(whole.len(), 16);
        prop_assert!(whole.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()));
        let mut slices = split(&all, parts);
        prop_assert_eq!(&digest_of(&service, &slices), &whole);
        slices.reverse();
        prop_assert_eq!(&digest_of(&service, &slices), &whole);

        let mut snapshot = Snapshot::new(Settings::default());
        snapshot.apply(Event::Apply(Object::Service(service)));
        for slice in slices {
            snapshot.apply(Event::Apply(Object::EndpointSlice(slice)));
        }
        prop_assert_eq!(snapshot.digest(&key()), Some(whole));
    }

    #[test]
    fn a_digest_differs_exactly_where_the_rows_do(one in endpoints(), other in endpoints()) {
        let service = objects::service("ns1", "a", Some("v1"), "10.96.0.1", PORTS);
        let compiled = |all: &Endpoints| {
            let mut objects = vec![v1(), Object::Service(service.clone())];
            objects.extend(split(all, 2).into_iter().map(Object::EndpointSlice));
            balanced(&rows(objects).unwrap())
        };
        let (a, b) = (digest_of(&service, &split(&one, 1)), digest_of(&service, &split(&other, 1)));
        prop_assert_eq!(a == b, compiled(&one) == compiled(&other));
    }
}

#[test]
fn a_digest_tells_vpc_affinity_ports_and_address() {
    let mut seen = std::collections::BTreeSet::new();
    let base = |vpc, ip, ports: &[(&str, i32)]| objects::service("ns1", "a", Some(vpc), ip, ports);
    let mut sticky = base("v1", "10.96.0.1", PORTS);
    if let Some(spec) = &mut Arc::make_mut(&mut sticky).spec {
        spec.session_affinity = Some("ClientIP".to_owned());
    }
    let mut timed = sticky.clone();
    if let Some(spec) = &mut Arc::make_mut(&mut timed).spec {
        let seconds = Some(60);
        let client_ip = Some(ClientIPConfig {
            timeout_seconds: seconds,
        });
        spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
    }
    for service in [
        base("v1", "10.96.0.1", PORTS),
        base("v2", "10.96.0.1", PORTS),
        base("v1", "10.96.0.2", PORTS),
        base("v1", "10.96.0.1", &PORTS[..1]),
        sticky,
        timed,
    ] {
        assert!(seen.insert(digest_of(&service, &[])), "{service:?}");
    }
}

#[test]
fn a_digest_tells_which_eip_a_service_asks_for_and_who_may_use_it() {
    let mut seen = std::collections::BTreeSet::new();
    let annotations = [
        json!({}),
        json!({"iaas.yusur.io/eip": "web"}),
        json!({"iaas.yusur.io/eip-gateway": "web"}),
    ];
    let specs = [
        json!({}),
        json!({"type": "LoadBalancer", "loadBalancerClass": "iaas.yusur.io/eip"}),
        json!({"type": "LoadBalancer", "loadBalancerClass": "iaas.yusur.io/eip",
               "loadBalancerSourceRanges": ["203.0.113.0/24"]}),
    ];
    for spec in &specs {
        for annotations in &annotations {
            let mut service = json!({
                "metadata": {"namespace": "ns1", "name": "a", "annotations": annotations},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
            });
            for (name, value) in spec.as_object().expect("an object") {
                service["spec"][name] = value.clone();
            }
            seen.insert(digest_of(&from(service), &[]));
        }
    }
    // Without an EIP the annotations mean nothing.
    assert_eq!(seen.len(), 1 + 2 * annotations.len());
}

#[test]
fn a_service_that_takes_an_eip_names_the_one_to_be_made_for_it() {
    let mut snapshot = Snapshot::new(Settings::default());
    snapshot.apply(Event::Apply(v1()));
    let plain = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    let made = Owner::Eip(key());
    let mut concerned = |spec: &Value| snapshot.apply(Event::Apply(service(spec.clone())));
    assert!(!concerned(&plain).contains(&made));
    let mut outside = plain;
    outside["type"] = json!("LoadBalancer");
    outside["loadBalancerClass"] = json!("iaas.yusur.io/eip");
    assert!(concerned(&outside).contains(&made));
}

#[test]
fn what_of_a_service_has_no_effect_is_said() {
    let plain = objects::service("ns", "web", None, "10.96.0.1", &[("TCP", 80)]);
    let balancer = |class: Option<&str>, more: Value| {
        let mut service = serde_json::to_value(&*plain).expect("a Service");
        service["spec"]["type"] = json!("LoadBalancer");
        service["spec"]["loadBalancerClass"] = json!(class);
        for (field, value) in more.as_object().expect("fields") {
            service[field]
                .as_object_mut()
                .map(|of| of.extend(value.as_object().expect("an object").clone()))
                .unwrap_or_else(|| service[field] = value.clone());
        }
        serde_json::from_value::<Service>(service).expect("a Service")
    };
    let ours = Some("iaas.yusur.io/eip");
    let served = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    let made = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "iaas.yusur.io/v1", "kind": "YusurService", "name": "web", "uid": "u", "controller": true}
    ]}});
    let local = json!({"spec": {"externalTrafficPolicy": "Local", "loadBalancerIP": "192.0.2.1"}});
    let cases = [
        (
            balancer(None, json!({})),
            &["without spec.loadBalancerClass", "iaas.yusur.io/eip"][..],
        ),
        (
            balancer(None, local.clone()),
            &["without spec.loadBalancerClass"],
        ),
        (
            balancer(ours, local.clone()),
            &[
                "spec.loadBalancerIP 192.0.2.1",
                "externalTrafficPolicy Local",
            ],
        ),
        // It has an address of another load balancer, or is to have one, or nobody is to serve it.
        (balancer(None, served), &[]),
        (balancer(Some("example.com/lb"), local), &[]),
        (balancer(None, headless), &[]),
        (balancer(None, made), &[]),
        (balancer(ours, json!({})), &[]),
        (Service::clone(&plain), &[]),
    ];
    for (service, words) in cases {
        let said = ycloud_compiler::validate::service::ignored(&service);
        match words {
            [] => assert_eq!(said, None, "{service:?}"),
            words => {
                let said = said.unwrap_or_else(|| panic!("nothing is said of {service:?}"));
                assert!(words.iter().all(|word| said.contains(word)), "{said}");
            }
        }
    }
}
