//! The network namespace in which the prober's sockets are: what may leave it, and what may come in.
//!
//! Tenants reach its addresses, as they must to answer. They get nothing out of it but the probes themselves: what leaves
//! has the mark of a probe's socket, so the kernel's own answers (echo replies, resets to strangers, ICMP unreachable) do
//! not leave. No rule needs conntrack, which could not tell two Vpcs with equal addresses apart.

use std::path::PathBuf;

use ycloud_client::Supervisor;

use crate::agent::family::has_ipv6;
use crate::agent::netlink::{self, Netlink};
use crate::agent::netns::{self, Netns};
use crate::agent::nft;
use crate::agent::sysctl;

/// Mark (`SO_MARK`) of the prober's sockets. It means something in their namespace only.
pub const MARK: u32 = 157;

/// The namespace cannot be had, or not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel makes none, or none can be entered.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// Its links.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A switch.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// The rules.
    #[error(transparent)]
    Nft(#[from] nft::Error),
}

/// Makes the namespace. It ends with this process, as does the connection inside, which `supervisor` watches.
///
/// # Errors
/// See [`Error`].
pub async fn make(supervisor: &Supervisor) -> Result<(Netns, Netlink), Error> {
    let netns = Netns::unnamed()?;
    let close = || {
        let runtime = tokio::runtime::Handle::current();
        // nft(8) is started from this thread, and so in its namespace.
        runtime.block_on(nft::apply(&rules()))?;
        for (key, value) in switches() {
            sysctl::set(key, value)?;
        }
        Ok::<(), Error>(())
    };
    netns.run(close).await??;
    let (inside, mut connection) = Netlink::connect_in(&netns).await?;
    {
        let mut loopback = std::pin::pin!(loopback_up(&inside));
        // Watched only once it is good for something: a namespace that cannot be had is no reason to end.
        tokio::select! {
            done = &mut loopback => done?,
            // Then nothing that is asked by it is answered.
            () = &mut connection => loopback.await?,
        }
    }
    supervisor.carry("netlink of the prober's namespace", connection);
    Ok((netns, inside))
}

async fn loopback_up(inside: &Netlink) -> Result<(), netlink::Error> {
    let loopback = inside.need_link("lo").await?;
    inside.set_up(&loopback).await
}

/// IPv4's are the host's when a namespace is made (ip-sysctl, `devconf_inherit_init_net`).
fn switches() -> Vec<(&'static str, &'static str)> {
    let ipv4 = [
        ("ipv4/ip_forward", "0"),
        ("ipv4/icmp_echo_ignore_all", "1"),
        // The way there is by the socket's device, whatever the other devices' routes say.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/accept_redirects", "0"),
        ("ipv4/conf/default/accept_redirects", "0"),
    ];
    let ipv6 = [
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/accept_redirects", "0"),
        ("ipv6/icmp/echo_ignore_all", "1"),
    ];
    let there = |(key, _): &(&str, &str)| {
        let path: PathBuf = ["/proc/sys/net", key].iter().collect();
        path.exists()
    };
    let ipv6 = ipv6.into_iter().filter(|_| has_ipv6()).filter(there);
    ipv4.into_iter().chain(ipv6).collect()
}

fn rules() -> String {
    let neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }";
    format!(
        "table inet ycloud-prober {{
    chain input {{
        type filter hook input priority filter; policy drop;
        tcp flags & (ack | rst) != 0x0 accept
        meta l4proto udp accept
        icmp type {{ echo-reply, destination-unreachable, time-exceeded, parameter-problem }} accept
        icmpv6 type {{ echo-reply, destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} accept
        {neighbours} ip6 hoplimit 255 accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
    chain output {{
        type filter hook output priority filter; policy drop;
        meta mark {MARK} accept
        {neighbours} accept
    }}
}}
"
    )
}
