//! The node's Open vSwitch: ports of Pods on the integration bridge, and in `Interface:external_ids` all that the agent
//! must remember about them.
//!
//! `iface-id` is ovn-controller's (ovn-controller(8), "Open vSwitch Database Configuration"): it binds the logical port of
//! that name, and says so by `ovn-installed=true` once the port's flows are in the bridge.

pub mod device_port;
pub mod prober;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use ycloud_client::Supervisor;
use ycloud_ovsdb::{
    Client, Columns, Config, Mutation, Operation, Outcome, Remote, Row, Snapshot, State,
    Subscription, Uuid,
};

use super::address;
use super::mac::Mac;
use crate::host_port::HostPort;
use crate::protocol::{Addresses, AttachmentId, PodRef};

/// The integration bridge. ovn-controller makes it if nobody else did.
pub const BRIDGE: &str = "br-int";

/// How long a request waits for the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Tables and columns to monitor.
const MONITORED: [(&str, &[&str]); 4] = [
    ("Open_vSwitch", &["external_ids", "next_cfg", "cur_cfg"]),
    ("Bridge", &["name", "ports", "datapath_type"]),
    ("Port", &["name", "interfaces"]),
    (
        "Interface",
        &[
            "name",
            "type",
            "external_ids",
            "options",
            "error",
            "mac",
            "mtu_request",
        ],
    ),
];

/// A change of the switch did not come about, or cannot be awaited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ovn-controller has not made the bridge yet.
    #[error("failed to find bridge {BRIDGE} in Open vSwitch; does ovn-controller run?")]
    NoBridge,
    /// No connection.
    #[error("failed to reach Open vSwitch: {reason}")]
    Away {
        /// Why, in words.
        reason: std::sync::Arc<str>,
    },
    /// The transaction could not be sent.
    #[error("failed to {action} in Open vSwitch")]
    Client {
        /// What, in words.
        action: String,
        /// Why.
        #[source]
        source: ycloud_ovsdb::Error,
    },
    /// The database did not take it.
    #[error("failed to {action} in Open vSwitch: {outcome}")]
    Refused {
        /// What, in words.
        action: String,
        /// The outcome, in words.
        outcome: String,
    },
    /// A port went away while somebody waited for it.
    #[error("failed to await port {name}: it was removed meanwhile")]
    Gone {
        /// The interface's name.
        name: String,
    },
}

/// What is remembered of a Pod's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Which attachment.
    pub id: AttachmentId,
    /// `iface-id`: name of the logical port.
    pub logical_port: String,
    /// Path of the Pod's network namespace.
    pub netns: String,
    /// Whose it is.
    pub pod: PodRef,
    /// MAC address of the Pod's interface.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Addresses,
    /// Name of the Vpc.
    pub vpc: String,
    /// The node's ports that lead to the Pod, sorted.
    pub host_ports: Vec<HostPort>,
}

/// Keys in `Interface:external_ids`.
mod id {
    pub const LOGICAL_PORT: &str = "iface-id";
    pub const MAC: &str = "attached-mac";
    pub const INSTALLED: &str = "ovn-installed";
    pub const CONTAINER: &str = "ycloud-container";
    pub const IFNAME: &str = "ycloud-ifname";
    pub const NETNS: &str = "ycloud-netns";
    pub const POD: &str = "ycloud-pod";
    pub const POD_UID: &str = "ycloud-pod-uid";
    pub const VPC: &str = "ycloud-vpc";
    pub const HOST_PORTS: &str = "ycloud-host-ports";
}

impl Facts {
    fn external_ids(&self) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::from(
            [
                (id::LOGICAL_PORT, self.logical_port.clone()),
                (id::MAC, self.mac.to_string()),
                (id::CONTAINER, self.id.container.clone()),
                (id::IFNAME, self.id.ifname.clone()),
                (id::NETNS, self.netns.clone()),
                (id::POD, format!("{}/{}", self.pod.namespace, self.pod.name)),
                (id::VPC, self.vpc.clone()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        ids.extend(address::external_ids(&self.addresses));
        if let Some(uid) = &self.pod.uid {
            ids.insert(id::POD_UID.to_owned(), uid.clone());
        }
        if !self.host_ports.is_empty() {
            let ports: Vec<String> = self.host_ports.iter().map(HostPort::to_string).collect();
            ids.insert(id::HOST_PORTS.to_owned(), ports.join(","));
        }
        ids
    }

    /// Reads `external_ids`; `None` for a port that is not a Pod's, or that somebody has edited beyond recognition.
    fn read(get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let (namespace, name) = get(id::POD)?.split_once('/').map(own)?;
        Some(Facts {
            id: AttachmentId {
                container: get(id::CONTAINER)?,
                ifname: get(id::IFNAME)?,
            },
            logical_port: get(id::LOGICAL_PORT)?,
            netns: get(id::NETNS)?,
            pod: PodRef {
                namespace,
                name,
                uid: get(id::POD_UID),
            },
            mac: get(id::MAC)?.parse().ok()?,
            addresses: address::read(&get)?,
            vpc: get(id::VPC)?,
            host_ports: host_ports(&get(id::HOST_PORTS).unwrap_or_default())?,
        })
    }
}

fn host_ports(text: &str) -> Option<Vec<HostPort>> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok()).collect()
}

fn own((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

/// A port of a Pod on the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its `Interface` row.
    pub interface: Uuid,
    /// The interface's name: the host's end of the veth pair.
    pub name: String,
    /// What is remembered.
    pub facts: Facts,
    /// ovn-controller has its flows in the bridge.
    pub installed: bool,
    /// ovs-vswitchd's complaint.
    pub error: Option<String>,
}

/// A node interface as it is, or shall be, in the switch: an internal port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Internal {
    /// Name of port, interface and link.
    pub name: String,
    /// MAC address.
    pub mac: Mac,
    /// MTU, bytes.
    pub mtu: u32,
    /// `iface-id` and what the agent remembers.
    pub external_ids: BTreeMap<String, String>,
}

/// One state of the switch.
#[derive(Clone)]
pub struct View {
    snapshot: std::sync::Arc<Snapshot>,
}

impl View {
    /// Whether ovs-vswitchd forwards in user space; `None` while there is no bridge.
    pub fn userspace(&self) -> Option<bool> {
        let bridge = self.bridge().ok()?;
        Some(text(&bridge, "datapath_type") == Some("netdev"))
    }

    fn bridge(&self) -> Result<std::sync::Arc<Row>, Error> {
        let bridges = self.snapshot.table("Bridge");
        let bridge = bridges.iter().find(|b| text(b, "name") == Some(BRIDGE));
        bridge.cloned().ok_or(Error::NoBridge)
    }

    /// The Pods' ports, sorted by name.
    pub fn ports(&self) -> Vec<Port> {
        let interfaces = self.snapshot.table("Interface");
        let mut ports: Vec<Port> = interfaces.iter().filter_map(|row| port(row)).collect();
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        ports
    }

    /// The port of one attachment.
    pub fn port(&self, id: &AttachmentId) -> Option<Port> {
        self.ports().into_iter().find(|port| port.facts.id == *id)
    }

    fn interface(&self, name: &str) -> Option<std::sync::Arc<Row>> {
        let interfaces = self.snapshot.table("Interface");
        interfaces
            .iter()
            .find(|row| text(row, "name") == Some(name))
            .cloned()
    }

    /// An internal port by name, without the ids that are ovn-controller's.
    pub fn internal(&self, name: &str) -> Option<Internal> {
        let row = self.interface(name)?;
        if text(&row, "type") != Some("internal") {
            return None;
        }
        let mtu = row.get("mtu_request").and_then(|d| d.as_integer());
        Some(Internal {
            name: name.to_owned(),
            mac: text(&row, "mac")
                .and_then(|m| m.parse().ok())
                .unwrap_or_default(),
            mtu: mtu.and_then(|m| u32::try_from(m).ok()).unwrap_or_default(),
            external_ids: external_ids(&row)
                .into_iter()
                .filter(|(key, _)| !key.starts_with("ovn-"))
                .collect(),
        })
    }

    /// Machines that ovn-controller and ovs-vswitchd speak to: the other ends of tunnels, and the Southbound database's
    /// servers where they are named by address.
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        let interfaces = self.snapshot.table("Interface").iter();
        let ends = interfaces.filter_map(|row| map(row, "options").remove("remote_ip"));
        let mut peers: BTreeSet<IpAddr> = ends.filter_map(|ip| ip.parse().ok()).collect();
        for row in self.snapshot.table("Open_vSwitch").iter() {
            let remotes = map(row, "external_ids").remove("ovn-remote");
            let remotes = remotes.and_then(|list| Remote::parse_list(&list).ok());
            let hosts = remotes
                .into_iter()
                .flatten()
                .filter_map(|remote| match remote {
                    Remote::Tcp { host, .. } | Remote::Ssl { host, .. } => {
                        host.trim_matches(['[', ']']).parse::<IpAddr>().ok()
                    }
                    Remote::Unix(_) => None,
                });
            peers.extend(hosts);
        }
        peers
    }

    /// Whether ovn-controller has the flows of the interface of this name in the bridge.
    pub fn installed(&self, name: &str) -> bool {
        let row = self.interface(name);
        row.is_some_and(|row| external_id(&row, id::INSTALLED).as_deref() == Some("true"))
    }
}

fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column)?.as_str()
}

fn external_id(row: &Row, key: &str) -> Option<String> {
    let ids = row.get("external_ids")?.as_map()?;
    ids.get_str(key).map(str::to_owned)
}

fn external_ids(row: &Row) -> BTreeMap<String, String> {
    map(row, "external_ids")
}

fn map(row: &Row, column: &str) -> BTreeMap<String, String> {
    row.get(column)
        .and_then(|map| map.try_into().ok())
        .unwrap_or_default()
}

fn port(row: &Row) -> Option<Port> {
    Some(Port {
        interface: row.uuid(),
        name: text(row, "name")?.to_owned(),
        facts: Facts::read(|key| external_id(row, key))?,
        installed: external_id(row, id::INSTALLED).as_deref() == Some("true"),
        error: text(row, "error").map(str::to_owned),
    })
}

/// The switch. Cheap to clone.
#[derive(Clone)]
pub struct Ovs {
    client: Client,
}

impl Ovs {
    /// Starts a client of the Open vSwitch database at `remote`.
    pub fn start(supervisor: &Supervisor, remote: Remote) -> Self {
        let config = Config::new(vec![remote], "Open_vSwitch");
        let config = MONITORED.iter().fold(config, |config, (table, columns)| {
            config.monitor(table, columns)
        });
        let (client, task) = Client::new(config);
        supervisor.carry("client of Open vSwitch's database", task);
        Self { client }
    }

    /// The state now; empty before the first sync.
    pub fn view(&self) -> View {
        View {
            snapshot: self.client.snapshot(),
        }
    }

    /// Whether the connection stands.
    pub fn is_connected(&self) -> bool {
        self.client.connection().borrow().state == State::Synced
    }

    /// Waits until the connection stands, at most [`CONNECT_LIMIT`]: ovsdb-server may just be starting again.
    ///
    /// # Errors
    /// [`Error::Away`].
    pub async fn connected(&self) -> Result<(), Error> {
        match tokio::time::timeout(CONNECT_LIMIT, self.client.connected()).await {
            Ok(Ok(())) => Ok(()),
            _ => {
                let reason = self.client.connection().borrow().last_error.clone();
                Err(Error::Away {
                    reason: reason.unwrap_or_else(|| "no answer".into()),
                })
            }
        }
    }

    /// Yields after every change of the monitored columns.
    pub fn subscribe(&self) -> Subscription {
        self.client.subscribe()
    }

    /// Waits until `find` finds something in the state.
    pub async fn wait<T, E>(&self, find: impl Fn(&View) -> Result<Option<T>, E>) -> Result<T, E> {
        let mut changes = self.subscribe();
        loop {
            if let Some(found) = find(&self.view())? {
                return Ok(found);
            }
            changes.next().await;
        }
    }

    /// Adds a Pod's port to the bridge, in one transaction with the removal of `replaced`. Returns its `Interface` row.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_port(
        &self,
        name: &str,
        facts: &Facts,
        replaced: &[Port],
    ) -> Result<Uuid, Error> {
        let view = self.view();
        let bridge = view.bridge()?;
        let interface = Uuid::new_v4();
        let mut operations = remove(&view, replaced);
        let columns = Columns::new()
            .with("name", name)
            .with("external_ids", facts.external_ids());
        operations.extend(insert(&bridge, interface, name, columns));
        self.transact(&format!("add port {name}"), operations)
            .await?;
        Ok(interface)
    }

    /// Removes Pods' ports from the switch; those that are not there any more are success.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_ports(&self, ports: &[Port]) -> Result<(), Error> {
        let operations = remove(&self.view(), ports);
        if operations.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
        self.transact(&format!("remove ports {}", names.join(", ")), operations)
            .await
    }

    /// Makes the internal port as it shall be. Writes nothing if it is so.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_internal(&self, wanted: &Internal) -> Result<(), Error> {
        let view = self.view();
        if view.internal(&wanted.name).as_ref() == Some(wanted) {
            return Ok(());
        }
        let columns = Columns::new()
            .with("mac", wanted.mac.to_string())
            .with("mtu_request", i64::from(wanted.mtu));
        let name = &wanted.name;
        let operations = match view.interface(name) {
            Some(row) => vec![
                Operation::update("Interface", row.uuid(), columns.with("type", "internal")),
                update_ids(&row, &wanted.external_ids),
            ],
            None => {
                let columns = columns
                    .with("name", name)
                    .with("type", "internal")
                    .with("external_ids", wanted.external_ids.clone());
                insert(&*view.bridge()?, Uuid::new_v4(), name, columns).to_vec()
            }
        };
        self.transact(&format!("set internal port {name}"), operations)
            .await
    }

    fn transact(
        &self,
        action: &str,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<(), Error>> {
        let action = action.to_owned();
        let client = self.client.clone();
        async move {
            match client.transact(operations).await {
                Ok(Outcome::Committed(_) | Outcome::Unchanged(_)) => Ok(()),
                Ok(outcome) => Err(Error::Refused {
                    action,
                    outcome: in_words(&outcome),
                }),
                Err(source) => Err(Error::Client { action, source }),
            }
        }
    }
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Constraint(failure) | Outcome::NotLeader(failure) | Outcome::Failed(failure) => {
            failure.to_string()
        }
        Outcome::Indeterminate { reason } => reason.clone(),
        Outcome::Conflict { .. } => "somebody else changed it meanwhile".to_owned(),
        _ => "unknown outcome".to_owned(),
    }
}

/// Sets our ids of an interface and leaves ovn-controller's, which it may be writing right now.
fn update_ids(row: &Row, wanted: &BTreeMap<String, String>) -> Operation {
    let ours = |key: &String| !key.starts_with("ovn-");
    let keys: BTreeSet<String> = external_ids(row)
        .into_keys()
        .chain(wanted.keys().cloned())
        .filter(ours)
        .collect();
    let mutations = vec![
        Mutation::delete("external_ids", keys),
        Mutation::insert("external_ids", wanted.clone()),
    ];
    Operation::mutate("Interface", row.uuid(), mutations)
}

fn insert(bridge: &Row, interface: Uuid, name: &str, columns: Columns) -> [Operation; 3] {
    let port = Uuid::new_v4();
    let port_columns = Columns::new()
        .with("name", name)
        .with("interfaces", interface);
    [
        Operation::insert("Interface", interface, columns),
        Operation::insert("Port", port, port_columns),
        Operation::mutate(
            "Bridge",
            bridge.uuid(),
            vec![Mutation::insert("ports", port)],
        ),
    ]
}

fn remove(view: &View, ports: &[Port]) -> Vec<Operation> {
    let interfaces: Vec<Uuid> = ports.iter().map(|port| port.interface).collect();
    remove_interfaces(view, &interfaces)
}

/// `Port` and `Interface` are no root tables: taken from the bridge, they are gone.
fn remove_interfaces(view: &View, interfaces: &[Uuid]) -> Vec<Operation> {
    let rows = view.snapshot.table("Port");
    let holds = |row: &Row, interface: Uuid| {
        let interfaces = row.get("interfaces").and_then(|d| d.as_set());
        interfaces.is_some_and(|set| set.contains_uuid(interface))
    };
    let of = |interface: &Uuid| {
        rows.iter()
            .find(|row| holds(row, *interface))
            .map(|r| r.uuid())
    };
    let gone: Vec<Uuid> = interfaces.iter().filter_map(of).collect();
    if gone.is_empty() {
        return Vec::new();
    }
    let bridges = view.snapshot.table("Bridge");
    bridges
        .iter()
        .map(|bridge| {
            let mutation = Mutation::delete("ports", gone.clone());
            Operation::mutate("Bridge", bridge.uuid(), vec![mutation])
        })
        .collect()
}
