//! `Subnet`: its switch, and the pair of ports that joins it to the Vpc's router.

use std::collections::BTreeMap;

use uuid::Uuid;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::attachment::Attachment;
use crate::desired::{ALLOW_PRIORITY, ip, mtu, nat, none, of_family, policy, row, vpc};
use crate::ipam::{ROUTER_MAC, derived_mac};
use crate::owner::Owner;
use crate::row::{Parent, Row};
use crate::snapshot::Settings;
use crate::validate::network::Network;

/// UUID of the `Logical_Switch` of a Subnet.
pub fn switch(subnet: &str) -> Uuid {
    Owner::Subnet(subnet.to_owned()).uuid("switch")
}

/// The rows of an accepted Subnet.
///
/// Names of router and switch ports share one space in the Southbound database (`Port_Binding:logical_port`), so that
/// `<vpc>-<subnet>` and `<subnet>-<vpc>` would collide for a Subnet named as its Vpc. The prefixes hold a character
/// that no Kubernetes name has.
pub fn rows(
    settings: &Settings,
    name: &str,
    network: &Network,
    attachment: Option<&Attachment>,
) -> Vec<Row> {
    let owner = Owner::Subnet(name.to_owned());
    let vpc = &network.vpc;
    let router_port = format!("lrp:{vpc}/{name}");
    let networks = network
        .cidrs()
        .map(|cidr| format!("{}/{}", cidr.gateway, cidr.range.prefix_len()));
    let gateway = network.cidrs().next().map(|cidr| cidr.gateway);
    let router_columns = Columns::new()
        .with("name", router_port.as_str())
        .with("mac", gateway.map(|ip| derived_mac(ROUTER_MAC, vpc, ip)))
        .with("networks", networks.collect::<Vec<_>>())
        .with("enabled", None::<bool>)
        .with("options", mtu::in_subnet(settings));
    let switch_columns = Columns::new()
        .with("name", name)
        .with("other_config", none())
        .with("load_balancer_group", vpc::group(vpc));
    let options = BTreeMap::from([("router-port".to_owned(), router_port)]);
    let switch_port_columns = Columns::new()
        .with("name", format!("lsp:{vpc}/{name}"))
        .with("type", "router")
        .with("addresses", "router")
        .with("port_security", None::<&str>)
        .with("enabled", None::<bool>)
        .with("options", options);
    let in_router = Parent {
        table: "Logical_Router",
        uuid: vpc::router(vpc),
        column: "ports",
    };
    let mut rows = vec![
        row(&owner, "switch", "Logical_Switch", switch_columns, []),
        row(
            &owner,
            "router-port",
            "Logical_Router_Port",
            router_columns,
            [in_router],
        ),
        row(
            &owner,
            "switch-port",
            "Logical_Switch_Port",
            switch_port_columns,
            [in_switch(name)],
        ),
    ];
    if vpc == key::DEFAULT_VPC {
        rows.extend(network.cidrs().map(|cidr| {
            let matches = format!("{}.dst == {}", ip(cidr.family()), cidr.range);
            policy(
                &owner,
                &of_family("allow", cidr.family()),
                vpc::router(vpc),
                ALLOW_PRIORITY,
                matches,
                "allow",
                None,
            )
        }));
    }
    if let (Some(attachment), Some(range)) = (attachment, network.ipv4()) {
        // On the transit switch the Vpc's tenants appear behind its own address there: theirs may be in several Vpcs.
        rows.push(nat(
            &owner,
            "snat",
            vpc::router(vpc),
            "snat",
            attachment.snat().to_string(),
            range.to_string(),
            false,
        ));
    }
    rows
}

/// Membership in the ports of a Subnet's switch.
pub(crate) fn in_switch(subnet: &str) -> Parent {
    Parent {
        table: "Logical_Switch",
        uuid: switch(subnet),
        column: "ports",
    }
}
