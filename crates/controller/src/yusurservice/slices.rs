//! EndpointSlices by the Service that they name and by the Pods that are endpoints in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use ycloud_api::key;
use ycloud_api::made::{MANAGED_BY, SERVICE_NAME};
use ycloud_compiler::ObjectKey;

use super::store::{ByNamespace, insert, remove, take};
use crate::watch::Key;

/// Every EndpointSlice.
#[derive(Debug, Default)]
pub struct Slices {
    all: ByNamespace<EndpointSlice>,
    /// Service → the names of its slices.
    of: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// Pod → the slices of ycloud's that it is an endpoint in.
    holding: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Slices {
    /// Takes a slice in; the Services that it names and named.
    pub fn insert(&mut self, slice: EndpointSlice) -> BTreeSet<ObjectKey> {
        let (key, former) = insert(&mut self.all, slice);
        self.index(&key, former.as_deref())
    }

    /// Forgets a slice; the Service that it named.
    pub fn remove(&mut self, key: Key) -> BTreeSet<ObjectKey> {
        let (key, former) = remove(&mut self.all, key);
        self.index(&key, former.as_deref())
    }

    /// The slices that name a Service, sorted by name.
    pub fn of(&self, service: &ObjectKey) -> Vec<&EndpointSlice> {
        let names = self.of.get(service).into_iter().flatten();
        let all = self.all.get(&service.namespace);
        names
            .filter_map(|name| all?.get(name))
            .map(Arc::as_ref)
            .collect()
    }

    /// The Services in whose slices of ycloud's a Pod is an endpoint.
    pub fn serving(&self, pod: &ObjectKey) -> impl Iterator<Item = ObjectKey> {
        let slices = self.holding.get(pod).into_iter().flatten();
        slices.filter_map(|slice| service_of(self.get(slice)?))
    }

    fn get(&self, key: &ObjectKey) -> Option<&Arc<EndpointSlice>> {
        self.all.get(&key.namespace)?.get(&key.name)
    }

    /// Brings the indices from `former`, what the slice was, to what it is now; the Services concerned.
    fn index(&mut self, key: &ObjectKey, former: Option<&EndpointSlice>) -> BTreeSet<ObjectKey> {
        let now = self.get(key).cloned();
        let before = former.map(pods).unwrap_or_default();
        let after = now.as_deref().map(pods).unwrap_or_default();
        for pod in before.difference(&after) {
            take(&mut self.holding, pod, key);
        }
        for pod in after.difference(&before) {
            let slices = self.holding.entry(pod.clone()).or_default();
            slices.insert(key.clone());
        }
        let before = former.and_then(service_of);
        let after = now.as_deref().and_then(service_of);
        if let Some(service) = before.as_ref().filter(|_| before != after) {
            take(&mut self.of, service, &key.name);
        }
        if let Some(service) = &after {
            let names = self.of.entry(service.clone()).or_default();
            names.insert(key.name.clone());
        }
        before.into_iter().chain(after).collect()
    }
}

/// The objects that a slice's endpoints are, as namespace and name.
pub fn targets(slice: &EndpointSlice) -> impl Iterator<Item = (&str, &str)> {
    let endpoints = slice.endpoints.iter();
    let targets = endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref());
    targets.map(|target: &ObjectReference| {
        let namespace = target.namespace.as_deref();
        let name = target.name.as_deref();
        (namespace.unwrap_or_default(), name.unwrap_or_default())
    })
}

/// The kinds of the objects that a slice's endpoints are.
pub fn kinds(slice: &EndpointSlice) -> impl Iterator<Item = &str> {
    let endpoints = slice.endpoints.iter();
    endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref()?.kind.as_deref())
}

/// The Pods that are endpoints in a slice of ycloud's.
fn pods(slice: &EndpointSlice) -> BTreeSet<ObjectKey> {
    let labels = slice.metadata.labels.as_ref();
    let by = labels.and_then(|labels| labels.get(MANAGED_BY));
    if by.is_none_or(|by| by != key::ENDPOINTSLICE_MANAGED_BY) {
        return BTreeSet::new();
    }
    targets(slice)
        .map(|(namespace, name)| ObjectKey::new(namespace, name))
        .collect()
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(
        slice.metadata.namespace.clone()?,
        name.clone(),
    ))
}
