//! NetworkProbes: whether the Vpc may be asked in, whether the address is one of it, and whether somebody can ask.

use std::net::IpAddr;

use ycloud_api::NetworkProbe;
use ycloud_api::address::Family;
use ycloud_api::condition::reason;

use crate::compile::Rejection;
use crate::owner::ObjectKey;
use crate::prober::{Assignment, choose, choose_other, is_chassis_probe, wanted_chassis_probe};
use crate::snapshot::Snapshot;
use crate::validate::network::{Cidr, field};
use crate::validate::permits;

/// Vpc and address of a target; `None` if the address is none, which the API server refuses.
pub(crate) fn target(probe: &NetworkProbe) -> Option<(String, IpAddr)> {
    let target = &probe.spec.target;
    Some((target.vpc.clone(), target.ip.parse().ok()?))
}

/// Who asks a NetworkProbe.
///
/// # Errors
/// No such Vpc, or one that does not permit the namespace; an address that no Subnet of it has; a system range without
/// room for probe networks; nobody who can ask.
pub(crate) fn judge(
    snapshot: &Snapshot,
    key: &ObjectKey,
    probe: &NetworkProbe,
) -> Result<Assignment, Rejection> {
    if is_chassis_probe(key, probe) {
        return judge_chassis(snapshot, key, probe);
    }
    let name = &probe.spec.target.vpc;
    let refuse = |reason, field: &str, why: String| {
        let message = format!("NetworkProbe {key}: spec.target.{field}: {why}");
        Err(Rejection::new(reason, message))
    };
    let Some(vpc) = snapshot.vpc(name) else {
        let why = format!("Vpc {name} does not exist; create it, or name another one");
        return refuse(reason::NOT_FOUND, "vpc", why);
    };
    if !permits(snapshot, vpc, &key.namespace) {
        let why = format!(
            "Vpc {name} does not permit namespace {}; have it added to the Vpc's spec.allowedNamespaces",
            key.namespace
        );
        return refuse(reason::NOT_PERMITTED, "vpc", why);
    }
    let Some((_, ip)) = target(probe) else {
        let why = format!(
            "{:?} is no address; write one such as 10.0.1.7 or fd00:1::7",
            probe.spec.target.ip
        );
        return refuse(reason::INVALID, "ip", why);
    };
    if let Some(why) = outside(snapshot, name, ip) {
        return refuse(reason::ADDRESS_NOT_IN_SUBNET, "ip", why);
    }
    let family = Family::of(ip);
    if snapshot.settings().probe_source(family, 0).is_none() {
        let (range, longest) = match family {
            Family::Ipv4 => ("--system-cidr", 10),
            Family::Ipv6 => ("--system-ipv6-cidr", 57),
        };
        let why = format!(
            "{ip} cannot be asked: the {family} system range {} has no room for probe networks; ycloud-controller's {range} \
             must have a prefix length of at most {longest}",
            snapshot.settings().system_range(family)
        );
        return refuse(reason::INVALID, "ip", why);
    }
    choose(snapshot, key, name, ip).ok_or_else(|| {
        Rejection::new(
            reason::NO_PROBER,
            format!(
                "NetworkProbe {key}: no chassis can ask {ip} in Vpc {name}: no ycloud-cni has a Lease that holds and an \
                 address on the join network; see that ycloud-cni runs on the nodes and reaches the API server"
            ),
        )
    })
}

/// Who asks whether a chassis is there.
fn judge_chassis(
    snapshot: &Snapshot,
    key: &ObjectKey,
    probe: &NetworkProbe,
) -> Result<Assignment, Rejection> {
    let wanted = wanted_chassis_probe(snapshot, key);
    if wanted.is_none_or(|wanted| wanted.spec.target != probe.spec.target) {
        let message = format!(
            "NetworkProbe {key}: spec.target: not a chassis that asks NetworkProbes, at its address, while another one does \
             so too; ycloud-controller corrects or deletes it"
        );
        return Err(Rejection::new(reason::INVALID, message));
    }
    let chassis = probe.spec.target.name.as_deref().unwrap_or_default();
    choose_other(snapshot, key, chassis).ok_or_else(|| {
        let message =
            format!("NetworkProbe {key}: no other chassis can ask whether {chassis} is there");
        Rejection::new(reason::NO_PROBER, message)
    })
}

/// Why an address cannot be one of a Vpc's; `None`: it is in one of its Subnets.
fn outside(snapshot: &Snapshot, vpc: &str, ip: IpAddr) -> Option<String> {
    let family = Family::of(ip);
    let mut ranges: Vec<String> = Vec::new();
    let networks = snapshot.subnets_of(vpc).filter_map(|subnet| {
        let network = snapshot.network(subnet)?;
        Some((subnet, network))
    });
    for (subnet, network) in networks {
        let Some(cidr): Option<&Cidr> = network.cidr(family) else {
            continue;
        };
        if cidr.usable().contains(ip) {
            return None;
        }
        if cidr.range.contains(&ip) {
            return Some(format!(
                "{ip} {} Subnet {subnet} ({}), which nobody can have; correct it",
                cidr.reserved(ip).unwrap_or("is reserved in"),
                cidr.range
            ));
        }
        ranges.push(format!("{subnet} {}", cidr.range));
    }
    Some(match ranges.is_empty() {
        true => format!(
            "{ip} is an {family} address, and no Subnet of Vpc {vpc} has {family}; correct it, or set {} of a Subnet",
            field(family, "cidr")
        ),
        false => format!(
            "{ip} lies outside every Subnet of Vpc {vpc} ({}); correct it, or name the Vpc that has it",
            ranges.join(", ")
        ),
    })
}
