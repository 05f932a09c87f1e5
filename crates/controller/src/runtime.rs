//! What makes a controller a well-behaved process: arguments, logs, API client, health and metrics server, leader
//! election, graceful stop.
//!
//! ```text
//!   main ── run(name, args, registry, body) ──┬── health::serve   (until the very end)
//!                                             ├── lease::Elector  (gives the Lease back when stopped)  ┐
//!                                             ├── signals ──► Runtime::stop                            ├ Supervisor
//!                                             ├── what the body starts beside itself                   ┘
//!                                             └── body(Runtime)   (returns soon after `stop`)
//! ```
//!
//! The order on SIGTERM or SIGINT: `stop` is cancelled, the body returns, the Lease is given back, the process ends
//! with 0. When the Lease is lost: `stop` is cancelled at once, the body returns, the process ends with 1, so that the
//! kubelet starts it anew as a standby. When a task ends without that, by a panic most likely: the body is dropped where it is, the Lease
//! is given back, the process ends with 1 and names the task.

use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use ycloud_client::Supervisor;
use ycloud_client::supervisor::reported;

use crate::health::{self, Readiness};
use crate::lease::{Elector, Leadership, Timing};

/// How long a body may take to return after `stop`, before the process ends without it.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long an attempt to take or renew the Lease may take: twice what the elector gives it.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// What is logged where RUST_LOG does not say: kube's own lines about failed watches stand beside ours and say less.
const DEFAULT_FILTER: &str = "info,kube_runtime::watcher=off";

/// Arguments that every controller has. Add them by `#[command(flatten)]`.
#[derive(Debug, Clone, Args)]
pub struct RuntimeArgs {
    /// Log lines as text for people, or as JSON, one object a line. What is logged: environment variable RUST_LOG,
    /// for example `info,ycloud_controller=debug`.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Address and port of /healthz, /readyz and /metrics (plain HTTP). Default: 127.0.0.1 and the controller's port.
    #[arg(long, env = "LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Whether replicas elect the one that writes. Without election, run a single replica.
    #[arg(long, env = "LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = ycloud_api::key::SYSTEM_NAMESPACE)]
    pub namespace: String,

    /// Name of this replica, in the Lease and in Events. Default: the host's name.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the body of a controller gets.
#[derive(Clone)]
pub struct Runtime {
    /// Client of the API server; crypto provider and credentials are set up.
    pub client: Client,
    /// Cancelled when the process shall end: return soon, and write nothing more if [`Runtime::leads`] is false.
    pub stop: CancellationToken,
    /// What `/readyz` waits for.
    pub readiness: Readiness,
    /// Starts the tasks that the body needs beside itself, and watches them.
    pub supervisor: Supervisor,
    /// Name of this replica, for Events (`reportingInstance`).
    pub identity: String,
    leadership: watch::Receiver<Leadership>,
}

impl Runtime {
    /// Whether this process may write now.
    pub fn leads(&self) -> bool {
        *self.leadership.borrow() == Leadership::Leading
    }

    /// Returns once this process leads; never if it does not get to. Use it in a `select!` with other work.
    pub async fn leading(&self) {
        let mut leadership = self.leadership.clone();
        let led = leadership.wait_for(|l| *l == Leadership::Leading);
        // What it returns cannot be held across an await.
        if led.await.map(drop).is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs a controller named `name` (also the Lease's name) to its end. `port` is that of the default `--listen`.
/// `registry` is served at `/metrics`; register everything before. Call it from `main`; it builds the tokio runtime.
pub fn run<F, B>(
    name: &'static str,
    port: u16,
    args: &RuntimeArgs,
    registry: Registry,
    body: B,
) -> ExitCode
where
    B: FnOnce(Runtime) -> F,
    F: Future<Output = Result<()>>,
{
    init_logging(args.log_format);
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .build();
    let result = tokio
        .context("failed to start the tokio runtime")
        .and_then(|tokio| tokio.block_on(supervise(name, port, args, registry, body)));
    match result {
        Ok(code) => code,
        Err(error) => {
            let error: &dyn std::error::Error = &*error;
            tracing::error!(error, "{name} ends");
            ExitCode::FAILURE
        }
    }
}

async fn supervise<F, B>(
    name: &'static str,
    port: u16,
    args: &RuntimeArgs,
    mut registry: Registry,
    body: B,
) -> Result<ExitCode>
where
    B: FnOnce(Runtime) -> F,
    F: Future<Output = Result<()>>,
{
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{name} starts");
    let leader = Gauge::<i64>::default();
    registry.register(
        "leader",
        "1 while this replica leads, else 0",
        leader.clone(),
    );
    let stop = CancellationToken::new();
    // However this ends: what ends by it is no fault.
    let _stopped = stop.clone().drop_guard();
    let supervisor = Supervisor::new(stop.clone());
    stop_on_signals(&supervisor, stop.clone())?;
    let readiness = Readiness::default();
    let listen = args
        .listen
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)));
    let ended = CancellationToken::new();
    let checks = health::Checks {
        readiness: readiness.clone(),
        supervisor: supervisor.clone(),
    };
    let server = health::serve(listen, checks, Arc::new(registry), ended.clone());
    #[expect(
        clippy::disallowed_methods,
        reason = "joined below: whatever ends it ends the process"
    )]
    let server = tokio::spawn(server);

    let config = kube::Config::infer().await;
    let config = config
        .context("failed to find the API server: neither a kubeconfig nor a service account")?;
    let client =
        ycloud_client::connect(config).context("failed to make the API server's client")?;
    let (sender, leadership) = watch::channel(Leadership::Standby);
    let election = CancellationToken::new();
    let elector = start_election(
        &supervisor,
        args,
        &client,
        (name, sender),
        (&election, &stop),
    );
    let on_change = follow(&supervisor, leadership.clone(), leader, stop.clone());

    let runtime = Runtime {
        client,
        stop: stop.clone(),
        readiness,
        supervisor: supervisor.clone(),
        identity: identity(args),
        leadership: leadership.clone(),
    };
    let result = tokio::select! {
        // A panic of the body, too, gives the Lease back.
        result = reported(name, limited(body(runtime), &stop)) => {
            result.unwrap_or_else(|| Err(anyhow::anyhow!("its main task panicked")))
        }
        served = server => match served {
            Ok(Err(error)) => Err(error).with_context(|| format!("failed to serve health checks on {listen}")),
            _ => Err(anyhow::anyhow!("the server of health checks on {listen} ended")),
        },
        fault = supervisor.fault() => Err(fault.into()),
    };
    let lost = *leadership.borrow() == Leadership::Lost;
    on_change.abort();
    election.cancel();
    if let Some(elector) = elector {
        let _ = elector.await;
    }
    ended.cancel();
    result?;
    tracing::info!("{name} ends");
    Ok(if lost {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs the body; once `stop` is cancelled it has [`STOP_LIMIT`] to return.
async fn limited(body: impl Future<Output = Result<()>>, stop: &CancellationToken) -> Result<()> {
    let limit = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_LIMIT).await;
    };
    tokio::select! {
        result = body => result,
        () = limit => Err(anyhow::anyhow!("failed to stop within {STOP_LIMIT:?}")),
    }
}

/// Starts the elector, which runs until `election` is cancelled. Its end is no fault: it stops the process.
fn start_election(
    supervisor: &Supervisor,
    args: &RuntimeArgs,
    client: &Client,
    (name, sender): (&str, watch::Sender<Leadership>),
    (election, stop): (&CancellationToken, &CancellationToken),
) -> Option<tokio::task::JoinHandle<()>> {
    if !args.leader_elect {
        sender.send_replace(Leadership::Leading);
        // The receivers outlive the sender and keep its last word.
        return None;
    }
    // Two processes of one name (an old container and its successor) are two identities.
    let identity = format!("{}_{}", identity(args), uuid::Uuid::new_v4());
    let elector = Elector::new(
        client.clone(),
        &args.namespace,
        name,
        &identity,
        Timing::default(),
    );
    let (election, stop) = (election.clone(), stop.clone());
    let elect = |heartbeat| async move {
        elector.run(sender, election, heartbeat).await;
        stop.cancel();
    };
    Some(supervisor.spawn("leader election", ATTEMPT_LIMIT, elect))
}

/// Keeps the gauge, and stops the process when leadership is lost.
fn follow(
    supervisor: &Supervisor,
    mut leadership: watch::Receiver<Leadership>,
    gauge: Gauge<i64>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    supervisor.carry("leadership", async move {
        loop {
            let state = *leadership.borrow_and_update();
            gauge.set(i64::from(state == Leadership::Leading));
            if state == Leadership::Lost {
                stop.cancel();
            }
            if leadership.changed().await.is_err() {
                // There is no elector, or it has ended: that is its own affair.
                return stop.cancelled().await;
            }
        }
    })
}

fn stop_on_signals(supervisor: &Supervisor, stop: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to handle SIGINT")?;
    supervisor.carry("signals", async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        stop.cancel();
    });
    Ok(())
}

fn identity(args: &RuntimeArgs) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    args.identity
        .clone()
        .or_else(host)
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Log lines go to standard error. `RUST_LOG` chooses, as in `info,ycloud_ovsdb=debug`.
fn init_logging(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only if a test has set a subscriber, which is as good.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
