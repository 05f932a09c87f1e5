//! What is told of the backends: condition `BackendsResolved`, the counts, and the list of them.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::EndpointConditions;
use ycloud_api::YusurService;
use ycloud_api::backend::{Backend, BackendKind};
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::service::{BackendCounts, BackendState, Scope};

use super::backend::kind_name;
use super::found::Found;
use super::scope::{namespace_of, namespaces, own_vpc, vpc_of};

/// How many backends a message names before it counts the rest.
const NAMED: usize = 5;

/// How many backends the status lists.
const LISTED: usize = 100;

impl Found {
    /// Counts and list for the status. Backends elsewhere are not counted.
    pub fn counts(&self) -> BackendCounts {
        let count = |is: fn(&EndpointConditions) -> bool| {
            self.states.iter().filter(|state| is(state)).count() as i32
        };
        let total = (self.matched - self.elsewhere.len()) as i32;
        let healthy = count(|c| c.ready == Some(true));
        let draining = count(|c| c.terminating == Some(true) && c.serving == Some(true));
        let mut items = self.items.clone();
        // Found in the order of namespace and name, which a stable sort keeps.
        items.sort_by_key(|item| item.state == BackendState::Healthy);
        items.truncate(LISTED);
        BackendCounts {
            total,
            healthy,
            draining,
            summary: format!("{healthy}/{total}"),
            items,
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
        if let Some(text) = self.unheld(ysvc) {
            return Verdict::no(reason::NOT_FOUND, text);
        }
        if self.matched == 0 {
            return Verdict::no(reason::NO_BACKENDS, nothing(ysvc, self.kubevirt));
        }
        if self.matched == self.elsewhere.len() {
            let text = format!("no backend:{elsewhere}");
            return Verdict::no(reason::NO_BACKENDS, text);
        }
        if let Some(text) = self.missing_ports() {
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
        let empty = self.empty_text(ysvc);
        let text = format!("{backends} found{waiting}{dot}{elsewhere}{empty}");
        Verdict::yes(reason::RESOLVED, text)
    }

    /// Ports by a name that no backend has.
    fn missing_ports(&self) -> Option<String> {
        let missing: BTreeSet<String> = self
            .named
            .iter()
            .filter(|(_, seen)| !**seen)
            .map(|((name, protocol), _)| format!("{name} ({protocol})"))
            .collect();
        if !missing.is_empty() {
            let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
            return Some(format!(
                "spec.ports[].targetPort: no selected Pod has a container port named {missing}; name one that they have, or write its number"
            ));
        }
        let (first, more) = self.unnamed.split_first()?;
        Some(match more.len() {
            0 => first.clone(),
            more => format!("{first}; and {more} more like it"),
        })
    }

    /// An address in `spec.backends` that nothing holds.
    fn unheld(&self, ysvc: &YusurService) -> Option<String> {
        let mut unheld = self.without_match(ysvc);
        let (index, backend) = unheld.find(|(_, backend)| backend.ip.is_some())?;
        let ip = backend.ip.as_deref().unwrap_or_default();
        let namespace = namespace_of(ysvc, backend);
        let vpc = vpc_of(ysvc, backend).unwrap_or_default();
        Some(format!(
            "spec.backends[{index}].ip {ip}: no VNic of namespace {namespace} in Vpc {vpc} holds it, not counting those of Pods; make a VNic with this address, or correct the address"
        ))
    }

    fn without_match<'y>(
        &self,
        ysvc: &'y YusurService,
    ) -> impl Iterator<Item = (usize, &'y Backend)> {
        let backends = ysvc.spec.backends.iter().enumerate();
        backends.filter(|(index, _)| !self.hits.contains(index))
    }

    /// The sets that match nothing.
    fn empty_text(&self, ysvc: &YusurService) -> String {
        let empty = self.without_match(ysvc).map(|(index, backend)| {
            let kind = kind_name(backend.kind);
            let text = match &backend.name {
                Some(name) => {
                    format!("; spec.backends[{index}].name {name}: there is no such {kind}")
                }
                None => format!("; spec.backends[{index}].selector matches no {kind}"),
            };
            match backend.kind {
                BackendKind::VM if self.kubevirt => {
                    text + ", neither a VNic nor a VirtualMachineInstance"
                }
                _ => text,
            }
        });
        empty.take(NAMED).collect()
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

/// That nothing was found, and where it was looked for.
fn nothing(ysvc: &YusurService, kubevirt: bool) -> String {
    let mut backends = ysvc.spec.backends.iter();
    let only_pods = backends.clone().all(|b| b.kind == BackendKind::Pod);
    let text = match (namespaces(ysvc).len() == 1, only_pods) {
        (true, true) => {
            "no Pod of this namespace has the labels of spec.selector, or is named by spec.backends"
        }
        (false, true) => {
            "no Pod has the labels of spec.selector, or is named by spec.backends, in the namespace that it must be of"
        }
        (true, false) => {
            "no Pod or VNic of this namespace has the labels of spec.selector or spec.backends, or is named by spec.backends; a VM or BM is a VNic whose spec.attachment names it"
        }
        (false, false) => {
            "no Pod or VNic has the labels of spec.selector or spec.backends, or is named by spec.backends, in the namespace that it must be of; a VM or BM is a VNic whose spec.attachment names it"
        }
    };
    match kubevirt && backends.any(|backend| backend.kind == BackendKind::VM) {
        true => format!("{text}, or a VirtualMachineInstance"),
        false => text.to_owned(),
    }
}
