//! Subnets: what the spec says, and whether the range is free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use ycloud_api::address::Ipv4Range;
use ycloud_api::condition::reason;
use ycloud_api::{Subnet, key};

use crate::compile::Rejection;
use crate::snapshot::{Age, Settings, Snapshot, age, age_of};
use crate::validate::eip_gateway::Gateway;

/// A Subnet's spec, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The Vpc that it names.
    pub vpc: String,
    /// Its range.
    pub cidr: Ipv4Net,
    /// The router's address.
    pub gateway: Ipv4Addr,
    /// Ranges inside the usable ones that are never given out, the gateway among them; sorted, apart from each other.
    excluded: Vec<Ipv4Range>,
}

impl Network {
    /// Reads a Subnet's spec.
    ///
    /// # Errors
    /// An invalid `cidr`, `gateway` or `excludeIPs`.
    pub fn read(settings: &Settings, name: &str, subnet: &Subnet) -> Result<Self, Rejection> {
        let spec = &subnet.spec;
        let invalid =
            |message: String| Rejection::new(reason::INVALID, format!("Subnet {name}: {message}"));
        let text = spec.cidr.as_deref().unwrap_or_default();
        let parsed: Option<Ipv4Net> = text.parse().ok();
        let parsed = parsed.filter(|c| c.trunc() == *c && (8..=30).contains(&c.prefix_len()));
        let cidr = parsed.ok_or_else(|| {
            invalid(format!(
                "spec.cidr {text:?} is no IPv4 network with a prefix length of 8 to 30 and no host bits set; write one such as 10.0.1.0/24",
            ))
        })?;
        let (first, last) = usable(cidr);
        let gateway = match &spec.gateway {
            None => first,
            Some(text) => {
                let parsed: Option<Ipv4Addr> = text.parse().ok();
                parsed.filter(|ip| first <= *ip && *ip <= last).ok_or_else(|| {
                    invalid(format!(
                        "spec.gateway {text:?} is no usable address of {cidr}; choose one of {first} to {last}"
                    ))
                })?
            }
        };
        let mut excluded = vec![single(gateway)];
        if name == key::JOIN_SUBNET && spec.vpc == key::DEFAULT_VPC {
            excluded.push(single(settings.unused_join_address()));
        }
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
        Ok(Self {
            vpc: spec.vpc.clone(),
            cidr,
            gateway,
            excluded: merge(excluded, first, last),
        })
    }

    /// The first and the last address between network and broadcast address.
    pub fn usable(&self) -> (Ipv4Addr, Ipv4Addr) {
        usable(self.cidr)
    }

    /// Why an address of this network cannot be given out, as words that go before "Subnet x". `None`: it can.
    pub fn reserved(&self, ip: Ipv4Addr) -> Option<&'static str> {
        let (first, last) = self.usable();
        if !self.cidr.contains(&ip) {
            Some("lies outside")
        } else if ip < first || ip > last {
            Some("is the network or broadcast address of")
        } else if ip == self.gateway {
            Some("is the gateway of")
        } else if self.excluded_until(ip).is_some() {
            Some("is excluded by spec.excludeIPs of")
        } else {
            None
        }
    }

    /// If the address is never given out: the last address of the run of such addresses.
    pub fn excluded_until(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let at = self.excluded.partition_point(|range| range.last < ip);
        let range = self.excluded.get(at)?;
        (range.first <= ip).then_some(range.last)
    }

    /// The runs of usable addresses that are never given out.
    pub fn excluded(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> {
        self.excluded.iter().map(|range| (range.first, range.last))
    }
}

/// The first and the last address between network and broadcast address.
pub(crate) fn usable(cidr: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    (
        Ipv4Addr::from_bits(cidr.network().to_bits() + 1),
        Ipv4Addr::from_bits(cidr.broadcast().to_bits() - 1),
    )
}

fn single(ip: Ipv4Addr) -> Ipv4Range {
    Ipv4Range {
        first: ip,
        last: ip,
    }
}

/// Sorts, joins ranges that touch, and cuts off what lies outside `first..=last`.
pub(crate) fn merge(mut ranges: Vec<Ipv4Range>, first: Ipv4Addr, last: Ipv4Addr) -> Vec<Ipv4Range> {
    ranges.sort();
    let mut merged: Vec<Ipv4Range> = Vec::new();
    for range in ranges {
        let range = Ipv4Range {
            first: range.first.max(first),
            last: range.last.min(last),
        };
        if range.first > range.last {
            continue;
        }
        match merged.last_mut() {
            Some(before) if range.first.to_bits() <= before.last.to_bits().saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The network of an accepted Subnet.
///
/// # Errors
/// Why it is refused. With `keep` while VNics hold addresses of it: taking its rows away would cut them off.
pub fn check(snapshot: &Snapshot, name: &str) -> Result<Network, Rejection> {
    let Some(read) = snapshot.network(name) else {
        return Err(Rejection::new(
            reason::NOT_FOUND,
            format!("Subnet {name} does not exist; create it or name another one"),
        ));
    };
    let pool = snapshot.pool(name);
    let in_use = |rejection: Rejection| Rejection {
        keep: pool.is_some_and(|pool| pool.held() > 0),
        ..rejection
    };
    let network = read.clone().map_err(in_use)?;
    if snapshot.vpc(&network.vpc).is_none() {
        return Err(Rejection::new(
            reason::NOT_FOUND,
            format!(
                "Subnet {name}: spec.vpc names Vpc {}, which does not exist; create it, or make the Subnet anew in another Vpc",
                network.vpc
            ),
        ));
    }
    if let Some(overlap) = snapshot.overlap(name) {
        return Err(in_use(overlap.clone()));
    }
    let (first, last) = network.usable();
    if let Some((ip, vnic)) = pool.and_then(|pool| pool.held_outside(first, last)) {
        return Err(in_use(Rejection::new(
            reason::IN_USE,
            format!(
                "Subnet {name}: spec.cidr {} leaves out {ip}, which VNic {vnic} holds; widen it, or delete that VNic first",
                network.cidr
            ),
        )));
    }
    if let Some(former) = pool.and_then(|pool| pool.other_gateway(network.gateway)) {
        let what = match snapshot.subnet(name).and_then(|s| s.spec.gateway.as_ref()) {
            Some(_) => "spec.gateway",
            None => "the gateway, by default the first address of spec.cidr,",
        };
        return Err(in_use(Rejection::new(
            reason::IN_USE,
            format!(
                "Subnet {name}: {what} would change from {former} to {}, but VNics that hold addresses use {former}; \
                 set spec.gateway to {former}, or delete those VNics first",
                network.gateway
            ),
        )));
    }
    let gateway_holder = pool.and_then(|pool| pool.holders(network.gateway).next());
    if let Some(vnic) = gateway_holder {
        return Err(in_use(Rejection::new(
            reason::ADDRESS_TAKEN,
            format!(
                "Subnet {name}: spec.gateway {} is held by VNic {vnic}; choose another one, or delete that VNic first",
                network.gateway
            ),
        )));
    }
    Ok(network)
}

/// The Subnets of `vpc` that are refused because their range overlaps something. Ranges that VNics use come first: who
/// grows into them is refused, not who is there. Of two Subnets of one Vpc that overlap otherwise, the older one (by
/// creation time, then by name) stays.
pub(crate) fn overlaps(snapshot: &Snapshot, vpc: &str) -> BTreeMap<String, Rejection> {
    let subnets: BTreeSet<_> = snapshot
        .subnets_of(vpc)
        .filter_map(|name| Some(age(name, snapshot.subnet(name)?)))
        .collect();
    let foreign = default_ranges(snapshot, vpc);
    let gateways = gateway_ranges(snapshot);
    let used = used_ranges(snapshot, vpc);
    let mut taken: Vec<(Ipv4Net, String)> = Vec::new();
    let mut refused = BTreeMap::new();
    for (created, name) in subnets {
        let Some(Ok(network)) = snapshot.network(&name) else {
            continue;
        };
        let within = taken.iter().chain(&foreign);
        let mut within = within.filter(|(range, _)| meet(*range, network.cidr));
        let by_others = used
            .iter()
            .find(|(range, user)| *user != name && meet(*range, network.cidr));
        let with = match (within.next(), by_others) {
            (Some((_, with)), _) => Some(with.clone()),
            (None, Some((range, user))) => Some(format!(
                "{range}, where VNics of Subnet {user} hold addresses"
            )),
            (None, None) => {
                let age = (created, name.clone());
                let older = gateways.iter().filter(|(of, ..)| *of < age);
                let mut older = older.filter(|(_, range, _)| meet(*range, network.cidr));
                let gateway = older.next().map(|(.., with)| with.clone());
                gateway.or_else(|| system_overlap(snapshot, &name, network))
            }
        };
        match with {
            Some(with) => {
                let message = format!(
                    "Subnet {name}: spec.cidr {} overlaps {with}; choose another range",
                    network.cidr
                );
                refused.insert(name, Rejection::new(reason::OVERLAPS, message));
            }
            None => {
                let with = format!("Subnet {name} ({}) of Vpc {vpc}", network.cidr);
                taken.push((network.cidr, with));
            }
        }
    }
    refused
}

/// Whether two ranges have an address in common.
pub(crate) fn meet(a: impl Into<IpNet>, b: impl Into<IpNet>) -> bool {
    let (a, b) = (a.into(), b.into());
    a.contains(&b) || b.contains(&a)
}

/// The default Vpc's ranges, for another Vpc: nodes route them, so no Pod elsewhere may have such an address.
fn default_ranges(snapshot: &Snapshot, vpc: &str) -> Vec<(Ipv4Net, String)> {
    if vpc == key::DEFAULT_VPC {
        return Vec::new();
    }
    let subnets = snapshot.subnets_of(key::DEFAULT_VPC);
    let accepted = subnets.filter(|name| snapshot.overlap(name).is_none());
    let ranges = accepted.filter_map(|name| match snapshot.network(name) {
        Some(Ok(network)) => Some((
            network.cidr,
            format!(
                "Subnet {name} ({}) of the default Vpc, which the nodes route",
                network.cidr
            ),
        )),
        _ => None,
    });
    ranges.collect()
}

/// The ranges of all EipGateways that are readable, and since when: an older one keeps a Subnet away.
fn gateway_ranges(snapshot: &Snapshot) -> Vec<(Age, Ipv4Net, String)> {
    let ranges = snapshot.eip_gateways().filter_map(|(name, object)| {
        let gateway = Gateway::read(snapshot.settings(), name, object).ok()?;
        let with = format!("EipGateway {name} ({})", gateway.cidr);
        Some((age_of(name, &object.metadata), gateway.cidr, with))
    });
    ranges.collect()
}

/// The ranges by which VNics are set up that hold addresses, and their Subnets: those that must not be in two places if
/// a Subnet of `vpc` is one of them. They differ from the Subnets' own where a spec was edited after VNics were made.
fn used_ranges<'a>(snapshot: &'a Snapshot, vpc: &'a str) -> Vec<(Ipv4Net, &'a str)> {
    let of = |vpc: &'a str| snapshot.subnets_of(vpc);
    let subnets: Vec<&str> = match vpc {
        key::DEFAULT_VPC => snapshot.subnet_names().collect(),
        _ => of(vpc).chain(of(key::DEFAULT_VPC)).collect(),
    };
    let ranges = |name: &'a str| {
        let pool = snapshot.pool(name).into_iter();
        pool.flat_map(move |pool| pool.ranges().map(move |range| (range, name)))
    };
    subnets.into_iter().flat_map(ranges).collect()
}

/// What of the cluster's own ranges a Subnet overlaps.
fn system_overlap(snapshot: &Snapshot, name: &str, network: &Network) -> Option<String> {
    let cidr = network.cidr;
    if let Some((with, range)) = snapshot
        .service_cidrs()
        .find(|(_, range)| meet(*range, cidr))
    {
        return Some(format!("the service range {range} (ServiceCIDR {with})"));
    }
    let system = snapshot.settings().system_cidr;
    let join = network.vpc == key::DEFAULT_VPC && name == key::JOIN_SUBNET;
    if !join && meet(system, cidr) {
        return Some(format!("the system range {system} (--system-cidr)"));
    }
    let (ip, node) = snapshot.node_within(cidr.into())?;
    Some(format!("{ip}, the address of Node {node}"))
}
