//! Devices that VNics name: puts each on the integration bridge, and says in the VNic's condition `Wired` how that went.
//!
//! ```text
//!   VNics of the chassis (watch) ─┐
//!   links, addresses (netlink) ───┼──► plan ──► ports in Open vSwitch: those that go, then those that come
//!   interfaces, ovn-installed ────┘      │
//!                                        └────► conditions ──► status: server-side apply, one field manager
//! ```
//!
//! The ports say in Open vSwitch whose they are, so that a restart finds them again and touches none that is as it shall
//! be. Ports that others made are left alone, and so are links that the machine itself uses.
//!
//! # In user space
//! As with Pods' links (see `pod_links`), Open vSwitch then reads copies of what comes in, and rules keep the originals from
//! the machine's own stack.

pub mod plan;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use ycloud_api::VNic;
use ycloud_api::condition::Verdict;

use super::netlink::{self, Events, Link, Netlink};
use super::objects::{Key, Objects};
use super::ovs::device_port::{DevicePort, Interface};
use super::ovs::{self, Ovs};
use super::{ethtool, in_full, nft};
use plan::{Device, Machine, Plan};
use status::Report;

/// How often everything is looked at even if nothing changed: somebody may have flushed the rules.
const REFRESH: Duration = Duration::from_secs(30);

/// How long until a condition that the VNic still does not show is written again.
const REPEAT: Duration = Duration::from_secs(5);

/// The master that all ports of Open vSwitch in the kernel have.
const DATAPATH: &str = "ovs-system";

/// A pass failed; there will be another.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Offloads.
    #[error(transparent)]
    Ethtool(#[from] ethtool::Error),
    /// The rules.
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] ovs::Error),
}

/// The task.
pub struct Devices {
    /// Name of the chassis.
    pub chassis: String,
    /// Its VNics.
    pub vnics: watch::Receiver<Objects<VNic>>,
    /// The switch.
    pub ovs: Ovs,
    /// Links of the chassis.
    pub netlink: Netlink,
    /// Where conditions go to be written.
    pub reports: mpsc::UnboundedSender<Report>,
}

/// What a pass leaves for the next one.
#[derive(Default)]
struct Done {
    /// The rules as they were set last.
    rules: Option<String>,
    /// The devices that were set up, by name and index.
    ready: BTreeSet<(String, u32)>,
    /// What each VNic was reported to say, of which generation, and when.
    told: BTreeMap<Key, (Option<Verdict>, Option<i64>, Instant)>,
}

impl Devices {
    /// Runs for ever.
    ///
    /// # Errors
    /// No netlink socket.
    pub async fn run(mut self) -> Result<(), netlink::Error> {
        let mut events = Events::open()?;
        let mut changes = self.ovs.subscribe();
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut done, mut failures) = (Done::default(), 0_u32);
        loop {
            let retry = Duration::from_millis(100) * 2_u32.pow(failures.min(6));
            tokio::select! {
                _ = refresh.tick() => {
                    done.rules = None;
                    done.ready.clear();
                }
                _ = changes.next() => {}
                true = events.changed() => {}
                Ok(()) = self.vnics.changed() => {}
                () = sleep(retry), if failures > 0 => {}
                () = sleep(REPEAT), if !done.told.is_empty() => {}
            }
            if !self.ovs.is_connected() || !self.vnics.borrow_and_update().synced {
                continue;
            }
            match self.pass(&mut done).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    // A device that goes away fails a pass now and then.
                    if failures > 1 {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(
                            error,
                            "failed to put devices of VNics on the bridge; trying again"
                        );
                    }
                }
            }
        }
    }

    async fn pass(&self, done: &mut Done) -> Result<(), Error> {
        let view = self.ovs.view();
        let Some(userspace) = view.userspace() else {
            return Ok(());
        };
        let vnics = self.vnics.borrow().by_key.clone();
        let interfaces = view.interfaces();
        let links = self.netlink.links().await?;
        let devices = self.devices(&vnics, &interfaces, &links).await?;
        let plan = plan::plan(
            &vnics,
            &Machine {
                chassis: &self.chassis,
                links: &devices,
                interfaces: &interfaces,
            },
        );
        let result = self.carry_out(&plan, &links, userspace, done).await;
        self.tell(&vnics, &plan, result.as_ref().err(), done);
        result
    }

    /// The links, and of those that a VNic names and that are no ports of ours yet: what else they are used for.
    async fn devices(
        &self,
        vnics: &BTreeMap<Key, VNic>,
        interfaces: &[Interface],
        links: &[Link],
    ) -> Result<BTreeMap<String, Device>, Error> {
        let named = |name: &str| {
            let mut devices = vnics
                .values()
                .filter_map(|v| v.spec.attachment.device.as_ref());
            devices.any(|device| device.name() == Some(name))
        };
        let mut devices = BTreeMap::new();
        for link in links {
            let known = interfaces
                .iter()
                .any(|interface| interface.name == link.name);
            let used = match known || !named(&link.name) {
                true => None,
                false => self.used(link, links).await?,
            };
            let index = link.index;
            devices.insert(link.name.clone(), Device { index, used });
        }
        Ok(devices)
    }

    async fn used(&self, link: &Link, links: &[Link]) -> Result<Option<String>, Error> {
        let master = links.iter().find(|other| Some(other.index) == link.master);
        if let Some(master) = master.filter(|master| master.name != DATAPATH) {
            return Ok(Some(format!("is a port of {}", master.name)));
        }
        let addresses = self.netlink.addresses(link).await?;
        let own = addresses.iter().find(|address| !is_link_local(address));
        Ok(own.map(|address| format!("has address {address} of the machine itself")))
    }

    async fn carry_out(
        &self,
        plan: &Plan,
        links: &[Link],
        userspace: bool,
        done: &mut Done,
    ) -> Result<(), Error> {
        let rules = nft::device_table(
            plan.ports.iter().map(|p| (p.name.as_str(), p.index)),
            userspace,
        );
        if done.rules.as_ref() != Some(&rules) {
            nft::apply(&rules).await?;
            done.rules = Some(rules);
        }
        let current = |port: &&DevicePort| (port.name.clone(), port.index);
        done.ready
            .retain(|key| plan.ports.iter().any(|port| current(&port) == *key));
        for port in &plan.ports {
            let link = links.iter().find(|link| link.name == port.name);
            let Some(link) = link.filter(|link| !link.up || !done.ready.contains(&current(&port)))
            else {
                continue;
            };
            if userspace {
                ethtool::offload_off(&link.name)?;
            }
            self.netlink.without_ipv6_address(link).await?;
            self.netlink.set_up(link).await?;
            done.ready.insert(current(&port));
        }
        for port in &plan.added {
            tracing::info!(
                device = port.name,
                vnic = port.vnic,
                "putting a device on the bridge"
            );
        }
        if !plan.removed.is_empty() {
            tracing::info!(ports = plan.removed.len(), "taking devices off the bridge");
        }
        self.ovs.remove_device_ports(&plan.removed).await?;
        self.ovs.add_device_ports(&plan.added).await?;
        Ok(())
    }

    /// Reports each condition that is not as it shall be. A device that is wired stays so whatever failed with another one.
    fn tell(
        &self,
        vnics: &BTreeMap<Key, VNic>,
        plan: &Plan,
        error: Option<&Error>,
        done: &mut Done,
    ) {
        done.told.retain(|key, _| plan.verdicts.contains_key(key));
        for (key, verdict) in &plan.verdicts {
            let Some(vnic) = vnics.get(key) else { continue };
            let verdict = match (verdict, error) {
                (Some(verdict), Some(error)) if verdict.status.is_none() => {
                    let message = format!("{}: {}", verdict.message, in_full(error));
                    Some(Verdict::unknown(verdict.reason, message))
                }
                (verdict, _) => verdict.clone(),
            };
            let Some(report) = status::report(vnic, verdict.as_ref(), Timestamp::now()) else {
                done.told.remove(key);
                continue;
            };
            let told = done.told.get(key);
            let generation = vnic.metadata.generation;
            if told.is_some_and(|(said, of, at)| {
                *said == verdict && *of == generation && at.elapsed() < REPEAT
            }) {
                continue;
            }
            done.told
                .insert(key.clone(), (verdict, generation, Instant::now()));
            // The writer ends with the runtime.
            let _ = self.reports.send(report);
        }
    }
}

fn is_link_local(address: &IpNet) -> bool {
    match address.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Writes conditions as they are reported, for ever. One that cannot be written is reported again.
pub async fn write(client: Client, mut reports: mpsc::UnboundedReceiver<Report>) {
    while let Some(report) = reports.recv().await {
        if let Err(error) = status::write(&client, &report).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a VNic does not say how its device is; trying again");
        }
    }
}
