//! Random small clusters: few names, so that objects meet, overlap, replace and refuse each other often.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ycloud_api::{EipGateway, Vpc, VpcSpec};
use ycloud_compiler::{Chassis, Claim, Event, Leaving, Object};

use super::objects::{self, reference};

const VPCS: &[&str] = &["ovn-cluster", "v1", "v2"];
const NAMESPACES: &[&str] = &["ns1", "ns2"];
const NODES: &[&str] = &["n1", "n2"];
const SUBNETS: &[&str] = &["a", "b", "c", "ovn-default", "subnet0"];
const CIDRS: &[&str] = &[
    "10.0.1.0/24",
    "10.0.1.0/28",
    "10.0.2.0/24",
    "10.0.0.0/16",
    "10.96.0.0/16",
    "100.64.0.0/16",
    "bad",
];
/// One is a part of another; the last ones overlap a service range, the system range and addresses of nodes.
const IPV6_CIDRS: &[&str] = &[
    "fd00:1::/64",
    "fd00:1::/124",
    "fd00:2::/64",
    "fd00:10:96::/112",
    "fd00:100:64::/64",
    "bad",
];
const NODE_ADDRESSES: &[&str] = &["172.31.0.1", "10.0.2.9", "fd00:2::9"];
const NODE_ADDRESSES_IPV6: &[&str] = &["fd00:172::1", "fd00:10::9"];
const EXTERNAL_IPV6: &[&str] = &["2001:db8::1", "192.0.2.1"];
const EXTERNAL: &[&str] = &["192.0.2.1", "172.31.0.1", "198.51.100.9", "198.51.100.2"];
const GATEWAYS: &[&str] = &["g1", "g2"];
/// One is a part of another; the last ones overlap Subnets, a service range and addresses of nodes.
const EIP_CIDRS: &[&str] = &[
    "198.51.100.0/24",
    "198.51.100.0/25",
    "203.0.113.0/24",
    "10.0.1.0/24",
    "10.97.0.0/24",
    "172.31.0.0/24",
];
const EIPS: &[&str] = &["198.51.100.9", "198.51.100.10", "203.0.113.9"];
const PROBED: &[&str] = &[
    "10.0.1.5",
    "10.0.1.9",
    "10.0.2.9",
    "fd00:1::5",
    "172.31.0.1",
    "bad",
];
const PORTS: &[(&str, i32)] = &[("TCP", 80), ("TCP", 443), ("UDP", 80), ("SCTP", 9)];

/// Whom an EipGateway permits: nobody named, some by name, some by label.
fn allowed() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(serde_json::Value::Null),
        subsequence(NAMESPACES, 0..=2).prop_map(|names| serde_json::json!({"names": names})),
        Just(serde_json::json!({"selector": {"matchLabels": {"team": "a"}}})),
    ]
}

pub fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        2 => (select(VPCS), subsequence(NAMESPACES, 0..=2)).prop_map(|(name, allowed)| Object::Vpc(objects::vpc(name, &allowed))),
        1 => select(VPCS).prop_map(|name| Object::Vpc(Vpc::new(name, VpcSpec::default()).into())),
        1 => select(VPCS).prop_map(|name| Object::Vpc(objects::from(serde_json::json!({
            "apiVersion": "iaas.yusur.io/v1", "kind": "Vpc", "metadata": {"name": name},
            "spec": {"allowedNamespaces": {"selector": {"matchLabels": {"team": "a"}}}},
        })))),
        4 => (select(SUBNETS), select(VPCS), select(CIDRS), 0u32..3)
            .prop_map(|(name, vpc, cidr, created)| Object::Subnet(objects::subnet(name, vpc, cidr, created))),
        3 => (select(SUBNETS), select(VPCS), select(&["10.0.1.0/24", "10.0.2.0/24", ""][..]), select(IPV6_CIDRS), 0u32..3)
            .prop_map(|(name, vpc, cidr, ipv6, created)| Object::Subnet(objects::subnet_ipv6(&objects::subnet(name, vpc, cidr, created), ipv6))),
        3 => (select(NAMESPACES), select(&["x", "y", "z"][..]), select(SUBNETS), proptest::option::of(select(NODES)), address(), 1u8..6)
            .prop_map(|(ns, name, subnet, node, ip, n)| {
                let vnic = objects::vnic(ns, name, subnet, node, ip.as_deref());
                Object::VNic(objects::vnic_ipv6(&vnic, &format!("fd00:1::{n}")))
            }),
        1 => (select(NODES), 2u8..4).prop_map(|(node, n)| {
            let vnic = objects::node_vnic(node, &format!("100.64.0.{n}"));
            Object::VNic(objects::vnic_ipv6(&vnic, &format!("fd00:100:64::{n}")))
        }),
        4 => (select(NAMESPACES), select(&["x", "y", "z"][..]), select(SUBNETS), proptest::option::of(select(NODES)), address(), set_up())
            .prop_map(|(ns, name, subnet, node, ip, set_up)| {
                let vnic = objects::vnic(ns, name, subnet, node, ip.as_deref());
                Object::VNic(set_up.map_or_else(|| vnic.clone(), |set_up| objects::vnic_set_up(&vnic, set_up)))
            }),
        2 => (select(NODES), 1u8..4).prop_map(|(node, n)| Object::VNic(objects::node_vnic(node, &format!("100.64.0.{n}")))),
        2 => (select(NODES), select(NODE_ADDRESSES), proptest::bool::ANY)
            .prop_map(|(node, ip, edge)| Object::Node(objects::labelled_node(node, ip, edge.then_some("edge")))),
        1 => (select(NAMESPACES), select(&["a", "b"][..]))
            .prop_map(|(name, team)| Object::Namespace(objects::namespace(name, &[("team", team)]))),
        2 => (select(NAMESPACES), select(&["p", "q"][..]), proptest::option::of(select(NODES)), proptest::option::of(select(SUBNETS)))
            .prop_map(|(ns, name, node, subnet)| {
                let annotations: Vec<_> = subnet.iter().map(|subnet| ("iaas.yusur.io/subnet", *subnet)).collect();
                Object::Pod(objects::pod(ns, name, node, &annotations))
            }),
        3 => (select(NAMESPACES), select(&["a", "b"][..]), proptest::option::of(select(VPCS)), select(&["10.96.0.1", "10.96.0.2", "None"][..]), ports())
            .prop_map(|(ns, name, vpc, ip, ports)| Object::Service(objects::service(ns, name, vpc, ip, &ports))),
        1 => (select(NAMESPACES), select(&["a", "b"][..]), ports(), subsequence(EXTERNAL, 0..=3))
            .prop_map(|(ns, name, ports, external)| Object::Service(objects::service_external(ns, name, "10.96.0.1", &external, &ports))),
        1 => (select(NAMESPACES), select(&["a", "b"][..]), ports())
            .prop_map(|(ns, name, ports)| Object::Service(objects::service_local(ns, name, "10.96.0.1", &ports))),
        3 => (select(NAMESPACES), select(&["s", "t"][..]), select(&["a", "b"][..]), ports(), vec(endpoint(), 0..4), proptest::option::of(select(NODES)))
            .prop_map(|(ns, name, service, ports, endpoints, node)| {
                let slice = objects::slice(ns, name, service, &ports, &endpoints);
                Object::EndpointSlice(node.map_or_else(|| slice.clone(), |node| objects::slice_on(&slice, node)))
            }),
        1 => (select(NAMESPACES), select(&["a", "b"][..]), ports(), proptest::bool::ANY, subsequence(EXTERNAL_IPV6, 0..=1))
            .prop_map(|(ns, name, ports, local, external)| {
                let service = match local {
                    true => objects::service_local(ns, name, "10.96.0.1", &ports),
                    false => objects::service_external(ns, name, "10.96.0.1", &external, &ports),
                };
                Object::Service(objects::with_ipv6(&service, "fd00:96::1"))
            }),
        2 => (select(NAMESPACES), select(&["s6", "t6"][..]), select(&["a", "b"][..]), ports(), vec(endpoint(), 0..4), proptest::option::of(select(NODES)))
            .prop_map(|(ns, name, service, ports, endpoints, node)| {
                let slice = objects::slice_ipv6(&objects::slice(ns, name, service, &ports, &endpoints));
                Object::EndpointSlice(node.map_or_else(|| slice.clone(), |node| objects::slice_on(&slice, node)))
            }),
        2 => (select(NAMESPACES), select(&["s", "t"][..]), select(&["a", "b"][..]), ports(), vec(endpoint(), 0..3), vec(endpoint(), 1..3))
            .prop_map(|(ns, name, service, ports, endpoints, ended)| {
                let slice = objects::slice(ns, name, service, &ports, &endpoints);
                let ended: Vec<&str> = ended.iter().map(|(ip, _)| ip.as_str()).collect();
                Object::EndpointSlice(objects::slice_ended(&slice, &ended))
            }),
        1 => (select(NODES), select(NODE_ADDRESSES), select(NODE_ADDRESSES_IPV6))
            .prop_map(|(node, ip, ipv6)| Object::Node(objects::node_with_ipv6(&objects::node(node, ip), ipv6))),
        3 => (select(GATEWAYS), select(EIP_CIDRS), proptest::bool::ANY, 0u32..3)
            .prop_map(|(name, cidr, default, created)| Object::EipGateway(objects::eip_gateway(name, cidr, default, created))),
        2 => (select(SUBNETS), select(VPCS), select(CIDRS), select(CIDRS), 0u32..3).prop_map(|(name, vpc, cidr, in_force, created)| {
            let subnet = objects::subnet(name, vpc, cidr, created);
            Object::Subnet(objects::subnet_in_force(&subnet, in_force))
        }),
        2 => (select(GATEWAYS), select(EIP_CIDRS), select(EIP_CIDRS), 0u32..3).prop_map(|(name, cidr, in_force, created)| {
            let gateway = objects::eip_gateway(name, cidr, false, created);
            Object::EipGateway(objects::eip_gateway_in_force(&gateway, in_force))
        }),
        2 => (select(GATEWAYS), select(EIP_CIDRS), vec((select(EIPS), select(NAMESPACES)), 0..3), any::<bool>()).prop_map(|(name, cidr, released, rests)| {
            let gateway = objects::eip_gateway(name, cidr, false, 1);
            let mut gateway = EipGateway::clone(&objects::eip_gateway_releasing(&gateway, &released));
            if !rests {
                gateway.spec.reuse_after_seconds = 0;
            }
            Object::EipGateway(gateway.into())
        }),
        2 => (select(NAMESPACES), select(&["a", "e"][..]), select(EIPS), select(PORTS), select(&["a", "b"][..]))
            .prop_map(|(ns, name, held, port, holder)| {
                let eip = objects::eip(ns, name, None, None, Some(held));
                Object::Eip(objects::eip_port(&eip, port, holder))
            }),
        2 => (select(SUBNETS), select(VPCS), select(CIDRS), subsequence(NAMESPACES, 0..=2)).prop_map(|(name, vpc, cidr, namespaces)| {
            Object::Subnet(objects::subnet_of(&objects::subnet(name, vpc, cidr, 0), &namespaces))
        }),
        2 => (select(GATEWAYS), select(EIP_CIDRS), any::<bool>(), allowed()).prop_map(|(name, cidr, default, allowed)| {
            let gateway = objects::eip_gateway(name, cidr, default, 1);
            Object::EipGateway(objects::eip_gateway_for(&gateway, allowed))
        }),
        1 => (select(GATEWAYS), select(&["edge", "nobody"][..]))
            .prop_map(|(name, role)| Object::EipGateway(objects::eip_gateway_on(name, "198.51.100.0/24", role))),
        // On a link that Subnets overlap.
        1 => (select(GATEWAYS), 0u32..3).prop_map(|(name, created)| {
            let gateway = objects::eip_gateway(name, "203.0.113.0/24", false, created);
            Object::EipGateway(objects::eip_gateway_behind(&gateway, "10.0.1.1", "10.0.1.2/24"))
        }),
        // The API server's own.
        1 => vec(endpoint(), 0..2).prop_map(|endpoints| {
            Object::EndpointSlice(objects::slice("default", "kubernetes", "kubernetes", &[("TCP", 443)], &endpoints))
        }),
        2 => (select(VPCS), proptest::option::of(select(GATEWAYS)), proptest::option::of(select(GATEWAYS)), 0u32..3).prop_map(|(name, gateway, on, created)| Object::Vpc(objects::from(serde_json::json!({
            "apiVersion": "iaas.yusur.io/v1", "kind": "Vpc",
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{created}Z")}, "spec": {"eipGateway": gateway},
            "status": {"eipGateway": on},
        })))),
        4 => (select(NAMESPACES), select(&["a", "b", "e"][..]), proptest::option::of(select(GATEWAYS)), proptest::option::of(select(EIPS)), proptest::option::of(select(EIPS)))
            .prop_map(|(ns, name, gateway, asked, held)| Object::Eip(objects::eip(ns, name, gateway, asked, held))),
        4 => (select(NAMESPACES), select(&["a", "b"][..]), proptest::option::of(select(VPCS)), ports(), proptest::bool::ANY, proptest::option::of(select(&["e", "198.51.100.9", "missing"][..])))
            .prop_map(|(ns, name, vpc, ports, several, eip)| {
                let service = objects::service(ns, name, vpc, "10.96.0.1", &ports);
                Object::Service(objects::with_eip(&service, several, eip))
            }),
        3 => (select(NAMESPACES), select(&["s", "t"][..]), select(&["a", "b"][..]), ports(), vec(endpoint(), 0..4), select(VPCS))
            .prop_map(|(ns, name, service, ports, endpoints, vpc)| {
                let slice = objects::slice(ns, name, service, &ports, &endpoints);
                Object::EndpointSlice(objects::slice_of_vpc(&slice, vpc))
            }),
        1 => (select(&["eipgw/g1", "sg/g1/1", "sg/g2/2"][..]), select(&["n1", "n2", "gone"][..]))
            .prop_map(|(group, chassis)| Object::Claim(Claim { group: group.to_owned(), chassis: chassis.to_owned() })),
        1 => (select(NODES), subsequence(&["ext", "other"][..], 0..=2), any::<bool>()).prop_map(|(name, networks, old)| Object::Chassis(Chassis {
            name: name.to_owned(),
            physical_networks: networks.into_iter().map(str::to_owned).collect(),
            without_sctp_ports: old,
            forgets_connections: old,
        })),
        4 => (select(NAMESPACES), select(&["p", "q", "r"][..]), select(VPCS), select(PROBED))
            .prop_map(|(ns, name, vpc, ip)| Object::NetworkProbe(objects::probe(ns, name, vpc, ip))),
        2 => (select(NODES), select(NODES), select(&["Healthy", "Unhealthy"][..]), 1u8..4)
            .prop_map(|(chassis, by, state, n)| Object::NetworkProbe(objects::chassis_probe(chassis, by, state, n))),
        3 => select(NODES).prop_map(|chassis| Object::Prober(objects::prober(chassis))),
        1 => (select(VPCS), select(NODES)).prop_map(|(vpc, chassis)| Object::Leaving(Leaving {
            vpc: vpc.to_owned(),
            chassis: chassis.to_owned(),
        })),
        1 => (select(NAMESPACES), select(&["x", "y"][..]), select(SUBNETS), select(NODES), select(NODES), select(&["10.0.1.5", "10.0.1.9"][..]))
            .prop_map(|(ns, name, subnet, node, bound, ip)| {
                let vnic = objects::vnic(ns, name, subnet, Some(node), Some(ip));
                Object::VNic(objects::vnic_bound(&vnic, bound))
            }),
        1 => (select(&["kubernetes", "more"][..]), select(&["10.96.0.0/16", "10.97.0.0/16", "fd00:10:96::/112"][..]))
            .prop_map(|(name, cidr)| Object::ServiceCidr(objects::service_cidr(name, cidr))),
    ]
}

fn address() -> impl Strategy<Value = Option<String>> {
    proptest::option::weighted(
        0.8,
        (
            select(&["10.0.1", "10.0.2", "10.0.0"][..]),
            select(&[1u8, 2, 5, 9, 20, 200][..]),
        )
            .prop_map(|(net, n)| format!("{net}.{n}")),
    )
}

/// How a VNic was told to set itself up: mostly as the Subnets of its address would have it.
fn set_up() -> impl Strategy<Value = Option<(u8, &'static str)>> {
    let set_ups = [
        (24, "10.0.1.1"),
        (28, "10.0.1.1"),
        (24, "10.0.2.1"),
        (16, "10.0.0.1"),
    ];
    proptest::option::of(select(set_ups.to_vec()))
}

fn ports() -> impl Strategy<Value = Vec<(&'static str, i32)>> {
    subsequence(PORTS, 0..=4)
}

fn endpoint() -> impl Strategy<Value = (String, &'static str)> {
    (
        prop_oneof![
            3 => (1u8..9).prop_map(|n| format!("10.0.1.{n}")),
            1 => select(NODE_ADDRESSES).prop_map(str::to_owned),
        ],
        select(&["ready", "ready", "unready", "draining"][..]),
    )
}

/// A cluster's history; shown as one line of JSON an event.
#[derive(Clone)]
pub struct History(pub Vec<Event>);

impl std::ops::Deref for History {
    type Target = [Event];
    fn deref(&self) -> &[Event] {
        &self.0
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for event in &self.0 {
            write!(
                f,
                "
  {}",
                line(event)
            )?;
        }
        Ok(())
    }
}

pub fn line(event: &Event) -> String {
    let object = match event {
        Event::Delete(reference) => return format!("delete {reference:?}"),
        Event::Apply(object) => object,
    };
    let json = match object {
        Object::Vpc(o) => serde_json::to_string(&**o),
        Object::Subnet(o) => serde_json::to_string(&**o),
        Object::VNic(o) => serde_json::to_string(&**o),
        Object::Node(o) => serde_json::to_string(&**o),
        Object::Namespace(o) => serde_json::to_string(&**o),
        Object::Pod(o) => serde_json::to_string(&**o),
        Object::Service(o) => serde_json::to_string(&**o),
        Object::EndpointSlice(o) => serde_json::to_string(&**o),
        Object::EipGateway(o) => serde_json::to_string(&**o),
        Object::Eip(o) => serde_json::to_string(&**o),
        Object::Claim(o) => return format!("apply {o:?}"),
        Object::Chassis(o) => return format!("apply {o:?}"),
        Object::Prober(o) => return format!("apply {o:?}"),
        Object::Leaving(o) => return format!("apply {o:?}"),
        Object::NetworkProbe(o) => serde_json::to_string(&**o),
        Object::ServiceCidr(o) => serde_json::to_string(&**o),
    };
    format!("apply {}", json.expect("objects are JSON"))
}

/// A cluster's history.
pub fn events(
    length: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = History> {
    let step = (
        object(),
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.1),
    );
    vec(step, length).prop_map(|steps| {
        let event = |(object, stays, leaves): (Object, bool, bool)| match (stays, leaves) {
            (true, true) => Event::Apply(objects::deleted(object)),
            (true, false) => Event::Apply(object),
            (false, _) => Event::Delete(reference(&object)),
        };
        History(steps.into_iter().map(event).collect())
    })
}

/// The objects that are left at the end of a history.
pub fn survivors(events: &[Event]) -> Vec<Object> {
    let mut left: Vec<Object> = Vec::new();
    for event in events {
        let gone = match event {
            Event::Apply(object) => reference(object),
            Event::Delete(reference) => reference.clone(),
        };
        left.retain(|object| reference(object) != gone);
        if let Event::Apply(object) = event {
            left.push(object.clone());
        }
    }
    left
}
