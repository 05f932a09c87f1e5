//! The nodes' cgroups: one root per kubelet, so that none takes another's Pods for its own. Version 1, version 2, and both at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::wait_until;

const ROOT: &str = "/sys/fs/cgroup";

/// Whether the machine has the unified hierarchy (version 2) only.
fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The mount points of all hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
    Ok(mount_points(&mounts))
}

fn mount_points(mounts: &str) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            (matches!(kind, "cgroup" | "cgroup2") && point.starts_with(ROOT))
                .then(|| PathBuf::from(point))
        })
        .collect();
    points.sort();
    points.dedup();
    points
}

/// Makes the cgroup `path` (relative) in every hierarchy, with what a kubelet needs there.
pub(crate) fn ensure(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut folder = hierarchy.clone();
        for name in Path::new(path) {
            if unified() {
                delegate(&folder)?;
            }
            let parent = folder.clone();
            folder.push(name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("failed to make {}", folder.display()))?;
            // Version 1: a new cpuset is empty, and a process cannot enter it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (from, to) = (parent.join(file), folder.join(file));
                if !unified() && to.exists() {
                    let value = fs::read_to_string(&from)
                        .with_context(|| format!("failed to read {}", from.display()))?;
                    fs::write(&to, value.trim())
                        .with_context(|| format!("failed to write {}", to.display()))?;
                }
            }
        }
        if unified() {
            delegate(&folder)?;
        }
    }
    Ok(())
}

/// Version 2: gives all controllers that a cgroup has to its children.
fn delegate(folder: &Path) -> Result<()> {
    let read = |file: &str| {
        fs::read_to_string(folder.join(file))
            .with_context(|| format!("failed to read {}/{file}", folder.display()))
    };
    let enabled = read("cgroup.subtree_control")?;
    for controller in read("cgroup.controllers")?.split_whitespace() {
        if !enabled.split_whitespace().any(|word| word == controller) {
            fs::write(
                folder.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )
            .with_context(|| {
                format!(
                    "failed to enable the controller {controller} in {}",
                    folder.display()
                )
            })?;
        }
    }
    Ok(())
}

/// Every process in the cgroup `path` of any hierarchy, or below.
pub(crate) fn processes(path: &str) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for hierarchy in hierarchies()? {
        for folder in tree(&hierarchy.join(path)) {
            // A cgroup may go while it is looked at.
            let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// The folder and all below it, deepest first.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.extend(tree(&entry.path()));
            }
        }
        found.push(folder.to_owned());
    }
    found
}

/// Removes the cgroup `path` and all below from every hierarchy. Their processes must have been ended; it waits for the
/// kernel to have buried them.
///
/// # Errors
/// When one is still there after 10 s.
pub(crate) fn remove(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let top = hierarchy.join(path);
        let gone = wait_until(Duration::from_secs(10), Duration::from_millis(50), || {
            for folder in tree(&top) {
                // Refused while a dying process is in it: asked again.
                let _ = fs::remove_dir(&folder);
            }
            Ok(!top.exists())
        })?;
        anyhow::ensure!(
            gone,
            "failed to remove the cgroup {}: a process is still in it",
            top.display()
        );
    }
    Ok(())
}

/// Removes the cgroup `path` where it has no children, from every hierarchy.
pub(crate) fn remove_empty(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let _ = fs::remove_dir(hierarchy.join(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_mount_table() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /elsewhere/cpu cgroup rw,cpu 0 0\n\
            /dev/vda / ext4 rw 0 0\n";
        assert_eq!(
            mount_points(mounts),
            [
                PathBuf::from("/sys/fs/cgroup/pids"),
                PathBuf::from("/sys/fs/cgroup/unified")
            ]
        );
        assert_eq!(
            mount_points("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            [PathBuf::from(ROOT)]
        );
    }

    #[test]
    fn a_tree_lists_children_before_parents() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b")).unwrap();
        assert_eq!(
            tree(top.path()),
            [
                top.path().join("a/b"),
                top.path().join("a"),
                top.path().to_owned()
            ]
        );
    }
}
