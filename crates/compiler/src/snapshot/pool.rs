//! The addresses of one Subnet that are held or asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use ycloud_api::VNic;

use crate::owner::ObjectKey;

/// How a VNic is set up, by its status: what its holder was told, and goes on to use until the VNic is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// `status.ip`.
    pub ip: Ipv4Addr,
    /// The range that the holder takes for its own link, by `status.prefixLength`.
    pub range: Ipv4Net,
    /// `status.gateway`.
    gateway: Option<Ipv4Addr>,
}

impl Held {
    /// `None` while the VNic has no address.
    pub fn of(vnic: &VNic) -> Option<Self> {
        let status = vnic.status.as_ref()?;
        let ip = status.ip.as_deref()?.parse().ok()?;
        let length = status
            .prefix_length
            .and_then(|length| u8::try_from(length).ok());
        let length = length.filter(|length| (8..=30).contains(length));
        Some(Self {
            ip,
            range: Ipv4Net::new_assert(ip, length.unwrap_or(32)).trunc(),
            gateway: status
                .gateway
                .as_deref()
                .and_then(|gateway| gateway.parse().ok()),
        })
    }
}

/// Who holds which address of a Subnet.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Holders (`status.ip`) by address. More than one only if somebody wrote a status by hand.
    held: BTreeMap<Ipv4Addr, BTreeSet<ObjectKey>>,
    /// VNics without an address that ask for this one (`spec.ip`).
    asked: BTreeMap<Ipv4Addr, BTreeSet<ObjectKey>>,
    /// Maximal runs of addresses that are held or asked for: first → last. Makes the search for a free address
    /// independent of how many are taken.
    runs: BTreeMap<u32, u32>,
    /// The ranges by which holders are set up, and how many are by each.
    ranges: BTreeMap<Ipv4Net, usize>,
    /// The gateways by which holders are set up, and how many are by each.
    gateways: BTreeMap<Ipv4Addr, usize>,
    /// The address that was taken last: the search starts behind it, so that an address just freed rests as long as
    /// possible before somebody else answers under it.
    last: Option<Ipv4Addr>,
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
        self.last = Some(ip);
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

    /// Notes a VNic that asks for an address.
    pub fn ask(&mut self, ip: Ipv4Addr, vnic: &ObjectKey) {
        self.asked.entry(ip).or_default().insert(vnic.clone());
        self.fill(ip);
    }

    /// Forgets that a VNic asks for an address.
    pub fn forget(&mut self, ip: Ipv4Addr, vnic: &ObjectKey) {
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
    pub fn holders(&self, ip: Ipv4Addr) -> impl Iterator<Item = &ObjectKey> {
        self.held.get(&ip).into_iter().flatten()
    }

    /// Held addresses in `first..=last`, in order.
    pub fn held_within(
        &self,
        first: Ipv4Addr,
        last: Ipv4Addr,
    ) -> impl Iterator<Item = (Ipv4Addr, &ObjectKey)> {
        let range = (first <= last).then(|| self.held.range(first..=last));
        range
            .into_iter()
            .flatten()
            .flat_map(|(ip, vnics)| vnics.iter().map(|vnic| (*ip, vnic)))
    }

    /// The ranges by which holders are set up, sorted.
    pub fn ranges(&self) -> impl Iterator<Item = Ipv4Net> {
        self.ranges.keys().copied()
    }

    /// Whether a holder is set up by this range.
    pub fn uses(&self, range: &Ipv4Net) -> bool {
        self.ranges.contains_key(range)
    }

    /// A gateway other than this one by which holders are set up.
    pub fn other_gateway(&self, gateway: Ipv4Addr) -> Option<Ipv4Addr> {
        self.gateways
            .keys()
            .copied()
            .find(|other| *other != gateway)
    }

    /// Number of addresses held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The first held address below `first` or above `last`.
    pub fn held_outside(&self, first: Ipv4Addr, last: Ipv4Addr) -> Option<(Ipv4Addr, &ObjectKey)> {
        let (lowest, highest) = (self.held.first_key_value()?, self.held.last_key_value()?);
        let outside = if *lowest.0 < first {
            lowest
        } else if *highest.0 > last {
            highest
        } else {
            return None;
        };
        Some((*outside.0, outside.1.first()?))
    }

    /// The address that was taken last.
    pub fn last(&self) -> Option<Ipv4Addr> {
        self.last
    }

    /// The first address at or behind `from` that nobody holds or asks for.
    pub fn free_from(&self, from: Ipv4Addr) -> Option<Ipv4Addr> {
        match self.run(from.to_bits()) {
            Some((_, last)) => last.checked_add(1).map(Ipv4Addr::from_bits),
            None => Some(from),
        }
    }

    fn run(&self, ip: u32) -> Option<(u32, u32)> {
        let (first, last) = self.runs.range(..=ip).next_back()?;
        (ip <= *last).then_some((*first, *last))
    }

    fn fill(&mut self, ip: Ipv4Addr) {
        let ip = ip.to_bits();
        if self.run(ip).is_some() {
            return;
        }
        let (mut first, mut last) = (ip, ip);
        if let Some((below, _)) = ip.checked_sub(1).and_then(|below| self.run(below)) {
            first = below;
        }
        if let Some((above, end)) = ip.checked_add(1).and_then(|above| self.run(above)) {
            self.runs.remove(&above);
            last = end;
        }
        self.runs.insert(first, last);
    }

    fn clear(&mut self, ip: Ipv4Addr) {
        let ip = ip.to_bits();
        let Some((first, last)) = self.run(ip) else {
            return;
        };
        self.runs.remove(&first);
        if first < ip {
            self.runs.insert(first, ip - 1);
        }
        if ip < last {
            self.runs.insert(ip + 1, last);
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

    fn held(ip: Ipv4Addr) -> Held {
        Held {
            ip,
            range: Ipv4Net::from(ip),
            gateway: None,
        }
    }

    proptest! {
        #[test]
        fn free_from_agrees_with_a_plain_search(steps in proptest::collection::vec((0u32..24, any::<bool>()), 0..200)) {
            let vnic = ObjectKey::new("ns", "v");
            let mut pool = Pool::default();
            let mut plain = BTreeSet::new();
            for (ip, take) in steps {
                let address = held(Ipv4Addr::from_bits(ip));
                if take {
                    if plain.insert(ip) {
                        pool.hold(address, &vnic);
                    }
                } else if plain.remove(&ip) {
                    pool.release(address, &vnic);
                }
                for from in 0..26 {
                    let expected = (from..).find(|ip| !plain.contains(ip)).map(Ipv4Addr::from_bits);
                    prop_assert_eq!(pool.free_from(Ipv4Addr::from_bits(from)), expected);
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_address_space_do_not_overflow() {
        let vnic = ObjectKey::new("ns", "v");
        let mut pool = Pool::default();
        pool.hold(held(Ipv4Addr::BROADCAST), &vnic);
        pool.hold(held(Ipv4Addr::UNSPECIFIED), &vnic);
        assert_eq!(pool.free_from(Ipv4Addr::BROADCAST), None);
        assert_eq!(
            pool.free_from(Ipv4Addr::UNSPECIFIED),
            Some(Ipv4Addr::from_bits(1))
        );
        pool.release(held(Ipv4Addr::BROADCAST), &vnic);
        assert_eq!(
            pool.free_from(Ipv4Addr::BROADCAST),
            Some(Ipv4Addr::BROADCAST)
        );
    }
}
