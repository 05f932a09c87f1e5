//! yusurservice-controller: YusurServices → Services, EndpointSlices and NetworkProbes, and their status.
//!
//! ```text
//!   watches ══ News ══► one task: World, then for each key that is due and not under way
//!                         plan (pure) ─┬► a job: execute (Service, slices, status, Events)
//!                           ▲          └► a job: ask (NetworkProbes)
//!                           └── later, dirty ◄─┴── Finished, Asked
//! ```
//!
//! Level-triggered: a key says that something may have changed, the plan reads everything anew. While a key's job is
//! under way, further news of it wait, so that two jobs never write one object at the same time. Its NetworkProbes are
//! written beside all else: neither waits for the other, and what cannot be asked does not keep endpoints from going.

mod ask;
mod asking;
pub mod execute;
pub mod kubevirt;
mod labelled;
pub mod metrics;
mod pace;
pub mod pending;
pub mod plan;
pub mod pods;
pub mod probes;
mod slices;
mod store;
#[cfg(test)]
mod tests;
mod vnics;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use ycloud_api::YusurServiceStatus;
use ycloud_client::Heartbeat;
use ycloud_client::supervisor::LIMIT;
use ycloud_compiler::ObjectKey;

use self::ask::Order;
use self::asking::{Asked, Asking};
use self::execute::{Error, Executor, Outcome};
use self::metrics::Metrics;
use self::pace::Teller;
use self::pending::Pending;
use self::world::{News, World};
use crate::runtime::Runtime;
use crate::watch::{Change, Closed, watch};

/// How many jobs write at the same time.
const JOBS: usize = 16;

/// How many changes may wait to be taken in.
const NEWS: usize = 1024;

/// First wait after a failed request; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Longest wait after failed requests.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// When the API server refused a Service: its reason may go away by itself, as when a taken address becomes free.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// How long after the time that changes something it is looked at.
const EARLIEST: Duration = Duration::from_millis(10);

/// What `/readyz` waits for.
const LISTS: &str = "the first lists of all watched kinds";

/// A job's end.
struct Finished {
    key: ObjectKey,
    uid: Option<String>,
    result: Result<Outcome, Error>,
    took: Duration,
}

/// The status as it was last told, until the watch shows it.
struct Told {
    uid: Option<String>,
    status: YusurServiceStatus,
}

/// Runs until `runtime.stop` is cancelled; jobs under way are finished.
///
/// # Errors
/// None so far: failures of single requests are retried.
pub async fn run(runtime: Runtime, metrics: Metrics) -> Result<()> {
    runtime.readiness.expect(LISTS);
    let (sender, mut news) = mpsc::channel(NEWS);
    start_watches(&runtime, &sender);
    drop(sender);
    let heartbeat = runtime.supervisor.heartbeat("reconciler", LIMIT);
    let mut control = Control::new(&runtime, metrics);
    let mut leads = false;
    loop {
        let due = control.pending.next_due();
        tokio::select! {
            () = runtime.stop.cancelled() => break,
            () = runtime.leading(), if !leads => {
                leads = true;
                control.pending.changed(control.world.keys());
            }
            change = news.recv() => match change {
                Some(change) => control.take_in(change, &mut news, &runtime),
                None => anyhow::bail!("all watches ended"),
            },
            Some(finished) = control.jobs.join_next() => control.finish(finished),
            Some(asked) = control.asking.next() => control.asked(asked),
            () = sleep_until(due) => {
                control.pending.pass(Instant::now());
            }
        }
        if leads && runtime.leads() && control.world.synced() {
            let _pass = heartbeat.pass();
            control.dispatch();
        }
    }
    control.asking.stop();
    if !runtime.leads() {
        // Another replica may write by now.
        control.jobs.shutdown().await;
        control.asking.shutdown().await;
    }
    while let Some(finished) = control.jobs.join_next().await {
        control.finish(finished);
    }
    while let Some(asked) = control.asking.next().await {
        control.asked(asked);
    }
    Ok(())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The state of the one task.
struct Control {
    world: World,
    executor: Executor,
    metrics: Metrics,
    /// Keys to plan for.
    pending: Pending,
    /// Keys whose job is under way.
    busy: BTreeSet<ObjectKey>,
    /// Failures in a row.
    failures: BTreeMap<ObjectKey, u32>,
    told: BTreeMap<ObjectKey, Told>,
    tellers: BTreeMap<ObjectKey, Teller>,
    jobs: JoinSet<Finished>,
    asking: Asking,
}

impl Control {
    fn new(runtime: &Runtime, metrics: Metrics) -> Self {
        Self {
            world: World::default(),
            executor: Executor::new(runtime.client.clone(), &runtime.identity),
            metrics,
            pending: Pending::default(),
            busy: BTreeSet::new(),
            failures: BTreeMap::new(),
            told: BTreeMap::new(),
            tellers: BTreeMap::new(),
            jobs: JoinSet::new(),
            asking: Asking::new(runtime.client.clone()),
        }
    }

    /// Takes in one change and all that wait behind it, so that a burst is planned for once.
    fn take_in(&mut self, first: News, news: &mut mpsc::Receiver<News>, runtime: &Runtime) {
        let mut next = Some(first);
        while let Some(change) = next {
            if let News::YusurService(change) = &change
                && let Change::Apply(ysvc) = &**change
            {
                // The watch is the truth again; a status that was overwritten by hand is told anew.
                let key = kube::ResourceExt::name_any(ysvc);
                let namespace = kube::ResourceExt::namespace(ysvc).unwrap_or_default();
                self.told.remove(&ObjectKey::new(namespace, key));
            }
            let of_probe = matches!(change, News::NetworkProbe(_));
            let concerned = self.world.apply(change);
            match of_probe {
                true => {
                    let now = Instant::now();
                    let pending = &mut self.pending;
                    concerned
                        .into_iter()
                        .for_each(|key| pending.probed(key, now));
                }
                false => self.pending.changed(concerned),
            }
            next = news.try_recv().ok();
        }
        if self.world.synced() {
            runtime.readiness.reached(LISTS);
        }
        self.metrics.services.set(self.world.count() as i64);
    }

    /// Starts jobs for the keys that wait, as many as may run.
    fn dispatch(&mut self) {
        while self.jobs.len() < JOBS {
            let Some(key) = self.pending.take(&self.busy) else {
                break;
            };
            self.start(key);
        }
        self.metrics.queue.set(self.pending.len() as i64);
    }

    fn start(&mut self, key: ObjectKey) {
        if !self.world.knows(&key) {
            // What it waits for is news of it.
            return;
        }
        let (now, began) = (Time(Timestamp::now()), Instant::now());
        let Some(mut plan) = plan::plan(&self.world, &key, &now) else {
            self.told.remove(&key);
            self.failures.remove(&key);
            self.pending.forget(&key);
            self.tellers.remove(&key);
            self.asking.forget(&key);
            return;
        };
        if let Err(at) = self.asking.write(&key, Order::of(&mut plan), began) {
            self.pending.at(key.clone(), at);
        }
        plan.unwritten = self.asking.trouble(&key).map(str::to_owned);
        if let Some(due) = plan.due() {
            let wait = Duration::try_from(due.0.duration_since(now.0)).unwrap_or_default();
            // Not a moment too early: timestamps are finer than what waits for them.
            self.pending.at(key.clone(), began + wait + EARLIEST);
        }
        let health = match (plan.changes(), self.tellers.contains_key(&key)) {
            ([], false) => Vec::new(),
            (changes, _) => {
                let teller = self.tellers.entry(key.clone()).or_default();
                teller.tell(changes, began)
            }
        };
        let uid = plan.ysvc.metadata.uid.clone();
        let told = self.told.get(&key).filter(|told| told.uid == uid);
        let base = told.map(|told| told.status.clone());
        let base = base.or_else(|| plan.ysvc.status.clone());
        let executor = self.executor.clone();
        self.busy.insert(key.clone());
        self.jobs.spawn(async move {
            let result = executor.carry_out(&plan, base.as_ref(), &health).await;
            Finished {
                key,
                uid,
                result,
                took: began.elapsed(),
            }
        });
    }

    fn finish(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        let Finished {
            key,
            uid,
            result,
            took,
        } = match finished {
            Ok(finished) => finished,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.busy.remove(&key);
        self.metrics.duration.observe(took.as_secs_f64());
        match result {
            Ok(outcome) => {
                self.failures.remove(&key);
                self.metrics.writes.inc_by(outcome.written);
                self.metrics
                    .ended(if outcome.refused { "refused" } else { "done" });
                if outcome.written > 0 {
                    tracing::info!(yusurservice = %key, writes = outcome.written, ?took, "written");
                }
                if outcome.refused {
                    self.pending.at(key.clone(), Instant::now() + REFUSED_WAIT);
                }
                let status = outcome.status;
                self.told.insert(key, Told { uid, status });
            }
            Err(error) => {
                if let Some(teller) = self.tellers.get_mut(&key) {
                    teller.take_back();
                }
                let failures = self.failures.entry(key.clone()).or_default();
                let wait = wait(*failures);
                *failures += 1;
                self.metrics.ended("failed");
                let error: &dyn std::error::Error = &error;
                tracing::warn!(yusurservice = %key, error, ?wait, "trying again");
                self.pending.at(key, Instant::now() + wait);
            }
        }
    }

    /// Takes in that NetworkProbes were written, or not.
    fn asked(&mut self, asked: Result<Asked, tokio::task::JoinError>) {
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now = Instant::now();
        let ended = self.asking.finish(asked, now);
        let key = ended.key;
        match ended.result {
            Ok(written) => {
                self.metrics.writes.inc_by(written);
            }
            Err((error, wait)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(yusurservice = %key, error, ?wait, "trying again");
                self.pending.at(key.clone(), now + wait);
            }
        }
        if ended.dirty {
            self.pending.changed([key]);
        }
    }
}

/// How long to wait after that many failures in a row before the last one.
fn wait(failures: u32) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << failures.min(10));
    wait.min(LONGEST_WAIT)
}

/// Starts the watches; they end with `runtime.stop`.
fn start_watches(runtime: &Runtime, sender: &mpsc::Sender<News>) {
    spawn(
        runtime,
        sender,
        |_| {},
        |change| News::YusurService(Box::new(change)),
    );
    spawn(runtime, sender, |_| {}, News::Vpc);
    spawn(runtime, sender, |_| {}, News::Subnet);
    spawn(runtime, sender, |_| {}, News::VNic);
    spawn(runtime, sender, |_| {}, News::Eip);
    spawn(runtime, sender, |_| {}, News::Namespace);
    spawn(runtime, sender, pods::reduce_pod, |change| {
        News::Pod(Box::new(change))
    });
    let discover = kubevirt::discover(runtime.client.clone(), sender.clone());
    let stop = runtime.stop.clone();
    runtime.supervisor.carry("watch of KubeVirt", async move {
        stop.run_until_cancelled(discover).await;
    });
    spawn(runtime, sender, |_| {}, News::Service);
    spawn(runtime, sender, |_| {}, News::EndpointSlice);
    spawn(runtime, sender, probes::reduce_probe, |change| {
        News::NetworkProbe(Box::new(change))
    });
}

fn spawn<K>(
    runtime: &Runtime,
    sender: &mpsc::Sender<News>,
    reduce: fn(&mut K),
    wrap: fn(Change<K>) -> News,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::all(runtime.client.clone());
    let (sender, stop) = (sender.clone(), runtime.stop.clone());
    let name = format!("watch of {}", K::kind(&K::DynamicType::default()));
    let follow = |heartbeat: Heartbeat| async move {
        let deliver = |change| {
            heartbeat.beat();
            let sent = sender.send(wrap(change));
            async { sent.await.map_err(|_| Closed) }
        };
        let watched = watch(api, watcher::Config::default(), reduce, deliver);
        stop.run_until_cancelled(watched).await;
    };
    runtime.supervisor.spawn(name, LIMIT, follow);
}
