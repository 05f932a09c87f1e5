//! `EipGateway`: its router between the physical network and the transit switch, and its service gateways.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use ycloud_api::EipGateway;
use ycloud_ovsdb::Columns;

use crate::desired::link::{End, Link};
use crate::desired::vpc::load_balancer_group;
use crate::desired::{mtu, none, policy, route, row};
use crate::eip::bound;
use crate::ipam::{ROUTER_MAC, derived_mac};
use crate::layout::{Layout, SERVICE_LENGTH, TRANSIT_LENGTH};
use crate::owner::{Owner, UUID_NAMESPACE};
use crate::ownerindex::SERVICE_GROUP_PREFIX;
use crate::row::{Parent, Row};
use crate::snapshot::{Settings, Snapshot};
use crate::validate::eip_gateway::{Gateway, eligible_nodes};

/// Priority of the policies that keep the system range apart from the physical network.
const SYSTEM_PRIORITY: i64 = 1000;
/// Priority of the policy that lets nothing out but what comes from an EIP.
const OUT_PRIORITY: i64 = 200;
/// Priority of the first chassis of an `HA_Chassis_Group`; the next ones have one less each. ovn-nb(5) HA_Chassis
/// priority, 0..=32767.
const FIRST_CHASSIS: i64 = 30_000;

fn owner(gateway: &str) -> Owner {
    Owner::EipGateway(gateway.to_owned())
}

/// The router of an EipGateway.
pub(crate) fn router(gateway: &str) -> End {
    End {
        uuid: owner(gateway).uuid("router"),
        name: format!("eipgw/{gateway}"),
    }
}

/// Its switch on the physical network.
fn external(gateway: &str) -> End {
    End {
        uuid: owner(gateway).uuid("ext"),
        name: format!("ext/{gateway}"),
    }
}

/// Its transit switch, on which the routers of its Vpcs are.
pub(crate) fn transit(gateway: &str) -> End {
    End {
        uuid: owner(gateway).uuid("transit"),
        name: format!("transit/{gateway}"),
    }
}

/// Its service gateway `k`.
pub(crate) fn service_router(gateway: &str, k: u32) -> End {
    End {
        uuid: owner(gateway).uuid(&format!("sg/{k}")),
        name: format!("sg/{gateway}/{k}"),
    }
}

/// The switch between service gateway `k` and the alias routers.
pub(crate) fn service_switch(gateway: &str, k: u32) -> End {
    End {
        uuid: owner(gateway).uuid(&format!("svct/{k}")),
        name: format!("svct/{gateway}/{k}"),
    }
}

/// Name of the `HA_Chassis_Group` of an EipGateway and of the transit ports of its Vpcs: a gateway port on an overlay
/// switch is reached only from the chassis where it is, so all of them are on one.
pub fn ha_group_name(gateway: &str) -> String {
    format!("eipgw/{gateway}")
}

/// Name of the `HA_Chassis_Group` of service gateway `k` and its alias routers.
pub fn service_ha_group_name(gateway: &str, k: u32) -> String {
    format!("sg/{gateway}/{k}")
}

/// The EipGateway of such a group.
pub(crate) fn gateway_of_group(group: &str) -> Option<&str> {
    let (kind, rest) = group.split_once('/')?;
    let of = matches!(kind, "eipgw" | "sg").then_some(rest)?;
    of.split('/').next()
}

/// UUID of the group of [`ha_group_name`].
pub(crate) fn ha_group(gateway: &str) -> Uuid {
    owner(gateway).uuid("ha")
}

/// UUID of the group of [`service_ha_group_name`].
pub(crate) fn service_ha_group(gateway: &str, k: u32) -> Uuid {
    owner(gateway).uuid(&format!("sg-ha/{k}"))
}

/// UUID of the `Load_Balancer_Group` on the service gateways.
pub(crate) fn service_group(gateway: &str) -> Uuid {
    owner(gateway).uuid("sg-group")
}

/// Name of the router port on the physical network.
fn external_port(gateway: &str) -> String {
    Link::router_port(&router(gateway).name, &external(gateway).name)
}

/// Name of the port of service gateway `k` on the transit switch.
pub(crate) fn service_transit_port(gateway: &str, k: u32) -> String {
    Link::router_port(&service_router(gateway, k).name, &transit(gateway).name)
}

/// The numbers of the service gateways of an EipGateway, from 1.
pub(crate) fn service_numbers(object: &EipGateway) -> impl Iterator<Item = u32> + use<> {
    1..=u32::try_from(object.spec.service_gateways.clamp(1, 8)).unwrap_or(1)
}

/// The nodes that can carry an EipGateway, in the order in which they take it over: first the one that has it, so that a
/// node that comes back causes no second outage; then by a hash, so that EipGateways spread.
pub(crate) fn order<'a>(snapshot: &'a Snapshot, name: &str, object: &EipGateway) -> Vec<&'a str> {
    let group = ha_group_name(name);
    ordered(snapshot, &group, eligible_nodes(snapshot, object), |_| 0)
}

/// Likewise for each service gateway, where nodes that carry one with a lower number come last.
pub(crate) fn service_order<'a>(
    snapshot: &'a Snapshot,
    name: &str,
    object: &EipGateway,
) -> Vec<(u32, Vec<&'a str>)> {
    let nodes = eligible_nodes(snapshot, object);
    let mut carried: BTreeMap<&str, usize> = BTreeMap::new();
    let order = service_numbers(object).map(|k| {
        let group = service_ha_group_name(name, k);
        let load = |node: &str| carried.get(node).copied().unwrap_or(0);
        let order = ordered(snapshot, &group, nodes.clone(), load);
        if let Some(first) = order.first() {
            *carried.entry(first).or_default() += 1;
        }
        (k, order)
    });
    order.collect()
}

fn ordered<'a>(
    snapshot: &Snapshot,
    group: &str,
    nodes: BTreeSet<&'a str>,
    load: impl Fn(&str) -> usize,
) -> Vec<&'a str> {
    let claim = snapshot.claim(group);
    let mut nodes: Vec<&str> = nodes.into_iter().collect();
    nodes.sort_by_cached_key(|node| {
        let weight = Uuid::new_v5(&UUID_NAMESPACE, format!("{group} {node}").as_bytes());
        (claim != Some(*node), load(node), Reverse(weight))
    });
    nodes
}

/// The rows of an accepted EipGateway.
pub(crate) fn rows(
    snapshot: &Snapshot,
    name: &str,
    object: &EipGateway,
    gateway: &Gateway,
    layout: Layout,
) -> Vec<Row> {
    let owner = owner(name);
    let mut rows = ha_rows(
        &owner,
        "ha",
        ha_group_name(name),
        &order(snapshot, name, object),
    );
    rows.push(load_balancer_group(
        service_group(name),
        format!("{SERVICE_GROUP_PREFIX}{name}"),
    ));
    let settings = snapshot.settings();
    rows.extend(router_rows(settings, &owner, name, object, gateway, layout));
    rows.extend(rules(snapshot, &owner, name, gateway, layout));
    let eips = addresses_over_several(snapshot, name);
    for (k, nodes) in service_order(snapshot, name, object) {
        let group = service_ha_group_name(name, k);
        rows.extend(ha_rows(&owner, &format!("sg-ha/{k}"), group, &nodes));
        rows.extend(service_rows(
            &owner,
            name,
            k,
            nodes.first().copied(),
            &eips,
            layout,
        ));
    }
    rows
}

/// An `HA_Chassis_Group` and its members, the first node with the highest priority.
fn ha_rows(owner: &Owner, role: &str, name: String, nodes: &[&str]) -> Vec<Row> {
    let group = row(
        owner,
        role,
        "HA_Chassis_Group",
        Columns::new().with("name", name),
        [],
    );
    let parent = Parent {
        table: "HA_Chassis_Group",
        uuid: group.uuid,
        column: "ha_chassis",
    };
    let mut rows = vec![group];
    for (node, priority) in nodes.iter().zip((1..=FIRST_CHASSIS).rev()) {
        let columns = Columns::new()
            .with("chassis_name", *node)
            .with("priority", priority);
        let role = format!("{role}/{node}");
        rows.push(row(owner, &role, "HA_Chassis", columns, [parent]));
    }
    rows
}

/// The switches, the router, and its ports.
fn router_rows(
    settings: &Settings,
    owner: &Owner,
    name: &str,
    object: &EipGateway,
    gateway: &Gateway,
    layout: Layout,
) -> Vec<Row> {
    let (external, transit, router) = (external(name), transit(name), router(name));
    let switch = |end: &End, role| {
        let columns = Columns::new()
            .with("name", end.name.as_str())
            .with("other_config", none())
            .with("load_balancer_group", None::<Uuid>);
        row(owner, role, "Logical_Switch", columns, [])
    };
    let spec = &object.spec;
    let options = [("network_name".to_owned(), spec.physical_network.clone())];
    let localnet = Columns::new()
        .with("name", format!("localnet:{}", external.name))
        .with("type", "localnet")
        .with("addresses", "unknown")
        .with("port_security", None::<&str>)
        .with("tag", (spec.vlan > 0).then_some(i64::from(spec.vlan)))
        .with("enabled", None::<bool>)
        .with("options", BTreeMap::from(options));
    let in_external = Parent {
        table: "Logical_Switch",
        uuid: external.uuid,
        column: "ports",
    };
    let mut rows = vec![
        switch(&external, "ext"),
        switch(&transit, "transit"),
        router_row(owner, "router", &router, none(), None),
        row(
            owner,
            "localnet",
            "Logical_Switch_Port",
            localnet,
            [in_external],
        ),
    ];
    let to_external = Link {
        router: router.clone(),
        switch: external,
        mac: derived_mac(ROUTER_MAC, name, gateway.address.addr()),
        networks: vec![gateway.address.to_string()],
        ha_group: Some(ha_group(name)),
        announces: true,
        options: mtu::at_gateway(settings, &external_port(name)),
    };
    rows.extend(to_external.rows(owner, "ext"));
    let address = layout.transit_gateway();
    let to_transit = Link {
        router,
        switch: transit,
        mac: derived_mac(ROUTER_MAC, name, address),
        networks: vec![format!("{address}/{TRANSIT_LENGTH}")],
        ha_group: None,
        announces: false,
        options: none(),
    };
    rows.extend(to_transit.rows(owner, "transit"));
    rows
}

fn router_row(
    owner: &Owner,
    role: &str,
    end: &End,
    options: BTreeMap<String, String>,
    group: Option<Uuid>,
) -> Row {
    let columns = Columns::new()
        .with("name", end.name.as_str())
        .with("enabled", None::<bool>)
        .with("options", options)
        .with("load_balancer_group", group);
    row(owner, role, "Logical_Router", columns, [])
}

/// The way to the upstream router, and what never passes.
fn rules(
    snapshot: &Snapshot,
    owner: &Owner,
    name: &str,
    gateway: &Gateway,
    layout: Layout,
) -> Vec<Row> {
    let router = router(name);
    let default = route(
        owner,
        "default-route",
        router.uuid,
        "0.0.0.0/0".to_owned(),
        gateway.upstream.to_string(),
    );
    let mut rows = vec![default];
    if !gateway.address.trunc().contains(&gateway.cidr) {
        // Addresses that nobody has would go back to the upstream router, which sends them here again.
        rows.push(route(
            owner,
            "discard-route",
            router.uuid,
            gateway.cidr.to_string(),
            "discard".to_owned(),
        ));
    }
    let external = external_port(name);
    let inside = Link::router_port(&router.name, &transit(name).name);
    let system = snapshot.settings().system_cidr;
    debug_assert!(system.contains(&layout.transit_gateway()));
    let drops = [
        (
            "drop/to-system",
            SYSTEM_PRIORITY,
            format!("inport == \"{external}\" && ip4.dst == {system}"),
        ),
        (
            "drop/from-system",
            SYSTEM_PRIORITY,
            format!("inport == \"{external}\" && ip4.src == {system}"),
        ),
        (
            // Tenants reach EIPs by this router, and nothing else without an EIP of their own.
            "drop/out",
            OUT_PRIORITY,
            format!(
                "inport == \"{inside}\" && outport == \"{external}\" && ip4.src != {}",
                gateway.cidr
            ),
        ),
    ];
    rows.extend(drops.map(|(role, priority, matches)| {
        policy(owner, role, router.uuid, priority, matches, "drop", None)
    }));
    rows
}

/// The addresses of the bound Eips of Services over several Vpcs.
fn addresses_over_several(snapshot: &Snapshot, gateway: &str) -> BTreeSet<String> {
    let eips: BTreeSet<_> = snapshot
        .services_over_several()
        .filter_map(|service| snapshot.eip_of_service(service))
        .collect();
    let here = eips.iter().filter(|eip| {
        let eip = snapshot.eip(eip);
        eip.is_some_and(|eip| snapshot.eip_gateway_of_eip(eip) == Some(gateway))
    });
    let bound = here.filter_map(|eip| bound(snapshot, eip));
    let several = bound.filter(|(_, binding)| binding.several);
    several
        .map(|(address, _)| format!("{address}/32"))
        .collect()
}

/// Service gateway `k` on a node: a gateway router, as only those can put clients behind an address of their own, so that
/// answers come back through them. It holds the EIPs, so that it answers pings.
fn service_rows(
    owner: &Owner,
    name: &str,
    k: u32,
    node: Option<&str>,
    eips: &BTreeSet<String>,
    layout: Layout,
) -> Vec<Row> {
    let (router, switch) = (service_router(name, k), service_switch(name, k));
    let address = layout.transit_service_gateway(k);
    let mut networks = vec![format!("{address}/{TRANSIT_LENGTH}")];
    networks.extend(eips.iter().cloned());
    let force = layout.force_snat(k).to_string();
    let mut options = BTreeMap::from([("lb_force_snat_ip".to_owned(), force)]);
    if let Some(node) = node {
        options.insert("chassis".to_owned(), node.to_owned());
    }
    let switch_columns = Columns::new()
        .with("name", switch.name.as_str())
        .with("other_config", none())
        .with("load_balancer_group", None::<Uuid>);
    let group = Some(service_group(name));
    let mut rows = vec![
        row(
            owner,
            &format!("svct/{k}"),
            "Logical_Switch",
            switch_columns,
            [],
        ),
        router_row(owner, &format!("sg/{k}"), &router, options, group),
        route(
            owner,
            &format!("sg/{k}/default-route"),
            router.uuid,
            "0.0.0.0/0".to_owned(),
            layout.transit_gateway().to_string(),
        ),
    ];
    let to_transit = Link {
        router: router.clone(),
        switch: transit(name),
        mac: derived_mac(ROUTER_MAC, name, address),
        networks,
        ha_group: None,
        announces: false,
        options: none(),
    };
    rows.extend(to_transit.rows(owner, &format!("sg/{k}/transit")));
    let address = layout.service_gateway(k);
    let to_services = Link {
        router,
        switch,
        mac: derived_mac(ROUTER_MAC, name, address),
        networks: vec![format!("{address}/{SERVICE_LENGTH}")],
        ha_group: None,
        announces: false,
        options: none(),
    };
    rows.extend(to_services.rows(owner, &format!("sg/{k}/svct")));
    rows
}
