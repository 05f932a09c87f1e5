//! ADD: from a Pod that has a VNic to a Pod that can send its first packet.
//!
//! ```text
//!   VNic has its address (watch) ─► veth pair, one end born in the Pod ─► port in Open vSwitch, one transaction
//!                                                                             │
//!            ┌─────────────────────────────┬──────────────────────────────────┤   all at once
//!            ▼                             ▼                                  ▼
//!    address and route in the Pod    rules of the host's end      ovn-controller: ovn-installed (monitor)
//!            └─────────────────────────────┴─────────────► answer
//! ```
//!
//! A retry for the same container finds what the first try made and goes on from there; what cannot be used is removed
//! and made anew. An ADD that fails leaves nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use tokio::time::{Instant, timeout, timeout_at};
use ycloud_api::key::DEFAULT_VPC;
use ycloud_api::vnic::{Attachment, AttachmentKind, logical_port, pod_vnic_name};
use ycloud_api::{VNic, condition};

use super::Agent;
use super::family::{Family, has_ipv6};
use super::netlink::{self, Netlink, Route, Veth, everywhere};
use super::netns::{self, Netns};
use super::ovs::{self, Facts, Port};
use super::{address, ethtool, pod_links, sysctl};
use crate::host_port::HostPort;
use crate::protocol::{Addresses, AttachmentId, Failure, PodRef, Wiring, code};

/// How long an ADD waits for others. Together less than the plugin waits for the agent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the VNic to have an address. Default 25 s.
    pub vnic: Duration,
    /// The same where its `Ready` condition says that it has none for a reason: long enough for an address to come free,
    /// short enough that the reason soon shows in the Pod's events. Default 5 s.
    pub refused: Duration,
    /// For ovn-controller to install the port's flows. Default 30 s.
    pub install: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            vnic: Duration::from_secs(25),
            refused: Duration::from_secs(5),
            install: Duration::from_secs(30),
        }
    }
}

/// How long the API server is waited for when it is asked why a Pod has no VNic.
const ASK: Duration = Duration::from_secs(3);

/// Why a Pod was not wired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no VNic, or it has no address.
    #[error("failed to get an address for Pod {namespace}/{pod}: VNic {namespace}/{vnic} {reason}")]
    Vnic {
        /// Namespace of both.
        namespace: String,
        /// The Pod.
        pod: String,
        /// The VNic.
        vnic: String,
        /// What is wrong with it.
        reason: String,
    },
    /// ovn-controller did not install the port's flows.
    #[error("failed to see logical port {port} installed within {limit:?}: {reason}")]
    Install {
        /// The logical port.
        port: String,
        /// How long it was waited for.
        limit: Duration,
        /// What is known.
        reason: String,
    },
    /// The node's ports cannot lead to the Pod.
    #[error(
        "failed to open host ports for Pod {namespace}/{pod}: it is in Vpc {vpc}, and only Pods of Vpc {DEFAULT_VPC} are reached by ports of their node; remove hostPort, or give the Pod a Subnet of {DEFAULT_VPC}"
    )]
    HostPorts {
        /// Namespace of the Pod.
        namespace: String,
        /// The Pod.
        pod: String,
        /// Its Vpc.
        vpc: String,
    },
    /// The Pod's namespace.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A switch of the Pod's namespace.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// Offloads.
    #[error(transparent)]
    Ethtool(#[from] ethtool::Error),
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] ovs::Error),
    /// The rules that keep the Pod in its Vpc, and the route to it.
    #[error(transparent)]
    Links(#[from] pod_links::Unsettled),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Ovs(ovs::Error::Away { .. })
            | Error::Vnic { .. }
            | Error::Install { .. }
            | Error::Links(_) => code::TRY_AGAIN,
            _ => code::FAILED,
        };
        super::failure(code, &error)
    }
}

/// What of a VNic concerns its port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nic {
    logical_port: String,
    mac: super::mac::Mac,
    addresses: Addresses,
    vpc: String,
}

/// Wires a Pod.
///
/// # Errors
/// See [`Error`].
pub async fn add(
    agent: &Agent,
    id: &AttachmentId,
    path: &str,
    pod: &PodRef,
    host_ports: &[HostPort],
) -> Result<Wiring, Error> {
    let _turn = agent.turns.take(&id.container).await;
    let netns = Netns::open(path)?;
    agent.ovs.connected().await?;
    let nic = wait_for_vnic(agent, pod).await?;
    if !host_ports.is_empty() && nic.vpc != DEFAULT_VPC {
        return Err(Error::HostPorts {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            vpc: nic.vpc,
        });
    }
    let facts = Facts {
        id: id.clone(),
        logical_port: nic.logical_port,
        netns: path.to_owned(),
        pod: pod.clone(),
        mac: nic.mac,
        addresses: nic.addresses,
        vpc: nic.vpc,
        host_ports: host_ports.to_vec(),
    };
    let wired = wire(agent, &netns, &facts).await;
    if wired.is_err()
        && let Err(error) = super::del::remove(agent, id).await
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(
            container = id.container,
            error,
            "failed to clean up after a failed ADD"
        );
    }
    wired
}

async fn wire(agent: &Agent, netns: &Netns, facts: &Facts) -> Result<Wiring, Error> {
    let name = pod_links::host_interface(&facts.id);
    let inside = Netlink::open_in(netns).await?;
    let ports = agent.ovs.view().ports();
    // Also a port of an earlier sandbox of the Pod that was not torn down yet: one logical port, one interface. And one of
    // a Pod that had the address before: it has no VNic any more, and the node has one route by an address.
    let concerns = |port: &&Port| {
        port.facts.id == facts.id
            || port.facts.logical_port == facts.logical_port
            || port
                .facts
                .addresses
                .ips()
                .any(|ip| facts.addresses.ips().any(|own| own == ip))
    };
    let (mut kept, mut replaced): (Vec<Port>, Vec<Port>) = ports
        .into_iter()
        .filter(|port| concerns(&port))
        .partition(|port| port.name == name && port.facts == *facts);
    let ifname = &facts.id.ifname;
    let in_place = agent.netlink.link(&name).await?.is_some()
        && inside
            .link(ifname)
            .await?
            .is_some_and(|link| link.mac == facts.mac);
    if !in_place {
        replaced.append(&mut kept);
        for port in &replaced {
            agent.netlink.delete_link(&port.name).await?;
        }
        agent.netlink.delete_link(&name).await?;
        inside.delete_link(ifname).await?;
        let veth = Veth {
            host: &name,
            peer: ifname,
            netns,
            mac: facts.mac,
            mtu: agent.options.mtu,
        };
        agent.netlink.add_veth(&veth).await?;
    }
    let host = agent.netlink.need_link(&name).await?;
    let userspace = agent.ovs.view().userspace().unwrap_or_default();
    if userspace {
        ethtool::offload_off(&name)?;
    }
    agent.netlink.without_ipv6_address(&host).await?;
    if facts.addresses.ips().any(|ip| ip.is_ipv6()) {
        // The node reaches the Pod by this link, and a distribution may have turned IPv6 off on new ones.
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
    }
    agent.netlink.set_up(&host).await?;
    if kept.is_empty() {
        agent.ovs.add_port(&name, facts, &replaced).await?;
    }
    let configured = configure(netns, &inside, facts, userspace);
    let ((), (), ()) = tokio::try_join!(configured, wait_installed(agent, facts, &name), async {
        Ok(agent.pod_links.settled().await?)
    })?;
    Ok(Wiring {
        host_interface: name,
        host_mac: host.mac.to_string(),
        mac: facts.mac.to_string(),
        addresses: facts.addresses,
        mtu: agent.options.mtu,
    })
}

/// The Pod's side: everything is set, so that it does not matter what is there.
async fn configure(
    netns: &Netns,
    inside: &Netlink,
    facts: &Facts,
    userspace: bool,
) -> Result<(), Error> {
    let link = inside.need_link(&facts.id.ifname).await?;
    let (ifname, ipv6) = (
        link.name.clone(),
        facts.addresses.ips().any(|ip| ip.is_ipv6()),
    );
    let prepare = move || -> Result<(), Error> {
        if userspace {
            ethtool::offload_off(&ifname)?;
        }
        if ipv6 {
            // Address and router are given; what somebody in the Subnet advertises is nobody's word.
            sysctl::set(&format!("ipv6/conf/{ifname}/accept_ra"), "0")?;
            sysctl::set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0")?;
        }
        Ok(())
    };
    netns.run(prepare).await??;
    // IPv6 has no routes by a link that is down.
    inside.set_up(&link).await?;
    for address in facts.addresses.iter() {
        inside.add_address(&link, address.net()).await?;
        let default = Route {
            destination: everywhere(Family::of(address.ip)),
            gateway: Some(address.gateway),
            link: link.index,
            source: None,
        };
        inside.set_route(&default).await?;
    }
    for ip in facts.addresses.ips().filter(IpAddr::is_ipv6) {
        inside.await_local(ip).await?;
    }
    Ok(())
}

async fn wait_installed(agent: &Agent, facts: &Facts, name: &str) -> Result<(), Error> {
    let limit = agent.limits.install;
    let installed = agent.ovs.wait(|view| match view.port(&facts.id) {
        Some(port) if port.installed => Ok(Some(())),
        Some(_) => Ok(None),
        None => Err(ovs::Error::Gone {
            name: name.to_owned(),
        }),
    });
    match timeout(limit, installed).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            let port = agent.ovs.view().port(&facts.id);
            let told = {
                let objects = agent.mirrors.vnics.borrow();
                let vnic = find_vnic(objects.by_key.values(), &facts.pod);
                vnic.and_then(not_ready).map(str::to_owned)
            };
            let reason = port.and_then(|p| p.error).or(told).unwrap_or_else(|| {
                "ovn-controller did not report ovn-installed; does it run, and is it connected to the Southbound database?".into()
            });
            Err(Error::Install {
                port: facts.logical_port.clone(),
                limit,
                reason,
            })
        }
    }
}

async fn wait_for_vnic(agent: &Agent, pod: &PodRef) -> Result<Nic, Error> {
    let start = Instant::now();
    let mut vnics = agent.mirrors.vnics.clone();
    // Without a VNic the Pod may say why; who makes both is given a moment.
    let mut patience = agent.limits.refused;
    loop {
        let (found, limit, synced) = {
            let objects = vnics.borrow_and_update();
            let vnic = find_vnic(objects.by_key.values(), pod);
            let limit = match vnic.and_then(refusal) {
                Some(_) => agent.limits.refused,
                None => agent.limits.vnic,
            };
            (vnic.map(nic), limit, objects.synced)
        };
        let is_there = found.is_some();
        let reason = match found {
            Some(Ok(nic)) => return Ok(nic),
            Some(Err(reason)) => reason,
            None if !synced => {
                "is not known: the API server has not told the node's VNics since the agent started"
                    .to_owned()
            }
            None => "does not exist; does ycloud-controller run?".to_owned(),
        };
        let error = |reason| Error::Vnic {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            vnic: vnic_name(pod),
            reason,
        };
        let until = if is_there { limit } else { limit.min(patience) };
        if let Ok(Ok(())) = timeout_at(start + until, vnics.changed()).await {
            continue;
        }
        if !is_there && let Some(why) = (agent.pod_refusal)(pod.clone()).await {
            return Err(error(format!("does not exist: {why}")));
        }
        if until == limit {
            return Err(error(reason));
        }
        patience = limit;
    }
}

/// Asks why a Pod has no VNic: what ycloud-controller says of it, if it says something.
pub type PodRefusal = Arc<dyn Fn(PodRef) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// Asks the API server, by the Pod's condition.
pub fn pod_refusal(client: kube::Client) -> PodRefusal {
    Arc::new(move |pod: PodRef| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
        Box::pin(async move {
            match timeout(ASK, pods.get_opt(&pod.name)).await {
                Ok(Ok(found)) => why_refused(&found?, &pod),
                Ok(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "failed to read a Pod that has no VNic");
                    None
                }
                Err(_) => None,
            }
        })
    })
}

/// What ycloud-controller has against a Pod, if it is the one that is meant.
fn why_refused(found: &Pod, pod: &PodRef) -> Option<String> {
    let known = pod.uid.as_ref().filter(|uid| uid.contains('-'));
    if known.is_some() && found.metadata.uid.as_ref() != known {
        return None;
    }
    let mut conditions = found.status.as_ref()?.conditions.iter().flatten();
    let refused = |c: &&PodCondition| c.type_ == condition::OURS_ACCEPTED && c.status == "False";
    conditions.find(refused)?.message.clone()
}

fn vnic_name(pod: &PodRef) -> String {
    match &pod.uid {
        Some(uid) => pod_vnic_name(&pod.name, uid),
        None => format!("{}-<uid>", pod.name),
    }
}

/// The Pod's VNic. Without a UID of the API server (some runtimes give none; the kubelet knows a static Pod by a digest of
/// its file, without hyphens, and not by the UID of the mirror Pod): the newest of the Pod's name.
fn find_vnic<'a>(vnics: impl Iterator<Item = &'a VNic>, pod: &PodRef) -> Option<&'a VNic> {
    let known = pod.uid.as_ref().filter(|uid| uid.contains('-'));
    let fits = |vnic: &&VNic| {
        let Attachment {
            kind, name, uid, ..
        } = &vnic.spec.attachment;
        vnic.metadata.namespace.as_ref() == Some(&pod.namespace)
            && *kind == AttachmentKind::Pod
            && name.as_ref() == Some(&pod.name)
            && known.is_none_or(|known| uid.as_ref() == Some(known))
            && vnic.metadata.deletion_timestamp.is_none()
    };
    vnics
        .filter(fits)
        .max_by_key(|vnic| vnic.metadata.creation_timestamp.clone().map(|t| t.0))
}

/// Why the controller gave it no address, if it said so.
fn refusal(vnic: &VNic) -> Option<&str> {
    let status = vnic.status.as_ref()?;
    let none = status.ip.is_none() && status.ipv6.is_none();
    let ready = unready(vnic).filter(|_| none)?;
    Some(&ready.message)
}

/// What the controller says is wrong with it, other than that it waits.
fn not_ready(vnic: &VNic) -> Option<&str> {
    let ready = unready(vnic).filter(|ready| ready.reason != condition::reason::PENDING)?;
    Some(&ready.message)
}

fn unready(vnic: &VNic) -> Option<&Condition> {
    let mut conditions = vnic.status.as_ref()?.conditions.iter();
    conditions.find(|c| c.type_ == condition::READY && c.status == "False")
}

fn nic(vnic: &VNic) -> Result<Nic, String> {
    let read = || -> Option<Nic> {
        let status = vnic.status.as_ref()?;
        let namespace = vnic.metadata.namespace.as_deref()?;
        Some(Nic {
            logical_port: logical_port(namespace, vnic.metadata.name.as_deref()?),
            mac: status.mac.as_ref()?.parse().ok()?,
            addresses: address::of(status)?,
            vpc: status.vpc.clone()?,
        })
    };
    let status = vnic.status.as_ref();
    let ipv6 = status.is_some_and(|status| status.ipv6.is_some() && status.ip.is_none());
    read().ok_or_else(|| match refusal(vnic) {
        Some(message) => format!("has no address: {message}"),
        None if ipv6 && !has_ipv6() => {
            "has an IPv6 address only, and this node's kernel has no IPv6; boot it without ipv6.disable=1, or give the Pod a Subnet with IPv4".to_owned()
        }
        None => "has no address yet; does ycloud-controller run?".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ycloud_api::condition::Verdict;
    use ycloud_api::{VNicSpec, VNicStatus};

    fn vnic(pod: &str, uid: &str) -> VNic {
        let attachment = Attachment {
            kind: AttachmentKind::Pod,
            name: Some(pod.into()),
            uid: Some(uid.into()),
            chassis: Some("node-1".into()),
            device: None,
        };
        let spec = VNicSpec {
            subnet: "s1".into(),
            attachment,
            ..Default::default()
        };
        let mut vnic = VNic::new(&pod_vnic_name(pod, uid), spec);
        vnic.metadata.namespace = Some("ns".into());
        vnic
    }

    fn pod(uid: Option<&str>) -> PodRef {
        PodRef {
            namespace: "ns".into(),
            name: "web-0".into(),
            uid: uid.map(Into::into),
        }
    }

    #[test]
    fn a_successor_of_the_same_name_never_gets_its_predecessor_s_vnic() {
        let vnics = [vnic("web-0", "aaaaaaaa-1"), vnic("web-0", "bbbbbbbb-2")];
        let found = find_vnic(vnics.iter(), &pod(Some("bbbbbbbb-2"))).unwrap();
        assert_eq!(found.metadata.name.as_deref(), Some("web-0-bbbbbbbb"));
        assert!(find_vnic(vnics.iter(), &pod(Some("cccccccc-3"))).is_none());
        assert!(find_vnic(vnics.iter(), &pod(None)).is_some());
        assert!(find_vnic(vnics.iter(), &pod(Some("0123456789abcdef"))).is_some());
    }

    #[test]
    fn a_pod_without_a_vnic_says_why() {
        let mut found = Pod::default();
        found.metadata.uid = Some("aaaaaaaa-1".into());
        assert_eq!(why_refused(&found, &pod(None)), None);
        let condition = |status: &str| PodCondition {
            type_: condition::OURS_ACCEPTED.into(),
            status: status.into(),
            message: Some("Subnet s9 does not exist".into()),
            ..PodCondition::default()
        };
        let status = found.status.get_or_insert_default();
        status.conditions = Some(vec![condition("True")]);
        assert_eq!(why_refused(&found, &pod(None)), None);
        let status = found.status.get_or_insert_default();
        status.conditions = Some(vec![condition("False")]);
        for (uid, meant) in [
            (Some("aaaaaaaa-1"), true),
            (Some("bbbbbbbb-2"), false),
            (Some("0123456789abcdef"), true),
            (None, true),
        ] {
            let why = meant.then(|| "Subnet s9 does not exist".to_owned());
            assert_eq!(why_refused(&found, &pod(uid)), why, "{uid:?}");
        }
    }

    #[test]
    fn a_vnic_without_address_says_why() {
        let mut vnic = vnic("web-0", "aaaaaaaa-1");
        assert!(nic(&vnic).unwrap_err().contains("ycloud-controller"));
        let mut status = VNicStatus::default();
        let verdict = Verdict::no(
            condition::reason::EXHAUSTED,
            "Subnet s1 (/29) has no free address",
        );
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default());
        condition::set(
            &mut status.conditions,
            condition::READY,
            &verdict,
            None,
            &now,
        );
        vnic.status = Some(status);
        assert_eq!(refusal(&vnic), Some("Subnet s1 (/29) has no free address"));
        let reason = nic(&vnic).unwrap_err();
        assert_eq!(
            reason,
            "has no address: Subnet s1 (/29) has no free address"
        );
        vnic.status = Some(VNicStatus {
            ip: Some("10.0.1.5".into()),
            prefix_length: Some(24),
            gateway: Some("10.0.1.1".into()),
            mac: Some("0a:00:0a:00:01:05".into()),
            vpc: Some("v".into()),
            ..Default::default()
        });
        assert_eq!(not_ready(&vnic), None);
        let nic = nic(&vnic).unwrap();
        let nets: Vec<String> = nic.addresses.iter().map(|a| a.net().to_string()).collect();
        assert_eq!(nets, ["10.0.1.5/24"]);
        assert_eq!(nic.logical_port, "ns/web-0-aaaaaaaa");
    }
}
