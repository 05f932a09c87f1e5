//! A node: network, mount and UTS namespaces held by one process, in which every default path is the node's own. The DPU is
//! made the same way, without what belongs to Kubernetes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::layout::{Layout, MAX_NODES, Machine};
use crate::process::{Process, enter};
use crate::programs::Programs;
use crate::{cgroup, image, net};

/// Folders of a node, and where it has them instead of the machine's own.
const MOUNTS: [(&str, &str); 7] = [
    ("kubelet", "/var/lib/kubelet"),
    ("containerd", "/var/lib/containerd"),
    ("cni", "/var/lib/cni"),
    ("log-pods", "/var/log/pods"),
    ("log-containers", "/var/log/containers"),
    ("cni-net.d", "/etc/cni/net.d"),
    ("cni-bin", "/opt/cni/bin"),
];

/// The process that holds a node's namespaces.
pub(crate) const HOLDER: &str = "node";
pub(crate) const CONTAINERD: &str = "containerd";

/// Makes a node's namespaces unless they are there. What a dead holder left must have been cleaned away.
pub(crate) fn ensure(
    layout: &Layout,
    machine: Machine,
    programs: &Programs,
    images: &Path,
) -> Result<()> {
    net::ensure_machine(layout, machine)?;
    cgroup::ensure(&layout.cgroup(machine))?;
    let folder = layout.machine_dir(machine);
    // The image store is put there whole, or not at all.
    let made = MOUNTS.map(|(name, _)| name);
    let made = made.into_iter().filter(|name| *name != CONTAINERD);
    folders(layout, machine, made)?;
    if !folder.join("containerd").exists() {
        image::place(images, &folder.join("containerd"))?;
    }
    plugins(&folder.join("cni-bin"))?;
    hold(layout, machine, &MOUNTS, programs)
}

/// Makes the namespaces of a chassis that is no node, unless they are there. What a dead holder left must have been cleaned
/// away.
pub(crate) fn ensure_chassis(layout: &Layout, machine: Machine, programs: &Programs) -> Result<()> {
    net::ensure_machine(layout, machine)?;
    folders(layout, machine, [])?;
    hold(layout, machine, &[], programs)
}

/// Makes the folders of a chassis: those that every one has, and `more`.
fn folders(
    layout: &Layout,
    machine: Machine,
    more: impl IntoIterator<Item = &'static str>,
) -> Result<()> {
    for name in ["etc", "ovs"].into_iter().chain(more) {
        fs::create_dir_all(layout.machine_dir(machine).join(name))
            .with_context(|| format!("failed to make {name} of {machine}"))?;
    }
    Ok(())
}

fn hold(
    layout: &Layout,
    machine: Machine,
    mounts: &[(&str, &str)],
    programs: &Programs,
) -> Result<()> {
    let folder = layout.machine_dir(machine);
    files(layout, machine, &folder.join("etc"))?;
    let holder = Process {
        layout,
        machine,
        part: HOLDER,
    };
    if holder.pid().is_some() {
        return Ok(());
    }
    let mounts: Vec<String> = mounts
        .iter()
        .map(|(name, to)| format!("{name}:{to}"))
        .collect();
    let ready = folder.join("ready");
    let _ = fs::remove_file(&ready);
    let mut words: Vec<OsString> = vec![
        "nsenter".into(),
        format!("--net={}", net::path(&layout.netns(machine)).display()).into(),
        "unshare".into(),
        "--mount".into(),
        "--uts".into(),
        "env".into(),
    ];
    words.push(format!("NODE_NAME={machine}").into());
    words.push(format!("NODE_DIR={}", folder.display()).into());
    words.push(format!("NODE_MOUNTS={}", mounts.join(" ")).into());
    words.extend([
        "sh".into(),
        "-c".into(),
        include_str!("node-init.sh").into(),
    ]);
    holder.start(words, &programs.path())?;
    holder.wait_ready(Duration::from_secs(60), || Ok(ready.exists()))
}

/// Gives the node the one CNI plugin that containerd itself calls, for every sandbox's loopback device.
fn plugins(folder: &Path) -> Result<()> {
    let (from, to) = (Path::new("/usr/lib/cni/loopback"), folder.join("loopback"));
    if !to.exists() {
        let aside = folder.join(".loopback");
        fs::copy(from, &aside)
            .and_then(|_| fs::rename(&aside, &to))
            .with_context(|| format!("failed to copy {}", from.display()))?;
    }
    Ok(())
}

/// The files that the node has in `/etc`. Written in place: a bind mount shows the file, not its name.
fn files(layout: &Layout, machine: Machine, folder: &Path) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    };
    write("hostname", format!("{machine}\n"))?;
    write("resolv.conf", "# The lab has no name server.\n".to_owned())?;
    write("hosts", hosts(layout))
}

/// Names all nodes that a lab can have, so that a lab that grows need not tell the others.
fn hosts(layout: &Layout) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
    let _ = writeln!(
        text,
        "{} control kube-apiserver ovn-nb ovn-sb",
        layout.address(Machine::Control)
    );
    let _ = writeln!(text, "{} external", layout.address(Machine::External));
    let nodes = (1..=MAX_NODES).map(Machine::Node);
    for machine in std::iter::once(Machine::Dpu).chain(nodes) {
        let _ = writeln!(text, "{} {machine}", layout.address(machine));
    }
    text
}

/// Starts containerd.
pub(crate) fn start_containerd(
    layout: &Layout,
    machine: Machine,
    programs: &Programs,
) -> Result<()> {
    let config = layout.machine_dir(machine).join("containerd.toml");
    fs::write(&config, containerd_config())
        .with_context(|| format!("failed to write {}", config.display()))?;
    let process = Process {
        layout,
        machine,
        part: CONTAINERD,
    };
    let mut words = enter(layout, machine)?;
    words.extend(["containerd".into(), "--config".into(), config.into()]);
    process.start(words, &programs.path())?;
    process.wait_ready(Duration::from_secs(90), || {
        Ok(crate::command::succeeds(&mut ctr(
            layout,
            machine,
            &["version"],
        )?))
    })
}

/// A `ctr` within the node.
pub(crate) fn ctr(
    layout: &Layout,
    machine: Machine,
    words: &[&str],
) -> Result<std::process::Command> {
    let mut all = enter(layout, machine)?;
    all.push("ctr".into());
    all.extend(words.iter().map(OsString::from));
    let (program, args) = all.split_first().context("an empty command")?;
    Ok(crate::command::command(program, args))
}

/// `restrict_oom_score_adj` and `oom_score`: without CAP_SYS_RESOURCE, as in many virtual machines, a process cannot give
/// itself a lower score than it has.
fn containerd_config() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        pause = image::PAUSE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::OvnVersion;

    #[test]
    fn the_names_that_deployments_use_lead_to_the_control_machine() {
        let hosts = hosts(&Layout {
            name: "x".into(),
            index: 4,
            nodes: 2,
            ovn: OvnVersion::V25_03,
        });
        let line = hosts
            .lines()
            .find(|line| line.contains("kube-apiserver"))
            .unwrap();
        assert!(
            line.starts_with("172.31.4.100 ") && line.contains("ovn-nb") && line.contains("ovn-sb"),
            "{line}"
        );
        assert!(hosts.contains("172.31.4.2 node-2\n"));
    }
}
