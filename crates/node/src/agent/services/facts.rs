//! What of Services, EndpointSlices and Nodes concerns a node: a small part, as there may be ten thousand of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::ResourceExt;
use ycloud_api::key::{DEFAULT_VPC, HEADLESS, LOAD_BALANCER_CLASS, PROXY, SERVICE_PROXY_NAME, VPC};
use ycloud_api::made;
use ycloud_api::service::Protocol;

use crate::agent::family::Family;
use crate::agent::objects::Key;

/// Annotation of a Service with backends in several Vpcs: `iaas.yusur.io/scope`.
const MULTI_VPC: &str = "multiVpc";

/// A Service of the default Vpc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Seconds since the epoch at which it was created: of two that claim one address, the older has it.
    pub created: i64,
    /// `spec.clusterIPs`: at most one of each family, never none.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: BTreeSet<IpAddr>,
    /// Addresses that another load balancer than ycloud's sends to the nodes: `status.loadBalancer.ingress`.
    pub ingress: BTreeSet<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may use those; empty for all.
    pub source_ranges: BTreeSet<IpNet>,
    /// `spec.externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `spec.internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `spec.sessionAffinity: ClientIP`.
    pub client_ip: bool,
    /// `spec.healthCheckNodePort`.
    pub health_check: Option<u16>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// UID of the YusurService that it was made for.
    pub made_for: Option<String>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty for the only port.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the Service's addresses.
    pub port: u16,
    /// `nodePort`.
    pub node_port: Option<u16>,
}

/// An EndpointSlice of addresses of either family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The Service's key.
    pub service: Key,
    /// Port name, protocol and number.
    pub ports: Vec<(String, Protocol, u16)>,
    /// Those that take connections.
    pub endpoints: Vec<Endpoint>,
    /// UID of the YusurService that it was made for.
    pub made_for: Option<String>,
}

impl Slice {
    /// Whether it counts for a Service that it names.
    pub fn counts(&self, service: &Service) -> bool {
        made::counts(service.made_for.as_deref(), self.made_for.as_deref())
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Name of the node that it is on.
    pub node: Option<String>,
    /// Takes connections. Otherwise it is terminating and takes them only while no other does.
    pub ready: bool,
}

/// The addresses of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Those of type `InternalIP`; the first of a family is the one by which the node is known.
    pub internal: Vec<IpAddr>,
    /// Those of type `ExternalIP`: others translate them to the node, and Services may have them too.
    pub external: Vec<IpAddr>,
}

impl NodeAddresses {
    /// All of them, the internal ones first.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.internal.iter().chain(&self.external).copied()
    }
}

/// What addresses are compared with, and who the node itself is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Name of this node.
    pub node: String,
    /// Addresses of all nodes, by name.
    pub nodes: BTreeMap<String, NodeAddresses>,
    /// Addresses of the API server.
    pub api_server: BTreeSet<IpAddr>,
    /// Ranges of the default Vpc's Subnets, the join switch's among them.
    pub default_vpc: BTreeSet<IpNet>,
    /// See [`super::world::World::set_reserved`].
    pub reserved: BTreeSet<IpNet>,
}

impl Surroundings {
    /// Whether OVN's load balancer cannot serve the node itself by this endpoint: neither in the default Vpc nor a node.
    pub fn is_outside(&self, ip: IpAddr) -> bool {
        !self.default_vpc.iter().any(|range| range.contains(&ip))
            && !self
                .nodes
                .values()
                .any(|of_node| of_node.all().any(|own| own == ip))
    }

    /// Whether the node may translate an address that a Service names in `spec.externalIPs`. Not a node's, nor the API
    /// server's: it would take its place. Not where the node's own packets enter OVN, either: there OVN knows who may have an address.
    pub fn is_translated(&self, external: IpAddr) -> bool {
        let ranges = self.default_vpc.iter().chain(&self.reserved);
        let mut nodes = self.nodes.values();
        !ranges.into_iter().any(|range| range.contains(&external))
            && !self.api_server.contains(&external)
            && !nodes.any(|of_node| of_node.internal.contains(&external))
    }
}

/// What matters of a Service; `None` if the node has no part in it: no address, another proxy's, another Vpc's.
pub fn service(object: &core::Service) -> Option<Service> {
    let spec = object.spec.as_ref()?;
    let proxy = object.labels().get(SERVICE_PROXY_NAME);
    let vpc = object.annotations().get(VPC);
    let scope = object.annotations().get(ycloud_api::key::SCOPE);
    if proxy.is_some_and(|proxy| proxy != PROXY)
        || object.labels().contains_key(HEADLESS)
        || vpc.is_some_and(|vpc| vpc != DEFAULT_VPC)
        || scope.is_some_and(|scope| scope == MULTI_VPC)
        || spec.type_.as_deref() == Some("ExternalName")
    {
        return None;
    }
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let ips = |texts: &Option<Vec<String>>| {
        let texts = texts.iter().flatten();
        texts.filter_map(|ip| ip.parse().ok()).collect()
    };
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    Some(Service {
        created: object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        cluster_ips: cluster_ips(spec)?,
        external_ips: ips(&spec.external_ips),
        ingress: ingress(object),
        source_ranges: ranges
            .filter_map(|range| range.trim().parse().ok())
            .collect(),
        external_local: local(&spec.external_traffic_policy),
        internal_local: local(&spec.internal_traffic_policy),
        client_ip: spec.session_affinity.as_deref() == Some("ClientIP"),
        health_check: spec.health_check_node_port.and_then(number),
        ports: spec
            .ports
            .iter()
            .flatten()
            .filter_map(service_port)
            .collect(),
        made_for: made::made_for(&object.metadata).map(str::to_owned),
    })
}

/// `None` for a headless Service. An API server that knows no second family gives the one address alone.
fn cluster_ips(spec: &core::ServiceSpec) -> Option<Vec<IpAddr>> {
    let texts = match spec.cluster_ips.as_deref() {
        None | Some([]) => spec.cluster_ip.as_slice(),
        Some(texts) => texts,
    };
    let ips: Vec<IpAddr> = texts
        .iter()
        .map(|ip| ip.parse().ok())
        .collect::<Option<_>>()?;
    (!ips.is_empty()).then_some(ips)
}

/// Addresses of an EIP never come to a node: OVN's gateway takes them.
fn ingress(object: &core::Service) -> BTreeSet<IpAddr> {
    let class = object
        .spec
        .as_ref()
        .and_then(|s| s.load_balancer_class.as_deref());
    if class == Some(LOAD_BALANCER_CLASS) {
        return BTreeSet::new();
    }
    let status = object
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    let vips = ingress.into_iter().flatten();
    // Mode Proxy: the load balancer sends to node ports, and clients must not go past it.
    vips.filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| i.ip.as_ref()?.parse().ok())
        .collect()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(_) => None,
    }
}

fn service_port(port: &core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref())?,
        port: number(port.port)?,
        node_port: port.node_port.and_then(number),
    })
}

/// What matters of an EndpointSlice; `None` if it is of no Service, or its endpoints have no addresses but names.
pub fn slice(object: &discovery::EndpointSlice) -> Option<Slice> {
    Family::named(&object.address_type)?;
    let name = object.labels().get(made::SERVICE_NAME)?.clone();
    let ports = object.ports.iter().flatten().filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        Some((
            name,
            protocol(port.protocol.as_deref())?,
            number(port.port?)?,
        ))
    });
    let endpoints = object.endpoints.iter().filter_map(|endpoint| {
        // Source of the defaults: discovery.k8s.io/v1 EndpointConditions.
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        (ready || (serving && terminating)).then_some(Endpoint {
            // The addresses of one endpoint are interchangeable, and clients use the first one.
            ip: endpoint.addresses.first()?.parse().ok()?,
            node: endpoint.node_name.clone(),
            ready,
        })
    });
    Some(Slice {
        service: (object.namespace().unwrap_or_default(), name),
        ports: ports.collect(),
        endpoints: endpoints.collect(),
        made_for: made::slice_made_for(&object.metadata).map(str::to_owned),
    })
}

/// Addresses of a Node.
pub fn node(object: &core::Node) -> NodeAddresses {
    let status = object.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref());
    let of_kind = |kind: &'static str| {
        let addresses = addresses.into_iter().flatten();
        let addresses = addresses.filter(move |address| address.type_ == kind);
        addresses.filter_map(|address| address.address.parse().ok())
    };
    NodeAddresses {
        internal: of_kind("InternalIP").collect(),
        external: of_kind("ExternalIP").collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: serde_json::Value) -> Option<Service> {
        service(&serde_json::from_value(yaml).unwrap())
    }

    fn plain() -> serde_json::Value {
        serde_json::json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]},
        })
    }

    #[test]
    fn a_node_has_no_part_in_services_of_others() {
        assert!(read(plain()).is_some());
        let cases = [
            (
                "/metadata/labels",
                serde_json::json!({SERVICE_PROXY_NAME: "other"}),
            ),
            ("/metadata/labels", serde_json::json!({HEADLESS: ""})),
            ("/metadata/annotations", serde_json::json!({VPC: "vpc1"})),
            (
                "/metadata/annotations",
                serde_json::json!({"iaas.yusur.io/scope": "multiVpc"}),
            ),
            ("/spec/clusterIP", serde_json::json!("None")),
            ("/spec/type", serde_json::json!("ExternalName")),
        ];
        for (at, value) in cases {
            let mut object = plain();
            let (parent, field) = at.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[field] = value.clone();
            assert_eq!(read(object), None, "{at} {value}");
        }
        let mut ours = plain();
        ours["metadata"]["labels"] = serde_json::json!({SERVICE_PROXY_NAME: PROXY});
        ours["metadata"]["annotations"] = serde_json::json!({VPC: DEFAULT_VPC});
        assert!(read(ours).is_some());
    }

    #[test]
    fn a_service_has_the_addresses_that_it_lists() {
        let mut object = plain();
        let ips = |object: &serde_json::Value| -> Vec<String> {
            let ips = read(object.clone()).unwrap().cluster_ips;
            ips.iter().map(IpAddr::to_string).collect()
        };
        assert_eq!(ips(&object), ["10.96.0.9"]);
        object["spec"]["clusterIPs"] = serde_json::json!(["fd00:96::9", "10.96.0.9"]);
        assert_eq!(ips(&object), ["fd00:96::9", "10.96.0.9"]);
        object["spec"]["clusterIPs"] = serde_json::json!(["None"]);
        assert_eq!(read(object), None);
    }

    #[test]
    fn only_virtual_addresses_of_other_load_balancers_come_to_nodes() {
        let mut object = plain();
        object["status"] = serde_json::json!({"loadBalancer": {"ingress": [
            {"ip": "198.51.100.7", "ipMode": "VIP"}, {"ip": "198.51.100.8"},
            {"ip": "198.51.100.9", "ipMode": "Proxy"}, {"hostname": "a.example"},
        ]}});
        let ips = |object| read(object).unwrap().ingress;
        assert_eq!(ips(object.clone()).len(), 2);
        object["spec"]["loadBalancerClass"] = LOAD_BALANCER_CLASS.into();
        assert!(ips(object).is_empty());
    }
}
