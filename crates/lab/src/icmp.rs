//! ICMP by raw sockets: pings, and the errors that the network sends back (RFC 792, RFC 4443).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::Protocol;

use crate::ask::Heard;
use crate::place::Place;

/// The numbers that a family gives to the messages that are understood here.
struct Types {
    protocol: u8,
    /// Where an IP header says the protocol of what follows.
    protocol_at: usize,
    echo: u8,
    echo_reply: u8,
    unreachable: u8,
    time_exceeded: u8,
    /// Type and code of "fragmentation needed" and "packet too big".
    too_big: (u8, u8),
}

const V4: Types = Types {
    protocol: 1,
    protocol_at: 9,
    echo: 8,
    echo_reply: 0,
    unreachable: 3,
    time_exceeded: 11,
    too_big: (3, 4),
};
const V6: Types = Types {
    protocol: 58,
    protocol_at: 6,
    echo: 128,
    echo_reply: 129,
    unreachable: 1,
    time_exceeded: 3,
    too_big: (2, 0),
};

impl Types {
    fn of(address: IpAddr) -> &'static Self {
        if address.is_ipv4() { &V4 } else { &V6 }
    }
}

/// What the network says about a packet that was sent from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The answer to a ping.
    EchoReply {
        /// Who answers.
        from: IpAddr,
        /// The ping's identifier.
        identifier: u16,
    },
    /// A packet could not be delivered.
    Unreachable {
        /// Who says so.
        from: IpAddr,
        /// Where the packet was going.
        to: IpAddr,
        /// The protocol of that packet, such as 1 (ICMP), 17 (UDP) or 58 (ICMPv6).
        protocol: u8,
        /// Why. IPv4: 1 no such host, 3 no such port, 13 forbidden, … IPv6: 0 no route, 3 no such host, 4 no such port, …
        code: u8,
    },
    /// A packet was too large for a link on its way. RFC 1191, RFC 4443 §3.2.
    TooBig {
        /// Who says so.
        from: IpAddr,
        /// Where the packet was going.
        to: IpAddr,
        /// What that link carries, bytes.
        mtu: u32,
    },
    /// A packet went in circles.
    TimeExceeded {
        /// Who says so.
        from: IpAddr,
        /// Where the packet was going.
        to: IpAddr,
        /// The protocol of that packet.
        protocol: u8,
    },
}

/// All ICMP messages of one family that arrive at a place from the moment it is opened.
#[derive(Debug)]
pub struct Icmp(UdpSocket);

impl Icmp {
    /// Begins to listen for messages about packets to addresses of the family of `about`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(place: &Place, about: IpAddr) -> io::Result<Self> {
        let protocol = match about {
            IpAddr::V4(_) => Protocol::ICMPV4,
            IpAddr::V6(_) => Protocol::ICMPV6,
        };
        // The standard library's only socket that says from whom it received; the kernel's stays a raw one.
        Ok(Self(place.raw(about, protocol)?.into()))
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
            match self.0.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    if let Some(message) = read(from.ip(), &buffer[..length]) {
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
pub(crate) fn ping(place: &Place, to: IpAddr, limit: Duration) -> io::Result<Heard> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    let icmp = Icmp::open(place, to)?;
    icmp.0
        .send_to(&echo(Types::of(to).echo, own), SocketAddr::new(to, 0))?;
    let start = Instant::now();
    while let Some(message) = icmp.hear(limit.saturating_sub(start.elapsed()))? {
        match message {
            Message::EchoReply { from, identifier } if (from, identifier) == (to, own) => {
                return Ok(Heard::Answer);
            }
            // Somebody else here may be told of what he asks at the same address.
            Message::Unreachable {
                to: about,
                protocol,
                ..
            }
            | Message::TimeExceeded {
                to: about,
                protocol,
                ..
            } if (about, protocol) == (to, Types::of(to).protocol) => {
                return Ok(Heard::Unreachable);
            }
            _ => {}
        }
    }
    Ok(Heard::Silence)
}

/// An echo request with IPv4's checksum. IPv6's covers the addresses too: the kernel writes it.
fn echo(kind: u8, identifier: u16) -> [u8; 16] {
    let mut packet = [0_u8; 16];
    packet[0] = kind;
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

/// What a raw socket received, as a message; `None` for messages that nobody here asks about.
fn read(from: IpAddr, received: &[u8]) -> Option<Message> {
    let types = Types::of(from);
    let message = match from {
        IpAddr::V4(_) => {
            let header = usize::from(received.first()? & 0x0f) * 4;
            received.get(header..)?
        }
        IpAddr::V6(_) => received,
    };
    let identifier = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    let quoted = || message.get(8..);
    let about = || destination(from, quoted()?);
    let protocol = || quoted()?.get(types.protocol_at).copied();
    // IPv4 has two unused bytes before it.
    let mtu = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
    match *message.first()? {
        kind if (kind, *message.get(1)?) == types.too_big => Some(Message::TooBig {
            from,
            to: about()?,
            mtu,
        }),
        kind if kind == types.echo_reply => Some(Message::EchoReply { from, identifier }),
        kind if kind == types.unreachable => Some(Message::Unreachable {
            from,
            to: about()?,
            protocol: protocol()?,
            code: *message.get(1)?,
        }),
        kind if kind == types.time_exceeded => Some(Message::TimeExceeded {
            from,
            to: about()?,
            protocol: protocol()?,
        }),
        _ => None,
    }
}

/// The destination in the header of a packet that is of the same family as `family`.
fn destination(family: IpAddr, packet: &[u8]) -> Option<IpAddr> {
    match family {
        IpAddr::V4(_) => {
            let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        }
        IpAddr::V6(_) => {
            let bytes: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
    }
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
        let sum: u32 = echo(V4.echo, 0xfffe)
            .chunks(2)
            .map(|p| u32::from(p[0]) << 8 | u32::from(p[1]))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn errors_name_where_the_packet_was_going() {
        let quoted = packet([10, 0, 0, 1], [198, 51, 100, 9], &[0; 8]);
        let mut error = vec![V4.time_exceeded, 0, 0, 0, 0, 0, 0, 0];
        error.extend(&quoted);
        let (from, to) = ([192, 0, 2, 1].into(), [198, 51, 100, 9].into());
        assert_eq!(
            read(from, &packet([192, 0, 2, 1], [10, 0, 0, 1], &error)),
            Some(Message::TimeExceeded {
                from,
                to,
                protocol: 1
            })
        );
        error[0] = V4.unreachable;
        error[1] = 4;
        error[6..8].copy_from_slice(&1400_u16.to_be_bytes());
        assert_eq!(
            read(from, &packet([192, 0, 2, 1], [10, 0, 0, 1], &error)),
            Some(Message::TooBig {
                from,
                to,
                mtu: 1400
            })
        );
        error[1] = 3;
        assert_eq!(
            read(from, &packet([192, 0, 2, 1], [10, 0, 0, 1], &error)),
            Some(Message::Unreachable {
                from,
                to,
                protocol: 1,
                code: 3
            })
        );
        let cut_off = packet([192, 0, 2, 1], [10, 0, 0, 1], &error[..20]);
        assert_eq!(read(from, &cut_off), None);
    }

    #[test]
    fn errors_of_ipv6_come_without_a_header_and_quote_one() {
        let from: IpAddr = "fd00::1".parse().unwrap();
        let to: Ipv6Addr = "fd00::9".parse().unwrap();
        let mut quoted = [0_u8; 40];
        quoted[6] = 17;
        quoted[24..].copy_from_slice(&to.octets());
        let mut error = vec![V6.unreachable, 4, 0, 0, 0, 0, 0, 0];
        error.extend(quoted);
        let to = IpAddr::V6(to);
        assert_eq!(
            read(from, &error),
            Some(Message::Unreachable {
                from,
                to,
                protocol: 17,
                code: 4
            })
        );
        assert_eq!(read(from, &error[..47]), None);
        // The same number means another thing to the other family.
        error[0] = V4.unreachable;
        assert_eq!(
            read(from, &error),
            Some(Message::TimeExceeded {
                from,
                to,
                protocol: 17
            })
        );
    }
}
