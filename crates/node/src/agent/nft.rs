//! The node's nftables rules: rendered as a script, applied by nft(8) in one transaction.
//!
//! A script replaces its tables whole. The kernel takes a transaction as one: no packet sees half of it, and connections
//! that were translated keep their translation, which is in conntrack and not in the rules.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::family::{Family, words};
use super::services::rules::{Frontend, lower};
use crate::protocol::{Address, Addresses};

/// The rules could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nft(8) could not be run.
    #[error("failed to run nft")]
    Run(#[source] std::io::Error),
    /// nft(8) did not end.
    #[error("failed to apply nftables rules: nft did not end within {APPLY_LIMIT:?}")]
    Slow,
    /// nft(8) refused.
    #[error("failed to apply nftables rules: {0}")]
    Refused(String),
}

/// How long nft(8) may take.
const APPLY_LIMIT: Duration = Duration::from_secs(10);

/// Applies a script.
///
/// # Errors
/// See [`Error`].
pub async fn apply(script: &str) -> Result<(), Error> {
    let applied = tokio::time::timeout(APPLY_LIMIT, run(&["-f", "-"], script)).await;
    applied.unwrap_or(Err(Error::Slow)).map(drop)
}

/// A chain as the kernel has it, in the words of nft(8).
///
/// # Errors
/// See [`Error`]; there is no such chain.
pub async fn chain(family: &str, table: &str, name: &str) -> Result<String, Error> {
    let arguments = ["-t", "list", "chain", family, table, name];
    let listed = tokio::time::timeout(APPLY_LIMIT, run(&arguments, "")).await;
    listed.unwrap_or(Err(Error::Slow))
}

/// Whether the kernel has nft_socket: it is the kernel that is asked, and nothing is left behind. Without it a table with
/// `socket` is refused whole. If not, the log says so.
pub async fn has_socket() -> bool {
    let rule = "socket wildcard { 0, 1 }";
    let script = format!(
        "table inet ycloud-try {{ chain servers {{ type nat hook prerouting priority dstnat + 5; {rule} accept; }}; }}\n"
    );
    let tried = tokio::time::timeout(APPLY_LIMIT, run(&["-c", "-f", "-"], &script)).await;
    // Whatever else keeps nft(8) from working shows when rules are applied.
    if let Ok(Err(Error::Refused(reason))) = &tried {
        tracing::warn!(
            reason,
            "this node's kernel has no nft_socket (CONFIG_NFT_SOCKET, Linux 5.11): Services do not reach servers that listen at the node's own address alone"
        );
        return false;
    }
    true
}

async fn run(arguments: &[&str], script: &str) -> Result<String, Error> {
    let mut nft = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Run)?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin
            .write_all(script.as_bytes())
            .await
            .map_err(Error::Run)?;
    }
    let output = nft.wait_with_output().await.map_err(Error::Run)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Refused(text));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Rules of the node interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRules<'a> {
    /// The node interface.
    pub link: &'a str,
    /// Its addresses on the join switch, at most one of a family.
    pub addresses: &'a Addresses,
    /// Ranges of the default Vpc's Subnets but for the join switch.
    pub default_vpc: &'a [IpNet],
    /// The addresses by which the node is known, as far as the node has them: at most one of a family.
    pub hosts: &'a [IpAddr],
    /// Whether the kernel has nft_socket.
    pub nft_socket: bool,
}

/// The mark of answers that a server gave from another address of the node than the join address at which it was called.
/// Any that others do not use: Kubernetes uses 0x4000 and 0x8000.
pub const ANSWER_MARK: u32 = 157;

/// Masquerades the default Vpc's Pods where they leave the node by another link than the node interface, and what enters
/// the default Vpc by the node interface: only what comes from the node's join address finds back to this node.
pub fn node_table(rules: &NodeRules<'_>) -> String {
    let link = rules.link;
    let (mut egress, mut servers, mut answers) = (String::new(), String::new(), String::new());
    for address in rules.addresses.iter() {
        let family = Family::of(address.ip);
        egress += &egress_rules(rules, address);
        let host = rules.hosts.iter().find(|host| Family::of(**host) == family);
        if let Some(host) = host.filter(|_| rules.nft_socket) {
            servers += &server_rules(link, address.ip, *host);
            answers += &answer_rule(address.ip, *host);
        }
    }
    // Host ports are served at loopback addresses too, so the interface lets these in and out (sysctl route_localnet). Not
    // for Pods: nothing comes in by it from or to such an address. With IPv6 the kernel sees to that by itself.
    let mut body = format!(
        "  chain guard {{\n    type filter hook prerouting priority raw; policy accept;\n    iifname \"{link}\" ip saddr 127.0.0.0/8 drop\n    iifname \"{link}\" ip daddr 127.0.0.0/8 drop\n  }}\n"
    );
    let chains = [
        ("egress", "nat hook postrouting priority srcnat", egress),
        (
            "servers",
            "nat hook prerouting priority dstnat + 5",
            servers,
        ),
        ("answers", "route hook output priority mangle", answers),
    ];
    for (name, kind, rules) in chains.iter().filter(|(.., rules)| !rules.is_empty()) {
        let _ = write!(
            body,
            "  chain {name} {{\n    type {kind}; policy accept;\n{rules}  }}\n"
        );
    }
    replace("inet", "ycloud", &body)
}

fn egress_rules(rules: &NodeRules<'_>, address: &Address) -> String {
    let (link, own) = (rules.link, address.ip);
    let family = Family::of(own);
    let (ip, nfproto) = (words(family).ip, words(family).nfproto);
    let pods = rules.default_vpc.iter();
    let pods: Vec<IpNet> = pods
        .filter(|net| Family::of(net.addr()) == family)
        .copied()
        .collect();
    let mut body = String::new();
    let _ = writeln!(body, "    oifname \"{link}\" {ip} saddr {own} accept");
    if !pods.is_empty() {
        let cluster: Vec<IpNet> = pods
            .iter()
            .copied()
            .chain([address.net().trunc()])
            .collect();
        let (pods, cluster) = (ranges(&pods), ranges(&cluster));
        // Towards another Pod of the default Vpc nothing is translated: its answer would not find back.
        let _ = writeln!(
            body,
            "    {ip} saddr {{ {pods} }} {ip} daddr != {{ {pods} }} oifname != {{ \"{link}\", \"lo\" }} masquerade"
        );
        // A connection from outside that was sent to a Pod, and not to a Service, was sent to one on this node (host ports,
        // externalTrafficPolicy: Local). The Pod sees its client's address, and its answer leaves by its own node.
        let _ = writeln!(
            body,
            "    oifname \"{link}\" ct status dnat {ip} daddr {{ {pods} }} {ip} saddr != {{ {cluster} }} fib saddr type != local accept"
        );
    }
    let _ = writeln!(
        body,
        "    oifname \"{link}\" meta nfproto {nfproto} masquerade fully-random"
    );
    body
}

/// Services call servers on a node's own network at the join address. One that listens at the address by which the node is
/// known alone, as many do, is called there. Others are left alone: one that listens everywhere and speaks UDP answers from
/// the join address.
fn server_rules(link: &str, own: IpAddr, host: IpAddr) -> String {
    let ip = words(Family::of(own)).ip;
    let called = format!("    iifname \"{link}\" {ip} daddr {own} meta l4proto {{ tcp, udp }}");
    format!("{called} socket wildcard {{ 0, 1 }} accept\n{called} dnat {ip} to {host}\n")
}

/// The route of an answer is chosen before its source is put back, so such answers have a mark.
fn answer_rule(own: IpAddr, host: IpAddr) -> String {
    let ip = words(Family::of(own)).ip;
    format!(
        "    {ip} saddr {host} ct direction reply ct original {ip} daddr {own} meta mark set {ANSWER_MARK}\n"
    )
}

/// Intervals of one set must not overlap: a range inside another is left out.
pub fn ranges(of: &[IpNet]) -> String {
    let texts: Vec<String> = IpNet::aggregate(&of.to_vec())
        .iter()
        .map(IpNet::to_string)
        .collect();
    texts.join(", ")
}

/// The host's end of a Pod's link, with what its rules depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodLink {
    /// Name.
    pub name: String,
    /// Index; a link made anew under the old name needs its rules again.
    pub index: u32,
    /// The Pod's addresses by which the node reaches it over this link: of a Pod of another Vpc than the default one.
    pub direct: Vec<IpAddr>,
}

/// Rules of Pods' links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRules<'a> {
    /// The links.
    pub links: &'a [PodLink],
    /// The addresses from which the node speaks to Pods directly, one of each family that it has.
    pub sources: &'a [IpAddr],
    /// Whether Open vSwitch forwards in user space.
    pub userspace: bool,
    /// Host ports, and the Pod's address and port that each leads to.
    pub host_ports: &'a BTreeMap<Frontend, SocketAddr>,
}

/// On a direct link, takes the Pod's answers to the node out of the stream that goes to Open vSwitch: to `lo`, as frames
/// for the node itself. In user-space forwarding Open vSwitch reads copies of all frames, and the kernel would treat the
/// originals as the node's own traffic: whatever is no answer is dropped, so that no Pod reaches the node's stack past OVN.
pub fn pod_tables(rules: &PodRules<'_>) -> String {
    let mut chains = String::new();
    for link in rules.links {
        let PodLink { name, index, .. } = link;
        let _ = writeln!(chains, "  # index {index}\n  chain {name} {{");
        let _ = writeln!(
            chains,
            "    type filter hook ingress device \"{name}\" priority -500; policy accept;"
        );
        for pod in &link.direct {
            let family = Family::of(*pod);
            let ip = words(family).ip;
            let sources = rules.sources.iter().filter(|ip| Family::of(**ip) == family);
            for source in sources {
                let _ = writeln!(
                    chains,
                    "    {ip} saddr {pod} {ip} daddr {source} ether daddr set 00:00:00:00:00:00 meta pkttype set host fwd to \"lo\""
                );
            }
        }
        if rules.userspace {
            chains.push_str("    drop\n");
        }
        chains.push_str("  }\n");
    }
    // Answers only, and only by way of these chains: a Pod cannot open a connection to the node by this way.
    let mut filters = String::from(
        "  chain input {\n    type filter hook input priority filter; policy accept;\n",
    );
    for source in rules.sources {
        let ip = words(Family::of(*source)).ip;
        let _ = writeln!(
            filters,
            "    {ip} daddr {source} iifname != \"lo\" drop\n    {ip} daddr {source} ct state != {{ established, related }} drop"
        );
    }
    filters.push_str("  }\n");
    filters += &forward_chain(rules.links);
    replace("inet", "ycloud-pods", &filters)
        + &replace("netdev", "ycloud-pods", &chains)
        + &Family::ALL
            .map(|family| host_port_table(family, rules.host_ports))
            .concat()
}

/// Rules of devices that VNics name, by name and index: in user-space forwarding nothing of what they bring in reaches the
/// machine's own stack, which gets the originals of what Open vSwitch reads copies of.
pub fn device_table<'a>(devices: impl Iterator<Item = (&'a str, u32)>, userspace: bool) -> String {
    let mut chains = String::new();
    for (name, index) in devices.filter(|_| userspace) {
        let _ = writeln!(
            chains,
            "  chain device{index} {{\n    type filter hook ingress device \"{name}\" priority -500; policy accept;\n    drop\n  }}"
        );
    }
    replace("netdev", "ycloud-devices", &chains)
}

/// Host ports, asked before node ports. A port without address is one of every address that the node has.
fn host_port_table(family: Family, host_ports: &BTreeMap<Frontend, SocketAddr>) -> String {
    let (mut ports, mut addresses) = (Vec::new(), Vec::new());
    for (frontend, target) in host_ports {
        let target = concatenated(*target);
        match frontend {
            Frontend::NodePort(of, protocol, port) if *of == family => {
                ports.push(format!("{} . {port} : {target}", lower(*protocol)));
            }
            Frontend::Address(ip, protocol, port) if Family::of(*ip) == family => {
                addresses.push(format!("{ip} . {} . {port} : {target}", lower(*protocol)));
            }
            Frontend::NodePort(..) | Frontend::Address(..) => {}
        }
    }
    let words = words(family);
    let (ip, address) = (words.ip, words.address);
    let map = |name: &str, keys: &str, elements: &[String]| {
        let elements = match elements {
            [] => String::new(),
            some => format!(" elements = {{ {} }};", some.join(", ")),
        };
        format!("  map {name} {{ type {keys} : {address} . inet_service;{elements} }}\n")
    };
    let mut body = String::new();
    if !ports.is_empty() || !addresses.is_empty() {
        body += &map("ports", "inet_proto . inet_service", &ports);
        let keys = format!("{address} . inet_proto . inet_service");
        body += &map("addresses", &keys, &addresses);
        let _ = write!(
            body,
            "  chain frontends {{
    fib daddr type local dnat to {ip} daddr . meta l4proto . th dport map @addresses
    fib daddr type local dnat to meta l4proto . th dport map @ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    jump frontends
  }}
  chain output {{
    type nat hook output priority -105; policy accept;
    jump frontends
  }}
"
        );
    }
    replace(ip, "ycloud-host-ports", &body)
}

/// Address and port as keys and values of maps have them.
pub fn concatenated(target: SocketAddr) -> String {
    format!("{} . {}", target.ip(), target.port())
}

/// The routes to tenants' Pods are the node's own: for others, Pods of the default Vpc and machines of the underlay, the
/// node is a router, and would let them into every Vpc.
fn forward_chain(links: &[PodLink]) -> String {
    let names: Vec<String> = links.iter().map(|l| format!("\"{}\"", l.name)).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "  chain forward {{\n    type filter hook forward priority filter; policy accept;\n    oifname {{ {} }} drop\n  }}\n",
        names.join(", ")
    )
}

fn replace(family: &str, table: &str, body: &str) -> String {
    // Adding first makes the deletion succeed where there is no such table.
    format!(
        "add table {family} {table}\ndelete table {family} {table}\ntable {family} {table} {{\n{body}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, prefix_length: u8) -> Address {
        let ip = ip.parse().unwrap();
        Address {
            ip,
            prefix_length,
            gateway: ip,
        }
    }

    #[test]
    fn masquerade_never_translates_between_pods() {
        let cidrs = ["10.16.0.0/16", "10.20.0.0/16", "10.20.1.0/24"].map(|c| c.parse().unwrap());
        let addresses = Addresses::of(Some(address("100.64.0.2", 16)), None).unwrap();
        let rules = node_table(&NodeRules {
            link: "node0",
            addresses: &addresses,
            default_vpc: &cidrs,
            hosts: &["172.18.0.2".parse().unwrap()],
            nft_socket: true,
        });
        let line = "ip saddr { 10.16.0.0/16, 10.20.0.0/16 } ip daddr != { 10.16.0.0/16, 10.20.0.0/16 } oifname != { \"node0\", \"lo\" } masquerade";
        assert!(rules.contains(line), "{rules}");
        assert!(rules.contains("dnat ip to 172.18.0.2"), "{rules}");
        assert!(!rules.contains("ip6"), "{rules}");
        let none = node_table(&NodeRules {
            link: "node0",
            addresses: &addresses,
            default_vpc: &[],
            hosts: &[],
            nft_socket: true,
        });
        assert!(!none.contains("ip daddr !=") && !none.contains("dnat"));
    }

    #[test]
    fn each_family_has_the_same_rules_of_its_own() {
        let cidrs = ["10.16.0.0/16", "fd00:10:16::/64"].map(|c| c.parse().unwrap());
        let (v4, v6) = (address("100.64.0.2", 16), address("fd00:100:64::2", 64));
        let rules = node_table(&NodeRules {
            link: "node0",
            addresses: &Addresses::of(Some(v4), Some(v6)).unwrap(),
            default_vpc: &cidrs,
            hosts: &["172.18.0.2", "fd00:18::2"].map(|ip| ip.parse().unwrap()),
            nft_socket: true,
        });
        let (of4, of6): (Vec<&str>, Vec<&str>) = rules
            .lines()
            .filter(|line| line.contains(" ip") && !line.contains("127.0.0.0/8"))
            .partition(|line| !line.contains("ip6 ") && !line.contains("ipv6"));
        let translated: Vec<String> = of4
            .iter()
            .map(|line| {
                let line = line.replace("100.64.0.0/16", "fd00:100:64::/64");
                let line = line.replace("100.64.0.2", "fd00:100:64::2");
                let line = line.replace("172.18.0.2", "fd00:18::2");
                let line = line.replace("10.16.0.0/16", "fd00:10:16::/64");
                line.replace("ip ", "ip6 ").replace("ipv4", "ipv6")
            })
            .collect();
        assert!(of4.len() > 5, "{rules}");
        assert_eq!(translated, of6);
    }

    #[test]
    fn without_nft_socket_servers_are_left_alone_and_the_rest_stands() {
        let (v4, v6) = (address("100.64.0.2", 16), address("fd00:100:64::2", 64));
        let rules = |nft_socket| {
            node_table(&NodeRules {
                link: "node0",
                addresses: &Addresses::of(Some(v4), Some(v6)).unwrap(),
                default_vpc: &["10.16.0.0/16", "fd00:10:16::/64"].map(|c| c.parse().unwrap()),
                hosts: &["172.18.0.2", "fd00:18::2"].map(|ip| ip.parse().unwrap()),
                nft_socket,
            })
        };
        let (with, without) = (rules(true), rules(false));
        for of_servers in [
            "chain servers",
            "chain answers",
            "socket",
            "dnat ip to",
            "dnat ip6 to",
        ] {
            assert!(with.contains(of_servers), "{of_servers}: {with}");
            assert!(!without.contains(of_servers), "{of_servers}: {without}");
        }
        let servers = with.find("  chain servers").unwrap();
        assert_eq!(without, format!("{}}}\n", &with[..servers]));
    }

    #[test]
    fn only_direct_links_answer_and_only_in_user_space_is_the_rest_dropped() {
        let link = |name: &str, direct: &[&str]| PodLink {
            name: name.into(),
            index: 4,
            direct: direct.iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        let links = [
            link("yca", &["10.0.1.5"]),
            link("ycb", &[]),
            link("ycc", &["10.0.1.6", "fd00:1::6"]),
        ];
        let rules = |userspace| {
            pod_tables(&PodRules {
                links: &links,
                sources: &["169.254.77.1", "100::1"].map(|ip| ip.parse().unwrap()),
                userspace,
                host_ports: &BTreeMap::new(),
            })
        };
        assert_eq!(rules(true).matches("fwd to \"lo\"").count(), 3);
        assert_eq!(rules(true).matches("    drop\n").count(), 3);
        assert_eq!(rules(false).matches("    drop\n").count(), 0);
        let line = "    ip6 saddr fd00:1::6 ip6 daddr 100::1 ether daddr";
        assert!(rules(true).contains(line), "{}", rules(true));
    }
}
