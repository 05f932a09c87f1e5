//! What is behind a VNic and is no Pod: a virtual machine, a bare-metal server, a bare address.
//!
//! ```text
//!  VM     tap in the node's namespace ── QEMU, in the same namespace, as its hypervisor would be
//!  BM     device in the chassis' namespace ── veth ── eth0 in a namespace of its own: the server
//!  None   as BM, and the lab itself puts the device on br-int, with the VNic's iface-id
//! ```
//!
//! The VNic says all there is to know: kind, chassis, device, addresses. The lab is who plugs the cable, runs the hypervisor
//! and the [server](crate::server); that a device is put on `br-int` is ycloud's matter, except for bare addresses. The server
//! calls itself as the VNic is called.
//!
//! [`Lab::down`] takes all of it away, as it finds processes, namespaces and mounts: by name.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::{run_words, wait_until};
use crate::lab::{Lab, require_root};
use crate::layout::{Layout, Machine};
use crate::place::Place;
use crate::process::{Process, enter};
use crate::programs::Programs;
use crate::progress::{Progress, Step};
use crate::{agent, cache, guest, net, toolchain};

/// What ycloud gives to Pods too, bytes.
const MTU: u16 = 1400;
/// How long a virtual machine may take to serve: its processor is emulated, on a machine that may be busy.
const BOOT: Duration = Duration::from_secs(180);

/// What is attached to a VNic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A virtual machine.
    Vm,
    /// A bare-metal server.
    Server,
    /// A bare address.
    Address,
}

/// A VNic that is no Pod's, and what the lab has behind it.
#[derive(Clone, Debug)]
pub struct Backend {
    lab: Lab,
    namespace: String,
    vnic: String,
    kind: Kind,
    chassis: Machine,
    device: String,
}

/// What a VNic's status says, for whoever configures the machine behind it.
#[derive(Debug, PartialEq, Eq)]
struct Interface {
    mac: String,
    /// With their prefix lengths.
    addresses: Vec<String>,
    gateways: Vec<String>,
}

impl Lab {
    /// The backend of a VNic, which must be in the API server. Nothing is made yet.
    ///
    /// # Errors
    /// When there is no such VNic, or it is a Pod's or a node's, or names a chassis that the lab has not.
    pub fn backend(&self, namespace: &str, vnic: &str) -> Result<Backend> {
        let object = self.vnic(namespace, vnic)?;
        let attachment = &object["spec"]["attachment"];
        let kind = match attachment["kind"].as_str().unwrap_or("None") {
            "VM" => Kind::Vm,
            "BM" => Kind::Server,
            "None" => Kind::Address,
            other => {
                bail!("VNic {namespace}/{vnic} is of kind {other}: the lab makes VM, BM and None")
            }
        };
        let chassis = match attachment["chassis"].as_str() {
            Some(chassis) => chassis.parse()?,
            None => Machine::Node(1),
        };
        if !self.layout()?.chassis().any(|known| known == chassis) {
            bail!("VNic {namespace}/{vnic} is on {chassis}, which is no chassis of this lab");
        }
        let device = ["tap", "representor", "port"]
            .iter()
            .find_map(|kind| attachment["device"][kind].as_str());
        let device = match (kind, device) {
            (_, Some(device)) => device.to_owned(),
            (Kind::Address, None) => format!("b{}", cache::key([namespace, vnic])),
            (_, None) => bail!("VNic {namespace}/{vnic} names no device in spec.attachment.device"),
        };
        Ok(Backend {
            lab: self.clone(),
            namespace: namespace.to_owned(),
            vnic: vnic.to_owned(),
            kind,
            chassis,
            device,
        })
    }

    fn vnic(&self, namespace: &str, vnic: &str) -> Result<Value> {
        let found = self.api()?.get(namespace, "vnic", vnic)?;
        found.with_context(|| format!("there is no VNic {namespace}/{vnic}"))
    }
}

impl Backend {
    /// Makes it and starts it: the device, and behind it the machine with its server, which has the addresses of the
    /// VNic's status. Waits for those, and until it serves. What is there already, stays.
    ///
    /// # Errors
    /// When the VNic has no address within half a minute, or something does not start: with the end of its log.
    pub fn start(&self) -> Result<()> {
        require_root()?;
        self.plug()?;
        let (layout, programs) = self.lab.parts()?;
        let interface = self.interface()?;
        let title = format!(
            "{} behind VNic {}/{}",
            self.what(),
            self.namespace,
            self.vnic
        );
        Progress::new().step(&title, |step| match self.kind {
            Kind::Vm => self.boot(&layout, &programs, &interface, step),
            Kind::Server | Kind::Address => self.serve(&layout, &programs, &interface, step),
        })
    }

    /// Makes the device alone, and the cable to a bare-metal server or bare address.
    ///
    /// # Errors
    /// When the chassis is not up.
    pub fn plug(&self) -> Result<()> {
        let (layout, programs) = self.lab.parts()?;
        let (chassis, device) = (layout.netns(self.chassis), self.device.as_str());
        if self.kind == Kind::Vm {
            if !net::has_link(&chassis, device) {
                run_words(&["ip", "-n", &chassis, "tuntap", "add", device, "mode", "tap"])?;
            }
            run_words(&["ip", "-n", &chassis, "link", "set", device, "up"])?;
            return Ok(());
        }
        let own = self.netns(&layout);
        net::ensure(&own)?;
        net::ensure_pair((&chassis, device), (&own, "eth0"))?;
        net::no_tx_offload(&chassis, device)?;
        net::no_tx_offload(&own, "eth0")?;
        if self.kind == Kind::Address {
            net::no_stack(&chassis, device)?;
            let id = format!("external_ids:iface-id=\"{}/{}\"", self.namespace, self.vnic);
            let words = ["--may-exist", "add-port", "br-int", device];
            let words = [&words[..], &["--", "set", "interface", device, &id]].concat();
            agent::vsctl(&layout, self.chassis, &programs, &words)?;
        }
        Ok(())
    }

    /// Ends the server at once, without a goodbye. A virtual machine loses its power: nobody answers there any more. The
    /// others' kernels refuse connections. [`Backend::start`] starts it again.
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn stop(&self) -> Result<()> {
        let layout = self.lab.layout()?;
        self.with_process(&layout, |process| process.kill());
        Ok(())
    }

    /// Stops the server, or a virtual machine's processor, in the middle of what it does, until [`Backend::resume`].
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn suspend(&self) -> Result<()> {
        let layout = self.lab.layout()?;
        self.with_process(&layout, |process| process.signal(Signal::SIGSTOP));
        Ok(())
    }

    /// Undoes [`Backend::suspend`].
    ///
    /// # Errors
    /// When there is no such lab.
    pub fn resume(&self) -> Result<()> {
        let layout = self.lab.layout()?;
        self.with_process(&layout, |process| process.signal(Signal::SIGCONT));
        Ok(())
    }

    /// Cuts the cable, or joins it again. While it is cut, what is sent there is lost without a word. The device stays as it is,
    /// as ycloud would take it up again: the far end drops what arrives; a virtual machine is suspended.
    ///
    /// # Errors
    /// When it is not plugged.
    pub fn set_cable(&self, joined: bool) -> Result<()> {
        if self.kind == Kind::Vm {
            return if joined {
                self.resume()
            } else {
                self.suspend()
            };
        }
        self.place()?.set_cable(joined)
    }

    /// Ends it, and takes away the device and what is behind it. Does nothing where nothing is.
    ///
    /// # Errors
    /// When something is still there.
    pub fn remove(&self) -> Result<()> {
        self.stop()?;
        let (layout, programs) = self.lab.parts()?;
        let chassis = layout.netns(self.chassis);
        if self.kind == Kind::Address {
            let words = ["--if-exists", "del-port", "br-int", &self.device];
            agent::vsctl(&layout, self.chassis, &programs, &words)?;
        }
        if net::has_link(&chassis, &self.device) {
            net::delete_link(&chassis, &self.device)?;
        }
        net::delete(&self.netns(&layout))
    }

    /// Where packets of a bare-metal server or a bare address are sent from.
    ///
    /// # Errors
    /// Of a virtual machine, whose network is its kernel's own; and when it is not plugged.
    pub fn place(&self) -> Result<Place> {
        if self.kind == Kind::Vm {
            bail!("the network of a virtual machine is not this kernel's");
        }
        let netns = self.netns(&self.lab.layout()?);
        Place::open(
            format!("{}/{}", self.namespace, self.vnic),
            &net::path(&netns),
        )
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The chassis that has its device.
    pub fn chassis(&self) -> Machine {
        self.chassis
    }

    /// The device's name there.
    pub fn device(&self) -> &str {
        &self.device
    }

    fn what(&self) -> &'static str {
        match self.kind {
            Kind::Vm => "a virtual machine",
            Kind::Server => "a bare-metal server",
            Kind::Address => "a bare address",
        }
    }

    fn netns(&self, layout: &Layout) -> String {
        layout.backend_netns(&self.namespace, &self.vnic)
    }

    fn with_process<T>(&self, layout: &Layout, work: impl FnOnce(Process<'_>) -> T) -> T {
        work(Process {
            layout,
            machine: self.chassis,
            part: &format!("{}.{}", self.namespace, self.vnic),
        })
    }

    fn interface(&self) -> Result<Interface> {
        let mut found = None;
        wait_until(Duration::from_secs(30), Duration::from_millis(200), || {
            found = interface(&self.lab.vnic(&self.namespace, &self.vnic)?["status"]);
            Ok(found.is_some())
        })?;
        found.with_context(|| {
            format!(
                "VNic {}/{} has no address after half a minute: kubectl describe vnic says why",
                self.namespace, self.vnic
            )
        })
    }

    /// Starts QEMU on the node, unless it runs, and waits until the server within says that it serves.
    fn boot(
        &self,
        layout: &Layout,
        programs: &Programs,
        interface: &Interface,
        step: &Step,
    ) -> Result<()> {
        let guest = guest::ensure(step)?;
        let mut words = enter(layout, self.chassis)?;
        let kernel = kernel_arguments(&self.vnic, interface);
        words.extend(machine().iter().map(Into::into));
        for (option, value) in [
            ("-kernel", guest.kernel.display().to_string()),
            ("-initrd", guest.initramfs.display().to_string()),
            ("-append", kernel),
            (
                "-netdev",
                format!(
                    "tap,id=eth0,ifname={},script=no,downscript=no,vnet_hdr=off",
                    self.device
                ),
            ),
            (
                "-device",
                format!("virtio-net-pci,netdev=eth0,romfile=,mac={}", interface.mac),
            ),
        ] {
            words.extend([option.into(), value.into()]);
        }
        step.note("booting");
        self.run(layout, programs, words, BOOT)
    }

    /// Configures the server's interface, starts the server unless it runs, and waits until it says that it serves.
    fn serve(
        &self,
        layout: &Layout,
        programs: &Programs,
        interface: &Interface,
        step: &Step,
    ) -> Result<()> {
        let server = toolchain::server(step)?;
        let netns = self.netns(layout);
        let mtu = MTU.to_string();
        let set = ["ip", "-n", &netns, "link", "set", "eth0"];
        run_words(&[&set[..], &["address", &interface.mac, "mtu", &mtu, "up"]].concat())?;
        for address in &interface.addresses {
            net::add_address(&netns, "eth0", address)?;
        }
        for gateway in &interface.gateways {
            let family = if gateway.contains(':') { "-6" } else { "-4" };
            let route = ["ip", family, "-n", &netns, "route", "replace", "default"];
            run_words(&[&route[..], &["via", gateway]].concat())?;
        }
        let words = vec![
            "nsenter".into(),
            format!("--net={}", net::path(&netns).display()).into(),
            server.into(),
            self.vnic.clone().into(),
        ];
        self.run(layout, programs, words, Duration::from_secs(10))
    }

    fn run(
        &self,
        layout: &Layout,
        programs: &Programs,
        words: Vec<std::ffi::OsString>,
        limit: Duration,
    ) -> Result<()> {
        self.with_process(layout, |process| {
            if process.pid().is_some() {
                return Ok(());
            }
            // What an earlier one said is not what this one says.
            let _ = fs::remove_file(process.log());
            process.start(words, &programs.path())?;
            let said = format!("{} serves", self.vnic);
            process.wait_ready(limit, || {
                let log = fs::read(process.log()).unwrap_or_default();
                Ok(String::from_utf8_lossy(&log).contains(&said))
            })
        })
    }
}

/// The words that start a machine without devices. A plain PC: the kernel's timers do not work on QEMU's `microvm` without a
/// hypervisor's clock.
fn machine() -> [&'static str; 15] {
    [
        "qemu-system-x86_64",
        "-M",
        "pc,hpet=off",
        "-accel",
        "tcg",
        "-cpu",
        "qemu64",
        "-m",
        "128",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-nographic",
        "-serial",
        "stdio",
    ]
}

/// What `machine/init.sh` reads, and what makes an emulated machine boot fast: nothing to protect it from, and no time taken
/// to measure a clock that is none.
fn kernel_arguments(name: &str, interface: &Interface) -> String {
    format!(
        "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=unstable cryptomgr.notests \
         NAME={name} MTU={MTU} ADDRESSES={} GATEWAYS={}",
        interface.addresses.join(","),
        interface.gateways.join(",")
    )
}

/// Out of a VNic's status; `None` while it has no address.
fn interface(status: &Value) -> Option<Interface> {
    let mut found = Interface {
        mac: status["mac"].as_str()?.to_owned(),
        addresses: Vec::new(),
        gateways: Vec::new(),
    };
    for family in [status, &status["ipv6"]] {
        let (Some(ip), Some(length)) = (family["ip"].as_str(), family["prefixLength"].as_u64())
        else {
            continue;
        };
        found.addresses.push(format!("{ip}/{length}"));
        if let Some(gateway) = family["gateway"].as_str() {
            found.gateways.push(gateway.to_owned());
        }
    }
    (!found.addresses.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_interface_has_the_addresses_of_both_families() {
        let status = json!({
            "mac": "0a:01:0a:00:01:07", "ip": "10.0.1.7", "prefixLength": 24, "gateway": "10.0.1.1",
            "ipv6": {"ip": "fd00:1::7", "prefixLength": 64, "gateway": "fd00:1::1"},
        });
        let found = interface(&status).unwrap();
        assert_eq!(found.addresses, ["10.0.1.7/24", "fd00:1::7/64"]);
        assert_eq!(found.gateways, ["10.0.1.1", "fd00:1::1"]);
        let line = kernel_arguments("vm-1", &found);
        assert!(
            line.ends_with("ADDRESSES=10.0.1.7/24,fd00:1::7/64 GATEWAYS=10.0.1.1,fd00:1::1"),
            "{line}"
        );
        assert_eq!(interface(&json!({"phase": "Pending"})), None);
    }
}
