//! Connections to backends that are gone, in a real Open vSwitch with a real OVN.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use support::pod::{Sandbox, at};
use support::{Node, flusher, on_node, pod_ref};
use ycloud_node::agent::add;
use ycloud_node::agent::netns::Netns;

/// From the change of the load balancer until a connection's next packet is balanced anew, with all that this machine does
/// beside.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn connections_of_backends_that_are_gone_move() {
    on_node(|node| async move { moves(&node, "10.0.1.", "/24", "10.96.0.7").await });
}

#[test]
fn connections_of_backends_that_are_gone_move_with_ipv6() {
    on_node(|node| async move { moves(&node, "fd00:1::", "/64", "fd00:96::7").await });
}

async fn pod(node: &Node, name: &str, ip: &str) -> Sandbox {
    let (pod, reference) = (Sandbox::new(), pod_ref(name));
    node.vnic(&reference, "s", "v", ip);
    let added = add::add(&node.agent, &pod.id, &pod.path(), &reference, &[]).await;
    added.unwrap();
    pod
}

/// Answers each byte of a connection, and each datagram, with the one byte `name`.
async fn serve(pod: &Sandbox, name: u8) {
    let netns = Netns::open(&pod.path()).unwrap();
    let bind = || {
        let any = (Ipv6Addr::UNSPECIFIED, 80);
        (
            TcpListener::bind(any).unwrap(),
            UdpSocket::bind(any).unwrap(),
        )
    };
    let (listener, socket) = netns.run(bind).await.unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&[name]).is_ok() {}
            });
        }
    });
    std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok((_, peer)) = socket.recv_from(&mut byte) {
            let _ = socket.send_to(&[name], peer);
        }
    });
}

/// A client's end of a connection.
struct Connection(TcpStream);

impl Connection {
    async fn open(client: &Sandbox, vip: &str) -> Self {
        let vip: SocketAddr = vip.parse().unwrap();
        let netns = Netns::open(&client.path()).unwrap();
        let connect = move || TcpStream::connect_timeout(&vip, Duration::from_secs(3));
        let stream = netns.run(connect).await.unwrap().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        Self(stream)
    }

    /// Who answers.
    fn ask(&mut self) -> std::io::Result<u8> {
        let mut byte = [0];
        self.0.write_all(b"?")?;
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Whether the next packet is answered by a reset.
    fn is_reset(&mut self) -> bool {
        let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        matches!(self.ask(), Err(error) if reset.contains(&error.kind()))
    }
}

/// Who answers a datagram; `None` if nobody does.
fn ask(socket: &UdpSocket) -> Option<u8> {
    let mut byte = [0];
    socket.send(b"?").ok()?;
    socket.recv(&mut byte).ok().map(|_| byte[0])
}

async fn socket(client: &Sandbox, vip: &str) -> UdpSocket {
    let any = if vip.starts_with('[') {
        "::"
    } else {
        "0.0.0.0"
    };
    let socket = client.udp_at(any, 0).await;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket.connect(vip).unwrap();
    socket
}

fn set(node: &Node, vip: &str, backends: &str, draining: &str) {
    let vips = format!("vips={{\"{vip}\"=\"{backends}\"}}");
    let option = format!("options:draining=\"{draining}\"");
    for lb in ["tcp", "udp"] {
        let mut command = vec!["--wait=hv", "set", "load_balancer", lb, &vips];
        match draining {
            "" => command.extend(["--", "remove", "load_balancer", lb, "options", "draining"]),
            _ => command.push(&option),
        }
        node.ovn.nbctl(&command);
    }
}

/// Tells whether `condition` comes true in time; it is asked at leisure, as asking is traffic.
async fn soon(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < SOON {
        if condition() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

async fn moves(node: &Node, net: &str, length: &str, vip: &str) {
    node.ovn.switch("r", "s", &format!("{net}1{length}"));
    let ips = [11, 12].map(|number| format!("{net}{number}"));
    let a = pod(node, "a", &ips[0]).await;
    let b = pod(node, "b", &ips[1]).await;
    let client = pod(node, "client", &format!("{net}100")).await;
    serve(&a, b'a').await;
    serve(&b, b'b').await;
    let vip = at(vip, 80);
    let [at_a, at_b] = ips.map(|ip| at(&ip, 80));
    let both = format!("{at_a},{at_b}");
    for protocol in ["tcp", "udp"] {
        node.ovn.nbctl(&["lb-add", protocol, &vip, &both, protocol]);
        let options = ["options:neighbor_responder=none", "options:reject=true"];
        node.ovn
            .nbctl(&[&["set", "load_balancer", protocol][..], &options].concat());
        node.ovn.nbctl(&["--wait=hv", "ls-lb-add", "s", protocol]);
    }
    // Two connections and two sockets, one of each backend.
    let (mut to_a, mut to_b, mut udp_a, mut udp_b) = (None, None, None, None);
    for _ in 0..40 {
        let mut connection = Connection::open(&client, &vip).await;
        match connection.ask().unwrap() {
            b'a' => to_a = Some(connection),
            _ => to_b = Some(connection),
        }
        let datagrams = socket(&client, &vip).await;
        match ask(&datagrams) {
            Some(b'a') => udp_a = Some(datagrams),
            Some(_) => udp_b = Some(datagrams),
            None => {}
        }
        if to_a.is_some() && to_b.is_some() && udp_a.is_some() && udp_b.is_some() {
            break;
        }
    }
    let (mut to_a, mut to_b) = (to_a.unwrap(), to_b.unwrap());
    let (udp_a, udp_b) = (udp_a.unwrap(), udp_b.unwrap());

    set(node, &vip, &at_b, &format!("{vip}={at_a}"));
    let sb = ["--bare", "--columns=options", "list", "load_balancer"];
    let options = node.ovn.tool("ovn-sbctl", &sb);
    assert!(options.contains("draining="), "{options}");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(to_a.ask().unwrap(), b'a', "it drains");
    assert_eq!(ask(&udp_a), Some(b'a'), "it drains");
    for _ in 0..6 {
        let mut connection = Connection::open(&client, &vip).await;
        assert_eq!(connection.ask().unwrap(), b'b', "it takes nothing new");
    }

    set(node, &vip, &at_b, "");
    assert!(soon(|| ask(&udp_a) == Some(b'b')).await, "it has drained");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    assert!(to_a.is_reset(), "it has drained");
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(to_b.ask().unwrap(), b'b', "others stay");
    assert_eq!(ask(&udp_b), Some(b'b'), "others stay");

    // Both are back; then one leaves without draining, while its clients talk.
    set(node, &vip, &both, "");
    set(node, &vip, &at_a, "");
    assert!(soon(|| ask(&udp_b) == Some(b'a')).await, "it is gone");
    assert!(soon(|| to_b.is_reset()).await, "it is gone");

    // Nobody is left. OVN then answers a connection's later packets with a reset that is out of the client's window.
    let mut last = Connection::open(&client, &vip).await;
    assert_eq!(last.ask().unwrap(), b'a');
    set(node, &vip, "", "");
    assert!(soon(|| last.ask().is_err()).await, "nobody is left");
    assert!(soon(|| ask(&udp_a).is_none()).await, "nobody is left");

    // Each of three times two pairs was flushed at least twice; those of UDP and TCP by requests of their own.
    let counted = &node.agent.chassis.metrics.ct_flush;
    let (pairs, requests) = (counted.pairs.get(), counted.requests.get());
    assert!(pairs >= 10 && requests <= pairs, "{requests} {pairs}");
    assert_eq!(counted.failed.get(), 0);
}

/// Servers a and b, which say who they are, and a client, on one switch.
async fn two_servers(node: &Node) -> [Sandbox; 3] {
    node.ovn.switch("r", "s", "10.0.1.1/24");
    let [a, b, client] = [
        pod(node, "a", "10.0.1.11").await,
        pod(node, "b", "10.0.1.12").await,
        pod(node, "client", "10.0.1.100").await,
    ];
    serve(&a, b'a').await;
    serve(&b, b'b').await;
    [a, b, client]
}

#[test]
fn a_flush_that_comes_before_the_flows_is_repeated_after_them() {
    on_node(|node| async move {
        let [_a, _b, client] = two_servers(&node).await;
        let vip = "10.96.0.7:80";
        let both = "10.0.1.11:80,10.0.1.12:80";
        node.ovn.nbctl(&["lb-add", "udp", vip, both, "udp"]);
        node.ovn.nbctl(&["--wait=hv", "ls-lb-add", "s", "udp"]);
        // The old flows balance it to the same backend again: they go by its addresses and ports.
        let mut to_a = None;
        for _ in 0..40 {
            let datagrams = socket(&client, vip).await;
            if ask(&datagrams) == Some(b'a') {
                to_a = Some(datagrams);
                break;
            }
        }
        let to_a = to_a.unwrap();
        node.ovn.kill("controller");
        let vips = format!("vips={{\"{vip}\"=\"10.0.1.12:80\"}}");
        node.ovn
            .nbctl(&["--wait=sb", "set", "load_balancer", "udp", &vips]);
        let start = Instant::now();
        let mut last = None;
        while start.elapsed() < Duration::from_secs(4) {
            last = ask(&to_a).or(last);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(last.is_some(), "the old flows are there");
        node.ovn.start_controller();
        let moved = |answer: Option<u8>| answer == Some(b'b');
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) && !moved(ask(&to_a)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(moved(ask(&to_a)), "before: {last:?}");
    });
}

#[test]
fn what_leaves_while_the_agent_is_away_is_flushed_when_it_is_back() {
    on_node(|node| async move {
        let [_a, _b, client] = two_servers(&node).await;
        let vip = "10.96.0.7:80";
        node.ovn
            .nbctl(&["lb-add", "udp", vip, "10.0.1.11:80", "udp"]);
        node.ovn.nbctl(&["--wait=hv", "ls-lb-add", "s", "udp"]);
        let datagrams = socket(&client, vip).await;
        assert!(soon(|| ask(&datagrams) == Some(b'a')).await);
        // Noted ten seconds after the last note at the latest.
        let kept = node.agent.options.run_dir.join("load-balancers");
        let noted = || std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("10.0.1.11"));
        let start = Instant::now();
        while !noted() && start.elapsed() < Duration::from_secs(15) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(noted());

        node.flusher.abort();
        let vips = format!("vips={{\"{vip}\"=\"10.0.1.12:80\"}}");
        node.ovn
            .nbctl(&["--wait=hv", "set", "load_balancer", "udp", &vips]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(ask(&datagrams), Some(b'a'), "nobody flushes");
        flusher(&node.agent.options, &node.agent.chassis.metrics);
        assert!(soon(|| ask(&datagrams) == Some(b'b')).await, "it is back");
    });
}
