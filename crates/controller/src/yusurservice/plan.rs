//! What one YusurService needs now: writes, and the status to tell. Pure, no clock but the given one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use ycloud_api::condition::{self, Verdict, reason};
use ycloud_api::made::{
    self, ENDPOINTS_MANAGED_BY, ENDPOINTSLICE_CONTROLLER, ENDPOINTSLICE_MIRRORING_CONTROLLER,
    MANAGED_BY, SERVICE_NAME, slice_made_for,
};
use ycloud_api::{NetworkProbe, YusurService, YusurServiceStatus, key};
use ycloud_compiler::ObjectKey;
use ycloud_compiler::desired::service::takes_eip;
use ycloud_compiler::endpoint::{
    ANNOTATIONS, HealthChange, Translation, belongs, takes, translate,
};

use super::probes::is_of;
use super::world::World;
use crate::status::service::ACCEPTED as SERVICE_ACCEPTED;

/// What to do for one YusurService.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The YusurService as it was read.
    pub ysvc: Arc<YusurService>,
    /// EndpointSlices to apply, before the Service.
    pub slices: Vec<EndpointSlice>,
    /// The Service to apply.
    pub service: Option<Service>,
    /// The Service to make instead of that one, if the API server refuses what it was remembered to be.
    pub afresh: Option<Service>,
    /// Whether the Service does not exist yet.
    pub creates: bool,
    /// The owners to give to a Service that exists and is nobody's.
    adopts: Option<Vec<OwnerReference>>,
    /// Names of EndpointSlices to delete, at last.
    pub surplus: Vec<String>,
    /// Whether to delete the Endpoints of the Service's name, which Kubernetes wrote while the Service had a selector.
    pub surplus_endpoints: bool,
    /// EndpointSlices to apply instead of all that, if the API server refuses the Service.
    pub if_refused: Vec<EndpointSlice>,
    /// NetworkProbes to make, or to become an owner of, at any time.
    pub wanted_probes: Vec<NetworkProbe>,
    /// Names of NetworkProbes to be no owner of any more.
    pub surplus_probes: Vec<String>,
    /// Why NetworkProbes cannot be written, if that failed: for the status.
    pub unwritten: Option<String>,
    /// UID of the Service that exists.
    uid: Option<String>,
    translation: Translation,
    /// The cluster addresses of the Service that exists, the primary one first.
    cluster_ips: Vec<String>,
    /// The address of a Service that takes an EIP, once it has one.
    eip: Option<String>,
    /// The nodes that choose the backends of what comes from outside.
    gateway_nodes: Option<String>,
    /// Names of EndpointSlices that name the Service and are somebody else's.
    foreign: Vec<String>,
    /// What ycloud-controller has against the Service.
    refused: Option<Verdict>,
    programmed: Verdict,
}

/// Plans for the YusurService `key`. None if it does not exist or is being deleted: what was made for it goes with it,
/// by its owner references.
pub fn plan(world: &World, key: &ObjectKey, now: &Time) -> Option<Plan> {
    let ysvc = world.ysvc(key)?;
    if ysvc.meta().deletion_timestamp.is_some() {
        return None;
    }
    let translation = world.with_input(ysvc, now, |input| translate(ysvc, input));
    let present = world.service(key);
    let slices = world.slices(key);
    let writes = translation.objects.as_ref();
    let writes = writes.map(|objects| objects.writes(present, &slices));
    let writes = writes.unwrap_or_default();
    let mine = present.filter(|service| takes(ysvc, service));
    let adopts = mine
        .filter(|service| !belongs(service, ysvc))
        .zip(writes.service);
    let owners = |service: &Service| {
        service
            .metadata
            .owner_references
            .clone()
            .unwrap_or_default()
    };
    let adopts = adopts.map(|(mine, wanted)| [owners(mine), owners(wanted)].concat());
    let objects = translation.objects.as_ref();
    let afresh = objects.and_then(|objects| objects.afresh.clone());
    let spec = mine.and_then(|service| service.spec.as_ref());
    let pending = Verdict::no(
        reason::PENDING,
        "the Service and its EndpointSlices are being written",
    );
    let programmed = match mine {
        Some(service) if writes.is_empty() => programmed(service, &slices),
        _ => pending,
    };
    let (wanted_probes, surplus_probes) = probes(world, ysvc, &translation);
    let others = mine.map(|service| Others::of(ysvc, service, &slices));
    let others = others.unwrap_or_default();
    let mut surplus = writes.surplus;
    surplus.extend(others.left);
    Some(Plan {
        ysvc: Arc::clone(ysvc),
        wanted_probes,
        surplus_probes,
        unwritten: None,
        slices: writes.slices.into_iter().cloned().collect(),
        service: writes.service.cloned(),
        afresh,
        creates: present.is_none(),
        adopts,
        surplus,
        surplus_endpoints: others.endpoints,
        foreign: others.foreign,
        if_refused: writes.if_refused.into_iter().cloned().collect(),
        uid: mine.and_then(|service| service.metadata.uid.clone()),
        cluster_ips: spec.map(cluster_ips).unwrap_or_default(),
        eip: mine.and_then(eip),
        gateway_nodes: mine.and_then(eip).and_then(|_| world.gateway_nodes(ysvc)),
        // Of a Service that is to be changed it was said of what it was.
        refused: mine.filter(|_| writes.service.is_none()).and_then(refusal),
        programmed,
        translation,
    })
}

/// EndpointSlices that name a YusurService's Service, and that somebody else wrote: nobody is sent to their endpoints.
#[derive(Default)]
struct Others {
    /// Names of those that Kubernetes wrote while the Service had a selector, and of those that a YusurService left behind.
    left: Vec<String>,
    /// Whether there are Endpoints that Kubernetes wrote then, of which it goes on to make EndpointSlices.
    endpoints: bool,
    /// Names of the others.
    foreign: Vec<String>,
}

impl Others {
    fn of(ysvc: &YusurService, service: &Service, slices: &[&EndpointSlice]) -> Self {
        let mut others = Self::default();
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        let selects = selector.is_some_and(|selector| !selector.is_empty());
        for slice in slices {
            if made::counts(
                ysvc.metadata.uid.as_deref(),
                slice_made_for(&slice.metadata),
            ) {
                continue;
            }
            let mut owners = slice.metadata.owner_references.iter().flatten();
            let owned = owners.clone().any(|owner| owner.controller == Some(true));
            let says = |label: &str, by: &str| slice.labels().get(label).is_some_and(|is| is == by);
            let (label, by) = ENDPOINTS_MANAGED_BY;
            // Of a YusurService that left them behind, as its Service.
            let orphan = says(MANAGED_BY, key::ENDPOINTSLICE_MANAGED_BY) && !owned;
            let mirrors = says(MANAGED_BY, ENDPOINTSLICE_MIRRORING_CONTROLLER)
                && owners.any(|owner| owner.kind == "Endpoints");
            match says(MANAGED_BY, ENDPOINTSLICE_CONTROLLER) || orphan {
                // As long as there is a selector, it would only be written again.
                _ if selects => {}
                true => others.left.push(slice.name_any()),
                false if mirrors && says(label, by) => others.endpoints = true,
                false => others.foreign.push(slice.name_any()),
            }
        }
        others
    }
}

/// The NetworkProbes to make or to join, and the names of those to leave.
fn probes(
    world: &World,
    ysvc: &YusurService,
    translation: &Translation,
) -> (Vec<NetworkProbe>, Vec<String>) {
    let uid = ysvc.metadata.uid.as_deref().unwrap_or_default();
    let namespace = ysvc.metadata.namespace.as_deref().unwrap_or_default();
    let wanted = &translation.probes;
    let lacks = |probe: &&NetworkProbe| {
        let present = world.probe(namespace, &probe.name_any());
        !present.is_some_and(|present| is_of(present, uid) && present.spec == probe.spec)
    };
    let names: BTreeSet<String> = wanted.iter().map(ResourceExt::name_any).collect();
    let own = world
        .own_probes(ysvc)
        .into_iter()
        .map(ResourceExt::name_any);
    (
        wanted.iter().filter(lacks).cloned().collect(),
        own.filter(|name| !names.contains(name)).collect(),
    )
}

/// The reasons that ycloud-controller refuses Services for, besides [`reason::REFUSED`].
const REASONS: [&str; 12] = [
    reason::INVALID,
    reason::NOT_FOUND,
    reason::NOT_SUPPORTED,
    reason::NOT_PERMITTED,
    reason::ADDRESS_TAKEN,
    reason::ADDRESS_NOT_IN_SUBNET,
    reason::EXHAUSTED,
    reason::CONFLICT,
    reason::OTHER_GATEWAY,
    reason::NO_NODES,
    reason::OVERLAPS,
    reason::DELETING,
];

/// Why ycloud-controller does not serve the Service, if it does not.
fn refusal(service: &Service) -> Option<Verdict> {
    let status = service.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let refused = conditions.find(|c| c.type_ == SERVICE_ACCEPTED && c.status == "False")?;
    let known = REASONS.into_iter().find(|known| *known == refused.reason);
    let text = format!("ycloud-controller refuses the Service: {}", refused.message);
    Some(Verdict::no(known.unwrap_or(reason::REFUSED), text))
}

/// The addresses of a Service, the primary one first. Not all who write one fill in the list.
fn cluster_ips(spec: &ServiceSpec) -> Vec<String> {
    let all = spec.cluster_ips.clone().unwrap_or_default();
    match all.is_empty() {
        true => spec.cluster_ip.iter().cloned().collect(),
        false => all,
    }
}

/// The EIP that the Service has.
fn eip(service: &Service) -> Option<String> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let ingress = balancer.ingress.as_ref()?.first()?;
    ingress.ip.clone().filter(|_| takes_eip(service))
}

/// Whether the nodes have what the API server has.
fn programmed(service: &Service, slices: &[&EndpointSlice]) -> Verdict {
    if let Some(refusal) = refusal(service) {
        return refusal;
    }
    if takes_eip(service) && eip(service).is_none() {
        let text = "waiting for ycloud-controller to allocate an EIP";
        return Verdict::no(reason::PENDING, text);
    }
    let wanted = ycloud_compiler::digest(service, slices);
    if service.annotations().get(key::PROGRAMMED) == Some(&wanted) {
        return Verdict::yes(
            reason::PROGRAMMED,
            "every living node forwards by the present ports and endpoints",
        );
    }
    let text = "waiting for ycloud-controller and the nodes to take the newest ports and endpoints";
    Verdict::no(reason::PENDING, text)
}

impl Plan {
    /// Whether anything is to be written beside the status.
    pub fn writes(&self) -> bool {
        let objects = self.service.is_some() || !self.slices.is_empty();
        let surplus = !self.surplus.is_empty() || self.surplus_endpoints;
        objects || surplus || !self.wanted_probes.is_empty() || !self.surplus_probes.is_empty()
    }

    /// Backends whose health makes them stop or begin to take new connections.
    pub fn changes(&self) -> &[HealthChange] {
        &self.translation.changes
    }

    /// When time alone makes another plan.
    pub fn due(&self) -> Option<&Time> {
        self.translation.due.as_ref()
    }

    /// What makes the Service that exists the one to be: a merge patch (RFC 7386), since an apply would leave what others
    /// put beside it, such as a port or a selector. None if there is nothing to write.
    pub fn service_patch(&self) -> Option<Value> {
        let wanted = self.service.as_ref()?;
        let mut spec = json!({
            "selector": null, "externalIPs": null, "loadBalancerClass": null, "loadBalancerSourceRanges": null,
            "allocateLoadBalancerNodePorts": null, "externalTrafficPolicy": null, "sessionAffinityConfig": null,
        });
        // Serializing cannot fail: plain structs with string keys.
        if let Ok(Value::Object(fields)) = serde_json::to_value(&wanted.spec)
            && let Some(spec) = spec.as_object_mut()
        {
            spec.extend(fields);
        }
        let meta = &wanted.metadata;
        let mut annotations = BTreeMap::from(ANNOTATIONS.map(|name| (name, None)));
        for (name, value) in meta.annotations.iter().flatten() {
            annotations.insert(name, Some(value));
        }
        let mut patch = json!({
            // The UID: one that was made anew by somebody else under this name is not patched.
            "metadata": {"uid": self.uid, "labels": meta.labels, "annotations": annotations},
            "spec": spec,
        });
        if let Some(owners) = &self.adopts {
            patch["metadata"]["ownerReferences"] = json!(owners);
        }
        Some(patch)
    }

    /// The status to tell. `refused`: what the API server answered to the Service, if it would not have it. `base`: the
    /// status as it was last told.
    pub fn status(
        &self,
        refused: Option<&str>,
        base: Option<&YusurServiceStatus>,
        now: &Time,
    ) -> YusurServiceStatus {
        let generation = self.ysvc.meta().generation;
        let refusal = refused.map(|text| Verdict::no(reason::REFUSED, text));
        let mut accepted = refusal.as_ref().unwrap_or(&self.translation.accepted);
        if let (Some(true), Some(refusal)) = (accepted.status, &self.refused) {
            accepted = refusal;
        }
        let programmed = self.programmed_verdict(accepted, refused.is_some());
        let ready = self.ready(accepted, &programmed);
        let mut resolved = self.translation.resolved.clone();
        resolved.message.push_str(&self.unwritten_text());
        let mut conditions = base.map(|b| b.conditions.clone()).unwrap_or_default();
        for (kind, verdict) in [
            (condition::ACCEPTED, accepted),
            (condition::BACKENDS_RESOLVED, &resolved),
            (condition::PROGRAMMED, &programmed),
            (condition::READY, &ready),
        ] {
            condition::set(&mut conditions, kind, verdict, generation, now);
        }
        match self.foreign_verdict() {
            Some(verdict) => {
                let kind = condition::FOREIGN_ENDPOINTS;
                condition::set(&mut conditions, kind, &verdict, generation, now);
            }
            None => conditions.retain(|c| c.type_ != condition::FOREIGN_ENDPOINTS),
        }
        YusurServiceStatus {
            cluster_ip: self.cluster_ips.first().cloned(),
            cluster_ips: self.cluster_ips.clone(),
            eip: self.eip.clone(),
            gateway_nodes: self.gateway_nodes.clone(),
            ports: Some(self.translation.ports.clone()),
            backends: Some(self.translation.counts.clone()),
            conditions,
        }
    }

    /// What is to be said of EndpointSlices that are somebody else's.
    fn foreign_verdict(&self) -> Option<Verdict> {
        let first = self.foreign.first()?;
        let others = match self.foreign.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!(
            "EndpointSlice {first}{others} with label {SERVICE_NAME} {} is not of yusurservice-controller's making: nobody is \
             sent to its endpoints; delete it, name another Service in the label, or list its endpoints in spec.backends",
            self.ysvc.name_any()
        );
        Some(Verdict::yes(reason::IGNORED, text))
    }

    fn programmed_verdict(&self, accepted: &Verdict, refused: bool) -> Verdict {
        match (accepted.status, self.cluster_ips.first()) {
            (Some(true), _) => self.programmed.clone(),
            (_, None) => Verdict::no(reason::PENDING, "not accepted, so there is no Service"),
            (_, Some(_)) if refused => {
                let text = "the API server refuses the newest spec; the nodes have a former one";
                Verdict::no(reason::REFUSED, text)
            }
            (_, Some(_)) => self.programmed.clone(),
        }
    }

    fn ready(&self, accepted: &Verdict, programmed: &Verdict) -> Verdict {
        let counts = &self.translation.counts;
        for (kind, verdict) in [
            (condition::ACCEPTED, accepted),
            (condition::PROGRAMMED, programmed),
        ] {
            if verdict.status != Some(true) {
                return Verdict::no(
                    verdict.reason,
                    format!("{kind} is not True: {}", verdict.message),
                );
            }
        }
        if counts.healthy == 0 {
            let mut text = match counts.total {
                0 => "no backend; clients are refused".to_owned(),
                total => format!("none of {total} backends is healthy; clients are refused"),
            };
            text.push_str(&self.unwritten_text());
            return Verdict::no(reason::NO_BACKENDS, text);
        }
        let text = format!("{} backends are healthy", counts.summary);
        Verdict::yes(reason::READY, text)
    }

    /// Nothing tells otherwise that backends are not asked: those that serve go on to, and new ones wait.
    fn unwritten_text(&self) -> String {
        let why = self.unwritten.as_ref();
        why.map_or_else(String::new, |why| {
            format!("; its NetworkProbes cannot be written, and without one a backend stays as it is: {why}")
        })
    }

    /// The YusurService, for Events.
    pub fn reference(&self) -> ObjectReference {
        self.ysvc.object_ref(&())
    }
}

/// Something that happened to a YusurService and is worth an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Whether people should look at it.
    pub warning: bool,
    /// Reason, as in the condition.
    pub reason: String,
    /// The condition.
    pub action: &'static str,
    /// For people.
    pub message: String,
}

/// What an Event says of a condition: its message, but for figures, which change while the condition stands.
fn event_text(kind: &str, now: &Condition) -> String {
    match (kind, now.status == "True") {
        (condition::BACKENDS_RESOLVED, true) => {
            "the selectors find backends; status.backends counts them".to_owned()
        }
        (condition::READY, true) => {
            "clients are served; status.backends says by how many backends".to_owned()
        }
        (condition::READY, false) if now.reason == reason::NO_BACKENDS => {
            "no backend is healthy; clients are refused".to_owned()
        }
        _ => now.message.clone(),
    }
}

/// The transitions between two statuses. `Programmed` has none: it comes and goes with every change of an endpoint.
pub fn transitions(old: Option<&YusurServiceStatus>, new: &YusurServiceStatus) -> Vec<Transition> {
    let find = |status: &YusurServiceStatus, kind: &str| -> Option<Condition> {
        let mut conditions = status.conditions.iter();
        conditions.find(|c| c.type_ == kind).cloned()
    };
    let mut all = Vec::new();
    for kind in [
        condition::ACCEPTED,
        condition::BACKENDS_RESOLVED,
        condition::READY,
    ] {
        let Some(now) = find(new, kind) else { continue };
        let before = old.and_then(|old| find(old, kind));
        let changed = match &before {
            // What is not ready yet has never been: that is no news.
            None => kind != condition::READY || now.status == "True",
            Some(before) if before.status != now.status => true,
            Some(before) => {
                kind != condition::READY
                    && now.status == "False"
                    && (before.reason != now.reason
                        || (kind == condition::ACCEPTED && before.message != now.message))
            }
        };
        if changed {
            all.push(Transition {
                // What is being done is no fault.
                warning: now.status != "True" && now.reason != reason::PENDING,
                message: event_text(kind, &now),
                reason: now.reason,
                action: kind,
            });
        }
    }
    let foreign = condition::FOREIGN_ENDPOINTS;
    if let Some(now) = find(new, foreign)
        && old
            .and_then(|old| find(old, foreign))
            .is_none_or(|before| before.message != now.message)
    {
        all.push(Transition {
            warning: true,
            reason: now.reason,
            action: foreign,
            message: now.message,
        });
    }
    all
}
