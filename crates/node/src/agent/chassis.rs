//! What the agent does on every machine with Open vSwitch, and all that it does on one without a kubelet: a DPU, a
//! bare-metal server that is its own chassis.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use ycloud_api::VNic;
use ycloud_client::Supervisor;
use ycloud_client::supervisor::LIMIT;

use super::affinity::{self, Affinity};
use super::announce::Announce;
use super::behind;
use super::ct_flush::CtFlush;
use super::devices::Devices;
use super::devices::reports::{self, Reports};
use super::health::{self, Observed};
use super::metrics::Metrics;
use super::netlink::{Events, Netlink};
use super::objects::{self, Objects};
use super::ovs::Ovs;
use super::prober::{self, Prober};
use super::{Options, count};

/// A chassis, with its tasks.
pub struct Chassis {
    /// The switch.
    pub ovs: Ovs,
    /// The machine's own network namespace.
    pub netlink: Netlink,
    /// VNics attached here.
    pub vnics: watch::Receiver<Objects<VNic>>,
    /// How far the flows of session affinity are.
    pub affinity: watch::Receiver<affinity::Progress>,
    /// What asks NetworkProbes.
    pub prober: Prober,
    /// Counters.
    pub metrics: Metrics,
    /// Who watches its tasks.
    pub supervisor: Supervisor,
}

/// How long a pass of [`CtFlush`] may take: where a Service of ten thousand pairs goes, it asks Open vSwitch a hundred times.
const FLUSH_LIMIT: Duration = Duration::from_secs(300);

impl Chassis {
    /// Starts the tasks; they run as long as the process.
    ///
    /// # Errors
    /// What keeps them from starting: no netlink, a Southbound database that cannot be asked as the arguments have it.
    pub fn start(
        supervisor: Supervisor,
        options: &Options,
        client: &Client,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let southbound = options.southbound.connect(&supervisor)?;
        let (progress, affinity) = watch::channel(affinity::Progress::default());
        let ovs = Ovs::start(&supervisor, options.ovs.clone());
        let netlink = Netlink::open(&supervisor)?;
        let bridge = behind::client(&supervisor, options.ovs.clone());
        let vnics = objects::vnics(&supervisor, client, &options.node);
        let behind = behind::watch(&supervisor, southbound.clone(), bridge.clone());
        let chassis = Self {
            prober: prober::start(
                &supervisor,
                client,
                (&ovs, &netlink),
                &vnics,
                behind,
                &options.node,
                options.mtu,
            )?,
            ovs,
            netlink,
            vnics,
            affinity,
            metrics,
            supervisor,
        };
        let supervisor = &chassis.supervisor;
        let task = Affinity {
            southbound: southbound.clone(),
            openflow: options.openflow.clone(),
            progress,
        };
        supervisor.spawn("session affinity", LIMIT, |heartbeat| task.run(heartbeat));
        let task = Announce {
            southbound: southbound.clone(),
            openflow: options.openflow.clone(),
            chassis: options.node.clone(),
        };
        supervisor.spawn("announcements", LIMIT, |heartbeat| task.run(heartbeat));
        let task = CtFlush {
            southbound,
            bridge,
            node: options.node.clone(),
            ovs: chassis.ovs.clone(),
            openflow: options.openflow.clone(),
            kept: options.run_dir.join("load-balancers"),
            metrics: chassis.metrics.ct_flush.clone(),
        };
        supervisor.spawn("flushes of connections", FLUSH_LIMIT, |heartbeat| {
            task.run(heartbeat)
        });
        let reports = Reports::default();
        let written = (client.clone(), reports.clone());
        supervisor.spawn("conditions of VNics", LIMIT, |heartbeat| {
            reports::write(written.0, written.1, heartbeat)
        });
        let task = Devices {
            chassis: options.node.clone(),
            vnics: chassis.vnics.clone(),
            ovs: chassis.ovs.clone(),
            netlink: chassis.netlink.clone(),
            reports,
            metrics: chassis.metrics.devices.clone(),
        };
        let events = Events::open(supervisor, "devices")?;
        supervisor.spawn("devices of VNics", LIMIT, |heartbeat| {
            task.run(events, heartbeat)
        });
        Ok(chassis)
    }
}

impl Observed for Chassis {
    fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    fn not_ready(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.vnics.borrow().synced {
            missing.push("the VNics of this node");
        }
        if !self.ovs.is_connected() {
            missing.push("Open vSwitch");
        }
        if !self.affinity.borrow().applied {
            missing.push("the flows of session affinity");
        }
        missing
    }

    fn observe(&self) {
        let metrics = &self.metrics;
        metrics.vnics.set(count(self.vnics.borrow().by_key.len()));
        metrics.ovs_connected.set(self.ovs.is_connected().into());
        let affinity = *self.affinity.borrow();
        metrics.affinity_flows.set(count(affinity.flows));
        metrics.affinity_applied.set(affinity.applied.into());
        metrics.prober.observe(&self.prober);
        metrics.ready.set(self.not_ready().is_empty().into());
    }
}

/// Runs the agent of a machine without a kubelet until `stop`.
///
/// # Errors
/// What keeps it from starting; a health endpoint that cannot be served.
pub async fn run(
    supervisor: Supervisor,
    options: Options,
    client: Client,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let chassis = Chassis::start(supervisor.clone(), &options, &client, metrics)?;
    let listen = options.listen;
    let served = health::serve(listen, Arc::new(chassis), Arc::new(registry), stop);
    tokio::select! {
        served = served => served.with_context(|| format!("failed to serve health checks on {listen}")),
        fault = supervisor.fault() => Err(fault.into()),
    }
}
