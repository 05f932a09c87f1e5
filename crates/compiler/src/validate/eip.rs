//! Eips: whose address it is, and which of the Services that name one may have it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::jiff::Timestamp;
use ycloud_api::condition::reason;
use ycloud_api::{Eip, key};

use crate::compile::Rejection;
use crate::owner::ObjectKey;
use crate::snapshot::{EipUse, Snapshot, asked_address, held_address};
use crate::validate::eip_gateway::{self, Gateway};
use crate::validate::service;

/// The EipGateway that an Eip is of, and its name.
///
/// # Errors
/// There is none, it does not permit the Eip's namespace, or it is refused; with `keep` where the EipGateway keeps its
/// rows.
pub fn gateway<'a>(
    snapshot: &'a Snapshot,
    key: &ObjectKey,
    eip: &'a Eip,
) -> Result<(&'a str, &'a Gateway), Rejection> {
    let Some(name) = snapshot.eip_gateway_of_eip(eip) else {
        return Err(Rejection::new(
            reason::NOT_FOUND,
            format!(
                "Eip {key}: there is no default EipGateway; set spec.eipGateway, or spec.default of one EipGateway"
            ),
        ));
    };
    permitted(snapshot, name, key, eip)?;
    match eip_gateway::check(snapshot, name) {
        Ok(gateway) => Ok((name, gateway)),
        Err(rejection) => Err(Rejection {
            message: format!("Eip {key}: spec.eipGateway: {}", rejection.message),
            ..rejection
        }),
    }
}

fn permitted(snapshot: &Snapshot, name: &str, key: &ObjectKey, eip: &Eip) -> Result<(), Rejection> {
    let Some(gateway) = snapshot.eip_gateway(name) else {
        return Ok(());
    };
    let none = BTreeMap::new();
    let namespace = &key.namespace;
    let labels = snapshot.namespace(namespace).unwrap_or(&none);
    let default = snapshot.default_eip_gateway() == Some(name);
    if gateway.permits(namespace, labels, default, held_address(eip).is_some()) {
        return Ok(());
    }
    Err(Rejection::new(
        reason::NOT_PERMITTED,
        format!(
            "Eip {key}: EipGateway {name} does not permit namespace {namespace}; use another EipGateway, or add the namespace to \
             spec.allowedNamespaces of EipGateway {name}"
        ),
    ))
}

/// The address of an Eip; `None` while it has none.
///
/// # Errors
/// Its EipGateway is missing or refused, or the address is not of it, or somebody else's.
pub fn check(
    snapshot: &Snapshot,
    key: &ObjectKey,
    eip: &Eip,
) -> Result<Option<Ipv4Addr>, Rejection> {
    let (name, gateway) = gateway(snapshot, key, eip)?;
    let held = eip
        .status
        .as_ref()
        .and_then(|status| status.address.as_ref());
    let Some(text) = held else {
        return Ok(None);
    };
    let ip = held_address(eip).ok_or_else(|| {
        Rejection::new(
            reason::INVALID,
            format!("Eip {key}: status.address {text:?} is no IPv4 address; delete the Eip and make it anew"),
        )
    })?;
    free(snapshot, key, ip, name, gateway)?;
    if let Some(asked) = asked_address(eip)
        && asked != ip
    {
        return Err(Rejection::new(
            reason::INVALID,
            format!(
                "Eip {key}: it holds {ip}, and spec.address is {asked}; delete the Eip and make it anew"
            ),
        ));
    }
    Ok(Some(ip))
}

/// Whether the address can be this Eip's. Who holds it comes first, then the namespace for which it rests, then who is older.
///
/// # Errors
/// It is not of the EipGateway, or another Eip's, or it rests for another namespace.
pub(crate) fn free(
    snapshot: &Snapshot,
    key: &ObjectKey,
    ip: Ipv4Addr,
    name: &str,
    gateway: &Gateway,
) -> Result<(), Rejection> {
    if let Some(why) = gateway.reserved(ip) {
        return Err(Rejection::new(
            reason::ADDRESS_NOT_IN_SUBNET,
            format!(
                "Eip {key}: address {ip} {why} EipGateway {name} ({}); make the Eip anew with another one",
                gateway.cidr
            ),
        ));
    }
    let oldest = |all: &mut dyn Iterator<Item = &ObjectKey>| {
        all.min_by_key(|eip| snapshot.eip_age(eip)).cloned()
    };
    let holder = oldest(&mut snapshot.eips_holding(ip));
    let rest = snapshot.eip_rest(name, ip).filter(|_| holder.is_none());
    if let Some(rest) = rest.filter(|rest| rest.namespace != key.namespace) {
        return Err(Rejection::new(
            reason::ADDRESS_TAKEN,
            format!(
                "Eip {key}: address {ip} rests until {}, as an Eip of another namespace had it \
                 (spec.reuseAfterSeconds of EipGateway {name}); wait until then, or make this Eip anew with another one",
                told(rest.until)
            ),
        ));
    }
    let first = holder.or_else(|| oldest(&mut entitled(snapshot, ip, name)));
    match first {
        Some(other) if other != *key => Err(Rejection::new(
            reason::ADDRESS_TAKEN,
            format!(
                "Eip {key}: address {ip} is Eip {other}'s; make this Eip anew with another one, or delete that one"
            ),
        )),
        _ => Ok(()),
    }
}

/// The Eips that ask for an address and may have it. Where it rests they are those of its namespace: others that ask for it
/// keep nobody away.
pub(crate) fn entitled<'a>(
    snapshot: &'a Snapshot,
    ip: Ipv4Addr,
    name: &str,
) -> impl Iterator<Item = &'a ObjectKey> {
    let rest = snapshot.eip_rest(name, ip);
    let may = move |eip: &&ObjectKey| rest.is_none_or(|rest| rest.namespace == eip.namespace);
    snapshot.eips_asking(ip).filter(may)
}

/// Whether an Eip of this namespace that asks for no address can have this one of the EipGateway's.
pub(crate) fn is_free_for(
    snapshot: &Snapshot,
    namespace: &str,
    ip: Ipv4Addr,
    name: &str,
    gateway: &Gateway,
) -> bool {
    let rest = snapshot.eip_rest(name, ip);
    gateway.reserved(ip).is_none()
        && rest.is_none_or(|rest| rest.namespace == namespace)
        && snapshot.eips_holding(ip).next().is_none()
        && entitled(snapshot, ip, name).next().is_none()
}

/// A moment, as the API writes it.
fn told(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Who has an Eip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// The Services that it serves, oldest first. They are of one Vpc, or all of several.
    pub services: Vec<ObjectKey>,
    /// Protocol and port → the one of them that has it.
    pub ports: BTreeMap<(String, i32), ObjectKey>,
    /// Their Vpc; `None` if they are over several, or there are none.
    pub vpc: Option<String>,
    /// They are over several Vpcs.
    pub several: bool,
    /// The Services that mean it and cannot have it, or not at all of their ports.
    pub refused: BTreeMap<ObjectKey, Rejection>,
}

/// Works out who has an Eip. Who has a port of it already (`status.ports`) keeps that, and comes before the others, of
/// those first who still is of the Vpc that it serves; then the older one (by creation time, then by name) comes first. The first Service that means it decides whether it
/// serves one Vpc (and which) or several; then each has the ports that nobody before it has.
pub fn binding(snapshot: &Snapshot, eip: &ObjectKey) -> Binding {
    let holders = recorded_ports(snapshot, eip);
    let mut services: Vec<_> = snapshot
        .services_wishing(eip)
        .into_iter()
        .filter(|service| snapshot.eip_of_service(service).as_ref() == Some(eip))
        .filter_map(|service| Some((snapshot.eip_use(&service)?, service)))
        .collect();
    let holding: BTreeSet<&ObjectKey> = holders.values().collect();
    let serves = snapshot.eip(eip).and_then(|eip| eip.status.as_ref());
    let serves = serves.and_then(|status| status.vpc.as_ref());
    services.sort_by_cached_key(|(used, service)| {
        let moved = holding.contains(service) && vpc_of(used) != serves;
        let holds = holding.contains(service);
        (!holds, moved, used.created, service.clone())
    });
    let mut binding = Binding::default();
    let mut candidates: Vec<(&EipUse, ObjectKey)> = Vec::new();
    for (used, service) in services {
        let first = candidates.first().map(|(used, first)| (*used, first));
        match may_have(snapshot, eip, &service, used, first) {
            Ok(()) => candidates.push((used, service)),
            Err(rejection) => {
                binding.refused.insert(service, rejection);
            }
        }
    }
    if let Some((first, _)) = candidates.first() {
        binding.several = first.several;
        binding.vpc = vpc_of(first).cloned();
    }
    let uses: BTreeMap<&ObjectKey, &EipUse> = candidates
        .iter()
        .map(|(used, service)| (service, *used))
        .collect();
    for (used, service) in &candidates {
        let holder = |port: &(String, i32)| {
            let holder = holders.get(port).filter(|holder| *holder != service)?;
            let asks = uses.get(holder)?.ports.contains(port);
            asks.then_some(holder)
        };
        let mut lost = None;
        let mut has = used.ports.is_empty();
        for port in &used.ports {
            match holder(port).or_else(|| binding.ports.get(port)).cloned() {
                Some(other) => lost = lost.or(Some((port, other))),
                None => {
                    has = true;
                    binding.ports.insert(port.clone(), service.clone());
                }
            }
        }
        if has {
            binding.services.push(service.clone());
        }
        if let Some(((protocol, port), other)) = lost {
            let message = format!(
                "Service {service}: port {port}/{protocol} of Eip {eip} is Service {other}'s; use another port, or name another Eip"
            );
            let rejection = Rejection::new(reason::CONFLICT, message);
            binding.refused.insert(service.clone(), rejection);
        }
    }
    binding
}

/// The one Vpc of a Service with an EIP; `None` if it is over several.
fn vpc_of(used: &EipUse) -> Option<&String> {
    used.vpcs.first().filter(|_| !used.several)
}

/// The Services that have ports of an Eip, by what its status records.
fn recorded_ports(snapshot: &Snapshot, eip: &ObjectKey) -> BTreeMap<(String, i32), ObjectKey> {
    let object = snapshot.eip(eip);
    let status = object.and_then(|object| object.status.as_ref());
    let ports = status.into_iter().flat_map(|status| &status.ports);
    let service = |name: &str| ObjectKey::new(eip.namespace.clone(), name);
    ports
        .map(|port| {
            let key = (port.protocol.clone(), port.port);
            (key, service(&port.service))
        })
        .collect()
}

/// `first`: the Service that comes first of those that have the Eip.
fn may_have(
    snapshot: &Snapshot,
    eip: &ObjectKey,
    service: &ObjectKey,
    used: &EipUse,
    first: Option<(&EipUse, &ObjectKey)>,
) -> Result<(), Rejection> {
    if let Some(object) = snapshot.service(service) {
        service::check(snapshot, service, object)?;
    }
    same_gateway(snapshot, eip, service, used)?;
    match first {
        Some((other, first)) if (other.several, vpc_of(other)) != (used.several, vpc_of(used)) => {
            Err(Rejection::new(
                reason::CONFLICT,
                format!(
                    "Service {service}: Eip {eip} serves Service {first}, which is of another Vpc; name another Eip"
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Whether a Service's Eip is of the EipGateway that it asks for, and that the Vpcs of its backends hang on.
fn same_gateway(
    snapshot: &Snapshot,
    eip: &ObjectKey,
    service: &ObjectKey,
    used: &EipUse,
) -> Result<(), Rejection> {
    let object = snapshot.eip(eip);
    let gateway = object.and_then(|object| snapshot.eip_gateway_of_eip(object));
    let name = |gateway: Option<&str>| {
        gateway.map_or("none".to_owned(), |name| format!("EipGateway {name}"))
    };
    if let Some(asked) = &used.gateway
        && gateway.is_some_and(|gateway| gateway != asked)
    {
        return Err(Rejection::new(
            reason::OTHER_GATEWAY,
            format!(
                "Service {service}: Eip {eip} is of {}, and annotation {} asks for EipGateway {asked}; take an Eip of \
                 that one, or leave the annotation out",
                name(gateway),
                key::EIP_GATEWAY
            ),
        ));
    }
    for vpc in &used.vpcs {
        let of = snapshot.eip_gateway_of(vpc);
        if of != gateway {
            return Err(Rejection::new(
                reason::OTHER_GATEWAY,
                format!(
                    "Service {service}: Eip {eip} is of {}, and Vpc {vpc} hangs on {}; take an Eip of the Vpc's, \
                     or set spec.eipGateway of the Vpc",
                    name(gateway),
                    name(of)
                ),
            ));
        }
    }
    Ok(())
}
