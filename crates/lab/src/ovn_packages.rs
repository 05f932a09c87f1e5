//! Open vSwitch and OVN beside the machine's own packages: Debian's, unpacked into the cache, each program started
//! through the dynamic linker of its own Debian release. Nothing is installed and the machine's dpkg is not asked.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{command, run, run_long};
use crate::layout::OvnVersion;
use crate::progress::Step;
use crate::{apt, cache};

/// An unpacked OVN.
#[derive(Clone, Debug)]
pub(crate) struct Ovn {
    pub root: PathBuf,
}

impl Ovn {
    /// The folder of the programs, for `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    pub fn schema(&self, name: &str) -> PathBuf {
        let folder = if name == "vswitch" {
            "openvswitch"
        } else {
            "ovn"
        };
        self.root
            .join("root/usr/share")
            .join(folder)
            .join(format!("{name}.ovsschema"))
    }
}

/// A file of pins: the suite, and the packages with their versions.
struct Pins<'a> {
    suite: &'a str,
    packages: Vec<(&'a str, &'a str)>,
}

fn pins(version: OvnVersion) -> &'static str {
    match version {
        OvnVersion::V25_03 => include_str!("../ovn/25.03.txt"),
        OvnVersion::V23_03 => include_str!("../ovn/23.03.txt"),
    }
}

fn parse(text: &str) -> Result<Pins<'_>> {
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            line.split_once(' ')
                .with_context(|| format!("failed to understand the pin {line:?}"))
        });
    let (_, suite) = lines.next().context("the pins name no suite")??;
    Ok(Pins {
        suite,
        packages: lines.collect::<Result<_>>()?,
    })
}

/// Unpacks OVN `version`, unless the cache has it.
pub(crate) fn ensure(version: OvnVersion, step: &Step) -> Result<Ovn> {
    let text = pins(version);
    let root = cache::entry(
        &format!("ovn-{version}"),
        &cache::key([text]),
        |aside, path| {
            let apt_state = aside.join("apt");
            download(&parse(text)?, &apt_state, version, step)?;
            let tree = aside.join("root");
            for package in fs::read_dir(apt_state.join("archives"))?.flatten() {
                let package = package.path();
                if package
                    .extension()
                    .is_some_and(|extension| extension == "deb")
                {
                    step.note(format!("unpacking {}", package.display()));
                    run(command("dpkg-deb", ["-x"]).arg(&package).arg(&tree))?;
                }
            }
            for share in ["doc", "man", "locale", "lintian", "bash-completion"] {
                let _ = fs::remove_dir_all(tree.join("usr/share").join(share));
            }
            fs::remove_dir_all(&apt_state)?;
            wrap(aside, path)
        },
    )?;
    Ok(Ovn { root })
}

/// An apt that has its own state and no sources but one release's.
pub(crate) struct PrivateApt {
    config: PathBuf,
    archives: PathBuf,
    log: PathBuf,
}

/// Makes such an apt of the release `suite` in the folder `state`, with its lists fetched. What it downloads is in
/// `state/archives`; what it prints goes to the cache's log `log`.
pub(crate) fn private_apt(state: &Path, suite: &str, log: &str, step: &Step) -> Result<PrivateApt> {
    for folder in ["lists/partial", "cache", "archives/partial"] {
        fs::create_dir_all(state.join(folder))?;
    }
    fs::write(state.join("status"), "")?;
    let source = format!(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {suite} main\n",
        apt::mirror()?,
    );
    fs::write(state.join("sources.list"), source)?;
    let apt = PrivateApt {
        config: state.join("apt.conf"),
        archives: state.join("archives"),
        log: cache::log(log),
    };
    fs::write(&apt.config, configuration(state))?;
    apt.run("apt-get", &["update"], step)?;
    Ok(apt)
}

impl PrivateApt {
    /// `apt-get` or `apt-cache` of this apt.
    pub fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut apt = command(program, words);
        apt.env("APT_CONFIG", &self.config)
            .current_dir(&self.archives);
        apt
    }

    /// Runs it to its end.
    pub fn run(&self, program: &str, words: &[&str], step: &Step) -> Result<()> {
        run_long(&mut self.command(program, words), &self.log, step)
    }
}

/// Fetches the packages.
fn download(pins: &Pins<'_>, state: &Path, version: OvnVersion, step: &Step) -> Result<()> {
    let apt = private_apt(state, pins.suite, &format!("ovn-{version}-apt"), step)?;
    let mut wanted = Vec::new();
    for (package, pinned) in &pins.packages {
        let offered = run(&mut apt.command("apt-cache", &["madison", package]))?;
        let chosen = choose(&offered, pinned)
            .with_context(|| format!("the mirror has no package {package} for {}", pins.suite))?;
        if chosen != *pinned {
            // A point release or security update replaced it; a mirror keeps no old versions.
            eprintln!("  note: {package} {pinned} is no longer on the mirror; taking {chosen}");
        }
        wanted.push(format!("{package}={chosen}"));
    }
    let mut words = vec!["download"];
    words.extend(wanted.iter().map(String::as_str));
    apt.run("apt-get", &words, step)
}

/// Out of what `apt-cache madison` lists: the pinned version, else the newest.
fn choose(offered: &str, pinned: &str) -> Option<String> {
    let versions: Vec<&str> = offered
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .collect();
    versions
        .iter()
        .find(|version| **version == pinned)
        .or(versions.first())
        .map(|version| (*version).to_owned())
}

fn configuration(state: &Path) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
        ("Dir::Cache::archives", "archives"),
        ("Dir::Etc::sourcelist", "sources.list"),
    ] {
        let _ = writeln!(text, "{key} \"{}\";", state.join(value).display());
    }
    for (key, value) in [
        ("Dir::Etc::sourceparts", "/dev/null"),
        ("Dir::Etc::preferences", "/dev/null"),
        ("Dir::Etc::preferencesparts", "/dev/null"),
        // The folder belongs to root; apt's own user could not write into it.
        ("APT::Sandbox::User", "root"),
        ("Acquire::Languages", "none"),
        (
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled",
            "false",
        ),
        (
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
            "false",
        ),
    ] {
        let _ = writeln!(text, "{key} \"{value}\";");
    }
    text
}

/// Writes a script per program that starts it with its own release's libraries. `path` is where `aside` will be.
fn wrap(aside: &Path, path: &Path) -> Result<()> {
    for folder in ["bin", "exe"] {
        fs::create_dir_all(aside.join(folder))?;
    }
    let libraries = path.join("root/usr/lib/x86_64-linux-gnu");
    for folder in ["usr/bin", "usr/sbin", "usr/lib/openvswitch-switch"] {
        for entry in fs::read_dir(aside.join("root").join(folder))
            .with_context(|| format!("no {folder}"))?
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = ["ovs-", "ovn-", "ovsdb-"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if !ours || entry.file_type()?.is_symlink() || !is_elf(&entry.path())? {
                continue;
            }
            // Through a link of the program's name, so that ps shows that name and not the linker's.
            let link = path.join("exe").join(&name);
            symlink(linker(aside, path)?, aside.join("exe").join(&name))?;
            let script = aside.join("bin").join(&name);
            let program = path.join("root").join(folder).join(&name);
            fs::write(
                &script,
                format!(
                    "#!/bin/sh\nexec {} --argv0 {name} --library-path {} {} \"$@\"\n",
                    link.display(),
                    library_path(&libraries),
                    program.display()
                ),
            )?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Older releases keep some libraries in `/lib`, newer ones all in `/usr/lib`.
fn library_path(libraries: &Path) -> String {
    let usr = libraries.to_string_lossy();
    format!("{usr}:{}", usr.replace("/root/usr/lib/", "/root/lib/"))
}

/// Where the release's dynamic linker will be.
fn linker(aside: &Path, path: &Path) -> Result<PathBuf> {
    ["root/usr/lib/x86_64-linux-gnu", "root/lib/x86_64-linux-gnu"]
        .iter()
        .map(|folder| Path::new(folder).join("ld-linux-x86-64.so.2"))
        .find(|candidate| aside.join(candidate).exists())
        .map(|candidate| path.join(candidate))
        .context("the packages have no dynamic linker for x86-64")
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let read = File::open(path)?.read(&mut head)?;
    Ok(head[..read] == *b"\x7fELF")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_pinned() {
        for (version, suite) in [
            (OvnVersion::V25_03, "trixie"),
            (OvnVersion::V23_03, "bookworm"),
        ] {
            let pins = parse(pins(version)).unwrap();
            assert_eq!(pins.suite, suite);
            let (_, common) = pins
                .packages
                .iter()
                .find(|(package, _)| *package == "ovn-common")
                .unwrap();
            assert!(common.starts_with(&version.to_string()), "{common}");
        }
    }

    #[test]
    fn the_pinned_version_is_taken_where_it_is_offered() {
        let offered = "libc6 | 2.41-13 | http://x trixie/main amd64\nlibc6 | 2.41-12 | http://x trixie/main amd64\n";
        assert_eq!(choose(offered, "2.41-12").as_deref(), Some("2.41-12"));
        assert_eq!(choose(offered, "2.41-11").as_deref(), Some("2.41-13"));
        assert_eq!(choose("", "1"), None);
    }
}
