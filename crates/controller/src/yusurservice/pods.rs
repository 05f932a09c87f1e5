//! Pods by name and by label.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};
use ycloud_api::YusurService;
use ycloud_api::backend::{Backend, BackendKind};
use ycloud_api::kubevirt::{CREATED_BY, VirtualMachineInstance};
use ycloud_compiler::ObjectKey;
use ycloud_compiler::endpoint::{created_by, selects};

use super::labelled::{Candidates, Labelled};
use crate::watch::Key;

/// Every Pod, reduced by [`reduce_pod`].
#[derive(Debug, Default)]
pub struct Pods {
    all: Labelled<Pod>,
}

impl Pods {
    /// Takes a Pod in; its key, and what it was before.
    pub fn insert(&mut self, pod: Pod) -> (ObjectKey, Option<Arc<Pod>>) {
        self.all.insert(pod)
    }

    /// Forgets a Pod; its key, and what it was.
    pub fn remove(&mut self, key: Key) -> (ObjectKey, Option<Arc<Pod>>) {
        self.all.remove(key)
    }

    /// A Pod.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.all.get(namespace, name)
    }

    /// The Pods that `ysvc` selects, in the order of namespace and name.
    pub fn selected<'a>(&'a self, ysvc: &'a YusurService) -> BTreeMap<(&'a str, &'a str), &'a Pod> {
        let own = ysvc.metadata.namespace.as_deref().unwrap_or_default();
        let selector = Some(&ysvc.spec.selector).filter(|selector| !selector.is_empty());
        let mut found = BTreeMap::new();
        let mut add = |namespace: &'a str, candidates: Candidates<'a, Pod>| {
            let chosen = candidates.into_iter().filter(|(_, pod)| selects(ysvc, pod));
            found.extend(chosen.map(|(name, pod)| ((namespace, name), pod)));
        };
        if let Some(selector) = selector {
            add(own, self.all.labelled(own, selector));
        }
        let backends = ysvc.spec.backends.iter();
        for backend in backends.filter(|backend| backend.kind == BackendKind::Pod) {
            let namespace = backend.namespace.as_deref().unwrap_or(own);
            add(namespace, self.candidates(namespace, backend));
        }
        found
    }

    /// The launchers of a VirtualMachineInstance of `namespace`.
    pub fn launchers(&self, namespace: &str, vmi: &VirtualMachineInstance) -> Candidates<'_, Pod> {
        let uid = vmi.metadata.uid.clone().unwrap_or_default();
        let label = BTreeMap::from([(CREATED_BY.to_owned(), uid)]);
        let mut found = self.all.labelled(namespace, &label);
        found.retain(|(_, pod)| created_by(pod).is_some());
        found
    }

    /// At least the Pods that `backend` means.
    fn candidates(&self, namespace: &str, backend: &Backend) -> Candidates<'_, Pod> {
        match (&backend.name, &backend.selector) {
            (Some(name), _) => self.all.named(namespace, [name]),
            (None, Some(selector)) => self.all.matching(namespace, selector),
            (None, None) => Candidates::new(),
        }
    }
}

/// Takes away what nobody here reads of a Pod.
pub fn reduce_pod(pod: &mut Pod) {
    let meta = std::mem::take(&mut pod.metadata);
    pod.metadata.name = meta.name;
    pod.metadata.namespace = meta.namespace;
    pod.metadata.uid = meta.uid;
    pod.metadata.resource_version = meta.resource_version;
    pod.metadata.labels = meta.labels;
    pod.metadata.creation_timestamp = meta.creation_timestamp;
    pod.metadata.deletion_timestamp = meta.deletion_timestamp;
    pod.metadata.deletion_grace_period_seconds = meta.deletion_grace_period_seconds;
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network);
    if let Some(spec) = pod.spec.take() {
        let container = |c: Container| Container {
            name: c.name,
            ports: c.ports,
            restart_policy: c.restart_policy,
            ..Default::default()
        };
        let init = spec.init_containers.into_iter().flatten().map(container);
        pod.spec = Some(PodSpec {
            node_name: spec.node_name,
            host_network: spec.host_network,
            containers: spec.containers.into_iter().map(container).collect(),
            init_containers: Some(init.filter(|c| c.restart_policy.is_some()).collect()),
            ..Default::default()
        });
    }
    if let Some(status) = pod.status.take() {
        let conditions = status.conditions.into_iter().flatten();
        let ready = conditions
            .filter(|c| c.type_ == "Ready")
            .map(|c| PodCondition {
                type_: c.type_,
                status: c.status,
                ..Default::default()
            });
        pod.status = Some(PodStatus {
            phase: status.phase,
            // Only there they are no VNic's.
            pod_ip: status.pod_ip.filter(|_| host_network == Some(true)),
            pod_ips: status.pod_ips.filter(|_| host_network == Some(true)),
            conditions: Some(ready.collect()),
            ..Default::default()
        });
    }
}
