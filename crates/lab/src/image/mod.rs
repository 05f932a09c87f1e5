//! The container images of the lab.

mod archive;
mod golden;
mod rootfs;
mod ycloud;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use golden::{ensure as golden, place};
pub use ycloud::Profile;
pub(crate) use ycloud::{AGENT, TAG as YCLOUD_TAG, ensure as ycloud};

use self::archive::Config;
use self::rootfs::Rootfs;
use crate::cache;
use crate::command::{command, run};
use crate::progress::Step;
use crate::toolchain::Toolchain;

/// The name under which kubelets and containerd know the sandbox's image.
pub(crate) const PAUSE: &str = "registry.k8s.io/pause:3.10.1";

/// The image of the cluster's DNS, as `coredns.yaml` names it.
const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.13.2";

/// Applets of busybox for images that have the real programs of everything else.
const APPLETS: &[&str] = &[
    "ash",
    "base64",
    "basename",
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "du",
    "echo",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mount",
    "mv",
    "nproc",
    "nslookup",
    "ping",
    "ping6",
    "printf",
    "ps",
    "readlink",
    "rm",
    "sed",
    "seq",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tail",
    "tee",
    "test",
    "time",
    "top",
    "touch",
    "tr",
    "true",
    "umount",
    "uniq",
    "vi",
    "wc",
    "which",
    "whoami",
    "awk",
];

/// Programs for trying networks, in the machine's folders and in the image's.
const NETWORK_TOOLS: &[(&str, &str)] = &[
    ("iperf3", "usr/bin/iperf3"),
    ("curl", "usr/bin/curl"),
    ("nc.openbsd", "usr/bin/nc"),
    ("dig", "usr/bin/dig"),
    ("getent", "usr/bin/getent"),
    ("ip", "sbin/ip"),
    ("ss", "usr/bin/ss"),
    // Kubernetes' tests use options that the applet has not.
    ("wget", "usr/bin/wget"),
    ("bash", "bin/bash"),
    ("dash", "bin/dash"),
    // Programs that start others: busybox' own would start its applets, such as an nc without UDP.
    ("env", "usr/bin/env"),
    ("nohup", "usr/bin/nohup"),
    ("timeout", "usr/bin/timeout"),
    ("xargs", "usr/bin/xargs"),
];

/// Makes the images that never change with ycloud, as `<name>.tar` in one folder of the cache.
pub(crate) fn ensure(toolchain: &Toolchain, step: &Step) -> Result<PathBuf> {
    let images = [
        agnhost(toolchain)?,
        busybox()?,
        tools()?,
        coredns(toolchain)?,
        web_server(toolchain)?,
        invalid_packets(toolchain)?,
        server(toolchain)?,
        iptables()?,
    ];
    let pause = toolchain.sources.join("pause.c");
    let mut stamps = vec![cache::stamp(&pause)?];
    for (name, rootfs, config) in &images {
        stamps.push(format!("{name} {config:?}"));
        stamps.extend(rootfs.stamps()?);
    }
    let folder = cache::entry("images", &cache::key(&stamps), |aside, _| {
        step.note("compiling pause");
        let program = aside.join("pause");
        let mut gcc = command(
            "gcc",
            ["-Os", "-Wall", "-static", "-s", "-DVERSION=3.10.1", "-o"],
        );
        run(gcc.arg(&program).arg(&pause))?;
        let mut rootfs = Rootfs::new();
        rootfs.program(&program, "pause")?;
        let config = Config {
            tags: vec![PAUSE],
            entrypoint: vec!["/pause"],
            command: vec![],
        };
        archive::write(&aside.join("pause.tar"), &rootfs, &config)?;
        fs::remove_file(&program).context("failed to remove what was compiled")?;
        for (name, rootfs, config) in &images {
            step.note(format!("writing {name}"));
            archive::write(&aside.join(format!("{name}.tar")), rootfs, config)?;
        }
        Ok(())
    })?;
    cache::prune("images", &folder)?;
    Ok(folder)
}

/// The machine's program `name`, wherever its folder is.
fn installed(name: &str) -> Result<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .with_context(|| format!("the program {name} is not installed"))
}

/// A shell, the network's tools, and busybox for the rest. `/bin/sh` is dash: busybox' own shell would prefer its applets
/// to the real programs.
fn with_tools() -> Result<Rootfs> {
    let mut rootfs = Rootfs::new();
    for (name, to) in NETWORK_TOOLS {
        rootfs.program(&installed(name)?, to)?;
    }
    rootfs.link("bin/sh", "dash");
    rootfs.program(&installed("busybox")?, "bin/busybox")?;
    for applet in APPLETS {
        let path = format!("bin/{applet}");
        if !rootfs.contains(&path) {
            rootfs.link(&path, "busybox");
        }
    }
    Ok(rootfs)
}

type Image = (&'static str, Rootfs, Config);

/// The image of Kubernetes' own end-to-end tests, under both names that they use.
fn agnhost(toolchain: &Toolchain) -> Result<Image> {
    let mut rootfs = with_tools()?;
    rootfs.program(&toolchain.images.join("agnhost"), "agnhost")?;
    // A test of name servers starts it by this name.
    rootfs.program(&toolchain.coredns.join("coredns"), "coredns")?;
    rootfs.link("agnhost-2", "agnhost");
    rootfs.folder("uploads", 0o755);
    for file in ["localhost.crt", "localhost.key"] {
        rootfs.copy(&toolchain.sources.join(file), file);
    }
    rootfs.append(
        "etc/passwd",
        "user-defined-in-image:x:1000:1000::/:/bin/sh\n",
    );
    let tags = vec![
        "registry.k8s.io/e2e-test-images/agnhost:2.59",
        "registry.k8s.io/e2e-test-images/jessie-dnsutils:1.7",
    ];
    Ok((
        "agnhost",
        rootfs,
        Config {
            tags,
            entrypoint: vec!["/agnhost"],
            command: vec!["pause"],
        },
    ))
}

fn coredns(toolchain: &Toolchain) -> Result<Image> {
    let mut rootfs = Rootfs::new();
    rootfs.program(&toolchain.coredns.join("coredns"), "coredns")?;
    let config = Config {
        tags: vec![COREDNS],
        entrypoint: vec!["/coredns"],
        command: vec![],
    };
    Ok(("coredns", rootfs, config))
}

/// A web server on port 80 under the name of the nginx that Kubernetes' tests use for Pods that only shall run.
fn web_server(toolchain: &Toolchain) -> Result<Image> {
    let mut rootfs = Rootfs::new();
    rootfs.program(&toolchain.images.join("agnhost"), "agnhost")?;
    let config = Config {
        tags: vec![
            "registry.k8s.io/e2e-test-images/nginx:1.14-4",
            "registry.k8s.io/e2e-test-images/nginx:1.15-4",
        ],
        entrypoint: vec!["/agnhost"],
        command: vec!["netexec", "--http-port=80"],
    };
    Ok(("web-server", rootfs, config))
}

/// What machines behind VNics run, for Pods.
fn server(toolchain: &Toolchain) -> Result<Image> {
    let mut rootfs = Rootfs::new();
    rootfs.program(&toolchain.server.join("server"), "server")?;
    let config = Config {
        tags: vec!["ycloud.io/server:v1"],
        entrypoint: vec!["/server"],
        command: vec![],
    };
    Ok(("server", rootfs, config))
}

/// The server that answers with packets outside of any window.
fn invalid_packets(toolchain: &Toolchain) -> Result<Image> {
    let mut rootfs = Rootfs::new();
    rootfs.program(
        &toolchain.images.join("regression-issue-74839"),
        "regression-issue-74839",
    )?;
    let config = Config {
        tags: vec!["registry.k8s.io/e2e-test-images/regression-issue-74839:1.4"],
        entrypoint: vec!["/regression-issue-74839"],
        command: vec![],
    };
    Ok(("regression-issue-74839", rootfs, config))
}

/// The machine's tools for conntrack and nftables.
fn iptables() -> Result<Image> {
    let mut rootfs = with_tools()?;
    for name in ["conntrack", "nft"] {
        rootfs.program(&installed(name)?, &format!("usr/sbin/{name}"))?;
    }
    let config = Config {
        tags: vec!["registry.k8s.io/build-image/distroless-iptables:v0.8.9"],
        entrypoint: vec![],
        command: vec!["sh"],
    };
    Ok(("iptables", rootfs, config))
}

fn busybox() -> Result<Image> {
    let program = installed("busybox")?;
    let mut rootfs = Rootfs::new();
    rootfs.program(&program, "bin/busybox")?;
    rootfs.program(&installed("wget")?, "bin/wget")?;
    for applet in run(&mut command(&program, ["--list"]))?.lines() {
        let path = format!("bin/{applet}");
        if !rootfs.contains(&path) {
            rootfs.link(&path, "busybox");
        }
    }
    let tags = vec!["registry.k8s.io/e2e-test-images/busybox:1.37.0-1"];
    Ok((
        "busybox",
        rootfs,
        Config {
            tags,
            entrypoint: vec![],
            command: vec!["sh"],
        },
    ))
}

/// What the demo and people at a prompt use.
fn tools() -> Result<Image> {
    let mut rootfs = with_tools()?;
    for (name, to) in [
        ("iperf", "usr/bin/iperf"),
        ("tcpdump", "usr/bin/tcpdump"),
        ("nft", "usr/sbin/nft"),
    ] {
        rootfs.program(&installed(name)?, to)?;
    }
    let config = Config {
        tags: vec!["ycloud.io/tools:v1"],
        entrypoint: vec![],
        command: vec!["sleep", "infinity"],
    };
    Ok(("tools", rootfs, config))
}

#[cfg(test)]
mod tests {
    use crate::toolchain::crate_dir;

    #[test]
    fn the_dns_image_is_named_as_it_is_deployed_and_as_it_is_built() {
        let manifest = include_str!("../coredns.yaml");
        assert!(manifest.contains(&format!("image: {}\n", super::COREDNS)));
        let module = std::fs::read_to_string(crate_dir().join("go/coredns/go.mod")).unwrap();
        let version = super::COREDNS.rsplit(':').next().unwrap();
        assert!(module.contains(&format!("github.com/coredns/coredns {version}")));
    }
}
