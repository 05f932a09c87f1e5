//! The one task that owns the [`State`]: everything that happens comes to it, everything that is written leaves from it.
//!
//! ```text
//!              bounded channel                                at most one under way
//!  13 watches ─────────────────┐                         ┌──► transaction ──► Northbound
//!   Northbound replica ────────┤                         │        │ outcome
//!   Southbound replica ────────┼──► turn: take all in, ──┤◄───────┘
//!   leadership, timers, stop ──┘    plan, start writes   │   at most MAX_WRITES under way
//!                                                        └──► writes ───────► API server
//!                                        ▲                        │ the object as it is now
//!                                        └────────────────────────┘
//! ```
//!
//! A standby takes everything in and writes nothing, so that it can go on at once when it leads.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, unconstrained};
use ycloud_client::Heartbeat;
use ycloud_client::supervisor::LIMIT;
use ycloud_compiler::{Owner, Settings};
use ycloud_ovsdb::{Connection, Subscription};

use crate::failover::{self, Claims};
use crate::intake::{self, Input, KINDS};
use crate::metrics::Metrics;
use crate::networkpolicy;
use crate::objects::default_owners;
use crate::ovn::{self, Remotes};
use crate::runtime::Runtime;
use crate::state::State;
use crate::write::Writer;

mod transaction;
mod writes;

use transaction::{BACKOFF, InFlight, in_flight};
use writes::Finished;

/// Changes that are taken in before a turn goes on.
const MAX_INPUTS: usize = 4_096;

/// How long a failed attempt to make a default object rests.
const FOUND_AGAIN: Duration = Duration::from_secs(1);

/// How often a process that does not work yet looks whether it can.
const IDLE: Duration = Duration::from_millis(500);

/// How long a stop waits for what is under way.
const STOP_WAIT: Duration = Duration::from_secs(3);

const LISTS: &str = "the lists of Kubernetes objects";
const NORTHBOUND: &str = "the Northbound database";
const SOUTHBOUND: &str = "the Southbound database";

/// What the reconciler is told besides the cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the databases are.
    pub remotes: Remotes,
    /// Ranges.
    pub settings: Settings,
}

/// Runs until `runtime.stop` is cancelled.
///
/// # Errors
/// When a remote's address or certificate cannot be read, or the watches end.
pub async fn run(runtime: Runtime, options: Options, metrics: Metrics) -> Result<()> {
    for part in [LISTS, NORTHBOUND, SOUTHBOUND] {
        runtime.readiness.expect(part);
    }
    let supervisor = &runtime.supervisor;
    let (northbound, southbound) = ovn::connect(supervisor, &options.remotes)?;
    let (told, claims) = watch::channel(None);
    let databases = (northbound.clone(), southbound.clone());
    let stop = runtime.stop.clone();
    supervisor.spawn("fail-over of service gateways", LIMIT, |heartbeat| {
        failover::run(databases, told, stop, heartbeat)
    });
    supervisor.spawn("words on NetworkPolicies", LIMIT, |heartbeat| {
        networkpolicy::run(runtime.clone(), heartbeat)
    });
    let mut reconciler = Reconciler {
        heartbeat: supervisor.heartbeat("reconciler", LIMIT),
        inputs: intake::start(&runtime.client, supervisor, &runtime.stop),
        listed: 0,
        connection: northbound.connection(),
        northbound_events: northbound.subscribe(),
        southbound_events: southbound.subscribe(),
        claims,
        northbound,
        southbound,
        synced: (false, false),
        state: State::new(options.settings, metrics.clone()),
        writer: Writer::new(runtime.client.clone(), &runtime.identity),
        writes: JoinSet::new(),
        reports: JoinSet::new(),
        transaction: None,
        transaction_begun: Instant::now(),
        backoff: BACKOFF.0,
        no_transaction_before: None,
        started: Instant::now(),
        found_again: Instant::now(),
        working: false,
        first_pass: false,
        metrics,
        runtime,
    };
    reconciler.work().await
}

struct Reconciler {
    runtime: Runtime,
    /// A pass is a turn.
    heartbeat: Heartbeat,
    state: State,
    inputs: mpsc::Receiver<Input>,
    listed: usize,
    northbound: ycloud_ovsdb::Client,
    southbound: ycloud_ovsdb::Client,
    /// Of the Northbound client: while it is down, nothing is planned.
    connection: watch::Receiver<Connection>,
    northbound_events: Subscription,
    southbound_events: Subscription,
    /// Who holds the groups of gateways.
    claims: watch::Receiver<Claims>,
    /// Northbound, Southbound.
    synced: (bool, bool),
    writer: Writer,
    writes: JoinSet<Finished>,
    /// Events under way. Nothing waits for them.
    reports: JoinSet<()>,
    transaction: Option<InFlight>,
    transaction_begun: Instant,
    backoff: Duration,
    no_transaction_before: Option<Instant>,
    /// When the work began.
    started: Instant,
    /// When to try again to make missing default objects.
    found_again: Instant,
    /// This process leads, knows everything, and the default objects exist.
    working: bool,
    first_pass: bool,
    metrics: Metrics,
}

impl Reconciler {
    async fn work(&mut self) -> Result<()> {
        let stop = self.runtime.stop.clone();
        let heartbeat = self.heartbeat.clone();
        while !stop.is_cancelled() {
            let more = {
                let _pass = heartbeat.pass();
                self.take_in_all()?;
                // After what has come: a renewal that waited was in time.
                self.state.pass(Instant::now());
                let more = self.turn();
                if self.working {
                    self.state.show_progress();
                }
                more
            };
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            self.wait().await?;
        }
        self.finish().await;
        Ok(())
    }

    /// Takes in what has come, without waiting.
    fn take_in_all(&mut self) -> Result<()> {
        for _ in 0..MAX_INPUTS {
            match self.inputs.try_recv() {
                Ok(input) => self.take_in(input),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    anyhow::bail!("all watches of Kubernetes objects ended")
                }
            }
        }
        // Unconstrained: else tokio lets a task that has done much see nothing more, and rows would be compared with a
        // replica that has not seen the last commit.
        while let Some(event) = unconstrained(self.northbound_events.next()).now_or_never() {
            self.on_northbound(event);
        }
        while let Some(event) = unconstrained(self.southbound_events.next()).now_or_never() {
            self.on_southbound(event);
        }
        if self.claims.has_changed().unwrap_or(false) {
            self.on_claims();
        }
        while let Some(Some(finished)) = self.writes.join_next().now_or_never() {
            self.on_written(finished.context("a write ended badly")?);
        }
        while let Some(Some(reported)) = self.reports.join_next().now_or_never() {
            reported.context("the report of an Event ended badly")?;
        }
        Ok(())
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.state.take_in(event),
            Input::Lease(lease) => {
                let time = Timestamp::now();
                self.state.take_lease(&lease, Instant::now(), time);
            }
            Input::LeaseGone(name) => self.state.forget_lease(&name),
            Input::Listed => {
                self.listed += 1;
                if self.listed == KINDS {
                    tracing::info!("all Kubernetes objects are listed");
                    self.runtime.readiness.reached(LISTS);
                }
            }
        }
    }

    fn on_northbound(&mut self, event: ycloud_ovsdb::Event) {
        match event {
            ycloud_ovsdb::Event::Delta(changes) => {
                self.state.observe(&changes, self.northbound.snapshot());
            }
            ycloud_ovsdb::Event::Resync(observed) => self.state.observe_all(observed),
        }
    }

    fn on_southbound(&mut self, event: ycloud_ovsdb::Event) {
        match event {
            ycloud_ovsdb::Event::Delta(changes) => {
                let observed = self.southbound.snapshot();
                self.state.observe_southbound(&changes, &observed);
            }
            ycloud_ovsdb::Event::Resync(observed) => self.state.observe_all_southbound(&observed),
        }
    }

    fn on_claims(&mut self) {
        if let Some(claims) = self.claims.borrow_and_update().clone() {
            self.state.observe_claims(&claims);
        }
    }

    /// Starts what can be started. True: there is more to do at once.
    fn turn(&mut self) -> bool {
        if !self.may_work() {
            return false;
        }
        let now = Instant::now();
        self.state.rows.promote(now);
        let mut more = false;
        let held = self.no_transaction_before.is_some_and(|until| until > now);
        let connected = self.connection.borrow().state == ycloud_ovsdb::State::Synced;
        let idle = self.transaction.is_none() && !held && connected;
        if idle && self.state.has_work() {
            match self.state.plan() {
                Some(transaction) => self.send(transaction),
                None => more = self.state.has_work(),
            }
        }
        self.start_writes(now);
        self.publish_notes();
        self.note_first_pass();
        more
    }

    /// Whether this process leads and everything is there to work on; looks at everything when that begins.
    fn may_work(&mut self) -> bool {
        let claims = self.claims.borrow().is_some();
        let knows = self.listed == KINDS && self.synced == (true, true) && claims;
        if !knows || !self.runtime.leads() {
            return false;
        }
        if !self.working {
            if !self.found() {
                return false;
            }
            self.working = true;
            self.started = Instant::now();
            tracing::info!("everything is known; reconciling");
            self.state.observe_all(self.northbound.snapshot());
            self.state
                .observe_all_southbound(&self.southbound.snapshot());
        }
        true
    }

    /// Makes the default objects where they are missing; true once all exist. Nothing else is done before, or Services
    /// would be refused for the absence of their Vpc.
    fn found(&mut self) -> bool {
        let missing: Vec<Owner> = default_owners()
            .into_iter()
            .filter(|owner| !self.state.exists(owner))
            .collect();
        let now = Instant::now();
        if !missing.is_empty() && self.writes.is_empty() && self.found_again <= now {
            self.found_again = now + FOUND_AGAIN;
            for owner in &missing {
                self.start_write(owner, &Time(Timestamp::now()));
            }
        }
        missing.is_empty()
    }

    fn note_first_pass(&mut self) {
        let idle = self.transaction.is_none() && !self.state.rows.has_ready();
        if idle && !self.first_pass {
            self.first_pass = true;
            let taken = self.started.elapsed();
            self.metrics.first_pass.set(taken.as_secs_f64());
            tracing::info!(
                seconds = taken.as_secs_f64(),
                "the Northbound database was compared with all objects"
            );
        }
    }

    /// Waits until something happens, and takes it in.
    async fn wait(&mut self) -> Result<()> {
        let stop = self.runtime.stop.clone();
        let runtime = self.runtime.clone();
        let due = self.next_due();
        let synced = self.synced;
        let (northbound, southbound) = (self.northbound.clone(), self.southbound.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            input = self.inputs.recv() => {
                self.take_in(input.context("all watches of Kubernetes objects ended")?);
            }
            event = self.northbound_events.next() => {
                self.on_northbound(event);
            }
            event = self.southbound_events.next() => {
                self.on_southbound(event);
            }
            changed = self.connection.changed() => {
                changed.context("the Northbound client ended")?;
                self.no_transaction_before = None;
            }
            (owners, outcome) = in_flight(&mut self.transaction) => {
                self.on_transaction(owners, outcome);
            }
            Some(finished) = self.writes.join_next() => {
                self.on_written(finished.context("a write ended badly")?);
            }
            Some(reported) = self.reports.join_next() => {
                reported.context("the report of an Event ended badly")?;
            }
            // The sender ends with the process only.
            Ok(()) = self.claims.changed() => self.on_claims(),
            () = sleep_until(due) => {}
            result = northbound.synced(), if !synced.0 => {
                result.context("the Northbound client ended")?;
                tracing::info!("the replica of the Northbound database is complete");
                self.synced.0 = true;
                self.runtime.readiness.reached(NORTHBOUND);
            }
            result = southbound.synced(), if !synced.1 => {
                result.context("the Southbound client ended")?;
                tracing::info!("the replica of the Southbound database is complete");
                self.synced.1 = true;
                self.runtime.readiness.reached(SOUTHBOUND);
            }
            () = runtime.leading(), if !self.working && !runtime.leads() => {}
        }
        Ok(())
    }

    fn next_due(&self) -> Option<Instant> {
        let transaction = match self.transaction {
            None if self.state.has_work() => self.no_transaction_before,
            _ => None,
        };
        let dues = [
            self.state.rows.next_due(),
            self.state.objects.next_due(),
            self.state.next_due(),
            transaction,
        ];
        match self.working {
            true => dues.into_iter().flatten().min(),
            false => Some(self.found_again.max(Instant::now() + IDLE)),
        }
    }

    /// What is under way ends before the process does, if it still leads.
    async fn finish(&mut self) {
        if !self.runtime.leads() {
            self.writes.abort_all();
            return;
        }
        let rest = async {
            if let Some(transaction) = self.transaction.take() {
                // Its outcome is for the next leader to see.
                let _ = transaction.await;
            }
            while self.writes.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_WAIT, rest).await.is_err() {
            tracing::warn!("stopped with writes under way");
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
