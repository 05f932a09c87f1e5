//! One Service → what the node does for it. Pure.
//!
//! The node does as little as it can: it gives OVN what came for a node port or an external address, by translating that to
//! the cluster address, which the join switch's load balancer serves. Only what OVN cannot do is done here: keep clients'
//! addresses with `externalTrafficPolicy: Local`, and reach endpoints outside the cluster, whose answers would pass OVN by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ycloud_api::service::Protocol;

use super::facts::{Service, ServicePort, Slice, Surroundings};
use crate::agent::family::Family;
use crate::agent::objects::Key;

/// What clients call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// A port of every address of a family that the node has.
    NodePort(Family, Protocol, u16),
    /// A port of one address.
    Address(IpAddr, Protocol, u16),
}

impl Frontend {
    /// Its family.
    pub fn family(self) -> Family {
        match self {
            Frontend::NodePort(family, ..) => family,
            Frontend::Address(ip, ..) => Family::of(ip),
        }
    }

    /// Its protocol.
    pub fn protocol(self) -> Protocol {
        match self {
            Frontend::NodePort(_, protocol, _) | Frontend::Address(_, protocol, _) => protocol,
        }
    }
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// To the cluster address: OVN picks the endpoint.
    ClusterIp(SocketAddr),
    /// The node picks the endpoint.
    Chain(Chain),
}

/// A choice among targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in its family.
    pub name: String,
    /// The family of its targets.
    pub family: Family,
    /// Protocol.
    pub protocol: Protocol,
    /// Who may pass; empty for all.
    pub sources: BTreeSet<IpNet>,
    /// To choose from; none: dropped.
    pub targets: Vec<SocketAddr>,
    /// Those of them that are not on this node: their answers come back only if they are sent to the node.
    pub elsewhere: Vec<SocketAddr>,
    /// One client address gets one target.
    pub by_client: bool,
}

/// What happens to connections to a frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The frontend.
    pub frontend: Frontend,
    /// The way of all connections, or of all but those of `outer`.
    pub way: Way,
    /// The way of those that come from outside the cluster, where it is another.
    pub outer: Option<Chain>,
}

/// What the node does for a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRules {
    /// See [`Service::created`].
    pub created: i64,
    /// At most one for a frontend.
    pub rules: Vec<Rule>,
    /// Those of its cluster addresses that the node itself serves.
    pub outside: BTreeSet<IpAddr>,
    /// `healthCheckNodePort`, and how many endpoints on this node are ready.
    pub health: Option<(u16, usize)>,
}

/// What the node does for the Service `key`.
pub fn rules(
    key: &Key,
    service: &Service,
    slices: &[&Slice],
    around: &Surroundings,
) -> ServiceRules {
    let mut all = ServiceRules {
        created: service.created,
        health: health(service, slices, around),
        ..Default::default()
    };
    let ips = service.cluster_ips.iter();
    for (cluster_ip, port) in ips.flat_map(|ip| service.ports.iter().map(move |port| (*ip, port))) {
        let family = Family::of(cluster_ip);
        let of_port = PortRules {
            key,
            service,
            port,
            cluster_ip,
            around,
            everywhere: targets(slices, family, port, None),
            here: targets(slices, family, port, Some(&around.node)),
        };
        let outside = of_port.everywhere.iter().any(|t| around.is_outside(t.ip()));
        // With internalTrafficPolicy Local an endpoint that is on no node serves nobody.
        if outside && !service.internal_local {
            all.outside.insert(cluster_ip);
        }
        all.rules.extend(of_port.rules(outside));
    }
    all
}

/// `None` unless the Service asks for a health check.
fn health(service: &Service, slices: &[&Slice], around: &Surroundings) -> Option<(u16, usize)> {
    let port = service.health_check.filter(|_| service.external_local)?;
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    // Who has addresses of both families is one endpoint: those of the first are counted.
    let family = service.cluster_ips.first().map(|ip| Family::of(*ip));
    let endpoints = endpoints.filter(|e| family == Some(Family::of(e.ip)));
    let here = endpoints.filter(|e| e.ready && e.node.as_ref() == Some(&around.node));
    let here: BTreeSet<IpAddr> = here.map(|endpoint| endpoint.ip).collect();
    Some((port, here.len()))
}

/// Endpoints of a port in a family, on one node or on all: those that are ready, else those that are terminating and still serve.
fn targets(
    slices: &[&Slice],
    family: Family,
    port: &ServicePort,
    node: Option<&String>,
) -> Vec<SocketAddr> {
    let mut found: BTreeMap<bool, BTreeSet<SocketAddr>> = BTreeMap::new();
    for slice in slices {
        let fits = |(name, protocol, _): &&(String, Protocol, u16)| {
            *name == port.name && *protocol == port.protocol
        };
        let Some((_, _, number)) = slice.ports.iter().find(fits) else {
            continue;
        };
        let endpoints = slice.endpoints.iter();
        let endpoints = endpoints.filter(|e| Family::of(e.ip) == family);
        for endpoint in endpoints.filter(|e| node.is_none() || e.node.as_ref() == node) {
            let target = SocketAddr::new(endpoint.ip, *number);
            found.entry(endpoint.ready).or_default().insert(target);
        }
    }
    let found = found.remove(&true).or_else(|| found.remove(&false));
    found.into_iter().flatten().collect()
}

struct PortRules<'a> {
    key: &'a Key,
    service: &'a Service,
    port: &'a ServicePort,
    cluster_ip: IpAddr,
    around: &'a Surroundings,
    everywhere: Vec<SocketAddr>,
    here: Vec<SocketAddr>,
}

impl PortRules<'_> {
    fn family(&self) -> Family {
        Family::of(self.cluster_ip)
    }

    fn rules(&self, outside: bool) -> Vec<Rule> {
        let Self { service, port, .. } = self;
        let cluster = SocketAddr::new(self.cluster_ip, port.port);
        // The cluster address of a Service with internalTrafficPolicy Local leads to this node's endpoints alone.
        let direct = (outside || service.internal_local) && !self.everywhere.is_empty();
        let way = || match direct {
            true => Way::Chain(self.chain("cluster", &self.everywhere)),
            false => Way::ClusterIp(cluster),
        };
        let local = || {
            service
                .external_local
                .then(|| self.chain("local", &self.here))
        };
        let address = |ip: &IpAddr| Frontend::Address(*ip, port.protocol, port.port);
        let rule = |frontend, outer| Rule {
            frontend,
            way: way(),
            outer,
        };
        let mut rules = Vec::new();
        if outside && !service.internal_local {
            rules.push(rule(address(&self.cluster_ip), None));
        }
        if let Some(number) = port.node_port {
            let node_port = Frontend::NodePort(self.family(), port.protocol, number);
            rules.push(rule(node_port, local()));
        }
        let of_family = |ip: &&IpAddr| Family::of(**ip) == self.family();
        let asked = service.external_ips.iter().filter(of_family);
        let external = asked.filter(|ip| self.around.is_translated(**ip));
        rules.extend(external.map(|ip| rule(address(ip), local())));
        let ingress = service.ingress.difference(&service.external_ips);
        let ingress = ingress.filter(of_family);
        let restricted = || match (service.source_ranges.is_empty(), &way()) {
            (true, _) => local(),
            (false, _) if service.external_local => Some(self.restricted(&self.here)),
            (false, Way::ClusterIp(cluster)) => Some(self.restricted(&[*cluster])),
            (false, Way::Chain(chain)) => Some(self.restricted(&chain.targets)),
        };
        rules.extend(ingress.map(|ip| rule(address(ip), restricted())));
        rules
    }

    fn chain(&self, kind: &str, targets: &[SocketAddr]) -> Chain {
        let (namespace, name) = self.key;
        let protocol = self.port.protocol;
        let elsewhere = targets.iter().filter(|target| !self.here.contains(target));
        Chain {
            name: format!(
                "{kind}/{namespace}/{name}/{}/{}",
                lower(protocol),
                self.port.port
            ),
            family: self.family(),
            protocol,
            sources: BTreeSet::new(),
            targets: targets.to_vec(),
            elsewhere: elsewhere.copied().collect(),
            by_client: self.service.client_ip,
        }
    }

    /// Where the Service names clients of the other family only, nobody of this one may pass.
    fn restricted(&self, targets: &[SocketAddr]) -> Chain {
        let ranges = self.service.source_ranges.iter();
        let ranges = ranges.filter(|range| Family::of(range.addr()) == self.family());
        let sources: BTreeSet<IpNet> = ranges.copied().collect();
        let targets = if sources.is_empty() { &[] } else { targets };
        Chain {
            sources,
            ..self.chain("restricted", targets)
        }
    }
}

/// The name of a protocol in nft(8).
pub fn lower(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::SCTP => "sctp",
    }
}
