//! The rows of a valid object. Cannot fail. One file an owner kind; ARCHITECTURE.md, "Rows", has the table.

pub mod attachment;
pub(crate) mod chassis_probe;
pub mod eip;
pub mod eip_gateway;
pub(crate) mod link;
pub(crate) mod mtu;
pub mod node;
pub(crate) mod probe_network;
pub mod service;
pub mod subnet;
pub mod vnic;
pub mod vpc;
pub(crate) mod way_back;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use ycloud_api::address::Family;
use ycloud_ovsdb::Columns;

use crate::owner::Owner;
use crate::row::{Parent, Row, external_ids};

/// Priority of the policies that let traffic to the default Vpc's Subnets take the route it has. ovn-nb(5)
/// Logical_Router_Policy priority, 0..=32767; the highest match wins.
pub(crate) const ALLOW_PRIORITY: i64 = 200;
/// Priority of the policies that drop what goes to addresses of the service range that no Service has.
pub(crate) const DROP_PRIORITY: i64 = 190;
/// Priority of the policies that send the rest of the default Vpc's Pods' traffic to their own node.
pub(crate) const EGRESS_PRIORITY: i64 = 100;

/// A row of `owner` with its marks in `external_ids`.
pub(crate) fn row(
    owner: &Owner,
    role: &str,
    table: &'static str,
    columns: Columns,
    parents: impl IntoIterator<Item = Parent>,
) -> Row {
    Row {
        uuid: owner.uuid(role),
        table,
        columns: columns.with("external_ids", external_ids(owner, role)),
        parents: BTreeSet::from_iter(parents),
    }
}

/// The protocol of a family in the matches of ovn-sb(5) Logical_Flow: `ip4` or `ip6`.
pub(crate) fn ip(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip4",
        Family::Ipv6 => "ip6",
    }
}

/// The role of a row that there is for each family: as it is for IPv4, with `/ipv6` behind it for IPv6.
pub(crate) fn of_family(role: &str, family: Family) -> String {
    match family {
        Family::Ipv4 => role.to_owned(),
        Family::Ipv6 => format!("{role}/ipv6"),
    }
}

/// An empty map: for columns that are ours to keep empty.
pub(crate) fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// A row of `Logical_Router_Policy`, in the policies of a router.
///
/// A match that northd cannot read drops nothing and shows only in ovn-controller's log. Ports and protocols may only be
/// tested to be equal or one of a set; `ip4.src != {…}` is fine. Several next hops share the connections.
pub(crate) fn policy(
    owner: &Owner,
    role: &str,
    router: Uuid,
    priority: i64,
    matches: String,
    action: &'static str,
    next_hops: impl IntoIterator<Item = String>,
) -> Row {
    let columns = Columns::new()
        .with("priority", priority)
        .with("match", matches)
        .with("action", action)
        .with("nexthop", None::<&str>)
        .with("nexthops", next_hops.into_iter().collect::<Vec<_>>())
        .with("options", none());
    let parent = Parent {
        table: "Logical_Router",
        uuid: router,
        column: "policies",
    };
    row(owner, role, "Logical_Router_Policy", columns, [parent])
}

/// A row of `Logical_Router_Static_Route`, in the routes of a router. A next hop `discard` drops.
pub(crate) fn route(
    owner: &Owner,
    role: &str,
    router: Uuid,
    prefix: String,
    next_hop: String,
) -> Row {
    let columns = Columns::new()
        .with("route_table", "")
        .with("ip_prefix", prefix)
        .with("policy", None::<&str>)
        .with("nexthop", next_hop)
        .with("output_port", None::<&str>)
        .with("options", none());
    let parent = Parent {
        table: "Logical_Router",
        uuid: router,
        column: "static_routes",
    };
    row(
        owner,
        role,
        "Logical_Router_Static_Route",
        columns,
        [parent],
    )
}

/// A row of `NAT`, in those of a router. Stateless: for `dnat_and_snat`, one to one without conntrack.
pub(crate) fn nat(
    owner: &Owner,
    role: &str,
    router: Uuid,
    kind: &'static str,
    external: String,
    logical: String,
    stateless: bool,
) -> Row {
    let options = match stateless {
        true => BTreeMap::from([("stateless".to_owned(), "true".to_owned())]),
        false => none(),
    };
    let columns = Columns::new()
        .with("type", kind)
        .with("external_ip", external)
        .with("logical_ip", logical)
        .with("external_mac", None::<&str>)
        .with("logical_port", None::<&str>)
        .with("options", options);
    let parent = Parent {
        table: "Logical_Router",
        uuid: router,
        column: "nat",
    };
    row(owner, role, "NAT", columns, [parent])
}
