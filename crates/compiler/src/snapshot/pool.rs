//! The addresses of one Subnet that are held or asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ycloud_api::VNic;
use ycloud_api::address::{Family, Range};

use crate::address::{everything, next, previous};
use crate::owner::ObjectKey;
use crate::validate::network;

/// An address of a VNic and how it is set up, by its status: what its holder was told, and goes on to use until the VNic
/// is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The address.
    pub ip: IpAddr,
    /// The range that the holder takes for its own link, by the prefix length in the status.
    pub range: IpNet,
    /// The router's address, by the status.
    gateway: Option<IpAddr>,
}

impl Held {
    /// All that a VNic holds, IPv4 first; empty while it has no address.
    pub fn all(vnic: &VNic) -> Vec<Self> {
        let links = vnic.status.iter().flat_map(|status| status.links());
        let held = links.filter_map(|link| {
            let ip: IpAddr = link.ip.parse().ok()?;
            let family = Family::of(ip);
            let length = link.prefix_length.and_then(|n| network::length(family, n));
            Some(Self {
                ip,
                range: IpNet::new_assert(ip, length.unwrap_or(family.bits())).trunc(),
                gateway: link.gateway.and_then(|gateway| gateway.parse().ok()),
            })
        });
        held.collect()
    }
}

/// Who holds which address of a Subnet.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Holders by address. More than one only if somebody wrote a status by hand.
    held: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// Those who hold an address, by their MAC. More than one only if they had it before it was refused, or somebody wrote a status by
    /// hand.
    macs: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// VNics without an address of this family that ask for this one (`spec.ip`, `spec.ipv6`).
    asked: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// Maximal runs of addresses that are held or asked for: first → last. Makes the search for a free address
    /// independent of how many are taken.
    runs: BTreeMap<IpAddr, IpAddr>,
    /// The ranges by which holders are set up, and how many are by each.
    ranges: BTreeMap<IpNet, usize>,
    /// The gateways by which holders are set up, and how many are by each.
    gateways: BTreeMap<IpAddr, usize>,
    /// The address of each family that was taken last: the search starts behind it, so that an address just freed rests as long as
    /// possible before somebody else answers under it.
    last: BTreeMap<Family, IpAddr>,
}

impl Pool {
    /// Notes a holder.
    pub fn hold(&mut self, held: Held, vnic: &ObjectKey) {
        let ip = held.ip;
        self.held.entry(ip).or_default().insert(vnic.clone());
        *self.ranges.entry(held.range).or_default() += 1;
        if let Some(gateway) = held.gateway {
            *self.gateways.entry(gateway).or_default() += 1;
        }
        self.last.insert(Family::of(ip), ip);
        self.fill(ip);
    }

    /// Forgets a holder.
    pub fn release(&mut self, held: Held, vnic: &ObjectKey) {
        one_less(&mut self.ranges, &held.range);
        if let Some(gateway) = held.gateway {
            one_less(&mut self.gateways, &gateway);
        }
        self.forget(held.ip, vnic);
    }

    /// Notes the MAC of a holder.
    pub fn hold_mac(&mut self, mac: &str, vnic: &ObjectKey) {
        let holders = self.macs.entry(mac.to_owned()).or_default();
        holders.insert(vnic.clone());
    }

    /// Forgets the MAC of a holder.
    pub fn release_mac(&mut self, mac: &str, vnic: &ObjectKey) {
        if let Some(holders) = self.macs.get_mut(mac) {
            holders.remove(vnic);
            if holders.is_empty() {
                self.macs.remove(mac);
            }
        }
    }

    /// The holders of a MAC.
    pub fn holders_of_mac(&self, mac: &str) -> impl Iterator<Item = &ObjectKey> {
        self.macs.get(mac).into_iter().flatten()
    }

    /// Notes a VNic that asks for an address.
    pub fn ask(&mut self, ip: IpAddr, vnic: &ObjectKey) {
        self.asked.entry(ip).or_default().insert(vnic.clone());
        self.fill(ip);
    }

    /// Forgets that a VNic asks for an address.
    pub fn forget(&mut self, ip: IpAddr, vnic: &ObjectKey) {
        for map in [&mut self.held, &mut self.asked] {
            if let Some(vnics) = map.get_mut(&ip) {
                vnics.remove(vnic);
                if vnics.is_empty() {
                    map.remove(&ip);
                }
            }
        }
        if !self.held.contains_key(&ip) && !self.asked.contains_key(&ip) {
            self.clear(ip);
        }
    }

    /// The holders of an address.
    pub fn holders(&self, ip: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.held.get(&ip).into_iter().flatten()
    }

    /// Held addresses in a range, in order.
    pub fn held_in(&self, range: Range) -> impl Iterator<Item = (IpAddr, &ObjectKey)> {
        let within = (range.first <= range.last).then(|| self.held.range(range.first..=range.last));
        within
            .into_iter()
            .flatten()
            .flat_map(|(ip, vnics)| vnics.iter().map(|vnic| (*ip, vnic)))
    }

    /// How many addresses of a range are held.
    pub fn count_in(&self, range: Range) -> usize {
        match range.first <= range.last {
            true => self.held.range(range.first..=range.last).count(),
            false => 0,
        }
    }

    /// The ranges by which holders are set up, sorted.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.ranges.keys().copied()
    }

    /// Whether a holder is set up by this range.
    pub fn uses(&self, range: &IpNet) -> bool {
        self.ranges.contains_key(range)
    }

    /// The gateways by which holders are set up, sorted.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.gateways.keys().copied()
    }

    /// A gateway of the same family other than this one by which holders are set up.
    pub fn other_gateway(&self, gateway: IpAddr) -> Option<IpAddr> {
        let same_family = |other: &IpAddr| Family::of(*other) == Family::of(gateway);
        let mut others = self.gateways.keys().copied().filter(same_family);
        others.find(|other| *other != gateway)
    }

    /// The first held address of the same family that lies below or above `range`.
    pub fn held_outside(&self, range: Range) -> Option<(IpAddr, &ObjectKey)> {
        let family = everything(Family::of(range.first));
        let mut all = self.held.range(family.first..=family.last);
        let lowest = all.clone().next()?;
        let highest = all.next_back()?;
        let outside = [lowest, highest]
            .into_iter()
            .find(|(ip, _)| !range.contains(**ip))?;
        Some((*outside.0, outside.1.first()?))
    }

    /// The address of a family that was taken last.
    pub fn last(&self, family: Family) -> Option<IpAddr> {
        self.last.get(&family).copied()
    }

    /// The first address at or behind `from` that nobody holds or asks for.
    pub fn free_from(&self, from: IpAddr) -> Option<IpAddr> {
        match self.run(from) {
            Some((_, last)) => next(last),
            None => Some(from),
        }
    }

    fn run(&self, ip: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (first, last) = self.runs.range(..=ip).next_back()?;
        (ip <= *last).then_some((*first, *last))
    }

    fn fill(&mut self, ip: IpAddr) {
        if self.run(ip).is_some() {
            return;
        }
        let (mut first, mut last) = (ip, ip);
        if let Some((below, _)) = previous(ip).and_then(|below| self.run(below)) {
            first = below;
        }
        if let Some((above, end)) = next(ip).and_then(|above| self.run(above)) {
            self.runs.remove(&above);
            last = end;
        }
        self.runs.insert(first, last);
    }

    fn clear(&mut self, ip: IpAddr) {
        let Some((first, last)) = self.run(ip) else {
            return;
        };
        self.runs.remove(&first);
        if first < ip
            && let Some(before) = previous(ip)
        {
            self.runs.insert(first, before);
        }
        if ip < last
            && let Some(behind) = next(ip)
        {
            self.runs.insert(behind, last);
        }
    }
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn held(ip: IpAddr) -> Held {
        Held {
            ip,
            range: IpNet::from(ip),
            gateway: None,
        }
    }

    /// Number `n` of a family.
    fn at(family: Family, n: u32) -> IpAddr {
        match family {
            Family::Ipv4 => Ipv4Addr::from_bits(n).into(),
            Family::Ipv6 => Ipv6Addr::from_bits(n.into()).into(),
        }
    }

    proptest! {
        #[test]
        fn free_from_agrees_with_a_plain_search(steps in proptest::collection::vec((any::<bool>(), 0u32..24, any::<bool>()), 0..200)) {
            let vnic = ObjectKey::new("ns", "v");
            let mut pool = Pool::default();
            let mut plain = BTreeSet::new();
            for (second, n, take) in steps {
                let ip = at(Family::ALL[usize::from(second)], n);
                if take {
                    if plain.insert(ip) {
                        pool.hold(held(ip), &vnic);
                        prop_assert_eq!(pool.last(Family::of(ip)), Some(ip));
                    }
                } else if plain.remove(&ip) {
                    pool.release(held(ip), &vnic);
                }
                for family in Family::ALL {
                    for from in 0..26 {
                        let expected = (from..).map(|n| at(family, n)).find(|ip| !plain.contains(ip));
                        prop_assert_eq!(pool.free_from(at(family, from)), expected);
                    }
                    let of_family = plain.iter().filter(|ip| Family::of(**ip) == family);
                    prop_assert_eq!(pool.count_in(everything(family)), of_family.count());
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_address_space_do_not_overflow() {
        for family in Family::ALL {
            let all = everything(family);
            let vnic = ObjectKey::new("ns", "v");
            let mut pool = Pool::default();
            pool.hold(held(all.last), &vnic);
            pool.hold(held(all.first), &vnic);
            assert_eq!(pool.free_from(all.last), None);
            assert_eq!(pool.free_from(all.first), next(all.first));
            pool.release(held(all.last), &vnic);
            assert_eq!(pool.free_from(all.last), Some(all.last));
        }
    }
}
