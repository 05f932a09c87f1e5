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

/// One route to each: equal routes share the connections (ovn-nb(5), ECMP).
fn to_service_gateways(owner: &Owner, address: Ipv4Addr, of: &Of<'_>) -> Vec<Row> {
    let rows = service_numbers(of.object).flat_map(|k| {
        let port = service_transit_port(of.name, k);
        let matches =
            format!("inport == \"{port}\" && outport == \"{port}\" && ip4.dst == {address}");
        [
            route(
                owner,
                &format!("route/{k}"),
                router(of.name).uuid,
                format!("{address}/32"),
                of.layout.transit_service_gateway(k).to_string(),
            ),
            policy(
                owner,
                &format!("drop/{k}"),
                service_router(of.name, k).uuid,
                LOOP_PRIORITY,
                matches,
                "drop",
                None,
            ),
        ]
    });
    rows.collect()
}
