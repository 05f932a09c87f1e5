//! The pair of ports that joins a router to a switch.

use std::collections::BTreeMap;

use uuid::Uuid;
use ycloud_ovsdb::Columns;

use crate::desired::row;
use crate::owner::Owner;
use crate::row::{Parent, Row};

/// A router or a switch: UUID and name.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub uuid: Uuid,
    pub name: String,
}

/// A router on a switch.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub router: End,
    pub switch: End,
    pub mac: String,
    /// Addresses with prefix lengths.
    pub networks: Vec<String>,
    /// Makes the router's port a distributed gateway port: it is where this group's active chassis is.
    pub ha_group: Option<Uuid>,
    /// The active chassis announces the router's addresses (NAT addresses among them) on the switch's physical network.
    pub announces: bool,
    /// `Logical_Router_Port:options`.
    pub options: BTreeMap<String, String>,
}

impl Link {
    /// Name of the `Logical_Router_Port` between a router and a switch. No Kubernetes name has a colon.
    pub fn router_port(router: &str, switch: &str) -> String {
        format!("lrp:{router}/{switch}")
    }

    /// The two rows; `role` is that of the link.
    pub fn rows(self, owner: &Owner, role: &str) -> [Row; 2] {
        let (router, switch) = (&self.router.name, &self.switch.name);
        let router_port = Self::router_port(router, switch);
        let router_columns = Columns::new()
            .with("name", router_port.as_str())
            .with("mac", self.mac)
            .with("networks", self.networks)
            .with("ha_chassis_group", self.ha_group)
            .with("enabled", None::<bool>)
            .with("options", self.options);
        let mut options = BTreeMap::from([("router-port".to_owned(), router_port)]);
        if self.announces {
            options.insert("nat-addresses".to_owned(), "router".to_owned());
        }
        let switch_columns = Columns::new()
            .with("name", format!("lsp:{router}/{switch}"))
            .with("type", "router")
            .with("addresses", "router")
            .with("port_security", None::<&str>)
            .with("enabled", None::<bool>)
            .with("options", options);
        let member = |table, uuid| Parent {
            table,
            uuid,
            column: "ports",
        };
        [
            row(
                owner,
                &format!("{role}/router-port"),
                "Logical_Router_Port",
                router_columns,
                [member("Logical_Router", self.router.uuid)],
            ),
            row(
                owner,
                &format!("{role}/switch-port"),
                "Logical_Switch_Port",
                switch_columns,
                [member("Logical_Switch", self.switch.uuid)],
            ),
        ]
    }
}
