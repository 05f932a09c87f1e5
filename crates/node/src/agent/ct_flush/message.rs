//! The OpenFlow message that takes connections out of the connection tracking: pure. Source: Open vSwitch's
//! include/openflow/nicira-ext.h, `NXT_CT_FLUSH`; in Open vSwitch since 3.1.

use std::net::IpAddr;

use super::super::affinity::openflow::{message, padded};
use super::pairs::{End, Flush};

/// `OFPT_EXPERIMENTER`.
const EXPERIMENTER: u8 = 4;

/// Vendor Nicira, number 32.
const CT_FLUSH: [u8; 8] = [0, 0, 0x23, 0x20, 0, 0, 0, 32];

/// `NXT_CT_ORIG_TUPLE`, `NXT_CT_REPLY_TUPLE`.
const ORIGINAL: u16 = 0;
const REPLY: u16 = 1;

/// `NXT_CT_TUPLE_SRC`, `_DST`, `_SRC_PORT`, `_DST_PORT`.
const SOURCE: u16 = 0;
const DESTINATION: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// Takes out, in every zone, what was sent to an address, and is answered by a backend.
pub fn flush(xid: u32, flush: &Flush) -> Vec<u8> {
    let mut body = CT_FLUSH.to_vec();
    body.extend([flush.protocol, 0, 0, 0, 0, 0, 0, 0]);
    let to_vip = end(flush.vip, DESTINATION, DESTINATION_PORT);
    body.extend(tuple(ORIGINAL, &to_vip));
    if let Some(backend) = flush.backend {
        body.extend(tuple(REPLY, &end(backend, SOURCE, SOURCE_PORT)));
    }
    message(EXPERIMENTER, xid, &body)
}

fn tuple(kind: u16, fields: &[u8]) -> Vec<u8> {
    padded(kind, &[&[0; 4], fields].concat(), true)
}

/// An address, of IPv4 as `::ffff:0:0/96` has it, and the port if it is one, whose padding its length counts.
fn end((ip, port): End, address_field: u16, port_field: u16) -> Vec<u8> {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = padded(address_field, &ip.octets(), false);
    if let Some(port) = port {
        bytes.extend(padded(port_field, &port.to_be_bytes(), true));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_message_is_as_open_vswitch_has_it() {
        let request = Flush {
            protocol: 6,
            vip: (Ipv4Addr::new(10, 10, 0, 2).into(), Some(8080)),
            backend: Some(("fd00::1".parse().unwrap(), Some(80))),
        };
        let to_vip = "0000002800000000\
                      0001001400000000000000000000ffff0a0a000200000000\
                      000300081f900000";
        let by_backend = "0001002800000000\
                          00000014fd00000000000000000000000000000100000000\
                          0002000800500000";
        let head =
            |length: &str| format!("0604{length}000000110000232000000020{}", "0600000000000000");
        let expected = format!("{}{to_vip}{by_backend}", head("0068"));
        assert_eq!(hex(&flush(0x11, &request)), expected);
        let request = Flush {
            backend: None,
            ..request
        };
        assert_eq!(
            hex(&flush(0x11, &request)),
            format!("{}{to_vip}", head("0040"))
        );
        let any_port = Flush {
            vip: (request.vip.0, None),
            ..request
        };
        let to_any = "0000002000000000\
                      0001001400000000000000000000ffff0a0a000200000000";
        assert_eq!(
            hex(&flush(0x11, &any_port)),
            format!("{}{to_any}", head("0038"))
        );
    }
}
