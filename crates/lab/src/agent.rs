//! ycloud's agent on a chassis that is no node: a process, as on a DPU without containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{run, succeeds};
use crate::image;
use crate::lab::Lab;
use crate::layout::{Layout, Machine};
use crate::ovn;
use crate::process::{Process, enter};
use crate::programs::Programs;
use crate::state::write_aside;

/// The part's name, and the program's.
pub(crate) const AGENT: &str = image::AGENT;

/// Where it answers /readyz, within the chassis.
const LISTEN: &str = "127.0.0.1:9440";

impl Lab {
    /// The agent's program on the chassis that is no node, where ycloud is installed.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn agent(&self) -> Result<PathBuf> {
        Ok(program(&self.layout()?, Machine::Dpu))
    }
}

fn program(layout: &Layout, machine: Machine) -> PathBuf {
    layout.machine_dir(machine).join(AGENT)
}

/// What the agent reaches the API server with.
pub(crate) fn kubeconfig(layout: &Layout, machine: Machine) -> PathBuf {
    layout
        .machine_dir(machine)
        .join(format!("{AGENT}.kubeconfig"))
}

/// Whether ycloud has been installed on the chassis.
pub(crate) fn installed(layout: &Layout, machine: Machine) -> bool {
    program(layout, machine).exists()
}

/// Keeps the agent of the build whose image's `archive` is given beside the chassis' own, for [`install`]: the cache may have only a
/// newer build by then, of another checkout.
pub(crate) fn keep(layout: &Layout, machine: Machine, archive: &Path) -> Result<()> {
    let marker = kept(layout, machine).with_extension("build");
    let build = archive.to_string_lossy();
    if fs::read_to_string(&marker).is_ok_and(|known| known == build) {
        return Ok(());
    }
    let from = archive.with_file_name(AGENT);
    fs::copy(&from, kept(layout, machine))
        .with_context(|| format!("failed to copy {}", from.display()))?;
    write_aside(&marker, build.as_bytes())
}

fn kept(layout: &Layout, machine: Machine) -> PathBuf {
    layout.machine_dir(machine).join(format!("{AGENT}.kept"))
}

/// Puts the agent that was kept on the chassis, in place of another build's, and waits until it is ready. The objects of
/// `deploy/` must be in the API server.
pub(crate) fn install(layout: &Layout, machine: Machine, programs: &Programs) -> Result<()> {
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    let (from, to) = (kept(layout, machine), program(layout, machine));
    let process = Process {
        layout,
        machine,
        part: AGENT,
    };
    if read(&from) != read(&to) {
        process.kill();
        let aside = to.with_extension("new");
        fs::copy(&from, &aside)
            .and_then(|_| fs::rename(&aside, &to))
            .with_context(|| format!("failed to copy {}", from.display()))?;
    }
    start(layout, machine, programs)?;
    process.wait_ready(Duration::from_secs(90), || {
        let readyz = format!("http://{LISTEN}/readyz");
        let ask = ["curl", "-sf", "-m", "3", "-o", "/dev/null", &readyz];
        Ok(succeeds(&mut ovn::within(layout, machine, programs, &ask)?))
    })
}

/// Starts the agent, where it has been installed.
pub(crate) fn start(layout: &Layout, machine: Machine, programs: &Programs) -> Result<()> {
    if !installed(layout, machine) {
        return Ok(());
    }
    let kubeconfig = kubeconfig(layout, machine);
    let mut words = enter(layout, machine)?;
    words.push("env".into());
    for (name, value) in [
        ("NODE_NAME", machine.to_string()),
        ("KUBECONFIG", kubeconfig.display().to_string()),
        ("OVN_SB", "tcp:ovn-sb:6642".to_owned()),
        ("LISTEN", LISTEN.to_owned()),
    ] {
        words.push(format!("{name}={value}").into());
    }
    words.push(program(layout, machine).into());
    words.extend(["--role".into(), "chassis".into()]);
    Process {
        layout,
        machine,
        part: AGENT,
    }
    .start(words, &programs.path())?;
    Ok(())
}

/// The chassis' Open vSwitch, asked by `ovs-vsctl`.
pub(crate) fn vsctl(
    layout: &Layout,
    machine: Machine,
    programs: &Programs,
    words: &[&str],
) -> Result<String> {
    let all = [&["ovs-vsctl", "--timeout=20"], words].concat();
    run(&mut ovn::within(layout, machine, programs, &all)?)
}
