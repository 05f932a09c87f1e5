//! A node of one's own: a network namespace with a real Open vSwitch (userspace datapath) and a real OVN, the agent's parts
//! on it, and Pods' namespaces. Needs root and the packages openvswitch-switch, ovn-central, ovn-host, nftables, iproute2.

#![allow(
    dead_code,
    reason = "each test file is its own crate and uses a part of this"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub mod ovn;
pub mod pod;
pub mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use nix::sched::{CloneFlags, unshare};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use ycloud_api::condition::WIRED;
use ycloud_api::subnet::SubnetIpv6;
use ycloud_api::vnic::{Attachment, AttachmentKind, Device, VNicIpv6, pod_vnic_name};
use ycloud_api::{EipGateway, Subnet, SubnetSpec, VNic, VNicSpec, VNicStatus};
use ycloud_client::supervisor::LIMIT;
use ycloud_client::{Heartbeat, Supervisor};
use ycloud_node::agent::add::Limits;
use ycloud_node::agent::affinity::{self, Affinity};
use ycloud_node::agent::behind;
use ycloud_node::agent::chassis::Chassis;
use ycloud_node::agent::ct_flush::CtFlush;
use ycloud_node::agent::devices::Devices;
use ycloud_node::agent::devices::reports::Reports;
use ycloud_node::agent::metrics::Metrics;
use ycloud_node::agent::netlink::{Events, Netlink};
use ycloud_node::agent::node_interface::NodeInterface;
use ycloud_node::agent::objects::{Mirrors, Objects};
use ycloud_node::agent::ovs::Ovs;
use ycloud_node::agent::pod_links::PodLinks;
use ycloud_node::agent::services::world::Change;
use ycloud_node::agent::services::{Progress, Services};
use ycloud_node::agent::southbound::Southbound;
use ycloud_node::agent::turns::Turns;
use ycloud_node::agent::{Agent, Options, Role, nft, prober};
use ycloud_node::protocol::PodRef;

use ovn::Ovn;

/// Name of the node, and of its chassis.
pub const NODE: &str = "node-1";

/// Name of a Pod that ycloud-controller makes no VNic for, and says why.
pub const REFUSED: &str = "refused";

/// The writing ends of the agent's mirrors: what an API server would say.
pub struct Objs {
    pub vnics: watch::Sender<Objects<VNic>>,
    pub subnets: watch::Sender<Objects<Subnet>>,
    pub service_cidrs: watch::Sender<Objects<ServiceCIDR>>,
    pub eip_gateways: watch::Sender<Objects<EipGateway>>,
    /// Services, EndpointSlices and Nodes.
    pub changes: mpsc::UnboundedSender<Change>,
    /// Machines that the node uses: what names are looked up for.
    pub hosts: watch::Sender<BTreeSet<IpAddr>>,
}

/// A node with an agent.
pub struct Node {
    pub ovn: Ovn,
    pub objects: Objs,
    pub agent: Arc<Agent>,
    pub registry: Arc<Registry>,
    /// The task of [`flusher`].
    pub flusher: JoinHandle<()>,
    ready: watch::Sender<bool>,
}

/// Runs `body` on a node of its own.
pub fn on_node<F>(body: impl FnOnce(Arc<Node>) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("run as root");
        // Its threads are started from here, so they are in the namespace too.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            run("ip", &["link", "set", "lo", "up"]);
            let node = Arc::new(Node::start().await);
            body(node).await;
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn mirror<K>() -> (watch::Sender<Objects<K>>, watch::Receiver<Objects<K>>) {
    watch::channel(Objects {
        synced: false,
        by_key: BTreeMap::new(),
    })
}

impl Node {
    async fn start() -> Self {
        let ovn = Ovn::start();
        let (vnics, vnics_mirror) = mirror();
        let (subnets, subnets_mirror) = mirror();
        let (service_cidrs, service_cidrs_mirror) = mirror();
        let (eip_gateways, eip_gateways_mirror) = mirror();
        eip_gateways.send_modify(|objects: &mut Objects<EipGateway>| objects.synced = true);
        let (changes, changes_receiver) = mpsc::unbounded_channel();
        let mirrors = Mirrors {
            vnics: vnics_mirror,
            subnets: subnets_mirror,
            service_cidrs: service_cidrs_mirror,
            eip_gateways: eip_gateways_mirror,
        };
        let remote = format!("unix:{}", ovn.path("db.sock").display());
        let supervisor = Supervisor::new(CancellationToken::new());
        let ovs = Ovs::start(&supervisor, remote.parse().unwrap());
        ovs.connected().await.unwrap();
        let netlink = Netlink::open(&supervisor).unwrap();
        let (ready, node_interface) = watch::channel(false);
        let (hosts, hosts_mirror) = watch::channel(BTreeSet::new());
        let (progress, services) = watch::channel(Progress::default());
        let task = Services {
            changes: changes_receiver,
            mirrors: mirrors.clone(),
            system: options(ovn.folder()).system_ranges(),
            hosts: hosts_mirror.clone(),
            netlink: netlink.clone(),
            node: NODE.into(),
            progress,
        };
        supervisor.spawn("services", LIMIT, |heartbeat| task.run(heartbeat));
        let folder = ovn.folder().to_owned();
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let parts = (ovs.clone(), netlink.clone(), mirrors.vnics.clone(), metrics);
        let (chassis, flusher) = chassis(supervisor.clone(), &options(&folder), parts, &vnics);
        let switch = (ovs.clone(), Netlink::open(&supervisor).unwrap());
        let agent = Agent {
            chassis,
            options: options(&folder),
            pod_links: PodLinks::start(&supervisor, switch, hosts_mirror).unwrap(),
            ovs,
            netlink,
            mirrors,
            turns: Turns::default(),
            limits: Limits {
                vnic: Duration::from_secs(1),
                refused: Duration::from_millis(200),
                install: Duration::from_secs(10),
            },
            pod_refusal: Arc::new(|pod: PodRef| {
                let why = (pod.name == REFUSED).then(|| "Subnet s9 does not exist".to_owned());
                Box::pin(std::future::ready(why))
            }),
            nft_socket: nft::has_socket().await,
            node_interface,
            services,
        };
        Self {
            ovn,
            objects: Objs {
                vnics,
                subnets,
                service_cidrs,
                eip_gateways,
                changes,
                hosts,
            },
            agent: Arc::new(agent),
            registry: Arc::new(registry),
            flusher,
            ready,
        }
    }

    /// Starts the task of the node interface.
    pub fn start_node_interface(&self) -> watch::Receiver<bool> {
        let supervisor = &self.agent.chassis.supervisor;
        let interface = NodeInterface {
            ovs: self.agent.ovs.clone(),
            netlink: Netlink::open(supervisor).unwrap(),
            mirrors: self.agent.mirrors.clone(),
            node: NODE.into(),
            mtu: 1400,
            nft_socket: self.agent.nft_socket,
            services: self.agent.services.clone(),
            ready: self.ready.clone(),
        };
        let events = Events::open(supervisor, "the node interface").unwrap();
        supervisor.spawn("node interface", LIMIT, |heartbeat| {
            interface.run(events, heartbeat)
        });
        self.agent.node_interface.clone()
    }

    /// Gives a Pod a VNic, and OVN its logical port on `switch`. `ip` is an address, or one of each family.
    pub fn vnic(&self, pod: &PodRef, switch: &str, vpc: &str, ip: &str) {
        let name = pod_vnic_name(&pod.name, pod.uid.as_deref().unwrap_or_default());
        let vnic = self.bound(&name, &pod.namespace, switch, vpc, ip, 24);
        let mac = vnic.status.as_ref().unwrap().mac.clone().unwrap();
        self.ovn
            .port(&format!("{}/{name}", pod.namespace), switch, &mac, ip);
        let mut vnic = vnic;
        vnic.spec.attachment = Attachment {
            kind: AttachmentKind::Pod,
            name: Some(pod.name.clone()),
            uid: pod.uid.clone(),
            chassis: Some(NODE.into()),
            device: None,
        };
        self.add_vnic(vnic);
    }

    /// The node's own VNic on the join switch.
    pub fn node_vnic(&self, ip: &str) {
        let mut vnic = self.bound(NODE, "ycloud-system", "subnet0", "ovn-cluster", ip, 16);
        vnic.spec.attachment = Attachment {
            kind: AttachmentKind::Node,
            name: Some(NODE.into()),
            uid: None,
            chassis: Some(NODE.into()),
            device: None,
        };
        let mac = vnic.status.as_ref().unwrap().mac.clone().unwrap();
        self.ovn
            .port(&format!("ycloud-system/{NODE}"), "subnet0", &mac, ip);
        // A node answers from whichever of its addresses was called.
        let port = format!("ycloud-system/{NODE}");
        self.ovn.nbctl(&["lsp-set-port-security", &port, &mac]);
        self.add_vnic(vnic);
    }

    /// Takes the node's logical port away; its VNic stays until there is another.
    pub fn node_vnic_gone(&self) {
        let port = format!("ycloud-system/{NODE}");
        self.ovn.nbctl(&["lsp-del", &port]);
    }

    fn bound(
        &self,
        name: &str,
        namespace: &str,
        subnet: &str,
        vpc: &str,
        ip: &str,
        len: i32,
    ) -> VNic {
        let ips: Vec<IpAddr> = ip.split(' ').map(|ip| ip.parse().unwrap()).collect();
        let mut vnic = VNic::new(
            name,
            VNicSpec {
                subnet: subnet.into(),
                ..Default::default()
            },
        );
        vnic.metadata.namespace = Some(namespace.into());
        let mut status = VNicStatus {
            mac: Some(mac(ips[0])),
            vpc: Some(vpc.into()),
            ..Default::default()
        };
        for ip in ips {
            let gateway = gateway(ip, len).to_string();
            match ip {
                IpAddr::V4(_) => {
                    status.ip = Some(ip.to_string());
                    status.prefix_length = Some(len);
                    status.gateway = Some(gateway);
                }
                IpAddr::V6(_) => {
                    status.ipv6 = Some(VNicIpv6 {
                        ip: ip.to_string(),
                        prefix_length: 64,
                        gateway,
                    });
                }
            }
        }
        vnic.status = Some(status);
        vnic
    }

    /// Gives a virtual machine a VNic whose device is a tap, and OVN its logical port. `created`: seconds.
    pub fn vm(&self, name: &str, tap: &str, switch: &str, ip: &str, created: i64) {
        let mut vnic = self.bound(name, "team-a", switch, "v", ip, 24);
        vnic.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
        let mac = vnic.status.as_ref().unwrap().mac.clone().unwrap();
        self.ovn.port(&format!("team-a/{name}"), switch, &mac, ip);
        vnic.spec.attachment = Attachment {
            kind: AttachmentKind::VM,
            name: Some(name.into()),
            uid: None,
            chassis: Some(NODE.into()),
            device: Some(Device {
                tap: Some(tap.into()),
                ..Default::default()
            }),
        };
        self.add_vnic(vnic);
    }

    /// The condition Wired of a VNic of `team-a`: status, reason and message.
    pub fn wired(&self, name: &str) -> (String, String, String) {
        let objects = self.objects.vnics.borrow();
        let vnic = objects.by_key.get(&("team-a".into(), name.into()));
        let status = vnic.and_then(|vnic| vnic.status.as_ref());
        let conditions = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
        let wired = conditions.iter().find(|c| c.type_ == WIRED);
        wired
            .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
            .unwrap_or_default()
    }

    pub fn add_vnic(&self, vnic: VNic) {
        let key = (vnic.namespace().unwrap_or_default(), vnic.name_any());
        self.objects.vnics.send_modify(|objects| {
            objects.synced = true;
            objects.by_key.insert(key, vnic);
        });
    }

    /// Says which Subnets the default Vpc has, and which service range there is: of one family or one of each.
    pub fn ranges(&self, subnets: &[(&str, &str)], service: &str) {
        let subnet = |(name, cidr): &(&str, &str)| {
            let of_family = |dots: bool| cidr.split(' ').find(|c| c.contains('.') == dots);
            let ipv6 = of_family(false).map(|cidr| SubnetIpv6 {
                cidr: cidr.into(),
                gateway: None,
            });
            let spec = SubnetSpec {
                vpc: "ovn-cluster".into(),
                cidr: of_family(true).map(str::to_owned),
                ipv6,
                ..Default::default()
            };
            ((String::new(), (*name).to_owned()), Subnet::new(name, spec))
        };
        self.objects.subnets.send_modify(|objects| {
            objects.synced = true;
            objects.by_key = subnets.iter().map(subnet).collect();
        });
        let cidr = ServiceCIDR {
            spec: Some(ServiceCIDRSpec {
                cidrs: Some(service.split(' ').map(str::to_owned).collect()),
            }),
            ..Default::default()
        };
        self.objects.service_cidrs.send_modify(|objects| {
            objects.synced = true;
            objects.by_key = BTreeMap::from([((String::new(), "kubernetes".into()), cidr)]);
        });
    }
}

/// The chassis' tasks. What they report is written into the mirror, as an API server would tell of it.
fn chassis(
    supervisor: Supervisor,
    options: &Options,
    (ovs, netlink, vnics, metrics): (Ovs, Netlink, watch::Receiver<Objects<VNic>>, Metrics),
    mirror: &watch::Sender<Objects<VNic>>,
) -> (Chassis, JoinHandle<()>) {
    let southbound = options.southbound.connect(&supervisor).unwrap();
    let (progress, affinity) = watch::channel(affinity::Progress::default());
    let task = Affinity {
        southbound: southbound.clone(),
        openflow: options.openflow.clone(),
        progress,
    };
    supervisor.spawn("affinity", LIMIT, |heartbeat| task.run(heartbeat));
    let bridge = behind::client(&supervisor, options.ovs.clone());
    let behind = behind::watch(&supervisor, southbound, bridge);
    let flusher = flusher(options, &metrics);
    let reports = Reports::default();
    let reported = reports.clone();
    let task = Devices {
        chassis: NODE.into(),
        vnics: vnics.clone(),
        ovs: ovs.clone(),
        netlink: netlink.clone(),
        reports,
        metrics: metrics.devices.clone(),
    };
    let events = Events::open(&supervisor, "devices").unwrap();
    supervisor.spawn("devices", LIMIT, |heartbeat| task.run(events, heartbeat));
    let mirror = mirror.clone();
    tokio::spawn(async move {
        let mut last = (String::new(), String::new());
        loop {
            let report = reported.take(&last).await;
            last = (report.namespace.clone(), report.name.clone());
            mirror.send_modify(|objects| {
                let key = (report.namespace, report.name);
                if let Some(vnic) = objects.by_key.get_mut(&key) {
                    let conditions = &mut vnic.status.get_or_insert_default().conditions;
                    conditions.retain(|condition| condition.type_ != WIRED);
                    conditions.extend(report.conditions);
                }
            });
        }
    });
    let (_, probes) = self::mirror();
    let parts = prober::Parts {
        ovs: ovs.clone(),
        netlink: netlink.clone(),
        node: NODE.into(),
        mtu: 1400,
        probes,
        vnics: vnics.clone(),
        writer: Arc::new(|_| Box::pin(async { Err(prober::records::Refusal::Gone) })),
        behind,
    };
    let prober = prober::start_with(&supervisor, parts).unwrap();
    let chassis = Chassis {
        prober,
        ovs,
        netlink,
        vnics,
        affinity,
        metrics,
        supervisor,
    };
    (chassis, flusher)
}

/// What flushes connections of backends that are gone, as the agent has it.
pub fn flusher(options: &Options, metrics: &Metrics) -> JoinHandle<()> {
    // Of its own: it is ended and begun again.
    let supervisor = Supervisor::new(CancellationToken::new());
    let task = CtFlush {
        node: options.node.clone(),
        ovs: Ovs::start(&supervisor, options.ovs.clone()),
        southbound: options.southbound.connect(&supervisor).unwrap(),
        bridge: behind::client(&supervisor, options.ovs.clone()),
        openflow: options.openflow.clone(),
        kept: options.run_dir.join("load-balancers"),
        metrics: metrics.ct_flush.clone(),
    };
    tokio::spawn(task.run(Heartbeat::default()))
}

/// The first address of its network: of prefix length `len`, or 64 with IPv6.
fn gateway(ip: IpAddr, len: i32) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() >> (32 - len) << (32 - len) | 1).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64 | 1).into(),
    }
}

/// The MAC address that a VNic with this address has.
pub fn mac(ip: IpAddr) -> String {
    let (first, [.., a, b, c, d]) = match ip {
        IpAddr::V4(ip) => ("0a", ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => ("0e", ip.octets()),
    };
    format!("{first}:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn options(folder: &Path) -> Options {
    Options {
        node: NODE.into(),
        role: Role::Node,
        ovs: format!("unix:{}", folder.join("db.sock").display())
            .parse()
            .unwrap(),
        openflow: folder.join("br-int.mgmt"),
        system_cidr: "100.64.0.0/10".parse().unwrap(),
        system_ipv6_cidr: "fd00:100:64::/48".parse().unwrap(),
        southbound: Southbound {
            remotes: format!("unix:{}", folder.join("sb.sock").display()),
            ca: None,
            certificate: None,
            key: None,
        },
        run_dir: folder.join("run"),
        socket: folder.join("cni.sock"),
        plugin: folder.join("ycloud"),
        bin_dir: folder.join("bin"),
        conf_dir: folder.join("conf"),
        mtu: 1400,
        listen: ([127, 0, 0, 1], 0).into(),
    }
}

/// A Pod to wire.
pub fn pod_ref(name: &str) -> PodRef {
    PodRef {
        namespace: "default".into(),
        name: name.into(),
        uid: Some(format!("{name}-uid")),
    }
}

/// Runs a program in this thread's namespace; returns what it wrote.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
