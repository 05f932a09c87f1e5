//! `internalTrafficPolicy: Local`: the cluster address leads only to endpoints on the client's own node.
//!
//! A `Load_Balancer` with `options:template=true` has variables in its `vips`, which each chassis reads in its own row of
//! `Chassis_Template_Var` (ovn-nb(5)). The backends of each port are one variable, set where a node has any. Where it is
//! not set the load balancer does not exist, not even to refuse; so a second one, whose VIP is a variable that is set
//! just on the other nodes, has no backends and refuses.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use uuid::Uuid;

use super::backends::Backends;
use super::{LoadBalancers, addresses, ports, reached_at, served, vpc};
use crate::owner::{ObjectKey, Owner};
use crate::snapshot::{Slice, Snapshot};

/// Whether the cluster address leads only to the client's own node.
pub(crate) fn local(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.internal_traffic_policy.as_deref()) == Some("Local")
}

/// The load balancers that lead to the backends of the client's node: protocol → VIP → variable.
pub(super) fn balancers(key: &ObjectKey, service: &Service) -> LoadBalancers {
    templates(key, service, |vip, port, variable| {
        (format!("{vip}:{port}"), format!("^{}", variable.backends()))
    })
}

/// The load balancers that refuse where there are none: protocol → variable → nothing.
pub(super) fn refusals(key: &ObjectKey, service: &Service) -> LoadBalancers {
    templates(key, service, |vip, port, variable| {
        (format!("^{}:{port}", variable.refused(vip)), String::new())
    })
}

fn templates(
    key: &ObjectKey,
    service: &Service,
    vip: impl Fn(&str, i32, &Variable) -> (String, String),
) -> LoadBalancers {
    let mut balancers = LoadBalancers::new();
    if !local(service) || !served(service) {
        return balancers;
    }
    for (protocol, port) in ports(service) {
        let variable = Variable::of(key, protocol, port);
        for address in addresses(service) {
            let (vip, backends) = vip(&address.to_string(), port.port, &variable);
            balancers.entry(protocol).or_default().insert(vip, backends);
        }
    }
    balancers
}

/// What the chassis of a node puts for the variables of all these Services: `Chassis_Template_Var:variables`.
pub(crate) fn variables(snapshot: &Snapshot, node: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (key, service) in snapshot.local_services() {
        if !served(service) {
            continue;
        }
        let vpc = vpc(service);
        let at = |_: &Slice, ip| reached_at(snapshot, vpc, ip);
        let here = Backends::gather(slices_of(vpc, snapshot.slices(key)), Some(node), at);
        for (protocol, port) in ports(service) {
            let variable = Variable::of(key, protocol, port);
            let backends = here.text(port);
            if backends.is_empty() {
                let vips = addresses(service).map(|address| address.to_string());
                variables.extend(vips.map(|vip| (variable.refused(&vip), vip)));
            } else {
                variables.insert(variable.backends(), backends);
            }
        }
    }
    variables
}

/// What all nodes put for the variables of a Service, for its digest: protocol and port → node → backends.
pub(crate) fn backends_by_node<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
) -> BTreeMap<(&'static str, i32), BTreeMap<String, String>> {
    let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    if !local(service) || !served(service) {
        return all;
    }
    let slices = slices_of(vpc(service), slices);
    let endpoints = slices.clone().flat_map(|slice| &slice.endpoints);
    let nodes: BTreeSet<&str> = endpoints
        .filter_map(|endpoint| endpoint.node.as_deref())
        .collect();
    for node in nodes {
        let here = Backends::gather(slices.clone(), Some(node), |_, ip| ip);
        for (protocol, port) in ports(service) {
            let of_port = all.entry((protocol, port.port)).or_default();
            of_port.insert(node.to_owned(), here.text(port));
        }
    }
    all
}

pub(super) fn slices_of<'a>(
    vpc: &str,
    slices: impl Iterator<Item = &'a Slice> + Clone,
) -> impl Iterator<Item = &'a Slice> + Clone {
    slices.filter(move |slice| slice.vpc.as_deref().is_none_or(|of| of == vpc))
}

/// The names of a port's variables. They say nothing to people, as a variable's name has no room for a Service's.
struct Variable(Uuid);

impl Variable {
    fn of(key: &ObjectKey, protocol: &str, port: &ServicePort) -> Self {
        let owner = Owner::Service(key.clone());
        Self(owner.uuid(&format!("variable/{protocol}/{}", port.port)))
    }

    fn backends(&self) -> String {
        format!("backends_{}", self.0.simple())
    }

    fn refused(&self, vip: &str) -> String {
        format!("refused_{}_{}", self.0.simple(), vip.replace('.', "_"))
    }
}
