//! The prober's devices: for each Vpc a veth pair, one end of it a port of the bridge, the other in the prober's namespace.
//!
//! They go with the namespace, and so with the process, however that ends. (An internal port would not: ovs-vswitchd would
//! spin on its descriptor until somebody removes the port.) Names are this agent's own; what is left in the switch of an
//! earlier one is replaced in one transaction. Level-triggered: each pass compares ports, links and what was set on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ycloud_api::network_probe::{
    IPV6_PREFIX_LENGTH, PREFIX_LENGTH, gateway, prober_port, source_mac,
};
use ycloud_client::Supervisor;

use super::space;
use crate::agent::family::Family;
use crate::agent::mac::{Mac, MacError};
use crate::agent::netlink::{self, Link, Netlink, Veth};
use crate::agent::netns::{self, Netns};
use crate::agent::ovs::prober::{NewPort, ProberPort};
use crate::agent::ovs::{self, Ovs, View};
use crate::agent::{ethtool, sysctl};

/// How long a port stays in a Vpc where nothing is to be asked any more. A chassis that was cut off hears, when it returns, that
/// others ask in its place, and a second or two later that it shall ask again: a port that went in between would be a new one,
/// to which each other chassis has to learn the way. Less than the 30 s for which ycloud-controller keeps such a port: its end there
/// and here shall not come together.
const LINGER: Duration = Duration::from_secs(10);

/// A pass failed; there will be another.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace.
    #[error(transparent)]
    Space(#[from] space::Error),
    /// It cannot be entered.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A switch.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// Offloads.
    #[error(transparent)]
    Ethtool(#[from] ethtool::Error),
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] ovs::Error),
    /// No descriptor is left.
    #[error("failed to share the prober's network namespace")]
    Descriptor(#[from] std::io::Error),
    /// The MAC address that follows from a source address.
    #[error(transparent)]
    Mac(#[from] MacError),
}

/// The addresses from which it asks inside a Vpc, at most one of a family.
pub type Sources = BTreeMap<Family, IpAddr>;

/// A device that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name in the prober's namespace.
    pub name: String,
    /// Its addresses.
    pub sources: Sources,
}

/// The Vpcs in which a device was wanted within [`LINGER`], and when last.
#[derive(Debug, Default)]
struct Lately(BTreeMap<String, Instant>);

impl Lately {
    /// It is `now`, and these are wanted.
    fn see<'a>(&mut self, wanted: impl IntoIterator<Item = &'a String>, now: Instant) {
        self.0.retain(|_, at| now < *at + LINGER);
        self.0
            .extend(wanted.into_iter().map(|vpc| (vpc.clone(), now)));
    }

    fn has(&self, vpc: &str) -> bool {
        self.0.contains_key(vpc)
    }
}

/// The devices, and where they are.
pub struct Network {
    ovs: Ovs,
    host: Netlink,
    netns: Netns,
    inside: Netlink,
    node: String,
    mtu: u32,
    /// What the names of this agent's ports begin with.
    prefix: String,
    next: u32,
    lately: Lately,
    /// What was set on which link, and how the link was after that.
    settled: BTreeMap<String, (Link, Sources)>,
}

impl Network {
    /// Makes the namespace. `host` is the network in which ovs-vswitchd finds links.
    ///
    /// # Errors
    /// See [`space::Error`].
    pub async fn open(
        supervisor: &Supervisor,
        (ovs, host): (Ovs, Netlink),
        node: &str,
        mtu: u32,
    ) -> Result<Self, space::Error> {
        let (netns, inside) = space::make(supervisor).await?;
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let nonce: String = nonce.chars().take(6).collect();
        Ok(Self {
            ovs,
            host,
            netns,
            inside,
            node: node.to_owned(),
            mtu,
            prefix: format!("yp{nonce}"),
            next: 1,
            lately: Lately::default(),
            settled: BTreeMap::new(),
        })
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Makes the next pass look at all that was set before.
    pub fn refresh(&mut self) {
        self.settled.clear();
    }

    /// One comparison with what is `wanted`, by Vpc. Ports in other Vpcs go only if `wanted` is the `whole`, and after [`LINGER`].
    /// Returns the wanted devices by which packets pass, and what was wrong with the last of the others, if anything was.
    ///
    /// # Errors
    /// See [`Error`]: no device could be looked at.
    pub async fn pass(
        &mut self,
        wanted: &BTreeMap<String, Sources>,
        whole: bool,
    ) -> Result<(BTreeMap<String, Device>, Option<Error>), Error> {
        self.lately.see(wanted.keys(), Instant::now());
        let view = self.ovs.view();
        let (kept, gone) = self.sorted(&view, whole);
        let missing: Vec<&String> = wanted.keys().filter(|v| !kept.contains_key(*v)).collect();
        let new: Vec<NewPort> = missing.into_iter().map(|vpc| self.named(vpc)).collect();
        let mut names: BTreeMap<&String, &String> = BTreeMap::new();
        names.extend(kept.iter().map(|(vpc, port)| (vpc, &port.name)));
        names.extend(new.iter().map(|port| (&port.vpc, &port.name)));
        let userspace = view.userspace().unwrap_or_default();
        let (mut devices, mut wrong) = (BTreeMap::new(), None);
        let links = self.links(&names, wanted, userspace).await?;
        self.ovs.change_prober_ports(&gone, &new).await?;
        self.forget(&names).await?;
        for (vpc, name) in &names {
            let (Some(link), Some(sources)) = (links.get(*name), wanted.get(*vpc)) else {
                continue;
            };
            if let Err(error) = self.settle(link, sources, userspace).await {
                wrong = Some(error);
            } else if kept.get(*vpc).is_some_and(|port| port.installed) {
                let device = Device {
                    name: (*name).clone(),
                    sources: sources.clone(),
                };
                devices.insert((*vpc).clone(), device);
            }
        }
        Ok((devices, wrong))
    }

    /// The prober's ports in the switch: those that stay, by Vpc, and those that do not.
    fn sorted(&self, view: &View, whole: bool) -> (BTreeMap<String, ProberPort>, Vec<ProberPort>) {
        let (mut kept, mut gone) = (BTreeMap::new(), Vec::new());
        for port in view.prober_ports() {
            let own = port.name.starts_with(&self.prefix)
                && port.logical_port == prober_port(&port.vpc, &self.node);
            let stays = self.lately.has(&port.vpc);
            if own && stays && !kept.contains_key(&port.vpc) {
                kept.insert(port.vpc.clone(), port);
            } else if whole || stays {
                gone.push(port);
            }
        }
        (kept, gone)
    }

    fn named(&mut self, vpc: &str) -> NewPort {
        let name = format!("{}{}", self.prefix, self.next);
        // Seven digits leave it within the 15 characters of a link's name.
        self.next = self.next % 9_999_999 + 1;
        NewPort {
            name,
            vpc: vpc.to_owned(),
            logical_port: prober_port(vpc, &self.node),
        }
    }

    /// Makes the pairs that are not there, and returns the ends in the namespace. The host's end has no address, and the
    /// host's stack takes nothing from it.
    async fn links(
        &self,
        names: &BTreeMap<&String, &String>,
        wanted: &BTreeMap<String, Sources>,
        userspace: bool,
    ) -> Result<BTreeMap<String, Link>, Error> {
        let (here, there) = (self.host.links().await?, self.inside.links().await?);
        let has = |links: &[Link], name: &str| links.iter().any(|link| link.name == name);
        for (vpc, name) in names {
            let Some(mac) = wanted.get(*vpc).and_then(|s| s.values().next()) else {
                continue;
            };
            if has(&here, name) && has(&there, name) {
                continue;
            }
            self.host.delete_link(name).await?;
            self.inside.delete_link(name).await?;
            let veth = Veth {
                host: name,
                peer: name,
                netns: &self.netns,
                mac: source_mac(*mac).parse()?,
                mtu: self.mtu,
            };
            self.host.add_veth(&veth).await?;
            let host = self.host.need_link(name).await?;
            if userspace {
                ethtool::offload_off(name)?;
            }
            self.host.without_ipv6_address(&host).await?;
            self.host.set_up(&host).await?;
        }
        let there = self.inside.links().await?.into_iter();
        Ok(there.map(|link| (link.name.clone(), link)).collect())
    }

    /// Removes pairs whose ports are gone from the switch.
    async fn forget(&mut self, names: &BTreeMap<&String, &String>) -> Result<(), Error> {
        let names: BTreeSet<&str> = names.values().map(|name| name.as_str()).collect();
        self.settled.retain(|name, _| names.contains(name.as_str()));
        for link in self.inside.links().await? {
            if link.name.starts_with(&self.prefix) && !names.contains(link.name.as_str()) {
                self.inside.delete_link(&link.name).await?;
            }
        }
        Ok(())
    }

    async fn settle(
        &mut self,
        link: &Link,
        sources: &Sources,
        userspace: bool,
    ) -> Result<(), Error> {
        let now = (link.clone(), sources.clone());
        if self.settled.get(&link.name) == Some(&now) {
            return Ok(());
        }
        let Some(mac) = sources.values().next().copied().map(source_mac) else {
            return Ok(());
        };
        let mac: Mac = mac.parse()?;
        self.switches(&link.name, sources, userspace).await?;
        if link.mac != mac {
            self.inside.set_mac(link, mac).await?;
        }
        if link.mtu != self.mtu {
            self.inside.set_mtu(link, self.mtu).await?;
        }
        let wanted: Vec<IpNet> = sources.values().filter_map(|ip| net(*ip)).collect();
        let existing = self.inside.addresses(link).await?;
        for other in existing.iter().filter(|a| !wanted.contains(a)) {
            self.inside.delete_address(link, *other).await?;
        }
        for address in wanted.iter().filter(|a| !existing.contains(a)) {
            self.inside.add_address(link, *address).await?;
        }
        if !link.up {
            self.inside.without_ipv6_address(link).await?;
            self.inside.set_up(link).await?;
        }
        for source in sources.values() {
            self.inside.set_default_by(link, gateway(*source)).await?;
        }
        let after = self.inside.need_link(&link.name).await?;
        self.settled.insert(link.name.clone(), (after, now.1));
        Ok(())
    }

    async fn switches(&self, link: &str, sources: &Sources, userspace: bool) -> Result<(), Error> {
        let (link, ipv6) = (link.to_owned(), sources.contains_key(&Family::Ipv6));
        let set = move || {
            if userspace {
                ethtool::offload_off(&link)?;
            }
            if ipv6 {
                for (switch, value) in [("disable_ipv6", "0"), ("accept_ra", "0")] {
                    sysctl::set(&format!("ipv6/conf/{link}/{switch}"), value)?;
                }
            }
            Ok(())
        };
        self.netns.run(set).await?
    }
}

fn net(source: IpAddr) -> Option<IpNet> {
    let length = match source {
        IpAddr::V4(_) => PREFIX_LENGTH,
        IpAddr::V6(_) => IPV6_PREFIX_LENGTH,
    };
    IpNet::new(source, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stays_for_a_while() {
        let (start, mut lately) = (Instant::now(), Lately::default());
        let [a, b] = ["a".to_owned(), "b".to_owned()];
        lately.see([&a, &b], start);
        lately.see([&a], start + LINGER / 2);
        assert!(lately.has("b"));
        lately.see([&a], start + LINGER);
        assert!(lately.has("a") && !lately.has("b"));
        lately.see([], start + LINGER * 2 - Duration::from_nanos(1));
        assert!(lately.has("a"));
        lately.see([], start + LINGER * 2);
        assert!(!lately.has("a"));
    }
}
