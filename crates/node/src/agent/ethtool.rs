//! Offloads of a link, by `ioctl(SIOCETHTOOL)`: linux/ethtool.h.
//!
//! Where Open vSwitch switches in user space it reads whole frames from its ports' sockets and neither fills in a
//! checksum nor cuts a segment that the sender left to "hardware": both ends of a veth pair must send finished frames.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Features to switch off, `ETHTOOL_STXCSUM`, `ETHTOOL_STSO`, `ETHTOOL_SGSO`. Without transmit checksums the kernel takes
/// segmentation off too; it is named for links where it stands on its own.
const FEATURES: [(u32, &str); 3] = [
    (0x17, "transmit checksum"),
    (0x1f, "TCP segmentation"),
    (0x24, "generic segmentation"),
];

/// A feature could not be switched off.
#[derive(Debug, thiserror::Error)]
#[error("failed to switch {feature} offload of link {link} off")]
pub struct Error {
    link: String,
    feature: &'static str,
    #[source]
    source: io::Error,
}

/// Switches transmit checksum and segmentation offload of `link` off, in the namespace of the calling thread. A feature
/// that the link does not have is off.
///
/// # Errors
/// The kernel's refusal.
pub fn offload_off(link: &str) -> Result<(), Error> {
    let error = |feature, source| Error {
        link: link.to_owned(),
        feature,
        source,
    };
    let control = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|errno| error("every", errno.into()))?;
    for (command, feature) in FEATURES {
        match request::set(&control, link, command, 0) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {}
            result => result.map_err(|source| error(feature, source))?,
        }
    }
    Ok(())
}

#[allow(unsafe_code)]
mod request {
    use super::{AsRawFd, OwnedFd, io};
    use nix::libc;

    /// `struct ethtool_value`.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }

    pub(super) fn set(control: &OwnedFd, link: &str, command: u32, data: u32) -> io::Result<()> {
        let bytes = link.as_bytes();
        if bytes.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut value = Value { command, data };
        // SAFETY: `ifreq` is plain data for which all zeroes are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: SIOCETHTOOL reads an `ifreq` whose name ends in NUL (checked above) and whose data points to an
        // `ethtool_value`; both outlive the call.
        let result = unsafe {
            libc::ioctl(
                control.as_raw_fd(),
                libc::SIOCETHTOOL as _,
                &raw mut request,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
