//! The node's side of Services: node ports, external addresses, endpoints outside the cluster, health checks.
//!
//! ```text
//!   API server ── Service, EndpointSlice, Node ──► feed ──► world (facts, rules, table: pure) ──► nft(8), the difference
//!                                                             │        └──► conntrack: datagrams that go elsewhere
//!                                                             └──► outside: routes of the node interface
//! ```
//!
//! OVN's load balancers do the work ([`rules`] says what is left). A new agent replaces the table whole, in one transaction,
//! once it knows everything; until then the old one goes on. Later only what differs is set.

pub mod facts;
pub mod feed;
pub mod health_check;
pub mod rules;
pub mod table;
pub mod world;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use ycloud_api::key::DEFAULT_VPC;
use ycloud_client::Heartbeat;

use super::conntrack;
use super::family::is_usable;
use super::netlink::Netlink;
use super::nft;
use super::objects::{self, Mirrors};
use health_check::HealthChecks;
use table::Table;
use world::{Change, World};

/// How often the kernel's table is looked at even if nothing changed: somebody may have flushed it.
const REFRESH: Duration = Duration::from_secs(30);

/// How long changes are gathered before they are applied, so that a rollout does not run nft(8) for each Pod.
const GATHER: Duration = Duration::from_millis(20);

/// What others may know of the node's Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Cluster addresses that the node itself serves, and the addresses by which the node is known; `None` until everything
    /// has been listed.
    pub outside: Option<(BTreeSet<IpAddr>, BTreeSet<IpAddr>)>,
    /// Ports and addresses that the kernel's table serves.
    pub frontends: usize,
    /// Whether the kernel's table is as it shall be.
    pub applied: bool,
}

/// The task.
pub struct Services {
    /// What the node's part is computed from.
    pub changes: mpsc::UnboundedReceiver<Change>,
    /// Subnets, service ranges, EipGateways.
    pub mirrors: Mirrors,
    /// The system range of each family, of which ycloud's own networks are.
    pub system: Vec<IpNet>,
    /// Servers that the node itself uses, see [`super::own_hosts::follow`].
    pub hosts: watch::Receiver<BTreeSet<IpAddr>>,
    /// The node's own network namespace.
    pub netlink: Netlink,
    /// Name of the node.
    pub node: String,
    /// Told after every change.
    pub progress: watch::Sender<Progress>,
}

impl Services {
    /// Runs as long as there is who tells of changes.
    pub async fn run(mut self, heartbeat: Heartbeat) {
        let mut kernel = Kernel {
            netlink: self.netlink.clone(),
            applied: None,
        };
        let mut world = World::new(&self.node);
        let mut checks = HealthChecks::default();
        let (mut mirrors, mut hosts) = (self.mirrors.clone(), self.hosts.clone());
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0_u32;
        loop {
            let retry = Duration::from_millis(100) * 2_u32.pow(failures.min(6));
            tokio::select! {
                change = self.changes.recv() => {
                    let Some(change) = change else { return };
                    world.apply(change);
                    sleep(GATHER).await;
                    while let Ok(change) = self.changes.try_recv() {
                        world.apply(change);
                    }
                }
                Ok(()) = mirrors.subnets.changed() => {}
                Ok(()) = mirrors.service_cidrs.changed() => {}
                Ok(()) = mirrors.eip_gateways.changed() => {}
                Ok(()) = hosts.changed() => {}
                _ = refresh.tick() => {
                    let _pass = heartbeat.pass();
                    kernel.look().await;
                }
                () = sleep(retry), if failures > 0 => {}
            }
            let listed = mirrors.subnets.borrow_and_update().synced
                && mirrors.service_cidrs.borrow_and_update().synced
                && mirrors.eip_gateways.borrow_and_update().synced;
            if !world.is_complete() || !listed {
                continue;
            }
            let _pass = heartbeat.pass();
            world.set_default_vpc(self.mirrors.default_vpc());
            world.set_reserved(self.reserved());
            let different = world.settle();
            checks.set(world.health_checks());
            let mut progress = self.progress.borrow().clone();
            progress.outside = Some((world.outside(), world.own_addresses()));
            if different || kernel.applied.is_none() || failures > 0 {
                let table = world.table();
                progress.frontends = table.frontends();
                let applied = kernel.set(table).await;
                progress.applied = applied.is_ok();
                match &applied {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        failures += 1;
                        let error: &dyn std::error::Error = error;
                        tracing::warn!(error, "failed to set the rules of Services; trying again");
                    }
                }
            }
            self.progress.send_if_modified(|old| {
                let changed = *old != progress;
                *old = progress;
                changed
            });
        }
    }
}

impl Services {
    /// See [`World::set_reserved`].
    fn reserved(&self) -> BTreeSet<IpNet> {
        let gateways = self.mirrors.eip_gateways.borrow();
        let gateways = gateways.by_key.values().flat_map(objects::eip_networks);
        let services = self.mirrors.service_ranges();
        let system = self.system.iter().copied();
        let hosts = self.hosts.borrow();
        let hosts = hosts.iter().copied().map(IpNet::from);
        system
            .chain(services)
            .chain(gateways)
            .chain(hosts)
            .collect()
    }
}

/// The kernel's table.
struct Kernel {
    netlink: Netlink,
    /// As it was applied last; `None`: not known to be there.
    applied: Option<Table>,
}

impl Kernel {
    async fn set(&mut self, wanted: Table) -> Result<(), nft::Error> {
        let datagrams = match &self.applied {
            Some(applied) => applied.changed_datagrams(&wanted),
            None => wanted.datagrams().clone(),
        };
        // Until it is known that all succeeded, nothing is known of the table.
        let applied = match self.applied.take() {
            Some(applied) => match applied.difference(&wanted) {
                script if script.is_empty() => Ok(()),
                script => nft::apply(&script).await,
            },
            None => nft::apply(&wanted.whole()).await,
        };
        if let Err(error) = applied {
            // Somebody else's hand, most likely. The whole replaces whatever there is.
            tracing::debug!(%error, "replacing the table of Services");
            nft::apply(&wanted.whole()).await?;
        }
        self.applied = Some(wanted);
        conntrack::forget(&self.netlink, datagrams).await;
        Ok(())
    }

    /// Notices that somebody took the table or its rules away, as `nft flush ruleset` does. One chain stands for all: to
    /// list them takes seconds where there are ten thousand.
    async fn look(&mut self) {
        if let Some(applied) = &self.applied
            && !applied.stands().await
        {
            tracing::warn!("the rules of Services were taken away; setting them again");
            self.applied = None;
        }
    }
}

impl Mirrors {
    /// Ranges of the default Vpc's Subnets.
    pub fn default_vpc(&self) -> BTreeSet<IpNet> {
        let subnets = self.subnets.borrow();
        let subnets = subnets.by_key.values();
        let subnets = subnets.filter(|subnet| subnet.spec.vpc == DEFAULT_VPC);
        subnets.flat_map(objects::ranges).collect()
    }

    /// Ranges of Services' cluster addresses that the kernel can use.
    pub fn service_ranges(&self) -> BTreeSet<IpNet> {
        let cidrs = self.service_cidrs.borrow();
        let specs = cidrs.by_key.values().filter_map(|cidr| cidr.spec.as_ref());
        let texts = specs.filter_map(|spec| spec.cidrs.as_ref()).flatten();
        let ranges = texts.filter_map(|text| text.parse().ok());
        ranges
            .filter(|range: &IpNet| is_usable(range.addr()))
            .collect()
    }
}
