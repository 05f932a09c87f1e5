//! EipGateways: what the spec says, whether the range is free, and which nodes can carry it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use ycloud_api::EipGateway;
use ycloud_api::address::{Ipv4Range, Range};
use ycloud_api::condition::reason;
use ycloud_api::selector::matches;

use crate::address::{count, merge, single, usable, usable_ipv4};
use crate::compile::Rejection;
use crate::snapshot::{Age, Settings, Snapshot, age_of, recorded};
use crate::validate::network::is_nobodys;
use crate::validate::subnet::meet;

/// An EipGateway's spec, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The range of its EIPs.
    pub cidr: Ipv4Net,
    /// The upstream router.
    pub upstream: Ipv4Addr,
    /// Its own address, with the prefix length of the link.
    pub address: Ipv4Net,
    /// Ranges that are never given out.
    excluded: Vec<Ipv4Range>,
}

impl Gateway {
    /// Reads an EipGateway's spec.
    ///
    /// # Errors
    /// An invalid field, or a system range that is too small for EipGateways.
    pub fn read(settings: &Settings, name: &str, object: &EipGateway) -> Result<Self, Rejection> {
        let spec = &object.spec;
        let invalid = |message: String| {
            Rejection::new(reason::INVALID, format!("EipGateway {name}: {message}"))
        };
        if settings.layout().is_none() {
            return Err(invalid(format!(
                "the system range {} is too small for EipGateways; set --system-cidr to a /10",
                settings.system_cidr
            )));
        }
        let parsed: Option<Ipv4Net> = spec.cidr.parse().ok();
        let parsed = parsed
            .filter(|c| c.trunc() == *c && (8..=30).contains(&c.prefix_len()) && !is_nobodys(*c));
        let cidr = parsed.ok_or_else(|| {
            invalid(format!(
                "spec.cidr {:?} is no IPv4 network of hosts with a prefix length of 8 to 30 and no host bits set; write one such as 198.51.100.0/24",
                spec.cidr
            ))
        })?;
        let upstream: Ipv4Addr = spec.gateway.parse().map_err(|_| {
            invalid(format!(
                "spec.gateway {:?} is no IPv4 address; write that of the upstream router",
                spec.gateway
            ))
        })?;
        let mut excluded = Vec::new();
        for text in &spec.exclude_ips {
            let range: Ipv4Range = text
                .parse()
                .map_err(|error| invalid(format!("spec.excludeIPs: {error}")))?;
            if !cidr.contains(&range.first) || !cidr.contains(&range.last) {
                return Err(invalid(format!(
                    "spec.excludeIPs: {text} lies outside {cidr}; leave it out or correct it"
                )));
            }
            excluded.push(range);
        }
        let mut gateway = Self {
            cidr,
            upstream,
            address: Ipv4Net::new_assert(upstream, cidr.prefix_len()),
            excluded,
        };
        gateway.address = gateway
            .own_address(spec.address.as_deref())
            .map_err(invalid)?;
        let vlan = (0..=4094).contains(&spec.vlan);
        let count = (1..=8).contains(&spec.service_gateways);
        let rest = (0..=86400).contains(&spec.reuse_after_seconds);
        match (vlan, count, rest) {
            (true, true, true) => Ok(gateway),
            (false, _, _) => Err(invalid(format!(
                "spec.vlan {} is no VLAN tag; write 1 to 4094, or 0 for none",
                spec.vlan
            ))),
            (true, false, _) => Err(invalid(format!(
                "spec.serviceGateways {} is not between 1 and 8",
                spec.service_gateways
            ))),
            (true, true, false) => Err(invalid(format!(
                "spec.reuseAfterSeconds {} is not between 0 and 86400; 0 lets no address rest",
                spec.reuse_after_seconds
            ))),
        }
    }

    fn own_address(&self, text: Option<&str>) -> Result<Ipv4Net, String> {
        let address = match text {
            Some(text) => {
                let parsed: Option<Ipv4Net> = text.parse().ok();
                let parsed = parsed.filter(|a| {
                    let (first, last) = usable_ipv4(*a);
                    (8..=30).contains(&a.prefix_len()) && first <= a.addr() && a.addr() <= last
                });
                parsed.ok_or_else(|| {
                    format!("spec.address {text:?} is no usable IPv4 address with a prefix length of 8 to 30; write one such as 198.51.100.2/24")
                })?
            }
            None => {
                let first = self.free_from(usable_ipv4(self.cidr).0, |ip| ip == self.upstream);
                let ip = first.ok_or_else(|| {
                    format!("spec.cidr {} has no address left for the gateway itself; exclude fewer, or set spec.address", self.cidr)
                })?;
                Ipv4Net::new_assert(ip, self.cidr.prefix_len())
            }
        };
        let (first, last) = usable_ipv4(address);
        if self.upstream == address.addr() {
            return Err(format!(
                "spec.address {address} is the upstream router's, spec.gateway; choose another one"
            ));
        }
        if self.upstream < first || self.upstream > last {
            return Err(format!(
                "spec.gateway {} is not on the link of {address}; correct it, or set spec.address to the gateway's own address on the upstream router's link",
                self.upstream
            ));
        }
        Ok(address)
    }

    /// Whether the EIPs are on the link to the upstream router, which then asks for them by ARP. Otherwise it routes
    /// them to the gateway's address.
    pub fn on_link(&self) -> bool {
        meet(self.address.trunc(), self.cidr)
    }

    /// What nothing else may overlap: the range, and the link to the upstream router.
    pub fn ranges(&self) -> impl Iterator<Item = Ipv4Net> + use<> {
        let link = self.address.trunc();
        let other = (!self.cidr.contains(&link)).then_some(link);
        std::iter::once(self.cidr).chain(other)
    }

    /// Whether the address is of the range and not excluded: an Eip may have it, or the gateway itself has.
    fn may_give_out(&self, ip: Ipv4Addr) -> bool {
        self.cidr.contains(&ip) && !self.excluded.iter().any(|range| range.contains(ip))
    }

    /// Why an address cannot be given out, as words that go before "EipGateway x". `None`: it can.
    pub fn reserved(&self, ip: Ipv4Addr) -> Option<&'static str> {
        let (first, last) = usable_ipv4(self.cidr);
        if !self.cidr.contains(&ip) {
            Some("lies outside the range of")
        } else if ip < first || ip > last {
            Some("is the network or broadcast address of")
        } else if ip == self.upstream {
            Some("is the upstream router of")
        } else if ip == self.address.addr() {
            Some("is the own address of")
        } else if self.excluded.iter().any(|range| range.contains(ip)) {
            Some("is excluded by spec.excludeIPs of")
        } else {
            None
        }
    }

    /// The first address from `from` on that is neither excluded nor taken.
    pub fn free_from(&self, from: Ipv4Addr, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let (first, last) = usable_ipv4(self.cidr);
        let mut candidate = from.max(first);
        while candidate <= last {
            let excluded = self
                .excluded
                .iter()
                .filter(|range| range.contains(candidate));
            let skip_to = excluded.map(|range| range.last).max();
            if skip_to.is_none() && !taken(candidate) {
                return Some(candidate);
            }
            let end = skip_to.unwrap_or(candidate);
            candidate = Ipv4Addr::from_bits(end.to_bits().checked_add(1)?);
        }
        None
    }

    /// How many addresses can be given out.
    pub fn size(&self) -> i64 {
        let hosts = usable(self.cidr.into());
        let excluded = self.excluded.iter().map(|range| Range {
            first: range.first.into(),
            last: range.last.into(),
        });
        let own = [self.upstream, self.address.addr()].map(|ip| single(ip.into()));
        let reserved = merge(excluded.chain(own).collect(), hosts);
        let free = count(&hosts) - reserved.iter().map(count).sum::<u128>();
        free.try_into().unwrap_or(i64::MAX)
    }
}

/// The EipGateway, if it is accepted. Worked out when something changes, see [`judge`].
///
/// # Errors
/// Why it is refused. With `keep` where it was accepted before.
pub fn check<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Gateway, Rejection> {
    match snapshot.gateway(name) {
        Some(Ok(gateway)) => Ok(gateway),
        Some(Err(rejection)) => Err(rejection.clone()),
        None => Err(Rejection::new(
            reason::NOT_FOUND,
            format!("EipGateway {name} does not exist; create it or name another one"),
        )),
    }
}

/// Works out whether an EipGateway is accepted. Of two that overlap the one stays that is in force, else the older one (by
/// creation time, then by name); likewise of an EipGateway and a Subnet.
pub(crate) fn judge(
    snapshot: &Snapshot,
    name: &str,
    object: &EipGateway,
) -> Result<Gateway, Rejection> {
    let held: Vec<_> = snapshot.eips_held_of(name).collect();
    let in_force = recorded(object).0.is_some();
    let in_use = |rejection: Rejection| Rejection {
        keep: in_force || !held.is_empty(),
        ..rejection
    };
    let gateway = Gateway::read(snapshot.settings(), name, object).map_err(in_use)?;
    if let Some(conflict) = overlap(snapshot, name, object, &gateway) {
        let message = format!("EipGateway {name}: {conflict}");
        return Err(in_use(Rejection::new(reason::OVERLAPS, message)));
    }
    let outside = held.iter().find(|(ip, _)| gateway.reserved(*ip).is_some());
    if let Some((ip, eip)) = outside {
        let why = gateway.reserved(*ip).unwrap_or_default();
        return Err(in_use(Rejection::new(
            reason::IN_USE,
            format!(
                "EipGateway {name}: Eip {eip} holds {ip}, which by this spec {why} EipGateway {name} ({}); correct the spec, or delete that Eip first",
                gateway.cidr
            ),
        )));
    }
    Ok(gateway)
}

/// What the range or the own address of an EipGateway overlaps, and the cure.
fn overlap(
    snapshot: &Snapshot,
    name: &str,
    object: &EipGateway,
    gateway: &Gateway,
) -> Option<String> {
    let meets = |range: IpNet| meet(range, gateway.cidr);
    let age = age_of(name, &object.metadata);
    let own = is_in_force(object, gateway);
    for (other, object) in snapshot.eip_gateways().filter(|(other, _)| *other != name) {
        let read = Gateway::read(snapshot.settings(), other, object).ok();
        let record = recorded(object).0;
        let older = age_of(other, &object.metadata) < age;
        if let Some(range) = record
            && meets(range.into())
            && (older || !own)
        {
            return Some(format!(
                "spec.cidr {} overlaps EipGateway {other} ({range}); choose another range",
                gateway.cidr
            ));
        }
        let Some(read) = read else { continue };
        let comes_first = match (own, is_in_force(object, &read)) {
            (false, true) => true,
            (true, false) => false,
            // What it asks for and has not is no claim of one that has something else.
            (false, false) => older && record.is_none(),
            (true, true) => older,
        };
        if !comes_first {
            continue;
        }
        let what = format!(
            "EipGateway {other} ({}, own address {})",
            read.cidr, read.address
        );
        if meets(read.cidr.into()) {
            return Some(format!(
                "spec.cidr {} overlaps {what}; choose another range",
                gateway.cidr
            ));
        }
        if read.may_give_out(gateway.address.addr()) || read.address == gateway.address {
            return Some(format!(
                "spec.address {} is one of {what}; exclude it there (spec.excludeIPs) unless it is its own, or choose another address",
                gateway.address
            ));
        }
        if gateway.may_give_out(read.address.addr()) {
            return Some(format!(
                "spec.cidr {} has the own address of {what}; exclude it (spec.excludeIPs)",
                gateway.cidr
            ));
        }
    }
    let system = snapshot.settings().system_cidr;
    if meet(system, gateway.address.trunc()) {
        return Some(format!(
            "spec.address {} is on a link within the system range {system} (--system-cidr); choose another link",
            gateway.address
        ));
    }
    if let Some(range) = other_range(snapshot, &age, gateway.cidr, own) {
        return Some(format!(
            "spec.cidr {} overlaps {range}; choose another range",
            gateway.cidr
        ));
    }
    // Nodes may be on that link, too. Who has it keeps it.
    if own {
        return None;
    }
    let link = gateway.address.trunc();
    let with = subnet_that_meets(snapshot, &age, link, own)
        .or_else(|| service_range_that_meets(snapshot, link))?;
    Some(format!(
        "spec.address {} is on a link that overlaps {with}; choose another link, or another range there",
        gateway.address
    ))
}

/// Whether what an EipGateway asks for is what it has, by its status.
fn is_in_force(object: &EipGateway, asked: &Gateway) -> bool {
    let status = object.status.as_ref();
    let address = status.and_then(|status| status.address.as_ref()?.parse().ok());
    let range = recorded(object).0;
    range.is_some_and(|range| range.contains(&asked.cidr))
        && address.is_none_or(|address: Ipv4Net| address == asked.address)
}

/// What the range of an EipGateway overlaps that is no EipGateway's.
///
/// `own`: the range is in force already.
fn other_range(snapshot: &Snapshot, age: &Age, cidr: Ipv4Net, own: bool) -> Option<String> {
    let ranges = || {
        let system = snapshot.settings().system_cidr;
        meet(system, cidr).then(|| format!("the system range {system} (--system-cidr)"))
    };
    let machines = || {
        let (ip, whose) = snapshot.machine_within(cidr.into())?;
        Some(format!("{ip}, {whose}"))
    };
    subnet_that_meets(snapshot, age, cidr, own)
        .or_else(|| service_range_that_meets(snapshot, cidr))
        .or_else(ranges)
        .or_else(machines)
}

/// A Subnet that is in force, or was asked for before what is not in force.
fn subnet_that_meets(snapshot: &Snapshot, age: &Age, range: Ipv4Net, own: bool) -> Option<String> {
    for subnet in snapshot.subnet_names() {
        let object = snapshot.subnet(subnet);
        let older = object.is_some_and(|object| age_of(subnet, &object.metadata) < *age);
        if let Some(network) = snapshot.network(subnet)
            && (snapshot.record(subnet).is_some() || (older && !own))
            && let Some(of_subnet) = network.ipv4()
            && meet(of_subnet, range)
        {
            return Some(format!(
                "Subnet {subnet} ({of_subnet}) of Vpc {}",
                network.vpc
            ));
        }
    }
    None
}

fn service_range_that_meets(snapshot: &Snapshot, range: Ipv4Net) -> Option<String> {
    let mut all = snapshot.service_cidrs();
    let (with, found) = all.find(|(_, found)| meet(*found, range))?;
    Some(format!("the service range {found} (ServiceCIDR {with})"))
}

/// Names of the nodes that can carry an EipGateway, sorted: those that its selector matches, without those whose chassis
/// is known to lack the physical network.
pub fn eligible_nodes<'a>(snapshot: &'a Snapshot, object: &EipGateway) -> BTreeSet<&'a str> {
    let spec = &object.spec;
    let selected = snapshot.nodes().filter(|(_, node)| {
        spec.node_selector
            .as_ref()
            .is_none_or(|selector| matches(selector, &node.labels))
    });
    let on_network = |name: &&str| {
        let networks = snapshot.physical_networks(name);
        networks.is_none_or(|networks| networks.contains(&spec.physical_network))
    };
    selected.map(|(name, _)| name).filter(on_network).collect()
}

/// Why an accepted EipGateway does not work: no node can carry it.
pub(crate) fn hindrance(snapshot: &Snapshot, name: &str, object: &EipGateway) -> Option<Rejection> {
    if !eligible_nodes(snapshot, object).is_empty() {
        return None;
    }
    let spec = &object.spec;
    let network = &spec.physical_network;
    let message = match &spec.node_selector {
        Some(_) => format!(
            "EipGateway {name}: no node that spec.nodeSelector matches has physical network {network} \
             (spec.physicalNetwork); correct the selector or label nodes, and map the network to a bridge there \
             (external_ids:ovn-bridge-mappings)"
        ),
        None => format!(
            "EipGateway {name}: no node has physical network {network} (spec.physicalNetwork); map it to a bridge on a \
             node (external_ids:ovn-bridge-mappings)"
        ),
    };
    Some(Rejection::new(reason::NO_NODES, message))
}
