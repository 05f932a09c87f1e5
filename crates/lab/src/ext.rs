//! The physical network that carries elastic addresses, and the router on its other side.
//!
//! ```text
//!  node-1 … node-n                       upstream                      external
//!  br-ext ─ eth1 ──── ext, untagged ──── eth1 198.51.100.1/24          wan0 203.0.113.10/25, .11
//!    │                                        2001:db8:200::1/64    ┌─── 2001:db8:113::10/64
//!    └───── eth2 ──── ext, VLAN 100 ──── eth2 203.0.113.129/25      │    eth0 172.31.x.200/24 (nodes' network)
//!                                        wan0 203.0.113.1/25     ───┘
//!                                             2001:db8:113::1/64
//! ```
//!
//! The nodes have no address there: their `br-ext` is mapped to the network's name (`ovn-bridge-mappings`), and who
//! answers for an address is OVN's decision. The upstream router routes [`ROUTED`] and [`ROUTED_V6`] to [`GATEWAY`] and
//! [`GATEWAY_V6`]; it has no other route. All labs have the same addresses here: no two labs are connected.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::command::run_words;
use crate::layout::{Layout, Machine, Network};
use crate::net::{add_address, ensure_pair, sysctl};

/// The name of the physical network in the nodes' `ovn-bridge-mappings`.
pub const NETWORK: &str = "ext";
/// The VLAN of [`NETWORK`] that the upstream router is on too, 1..=4094.
pub const VLAN: u16 = 100;
/// The upstream router on the untagged network, 198.51.100.0/24.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The upstream router on the untagged network, 2001:db8:200::/64.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 1);
/// The upstream router on the VLAN, 203.0.113.128/25.
pub const VLAN_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 129);
/// Whom the upstream router sends [`ROUTED`] to.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Whom the upstream router sends [`ROUTED_V6`] to.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 2);
/// Elastic addresses that are in no network of their own.
pub const ROUTED: &str = "192.0.2.0/24";
/// As [`ROUTED`], of IPv6.
pub const ROUTED_V6: &str = "2001:db8:201::/64";
/// The external machine's address behind the upstream router.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A second one, so that one machine can be two clients.
pub const EXTERNAL_SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// The external machine's IPv6 address behind the upstream router.
pub const EXTERNAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);

/// The upstream router's addresses on its link to the external machine, with their prefix lengths.
const NEAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const NEAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1);
/// The link between the two, on both.
const LINK: &str = "wan0";

/// Makes the link between the upstream router and the external machine, and gives both their addresses and routes. Their
/// namespaces must be there.
pub(crate) fn ensure_routes(layout: &Layout) -> Result<()> {
    let (upstream, external) = (
        layout.netns(Machine::Upstream),
        layout.netns(Machine::External),
    );
    sysctl(&upstream, "net.ipv4.ip_forward=1")?;
    sysctl(&upstream, "net.ipv6.conf.all.forwarding=1")?;
    ensure_pair((&upstream, LINK), (&external, LINK))?;
    for (netns, device, address) in [
        (&upstream, Network::Ext.device(), format!("{ROUTER}/24")),
        (&upstream, Network::Ext.device(), format!("{ROUTER_V6}/64")),
        (
            &upstream,
            Network::ExtVlan.device(),
            format!("{VLAN_ROUTER}/25"),
        ),
        (&upstream, LINK, format!("{NEAR}/25")),
        (&upstream, LINK, format!("{NEAR_V6}/64")),
        (&external, LINK, format!("{EXTERNAL}/25")),
        (&external, LINK, format!("{EXTERNAL_SECOND}/25")),
        (&external, LINK, format!("{EXTERNAL_V6}/64")),
    ] {
        add_address(netns, device, &address)?;
    }
    for (netns, to, via) in [
        (&upstream, ROUTED, GATEWAY.to_string()),
        (&upstream, ROUTED_V6, GATEWAY_V6.to_string()),
        (&external, "0.0.0.0/0", NEAR.to_string()),
        (&external, "::/0", NEAR_V6.to_string()),
    ] {
        run_words(&["ip", "-n", netns, "route", "replace", to, "via", &via])?;
    }
    Ok(())
}
