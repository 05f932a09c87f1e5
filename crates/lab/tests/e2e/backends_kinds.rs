//! Every kind of probe finds its own failures, of backends of every kind, by IPv6 as by IPv4, and says what is wrong.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use ycloud_lab::ask::{Heard, Protocol};
use ycloud_lab::backend::Kind;
use ycloud_lab::place::Place;
use ycloud_lab::server::{Check, Order, authority, tell};

use crate::asking::{ask_often, assert_met, pod, target};
use crate::backends::{ALL, LEAVES, Plugged};
use crate::cluster::{apply, eventually, get};
use crate::dual::{V6, pod_ips, v6};
use crate::scene::Scene;

/// A check that finds out fast.
const FAST: &str = "periodSeconds: 1, timeoutSeconds: 1, successThreshold: 1, failureThreshold: 2";
/// The checks that are made by IPv6 too; their Services are named as the check with a 6 behind it.
const BY_IPV6: [Check; 2] = [Check::Tcp, Check::Icmp];

/// By when all that is wrong must be in the statuses: [`LEAVES`], and two seconds for some twenty states that change at once, a
/// virtual machine whose processor is emulated, and a debug build. How soon each kind finds each failure, a benchmark says.
const FOUND: Duration = Duration::from_secs(LEAVES.as_secs() + 2);

/// One backend of each kind, and a YusurService over them for each kind of probe. What is behind VNics goes first.
struct Asked {
    _vm: Plugged,
    bm: Plugged,
    _addr: Plugged,
    client: Place,
    /// Of the backends, in the order of [`ALL`].
    addresses: Vec<IpAddr>,
    /// With their addresses, port 80.
    services: Vec<(String, SocketAddr)>,
    scene: Scene,
}

/// A YusurService, one of its backends, and words of what is wrong with it.
type Finding = (&'static str, &'static str, &'static str);

impl Asked {
    fn new(name: &str) -> Self {
        let mut scene = Scene::new(name);
        let vpc = scene.vpc("v", &[("a", "10.0.1.0/24,fd00:1:1::/64")]);
        scene.probed_server("pod", "a", "node-1");
        scene.client("client", "a", "node-3");
        let one = |kind, name, chassis| scene.behind_vnic(kind, name, "a", chassis, "");
        let (vm, bm, addr) = thread::scope(|scope| {
            let vm = scope.spawn(|| one(Kind::Vm, "vm", "node-2"));
            let bm = one(Kind::Server, "bm", "dpu-1");
            let addr = one(Kind::Address, "addr", "node-3");
            (vm.join().expect("the virtual machine starts"), bm, addr)
        });
        scene.pods_ready();
        let signed = authority().expect("the servers' authority");
        let by_ipv6 = BY_IPV6.map(|check| (check, V6));
        let mut services = Vec::new();
        for (check, families) in Check::ALL
            .map(|check| (check, ""))
            .into_iter()
            .chain(by_ipv6)
        {
            let name = format!("{check}{}", if families.is_empty() { "" } else { "6" });
            let health = format!(
                "  vpc: {vpc}\n{families}  healthCheck: {{{}, {FAST}}}\n",
                check.yaml(&signed)
            );
            let backends = [
                "{kind: Pod, name: pod}",
                "{kind: VM, name: vm}",
                "{kind: BM, name: bm}",
                "{kind: VNicIP, name: addr}",
            ];
            scene.service_over(&name, &backends, &health);
            services.push(name);
        }
        let services = services.into_iter().map(|name| {
            let vip = scene.programmed(&name, ALL.len() as i64);
            (name, target(&vip, 80))
        });
        Self {
            services: services.collect(),
            addresses: ALL.map(|name| address(&scene, name)).to_vec(),
            client: pod(&scene, "client"),
            _vm: vm,
            bm,
            _addr: addr,
            scene,
        }
    }

    fn tell(&self, backend: &str, order: Order) {
        let index = ALL.iter().position(|name| *name == backend);
        let to = self.addresses[index.expect("a backend's name")];
        tell(&self.client, to, order).expect("a server that obeys");
    }

    fn address_of(&self, service: &str) -> SocketAddr {
        let found = self.services.iter().find(|(name, _)| name == service);
        found.expect("a YusurService's name").1
    }

    fn healthy<'a>(service: &str, findings: &[Finding], all: &[&'a str]) -> Vec<&'a str> {
        let failed = |name: &&&str| !findings.iter().any(|(s, b, _)| s == &service && b == *name);
        all.iter().filter(failed).copied().collect()
    }

    /// All that is wrong is found in time, is told in words, and nothing else is found; and the endpoints follow.
    fn assert_found(&self, findings: &[Finding]) {
        let began = Instant::now();
        eventually("what is wrong is found, and nothing else", FOUND, || {
            let mut wrong = Vec::new();
            for (service, _) in &self.services {
                let states = self.scene.states(service);
                for (backend, (state, message)) in states {
                    let words = findings
                        .iter()
                        .find(|(s, b, _)| s == service && *b == backend);
                    let expected = match words {
                        None => state == "Healthy",
                        Some((.., words)) => state == "Unhealthy" && message.contains(words),
                    };
                    if !expected {
                        wrong.push(format!(
                            "{service}, {backend}: {state}, {message:?}; {words:?}"
                        ));
                    }
                }
            }
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join("\n"))
            }
        });
        eprintln!("all found {:?} after it was so", began.elapsed());
        for (service, _) in &self.services {
            let left = Self::healthy(service, findings, &ALL).len();
            self.scene.programmed(service, left as i64);
        }
    }

    /// A client meets nobody at these YusurServices whose probe found him failing.
    fn assert_not_met(&self, services: &[&str], findings: &[Finding]) {
        for service in services {
            let to = self.address_of(service);
            let left = Self::healthy(service, findings, &ALL);
            // By UDP: what is wrong with HTTP is not what is asked here.
            let answered = ask_often(&self.client, Protocol::Udp, to, 8 * left.len() as u32);
            assert!(answered.failed.is_empty(), "{service}: {answered:?}");
            let strangers = answered
                .names()
                .into_iter()
                .filter(|name| !left.contains(name));
            assert_eq!(
                strangers.count(),
                0,
                "{service}: {answered:?}; not {left:?}"
            );
        }
    }
}

/// The IPv4 address of a backend.
fn address(scene: &Scene, backend: &str) -> IpAddr {
    let text = match backend {
        "pod" => scene.pod_ip("pod"),
        vnic => {
            let vnic = get(&["-n", &scene.name, "vnic", vnic]);
            vnic["status"]["ip"].as_str().unwrap_or_default().to_owned()
        }
    };
    text.parse().expect("an address")
}

impl Scene {
    /// A Pod with the server that can be asked by every kind of probe; Kubernetes asks it nothing.
    fn probed_server(&self, name: &str, subnet: &str, node: &str) {
        apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, annotations: {{iaas.yusur.io/subnet: {subnet}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: server, image: 'ycloud.io/server:v1', imagePullPolicy: IfNotPresent, args: [{name}]}}]
",
            ns = self.name,
            subnet = self.full(subnet),
        ))
        .must();
    }
}

#[test]
fn timed_backends_kinds_every_probe_finds_its_own_failures_of_every_backend() {
    let asked = Asked::new("be-kinds");
    v6(&pod_ips(&asked.scene, "pod"));
    wrong_answers(&asked);
    no_answers(&asked);
    no_way_there(&asked);
}

fn wrong_answers(asked: &Asked) {
    asked.tell("vm", Order::Http500);
    asked.tell("bm", Order::CertificateOfAStranger);
    asked.tell("pod", Order::GrpcNotServing);
    asked.tell("addr", Order::Close);
    let found = [
        ("http", "vm", "HTTP status 500"),
        ("https", "vm", "HTTP status 500"),
        (
            "https",
            "bm",
            "TLS: invalid peer certificate: UnknownIssuer",
        ),
        ("grpc", "pod", "gRPC health: NOT_SERVING"),
        ("tcp", "addr", "refused"),
        ("http", "addr", "refused"),
        ("https", "addr", "refused"),
        ("grpc", "addr", "refused"),
        ("udp", "addr", "refused"),
        ("tcp6", "addr", "refused"),
    ];
    asked.assert_found(&found);
    asked.assert_not_met(&["tcp", "http", "https", "grpc", "udp", "tcp6"], &found);
    for backend in ALL {
        asked.tell(backend, Order::Well);
    }
    asked.assert_found(&[]);
}

/// A process that is stuck, one that is gone, a certificate of another server, and a Pod that no packet reaches.
fn no_answers(asked: &Asked) {
    let place = pod(&asked.scene, "pod");
    place.set_cable(false).expect("cut");
    asked.tell("bm", Order::Stop);
    asked.tell("addr", Order::Kill);
    asked.tell("vm", Order::CertificateOfAnotherName);
    let connecting = "timed out after 1 s connecting";
    let packet = "timed out after 1 s waiting for a packet";
    let found = [
        ("tcp", "pod", connecting),
        ("http", "pod", connecting),
        ("https", "pod", connecting),
        ("grpc", "pod", connecting),
        ("udp", "pod", packet),
        ("icmp", "pod", packet),
        ("tcp6", "pod", connecting),
        ("icmp6", "pod", packet),
        ("http", "bm", "timed out after 1 s waiting for an answer"),
        ("https", "bm", "timed out after 1 s in the TLS handshake"),
        ("grpc", "bm", "timed out after 1 s"),
        ("udp", "bm", packet),
        ("tcp", "addr", "refused"),
        ("http", "addr", "refused"),
        ("https", "addr", "refused"),
        ("grpc", "addr", "refused"),
        ("udp", "addr", "refused"),
        ("tcp6", "addr", "refused"),
        ("https", "vm", "not valid for name"),
    ];
    asked.assert_found(&found);
    asked.assert_not_met(&["http", "grpc", "udp"], &found);
    assert_met(&asked.client, asked.address_of("https"), Heard::Refusal);
    place.set_cable(true).expect("joined");
    for backend in ["vm", "bm", "addr"] {
        asked.tell(backend, Order::Well);
    }
    asked.assert_found(&[]);
}

/// A cable that is cut is silence behind any port, by either family.
fn no_way_there(asked: &Asked) {
    asked.bm.set_cable(false).expect("cut");
    let services = [
        "tcp", "http", "https", "grpc", "udp", "icmp", "tcp6", "icmp6",
    ];
    let found = services.map(|service| (service, "bm", "timed out after 1 s"));
    asked.assert_found(&found);
    asked.assert_not_met(&["icmp", "tcp6", "icmp6"], &found);
    asked.bm.set_cable(true).expect("joined");
    asked.assert_found(&[]);
}
