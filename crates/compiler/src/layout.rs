//! What of the system range is for what. Every address here follows from a slot or a number: none is recorded.
//!
//! | range of 100.64.0.0/10 | |
//! |---|---|
//! | 100.64.0.0/16 | join switch, see [`Settings::join_cidr`] |
//! | 100.68.0.0/16 | probe network of each Vpc: its router .0.1, probers with the lower 16 bits of their join address |
//! | 100.69.0.0/24 | alias link of each Vpc: its router .1, alias router k .10 + k |
//! | 100.70.0.0/16 | where chassis are asked whether they are there, on the default Vpc's probe network: router .0.1, chassis as above |
//! | 100.72.0.0/13 | transit switch of each EipGateway; in the upper half the addresses behind which Vpcs' tenants appear |
//! | 100.80.0.0/14 | switch between service gateway k of an EipGateway and the alias routers |
//! | 100.84.0.0/16, 100.85.0.0/16 | between the default Vpc's router and those of the nodes' ways back, with the lower 16 bits of their join addresses |
//! | 100.96.0.0/11 | aliases: one of each backend of a Service over several Vpcs |
//!
//! The probe networks' IPv6 range is the /64 of the IPv6 system range whose fourth group is 44 (hexadecimal), see
//! [`Settings::probe_ipv6_range`].
//!
//! Each EipGateway has switches of its own, and each Vpc an alias link and a probe network of its own, so these may use the same ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use ycloud_api::address::Family;
use ycloud_api::network_probe::{IPV6_PREFIX_LENGTH, PREFIX_LENGTH};

use crate::snapshot::Settings;

/// Room for Vpcs: slots `0..VPCS`.
pub const VPCS: u32 = 1 << 17;
/// Room for aliases: slots `0..ALIASES`.
pub const ALIASES: u32 = (1 << 21) - 2;
/// Fourth group of the probe networks' IPv6 range.
const PROBE_GROUP: u128 = 0x44;

/// The system range, large enough to be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    base: u32,
}

impl Settings {
    /// How the system range is divided; `None` if it is smaller than a /10.
    pub fn layout(&self) -> Option<Layout> {
        let base = self.system_cidr.network().to_bits();
        (self.system_cidr.prefix_len() <= 10).then_some(Layout { base })
    }

    /// The range of the probe networks in IPv6; `None` if the IPv6 system range is smaller than a /57, which has no room
    /// for it.
    pub fn probe_ipv6_range(&self) -> Option<Ipv6Net> {
        let system = self.system_ipv6_cidr;
        let base = system.network().to_bits() | PROBE_GROUP << 64;
        let range = Ipv6Net::new_assert(Ipv6Addr::from_bits(base), IPV6_PREFIX_LENGTH);
        (system.prefix_len() <= 57).then_some(range)
    }

    /// The address of a family by which a chassis asks NetworkProbes, in every Vpc: `offset` is the lower 16 bits of its
    /// IPv4 join address. `None`: the system range of that family is too small.
    pub fn probe_source(&self, family: Family, offset: u16) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => {
                let range = self.layout()?.probe_range();
                let bits = range.network().to_bits() | u32::from(offset);
                Some(Ipv4Addr::from_bits(bits).into())
            }
            Family::Ipv6 => {
                let range = self.probe_ipv6_range()?;
                let bits = range.network().to_bits() | u128::from(offset);
                Some(Ipv6Addr::from_bits(bits).into())
            }
        }
    }
}

impl Layout {
    fn at(self, second: u32, rest: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + ((second - 64) << 16) + rest)
    }

    fn range(self, second: u32, length: u8) -> Ipv4Net {
        Ipv4Net::new_assert(self.at(second, 0), length)
    }

    /// The range of the probe networks, the same in each Vpc.
    pub fn probe_range(self) -> Ipv4Net {
        self.range(68, PREFIX_LENGTH)
    }

    /// The range in which chassis are asked whether they are there.
    pub fn chassis_range(self) -> Ipv4Net {
        self.range(70, PREFIX_LENGTH)
    }

    /// Where a chassis is asked: `offset` as for [`Settings::probe_source`].
    pub fn chassis(self, offset: u16) -> Ipv4Addr {
        self.at(70, u32::from(offset))
    }

    /// The range that holds the probe networks' and the chassis' own.
    pub fn probing_range(self) -> Ipv4Net {
        self.range(68, 14)
    }

    /// The Vpc's router on its alias link.
    pub fn alias_link(self) -> Ipv4Addr {
        self.at(69, 1)
    }

    /// Alias router `k` on the Vpc's alias link.
    pub fn alias_link_router(self, k: u32) -> Ipv4Addr {
        self.at(69, 10 + k)
    }

    /// The EipGateway on its transit switch.
    pub fn transit_gateway(self) -> Ipv4Addr {
        self.at(72, 1)
    }

    /// Service gateway `k` on the transit switch.
    pub fn transit_service_gateway(self, k: u32) -> Ipv4Addr {
        self.at(72, (1 << 8) + k)
    }

    /// The Vpc of this slot on the transit switch.
    pub fn transit_vpc(self, slot: u32) -> Ipv4Addr {
        self.at(72, (2 << 8) + slot)
    }

    /// Behind which address the tenants of the Vpc of this slot appear on the transit switch.
    pub fn snat(self, slot: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.transit_vpc(slot).to_bits() + (1 << 18))
    }

    /// All addresses of [`Self::snat`].
    pub fn snat_range(self) -> Ipv4Net {
        self.range(76, 14)
    }

    /// Service gateway `k` towards the alias routers.
    pub fn service_gateway(self, k: u32) -> Ipv4Addr {
        self.at(80, k)
    }

    /// The alias router of the Vpc of this slot towards its service gateway.
    pub fn alias_router(self, slot: u32) -> Ipv4Addr {
        self.at(80, (2 << 8) + slot)
    }

    /// Behind which address clients appear whom service gateway `k` serves. No interface has it, nothing answers on it.
    pub fn force_snat(self, k: u32) -> Ipv4Addr {
        self.at(83, (255 << 8) + k)
    }

    /// All addresses of [`Self::force_snat`].
    pub fn force_snat_range(self) -> Ipv4Net {
        Ipv4Net::new_assert(self.force_snat(0), 24)
    }

    /// A router of a node's way back, where packets of EIPs come to it: `offset` as for [`Settings::probe_source`].
    pub fn back_eip(self, offset: u16) -> Ipv4Addr {
        self.at(84, u32::from(offset))
    }

    /// Likewise where Pods are.
    pub fn back_pods(self, offset: u16) -> Ipv4Addr {
        self.at(85, u32::from(offset))
    }

    /// The alias of this slot.
    pub fn alias(self, slot: u32) -> Ipv4Addr {
        self.at(96, 1 + slot)
    }
}

/// Prefix length of the switches between the default Vpc's router and those of the nodes' ways back.
pub const BACK_LENGTH: u8 = 16;
/// Prefix length of the alias links.
pub const ALIAS_LINK_LENGTH: u8 = 24;
/// Prefix length of the transit switches.
pub const TRANSIT_LENGTH: u8 = 13;
/// Prefix length of the switches between service gateways and alias routers.
pub const SERVICE_LENGTH: u8 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_in_their_ranges() {
        let layout = Settings::default().layout().unwrap();
        let text = |ip: Ipv4Addr| ip.to_string();
        assert_eq!(text(layout.alias_link_router(8)), "100.69.0.18");
        assert_eq!(text(layout.chassis(0x0107)), "100.70.1.7");
        let both = layout.probing_range();
        assert!(both.contains(&layout.probe_range()) && both.contains(&layout.chassis_range()));
        assert_eq!(text(layout.transit_gateway()), "100.72.0.1");
        assert!(!both.contains(&layout.transit_gateway()));
        assert_eq!(text(layout.transit_service_gateway(2)), "100.72.1.2");
        assert_eq!(text(layout.transit_vpc(0)), "100.72.2.0");
        assert!(layout.transit_vpc(VPCS - 1) < layout.snat_range().network());
        assert_eq!(text(layout.snat(0)), "100.76.2.0");
        assert!(layout.snat_range().contains(&layout.snat(VPCS - 1)));
        assert_eq!(text(layout.service_gateway(1)), "100.80.0.1");
        assert!(layout.alias_router(VPCS - 1) < layout.force_snat(1));
        assert_eq!(text(layout.force_snat(8)), "100.83.255.8");
        assert!(layout.force_snat(255) < layout.back_eip(0));
        assert_eq!(text(layout.back_eip(0x0107)), "100.84.1.7");
        assert_eq!(text(layout.back_pods(0xfffe)), "100.85.255.254");
        assert_eq!(text(layout.alias(0)), "100.96.0.1");
        assert_eq!(text(layout.alias(ALIASES - 1)), "100.127.255.254");
    }

    #[test]
    fn a_prober_has_its_join_address_s_lower_bits() {
        let settings = Settings::default();
        let source = |settings: &Settings, family| {
            let source = settings.probe_source(family, 0x0107);
            source.map(|ip| ip.to_string())
        };
        assert_eq!(
            source(&settings, Family::Ipv4).as_deref(),
            Some("100.68.1.7")
        );
        assert_eq!(
            source(&settings, Family::Ipv6).as_deref(),
            Some("fd00:100:64:44::107")
        );
        let small = Settings {
            system_ipv6_cidr: Ipv6Net::new_assert("fd00:100:64::".parse().unwrap(), 58),
            ..settings
        };
        assert_eq!(source(&small, Family::Ipv6), None);
    }

    #[test]
    fn a_small_system_range_is_not_divided() {
        let settings = Settings {
            system_cidr: Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 11),
            ..Settings::default()
        };
        assert_eq!(settings.layout(), None);
    }
}
