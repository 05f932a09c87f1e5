//! Address families: how nft(8) writes them, and whether the kernel has IPv6.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Once;

pub use ycloud_api::address::Family;

/// There wherever the kernel has IPv6: proc_net(5). The sysctls may be there without it.
const INET6: &str = "/proc/net/if_inet6";

/// What nft(8) calls a family and what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// The family of a table, and the header in a match.
    pub ip: &'static str,
    /// The type of an address in a set.
    pub address: &'static str,
    /// The protocol of a packet: `meta nfproto`.
    pub nfproto: &'static str,
    /// Its loopback addresses.
    pub loopback: &'static str,
}

/// The words of a family.
pub fn words(family: Family) -> Words {
    match family {
        Family::Ipv4 => Words {
            ip: "ip",
            address: "ipv4_addr",
            nfproto: "ipv4",
            loopback: "127.0.0.0/8",
        },
        Family::Ipv6 => Words {
            ip: "ip6",
            address: "ipv6_addr",
            nfproto: "ipv6",
            loopback: "::1",
        },
    }
}

/// Whether the kernel has IPv6.
pub fn has_ipv6() -> bool {
    Path::new(INET6).exists()
}

/// Whether the kernel can use such an address. The first time that it cannot, the log says so.
pub fn is_usable(ip: impl Into<IpAddr>) -> bool {
    static SAID: Once = Once::new();
    let usable = ip.into().is_ipv4() || has_ipv6();
    if !usable {
        SAID.call_once(|| {
            tracing::warn!(
                "this node's kernel has no IPv6 (no {INET6}): its Pods, the node interface and Services have IPv4 only; boot it without ipv6.disable=1"
            );
        });
    }
    usable
}
