//! What a lab was made with, on disk; and the locks that keep two runs apart.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, OvnVersion, RUNTIME, STATE};

/// Held until dropped, or until the process ends in whatever way.
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock `path`, waiting for whoever holds it.
pub(crate) fn lock(path: &Path, waiting: impl FnOnce()) -> Result<Lock> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
    }
    let file = File::create(path)
        .with_context(|| format!("failed to open the lock {}", path.display()))?;
    if file.try_lock().is_err() {
        waiting();
        file.lock()
            .with_context(|| format!("failed to take the lock {}", path.display()))?;
    }
    Ok(Lock { _file: file })
}

/// Keeps other `up`, `down` and `load` of the lab `name` away.
pub(crate) fn lock_lab(name: &str) -> Result<Lock> {
    lock(
        &Path::new(RUNTIME).join("locks").join(format!("lab-{name}")),
        || {
            eprintln!("another command is working on the lab {name}; waiting for it");
        },
    )
}

/// Keeps all others away from what labs share: the indexes, the machine's settings. Held shortly.
pub(crate) fn lock_machine() -> Result<Lock> {
    lock(&Path::new(RUNTIME).join("locks/machine"), || {})
}

fn record(name: &str) -> PathBuf {
    Path::new(STATE).join(name).join("lab.json")
}

/// The lab `name`, if there is one.
pub(crate) fn load(name: &str) -> Result<Option<Layout>> {
    let path = record(name);
    match fs::read(&path) {
        Ok(bytes) => {
            Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                format!("failed to understand {}", path.display())
            })?))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
    }
}

/// The names of all labs that have a record.
pub(crate) fn names() -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(STATE) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).context(format!("failed to list {STATE}")),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if record(&name).exists() {
            names.insert(name);
        }
    }
    Ok(names)
}

/// The lab `name` as it shall be: what its record says, grown to `nodes`; or a new record with a free index.
///
/// # Errors
/// When the lab runs another OVN or more nodes, or no index is free.
pub(crate) fn claim(name: &str, nodes: Option<u8>, ovn: Option<OvnVersion>) -> Result<Layout> {
    let _machine = lock_machine()?;
    let layout = match load(name)? {
        Some(known) => adapted(known, nodes, ovn)?,
        None => {
            let mut used = BTreeSet::new();
            for other in names()? {
                used.extend(load(&other)?.map(|layout| layout.index));
            }
            let index = free_index(&used).context("255 labs are there already")?;
            Layout {
                name: name.to_owned(),
                index,
                nodes: nodes.unwrap_or(3),
                ovn: ovn.unwrap_or_default(),
            }
        }
    };
    let folder = layout.state();
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    write_aside(&record(name), &serde_json::to_vec_pretty(&layout)?)?;
    Ok(layout)
}

fn free_index(used: &BTreeSet<u8>) -> Option<u8> {
    (0..=254).find(|index| !used.contains(index))
}

fn adapted(known: Layout, nodes: Option<u8>, ovn: Option<OvnVersion>) -> Result<Layout> {
    let name = &known.name;
    if let Some(wanted) = ovn.filter(|wanted| *wanted != known.ovn) {
        bail!(
            "the lab {name} runs OVN {}, not {wanted}: take it down first, or give the new one another --name",
            known.ovn
        );
    }
    let nodes = nodes.unwrap_or(known.nodes);
    if nodes < known.nodes {
        bail!(
            "the lab {name} has {} nodes and can grow, not shrink to {nodes}: take it down first",
            known.nodes
        );
    }
    Ok(Layout { nodes, ..known })
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_aside(path: &Path, content: &[u8]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    fs::write(&aside, content)
        .and_then(|()| fs::rename(&aside, path))
        .with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Layout {
        Layout {
            name: "x".into(),
            index: 0,
            nodes: 3,
            ovn: OvnVersion::V25_03,
        }
    }

    #[test]
    fn the_lowest_free_index_is_taken() {
        assert_eq!(free_index(&BTreeSet::new()), Some(0));
        assert_eq!(free_index(&BTreeSet::from([0, 1, 3])), Some(2));
        assert_eq!(free_index(&(0..=254).collect()), None);
    }

    #[test]
    fn a_lab_grows_but_neither_shrinks_nor_changes_its_ovn() {
        assert_eq!(adapted(known(), Some(5), None).unwrap().nodes, 5);
        assert_eq!(
            adapted(known(), None, Some(OvnVersion::V25_03)).unwrap(),
            known()
        );
        assert!(adapted(known(), Some(2), None).is_err());
        assert!(adapted(known(), None, Some(OvnVersion::V23_03)).is_err());
    }

    #[test]
    fn writing_aside_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        write_aside(&folder.path().join("a"), b"x").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
