//! The kernel's connection tracking, as far as datagrams need it.
//!
//! The rules translate the first packet of a connection; all others follow it. A client that goes on sending UDP from one
//! port never makes a new connection, so after a change of the rules it would go on to where its first datagram went, or to
//! the node itself if that was before there was a rule. Such connections are forgotten here. TCP needs none of it: a new
//! connection begins with a SYN, and the kernel looks at the rules again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{self, Socket};

use super::family::Family;
use super::netlink::Netlink;
use super::services::rules::Frontend;

/// UDP frontends, and where datagrams to them may be sent.
pub type Frontends = BTreeMap<Frontend, BTreeSet<SocketAddr>>;

/// Forgets the connections to these frontends that go elsewhere. The rules stand whether or not it succeeds, so a failure is
/// only logged.
pub async fn forget(netlink: &Netlink, frontends: Frontends) {
    if frontends.is_empty() {
        return;
    }
    let result = match netlink.local_addresses().await {
        Ok(local) => {
            let forget = move || blocking(&frontends, &local);
            let forgotten = tokio::task::spawn_blocking(forget).await;
            forgotten.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
        Err(error) => Err(io::Error::other(error)),
    };
    match result {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "forgot UDP connections that went elsewhere"),
        Err(error) => tracing::warn!(
            %error,
            "failed to forget UDP connections that go elsewhere; their clients have to wait until the kernel does"
        ),
    }
}

/// Takes as long as the kernel needs to list its connections.
fn blocking(frontends: &Frontends, local: &BTreeSet<IpAddr>) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&sys::SocketAddr::new(0, 0))?;
    let families: BTreeSet<Family> = frontends.keys().map(|f| f.family()).collect();
    let mut count = 0;
    for family in families {
        for connection in list(&socket, family)? {
            let stale = connection.is_stale(frontends, local);
            if stale && delete(&socket, family, connection.original)? {
                count += 1;
            }
        }
    }
    Ok(count)
}

/// A tracked UDP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Connection {
    /// Where the client sends to.
    destination: SocketAddr,
    /// Who answers.
    answerer: SocketAddr,
    /// How the kernel finds it.
    original: Vec<Tuple>,
}

impl Connection {
    /// `None` if it is not UDP, or not of the default zone: others are Open vSwitch's.
    fn read(attributes: Vec<ConntrackAttribute>) -> Option<Self> {
        const CTA_ZONE: u16 = 18;
        let (mut original, mut reply) = (None, None);
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuples) => original = Some(tuples),
                ConntrackAttribute::CtaTupleReply(tuples) => reply = Some(tuples),
                ConntrackAttribute::Other(other) if other.kind() == CTA_ZONE => return None,
                _ => {}
            }
        }
        let (original, reply) = (original?, reply?);
        Some(Self {
            destination: ends(&original)?.1,
            answerer: ends(&reply)?.0,
            original,
        })
    }

    fn is_stale(&self, frontends: &Frontends, local: &BTreeSet<IpAddr>) -> bool {
        use ycloud_api::service::Protocol::UDP;
        let (ip, port) = (self.destination.ip(), self.destination.port());
        let address = frontends.get(&Frontend::Address(ip, UDP, port));
        let node_port = || frontends.get(&Frontend::NodePort(Family::of(ip), UDP, port));
        let targets = address.or_else(|| node_port().filter(|_| local.contains(&ip)));
        targets.is_some_and(|targets| !targets.contains(&self.answerer))
    }
}

/// Source and destination of a UDP packet.
fn ends(tuples: &[Tuple]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    let (mut from, mut to, mut udp) = (None, None, false);
    for tuple in tuples {
        match tuple {
            Tuple::Ip(ips) => {
                for ip in ips {
                    match ip {
                        IPTuple::SourceAddress(ip) => source = Some(*ip),
                        IPTuple::DestinationAddress(ip) => destination = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => udp = *protocol == Protocol::Udp,
                        ProtoTuple::SourcePort(port) => from = Some(*port),
                        ProtoTuple::DestinationPort(port) => to = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let end = |ip: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?, port?));
    if !udp {
        return None;
    }
    Some((end(source, from)?, end(destination, to)?))
}

fn send(socket: &Socket, family: Family, flags: u16, message: ConntrackMessage) -> io::Result<()> {
    let family = match family {
        Family::Ipv4 => NetfilterProtoFamily::IPv4,
        Family::Ipv6 => NetfilterProtoFamily::IPv6,
    };
    let header = NetfilterHeader::new(family, 0, 0);
    let mut netlink = NetlinkHeader::default();
    netlink.flags = NLM_F_REQUEST | flags;
    let payload = NetlinkPayload::from(NetfilterMessage::new(header, message));
    let mut packet = NetlinkMessage::new(netlink, payload);
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(())
}

/// Calls `each` with the messages of an answer until it says that there will be no more.
fn receive(
    socket: &Socket,
    mut each: impl FnMut(NetlinkPayload<NetfilterMessage>) -> io::Result<bool>,
) -> io::Result<()> {
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest);
            let message =
                message.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = usize::try_from(message.header.length).unwrap_or_default();
            if !each(message.payload)? {
                return Ok(());
            }
            // Messages begin at multiples of four bytes: netlink(7).
            rest = rest
                .get(length.next_multiple_of(4).max(4)..)
                .unwrap_or_default();
        }
    }
}

fn list(socket: &Socket, family: Family) -> io::Result<Vec<Connection>> {
    send(
        socket,
        family,
        NLM_F_DUMP,
        ConntrackMessage::Get(Vec::new()),
    )?;
    let mut connections = Vec::new();
    receive(socket, |payload| match payload {
        NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
            ..
        }) => {
            connections.extend(Connection::read(attributes));
            Ok(true)
        }
        NetlinkPayload::Done(_) => Ok(false),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Ok(true),
    })?;
    Ok(connections)
}

/// False if it was gone already.
fn delete(socket: &Socket, family: Family, original: Vec<Tuple>) -> io::Result<bool> {
    let attributes = vec![ConntrackAttribute::CtaTupleOrig(original)];
    send(
        socket,
        family,
        NLM_F_ACK,
        ConntrackMessage::Delete(attributes),
    )?;
    let mut deleted = true;
    receive(socket, |payload| match payload {
        NetlinkPayload::Error(answer) if answer.raw_code() == 0 => Ok(false),
        NetlinkPayload::Error(error) => {
            let error = error.to_io();
            deleted = false;
            match error.raw_os_error() {
                Some(nix::libc::ENOENT) => Ok(false),
                _ => Err(error),
            }
        }
        _ => Ok(true),
    })?;
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ycloud_api::service::Protocol::UDP;

    #[test]
    fn only_what_goes_elsewhere_is_stale() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let frontends = Frontends::from([
            (
                Frontend::NodePort(Family::Ipv4, UDP, 30053),
                BTreeSet::from([at("10.96.0.9:53")]),
            ),
            (
                Frontend::NodePort(Family::Ipv6, UDP, 30053),
                BTreeSet::from([at("[fd00:96::9]:53")]),
            ),
            (
                Frontend::Address("192.0.2.1".parse().unwrap(), UDP, 53),
                BTreeSet::new(),
            ),
        ]);
        let local = BTreeSet::from(["172.18.0.2", "fd00:18::2"].map(|ip| ip.parse().unwrap()));
        let cases = [
            (
                "translated as it shall be",
                "172.18.0.2:30053",
                "10.96.0.9:53",
                false,
            ),
            (
                "to another Service",
                "172.18.0.2:30053",
                "10.96.0.8:53",
                true,
            ),
            (
                "before there was a rule",
                "172.18.0.2:30053",
                "172.18.0.2:30053",
                true,
            ),
            (
                "that port of another machine",
                "172.18.0.3:30053",
                "172.18.0.3:30053",
                false,
            ),
            (
                "translated as it shall be, with IPv6",
                "[fd00:18::2]:30053",
                "[fd00:96::9]:53",
                false,
            ),
            (
                "to another Service, with IPv6",
                "[fd00:18::2]:30053",
                "[fd00:96::8]:53",
                true,
            ),
            (
                "another port",
                "172.18.0.2:30054",
                "172.18.0.2:30054",
                false,
            ),
            (
                "an external address that is gone",
                "192.0.2.1:53",
                "10.96.0.9:53",
                true,
            ),
        ];
        for (what, destination, answerer, stale) in cases {
            let connection = Connection {
                destination: at(destination),
                answerer: at(answerer),
                original: Vec::new(),
            };
            assert_eq!(connection.is_stale(&frontends, &local), stale, "{what}");
        }
    }
}
