//! The host's ends of Pods' links: what the node's own stack may do with them, and how the node reaches Pods of tenants.
//!
//! # Probes
//! The kubelet probes a Pod by its address. In the default Vpc the node has a way there, through OVN. A Pod of another
//! Vpc has an address that means nothing to the node, though no two Pods of one node share one. For such a Pod:
//!
//! ```text
//!   kubelet ── route <ip>/32 dev yc…, source 169.254.77.1 ──► yc… ⇄ eth0 (Pod)
//!     ▲                                                                │ answer, to the Pod's router as all else
//!     └── lo ◄── nftables, ingress of yc…: <ip> → 169.254.77.1 ◄───────┘
//! ```
//!
//! The node's packets enter the Pod by its own link, and the Pod's answers are taken out before Open vSwitch would forward
//! them. The Pod needs no second interface, and sees the connection itself: a closed port refuses, a stopped process times
//! out. (A proxy that accepts first and dials afterwards would make every TCP probe succeed.) Nothing of it runs in the
//! agent, so probes go on while the agent restarts. Only answers are let in: a Pod cannot open a connection this way. Nor can
//! others than the node itself use the routes: nothing is forwarded to a Pod's link. An IPv6 address is reached the same way,
//! from [`SOURCE_V6`]; nobody solicits neighbours for it, as the node is told the Pod's MAC address.
//!
//! A Vpc may have ranges that the node's own network has. A Pod whose address the node itself uses ([`OwnHosts`]) gets no
//! such route: it works, but its probes go to that other machine. The log and `ycloud_cni_ports_not_probed` tell.
//!
//! # In user space
//! Where Open vSwitch forwards in user space it reads copies, and the kernel treats the original frames as sent to the
//! node. The node's stack would answer a Pod's ARP requests for the node's addresses and route whatever the Pod then
//! sends, past every Vpc's limits. The same rules drop all that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;
use ycloud_api::key::DEFAULT_VPC;
use ycloud_api::service::Protocol;
use ycloud_client::supervisor::LIMIT;
use ycloud_client::{Heartbeat, Supervisor};

use super::conntrack;
use super::family::Family;
use super::netlink::{self, Events, Link, Netlink, PROTOCOL, Route};
use super::nft::{self, PodLink, PodRules};
use super::ovs::{Ovs, Port, View};
use super::own_hosts::OwnHosts;
use super::services::rules::Frontend;
use super::sysctl;
use crate::host_port::HostPort;
use crate::protocol::AttachmentId;

/// How names of the host's ends start.
const HOST_PREFIX: &str = "yc";

/// The address from which the node speaks to Pods directly; on `lo`. Link-local (RFC 3927), so no Vpc can have it.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);

/// The same of IPv6. An IPv6 link-local address would not do, as the Pod would look for it on its own link and not by its
/// router; this one is of the block that no router forwards to (RFC 6666), so nobody has use for it.
pub const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0xa9fe, 0x4d01);

/// How often rules are set even if nothing changed: somebody may have flushed them.
const REFRESH: Duration = Duration::from_secs(30);

/// Name of the host's end of an attachment: the same after every restart, different for all that live on a node.
pub fn host_interface(id: &AttachmentId) -> String {
    let text = format!("{}/{}", id.container, id.ifname);
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple();
    format!("{HOST_PREFIX}{:.11}", digest.to_string())
}

/// Whether a link of this name is the host's end of a Pod's: our prefix and eleven hexadecimal digits.
pub fn is_host_interface(name: &str) -> bool {
    let digits = name.strip_prefix(HOST_PREFIX);
    digits.is_some_and(|d| d.len() == 11 && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A pass failed; there will be another.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The rules.
    #[error(transparent)]
    Nft(#[from] nft::Error),
    /// A switch.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
}

/// The task that keeps the host's ends as they shall be. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PodLinks {
    requests: mpsc::UnboundedSender<oneshot::Sender<()>>,
    problem: watch::Receiver<String>,
    not_probed: Arc<AtomicUsize>,
}

/// Rules and routes of Pods' links are not known to be as they shall be.
#[derive(Debug, thiserror::Error)]
#[error("failed to set rules and routes of Pods' links within {SETTLE_LIMIT:?}: {reason}")]
pub struct Unsettled {
    reason: String,
}

impl PodLinks {
    /// Starts the task; it runs as long as the process. `hosts` are machines that the node needs, besides those that its
    /// routes and Open vSwitch tell of.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start(
        supervisor: &Supervisor,
        (ovs, netlink): (Ovs, Netlink),
        hosts: watch::Receiver<BTreeSet<IpAddr>>,
    ) -> Result<Self, netlink::Error> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (problem, problems) = watch::channel(String::from("no pass has ended yet"));
        let not_probed = Arc::default();
        let task = Task {
            ovs,
            netlink,
            hosts,
            applied: None,
            claimed: BTreeMap::new(),
            not_probed: Arc::clone(&not_probed),
            datagrams: None,
            problem,
        };
        let events = Events::open(supervisor, "Pods' links")?;
        supervisor.spawn("links of Pods", LIMIT, |heartbeat| {
            task.run(receiver, events, heartbeat)
        });
        Ok(Self {
            requests,
            problem: problems,
            not_probed,
        })
    }

    /// Waits for a pass that begins after this call, and succeeds.
    ///
    /// # Errors
    /// There was none within [`SETTLE_LIMIT`]. Without the rules a Pod may reach what its Vpc does not.
    pub async fn settled(&self) -> Result<(), Unsettled> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.requests.send(sender).is_ok();
        if sent && let Ok(Ok(())) = tokio::time::timeout(SETTLE_LIMIT, receiver).await {
            return Ok(());
        }
        Err(Unsettled {
            reason: self.problem.borrow().clone(),
        })
    }

    /// How many Pods have an address that the node uses itself, so that it cannot probe them.
    pub fn not_probed(&self) -> usize {
        self.not_probed.load(Ordering::Relaxed)
    }
}

/// See [`PodLinks::settled`].
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

struct Task {
    ovs: Ovs,
    netlink: Netlink,
    hosts: watch::Receiver<BTreeSet<IpAddr>>,
    /// The rules that were set last.
    applied: Option<String>,
    /// Names of ports and their addresses that the node uses itself, and what for.
    claimed: BTreeMap<(String, IpAddr), String>,
    /// How many ports these are.
    not_probed: Arc<AtomicUsize>,
    /// Host ports of UDP as they were set last.
    datagrams: Option<conntrack::Frontends>,
    /// Why the last pass failed.
    problem: watch::Sender<String>,
}

impl Task {
    async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
        mut events: Events,
        heartbeat: Heartbeat,
    ) {
        let mut changes = self.ovs.subscribe();
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        let mut failed = false;
        loop {
            tokio::select! {
                _ = refresh.tick() => self.applied = None,
                _ = changes.next() => {}
                true = events.changed() => {}
                Ok(()) = self.hosts.changed() => {}
                Some(request) = requests.recv() => waiting.push(request),
                () = tokio::time::sleep(Duration::from_millis(200)), if failed => {}
            }
            while let Ok(request) = requests.try_recv() {
                waiting.push(request);
            }
            if !self.ovs.is_connected() {
                continue;
            }
            let _pass = heartbeat.pass();
            match self.pass().await {
                Ok(()) => {
                    failed = false;
                    for request in waiting.drain(..) {
                        // Who asked may have given up.
                        let _ = request.send(());
                    }
                }
                Err(error) => {
                    // A Pod that is going away fails a pass now and then; one failure after another is worth a word.
                    let error: &dyn std::error::Error = &error;
                    if failed {
                        tracing::warn!(
                            error,
                            "failed to set rules and routes of Pods' links; trying again"
                        );
                    }
                    self.problem.send_replace(super::in_full(error));
                    failed = true;
                }
            }
        }
    }

    async fn pass(&mut self) -> Result<(), Error> {
        let view = self.ovs.view();
        let Some(userspace) = view.userspace() else {
            return Ok(());
        };
        let links = self.netlink.links().await?;
        let by_name: BTreeMap<&str, &Link> = links.iter().map(|l| (l.name.as_str(), l)).collect();
        let ports = view.ports();
        let present: Vec<(&Port, &Link)> = ports
            .iter()
            .filter_map(|port| Some((port, *by_name.get(port.name.as_str())?)))
            .collect();
        let existing = self.netlink.routes(Some(PROTOCOL)).await?;
        self.claims(&view, &present, &existing).await?;
        let mut pods: Vec<PodLink> = present.iter().map(|(p, l)| self.pod_link(p, l)).collect();
        // A Pod whose port somebody took out of Open vSwitch has no network, and must not get the node's instead.
        let known: BTreeSet<&str> = present.iter().map(|(p, _)| p.name.as_str()).collect();
        let others = links
            .iter()
            .filter(|link| is_host_interface(&link.name) && !known.contains(link.name.as_str()));
        pods.extend(others.map(|link| PodLink {
            name: link.name.clone(),
            index: link.index,
            direct: Vec::new(),
        }));
        let sources = sources(&pods);
        let script = nft::pod_tables(&PodRules {
            links: &pods,
            sources: &sources,
            userspace,
            host_ports: &host_ports(present.iter().map(|(port, _)| *port)),
        });
        if self.applied.as_ref() != Some(&script) {
            nft::apply(&script).await?;
            self.forget_datagrams(&present).await;
            self.applied = Some(script);
        }
        self.source_addresses(&sources, &by_name).await?;
        self.routes(&present, &by_name, existing).await
    }

    /// Datagrams to host ports that lead elsewhere now.
    async fn forget_datagrams(&mut self, present: &[(&Port, &Link)]) {
        let mut wanted = conntrack::Frontends::new();
        for (frontend, target) in host_ports(present.iter().map(|(port, _)| *port)) {
            if frontend.protocol() == Protocol::UDP {
                wanted.insert(frontend, BTreeSet::from([target]));
            }
        }
        // The first time, nothing is known of what an earlier agent had set.
        let mut changed = wanted.clone();
        if let Some(before) = &self.datagrams {
            changed.retain(|frontend, targets| before.get(frontend) != Some(targets));
            for gone in before.keys().filter(|key| !wanted.contains_key(key)) {
                changed.insert(*gone, BTreeSet::new());
            }
        }
        self.datagrams = Some(wanted);
        conntrack::forget(&self.netlink, changed).await;
    }

    async fn direct_route(
        &self,
        link: &Link,
        port: &Port,
        route: &Route,
        existing: &[Route],
    ) -> Result<(), netlink::Error> {
        let ip = route.destination.addr();
        self.netlink.set_neighbour(link, ip, port.facts.mac).await?;
        if existing.contains(route) {
            return Ok(());
        }
        self.netlink.set_route(route).await
    }

    /// Finds the tenants' Pods whose address the node uses itself.
    async fn claims(
        &mut self,
        view: &View,
        present: &[(&Port, &Link)],
        ours: &[Route],
    ) -> Result<(), Error> {
        let mut routes = self.netlink.routes(None).await?;
        routes.retain(|route| !ours.contains(route));
        let mut hosts = view.peers();
        hosts.extend(self.hosts.borrow().iter());
        let own = OwnHosts::new(&routes, hosts);
        let mut claimed = BTreeMap::new();
        let tenants = present.iter().filter(|(port, _)| is_tenant_s(port));
        for (port, ip) in
            tenants.flat_map(|(port, _)| port.facts.addresses.ips().map(move |ip| (port, ip)))
        {
            let Some(claim) = own.claim(ip) else { continue };
            let key = (port.name.clone(), ip);
            if self.claimed.get(&key) != Some(&claim) {
                tracing::warn!(
                    pod = format!("{}/{}", port.facts.pod.namespace, port.facts.pod.name),
                    vpc = port.facts.vpc,
                    "the kubelet cannot probe this Pod: {ip} {claim}; give its Subnet another range, or exclude the address"
                );
            }
            claimed.insert(key, claim);
        }
        let ports: BTreeSet<&String> = claimed.keys().map(|(port, _)| port).collect();
        self.not_probed.store(ports.len(), Ordering::Relaxed);
        self.claimed = claimed;
        Ok(())
    }

    /// The addresses by which the node reaches the Pod over its link.
    fn direct(&self, port: &Port) -> Vec<IpAddr> {
        let ips = port.facts.addresses.ips().filter(|_| is_tenant_s(port));
        ips.filter(|ip| !self.claimed.contains_key(&(port.name.clone(), *ip)))
            .collect()
    }

    fn pod_link(&self, port: &Port, link: &Link) -> PodLink {
        PodLink {
            name: port.name.clone(),
            index: link.index,
            direct: self.direct(port),
        }
    }

    async fn source_addresses(
        &self,
        sources: &[IpAddr],
        links: &BTreeMap<&str, &Link>,
    ) -> Result<(), Error> {
        let Some(lo) = links.get("lo") else {
            return Ok(());
        };
        let existing = self.netlink.addresses(lo).await?;
        for source in sources {
            let address = IpNet::from(*source);
            match source {
                _ if existing.contains(&address) => {}
                IpAddr::V4(_) => self.netlink.add_address(lo, address).await?,
                IpAddr::V6(ip) => self.netlink.add_deprecated(lo, *ip).await?,
            }
        }
        if !lo.up {
            self.netlink.set_up(lo).await?;
        }
        // Answers come in by lo, from addresses whose route is by another link: 2 is loose, and the greater of this and
        // `all` counts (ip-sysctl, rp_filter).
        sysctl::set("ipv4/conf/lo/rp_filter", "2")?;
        Ok(())
    }

    async fn routes(
        &self,
        present: &[(&Port, &Link)],
        links: &BTreeMap<&str, &Link>,
        existing: Vec<Route>,
    ) -> Result<(), Error> {
        let mut wanted = BTreeMap::new();
        let up = present.iter().filter(|(_, link)| link.up);
        for (port, link, ip) in up.flat_map(|(port, link)| {
            let direct = self.direct(port).into_iter();
            direct.map(move |ip| (port, link, ip))
        }) {
            // Of two with one address, the first: each route would push the other out, again and again.
            if wanted.contains_key(&ip) {
                continue;
            }
            let route = Route {
                destination: IpNet::from(ip),
                gateway: None,
                link: link.index,
                source: Some(source(Family::of(ip))),
            };
            match self.direct_route(link, port, &route, &existing).await {
                // The Pod has just gone; the others need not wait for another pass.
                Err(error) if error.is_absent() => {}
                result => result?,
            }
            wanted.insert(ip, route);
        }
        let pods: Vec<u32> = links
            .values()
            .filter(|link| is_host_interface(&link.name))
            .map(|link| link.index)
            .collect();
        for route in existing {
            let stays = wanted.get(&route.destination.addr()) == Some(&route);
            if pods.contains(&route.link) && !stays {
                self.netlink.delete_route(&route).await?;
            }
        }
        Ok(())
    }
}

fn source(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => SOURCE.into(),
        Family::Ipv6 => SOURCE_V6.into(),
    }
}

/// The addresses from which the node speaks to these Pods: the IPv4 one always, the IPv6 one where a Pod needs it.
fn sources(pods: &[PodLink]) -> Vec<IpAddr> {
    let mut direct = pods.iter().flat_map(|pod| &pod.direct);
    let ipv6 = direct.any(IpAddr::is_ipv6);
    let families = Family::ALL.into_iter();
    let needed = families.filter(|family| *family == Family::Ipv4 || ipv6);
    needed.map(source).collect()
}

/// The node's ports, and where each leads: one of all addresses to the Pod's address of each family.
fn host_ports<'a>(ports: impl Iterator<Item = &'a Port>) -> BTreeMap<Frontend, SocketAddr> {
    let of_port = |port: &'a Port| {
        let pairs = port.facts.host_ports.iter();
        let pairs =
            pairs.flat_map(|host_port| port.facts.addresses.ips().map(move |ip| (host_port, ip)));
        pairs.filter_map(|(host_port, ip)| {
            let HostPort { protocol, port, .. } = *host_port;
            let family = Family::of(ip);
            let frontend = match host_port.address {
                Some(address) if Family::of(address) != family => return None,
                Some(address) if !address.is_unspecified() => {
                    Frontend::Address(address, protocol, port)
                }
                Some(_) | None => Frontend::NodePort(family, protocol, port),
            };
            Some((frontend, SocketAddr::new(ip, host_port.container_port)))
        })
    };
    ports.flat_map(of_port).collect()
}

/// Of another Vpc than the default one, whose Pods the node reaches by the node interface.
fn is_tenant_s(port: &Port) -> bool {
    port.facts.vpc != DEFAULT_VPC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_interfaces_are_valid_names_and_differ_by_interface() {
        let id = |container: &str, ifname: &str| AttachmentId {
            container: container.into(),
            ifname: ifname.into(),
        };
        let name = host_interface(&id("c1", "eth0"));
        assert_eq!(name.len(), 13);
        assert!(is_host_interface(&name) && !is_host_interface("yc-else"));
        assert_eq!(name, host_interface(&id("c1", "eth0")));
        assert_ne!(name, host_interface(&id("c1", "net1")));
        assert_ne!(name, host_interface(&id("c2", "eth0")));
    }
}
