//! ICMP by raw sockets: pings, and the errors that the network sends back (RFC 792).

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::ask::Heard;
use crate::place::Place;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;

/// What the network says about a packet that was sent from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The answer to a ping.
    EchoReply {
        /// Who answers.
        from: Ipv4Addr,
        /// The ping's identifier.
        identifier: u16,
    },
    /// A packet could not be delivered.
    Unreachable {
        /// Who says so.
        from: Ipv4Addr,
        /// Where the packet was going.
        to: Ipv4Addr,
        /// Why: 1 no such host, 3 no such port, 13 forbidden, …
        code: u8,
    },
    /// A packet went in circles.
    TimeExceeded {
        /// Who says so.
        from: Ipv4Addr,
        /// Where the packet was going.
        to: Ipv4Addr,
    },
}

/// All ICMP messages that arrive at a place from the moment it is opened.
#[derive(Debug)]
pub struct Icmp(Socket);

impl Icmp {
    /// Begins to listen.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(place: &Place) -> io::Result<Self> {
        place.raw(1).map(Self)
    }

    /// The next message about a packet of this place; `None` when none comes within `limit`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn hear(&self, limit: Duration) -> io::Result<Option<Message>> {
        let start = Instant::now();
        while let Some(left) = limit.checked_sub(start.elapsed()).filter(|l| !l.is_zero()) {
            self.0.set_read_timeout(Some(left))?;
            let mut buffer = [0_u8; 1500];
            match (&self.0).read(&mut buffer) {
                Ok(length) => {
                    if let Some(message) = read(&buffer[..length]) {
                        return Ok(Some(message));
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// What a ping meets.
///
/// # Errors
/// What the kernel says, such as `NetworkUnreachable`.
pub(crate) fn ping(place: &Place, to: Ipv4Addr, limit: Duration) -> io::Result<Heard> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    let icmp = Icmp::open(place)?;
    let target = SocketAddr::V4(SocketAddrV4::new(to, 0));
    icmp.0.send_to(&echo(own), &target.into())?;
    let start = Instant::now();
    while let Some(message) = icmp.hear(limit.saturating_sub(start.elapsed()))? {
        match message {
            Message::EchoReply { from, identifier } if (from, identifier) == (to, own) => {
                return Ok(Heard::Answer);
            }
            Message::Unreachable { to: about, .. } | Message::TimeExceeded { to: about, .. }
                if about == to =>
            {
                return Ok(Heard::Unreachable);
            }
            _ => {}
        }
    }
    Ok(Heard::Silence)
}

/// An echo request with its checksum.
fn echo(identifier: u16) -> [u8; 16] {
    let mut packet = [0_u8; 16];
    packet[0] = ECHO;
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[7] = 1;
    packet[8..].copy_from_slice(b"question");
    let sum: u32 = packet
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

/// An IPv4 packet with an ICMP message; `None` for messages that nobody here asks about.
fn read(packet: &[u8]) -> Option<Message> {
    let (from, _, message) = ipv4(packet)?;
    let identifier = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    let about = || ipv4(message.get(8..)?).map(|(_, to, _)| to);
    match *message.first()? {
        ECHO_REPLY => Some(Message::EchoReply { from, identifier }),
        UNREACHABLE => Some(Message::Unreachable {
            from,
            to: about()?,
            code: *message.get(1)?,
        }),
        TIME_EXCEEDED => Some(Message::TimeExceeded { from, to: about()? }),
        _ => None,
    }
}

/// Source, destination and payload of an IPv4 packet.
fn ipv4(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, &[u8])> {
    let address = |at: usize| {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    let header = usize::from(packet.first()? & 0x0f) * 4;
    Some((address(12)?, address(16)?, packet.get(header..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend(from);
        packet.extend(to);
        packet.extend(payload);
        packet
    }

    #[test]
    fn an_echo_sums_to_all_ones() {
        let sum: u32 = echo(0xfffe)
            .chunks(2)
            .map(|p| u32::from(p[0]) << 8 | u32::from(p[1]))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn errors_name_where_the_packet_was_going() {
        let quoted = packet([10, 0, 0, 1], [198, 51, 100, 9], &[0; 8]);
        let mut error = vec![TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0];
        error.extend(&quoted);
        let (from, to) = ([192, 0, 2, 1].into(), [198, 51, 100, 9].into());
        assert_eq!(
            read(&packet([192, 0, 2, 1], [10, 0, 0, 1], &error)),
            Some(Message::TimeExceeded { from, to })
        );
        error[0] = UNREACHABLE;
        error[1] = 3;
        assert_eq!(
            read(&packet([192, 0, 2, 1], [10, 0, 0, 1], &error)),
            Some(Message::Unreachable { from, to, code: 3 })
        );
        let cut_off = packet([192, 0, 2, 1], [10, 0, 0, 1], &error[..20]);
        assert_eq!(read(&cut_off), None);
    }
}
