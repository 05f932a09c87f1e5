//! What plugin and agent say to each other: one request and one response per connection of a unix stream socket, each a
//! 32-bit big-endian length and that many bytes of JSON.
//!
//! Fields unknown to the reader are ignored, so that a plugin and an agent of neighbouring versions understand each other.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host_port::HostPort;

/// Where the agent listens.
pub const SOCKET: &str = "/run/ycloud/cni.sock";

/// Greatest length of a message in bytes: the attachments of a node in a GC request fit many times over.
pub const MESSAGE_LIMIT: u32 = 4 << 20;

/// One attachment as a container runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container: String,
    /// `CNI_IFNAME`: the interface's name inside the container.
    pub ifname: String,
}

/// The Pod that a container belongs to, from `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; some runtimes do not give it.
    #[serde(default)]
    pub uid: Option<String>,
}

/// What the plugin asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE")]
pub enum Request {
    /// Wire a Pod.
    Add {
        /// Which attachment.
        id: AttachmentId,
        /// `CNI_NETNS`: path of the Pod's network namespace.
        netns: String,
        /// Whose it is.
        pod: PodRef,
        /// The node's ports that lead to it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        host_ports: Vec<HostPort>,
    },
    /// Undo an ADD; nothing there is success.
    Del {
        /// Which attachment.
        id: AttachmentId,
    },
    /// Is all as ADD left it?
    Check {
        /// Which attachment.
        id: AttachmentId,
        /// `CNI_NETNS`.
        netns: String,
        /// The addresses (with prefix length) that the runtime's `prevResult` has.
        addresses: Vec<String>,
    },
    /// Can the agent serve an ADD now?
    Status,
    /// Remove every attachment that is not among these.
    Gc {
        /// `cni.dev/valid-attachments`.
        valid: Vec<AttachmentId>,
    },
}

/// An address of a Pod, and its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length of its Subnet.
    pub prefix_length: u8,
    /// The Subnet's router.
    pub gateway: IpAddr,
}

impl Address {
    /// The address with its prefix length.
    pub fn net(&self) -> IpNet {
        IpNet::new(self.ip, self.prefix_length).unwrap_or_else(|_| self.ip.into())
    }
}

/// Addresses of a Pod or a node: one of a family or of each, never none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The IPv4 one if there are two.
    #[serde(flatten)]
    pub first: Address,
    /// The IPv6 one if there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Address>,
}

impl Addresses {
    /// From those of IPv4 and IPv6; `None` if there is neither.
    pub fn of(ipv4: Option<Address>, ipv6: Option<Address>) -> Option<Self> {
        let first = ipv4.or(ipv6)?;
        let second = ipv4.and(ipv6);
        Some(Self { first, second })
    }

    /// They, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        [&self.first].into_iter().chain(&self.second)
    }

    /// Without prefix lengths and routers.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.iter().map(|address| address.ip)
    }
}

/// What ADD made; the plugin turns it into a CNI result of the configuration's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// Name of the host's end of the veth pair.
    pub host_interface: String,
    /// MAC address of the host's end.
    pub host_mac: String,
    /// MAC address of the Pod's interface.
    pub mac: String,
    /// Addresses of the Pod.
    #[serde(flatten)]
    pub addresses: Addresses,
    /// MTU of the Pod's interface, bytes.
    pub mtu: u32,
}

/// A CNI error: CNI specification, "Error".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Failure {
    /// One of [`code`].
    pub code: u32,
    /// What failed.
    pub msg: String,
    /// Why, and the cure.
    #[serde(default)]
    pub details: String,
}

/// Error codes of the CNI specification, and our own from 100 on.
pub mod code {
    /// Incompatible CNI version.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// Necessary environment variables are invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// The configuration is no JSON of the expected form.
    pub const DECODE: u32 = 6;
    /// The configuration cannot be used.
    pub const INVALID_CONFIG: u32 = 7;
    /// Try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: the plugin cannot serve an ADD.
    pub const UNAVAILABLE: u32 = 50;
    /// The agent could not do what was asked.
    pub const FAILED: u32 = 100;
    /// CHECK found something other than ADD left.
    pub const CHECK: u32 = 101;
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    /// ADD did it.
    Wired(Wiring),
    /// Anything else did it.
    Done,
    /// It did not.
    Failed(Failure),
}

/// A message in its frame.
///
/// # Errors
/// A message longer than [`MESSAGE_LIMIT`].
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    check(length)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Length of the body whose frame starts with `head`.
///
/// # Errors
/// A length above [`MESSAGE_LIMIT`].
pub fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head);
    check(length)?;
    Ok(length as usize)
}

fn check(length: u32) -> io::Result<()> {
    if length > MESSAGE_LIMIT {
        let text = format!("a message of {length} bytes; {MESSAGE_LIMIT} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

/// Writes one message.
///
/// # Errors
/// The writer's; a message that is too long.
pub fn write(writer: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    writer.write_all(&encode(message)?)?;
    writer.flush()
}

/// Reads one message.
///
/// # Errors
/// The reader's; an end in the midst; a message that is too long or of another form.
pub fn read<T: DeserializeOwned>(reader: &mut impl Read) -> io::Result<T> {
    let mut head = [0; 4];
    reader.read_exact(&mut head)?;
    let mut body = vec![0; length(head)?];
    reader.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> AttachmentId {
        AttachmentId {
            container: "c1".into(),
            ifname: "eth0".into(),
        }
    }

    #[test]
    fn messages_come_back_as_they_were_sent() {
        let pod = PodRef {
            namespace: "n".into(),
            name: "p".into(),
            uid: None,
        };
        let requests = [
            Request::Add {
                id: id(),
                netns: "/run/netns/a".into(),
                pod,
                host_ports: vec!["UDP/*/53/5353".parse().unwrap()],
            },
            Request::Del { id: id() },
            Request::Status,
            Request::Gc { valid: vec![id()] },
        ];
        let mut wire = Vec::new();
        for request in &requests {
            write(&mut wire, request).unwrap();
        }
        let mut reader = wire.as_slice();
        for request in &requests {
            assert_eq!(&read::<Request>(&mut reader).unwrap(), request);
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn unknown_fields_are_for_later_versions() {
        let request: Request =
            serde_json::from_str(r#"{"command":"STATUS","novel":{"a":1}}"#).unwrap();
        assert_eq!(request, Request::Status);
    }

    #[test]
    fn rubbish_and_excess_are_refused() {
        assert!(read::<Request>(&mut [0xff, 0xff, 0xff, 0xff, b'{'].as_slice()).is_err());
        assert!(read::<Request>(&mut [0, 0, 0, 9, b'{'].as_slice()).is_err());
        assert!(read::<Request>(&mut [0, 0, 0, 2, b'{', b'}'].as_slice()).is_err());
        let failure = Failure {
            code: 100,
            msg: "x".repeat(MESSAGE_LIMIT as usize),
            details: String::new(),
        };
        assert!(encode(&failure).is_err());
    }
}
