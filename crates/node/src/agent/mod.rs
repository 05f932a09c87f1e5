//! The agent: serves the plugin's requests and keeps the node's own interface.
//!
//! ```text
//!   server ──► add, del, check, gc ──┬──► ovs        Open vSwitch: one client, one replica
//!                                    ├──► netlink    the node's links and the Pods'
//!   objects (VNics, Subnets, …) ─────┤
//!                                    ├──► pod_links       task: rules and routes of the host's ends, host ports
//!                                    ├──► node_interface  task: node0, its routes, masquerade
//!   Services, EndpointSlices, Nodes ─┼──► services        task: node ports, external addresses, health checks
//!                                    └──► mismatch        task: Pods that have another address than their VNics say
//!
//!   VNics, links ───────────────────────► devices         task: ports of the devices that VNics name       ┐
//!   OVN Southbound ──┬──────────────────► affinity        task: OpenFlow flows that session affinity needs │
//!                    ├──────────────────► ct_flush        task: connections to backends that are gone      ├ chassis
//!                    └──────────────────► announce        task: addresses of gateways that come here      │
//!   NetworkProbes ◄─────────────────────► prober          task: devices in Vpcs, rounds, statuses, Lease   ┘
//! ```
//!
//! The last five are what every chassis has, and all that one without a kubelet has ([`Role`]).
//!
//! Each task is watched: one that ends takes the process with it, and `/readyz` names one that hangs ([`ycloud_client::supervisor`]).
//!
//! The agent remembers nothing by itself. What Pods have stands in Open vSwitch; a restart reads it there and touches no
//! running Pod. The tasks are level-triggered: they compare and set what differs.

pub mod add;
pub mod address;
pub mod affinity;
pub mod announce;
pub mod behind;
pub mod chassis;
pub mod check;
pub mod conntrack;
pub mod ct_flush;
pub mod del;
pub mod devices;
pub mod ethtool;
pub mod family;
pub mod gc;
pub mod health;
pub mod install;
pub mod mac;
pub mod metrics;
pub mod mismatch;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod node_interface;
pub mod objects;
pub mod ovs;
pub mod own_hosts;
pub mod pod_links;
pub mod prober;
pub mod server;
pub mod services;
pub mod sock_diag;
pub mod southbound;
pub mod sysctl;
pub mod talk;
pub mod turns;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use ycloud_client::supervisor::LIMIT;
use ycloud_client::{Heartbeat, Supervisor};
use ycloud_ovsdb::Remote;

use crate::protocol::Failure;
use chassis::Chassis;
use health::Observed;
use metrics::Metrics;
use netlink::{Events, Netlink};
use node_interface::NodeInterface;
use objects::Mirrors;
use ovs::Ovs;
use pod_links::PodLinks;
use services::{Progress, Services, feed};
use southbound::Southbound;
use turns::Turns;

/// How long it may take to remove what is left of gone containers: each costs a transaction, and a node that was drained has a hundred.
const SWEEP_LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

/// What a machine is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// A node: Pods run here, and it uses Services itself.
    Node,
    /// A chassis without a kubelet, a DPU or a bare-metal server: devices of VNics, and what OVN's load balancers need.
    Chassis,
}

/// Arguments of `ycloud-cni`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Name of this machine: its Node object, if it has one, and the `chassis` of its VNics.
    #[arg(long, env = "NODE_NAME")]
    pub node: String,

    /// What this machine is to the cluster.
    #[arg(long, env = "ROLE", value_enum, default_value_t = Role::Node)]
    pub role: Role,

    /// Open vSwitch's database.
    #[arg(long, env = "OVS_DB", default_value = "unix:/run/openvswitch/db.sock")]
    pub ovs: Remote,

    /// The integration bridge's OpenFlow socket.
    #[arg(
        long,
        env = "OVS_OPENFLOW",
        default_value = "/run/openvswitch/br-int.mgmt"
    )]
    pub openflow: PathBuf,

    /// OVN's Southbound database.
    #[command(flatten)]
    pub southbound: Southbound,

    /// Range from which ycloud takes its own networks: that of ycloud-controller.
    #[arg(long, env = "SYSTEM_CIDR", default_value = "100.64.0.0/10")]
    pub system_cidr: Ipv4Net,

    /// As --system-cidr, of IPv6.
    #[arg(long, env = "SYSTEM_IPV6_CIDR", default_value = "fd00:100:64::/48")]
    pub system_ipv6_cidr: Ipv6Net,

    /// Folder of what the next agent shall know; one that a reboot empties.
    #[arg(long, env = "RUN_DIR", default_value = "/run/ycloud")]
    pub run_dir: PathBuf,

    /// Where the plugin finds the agent.
    #[arg(long, default_value = crate::protocol::SOCKET)]
    pub socket: PathBuf,

    /// The plugin's binary, to be installed.
    #[arg(long, default_value = "/usr/local/bin/ycloud")]
    pub plugin: PathBuf,

    /// Where the container runtime looks for plugins.
    #[arg(long, default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,

    /// Where the container runtime looks for network configurations.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,

    /// MTU of Pods and of the node interface, bytes: that of the nodes' uplinks less at least 58 for Geneve over IPv4, with
    /// OVN's option; over IPv6, less 78. The smallest uplink of all chassis counts.
    #[arg(long, env = "MTU", default_value_t = 1400, value_parser = clap::value_parser!(u32).range(576..=9000))]
    pub mtu: u32,

    /// Address and port of /healthz, /readyz and /metrics, plain HTTP.
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:9440")]
    pub listen: SocketAddr,
}

impl Options {
    /// The system range of each family.
    pub fn system_ranges(&self) -> Vec<IpNet> {
        vec![self.system_cidr.into(), self.system_ipv6_cidr.into()]
    }
}

/// What requests share.
pub struct Agent {
    /// The arguments.
    pub options: Options,
    /// What every chassis has.
    pub chassis: Chassis,
    /// The switch: the chassis'.
    pub ovs: Ovs,
    /// The node's own network namespace: the chassis'.
    pub netlink: Netlink,
    /// What the API server says.
    pub mirrors: Mirrors,
    /// The task of the host's ends.
    pub pod_links: PodLinks,
    /// One request per container at a time.
    pub turns: Turns,
    /// How long an ADD waits.
    pub limits: add::Limits,
    /// Why a Pod has no VNic.
    pub pod_refusal: add::PodRefusal,
    /// Whether the kernel has nft_socket, see [`nft::has_socket`].
    pub nft_socket: bool,
    /// Whether the node interface is as it shall be.
    pub node_interface: watch::Receiver<bool>,
    /// How far the node's side of Services is.
    pub services: watch::Receiver<Progress>,
}

impl Agent {
    /// What an ADD would still wait for, in words; empty once ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = self.mirrors.missing();
        if !self.ovs.is_connected() {
            missing.push("Open vSwitch");
        }
        if !*self.node_interface.borrow() {
            missing.push("the node interface");
        }
        missing
    }
}

impl Observed for Agent {
    fn supervisor(&self) -> &Supervisor {
        &self.chassis.supervisor
    }

    fn not_ready(&self) -> Vec<&'static str> {
        let mut missing = self.missing();
        let chassis = self.chassis.not_ready().into_iter();
        missing.extend(chassis);
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn observe(&self) {
        self.chassis.observe();
        let (metrics, ports) = (&self.chassis.metrics, self.ovs.view().ports());
        let installed = ports.iter().filter(|port| port.installed).count();
        metrics.ports.set(count(ports.len()));
        metrics.ports_installed.set(count(installed));
        metrics
            .ports_not_probed
            .set(count(self.pod_links.not_probed()));
        metrics
            .node_interface_ready
            .set((*self.node_interface.borrow()).into());
        metrics.nft_socket.set(self.nft_socket.into());
        let services = self.services.borrow();
        metrics.frontends.set(count(services.frontends));
        metrics.services_applied.set(services.applied.into());
        metrics.ready.set(self.missing().is_empty().into());
    }
}

/// A number as gauges have it.
fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting: no API server configured, no netlink, a socket that cannot be bound, a plugin that cannot
/// be installed.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    // However this ends: what ends by it is no fault.
    let _stopped = stop.clone().drop_guard();
    let supervisor = Supervisor::new(stop.clone());
    stop_on_signals(&supervisor, stop.clone())?;
    let config = kube::Config::infer().await;
    let config = config
        .context("failed to find the API server: neither a service account nor a kubeconfig")?;
    let url = &config.cluster_url;
    let api_server = url
        .host()
        .map(|host| format!("{host}:{}", url.port_u16().unwrap_or(443)));
    let client =
        ycloud_client::connect(config).context("failed to make the API server's client")?;
    match options.role {
        Role::Node => run_node(supervisor, options, client, api_server, stop).await,
        Role::Chassis => chassis::run(supervisor, options, client, stop).await,
    }
}

async fn run_node(
    supervisor: Supervisor,
    options: Options,
    client: kube::Client,
    api_server: Option<String>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let chassis = Chassis::start(supervisor.clone(), &options, &client, metrics)?;
    let (ovs, netlink) = (chassis.ovs.clone(), chassis.netlink.clone());
    let mirrors = Mirrors::start(&supervisor, &client, chassis.vnics.clone());
    let hosts = own_hosts::follow(&supervisor, api_server);
    let links = (ovs.clone(), netlink.clone());
    let pod_links = PodLinks::start(&supervisor, links, hosts.clone())?;
    let (ready, node_interface) = watch::channel(false);
    let (progress, progresses) = watch::channel(Progress::default());
    let services = Services {
        changes: feed::start(&supervisor, &client),
        mirrors: mirrors.clone(),
        system: options.system_ranges(),
        hosts,
        netlink: netlink.clone(),
        node: options.node.clone(),
        progress,
    };
    supervisor.spawn("rules of Services", LIMIT, |heartbeat| {
        services.run(heartbeat)
    });
    let agent = Arc::new(Agent {
        chassis,
        ovs: ovs.clone(),
        netlink: netlink.clone(),
        mirrors: mirrors.clone(),
        pod_links,
        turns: Turns::default(),
        limits: add::Limits::default(),
        pod_refusal: add::pod_refusal(client.clone()),
        nft_socket: nft::has_socket().await,
        node_interface,
        services: progresses.clone(),
        options,
    });
    let options = &agent.options;
    let interface = NodeInterface {
        ovs,
        netlink,
        mirrors,
        node: options.node.clone(),
        mtu: options.mtu,
        nft_socket: agent.nft_socket,
        services: progresses,
        ready,
    };
    let task = mismatch::Watch {
        client,
        node: agent.options.node.clone(),
        vnics: agent.chassis.vnics.clone(),
        ovs: agent.ovs.clone(),
    };
    supervisor.spawn("addresses of Pods", LIMIT, |heartbeat| task.run(heartbeat));
    let events = Events::open(&supervisor, "the node interface")?;
    supervisor.spawn("node interface", LIMIT, |heartbeat| {
        interface.run(events, heartbeat)
    });
    serve(&supervisor, agent.clone(), registry, stop).await
}

/// Serves requests once the plugin is there to send them, until `stop`.
async fn serve(
    supervisor: &Supervisor,
    agent: Arc<Agent>,
    registry: Registry,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let options = &agent.options;
    let health = health::serve(
        options.listen,
        agent.clone(),
        Arc::new(registry),
        stop.clone(),
    );
    #[expect(
        clippy::disallowed_methods,
        reason = "joined below: whatever ends it ends the process"
    )]
    let health = tokio::spawn(health);
    install::plugin(&options.plugin, &options.bin_dir)?;
    let listener = server::bind(&options.socket);
    let listener =
        listener.with_context(|| format!("failed to listen on {}", options.socket.display()))?;
    let introduced = agent.clone();
    supervisor.spawn("what is left of containers", SWEEP_LIMIT, |heartbeat| {
        introduce(introduced, heartbeat)
    });
    let result = tokio::select! {
        () = server::serve(agent.clone(), listener, stop.clone()) => Ok(()),
        served = health => match served {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error).with_context(|| format!("failed to serve health checks on {}", options.listen)),
            Err(error) => Err(error).context("failed to serve health checks"),
        },
        fault = supervisor.fault() => Err(fault.into()),
    };
    stop.cancel();
    result
}

/// Once requests can be served: tells the container runtime that there is a network, and clears what is left of earlier
/// containers, from then on time and again: a pass.
async fn introduce(agent: Arc<Agent>, heartbeat: Heartbeat) {
    while let Err(error) = agent.ovs.connected().await {
        tracing::warn!(%error, "waiting for Open vSwitch");
    }
    let options = &agent.options;
    loop {
        match install::conflist(&options.conf_dir, &options.socket) {
            Ok(()) => break,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the container runtime has no network; trying again");
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    let mut period = tokio::time::interval(gc::SWEEP_PERIOD);
    loop {
        period.tick().await;
        let _pass = heartbeat.pass();
        if let Err(error) = gc::sweep(&agent).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "failed to remove what is left of gone containers; trying again"
            );
        }
    }
}

fn stop_on_signals(supervisor: &Supervisor, stop: CancellationToken) -> anyhow::Result<()> {
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

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", in_full(cause)),
        None => error.to_string(),
    }
}

/// An error of the agent as CNI has it: the error itself, and its causes as details.
fn failure(code: u32, error: &dyn std::error::Error) -> Failure {
    Failure {
        code,
        msg: error.to_string(),
        details: error.source().map(in_full).unwrap_or_default(),
    }
}
