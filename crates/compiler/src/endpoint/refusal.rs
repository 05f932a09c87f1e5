//! Why a YusurService is not done as its spec asks.

use std::net::{IpAddr, Ipv4Addr};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ycloud_api::address::Family;
use ycloud_api::backend::Backend;
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::service::{ExternalTrafficPolicy, IpFamilyPolicy, Scope, ServiceType};
use ycloud_api::{YusurService, key};

use crate::desired::service::DEFAULT_TIMEOUT;

use super::{TranslateInput, family, permission, probe, scope, takes};

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// For condition `Accepted`.
    pub verdict: Verdict,
    /// Whether nothing is done. False: all is done but for the one field that cannot be.
    pub withholds: bool,
    /// Whether what exists is taken from the network, too: the Vpc is the reason.
    pub cuts: bool,
}

/// The first reason to refuse `ysvc`, if there is one.
pub fn check(ysvc: &YusurService, input: &TranslateInput) -> Option<Refusal> {
    let withholds = |cuts| {
        move |verdict| Refusal {
            verdict,
            withholds: true,
            cuts,
        }
    };
    unsupported(ysvc)
        .or_else(|| invalid(ysvc))
        .map(withholds(false))
        .or_else(|| permission::check(ysvc, input).map(withholds(true)))
        .or_else(|| unknown_eip(ysvc, input).map(withholds(false)))
        .or_else(|| conflict(ysvc, input).map(withholds(false)))
        .or_else(|| changed_address(ysvc, input))
}

/// Fields that this release cannot do. All are named at once.
fn unsupported(ysvc: &YusurService) -> Option<Verdict> {
    let spec = &ysvc.spec;
    let mut all = Vec::new();
    if let Some(seconds) = timeout(ysvc).filter(|_| spec.scope == Scope::MultiVpc) {
        all.push(format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds {seconds} with scope multiVpc: remove it; a client stays with its backend, without a timeout, as long as the set of backends stays"
        ));
    }
    all.extend(other_families(ysvc));
    (!all.is_empty()).then(|| {
        let text = format!("not supported by this release: {}", all.join("; "));
        Verdict::no(reason::NOT_SUPPORTED, text)
    })
}

/// IPv6 where EIPs are all there is, which are IPv4.
fn other_families(ysvc: &YusurService) -> Option<String> {
    let spec = &ysvc.spec;
    let policy = family::policy(ysvc);
    let named = family::named(ysvc);
    let field = match (
        spec.ip_family_policy,
        spec.ip_families.contains(&Family::Ipv6),
    ) {
        (_, true) => "spec.ipFamilies IPv6".to_owned(),
        (Some(policy), _) if policy != IpFamilyPolicy::SingleStack => {
            format!("spec.ipFamilyPolicy {}", policy.as_str())
        }
        _ => {
            let is_v6 = |text: &&String| text.contains(':');
            let address = family::addresses(ysvc).iter().find(is_v6)?;
            format!("the cluster address {address}")
        }
    };
    if spec.scope == Scope::MultiVpc {
        return Some(format!(
            "{field} with scope multiVpc: its EIP and the backends behind it are IPv4; remove it"
        ));
    }
    let no_ipv4 = policy == IpFamilyPolicy::SingleStack && named == [Family::Ipv6];
    (no_ipv4 && spec.type_ == ServiceType::LoadBalancer).then(|| {
        format!(
            "{field} alone with type LoadBalancer: its EIP is IPv4, and needs IPv4 backends; set spec.ipFamilyPolicy RequireDualStack, or spec.type ClusterIP"
        )
    })
}

/// The affinity timeout that is asked for and is not the default one, in seconds.
fn timeout(ysvc: &YusurService) -> Option<i32> {
    let config = ysvc.spec.session_affinity_config.as_ref()?;
    let seconds = config.client_ip.as_ref()?.timeout_seconds?;
    (seconds != DEFAULT_TIMEOUT).then_some(seconds)
}

/// What admission lets pass because it looks at one field at a time.
fn invalid(ysvc: &YusurService) -> Option<Verdict> {
    let text = invalid_scope(ysvc)
        .or_else(|| invalid_outside(ysvc))
        .or_else(|| invalid_check(ysvc))
        .or_else(|| {
            let mut backends = ysvc.spec.backends.iter().enumerate();
            backends.find_map(|(index, backend)| invalid_backend(ysvc, index, backend))
        })?;
    Some(Verdict::no(reason::INVALID, text))
}

/// Fields that do not go with the scope.
fn invalid_scope(ysvc: &YusurService) -> Option<String> {
    let spec = &ysvc.spec;
    match (spec.scope, &spec.vpc) {
        (Scope::Vpc, None) => Some(
            "spec.vpc: required with scope vpc; name the Vpc of the clients and backends".into(),
        ),
        (Scope::Cluster, Some(vpc)) if vpc != key::DEFAULT_VPC => Some(format!(
            "spec.vpc {vpc}: scope cluster is for the default Vpc {}; make a new YusurService without spec.vpc, or one with scope vpc",
            key::DEFAULT_VPC
        )),
        (Scope::MultiVpc, _) if spec.type_ != ServiceType::LoadBalancer => {
            Some("spec.type ClusterIP: scope multiVpc needs type LoadBalancer".into())
        }
        (Scope::MultiVpc, None) if !spec.selector.is_empty() => Some(
            "spec.selector: with scope multiVpc it needs spec.vpc, the Vpc of the Pods that it selects; or select them in spec.backends[], each with its vpc".into(),
        ),
        (Scope::MultiVpc, _) if spec.external_traffic_policy == ExternalTrafficPolicy::Local => {
            Some("spec.externalTrafficPolicy Local: with scope multiVpc backends see a service gateway's address, not the client's; use Cluster".into())
        }
        _ => None,
    }
}

/// Fields about clients outside.
fn invalid_outside(ysvc: &YusurService) -> Option<String> {
    let spec = &ysvc.spec;
    let ranges = &spec.load_balancer_source_ranges;
    if spec.type_ == ServiceType::ClusterIP {
        let local = spec.external_traffic_policy == ExternalTrafficPolicy::Local;
        let given = [
            (spec.eip.is_some(), "spec.eip"),
            (spec.eip_gateway.is_some(), "spec.eipGateway"),
            (!ranges.is_empty(), "spec.loadBalancerSourceRanges"),
            (local, "spec.externalTrafficPolicy Local"),
        ];
        let (_, field) = given.into_iter().find(|(given, _)| *given)?;
        return Some(format!(
            "{field}: only with type LoadBalancer; remove it, or set spec.type LoadBalancer"
        ));
    }
    let other = ranges.iter().position(|range| range.contains(':'))?;
    Some(format!(
        "spec.loadBalancerSourceRanges[{other}] {}: EIPs are IPv4; remove it",
        ranges[other]
    ))
}

/// A health check that nothing could be asked by.
fn invalid_check(ysvc: &YusurService) -> Option<String> {
    let check = &ysvc.spec.health_check.as_ref()?.check;
    if let Some((field, protocol, None)) = probe::way(check)
        && !probe::has(ysvc, protocol)
    {
        let protocol = protocol.as_str();
        return Some(format!(
            "spec.healthCheck.{field}: no port of spec.ports is {protocol}; name the port in spec.healthCheck.{field}.port, or check by another protocol"
        ));
    }
    let bundle = check.https.as_ref()?.ca_bundle.as_ref()?;
    let mut certificates = CertificateDer::pem_slice_iter(bundle.as_bytes());
    let why = match certificates.next() {
        None => "there is no certificate in it".to_owned(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(_)) => certificates.find_map(Result::err)?.to_string(),
    };
    Some(format!(
        "spec.healthCheck.https.caBundle: not certificates in PEM: {why}; correct it, or remove it and set insecureSkipVerify"
    ))
}

fn invalid_backend(ysvc: &YusurService, index: usize, backend: &Backend) -> Option<String> {
    let spec = &ysvc.spec;
    match (spec.scope, &backend.vpc, scope::vpc_of(ysvc, backend)) {
        (Scope::MultiVpc, _, None) => {
            return Some(format!(
                "spec.backends[{index}].vpc: required with scope multiVpc, as there is no spec.vpc; name the Vpc of these backends"
            ));
        }
        (Scope::Vpc | Scope::Cluster, Some(other), Some(vpc)) if other != vpc => {
            return Some(format!(
                "spec.backends[{index}].vpc {other}: only with scope multiVpc; remove it, backends are in {vpc}"
            ));
        }
        _ => {}
    }
    if let Some(ip) = &backend.ip
        && ip.parse::<IpAddr>().is_err()
    {
        return Some(format!(
            "spec.backends[{index}].ip {ip}: not an address; write one that a VNic holds, for example 10.0.1.7"
        ));
    }
    let known = |name: &String| {
        spec.ports
            .iter()
            .any(|port| port.name.as_ref() == Some(name))
    };
    let at = backend.ports.iter().position(|port| !known(&port.name))?;
    Some(format!(
        "spec.backends[{index}].ports[{at}].name {}: no port of spec.ports has this name",
        backend.ports[at].name
    ))
}

/// An Eip that is named must be there. One that is given as an address, or not at all, is made.
fn unknown_eip(ysvc: &YusurService, input: &TranslateInput) -> Option<Verdict> {
    let name = ysvc.spec.eip.as_deref()?;
    if input.eip.is_some() || name.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    let namespace = scope::own_namespace(ysvc);
    let text = format!(
        "spec.eip {name}: there is no Eip {name} in namespace {namespace}, and those of other namespaces cannot be used; make it, or remove spec.eip to have one made"
    );
    Some(Verdict::no(reason::NOT_FOUND, text))
}

fn conflict(ysvc: &YusurService, input: &TranslateInput) -> Option<Verdict> {
    let service = input.service?;
    if takes(ysvc, service) {
        return None;
    }
    let mut owners = service.metadata.owner_references.iter().flatten();
    let whose = match owners.find(|reference| reference.controller == Some(true)) {
        Some(owner) => format!("belongs to {} {}", owner.kind, owner.name),
        None => "was made by somebody else".to_owned(),
    };
    let name = ysvc.metadata.name.as_deref().unwrap_or_default();
    let text = format!(
        "Service {name} of this namespace exists and {whose}; delete it, or choose another name for the YusurService"
    );
    Some(Verdict::no(reason::CONFLICT, text))
}

/// A Service's addresses cannot change; one that it does not have yet may come. Its ports and endpoints still follow the
/// spec.
fn changed_address(ysvc: &YusurService, input: &TranslateInput) -> Option<Refusal> {
    let spec = input.service?.spec.as_ref()?;
    let present = match spec.cluster_ips.as_deref().unwrap_or_default() {
        [] => spec.cluster_ip.as_slice(),
        all => all,
    };
    let wanted = family::addresses(ysvc).iter().enumerate();
    let mut pairs = wanted.zip(present);
    let ((index, wanted), present) =
        pairs.find(|((_, wanted), present)| wanted != present && !present.is_empty())?;
    let field = match ysvc.spec.cluster_ips.is_empty() {
        true => "spec.clusterIP".to_owned(),
        false => format!("spec.clusterIPs[{index}]"),
    };
    let text = format!(
        "{field} {wanted}: the Service already has {present}, and an address cannot be changed; delete and recreate the YusurService, or remove {field}"
    );
    Some(Refusal {
        verdict: Verdict::no(reason::REFUSED, text),
        withholds: false,
        cuts: false,
    })
}
