//! A YusurService and the backends that it selects → the Service, EndpointSlices, conditions and counts it must have.
//!
//! ```text
//!   spec ── refusal ──► backend (Pods, VNics, VMIs) ──► found ──► slices (stable packing) ─┐
//!                                                       │ ▲       service ─────────────────┼──► Translation
//!                                   probe (who is asked)┘ └ health (ready, serving, gone) ─┘
//! ```
//!
//! Pure, like everything in this crate. yusurservice-controller gathers the input and carries out what comes back.

mod backend;
mod family;
mod found;
mod health;
mod permission;
mod probe;
mod refusal;
mod scope;
mod service;
mod slices;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::kubevirt::VirtualMachineInstance;
use ycloud_api::service::{BackendCounts, ExternalTrafficPolicy};
use ycloud_api::{Eip, NetworkProbe, VNic, Vpc, YusurService};

pub use backend::pod::PodBackend;
pub use backend::vmi::created_by;
pub use backend::{selects, selects_vmi, selects_vnic};
pub use found::HealthChange;
pub use health::UNKNOWN_LASTS;
pub use scope::{namespaces, vpcs};
pub use service::ANNOTATIONS;
pub use slices::MAX_ENDPOINTS;

use backend::Candidate;
use found::Look;
use health::{Asked, Former, Rules};
use probe::{Check, Present};
use refusal::Refusal;

/// How many ports `status.ports` names before it counts the rest.
const PORTS_SHOWN: usize = 8;

/// Added to a refusal of a spec whose Service exists.
pub const STILL_SERVES: &str =
    "; until then the Service serves by the spec that was accepted before";

/// What is known of the world around one YusurService.
#[derive(Debug, Clone)]
pub struct TranslateInput<'a> {
    /// By name, those that exist of the [`vpcs`] of the spec and of those that its EndpointSlices name.
    pub vpcs: &'a BTreeMap<&'a str, &'a Vpc>,
    /// The Vpcs a Subnet of which names the YusurService's namespace.
    pub named: &'a BTreeSet<&'a str>,
    /// The Eip of its namespace that `spec.eip` names, if it exists.
    pub eip: Option<&'a Eip>,
    /// Labels of the YusurService's namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Pods of any namespace, in any order; at least those that it [`selects`], those that are endpoints already, and the
    /// launchers of `vmis`.
    pub pods: &'a [PodBackend<'a>],
    /// VNics of any namespace, in any order; at least those that it [`selects_vnic`] and those that are endpoints already.
    pub vnics: &'a [&'a VNic],
    /// VirtualMachineInstances of any namespace, in any order; at least those that it [`selects_vmi`] and those that are
    /// endpoints already. None: KubeVirt is not installed.
    pub vmis: Option<&'a [&'a VirtualMachineInstance]>,
    /// The NetworkProbes of its namespace, by name.
    pub probes: &'a BTreeMap<String, Arc<NetworkProbe>>,
    /// Those of them that name it as an owner, in any order.
    pub own_probes: &'a [&'a NetworkProbe],
    /// The time.
    pub now: &'a Time,
    /// The Service of its name, whosever it is.
    pub service: Option<&'a Service>,
    /// The EndpointSlices that name its Service, whosever they are, in any order.
    pub slices: &'a [&'a EndpointSlice],
}

/// What a YusurService must have, and what to tell its user.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    /// Condition `Accepted`. The API server may still refuse the Service.
    pub accepted: Verdict,
    /// Condition `BackendsResolved`.
    pub resolved: Verdict,
    /// The objects to be. None: nothing is written, because the Service of this name is somebody else's.
    pub objects: Option<Objects>,
    /// Counts of the backends.
    pub counts: BackendCounts,
    /// `status.ports`.
    pub ports: String,
    /// The NetworkProbes to be, sorted by name, each with its owner reference to the YusurService; others may have theirs
    /// beside it.
    pub probes: Vec<NetworkProbe>,
    /// Backends whose health makes them stop or begin to take new connections.
    pub changes: Vec<HealthChange>,
    /// When time alone makes another translation; none: it does not.
    pub due: Option<Time>,
}

/// The objects that a YusurService must have.
#[derive(Debug, Clone, PartialEq)]
pub struct Objects {
    /// The Service, with the fields that ycloud sets and no others. None when the spec is refused: none is made, and one
    /// that exists keeps its ports.
    pub service: Option<Service>,
    /// The Service to be instead if there is none and the API server refuses that one: without what was remembered of a former
    /// one, such as an address of another cluster's service range. None: nothing was remembered.
    pub afresh: Option<Service>,
    /// The EndpointSlices, sorted by name, likewise. When the spec is refused, these are the ones that exist, with the
    /// present state of their Pods.
    pub slices: Vec<EndpointSlice>,
    /// The EndpointSlices to be if the API server refuses a Service that differs from the one that exists: those that
    /// exist, with the present state of their Pods.
    kept: Vec<EndpointSlice>,
    /// UID of the YusurService.
    owner: String,
}

/// What must be written so that the cluster has given [`Objects`]. In this order: slices, Service, deletions; so no
/// moment shows a Service without its endpoints.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Writes<'a> {
    /// Slices that are missing or differ.
    pub slices: Vec<&'a EndpointSlice>,
    /// The Service, if it is missing or differs.
    pub service: Option<&'a Service>,
    /// Names of slices of this YusurService that are not wanted any more.
    pub surplus: Vec<String>,
    /// Instead of all of the above, if the API server refuses the Service: slices whose Pods changed.
    pub if_refused: Vec<&'a EndpointSlice>,
}

impl Writes<'_> {
    /// Whether nothing needs to be written.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.service.is_none() && self.surplus.is_empty()
    }
}

impl Objects {
    /// Compares with what exists. Fields that ycloud does not set, such as those that the API server fills in, do not
    /// count as differences.
    pub fn writes<'a>(
        &'a self,
        service: Option<&Service>,
        slices: &[&EndpointSlice],
    ) -> Writes<'a> {
        let own = slices::own(slices, &self.owner);
        let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
        let exists: BTreeMap<String, &EndpointSlice> =
            own.iter().map(|slice| (name(slice), *slice)).collect();
        let differs = |wanted: &&EndpointSlice| {
            let present = exists.get(&name(wanted));
            !present.is_some_and(|present| slices::same(present, wanted))
        };
        let wanted = |present: &String| self.slices.iter().any(|slice| name(slice) == *present);
        Writes {
            if_refused: self.kept.iter().filter(differs).collect(),
            slices: self.slices.iter().filter(differs).collect(),
            service: (self.service.as_ref())
                .filter(|wanted| !service.is_some_and(|present| service::same(present, wanted))),
            surplus: exists.into_keys().filter(|name| !wanted(name)).collect(),
        }
    }
}

/// Works out what `ysvc` must have.
///
/// # Guarantees
/// * The same input gives the same output, whatever the order of Pods, VNics, VirtualMachineInstances and slices.
/// * An endpoint stays in the slice that it is in, so that one backend's change rewrites one slice.
/// * A refusal names field, value and cure. What was made for an earlier, accepted spec goes on to serve: with the ports
///   and backends of that spec, of which those that go, become unready or are no longer permitted are taken out.
pub fn translate(ysvc: &YusurService, input: &TranslateInput) -> Translation {
    let families = family::served(ysvc, input.service);
    let refusal = refusal::check(ysvc, input);
    let withholds = refusal.as_ref().is_some_and(|refusal| refusal.withholds);
    let foreign = input.service.is_some_and(|service| !takes(ysvc, service));
    let candidates = backend::candidates(ysvc, input);
    let former = Former::of(ysvc, input.slices);
    let rules = Rules::of(ysvc, input.now);
    let present = Present::of(input.own_probes);
    let known = |wanted: &NetworkProbe| match withholds {
        true => present.at(&wanted.spec.target.vpc, &wanted.spec.target.ip),
        false => {
            let name = wanted.metadata.name.as_ref()?;
            Some(input.probes.get(name)?.as_ref()).filter(|known| known.spec == wanted.spec)
        }
    };
    let look = Look {
        ysvc,
        primary: family::primary(ysvc, input.service),
        families: &families,
        former: &former,
        rules,
        check: Check::of(ysvc),
        probe: &known,
    };
    let mut found = found::find(&look, &candidates, input.vmis.is_some());
    let owner = ysvc.metadata.uid.clone().unwrap_or_default();
    let permitted = |namespace: &str, vpc: &str| permission::permits(ysvc, input, namespace, vpc);
    let refreshed = || {
        let judged = |candidate: &Candidate, vpc: &str, address| {
            let asked = match present.asked(candidate, vpc, address) {
                Asked::Probe(None) if look.check.is_none() => Asked::Itself,
                asked => asked,
            };
            health::judge(candidate, asked, former.at(candidate, address), rules)
        };
        slices::refresh(ysvc, &candidates, input.slices, permitted, judged)
    };
    let objects = if withholds {
        Objects {
            service: None,
            afresh: None,
            slices: refreshed(),
            kept: Vec::new(),
            owner,
        }
    } else {
        let service = service::build(ysvc, input.service, refusal.is_some());
        let edits = (input.service).is_some_and(|present| !service::same(present, &service));
        Objects {
            slices: slices::pack(
                ysvc,
                found.groups(),
                std::mem::take(&mut found.ended),
                input.slices,
            ),
            kept: Some(refreshed)
                .filter(|_| edits)
                .map_or_else(Vec::new, |all| all()),
            afresh: service::afresh(ysvc, input.service).filter(|afresh| *afresh != service),
            service: Some(service),
            owner,
        }
    };
    let accepted = accepted(ysvc, refusal, input.service.is_some() && !foreign);
    let probes = match (foreign, withholds) {
        (true, _) => Vec::new(),
        (_, true) => present.serving(&objects.slices),
        (_, false) => probe::sorted(std::mem::take(&mut found.probes)),
    };
    Translation {
        accepted,
        resolved: found.verdict(ysvc),
        counts: found.counts(),
        ports: ports_text(ysvc),
        objects: Some(objects).filter(|_| !foreign),
        probes,
        changes: found.changes,
        due: found.due,
    }
}

/// Condition `Accepted`. `serves`: its Service exists.
fn accepted(ysvc: &YusurService, refusal: Option<Refusal>, serves: bool) -> Verdict {
    let Some(refusal) = refusal else {
        return Verdict::yes(reason::ACCEPTED, accepted_text(ysvc));
    };
    let mut accepted = refusal.verdict;
    if refusal.withholds && serves && !refusal.cuts {
        accepted.message.push_str(STILL_SERVES);
    }
    accepted
}

fn accepted_text(ysvc: &YusurService) -> &'static str {
    match ysvc.spec.external_traffic_policy {
        ExternalTrafficPolicy::Cluster => "the spec is valid and permitted",
        ExternalTrafficPolicy::Local => {
            "the spec is valid and permitted; externalTrafficPolicy Local changes nothing: backends always see the client's own address"
        }
    }
}

/// The reference by which an object belongs to `ysvc` and vanishes with it.
fn owner_reference(ysvc: &YusurService) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", ycloud_api::GROUP, ycloud_api::VERSION),
        kind: "YusurService".into(),
        name: ysvc.metadata.name.clone().unwrap_or_default(),
        uid: ysvc.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// Whether `service` was made for `ysvc`.
pub fn belongs(service: &Service, ysvc: &YusurService) -> bool {
    let owner = owner_uid(&service.metadata.owner_references);
    !owner.is_empty() && Some(owner) == ysvc.metadata.uid.as_deref()
}

/// Whether `ysvc` may make `service` its own: it was made for it, or for a YusurService that left it behind
/// (`kubectl delete --cascade=orphan`), so that it belongs to nobody.
pub fn takes(ysvc: &YusurService, service: &Service) -> bool {
    belongs(service, ysvc)
        || (owner_uid(&service.metadata.owner_references).is_empty() && service::is_left(service))
}

/// The UID of the controlling owner; empty if there is none.
fn owner_uid(references: &Option<Vec<OwnerReference>>) -> &str {
    let mut references = references.iter().flatten();
    let owner = references.find(|reference| reference.controller == Some(true));
    owner.map_or("", |reference| reference.uid.as_str())
}

/// Whether `present` holds every entry of `wanted`.
fn holds(
    present: &Option<BTreeMap<String, String>>,
    wanted: &Option<BTreeMap<String, String>>,
) -> bool {
    let held = |(key, value)| present.as_ref().and_then(|all| all.get(key)) == Some(value);
    wanted.iter().flatten().all(held)
}

fn ports_text(ysvc: &YusurService) -> String {
    let ports = &ysvc.spec.ports;
    let shown = ports.iter().take(PORTS_SHOWN);
    let shown: Vec<String> = shown
        .map(|port| format!("{}/{}", port.port, port.protocol.as_str()))
        .collect();
    let rest = match ports.len().saturating_sub(PORTS_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{rest}", shown.join(","))
}
