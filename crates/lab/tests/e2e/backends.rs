//! Backends that are no Pods, as tests want them: a VNic, its device, what is behind it; removed when dropped. And a YusurService
//! with one backend of each kind.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::ops::Deref;
use std::thread;
use std::time::Duration;

use ycloud_lab::ask::{Attempts, Held, Protocol};
use ycloud_lab::backend::{Backend, Kind};
use ycloud_lab::place::Place;

use crate::asking::{PATIENCE, pod, target};
use crate::cluster::{SLOW, SOON, apply, condition, eventually, get, the_lab};
use crate::scene::Scene;

/// A check that finds out fast, as lines of a YusurService's spec.
pub const CHECK: &str = "  healthCheck: {http: {path: /healthz}, periodSeconds: 1, timeoutSeconds: 1, successThreshold: 1, failureThreshold: 2}\n";
/// By when a backend that fails that check must have left: two periods, a time-out, and a second
/// until all know.
pub const LEAVES: Duration = Duration::from_secs(4);
/// The backends of [`Mixed`], sorted.
pub const ALL: [&str; 4] = ["addr", "bm", "pod", "vm"];
/// Those of them that start at once.
pub const FAST: [&str; 3] = ["addr", "bm", "pod"];

/// What is behind a VNic, while it is in scope.
#[derive(Debug)]
pub struct Plugged(Backend);

impl Deref for Plugged {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.0
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        if std::env::var_os("KEEP_LAB").is_some() && thread::panicking() {
            return;
        }
        if let Err(error) = self.0.remove() {
            eprintln!("clean-up: {error:#}");
        }
    }
}

impl Scene {
    /// A VNic named and labelled (`app`) `name`, with `more` fields of its spec (`, ip: 10.0.1.9`), its device, and what is
    /// behind that, which runs.
    pub fn behind_vnic(
        &self,
        kind: Kind,
        name: &str,
        subnet: &str,
        chassis: &str,
        more: &str,
    ) -> Plugged {
        let device = self.device(name);
        let attachment = match kind {
            Kind::Vm => {
                format!("kind: VM, name: {name}, chassis: {chassis}, device: {{tap: {device}}}")
            }
            Kind::Server => {
                format!("kind: BM, name: {name}, chassis: {chassis}, device: {{port: {device}}}")
            }
            Kind::Address => format!("kind: None, chassis: {chassis}"),
        };
        self.vnic(name, subnet, &attachment, more);
        self.behind(name)
    }

    /// The device of a VNic that is there, and what is behind it, which runs.
    pub fn behind(&self, name: &str) -> Plugged {
        let made = the_lab().backend(&self.name, name);
        let plugged = Plugged(made.expect("a VNic that the lab can serve"));
        plugged.plug().expect("its device can be made");
        if plugged.kind() != Kind::Address {
            eventually(&format!("VNic {name} is wired"), SOON, || {
                let object = get(&["-n", &self.name, "vnic", name]);
                match condition(&object, "Wired") {
                    (status, ..) if status == "True" => Ok(()),
                    other => Err(format!("{other:?} {}", object["status"])),
                }
            });
        }
        plugged.start().expect("it starts");
        plugged
    }

    /// A VNic alone.
    pub fn vnic(&self, name: &str, subnet: &str, attachment: &str, more: &str) {
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: VNic
metadata: {{name: {name}, namespace: {ns}, labels: {{app: {name}}}}}
spec: {{subnet: {subnet}, attachment: {{{attachment}}}{more}}}
",
            ns = self.name,
            subnet = self.full(subnet),
        ))
        .must();
    }

    /// A device's name that no other test has on the chassis.
    pub fn device(&self, name: &str) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.name, name).hash(&mut hasher);
        format!("d{:012x}", hasher.finish() & 0xffff_ffff_ffff)
    }

    /// A YusurService over `backends` (`{kind: VM, name: vm}`), port 80 for TCP and UDP, with `more` lines of its spec.
    pub fn service_over(&self, name: &str, backends: &[&str], more: &str) {
        let backends: String = backends
            .iter()
            .map(|one| format!("    - {one}\n"))
            .collect();
        apply(&format!(
            "apiVersion: iaas.yusur.io/v1
kind: YusurService
metadata: {{name: {name}, namespace: {ns}}}
spec:
  ports:
    - {{name: web, port: 80, protocol: TCP, targetPort: 8080}}
    - {{name: dgram, port: 80, protocol: UDP, targetPort: 8081}}
  backends:
{backends}{more}",
            ns = self.name
        ))
        .must();
    }

    /// State of each backend of a YusurService, by name, with its message.
    pub fn states(&self, service: &str) -> BTreeMap<String, (String, String)> {
        let ysvc = get(&["-n", &self.name, "ysvc", service]);
        let items = ysvc["status"]["backends"]["items"].as_array().cloned();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let items = items.unwrap_or_default();
        let item = |item: &serde_json::Value| {
            (
                text(&item["name"]),
                (text(&item["state"]), text(&item["message"])),
            )
        };
        items.iter().map(item).collect()
    }

    /// Waits until a backend of a YusurService is in this state; returns the message beside it.
    #[track_caller]
    pub fn in_state(&self, service: &str, backend: &str, state: &str) -> String {
        eventually(&format!("{backend} is {state}"), SOON, || {
            let states = self.states(service);
            match states.get(backend) {
                Some((found, message)) if found == state => Ok(message.clone()),
                _ => Err(format!("{states:?}")),
            }
        })
    }

    /// What the NetworkProbes of this namespace say, by their targets' names.
    pub fn probes(&self) -> BTreeMap<String, serde_json::Value> {
        let list = get(&["-n", &self.name, "networkprobes"]);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let named = items.into_iter().filter_map(|probe| {
            let name = probe["spec"]["target"]["name"].as_str()?.to_owned();
            Some((name, probe))
        });
        named.collect()
    }
}

/// A YusurService `svc` of scope vpc with backends of every kind, and a client in the same Vpc. What is behind VNics goes first.
pub struct Mixed {
    /// None in [`Mixed::fast`].
    pub vm: Option<Plugged>,
    pub bm: Plugged,
    pub addr: Plugged,
    pub client: Place,
    /// The cluster address, port 80.
    pub to: SocketAddr,
    vpc: String,
    pub scene: Scene,
}

impl Mixed {
    /// One backend of each kind.
    pub fn new(name: &str) -> Self {
        Self::with(name, true)
    }

    /// Without a virtual machine, which takes a while to boot.
    pub fn fast(name: &str) -> Self {
        Self::with(name, false)
    }

    fn with(name: &str, vm: bool) -> Self {
        let mut scene = Scene::new(name);
        let vpc = scene.vpc("v", &[("a", "10.0.1.0/24"), ("b", "10.0.2.0/24")]);
        scene.server("pod", "a", "node-1", "pod");
        scene.client("client", "b", "node-3");
        let one = |kind, name, chassis| scene.behind_vnic(kind, name, "a", chassis, "");
        let (vm, bm, addr) = thread::scope(|scope| {
            let vm = vm.then(|| scope.spawn(|| one(Kind::Vm, "vm", "node-2")));
            let bm = one(Kind::Server, "bm", "dpu-1");
            let addr = one(Kind::Address, "addr", "node-3");
            let vm = vm.map(|vm| vm.join().expect("the virtual machine starts"));
            (vm, bm, addr)
        });
        scene.pods_ready();
        let mut mixed = Self {
            vm,
            bm,
            addr,
            client: pod(&scene, "client"),
            to: SocketAddr::from(([0, 0, 0, 0], 80)),
            vpc,
            scene,
        };
        mixed.serve("");
        let all = if mixed.vm.is_some() {
            ALL.len()
        } else {
            FAST.len()
        };
        mixed.to = target(&mixed.scene.programmed("svc", all as i64), 80);
        mixed
    }

    /// Makes `svc` a YusurService over all of them, with `more` lines of its spec.
    pub fn serve(&self, more: &str) {
        let mut backends = vec![
            "{kind: Pod, name: pod}",
            "{kind: BM, name: bm}",
            "{kind: VNicIP, name: addr}",
        ];
        backends.extend(self.vm.as_ref().map(|_| "{kind: VM, name: vm}"));
        let more = format!("  vpc: {}\n{CHECK}{more}", self.vpc);
        self.scene.service_over("svc", &backends, &more);
    }

    /// Name of the Vpc.
    pub fn vpc(&self) -> &str {
        &self.vpc
    }

    /// A conversation with one particular backend, by the YusurService.
    #[track_caller]
    pub fn held_by(&self, protocol: Protocol, backend: &str) -> Held {
        hold(&self.client, protocol, self.to, backend)
    }
}

/// Opens conversations until one is with `backend`.
#[track_caller]
pub fn hold(client: &Place, protocol: Protocol, to: SocketAddr, backend: &str) -> Held {
    eventually(
        &format!("a conversation with {backend} by {protocol}"),
        SLOW,
        || {
            let held = Held::open(client, protocol, to, PATIENCE);
            let mut held = held.map_err(|error| error.to_string())?;
            let reply = held.ask().map_err(|error| error.to_string())?;
            match reply.backend == backend {
                true => Ok(held),
                false => Err(reply.backend),
            }
        },
    )
}

/// Asserts that a client was served all the while: none of its questions failed.
#[track_caller]
pub fn assert_served(attempts: &Attempts) {
    let lost = attempts.failures().into_iter();
    let lost: Vec<_> = lost.map(|one| (one.at, one.took, &one.result)).collect();
    assert!(
        lost.is_empty() && !attempts.0.is_empty(),
        "{} of {} failed: {lost:?}",
        lost.len(),
        attempts.0.len()
    );
}
