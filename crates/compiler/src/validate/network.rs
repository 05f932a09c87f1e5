//! A Subnet's spec, read: its ranges, one of each family at most.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use ycloud_api::address::{Family, Range};
use ycloud_api::condition::reason;
use ycloud_api::subnet::SubnetIpv6;
use ycloud_api::{Subnet, SubnetSpec, key};

use crate::address::{everything, merge, single, usable};
use crate::compile::Rejection;
use crate::snapshot::{Pool, Settings};
use crate::validate::subnet::meet;

/// A Subnet's spec, read; or what was read of one before, and is still in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The Vpc that it names.
    pub vpc: String,
    /// Its ranges, IPv4 first; one or two, of different families.
    cidrs: Vec<Cidr>,
    /// `excludeIPs`, as they are written.
    pub exclude_ips: Vec<String>,
}

/// One range of a Subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cidr {
    /// The range.
    pub range: IpNet,
    /// The router's address.
    pub gateway: IpAddr,
    /// Ranges inside the usable ones that are never given out, the gateway among them; sorted, apart from each other.
    excluded: Vec<Range>,
}

/// What a range must be: for `cidr` fields of either family.
struct Kind {
    family: Family,
    /// Where its fields stand.
    at: &'static str,
    /// Shortest and longest prefix length.
    lengths: (u8, u8),
    example: &'static str,
    /// What addresses outside the usable ones are.
    unusable: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        family: Family::Ipv4,
        at: "spec",
        lengths: (8, 30),
        example: "10.0.1.0/24",
        unusable: "is the network or broadcast address of",
    },
    Kind {
        family: Family::Ipv6,
        at: "spec.ipv6",
        lengths: (64, 126),
        example: "fd00:10:0:1::/64",
        unusable: "is the address of every router of",
    },
];

/// IPv4 ranges of which no address is a host's: this network, loopback, link-local, multicast, reserved. Source: RFC 6890,
/// RFC 5771.
const NOBODYS: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Whether an IPv4 range has addresses that no host can have.
pub(crate) fn is_nobodys(range: impl Into<IpNet>) -> bool {
    let range = range.into();
    NOBODYS.into_iter().any(|other| meet(other, range))
}

impl Kind {
    fn of(family: Family) -> &'static Self {
        match family {
            Family::Ipv4 => &KINDS[0],
            Family::Ipv6 => &KINDS[1],
        }
    }

    /// Whether a range may be a Subnet's.
    fn permits(&self, range: IpNet) -> bool {
        let (shortest, longest) = self.lengths;
        let length = range.prefix_len();
        let special = match range.addr() {
            IpAddr::V4(_) => is_nobodys(range),
            IpAddr::V6(ip) => {
                ip.is_unicast_link_local() || ip.is_multicast() || ip.to_ipv4_mapped().is_some()
            }
        };
        Family::of(range.addr()) == self.family
            && range.trunc() == range
            && (shortest..=longest).contains(&length)
            && !special
    }
}

/// Where the field of a family stands in a Subnet: `spec.cidr`, `spec.ipv6.cidr`.
pub(crate) fn field(family: Family, name: &str) -> String {
    format!("{}.{name}", Kind::of(family).at)
}

/// Prefix length of a range as a status names it; `None` if no range of the family has it.
pub(crate) fn length(family: Family, length: i32) -> Option<u8> {
    let (shortest, longest) = Kind::of(family).lengths;
    let length = u8::try_from(length).ok()?;
    (shortest..=longest).contains(&length).then_some(length)
}

impl Network {
    /// Reads a Subnet's spec.
    ///
    /// # Errors
    /// No range at all; an invalid `cidr`, `gateway` or `excludeIPs`.
    pub fn read(settings: &Settings, name: &str, spec: &SubnetSpec) -> Result<Self, Rejection> {
        let invalid =
            |message: String| Rejection::new(reason::INVALID, format!("Subnet {name}: {message}"));
        let ipv4 = (spec.cidr.as_ref(), spec.gateway.as_ref());
        let ipv6 = spec.ipv6.as_ref();
        let ipv6 = (
            ipv6.map(|ipv6| &ipv6.cidr),
            ipv6.and_then(|ipv6| ipv6.gateway.as_ref()),
        );
        let mut cidrs = Vec::new();
        for (family, (cidr, gateway)) in Family::ALL.into_iter().zip([ipv4, ipv6]) {
            if let Some(cidr) = cidr {
                let gateway = gateway.map(String::as_str);
                let read = Cidr::read(Kind::of(family), cidr, gateway).map_err(invalid)?;
                cidrs.push(read);
            }
        }
        if cidrs.is_empty() {
            return Err(invalid(
                "has neither spec.cidr nor spec.ipv6.cidr; set one or both".to_owned(),
            ));
        }
        let mut network = Self {
            vpc: spec.vpc.clone(),
            cidrs,
            exclude_ips: spec.exclude_ips.clone(),
        };
        for text in &spec.exclude_ips {
            network.exclude(text).map_err(invalid)?;
        }
        network.finish(settings, name);
        Ok(network)
    }

    /// The network that a Subnet's status records as in force; `None` if it records none.
    pub fn recorded(settings: &Settings, name: &str, subnet: &Subnet) -> Option<Self> {
        let status = subnet.status.as_ref()?;
        let ipv6 = status.ipv6.as_ref().and_then(|ipv6| {
            Some(SubnetIpv6 {
                cidr: ipv6.cidr.clone()?,
                gateway: ipv6.gateway.clone(),
            })
        });
        let spec = SubnetSpec {
            vpc: subnet.spec.vpc.clone(),
            gateway: status.gateway.clone().filter(|_| status.cidr.is_some()),
            cidr: status.cidr.clone(),
            ipv6,
            exclude_ips: status.exclude_ips.clone(),
            namespaces: Vec::new(),
        };
        Self::read(settings, name, &spec).ok()
    }

    /// The network that the holders of a Subnet's addresses were told of: what is known of it where no status records
    /// it. What the spec excludes stays so, as far as it is readable. `None` while there are none.
    pub(crate) fn of_holders(
        settings: &Settings,
        name: &str,
        spec: &SubnetSpec,
        pool: &Pool,
    ) -> Option<Self> {
        let cidrs = Family::ALL.into_iter().filter_map(|family| {
            let of_family = |ip: IpAddr| Family::of(ip) == family;
            let mut gateways = pool.gateways().filter(|ip| of_family(*ip)).peekable();
            gateways.peek()?;
            let ranges = pool.ranges().filter(|range| of_family(range.addr()));
            let ranges = ranges.filter(|range| Kind::of(family).permits(*range));
            let range = ranges.min_by_key(IpNet::prefix_len)?;
            let usable = usable(range);
            let gateway = gateways.find(|ip| usable.contains(*ip))?;
            Some(Cidr {
                range,
                gateway,
                excluded: vec![single(gateway)],
            })
        });
        let cidrs: Vec<Cidr> = cidrs.collect();
        if cidrs.is_empty() {
            return None;
        }
        let mut network = Self {
            vpc: spec.vpc.clone(),
            cidrs,
            exclude_ips: Vec::new(),
        };
        for text in &spec.exclude_ips {
            if network.exclude(text).is_ok() {
                network.exclude_ips.push(text.clone());
            }
        }
        network.finish(settings, name);
        Some(network)
    }

    /// Whether it has all addresses of a pool.
    pub(crate) fn has_all(&self, pool: &Pool) -> bool {
        Family::ALL
            .into_iter()
            .all(|family| match self.cidr(family) {
                Some(cidr) => pool.held_outside(cidr.usable()).is_none(),
                None => pool.held_in(everything(family)).next().is_none(),
            })
    }

    /// Excludes what nobody may have on the join network, and puts the excluded ranges in order.
    fn finish(&mut self, settings: &Settings, name: &str) {
        let join = name == key::JOIN_SUBNET && self.vpc == key::DEFAULT_VPC;
        for cidr in &mut self.cidrs {
            if join {
                let family = Family::of(cidr.gateway);
                let unused = settings.unused_join_address(family);
                cidr.excluded.push(single(unused));
            }
            cidr.excluded = merge(std::mem::take(&mut cidr.excluded), usable(cidr.range));
        }
    }

    fn exclude(&mut self, text: &str) -> Result<(), String> {
        let range: Range = text
            .parse()
            .map_err(|error| format!("spec.excludeIPs: {error}"))?;
        let within = |cidr: &&mut Cidr| {
            cidr.range.contains(&range.first) && cidr.range.contains(&range.last)
        };
        let Some(cidr) = self.cidrs.iter_mut().find(within) else {
            return Err(format!(
                "spec.excludeIPs: {text} lies outside {self}; leave it out or correct it"
            ));
        };
        cidr.excluded.push(range);
        Ok(())
    }

    /// Its ranges, IPv4 first.
    pub fn cidrs(&self) -> impl Iterator<Item = &Cidr> {
        self.cidrs.iter()
    }

    /// Its range of a family.
    pub fn cidr(&self, family: Family) -> Option<&Cidr> {
        self.cidrs().find(|cidr| cidr.family() == family)
    }

    /// Its IPv4 range.
    pub fn ipv4(&self) -> Option<Ipv4Net> {
        match self.cidr(Family::Ipv4)?.range {
            IpNet::V4(range) => Some(range),
            IpNet::V6(_) => None,
        }
    }

    /// Whether it has all addresses of `range`.
    pub fn covers(&self, range: IpNet) -> bool {
        self.cidrs().any(|cidr| cidr.range.contains(&range))
    }

    /// Whether it has an address of `range`.
    pub fn meets(&self, range: impl Into<IpNet>) -> bool {
        let range = range.into();
        self.cidrs().any(|cidr| meet(cidr.range, range))
    }
}

impl fmt::Display for Network {
    /// Its ranges with a comma between: `10.0.1.0/24, fd00::/64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, cidr) in self.cidrs.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{}", cidr.range)?;
        }
        Ok(())
    }
}

impl Cidr {
    fn read(kind: &Kind, text: &str, gateway: Option<&str>) -> Result<Self, String> {
        let parsed: Option<IpNet> = text.parse().ok();
        let range = parsed.filter(|range| kind.permits(*range)).ok_or_else(|| {
            let (shortest, longest) = kind.lengths;
            format!(
                "{}.cidr {text:?} is no {} network of hosts with a prefix length of {shortest} to {longest} and no host bits set; write one such as {}",
                kind.at, kind.family, kind.example
            )
        })?;
        let hosts = usable(range);
        let gateway = match gateway {
            None => hosts.first,
            Some(text) => {
                let parsed: Option<IpAddr> = text.parse().ok();
                parsed.filter(|ip| hosts.contains(*ip)).ok_or_else(|| {
                    format!(
                        "{}.gateway {text:?} is no usable address of {range}; choose one of {} to {}",
                        kind.at, hosts.first, hosts.last
                    )
                })?
            }
        };
        Ok(Self {
            range,
            gateway,
            excluded: vec![single(gateway)],
        })
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.gateway)
    }

    /// The addresses that hosts may have.
    pub fn usable(&self) -> Range {
        usable(self.range)
    }

    /// Why an address cannot be given out, as words that go before "Subnet x". `None`: it can.
    pub fn reserved(&self, ip: IpAddr) -> Option<&'static str> {
        if !self.range.contains(&ip) {
            Some("lies outside")
        } else if !self.usable().contains(ip) {
            Some(Kind::of(self.family()).unusable)
        } else if ip == self.gateway {
            Some("is the gateway of")
        } else if self.excluded_until(ip).is_some() {
            Some("is excluded by spec.excludeIPs of")
        } else {
            None
        }
    }

    /// If the address is never given out: the last address of the run of such addresses.
    pub fn excluded_until(&self, ip: IpAddr) -> Option<IpAddr> {
        let at = self.excluded.partition_point(|range| range.last < ip);
        let range = self.excluded.get(at)?;
        (range.first <= ip).then_some(range.last)
    }

    /// The runs of usable addresses that are never given out.
    pub fn excluded(&self) -> impl Iterator<Item = &Range> {
        self.excluded.iter()
    }
}
