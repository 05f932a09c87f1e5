//! Pods → backends: which are meant, in which state, and on which ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ycloud_api::backend::Backend;
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::service::{BackendCounts, ServicePort};
use ycloud_api::{YusurService, selector};

use super::PodBackend;

/// How many Pods a message names before it counts the rest.
const NAMED: usize = 5;

/// A port of endpoints: the Service's port name, the protocol, and the number in the Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetPort {
    /// The Service's name for it; empty if it has none.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: &'static str,
    /// 1 to 65535.
    pub port: i32,
}

/// Endpoints by the ports that they listen on.
pub type Groups = BTreeMap<Vec<TargetPort>, Vec<Endpoint>>;

/// The backends of one YusurService.
#[derive(Debug, Default)]
pub struct Found {
    /// Pods that the selectors match, without those that ended.
    matched: usize,
    /// Of those, Pods in another Vpc or in none, as "name (where)".
    elsewhere: Vec<String>,
    /// Of those in the Vpc, Pods without an address yet.
    waiting: usize,
    endpoints: Vec<(Vec<TargetPort>, Endpoint)>,
    /// Named target ports as they stand in the spec, and whether a Pod has one.
    named: BTreeMap<(String, &'static str), bool>,
}

/// Finds the backends of `ysvc` among `pods`.
pub fn find(ysvc: &YusurService, pods: &[PodBackend]) -> Found {
    let mut found = Found::default();
    let mut sorted: Vec<&PodBackend> = pods.iter().collect();
    sorted.sort_by(|a, b| a.pod.metadata.name.cmp(&b.pod.metadata.name));
    for candidate in sorted {
        if finished(candidate.pod) {
            continue;
        }
        if let Some(overrides) = selected(ysvc, candidate.pod) {
            found.matched += 1;
            found.add(ysvc, candidate, overrides);
        }
    }
    found
}

/// Whether `ysvc` means `pod`, by its labels or name. Both must be of one namespace.
pub fn selects(ysvc: &YusurService, pod: &Pod) -> bool {
    selected(ysvc, pod).is_some()
}

/// Whether the Pod is a backend; if so, the entry of `spec.backends` that says so, unless `spec.selector` does.
fn selected<'a>(ysvc: &'a YusurService, pod: &Pod) -> Option<Option<&'a Backend>> {
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let spec = &ysvc.spec;
    let held = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    if !spec.selector.is_empty() && spec.selector.iter().all(held) {
        return Some(None);
    }
    let meant = |backend: &&Backend| {
        let by_label = |s| selector::matches(s, labels);
        backend.selector.as_ref().is_some_and(by_label)
            || (backend.name.is_some() && backend.name == pod.metadata.name)
    };
    spec.backends.iter().find(meant).map(Some)
}

impl Found {
    fn add(&mut self, ysvc: &YusurService, candidate: &PodBackend, overrides: Option<&Backend>) {
        let pod = candidate.pod;
        let name = pod.metadata.name.clone().unwrap_or_default();
        let ports = self.resolve(&ysvc.spec.ports, pod, overrides);
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network);
        if host_network == Some(true) {
            self.elsewhere
                .push(format!("{name} (on the node's network)"));
            return;
        }
        let status = candidate.vnic.and_then(|vnic| vnic.status.as_ref());
        let vpc = status.and_then(|status| status.vpc.as_ref());
        if let Some(vpc) = vpc.filter(|vpc| Some(*vpc) != ysvc.spec.vpc.as_ref()) {
            self.elsewhere.push(format!("{name} (in {vpc})"));
            return;
        }
        let (Some(address), Some(_)) = (address(candidate), vpc) else {
            self.waiting += 1;
            return;
        };
        if !ports.is_empty() {
            let publish = ysvc.spec.publish_not_ready_addresses;
            self.endpoints
                .push((ports, endpoint(pod, address, publish)));
        }
    }

    /// The ports that `pod` listens on. Notes which names were found.
    fn resolve(
        &mut self,
        ports: &[ServicePort],
        pod: &Pod,
        overrides: Option<&Backend>,
    ) -> Vec<TargetPort> {
        let mut resolved = Vec::with_capacity(ports.len());
        for port in ports {
            let own = overrides.and_then(|backend| {
                let mut ports = backend.ports.iter();
                ports.find(|p| Some(&p.name) == port.name.as_ref())
            });
            let target = own.map(|own| &own.target_port);
            let protocol = port.protocol.as_str();
            let number = match target.or(port.target_port.as_ref()) {
                None => Some(port.port),
                Some(IntOrString::Int(number)) => Some(*number),
                Some(IntOrString::String(name)) => {
                    let number = container_port(pod, name, protocol);
                    let seen = self.named.entry((name.clone(), protocol)).or_default();
                    *seen |= number.is_some();
                    number
                }
            };
            resolved.extend(number.map(|number| TargetPort {
                name: port.name.clone().unwrap_or_default(),
                protocol,
                port: number,
            }));
        }
        resolved.sort();
        resolved
    }

    /// Endpoints by ports.
    pub fn groups(&self) -> Groups {
        let mut groups = Groups::new();
        for (ports, endpoint) in &self.endpoints {
            let group = groups.entry(ports.clone()).or_default();
            group.push(endpoint.clone());
        }
        groups
    }

    /// Counts for the status. Pods elsewhere are no backends.
    pub fn counts(&self) -> BackendCounts {
        let count = |is: fn(&EndpointConditions) -> bool| {
            let endpoints = self.endpoints.iter();
            let conditions = endpoints.filter_map(|(_, endpoint)| endpoint.conditions.as_ref());
            conditions.filter(|c| is(c)).count() as i32
        };
        let total = (self.matched - self.elsewhere.len()) as i32;
        let healthy = count(|c| c.ready == Some(true));
        let draining = count(|c| c.terminating == Some(true) && c.serving == Some(true));
        BackendCounts {
            total,
            healthy,
            draining,
            summary: format!("{healthy}/{total}"),
        }
    }

    /// Condition `BackendsResolved`.
    pub fn verdict(&self, ysvc: &YusurService) -> Verdict {
        let spec = &ysvc.spec;
        let elsewhere = self.elsewhere_text(spec.vpc.as_deref().unwrap_or_default());
        if spec.selector.is_empty() && spec.backends.is_empty() {
            let text = "spec.selector and spec.backends are empty: nothing is selected; name labels of Pods of this namespace";
            return Verdict::no(reason::NO_BACKENDS, text);
        }
        if self.matched == 0 {
            let text = "no Pod of this namespace has the labels of spec.selector, or is named by spec.backends";
            return Verdict::no(reason::NO_BACKENDS, text);
        }
        if self.matched == self.elsewhere.len() {
            let text = format!("no backend:{elsewhere}");
            return Verdict::no(reason::NO_BACKENDS, text);
        }
        let missing: BTreeSet<String> = self
            .named
            .iter()
            .filter(|(_, seen)| !**seen)
            .map(|((name, protocol), _)| format!("{name} ({protocol})"))
            .collect();
        if !missing.is_empty() {
            let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!(
                "spec.ports[].targetPort: no selected Pod has a container port named {missing}; name one that they have, or write its number"
            );
            return Verdict::no(reason::NOT_FOUND, text);
        }
        let waiting = match self.waiting {
            0 => String::new(),
            n => format!("; {n} without an address yet"),
        };
        let backends = self.matched - self.elsewhere.len();
        let dot = if elsewhere.is_empty() { "" } else { ";" };
        let text = format!("{backends} found{waiting}{dot}{elsewhere}");
        Verdict::yes(reason::RESOLVED, text)
    }

    fn elsewhere_text(&self, vpc: &str) -> String {
        if self.elsewhere.is_empty() {
            return String::new();
        }
        let named = self.elsewhere.iter().take(NAMED).cloned();
        let named = named.collect::<Vec<_>>().join(", ");
        let rest = match self.elsewhere.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            " {} selected but not in Vpc {vpc}: {named}{rest}",
            self.elsewhere.len()
        )
    }
}

/// The address of a Pod's VNic, once it has one.
pub fn address(backend: &PodBackend) -> Option<Ipv4Addr> {
    let status = backend.vnic?.status.as_ref()?;
    status.ip.as_ref()?.parse().ok()
}

/// The number of the container port `name`, of any container that runs beside the others for as long as the Pod does.
fn container_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    })?;
    Some(port.container_port)
}

/// Whether the Pod ended and will not run again.
pub fn finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// `ready`, `serving` and `terminating` as KEP-1672 defines them.
pub fn endpoint(pod: &Pod, address: Ipv4Addr, publish_not_ready: bool) -> Endpoint {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let serving = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publish_not_ready || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}
