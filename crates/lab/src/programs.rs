//! The programs that a lab runs, and where they are.

use std::ffi::{OsStr, OsString};

use crate::ovn_packages::Ovn;
use crate::toolchain::Toolchain;

/// What the cache holds for one lab.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub toolchain: Toolchain,
    pub ovn: Ovn,
}

/// Where Debian keeps programs.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Programs {
    /// The folders of the lab's own programs, for `PATH`.
    pub fn own_path(&self) -> OsString {
        let mut path = OsString::from(self.ovn.bin());
        for folder in [&self.toolchain.kubernetes, &self.toolchain.etcd] {
            path.push(":");
            path.push(folder);
        }
        path
    }

    /// `PATH` for everything in the lab: its own programs, then the machine's.
    pub fn path(&self) -> OsString {
        let mut path = self.own_path();
        path.push(OsStr::new(":"));
        path.push(SYSTEM_PATH);
        path
    }
}
