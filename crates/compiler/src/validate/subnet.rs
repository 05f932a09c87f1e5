//! Subnets: whether what the spec says can be done, by those who use the Subnet and by its neighbours.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net};
use ycloud_api::address::Family;
use ycloud_api::condition::reason;
use ycloud_api::key;

use crate::address::everything;
use crate::compile::Rejection;
use crate::snapshot::{Age, Pool, Snapshot, age, age_of, recorded};
use crate::validate::eip_gateway::Gateway;
use crate::validate::network::{Cidr, Network, field};
use crate::validate::vpc;

/// What came of a Subnet's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The network that is in force: by it go the rows, the holders of addresses, and all others. It is what the spec
    /// asks for or, where that is refused, what was in force before. `None`: the Subnet was never accepted.
    pub network: Option<Network>,
    /// Why the spec is refused.
    pub refused: Option<Rejection>,
    /// What the holders of addresses have against the spec; it is refused for this or for something else, too.
    pub conflict: Option<Rejection>,
}

/// The network of a Subnet that is in force.
///
/// # Errors
/// There is no such Subnet; its Vpc is missing; or its spec is refused, and none was accepted before.
pub fn check<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Network, Rejection> {
    let (object, standing) = snapshot
        .subnet(name)
        .zip(snapshot.standing(name))
        .ok_or_else(|| {
            Rejection::new(
                reason::NOT_FOUND,
                format!("Subnet {name} does not exist; create it or name another one"),
            )
        })?;
    if let (None, Some(refused)) = (&standing.network, &standing.refused)
        && refused.reason == reason::INVALID
    {
        return Err(refused.clone());
    }
    let vpc = &object.spec.vpc;
    if snapshot.vpc(vpc).is_none() {
        return Err(Rejection::new(
            reason::NOT_FOUND,
            format!(
                "Subnet {name}: spec.vpc names Vpc {vpc}, which does not exist; create it, or make the Subnet anew in another Vpc"
            ),
        ));
    }
    match (&standing.network, &standing.refused) {
        (Some(network), _) => Ok(network),
        (None, Some(refused)) => Err(refused.clone()),
        (None, None) => Err(Rejection::new(
            reason::PENDING,
            format!("Subnet {name} is not looked at yet"),
        )),
    }
}

/// Why an edit of a Subnet that is in force is refused.
pub(crate) fn hindrance(snapshot: &Snapshot, name: &str) -> Option<Rejection> {
    let standing = snapshot.standing(name)?;
    let (network, refused) = standing.network.as_ref().zip(standing.refused.as_ref())?;
    let message = format!("{}; until then it stays {network}", refused.message);
    Some(Rejection::new(refused.reason, message))
}

/// What the VNics that hold addresses have against the spec of a Subnet, which asks for `network`.
pub(crate) fn conflict(snapshot: &Snapshot, name: &str, network: &Network) -> Option<Rejection> {
    let pool = snapshot.pool(name)?;
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

/// Judges the Subnets of `vpc`. Ranges that are in force, or that VNics use, come first: who grows into them is refused, not
/// who is there. Of two Subnets of one Vpc that overlap otherwise, the older one (by creation time, then by name) stays.
pub(crate) fn judge(snapshot: &Snapshot, vpc: &str) -> BTreeMap<String, Standing> {
    let subnets: BTreeSet<_> = snapshot
        .subnets_of(vpc)
        .filter_map(|name| Some(age(name, snapshot.subnet(name)?)))
        .collect();
    let foreign = default_ranges(snapshot, vpc);
    let others = Others {
        gateways: gateway_ranges(snapshot),
        held: held_ranges(snapshot, vpc),
    };
    let mut taken: Vec<(IpNet, String)> = Vec::new();
    let mut standings = BTreeMap::new();
    for (created, name) in subnets {
        let record = snapshot.record(&name);
        let asked = match snapshot.asked_network(&name) {
            Some(Ok(network)) => {
                let conflict = conflict(snapshot, &name, network);
                let metadata = snapshot.subnet(&name).map(|subnet| &subnet.metadata);
                let late = metadata.filter(|_| record.is_none()).and_then(|metadata| {
                    vpc::late(snapshot, vpc, metadata, &format!("Subnet {name}"))
                });
                let with = |cidr: &Cidr| {
                    let within = taken.iter().chain(&foreign);
                    let mut within = within.filter(|(range, _)| meet(*range, cidr.range));
                    let first = within.next().map(|(_, with)| with.clone());
                    let age = (created, name.clone());
                    first
                        .or_else(|| others.meeting(cidr, &age, record.as_ref()))
                        .or_else(|| system_overlap(snapshot, &name, network, cidr))
                };
                let overlap = network.cidrs().find_map(|cidr| Some((cidr, with(cidr)?)));
                let overlap = overlap.map(|(cidr, with)| {
                    let message = format!(
                        "Subnet {name}: {} {} overlaps {with}; choose another range",
                        field(cidr.family(), "cidr"),
                        cidr.range
                    );
                    Rejection::new(reason::OVERLAPS, message)
                });
                match late.or(overlap).or_else(|| conflict.clone()) {
                    None => Ok(network.clone()),
                    Some(refused) => Err((refused, conflict)),
                }
            }
            Some(Err(rejection)) => Err((rejection.clone(), None)),
            None => continue,
        };
        let standing = match asked {
            Ok(network) => {
                taken.extend(network.cidrs().map(|cidr| {
                    let with = format!("Subnet {name} ({}) of Vpc {vpc}", cidr.range);
                    (cidr.range, with)
                }));
                Standing {
                    network: Some(network),
                    ..Standing::default()
                }
            }
            Err((refused, conflict)) => Standing {
                network: record,
                refused: Some(refused),
                conflict,
            },
        };
        standings.insert(name, standing);
    }
    standings
}

/// Ranges that keep a Subnet's away, besides those of its Vpc's and the default Vpc's Subnets.
struct Others<'a> {
    gateways: Vec<GatewayRange>,
    held: Vec<(IpNet, &'a str, String)>,
}

impl Others<'_> {
    /// What of them a range meets that a Subnet of this age asks for, in words. `record`: what is in force of it.
    fn meeting(&self, cidr: &Cidr, age: &Age, record: Option<&Network>) -> Option<String> {
        let name = &age.1;
        let by_others = |(range, user, _): &&(IpNet, &str, String)| {
            *user != name.as_str() && meet(*range, cidr.range)
        };
        if let Some((.., with)) = self.held.iter().find(by_others) {
            return Some(with.clone());
        }
        let own = record.is_some_and(|record| record.covers(cidr.range));
        let mut first = self.gateways.iter().filter(|gateway| match &gateway.since {
            Some(since) => !own && since < age,
            None => true,
        });
        let found = first.find(|gateway| meet(gateway.range, cidr.range))?;
        Some(found.with.clone())
    }
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
    let networks = subnets.filter_map(|name| Some((name, snapshot.network(name)?)));
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

/// A range of an EipGateway.
struct GatewayRange {
    /// Since when it is asked for; `None`: it is in force.
    since: Option<Age>,
    range: IpNet,
    /// The EipGateway, in words.
    with: String,
}

/// The ranges of all EipGateways: those in force, and those that are asked for, of which an older one keeps a Subnet away.
fn gateway_ranges(snapshot: &Snapshot) -> Vec<GatewayRange> {
    let ranges = snapshot.eip_gateways().flat_map(|(name, object)| {
        let asked = Gateway::read(snapshot.settings(), name, object).ok();
        let asked = asked.into_iter().flat_map(|gateway| gateway.ranges());
        let asked = asked.map(|range| (Some(age_of(name, &object.metadata)), range));
        let link = object.status.as_ref().and_then(|status| {
            let address: Ipv4Net = status.address.as_ref()?.parse().ok()?;
            Some(address.trunc())
        });
        let in_force = recorded(object).0.into_iter().chain(link);
        let all = in_force.map(|range| (None, range)).chain(asked);
        all.map(move |(since, range)| GatewayRange {
            since,
            range: range.into(),
            with: format!("EipGateway {name} ({range})"),
        })
    });
    ranges.collect()
}

/// The ranges that are in force, and those by which VNics are set up that hold addresses; their Subnets, and what they are
/// in words: those that must not be in two places if a Subnet of `vpc` is one of them. The second kind differs from the
/// first where a spec was edited after VNics were made.
fn held_ranges<'a>(snapshot: &'a Snapshot, vpc: &'a str) -> Vec<(IpNet, &'a str, String)> {
    let of = |vpc: &'a str| snapshot.subnets_of(vpc);
    let subnets: Vec<&str> = match vpc {
        key::DEFAULT_VPC => snapshot.subnet_names().collect(),
        _ => of(vpc).chain(of(key::DEFAULT_VPC)).collect(),
    };
    let ranges = |name: &'a str| {
        let record = snapshot.record(name).into_iter();
        let in_force: Vec<IpNet> = record
            .flat_map(|network| network.cidrs().map(|cidr| cidr.range).collect::<Vec<_>>())
            .collect();
        let in_force = in_force.into_iter().map(move |range| {
            let of = snapshot.subnet(name).map_or("", |subnet| &subnet.spec.vpc);
            (range, name, format!("Subnet {name} ({range}) of Vpc {of}"))
        });
        let pool = snapshot.pool(name).into_iter();
        let used = pool.flat_map(|pool| pool.ranges()).map(move |range| {
            let with = format!("{range}, where VNics of Subnet {name} hold addresses");
            (range, name, with)
        });
        in_force.chain(used)
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
    let (ip, whose) = snapshot.machine_within(cidr.range)?;
    Some(format!("{ip}, {whose}"))
}
