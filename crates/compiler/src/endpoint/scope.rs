//! What a YusurService's scope says of its backends: their Vpcs, their namespaces, and who may be one.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use ycloud_api::backend::{Backend, BackendKind, BackendPort};
use ycloud_api::service::Scope;
use ycloud_api::{YusurService, key, selector};

/// One of the sets of Pods that a spec selects: that of `spec.selector`, or one of `spec.backends`.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// Where its Pods must be; none if the spec does not say, and is refused for that.
    pub vpc: Option<&'a str>,
    /// Target ports that differ from those of `spec.ports`.
    pub ports: &'a [BackendPort],
}

/// The Vpc of the Pods of `spec.selector`, and of entries of `spec.backends` that name none.
pub fn own_vpc(ysvc: &YusurService) -> Option<&str> {
    match ysvc.spec.scope {
        Scope::Cluster => Some(key::DEFAULT_VPC),
        Scope::Vpc | Scope::MultiVpc => ysvc.spec.vpc.as_deref(),
    }
}

/// The Vpc of the backends of an entry of `spec.backends`.
pub fn vpc_of<'a>(ysvc: &'a YusurService, backend: &'a Backend) -> Option<&'a str> {
    let own = || own_vpc(ysvc);
    match ysvc.spec.scope {
        Scope::MultiVpc => backend.vpc.as_deref().or_else(own),
        Scope::Vpc | Scope::Cluster => own(),
    }
}

/// Whether Pods on a node's own network may be backends: they are reached by the node's address, which only the default
/// Vpc knows.
pub fn takes_host_network(ysvc: &YusurService) -> bool {
    ysvc.spec.scope == Scope::Cluster
}

/// The Vpcs that the spec is about, each of which must exist and permit the YusurService's namespace.
pub fn vpcs(ysvc: &YusurService) -> BTreeSet<&str> {
    let backends = ysvc.spec.backends.iter();
    let theirs = backends.filter_map(|backend| vpc_of(ysvc, backend));
    own_vpc(ysvc).into_iter().chain(theirs).collect()
}

/// The namespaces whose Pods may be backends, the own one among them.
pub fn namespaces(ysvc: &YusurService) -> BTreeSet<&str> {
    let backends = ysvc.spec.backends.iter();
    let others = backends.filter_map(|backend| backend.namespace.as_deref());
    [own_namespace(ysvc)].into_iter().chain(others).collect()
}

/// The namespace of the YusurService.
pub fn own_namespace(ysvc: &YusurService) -> &str {
    ysvc.metadata.namespace.as_deref().unwrap_or_default()
}

/// The namespace of the backends of an entry of `spec.backends`.
pub fn namespace_of<'a>(ysvc: &'a YusurService, backend: &'a Backend) -> &'a str {
    let other = backend.namespace.as_deref();
    other.unwrap_or_else(|| own_namespace(ysvc))
}

/// The sets that `pod` is in, by its namespace and its labels or name, `spec.selector` first. Its Vpc is not looked at.
pub fn sets<'a>(ysvc: &'a YusurService, pod: &'a Pod) -> impl Iterator<Item = Set<'a>> {
    let labels = pod.metadata.labels.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let spec = &ysvc.spec;
    let held = move |(key, value): (&String, &String)| {
        labels.and_then(|labels| labels.get(key)) == Some(value)
    };
    let by_selector = !spec.selector.is_empty()
        && namespace == own_namespace(ysvc)
        && spec.selector.iter().all(held);
    let first = by_selector.then(|| Set {
        vpc: own_vpc(ysvc),
        ports: &[],
    });
    let backends = spec.backends.iter();
    let rest = backends.filter(move |backend| meant(ysvc, backend, pod, namespace));
    first.into_iter().chain(rest.map(|backend| Set {
        vpc: vpc_of(ysvc, backend),
        ports: &backend.ports,
    }))
}

fn meant(ysvc: &YusurService, backend: &Backend, pod: &Pod, namespace: &str) -> bool {
    if backend.kind != BackendKind::Pod || namespace_of(ysvc, backend) != namespace {
        return false;
    }
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let by_label = |s| selector::matches(s, labels);
    backend.selector.as_ref().is_some_and(by_label)
        || (backend.name.is_some() && backend.name == pod.metadata.name)
}
