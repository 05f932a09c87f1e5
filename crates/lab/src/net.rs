//! Network namespaces and the links between them. Nothing is bridged, forwarded or masqueraded in the root namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, run, run_words, succeeds};
use crate::layout::{Layout, Machine, Network, POD_CIDR, POD_CIDR_V6};

/// The file that stands for a named network namespace (ip-netns(8)).
pub(crate) fn path(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// Whether the namespace is there: a name that a killed `ip netns add` left without one does not count.
pub(crate) fn exists(netns: &str) -> bool {
    succeeds(&mut command("ip", ["-n", netns, "link", "show", "lo"]))
}

/// Makes a namespace with its loopback up, unless it is there.
pub(crate) fn ensure(netns: &str) -> Result<()> {
    if !exists(netns) {
        delete(netns)?;
        run_words(&["ip", "netns", "add", netns])?;
    }
    run_words(&["ip", "-n", netns, "link", "set", "lo", "up"])?;
    Ok(())
}

/// Removes a namespace and with it its links. Its processes must be gone, or it lives on without a name.
pub(crate) fn delete(netns: &str) -> Result<()> {
    let path = path(netns);
    if path.exists() && !succeeds(&mut command("ip", ["netns", "del", netns])) {
        // A name that no namespace is mounted on: the leftover of an `ip netns add` that was killed.
        std::fs::remove_file(&path)
            .with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(())
}

/// The names of all namespaces of the lab `name`.
pub(crate) fn of_lab(name: &str) -> Vec<String> {
    let prefix = Layout::netns_prefix(name);
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|netns| netns.starts_with(&prefix))
        .collect()
}

pub(crate) fn has_link(netns: &str, device: &str) -> bool {
    succeeds(&mut command("ip", ["-n", netns, "link", "show", device]))
}

pub(crate) fn sysctl(netns: &str, setting: &str) -> Result<()> {
    run_words(&[
        "nsenter",
        &format!("--net={}", path(netns).display()),
        "--",
        "sysctl",
        "-qw",
        setting,
    ])?;
    Ok(())
}

/// Switches TX checksum offload off: a userspace datapath at the other end would pass the unfinished checksum on.
pub(crate) fn no_tx_offload(netns: &str, device: &str) -> Result<()> {
    run_words(&[
        "nsenter",
        &format!("--net={}", path(netns).display()),
        "--",
        "ethtool",
        "-K",
        device,
        "tx",
        "off",
    ])?;
    Ok(())
}

/// Keeps the namespace's own stack from answering on a device that Open vSwitch has.
pub(crate) fn no_stack(netns: &str, device: &str) -> Result<()> {
    sysctl(netns, &format!("net.ipv4.conf.{device}.arp_ignore=8"))?;
    sysctl(netns, &format!("net.ipv6.conf.{device}.disable_ipv6=1"))
}

/// The underlay: the bridges of all networks, in a namespace of its own.
pub(crate) fn ensure_underlay(layout: &Layout) -> Result<()> {
    let netns = layout.underlay_netns();
    ensure(&netns)?;
    for network in Network::all() {
        let bridge = network.bridge();
        if !has_link(&netns, bridge) {
            run_words(&["ip", "-n", &netns, "link", "add", bridge, "type", "bridge"])?;
        }
        run_words(&["ip", "-n", &netns, "link", "set", bridge, "up"])?;
    }
    // Present only where br_netfilter is loaded: the bridge must not ask any firewall.
    for call in [
        "bridge-nf-call-iptables",
        "bridge-nf-call-ip6tables",
        "bridge-nf-call-arptables",
    ] {
        if Path::new("/proc/sys/net/bridge").join(call).exists() {
            sysctl(&netns, &format!("net.bridge.{call}=0"))?;
        }
    }
    Ok(())
}

/// A pair of links between `device` in one namespace and `peer` in another, both up, unless it is there. Returns whether
/// it was made.
pub(crate) fn ensure_pair(
    (netns, device): (&str, &str),
    (peer_netns, peer): (&str, &str),
) -> Result<bool> {
    if has_link(netns, device) && has_link(peer_netns, peer) {
        return Ok(false);
    }
    // One end of a pair may be left of a namespace that the kernel is still burying.
    for (netns, device) in [(netns, device), (peer_netns, peer)] {
        if has_link(netns, device) {
            delete_link(netns, device)?;
        }
    }
    run_words(&[
        "ip", "link", "add", device, "netns", netns, "type", "veth", "peer", "name", peer, "netns",
        peer_netns,
    ])?;
    for (netns, device) in [(netns, device), (peer_netns, peer)] {
        run_words(&["ip", "-n", netns, "link", "set", device, "up"])?;
    }
    Ok(true)
}

/// A machine's namespace and its links to its networks. A node's address is not here: Open vSwitch carries it.
pub(crate) fn ensure_machine(layout: &Layout, machine: Machine) -> Result<()> {
    let (netns, underlay) = (layout.netns(machine), layout.underlay_netns());
    ensure(&netns)?;
    for network in Network::of(machine) {
        let (device, port) = (network.device(), network.port(machine));
        ensure_pair((&netns, device), (&underlay, &port))?;
        no_tx_offload(&netns, device)?;
        no_tx_offload(&underlay, &port)?;
        let bridge = network.bridge();
        run_words(&[
            "ip", "-n", &underlay, "link", "set", &port, "master", bridge,
        ])?;
        run_words(&["ip", "-n", &netns, "link", "set", device, "up"])?;
    }
    match machine {
        Machine::Node(_) | Machine::Dpu => {
            if machine != Machine::Dpu {
                sysctl(&netns, "net.ipv4.ip_forward=1")?;
                sysctl(&netns, "net.ipv6.conf.all.forwarding=1")?;
            }
            // Open vSwitch has these; the node's own stack, which sees a copy of all that arrives, must not answer there.
            // On eth0 it would give another MAC address than the bridge, which has the node's address: other nodes'
            // tunnels would end there, in vain.
            for network in Network::of(machine) {
                no_stack(&netns, network.device())?;
            }
        }
        Machine::Control | Machine::External => {
            sysctl(&netns, "net.ipv4.ip_forward=0")?;
            for address in layout.device_addresses(machine) {
                add_address(&netns, "eth0", &address)?;
            }
        }
        Machine::Upstream => {}
    }
    Ok(())
}

/// Gives a device an address, such as `198.51.100.1/24`, unless it has it. One of IPv6 serves at once.
pub(crate) fn add_address(netns: &str, device: &str, address: &str) -> Result<()> {
    let mut words = vec!["ip", "-n", netns, "addr", "replace", address, "dev", device];
    if address.contains(':') {
        words.push("nodad");
    }
    run_words(&words)?;
    Ok(())
}

/// Cuts the machine off from all networks at once, or joins it to them again: its ports on the bridges go down, or up. Those
/// that are not there yet are left out.
pub(crate) fn set_joined(layout: &Layout, machine: Machine, joined: bool) -> Result<()> {
    let underlay = layout.underlay_netns();
    for network in Network::of(machine) {
        let port = network.port(machine);
        if has_link(&underlay, &port) {
            let state = if joined { "up" } else { "down" };
            run_words(&["ip", "-n", &underlay, "link", "set", &port, state])?;
        }
    }
    Ok(())
}

/// The API server's way to Pods, for proxying and webhooks: by any node.
pub(crate) fn ensure_pod_routes(layout: &Layout) -> Result<()> {
    let control = layout.netns(Machine::Control);
    let route = |to: &str, hop: &dyn Fn(Machine) -> String| {
        let hops: Vec<String> = layout.node_machines().map(hop).collect();
        let mut words = vec!["ip", "-n", &control, "route", "replace", to];
        for hop in &hops {
            words.extend(["nexthop", "via", hop]);
        }
        run_words(&words).map(drop)
    };
    route(POD_CIDR, &|machine| layout.address(machine).to_string())?;
    route(POD_CIDR_V6, &|machine| {
        layout.address_v6(machine).to_string()
    })
}

/// The only link between the lab and the root namespace: to the control machine, without any route beyond it.
pub(crate) fn ensure_root_link(layout: &Layout) -> Result<()> {
    let (device, control) = (layout.root_device(), layout.netns(Machine::Control));
    if !has_link(&control, "root0") || !Path::new("/sys/class/net").join(&device).exists() {
        delete_root_link(layout)?;
        run_words(&[
            "ip", "link", "add", &device, "type", "veth", "peer", "name", "root0", "netns",
            &control,
        ])?;
    }
    run_words(&[
        "ip",
        "addr",
        "replace",
        &format!("{}/30", layout.root_address()),
        "dev",
        &device,
    ])?;
    run_words(&["ip", "link", "set", &device, "up"])?;
    add_address(
        &control,
        "root0",
        &format!("{}/30", layout.control_address()),
    )?;
    run_words(&["ip", "-n", &control, "link", "set", "root0", "up"])?;
    Ok(())
}

/// Removes a link that may go by itself meanwhile, with its other end.
pub(crate) fn delete_link(netns: &str, device: &str) -> Result<()> {
    match run_words(&["ip", "-n", netns, "link", "del", device]) {
        Err(error) if has_link(netns, device) => Err(error),
        _ => Ok(()),
    }
}

/// Removes the link to the root namespace. It goes with the control machine's namespace anyway, but a moment later.
pub(crate) fn delete_root_link(layout: &Layout) -> Result<()> {
    let device = layout.root_device();
    if Path::new("/sys/class/net").join(&device).exists() {
        let mut delete = command("ip", ["link", "del", &device]);
        // Its namespace's end may take it away meanwhile.
        if let Err(error) = run(&mut delete)
            && Path::new("/sys/class/net").join(&device).exists()
        {
            return Err(error);
        }
    }
    Ok(())
}
