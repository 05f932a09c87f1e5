//! `VNic`: its logical port.

use ycloud_api::VNic;
use ycloud_api::vnic::{AttachmentKind, logical_port};
use ycloud_ovsdb::Columns;

use crate::desired::{node, none, row, subnet};
use crate::owner::{ObjectKey, Owner};
use crate::row::Row;
use crate::validate::vnic::Address;

/// The rows of a VNic that has an address.
///
/// Port security ties a port to its addresses. A node's port is tied to its MAC address only: the node answers Pods from
/// whichever of its own addresses they called.
pub fn rows(key: &ObjectKey, vnic: &VNic, address: &Address) -> Vec<Row> {
    let ips = address.ips.iter().map(|ip| format!(" {ip}"));
    let pair = address.mac.clone() + &ips.collect::<String>();
    let security = match vnic.spec.attachment.kind {
        AttachmentKind::Node => address.mac.clone(),
        _ => pair.clone(),
    };
    let columns = Columns::new()
        .with("name", logical_port(&key.namespace, &key.name))
        .with("type", "")
        .with("addresses", pair)
        .with("port_security", security)
        .with("enabled", None::<bool>)
        .with("options", none());
    let mut parents = vec![subnet::in_switch(&vnic.spec.subnet)];
    parents.extend(address.egress_node.as_deref().map(node::in_port_group));
    vec![row(
        &Owner::VNic(key.clone()),
        "port",
        "Logical_Switch_Port",
        columns,
        parents,
    )]
}
