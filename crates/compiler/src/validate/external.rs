//! `spec.externalIPs`: addresses that a Service may not take from others. Any other is allowed, as in Kubernetes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use ycloud_api::address::Family;
use ycloud_api::condition::reason;

use crate::compile::Rejection;
use crate::owner::ObjectKey;
use crate::snapshot::{Snapshot, external_ips};
use crate::validate::eip_gateway;

/// Those of a Service's `spec.externalIPs` that are somebody else's, and whose.
pub(crate) fn others(
    snapshot: &Snapshot,
    key: &ObjectKey,
    service: &Service,
) -> BTreeMap<IpAddr, String> {
    let asked = external_ips(service).into_iter();
    asked
        .filter_map(|ip| Some((ip, owner(snapshot, &key.namespace, ip)?)))
        .collect()
}

/// Whose an address is, seen from a namespace; `None`: nobody's, or of an Eip of the namespace itself, or at rest for it.
fn owner(snapshot: &Snapshot, namespace: &str, ip: IpAddr) -> Option<String> {
    if let Some((_, whose)) = snapshot.machine_within(IpNet::from(ip)) {
        return Some(whose);
    }
    let system = snapshot.settings().system_range(Family::of(ip));
    if system.contains(&ip) {
        return Some(format!("of the system range {system}"));
    }
    let IpAddr::V4(ip) = ip else {
        return None;
    };
    let mut eips = snapshot.eips_holding(ip);
    if let Some(eip) = eips.find(|eip| eip.namespace != namespace) {
        return Some(format!("Eip {eip}'s"));
    }
    let mut gateways = snapshot.eip_gateways();
    gateways.find_map(|(name, _)| {
        // The record of one whose edit is refused counts, too.
        let gateway = eip_gateway::check(snapshot, name).ok();
        let given_out = gateway.is_none_or(|gateway| gateway.reserved(ip).is_none());
        let rest = snapshot.eip_rest(name, ip).filter(|_| given_out);
        if rest.is_some_and(|rest| rest.namespace != namespace) {
            return Some(format!("EipGateway {name}'s, where it rests for a while"));
        }
        let gateway = gateway?;
        let used = [gateway.address.addr(), gateway.upstream].contains(&ip);
        used.then(|| format!("EipGateway {name}'s own, or its upstream router's"))
    })
}

/// Why a Service does not have all of its `spec.externalIPs`.
pub(crate) fn hindrance(
    snapshot: &Snapshot,
    key: &ObjectKey,
    service: &Service,
) -> Option<Rejection> {
    let others = others(snapshot, key, service);
    let whose: Vec<String> = others
        .iter()
        .map(|(ip, of)| format!("{ip} is {of}"))
        .collect();
    (!whose.is_empty()).then(|| {
        Rejection::new(
            reason::NOT_PERMITTED,
            format!(
                "Service {key}: spec.externalIPs: {}; leave it out, or name an address that nobody has. All else of the \
                 Service is served",
                whose.join(", ")
            ),
        )
    })
}
