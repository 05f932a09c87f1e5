//! Frames that say where an address is: pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// EtherTypes: ARP (RFC 826), RARP (RFC 903), IPv6 (RFC 2464).
const ARP: [u8; 2] = [0x08, 0x06];
const RARP: [u8; 2] = [0x80, 0x35];
const IPV6: [u8; 2] = [0x86, 0xdd];
const BROADCAST: [u8; 6] = [0xff; 6];

/// What announces that `address` is at `mac`: a gratuitous ARP request (RFC 5227 §3), an unsolicited neighbor advertisement (RFC
/// 4861 §7.2.6), or, without an address, a RARP request, from which switches learn where the MAC is.
pub fn announcement(mac: [u8; 6], address: Option<IpAddr>) -> Vec<u8> {
    match address {
        Some(IpAddr::V4(address)) => arp(ARP, 1, mac, address, [0; 6]),
        Some(IpAddr::V6(address)) => advertisement(mac, address),
        None => arp(RARP, 3, mac, Ipv4Addr::UNSPECIFIED, mac),
    }
}

fn arp(kind: [u8; 2], operation: u8, mac: [u8; 6], address: Ipv4Addr, target: [u8; 6]) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &mac, &kind].concat();
    // Ethernet, IPv4, their lengths.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(target);
    frame.extend(address.octets());
    frame
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Neighbor advertisement; flags router and override; the target, and option 2: its MAC.
    let mut body = vec![136, 0, 0, 0, 0xa0, 0, 0, 0];
    body.extend(address.octets());
    body.extend([2, 1]);
    body.extend(mac);
    let sum = checksum(address, everybody, &body);
    body[2..4].copy_from_slice(&sum);
    let mut frame = [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &IPV6].concat();
    // Version 6; the body's length, ICMPv6, hop limit 255.
    frame.extend([0x60, 0, 0, 0, 0, body.len() as u8, 58, 255]);
    frame.extend(address.octets());
    frame.extend(everybody.octets());
    frame.extend(body);
    frame
}

/// ICMPv6's checksum, RFC 4443 §2.3, of a body of an even length.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> [u8; 2] {
    let pseudo = [0, 0, 0, body.len() as u8, 0, 0, 0, 58];
    let bytes = [&from.octets()[..], &to.octets(), &pseudo, body].concat();
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = u16::try_from(sum).unwrap_or(u16::MAX);
    (!folded).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: Option<&str>) -> String {
        let address = address.map(|text| text.parse().unwrap());
        let frame = announcement([0x0e, 1, 2, 3, 4, 5], address);
        frame.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn frames_are_as_the_standards_have_them() {
        assert_eq!(
            shown(Some("192.0.2.1")),
            "ffffffffffff0e0102030405080600010800060400010e0102030405c0000201000000000000c0000201"
        );
        assert_eq!(
            shown(None),
            "ffffffffffff0e0102030405803500010800060400030e0102030405000000000e010203040500000000"
        );
        assert_eq!(
            shown(Some("2001:db8::1")),
            concat!(
                "3333000000010e010203040586dd",
                "6000000000203aff20010db8000000000000000000000001ff020000000000000000000000000001",
                "88006722a000000020010db800000000000000000000000102010e0102030405",
            )
        );
    }
}
