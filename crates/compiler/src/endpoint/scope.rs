//! What a YusurService's scope says of its backends: their Vpcs, their namespaces, and who may be one.

use std::collections::{BTreeMap, BTreeSet};

use ycloud_api::backend::{Backend, BackendKind, BackendPort};
use ycloud_api::service::Scope;
use ycloud_api::{YusurService, key, selector};

use super::backend::{Candidate, vmi, vnic};

/// One of the sets of backends that a spec selects: that of `spec.selector`, or one of `spec.backends`.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// Which of `spec.backends`; none: `spec.selector`.
    pub index: Option<usize>,
    /// The kind of its backends.
    pub kind: BackendKind,
    /// Where its backends must be; none if the spec does not say, and is refused for that.
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

/// The namespaces whose Pods, VNics and VirtualMachineInstances may be backends, the own one among them.
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

/// The sets that `candidate` is in, by its namespace and its labels, name or address, `spec.selector` first. Its Vpc is not
/// looked at, unless a set names an address.
pub fn sets<'a>(ysvc: &'a YusurService, candidate: Candidate<'a>) -> impl Iterator<Item = Set<'a>> {
    let spec = &ysvc.spec;
    let held = move |(key, value): (&String, &String)| {
        candidate.labels().and_then(|labels| labels.get(key)) == Some(value)
    };
    let by_selector = matches!(candidate, Candidate::Pod(_))
        && !spec.selector.is_empty()
        && candidate.namespace() == own_namespace(ysvc)
        && spec.selector.iter().all(held);
    let first = by_selector.then(|| Set {
        index: None,
        kind: BackendKind::Pod,
        vpc: own_vpc(ysvc),
        ports: &[],
    });
    let backends = spec.backends.iter().enumerate();
    let rest = backends.filter(move |(_, backend)| meant(ysvc, backend, &candidate));
    let rest = rest.map(|(index, backend)| Set {
        index: Some(index),
        kind: backend.kind,
        vpc: vpc_of(ysvc, backend),
        ports: &backend.ports,
    });
    first.into_iter().chain(rest)
}

fn meant(ysvc: &YusurService, backend: &Backend, candidate: &Candidate) -> bool {
    if namespace_of(ysvc, backend) != candidate.namespace() {
        return false;
    }
    let pod = match candidate {
        Candidate::VNic(vnic) => return vnic::meant(backend, vnic, vpc_of(ysvc, backend)),
        Candidate::Vmi(vmi) => return vmi::meant(backend, vmi.vmi),
        Candidate::Pod(pod) => pod.pod,
    };
    let none = BTreeMap::new();
    let labels = candidate.labels().unwrap_or(&none);
    let by_label = |s| selector::matches(s, labels);
    backend.kind == BackendKind::Pod
        && (backend.selector.as_ref().is_some_and(by_label)
            || (backend.name.is_some() && backend.name == pod.metadata.name))
}
