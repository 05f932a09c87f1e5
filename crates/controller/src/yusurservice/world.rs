//! What yusurservice-controller knows: the objects that YusurServices depend on, and who depends on what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use ycloud_api::condition;
use ycloud_api::vnic::{AttachmentKind, pod_vnic_name};
use ycloud_api::{VNic, Vpc, YusurService};
use ycloud_compiler::ObjectKey;
use ycloud_compiler::endpoint::{PodBackend, SERVICE_NAME, TranslateInput, selects};

use crate::watch::{Change, Key};

/// A change of any kind that is watched.
#[derive(Debug)]
pub enum News {
    /// A YusurService.
    YusurService(Change<YusurService>),
    /// A Vpc.
    Vpc(Change<Vpc>),
    /// A VNic.
    VNic(Change<VNic>),
    /// A Namespace.
    Namespace(Change<Namespace>),
    /// A Pod, reduced by [`reduce_pod`].
    Pod(Box<Change<Pod>>),
    /// A Service.
    Service(Change<Service>),
    /// An EndpointSlice.
    EndpointSlice(Change<EndpointSlice>),
}

/// How many kinds [`News`] has, each of which must have synced.
const KINDS: usize = 7;

type ByNamespace<T> = BTreeMap<String, BTreeMap<String, Arc<T>>>;

/// The objects. One task owns it.
#[derive(Debug, Default)]
pub struct World {
    ysvcs: ByNamespace<YusurService>,
    vpcs: BTreeMap<String, Arc<Vpc>>,
    vnics: ByNamespace<VNic>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pods: ByNamespace<Pod>,
    services: ByNamespace<Service>,
    slices: ByNamespace<EndpointSlice>,
    /// Names of the slices of each Service.
    slices_of: BTreeMap<ObjectKey, BTreeSet<String>>,
    synced: usize,
}

impl World {
    /// Takes one change in; the YusurServices that it may concern.
    pub fn apply(&mut self, news: News) -> BTreeSet<ObjectKey> {
        match news {
            News::YusurService(change) => self.apply_ysvc(change),
            News::Vpc(Change::Apply(vpc)) => self.apply_vpc(vpc.name_any(), Some(vpc)),
            News::Vpc(Change::Delete(key)) => self.apply_vpc(key.name, None),
            News::VNic(change) => self.apply_vnic(change),
            News::Namespace(Change::Apply(mut namespace)) => {
                let labels = std::mem::take(namespace.labels_mut());
                self.apply_namespace(namespace.name_any(), Some(labels))
            }
            News::Namespace(Change::Delete(key)) => self.apply_namespace(key.name, None),
            News::Pod(change) => self.apply_pod(*change),
            News::Service(change) => self.apply_service(change),
            News::EndpointSlice(change) => self.apply_slice(change),
            News::Vpc(Change::Synced) | News::Namespace(Change::Synced) => self.sync(),
        }
    }

    /// Whether every kind was listed.
    pub fn synced(&self) -> bool {
        self.synced == KINDS
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
        let names = self.slices_of.get(key).into_iter().flatten();
        let all = self.slices.get(&key.namespace);
        names
            .filter_map(|name| all?.get(name))
            .map(Arc::as_ref)
            .collect()
    }

    /// Calls `use_input` with all that the translation of `ysvc` depends on.
    pub fn with_input<T>(
        &self,
        ysvc: &YusurService,
        use_input: impl FnOnce(&TranslateInput) -> T,
    ) -> T {
        let key = ObjectKey::new(ysvc.namespace().unwrap_or_default(), ysvc.name_any());
        let none = BTreeMap::new();
        let slices = self.slices(&key);
        let targets = slices.iter().flat_map(|slice| slice.endpoints.iter());
        let targets = targets.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_ref());
        let targets: BTreeSet<&String> = targets.collect();
        let pods = self.pods.get(&key.namespace).into_iter().flatten();
        let pods: Vec<PodBackend> = pods
            .filter(|(name, pod)| selects(ysvc, pod) || targets.contains(name))
            .map(|(_, pod)| PodBackend {
                pod,
                vnic: self.vnic_of(pod),
            })
            .collect();
        let vpc = ysvc.spec.vpc.as_ref().and_then(|name| self.vpcs.get(name));
        use_input(&TranslateInput {
            vpc: vpc.map(Arc::as_ref),
            namespace_labels: self.namespaces.get(&key.namespace).unwrap_or(&none),
            pods: &pods,
            service: self.service(&key),
            slices: &slices,
        })
    }

    fn vnic_of(&self, pod: &Pod) -> Option<&VNic> {
        let name = pod_vnic_name(pod.metadata.name.as_ref()?, pod.metadata.uid.as_ref()?);
        let vnic = self
            .vnics
            .get(pod.metadata.namespace.as_ref()?)?
            .get(&name)?;
        Some(vnic.as_ref())
    }

    fn sync(&mut self) -> BTreeSet<ObjectKey> {
        self.synced += 1;
        BTreeSet::new()
    }

    fn apply_ysvc(&mut self, change: Change<YusurService>) -> BTreeSet<ObjectKey> {
        match change {
            Change::Synced => self.sync(),
            Change::Apply(ysvc) => one(insert(&mut self.ysvcs, ysvc).0),
            Change::Delete(key) => one(remove(&mut self.ysvcs, key).0),
        }
    }

    fn apply_vpc(&mut self, name: String, vpc: Option<Vpc>) -> BTreeSet<ObjectKey> {
        let former = self.vpcs.get(&name);
        if let (Some(former), Some(new)) = (former, &vpc)
            && former.spec == new.spec
        {
            return BTreeSet::new();
        }
        let concerned = self.ysvcs_where(|_, ysvc| ysvc.spec.vpc.as_ref() == Some(&name));
        match vpc {
            Some(vpc) => self.vpcs.insert(name, Arc::new(vpc)),
            None => self.vpcs.remove(&name),
        };
        concerned
    }

    fn apply_namespace(
        &mut self,
        name: String,
        labels: Option<BTreeMap<String, String>>,
    ) -> BTreeSet<ObjectKey> {
        if self.namespaces.get(&name) == labels.as_ref() {
            return BTreeSet::new();
        }
        let concerned = self.ysvcs_where(|namespace, _| namespace == name);
        match labels {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
        concerned
    }

    fn apply_vnic(&mut self, change: Change<VNic>) -> BTreeSet<ObjectKey> {
        let (key, former, new) = match change {
            Change::Synced => return self.sync(),
            Change::Apply(vnic) => {
                let (key, former) = insert(&mut self.vnics, vnic);
                let new = self.vnics.get(&key.namespace);
                (key.clone(), former, new.and_then(|all| all.get(&key.name)))
            }
            Change::Delete(key) => {
                let (key, former) = remove(&mut self.vnics, key);
                (key, former, None)
            }
        };
        let address = |vnic: &Arc<VNic>| {
            let status = vnic.status.as_ref();
            status.map(|status| (status.ip.clone(), status.vpc.clone()))
        };
        if former.as_ref().and_then(address) == new.and_then(address) {
            return BTreeSet::new();
        }
        let pod = |vnic: &VNic| {
            let attachment = &vnic.spec.attachment;
            let name = attachment.name.as_ref();
            name.filter(|_| attachment.kind == AttachmentKind::Pod)
                .cloned()
        };
        let names: BTreeSet<String> = former.iter().chain(new).filter_map(|v| pod(v)).collect();
        let all = self.pods.get(&key.namespace);
        let pods: Vec<Arc<Pod>> = names
            .iter()
            .filter_map(|name| all?.get(name).cloned())
            .collect();
        self.selecting(&key.namespace, &pods)
    }

    fn apply_pod(&mut self, change: Change<Pod>) -> BTreeSet<ObjectKey> {
        let (key, pods) = match change {
            Change::Synced => return self.sync(),
            Change::Apply(mut pod) => {
                // What is left after reducing may be what it was: most changes of Pods concern nobody here.
                pod.metadata.resource_version = None;
                let new = Arc::new(pod.clone());
                let (key, former) = insert(&mut self.pods, pod);
                if former.as_ref() == Some(&new) {
                    return BTreeSet::new();
                }
                (key, former.into_iter().chain([new]).collect::<Vec<_>>())
            }
            Change::Delete(key) => {
                let (key, former) = remove(&mut self.pods, key);
                (key, former.into_iter().collect())
            }
        };
        self.selecting(&key.namespace, &pods)
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
        let (key, former, new) = match change {
            Change::Synced => return self.sync(),
            Change::Apply(slice) => {
                let service = service_of(&slice);
                let (key, former) = insert(&mut self.slices, slice);
                (key, former, service)
            }
            Change::Delete(key) => {
                let (key, former) = remove(&mut self.slices, key);
                (key, former, None)
            }
        };
        let former = former.and_then(|slice| service_of(&slice));
        if let Some(service) = former.as_ref().filter(|_| former != new)
            && let Some(names) = self.slices_of.get_mut(service)
        {
            names.remove(&key.name);
            if names.is_empty() {
                self.slices_of.remove(service);
            }
        }
        if let Some(service) = &new {
            let names = self.slices_of.entry(service.clone()).or_default();
            names.insert(key.name);
        }
        let concerned = former.into_iter().chain(new);
        concerned.flat_map(|service| self.known(service)).collect()
    }

    /// `key`, if a YusurService has it.
    fn known(&self, key: ObjectKey) -> BTreeSet<ObjectKey> {
        let known = self.ysvc(&key).is_some();
        Some(key).filter(|_| known).into_iter().collect()
    }

    /// The YusurServices of a namespace that select one of `pods`; or, where a refused spec left former endpoints, have
    /// one as an endpoint.
    fn selecting(&self, namespace: &str, pods: &[Arc<Pod>]) -> BTreeSet<ObjectKey> {
        let mut keys = BTreeSet::new();
        for (name, ysvc) in self.ysvcs.get(namespace).into_iter().flatten() {
            let key = ObjectKey::new(namespace, name.clone());
            let selected = pods.iter().any(|pod| selects(ysvc, pod));
            if selected || (refused(ysvc) && self.has_endpoint(&key, pods)) {
                keys.insert(key);
            }
        }
        keys
    }

    fn has_endpoint(&self, key: &ObjectKey, pods: &[Arc<Pod>]) -> bool {
        let slices = self.slices(key);
        let targets = slices.iter().flat_map(|slice| slice.endpoints.iter());
        let mut names = targets.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_ref());
        names.any(|name| {
            pods.iter()
                .any(|pod| pod.metadata.name.as_ref() == Some(name))
        })
    }

    fn ysvcs_where(&self, holds: impl Fn(&str, &YusurService) -> bool) -> BTreeSet<ObjectKey> {
        let mut keys = BTreeSet::new();
        for (namespace, all) in &self.ysvcs {
            for (name, ysvc) in all {
                if holds(namespace, ysvc) {
                    keys.insert(ObjectKey::new(namespace.clone(), name.clone()));
                }
            }
        }
        keys
    }
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

fn one(key: ObjectKey) -> BTreeSet<ObjectKey> {
    BTreeSet::from([key])
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(
        slice.metadata.namespace.clone()?,
        name.clone(),
    ))
}

fn insert<T: ResourceExt>(all: &mut ByNamespace<T>, object: T) -> (ObjectKey, Option<Arc<T>>) {
    let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
    let namespace = all.entry(key.namespace.clone()).or_default();
    let former = namespace.insert(key.name.clone(), Arc::new(object));
    (key, former)
}

fn remove<T>(all: &mut ByNamespace<T>, key: Key) -> (ObjectKey, Option<Arc<T>>) {
    let key = ObjectKey::new(key.namespace.unwrap_or_default(), key.name);
    let mut former = None;
    if let Some(namespace) = all.get_mut(&key.namespace) {
        former = namespace.remove(&key.name);
        if namespace.is_empty() {
            all.remove(&key.namespace);
        }
    }
    (key, former)
}

/// Takes away what nobody here reads of a Pod.
pub fn reduce_pod(pod: &mut Pod) {
    let meta = std::mem::take(&mut pod.metadata);
    pod.metadata.name = meta.name;
    pod.metadata.namespace = meta.namespace;
    pod.metadata.uid = meta.uid;
    pod.metadata.resource_version = meta.resource_version;
    pod.metadata.labels = meta.labels;
    pod.metadata.deletion_timestamp = meta.deletion_timestamp;
    if let Some(spec) = pod.spec.take() {
        let container =
            |c: k8s_openapi::api::core::v1::Container| k8s_openapi::api::core::v1::Container {
                name: c.name,
                ports: c.ports,
                restart_policy: c.restart_policy,
                ..Default::default()
            };
        let init = spec.init_containers.into_iter().flatten().map(container);
        pod.spec = Some(k8s_openapi::api::core::v1::PodSpec {
            node_name: spec.node_name,
            host_network: spec.host_network,
            containers: spec.containers.into_iter().map(container).collect(),
            init_containers: Some(init.filter(|c| c.restart_policy.is_some()).collect()),
            ..Default::default()
        });
    }
    if let Some(status) = pod.status.take() {
        let conditions = status.conditions.into_iter().flatten();
        let ready = conditions.filter(|c| c.type_ == "Ready").map(|c| {
            k8s_openapi::api::core::v1::PodCondition {
                type_: c.type_,
                status: c.status,
                ..Default::default()
            }
        });
        pod.status = Some(k8s_openapi::api::core::v1::PodStatus {
            phase: status.phase,
            conditions: Some(ready.collect()),
            ..Default::default()
        });
    }
}
