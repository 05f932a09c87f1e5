//! Switches of the node's network namespace under `/proc/sys/net`.

use std::io;
use std::path::PathBuf;

use super::pod_links::is_host_interface;

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

/// Lets the node forward IPv6. The kernel then forgets the routers that it learned of by their advertisements, and listens
/// to no more, but on links whose `accept_ra` is 2: the node's own way out must stay (ip-sysctl, accept_ra).
///
/// # Errors
/// No such switch, or no permission.
pub fn forward_ipv6() -> Result<(), Error> {
    let (key, links) = ("ipv6/conf/all/forwarding", "ipv6/conf");
    let folder: PathBuf = ["/proc/sys/net", links].iter().collect();
    let path: PathBuf = ["/proc/sys/net", key].iter().collect();
    let forwards = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    for link in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let accept_ra = link.path().join("accept_ra");
        let listens = || std::fs::read_to_string(&accept_ra).is_ok_and(|text| text.trim() == "1");
        let name = link.file_name().to_string_lossy().into_owned();
        let others = ["all", "default"].contains(&name.as_str()) || is_host_interface(&name);
        if !forwards && listens() && !others {
            set(&format!("{links}/{name}/accept_ra"), "2")?;
        }
    }
    set(key, "1")
}
