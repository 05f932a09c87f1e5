//! A Pod's network namespace, what listens in it, and connections from it and from the node.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use ycloud_node::agent::netns::Netns;
use ycloud_node::protocol::AttachmentId;

use super::run;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// How long a connection may take; what is dropped takes this long.
const CONNECT: Duration = Duration::from_millis(3500);

/// A container's network namespace; it goes with this.
pub struct Sandbox {
    pub id: AttachmentId,
    name: String,
}

impl Sandbox {
    pub fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ycloud-test-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self {
            id: AttachmentId {
                container: name.clone(),
                ifname: "eth0".into(),
            },
            name,
        }
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub fn ip(&self, arguments: &[&str]) -> String {
        run("ip", &[&["-n", self.name.as_str()], arguments].concat())
    }

    /// Waits until its kernel knows the router's MAC. ovn-controller answers the question for it, and Open vSwitch in user space
    /// may lose what goes there (`datapath_drop_userspace_action_error` of `ovs-appctl coverage/show`): the kernel asks again after a
    /// second.
    pub fn finds(&self, router: &str) {
        // Until the first answer, at most five questions.
        let ping = ["ping", "-q", "-c1", "-w5", router];
        run("ip", &[&["netns", "exec", &self.name], &ping[..]].concat());
    }

    /// How many segments its kernel sent a second time.
    pub fn repeated(&self) -> String {
        let words = [
            "netns",
            "exec",
            &self.name,
            "nstat",
            "-asz",
            "TcpRetransSegs",
        ];
        run("ip", &words)
    }

    /// Listens inside on `port`, and greets everybody with `name`.
    pub async fn serve(&self, port: u16, name: &'static str) {
        let netns = Netns::open(&self.path()).unwrap();
        let bind = move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        let listener = netns.run(bind).await.unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
            }
        });
    }

    /// Listens inside on `port`, and tells everybody the address that they call from.
    pub async fn serve_mirror(&self, port: u16) {
        let netns = Netns::open(&self.path()).unwrap();
        let bind = move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        let listener = netns.run(bind).await.unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = stream.write_all(peer.ip().to_canonical().to_string().as_bytes());
            }
        });
    }

    /// A machine on a link to the node: the node has its address 2, the machine 9, of fd00:18::/64 too.
    pub fn beside(link: &str, network: &str) -> Self {
        let machine = Self::new();
        let at = |host: u8| format!("{network}.{host}/24");
        let peer = ["peer", "name", "eth0", "netns", machine.name()];
        run(
            "ip",
            &[&["link", "add", link, "type", "veth"], &peer[..]].concat(),
        );
        run("ip", &["address", "add", &at(2), "dev", link]);
        run("ip", &["link", "set", link, "up"]);
        machine.ip(&["address", "add", &at(9), "dev", "eth0"]);
        machine.ip(&["link", "set", "eth0", "up"]);
        let nodad = |ip, link| ["address", "add", ip, "dev", link, "nodad"];
        run("ip", &nodad("fd00:18::2/64", link));
        machine.ip(&nodad("fd00:18::9/64", "eth0"));
        machine
    }

    /// Name of the namespace, and the container's id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A UDP socket inside, on `port` of every IPv4 address.
    pub async fn udp(&self, port: u16) -> UdpSocket {
        self.udp_at("0.0.0.0", port).await
    }

    /// A UDP socket inside, on `port` of `ip`.
    pub async fn udp_at(&self, ip: &str, port: u16) -> UdpSocket {
        let ip: IpAddr = ip.parse().unwrap();
        let netns = Netns::open(&self.path()).unwrap();
        let bind = move || UdpSocket::bind((ip, port)).unwrap();
        netns.run(bind).await.unwrap()
    }

    /// Sends a datagram from inside; that it cannot be sent is as good as that nobody gets it.
    pub async fn send_udp(&self, source: &str, target: &str) {
        let (source, target) = (at(source, 0), target.to_owned());
        let netns = Netns::open(&self.path()).unwrap();
        let send = move || {
            let text = format!("{source} to {target}");
            UdpSocket::bind(&source).and_then(|socket| socket.send_to(text.as_bytes(), &target))
        };
        let _ = netns.run(send).await.unwrap();
    }

    /// Connects from inside, from one of the Pod's addresses.
    pub async fn connect_from(&self, source: &str, target: &str) -> io::Result<()> {
        let source: SocketAddr = at(source, 0).parse().unwrap();
        let target: SocketAddr = target.parse().unwrap();
        let netns = Netns::open(&self.path()).unwrap();
        let connect = move || {
            let socket = Socket::new(Domain::for_address(source), Type::STREAM, None)?;
            socket.bind(&source.into())?;
            socket.connect_timeout(&target.into(), Duration::from_millis(500))
        };
        netns.run(connect).await.unwrap()
    }

    /// Connects from inside; returns the greeting.
    pub async fn connect(&self, address: &str) -> io::Result<String> {
        let address = address.parse().unwrap();
        let netns = Netns::open(&self.path()).unwrap();
        netns.run(move || greeting(address)).await.unwrap()
    }
}

/// Address and port, as sockets have them.
pub fn at(ip: &str, port: u16) -> String {
    SocketAddr::new(ip.parse().unwrap(), port).to_string()
}

/// Connects from the node; returns the greeting.
pub async fn connect(address: &str) -> io::Result<String> {
    let address = address.parse().unwrap();
    tokio::task::spawn_blocking(move || greeting(address))
        .await
        .unwrap()
}

fn greeting(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.name])
            .stderr(std::process::Stdio::null())
            .status();
    }
}
