//! SCTP without sockets: this machine's kernel may have none, so an association's first two packets are written and
//! read as they are (RFC 9260 §3.3.2, §3.3.3), from inside the Pods' network namespaces.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cluster::get;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// One packet, as far as these tests care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub from: Ipv4Addr,
    pub source_port: u16,
    pub destination_port: u16,
    /// Type of the first chunk.
    pub chunk: u8,
    /// Whether the CRC32c fits what arrived.
    pub intact: bool,
}

/// Sends an INIT from `client` to address:port and answers it in `server`, which listens on all of its ports. Returns what
/// the server got and what the client got.
pub fn handshake(
    namespace: &str,
    client: &str,
    server: &str,
    address: Ipv4Addr,
    port: u16,
) -> (Option<Packet>, Option<Packet>) {
    let client = socket_in(namespace, client).expect("a raw socket in the client");
    let server = socket_in(namespace, server).expect("a raw socket in the server");
    let answering = std::thread::spawn(move || -> Option<Packet> {
        let init = receive(&server, INIT)?;
        send(
            &server,
            init.from,
            &packet(init.destination_port, init.source_port, INIT_ACK),
        )
        .ok()?;
        Some(init)
    });
    send(&client, address, &packet(40_000, port, INIT)).expect("the INIT leaves");
    let answer = receive(&client, INIT_ACK);
    (answering.join().expect("the server ends"), answer)
}

/// A raw socket for IP protocol 132 in a Pod's network namespace: a socket keeps the namespace that it was made in.
fn socket_in(namespace: &str, pod: &str) -> io::Result<Socket> {
    let uid = get(&["-n", namespace, "pod", pod])["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let process = std::fs::read_dir("/proc")?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            std::fs::read_to_string(path.join("cgroup")).is_ok_and(|text| text.contains(&uid))
        })
        .ok_or_else(|| io::Error::other(format!("no process of Pod {pod}")))?;
    let netns = File::open(process.join("ns/net"))?;
    let made = std::thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(132)))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    });
    made.join()
        .map_err(|_| io::Error::other("the thread panicked"))?
}

fn send(socket: &Socket, to: Ipv4Addr, packet: &[u8]) -> io::Result<usize> {
    socket.send_to(packet, &SocketAddr::V4(SocketAddrV4::new(to, 0)).into())
}

/// The next packet whose first chunk is of type `chunk`; none after five seconds of silence.
fn receive(socket: &Socket, chunk: u8) -> Option<Packet> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let mut buffer = [0_u8; 2048];
        let length = { socket }.read(&mut buffer).ok()?;
        // A raw socket gets the IPv4 header too: 20 bytes, as nobody here sends options; the source is at 12.
        let (header, bytes) = buffer[..length].split_at_checked(20)?;
        let from = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        if bytes.len() > 12 && bytes[12] == chunk {
            let mut zeroed = bytes.to_vec();
            zeroed[8..12].fill(0);
            return Some(Packet {
                from,
                source_port: u16::from_be_bytes([bytes[0], bytes[1]]),
                destination_port: u16::from_be_bytes([bytes[2], bytes[3]]),
                chunk,
                intact: bytes[8..12] == crc32c(&zeroed).to_le_bytes(),
            });
        }
    }
    None
}

/// Common header and an INIT or INIT ACK chunk with its mandatory fields.
fn packet(source_port: u16, destination_port: u16, chunk: u8) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(1_000_u32.to_be_bytes()); // initiate tag
    body.extend(65_535_u32.to_be_bytes()); // advertised receiver window credit
    body.extend([0, 1, 0, 1]); // outbound and inbound streams
    body.extend(1_u32.to_be_bytes()); // initial TSN
    if chunk == INIT_ACK {
        body.extend([0, 7, 0, 8]); // state cookie, eight bytes with this header
        body.extend(*b"cook");
    }
    // The peer's initiate tag is the verification tag of all but an INIT.
    let tag: u32 = if chunk == INIT { 0 } else { 1_000 };
    let length = u16::try_from(4 + body.len()).expect("a short chunk");
    let mut packet = Vec::new();
    packet.extend(source_port.to_be_bytes());
    packet.extend(destination_port.to_be_bytes());
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend(body);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// CRC32c, RFC 9260 Appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                (sum >> 1) ^ 0x82F6_3B78
            } else {
                sum >> 1
            }
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}
