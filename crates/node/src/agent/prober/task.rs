//! The task that holds the prober together; see the drawing in [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use ycloud_api::NetworkProbe;
use ycloud_client::{Heartbeat, Supervisor};
use ycloud_probe::{Handle, Report};

use super::ability::Ability;
use super::network::{self, Device, Network, Sources};
use super::records::{Key, Records, Refusal};
use super::targets::{Order, Targets, here, networks, orders};
use super::{Parts, Progress};
use crate::agent::in_full;
use crate::agent::netlink::Events;
use crate::agent::objects::Objects;

/// How often all is looked at even if nothing changed.
const REFRESH: Duration = Duration::from_secs(30);

/// How often a lost connection to Open vSwitch is noticed, and a state that somebody else wrote.
const LOOK: Duration = Duration::from_secs(3);

/// Changes that come together are one pass.
const TOGETHER: Duration = Duration::from_millis(20);

/// From the end of one pass to the start of the next, at least; and [`SHARE`] times as long as that one took, up to
/// [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(50);

/// With ten thousand targets a pass is long, and while their states are being written there is always one that changes.
const SHARE: u32 = 3;

/// A pass may have waited for Open vSwitch.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long ovn-controller may take for what the Southbound database has.
const BEHIND: Duration = Duration::from_secs(5);

/// Writes to the API server at once.
const WRITES: usize = 16;

/// How a look at the devices went.
enum Outcome {
    /// It came about; whether all were set as they shall be.
    Looked(bool),
    /// It did not, and why.
    Blind(String),
}

impl Outcome {
    /// Whether it is to be tried again soon. A connection that comes back says so itself.
    fn failed(&self) -> bool {
        !matches!(self, Outcome::Looked(true))
    }
}

type Written = (Key, Result<String, Refusal>);

struct Task {
    parts: Parts,
    network: Network,
    targets: Targets,
    records: Records,
    writes: JoinSet<Written>,
    progress: watch::Sender<Progress>,
    /// Passes in a row that failed.
    failures: u32,
    ability: Ability,
    /// Whether a write failed the last time: said once.
    unwritten: bool,
}

/// Runs for ever.
pub async fn run(
    supervisor: Supervisor,
    parts: Parts,
    (handle, reports, events): (Handle, mpsc::Receiver<Report>, Events),
    progress: watch::Sender<Progress>,
    heartbeat: Heartbeat,
) {
    let mut wait = Duration::from_millis(500);
    let (network, netns) = loop {
        let opened = {
            let _pass = heartbeat.pass();
            open(&supervisor, &parts).await
        };
        match opened {
            Ok(parts) => break parts,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "this node cannot ask NetworkProbes; trying again");
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(REFRESH);
    };
    tracing::info!(
        netns = network.netns().path(),
        "NetworkProbes are asked from a network namespace of their own"
    );
    let task = Task {
        targets: Targets::new(handle, netns, &parts.node),
        parts,
        network,
        records: Records::default(),
        writes: JoinSet::new(),
        progress,
        failures: 0,
        ability: Ability::default(),
        unwritten: false,
    };
    task.run(reports, events, heartbeat).await;
}

type Opened = (Network, Arc<std::os::fd::OwnedFd>);

async fn open(supervisor: &Supervisor, parts: &Parts) -> Result<Opened, network::Error> {
    let switch = (parts.ovs.clone(), parts.netlink.clone());
    let network = Network::open(supervisor, switch, &parts.node, parts.mtu).await?;
    let netns = network.netns().descriptor()?;
    Ok((network, Arc::new(netns)))
}

impl Task {
    async fn run(
        mut self,
        mut reports: mpsc::Receiver<Report>,
        mut events: Events,
        heartbeat: Heartbeat,
    ) {
        let mut changes = self.parts.ovs.subscribe();
        let mut probes = self.parts.probes.clone();
        let mut vnics = self.parts.vnics.clone();
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut due, mut pause): (Option<Instant>, _) = (None, Instant::now());
        loop {
            let mut at = None;
            let write = self.records.next().filter(|_| self.writes.len() < WRITES);
            tokio::select! {
                _ = refresh.tick() => {
                    self.network.refresh();
                    at = Some(Instant::now());
                }
                _ = look.tick() => at = Some(Instant::now()),
                _ = changes.next() => at = Some(Instant::now() + TOGETHER),
                true = events.changed() => at = Some(Instant::now() + TOGETHER),
                Ok(()) = probes.changed() => at = Some(Instant::now() + TOGETHER),
                Ok(()) = vnics.changed() => {
                    let here = here(&vnics.borrow_and_update());
                    if self.targets.is_here(here) {
                        at = Some(Instant::now() + TOGETHER);
                    }
                }
                Some(report) = reports.recv() => self.records.report(&report, Instant::now()),
                Some(written) = self.writes.join_next(), if !self.writes.is_empty() => {
                    match written {
                        Ok((key, outcome)) => self.written(&key, outcome),
                        // Its record would wait for ever.
                        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                        Err(_) => {}
                    }
                }
                () = until(write), if write.is_some() => {}
                () = until(due), if due.is_some() => {
                    due = None;
                    let _pass = heartbeat.pass();
                    let start = Instant::now();
                    at = self.pass().await;
                    pause = Instant::now() + PAUSE.max(LONGEST_PAUSE.min(SHARE * start.elapsed()));
                }
            }
            due = due.into_iter().chain(at.map(|at| at.max(pause))).min();
            self.write();
            self.tell();
        }
    }

    /// One comparison of devices and targets with what they shall be. Returns when there is to be another.
    async fn pass(&mut self) -> Option<Instant> {
        let mut probes = self.parts.probes.clone();
        // Copied out: a mirror that is borrowed while the kernel is waited for would hold its watch up.
        let (wanted, whole) = {
            let objects = probes.borrow_and_update();
            // Of the first list, what has been read is asked already: of what is not there yet, nothing is known anyway.
            if !objects.synced && objects.by_key.is_empty() {
                return None;
            }
            (networks(&self.follow(&objects)), objects.synced)
        };
        let (devices, outcome) = self.devices(&wanted, whole).await;
        let lack = match &outcome {
            Outcome::Looked(_) => "it is not set up, or ovn-controller has not installed it; see the logs of ycloud-cni and ovn-controller there".to_owned(),
            Outcome::Blind(words) => words.clone(),
        };
        let overdue = {
            let objects = probes.borrow();
            let orders = match objects.has_changed() {
                true => self.follow(&objects),
                false => orders(&objects, &self.parts.node),
            };
            let now = (Instant::now(), Timestamp::now());
            let records = &mut self.records;
            self.targets.set(&orders, &devices, &lack, records, now)
        };
        if whole {
            // Else a node that cannot read the rest would be believed to ask it.
            self.judge(&wanted, &devices, &outcome);
        }
        let retry = outcome.failed().then(|| {
            self.failures += 1;
            Instant::now() + Duration::from_millis(100) * 2_u32.pow(self.failures.min(6))
        });
        if retry.is_none() {
            self.failures = 0;
        }
        retry.into_iter().chain(overdue).min()
    }

    /// Sets the devices as they shall be, as far as Open vSwitch can be asked; the targets follow the objects all the same.
    async fn devices(
        &mut self,
        wanted: &BTreeMap<String, Sources>,
        whole: bool,
    ) -> (BTreeMap<String, Device>, Outcome) {
        if !self.parts.ovs.is_connected() {
            let words = "Open vSwitch's database cannot be reached there; does ovsdb-server run?";
            return (BTreeMap::new(), Outcome::Blind(words.to_owned()));
        }
        let (devices, error, looked) = match self.network.pass(wanted, whole).await {
            Ok((devices, error)) => (devices, error, true),
            Err(error) => (BTreeMap::new(), Some(error), false),
        };
        if let Some(error) = &error {
            let error: &dyn std::error::Error = error;
            tracing::warn!(error, "failed to set the prober's devices; trying again");
        }
        let outcome = match &error {
            Some(error) if !looked => Outcome::Blind(in_full(error)),
            error => Outcome::Looked(error.is_none()),
        };
        (devices, outcome)
    }

    /// Makes records and targets those of the objects, as far as they can be without devices: what this node is not to ask
    /// any more it does not ask, whatever Open vSwitch does.
    fn follow<'a>(&mut self, objects: &'a Objects<NetworkProbe>) -> Vec<Order<'a>> {
        let orders = orders(objects, &self.parts.node);
        let now = Instant::now();
        for order in &orders {
            if self.records.observe(&order.key, order.object, now) {
                self.targets.forget(&order.key);
            }
        }
        let keys: BTreeSet<&Key> = orders.iter().map(|order| &order.key).collect();
        self.records.retain(|key| keys.contains(key));
        self.targets.retain(&orders);
        orders
    }

    /// Whether this node can ask. One Vpc without a device may be that Vpc's fault, on whichever node it is asked from; it is
    /// this node's where no Vpc has one, or where ovn-controller has something to do and does nothing.
    fn judge(
        &mut self,
        wanted: &BTreeMap<String, Sources>,
        devices: &BTreeMap<String, Device>,
        outcome: &Outcome,
    ) {
        let now = Instant::now();
        let stuck = self.parts.behind.borrow().is_some_and(|s| now > s + BEHIND);
        let has = |vpc: &String| devices.contains_key(vpc);
        let lacks = !wanted.keys().all(has);
        let none = lacks && !wanted.keys().any(has);
        let looked = matches!(outcome, Outcome::Looked(_));
        let well = looked && !none && !(lacks && stuck);
        let able = self.ability.observe(well, now);
        self.able(able, devices.len());
    }

    /// Starts what is due to be written.
    fn write(&mut self) {
        while self.writes.len() < WRITES {
            let Some(write) = self.records.write(Instant::now(), Timestamp::now()) else {
                return;
            };
            let writer = self.parts.writer.clone();
            let key = write.key.clone();
            self.writes.spawn(async move { (key, writer(write).await) });
        }
    }

    fn written(&mut self, key: &Key, outcome: Result<String, Refusal>) {
        match &outcome {
            Err(Refusal::Failed(error)) if !self.unwritten => {
                self.unwritten = true;
                tracing::warn!(
                    probe = &**key,
                    error,
                    "failed to write the status of a NetworkProbe; all that waits is tried again"
                );
            }
            Ok(_) if self.unwritten => {
                self.unwritten = false;
                tracing::info!("statuses of NetworkProbes are written again");
            }
            _ => {}
        }
        self.records.written(key, outcome, Instant::now());
    }

    fn able(&self, able: bool, devices: usize) {
        self.progress.send_if_modified(|progress| {
            let changed = (progress.able, progress.devices) != (able, devices);
            (progress.able, progress.devices) = (able, devices);
            changed
        });
    }

    fn tell(&self) {
        let waiting = self.records.waiting() + self.writes.len();
        self.progress
            .send_if_modified(|p| std::mem::replace(&mut p.waiting, waiting) != waiting);
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
