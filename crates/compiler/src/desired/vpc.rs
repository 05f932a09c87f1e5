//! `Vpc`: its router, and the group through which every Service reaches every switch.

use std::collections::BTreeSet;

use uuid::Uuid;
use ycloud_api::address::Family;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::attachment::{self, Attachment};
use crate::desired::{
    DROP_PRIORITY, ip, none, of_family, policy, probe_network, route, row, way_back,
};
use crate::owner::Owner;
use crate::ownerindex::{GROUP_PREFIX, ROUTER_GROUP_PREFIX};
use crate::row::Row;
use crate::snapshot::Snapshot;

/// UUID of the `Logical_Router` of a Vpc.
pub fn router(vpc: &str) -> Uuid {
    Owner::Vpc(vpc.to_owned()).uuid("router")
}

/// UUID of the `Load_Balancer_Group` of a Vpc.
pub fn group(vpc: &str) -> Uuid {
    Owner::Vpc(vpc.to_owned()).uuid("group")
}

/// UUID of the `Load_Balancer_Group` on a Vpc's router: its Services with an EIP.
pub fn router_group(vpc: &str) -> Uuid {
    Owner::Vpc(vpc.to_owned()).uuid("router-group")
}

/// The rows of a Vpc.
pub fn rows(snapshot: &Snapshot, name: &str) -> Vec<Row> {
    let owner = Owner::Vpc(name.to_owned());
    let attachment = Attachment::of(snapshot, name);
    // A load balancer on a router without a gateway port translates one way only.
    let on_router = attachment.as_ref().map(|_| router_group(name));
    let columns = Columns::new()
        .with("name", name)
        .with("enabled", None::<bool>)
        .with("options", none())
        .with("load_balancer_group", on_router);
    let mut rows = vec![load_balancer_group(
        group(name),
        format!("{GROUP_PREFIX}{name}"),
    )];
    if let Some(uuid) = on_router {
        rows.push(load_balancer_group(
            uuid,
            format!("{ROUTER_GROUP_PREFIX}{name}"),
        ));
    }
    rows.push(row(&owner, "router", "Logical_Router", columns, []));
    if name == key::DEFAULT_VPC {
        rows.extend(default_vpc(snapshot, &owner, name));
    }
    if let Some(attachment) = attachment {
        rows.extend(attachment::rows(snapshot, name, &attachment));
    }
    rows.extend(probe_network::rows(snapshot, name));
    rows
}

/// A group of load balancers; the table has no `external_ids`, its names say whose the rows are.
pub(crate) fn load_balancer_group(uuid: Uuid, name: String) -> Row {
    Row {
        uuid,
        table: "Load_Balancer_Group",
        columns: Columns::new().with("name", name),
        parents: BTreeSet::new(),
    }
}

/// What lets the Pods of the default Vpc leave through their node: see the policies of `Node`. What is no node's Pod answers
/// clients of EIPs by the default route, and the EipGateway lets nothing else out.
fn default_vpc(snapshot: &Snapshot, owner: &Owner, name: &str) -> Vec<Row> {
    let join = snapshot.network(key::JOIN_SUBNET);
    let entry = snapshot.eip_entry();
    let has_ipv6 = join.is_some_and(|join| join.vpc == name && join.cidr(Family::Ipv6).is_some());
    let families = Family::ALL.into_iter().filter(|family| match family {
        Family::Ipv4 => true,
        Family::Ipv6 => has_ipv6,
    });
    let mut rows: Vec<Row> = families
        .map(|family| {
            let everything = match family {
                Family::Ipv4 => "0.0.0.0/0",
                Family::Ipv6 => "::/0",
            };
            let unused = snapshot.settings().unused_join_address(family);
            let next_hop = match entry {
                Some(entry) if family == Family::Ipv4 => entry.layout.transit_gateway().into(),
                _ => unused,
            };
            route(
                owner,
                &of_family("default-route", family),
                router(name),
                everything.to_owned(),
                next_hop.to_string(),
            )
        })
        .collect();
    rows.extend(
        entry
            .into_iter()
            .flat_map(|entry| way_back::of_vpc(owner, entry)),
    );
    let ranges: BTreeSet<_> = snapshot.service_cidrs().map(|(_, range)| range).collect();
    rows.extend(ranges.into_iter().map(|range| {
        let matches = format!("{}.dst == {range}", ip(Family::of(range.addr())));
        policy(
            owner,
            &format!("drop/{range}"),
            router(name),
            DROP_PRIORITY,
            matches,
            "drop",
            None,
        )
    }));
    rows
}
