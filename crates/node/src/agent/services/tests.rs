//! A Service and its EndpointSlices → rules and the lines of the kernel's table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::facts::NodeAddresses;
use super::world::{Change, Delta, World};
use super::{facts, table::Table};

const NODE: &str = "node-1";

fn key(name: &str) -> (String, String) {
    ("ns".into(), name.into())
}

fn world() -> World {
    let mut world = World::new(NODE);
    world.apply(Change::Services(Delta::All(BTreeMap::new())));
    world.apply(Change::Slices(Delta::All(BTreeMap::new())));
    let node = |name: &str, ip: &str| {
        let internal = vec![ip.parse().unwrap()];
        let of_node = NodeAddresses {
            internal,
            ..Default::default()
        };
        ((String::new(), name.to_owned()), of_node)
    };
    let nodes = [node(NODE, "172.18.0.2"), node("node-2", "172.18.0.3")];
    world.apply(Change::Nodes(Delta::All(nodes.into())));
    let ranges = ["10.16.0.0/16", "100.64.0.0/16"].map(|range| range.parse().unwrap());
    world.set_default_vpc(ranges.into());
    world
}

/// `spec` over a Service of type NodePort with port 80 and node port 30080.
fn service(world: &mut World, name: &str, spec: Value, status: Value) {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]},
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    let part = facts::service(&serde_json::from_value(object).unwrap());
    world.apply(Change::Services(Delta::One(key(name), part)));
}

fn slice(world: &mut World, name: &str, endpoints: &[(&str, &str)], ready: bool) {
    let ipv6 = endpoints.iter().any(|(ip, _)| ip.contains(':'));
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, node)| {
            let conditions = json!({"ready": ready, "serving": true, "terminating": !ready});
            json!({"addresses": [ip], "nodeName": node, "conditions": conditions})
        })
        .collect();
    let object = json!({
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": if ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    });
    let part = facts::slice(&serde_json::from_value(object).unwrap());
    world.apply(Change::Slices(Delta::One(key(name), part)));
}

fn table(world: &mut World) -> Table {
    world.settle();
    world.table()
}

fn script(world: &mut World) -> String {
    table(world).whole()
}

const PODS: [(&str, &str); 2] = [("10.16.0.5", NODE), ("10.16.0.6", "node-2")];

fn has(script: &str, lines: &[&str]) {
    for line in lines {
        assert!(script.contains(line), "no {line:?} in\n{script}");
    }
}

#[test]
fn what_is_called_at_the_node_goes_to_the_cluster_address() {
    let mut world = world();
    let spec = json!({"externalIPs": ["192.0.2.7"]});
    service(
        &mut world,
        "web",
        spec,
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}}),
    );
    slice(&mut world, "a", &PODS, true);
    let script = script(&mut world);
    has(
        &script,
        &[
            "node-ports { tcp . 30080 : 10.96.0.9 . 80 }",
            "addresses { 192.0.2.7 . tcp . 80 : 10.96.0.9 . 80, 192.0.2.8 . tcp . 80 : 10.96.0.9 . 80 }",
        ],
    );
    assert!(!script.contains("goto"), "{script}");
    assert!(world.outside().is_empty());
}

#[test]
fn endpoints_outside_are_reached_by_the_node_itself() {
    let mut world = world();
    service(
        &mut world,
        "web",
        json!({"sessionAffinity": "ClientIP"}),
        Value::Null,
    );
    slice(
        &mut world,
        "a",
        &[("172.18.0.200", ""), ("10.16.0.5", NODE)],
        true,
    );
    has(
        &script(&mut world),
        &[
            "cluster/ns/web/tcp/80 meta l4proto tcp dnat to jhash ip saddr mod 2 seed 0x1 map { 0 : 10.16.0.5 . 8080, 1 : 172.18.0.200 . 8080 }",
            "address-chains { 10.96.0.9 . tcp . 80 : goto cluster/ns/web/tcp/80 }",
            "node-port-chains { tcp . 30080 : goto cluster/ns/web/tcp/80 }",
            // Not the Pod of this node.
            "elsewhere { 172.18.0.200 . tcp . 8080 }",
        ],
    );
    assert_eq!(world.outside(), ["10.96.0.9".parse().unwrap()].into());
    // A node's address is none: OVN has it at the node's join address.
    slice(&mut world, "a", &[("172.18.0.3", "node-2")], true);
    assert!(!script(&mut world).contains("goto"));
    world.apply(Change::Nodes(Delta::One(
        (String::new(), "node-2".into()),
        None,
    )));
    assert!(script(&mut world).contains("goto"));
}

#[test]
fn external_traffic_policy_local_asks_this_node_s_endpoints_first() {
    let mut world = world();
    let spec = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000});
    service(&mut world, "web", spec, Value::Null);
    slice(&mut world, "a", &PODS, true);
    has(
        &script(&mut world),
        &[
            "local/ns/web/tcp/80 meta l4proto tcp dnat to 10.16.0.5:8080",
            "outer-node-ports { tcp . 30080 : goto local/ns/web/tcp/80 }",
            "node-ports { tcp . 30080 : 10.96.0.9 . 80 }",
        ],
    );
    assert_eq!(world.health_checks()[&key("web")], (31000, 1));
    slice(&mut world, "a", &PODS[..1], false);
    has(
        &script(&mut world),
        &["local/ns/web/tcp/80 meta l4proto tcp dnat to 10.16.0.5:8080"],
    );
    assert_eq!(
        world.health_checks()[&key("web")],
        (31000, 0),
        "terminating"
    );
    slice(&mut world, "a", &PODS[1..], true);
    has(&script(&mut world), &["local/ns/web/tcp/80 drop"]);
}

#[test]
fn internal_traffic_policy_local_does_not_bind_clients_from_outside() {
    let mut world = world();
    service(
        &mut world,
        "web",
        json!({"internalTrafficPolicy": "Local"}),
        Value::Null,
    );
    slice(&mut world, "a", &PODS, true);
    let script = script(&mut world);
    has(
        &script,
        &["node-port-chains { tcp . 30080 : goto cluster/ns/web/tcp/80 }"],
    );
    assert!(
        !script.contains("element ip ycloud-services address-chains"),
        "{script}"
    );
}

#[test]
fn source_ranges_bind_clients_of_the_load_balancer() {
    let mut world = world();
    let spec = json!({"loadBalancerSourceRanges": ["203.0.113.0/24", "203.0.113.128/25"]});
    service(
        &mut world,
        "web",
        spec,
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}}),
    );
    has(
        &script(&mut world),
        &[
            "restricted/ns/web/tcp/80 ip saddr != { 203.0.113.0/24 } drop",
            "restricted/ns/web/tcp/80 meta l4proto tcp dnat to 10.96.0.9:80",
            "outer-addresses { 192.0.2.8 . tcp . 80 : goto restricted/ns/web/tcp/80 }",
        ],
    );
}

#[test]
fn of_two_that_claim_one_address_the_older_has_it() {
    let mut world = world();
    for (name, ip) in [("b", "10.96.0.2"), ("a", "10.96.0.1")] {
        let spec = json!({"externalIPs": ["192.0.2.7"], "clusterIP": ip, "ports": [{"port": 80}]});
        service(&mut world, name, spec, Value::Null);
    }
    has(
        &script(&mut world),
        &["{ 192.0.2.7 . tcp . 80 : 10.96.0.1 . 80 }"],
    );
    world.apply(Change::Services(Delta::One(key("a"), None)));
    has(
        &script(&mut world),
        &["{ 192.0.2.7 . tcp . 80 : 10.96.0.2 . 80 }"],
    );
}

#[test]
fn a_change_is_a_few_elements_and_nothing_is_nothing() {
    let mut world = world();
    service(
        &mut world,
        "web",
        json!({"externalTrafficPolicy": "Local"}),
        Value::Null,
    );
    slice(&mut world, "a", &PODS, true);
    let before = table(&mut world);
    assert_eq!(before.difference(&before), "");
    let ports =
        json!({"ports": [{"port": 80, "nodePort": 30081}], "externalTrafficPolicy": "Local"});
    service(&mut world, "web", ports, Value::Null);
    let after = table(&mut world);
    assert_eq!(
        before.difference(&after),
        "delete element ip ycloud-services node-ports { tcp . 30080 }\n\
         delete element ip ycloud-services outer-node-ports { tcp . 30080 }\n\
         add element ip ycloud-services node-ports { tcp . 30081 : 10.96.0.9 . 80 }\n\
         add element ip ycloud-services outer-node-ports { tcp . 30081 : goto local/ns/web/tcp/80 }\n"
    );
    world.apply(Change::Services(Delta::One(key("web"), None)));
    assert!(world.settle());
    let script = after.difference(&world.table());
    assert!(
        script.ends_with("delete chain ip ycloud-services local/ns/web/tcp/80\n"),
        "{script}"
    );
    world.apply(Change::Services(Delta::One(key("headless"), None)));
    assert!(!world.settle(), "none of the node's business");
}

#[test]
fn a_list_read_again_drops_what_is_gone() {
    let mut world = world();
    service(&mut world, "web", json!({}), Value::Null);
    slice(&mut world, "a", &[("172.18.0.200", "")], true);
    assert!(script(&mut world).contains("goto"));
    world.apply(Change::Slices(Delta::All(BTreeMap::new())));
    assert!(!script(&mut world).contains("goto"));
    world.apply(Change::Services(Delta::All(BTreeMap::new())));
    assert_eq!(table(&mut world).frontends(), 0);
    assert!(world.is_complete());
}

/// The default Vpc gains IPv6.
fn with_ipv6(world: &mut World) {
    let ranges = [
        "10.16.0.0/16",
        "100.64.0.0/16",
        "fd00:10:16::/64",
        "fd00:100:64::/64",
    ];
    world.set_default_vpc(ranges.map(|range| range.parse().unwrap()).into());
}

fn both_ips() -> Value {
    json!({
        "clusterIPs": ["10.96.0.9", "fd00:96::9"], "externalIPs": ["192.0.2.7", "2001:db8::7"],
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
    })
}

#[test]
fn a_family_has_a_table_of_its_own_where_the_default_vpc_has_it() {
    let mut world = world();
    service(&mut world, "web", both_ips(), Value::Null);
    slice(&mut world, "a", &PODS, true);
    slice(
        &mut world,
        "b",
        &[("fd00:10:16::5", NODE), ("fd00:10:16::6", "node-2")],
        true,
    );
    let before = table(&mut world);
    let of_ipv4 = before.whole();
    assert!(of_ipv4.ends_with("add table ip6 ycloud-services\ndelete table ip6 ycloud-services\n"));
    with_ipv6(&mut world);
    let after = table(&mut world);
    let script = after.whole();
    has(
        &script,
        &[
            "ip6 ycloud-services node-ports { tcp . 30080 : fd00:96::9 . 80 }",
            "ip6 ycloud-services addresses { 2001:db8::7 . tcp . 80 : fd00:96::9 . 80 }",
            "ip6 ycloud-services local/ns/web/tcp/80 meta l4proto tcp dnat to [fd00:10:16::5]:8080",
            "ip6 ycloud-services cluster { fd00:100:64::/64, fd00:10:16::/64 }",
        ],
    );
    // Of the IPv4 table nothing is another.
    let ipv6 = script.find("add table ip6").unwrap();
    assert!(of_ipv4.starts_with(&script[..ipv6]));
    assert_eq!(before.difference(&after), script[ipv6..]);
    let gone = "add table ip6 ycloud-services\ndelete table ip6 ycloud-services\n";
    assert_eq!(after.difference(&before), gone);
    assert_eq!(world.health_checks()[&key("web")], (31000, 1), "one Pod");
}

#[test]
fn a_service_of_one_family_leaves_the_other_alone() {
    let mut world = world();
    with_ipv6(&mut world);
    let spec = json!({"clusterIP": "fd00:96::9", "externalIPs": ["192.0.2.7", "2001:db8::7"]});
    service(&mut world, "web", spec, Value::Null);
    slice(&mut world, "a", &[("172.18.0.200", "")], true);
    slice(&mut world, "b", &[("fd00:18::200", "")], true);
    let table = table(&mut world);
    assert_eq!(table.frontends(), 3, "{}", table.whole());
    assert_eq!(world.outside(), ["fd00:96::9".parse().unwrap()].into());
    has(
        &table.whole(),
        &["ip6 ycloud-services elsewhere { fd00:18::200 . tcp . 8080 }"],
    );
}

#[test]
fn source_ranges_of_one_family_let_nobody_of_the_other_in() {
    let mut world = world();
    with_ipv6(&mut world);
    let mut spec = both_ips();
    spec["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
    let ingress = json!([{"ip": "192.0.2.8"}, {"ip": "2001:db8::8"}]);
    service(
        &mut world,
        "web",
        spec,
        json!({"loadBalancer": {"ingress": ingress}}),
    );
    slice(&mut world, "a", &PODS, true);
    slice(&mut world, "b", &[("fd00:10:16::5", NODE)], true);
    has(
        &script(&mut world),
        &[
            "ip ycloud-services restricted/ns/web/tcp/80 ip saddr != { 203.0.113.0/24 } drop",
            "add rule ip6 ycloud-services restricted/ns/web/tcp/80 drop\n",
        ],
    );
}

#[test]
fn external_addresses_of_others_are_not_translated_and_the_rest_is() {
    let mut world = world();
    with_ipv6(&mut world);
    let ips = |texts: &[&str]| texts.iter().map(|ip| ip.parse().unwrap()).collect();
    let of_node = NodeAddresses {
        internal: ips(&["172.18.0.3", "fd00:18::3"]),
        external: ips(&["203.0.113.3", "2001:db8::3"]),
    };
    let key = (String::new(), "node-2".to_owned());
    world.apply(Change::Nodes(Delta::One(key, Some(of_node))));
    let reserved = [
        "100.64.0.0/10",
        "fd00:100:64::/48",
        "10.96.0.0/16",
        "fd00:96::/112",
        "198.51.100.0/24",
        "203.0.113.1/32",
    ];
    world.set_reserved(reserved.map(|range| range.parse().unwrap()).into());
    let allowed = ["192.0.2.7", "203.0.113.3", "2001:db8::3", "2001:db8::7"];
    let refused = [
        "172.18.0.3",
        "fd00:18::3",
        "100.64.0.2",
        "100.80.0.2",
        "fd00:100:64::2",
        "10.16.0.77",
        "fd00:10:16::77",
        "10.96.0.1",
        "fd00:96::1",
        "198.51.100.9",
        "203.0.113.1",
    ];
    let asked: Vec<&str> = allowed.iter().chain(&refused).copied().collect();
    let mut spec = both_ips();
    spec["externalIPs"] = json!(asked);
    // Not by the other way in, either.
    let ingress = json!([{"ip": "198.51.100.9"}]);
    let status = json!({"loadBalancer": {"ingress": ingress}});
    service(&mut world, "web", spec, status);
    slice(&mut world, "a", &PODS, true);
    let has_frontend = |script: &str, ip: &str| script.contains(&format!(" {ip} . tcp . 80 : "));
    let of_all = script(&mut world);
    for ip in allowed {
        assert!(has_frontend(&of_all, ip), "{ip}: {of_all}");
    }
    for ip in refused {
        assert!(!has_frontend(&of_all, ip), "{ip}: {of_all}");
    }
    assert!(of_all.contains("tcp . 30080 : 10.96.0.9 . 80"), "{of_all}");
    // An API server with a machine of its own comes.
    let api_server = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.7"]}],
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    });
    let api_server = facts::slice(&serde_json::from_value(api_server).unwrap());
    let key = ("default".to_owned(), "kubernetes".to_owned());
    world.apply(Change::Slices(Delta::One(key.clone(), api_server)));
    assert!(!has_frontend(&script(&mut world), "192.0.2.7"));
    world.apply(Change::Slices(Delta::One(key, None)));
    assert!(has_frontend(&script(&mut world), "192.0.2.7"));
    // An EipGateway goes.
    world.set_reserved(reserved[..4].iter().map(|r| r.parse().unwrap()).collect());
    assert!(has_frontend(&script(&mut world), "198.51.100.9"));
}
