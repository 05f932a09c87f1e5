//! The steps by which a lab comes up. Each does only what is missing, so that all of them together also repair.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run;
use crate::image::Profile;
use crate::layout::{Layout, Machine, OvnVersion};
use crate::programs::Programs;
use crate::progress::{Progress, Step};
use crate::{
    agent, apt, certs, cleanup, ext, image, kubernetes, net, node, ovn, ovn_packages, state,
    toolchain,
};

pub(crate) fn packages(progress: &Progress) -> Result<()> {
    let missing = apt::missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    progress.step(
        &format!("installing Debian packages: {}", missing.join(" ")),
        |step| apt::install(&missing, step),
    )
}

pub(crate) fn cached(version: OvnVersion, step: &Step) -> Result<Programs> {
    Ok(Programs {
        toolchain: toolchain::ensure(step)?,
        ovn: ovn_packages::ensure(version, step)?,
    })
}

pub(crate) fn programs(version: OvnVersion, progress: &Progress) -> Result<Programs> {
    std::thread::scope(|scope| {
        let ovn = scope.spawn(|| {
            progress.step(&format!("OVN {version}, from Debian's packages"), |step| {
                ovn_packages::ensure(version, step)
            })
        });
        let toolchain = progress.step(
            "Kubernetes and etcd, built from source (minutes, the first time)",
            toolchain::ensure,
        );
        let ovn = joined(ovn.join());
        Ok(Programs {
            toolchain: toolchain?,
            ovn: ovn?,
        })
    })
}

/// The result of a thread; a panic goes on here.
fn joined<T>(result: std::thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn images(programs: &Programs, progress: &Progress) -> Result<PathBuf> {
    let archives = progress.step("container images", |step| {
        image::ensure(&programs.toolchain, step)
    })?;
    progress.step("image store for the nodes", |step| {
        image::golden(&archives, step)
    })
}

/// The image store, which a lab that is up has had made.
pub(crate) fn cached_images(programs: &Programs) -> Result<PathBuf> {
    let step = Step::silent();
    image::golden(&image::ensure(&programs.toolchain, &step)?, &step)
}

/// Certificates, the networks, the machines without a process of their own, and the link to the root namespace.
pub(crate) fn network(layout: &Layout) -> Result<()> {
    certs::ensure(layout)?;
    net::ensure_underlay(layout)?;
    cleanup::control_if_broken(layout);
    for machine in layout.machines() {
        net::set_joined(layout, machine, true)?;
    }
    for machine in [Machine::Control, Machine::External, Machine::Upstream] {
        net::ensure_machine(layout, machine)?;
    }
    ext::ensure_routes(layout)?;
    net::ensure_pod_routes(layout)?;
    net::ensure_root_link(layout)
}

/// The API server, all nodes and the DPU, at the same time.
pub(crate) fn start_machines(
    layout: &Layout,
    programs: &Programs,
    images: &Path,
    progress: &Progress,
) -> Result<()> {
    std::thread::scope(|scope| {
        let nodes: Vec<_> = layout
            .node_machines()
            .map(|machine| {
                scope.spawn(move || {
                    progress.step(
                        &format!("{machine}: namespaces, Open vSwitch, ovn-controller, containerd"),
                        |step| start_node(layout, machine, programs, images, step),
                    )
                })
            })
            .collect();
        let dpu = scope.spawn(|| {
            let title = format!("{}: Open vSwitch, ovn-controller", Machine::Dpu);
            progress.step(&title, |step| start_chassis(layout, programs, step))
        });
        let mut result = progress.step("etcd and the API server", |_| {
            kubernetes::start_api(layout, programs)
        });
        for node in nodes {
            result = result.and(joined(node.join()));
        }
        result.and(joined(dpu.join()))
    })
}

pub(crate) fn start_node(
    layout: &Layout,
    machine: Machine,
    programs: &Programs,
    images: &Path,
    step: &Step,
) -> Result<()> {
    if cleanup::is_broken(layout, machine) {
        step.note("taking away what is left of it");
        cleanup::node(layout, machine)?;
    }
    step.note("namespaces");
    node::ensure(layout, machine, programs, images)?;
    step.note("Open vSwitch");
    ovn::start_switch(layout, machine, programs)?;
    ovn::start_controller(layout, machine, programs)?;
    step.note("containerd");
    node::start_containerd(layout, machine, programs)
}

/// The DPU: namespaces, Open vSwitch, ovn-controller, and ycloud's agent where it has been installed.
pub(crate) fn start_chassis(layout: &Layout, programs: &Programs, step: &Step) -> Result<()> {
    let machine = Machine::Dpu;
    if cleanup::is_broken(layout, machine) {
        step.note("taking away what is left of it");
        cleanup::node(layout, machine)?;
    }
    node::ensure_chassis(layout, machine, programs)?;
    ovn::start_switch(layout, machine, programs)?;
    ovn::start_controller(layout, machine, programs)?;
    agent::start(layout, machine, programs)
}

/// Every process that the lab shall have.
pub(crate) fn parts(layout: &Layout) -> Vec<(Machine, &'static str)> {
    let control = [
        kubernetes::ETCD,
        kubernetes::API_SERVER,
        kubernetes::CONTROLLER_MANAGER,
        kubernetes::SCHEDULER,
        ovn::NB,
        ovn::SB,
        ovn::NORTHD,
    ];
    let node = [
        node::HOLDER,
        ovn::OVSDB,
        ovn::VSWITCHD,
        ovn::ADDRESS,
        ovn::CONTROLLER,
        node::CONTAINERD,
        kubernetes::KUBELET,
    ];
    let chassis = [
        node::HOLDER,
        ovn::OVSDB,
        ovn::VSWITCHD,
        ovn::ADDRESS,
        ovn::CONTROLLER,
    ];
    let mut parts: Vec<_> = control.map(|part| (Machine::Control, part)).into();
    parts.extend(chassis.map(|part| (Machine::Dpu, part)));
    if agent::installed(layout, Machine::Dpu) {
        parts.push((Machine::Dpu, agent::AGENT));
    }
    for machine in layout.node_machines() {
        parts.extend(node.map(|part| (machine, part)));
    }
    parts
}

/// Builds ycloud and loads its image into the nodes that have another, or none. Returns the image's archive, whose path
/// changes if and only if the programs did.
pub(crate) fn load(layout: &Layout, profile: Profile, progress: &Progress) -> Result<PathBuf> {
    let archive = progress.step("ycloud, built from this checkout", |step| {
        image::ycloud(profile, step)
    })?;
    agent::keep(layout, Machine::Dpu, &archive)?;
    let wanted = archive.to_string_lossy().into_owned();
    progress.step(
        &format!("loading {} into the nodes", image::YCLOUD_TAG),
        |step| {
            for machine in layout.node_machines() {
                // Within the node's image store, so that it goes when that goes.
                let marker = layout.machine_dir(machine).join("containerd/ycloud-image");
                if std::fs::read_to_string(&marker).is_ok_and(|loaded| loaded == wanted) {
                    continue;
                }
                step.note(machine.to_string());
                run(&mut node::ctr(
                    layout,
                    machine,
                    &[
                        "-n",
                        "k8s.io",
                        "images",
                        "import",
                        "--snapshotter",
                        "overlayfs",
                        &wanted,
                    ],
                )?)
                .with_context(|| format!("failed to load ycloud's image into {machine}"))?;
                state::write_aside(&marker, wanted.as_bytes())?;
            }
            Ok(())
        },
    )?;
    Ok(archive)
}

/// Starts whatever of the control machine is not running.
pub(crate) fn start_control(layout: &Layout, programs: &Programs) -> Result<()> {
    ovn::start_central(layout, programs)?;
    kubernetes::start_api(layout, programs)?;
    kubernetes::start_controllers(layout, programs)
}
