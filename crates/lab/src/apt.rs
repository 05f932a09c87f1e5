//! The Debian packages that the lab needs on the machine itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache;
use crate::command::{command, run, run_long};
use crate::layout::RUNTIME;
use crate::progress::Step;
use crate::state::lock;

/// Everything that is run on the machine or copied into images. Open vSwitch and OVN are not here: they live in the cache.
const PACKAGES: &[&str] = &[
    "bind9-dnsutils",
    "binutils",
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "debian-archive-keyring",
    "ethtool",
    "gcc",
    "iperf",
    "iperf3",
    "iproute2",
    "ipset",
    "iptables",
    "iputils-ping",
    "kmod",
    "libc6-dev",
    "netcat-openbsd",
    "nftables",
    "openssl",
    "procps",
    "qemu-system-x86",
    "runc",
    "socat",
    "systemd",
    "tcpdump",
    "util-linux",
    "wget",
];

/// Tells package scripts not to start services (deb-systemd-invoke(1p), invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n# Written by ycloud's lab while it installs packages; goes away afterwards.\nexit 101\n";

/// Those of the packages that are not installed.
pub(crate) fn missing() -> Result<Vec<&'static str>> {
    let listed = run(&mut command(
        "dpkg-query",
        ["-W", "-f", "${db:Status-Status} ${Package}\n"],
    ))?;
    Ok(absent(&listed))
}

fn absent(listed: &str) -> Vec<&'static str> {
    let installed: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    PACKAGES
        .iter()
        .copied()
        .filter(|package| !installed.contains(package))
        .collect()
}

/// Installs `packages` without starting any service.
pub(crate) fn install(packages: &[&str], step: &Step) -> Result<()> {
    let _lock = lock(&Path::new(RUNTIME).join("locks/apt"), || {})?;
    let policy = Policy::write()?;
    let apt = |words: &[&str], log: &str| {
        let mut apt = command("apt-get", ["-o", "DPkg::Lock::Timeout=300", "-y"]);
        apt.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        run_long(&mut apt, &cache::log(log), step)
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    // The lists may be old or absent: only a failure is a reason to fetch them.
    if apt(&install, "apt-install").is_err() {
        apt(&["update"], "apt-update")?;
        apt(&install, "apt-install")?;
    }
    policy.remove()
}

/// Our policy file, if the machine had none.
struct Policy {
    written: bool,
}

impl Policy {
    fn write() -> Result<Self> {
        // One of ours, left by a run that was killed, is as good as absent.
        let foreign = fs::read_to_string(POLICY).is_ok_and(|text| text != POLICY_TEXT);
        if !foreign {
            fs::write(POLICY, POLICY_TEXT).context(format!("failed to write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { written: !foreign })
    }

    fn remove(mut self) -> Result<()> {
        if std::mem::take(&mut self.written) {
            fs::remove_file(POLICY).context(format!("failed to remove {POLICY}"))?;
        }
        Ok(())
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.written {
            // On the way out of another failure, which is the one to report.
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// The Debian mirror of the machine's own configuration, as `http://host/debian`.
pub(crate) fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .context("no Debian mirror (an address ending in /debian) is in /etc/apt/sources.list or /etc/apt/sources.list.d")
}

/// The first address of a sources file, in either of its formats (sources.list(5)), that ends in `/debian`.
fn mirror_in(text: &str) -> Option<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| {
            (word.starts_with("http://") || word.starts_with("https://"))
                && word.ends_with("/debian")
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let new = "Types: deb\n# http://old.example/debian\nURIs: http://mirror.example/debian/\nSuites: bookworm\n";
        assert_eq!(
            mirror_in(new).as_deref(),
            Some("http://mirror.example/debian")
        );
        let old = "deb https://m.example/debian-security s main\ndeb [arch=amd64] https://m.example/debian bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("https://m.example/debian"));
        assert_eq!(mirror_in("deb http://m.example/ubuntu x main"), None);
    }

    #[test]
    fn a_removed_package_that_left_its_configuration_is_absent() {
        let listed: String = PACKAGES
            .iter()
            .map(|package| {
                format!(
                    "{} {package}\n",
                    if *package == "runc" {
                        "config-files"
                    } else {
                        "installed"
                    }
                )
            })
            .collect();
        assert_eq!(absent(&listed), ["runc"]);
    }
}
