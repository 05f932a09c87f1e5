//! The node interface: how the node's own network reaches the default Vpc, and how that Vpc's Pods leave the node.
//!
//! Level-triggered: after any change of links, addresses, routes, Open vSwitch or the objects it is made from, everything
//! is compared with what it shall be, and only what differs is set. What it shall be is also kept in the port's
//! `external_ids`, so that an agent that starts while the API server is away keeps the node connected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use tokio::time::{MissedTickBehavior, interval, sleep};
use ycloud_api::key::{DEFAULT_VPC, JOIN_SUBNET, NODE_INTERFACE, SYSTEM_NAMESPACE};
use ycloud_api::vnic::{AttachmentKind, logical_port};
use ycloud_client::Heartbeat;

use super::address;
use super::family::Family;
use super::mac::Mac;
use super::netlink::{self, Events, Link, Netlink, PROTOCOL, Route};
use super::nft::{self, NodeRules};
use super::objects::Mirrors;
use super::ovs::{self, Internal, Ovs, View};
use super::pod_links::is_host_interface;
use super::services::Progress;
use super::{ethtool, objects, sysctl};
use crate::protocol::{Address, Addresses};

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
    addresses: Addresses,
    /// Behind the gateway: service ranges, the default Vpc's Subnets but for the join switch, elastic addresses.
    service: BTreeSet<IpNet>,
    pods: BTreeSet<IpNet>,
    eips: BTreeSet<IpNet>,
    /// Cluster addresses that lead outside the cluster. The node's own connections to them are translated before they
    /// would enter the interface, and leave by another: they need one of `hosts` as their source, not the join address.
    outside: BTreeSet<IpNet>,
    /// The addresses by which the node is known, at most one of a family.
    hosts: BTreeSet<IpAddr>,
}

/// Keys in the port's `external_ids`.
mod id {
    pub const LOGICAL_PORT: &str = "iface-id";
    pub const MAC: &str = "attached-mac";
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
            (id::SERVICE, list(&self.service)),
            (id::PODS, list(&self.pods)),
            (id::EIPS, list(&self.eips)),
            (id::OUTSIDE, list(&self.outside)),
            (id::HOST, list(&self.hosts)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .chain(address::external_ids(&self.addresses))
        .collect()
    }

    fn read(ids: &BTreeMap<String, String>) -> Option<Self> {
        Some(Plan {
            logical_port: ids.get(id::LOGICAL_PORT)?.clone(),
            mac: ids.get(id::MAC)?.parse().ok()?,
            addresses: address::read(|key| ids.get(key).cloned())?,
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
            hosts: ids
                .get(id::HOST)
                .and_then(|t| unlist(t))
                .unwrap_or_default(),
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

    /// Those of the addresses by which the node is known that it has. `local` are the node's addresses.
    fn hosts(&self, local: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        self.hosts.intersection(local).copied().collect()
    }

    /// `local` are the node's addresses. A range that one of them is in the node reaches by itself, and one of a family that
    /// the join switch does not have it does not reach at all.
    fn routes(&self, link: u32, local: &BTreeSet<IpAddr>) -> BTreeSet<Route> {
        let hosts = self.hosts(local);
        let route = |range: &IpNet, from_host: bool| {
            let family = Family::of(range.addr());
            let of_family = |ip: &IpAddr| Family::of(*ip) == family;
            let join = self.addresses.iter().find(|a| of_family(&a.ip))?;
            let host = hosts.iter().copied().find(of_family).filter(|_| from_host);
            Some(Route {
                destination: *range,
                gateway: Some(join.gateway),
                link,
                source: host.or(Some(join.ip)),
            })
        };
        let is_strange = |range: &&IpNet| !local.iter().any(|ip| range.contains(ip));
        let behind = self.service.iter().chain(&self.pods);
        let behind = behind.chain(self.eips.iter().filter(is_strange));
        behind
            .filter_map(|range| route(range, false))
            .chain(self.outside.iter().filter_map(|ip| route(ip, true)))
            .collect()
    }

    /// All addresses of the interface. With IPv6 a link-local one as well: where a packet that the node forwards has another
    /// source than the interface's own, the kernel has nothing else to solicit neighbours from.
    fn nets(&self) -> Vec<IpNet> {
        let ipv6 = self.has_ipv6().then(|| link_local(self.mac));
        self.addresses
            .iter()
            .map(Address::net)
            .chain(ipv6)
            .collect()
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.ips().any(|ip| ip.is_ipv6())
    }
}

/// The link-local address of a MAC address: RFC 4291, appendix A.
fn link_local(mac: Mac) -> IpNet {
    let [a, b, c, d, e, f] = mac.bytes();
    let bytes = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ];
    let address = Ipv6Net::new(Ipv6Addr::from(bytes), 64);
    IpNet::V6(address.unwrap_or_default())
}

fn list<T: ToString>(all: &BTreeSet<T>) -> String {
    let texts: Vec<String> = all.iter().map(T::to_string).collect();
    texts.join(",")
}

fn unlist<T: FromStr + Ord>(text: &str) -> Option<BTreeSet<T>> {
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
    /// Whether the kernel has nft_socket, see [`nft::has_socket`].
    pub nft_socket: bool,
    /// What of Services concerns it.
    pub services: tokio::sync::watch::Receiver<Progress>,
    /// Told whether the last pass left everything as it shall be.
    pub ready: tokio::sync::watch::Sender<bool>,
}

impl NodeInterface {
    /// Runs for ever.
    pub async fn run(mut self, mut events: Events, heartbeat: Heartbeat) {
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
            let _pass = heartbeat.pass();
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
        if plan.has_ipv6() {
            sysctl::forward_ipv6()?;
        }
        let cidrs: Vec<IpNet> = plan.pods.iter().copied().collect();
        let local = self.netlink.local_addresses().await?;
        let script = nft::node_table(&NodeRules {
            link: NODE_INTERFACE,
            addresses: &plan.addresses,
            default_vpc: &cidrs,
            hosts: &plan.hosts(&local),
            nft_socket: self.nft_socket,
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
        if plan.has_ipv6() {
            for (switch, value) in [("disable_ipv6", "0"), ("accept_ra", "0")] {
                sysctl::set(&format!("ipv6/conf/{NODE_INTERFACE}/{switch}"), value)?;
            }
        }
        let (existing, wanted) = (self.netlink.addresses(link).await?, plan.nets());
        for address in wanted.iter().filter(|a| !existing.contains(a)) {
            self.netlink.add_address(link, *address).await?;
        }
        for other in existing.iter().filter(|a| !wanted.contains(a)) {
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
        local: &BTreeSet<IpAddr>,
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
            .set_way_back(&plan.addresses, link)
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
        let services = self.mirrors.service_cidrs.borrow().synced;
        plan.pods = match (subnets.synced, &left) {
            (false, Some(left)) => left.pods.clone(),
            _ => subnets
                .by_key
                .values()
                .filter(|subnet| {
                    subnet.spec.vpc == DEFAULT_VPC
                        && subnet.metadata.name.as_deref() != Some(JOIN_SUBNET)
                })
                .flat_map(objects::ranges)
                .collect(),
        };
        plan.service = match (services, &left) {
            (false, Some(left)) => left.service.clone(),
            _ => self.mirrors.service_ranges(),
        };
        let gateways = self.mirrors.eip_gateways.borrow();
        plan.eips = match (gateways.synced, &left) {
            (false, Some(left)) => left.eips.clone(),
            _ => {
                let gateways = gateways.by_key.values();
                gateways.filter_map(objects::eip_range).collect()
            }
        };
        match (&self.services.borrow().outside, &left) {
            (Some((outside, hosts)), _) => {
                plan.outside = outside.iter().map(|ip| IpNet::from(*ip)).collect();
                plan.hosts = hosts.clone();
            }
            (None, Some(left)) => {
                plan.outside = left.outside.clone();
                plan.hosts = left.hosts.clone();
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
        Some(Plan {
            logical_port: logical_port(SYSTEM_NAMESPACE, &self.node),
            mac: status.mac.as_ref()?.parse().ok()?,
            addresses: address::of(status)?,
            service: BTreeSet::new(),
            pods: BTreeSet::new(),
            eips: BTreeSet::new(),
            outside: BTreeSet::new(),
            hosts: BTreeSet::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, prefix_length: u8, gateway: &str) -> Option<Address> {
        Some(Address {
            ip: ip.parse().ok()?,
            prefix_length,
            gateway: gateway.parse().ok()?,
        })
    }

    fn plan() -> Plan {
        let set = |ranges: &[&str]| ranges.iter().map(|r| r.parse().unwrap()).collect();
        let ipv4 = address("100.64.0.2", 16, "100.64.0.1");
        Plan {
            logical_port: "ycloud-system/node-1".into(),
            mac: "0a:00:64:40:00:02".parse().unwrap(),
            addresses: Addresses::of(ipv4, None).unwrap(),
            service: set(&["10.96.0.0/12"]),
            pods: set(&["10.16.0.0/16", "10.20.0.0/24"]),
            eips: set(&["198.51.100.0/24"]),
            outside: set(&["10.96.0.1/32"]),
            hosts: ["172.18.0.2".parse().unwrap()].into(),
        }
    }

    fn both() -> Plan {
        let ipv6 = address("fd00:100:64::2", 64, "fd00:100:64::1");
        let mut plan = plan();
        plan.addresses.second = ipv6;
        let ranges = [
            (&mut plan.pods, "fd00:10:16::/64"),
            (&mut plan.service, "fd00:10:96::/112"),
        ];
        for (set, range) in ranges {
            set.insert(range.parse().unwrap());
        }
        plan.outside.insert("fd00:10:96::1/128".parse().unwrap());
        plan.hosts.insert("fd00:18::2".parse().unwrap());
        plan
    }

    #[test]
    fn the_port_remembers_the_whole_plan() {
        let none = Plan {
            service: BTreeSet::new(),
            hosts: BTreeSet::new(),
            ..plan()
        };
        for plan in [plan(), none, both()] {
            assert_eq!(Plan::read(&plan.external_ids()), Some(plan));
        }
        let ids = plan().external_ids();
        assert_eq!(ids["ycloud-ip"], "100.64.0.2/16");
        assert!(!ids.contains_key("ycloud-ipv6"));
    }

    #[test]
    fn ranges_are_reached_by_the_join_switch_of_their_family() {
        let local = ["172.18.0.2", "fd00:18::2"].map(|ip| ip.parse().unwrap());
        let routes = |plan: &Plan| {
            let routes = plan.routes(7, &local.into());
            let text = |route: &Route| {
                let (gateway, source) = (route.gateway.unwrap(), route.source.unwrap());
                format!("{} via {gateway} src {source}", route.destination)
            };
            routes.iter().map(text).collect::<BTreeSet<String>>()
        };
        let of_ipv4 = routes(&plan());
        assert!(of_ipv4.contains("10.96.0.1/32 via 100.64.0.1 src 172.18.0.2"));
        let mut of_both = of_ipv4.clone();
        of_both.extend(
            [
                "fd00:10:16::/64 via fd00:100:64::1 src fd00:100:64::2",
                "fd00:10:96::/112 via fd00:100:64::1 src fd00:100:64::2",
                "fd00:10:96::1/128 via fd00:100:64::1 src fd00:18::2",
            ]
            .map(str::to_owned),
        );
        assert_eq!(routes(&both()), of_both);
        let without = Plan {
            addresses: plan().addresses,
            ..both()
        };
        assert_eq!(routes(&without), of_ipv4);
        assert_eq!(plan().nets().len(), 1);
        let link_local = "fe80::800:64ff:fe40:2/64".parse().unwrap();
        assert!(both().nets().contains(&link_local), "{:?}", both().nets());
    }
}
