//! What virtual machines of a lab run: a kernel of Debian, and an initramfs around the lab's server.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, run};
use crate::progress::Step;
use crate::{cache, ovn_packages, toolchain};

/// Debian's release that the kernel is of, and the package that depends on its newest kernel for virtual machines.
const SUITE: &str = "bookworm";
const KERNEL: &str = "linux-image-cloud-amd64";

/// Modules between the kernel and a virtio network device, in the order in which they are loaded.
const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];

/// Applets of busybox that `machine/init.sh` uses.
const APPLETS: [&str; 6] = ["cut", "insmod", "ip", "mount", "sh", "tr"];

const INIT: &str = include_str!("../machine/init.sh");

/// Files of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

/// Makes what is missing.
pub(crate) fn ensure(step: &Step) -> Result<Guest> {
    let packages = kernel(step)?;
    let server = toolchain::server(step)?;
    let busybox = Path::new("/bin/busybox");
    let key = cache::key([
        packages.to_string_lossy().as_ref(),
        server.to_string_lossy().as_ref(),
        INIT,
        &MODULES.join(" "),
        &cache::stamp(busybox)?,
    ]);
    let folder = cache::entry("guest", &key, |aside, _| {
        step.note("packing an initramfs");
        fs::copy(packages.join("vmlinuz"), aside.join("vmlinuz"))?;
        initramfs(aside, &packages, &server, busybox)
    })?;
    cache::prune("guest", &folder)?;
    Ok(Guest {
        kernel: folder.join("vmlinuz"),
        initramfs: folder.join("initramfs"),
    })
}

/// A folder with `vmlinuz` and the modules, out of Debian's package. It is unpacked, not installed.
fn kernel(step: &Step) -> Result<PathBuf> {
    let key = cache::key([SUITE, KERNEL, &MODULES.join(" ")]);
    cache::entry("guest-kernel", &key, |aside, _| {
        let state = aside.join("apt");
        let apt = ovn_packages::private_apt(&state, SUITE, "guest-kernel-apt", step)?;
        let depends = run(&mut apt.command("apt-cache", &["depends", KERNEL]))?;
        let package = newest(&depends)
            .with_context(|| format!("{KERNEL} of {SUITE} depends on no kernel:\n{depends}"))?;
        apt.run("apt-get", &["download", package], step)?;
        step.note(format!("unpacking {package}"));
        let tree = aside.join("tree");
        for entry in fs::read_dir(state.join("archives"))?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(command("dpkg-deb", ["-x"]).arg(&path).arg(&tree))?;
            }
        }
        let version = package.trim_start_matches("linux-image-");
        fs::copy(
            tree.join(format!("boot/vmlinuz-{version}")),
            aside.join("vmlinuz"),
        )
        .with_context(|| format!("{package} has no kernel"))?;
        let modules = tree.join("lib/modules").join(version).join("kernel");
        for module in MODULES {
            let name = file_name(module);
            fs::copy(modules.join(module), aside.join(name))
                .with_context(|| format!("{package} has no {module}"))?;
        }
        fs::remove_dir_all(tree)?;
        fs::remove_dir_all(state)?;
        Ok(())
    })
}

/// The kernel's package, out of what `apt-cache depends` prints of the one that follows it.
fn newest(depends: &str) -> Option<&str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
}

fn file_name(module: &str) -> &str {
    module.rsplit('/').next().unwrap_or(module)
}

/// Packs `initramfs` in the folder `aside` (cpio, "newc": Documentation/driver-api/early-userspace of the kernel).
fn initramfs(aside: &Path, packages: &Path, server: &Path, busybox: &Path) -> Result<()> {
    let root = aside.join("root");
    for folder in ["bin", "dev", "modules", "proc"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(busybox, root.join("bin/busybox")).context("busybox is not installed")?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::copy(server, root.join("server"))?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    for module in MODULES.map(file_name) {
        fs::copy(packages.join(module), root.join("modules").join(module))?;
    }
    let order: String = MODULES
        .map(|module| format!("{}\n", file_name(module)))
        .concat();
    fs::write(root.join("modules/order"), order)?;
    let script = r#"find . | busybox cpio -o -H newc >"$0" 2>/dev/null"#;
    run(command("sh", ["-ec", script])
        .arg(aside.join("initramfs"))
        .current_dir(&root))?;
    fs::remove_dir_all(root)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_other_package_depends_on() {
        let printed =
            "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: x\n";
        assert_eq!(newest(printed), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("linux-image-cloud-amd64\n"), None);
    }
}
