//! Which Eips must exist, which addresses they get, and who uses them. Pure: an Eip is the only record of its address
//! (`status.address`).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ycloud_api::condition::reason;
use ycloud_api::made::is_yusur_service;
use ycloud_api::subnet::Addresses;
use ycloud_api::{Eip, EipSpec};

use crate::compile::Rejection;
use crate::desired::eip_gateway::{order, service_order};
use crate::owner::{ObjectKey, Owner};
use crate::released::first_to_yield;
use crate::snapshot::{EipUse, Snapshot, Wish, asked_address, held_address};
use crate::validate::eip::{Binding, binding, check, entitled, free, gateway, is_free_for};
use crate::validate::eip_gateway::{self, Gateway};

/// An address for an Eip, to be written into its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EipAllocation {
    /// The address.
    pub address: Ipv4Addr,
    /// The EipGateway that it is of.
    pub eip_gateway: String,
}

/// An address for an Eip that has none: `spec.address` if it names one, else one that rests for its namespace, else the first
/// free one of its EipGateway. Of an Eip that has one already: that one.
///
/// The snapshot must be told of the result (by applying the Eip with its status) before the next call.
///
/// # Errors
/// No such EipGateway, or one that is refused or being deleted; address taken, at rest, outside, or none left.
pub fn allocate_eip(snapshot: &Snapshot, eip: &Eip) -> Result<EipAllocation, Rejection> {
    let key = ObjectKey::new(
        eip.metadata.namespace.clone().unwrap_or_default(),
        eip.metadata.name.clone().unwrap_or_default(),
    );
    let (name, gateway) = gateway(snapshot, &key, eip)?;
    let object = snapshot.eip_gateway(name);
    let leaving = object.is_some_and(|object| object.metadata.deletion_timestamp.is_some());
    let address = match (check(snapshot, &key, eip)?, &eip.spec.address) {
        (Some(held), _) => held,
        (None, _) if leaving => {
            return Err(Rejection::new(
                reason::NOT_FOUND,
                format!(
                    "Eip {key}: EipGateway {name} is being deleted; make the Eip anew, with another one in spec.eipGateway"
                ),
            ));
        }
        (None, Some(text)) => {
            let ip = asked_address(eip).ok_or_else(|| {
                Rejection::new(
                    reason::INVALID,
                    format!("Eip {key}: spec.address {text:?} is no IPv4 address"),
                )
            })?;
            free(snapshot, &key, ip, name, gateway)?;
            ip
        }
        (None, None) => first_free(snapshot, &key, name, gateway)?,
    };
    Ok(EipAllocation {
        address,
        eip_gateway: name.to_owned(),
    })
}

/// The first address of an EipGateway that an Eip can have: of those that rest for its namespace, or else of all. So who makes
/// Eips and deletes them uses up one address, and not the range. Where none is left but what rests for others, one of the
/// namespace for which most rest: nobody keeps others out by what he has given up.
fn first_free(
    snapshot: &Snapshot,
    key: &ObjectKey,
    name: &str,
    gateway: &Gateway,
) -> Result<Ipv4Addr, Rejection> {
    let free = |ip| is_free_for(snapshot, &key.namespace, ip, name, gateway);
    let own = snapshot
        .eip_rests(name)
        .filter(|(_, rest)| rest.namespace == key.namespace);
    let mut own = own.map(|(ip, _)| ip);
    let found = own.find(|ip| free(*ip));
    let found = found.or_else(|| gateway.free_from(gateway.cidr.network(), |ip| !free(ip)));
    let yielding = || {
        let rests = snapshot.eip_rests(name).filter(|(ip, _)| {
            let mut taken = snapshot
                .eips_holding(*ip)
                .chain(entitled(snapshot, *ip, name));
            gateway.reserved(*ip).is_none() && taken.next().is_none()
        });
        first_to_yield(rests.map(|(ip, rest)| (ip, rest.namespace.as_str(), rest.since)))
    };
    found.or_else(yielding).ok_or_else(|| {
        Rejection::new(
            reason::EXHAUSTED,
            format!(
                "Eip {key}: EipGateway {name} ({}) has no free address: all {} are in use; delete Eips, widen its spec.cidr, \
                 or name another EipGateway",
                gateway.cidr,
                gateway.size()
            ),
        )
    })
}

/// The Eip that must be made for a Service that takes one and for which there is none: of the Service's name, with the
/// address that it asks for. `None`: it has one, takes none, or names one that somebody else must make.
pub fn wanted_eip(snapshot: &Snapshot, service: &ObjectKey) -> Option<Eip> {
    let used = snapshot.eip_use(service)?;
    let object = snapshot.service(service)?;
    let own = ObjectKey::new(service.namespace.clone(), service.name.clone());
    if snapshot.eip_of_service(service).is_some()
        || snapshot.eip(&own).is_some()
        || object.metadata.deletion_timestamp.is_some()
    {
        return None;
    }
    let address = match &used.wish {
        Wish::Name(name) if *name != service.name => return None,
        Wish::Name(_) => None,
        Wish::Address(ip) => Some(ip.to_string()),
    };
    Some(Eip {
        metadata: ObjectMeta {
            namespace: Some(service.namespace.clone()),
            name: Some(service.name.clone()),
            owner_references: Some(vec![with_whom_it_goes(object)]),
            ..ObjectMeta::default()
        },
        spec: EipSpec {
            eip_gateway: wanted_gateway(snapshot, used).map(str::to_owned),
            address,
        },
        status: None,
    })
}

/// With whom an Eip goes that is made for a Service: with the YusurService that the Service was made for, so that it has its
/// address again when somebody deletes the Service alone; else with the Service.
pub fn with_whom_it_goes(service: &Service) -> OwnerReference {
    let references = service.metadata.owner_references.iter().flatten();
    let mut makers = references.filter(|owner| is_yusur_service(owner));
    if let Some(maker) = makers.next() {
        return OwnerReference {
            controller: None,
            ..maker.clone()
        };
    }
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// The EipGateway of the Eip that is made for a Service: the one that it asks for, or else its Vpc's.
fn wanted_gateway<'a>(snapshot: &'a Snapshot, used: &'a EipUse) -> Option<&'a str> {
    let of_vpc = || {
        let vpc = used.vpcs.first()?;
        snapshot.eip_gateway_of(vpc)
    };
    used.gateway.as_deref().or_else(of_vpc)
}

/// Whether an Eip that was made for the Service of its name serves nobody, and another one would serve that Service: its
/// EipGateway is neither the one that the Service asks for nor that of its Vpcs. The one to be made in its place is.
pub fn is_outdated(snapshot: &Snapshot, key: &ObjectKey) -> bool {
    let parts = snapshot.eip(key).zip(snapshot.eip_use(key));
    let Some((eip, used)) = parts else {
        return false;
    };
    let wanted = wanted_gateway(snapshot, used);
    let mut vpcs = used.vpcs.iter();
    wanted.is_some()
        && wanted != snapshot.eip_gateway_of_eip(eip)
        && vpcs.all(|vpc| snapshot.eip_gateway_of(vpc) == wanted)
        && binding(snapshot, key).services.is_empty()
}

/// The address at which a Service is reached from outside; `None` while it has none or is refused.
pub fn eip_address(snapshot: &Snapshot, service: &ObjectKey) -> Option<Ipv4Addr> {
    let eip = snapshot.eip_of_service(service)?;
    let (address, binding) = bound(snapshot, &eip)?;
    binding.services.contains(service).then_some(address)
}

/// The address of an Eip and who has it; `None` while it has no address or is refused. One that is refused and keeps its
/// rows counts as bound.
pub fn bound(snapshot: &Snapshot, eip: &ObjectKey) -> Option<(Ipv4Addr, Binding)> {
    let object = snapshot.eip(eip)?;
    let address = match check(snapshot, eip, object) {
        Ok(address) => address,
        Err(rejection) if rejection.keep => held_address(object),
        Err(_) => None,
    };
    Some((address?, binding(snapshot, eip)))
}

/// Who an Eip serves, with or without an address.
pub fn eip_binding(snapshot: &Snapshot, eip: &ObjectKey) -> Binding {
    binding(snapshot, eip)
}

/// The address counts of an EipGateway, of which one that rests is neither used nor free; zero if there is no such one or it
/// is refused.
pub fn eip_usage(snapshot: &Snapshot, name: &str) -> Addresses {
    let Ok(gateway) = eip_gateway::check(snapshot, name) else {
        return Addresses::new(0, 0);
    };
    let held: BTreeSet<_> = snapshot.eips_held_of(name).map(|(ip, _)| ip).collect();
    let (total, used) = (gateway.size() as u128, held.len() as u128);
    let all = Addresses::new(used, total.saturating_sub(used));
    let resting = snapshot.eip_rests(name).filter(|(ip, _)| {
        gateway.reserved(*ip).is_none() && snapshot.eips_holding(*ip).next().is_none()
    });
    let resting = resting.count();
    let resting = i64::try_from(resting).unwrap_or(i64::MAX);
    Addresses {
        free: all.free.map(|free| free.saturating_sub(resting).max(0)),
        ..all
    }
}

/// The range of an EipGateway; `None` if it is refused.
pub fn eip_gateway_cidr(snapshot: &Snapshot, name: &str) -> Option<String> {
    let gateway = eip_gateway::check(snapshot, name).ok()?;
    Some(gateway.cidr.to_string())
}

/// The own address of an EipGateway, with the prefix length of its link; `None` if it is refused.
pub fn eip_gateway_address(snapshot: &Snapshot, name: &str) -> Option<String> {
    let gateway = eip_gateway::check(snapshot, name).ok()?;
    Some(gateway.address.to_string())
}

/// Names of the nodes that can carry an EipGateway, sorted; empty if there is no such one.
pub fn eligible_nodes(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let object = snapshot.eip_gateway(name);
    let nodes = object.map(|object| eip_gateway::eligible_nodes(snapshot, object));
    nodes.into_iter().flatten().map(str::to_owned).collect()
}

/// The node that carries an EipGateway: the one that holds its ports, else the one that is to. `None`: no node can.
pub fn active_node(snapshot: &Snapshot, name: &str) -> Option<String> {
    let object = snapshot.eip_gateway(name)?;
    let first = order(snapshot, name, object).first().copied();
    first.map(str::to_owned)
}

/// The nodes that carry the service gateways of an EipGateway, by number from 1.
pub fn service_gateways(snapshot: &Snapshot, name: &str) -> Vec<(u32, Option<String>)> {
    let Some(object) = snapshot.eip_gateway(name) else {
        return Vec::new();
    };
    let orders = service_order(snapshot, name, object).into_iter();
    orders
        .map(|(k, nodes)| (k, nodes.first().map(|node| (*node).to_owned())))
        .collect()
}

/// Who uses an EipGateway (Eips that hold an address of it, Vpcs that name it) or an Eip (Services), as `<Kind> <name>`, sorted. Empty for other owners.
pub(crate) fn users(snapshot: &Snapshot, owner: &Owner) -> Vec<String> {
    match owner {
        Owner::EipGateway(name) => {
            let eips = snapshot.eips_held_of(name);
            let eips = eips.map(|(ip, eip)| format!("Eip {eip} ({ip})"));
            let names = |vpc: &&str| {
                let object = snapshot.vpc(vpc);
                object.is_some_and(|object| object.spec.eip_gateway.as_ref() == Some(name))
            };
            let vpcs = snapshot.vpc_names().filter(names);
            eips.chain(vpcs.map(|vpc| format!("Vpc {vpc}"))).collect()
        }
        Owner::Eip(key) => {
            let services = binding(snapshot, key).services.into_iter();
            services
                .map(|service| format!("Service {service}"))
                .collect()
        }
        _ => Vec::new(),
    }
}
