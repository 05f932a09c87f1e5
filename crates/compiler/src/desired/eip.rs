//! `Eip`: the way from its EipGateway to the Vpc that it is bound to, or to the service gateways.

use std::net::Ipv4Addr;

use ycloud_api::EipGateway;

use crate::desired::attachment::Attachment;
use crate::desired::eip_gateway::{router, service_numbers, service_router, service_transit_port};
use crate::desired::{nat, policy, route};
use crate::layout::Layout;
use crate::owner::{ObjectKey, Owner};
use crate::row::Row;
use crate::snapshot::Snapshot;
use crate::validate::eip::Binding;
use crate::validate::eip_gateway::Gateway;

/// Priority of the policies that drop what a service gateway has no load balancer for: it would go back to the
/// EipGateway, which sends it to a service gateway again.
const LOOP_PRIORITY: i64 = 1000;

/// Priority of the policies that share connections to an Eip among the service gateways: below what is dropped.
const SHARE_PRIORITY: i64 = 300;

/// The EipGateway of an Eip.
pub(crate) struct Of<'a> {
    pub name: &'a str,
    pub object: &'a EipGateway,
    pub gateway: &'a Gateway,
    pub layout: Layout,
}

/// The rows of an Eip that has an address and is of an accepted EipGateway. None while nobody has it.
pub(crate) fn rows(
    snapshot: &Snapshot,
    key: &ObjectKey,
    address: Ipv4Addr,
    binding: &Binding,
    of: &Of<'_>,
) -> Vec<Row> {
    let owner = Owner::Eip(key.clone());
    let mut rows = match &binding.vpc {
        _ if binding.services.is_empty() => return Vec::new(),
        Some(vpc) => to_vpc(snapshot, &owner, address, vpc, of),
        None => to_service_gateways(&owner, address, of),
    };
    if of.gateway.on_link() && !rows.is_empty() {
        // To itself: the active chassis answers ARP for it and announces it, without conntrack.
        let ip = address.to_string();
        let router = router(of.name).uuid;
        rows.push(nat(
            &owner,
            "arp",
            router,
            "dnat_and_snat",
            ip.clone(),
            ip,
            true,
        ));
    }
    rows
}

fn to_vpc(
    snapshot: &Snapshot,
    owner: &Owner,
    address: Ipv4Addr,
    vpc: &str,
    of: &Of<'_>,
) -> Vec<Row> {
    let Some(attachment) = Attachment::of(snapshot, vpc).filter(|a| a.gateway == of.name) else {
        return Vec::new();
    };
    let next_hop = of.layout.transit_vpc(attachment.slot);
    vec![route(
        owner,
        "route",
        router(of.name).uuid,
        format!("{address}/32"),
        next_hop.to_string(),
    )]
}

/// The connections are shared by a policy with a next hop a service gateway. Equal-cost routes would do likewise, but
/// northd numbers them anew whenever the router's routes change, and a connection that moves to the other service gateway
/// is reset. A policy runs only if a route matched, hence the one route.
fn to_service_gateways(owner: &Owner, address: Ipv4Addr, of: &Of<'_>) -> Vec<Row> {
    let next_hop = |k| of.layout.transit_service_gateway(k).to_string();
    let gateway = router(of.name).uuid;
    let mut rows = vec![
        route(
            owner,
            "route",
            gateway,
            format!("{address}/32"),
            next_hop(1),
        ),
        policy(
            owner,
            "share",
            gateway,
            SHARE_PRIORITY,
            format!("ip4.dst == {address}"),
            "reroute",
            service_numbers(of.object).map(next_hop),
        ),
    ];
    rows.extend(service_numbers(of.object).map(|k| {
        let port = service_transit_port(of.name, k);
        policy(
            owner,
            &format!("drop/{k}"),
            service_router(of.name, k).uuid,
            LOOP_PRIORITY,
            format!("inport == \"{port}\" && outport == \"{port}\" && ip4.dst == {address}"),
            "drop",
            None,
        )
    }));
    rows
}
