//! ycloud's own image, made from what cargo built in this checkout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::archive::{self, Config};
use super::installed;
use super::rootfs::Rootfs;
use crate::cache;
use crate::command::{command, run, run_long};
use crate::progress::Step;
use crate::toolchain::crate_dir;

/// The image's name, as `deploy/` uses it.
pub(crate) const TAG: &str = "ycloud.io/ycloud:v0.1.0";
/// The program that the image's folder also has by itself, for a chassis without containers.
pub(crate) const AGENT: &str = "ycloud-cni";
const PACKAGES: &[&str] = &["ycloud-controller", "ycloud-node"];
const PROGRAMS: &[&str] = &[
    "ycloud-controller",
    "yusurservice-controller",
    AGENT,
    "ycloud",
];

/// How cargo builds ycloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// As tests do: quickly.
    #[default]
    Dev,
    /// As it is shipped: optimised.
    Release,
}

/// Builds ycloud with cargo and packs it. Returns the archive; its path changes if and only if the programs did.
pub(crate) fn ensure(profile: Profile, step: &Step) -> Result<PathBuf> {
    let programs = build(profile, step)?;
    let mut stamps = vec![TAG.to_owned(), AGENT.to_owned()];
    for program in &programs {
        stamps.push(cache::stamp(program)?);
    }
    for tool in TOOLS {
        stamps.push(cache::stamp(&installed(tool)?)?);
    }
    let folder = cache::entry("ycloud-image", &cache::key(&stamps), |aside, _| {
        let mut rootfs = Rootfs::new();
        for program in &programs {
            let name = program
                .file_name()
                .context("a program without a name")?
                .to_string_lossy();
            let stripped = aside.join(&*name);
            step.note(format!("stripping {name}"));
            run(command("strip", ["-o"]).arg(&stripped).arg(program))?;
            rootfs.program(&stripped, &format!("usr/local/bin/{name}"))?;
        }
        for tool in TOOLS {
            rootfs.program(&installed(tool)?, &format!("usr/sbin/{tool}"))?;
        }
        step.note("writing the image");
        let config = Config {
            tags: vec![TAG],
            ..Config::default()
        };
        archive::write(&aside.join("ycloud.tar"), &rootfs, &config)?;
        for program in &programs {
            let name = program.file_name().unwrap_or_default();
            if name != AGENT {
                std::fs::remove_file(aside.join(name))?;
            }
        }
        Ok(())
    })?;
    // Each build makes one; only the newest is ever loaded.
    cache::prune("ycloud-image", &folder)?;
    Ok(folder.join("ycloud.tar"))
}

/// Programs that the node agent runs.
const TOOLS: &[&str] = &["nft", "ip"];

/// A line of `cargo build --message-format=json`: only what tells where a program was written.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

fn build(profile: Profile, step: &Step) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = command(
        cargo,
        [
            "build",
            "--bins",
            "--message-format=json-render-diagnostics",
        ],
    );
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    // What cargo set for this program is not meant for the next cargo, and would make it build again.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            cargo.env_remove(name);
        }
    }
    let log = cache::log("cargo-build");
    run_long(cargo.current_dir(crate_dir()), &log, step).context("failed to build ycloud")?;
    let built: Vec<PathBuf> = std::fs::read_to_string(&log)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok()?.executable)
        .collect();
    PROGRAMS.iter().map(|name| named(&built, name)).collect()
}

fn named(built: &[PathBuf], name: &str) -> Result<PathBuf> {
    built
        .iter()
        .find(|path: &&PathBuf| path.file_name() == Some(Path::new(name).as_os_str()))
        .cloned()
        .with_context(|| format!("cargo built no program {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_by_their_whole_name() {
        let built = [
            PathBuf::from("/t/debug/ycloud-cni"),
            PathBuf::from("/t/debug/ycloud"),
        ];
        assert_eq!(named(&built, "ycloud").unwrap(), built[1]);
        assert!(named(&built, "cloud").is_err());
    }
}
