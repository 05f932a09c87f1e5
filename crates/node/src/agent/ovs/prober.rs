//! The ports by which this node's prober asks inside Vpcs. What they are for stands in their `external_ids`, so that the
//! next agent knows them as ours.

use std::collections::BTreeMap;

use ycloud_ovsdb::{Columns, Operation, Row, Uuid};

use super::{Error, Ovs, View, external_id, id, insert, remove_interfaces, text};

/// Key in `Interface:external_ids`: the Vpc in which it asks.
const PROBER: &str = "ycloud-prober";

/// A prober's port as it is in the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProberPort {
    interface: Uuid,
    /// Name of port, interface and link.
    pub name: String,
    /// The Vpc.
    pub vpc: String,
    /// `iface-id`.
    pub logical_port: String,
    /// ovn-controller has its flows in the bridge.
    pub installed: bool,
}

/// A prober's port to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPort {
    /// Name of port, interface and link.
    pub name: String,
    /// The Vpc.
    pub vpc: String,
    /// `iface-id`.
    pub logical_port: String,
}

impl View {
    /// The prober's ports, of earlier agents too, sorted by name.
    pub fn prober_ports(&self) -> Vec<ProberPort> {
        let interfaces = self.snapshot.table("Interface");
        let mut ports: Vec<ProberPort> = interfaces.iter().filter_map(|row| port(row)).collect();
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        ports
    }
}

fn port(row: &Row) -> Option<ProberPort> {
    Some(ProberPort {
        interface: row.uuid(),
        name: text(row, "name")?.to_owned(),
        vpc: external_id(row, PROBER)?,
        logical_port: external_id(row, id::LOGICAL_PORT).unwrap_or_default(),
        installed: external_id(row, id::INSTALLED).as_deref() == Some("true"),
    })
}

impl Ovs {
    /// Adds prober's ports to the bridge and removes others, in one transaction: a logical port whose interface is replaced
    /// never goes down in between.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_prober_ports(
        &self,
        gone: &[ProberPort],
        new: &[NewPort],
    ) -> Result<(), Error> {
        let view = self.view();
        let interfaces: Vec<Uuid> = gone.iter().map(|port| port.interface).collect();
        let mut operations = remove_interfaces(&view, &interfaces);
        for port in new {
            operations.extend(added(&view, port)?);
        }
        if operations.is_empty() {
            return Ok(());
        }
        self.transact("change the prober's ports", operations).await
    }
}

fn added(view: &View, port: &NewPort) -> Result<[Operation; 3], Error> {
    let ids = BTreeMap::from([
        (id::LOGICAL_PORT.to_owned(), port.logical_port.clone()),
        (PROBER.to_owned(), port.vpc.clone()),
    ]);
    let columns = Columns::new()
        .with("name", port.name.as_str())
        .with("external_ids", ids);
    let bridge = view.bridge()?;
    Ok(insert(&bridge, Uuid::new_v4(), &port.name, columns))
}
