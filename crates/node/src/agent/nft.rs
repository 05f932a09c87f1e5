//! The node's nftables rules: rendered as a script, applied by nft(8) in one transaction.
//!
//! A script replaces its tables whole. The kernel takes a transaction as one: no packet sees half of it, and connections
//! that were translated keep their translation, which is in conntrack and not in the rules.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Stdio;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::services::rules::{Frontend, lower};

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
    /// Its address, with the join switch's prefix length.
    pub address: Ipv4Net,
    /// Ranges of the default Vpc's Subnets but for the join switch.
    pub default_vpc: &'a [Ipv4Net],
    /// The address by which the node is known, if the node has it.
    pub host: Option<Ipv4Addr>,
}

/// The mark of answers that a server gave from another address of the node than the join address at which it was called.
/// Any that others do not use: Kubernetes uses 0x4000 and 0x8000.
pub const ANSWER_MARK: u32 = 157;

/// Masquerades the default Vpc's Pods where they leave the node by another link than the node interface, and what enters
/// the default Vpc by the node interface: only what comes from the node's join address finds back to this node.
pub fn node_table(rules: &NodeRules<'_>) -> String {
    let NodeRules {
        link,
        address,
        host,
        ..
    } = rules;
    let own = address.addr();
    let mut body = String::new();
    let _ = writeln!(body, "    oifname \"{link}\" ip saddr {own} accept");
    if !rules.default_vpc.is_empty() {
        let cluster: Vec<Ipv4Net> = rules
            .default_vpc
            .iter()
            .copied()
            .chain([address.trunc()])
            .collect();
        let (pods, cluster) = (ranges(rules.default_vpc), ranges(&cluster));
        // Towards another Pod of the default Vpc nothing is translated: its answer would not find back.
        let _ = writeln!(
            body,
            "    ip saddr {{ {pods} }} ip daddr != {{ {pods} }} oifname != {{ \"{link}\", \"lo\" }} masquerade"
        );
        // A connection from outside that was sent to a Pod, and not to a Service, was sent to one on this node (host ports,
        // externalTrafficPolicy: Local). The Pod sees its client's address, and its answer leaves by its own node.
        let _ = writeln!(
            body,
            "    oifname \"{link}\" ct status dnat ip daddr {{ {pods} }} ip saddr != {{ {cluster} }} fib saddr type != local accept"
        );
    }
    let _ = writeln!(
        body,
        "    oifname \"{link}\" meta nfproto ipv4 masquerade fully-random"
    );
    // Host ports are served at loopback addresses too, so the interface lets these in and out (sysctl route_localnet). Not
    // for Pods: nothing comes in by it from or to such an address.
    let guard = format!(
        "  chain guard {{\n    type filter hook prerouting priority raw; policy accept;\n    iifname \"{link}\" ip saddr 127.0.0.0/8 drop\n    iifname \"{link}\" ip daddr 127.0.0.0/8 drop\n  }}\n"
    );
    let egress = format!(
        "  chain egress {{\n    type nat hook postrouting priority srcnat; policy accept;\n{body}  }}\n"
    );
    let servers = host.map(|host| servers(link, own, host));
    replace(
        "inet",
        "ycloud",
        &(guard + &egress + &servers.unwrap_or_default()),
    )
}

/// Services call servers on a node's own network at the join address. One that listens at the address by which the node is
/// known alone, as many do, is called there. Others are left alone: one that listens everywhere and speaks UDP answers from
/// the join address. The route of an answer is chosen before its source is put back, so such answers have a mark.
fn servers(link: &str, own: Ipv4Addr, host: Ipv4Addr) -> String {
    format!(
        "  chain servers {{
    type nat hook prerouting priority dstnat + 5; policy accept;
    iifname \"{link}\" ip daddr {own} meta l4proto {{ tcp, udp }} socket wildcard {{ 0, 1 }} accept
    iifname \"{link}\" ip daddr {own} meta l4proto {{ tcp, udp }} dnat ip to {host}
  }}
  chain answers {{
    type route hook output priority mangle; policy accept;
    ip saddr {host} ct direction reply ct original ip daddr {own} meta mark set {ANSWER_MARK}
  }}
"
    )
}

/// Intervals of one set must not overlap: a range inside another is left out.
fn ranges(of: &[Ipv4Net]) -> String {
    let texts: Vec<String> = Ipv4Net::aggregate(&of.to_vec())
        .iter()
        .map(Ipv4Net::to_string)
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
    /// The Pod's address.
    pub ip: Ipv4Addr,
    /// Whether the node reaches the Pod by this link: its Vpc is not the default one.
    pub direct: bool,
}

/// Rules of Pods' links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRules<'a> {
    /// The links.
    pub links: &'a [PodLink],
    /// The address from which the node speaks to Pods directly.
    pub source: Ipv4Addr,
    /// Whether Open vSwitch forwards in user space.
    pub userspace: bool,
    /// Host ports, and the Pod's address and port that each leads to.
    pub host_ports: &'a BTreeMap<Frontend, SocketAddrV4>,
}

/// On a direct link, takes the Pod's answers to the node out of the stream that goes to Open vSwitch: to `lo`, as frames
/// for the node itself. In user-space forwarding Open vSwitch reads copies of all frames, and the kernel would treat the
/// originals as the node's own traffic: whatever is no answer is dropped, so that no Pod reaches the node's stack past OVN.
pub fn pod_tables(rules: &PodRules<'_>) -> String {
    let source = rules.source;
    let mut chains = String::new();
    for link in rules.links {
        let PodLink {
            name,
            index,
            ip,
            direct,
        } = link;
        let _ = writeln!(chains, "  # index {index}\n  chain {name} {{");
        let _ = writeln!(
            chains,
            "    type filter hook ingress device \"{name}\" priority -500; policy accept;"
        );
        if *direct {
            let _ = writeln!(
                chains,
                "    ip saddr {ip} ip daddr {source} ether daddr set 00:00:00:00:00:00 meta pkttype set host fwd to \"lo\""
            );
        }
        if rules.userspace {
            chains.push_str("    drop\n");
        }
        chains.push_str("  }\n");
    }
    // Answers only, and only by way of these chains: a Pod cannot open a connection to the node by this way.
    let mut filters = format!(
        "  chain input {{\n    type filter hook input priority filter; policy accept;\n    ip daddr {source} iifname != \"lo\" drop\n    ip daddr {source} ct state != {{ established, related }} drop\n  }}\n"
    );
    filters += &forward_chain(rules.links);
    replace("inet", "ycloud-pods", &filters)
        + &replace("netdev", "ycloud-pods", &chains)
        + &host_port_table(rules.host_ports)
}

/// Host ports, asked before node ports. A port without address is one of every address that the node has.
fn host_port_table(host_ports: &BTreeMap<Frontend, SocketAddrV4>) -> String {
    let (mut ports, mut addresses) = (Vec::new(), Vec::new());
    for (frontend, target) in host_ports {
        let target = format!("{} . {}", target.ip(), target.port());
        match frontend {
            Frontend::NodePort(protocol, port) => {
                ports.push(format!("{} . {port} : {target}", lower(*protocol)));
            }
            Frontend::Address(ip, protocol, port) => {
                addresses.push(format!("{ip} . {} . {port} : {target}", lower(*protocol)));
            }
        }
    }
    let map = |name, keys, elements: &[String]| match elements {
        [] => format!("  map {name} {{ type {keys} : ipv4_addr . inet_service; }}\n"),
        some => format!(
            "  map {name} {{ type {keys} : ipv4_addr . inet_service; elements = {{ {} }}; }}\n",
            some.join(", ")
        ),
    };
    let mut body = String::new();
    if !host_ports.is_empty() {
        body += &map("ports", "inet_proto . inet_service", &ports);
        body += &map(
            "addresses",
            "ipv4_addr . inet_proto . inet_service",
            &addresses,
        );
        body += "  chain frontends {
    fib daddr type local dnat to ip daddr . meta l4proto . th dport map @addresses
    fib daddr type local dnat to meta l4proto . th dport map @ports
  }
  chain prerouting {
    type nat hook prerouting priority dstnat - 5; policy accept;
    jump frontends
  }
  chain output {
    type nat hook output priority -105; policy accept;
    jump frontends
  }
";
    }
    replace("ip", "ycloud-host-ports", &body)
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

    #[test]
    fn masquerade_never_translates_between_pods() {
        let cidrs = ["10.16.0.0/16", "10.20.0.0/16", "10.20.1.0/24"].map(|c| c.parse().unwrap());
        let rules = node_table(&NodeRules {
            link: "node0",
            address: "100.64.0.2/16".parse().unwrap(),
            default_vpc: &cidrs,
            host: Some(Ipv4Addr::new(172, 18, 0, 2)),
        });
        let line = "ip saddr { 10.16.0.0/16, 10.20.0.0/16 } ip daddr != { 10.16.0.0/16, 10.20.0.0/16 } oifname != { \"node0\", \"lo\" } masquerade";
        assert!(rules.contains(line), "{rules}");
        assert!(rules.contains("dnat ip to 172.18.0.2"), "{rules}");
        let none = NodeRules {
            link: "node0",
            address: "100.64.0.2/16".parse().unwrap(),
            default_vpc: &[],
            host: None,
        };
        let none = node_table(&none);
        assert!(!none.contains("ip daddr !=") && !none.contains("dnat"));
    }

    #[test]
    fn only_direct_links_answer_and_only_in_user_space_is_the_rest_dropped() {
        let link = |name: &str, direct| PodLink {
            name: name.into(),
            index: 4,
            ip: Ipv4Addr::new(10, 0, 1, 5),
            direct,
        };
        let links = [link("yca", true), link("ycb", false)];
        let rules = |userspace| {
            pod_tables(&PodRules {
                links: &links,
                source: Ipv4Addr::new(169, 254, 77, 1),
                userspace,
                host_ports: &BTreeMap::new(),
            })
        };
        assert_eq!(rules(true).matches("fwd to \"lo\"").count(), 1);
        assert_eq!(rules(true).matches("    drop\n").count(), 2);
        assert_eq!(rules(false).matches("    drop\n").count(), 0);
    }
}
