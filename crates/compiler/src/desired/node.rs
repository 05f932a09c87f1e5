//! `Node`: the group of the default Vpc's Pods on it, and their way out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use uuid::Uuid;
use ycloud_api::address::Family;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::{EGRESS_PRIORITY, ip, none, of_family, policy, row, service, vpc, way_back};
use crate::owner::{Owner, UUID_NAMESPACE};
use crate::row::{Parent, Row};
use crate::snapshot::Snapshot;

/// The rows of a Node. Traffic of its Pods to where no other policy applies is sent to its join address, and leaves
/// through its own network card, unless it answers a client of an EIP ([`way_back`]); before the node has a join address there
/// is no such policy. Backends that only this node
/// may use are variables of its chassis.
pub fn rows(snapshot: &Snapshot, name: &str) -> Vec<Row> {
    let owner = Owner::Node(name.to_owned());
    let group = port_group_name(name);
    let mut rows = vec![row(
        &owner,
        "ports",
        "Port_Group",
        Columns::new().with("name", group.as_str()),
        [],
    )];
    let entry = snapshot.eip_entry();
    for family in Family::ALL {
        let Some(join_address) = snapshot.join_address(name, family) else {
            continue;
        };
        // northd makes the address sets <group>_ip4 and <group>_ip6 of a port group's addresses: ovn-nb(5), Port_Group
        // name.
        let next_hop = match join_address {
            IpAddr::V4(join) => {
                let pods = format!("{group}_ip4");
                let back = entry.map(|entry| way_back::of_node(&owner, name, &pods, join, entry));
                rows.extend(back.into_iter().flatten());
                IpAddr::V4(way_back::egress(join, entry))
            }
            IpAddr::V6(_) => join_address,
        };
        let ip = ip(family);
        let matches = format!("{ip}.src == ${group}_{ip}");
        rows.push(policy(
            &owner,
            &of_family("egress", family),
            vpc::router(key::DEFAULT_VPC),
            EGRESS_PRIORITY,
            matches,
            "reroute",
            Some(next_hop.to_string()),
        ));
    }
    rows.push(variables(name, service::variables(snapshot, name)));
    rows
}

/// The row of a chassis whose Node is gone. It stays, without variables, for as long as the chassis lives: an
/// ovn-controller that sees the row go and come again while it had variables ends with a failed assertion (seen on OVN
/// 25.03: `template_vars_update` keeps the variables of the row that went). For the same reason every Node has the row,
/// with or without variables.
pub(crate) fn rows_of_chassis(name: &str) -> Vec<Row> {
    vec![variables(name, none())]
}

fn variables(node: &str, variables: BTreeMap<String, String>) -> Row {
    let owner = Owner::Node(node.to_owned());
    // A chassis is named as its node.
    let columns = Columns::new()
        .with("chassis", node)
        .with("variables", variables);
    row(&owner, "variables", "Chassis_Template_Var", columns, [])
}

/// Membership in the ports of a Node's group.
pub(crate) fn in_port_group(node: &str) -> Parent {
    Parent {
        table: "Port_Group",
        uuid: Owner::Node(node.to_owned()).uuid("ports"),
        column: "ports",
    }
}

/// The name of a Node's port group: `[a-zA-Z_.][a-zA-Z_.0-9]*`, as ovn-nb(5) wants it, at most 56 characters, so that
/// the address sets made of it stay below 63. The hash keeps names apart that look alike once cleaned.
pub fn port_group_name(node: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let head: String = node.chars().take(40).map(clean).collect();
    let hash = Uuid::new_v5(&UUID_NAMESPACE, node.as_bytes())
        .simple()
        .to_string();
    format!("node_{head}_{}", &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_group_names_fit_ovn() {
        let long = "a-b.".repeat(63);
        for node in ["node-1", "node.1", "1", long.as_str()] {
            let name = port_group_name(node);
            assert!(name.len() <= 56, "{name}");
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "{name}"
            );
            assert!(!name.starts_with(|c: char| c.is_ascii_digit()), "{name}");
        }
        assert_ne!(port_group_name("node-1"), port_group_name("node.1"));
    }
}
