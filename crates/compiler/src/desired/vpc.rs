//! `Vpc`: its router, and the group through which every Service reaches every switch.

use std::collections::BTreeSet;

use uuid::Uuid;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::attachment::{self, Attachment};
use crate::desired::{DROP_PRIORITY, none, policy, route, row};
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

/// What lets the Pods of the default Vpc leave through their node: see the policies of `Node`.
fn default_vpc(snapshot: &Snapshot, owner: &Owner, name: &str) -> Vec<Row> {
    let next_hop = snapshot.settings().unused_join_address();
    let mut rows = vec![route(
        owner,
        "default-route",
        router(name),
        "0.0.0.0/0".to_owned(),
        next_hop.to_string(),
    )];
    let ranges: BTreeSet<_> = snapshot.service_cidrs().map(|(_, range)| range).collect();
    let ranges = ranges.into_iter().filter(|range| range.addr().is_ipv4());
    rows.extend(ranges.map(|range| {
        let matches = format!("ip4.dst == {range}");
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
