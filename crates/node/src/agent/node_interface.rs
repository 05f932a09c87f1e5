//! The node interface: how the node's own network reaches the default Vpc, and how that Vpc's Pods leave the node.
//!
//! Level-triggered: after any change of links, addresses, routes, Open vSwitch or the objects it is made from, everything
//! is compared with what it shall be, and only what differs is set. What it shall be is also kept in the port's
//! `external_ids`, so that an agent that starts while the API server is away keeps the node connected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::time::{MissedTickBehavior, interval, sleep};
use ycloud_api::key::{DEFAULT_VPC, JOIN_SUBNET, NODE_INTERFACE, SYSTEM_NAMESPACE};
use ycloud_api::vnic::{AttachmentKind, logical_port};

use super::mac::Mac;
use super::netlink::{self, Events, Link, Netlink, PROTOCOL, Route};
use super::nft::{self, NodeRules};
use super::objects::Mirrors;
use super::ovs::{self, Internal, Ovs, View};
use super::pod_links::is_host_interface;
use super::services::Progress;
use super::{ethtool, sysctl};

/// How often all is looked at even if nothing changed.
const REFRESH: Duration = Duration::from_secs(30);

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
    /// Offloads.
    #[error(transparent)]
    Ethtool(#[from] ethtool::Error),
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] ovs::Error),
}

/// What the node interface shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    logical_port: String,
    mac: Mac,
    address: Ipv4Net,
    gateway: Ipv4Addr,
    /// Behind the gateway: service ranges, the default Vpc's Subnets but for the join switch, elastic addresses.
    service: BTreeSet<Ipv4Net>,
    pods: BTreeSet<Ipv4Net>,
    eips: BTreeSet<Ipv4Net>,
    /// Cluster addresses that lead outside the cluster. The node's own connections to them are translated before they
    /// would enter the interface, and leave by another: they need `host` as their source, not the join address.
    outside: BTreeSet<Ipv4Net>,
    /// The address by which the node is known.
    host: Option<Ipv4Addr>,
}

/// Keys in the port's `external_ids`.
mod id {
    pub const LOGICAL_PORT: &str = "iface-id";
    pub const MAC: &str = "attached-mac";
    pub const ADDRESS: &str = "ycloud-ip";
    pub const GATEWAY: &str = "ycloud-gateway";
    pub const SERVICE: &str = "ycloud-service-cidrs";
    pub const PODS: &str = "ycloud-pod-cidrs";
    pub const EIPS: &str = "ycloud-eip-cidrs";
    pub const OUTSIDE: &str = "ycloud-outside-cidrs";
    pub const HOST: &str = "ycloud-host-ip";
}

impl Plan {
    fn external_ids(&self) -> BTreeMap<String, String> {
        [
            (id::LOGICAL_PORT, self.logical_port.clone()),
            (id::MAC, self.mac.to_string()),
            (id::ADDRESS, self.address.to_string()),
            (id::GATEWAY, self.gateway.to_string()),
            (id::SERVICE, list(&self.service)),
            (id::PODS, list(&self.pods)),
            (id::EIPS, list(&self.eips)),
            (id::OUTSIDE, list(&self.outside)),
            (
                id::HOST,
                self.host.map(|ip| ip.to_string()).unwrap_or_default(),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    fn read(ids: &BTreeMap<String, String>) -> Option<Self> {
        Some(Plan {
            logical_port: ids.get(id::LOGICAL_PORT)?.clone(),
            mac: ids.get(id::MAC)?.parse().ok()?,
            address: ids.get(id::ADDRESS)?.parse().ok()?,
            gateway: ids.get(id::GATEWAY)?.parse().ok()?,
            service: unlist(ids.get(id::SERVICE)?)?,
            pods: unlist(ids.get(id::PODS)?)?,
            // An older agent's port has none of these.
            eips: ids
                .get(id::EIPS)
                .and_then(|t| unlist(t))
                .unwrap_or_default(),
            outside: ids
                .get(id::OUTSIDE)
                .and_then(|t| unlist(t))
                .unwrap_or_default(),
            host: ids.get(id::HOST).and_then(|text| text.parse().ok()),
        })
    }

    fn internal(&self, mtu: u32) -> Internal {
        Internal {
            name: NODE_INTERFACE.to_owned(),
            mac: self.mac,
            mtu,
            external_ids: self.external_ids(),
        }
    }

    /// `local` are the node's addresses. A range that one of them is in the node reaches by itself.
    fn routes(&self, link: u32, local: &BTreeSet<Ipv4Addr>) -> BTreeSet<Route> {
        let route = |destination: &Ipv4Net, source| Route {
            destination: *destination,
            gateway: Some(self.gateway),
            link,
            source: Some(source),
        };
        let own = self.address.addr();
        let is_strange = |range: &&Ipv4Net| !local.iter().any(|ip| range.contains(ip));
        let behind = self.service.iter().chain(&self.pods);
        let behind = behind.chain(self.eips.iter().filter(is_strange));
        let host = self.host.filter(|host| local.contains(host));
        let outside = self.outside.iter();
        behind
            .map(|range| route(range, own))
            .chain(outside.map(|ip| route(ip, host.unwrap_or(own))))
            .collect()
    }
}

fn list(ranges: &BTreeSet<Ipv4Net>) -> String {
    let texts: Vec<String> = ranges.iter().map(Ipv4Net::to_string).collect();
    texts.join(",")
}

fn unlist(text: &str) -> Option<BTreeSet<Ipv4Net>> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok()).collect()
}

/// The task that keeps the node interface as it shall be.
pub struct NodeInterface {
    /// Open vSwitch.
    pub ovs: Ovs,
    /// The node's own network namespace.
    pub netlink: Netlink,
    /// What it is made from.
    pub mirrors: Mirrors,
    /// Name of the node.
    pub node: String,
    /// MTU of the interface, bytes.
    pub mtu: u32,
    /// What of Services concerns it.
    pub services: tokio::sync::watch::Receiver<Progress>,
    /// Told whether the last pass left everything as it shall be.
    pub ready: tokio::sync::watch::Sender<bool>,
}

impl NodeInterface {
    /// Runs for ever.
    ///
    /// # Errors
    /// No netlink socket.
    pub async fn run(mut self) -> Result<(), netlink::Error> {
        let mut events = Events::open()?;
        let mut changes = self.ovs.subscribe();
        let mut mirrors = self.mirrors.clone();
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut applied = None;
        let mut failures = 0_u32;
        loop {
            let retry = Duration::from_millis(100) * 2_u32.pow(failures.min(6));
            tokio::select! {
                _ = refresh.tick() => applied = None,
                _ = changes.next() => {}
                true = events.changed() => {}
                Ok(()) = mirrors.vnics.changed() => {}
                Ok(()) = mirrors.subnets.changed() => {}
                Ok(()) = mirrors.service_cidrs.changed() => {}
                Ok(()) = mirrors.eip_gateways.changed() => {}
                Ok(()) = self.services.changed() => {}
                () = sleep(retry), if failures > 0 => {}
            }
            if !self.ovs.is_connected() {
                continue;
            }
            match self.pass(&mut applied).await {
                Ok(ready) => {
                    failures = 0;
                    self.ready
                        .send_if_modified(|r| std::mem::replace(r, ready) != ready);
                }
                Err(error) => {
                    failures += 1;
                    self.ready.send_if_modified(|r| std::mem::replace(r, false));
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "failed to set the node interface; trying again");
                }
            }
        }
    }

    /// One comparison. True if the interface is there and as it shall be.
    async fn pass(&mut self, applied: &mut Option<String>) -> Result<bool, Error> {
        let view = self.ovs.view();
        let Some(plan) = self.plan(&view) else {
            return Ok(false);
        };
        sysctl::set("ipv4/ip_forward", "1")?;
        let cidrs: Vec<Ipv4Net> = plan.pods.iter().copied().collect();
        let local = self.netlink.local_addresses().await?;
        let script = nft::node_table(&NodeRules {
            link: NODE_INTERFACE,
            address: plan.address,
            default_vpc: &cidrs,
            host: plan.host.filter(|host| local.contains(host)),
        });
        if applied.as_ref() != Some(&script) {
            nft::apply(&script).await?;
            *applied = Some(script);
        }
        self.ovs.set_internal(&plan.internal(self.mtu)).await?;
        // ovs-vswitchd makes the link; its coming is an event.
        let Some(link) = self.netlink.link(NODE_INTERFACE).await? else {
            return Ok(false);
        };
        self.link(&plan, &link, view.userspace().unwrap_or_default())
            .await?;
        self.routes(&plan, &link, &local).await?;
        Ok(view.installed(NODE_INTERFACE))
    }

    async fn link(&self, plan: &Plan, link: &Link, userspace: bool) -> Result<(), Error> {
        if userspace {
            ethtool::offload_off(&link.name)?;
        }
        if link.mac != plan.mac {
            self.netlink.set_mac(link, plan.mac).await?;
        }
        if link.mtu != self.mtu {
            self.netlink.set_mtu(link, self.mtu).await?;
        }
        let addresses = self.netlink.addresses(link).await?;
        if !addresses.contains(&plan.address) {
            self.netlink.add_address(link, plan.address).await?;
        }
        for other in addresses.iter().filter(|a| **a != plan.address) {
            self.netlink.delete_address(link, *other).await?;
        }
        if !link.up {
            self.netlink.without_ipv6_address(link).await?;
            self.netlink.set_up(link).await?;
        }
        // What comes in by the interface may have its route elsewhere: a Pod of another node answers a packet that left
        // by the underlay. 2 is loose (ip-sysctl, rp_filter).
        let key = format!("ipv4/conf/{NODE_INTERFACE}/rp_filter");
        sysctl::set(&key, "2")?;
        // A host port at a loopback address leads to a Pod. See the rules, which were set before.
        let key = format!("ipv4/conf/{NODE_INTERFACE}/route_localnet");
        sysctl::set(&key, "1")?;
        Ok(())
    }

    async fn routes(
        &self,
        plan: &Plan,
        link: &Link,
        local: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), Error> {
        let wanted = plan.routes(link.index, local);
        let existing = self.netlink.routes(Some(PROTOCOL)).await?;
        for route in wanted.iter().filter(|route| !existing.contains(route)) {
            self.netlink.set_route(route).await?;
        }
        let links = self.netlink.links().await?;
        let pod_links: BTreeSet<u32> = links
            .iter()
            .filter(|link| is_host_interface(&link.name))
            .map(|link| link.index)
            .collect();
        let stale = existing
            .iter()
            .filter(|route| !wanted.contains(route) && !pod_links.contains(&route.link));
        for route in stale {
            self.netlink.delete_route(route).await?;
        }
        self.netlink
            .set_way_back(plan.address, plan.gateway, link)
            .await
            .map_err(Error::from)
    }

    /// From the objects; what they do not say yet, from the port as it was left.
    fn plan(&self, view: &View) -> Option<Plan> {
        let left = view
            .internal(NODE_INTERFACE)
            .and_then(|port| Plan::read(&port.external_ids));
        let mut plan = self.assigned().or_else(|| left.clone())?;
        let subnets = self.mirrors.subnets.borrow();
        let cidrs = self.mirrors.service_cidrs.borrow();
        plan.pods = match (subnets.synced, &left) {
            (false, Some(left)) => left.pods.clone(),
            _ => subnets
                .by_key
                .values()
                .filter(|subnet| {
                    subnet.spec.vpc == DEFAULT_VPC
                        && subnet.metadata.name.as_deref() != Some(JOIN_SUBNET)
                })
                .filter_map(|subnet| subnet.spec.cidr.as_deref()?.parse().ok())
                .collect(),
        };
        plan.service = match (cidrs.synced, &left) {
            (false, Some(left)) => left.service.clone(),
            _ => cidrs
                .by_key
                .values()
                .filter_map(|cidr| cidr.spec.as_ref()?.cidrs.as_ref())
                .flatten()
                .filter_map(|cidr| cidr.parse().ok())
                .collect(),
        };
        let gateways = self.mirrors.eip_gateways.borrow();
        plan.eips = match (gateways.synced, &left) {
            (false, Some(left)) => left.eips.clone(),
            _ => gateways
                .by_key
                .values()
                .filter_map(|gateway| gateway.spec.cidr.parse().ok())
                .collect(),
        };
        match (&self.services.borrow().outside, &left) {
            (Some((outside, host)), _) => {
                plan.outside = outside.iter().map(|ip| Ipv4Net::from(*ip)).collect();
                plan.host = *host;
            }
            (None, Some(left)) => {
                plan.outside = left.outside.clone();
                plan.host = left.host;
            }
            (None, None) => {}
        }
        Some(plan)
    }

    fn assigned(&self) -> Option<Plan> {
        let vnics = self.mirrors.vnics.borrow();
        let key = (SYSTEM_NAMESPACE.to_owned(), self.node.clone());
        let vnic = vnics.by_key.get(&key)?;
        if vnic.spec.attachment.kind != AttachmentKind::Node {
            return None;
        }
        let status = vnic.status.as_ref()?;
        let prefix = u8::try_from(status.prefix_length?).ok()?;
        Some(Plan {
            logical_port: logical_port(SYSTEM_NAMESPACE, &self.node),
            mac: status.mac.as_ref()?.parse().ok()?,
            address: Ipv4Net::new(status.ip.as_ref()?.parse().ok()?, prefix).ok()?,
            gateway: status.gateway.as_ref()?.parse().ok()?,
            service: BTreeSet::new(),
            pods: BTreeSet::new(),
            eips: BTreeSet::new(),
            outside: BTreeSet::new(),
            host: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_remembers_the_whole_plan() {
        let set = |ranges: &[&str]| ranges.iter().map(|r| r.parse().unwrap()).collect();
        let plan = Plan {
            logical_port: "ycloud-system/node-1".into(),
            mac: "0a:00:64:40:00:02".parse().unwrap(),
            address: "100.64.0.2/16".parse().unwrap(),
            gateway: "100.64.0.1".parse().unwrap(),
            service: set(&["10.96.0.0/12"]),
            pods: set(&["10.16.0.0/16", "10.20.0.0/24"]),
            eips: set(&["198.51.100.0/24"]),
            outside: set(&["10.96.0.1/32"]),
            host: Some(Ipv4Addr::new(172, 18, 0, 2)),
        };
        assert_eq!(Plan::read(&plan.external_ids()), Some(plan.clone()));
        let none = Plan {
            service: set(&[]),
            host: None,
            ..plan
        };
        assert_eq!(Plan::read(&none.external_ids()), Some(none));
    }
}
