//! The backends that a YusurService selects, and what becomes of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ycloud_api::address::Family;
use ycloud_api::backend::BackendKind;
use ycloud_api::service::{BackendState, BackendStatus, ServicePort};
use ycloud_api::{NetworkProbe, YusurService};

use super::backend::{Candidate, kind_name};
use super::health::{Asked, Former, Judgement, Rules, earlier, judge};
use super::probe::{Check, asked_port};
use super::scope::{Set, sets};

/// A port of endpoints: the Service's port name, the protocol, and the number in the backend.
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

/// Vpc, and an address in it.
pub type Ended = BTreeSet<(String, IpAddr)>;

/// What the backends are looked at with.
pub struct Look<'a, 'b> {
    /// Whose backends.
    pub ysvc: &'a YusurService,
    /// The families in which it has endpoints, and the one in which backends are probed, where they have an address of it.
    pub families: &'b [Family],
    /// The primary family.
    pub primary: Family,
    /// How backends are in the slices that exist.
    pub former: &'b Former,
    /// The rules.
    pub rules: Rules<'b>,
    /// What is asked of each; none: nothing.
    pub check: Option<Check>,
    /// The probe of a backend, of which the name is given as it should be, in a Vpc at an address.
    pub probe: &'b dyn Fn(&NetworkProbe) -> Option<&'a NetworkProbe>,
}

impl Look<'_, '_> {
    /// Whether the status says that the backend fails its check at this address.
    fn is_known_to_fail(&self, candidate: &Candidate, address: IpAddr) -> bool {
        let status = self.ysvc.status.as_ref();
        let backends = status.and_then(|status| status.backends.as_ref());
        let mut items = backends.into_iter().flat_map(|backends| &backends.items);
        let (name, address) = (candidate.shown(self.ysvc), address.to_string());
        items.any(|item| {
            item.state == BackendState::Unhealthy
                && item.name == name
                && item.address.as_ref() == Some(&address)
        })
    }
}

/// The backends of one YusurService.
#[derive(Debug, Default)]
pub struct Found {
    /// Whether VirtualMachineInstances were looked at.
    pub(super) kubevirt: bool,
    /// Backends that the sets match, without Pods that ended.
    pub(super) matched: usize,
    /// Of those, backends in another Vpc than they must be, or in none, as "name (where)".
    pub(super) elsewhere: Vec<String>,
    /// Of the others, backends without an address yet.
    pub(super) waiting: usize,
    /// Of the rest, backends without one in this family.
    pub(super) lacking: BTreeMap<Family, usize>,
    /// The state of each backend that is an endpoint, in whatever family.
    pub(super) states: Vec<EndpointConditions>,
    /// Named target ports as they stand in the spec, and whether a Pod has one.
    pub(super) named: BTreeMap<(String, &'static str), bool>,
    /// Backends without named ports, and the port whose target has a name.
    pub(super) unnamed: Vec<String>,
    /// The entries of `spec.backends` that match something.
    pub(super) hits: BTreeSet<usize>,
    /// The backends one by one.
    pub(super) items: Vec<BackendStatus>,
    /// The NetworkProbes that they need.
    pub probes: Vec<NetworkProbe>,
    /// Endpoints that stop, and others that begin, to take connections, by their health.
    pub changes: Vec<HealthChange>,
    /// When time alone changes something.
    pub due: Option<Time>,
    /// Addresses of backends whose open connections end although they may live, by Vpc.
    pub(super) ended: Ended,
    endpoints: Vec<(Shape, Endpoint)>,
}

/// A backend that became an endpoint, or is none any more, because of how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChange {
    /// Its name with its address, and with the port at which it is asked.
    pub name: String,
    /// Whether it takes new connections now.
    pub healthy: bool,
    /// Whether it took some before.
    pub served: bool,
    /// What is wrong; empty if it is healthy.
    pub why: String,
}

/// Finds the backends among `candidates`, which are sorted. `kubevirt`: VirtualMachineInstances are among them.
pub fn find<'a>(look: &Look<'a, '_>, candidates: &[Candidate<'a>], kubevirt: bool) -> Found {
    let mut found = Found {
        kubevirt,
        ..Found::default()
    };
    for candidate in candidates {
        let all: Vec<Set> = sets(look.ysvc, *candidate).collect();
        found.hits.extend(all.iter().filter_map(|set| set.index));
        if let Some(first) = all.first() {
            found.matched += 1;
            found.add(look, candidate, &all, *first);
        }
    }
    found
}

impl Found {
    fn add<'a>(
        &mut self,
        look: &Look<'a, '_>,
        candidate: &Candidate<'a>,
        sets: &[Set<'a>],
        first: Set<'a>,
    ) {
        let vpc = candidate.vpc(look.ysvc);
        if self.is_elsewhere(look, candidate, sets, vpc, first.kind) {
            return;
        }
        let mut fitting = sets.iter().filter(|set| vpc.is_some() && set.vpc == vpc);
        let set = fitting.next().copied().unwrap_or(first);
        let ports = self.resolve(look.ysvc, candidate, set);
        let at = |family: &Family| Some((*family, candidate.address(*family)?));
        let addresses: BTreeMap<Family, IpAddr> = look.families.iter().filter_map(at).collect();
        let primary = addresses.get(&look.primary).or(addresses.values().next());
        let (Some(vpc), Some(primary)) = (vpc, primary.copied()) else {
            self.lost(look, candidate, set.kind, vpc);
            return;
        };
        for family in look.families.iter().filter(|f| !addresses.contains_key(f)) {
            *self.lacking.entry(*family).or_default() += 1;
        }
        let judgement = match ports.is_empty() {
            true => unready("has none of the ports".into()),
            false => self.judge(look, candidate, set, vpc, primary),
        };
        let conditions = judgement.conditions.clone();
        if judgement.ends {
            let ended = addresses.values().map(|ip| (vpc.to_owned(), *ip));
            self.ended.extend(ended);
        }
        self.note(
            look,
            candidate,
            set.kind,
            Some(vpc),
            Some(primary),
            judgement,
        );
        let Some(conditions) = conditions else { return };
        self.states.push(conditions.clone());
        let shaped = |(family, address)| {
            let shape = Shape {
                family,
                vpc: vpc.to_owned(),
                ports: ports.clone(),
            };
            (shape, candidate.endpoint(address, conditions.clone()))
        };
        self.endpoints.extend(addresses.into_iter().map(shaped));
    }

    /// Notes one without an address.
    fn lost(&mut self, look: &Look, candidate: &Candidate, kind: BackendKind, vpc: Option<&str>) {
        let halted = candidate.halted();
        if halted.is_none() {
            self.waiting += 1;
        }
        let why = halted.unwrap_or_else(|| "no address yet".into());
        let former = look.former.anywhere(candidate);
        let served = former.is_some_and(|former| former.ready == Some(true));
        // A guest that ended loses its launcher, and with it the address.
        if served && candidate.moves() && candidate.deleted().is_none() {
            self.changes.push(HealthChange {
                name: candidate.shown(look.ysvc),
                healthy: false,
                served: true,
                why: why.clone(),
            });
        }
        self.note(look, candidate, kind, vpc, None, unready(why));
    }

    /// Whether it is in none of the Vpcs that its sets say; notes that.
    fn is_elsewhere<'a>(
        &mut self,
        look: &Look<'a, '_>,
        candidate: &Candidate<'a>,
        sets: &[Set<'a>],
        vpc: Option<&str>,
        kind: BackendKind,
    ) -> bool {
        let node = "on the node's network".to_owned();
        let (place, text) = match vpc {
            None if candidate.host_network() => (node.clone(), node),
            None => return false,
            Some(vpc) if sets.iter().any(|set| set.vpc == Some(vpc)) => return false,
            Some(vpc) => (format!("in {vpc}"), format!("in Vpc {vpc}")),
        };
        self.note(look, candidate, kind, vpc, None, unready(text));
        let name = candidate.shown(look.ysvc);
        self.elsewhere.push(format!("{name} ({place})"));
        true
    }

    /// Judges one backend at its address, and notes the probe that it needs.
    fn judge<'a>(
        &mut self,
        look: &Look<'a, '_>,
        candidate: &Candidate<'a>,
        set: Set<'a>,
        vpc: &str,
        address: IpAddr,
    ) -> Judgement {
        let former = look.former.at(candidate, address);
        let check = look.check.as_ref().filter(|_| !candidate.host_network());
        let wanted =
            check.map(|check| check.probe(look.ysvc, candidate, set.kind, vpc, address, set.ports));
        let asked = match &wanted {
            None => Asked::Itself,
            Some(Ok(wanted)) => Asked::Probe((look.probe)(wanted)),
            Some(Err(lack)) => Asked::Nothing(lack),
        };
        let judgement = judge(candidate, asked, former, look.rules);
        let port = wanted.as_ref().and_then(|wanted| wanted.as_ref().ok());
        let port = port.and_then(asked_port);
        self.probes.extend(wanted.and_then(Result::ok));
        let ready = |state: &EndpointConditions| state.ready == Some(true);
        let now = judgement.conditions.as_ref().is_some_and(ready);
        let was = former.map(ready);
        // Of who never served the status says whether it was told of.
        let first_failure = judgement.state == BackendState::Unhealthy
            && !now
            && was != Some(true)
            && !look.is_known_to_fail(candidate, address);
        if (was.is_some_and(|was| was != now) || first_failure) && candidate.deleted().is_none() {
            let place = match port {
                Some(port) => SocketAddr::new(address, port).to_string(),
                None => address.to_string(),
            };
            self.changes.push(HealthChange {
                name: format!("{} ({place})", candidate.shown(look.ysvc)),
                healthy: now,
                served: was == Some(true),
                why: judgement.message.clone().unwrap_or_default(),
            });
        }
        judgement
    }

    /// Adds a line for the status.
    fn note(
        &mut self,
        look: &Look,
        candidate: &Candidate,
        kind: BackendKind,
        vpc: Option<&str>,
        address: Option<IpAddr>,
        judgement: Judgement,
    ) {
        self.due = earlier(self.due.take(), judgement.due);
        self.items.push(BackendStatus {
            kind,
            name: candidate.shown(look.ysvc),
            vpc: vpc.map(str::to_owned),
            address: address.map(|address| address.to_string()),
            node: candidate.node(),
            state: judgement.state,
            since: judgement.since,
            message: judgement.message,
        });
    }

    /// The ports that the backend listens on. Notes which names were found.
    fn resolve(&mut self, ysvc: &YusurService, candidate: &Candidate, set: Set) -> Vec<TargetPort> {
        let mut resolved = Vec::with_capacity(ysvc.spec.ports.len());
        for port in &ysvc.spec.ports {
            let protocol = port.protocol.as_str();
            let number = candidate.port(port, set.ports);
            if let (Err(name), Candidate::VNic(_)) = (number, candidate) {
                let text = unnamed(ysvc, candidate, set, port, name);
                self.unnamed.push(text);
            }
            let named = match candidate {
                Candidate::Pod(_) => true,
                Candidate::VNic(_) => false,
                // Its ports are known by its launcher.
                Candidate::Vmi(vmi) => vmi.launcher.is_some(),
            };
            if let Some(name) = name_of(port, set, number).filter(|_| named) {
                let seen = self.named.entry((name, protocol)).or_default();
                *seen |= number.is_ok();
            }
            resolved.extend(number.ok().map(|number| TargetPort {
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
}

/// A backend that cannot be an endpoint.
fn unready(message: String) -> Judgement {
    Judgement {
        conditions: None,
        state: BackendState::NotReady,
        since: None,
        message: Some(message),
        ends: false,
        due: None,
    }
}

/// The name that the target of `port` has, whether it was found or not.
fn name_of(port: &ServicePort, set: Set, number: Result<i32, &str>) -> Option<String> {
    if let Err(name) = number {
        return Some(name.to_owned());
    }
    let mut own = set.ports.iter();
    let own = own.find(|own| Some(&own.name) == port.name.as_ref());
    let target = own.map(|own| &own.target_port);
    match target.or(port.target_port.as_ref())? {
        IntOrString::String(name) => Some(name.clone()),
        IntOrString::Int(_) => None,
    }
}

/// Why a backend is no endpoint of `port`, and the cure.
fn unnamed(
    ysvc: &YusurService,
    candidate: &Candidate,
    set: Set,
    port: &ServicePort,
    name: &str,
) -> String {
    let kind = kind_name(set.kind);
    let index = set.index.unwrap_or_default();
    let cure = match &port.name {
        Some(of) => {
            format!("write a number in spec.backends[{index}].ports, for the port named {of}")
        }
        None => "write a number in spec.ports[0].targetPort".into(),
    };
    let shown = candidate.shown(ysvc);
    format!("targetPort {name}: {kind} {shown} has no ports with names; {cure}")
}
