//! The NetworkProbes that a YusurService needs: one for each backend that is reached by an address of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use uuid::Uuid;
use ycloud_api::address::Family;
use ycloud_api::backend::{BackendKind, BackendPort};
use ycloud_api::network_probe::{NetworkProbeSpec, ProbeState, ProbeTarget};
use ycloud_api::probe::{HealthCheck, IcmpCheck, PortCheck};
use ycloud_api::service::Protocol;
use ycloud_api::{NetworkProbe, YusurService, key};

use super::backend::Candidate;
use super::health::Asked;
use super::owner_reference;

/// How much of a target's name a NetworkProbe's name begins with, in characters.
const NAME_LENGTH: usize = 40;

/// What is asked of each backend of a YusurService.
#[derive(Debug, Clone)]
pub struct Check {
    spec: HealthCheck,
    /// Its field, the protocol that it asks by, and the port that it names; none: ICMP.
    way: Option<(&'static str, Protocol, Option<i32>)>,
}

impl Check {
    /// `spec.healthCheck`; none if it is disabled. Without one, and where it names none of the ways to ask: a TCP connect;
    /// ICMP where no port is TCP.
    pub fn of(ysvc: &YusurService) -> Option<Self> {
        let given = ysvc.spec.health_check.as_ref();
        if given.is_some_and(|given| given.disabled == Some(true)) {
            return None;
        }
        let mut spec = given.map(|given| given.check.clone()).unwrap_or_default();
        if way(&spec).is_none() && spec.icmp.is_none() {
            match has(ysvc, Protocol::TCP) {
                true => spec.tcp = Some(PortCheck::default()),
                false => spec.icmp = Some(IcmpCheck::default()),
            }
        }
        let way = way(&spec);
        Some(Self { spec, way })
    }

    /// The NetworkProbe of a backend at this address of `vpc`.
    ///
    /// # Errors
    /// It has no port that the check could ask: which one is missing, and the cure.
    pub fn probe(
        &self,
        ysvc: &YusurService,
        candidate: &Candidate,
        kind: BackendKind,
        vpc: &str,
        address: IpAddr,
        overrides: &[BackendPort],
    ) -> Result<NetworkProbe, String> {
        let port = match self.way {
            None | Some((_, _, Some(_))) => None,
            Some((field, protocol, None)) => {
                Some(port(ysvc, candidate, field, protocol, overrides)?)
            }
        };
        let spec = NetworkProbeSpec {
            target: ProbeTarget {
                kind: Some(kind),
                name: Some(candidate.name().to_owned()),
                vpc: vpc.to_owned(),
                ip: address.to_string(),
                port,
            },
            check: self.spec.clone(),
        };
        Ok(NetworkProbe {
            metadata: ObjectMeta {
                name: Some(name(&spec)),
                namespace: ysvc.metadata.namespace.clone(),
                labels: Some(BTreeMap::from([(key::VPC.into(), vpc.into())])),
                owner_references: Some(vec![reference(ysvc)]),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        })
    }
}

/// The number of the first port of this protocol that the backend has.
fn port(
    ysvc: &YusurService,
    candidate: &Candidate,
    field: &str,
    protocol: Protocol,
    overrides: &[BackendPort],
) -> Result<i32, String> {
    let mut names = Vec::new();
    for port in ysvc.spec.ports.iter().filter(|p| p.protocol == protocol) {
        match candidate.port(port, overrides) {
            Ok(number) => return Ok(number),
            Err(name) => names.push(name),
        }
    }
    let protocol = protocol.as_str();
    Err(format!(
        "cannot be checked: no {protocol} port of it is named {}; name one that it has in targetPort, or write its number there or in spec.healthCheck.{field}.port",
        names.join(" or ")
    ))
}

/// These by name, each once.
pub fn sorted(probes: Vec<NetworkProbe>) -> Vec<NetworkProbe> {
    let name = |probe: NetworkProbe| (probe.metadata.name.clone(), probe);
    let by_name: BTreeMap<_, _> = probes.into_iter().map(name).collect();
    by_name.into_values().collect()
}

/// The NetworkProbes that a YusurService has, by what they ask: where its spec is refused, they are those of a former one.
#[derive(Debug, Default)]
pub struct Present<'a>(BTreeMap<(&'a str, &'a str), &'a NetworkProbe>);

impl<'a> Present<'a> {
    /// Of several that ask one address, the one that is not Unknown counts, then the first by name.
    pub fn of(own: &[&'a NetworkProbe]) -> Self {
        let mut own = own.to_vec();
        let unknown = |probe: &NetworkProbe| {
            let state = probe.status.as_ref().map(|status| status.state);
            state.unwrap_or_default() == ProbeState::Unknown
        };
        own.sort_by_key(|probe| (unknown(probe), probe.metadata.name.clone()));
        let mut all = BTreeMap::new();
        for probe in own {
            let target = &probe.spec.target;
            let key = (target.vpc.as_str(), target.ip.as_str());
            all.entry(key).or_insert(probe);
        }
        Self(all)
    }

    /// The one that asks this address of this Vpc.
    pub fn at(&self, vpc: &str, ip: &str) -> Option<&'a NetworkProbe> {
        self.0.get(&(vpc, ip)).copied()
    }

    /// What is known of a backend at this address, at whichever of its addresses it is asked.
    pub fn asked(&self, candidate: &Candidate, vpc: &str, address: IpAddr) -> Asked<'a> {
        if candidate.host_network() {
            return Asked::Itself;
        }
        let others = Family::ALL.iter().filter_map(|f| candidate.address(*f));
        let mut all = [address].into_iter().chain(others);
        Asked::Probe(all.find_map(|ip| self.at(vpc, &ip.to_string())))
    }

    /// Those that ask an endpoint of `slices`, without their status.
    pub fn serving(&self, slices: &[EndpointSlice]) -> Vec<NetworkProbe> {
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let addresses: BTreeSet<&str> = endpoints
            .flat_map(|endpoint| &endpoint.addresses)
            .map(String::as_str)
            .collect();
        let all = self.0.iter();
        let serving = all.filter(|((_, ip), _)| addresses.contains(ip));
        let wanted = serving.map(|(_, probe)| NetworkProbe {
            status: None,
            ..(*probe).clone()
        });
        sorted(wanted.collect())
    }
}

/// The field, the protocol and the named port of a check by TCP or UDP.
pub fn way(check: &HealthCheck) -> Option<(&'static str, Protocol, Option<i32>)> {
    let tcp = |name, port| Some((name, Protocol::TCP, port));
    if let Some(check) = &check.tcp {
        return tcp("tcp", check.port);
    }
    if let Some(check) = &check.http {
        return tcp("http", check.port);
    }
    if let Some(check) = &check.https {
        return tcp("https", check.request.port);
    }
    if let Some(check) = &check.grpc {
        return tcp("grpc", check.port);
    }
    let udp = check.udp.as_ref()?;
    Some(("udp", Protocol::UDP, udp.port))
}

/// The port that a NetworkProbe asks; `None`: it asks by ICMP.
pub fn asked_port(probe: &NetworkProbe) -> Option<u16> {
    let named = way(&probe.spec.check).and_then(|(_, _, port)| port);
    let port = named.or(probe.spec.target.port)?;
    u16::try_from(port).ok()
}

/// Whether a port of `ysvc` is of this protocol.
pub fn has(ysvc: &YusurService, protocol: Protocol) -> bool {
    let mut ports = ysvc.spec.ports.iter();
    ports.any(|port| port.protocol == protocol)
}

/// The reference by which `ysvc` wants a NetworkProbe; others may want it too.
fn reference(ysvc: &YusurService) -> OwnerReference {
    OwnerReference {
        controller: None,
        ..owner_reference(ysvc)
    }
}

/// A name that follows from the spec, so that equal probes are one object, and that people recognize the target by.
fn name(spec: &NetworkProbeSpec) -> String {
    let target = spec.target.name.as_deref().unwrap_or_default();
    let plain = |c: char| match c {
        'a'..='z' | '0'..='9' => c,
        _ => '-',
    };
    let start: String = target.chars().take(NAME_LENGTH).map(plain).collect();
    // Serializing cannot fail: plain structs with string keys. Their fields have an order.
    let text = serde_json::to_string(spec).unwrap_or_default();
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
    let hash = hash.simple().to_string();
    // 64 bits, without those that say which kind of UUID it is. One name for two specs would have their YusurServices delete
    // each other's probe without end.
    let of = |range| hash.get(range).unwrap_or_default();
    let hash = format!("{}{}", of(0..8), of(24..32));
    match start.trim_matches('-') {
        "" => format!("probe-{hash}"),
        start => format!("{start}-{hash}"),
    }
}
