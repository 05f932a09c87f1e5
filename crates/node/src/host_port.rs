//! Host ports: ports of the node that lead to a Pod. CNI conventions, capability `portMappings`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ycloud_api::service::Protocol;

/// One port of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// The node's address that has it; `None` for all of both families, the loopback ones too, and the unspecified address
    /// for all of its family.
    pub address: Option<IpAddr>,
    /// The node's port.
    pub port: u16,
    /// The Pod's port.
    pub container_port: u16,
}

/// A text that is no host port.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {0:?} as a host port; it is written TCP/192.0.2.1/8080/80")]
pub struct Invalid(String);

/// `<protocol>/<address or *>/<port>/<container port>`: how Open vSwitch's `external_ids` have it.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.protocol.as_str())?;
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("*")?,
        }
        write!(f, "/{}/{}", self.port, self.container_port)
    }
}

impl FromStr for HostPort {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let read = || -> Option<Self> {
            let mut parts = text.split('/');
            let host_port = Self {
                protocol: protocol(parts.next()?)?,
                address: match parts.next()? {
                    "*" => None,
                    address => Some(address.parse().ok()?),
                },
                port: parts.next()?.parse().ok()?,
                container_port: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(host_port)
        };
        read().ok_or_else(|| Invalid(text.to_owned()))
    }
}

/// A protocol by its name, in either case.
pub fn protocol(name: &str) -> Option<Protocol> {
    let all = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    all.into_iter()
        .find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_port_comes_back_as_it_was_written() {
        for text in [
            "TCP/*/8080/80",
            "UDP/192.0.2.1/53/5353",
            "SCTP/127.0.0.1/1/65535",
            "TCP/fd00::7/8080/80",
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "TCP/*/8080",
            "TCP/*/8080/80/1",
            "ICMP/*/1/1",
            "TCP/x/1/1",
            "TCP/*/65536/1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
