//! Why a YusurService is not done as its spec asks.

use ycloud_api::YusurService;
use ycloud_api::backend::{Backend, BackendKind};
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::service::{ExternalTrafficPolicy, Scope, ServiceType};

use super::{TranslateInput, belongs};

/// The timeout that built-in Services have by default, in seconds.
const DEFAULT_AFFINITY_TIMEOUT: i32 = 10_800;

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// For condition `Accepted`.
    pub verdict: Verdict,
    /// Whether nothing is done. False: all is done but for the one field that cannot be.
    pub withholds: bool,
}

/// The first reason to refuse `ysvc`, if there is one.
pub fn check(ysvc: &YusurService, input: &TranslateInput) -> Option<Refusal> {
    let withholds = |verdict| Refusal {
        verdict,
        withholds: true,
    };
    unsupported(ysvc)
        .or_else(|| invalid(ysvc))
        .or_else(|| forbidden(ysvc, input))
        .or_else(|| conflict(ysvc, input))
        .map(withholds)
        .or_else(|| changed_address(ysvc, input))
}

/// Fields whose scenario this release cannot do. All are named at once.
fn unsupported(ysvc: &YusurService) -> Option<Verdict> {
    let spec = &ysvc.spec;
    let mut all = Vec::new();
    let mut say = |text: String| all.push(text);
    if spec.type_ == ServiceType::LoadBalancer {
        say("spec.type LoadBalancer: use ClusterIP".into());
    }
    if spec.scope != Scope::Vpc {
        say(format!(
            "spec.scope {}: make a new YusurService with scope vpc",
            spec.scope.as_str()
        ));
    }
    if let Some(eip) = &spec.eip {
        say(format!("spec.eip {eip}: remove it"));
    }
    if let Some(gateway) = &spec.eip_gateway {
        say(format!("spec.eipGateway {gateway}: remove it"));
    }
    if let Some(first) = spec.load_balancer_source_ranges.first() {
        say(format!(
            "spec.loadBalancerSourceRanges [{first}, …]: remove it"
        ));
    }
    if spec.external_traffic_policy == ExternalTrafficPolicy::Local {
        say("spec.externalTrafficPolicy Local: use Cluster".into());
    }
    if spec.health_check.is_some() {
        say(
            "spec.healthCheck: remove it; a Pod's own readiness decides whether it is healthy"
                .into(),
        );
    }
    let config = spec.session_affinity_config.as_ref();
    let timeout = config.and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = timeout.filter(|seconds| *seconds != DEFAULT_AFFINITY_TIMEOUT) {
        say(format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds {seconds}: remove it; a client stays with its backend, without a timeout, as long as the set of backends stays"
        ));
    }
    let namespace = ysvc.metadata.namespace.as_deref().unwrap_or_default();
    for (index, backend) in spec.backends.iter().enumerate() {
        all.extend(unsupported_backend(index, backend, namespace));
    }
    (!all.is_empty()).then(|| {
        let text = format!("not supported by this release: {}", all.join("; "));
        Verdict::no(reason::NOT_SUPPORTED, text)
    })
}

fn unsupported_backend(index: usize, backend: &Backend, namespace: &str) -> Option<String> {
    let kind = match backend.kind {
        BackendKind::Pod => {
            let other = backend.namespace.as_deref().filter(|ns| *ns != namespace)?;
            return Some(format!(
                "spec.backends[{index}].namespace {other}: only Pods of the own namespace; remove it"
            ));
        }
        BackendKind::VM => "VM",
        BackendKind::BM => "BM",
        BackendKind::VNicIP => "VNicIP",
    };
    Some(format!(
        "spec.backends[{index}].kind {kind}: only Pod; remove this backend"
    ))
}

/// What admission lets pass because it looks at one field at a time.
fn invalid(ysvc: &YusurService) -> Option<Verdict> {
    let spec = &ysvc.spec;
    let no = |text: String| Some(Verdict::no(reason::INVALID, text));
    let Some(vpc) = &spec.vpc else {
        return no(
            "spec.vpc: required with scope vpc; name the Vpc of the clients and backends".into(),
        );
    };
    for (index, backend) in spec.backends.iter().enumerate() {
        if let Some(other) = backend.vpc.as_ref().filter(|other| *other != vpc) {
            return no(format!(
                "spec.backends[{index}].vpc {other}: only with scope multiVpc; remove it, backends are in {vpc}"
            ));
        }
        for (at, port) in backend.ports.iter().enumerate() {
            let known = |p: &ycloud_api::service::ServicePort| p.name.as_ref() == Some(&port.name);
            if !spec.ports.iter().any(known) {
                return no(format!(
                    "spec.backends[{index}].ports[{at}].name {}: no port of spec.ports has this name",
                    port.name
                ));
            }
        }
    }
    None
}

fn forbidden(ysvc: &YusurService, input: &TranslateInput) -> Option<Verdict> {
    let name = ysvc.spec.vpc.as_deref().unwrap_or_default();
    let Some(vpc) = input.vpc else {
        let text = format!(
            "spec.vpc {name}: there is no such Vpc; make it, or make a new YusurService that names another one"
        );
        return Some(Verdict::no(reason::NOT_FOUND, text));
    };
    let namespace = ysvc.metadata.namespace.as_deref().unwrap_or_default();
    if vpc.spec.permits(namespace, input.namespace_labels) {
        return None;
    }
    let text = format!(
        "spec.vpc {name}: Vpc {name} does not permit namespace {namespace}; have it added to the Vpc's spec.allowedNamespaces"
    );
    Some(Verdict::no(reason::NOT_PERMITTED, text))
}

fn conflict(ysvc: &YusurService, input: &TranslateInput) -> Option<Verdict> {
    let service = input.service?;
    if belongs(service, ysvc) {
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

/// A Service's address cannot change. Its ports and endpoints still follow the spec.
fn changed_address(ysvc: &YusurService, input: &TranslateInput) -> Option<Refusal> {
    let wanted = ysvc.spec.cluster_ip.as_deref()?;
    let present = input.service?.spec.as_ref()?.cluster_ip.as_deref()?;
    if present == wanted || present.is_empty() {
        return None;
    }
    let text = format!(
        "spec.clusterIP {wanted}: the Service already has {present}, and an address cannot be changed; delete and recreate the YusurService, or remove spec.clusterIP"
    );
    Some(Refusal {
        verdict: Verdict::no(reason::REFUSED, text),
        withholds: false,
    })
}
