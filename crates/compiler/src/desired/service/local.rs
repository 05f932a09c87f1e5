//! `internalTrafficPolicy: Local`: the cluster address leads only to endpoints on the client's own node.
//!
//! A `Load_Balancer` with `options:template=true` has variables in its `vips`, which each chassis reads in its own row of
//! `Chassis_Template_Var` (ovn-nb(5)). The backends of each port are one variable, set where a node has any. Where it is
//! not set the load balancer does not exist, not even to refuse; so a second one, whose VIP is a variable that is set
//! just on the other nodes, has no backends and refuses.
//!
//! A load balancer with variables is of one family (`options:address-family`). northd reads an IPv6 VIP there only as a
//! variable too (`^vip:port`; seen on OVN 25.03: a literal one is a warning and no flow).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use uuid::Uuid;
use ycloud_api::address::Family;

use super::backends::Backends;
use super::{LoadBalancers, addresses_of, families, ports, reached_at, served, suffix, vpc};
use crate::owner::{ObjectKey, Owner};
use crate::snapshot::{Slice, Snapshot};

/// Whether the cluster address leads only to the client's own node.
pub(crate) fn local(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.internal_traffic_policy.as_deref()) == Some("Local")
}

/// The load balancers of a family that lead to the backends of the client's node: protocol → VIP → variable.
pub(super) fn balancers(key: &ObjectKey, service: &Service, family: Family) -> LoadBalancers {
    templates(key, service, family, |vip, port, variable| {
        let vip = match vip {
            IpAddr::V4(vip) => format!("{vip}:{port}"),
            IpAddr::V6(_) => format!("^{}:{port}", variable.vip(vip)),
        };
        (vip, format!("^{}", variable.backends()))
    })
}

/// The load balancers of a family that refuse where there are none: protocol → variable → nothing.
pub(super) fn refusals(key: &ObjectKey, service: &Service, family: Family) -> LoadBalancers {
    templates(key, service, family, |vip, port, variable| {
        (format!("^{}:{port}", variable.refused(vip)), String::new())
    })
}

fn templates(
    key: &ObjectKey,
    service: &Service,
    family: Family,
    vip: impl Fn(IpAddr, i32, &Variable) -> (String, String),
) -> LoadBalancers {
    let mut balancers = LoadBalancers::new();
    if !local(service) || !served(service) {
        return balancers;
    }
    for (protocol, port) in ports(service) {
        let variable = Variable::of(key, protocol, port, family);
        for address in addresses_of(service, family) {
            let (vip, backends) = vip(address, port.port, &variable);
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
            for family in families(service) {
                let variable = Variable::of(key, protocol, port, family);
                variables.extend(variable.values(service, here.text(port, family)));
            }
        }
    }
    variables
}

/// What all nodes put for the variables of a Service, for its digest: family, protocol and port → node → backends.
pub(crate) fn backends_by_node<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
) -> BTreeMap<(Family, &'static str, i32), BTreeMap<String, String>> {
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
            for family in families(service) {
                let of_port = all.entry((family, protocol, port.port)).or_default();
                of_port.insert(node.to_owned(), here.text(port, family));
            }
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

/// The names of a port's variables, for one family. They say nothing to people, as a variable's name has no room for a
/// Service's.
struct Variable {
    name: Uuid,
    family: Family,
}

impl Variable {
    fn of(key: &ObjectKey, protocol: &str, port: &ServicePort, family: Family) -> Self {
        let owner = Owner::Service(key.clone());
        let role = format!("variable/{protocol}/{}{}", port.port, suffix(family));
        let name = owner.uuid(&role);
        Self { name, family }
    }

    /// What a node puts that has these backends.
    fn values(&self, service: &Service, backends: String) -> Vec<(String, String)> {
        let vips = addresses_of(service, self.family);
        if backends.is_empty() {
            let refused = vips.map(|vip| (self.refused(vip), vip.to_string()));
            return refused.collect();
        }
        let vips = vips.filter(IpAddr::is_ipv6);
        let vips = vips.map(|vip| (self.vip(vip), vip.to_string()));
        vips.chain([(self.backends(), backends)]).collect()
    }

    fn backends(&self) -> String {
        format!("backends_{}", self.name.simple())
    }

    fn vip(&self, vip: IpAddr) -> String {
        self.named("vip", vip)
    }

    fn refused(&self, vip: IpAddr) -> String {
        self.named("refused", vip)
    }

    fn named(&self, what: &str, vip: IpAddr) -> String {
        let vip = vip.to_string().replace(['.', ':'], "_");
        format!("{what}_{}_{vip}", self.name.simple())
    }
}
