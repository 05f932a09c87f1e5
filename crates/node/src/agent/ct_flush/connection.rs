//! Connections as Open vSwitch tracks them: pure.

use std::net::{IpAddr, SocketAddr};

use super::pairs::Pair;

/// A TCP connection that went by a load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// Who opened it.
    pub client: SocketAddr,
    /// What was called.
    pub vip: SocketAddr,
    /// Who answered.
    pub backend: SocketAddr,
    /// The zone that it is tracked in: of one logical port, so that equal addresses of two Vpcs are told apart.
    pub zone: u16,
}

impl Connection {
    /// Reads one line of `dpctl/dump-conntrack -m`. `None`: it is another protocol's, nothing was translated, or nobody loses
    /// anything by its end.
    pub fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("tcp,")?;
        let (client, vip) = ends(rest, "orig=(")?;
        let (backend, _) = ends(rest, "reply=(")?;
        if !is_open(rest) {
            return None;
        }
        (vip != backend).then_some(Self {
            client,
            vip,
            backend,
            zone: zone(rest)?,
        })
    }

    /// The way that it goes.
    pub fn pair(&self) -> Pair {
        Pair {
            protocol: TCP,
            vip: self.vip,
            backend: self.backend,
        }
    }
}

/// Whether somebody may lose something by a connection's end: `protoinfo=(state_orig=…,state_reply=…,…)`, of each end as it
/// sends, in the words of Open vSwitch's `ct_dpif_tcp_state_string`. Both ends of one that is closed have let go: a socket
/// with its addresses is another connection's, from a port that is used again. One that is being opened is balanced anew
/// with its next SYN. One that is closed by its client alone waits for an answer. The kernel has one state for both ends.
fn is_open(text: &str) -> bool {
    let state = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        rest.strip_prefix('=')?.split([')', ',']).next()
    };
    let (client, backend) = (state("state_orig"), state("state_reply"));
    let closed = |state: Option<&str>| {
        state.is_some_and(|state| ["FIN_WAIT_2", "TIME_WAIT", "CLOSED"].contains(&state))
    };
    let opening = client == Some("SYN_SENT") && backend.is_none_or(|state| state != "ESTABLISHED");
    let ended = closed(client) && closed(backend);
    !opening && !ended
}

/// `zone=5`, between commas.
fn zone(text: &str) -> Option<u16> {
    let mut items = text.rsplit(',');
    items.find_map(|item| item.trim().strip_prefix("zone=")?.parse().ok())
}

/// TCP's IP protocol number.
pub const TCP: u8 = 6;

/// Source and destination of a direction, for example of `orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=2)`.
fn ends(text: &str, direction: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (_, rest) = text.split_once(direction)?;
    let (inside, _) = rest.split_once(')')?;
    let value = |name: &str| {
        let mut items = inside.split(',');
        items.find_map(|item| item.strip_prefix(name)?.strip_prefix('='))
    };
    let address = |name| value(name)?.parse::<IpAddr>().ok();
    let port = |name| value(name)?.parse::<u16>().ok();
    let source = SocketAddr::new(address("src")?, port("sport")?);
    Some((source, SocketAddr::new(address("dst")?, port("dport")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_translated_tcp_connections_that_are_open_are_read() {
        let dump = "\
icmp,orig=(src=10.0.0.1,dst=10.0.0.2,id=1,type=8,code=0),reply=(src=10.0.0.2,dst=10.0.0.1,id=1,type=0,code=0),zone=3
tcp,orig=(src=10.0.1.7,dst=10.96.0.1,sport=4444,dport=80),reply=(src=10.0.1.5,dst=10.0.1.7,sport=8080,dport=4444),zone=5,mark=2,protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED,wscale_orig=7,wscale_reply=7)
tcp,orig=(src=10.0.1.7,dst=10.0.1.5,sport=4445,dport=80),reply=(src=10.0.1.5,dst=10.0.1.7,sport=80,dport=4445),zone=5,protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED,wscale_orig=7,wscale_reply=7)
tcp,orig=(src=fd00::7,dst=fd00:96::1,sport=4446,dport=80),reply=(src=fd00::5,dst=fd00::7,sport=8080,dport=4446),zone=6,protoinfo=(state_orig=FIN_WAIT_2,state_reply=ESTABLISHED,wscale_orig=7,wscale_reply=7)
tcp,orig=(src=10.0.1.7,dst=10.96.0.1,sport=4449,dport=80),reply=(src=10.0.1.5,dst=10.0.1.7,sport=8080,dport=4449),zone=5,protoinfo=(state_orig=FIN_WAIT_2,state_reply=FIN_WAIT_2,wscale_orig=7,wscale_reply=7)
tcp,orig=(src=10.0.1.7,dst=10.96.0.1,sport=4452,dport=80),reply=(src=10.0.1.5,dst=10.0.1.7,sport=8080,dport=4452),zone=5,protoinfo=(state_orig=TIME_WAIT,state_reply=TIME_WAIT)
tcp,orig=(src=10.0.1.7,dst=10.96.0.1,sport=4450,dport=80),reply=(src=10.0.1.5,dst=10.0.1.7,sport=8080,dport=4450),zone=5,mark=2,protoinfo=(state_orig=SYN_SENT,state_reply=CLOSED)
tcp,orig=(src=10.0.1.7,dst=10.96.0.1,sport=4451,dport=80),reply=(src=10.0.1.5,dst=10.0.1.7,sport=8080,dport=4451),zone=5
udp,orig=(src=10.0.1.7,dst=10.96.0.1,sport=4447,dport=80),reply=(src=10.0.1.5,dst=10.0.1.7,sport=8080,dport=4447),zone=5
tcp,orig=(src=10.0.1.7,dst=10.96.0.1,sport=4448";
        let read: Vec<String> = dump
            .lines()
            .filter_map(Connection::read)
            .map(|c| format!("{} {} {} {}", c.zone, c.client, c.vip, c.backend))
            .collect();
        let expected = [
            "5 10.0.1.7:4444 10.96.0.1:80 10.0.1.5:8080",
            "6 [fd00::7]:4446 [fd00:96::1]:80 [fd00::5]:8080",
            "5 10.0.1.7:4451 10.96.0.1:80 10.0.1.5:8080",
        ];
        assert_eq!(read, expected);
    }
}
