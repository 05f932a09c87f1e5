//! ICMP echo (RFC 792), ICMPv6 echo (RFC 4443, 4.1). The reply must carry the random bytes of the request: no stray or
//! forged one counts.

use tokio::net::UdpSocket;
use ycloud_api::address::Family;

use crate::failure::{Failure, Step};
use crate::round::Round;
use crate::socket::Shape;

/// Packets of the target that are looked at before a round fails: replies to others' pings come in too.
const PACKETS: usize = 64;

/// Bytes of a request: eight of header, the rest random.
const LENGTH: usize = 8 + 16;

/// An ICMP echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp;

impl Icmp {
    pub(crate) async fn ask(self, round: &Round<'_>) -> Result<(), Failure> {
        let error = |error| Failure::io(Step::Packet, &error);
        let socket = round.open(Shape::Icmp)?;
        round.enter(Step::Packet);
        // Connected: the kernel drops what others send.
        socket.connect(&round.at(0).into()).map_err(error)?;
        // Only send(2) and recv(2) are used, which a raw socket has too.
        let socket = UdpSocket::from_std(socket.into()).map_err(error)?;
        let family = Family::of(round.address());
        let request = request(family, rand::random());
        socket.send(&request).await.map_err(error)?;
        for _ in 0..PACKETS {
            let mut packet = [0; 256];
            let length = socket.recv(&mut packet).await.map_err(error)?;
            if answers(family, packet.get(..length).unwrap_or(&packet), &request) {
                return Ok(());
            }
        }
        Err(Failure::Answer {
            got: format!("{PACKETS} other ICMP packets"),
            expected: "an echo reply".to_owned(),
        })
    }
}

/// An echo request whose identifier, sequence number and data are `random`. The checksum of ICMPv6, which covers the IPv6
/// header's addresses, is the kernel's work: RFC 3542, 3.1.
fn request(family: Family, random: [u8; LENGTH - 4]) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[4..].copy_from_slice(&random);
    match family {
        Family::Ipv4 => {
            packet[0] = 8;
            let sum = checksum(&packet).to_be_bytes();
            packet[2..4].copy_from_slice(&sum);
        }
        Family::Ipv6 => packet[0] = 128,
    }
    packet
}

/// Whether `packet`, as a raw socket gives it, is the reply to `request`: of IPv4 with its header, of IPv6 without, and
/// only if the kernel found its checksum right.
fn answers(family: Family, packet: &[u8], request: &[u8; LENGTH]) -> bool {
    let echoes = |message: &[u8], kind: [u8; 2]| {
        message.len() == LENGTH
            && message.starts_with(&kind)
            && message.get(4..) == request.get(4..)
    };
    if family == Family::Ipv6 {
        return echoes(packet, [129, 0]);
    }
    let Some(first) = packet.first() else {
        return false;
    };
    let header = usize::from(first & 0x0f) * 4;
    let Some(message) = packet.get(header..) else {
        return false;
    };
    first >> 4 == 4 && header >= 20 && echoes(message, [0, 0]) && checksum(message) == 0
}

/// The Internet checksum (RFC 1071) of an even number of bytes; 0 over a message that holds its own.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks_exact(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an honest host makes of a request.
    fn reply(request: &[u8; LENGTH]) -> Vec<u8> {
        let mut message = *request;
        message[0] = 0;
        message[2..4].fill(0);
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        [&[0x45; 1][..], &[0; 19], &message].concat()
    }

    proptest! {
        #[test]
        fn the_reply_counts_and_nothing_near_it(random: [u8; LENGTH - 4], at in 0..LENGTH + 20, bit in 0..8) {
            let request = request(Family::Ipv4, random);
            prop_assert_eq!(checksum(&request), 0);
            let mut packet = reply(&request);
            prop_assert!(answers(Family::Ipv4, &packet, &request));
            packet[at] ^= 1u8 << bit;
            // The rest of the IPv4 header is the kernel's business.
            prop_assert_eq!(answers(Family::Ipv4, &packet, &request), (1..20).contains(&at));
        }

        #[test]
        fn the_reply_of_ipv6_counts_and_nothing_near_it(random: [u8; LENGTH - 4], at in 0..LENGTH, bit in 0..8) {
            let request = request(Family::Ipv6, random);
            prop_assert!(!answers(Family::Ipv6, &request, &request), "the request itself");
            let mut packet = request;
            packet[0] = 129;
            prop_assert!(answers(Family::Ipv6, &packet, &request));
            packet[at] ^= 1u8 << bit;
            // The checksum is the kernel's business.
            prop_assert_eq!(answers(Family::Ipv6, &packet, &request), (2..4).contains(&at));
        }

        #[test]
        fn no_packet_is_too_strange(packet in prop::collection::vec(any::<u8>(), 0..300), random: [u8; LENGTH - 4]) {
            for family in Family::ALL {
                prop_assert!(!answers(family, &packet, &request(family, random)));
            }
        }
    }
}
