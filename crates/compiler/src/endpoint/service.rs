//! The Service of a YusurService.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ycloud_api::YusurService;
use ycloud_api::key;
use ycloud_api::service::SessionAffinity;

use super::{holds, owner_reference, owner_uid};

/// The Service that `ysvc` must have. `keep_address`: do not ask for `spec.clusterIP`, because the Service has another.
/// One that somebody deleted (there is no `present` one) is made anew under the address that clients know.
pub fn build(ysvc: &YusurService, present: Option<&Service>, keep_address: bool) -> Service {
    let spec = &ysvc.spec;
    let status = ysvc.status.as_ref().filter(|_| present.is_none());
    let former = || status.and_then(|status| status.cluster_ip.clone());
    let address = spec.cluster_ip.clone().or_else(former);
    let text = |value: &str| Some(value.to_owned());
    let vpc = spec.vpc.clone().unwrap_or_default();
    Service {
        metadata: ObjectMeta {
            name: ysvc.metadata.name.clone(),
            namespace: ysvc.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([(
                key::SERVICE_PROXY_NAME.into(),
                key::PROXY.into(),
            )])),
            annotations: Some(BTreeMap::from([
                (key::VPC.into(), vpc),
                (key::SCOPE.into(), spec.scope.as_str().into()),
            ])),
            owner_references: Some(vec![owner_reference(ysvc)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: text("ClusterIP"),
            cluster_ip: address.filter(|_| !keep_address),
            ip_families: Some(vec!["IPv4".into()]),
            ip_family_policy: text("SingleStack"),
            ports: Some(spec.ports.iter().map(port).collect()),
            session_affinity: text(match spec.session_affinity {
                SessionAffinity::None => "None",
                SessionAffinity::ClientIP => "ClientIP",
            }),
            publish_not_ready_addresses: Some(spec.publish_not_ready_addresses),
            ..ServiceSpec::default()
        }),
        status: None,
    }
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
    holds(&meta.0.labels, &meta.1.labels)
        && holds(&meta.0.annotations, &meta.1.annotations)
        && owner_uid(&meta.0.owner_references) == owner_uid(&meta.1.owner_references)
        && a.type_ == b.type_
        && (b.cluster_ip.is_none() || a.cluster_ip == b.cluster_ip)
        && a.ip_families == b.ip_families
        && a.ip_family_policy == b.ip_family_policy
        && ports(a) == ports(b)
        && a.session_affinity == b.session_affinity
        && a.selector.as_ref().is_none_or(BTreeMap::is_empty)
        && a.external_ips.as_ref().is_none_or(Vec::is_empty)
        && a.publish_not_ready_addresses.unwrap_or(false)
            == b.publish_not_ready_addresses.unwrap_or(false)
}
