//! Folders whose files are generated: written, or compared with what they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Makes the files with extension `extension` in `folder` be exactly `files` (name → text); or, with `check`, fails if
/// they are not, naming those that differ and `command`, which cures it. Files with another extension are left alone.
pub fn sync(
    folder: &Path,
    extension: &str,
    files: &BTreeMap<String, String>,
    check: bool,
    command: &str,
) -> Result<()> {
    let mut stale = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_deref() == Some(text) {
            continue;
        }
        stale.push(format!("{} is stale or missing", path.display()));
        if !check {
            fs::create_dir_all(folder)
                .with_context(|| format!("failed to make {}", folder.display()))?;
            fs::write(&path, text)
                .with_context(|| format!("failed to write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
    }
    for name in present(folder, extension)? {
        if files.contains_key(&name) {
            continue;
        }
        let path = folder.join(&name);
        stale.push(format!("{} is left over", path.display()));
        if !check {
            fs::remove_file(&path)
                .with_context(|| format!("failed to remove {}", path.display()))?;
            println!("removed {}", path.display());
        }
    }
    if check && !stale.is_empty() {
        bail!(
            "{}\nrun `{command}` and commit the result",
            stale.join("\n")
        );
    }
    Ok(())
}

fn present(folder: &Path, extension: &str) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to list {}", folder.display()));
        }
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let (Some(name), Some(true)) = (name, path.extension().map(|e| e == extension)) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}
