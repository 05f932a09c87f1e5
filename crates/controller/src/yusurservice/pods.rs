//! Pods by name and by label, so that a selector finds its own without looking at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};
use ycloud_api::YusurService;
use ycloud_api::backend::Backend;
use ycloud_compiler::ObjectKey;
use ycloud_compiler::endpoint::selects;

use super::store::{ByNamespace, insert, remove};
use crate::watch::Key;

/// Label and value.
type Label = (String, String);

/// Every Pod, reduced by [`reduce_pod`].
#[derive(Debug, Default)]
pub struct Pods {
    all: ByNamespace<Pod>,
    /// Namespace → label → names.
    by_label: BTreeMap<String, BTreeMap<Label, BTreeSet<String>>>,
}

impl Pods {
    /// Takes a Pod in; its key, and what it was before.
    pub fn insert(&mut self, pod: Pod) -> (ObjectKey, Option<Arc<Pod>>) {
        let labels = pod.metadata.labels.clone();
        let (key, former) = insert(&mut self.all, pod);
        let before = former.as_ref().map(|pod| &pod.metadata.labels);
        if before != Some(&labels) {
            self.unlabel(&key, former.as_deref());
            for label in labels.into_iter().flatten() {
                let of = self.by_label.entry(key.namespace.clone()).or_default();
                of.entry(label).or_default().insert(key.name.clone());
            }
        }
        (key, former)
    }

    /// Forgets a Pod; its key, and what it was.
    pub fn remove(&mut self, key: Key) -> (ObjectKey, Option<Arc<Pod>>) {
        let (key, former) = remove(&mut self.all, key);
        self.unlabel(&key, former.as_deref());
        (key, former)
    }

    fn unlabel(&mut self, key: &ObjectKey, former: Option<&Pod>) {
        let Some(of) = self.by_label.get_mut(&key.namespace) else {
            return;
        };
        let labels = former.and_then(|pod| pod.metadata.labels.clone());
        for label in labels.into_iter().flatten() {
            if let Some(names) = of.get_mut(&label) {
                names.remove(&key.name);
                if names.is_empty() {
                    of.remove(&label);
                }
            }
        }
        if of.is_empty() {
            self.by_label.remove(&key.namespace);
        }
    }

    /// A Pod.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.all.get(namespace)?.get(name)
    }

    /// The Pods that `ysvc` selects, in the order of namespace and name.
    pub fn selected<'a>(&'a self, ysvc: &'a YusurService) -> BTreeMap<(&'a str, &'a str), &'a Pod> {
        let own = ysvc.metadata.namespace.as_deref().unwrap_or_default();
        let selector = Some(&ysvc.spec.selector).filter(|selector| !selector.is_empty());
        let mut found = BTreeMap::new();
        let mut add = |namespace: &'a str, candidates: Candidates<'a>| {
            let chosen = candidates.into_iter().filter(|(_, pod)| selects(ysvc, pod));
            found.extend(chosen.map(|(name, pod)| ((namespace, name), pod)));
        };
        if let Some(selector) = selector {
            add(own, self.labelled(own, selector));
        }
        for backend in &ysvc.spec.backends {
            let namespace = backend.namespace.as_deref().unwrap_or(own);
            add(namespace, self.candidates(namespace, backend));
        }
        found
    }

    /// At least the Pods that `backend` means.
    fn candidates<'a>(&'a self, namespace: &str, backend: &'a Backend) -> Candidates<'a> {
        if let Some(name) = &backend.name {
            let pod = self.get(namespace, name);
            return pod
                .map(|pod| (name.as_str(), pod.as_ref()))
                .into_iter()
                .collect();
        }
        let labels = backend.selector.as_ref();
        let labels = labels.and_then(|selector| selector.match_labels.as_ref());
        match labels.filter(|labels| !labels.is_empty()) {
            Some(labels) => self.labelled(namespace, labels),
            None => {
                let all = self.all.get(namespace).into_iter().flatten();
                all.map(|(name, pod)| (name.as_str(), pod.as_ref()))
                    .collect()
            }
        }
    }

    /// The Pods with that one of `labels` which the fewest have.
    fn labelled(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Candidates<'_> {
        let (Some(by_label), Some(all)) = (self.by_label.get(namespace), self.all.get(namespace))
        else {
            return Candidates::new();
        };
        let sets = labels.iter().map(|(name, value)| {
            let label = (name.clone(), value.clone());
            by_label.get(&label)
        });
        let Some(Some(fewest)) = sets.min_by_key(|names| names.map_or(0, BTreeSet::len)) else {
            return Candidates::new();
        };
        let pod = |name: &'_ String| all.get_key_value(name);
        let pods = fewest.iter().filter_map(pod);
        pods.map(|(name, pod)| (name.as_str(), pod.as_ref()))
            .collect()
    }
}

/// Names and Pods.
type Candidates<'a> = Vec<(&'a str, &'a Pod)>;

/// Takes away what nobody here reads of a Pod.
pub fn reduce_pod(pod: &mut Pod) {
    let meta = std::mem::take(&mut pod.metadata);
    pod.metadata.name = meta.name;
    pod.metadata.namespace = meta.namespace;
    pod.metadata.uid = meta.uid;
    pod.metadata.resource_version = meta.resource_version;
    pod.metadata.labels = meta.labels;
    pod.metadata.deletion_timestamp = meta.deletion_timestamp;
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
