//! The machine's own settings that labs or kubelets change: kept by the first lab, put back by the last.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::layout::RUNTIME;
use crate::state::{lock_machine, names, write_aside};

/// Set by kubelets machine-wide (`vm.*`, `kernel.*`), or by the lab (`fs.inotify.*`).
const SETTINGS: &[&str] = &[
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// What several containerds and kubelets on one machine need at least.
const LEAST: &[(&str, u64)] = &[
    ("fs/inotify/max_user_instances", 2048),
    ("fs/inotify/max_user_watches", 524_288),
];

/// Folders that each node mounts its own over; they must exist on the machine.
pub(crate) const MOUNT_POINTS: &[&str] = &[
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
    "/opt/cni/bin",
];

/// What the machine was like before the first lab. Lives in a folder that a reboot clears, as it clears the settings.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    settings: BTreeMap<String, String>,
    /// Folders that labs made, parents first.
    folders: Vec<PathBuf>,
}

fn record() -> PathBuf {
    Path::new(RUNTIME).join("host.json")
}

fn setting(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Keeps what the machine is like, unless a lab did already, and sets what a lab needs.
pub(crate) fn prepare() -> Result<()> {
    let _lock = lock_machine()?;
    if !record().exists() {
        let mut saved = Saved::default();
        for name in SETTINGS {
            if let Ok(value) = fs::read_to_string(setting(name)) {
                saved
                    .settings
                    .insert((*name).to_owned(), value.trim().to_owned());
            }
        }
        for point in MOUNT_POINTS {
            saved.folders.extend(missing(Path::new(point)));
        }
        fs::create_dir_all(RUNTIME).context(format!("failed to make {RUNTIME}"))?;
        write_aside(&record(), &serde_json::to_vec_pretty(&saved)?)?;
    }
    for point in MOUNT_POINTS {
        fs::create_dir_all(point).with_context(|| format!("failed to make {point}"))?;
    }
    for (name, least) in LEAST {
        let now =
            fs::read_to_string(setting(name)).with_context(|| format!("failed to read {name}"))?;
        if now.trim().parse::<u64>().is_ok_and(|now| now < *least) {
            fs::write(setting(name), least.to_string())
                .with_context(|| format!("failed to set {name}"))?;
        }
    }
    Ok(())
}

/// The folder and those of its parents that do not exist, parents first.
fn missing(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|path| !path.exists())
        .map(Path::to_owned)
        .collect();
    found.reverse();
    found
}

/// Puts everything back if no lab is left.
pub(crate) fn restore() -> Result<()> {
    let _lock = lock_machine()?;
    if !names()?.is_empty() {
        return Ok(());
    }
    let bytes = match fs::read(record()) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("failed to read what the machine was like"),
    };
    let saved: Saved =
        serde_json::from_slice(&bytes).context("failed to understand what the machine was like")?;
    for (name, value) in &saved.settings {
        fs::write(setting(name), value)
            .with_context(|| format!("failed to put {name} back to {value}"))?;
    }
    for folder in saved.folders.iter().rev() {
        // Something else may use it by now; then it stays.
        let _ = fs::remove_dir(folder);
    }
    fs::remove_file(record()).context("failed to forget what the machine was like")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_come_parents_first() {
        let top = tempfile::tempdir().unwrap();
        let wanted = top.path().join("a/b");
        assert_eq!(missing(&wanted), [top.path().join("a"), wanted.clone()]);
        fs::create_dir_all(&wanted).unwrap();
        assert!(missing(&wanted).is_empty());
    }
}
