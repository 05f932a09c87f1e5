//! The Service of a YusurService.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ycloud_api::YusurService;
use ycloud_api::key;
use ycloud_api::service::{IpFamilyPolicy, Scope, ServiceType, SessionAffinity};

use crate::desired::service::DEFAULT_TIMEOUT;

use super::{family, holds, owner_reference, owner_uid, scope};

/// The annotations that only ycloud sets: one that is not wanted is taken away.
pub const ANNOTATIONS: [&str; 4] = [key::VPC, key::SCOPE, key::EIP, key::EIP_GATEWAY];

/// The Service that `ysvc` must have. `keep_address`: do not ask for the spec's addresses, because the Service has others.
/// One that somebody deleted (there is no `present` one) is made anew under the addresses that clients know.
pub fn build(ysvc: &YusurService, present: Option<&Service>, keep_address: bool) -> Service {
    let spec = &ysvc.spec;
    let addresses = Some(family::cluster_ips(ysvc, present)).filter(|_| !keep_address);
    let addresses = addresses.unwrap_or_default();
    let policy = family::policy(ysvc);
    let families = family::wanted(ysvc, present);
    let families: Vec<String> = families.into_iter().map(|f| f.name().to_owned()).collect();
    let text = |value: &str| Some(value.to_owned());
    let outside = spec.type_ == ServiceType::LoadBalancer;
    let ranges = &spec.load_balancer_source_ranges;
    Service {
        metadata: ObjectMeta {
            name: ysvc.metadata.name.clone(),
            namespace: ysvc.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([(
                key::SERVICE_PROXY_NAME.into(),
                key::PROXY.into(),
            )])),
            annotations: Some(annotations(ysvc)),
            owner_references: Some(vec![owner_reference(ysvc)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: text(if outside { LOAD_BALANCER } else { "ClusterIP" }),
            load_balancer_class: text(key::LOAD_BALANCER_CLASS).filter(|_| outside),
            // Node ports are the way in for load balancers that only know nodes.
            allocate_load_balancer_node_ports: outside.then_some(false),
            load_balancer_source_ranges: Some(ranges.clone()).filter(|_| outside),
            // The policy Local is kept by nature: no node stands between client and backend.
            external_traffic_policy: text("Cluster").filter(|_| outside),
            cluster_ip: addresses.first().cloned(),
            cluster_ips: match (policy, present) {
                (IpFamilyPolicy::SingleStack, Some(present)) => without_second(present),
                _ => Some(addresses).filter(|addresses| addresses.len() > 1),
            },
            ip_families: Some(families).filter(|families| !families.is_empty()),
            ip_family_policy: text(policy.as_str()),
            ports: Some(spec.ports.iter().map(port).collect()),
            session_affinity: text(match spec.session_affinity {
                SessionAffinity::None => "None",
                SessionAffinity::ClientIP => "ClientIP",
            }),
            session_affinity_config: affinity_config(ysvc),
            publish_not_ready_addresses: Some(spec.publish_not_ready_addresses),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The Service that `ysvc` must have if there is none, and nothing is remembered of a former one.
pub fn afresh(ysvc: &YusurService, present: Option<&Service>) -> Option<Service> {
    if present.is_some() || ysvc.status.is_none() {
        return None;
    }
    let unknown = YusurService {
        status: None,
        ..ysvc.clone()
    };
    Some(build(&unknown, None, false))
}

/// Whether a Service was made by yusurservice-controller, whosever it is now: it has the marks that [`build`] sets on each.
pub fn is_left(service: &Service) -> bool {
    let meta = &service.metadata;
    let label = meta.labels.as_ref();
    let label = label.and_then(|all| all.get(key::SERVICE_PROXY_NAME));
    let annotations = meta.annotations.as_ref();
    label.is_some_and(|name| name == key::PROXY)
        && annotations.is_some_and(|all| all.contains_key(key::SCOPE))
}

/// The addresses to keep of a Service of two families that is to have one: the API server wants to be told.
fn without_second(present: &Service) -> Option<Vec<String>> {
    let addresses = present.spec.as_ref()?.cluster_ips.as_deref()?;
    match addresses {
        [first, _] => Some(vec![first.clone()]),
        _ => None,
    }
}

/// The timeout that the API server would fill in otherwise is written, so that one that is taken away is unset.
fn affinity_config(ysvc: &YusurService) -> Option<SessionAffinityConfig> {
    if ysvc.spec.session_affinity != SessionAffinity::ClientIP {
        return None;
    }
    let config = ysvc.spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    Some(SessionAffinityConfig {
        client_ip: Some(ClientIPConfig {
            timeout_seconds: Some(seconds.unwrap_or(DEFAULT_TIMEOUT)),
        }),
    })
}

/// `Service.spec.type` of Services that are reached from outside.
const LOAD_BALANCER: &str = "LoadBalancer";

/// The Vpc is left out where backends are of several: each EndpointSlice names its own.
fn annotations(ysvc: &YusurService) -> BTreeMap<String, String> {
    let spec = &ysvc.spec;
    let one = spec.scope != Scope::MultiVpc;
    let outside = spec.type_ == ServiceType::LoadBalancer;
    let vpc = scope::own_vpc(ysvc).filter(|_| one);
    let eip = spec.eip.as_deref().filter(|_| outside);
    let gateway = spec.eip_gateway.as_deref().filter(|_| outside);
    [
        (key::VPC, vpc),
        (key::SCOPE, Some(spec.scope.as_str())),
        (key::EIP, eip),
        (key::EIP_GATEWAY, gateway),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
    .collect()
}

fn port(port: &ycloud_api::service::ServicePort) -> ServicePort {
    let same = || IntOrString::Int(port.port);
    ServicePort {
        name: port.name.clone(),
        protocol: Some(port.protocol.as_str().into()),
        port: port.port,
        target_port: Some(port.target_port.clone().unwrap_or_else(same)),
        ..ServicePort::default()
    }
}

/// Whether `present` reads as `wanted` in every field that [`build`] sets, and has nobody else's selector (by which
/// Kubernetes would write EndpointSlices) or addresses.
pub fn same(present: &Service, wanted: &Service) -> bool {
    let (Some(a), Some(b)) = (&present.spec, &wanted.spec) else {
        return false;
    };
    // The order of ports means nothing.
    let ports = |spec: &ServiceSpec| -> BTreeMap<_, _> {
        let ports = spec.ports.iter().flatten().cloned();
        let entry = |p: ServicePort| ((p.port, p.protocol), (p.name, p.target_port));
        ports.map(entry).collect()
    };
    let meta = (&present.metadata, &wanted.metadata);
    let annotation = |service: &Service, name: &str| {
        let annotations = service.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(name)).cloned()
    };
    let annotated = |name: &&str| annotation(present, name) == annotation(wanted, name);
    holds(&meta.0.labels, &meta.1.labels)
        && ANNOTATIONS.iter().all(annotated)
        && owner_uid(&meta.0.owner_references) == owner_uid(&meta.1.owner_references)
        && same_outside(a, b)
        && (b.cluster_ip.is_none() || a.cluster_ip == b.cluster_ip)
        && (b.cluster_ips.is_none() || a.cluster_ips == b.cluster_ips)
        && same_families(a, b)
        && a.ip_family_policy == b.ip_family_policy
        && ports(a) == ports(b)
        && a.session_affinity == b.session_affinity
        && a.session_affinity_config == b.session_affinity_config
        && a.selector.as_ref().is_none_or(BTreeMap::is_empty)
        && a.external_ips.as_ref().is_none_or(Vec::is_empty)
        && a.publish_not_ready_addresses.unwrap_or(false)
            == b.publish_not_ready_addresses.unwrap_or(false)
}

/// Whether the families are the same. The API server adds the second one where the policy is for two.
fn same_families(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    let (present, wanted) = (a.ip_families.as_deref(), b.ip_families.as_deref());
    let single = b.ip_family_policy.as_deref() == Some(IpFamilyPolicy::SingleStack.as_str());
    match single {
        true => present == wanted,
        false => present
            .unwrap_or_default()
            .starts_with(wanted.unwrap_or_default()),
    }
}

/// Whether what makes a Service reachable from outside is the same. The order of the ranges means
/// nothing, and the API server leaves out an empty list.
fn same_outside(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    let ranges = |spec: &ServiceSpec| -> BTreeSet<String> {
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        ranges.cloned().collect()
    };
    a.type_ == b.type_
        && a.load_balancer_class == b.load_balancer_class
        && a.allocate_load_balancer_node_ports == b.allocate_load_balancer_node_ports
        && a.external_traffic_policy == b.external_traffic_policy
        && ranges(a) == ranges(b)
}
