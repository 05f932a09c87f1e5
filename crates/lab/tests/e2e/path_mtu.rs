//! The MTU of the path, and the ICMP errors by which a sender learns it or that a port is closed: about its own flow, at the address
//! that it called, and believed by its kernel.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ycloud_lab::icmp::{Icmp, Message};
use ycloud_lab::place::Place;

use crate::asking::{PATIENCE, gateways, machine, pod, target};
use crate::city;
use crate::cluster::on;
use crate::scene::Scene;

/// What the tunnels carry: `MTU` of deploy/configmap.yaml.
const MTU: u32 = 1400;
/// What the client's link carries in the tests about answers. Not less than 1,200: Open vSwitch in user space takes no smaller
/// fragments (ARCHITECTURE, Known limits).
const NARROW: u32 = 1280;
/// EMSGSIZE of Linux.
const MESSAGE_TOO_LONG: i32 = 90;
/// A UDP port whose endpoints do not listen.
const CLOSED: &str = "    - {name: closed, port: 82, protocol: UDP, targetPort: 9}\n";
/// How often a datagram is sent that may be lost while its sender learns the MTU.
const TRIES: usize = 4;

/// The MTU that somebody tells a place when it sends a datagram with this many bytes of its own, and that its kernel believed it: the
/// socket of the flow got the error.
#[track_caller]
fn told(place: &Place, to: SocketAddr, bytes: usize) -> u32 {
    let errors = Icmp::open(place, to.ip()).expect("a raw socket");
    let socket = place.datagrams(to, PATIENCE).expect("a socket");
    socket.send(&vec![b'.'; bytes]).expect("sent");
    let mtu = loop {
        match errors.hear(PATIENCE).expect("ICMP") {
            Some(Message::TooBig { to: about, mtu, .. }) if about == to.ip() => break mtu,
            Some(_) => {}
            None => panic!(
                "{}: nobody says that {bytes} bytes are too many",
                place.name()
            ),
        }
    };
    let error = socket.recv(&mut [0; 64]).expect_err("it did not arrive");
    assert_eq!(error.raw_os_error(), Some(MESSAGE_TOO_LONG), "{error}");
    mtu
}

/// What a datagram answers that asks for a text of this many bytes, which is sent a few times.
fn echo(place: &Place, to: SocketAddr, bytes: usize) -> Option<usize> {
    let socket = place
        .datagrams(to, Duration::from_secs(1))
        .expect("a socket");
    let question = format!("echo {}", "x".repeat(bytes));
    (0..TRIES).find_map(|_| {
        socket.send(question.as_bytes()).ok()?;
        socket.recv(&mut [0; 4096]).ok()
    })
}

/// How many bytes the answer has to an HTTP request that asks for a text of this many.
#[track_caller]
fn http_echo(place: &Place, to: SocketAddr, bytes: usize) -> usize {
    let mut stream = place.connect(to, PATIENCE).expect("a connection");
    let path = format!("/echo?msg={}", "x".repeat(bytes));
    let request = format!("GET {path} HTTP/1.0\r\nHost: e2e\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer.len()
}

/// An EIP of a Service of one Vpc, which has a closed port too.
fn of_one_vpc(name: &str) -> SocketAddr {
    gateways();
    let (tenant, vpc) = city::tenant();
    tenant.load_balancer(name, &vpc, "web", CLOSED);
    target(&tenant.programmed_eip(name, 3), 80)
}

/// An EIP of a Service of the default Vpc.
fn of_the_default_vpc(name: &str) -> SocketAddr {
    gateways();
    let scene = city::default_vpc();
    scene.load_balancer(name, "ovn-cluster", "web", "");
    target(&scene.programmed_eip(name, 3), 80)
}

/// An EIP of a Service over several Vpcs.
fn of_several_vpcs(name: &str) -> SocketAddr {
    gateways();
    let several = city::three_vpcs();
    let vpcs = ["p", "q", "r"].map(|vpc| several.full(vpc));
    let vpcs: Vec<&str> = vpcs.iter().map(String::as_str).collect();
    several.over_vpcs(name, &vpcs, "web", "");
    target(&several.programmed_eip(name, 4), 80)
}

#[test]
fn scenario_3_4_a_datagram_from_outside_that_no_tunnel_carries_is_answered_with_the_mtu() {
    let outside = machine("external");
    for to in [of_one_vpc("mtu-in"), of_several_vpcs("mtu-in")] {
        // 28 bytes of headers make it 1,450, which the physical network carries.
        assert_eq!(told(&outside, to, 1_422), MTU, "{to}");
        // Now its kernel knows: a datagram of the MTU arrives, and what it answers too.
        let text = MTU as usize - 28 - "echo ".len();
        assert_eq!(echo(&outside, to, text), Some(text), "{to}");
    }
}

#[test]
fn a_closed_port_of_a_backend_is_told_to_each_datagram() {
    let outside = machine("external");
    let to = SocketAddr::new(of_one_vpc("mtu-closed").ip(), 82);
    // Several from one socket, one after another, so that all but the first are of a connection that is known and has had no
    // answer. Few, as a kernel sends one host six such errors at once, and then one a second.
    let socket = outside.datagrams(to, PATIENCE).expect("a socket");
    for n in 0..3 {
        let start = Instant::now();
        socket.send(b"hostname").expect("sent");
        let error = socket.recv(&mut [0; 64]).expect_err("nobody listens");
        let kind = error.kind();
        assert_eq!(kind, ErrorKind::ConnectionRefused, "datagram {n}");
        assert!(start.elapsed() < Duration::from_secs(2), "datagram {n}");
    }
}

/// The upstream router's link to the machine outside carries less, until this is dropped.
struct Narrow;

impl Narrow {
    fn set(more: &str) {
        let route =
            "ip route replace 203.0.113.0/25 dev wan0 proto kernel scope link src 203.0.113.1";
        on("upstream", &format!("{route} {more}")).must();
    }

    fn begin() -> Self {
        Self::set(&format!("mtu {NARROW}"));
        Self
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        Self::set("");
    }
}

// Alone, as it changes the upstream router.
#[test]
fn alone_answers_reach_a_client_behind_a_narrow_link() {
    let outside = machine("external");
    let eips = [of_one_vpc("mtu-out"), of_the_default_vpc("mtu-out")];
    let _narrow = Narrow::begin();
    for to in eips {
        for n in 0..8 {
            let length = http_echo(&outside, to, 6_000);
            assert!(length > 6_000, "{to}, connection {n}: {length} bytes");
        }
        let text = MTU as usize - 28 - "echo ".len();
        assert_eq!(echo(&outside, to, text), Some(text), "{to}");
    }
}

/// Gives a Pod's interface, and its node's end of it, another MTU than the agent did: what a machine is that nobody told.
fn widen(scene: &Scene, name: &str, node: &str) {
    let ns = &scene.name;
    let find = format!(
        "for i in $(ovs-vsctl --bare --columns=name find Interface external_ids:ycloud-pod={ns}/{name}); do \
         ip link set $i mtu 1500; done"
    );
    on(node, &find).must();
    crate::cluster::in_pod(ns, name, "ip link set eth0 mtu 1500").must();
}

#[test]
fn inside_a_vpc_its_router_tells_the_mtu_in_both_families() {
    let mut scene = Scene::new("mtu-inside");
    let subnets = [
        ("a", "10.0.1.0/24,fd00:1:1::/64"),
        ("b", "10.0.2.0/24,fd00:1:2::/64"),
    ];
    let vpc = scene.vpc("v", &subnets);
    scene.server("s", "b", "node-2", "web");
    scene.client("c", "a", "node-1");
    scene.load_balancer("svc", &vpc, "web", "");
    scene.pods_ready();
    let vip = scene.programmed("svc", 1);
    widen(&scene, "c", "node-1");
    let client = pod(&scene, "c");
    assert_eq!(told(&client, target(&vip, 80), 1_422), MTU);
    let text = MTU as usize - 28 - "echo ".len();
    assert_eq!(echo(&client, target(&vip, 80), text), Some(text));
    // At its own address: Open vSwitch in user space spoils what it translates back of IPv6 (ARCHITECTURE, Known limits).
    let own = crate::cluster::get(&["-n", &scene.name, "pod", "s"]);
    let own = own["status"]["podIPs"][1]["ip"].as_str().expect("IPv6");
    assert_eq!(told(&client, target(own, 8081), 1_402), MTU);
}
