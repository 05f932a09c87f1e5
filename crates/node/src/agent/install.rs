//! Puts plugin and network configuration where the container runtime looks for them.
//!
//! Neither is taken away when the agent stops: running Pods need no agent, and a DEL meanwhile is told to try again.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Name of the plugin's binary, and its `type` in the configuration.
pub const PLUGIN: &str = "ycloud";

/// Name of the configuration's file. The runtime takes the first one in the order of names.
pub const CONFLIST: &str = "10-ycloud.conflist";

/// Version of the configuration. containerd 1.6 knows none above; with 1.1.0 a runtime also asks STATUS and GC.
pub const CONFLIST_VERSION: &str = "1.0.0";

/// A file could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("failed to install {path}")]
pub struct Error {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Installs the plugin `from` into the directory `to`.
///
/// # Errors
/// Reading or writing fails.
pub fn plugin(from: &Path, to: &Path) -> Result<(), Error> {
    let wanted = fs::read(from).map_err(|source| Error {
        path: from.to_owned(),
        source,
    })?;
    put(&to.join(PLUGIN), &wanted, 0o755)
}

/// Writes the network configuration into the directory `to`; the plugin shall find the agent at `socket`.
///
/// # Errors
/// Writing fails.
pub fn conflist(to: &Path, socket: &Path) -> Result<(), Error> {
    let mut plugin = json!({"type": PLUGIN, "capabilities": {"portMappings": true}});
    if socket != Path::new(crate::protocol::SOCKET) {
        plugin["socket"] = socket.to_string_lossy().into();
    }
    let conflist = json!({
        "cniVersion": CONFLIST_VERSION,
        "name": "ycloud",
        "plugins": [plugin],
    });
    put(
        &to.join(CONFLIST),
        format!("{conflist:#}\n").as_bytes(),
        0o644,
    )
}

/// Puts a file in place in one step, so that nobody reads half of it and a running plugin keeps its own; leaves one that
/// is as it shall be.
fn put(path: &Path, wanted: &[u8], mode: u32) -> Result<(), Error> {
    let install = || -> io::Result<bool> {
        let same = fs::read(path).is_ok_and(|found| found == wanted)
            && fs::metadata(path)?.permissions().mode() & 0o777 == mode;
        if same {
            return Ok(false);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A name without a known ending: no runtime takes it for a configuration.
        let aside = path.with_file_name(format!(".{name}.new"));
        let mut file = fs::File::create(&aside)?;
        file.write_all(wanted)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        drop(file);
        fs::rename(&aside, path)?;
        Ok(true)
    };
    let installed = install().map_err(|source| Error {
        path: path.to_owned(),
        source,
    })?;
    if installed {
        tracing::info!(path = %path.display(), "installed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_replaced_only_if_it_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin");
        let inode = || fs::metadata(&path).unwrap().ino();
        put(&path, b"one", 0o755).unwrap();
        let first = inode();
        put(&path, b"one", 0o755).unwrap();
        assert_eq!(inode(), first);
        put(&path, b"two", 0o755).unwrap();
        assert_ne!(inode(), first);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing aside is left"
        );
    }
}
