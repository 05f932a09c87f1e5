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

pub mod metrics;
pub mod plan;
pub mod reports;
pub mod status;
mod used;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use ycloud_api::VNic;
use ycloud_api::condition::{Verdict, reason};
use ycloud_client::Heartbeat;

use super::netlink::{self, Events, Link, Netlink};
use super::objects::{Key, Objects};
use super::ovs::device_port::{DevicePort, Interface};
use super::ovs::{self, Ovs};
use super::{ethtool, in_full, nft};
use plan::{Device, Machine, Plan};
use reports::Reports;

/// How often everything is looked at even if nothing changed: somebody may have flushed the rules.
const REFRESH: Duration = Duration::from_secs(30);

/// How long until a condition that the VNic still does not show is written again.
const REPEAT: Duration = Duration::from_secs(5);

/// Changes that come together are one pass.
const TOGETHER: Duration = Duration::from_millis(20);

/// From the end of one pass to the start of the next, at least.
const PAUSE: Duration = Duration::from_millis(50);

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
    pub reports: Reports,
    /// Counters.
    pub metrics: metrics::Metrics,
}

/// Why devices could not be set up, in words, by VNic.
type Failed = BTreeMap<String, String>;

/// What a pass leaves for the next one.
#[derive(Default)]
struct Done {
    /// The rules as they were set last.
    rules: Option<String>,
    /// The devices that were set up, by name and index.
    ready: BTreeSet<(String, u32)>,
    /// What kept devices from being set up the last time, by VNic.
    failed: Failed,
    /// Passes in a row that failed, or left a device that could not be set up.
    failures: u32,
    /// What each VNic was reported to say, of which generation, and when.
    told: BTreeMap<Key, (Option<Verdict>, Option<i64>, Instant)>,
}

impl Devices {
    /// Runs for ever.
    pub async fn run(mut self, mut events: Events, heartbeat: Heartbeat) {
        let mut changes = self.ovs.subscribe();
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut done = Done::default();
        let (mut due, mut pause) = (None::<Instant>, Instant::now());
        loop {
            let soon = Some(Instant::now() + TOGETHER);
            let at = tokio::select! {
                _ = refresh.tick() => {
                    done.rules = None;
                    done.ready.clear();
                    soon
                }
                _ = changes.next() => soon,
                true = events.changed() => soon,
                Ok(()) = self.vnics.changed() => soon,
                () = sleep(REPEAT), if !done.told.is_empty() => soon,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    let _pass = heartbeat.pass();
                    let again = self.attempt(&mut done).await;
                    pause = Instant::now() + PAUSE;
                    again
                }
            };
            due = due.into_iter().chain(at.map(|at| at.max(pause))).min();
        }
    }

    /// A pass, if there can be one. Returns when to try again, if something failed.
    async fn attempt(&self, done: &mut Done) -> Option<Instant> {
        if !self.ovs.is_connected() || !self.vnics.borrow().synced {
            return None;
        }
        let result = self.pass(done).await;
        if result.is_ok() && done.failed.is_empty() {
            done.failures = 0;
            return None;
        }
        done.failures += 1;
        // A device that goes away fails a pass now and then.
        if let (Err(error), true) = (&result, done.failures > 1) {
            let error: &dyn std::error::Error = error;
            tracing::warn!(
                error,
                "failed to put devices of VNics on the bridge; trying again"
            );
        }
        let wait = Duration::from_millis(100) * 2_u32.pow(done.failures.min(6));
        Some(Instant::now() + wait)
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
        let leaving = leaving(&plan, &interfaces, &links);
        let result = self.carry_out(&plan, &leaving, &links, userspace, done);
        let result = result.await;
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
        let known = |name: &str| interfaces.iter().any(|interface| interface.name == name);
        let (mut devices, mut routes) = (BTreeMap::new(), None);
        for link in links {
            let mut used = None;
            if named(&link.name) && !known(&link.name) {
                let addresses = self.netlink.addresses(link).await?;
                let routes = match &mut routes {
                    Some(routes) => routes,
                    none => none.insert(self.netlink.routes(None).await?),
                };
                used = used::used(link, links, &addresses, routes);
            }
            let index = link.index;
            devices.insert(link.name.clone(), Device { index, used });
        }
        Ok(devices)
    }

    /// A device that leaves is set down before its port goes, and its rule goes last: at no time does the machine's own
    /// stack hear what is behind it.
    async fn carry_out(
        &self,
        plan: &Plan,
        leaving: &[&Link],
        links: &[Link],
        userspace: bool,
        done: &mut Done,
    ) -> Result<(), Error> {
        guard(plan, leaving, userspace, done).await?;
        self.set_down(leaving).await;
        if !plan.removed.is_empty() {
            tracing::info!(ports = plan.removed.len(), "taking devices off the bridge");
        }
        self.ovs.remove_device_ports(&plan.removed).await?;
        // ovs-vswitchd writes back the flags of a port that it lets go as it last heard of them, which may be up.
        self.set_down(leaving).await;
        self.prepare(plan, links, userspace, done).await;
        let able = |port: &&DevicePort| !done.failed.contains_key(&port.vnic);
        let added: Vec<DevicePort> = plan.added.iter().filter(able).cloned().collect();
        for port in &added {
            tracing::info!(
                device = port.name,
                vnic = port.vnic,
                "putting a device on the bridge"
            );
        }
        self.ovs.add_device_ports(&added).await?;
        guard(plan, &[], userspace, done).await?;
        Ok(())
    }

    async fn set_down(&self, leaving: &[&Link]) {
        for link in leaving {
            match self.netlink.set_down(link).await {
                Err(error) if !error.is_absent() => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "a device that leaves the bridge stays up");
                }
                _ => {}
            }
        }
    }

    /// Sets devices up. One that cannot be is its own VNic's affair.
    async fn prepare(&self, plan: &Plan, links: &[Link], userspace: bool, done: &mut Done) {
        let current = |port: &DevicePort| (port.name.clone(), port.index);
        done.ready
            .retain(|key| plan.ports.iter().any(|port| current(port) == *key));
        let before = std::mem::take(&mut done.failed);
        for port in &plan.ports {
            let link = links.iter().find(|link| link.name == port.name);
            let Some(link) = link.filter(|link| !link.up || !done.ready.contains(&current(port)))
            else {
                continue;
            };
            let Err(error) = self.set_up(link, userspace).await else {
                done.ready.insert(current(port));
                continue;
            };
            let words = in_full(&error);
            if before.get(&port.vnic) != Some(&words) {
                let (device, vnic) = (&port.name, &port.vnic);
                tracing::warn!(
                    device,
                    vnic,
                    error = words,
                    "failed to set a device up; trying again"
                );
            }
            done.ready.remove(&current(port));
            done.failed.insert(port.vnic.clone(), words);
        }
    }

    async fn set_up(&self, link: &Link, userspace: bool) -> Result<(), Error> {
        if userspace {
            ethtool::offload_off(&link.name)?;
        }
        self.netlink.without_ipv6_address(link).await?;
        self.netlink.set_up(link).await?;
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
        let mut shown = BTreeSet::new();
        let mut said: Vec<Verdict> = Vec::new();
        for (key, verdict) in &plan.verdicts {
            let Some(vnic) = vnics.get(key) else { continue };
            let failed = done.failed.get(&format!("{}/{}", key.0, key.1));
            let verdict = match (verdict, error) {
                (Some(_), _) if failed.is_some() => {
                    failed.map(|words| unprepared(vnic, &self.chassis, words))
                }
                (Some(verdict), Some(error)) if verdict.status.is_none() => {
                    let message = format!("{}: {}", verdict.message, in_full(error));
                    Some(Verdict::unknown(verdict.reason, message))
                }
                (verdict, _) => verdict.clone(),
            };
            said.extend(verdict.clone());
            let Some(report) = status::report(vnic, verdict.as_ref(), Timestamp::now()) else {
                done.told.remove(key);
                shown.insert(key);
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
            self.reports.put(report);
        }
        self.metrics.observe(said.iter());
        // What it says already, and what is of another chassis now, is not to be written any more.
        self.reports
            .retain(|key| plan.verdicts.contains_key(key) && !shown.contains(key));
    }
}

/// Sets the rules of all devices that are or shall be on the bridge.
async fn guard(
    plan: &Plan,
    leaving: &[&Link],
    userspace: bool,
    done: &mut Done,
) -> Result<(), nft::Error> {
    let ports = plan.ports.iter().map(|p| (p.name.as_str(), p.index));
    let leaving = leaving.iter().map(|l| (l.name.as_str(), l.index));
    let rules = nft::device_table(ports.chain(leaving), userspace);
    if done.rules.as_ref() != Some(&rules) {
        nft::apply(&rules).await?;
        done.rules = Some(rules);
    }
    Ok(())
}

/// The devices that are there, are on the bridge, and shall not be.
fn leaving<'a>(plan: &Plan, interfaces: &[Interface], links: &'a [Link]) -> Vec<&'a Link> {
    let leaves = |link: &&Link| {
        let stays = plan.ports.iter().any(|port| port.name == link.name);
        let removed = |interface: &&Interface| {
            let device = interface.device.as_ref();
            device.is_some_and(|d| (&d.name, d.index) == (&link.name, link.index))
                && plan.removed.contains(&interface.uuid)
        };
        !stays && interfaces.iter().any(|interface| removed(&interface))
    };
    links.iter().filter(leaves).collect()
}

/// What is said of a device that cannot be set up.
fn unprepared(vnic: &VNic, chassis: &str, words: &str) -> Verdict {
    let device = vnic.spec.attachment.device.as_ref();
    let device = device.and_then(|device| device.name()).unwrap_or_default();
    Verdict::no(
        reason::PENDING,
        format!("device {device} of chassis {chassis} cannot be set up: {words}"),
    )
}
