//! `Vpc`: its router, and the group through which every Service reaches every switch.

use std::collections::BTreeSet;

use uuid::Uuid;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::{DROP_PRIORITY, none, policy, row};
use crate::owner::Owner;
use crate::ownerindex::GROUP_PREFIX;
use crate::row::{Parent, Row};
use crate::snapshot::Snapshot;

/// UUID of the `Logical_Router` of a Vpc.
pub fn router(vpc: &str) -> Uuid {
    Owner::Vpc(vpc.to_owned()).uuid("router")
}

/// UUID of the `Load_Balancer_Group` of a Vpc.
pub fn group(vpc: &str) -> Uuid {
    Owner::Vpc(vpc.to_owned()).uuid("group")
}

/// The rows of a Vpc.
pub fn rows(snapshot: &Snapshot, name: &str) -> Vec<Row> {
    let owner = Owner::Vpc(name.to_owned());
    let columns = Columns::new()
        .with("name", name)
        .with("enabled", None::<bool>)
        .with("options", none());
    let mut rows = vec![
        row(&owner, "router", "Logical_Router", columns, []),
        Row {
            uuid: group(name),
            table: "Load_Balancer_Group",
            columns: Columns::new().with("name", format!("{GROUP_PREFIX}{name}")),
            parents: BTreeSet::new(),
        },
    ];
    if name == key::DEFAULT_VPC {
        rows.extend(default_vpc(snapshot, &owner, name));
    }
    rows
}

/// What lets the Pods of the default Vpc leave through their node: see the policies of `Node`.
fn default_vpc(snapshot: &Snapshot, owner: &Owner, name: &str) -> Vec<Row> {
    let next_hop = snapshot.settings().unused_join_address();
    let columns = Columns::new()
        .with("route_table", "")
        .with("ip_prefix", "0.0.0.0/0")
        .with("policy", None::<&str>)
        .with("nexthop", next_hop.to_string())
        .with("output_port", None::<&str>)
        .with("options", none());
    let parent = Parent {
        table: "Logical_Router",
        uuid: router(name),
        column: "static_routes",
    };
    let mut rows = vec![row(
        owner,
        "default-route",
        "Logical_Router_Static_Route",
        columns,
        [parent],
    )];
    let ranges: BTreeSet<_> = snapshot.service_cidrs().map(|(_, range)| range).collect();
    rows.extend(ranges.into_iter().map(|range| {
        let matches = format!("ip4.dst == {range}");
        policy(
            owner,
            &format!("drop/{range}"),
            name,
            DROP_PRIORITY,
            matches,
            "drop",
            None,
        )
    }));
    rows
}
