//! Pods → backends: which are meant, in which state, and on which ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ycloud_api::address::Family;
use ycloud_api::backend::BackendPort;
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::service::{BackendCounts, Scope, ServicePort};
use ycloud_api::{YusurService, key};

use super::PodBackend;
use super::scope::{namespaces, own_namespace, own_vpc, sets, takes_host_network};

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

/// What the endpoints of one slice have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// The family of their addresses.
    pub family: Family,
    /// The Vpc of their addresses.
    pub vpc: String,
    /// The ports that they listen on, sorted.
    pub ports: Vec<TargetPort>,
}

/// Endpoints by what a slice of them has in common.
pub type Groups = BTreeMap<Shape, Vec<Endpoint>>;

/// The backends of one YusurService.
#[derive(Debug, Default)]
pub struct Found {
    /// Pods that the selectors match, without those that ended.
    matched: usize,
    /// Of those, Pods in another Vpc than they must be, or in none, as "name (where)".
    elsewhere: Vec<String>,
    /// Of the others, Pods without an address yet.
    waiting: usize,
    /// Of the rest, Pods without one in this family.
    lacking: BTreeMap<Family, usize>,
    /// The state of each Pod that is an endpoint, in whatever family.
    states: Vec<EndpointConditions>,
    endpoints: Vec<(Shape, Endpoint)>,
    /// Named target ports as they stand in the spec, and whether a Pod has one.
    named: BTreeMap<(String, &'static str), bool>,
}

/// Finds the backends of `ysvc` among `pods`, at their addresses of these families.
pub fn find(ysvc: &YusurService, pods: &[PodBackend], families: &[Family]) -> Found {
    let mut found = Found::default();
    let mut sorted: Vec<&PodBackend> = pods.iter().collect();
    let place = |candidate: &PodBackend| {
        let meta = &candidate.pod.metadata;
        (meta.namespace.clone(), meta.name.clone())
    };
    sorted.sort_by_cached_key(|candidate| place(candidate));
    for candidate in sorted {
        if !finished(candidate.pod) && selects(ysvc, candidate.pod) {
            found.matched += 1;
            found.add(ysvc, candidate, families);
        }
    }
    found
}

/// Whether `ysvc` means `pod`, by its namespace and its labels or name.
pub fn selects(ysvc: &YusurService, pod: &Pod) -> bool {
    sets(ysvc, pod).next().is_some()
}

impl Found {
    fn add(&mut self, ysvc: &YusurService, candidate: &PodBackend, families: &[Family]) {
        let pod = candidate.pod;
        let vpc = vpc(ysvc, candidate);
        if host_network(pod) && vpc.is_none() {
            self.elsewhere
                .push(format!("{} (on the node's network)", name(ysvc, pod)));
            return;
        }
        let mut sets = sets(ysvc, pod);
        let set = match vpc {
            Some(vpc) => sets.find(|set| set.vpc == Some(vpc)),
            None => sets.next(),
        };
        let Some(set) = set else {
            let vpc = vpc.unwrap_or_default();
            self.elsewhere
                .push(format!("{} (in {vpc})", name(ysvc, pod)));
            return;
        };
        let ports = self.resolve(&ysvc.spec.ports, pod, set.ports);
        let at = |family: &Family| Some((*family, address(candidate, *family)?));
        let addresses: BTreeMap<Family, IpAddr> = families.iter().filter_map(at).collect();
        let (Some(vpc), false) = (vpc, addresses.is_empty()) else {
            self.waiting += 1;
            return;
        };
        for family in families.iter().filter(|f| !addresses.contains_key(f)) {
            *self.lacking.entry(*family).or_default() += 1;
        }
        if ports.is_empty() {
            return;
        }
        let state = conditions(pod, ysvc.spec.publish_not_ready_addresses);
        self.states.push(state.clone());
        self.endpoints
            .extend(addresses.into_iter().map(|(family, address)| {
                let shape = Shape {
                    family,
                    vpc: vpc.to_owned(),
                    ports: ports.clone(),
                };
                (shape, endpoint(pod, address, state.clone()))
            }));
    }

    /// The ports that `pod` listens on. Notes which names were found.
    fn resolve(
        &mut self,
        ports: &[ServicePort],
        pod: &Pod,
        overrides: &[BackendPort],
    ) -> Vec<TargetPort> {
        let mut resolved = Vec::with_capacity(ports.len());
        for port in ports {
            let mut own = overrides.iter();
            let own = own.find(|own| Some(&own.name) == port.name.as_ref());
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

    /// Endpoints by what a slice of them has in common.
    pub fn groups(&self) -> Groups {
        let mut groups = Groups::new();
        for (shape, endpoint) in &self.endpoints {
            let group = groups.entry(shape.clone()).or_default();
            group.push(endpoint.clone());
        }
        groups
    }

    /// Counts for the status. Pods elsewhere are no backends.
    pub fn counts(&self) -> BackendCounts {
        let count = |is: fn(&EndpointConditions) -> bool| {
            self.states.iter().filter(|state| is(state)).count() as i32
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
        let elsewhere = self.elsewhere_text(ysvc);
        if spec.selector.is_empty() && spec.backends.is_empty() {
            let text = "spec.selector and spec.backends are empty: nothing is selected; name labels of Pods of this namespace";
            return Verdict::no(reason::NO_BACKENDS, text);
        }
        if self.matched == 0 {
            let only_own = namespaces(ysvc).len() == 1;
            let text = if only_own {
                "no Pod of this namespace has the labels of spec.selector, or is named by spec.backends"
            } else {
                "no Pod has the labels of spec.selector, or is named by spec.backends, in the namespace that it must be of"
            };
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
        let lacking = self.lacking.iter();
        let lacking = lacking.map(|(family, n)| format!("; {n} without an {family} address"));
        let waiting = waiting + &lacking.collect::<String>();
        let backends = self.matched - self.elsewhere.len();
        let dot = if elsewhere.is_empty() { "" } else { ";" };
        let text = format!("{backends} found{waiting}{dot}{elsewhere}");
        Verdict::yes(reason::RESOLVED, text)
    }

    fn elsewhere_text(&self, ysvc: &YusurService) -> String {
        if self.elsewhere.is_empty() {
            return String::new();
        }
        let named = self.elsewhere.iter().take(NAMED).cloned();
        let named = named.collect::<Vec<_>>().join(", ");
        let rest = match self.elsewhere.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let wanted = match ysvc.spec.scope {
            Scope::MultiVpc => "the Vpc that the spec names for them".to_owned(),
            Scope::Vpc | Scope::Cluster => {
                format!("Vpc {}", own_vpc(ysvc).unwrap_or_default())
            }
        };
        let count = self.elsewhere.len();
        format!(" {count} selected but not in {wanted}: {named}{rest}")
    }
}

/// A Pod's name for messages, with its namespace if that is another than the YusurService's.
fn name(ysvc: &YusurService, pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    match pod.metadata.namespace.as_deref() {
        Some(namespace) if namespace != own_namespace(ysvc) => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    }
}

/// Whether the Pod uses its node's own network.
fn host_network(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.host_network) == Some(true)
}

/// The Vpc that a Pod is reached in: that of its VNic, if it has one. One on the node's network is reached in the default
/// Vpc, where the scope takes such Pods.
fn vpc<'a>(ysvc: &YusurService, backend: &PodBackend<'a>) -> Option<&'a str> {
    if host_network(backend.pod) {
        return takes_host_network(ysvc).then_some(key::DEFAULT_VPC);
    }
    backend.vnic?.status.as_ref()?.vpc.as_deref()
}

/// The address of a Pod's VNic in a family, once it has one; that of its node, if it uses the node's network.
pub fn address(backend: &PodBackend, family: Family) -> Option<IpAddr> {
    let of = |text: &str| {
        let ip: IpAddr = text.parse().ok()?;
        (Family::of(ip) == family).then_some(ip)
    };
    if host_network(backend.pod) {
        let status = backend.pod.status.as_ref()?;
        let ips = status.pod_ips.iter().flatten().map(|pod| pod.ip.as_str());
        return status.pod_ip.as_deref().into_iter().chain(ips).find_map(of);
    }
    let status = backend.vnic?.status.as_ref()?;
    status.links().find_map(|link| of(link.ip))
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
pub fn conditions(pod: &Pod, publish_not_ready: bool) -> EndpointConditions {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let serving = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    EndpointConditions {
        ready: Some(publish_not_ready || (serving && !terminating)),
        serving: Some(serving),
        terminating: Some(terminating),
    }
}

/// `pod` in this state, at one of its addresses.
pub fn endpoint(pod: &Pod, address: IpAddr, state: EndpointConditions) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(state),
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
