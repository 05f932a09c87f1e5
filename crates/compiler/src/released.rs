//! Addresses that Eips give up, and that rest before another namespace has them. Clients of the former Eip still send to
//! them, whose DNS answers are old.
//!
//! `EipGateway.status.released` is the record, and the only one: an Eip stays until its address stands there. What stands
//! there rests, whatever the time is; who writes it takes out what has rested.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use ycloud_api::eip_gateway::ReleasedAddress;
use ycloud_api::{Eip, EipGatewayStatus};

use crate::owner::ObjectKey;
use crate::snapshot::{Snapshot, held_address, rest_end, rest_span};
use crate::validate::eip::binding;

/// Where the address of an Eip is to rest once that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestingPlace {
    /// The address.
    pub address: Ipv4Addr,
    /// The EipGateway that gave it out.
    pub eip_gateway: String,
    /// What that one's status says of it.
    pub recorded: Recorded,
}

/// What an EipGateway's status says of an address that an Eip holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing.
    Not,
    /// That it was given up before, by this Eip's deletion or not.
    Before,
    /// That this Eip gave it up.
    Now,
}

/// Where the address of an Eip is to rest. `None`: nowhere, as it holds none, its EipGateway is gone or going or lets nothing
/// rest, nobody can be given the address, or another Eip has it.
pub fn resting_place(snapshot: &Snapshot, key: &ObjectKey) -> Option<RestingPlace> {
    let eip = snapshot.eip(key)?;
    let address = held_address(eip)?;
    let name = snapshot.eip_gateway_of_address(eip)?;
    let object = snapshot.eip_gateway(name)?;
    let lets_rest = object.metadata.deletion_timestamp.is_none() && !rest_span(object).is_zero();
    let given_out = match snapshot.gateway(name)? {
        Ok(gateway) => gateway.reserved(address).is_none(),
        // Its range in force may have it.
        Err(_) => true,
    };
    let mut holders = snapshot.eips_holding(address);
    let comes_first = |other: &ObjectKey| snapshot.eip_age(other) < snapshot.eip_age(key);
    if !lets_rest || !given_out || holders.any(comes_first) {
        return None;
    }
    let rest = snapshot.eip_rest(name, address);
    let recorded = match (rest, &eip.metadata.deletion_timestamp) {
        (None, _) => Recorded::Not,
        (Some(rest), Some(deleted))
            if rest.namespace == key.namespace && rest.since >= deleted.0 =>
        {
            Recorded::Now
        }
        (Some(_), _) => Recorded::Before,
    };
    Some(RestingPlace {
        address,
        eip_gateway: name.to_owned(),
        recorded,
    })
}

/// What an EipGateway's status is to record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Released {
    /// The addresses that rest, sorted.
    pub addresses: Vec<ReleasedAddress>,
    /// When the first of them has rested.
    pub due: Option<Timestamp>,
}

/// What an EipGateway's status is to record `now`: what it has, without what has rested or is held again, and what Eips that
/// are being deleted give up. `sure`: the API server knows that the Eip holds its address.
pub fn released(
    snapshot: &Snapshot,
    name: &str,
    now: &Time,
    sure: impl Fn(&ObjectKey) -> bool,
) -> Released {
    let Some(gateway) = snapshot.eip_gateway(name) else {
        return Released::default();
    };
    let span = rest_span(gateway);
    let status = gateway.status.iter();
    let former = status.flat_map(|status| status.released.clone());
    if gateway.metadata.deletion_timestamp.is_some() {
        // Nobody gets an address of it any more.
        return Released {
            addresses: former.collect(),
            due: None,
        };
    }
    if span.is_zero() {
        return Released::default();
    }
    let is_held = |ip| {
        let mut holders = snapshot.eips_holding(ip);
        holders.any(|eip| sure(eip) && !is_leaving(snapshot, eip))
    };
    let mut rests: BTreeMap<Ipv4Addr, ReleasedAddress> = BTreeMap::new();
    for mut entry in former {
        // A clock was wrong; it rests as long as any other.
        if entry.time.0 > rest_end(now.0, span) {
            entry.time = now.clone();
        }
        let over = rest_end(entry.time.0, span) <= now.0;
        match entry.address.parse() {
            Ok(ip) if !over && !is_held(ip) => rests.insert(ip, entry),
            _ => None,
        };
    }
    let leaving = leaving(snapshot, name);
    for (ip, (namespace, deleted)) in &leaving {
        let stands = rests.get(ip);
        if stands.is_some_and(|entry| entry.namespace == *namespace && entry.time.0 >= *deleted) {
            continue;
        }
        let entry = ReleasedAddress {
            address: ip.to_string(),
            namespace: namespace.clone(),
            // The API server's clock may be ahead of this one.
            time: Time(now.0.max(*deleted)),
        };
        rests.insert(*ip, entry);
    }
    make_room(&mut rests, &leaving);
    let addresses: Vec<ReleasedAddress> = rests.into_values().collect();
    let ends = addresses.iter().map(|entry| rest_end(entry.time.0, span));
    Released {
        due: ends.min(),
        addresses,
    }
}

/// Takes out what is too much. Who makes and deletes many Eips ends the rest of nobody's addresses but his own. Eips wait for
/// those that are `leaving`: what of these finds no room has its turn when others are gone.
fn make_room(
    rests: &mut BTreeMap<Ipv4Addr, ReleasedAddress>,
    leaving: &BTreeMap<Ipv4Addr, (String, Timestamp)>,
) {
    while rests.len() > EipGatewayStatus::MOST_RELEASED {
        let settled = rests.iter().filter(|(ip, _)| !leaving.contains_key(ip));
        let settled = settled.map(|(ip, entry)| (*ip, entry.namespace.as_str(), entry.time.0));
        let first = first_to_yield(settled).or_else(|| rests.keys().next_back().copied());
        first.and_then(|ip| rests.remove(&ip));
    }
}

/// The address whose rest ends before its time where room is needed: of the namespace that gave up most, the one that it gave
/// up first.
pub(crate) fn first_to_yield<'a>(
    rests: impl Iterator<Item = (Ipv4Addr, &'a str, Timestamp)>,
) -> Option<Ipv4Addr> {
    let mut by_namespace: BTreeMap<&str, Vec<(Timestamp, Ipv4Addr)>> = BTreeMap::new();
    for (ip, namespace, since) in rests {
        by_namespace.entry(namespace).or_default().push((since, ip));
    }
    let most = by_namespace.into_values().max_by_key(Vec::len)?;
    most.into_iter().min().map(|(_, ip)| ip)
}

/// Whether an Eip is being deleted and nothing uses it any more.
fn is_leaving(snapshot: &Snapshot, key: &ObjectKey) -> bool {
    let deleting = |eip: &Eip| eip.metadata.deletion_timestamp.is_some();
    snapshot.eip(key).is_some_and(|eip| deleting(eip)) && binding(snapshot, key).services.is_empty()
}

/// The addresses that Eips give up to an EipGateway: the namespace of each, and when its deletion began.
fn leaving(snapshot: &Snapshot, name: &str) -> BTreeMap<Ipv4Addr, (String, Timestamp)> {
    let leaving = snapshot.eips().filter_map(|(key, eip)| {
        let deleted = eip.metadata.deletion_timestamp.as_ref()?;
        let place = resting_place(snapshot, key).filter(|place| place.eip_gateway == name)?;
        let left = (key.namespace.clone(), deleted.0);
        is_leaving(snapshot, key).then_some((place.address, left))
    });
    leaving.collect()
}
