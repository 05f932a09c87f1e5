//! Network namespaces and the links between them. Nothing is bridged, forwarded or masqueraded in the root namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, run, run_words, succeeds};
use crate::layout::{Layout, Machine};

/// The file that stands for a named network namespace (ip-netns(8)).
pub(crate) fn path(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// Whether the namespace is there: a name that a killed `ip netns add` left without one does not count.
pub(crate) fn exists(netns: &str) -> bool {
    succeeds(&mut command("ip", ["-n", netns, "link", "show", "lo"]))
}

/// Makes a namespace with its loopback up, unless it is there.
fn ensure(netns: &str) -> Result<()> {
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

fn has_link(netns: &str, device: &str) -> bool {
    succeeds(&mut command("ip", ["-n", netns, "link", "show", device]))
}

fn sysctl(netns: &str, setting: &str) -> Result<()> {
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
fn no_tx_offload(netns: &str, device: &str) -> Result<()> {
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

/// The underlay: a bridge in a namespace of its own.
pub(crate) fn ensure_underlay(layout: &Layout) -> Result<()> {
    let netns = layout.underlay_netns();
    ensure(&netns)?;
    if !has_link(&netns, "br0") {
        run_words(&["ip", "-n", &netns, "link", "add", "br0", "type", "bridge"])?;
    }
    run_words(&["ip", "-n", &netns, "link", "set", "br0", "up"])?;
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

/// A machine's namespace and its link `eth0` to the underlay. A node's address is not here: Open vSwitch carries it.
pub(crate) fn ensure_machine(layout: &Layout, machine: Machine) -> Result<()> {
    let (netns, underlay, port) = (
        layout.netns(machine),
        layout.underlay_netns(),
        Layout::bridge_port(machine),
    );
    ensure(&netns)?;
    if !has_link(&netns, "eth0") || !has_link(&underlay, &port) {
        // One end of a pair may be left of a namespace that the kernel is still burying.
        for (netns, device) in [(&netns, "eth0"), (&underlay, port.as_str())] {
            if has_link(netns, device) {
                delete_link(netns, device)?;
            }
        }
        run_words(&[
            "ip", "link", "add", "eth0", "netns", &netns, "type", "veth", "peer", "name", &port,
            "netns", &underlay,
        ])?;
    }
    no_tx_offload(&netns, "eth0")?;
    no_tx_offload(&underlay, &port)?;
    run_words(&[
        "ip", "-n", &underlay, "link", "set", &port, "master", "br0", "up",
    ])?;
    run_words(&["ip", "-n", &netns, "link", "set", "eth0", "up"])?;
    match machine {
        Machine::Node(_) => sysctl(&netns, "net.ipv4.ip_forward=1")?,
        Machine::Control | Machine::External => {
            sysctl(&netns, "net.ipv4.ip_forward=0")?;
            let address = format!("{}/24", layout.address(machine));
            run_words(&[
                "ip", "-n", &netns, "addr", "replace", &address, "dev", "eth0",
            ])?;
        }
    }
    Ok(())
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
    run_words(&[
        "ip",
        "-n",
        &control,
        "addr",
        "replace",
        &format!("{}/30", layout.control_address()),
        "dev",
        "root0",
    ])?;
    run_words(&["ip", "-n", &control, "link", "set", "root0", "up"])?;
    Ok(())
}

/// Removes a link that may go by itself meanwhile, with its other end.
fn delete_link(netns: &str, device: &str) -> Result<()> {
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
