//! TCP sockets of a network namespace that are ended from outside the process that has them: sock_diag(7), `SOCK_DESTROY`.
//!
//! Both ends learn of it at once: the process reads `ECONNABORTED`, and the kernel sends the peer a reset with the sequence
//! number that the peer expects, as nobody else could.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rtnetlink::sys::{Socket, SocketAddr as NetlinkAddress};

/// `NETLINK_SOCK_DIAG`, netlink(7).
const NETLINK_SOCK_DIAG: isize = 4;
/// `SOCK_DIAG_BY_FAMILY`, sock_diag(7).
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`, `linux/sock_diag.h`.
const DESTROY: u16 = 21;
/// `NLM_F_REQUEST | NLM_F_ACK`, netlink(7).
const REQUEST_ACK: u16 = 5;
/// `NLMSG_ERROR`, netlink(7).
const ERROR: u16 = 2;
/// `TCP_LISTEN`, `linux/tcp_states.h`.
const LISTEN: u8 = 10;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct inet_diag_req_v2`.
const QUESTION: usize = 56;
/// Where `struct inet_diag_sockid` begins in a question, behind family, protocol, extensions and states.
const ID: usize = 8;
/// Length of `struct inet_diag_sockid`; its last eight bytes are the cookie.
const ID_LENGTH: usize = 48;

/// Ends the connection between `local`, which is of the calling thread's network namespace, and `remote`. False if there is
/// none.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` where it was built without `INET_DIAG_DESTROY`.
pub fn abort(local: SocketAddr, remote: SocketAddr) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    // Where there is no such connection the kernel finds who listens at `local`: it is looked at before it is ended, and then
    // named by its cookie.
    let Some(found) = exchange(&socket, BY_FAMILY, id(local, remote, [0xff; 8]))? else {
        return Ok(false);
    };
    let Some(found) = Found::read(&found).filter(|found| found.is(local, remote)) else {
        return Ok(false);
    };
    let destroyed = exchange(&socket, DESTROY, id(local, remote, found.cookie));
    destroyed.map(|answer| answer.is_some())
}

/// A `struct inet_diag_sockid`.
fn id(local: SocketAddr, remote: SocketAddr, cookie: [u8; 8]) -> (u8, [u8; ID_LENGTH]) {
    let mut id = [0; ID_LENGTH];
    id[0..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    for (at, ip) in [(4, local.ip()), (20, remote.ip())] {
        match ip {
            IpAddr::V4(ip) => id[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[at..at + 16].copy_from_slice(&ip.octets()),
        }
    }
    id[40..].copy_from_slice(&cookie);
    let family = match local {
        SocketAddr::V4(_) => nix::libc::AF_INET,
        SocketAddr::V6(_) => nix::libc::AF_INET6,
    };
    (family.try_into().unwrap_or_default(), id)
}

/// Puts a question about one socket, and returns what the answer holds; `None` if there is no such socket.
fn exchange(
    socket: &Socket,
    kind: u16,
    (family, id): (u8, [u8; ID_LENGTH]),
) -> io::Result<Option<Vec<u8>>> {
    let length = HEADER + QUESTION;
    let mut question = vec![0; length];
    question[0..4].copy_from_slice(&u32::try_from(length).unwrap_or_default().to_ne_bytes());
    question[4..6].copy_from_slice(&kind.to_ne_bytes());
    question[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    question[HEADER] = family;
    question[HEADER + 1] = nix::libc::IPPROTO_TCP.try_into().unwrap_or_default();
    question[HEADER + 4..HEADER + ID].copy_from_slice(&u32::MAX.to_ne_bytes());
    question[HEADER + ID..].copy_from_slice(&id);
    socket.send(&question, 0)?;
    let mut found = None;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let length = usize::try_from(length).unwrap_or_default();
            let malformed = || io::Error::from(io::ErrorKind::InvalidData);
            let body = rest.get(HEADER..length).ok_or_else(malformed)?;
            if u16::from_ne_bytes([header[4], header[5]]) == ERROR {
                let code = body.first_chunk::<4>().ok_or_else(malformed)?;
                return match -i32::from_ne_bytes(*code) {
                    0 => Ok(found.or(Some(Vec::new()))),
                    nix::libc::ENOENT => Ok(None),
                    error => Err(io::Error::from_raw_os_error(error)),
                };
            }
            found = Some(body.to_vec());
            // Messages begin at multiples of four bytes: netlink(7).
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// A socket, of `struct inet_diag_msg`.
struct Found {
    state: u8,
    id: [u8; ID_LENGTH],
    cookie: [u8; 8],
}

impl Found {
    fn read(body: &[u8]) -> Option<Self> {
        let id: [u8; ID_LENGTH] = *body.get(4..)?.first_chunk()?;
        Some(Self {
            state: *body.get(1)?,
            cookie: *id.last_chunk()?,
            id,
        })
    }

    fn is(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        // Ports and addresses. A socket of IPv6 that speaks IPv4 has these mapped: RFC 4291 §2.5.5.2.
        let is = |local, remote| self.id[..36] == id(local, remote, [0; 8]).1[..36];
        self.state != LISTEN && (is(local, remote) || is(mapped(local), mapped(remote)))
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn error(stream: &mut TcpStream) -> ErrorKind {
        stream.read(&mut [0]).unwrap_err().kind()
    }

    #[test]
    fn both_ends_of_a_connection_learn_that_it_was_ended_and_others_live() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let server = listener.local_addr().unwrap();
            let mut pairs: Vec<_> = (0..2)
                .map(|_| {
                    let client = TcpStream::connect(server).unwrap();
                    (client, listener.accept().unwrap().0)
                })
                .collect();
            let (mut client, mut accepted) = pairs.remove(0);
            let local = client.local_addr().unwrap();
            assert!(abort(local, server).unwrap());
            assert_eq!(error(&mut client), ErrorKind::ConnectionAborted);
            assert_eq!(error(&mut accepted), ErrorKind::ConnectionReset);
            let (other, mut accepted) = pairs.remove(0);
            drop(other);
            assert_eq!(
                accepted.read(&mut [0]).unwrap(),
                0,
                "it lived until its end"
            );
            assert!(!abort(local, server).unwrap(), "there is none any more");
        }
    }

    #[test]
    fn a_socket_of_ipv6_that_speaks_ipv4_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(mapped(server)).unwrap();
        let (_accepted, local) = listener.accept().unwrap();
        assert!(abort(local, server).unwrap());
        assert_eq!(error(&mut client), ErrorKind::ConnectionAborted);
    }

    #[test]
    fn who_listens_is_not_taken_for_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        assert!(!abort(local, "127.0.0.1:1".parse().unwrap()).unwrap());
        TcpStream::connect(local).unwrap();
    }
}
