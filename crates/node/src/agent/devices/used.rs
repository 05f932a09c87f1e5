//! What a link is used for already: pure. A device that the machine itself, or another network, stands on is not put on the
//! integration bridge: that would cut it off.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::agent::netlink::{Link, Route};

/// The master that all ports of Open vSwitch in the kernel have.
const DATAPATH: &str = "ovs-system";

/// Kinds of links that are the ends of tunnels: Open vSwitch's own, `genev_sys_6081`, and the machine's.
const TUNNELS: [&str; 14] = [
    "geneve",
    "vxlan",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "ipip",
    "ip6tnl",
    "sit",
    "vti",
    "wireguard",
    "bareudp",
];

/// Kinds of links that come in pairs: one names the other one, and does not stand on it.
const PAIRS: [&str; 3] = ["veth", "netkit", "vxcan"];

/// What a link that is no port of ours is used for, in words that follow its name; `None`: for nothing. `links`: all of
/// them; `addresses`: its own; `routes`: those of the main table.
pub fn used(link: &Link, links: &[Link], addresses: &[IpNet], routes: &[Route]) -> Option<String> {
    if link.name == DATAPATH || link.kind == "openvswitch" {
        return Some("belongs to Open vSwitch itself".to_owned());
    }
    if TUNNELS.contains(&link.kind.as_str()) {
        return Some(format!("is the end of a tunnel ({})", link.kind));
    }
    if let Some(master) = links.iter().find(|other| Some(other.index) == link.master) {
        return Some(match master.name.as_str() {
            DATAPATH => "is a port of Open vSwitch of which its database knows nothing".to_owned(),
            master => format!("is a port of {master}"),
        });
    }
    if let Some(port) = links.iter().find(|l| l.master == Some(link.index)) {
        return Some(format!("has a port, {}", port.name));
    }
    let stands = |other: &&Link| {
        other.lower == Some(link.index)
            && other.index != link.index
            && !PAIRS.contains(&other.kind.as_str())
    };
    if let Some(upper) = links.iter().find(stands) {
        let (name, kind) = (&upper.name, &upper.kind);
        return Some(format!("is what {name} ({kind}) stands on"));
    }
    // The one link-local address that each link gets by itself when it is set up.
    let own = addresses.iter().position(is_link_local);
    let mut others = addresses
        .iter()
        .enumerate()
        .filter(|(n, _)| Some(*n) != own);
    if let Some((_, address)) = others.next() {
        return Some(format!("has address {address} of the machine itself"));
    }
    let routes = routes.iter().filter(|route| route.link == link.index);
    let mut routes = routes.filter(|route| !is_link_local(&route.destination));
    let route = routes.next()?;
    Some(format!("has the machine's route to {}", route.destination))
}

fn is_link_local(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, kind, master, lower.
    fn link(index: u32, (name, kind, master, lower): (&str, &str, u32, u32)) -> Link {
        Link {
            index,
            name: name.into(),
            mac: Default::default(),
            mtu: 1500,
            up: true,
            master: (master > 0).then_some(master),
            lower: (lower > 0).then_some(lower),
            kind: kind.into(),
        }
    }

    #[test]
    fn what_others_stand_on_is_used() {
        let links = [
            ("ovs-system", "openvswitch", 0, 0),
            ("genev_sys_6081", "geneve", 1, 0),
            ("stray", "tun", 1, 0),
            ("br0", "bridge", 0, 0),
            ("bridged", "tun", 4, 0),
            ("parent", "", 0, 0),
            ("parent.7", "vlan", 0, 6),
            ("a", "veth", 0, 9),
            ("b", "veth", 0, 8),
            ("tap7", "tun", 0, 0),
        ];
        let links: Vec<Link> = (1..).zip(links).map(|(n, l)| link(n, l)).collect();
        let said = [
            "belongs to Open vSwitch itself",
            "is the end of a tunnel (geneve)",
            "is a port of Open vSwitch of which its database knows nothing",
            "has a port, bridged",
            "is a port of br0",
            "is what parent.7 (vlan) stands on",
            "",
            "",
            "",
            "",
        ];
        for (link, said) in links.iter().zip(said) {
            let used = used(link, &links, &[], &[]).unwrap_or_default();
            assert_eq!(used, said, "{}", link.name);
        }
    }

    #[test]
    fn what_the_machine_speaks_by_is_used() {
        let tap = link(9, ("tap7", "tun", 0, 0));
        let cases = [
            (vec![], vec![], ""),
            (vec!["fe80::1/64"], vec!["fe80::/64", "ff00::/8"], ""),
            (
                vec!["fe80::1/64", "192.0.2.7/24"],
                vec![],
                "has address 192.0.2.7/24",
            ),
            (
                vec!["fe80::1/64", "fe80::2/64"],
                vec![],
                "has address fe80::2/64",
            ),
            (
                vec!["fe80::1/64", "2001:db8::1/64"],
                vec![],
                "has address 2001:db8::1/64",
            ),
            (
                vec![],
                vec!["fe80::/64", "0.0.0.0/0"],
                "has the machine's route to 0.0.0.0/0",
            ),
        ];
        for (addresses, routes, said) in cases {
            let nets = |texts: &[&str]| -> Vec<IpNet> {
                texts.iter().map(|text| text.parse().unwrap()).collect()
            };
            let route = |destination| Route {
                destination,
                gateway: None,
                link: 9,
                source: None,
            };
            let addresses = nets(&addresses);
            let routes: Vec<Route> = nets(&routes).into_iter().map(route).collect();
            let is = used(&tap, &[], &addresses, &routes).unwrap_or_default();
            assert!(
                is.starts_with(said) && is.is_empty() == said.is_empty(),
                "{is}"
            );
            let other = link(8, ("tap8", "tun", 0, 0));
            assert_eq!(used(&other, &[], &[], &routes), None);
        }
    }
}
