//! Taking a lab away, or one of its nodes: by what is there, not by what a record says should be there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::wait_until;
use crate::kubernetes::KUBELET;
use crate::layout::{Layout, Machine, RUNTIME, STATE};
use crate::node::HOLDER;
use crate::process::{self, Process, end};
use crate::{cgroup, host, net, state};

/// What is thrown away needs no long goodbye: etcd, the API server and databases get this to end kindly.
const GRACE: Duration = Duration::from_secs(1);

/// Ends every process whose mark begins with `prefix`, that is in the cgroup, or in one of the namespaces.
fn end_processes(prefix: &str, cgroup: &str, namespaces: &[String]) -> Result<()> {
    // Kubelets first: they would start again what ends.
    end(&process::marked_part(prefix, KUBELET), GRACE);
    end(&cgroup::processes(cgroup)?, Duration::ZERO);
    // The mounts of nodes: looked up while their holders live.
    let mut others = Vec::new();
    for holder in process::marked_part(prefix, HOLDER) {
        others.extend(process::within(
            "mnt",
            Path::new(&format!("/proc/{holder}/ns/mnt")),
        ));
    }
    end(&process::marked(prefix), GRACE);
    for netns in namespaces {
        others.extend(process::within("net", &net::path(netns)));
    }
    // Between the two looks a runtime may have started something more in a cgroup.
    others.extend(cgroup::processes(cgroup)?);
    end(&others, Duration::ZERO);
    Ok(())
}

/// Takes a node's processes and namespaces away; what it has on disk stays. For a node that lost its holder.
pub(crate) fn node(layout: &Layout, machine: Machine) -> Result<()> {
    let prefix = format!("{}/{machine}/", layout.name);
    let (netns, cgroup) = (layout.netns(machine), layout.cgroup(machine));
    end_processes(&prefix, &cgroup, std::slice::from_ref(&netns))?;
    net::delete(&netns)?;
    cgroup::remove(&cgroup)
}

/// Whether a node must be taken away before it can be made again.
pub(crate) fn is_broken(layout: &Layout, machine: Machine) -> bool {
    let netns = layout.netns(machine);
    match (Process {
        layout,
        machine,
        part: HOLDER,
    })
    .pid()
    {
        Some(holder) => !process::within("net", &net::path(&netns)).contains(&holder),
        None => {
            !process::marked(&format!("{}/{machine}/", layout.name)).is_empty()
                || !process::within("net", &net::path(&netns)).is_empty()
        }
    }
}

/// Ends the control machine's processes if their network namespace is not the one that bears its name.
pub(crate) fn control_if_broken(layout: &Layout) {
    let netns = net::path(&layout.netns(Machine::Control));
    let inside = process::within("net", &netns);
    let strays: Vec<i32> = process::marked(&format!("{}/{}/", layout.name, Machine::Control))
        .into_iter()
        .filter(|pid| !inside.contains(pid))
        .collect();
    end(&strays, GRACE);
}

/// Takes the lab `name` away, whatever there is of it. Every step is tried, also after another failed.
///
/// # Errors
/// All that failed, together.
pub(crate) fn lab(name: &str) -> Result<()> {
    let layout = state::load(name);
    let namespaces = net::of_lab(name);
    let mut failures = Vec::new();
    let mut attempt = |result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{error:#}"));
        }
    };
    attempt(end_processes(
        &format!("{name}/"),
        &Layout::cgroup_of(name),
        &namespaces,
    ));
    if let Ok(Some(layout)) = &layout {
        attempt(net::delete_root_link(layout));
    }
    for netns in &namespaces {
        attempt(net::delete(netns));
    }
    attempt(cgroup::remove(&Layout::cgroup_of(name)));
    if let Ok(Some(layout)) = &layout {
        attempt(root_link_gone(layout));
    }
    attempt(remove(&Path::new(RUNTIME).join("labs").join(name)));
    attempt(remove(&Path::new(STATE).join(name)));
    if !failures.is_empty() {
        bail!(
            "failed to take all of the lab {name} away:\n{}",
            failures.join("\n")
        );
    }
    let _ = fs::remove_dir(STATE);
    host::restore()?;
    cgroup::remove_empty("ycloud-lab")
}

fn root_link_gone(layout: &Layout) -> Result<()> {
    let device = Path::new("/sys/class/net").join(layout.root_device());
    let gone = wait_until(Duration::from_secs(5), Duration::from_millis(20), || {
        Ok(!device.exists())
    })?;
    anyhow::ensure!(gone, "the link {} is still there", device.display());
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
