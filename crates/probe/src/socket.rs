//! How a round gets its socket: from which network namespace, by which device, from which source port.
//!
//! # Closing, and source ports
//! Every connection ends with a RST (`SO_LINGER` 0): 2,000 rounds a second would else leave 120,000 sockets in TIME_WAIT
//! here, and as many entries in the conntrack of each Open vSwitch on the way for two minutes rather than for seconds.
//! But after a RST the kernel may take the same source port again at once, and Open vSwitch 3.1 aborts on a five-tuple
//! that returns after a RST. So each probe walks through the whole range of ports ([`source_port`]): at a period of one
//! second a five-tuple returns after seven hours.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use ycloud_api::address::Family;

/// First and last source port. Linux' own default for ports that nobody asked for by number (ip_local_port_range).
const PORTS: (u16, u16) = (32_768, 60_999);

/// How many source ports are tried where one is taken: before the kernel may choose (bind), or the round fails (connect).
pub(crate) const TRIES: u64 = 8;

/// What kind of socket a round needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A TCP connection.
    Tcp,
    /// Datagrams.
    Udp,
    /// Raw ICMP, or ICMPv6; needs `CAP_NET_RAW`.
    Icmp,
}

/// Makes the sockets of rounds. [`Way`] is the one for a device in a network namespace.
pub trait Sockets: Send + Sync + std::fmt::Debug {
    /// A socket of this family and shape: not blocking, not inherited by children, not connected; for TCP and UDP bound to the
    /// source port of that turn (see [`source_port`]). It must not wait.
    ///
    /// # Errors
    /// Those of the kernel. They count as the prober's, never as the target's.
    fn open(&self, family: Family, shape: Shape, turn: u64) -> io::Result<Socket>;
}

/// The source port of a probe's `turn`: each turn the next one, round the whole range.
pub fn source_port(turn: u64) -> u16 {
    let (first, last) = PORTS;
    let count = u64::from(last - first) + 1;
    // The remainder is below 28,232.
    first + u16::try_from(turn % count).unwrap_or_default()
}

/// The turn whose source port is tried after `attempt` others: not the next one's, which belongs to the next turn.
pub(crate) fn instead(turn: u64, attempt: u64) -> u64 {
    turn.wrapping_add(attempt * 3_511)
}

/// Sockets in a network namespace, by a device, with a mark. The default: none of these.
#[derive(Debug, Clone, Default)]
pub struct Way {
    netns: Option<Arc<OwnedFd>>,
    device: Option<String>,
    mark: Option<u32>,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

impl Way {
    /// In the network namespace bound to `path`, for example `/run/netns/probe`. Default: the caller's.
    ///
    /// # Errors
    /// The path cannot be opened.
    pub fn netns(mut self, path: &Path) -> io::Result<Self> {
        self.netns = Some(Arc::new(File::open(path)?.into()));
        Ok(self)
    }

    /// In this network namespace. Default: the caller's.
    pub fn namespace(mut self, netns: Arc<OwnedFd>) -> Self {
        self.netns = Some(netns);
        self
    }

    /// By this device (`SO_BINDTODEVICE`), at most 15 characters. Default: by whichever the routes say.
    pub fn device(mut self, name: &str) -> Self {
        self.device = Some(name.to_owned());
        self
    }

    /// With this mark (`SO_MARK`), for policy routing. Default: none.
    pub fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// From this address, where the target is of its family. Default, for each family: the one that the routes say.
    pub fn source(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.ipv4 = Some(address),
            IpAddr::V6(address) => self.ipv6 = Some(address),
        }
        self
    }

    /// The source address, or the one that stands for the kernel's choice.
    fn from(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            Family::Ipv6 => self.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).into(),
        }
    }

    fn make(&self, family: Family, shape: Shape) -> io::Result<Socket> {
        let (domain, echo) = match family {
            Family::Ipv4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::Ipv6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (kind, protocol) = match shape {
            Shape::Tcp => (Type::STREAM, Protocol::TCP),
            Shape::Udp => (Type::DGRAM, Protocol::UDP),
            Shape::Icmp => (Type::RAW, echo),
        };
        let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if shape == Shape::Tcp {
            socket.set_linger(Some(Duration::ZERO))?;
            socket.set_tcp_nodelay(true)?;
            return Ok(socket);
        }
        // Errors that routers send become errors of the socket, rather than a silence until the deadline.
        match family {
            Family::Ipv4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            Family::Ipv6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        Ok(socket)
    }

    fn bind(&self, socket: &Socket, family: Family, shape: Shape, turn: u64) -> io::Result<()> {
        let source = self.from(family);
        let bind = |port| socket.bind(&SocketAddr::new(source, port).into());
        if shape == Shape::Icmp {
            return if source.is_unspecified() {
                Ok(())
            } else {
                bind(0)
            };
        }
        // The same port may serve rounds to other addresses at the same time; connect(2) sees to it that no two
        // connections are alike: it fails then, and another port is tried.
        socket.set_reuse_address(shape == Shape::Tcp)?;
        for attempt in 0..TRIES {
            match bind(source_port(instead(turn, attempt))) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                done => return done,
            }
        }
        bind(0)
    }
}

impl Sockets for Way {
    fn open(&self, family: Family, shape: Shape, turn: u64) -> io::Result<Socket> {
        let open = || {
            let socket = self.make(family, shape)?;
            self.bind(&socket, family, shape, turn)?;
            Ok(socket)
        };
        match &self.netns {
            Some(netns) => inside(netns, open)?,
            None => open(),
        }
    }
}

/// Runs `work` in another network namespace and returns to this thread's own. Nothing in between waits, so no other task
/// of the runtime sees the thread abroad.
fn inside<T>(netns: &OwnedFd, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
    let result = work();
    if setns(home.as_fd(), CloneFlags::CLONE_NEWNET).is_err() {
        // The next task on this thread would talk to another network than it believes.
        std::process::abort();
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_port_returns_only_after_all_others() {
        let ports: std::collections::BTreeSet<u16> = (7..28_239).map(source_port).collect();
        assert_eq!(ports.len(), 28_232);
        assert_eq!(source_port(7), source_port(28_239));
        assert!(ports.iter().all(|port| (32_768..=60_999).contains(port)));
        assert_eq!(source_port(u64::MAX - 1) + 1, source_port(u64::MAX));
    }

    #[test]
    fn a_taken_port_is_stepped_over() {
        let way = Way::default();
        let port = |socket: &Socket| {
            let address = socket.local_addr().expect("an address");
            address.as_socket().expect("IP").port()
        };
        for family in Family::ALL {
            let open = || way.open(family, Shape::Udp, 9_000).expect("a socket");
            let (one, two) = (open(), open());
            assert_ne!(port(&one), port(&two), "{family}");
        }
        let way = way.device("no-such-device");
        assert!(way.open(Family::Ipv4, Shape::Tcp, 1).is_err());
    }

    #[test]
    fn each_family_has_its_own_source() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let way = Way::default().source(ip("127.0.0.7")).source(ip("::1"));
        for (family, source) in [(Family::Ipv4, "127.0.0.7"), (Family::Ipv6, "::1")] {
            for shape in [Shape::Tcp, Shape::Udp] {
                let socket = way.open(family, shape, 77).expect("a socket");
                let address = socket.local_addr().expect("an address");
                let address = address.as_socket().expect("IP");
                assert_eq!(address, SocketAddr::new(ip(source), source_port(77)));
            }
        }
    }
}
