//! Things made once: an entry of the cache is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::layout::CACHE;
use crate::state::lock;

/// The first 12 hexadecimal digits of the SHA-256 of the parts. Each part's length counts, so that moving a boundary changes it.
pub(crate) fn key<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.as_ref().len() as u64).to_be_bytes());
        hasher.update(part.as_ref());
    }
    hex(&hasher.finalize())[..12].to_owned()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The logs of what fills the cache.
pub(crate) fn log(name: &str) -> PathBuf {
    Path::new(CACHE).join("log").join(format!("{name}.log"))
}

/// The folder `<kind>-<key>` of the cache; made by `build` in a folder beside, which is renamed once it is complete.
/// `build` gets the folder to fill and the path that it will have.
///
/// # Errors
/// What `build` says; then nothing stays.
pub(crate) fn entry(
    kind: &str,
    key: &str,
    build: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let path = Path::new(CACHE).join(format!("{kind}-{key}"));
    if path.exists() {
        return Ok(path);
    }
    let _lock = lock(&Path::new(CACHE).join("locks").join(kind), || {
        eprintln!("another command is making {kind}; waiting for it");
    })?;
    if path.exists() {
        return Ok(path);
    }
    let aside = Path::new(CACHE).join(format!("{kind}.partial"));
    remove(&aside)?;
    fs::create_dir_all(&aside).with_context(|| format!("failed to make {}", aside.display()))?;
    if let Err(error) = build(&aside, &path) {
        remove(&aside)?;
        return Err(error);
    }
    fs::rename(&aside, &path).with_context(|| format!("failed to rename {}", aside.display()))?;
    Ok(path)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    Ok(())
}

/// Removes all other entries of `kind` than `keep`, for kinds of which only the newest is of use.
pub(crate) fn prune(kind: &str, keep: &Path) -> Result<()> {
    let _lock = lock(&Path::new(CACHE).join("locks").join(kind), || {})?;
    let prefix = format!("{kind}-");
    for entry in fs::read_dir(CACHE).context(format!("failed to list {CACHE}"))? {
        let path = entry?.path();
        let ours = path.file_name().is_some_and(|name| {
            name.to_string_lossy()
                .strip_prefix(&prefix)
                .is_some_and(|key| key.len() == 12)
        });
        if ours && path != keep {
            remove(&path)?;
        }
    }
    Ok(())
}

/// What tells a file from its other versions without reading it: path, size and time of change.
pub(crate) fn stamp(path: &Path) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let meta =
        fs::metadata(path).with_context(|| format!("failed to look at {}", path.display()))?;
    Ok(format!(
        "{} {} {}.{}",
        path.display(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_where_only_a_boundary_moved() {
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
        assert_eq!(key(["ab", "c"]), key(["ab", "c"]));
        assert_eq!(key(["x"]).len(), 12);
    }

    #[test]
    fn hexadecimal_keeps_leading_zeros() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }
}
