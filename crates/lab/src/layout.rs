//! Where everything of a lab is: its machines, addresses, link names and paths, all derived from its name and index.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// State of all labs: one folder a lab.
pub(crate) const STATE: &str = "/var/lib/ycloud-lab";
/// What a reboot may forget: process ids, sockets, locks, the machine's own settings that labs changed.
pub(crate) const RUNTIME: &str = "/run/ycloud-lab";
/// Everything that is built or downloaded once.
pub(crate) const CACHE: &str = "/var/cache/ycloud";
/// The ranges of ClusterIPs, IPv4 first: a Service that says nothing has an IPv4 address alone.
pub(crate) const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
/// The default Vpc's addresses, as `deploy/configmap.yaml` has them: those of Pods that the API server may call.
pub(crate) const POD_CIDR: &str = "10.16.0.0/16";
/// As [`POD_CIDR`], of IPv6: what `install` adds to that ConfigMap.
pub(crate) const POD_CIDR_V6: &str = "fd00:10:16::/64";
/// The most nodes a lab can have: `.1` to `.99` of its underlay.
pub(crate) const MAX_NODES: u8 = 99;

/// A machine of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// Runs etcd, Kubernetes' control plane, and OVN's databases and northd.
    Control,
    /// A machine outside the cluster: on the nodes' network, and beyond the upstream router.
    External,
    /// The router of the physical network that carries elastic addresses ([`crate::ext`]).
    Upstream,
    /// A chassis of OVN that is no node: the DPU of bare-metal servers. Their links end here.
    Dpu,
    /// A node of the cluster, counted from 1.
    Node(u8),
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::External => f.write_str("external"),
            Self::Upstream => f.write_str("upstream"),
            Self::Dpu => f.write_str("dpu-1"),
            Self::Node(number) => write!(f, "node-{number}"),
        }
    }
}

impl FromStr for Machine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "control" => Ok(Self::Control),
            "external" => Ok(Self::External),
            "upstream" => Ok(Self::Upstream),
            "dpu-1" => Ok(Self::Dpu),
            _ => match text.strip_prefix("node-").map(u8::from_str) {
                Some(Ok(number)) if (1..=MAX_NODES).contains(&number) => Ok(Self::Node(number)),
                _ => bail!(
                    "no machine is called {text:?}; there are control, external, upstream, dpu-1, node-1, node-2, …"
                ),
            },
        }
    }
}

/// A network of the lab: a bridge in the underlay's namespace, and the same device on every machine that is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The nodes' own: Kubernetes, OVN's databases, tunnels.
    Underlay,
    /// The physical network `ext` of elastic addresses, untagged.
    Ext,
    /// VLAN 100 of `ext`: a bridge of its own, as kernels without 802.1Q could not take its tag off. The nodes' `br-ext`
    /// does.
    ExtVlan,
}

impl Network {
    pub fn all() -> [Self; 3] {
        [Self::Underlay, Self::Ext, Self::ExtVlan]
    }

    /// The networks that the machine is on.
    pub fn of(machine: Machine) -> &'static [Self] {
        match machine {
            Machine::Control | Machine::External | Machine::Dpu => &[Self::Underlay],
            Machine::Upstream => &[Self::Ext, Self::ExtVlan],
            Machine::Node(_) => &[Self::Underlay, Self::Ext, Self::ExtVlan],
        }
    }

    /// The bridge's name in the underlay's namespace.
    pub fn bridge(self) -> &'static str {
        match self {
            Self::Underlay => "br0",
            Self::Ext => "br1",
            Self::ExtVlan => "br2",
        }
    }

    /// The device's name on each machine.
    pub fn device(self) -> &'static str {
        match self {
            Self::Underlay => "eth0",
            Self::Ext => "eth1",
            Self::ExtVlan => "eth2",
        }
    }

    /// The bridge's port to the machine.
    pub fn port(self, machine: Machine) -> String {
        match self {
            Self::Underlay => format!("p-{machine}"),
            Self::Ext => format!("x-{machine}"),
            Self::ExtVlan => format!("v-{machine}"),
        }
    }
}

/// A version of OVN that the lab can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OvnVersion {
    /// OVN 25.03 with Open vSwitch 3.5, as in Debian 13.
    #[default]
    #[serde(rename = "25.03")]
    V25_03,
    /// OVN 23.03 with Open vSwitch 3.1, as in Debian 12.
    #[serde(rename = "23.03")]
    V23_03,
}

impl fmt::Display for OvnVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V25_03 => "25.03",
            Self::V23_03 => "23.03",
        })
    }
}

impl FromStr for OvnVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "25.03" => Ok(Self::V25_03),
            "23.03" => Ok(Self::V23_03),
            _ => bail!("OVN {text:?} is not known; there are 25.03 and 23.03"),
        }
    }
}

/// Refuses a lab's name that would not do in the name of a namespace, a folder and a cgroup.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 20
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-');
    if !fits {
        bail!("{name:?} cannot name a lab: 1 to 20 of a-z, 0-9 and -, not starting with -");
    }
    Ok(())
}

/// One lab: what it was made with. Everything else about it follows from these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub name: String,
    /// 0..=254, unique among the labs of this machine.
    pub index: u8,
    /// 1..=[`MAX_NODES`].
    pub nodes: u8,
    pub ovn: OvnVersion,
}

impl Layout {
    /// All machines, nodes last.
    pub fn machines(&self) -> Vec<Machine> {
        [Machine::Control, Machine::External, Machine::Upstream]
            .into_iter()
            .chain(self.chassis())
            .collect()
    }

    /// The machines that are chassis of OVN: the DPU, and the nodes.
    pub fn chassis(&self) -> impl Iterator<Item = Machine> + use<> {
        std::iter::once(Machine::Dpu).chain(self.node_machines())
    }

    pub fn node_machines(&self) -> impl Iterator<Item = Machine> + use<> {
        (1..=self.nodes).map(Machine::Node)
    }

    /// What all namespaces of this lab are called by. A lab's name has no dot, so no lab's prefix is another's.
    pub fn netns_prefix(name: &str) -> String {
        format!("yc.{name}.")
    }

    pub fn netns(&self, machine: Machine) -> String {
        format!("{}{machine}", Self::netns_prefix(&self.name))
    }

    /// The namespace of a bare-metal server or a bare address, by its VNic. No machine's name has a dot.
    pub fn backend_netns(&self, namespace: &str, vnic: &str) -> String {
        format!("{}{namespace}.{vnic}", Self::netns_prefix(&self.name))
    }

    /// The namespace of the bridges that join the machines.
    pub fn underlay_netns(&self) -> String {
        format!("{}underlay", Self::netns_prefix(&self.name))
    }

    /// The machine's address on the underlay, a /24. The upstream router is not there: its address on the network `ext`.
    pub fn address(&self, machine: Machine) -> Ipv4Addr {
        let host = match machine {
            Machine::Control => 100,
            Machine::External => 200,
            Machine::Dpu => 150,
            Machine::Node(number) => number,
            Machine::Upstream => return crate::ext::ROUTER,
        };
        Ipv4Addr::new(172, 31, self.index, host)
    }

    /// The machine's IPv6 address on the underlay, a /64. The upstream router is not there, as with [`Layout::address`].
    pub fn address_v6(&self, machine: Machine) -> Ipv6Addr {
        if machine == Machine::Upstream {
            return crate::ext::ROUTER_V6;
        }
        let [_, _, _, host] = self.address(machine).octets();
        let (index, host) = (u16::from(self.index), u16::from(host));
        Ipv6Addr::new(0xfd00, 0x172, 0x31, index, 0, 0, 0, host)
    }

    /// Both addresses of a machine on the underlay as its device has them, IPv4 first: `172.31.0.1/24`.
    pub fn device_addresses(&self, machine: Machine) -> [String; 2] {
        [
            format!("{}/24", self.address(machine)),
            format!("{}/64", self.address_v6(machine)),
        ]
    }

    /// This machine's end of the only link between the root namespace and the lab, a /30.
    pub fn root_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, 1)
    }

    /// The control machine's end of that link: where the API server is reached from the root namespace.
    pub fn control_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, 2)
    }

    /// The link's name in the root namespace.
    pub fn root_device(&self) -> String {
        format!("yclab{}", self.index)
    }

    pub fn state(&self) -> PathBuf {
        Path::new(STATE).join(&self.name)
    }

    pub fn runtime(&self) -> PathBuf {
        Path::new(RUNTIME).join("labs").join(&self.name)
    }

    pub fn machine_dir(&self, machine: Machine) -> PathBuf {
        self.state().join(machine.to_string())
    }

    pub fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// The administrator's kubeconfig, for the root namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("admin.kubeconfig")
    }

    pub fn log(&self, machine: Machine, part: &str) -> PathBuf {
        self.state()
            .join("log")
            .join(format!("{machine}-{part}.log"))
    }

    pub fn pid_file(&self, machine: Machine, part: &str) -> PathBuf {
        self.runtime().join(format!("{machine}-{part}.pid"))
    }

    /// Folder of the sockets of OVN's databases.
    pub fn ovn_run(&self) -> PathBuf {
        self.runtime().join("ovn")
    }

    /// The node's cgroup, relative to the root of each hierarchy.
    pub fn cgroup(&self, machine: Machine) -> String {
        format!("{}/{machine}", Self::cgroup_of(&self.name))
    }

    pub fn cgroup_of(name: &str) -> String {
        format!("ycloud-lab/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            name: "lab".into(),
            index: 7,
            nodes: 3,
            ovn: OvnVersion::V25_03,
        }
    }

    #[test]
    fn machines_read_back_what_they_print() {
        for machine in layout().machines() {
            assert_eq!(machine.to_string().parse::<Machine>().unwrap(), machine);
        }
        for bad in ["node-0", "node-100", "node-", "node", "node-x", ""] {
            assert!(bad.parse::<Machine>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_and_names_come_from_the_index() {
        let layout = layout();
        assert_eq!(layout.address(Machine::Node(2)).to_string(), "172.31.7.2");
        assert_eq!(layout.address(Machine::Control).to_string(), "172.31.7.100");
        assert_eq!(
            layout.device_addresses(Machine::Node(10)),
            ["172.31.7.10/24", "fd00:172:31:7::a/64"]
        );
        assert_eq!(layout.control_address().to_string(), "172.30.7.2");
        assert_eq!(layout.netns(Machine::Node(2)), "yc.lab.node-2");
    }

    #[test]
    fn interface_names_fit_in_15_characters() {
        let layout = Layout {
            index: 254,
            ..layout()
        };
        assert!(layout.root_device().len() <= 15);
        for machine in [
            Machine::Node(MAX_NODES),
            Machine::External,
            Machine::Upstream,
            Machine::Dpu,
        ] {
            for network in Network::of(machine) {
                assert!(network.port(machine).len() <= 15);
            }
        }
    }

    #[test]
    fn names_that_would_clash_or_escape_are_refused() {
        for bad in ["", "a.b", "../x", "A", "-x", "a/b", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        for good in ["lab", "e2e-23-03", "x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn versions_read_back_what_they_print() {
        for version in [OvnVersion::V25_03, OvnVersion::V23_03] {
            assert_eq!(version.to_string().parse::<OvnVersion>().unwrap(), version);
        }
        assert!("24.03".parse::<OvnVersion>().is_err());
    }
}
