//! What joins a Vpc to its EipGateway: its port on the transit switch, the rules there, and the aliases of its backends.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use uuid::Uuid;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::eip_gateway::{
    ha_group, service_ha_group, service_numbers, service_router, service_switch, transit,
};
use crate::desired::link::{End, Link};
use crate::desired::{ALLOW_PRIORITY, nat, none, policy, route, row, vpc};
use crate::eip::bound;
use crate::ipam::{ROUTER_MAC, derived_mac};
use crate::layout::{ALIAS_LINK_LENGTH, Layout, SERVICE_LENGTH, TRANSIT_LENGTH};
use crate::owner::Owner;
use crate::row::Row;
use crate::snapshot::{Snapshot, recorded};

/// Priority of the policies that let pass what [`SYSTEM_PRIORITY`] would drop.
const PASS_PRIORITY: i64 = 1100;
/// Priority of the policies that keep a Vpc's tenants off the system range.
const SYSTEM_PRIORITY: i64 = 1000;
/// Addresses that never leave a link, RFC 3927.
const LINK_LOCAL: &str = "169.254.0.0/16";

/// To which EipGateway a Vpc is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the EipGateway.
    pub gateway: String,
    /// The Vpc's slot, from which its addresses on the EipGateway's switches follow.
    pub slot: u32,
    /// The range of the EipGateway.
    pub cidr: Option<Ipv4Net>,
    /// How many service gateways it has.
    pub service_gateways: u32,
    /// How the system range is divided.
    pub layout: Layout,
}

impl Attachment {
    /// Where a Vpc is attached; `None` if its EipGateway is missing or refused. One that is refused and keeps its rows
    /// counts.
    pub fn of(snapshot: &Snapshot, vpc: &str) -> Option<Self> {
        let gateway = snapshot.eip_gateway_of(vpc)?;
        let object = snapshot.eip_gateway(gateway)?;
        let asked = (
            object.spec.cidr.parse().ok(),
            service_numbers(object).count(),
        );
        let (cidr, count) = match snapshot.gateway(gateway)? {
            Ok(_) => asked,
            Err(rejection) if !rejection.keep => return None,
            // Its rows are as its last good spec had them, and so must be those that go with them.
            Err(_) => match recorded(object) {
                (cidr @ Some(_), count) => (cidr, count),
                (None, _) => asked,
            },
        };
        Some(Self {
            gateway: gateway.to_owned(),
            slot: snapshot.vpc_slot(vpc)?,
            cidr,
            service_gateways: count.try_into().unwrap_or(0),
            layout: snapshot.settings().layout()?,
        })
    }

    /// Behind which address the Vpc's tenants appear on the transit switch.
    pub fn snat(&self) -> Ipv4Addr {
        self.layout.snat(self.slot)
    }
}

/// The rows of an attached Vpc.
pub(crate) fn rows(snapshot: &Snapshot, name: &str, attachment: &Attachment) -> Vec<Row> {
    let owner = Owner::Vpc(name.to_owned());
    let router = End {
        uuid: vpc::router(name),
        name: name.to_owned(),
    };
    let layout = attachment.layout;
    let address = layout.transit_vpc(attachment.slot);
    let mut networks = vec![format!("{address}/{TRANSIT_LENGTH}")];
    // The router holds them, so that it answers pings and drops what no load balancer takes.
    networks.extend(eips(snapshot, name).iter().map(|ip| format!("{ip}/32")));
    let to_transit = Link {
        router: router.clone(),
        switch: transit(&attachment.gateway),
        mac: derived_mac(ROUTER_MAC, name, address),
        networks,
        ha_group: Some(ha_group(&attachment.gateway)),
        announces: false,
        options: none(),
    };
    let mut rows: Vec<Row> = to_transit.rows(&owner, "transit").into();
    rows.extend(ways(&owner, name, attachment));
    rows.extend(rules(snapshot, &owner, name, layout));
    rows.extend(aliases(snapshot, &owner, &router, attachment));
    rows
}

/// The addresses of the Eips that serve this Vpc alone.
fn eips(snapshot: &Snapshot, name: &str) -> BTreeSet<Ipv4Addr> {
    let eips: BTreeSet<_> = snapshot
        .eip_uses_of(name)
        .filter_map(|service| snapshot.eip_of_service(service))
        .collect();
    let bound = eips.iter().filter_map(|eip| bound(snapshot, eip));
    let here = bound.filter(|(_, binding)| binding.vpc.as_deref() == Some(name));
    here.map(|(address, _)| address).collect()
}

/// The ways to the EipGateway. From the default Vpc only EIPs: the rest leaves by the nodes.
fn ways(owner: &Owner, name: &str, attachment: &Attachment) -> Vec<Row> {
    let next_hop = attachment.layout.transit_gateway().to_string();
    let router = vpc::router(name);
    if name != key::DEFAULT_VPC {
        let everything = "0.0.0.0/0".to_owned();
        return vec![route(owner, "transit/route", router, everything, next_hop)];
    }
    let Some(cidr) = attachment.cidr else {
        return Vec::new();
    };
    vec![
        route(owner, "transit/route", router, cidr.to_string(), next_hop),
        policy(
            owner,
            "transit/allow",
            router,
            ALLOW_PRIORITY,
            format!("ip4.dst == {cidr}"),
            "allow",
            None,
        ),
    ]
}

/// Tenants reach nothing of the system range but answers: to clients of other Vpcs, which appear behind those Vpcs'
/// addresses, and to clients of service gateways. The default Vpc's reach their nodes, on the join switch.
fn rules(snapshot: &Snapshot, owner: &Owner, name: &str, layout: Layout) -> Vec<Row> {
    let system = snapshot.settings().system_cidr;
    let mut pass = vec![layout.snat_range(), layout.force_snat_range()];
    let mut dropped = vec![system.to_string()];
    match name {
        key::DEFAULT_VPC => pass.insert(0, snapshot.settings().join_cidr()),
        _ => dropped.push(LINK_LOCAL.to_owned()),
    }
    let pass: Vec<String> = pass.iter().map(Ipv4Net::to_string).collect();
    let rule = |role, priority, ranges: &[String], action| {
        let matches = format!("ip4.dst == {{{}}}", ranges.join(", "));
        policy(
            owner,
            role,
            vpc::router(name),
            priority,
            matches,
            action,
            None,
        )
    };
    vec![
        rule("system/pass", PASS_PRIORITY, &pass, "allow"),
        rule("system/drop", SYSTEM_PRIORITY, &dropped, "drop"),
    ]
}

/// What lets service gateways reach backends in this Vpc although other Vpcs have the same addresses: each backend has an
/// alias that is its own, translated one to one, without conntrack, by a router between service gateway and Vpc.
fn aliases(snapshot: &Snapshot, owner: &Owner, vpc: &End, attachment: &Attachment) -> Vec<Row> {
    let backends: Vec<_> = snapshot.aliases_of(&vpc.name).collect();
    if backends.is_empty() {
        return Vec::new();
    }
    let layout = attachment.layout;
    let switch = End {
        uuid: owner.uuid("alias"),
        name: format!("alias/{}", vpc.name),
    };
    let columns = Columns::new()
        .with("name", switch.name.as_str())
        .with("other_config", none())
        .with("load_balancer_group", None::<Uuid>);
    let address = layout.alias_link();
    let link = Link {
        router: vpc.clone(),
        switch: switch.clone(),
        mac: derived_mac(ROUTER_MAC, &vpc.name, address),
        networks: vec![format!("{address}/{ALIAS_LINK_LENGTH}")],
        ha_group: None,
        announces: false,
        options: none(),
    };
    let mut rows = vec![row(owner, "alias", "Logical_Switch", columns, [])];
    rows.extend(link.rows(owner, "alias"));
    for k in 1..=attachment.service_gateways {
        rows.extend(alias_router(owner, vpc, &switch, attachment, k));
        for (ip, slot) in &backends {
            let reached = match vpc.name.as_str() {
                key::DEFAULT_VPC => snapshot.join_ipv4_of(*ip).unwrap_or(*ip),
                _ => *ip,
            };
            rows.extend(alias(owner, attachment, k, *ip, *slot, reached));
        }
    }
    rows
}

fn alias_router_uuid(owner: &Owner, k: u32) -> Uuid {
    owner.uuid(&format!("alias/{k}"))
}

/// Alias router `k` between service gateway `k` and the Vpc.
fn alias_router(
    owner: &Owner,
    vpc: &End,
    switch: &End,
    attachment: &Attachment,
    k: u32,
) -> Vec<Row> {
    let (layout, gateway) = (attachment.layout, &attachment.gateway);
    let router = End {
        uuid: alias_router_uuid(owner, k),
        name: format!("alias/{k}/{}", vpc.name),
    };
    let columns = Columns::new()
        .with("name", router.name.as_str())
        .with("enabled", None::<bool>)
        .with("options", none())
        .with("load_balancer_group", None::<Uuid>);
    let role = format!("alias/{k}");
    let mut rows = vec![row(owner, &role, "Logical_Router", columns, [])];
    let address = layout.alias_router(attachment.slot);
    let to_services = Link {
        router: router.clone(),
        switch: service_switch(gateway, k),
        mac: derived_mac(ROUTER_MAC, &vpc.name, address),
        networks: vec![format!("{address}/{SERVICE_LENGTH}")],
        ha_group: Some(service_ha_group(gateway, k)),
        announces: false,
        options: none(),
    };
    rows.extend(to_services.rows(owner, &format!("{role}/svct")));
    let address = layout.alias_link_router(k);
    let to_vpc = Link {
        router: router.clone(),
        switch: switch.clone(),
        mac: derived_mac(ROUTER_MAC, &vpc.name, address),
        networks: vec![format!("{address}/{ALIAS_LINK_LENGTH}")],
        ha_group: None,
        announces: false,
        options: none(),
    };
    rows.extend(to_vpc.rows(owner, &format!("{role}/link")));
    let client = format!("{}/32", layout.force_snat(k));
    let mut way = |role: String, router, prefix: &str, next_hop: Ipv4Addr| {
        rows.push(route(
            owner,
            &role,
            router,
            prefix.to_owned(),
            next_hop.to_string(),
        ));
    };
    way(
        format!("{role}/to-vpc"),
        router.uuid,
        "0.0.0.0/0",
        layout.alias_link(),
    );
    way(
        format!("{role}/to-sg"),
        router.uuid,
        &client,
        layout.service_gateway(k),
    );
    way(format!("{role}/from-vpc"), vpc.uuid, &client, address);
    rows
}

/// One backend's alias at service gateway `k`.
fn alias(
    owner: &Owner,
    attachment: &Attachment,
    k: u32,
    ip: Ipv4Addr,
    slot: u32,
    reached: Ipv4Addr,
) -> [Row; 2] {
    let alias = attachment.layout.alias(slot).to_string();
    [
        nat(
            owner,
            &format!("alias/{k}/{ip}"),
            alias_router_uuid(owner, k),
            "dnat_and_snat",
            alias.clone(),
            reached.to_string(),
            true,
        ),
        route(
            owner,
            &format!("alias/{k}/{ip}/route"),
            service_router(&attachment.gateway, k).uuid,
            format!("{alias}/32"),
            attachment.layout.alias_router(attachment.slot).to_string(),
        ),
    ]
}
