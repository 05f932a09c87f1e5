//! Subnets: whether what the spec says can be done, by those who use the Subnet and by its neighbours.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use ycloud_api::address::Family;
use ycloud_api::condition::reason;
use ycloud_api::key;

use crate::address::everything;
use crate::compile::Rejection;
use crate::snapshot::{Age, Pool, Snapshot, age, age_of};
use crate::validate::eip_gateway::Gateway;
use crate::validate::network::{Cidr, Network, field};

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
        keep: pool.is_some_and(Pool::in_use),
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
    match pool.and_then(|pool| conflict(snapshot, name, &network, pool)) {
        Some(conflict) => Err(in_use(conflict)),
        None => Ok(network),
    }
}

/// What the VNics that hold addresses have against the spec.
fn conflict(snapshot: &Snapshot, name: &str, network: &Network, pool: &Pool) -> Option<Rejection> {
    Family::ALL.into_iter().find_map(|family| {
        let Some(cidr) = network.cidr(family) else {
            let (ip, vnic) = pool.held_in(everything(family)).next()?;
            return Some(Rejection::new(
                reason::IN_USE,
                format!(
                    "Subnet {name}: {} is not set, and VNic {vnic} holds {ip}; set it again, or delete that VNic first",
                    field(family, "cidr")
                ),
            ));
        };
        left_out(name, cidr, pool)
            .or_else(|| gateway_moves(snapshot, name, cidr, pool))
            .or_else(|| gateway_taken(name, cidr, pool))
    })
}

fn left_out(name: &str, cidr: &Cidr, pool: &Pool) -> Option<Rejection> {
    let (ip, vnic) = pool.held_outside(cidr.usable())?;
    Some(Rejection::new(
        reason::IN_USE,
        format!(
            "Subnet {name}: {} {} leaves out {ip}, which VNic {vnic} holds; widen it, or delete that VNic first",
            field(cidr.family(), "cidr"),
            cidr.range
        ),
    ))
}

fn gateway_moves(snapshot: &Snapshot, name: &str, cidr: &Cidr, pool: &Pool) -> Option<Rejection> {
    let former = pool.other_gateway(cidr.gateway)?;
    let spec = snapshot.subnet(name).map(|subnet| &subnet.spec);
    let named = spec.is_some_and(|spec| match cidr.family() {
        Family::Ipv4 => spec.gateway.is_some(),
        Family::Ipv6 => spec
            .ipv6
            .as_ref()
            .is_some_and(|ipv6| ipv6.gateway.is_some()),
    });
    let gateway = field(cidr.family(), "gateway");
    let what = match named {
        true => gateway.clone(),
        false => format!(
            "the gateway, by default the first address of {},",
            field(cidr.family(), "cidr")
        ),
    };
    Some(Rejection::new(
        reason::IN_USE,
        format!(
            "Subnet {name}: {what} would change from {former} to {}, but VNics that hold addresses use {former}; \
             set {gateway} to {former}, or delete those VNics first",
            cidr.gateway
        ),
    ))
}

fn gateway_taken(name: &str, cidr: &Cidr, pool: &Pool) -> Option<Rejection> {
    let vnic = pool.holders(cidr.gateway).next()?;
    Some(Rejection::new(
        reason::ADDRESS_TAKEN,
        format!(
            "Subnet {name}: {} {} is held by VNic {vnic}; choose another one, or delete that VNic first",
            field(cidr.family(), "gateway"),
            cidr.gateway
        ),
    ))
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
    let mut taken: Vec<(IpNet, String)> = Vec::new();
    let mut refused = BTreeMap::new();
    for (created, name) in subnets {
        let Some(Ok(network)) = snapshot.network(&name) else {
            continue;
        };
        let age = (created, name.clone());
        let with = |cidr: &Cidr| {
            let within = taken.iter().chain(&foreign);
            let mut within = within.filter(|(range, _)| meet(*range, cidr.range));
            if let Some((_, with)) = within.next() {
                return Some(with.clone());
            }
            let by_others =
                |(range, user): &&(IpNet, &str)| *user != name && meet(*range, cidr.range);
            if let Some((range, user)) = used.iter().find(by_others) {
                return Some(format!(
                    "{range}, where VNics of Subnet {user} hold addresses"
                ));
            }
            let older = gateways.iter().filter(|(of, ..)| *of < age);
            let mut older = older.filter(|(_, range, _)| meet(*range, cidr.range));
            let gateway = older.next().map(|(.., with)| with.clone());
            gateway.or_else(|| system_overlap(snapshot, &name, network, cidr))
        };
        match network.cidrs().find_map(|cidr| Some((cidr, with(cidr)?))) {
            Some((cidr, with)) => {
                let message = format!(
                    "Subnet {name}: {} {} overlaps {with}; choose another range",
                    field(cidr.family(), "cidr"),
                    cidr.range
                );
                refused.insert(name, Rejection::new(reason::OVERLAPS, message));
            }
            None => taken.extend(network.cidrs().map(|cidr| {
                let with = format!("Subnet {name} ({}) of Vpc {vpc}", cidr.range);
                (cidr.range, with)
            })),
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
fn default_ranges(snapshot: &Snapshot, vpc: &str) -> Vec<(IpNet, String)> {
    if vpc == key::DEFAULT_VPC {
        return Vec::new();
    }
    let subnets = snapshot.subnets_of(key::DEFAULT_VPC);
    let accepted = subnets.filter(|name| snapshot.overlap(name).is_none());
    let networks = accepted.filter_map(|name| match snapshot.network(name) {
        Some(Ok(network)) => Some((name, network)),
        _ => None,
    });
    let ranges = networks.flat_map(|(name, network)| {
        network.cidrs().map(move |cidr| {
            let range = cidr.range;
            (
                range,
                format!("Subnet {name} ({range}) of the default Vpc, which the nodes route"),
            )
        })
    });
    ranges.collect()
}

/// The ranges of all EipGateways that are readable, and since when: an older one keeps a Subnet away.
fn gateway_ranges(snapshot: &Snapshot) -> Vec<(Age, IpNet, String)> {
    let ranges = snapshot.eip_gateways().filter_map(|(name, object)| {
        let gateway = Gateway::read(snapshot.settings(), name, object).ok()?;
        let with = format!("EipGateway {name} ({})", gateway.cidr);
        Some((age_of(name, &object.metadata), gateway.cidr.into(), with))
    });
    ranges.collect()
}

/// The ranges by which VNics are set up that hold addresses, and their Subnets: those that must not be in two places if
/// a Subnet of `vpc` is one of them. They differ from the Subnets' own where a spec was edited after VNics were made.
fn used_ranges<'a>(snapshot: &'a Snapshot, vpc: &'a str) -> Vec<(IpNet, &'a str)> {
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

/// What of the cluster's own ranges a Subnet's range overlaps.
fn system_overlap(
    snapshot: &Snapshot,
    name: &str,
    network: &Network,
    cidr: &Cidr,
) -> Option<String> {
    let meets = |range: IpNet| meet(range, cidr.range);
    if let Some((with, range)) = snapshot.service_cidrs().find(|(_, range)| meets(*range)) {
        return Some(format!("the service range {range} (ServiceCIDR {with})"));
    }
    let system = snapshot.settings().system_range(cidr.family());
    let join = network.vpc == key::DEFAULT_VPC && name == key::JOIN_SUBNET;
    if !join && meets(system) {
        let flag = match cidr.family() {
            Family::Ipv4 => "--system-cidr",
            Family::Ipv6 => "--system-ipv6-cidr",
        };
        return Some(format!("the system range {system} ({flag})"));
    }
    let (ip, node) = snapshot.node_within(cidr.range)?;
    Some(format!("{ip}, the address of Node {node}"))
}
