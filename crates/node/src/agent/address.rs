//! Addresses of a VNic: from its status, and as Open vSwitch's `external_ids` remember them.

use ipnet::IpNet;
use ycloud_api::vnic::{VNicIpv6, VNicStatus};

use super::family::{Family, is_usable};
use crate::protocol::{Address, Addresses};

/// Keys of address and gateway in `external_ids`.
fn keys(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("ycloud-ip", "ycloud-gateway"),
        Family::Ipv6 => ("ycloud-ipv6", "ycloud-gateway-ipv6"),
    }
}

/// Those of a status that the kernel can use.
pub fn of(status: &VNicStatus) -> Option<Addresses> {
    let address = |ip: &str, prefix: i32, gateway: &str| {
        let address = Address {
            ip: ip.parse().ok()?,
            prefix_length: u8::try_from(prefix).ok()?,
            gateway: gateway.parse().ok()?,
        };
        is_usable(address.ip).then_some(address)
    };
    let ipv4 = || {
        let gateway = status.gateway.as_ref()?;
        address(status.ip.as_ref()?, status.prefix_length?, gateway)
    };
    let ipv6 = || {
        let VNicIpv6 {
            ip,
            prefix_length,
            gateway,
        } = status.ipv6.as_ref()?;
        address(ip, *prefix_length, gateway)
    };
    Addresses::of(ipv4(), ipv6())
}

/// What is to be remembered.
pub fn external_ids(addresses: &Addresses) -> impl Iterator<Item = (String, String)> {
    addresses.iter().flat_map(|address| {
        let (ip, gateway) = keys(Family::of(address.ip));
        [
            (ip.to_owned(), address.net().to_string()),
            (gateway.to_owned(), address.gateway.to_string()),
        ]
    })
}

/// What was remembered; `None` if that is nothing, or somebody has edited it beyond recognition.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Option<Addresses> {
    let of_family = |family| {
        let (ip, gateway) = keys(family);
        let net: IpNet = get(ip)?.parse().ok()?;
        Some(Address {
            ip: net.addr(),
            prefix_length: net.prefix_len(),
            gateway: get(gateway)?.parse().ok()?,
        })
    };
    Addresses::of(of_family(Family::Ipv4), of_family(Family::Ipv6))
}
