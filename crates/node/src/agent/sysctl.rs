//! Switches of the node's network namespace under `/proc/sys/net`.

use std::io;
use std::path::PathBuf;

/// A switch could not be set.
#[derive(Debug, thiserror::Error)]
#[error("failed to set net.{key} to {value}")]
pub struct Error {
    key: String,
    value: String,
    #[source]
    source: io::Error,
}

/// Sets `net.<key>`, its parts separated by `/` (a link's name may have dots). Writes only if it has another value.
///
/// # Errors
/// No such switch, or no permission.
pub fn set(key: &str, value: &str) -> Result<(), Error> {
    let path: PathBuf = ["/proc/sys/net", key].iter().collect();
    let write = || -> io::Result<()> {
        if std::fs::read_to_string(&path)?.trim() == value {
            return Ok(());
        }
        std::fs::write(&path, value)
    };
    write().map_err(|source| Error {
        key: key.to_owned(),
        value: value.to_owned(),
        source,
    })
}
