//! A lab from the outside: up, down, status, and commands within it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};

use crate::api::ApiServer;
use crate::bringup::{
    cached, cached_images, images, load, network, packages, parts, programs, start_chassis,
    start_control, start_machines, start_node,
};
use crate::command::command;
use crate::image::Profile;
use crate::layout::{self, Layout, Machine, OvnVersion};
use crate::process::{Process, enter};
use crate::programs::Programs;
use crate::progress::{Progress, Step};
use crate::{cleanup, guest, host, image, kubernetes, net, ovn, ovn_packages, state, toolchain};

/// What [`Lab::up`] shall make.
#[derive(Clone, Copy, Debug)]
pub struct UpOptions {
    /// Nodes, 1..=99. Default: 3, or as many as the lab has.
    pub nodes: Option<u8>,
    /// Version of OVN. Default: 25.03, or the one that the lab has.
    pub ovn: Option<OvnVersion>,
    /// Whether ycloud is built and its image loaded into the nodes. Default: yes.
    pub ycloud: bool,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            nodes: None,
            ovn: None,
            ycloud: true,
        }
    }
}

/// A process that a lab has, as [`Lab::status`] found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartStatus {
    /// Where it runs.
    pub machine: Machine,
    /// Its program, or `node` for what holds a node's namespaces, or `address` for what keeps a node's address.
    pub part: &'static str,
    /// Its process id on this machine; `None` when it is dead.
    pub pid: Option<i32>,
    /// Where it logs.
    pub log: PathBuf,
}

/// A lab of this machine, by name. It need not exist yet.
#[derive(Clone, Debug)]
pub struct Lab {
    name: String,
    /// Its API server, once it was asked.
    api: Arc<OnceLock<ApiServer>>,
}

/// What the processes of a machine are started from.
struct Ready {
    layout: Layout,
    programs: Programs,
    /// The image store of a node.
    images: Option<PathBuf>,
}

impl Lab {
    /// The lab `name`.
    ///
    /// # Errors
    /// When no lab can be called so: 1 to 20 of a-z, 0-9 and `-`, not starting with `-`.
    pub fn named(name: &str) -> Result<Self> {
        layout::check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            api: Arc::default(),
        })
    }

    /// The lab's API server.
    ///
    /// # Errors
    /// When there is no such lab. Whether the API server answers shows with the first question.
    pub fn api(&self) -> Result<&ApiServer> {
        if self.api.get().is_none() {
            let api = ApiServer::of(&self.kubeconfig()?)?;
            // Another thread may have been faster: its client is as good.
            let _ = self.api.set(api);
        }
        self.api.get().context("the API server's client is made")
    }

    /// Makes the lab, or repairs it: starts what is not running, and keeps what is. Shows its progress on standard error.
    ///
    /// # Errors
    /// Names what failed, with the end of its log. A failed or killed `up` can be followed by another, or by
    /// [`Lab::down`]. When only ycloud's own image could not be built, the cluster is up nevertheless.
    pub fn up(&self, options: &UpOptions) -> Result<()> {
        require_root()?;
        if options
            .nodes
            .is_some_and(|nodes| !(1..=layout::MAX_NODES).contains(&nodes))
        {
            bail!("a lab has 1 to {} nodes", layout::MAX_NODES);
        }
        let _lock = state::lock_lab(&self.name)?;
        let progress = Progress::new();
        packages(&progress)?;
        let layout = state::claim(&self.name, options.nodes, options.ovn)?;
        host::prepare()?;
        let programs = programs(layout.ovn, &progress)?;
        let images = images(&programs, &progress)?;
        progress.step("certificates and network", |_| network(&layout))?;
        progress.step("OVN's databases and northd", |_| {
            ovn::start_central(&layout, &programs)
        })?;
        start_machines(&layout, &programs, &images, &progress)?;
        progress.step("controller manager, scheduler, kubelets", |_| {
            kubernetes::start_controllers(&layout, &programs)?;
            layout
                .node_machines()
                .try_for_each(|machine| kubernetes::start_kubelet(&layout, machine, &programs))
        })?;
        progress.step("nodes register with Kubernetes and OVN", |_| {
            ovn::wait_chassis(&layout, &programs)?;
            kubernetes::wait_nodes(&layout, &programs)
        })?;
        let took = progress.elapsed().as_secs_f32();
        progress.say(&format!(
            "the lab {} is up: {} nodes, OVN {} ({took:.0} s)",
            self.name, layout.nodes, layout.ovn
        ));
        if options.ycloud {
            load(&layout, Profile::default(), &progress)
                .context("the cluster is up, but ycloud's image is not loaded")?;
        }
        Ok(())
    }

    /// Builds ycloud and loads its image into each node that has not this very build.
    ///
    /// # Errors
    /// When the lab is not up, cargo fails, or a containerd refuses the image.
    pub fn load(&self, profile: Profile) -> Result<()> {
        let _lock = state::lock_lab(&self.name)?;
        load(&self.layout()?, profile, &Progress::new()).map(drop)
    }

    /// Fills the cache with everything that a lab of OVN `version` needs, ycloud's image and Kubernetes' own end-to-end tests
    /// included.
    ///
    /// # Errors
    /// Names what failed, with the end of its log.
    pub fn build(version: OvnVersion) -> Result<()> {
        require_root()?;
        let progress = Progress::new();
        packages(&progress)?;
        let programs = programs(version, &progress)?;
        images(&programs, &progress)?;
        progress.step(
            "a virtual machine: Debian's kernel, and a server",
            guest::ensure,
        )?;
        progress.step("ycloud's image", |step| {
            image::ycloud(Profile::default(), step)
        })?;
        progress.step(
            "Kubernetes' end-to-end tests, built from source (minutes, the first time)",
            toolchain::tests,
        )?;
        Ok(())
    }

    /// The folder with `ovsdb-server`, `ovn-northd`, `ovs-vswitchd` and their tools, of OVN `version`. Fills the cache.
    ///
    /// # Errors
    /// When the packages cannot be fetched.
    pub fn tools(version: OvnVersion) -> Result<PathBuf> {
        require_root()?;
        let progress = Progress::new();
        packages(&progress)?;
        let ovn = progress.step(&format!("OVN {version}"), |step| {
            ovn_packages::ensure(version, step)
        })?;
        Ok(ovn.bin())
    }

    /// Kills a process of the lab, without a chance to clean up, and starts it again.
    ///
    /// # Errors
    /// When there is no such part on that machine, or it does not come back: with the end of its log.
    pub fn restart(&self, machine: Machine, part: &str) -> Result<()> {
        // What takes a second is done while it lives: ovs-vswitchd asks for its database a second after it lost it, then after
        // two more and after four, and its user-space datapath stands still until then.
        let ready = self.ready(machine)?;
        self.stop(machine, part)?;
        self.start_ready(machine, &ready)
    }

    /// Kills a process of the lab, without a chance to clean up. It stays dead until [`Lab::start`] or [`Lab::up`].
    ///
    /// # Errors
    /// When there is no such part on that machine.
    pub fn stop(&self, machine: Machine, part: &str) -> Result<()> {
        require_root()?;
        let _lock = state::lock_lab(&self.name)?;
        let layout = self.layout()?;
        let Some((_, part)) = parts(&layout)
            .into_iter()
            .find(|known| *known == (machine, part))
        else {
            bail!(
                "there is no {part} on {machine} of the lab {}: see `cargo lab status`",
                self.name
            );
        };
        Process {
            layout: &layout,
            machine,
            part,
        }
        .kill();
        Ok(())
    }

    /// Starts every process of the machine that does not run.
    ///
    /// # Errors
    /// When there is no such lab or machine, or a process does not come up: with the end of its log.
    pub fn start(&self, machine: Machine) -> Result<()> {
        self.start_ready(machine, &self.ready(machine)?)
    }

    fn ready(&self, machine: Machine) -> Result<Ready> {
        require_root()?;
        let (layout, programs) = self.parts()?;
        self.check_machine(&layout, machine)?;
        let images = match machine {
            Machine::Node(_) => Some(cached_images(&programs)?),
            Machine::Control | Machine::Dpu | Machine::External | Machine::Upstream => None,
        };
        Ok(Ready {
            layout,
            programs,
            images,
        })
    }

    fn start_ready(&self, machine: Machine, ready: &Ready) -> Result<()> {
        let _lock = state::lock_lab(&self.name)?;
        let Ready {
            layout,
            programs,
            images,
        } = ready;
        Progress::new().step(&format!("what does not run on {machine}"), |step| {
            match (machine, images) {
                (Machine::Node(_), Some(images)) => {
                    start_node(layout, machine, programs, images, step)?;
                    kubernetes::start_kubelet(layout, machine, programs)
                }
                (Machine::Control, _) => start_control(layout, programs),
                (Machine::Dpu, _) => start_chassis(layout, programs, step),
                (Machine::Node(_) | Machine::External | Machine::Upstream, _) => Ok(()),
            }
        })
    }

    /// Cuts a machine off: its ports on all networks go down at once. To all others it is dead, while its processes go on.
    /// Lasts until [`Lab::rejoin`] or [`Lab::up`].
    ///
    /// # Errors
    /// When there is no such lab or machine.
    pub fn isolate(&self, machine: Machine) -> Result<()> {
        self.set_joined(machine, false)
    }

    /// Joins a machine to its networks again.
    ///
    /// # Errors
    /// When there is no such lab or machine.
    pub fn rejoin(&self, machine: Machine) -> Result<()> {
        self.set_joined(machine, true)
    }

    fn set_joined(&self, machine: Machine, joined: bool) -> Result<()> {
        require_root()?;
        let layout = self.layout()?;
        self.check_machine(&layout, machine)?;
        net::set_joined(&layout, machine, joined)
    }

    /// Takes the lab away: processes, namespaces, links, mounts, cgroups, its files, and, with the last lab, what labs
    /// changed in the machine's settings. Does nothing when there is no lab.
    ///
    /// # Errors
    /// All that could not be removed.
    pub fn down(&self) -> Result<()> {
        require_root()?;
        let _lock = state::lock_lab(&self.name)?;
        Progress::new().step(&format!("taking the lab {} away", self.name), |_| {
            cleanup::lab(&self.name)
        })
    }

    /// Every process that the lab has, dead ones too.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn status(&self) -> Result<Vec<PartStatus>> {
        let layout = self.layout()?;
        Ok(parts(&layout)
            .into_iter()
            .map(|(machine, part)| {
                let process = Process {
                    layout: &layout,
                    machine,
                    part,
                };
                PartStatus {
                    machine,
                    part,
                    pid: process.pid(),
                    log: process.log(),
                }
            })
            .collect())
    }

    /// The lab's nodes.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn nodes(&self) -> Result<Vec<Machine>> {
        Ok(self.layout()?.node_machines().collect())
    }

    /// The version of OVN that the lab runs.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn ovn(&self) -> Result<OvnVersion> {
        Ok(self.layout()?.ovn)
    }

    /// The administrator's kubeconfig, for the root namespace.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        Ok(self.layout()?.kubeconfig())
    }

    /// The machine's address on the nodes' network; of the upstream router, the one on the network `ext`.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn address(&self, machine: Machine) -> Result<std::net::Ipv4Addr> {
        Ok(self.layout()?.address(machine))
    }

    /// As [`Lab::address`], of IPv6.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn address_v6(&self, machine: Machine) -> Result<std::net::Ipv6Addr> {
        Ok(self.layout()?.address_v6(machine))
    }

    /// A `kubectl` of the lab's Kubernetes, as its administrator.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        let (layout, programs) = self.parts()?;
        let mut kubectl = kubernetes::kubectl(&layout, &programs);
        kubectl.args(args);
        Ok(kubectl)
    }

    /// An `ovn-nbctl` on the Northbound database.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn ovn_nbctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        self.ovn_client("ovn-nbctl", ovn::NB, args)
    }

    /// An `ovn-sbctl` on the Southbound database.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn ovn_sbctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        self.ovn_client("ovn-sbctl", ovn::SB, args)
    }

    fn ovn_client<S: AsRef<OsStr>>(
        &self,
        program: &str,
        database: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let (layout, programs) = self.parts()?;
        let mut client = command(
            programs.ovn.bin().join(program),
            [format!("--db={}", ovn::remote(&layout, database))],
        );
        client.args(args);
        Ok(client)
    }

    /// A command within a machine of the lab, with the lab's programs first in its `PATH`.
    ///
    /// # Errors
    /// When there is no such lab or machine, or the node is not up.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        machine: Machine,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let (layout, programs) = self.parts()?;
        self.check_machine(&layout, machine)?;
        let mut words = enter(&layout, machine)?;
        words.push("env".into());
        let mut path = OsString::from("PATH=");
        path.push(programs.path());
        words.push(path);
        let (program, first) = words.split_first().context("an empty command")?;
        let mut exec = command(program, first);
        exec.args(args);
        Ok(exec)
    }

    /// Variables of the environment that point `kubectl` and OVN's tools, of the lab's own versions, at the lab.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        let (layout, programs) = self.parts()?;
        let mut path = programs.own_path();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let control = layout.control_address();
        // Where a proxy is set, it could not reach the lab.
        let direct = match std::env::var("NO_PROXY") {
            Ok(others) if !others.is_empty() => format!("{others},{control}"),
            _ => control.to_string(),
        };
        Ok(vec![
            ("KUBECONFIG", layout.kubeconfig().into()),
            ("PATH", path),
            ("OVN_NB_DB", format!("tcp:{control}:6641").into()),
            ("OVN_SB_DB", format!("tcp:{control}:6642").into()),
            ("NO_PROXY", direct.into()),
        ])
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn layout(&self) -> Result<Layout> {
        let name = &self.name;
        state::load(name)?.with_context(|| {
            format!("there is no lab {name}: `cargo lab --name {name} up` makes it")
        })
    }

    fn check_machine(&self, layout: &Layout, machine: Machine) -> Result<()> {
        if !layout.machines().contains(&machine) {
            bail!(
                "the lab {} has no {machine}: it has {} nodes",
                self.name,
                layout.nodes
            );
        }
        Ok(())
    }

    pub(crate) fn parts(&self) -> Result<(Layout, Programs)> {
        let layout = self.layout()?;
        let programs = cached(layout.ovn, &Step::silent())?;
        Ok((layout, programs))
    }
}

pub(crate) fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and starts containers: run it as root");
    }
    Ok(())
}
