//! The prober: asks the NetworkProbes of which ycloud-controller says that this node asks them.
//!
//! ```text
//!   NetworkProbes with status.prober = this node
//!        │                                                          ┌── Open vSwitch: a port a Vpc
//!        ▼               Vpcs, sources                              ▼
//!      task ────────────────────────────────► network ──► devices in a namespace of its own (space)
//!        │  ▲                                                       ▲
//!        │  └── reports ── ycloud_probe::Prober ── rounds ──────────┘
//!        │                        ▲
//!        │ targets ── set, remove ┘
//!        ▼
//!      records ──► write ──► NetworkProbe status          lease ──► Lease, while the task is able to ask
//! ```
//!
//! A restart goes on from what the statuses say, so no state changes by it. The namespace ends with the process; the next
//! one has its devices within a second.

mod ability;
pub mod lease;
pub mod metrics;
pub mod network;
pub mod records;
pub mod space;
mod targets;
mod task;
pub mod write;

use std::time::Instant;

use kube::Client;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::watch;
use ycloud_api::{NetworkProbe, VNic};
use ycloud_client::Supervisor;
use ycloud_client::supervisor::LIMIT;
use ycloud_probe::prober::Figures;
use ycloud_probe::{Handle, Options};

use crate::agent::netlink::{self, Events, Netlink};
use crate::agent::objects::{self, Objects};
use crate::agent::ovs::Ovs;
use write::Writer;

/// What the prober is made of.
pub struct Parts {
    /// Open vSwitch.
    pub ovs: Ovs,
    /// The network namespace in which ovs-vswitchd finds links; that of the thread that starts the prober.
    pub netlink: Netlink,
    /// The chassis whose prober this is.
    pub node: String,
    /// MTU of its devices, bytes.
    pub mtu: u32,
    /// The NetworkProbes that it asks.
    pub probes: watch::Receiver<Objects<NetworkProbe>>,
    /// The VNics of this chassis: what it asks of other addresses goes through tunnels.
    pub vnics: watch::Receiver<Objects<VNic>>,
    /// Where their statuses go.
    pub writer: Writer,
    /// Since when ovn-controller does not keep up, see [`behind`](crate::agent::behind::watch).
    pub behind: watch::Receiver<Option<Instant>>,
}

/// How far the prober's task is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether it can ask, see [`Ability`](ability::Ability): it is connected to Open vSwitch, has some of its devices, and
    /// ovn-controller keeps up as far as others are not there.
    pub able: bool,
    /// Devices by which it asks.
    pub devices: usize,
    /// Reports that are not in the API server yet.
    pub waiting: usize,
}

/// A running prober, for metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prober {
    handle: Handle,
    progress: watch::Receiver<Progress>,
}

impl Prober {
    /// What it has done.
    pub fn figures(&self) -> Figures {
        self.handle.figures()
    }

    /// How far its task is.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }
}

/// Starts the prober of the chassis `node`, with its Lease.
///
/// # Errors
/// No netlink socket.
pub fn start(
    supervisor: &Supervisor,
    client: &Client,
    (ovs, netlink): (&Ovs, &Netlink),
    vnics: &watch::Receiver<Objects<VNic>>,
    behind: watch::Receiver<Option<Instant>>,
    node: &str,
    mtu: u32,
) -> Result<Prober, netlink::Error> {
    let parts = Parts {
        ovs: ovs.clone(),
        netlink: netlink.clone(),
        node: node.to_owned(),
        mtu,
        probes: objects::probes(supervisor, client, node),
        vnics: vnics.clone(),
        writer: write::writer(client.clone()),
        behind,
    };
    let prober = start_with(supervisor, parts)?;
    let (client, node, progress) = (client.clone(), node.to_owned(), prober.progress.clone());
    supervisor.spawn("Lease of the prober", LIMIT, |heartbeat| {
        lease::keep(client, node, progress, heartbeat)
    });
    Ok(prober)
}

/// Starts a prober of these parts, without a Lease.
///
/// # Errors
/// No netlink socket.
pub fn start_with(supervisor: &Supervisor, parts: Parts) -> Result<Prober, netlink::Error> {
    let events = Events::open(supervisor, "the prober")?;
    let (prober, handle, reports) = ycloud_probe::Prober::new(Options {
        sockets: sockets(),
        ..Options::default()
    });
    supervisor.carry("rounds of the prober", prober.run());
    let (sender, progress) = watch::channel(Progress::default());
    let (ends, opens) = ((handle.clone(), reports, events), supervisor.clone());
    supervisor.spawn("prober", LIMIT, |heartbeat| {
        task::run(opens, parts, ends, sender, heartbeat)
    });
    Ok(Prober { handle, progress })
}

/// Half of the descriptors that this process may have, at most the default.
fn sockets() -> usize {
    let most = Options::default().sockets;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft / 2).map_or(most, |half| half.clamp(64, most))
}
