//! What may be a backend, whatever kind of object it is.

pub mod pod;
pub mod vmi;
pub mod vnic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ycloud_api::address::Family;
use ycloud_api::backend::{BackendKind, BackendPort};
use ycloud_api::kubevirt::VirtualMachineInstance;
use ycloud_api::service::ServicePort;
use ycloud_api::{VNic, YusurService};

use self::pod::PodBackend;
use self::vmi::VmiBackend;
use super::TranslateInput;
use super::scope::{own_namespace, sets};

/// An object that may be a backend.
#[derive(Debug, Clone, Copy)]
pub enum Candidate<'a> {
    /// A Pod with its VNic.
    Pod(PodBackend<'a>),
    /// A VNic of anything else.
    VNic(&'a VNic),
    /// A VirtualMachineInstance of KubeVirt.
    Vmi(VmiBackend<'a>),
}

/// Everything of the input that may be a backend of `ysvc`, in the order of namespace and name. Pods that ended are left out,
/// and so are launchers of VirtualMachineInstances that it means: these stand for them.
pub fn candidates<'a>(ysvc: &YusurService, input: &TranslateInput<'a>) -> Vec<Candidate<'a>> {
    let vmis = input.vmis.unwrap_or_default().iter();
    let vmis: Vec<VmiBackend> = vmis.map(|vmi| VmiBackend::new(vmi, input.pods)).collect();
    let means = |vmi: &&VmiBackend| sets(ysvc, Candidate::Vmi(**vmi)).next().is_some();
    let meant = vmis.iter().filter(means);
    let meant: BTreeSet<&str> = meant
        .filter_map(|vmi| vmi.vmi.metadata.uid.as_deref())
        .collect();
    let stands = |pod: &Pod| vmi::created_by(pod).is_some_and(|uid| meant.contains(uid));
    let pods = input.pods.iter();
    let pods = pods.filter(|c| !pod::finished(c.pod) && !stands(c.pod));
    let vnics = input.vnics.iter().filter(|vnic| vnic::is_backend(vnic));
    let mut all: Vec<Candidate> = pods.map(|pod| Candidate::Pod(*pod)).collect();
    all.extend(vnics.map(|vnic| Candidate::VNic(vnic)));
    all.extend(vmis.into_iter().map(Candidate::Vmi));
    all.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    all
}

/// Whether `ysvc` means `pod`, by its namespace and its labels or name.
pub fn selects(ysvc: &YusurService, pod: &Pod) -> bool {
    let candidate = Candidate::Pod(PodBackend { pod, vnic: None });
    sets(ysvc, candidate).next().is_some()
}

/// Whether `ysvc` means `vnic` as a machine or an address, by its namespace and its labels, name or address.
pub fn selects_vnic(ysvc: &YusurService, vnic: &VNic) -> bool {
    sets(ysvc, Candidate::VNic(vnic)).next().is_some()
}

/// Whether `ysvc` means `vmi`, by its namespace and its labels or name.
pub fn selects_vmi(ysvc: &YusurService, vmi: &VirtualMachineInstance) -> bool {
    let launcher = None;
    let candidate = Candidate::Vmi(VmiBackend { vmi, launcher });
    sets(ysvc, candidate).next().is_some()
}

impl<'a> Candidate<'a> {
    fn meta(&self) -> &'a ObjectMeta {
        match self {
            Candidate::Pod(pod) => &pod.pod.metadata,
            Candidate::VNic(vnic) => &vnic.metadata,
            Candidate::Vmi(vmi) => &vmi.vmi.metadata,
        }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'a str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    /// Name of the Pod, VNic or VirtualMachineInstance.
    pub fn name(&self) -> &'a str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// What makes it the same one.
    pub fn uid(&self) -> &'a str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// Its labels.
    pub fn labels(&self) -> Option<&'a BTreeMap<String, String>> {
        self.meta().labels.as_ref()
    }

    /// Its name for messages, with its namespace if that is another than the YusurService's.
    pub fn shown(&self, ysvc: &YusurService) -> String {
        match self.namespace() {
            namespace if namespace != own_namespace(ysvc) => {
                format!("{namespace}/{}", self.name())
            }
            _ => self.name().to_owned(),
        }
    }

    /// The Vpc that it is reached in, if it is known.
    pub fn vpc(&self, ysvc: &YusurService) -> Option<&'a str> {
        match self {
            Candidate::Pod(pod) => pod.vpc(ysvc),
            Candidate::VNic(vnic) => vnic::vpc(vnic),
            Candidate::Vmi(vmi) => vmi.launcher?.vpc(ysvc),
        }
    }

    /// Its address in a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match self {
            Candidate::Pod(pod) => pod.address(family),
            Candidate::VNic(vnic) => vnic::address(vnic, family),
            Candidate::Vmi(vmi) => vmi.launcher?.address(family),
        }
    }

    /// The number of its port `name`. VNics have none with names; KubeVirt names a guest's on the launcher Pod.
    fn named_port(&self, name: &str, protocol: &str) -> Option<i32> {
        match self {
            Candidate::Pod(pod) => pod::container_port(pod.pod, name, protocol),
            Candidate::VNic(_) => None,
            Candidate::Vmi(vmi) => pod::container_port(vmi.launcher?.pod, name, protocol),
        }
    }

    /// Whether it is a Pod on its node's own network.
    pub fn host_network(&self) -> bool {
        matches!(self, Candidate::Pod(pod) if pod::host_network(pod.pod))
    }

    /// Whether it calls itself ready: what its kubelet says of a Pod; machines and addresses are ready, unless they are
    /// [`Self::halted`]. A launcher Pod is not asked: it is not ready for a while after a migration.
    pub fn ready(&self) -> bool {
        match self {
            Candidate::Pod(pod) => pod::ready(pod.pod),
            Candidate::VNic(_) | Candidate::Vmi(_) => self.halted().is_none(),
        }
    }

    /// Why nobody can answer there, whatever its probe says.
    pub fn halted(&self) -> Option<String> {
        match self {
            Candidate::Pod(_) | Candidate::VNic(_) => None,
            Candidate::Vmi(vmi) => vmi.halted(),
        }
    }

    /// Whether it goes on as it was when its address changes: a guest that migrates.
    pub fn moves(&self) -> bool {
        matches!(self, Candidate::Vmi(_))
    }

    /// When its deletion began.
    pub fn deleted(&self) -> Option<Time> {
        match self {
            Candidate::Pod(pod) => pod::deleted(pod.pod),
            Candidate::VNic(vnic) => vnic.metadata.deletion_timestamp.clone(),
            Candidate::Vmi(vmi) => vmi.deleted(),
        }
    }

    /// The number of `port` in this backend: that of `overrides`, or that of the spec. An error: the name that it lacks.
    pub fn port<'p>(
        &self,
        port: &'p ServicePort,
        overrides: &'p [BackendPort],
    ) -> Result<i32, &'p str> {
        let mut own = overrides.iter();
        let own = own.find(|own| Some(&own.name) == port.name.as_ref());
        let target = own.map(|own| &own.target_port);
        match target.or(port.target_port.as_ref()) {
            None => Ok(port.port),
            Some(IntOrString::Int(number)) => Ok(*number),
            Some(IntOrString::String(name)) => {
                let number = self.named_port(name, port.protocol.as_str());
                number.ok_or(name.as_str())
            }
        }
    }

    /// The node or chassis that it is on, as far as that is known.
    pub fn node(&self) -> Option<String> {
        let node = |pod: &Pod| pod.spec.as_ref()?.node_name.clone();
        match self {
            Candidate::Pod(pod) => node(pod.pod),
            Candidate::Vmi(vmi) => vmi.launcher.and_then(|launcher| node(launcher.pod)),
            Candidate::VNic(vnic) => vnic.status.as_ref()?.chassis.clone(),
        }
    }

    /// It in this state, at one of its addresses.
    pub fn endpoint(&self, address: IpAddr, state: EndpointConditions) -> Endpoint {
        let (kind, version, node) = match self {
            Candidate::Pod(_) => ("Pod", None, self.node()),
            Candidate::Vmi(_) => (
                VirtualMachineInstance::KIND,
                Some(VirtualMachineInstance::API_VERSION.into()),
                self.node(),
            ),
            Candidate::VNic(_) => {
                let version = format!("{}/{}", ycloud_api::GROUP, ycloud_api::VERSION);
                // Not all chassis are nodes, whose names the API server would take.
                let node = self.node().filter(|name| is_node_name(name));
                ("VNic", Some(version), node)
            }
        };
        Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(state),
            node_name: node,
            target_ref: Some(ObjectReference {
                api_version: version,
                kind: Some(kind.into()),
                namespace: self.meta().namespace.clone(),
                name: self.meta().name.clone(),
                uid: self.meta().uid.clone(),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }
    }
}

/// Whether a Node may have this name: a DNS subdomain. Source: RFC 1123.
fn is_node_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.iter().all(|end| end.is_some_and(|end| plain(*end)))
            && bytes.iter().all(|b| plain(*b) || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The name of a kind as users write it.
pub fn kind_name(kind: BackendKind) -> &'static str {
    match kind {
        BackendKind::Pod => "Pod",
        BackendKind::VM => "VM",
        BackendKind::BM => "BM",
        BackendKind::VNicIP => "VNicIP",
    }
}
