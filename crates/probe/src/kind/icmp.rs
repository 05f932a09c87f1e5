//! ICMP echo (RFC 792). The reply must carry the sixteen random bytes of the request: no stray or forged one counts.

use std::net::SocketAddrV4;

use tokio::net::UdpSocket;

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
        let address = SocketAddrV4::new(round.address(), 0);
        socket.connect(&address.into()).map_err(error)?;
        // Only send(2) and recv(2) are used, which a raw socket has too.
        let socket = UdpSocket::from_std(socket.into()).map_err(error)?;
        let request = request(rand::random());
        socket.send(&request).await.map_err(error)?;
        for _ in 0..PACKETS {
            let mut packet = [0; 256];
            let length = socket.recv(&mut packet).await.map_err(error)?;
            if answers(packet.get(..length).unwrap_or(&packet), &request) {
                return Ok(());
            }
        }
        Err(Failure::Answer {
            got: format!("{PACKETS} other ICMP packets"),
            expected: "an echo reply".to_owned(),
        })
    }
}

/// An echo request whose identifier, sequence number and data are `random`.
fn request(random: [u8; LENGTH - 4]) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = 8;
    packet[4..].copy_from_slice(&random);
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// Whether `packet`, as a raw socket gives it (with the IPv4 header), is the reply to `request`.
fn answers(packet: &[u8], request: &[u8; LENGTH]) -> bool {
    let Some(first) = packet.first() else {
        return false;
    };
    let header = usize::from(first & 0x0f) * 4;
    let Some(message) = packet.get(header..) else {
        return false;
    };
    first >> 4 == 4
        && header >= 20
        && message.len() == LENGTH
        && message.starts_with(&[0, 0])
        && message.get(4..) == request.get(4..)
        && checksum(message) == 0
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
            let request = request(random);
            prop_assert_eq!(checksum(&request), 0);
            let mut packet = reply(&request);
            prop_assert!(answers(&packet, &request));
            packet[at] ^= 1u8 << bit;
            // The rest of the IPv4 header is the kernel's business.
            prop_assert_eq!(answers(&packet, &request), (1..20).contains(&at));
        }

        #[test]
        fn no_packet_is_too_strange(packet in prop::collection::vec(any::<u8>(), 0..300), random: [u8; LENGTH - 4]) {
            prop_assert!(!answers(&packet, &request(random)));
        }
    }
}
