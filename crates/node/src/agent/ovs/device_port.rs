//! Ports of devices that VNics name, and who else has what they need.

use std::collections::BTreeMap;
use std::time::Duration;

use ycloud_ovsdb::{Columns, Mutation, Operation, Row, Uuid};

use super::{Error, Ovs, View, external_id, id, insert, text};
use crate::agent::mac::Mac;

/// `Interface:external_ids` key by which the agent knows such a port again: `<namespace>/<name>` of the VNic.
const VNIC: &str = "ycloud-vnic";

/// The index that the device had: a device that was made anew under its old name is not what Open vSwitch has open.
const INDEX: &str = "ycloud-ifindex";

/// How long ovs-vswitchd may take to let a device go.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// A device's port on the integration bridge, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePort {
    /// Name of device, port and interface.
    pub name: String,
    /// The device's index.
    pub index: u32,
    /// The VNic, `<namespace>/<name>`.
    pub vnic: String,
    /// `iface-id`: name of the logical port.
    pub logical_port: String,
    /// MAC address of the VNic.
    pub mac: Mac,
}

/// Any interface of any bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its row.
    pub uuid: Uuid,
    /// Its name, and its device's.
    pub name: String,
    /// The bridge that it is in; `None` while it is in none.
    pub bridge: Option<String>,
    /// `iface-id`.
    pub logical_port: Option<String>,
    /// What it is, where it is a device's port.
    pub device: Option<DevicePort>,
    /// ovn-controller has its flows in the bridge.
    pub installed: bool,
    /// ovs-vswitchd's complaint.
    pub error: Option<String>,
}

impl DevicePort {
    fn external_ids(&self) -> BTreeMap<String, String> {
        let ids = [
            (id::LOGICAL_PORT, self.logical_port.clone()),
            (id::MAC, self.mac.to_string()),
            (VNIC, self.vnic.clone()),
            (INDEX, self.index.to_string()),
        ];
        ids.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Reads `external_ids`. One that somebody has edited is still ours, and not as it shall be.
    fn read(row: &Row) -> Option<Self> {
        let get = |key| external_id(row, key);
        Some(Self {
            name: text(row, "name")?.to_owned(),
            vnic: get(VNIC)?,
            index: get(INDEX).and_then(|n| n.parse().ok()).unwrap_or_default(),
            logical_port: get(id::LOGICAL_PORT).unwrap_or_default(),
            mac: get(id::MAC)
                .and_then(|m| m.parse().ok())
                .unwrap_or_default(),
        })
    }
}

impl View {
    /// All interfaces, sorted by name.
    pub fn interfaces(&self) -> Vec<Interface> {
        let bridges = self.bridges();
        let rows = self.snapshot.table("Interface");
        let mut interfaces: Vec<Interface> = rows
            .iter()
            .filter_map(|row| {
                Some(Interface {
                    uuid: row.uuid(),
                    name: text(row, "name")?.to_owned(),
                    bridge: bridges.get(&row.uuid()).cloned(),
                    logical_port: external_id(row, id::LOGICAL_PORT),
                    device: DevicePort::read(row),
                    installed: external_id(row, id::INSTALLED).as_deref() == Some("true"),
                    error: text(row, "error").map(str::to_owned),
                })
            })
            .collect();
        interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        interfaces
    }

    /// The row of the switch itself.
    fn switch(&self) -> Option<&std::sync::Arc<Row>> {
        self.snapshot.table("Open_vSwitch").iter().next()
    }

    /// `next_cfg`: how often a change was asked for whose end somebody awaits; `cur_cfg`: how many ovs-vswitchd has taken up.
    /// Source: ovs-vswitchd.conf.db(5).
    fn number(&self, column: &str) -> i64 {
        let number = self.switch().and_then(|row| row.get(column)?.as_integer());
        number.unwrap_or_default()
    }

    /// The bridge of each interface.
    fn bridges(&self) -> BTreeMap<Uuid, String> {
        let ports = self.snapshot.table("Port");
        let mut bridges = BTreeMap::new();
        for bridge in self.snapshot.table("Bridge").iter() {
            let name = text(bridge, "name").unwrap_or_default();
            for port in set(bridge, "ports").filter_map(|uuid| ports.get(uuid)) {
                bridges.extend(set(port, "interfaces").map(|uuid| (uuid, name.to_owned())));
            }
        }
        bridges
    }
}

fn set<'a>(row: &'a Row, column: &str) -> impl Iterator<Item = Uuid> + 'a {
    let set = row.get(column).and_then(|column| column.as_set());
    set.into_iter()
        .flat_map(|set| set.iter().filter_map(|atom| atom.as_uuid()))
}

impl Ovs {
    /// Takes ports off the integration bridge, and waits until ovs-vswitchd has let go of their devices, as far as it does in
    /// time. One that is put there again before would be taken for the former: of a device made anew under its old name
    /// ovs-vswitchd would keep what it had open.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_device_ports(&self, removed: &[Uuid]) -> Result<(), Error> {
        let view = self.view();
        let bridge = view.bridge()?;
        let has = |row: &Row| set(row, "interfaces").any(|uuid| removed.contains(&uuid));
        let ports = view.snapshot.table("Port").iter();
        let gone: Vec<Uuid> = ports.filter(|row| has(row)).map(|row| row.uuid()).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mutation = Mutation::delete("ports", gone);
        let mut operations = vec![Operation::mutate("Bridge", bridge.uuid(), vec![mutation])];
        operations.extend(view.switch().map(|switch| {
            let mutation = Mutation::add("next_cfg", 1);
            Operation::mutate("Open_vSwitch", switch.uuid(), vec![mutation])
        }));
        self.transact("remove ports of devices", operations).await?;
        let wanted = self.view().number("next_cfg");
        let done = self.wait(|view| {
            let done = view.number("cur_cfg") >= wanted;
            Ok::<_, std::convert::Infallible>(done.then_some(()))
        });
        if tokio::time::timeout(RELEASE_LIMIT, done).await.is_err() {
            tracing::warn!("ovs-vswitchd has not taken up a change of its ports; does it run?");
        }
        Ok(())
    }

    /// Puts devices on the integration bridge.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_device_ports(&self, added: &[DevicePort]) -> Result<(), Error> {
        let view = self.view();
        let bridge = view.bridge()?;
        let ports = added.iter().flat_map(|port| {
            let columns = Columns::new()
                .with("name", port.name.as_str())
                .with("external_ids", port.external_ids());
            insert(&bridge, Uuid::new_v4(), &port.name, columns)
        });
        let operations: Vec<Operation> = ports.collect();
        if operations.is_empty() {
            return Ok(());
        }
        self.transact("add ports of devices", operations).await
    }
}
