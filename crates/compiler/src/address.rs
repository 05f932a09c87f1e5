//! Arithmetic on addresses of either family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use ycloud_api::address::{Family, Range};

/// The address behind this one; `None` behind the last one of the family.
pub(crate) fn next(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().checked_add(1)?).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().checked_add(1)?).into(),
    })
}

/// The address before this one; `None` before the first one of the family.
pub(crate) fn previous(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().checked_sub(1)?).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().checked_sub(1)?).into(),
    })
}

/// How many addresses a range has; at most `u128::MAX`.
pub(crate) fn count(range: &Range) -> u128 {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    (bits(range.last) - bits(range.first)).saturating_add(1)
}

/// A range of one address.
pub(crate) fn single(ip: IpAddr) -> Range {
    Range {
        first: ip,
        last: ip,
    }
}

/// All addresses of a family.
pub(crate) fn everything(family: Family) -> Range {
    match family {
        Family::Ipv4 => Range {
            first: Ipv4Addr::UNSPECIFIED.into(),
            last: Ipv4Addr::BROADCAST.into(),
        },
        Family::Ipv6 => Range {
            first: Ipv6Addr::UNSPECIFIED.into(),
            last: Ipv6Addr::from_bits(u128::MAX).into(),
        },
    }
}

/// The addresses that hosts of a network may have. IPv4: those between network and broadcast address. IPv6: all but the
/// first one, which is every router's (RFC 4291 §2.6.1).
pub(crate) fn usable(range: IpNet) -> Range {
    match range {
        IpNet::V4(range) => {
            let (first, last) = usable_ipv4(range);
            Range {
                first: first.into(),
                last: last.into(),
            }
        }
        IpNet::V6(range) => Range {
            first: Ipv6Addr::from_bits(range.network().to_bits() | 1).into(),
            last: range.broadcast().into(),
        },
    }
}

/// The first and the last address between network and broadcast address.
pub(crate) fn usable_ipv4(range: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    (
        Ipv4Addr::from_bits(range.network().to_bits() + 1),
        Ipv4Addr::from_bits(range.broadcast().to_bits() - 1),
    )
}

/// Sorts ranges of one family, joins those that touch, and cuts off what lies outside `within`.
pub(crate) fn merge(mut ranges: Vec<Range>, within: Range) -> Vec<Range> {
    ranges.sort();
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        let range = Range {
            first: range.first.max(within.first),
            last: range.last.min(within.last),
        };
        if range.first > range.last {
            continue;
        }
        match merged.last_mut() {
            Some(before) if next(before.last).is_none_or(|behind| range.first <= behind) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The addresses in a text with commas between them; what is none is passed over.
pub(crate) fn listed(text: Option<&str>) -> impl Iterator<Item = IpAddr> {
    let items = text.unwrap_or_default().split(',');
    items.filter_map(|ip| ip.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn the_ends_of_a_family_have_no_neighbours() {
        for family in Family::ALL {
            let all = everything(family);
            assert_eq!((previous(all.first), next(all.last)), (None, None));
            assert_eq!(next(all.first).and_then(previous), Some(all.first));
        }
        assert_eq!(count(&everything(Family::Ipv4)), 1 << 32);
        assert_eq!(count(&everything(Family::Ipv6)), u128::MAX);
    }

    #[test]
    fn hosts_have_neither_the_network_nor_the_broadcast_address() {
        let of = |text: &str| usable(text.parse().unwrap());
        assert_eq!(of("10.0.1.0/30"), range("10.0.1.1-10.0.1.2"));
        assert_eq!(of("fd00::/126"), range("fd00::1-fd00::3"));
        assert_eq!(of("fd00::/64"), range("fd00::1-fd00::ffff:ffff:ffff:ffff"));
    }

    #[test]
    fn ranges_that_touch_become_one() {
        for [a, b, c, far, within, merged] in [
            [
                "10.0.0.5-10.0.0.6",
                "10.0.0.0-10.0.0.4",
                "10.0.0.2",
                "10.0.0.200-10.0.0.255",
                "10.0.0.1-10.0.0.254",
                "10.0.0.1-10.0.0.6",
            ],
            [
                "fd00::5-fd00::6",
                "fd00::-fd00::4",
                "fd00::2",
                "fd00::c8-fd00::ff",
                "fd00::1-fd00::fe",
                "fd00::1-fd00::6",
            ],
        ] {
            let all = [far, a, b, c].map(range).to_vec();
            let joined = merge(all, range(within));
            assert_eq!(joined[0], range(merged));
            assert_eq!(joined[1].last, range(within).last);
            assert_eq!(joined.len(), 2);
        }
    }
}
