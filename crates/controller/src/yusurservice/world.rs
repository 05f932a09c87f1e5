//! What yusurservice-controller knows: the objects that YusurServices depend on, and who depends on what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use ycloud_api::kubevirt::VirtualMachineInstance;
use ycloud_api::vnic::{AttachmentKind, pod_vnic_name};
use ycloud_api::{Eip, NetworkProbe, Subnet, VNic, Vpc, YusurService, condition, key};
use ycloud_compiler::ObjectKey;
use ycloud_compiler::endpoint::{
    PodBackend, TranslateInput, created_by, namespaces, selects, selects_vmi, selects_vnic, vpcs,
};

use super::kubevirt::{Instances, Vmis, is_vm};
use super::pods::Pods;
use super::probes::Probes;
use super::slices::{Slices, kinds, targets};
use super::store::{ByNamespace, insert, remove, take};
use super::vnics::VNics;
use crate::watch::Change;

/// A change of any kind that is watched.
#[derive(Debug)]
pub enum News {
    /// A YusurService.
    YusurService(Box<Change<YusurService>>),
    /// A Vpc.
    Vpc(Change<Vpc>),
    /// A Subnet.
    Subnet(Change<Subnet>),
    /// A VNic.
    VNic(Change<VNic>),
    /// An Eip.
    Eip(Change<Eip>),
    /// A Namespace.
    Namespace(Change<Namespace>),
    /// A Pod, reduced by [`super::pods::reduce_pod`].
    Pod(Box<Change<Pod>>),
    /// KubeVirt, and its VirtualMachineInstances.
    Instances(Instances),
    /// A Service.
    Service(Change<Service>),
    /// An EndpointSlice.
    EndpointSlice(Change<EndpointSlice>),
    /// A NetworkProbe, reduced by [`super::probes::reduce_probe`].
    NetworkProbe(Box<Change<NetworkProbe>>),
}

/// How many kinds [`News`] has, each of which must have synced; KubeVirt's need not ([`World::knows`]).
const KINDS: usize = 10;

/// The objects. One task owns it.
#[derive(Debug, Default)]
pub struct World {
    ysvcs: ByNamespace<YusurService>,
    /// Namespace of Pods and VNics → the YusurServices that may select some of them.
    looking: BTreeMap<String, BTreeSet<ObjectKey>>,
    vpcs: BTreeMap<String, Arc<Vpc>>,
    /// Subnet → its Vpc, and the namespaces that it names.
    subnets: BTreeMap<String, (String, Vec<String>)>,
    /// Namespace → the Subnets that name it, each with its Vpc.
    named: BTreeMap<String, BTreeMap<String, String>>,
    vnics: VNics,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    eips: ByNamespace<Eip>,
    pods: Pods,
    vmis: Vmis,
    services: ByNamespace<Service>,
    slices: Slices,
    probes: Probes,
    synced: usize,
}

impl World {
    /// Takes one change in; the YusurServices that it may concern.
    pub fn apply(&mut self, news: News) -> BTreeSet<ObjectKey> {
        match news {
            News::YusurService(change) => self.apply_ysvc(*change),
            News::Vpc(Change::Apply(vpc)) => self.apply_vpc(vpc.name_any(), Some(vpc)),
            News::Vpc(Change::Delete(key)) => self.apply_vpc(key.name, None),
            News::Subnet(Change::Apply(subnet)) => {
                let named = (subnet.spec.vpc.clone(), subnet.spec.namespaces.clone());
                self.apply_subnet(subnet.name_any(), Some(named))
            }
            News::Subnet(Change::Delete(key)) => self.apply_subnet(key.name, None),
            News::VNic(change) => self.apply_vnic(change),
            News::Eip(change) => self.apply_eip(change),
            News::Namespace(Change::Apply(mut namespace)) => {
                let labels = std::mem::take(namespace.labels_mut());
                self.apply_namespace(namespace.name_any(), Some(labels))
            }
            News::Namespace(Change::Delete(key)) => self.apply_namespace(key.name, None),
            News::Pod(change) => self.apply_pod(*change),
            News::Instances(instances) => self.apply_instances(instances),
            News::Service(change) => self.apply_service(change),
            News::EndpointSlice(change) => self.apply_slice(change),
            News::NetworkProbe(change) => self.apply_probe(*change),
            News::Vpc(Change::Synced)
            | News::Subnet(Change::Synced)
            | News::Namespace(Change::Synced) => self.sync(),
        }
    }

    /// Whether every kind was listed.
    pub fn synced(&self) -> bool {
        self.synced == KINDS
    }

    /// Whether all is known that a YusurService depends on, once [`Self::synced`]. One that means VMs needs to know of KubeVirt's:
    /// to plan without those would take their endpoints away. Others do not wait, in case KubeVirt does not answer.
    pub fn knows(&self, key: &ObjectKey) -> bool {
        let means = || self.ysvc(key).is_some_and(|ysvc| self.means_vms(key, ysvc));
        self.vmis.known() || !means()
    }

    /// Every YusurService.
    pub fn keys(&self) -> BTreeSet<ObjectKey> {
        let of = |(namespace, all): (&String, &BTreeMap<String, Arc<YusurService>>)| {
            let key = |name: &String| ObjectKey::new(namespace.clone(), name.clone());
            all.keys().map(key).collect::<Vec<_>>()
        };
        self.ysvcs.iter().flat_map(of).collect()
    }

    /// How many YusurServices there are.
    pub fn count(&self) -> usize {
        self.ysvcs.values().map(BTreeMap::len).sum()
    }

    /// A YusurService.
    pub fn ysvc(&self, key: &ObjectKey) -> Option<&Arc<YusurService>> {
        self.ysvcs.get(&key.namespace)?.get(&key.name)
    }

    /// The Service of a name.
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        let service = self.services.get(&key.namespace)?.get(&key.name)?;
        Some(service.as_ref())
    }

    /// The EndpointSlices that name a Service, sorted by name.
    pub fn slices(&self, key: &ObjectKey) -> Vec<&EndpointSlice> {
        self.slices.of(key)
    }

    /// A NetworkProbe.
    pub fn probe(&self, namespace: &str, name: &str) -> Option<&NetworkProbe> {
        let probe = self.probes.of_namespace(namespace)?.get(name)?;
        Some(probe.as_ref())
    }

    /// The NetworkProbes that `ysvc` has.
    pub fn own_probes(&self, ysvc: &YusurService) -> Vec<&NetworkProbe> {
        self.probes.owned(ysvc)
    }

    /// Calls `use_input` with all that the translation of `ysvc` at the time `now` depends on.
    pub fn with_input<T>(
        &self,
        ysvc: &YusurService,
        now: &Time,
        use_input: impl FnOnce(&TranslateInput) -> T,
    ) -> T {
        let own = ObjectKey::new(ysvc.namespace().unwrap_or_default(), ysvc.name_any());
        let none = BTreeMap::new();
        let slices = self.slices(&own);
        let mut pods = self.pods.selected(ysvc);
        let mut vnics = self.vnics.selected(ysvc);
        let mut vmis = self.vmis.selected(ysvc);
        for (namespace, name) in slices.iter().flat_map(|slice| targets(slice)) {
            if let Some(pod) = self.pods.get(namespace, name) {
                pods.insert((namespace, name), pod);
            }
            if let Some(vnic) = self.vnics.get(namespace, name) {
                vnics.insert((namespace, name), vnic);
            }
            if let Some(vmi) = self.vmis.get(namespace, name) {
                vmis.insert((namespace, name), vmi);
            }
        }
        for (place, vmi) in &vmis {
            let launchers = self.pods.launchers(place.0, vmi).into_iter();
            pods.extend(launchers.map(|(name, pod)| ((place.0, name), pod)));
        }
        let vmis: Vec<&VirtualMachineInstance> = vmis.into_values().collect();
        let no_probes = BTreeMap::new();
        let probes = self.probes.of_namespace(&own.namespace);
        let pods: Vec<PodBackend> = pods
            .into_values()
            .map(|pod| PodBackend {
                pod,
                vnic: self.vnic_of(pod),
            })
            .collect();
        let served = slices
            .iter()
            .filter_map(|slice| slice.labels().get(key::VPC));
        let names = vpcs(ysvc).into_iter().chain(served.map(String::as_str));
        let vpc = |name| Some((name, self.vpcs.get(name)?.as_ref()));
        let eip = || {
            let name = ysvc.spec.eip.as_ref()?;
            self.eips.get(&own.namespace)?.get(name)
        };
        let named = self.named.get(&own.namespace).into_iter();
        let named = named.flat_map(BTreeMap::values).map(String::as_str);
        use_input(&TranslateInput {
            named: &named.collect(),
            vpcs: &names.filter_map(vpc).collect(),
            eip: eip().map(Arc::as_ref),
            namespace_labels: self.namespaces.get(&own.namespace).unwrap_or(&none),
            pods: &pods,
            vnics: &vnics.into_values().collect::<Vec<_>>(),
            vmis: Some(vmis.as_slice()).filter(|_| self.vmis.found()),
            probes: probes.unwrap_or(&no_probes),
            own_probes: &self.own_probes(ysvc),
            now,
            service: self.service(&own),
            slices: &slices,
        })
    }

    fn vnic_of(&self, pod: &Pod) -> Option<&VNic> {
        let name = pod_vnic_name(pod.metadata.name.as_ref()?, pod.metadata.uid.as_ref()?);
        let vnic = self.vnics.get(pod.metadata.namespace.as_ref()?, &name)?;
        Some(vnic.as_ref())
    }

    fn sync(&mut self) -> BTreeSet<ObjectKey> {
        self.synced += 1;
        BTreeSet::new()
    }

    fn apply_ysvc(&mut self, change: Change<YusurService>) -> BTreeSet<ObjectKey> {
        let (key, former) = match change {
            Change::Synced => return self.sync(),
            Change::Apply(ysvc) => insert(&mut self.ysvcs, ysvc),
            Change::Delete(key) => remove(&mut self.ysvcs, key),
        };
        let of = |ysvc: &YusurService| -> BTreeSet<String> {
            namespaces(ysvc).into_iter().map(str::to_owned).collect()
        };
        let before = former.as_deref().map(of).unwrap_or_default();
        let after = self.ysvc(&key).map(|ysvc| of(ysvc)).unwrap_or_default();
        for namespace in before.difference(&after) {
            take(&mut self.looking, namespace, &key);
        }
        for namespace in after {
            self.looking
                .entry(namespace)
                .or_default()
                .insert(key.clone());
        }
        BTreeSet::from([key])
    }

    fn apply_subnet(
        &mut self,
        name: String,
        named: Option<(String, Vec<String>)>,
    ) -> BTreeSet<ObjectKey> {
        let former = match named.clone() {
            Some(named) => self.subnets.insert(name.clone(), named),
            None => self.subnets.remove(&name),
        };
        if former == named {
            return BTreeSet::new();
        }
        if let Some((_, namespaces)) = &former {
            for namespace in namespaces {
                if let Some(subnets) = self.named.get_mut(namespace) {
                    subnets.remove(&name);
                }
            }
        }
        self.named.retain(|_, subnets| !subnets.is_empty());
        if let Some((vpc, namespaces)) = &named {
            for namespace in namespaces {
                let subnets = self.named.entry(namespace.clone()).or_default();
                subnets.insert(name.clone(), vpc.clone());
            }
        }
        let vpcs: BTreeSet<String> = former.into_iter().chain(named).map(|n| n.0).collect();
        vpcs.iter().flat_map(|vpc| self.using(vpc)).collect()
    }

    fn apply_vpc(&mut self, name: String, vpc: Option<Vpc>) -> BTreeSet<ObjectKey> {
        let former = self.vpcs.get(&name);
        if let (Some(former), Some(new)) = (former, &vpc)
            && former.spec == new.spec
            && former.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        {
            return BTreeSet::new();
        }
        let concerned = self.using(&name);
        match vpc {
            Some(vpc) => self.vpcs.insert(name, Arc::new(vpc)),
            None => self.vpcs.remove(&name),
        };
        concerned
    }

    /// Those whom it concerns whom a Vpc permits.
    fn using(&self, vpc: &str) -> BTreeSet<ObjectKey> {
        let serves = |key: &ObjectKey| {
            let of = |slice: &&EndpointSlice| {
                slice.labels().get(key::VPC).map(String::as_str) == Some(vpc)
            };
            self.slices(key).iter().any(of)
        };
        self.ysvcs_where(|key, ysvc| vpcs(ysvc).contains(vpc) || (refused(ysvc) && serves(key)))
    }

    fn apply_namespace(
        &mut self,
        name: String,
        labels: Option<BTreeMap<String, String>>,
    ) -> BTreeSet<ObjectKey> {
        if self.namespaces.get(&name) == labels.as_ref() {
            return BTreeSet::new();
        }
        let concerned = self.ysvcs_where(|key, _| key.namespace == name);
        match labels {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
        concerned
    }

    /// Only whether it exists matters here, and where it says that it is.
    fn apply_eip(&mut self, change: Change<Eip>) -> BTreeSet<ObjectKey> {
        let (eip, former) = match change {
            Change::Synced => return self.sync(),
            Change::Apply(eip) => insert(&mut self.eips, eip),
            Change::Delete(key) => remove(&mut self.eips, key),
        };
        let new = self
            .eips
            .get(&eip.namespace)
            .and_then(|all| all.get(&eip.name));
        let tells = |eip: &Arc<Eip>| gateway_nodes(eip);
        let known = former.is_some() == new.is_some();
        if known && former.as_ref().map(tells) == new.map(tells) {
            return BTreeSet::new();
        }
        let all = self.ysvcs.get(&eip.namespace).into_iter().flatten();
        let means = all
            .filter(|(name, ysvc)| ysvc.spec.eip.as_ref() == Some(&eip.name) || **name == eip.name);
        let keys = means.map(|(name, _)| ObjectKey::new(&eip.namespace, name.clone()));
        keys.collect()
    }

    /// The nodes that choose the backends of what comes from outside to a YusurService, as the Eip says that it names, or that is
    /// made for its Service.
    pub fn gateway_nodes(&self, ysvc: &YusurService) -> Option<String> {
        let all = self.eips.get(ysvc.metadata.namespace.as_ref()?)?;
        let named = ysvc.spec.eip.as_ref().and_then(|name| all.get(name));
        let made = || all.get(ysvc.metadata.name.as_ref()?);
        gateway_nodes(named.or_else(made)?)
    }

    fn apply_vnic(&mut self, change: Change<VNic>) -> BTreeSet<ObjectKey> {
        let (key, former) = match change {
            Change::Synced => return self.sync(),
            Change::Apply(vnic) => self.vnics.insert(vnic),
            Change::Delete(key) => self.vnics.remove(key),
        };
        let new = self.vnics.get(&key.namespace, &key.name).cloned();
        let before = former.as_deref().map(telling);
        if before == new.as_deref().map(telling) {
            return BTreeSet::new();
        }
        let either = || former.iter().chain(&new);
        let pod = |vnic: &Arc<VNic>| {
            let attachment = &vnic.spec.attachment;
            let name = attachment.name.as_ref();
            name.filter(|_| attachment.kind == AttachmentKind::Pod)
                .cloned()
        };
        let names: BTreeSet<String> = either().filter_map(pod).collect();
        let pod = |name: &String| self.pods.get(&key.namespace, name).cloned();
        let pods: Vec<Arc<Pod>> = names.iter().filter_map(pod).collect();
        let mut keys = self.selecting(&pods);
        for vnic in either().filter(|vnic| vnic.spec.attachment.kind != AttachmentKind::Pod) {
            keys.extend(self.meaning(&key, |ysvc| selects_vnic(ysvc, vnic)));
        }
        keys
    }

    fn apply_probe(&mut self, change: Change<NetworkProbe>) -> BTreeSet<ObjectKey> {
        let concerned = match change {
            Change::Synced => return self.sync(),
            Change::Apply(probe) => self.probes.insert(probe),
            Change::Delete(key) => self.probes.remove(key),
        };
        let concerned = concerned.into_iter();
        concerned.flat_map(|key| self.known(key)).collect()
    }

    fn apply_pod(&mut self, change: Change<Pod>) -> BTreeSet<ObjectKey> {
        let pods = match change {
            Change::Synced => return self.sync(),
            Change::Apply(mut pod) => {
                // What is left after reducing may be what it was: most changes of Pods concern nobody here.
                pod.metadata.resource_version = None;
                let new = Arc::new(pod.clone());
                let (_, former) = self.pods.insert(pod);
                if former.as_ref() == Some(&new) {
                    return BTreeSet::new();
                }
                former.into_iter().chain([new]).collect::<Vec<_>>()
            }
            Change::Delete(key) => self.pods.remove(key).1.into_iter().collect(),
        };
        self.selecting(&pods)
    }

    fn apply_instances(&mut self, instances: Instances) -> BTreeSet<ObjectKey> {
        let change = match instances {
            Instances::Found => {
                self.vmis.find();
                return BTreeSet::new();
            }
            Instances::Gone => {
                self.vmis.lose();
                return self.meaning_vms();
            }
            Instances::Changed(change) => *change,
        };
        let (key, former) = match change {
            Change::Synced => {
                self.vmis.list();
                return self.meaning_vms();
            }
            Change::Apply(mut vmi) => {
                // As with Pods: most changes concern nobody here.
                vmi.metadata.resource_version = None;
                self.vmis.insert(vmi)
            }
            Change::Delete(key) => self.vmis.remove(key),
        };
        let new = self.vmis.get(&key.namespace, &key.name).cloned();
        if former == new {
            return BTreeSet::new();
        }
        let either = former.iter().chain(&new);
        either
            .flat_map(|vmi| self.meaning(&key, |ysvc| selects_vmi(ysvc, vmi)))
            .collect()
    }

    fn meaning_vms(&self) -> BTreeSet<ObjectKey> {
        self.ysvcs_where(|key, ysvc| self.means_vms(key, ysvc))
    }

    /// Whether `ysvc` means VMs, or has a VirtualMachineInstance as an endpoint.
    fn means_vms(&self, key: &ObjectKey, ysvc: &YusurService) -> bool {
        let slices = self.slices(key);
        let mut targets = slices.iter().flat_map(|slice| kinds(slice));
        ysvc.spec.backends.iter().any(is_vm)
            || targets.any(|kind| kind == VirtualMachineInstance::KIND)
    }

    fn apply_service(&mut self, change: Change<Service>) -> BTreeSet<ObjectKey> {
        let key = match change {
            Change::Synced => return self.sync(),
            Change::Apply(service) => insert(&mut self.services, service).0,
            Change::Delete(key) => remove(&mut self.services, key).0,
        };
        self.known(key)
    }

    fn apply_slice(&mut self, change: Change<EndpointSlice>) -> BTreeSet<ObjectKey> {
        let services = match change {
            Change::Synced => return self.sync(),
            Change::Apply(slice) => self.slices.insert(slice),
            Change::Delete(key) => self.slices.remove(key),
        };
        let concerned = services.into_iter();
        concerned.flat_map(|service| self.known(service)).collect()
    }

    /// `key`, if a YusurService has it.
    fn known(&self, key: ObjectKey) -> BTreeSet<ObjectKey> {
        let known = self.ysvc(&key).is_some();
        Some(key).filter(|_| known).into_iter().collect()
    }

    /// The YusurServices that select one of `pods`, or the guest of which it is a launcher; or, where a refused spec left former endpoints, have one as an
    /// endpoint.
    fn selecting(&self, pods: &[Arc<Pod>]) -> BTreeSet<ObjectKey> {
        let mut keys = BTreeSet::new();
        for pod in pods {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let key = ObjectKey::new(namespace, pod.name_any());
            keys.extend(self.meaning(&key, |ysvc| selects(ysvc, pod)));
            let vmi = created_by(pod).and_then(|uid| self.vmis.of_uid(namespace, uid));
            if let Some(vmi) = vmi {
                let key = ObjectKey::new(namespace, vmi.name_any());
                keys.extend(self.meaning(&key, |ysvc| selects_vmi(ysvc, vmi)));
            }
        }
        keys
    }

    /// The YusurServices that mean the Pod, VNic or VirtualMachineInstance `backend`; or, where a refused spec left former endpoints, have it as an
    /// endpoint.
    fn meaning(
        &self,
        backend: &ObjectKey,
        means: impl Fn(&YusurService) -> bool,
    ) -> BTreeSet<ObjectKey> {
        let is = |key: &ObjectKey, holds: &dyn Fn(&YusurService) -> bool| {
            self.ysvc(key).is_some_and(|ysvc| holds(ysvc))
        };
        let looking = self.looking.get(&backend.namespace).into_iter().flatten();
        let meant = looking.filter(|key| is(key, &means)).cloned();
        let services = self.slices.serving(backend);
        meant
            .chain(services.filter(|key| is(key, &refused)))
            .collect()
    }

    fn ysvcs_where(
        &self,
        holds: impl Fn(&ObjectKey, &YusurService) -> bool,
    ) -> BTreeSet<ObjectKey> {
        let mut keys = BTreeSet::new();
        for (namespace, all) in &self.ysvcs {
            for (name, ysvc) in all {
                let key = ObjectKey::new(namespace, name.clone());
                if holds(&key, ysvc) {
                    keys.insert(key);
                }
            }
        }
        keys
    }
}

/// What of a VNic decides whether it is a backend, and how.
fn telling(vnic: &VNic) -> impl PartialEq {
    let meta = &vnic.metadata;
    let attachment = &vnic.spec.attachment;
    let of_pod = attachment.kind == AttachmentKind::Pod;
    let status = vnic.status.as_ref().map(|status| {
        let ips = status.links().map(|link| link.ip.to_owned());
        // A Pod's endpoint names its node.
        let chassis = status.chassis.clone().filter(|_| !of_pod);
        (ips.collect::<Vec<_>>(), status.vpc.clone(), chassis)
    });
    let own = (!of_pod).then(|| {
        (
            meta.uid.clone(),
            meta.labels.clone(),
            meta.deletion_timestamp.clone(),
            attachment.clone(),
        )
    });
    (status.filter(|(ips, ..)| !ips.is_empty()), own)
}

/// Whether the spec was not accepted when it was last looked at.
fn refused(ysvc: &YusurService) -> bool {
    let conditions = ysvc
        .status
        .iter()
        .flat_map(|status| status.conditions.iter());
    conditions
        .into_iter()
        .any(|c| c.type_ == condition::ACCEPTED && c.status == "False")
}

fn gateway_nodes(eip: &Eip) -> Option<String> {
    let status = eip.status.as_ref()?;
    status.service_gateways.clone().or(status.node.clone())
}
