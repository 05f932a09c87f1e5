//! A row as it must be.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use ycloud_ovsdb::Columns;

use crate::owner::{OWNER_KEY, Owner, ROLE_KEY};

/// One row that its owner must have in the Northbound database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Chosen by ycloud, see [`Owner::uuid`].
    pub uuid: Uuid,
    /// Name of the table, ovn-nb(5).
    pub table: &'static str,
    /// The columns that ycloud decides. Columns that are not named keep what others wrote.
    pub columns: Columns,
    /// The rows of which this one must be a member.
    pub parents: BTreeSet<Parent>,
}

/// Membership in a column that is shared with others: the row's UUID must be in that column of that row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parent {
    /// Table of the parent.
    pub table: &'static str,
    /// UUID of the parent.
    pub uuid: Uuid,
    /// Its column, one of [`MEMBERSHIPS`].
    pub column: &'static str,
}

/// One column that holds members, see [`MEMBERSHIPS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Table of the parent.
    pub table: &'static str,
    /// Its column.
    pub column: &'static str,
    /// Table of the members.
    pub member: &'static str,
    /// Whether a reference keeps its member from being deleted (`refType` strong).
    pub strong: bool,
    /// Whether the column is shared with others and changes by single members only; otherwise the parent's owner sets
    /// it whole, and it stands here because it refers to rows of other owners.
    pub shared: bool,
}

/// Every column of ycloud's rows that refers to other rows, as ovn-nb.ovsschema has it.
pub const MEMBERSHIPS: &[Membership] = &[
    membership("Logical_Switch", "ports", "Logical_Switch_Port", true, true),
    membership(
        "Logical_Switch",
        "load_balancer_group",
        "Load_Balancer_Group",
        true,
        false,
    ),
    membership("Logical_Router", "ports", "Logical_Router_Port", true, true),
    membership(
        "Logical_Router",
        "static_routes",
        "Logical_Router_Static_Route",
        true,
        true,
    ),
    membership(
        "Logical_Router",
        "policies",
        "Logical_Router_Policy",
        true,
        true,
    ),
    membership("Logical_Router", "nat", "NAT", true, true),
    membership(
        "Logical_Router",
        "load_balancer_group",
        "Load_Balancer_Group",
        true,
        false,
    ),
    membership(
        "Logical_Router_Port",
        "ha_chassis_group",
        "HA_Chassis_Group",
        true,
        false,
    ),
    membership("HA_Chassis_Group", "ha_chassis", "HA_Chassis", true, true),
    membership("Port_Group", "ports", "Logical_Switch_Port", false, true),
    membership(
        "Load_Balancer_Group",
        "load_balancer",
        "Load_Balancer",
        false,
        true,
    ),
];

/// Tables in which ycloud has rows, and whether a row there lives without a reference to it (`isRoot`).
pub const TABLES: &[(&str, bool)] = &[
    ("Chassis_Template_Var", true),
    ("HA_Chassis", false),
    ("HA_Chassis_Group", true),
    ("Load_Balancer", true),
    ("Load_Balancer_Group", true),
    ("Logical_Router", true),
    ("Logical_Router_Policy", false),
    ("Logical_Router_Port", false),
    ("Logical_Router_Static_Route", false),
    ("Logical_Switch", true),
    ("Logical_Switch_Port", false),
    ("NAT", false),
    ("Port_Group", true),
];

const fn membership(
    table: &'static str,
    column: &'static str,
    member: &'static str,
    strong: bool,
    shared: bool,
) -> Membership {
    Membership {
        table,
        column,
        member,
        strong,
        shared,
    }
}

/// The `external_ids` of an owner's row: the only place that writes the marks by which rows are owned.
pub fn external_ids(owner: &Owner, role: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (OWNER_KEY.to_owned(), owner.to_string()),
        (ROLE_KEY.to_owned(), role.to_owned()),
    ])
}

/// The columns that must be monitored so that [`crate::Batch`] and [`crate::OwnerIndex`] see all they need.
pub const MONITORED: &[(&str, &[&str])] = &[
    ("HA_Chassis", &["chassis_name", "priority", "external_ids"]),
    ("HA_Chassis_Group", &["name", "ha_chassis", "external_ids"]),
    (
        "Chassis_Template_Var",
        &["chassis", "variables", "external_ids"],
    ),
    (
        "Load_Balancer",
        &[
            "name",
            "vips",
            "protocol",
            "selection_fields",
            "options",
            "external_ids",
        ],
    ),
    ("Load_Balancer_Group", &["name", "load_balancer"]),
    (
        "Logical_Router",
        &[
            "name",
            "ports",
            "static_routes",
            "policies",
            "nat",
            "load_balancer_group",
            "enabled",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Router_Policy",
        &[
            "priority",
            "match",
            "action",
            "nexthop",
            "nexthops",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Router_Port",
        &[
            "name",
            "mac",
            "networks",
            "ha_chassis_group",
            "enabled",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Router_Static_Route",
        &[
            "route_table",
            "ip_prefix",
            "policy",
            "nexthop",
            "output_port",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Switch",
        &[
            "name",
            "ports",
            "load_balancer_group",
            "other_config",
            "external_ids",
        ],
    ),
    (
        "Logical_Switch_Port",
        &[
            "name",
            "type",
            "addresses",
            "port_security",
            "tag",
            "enabled",
            "options",
            "up",
            "external_ids",
        ],
    ),
    (
        "NAT",
        &[
            "type",
            "external_ip",
            "logical_ip",
            "external_mac",
            "logical_port",
            "options",
            "external_ids",
        ],
    ),
    ("Port_Group", &["name", "ports", "external_ids"]),
];
