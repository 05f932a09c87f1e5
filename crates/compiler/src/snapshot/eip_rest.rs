//! Addresses that Eips gave up, as the EipGateways' statuses record them: no other namespace gets one while it stands there.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ycloud_api::{Eip, EipGateway};

use super::Snapshot;
use super::apply::{Owners, put};
use super::eip::{Elastic, held_address};
use crate::owner::Owner;

/// How an address rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Namespace of the Eip that held it last.
    pub namespace: String,
    /// When that was deleted and nothing used it any more.
    pub since: Timestamp,
    /// When the rest is over.
    pub until: Timestamp,
}

/// For how long addresses of an EipGateway rest.
pub(crate) fn rest_span(gateway: &EipGateway) -> SignedDuration {
    SignedDuration::from_secs(gateway.spec.reuse_after_seconds.max(0).into())
}

/// When a rest is over.
pub(crate) fn rest_end(since: Timestamp, span: SignedDuration) -> Timestamp {
    since.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// What an EipGateway's status records; nothing, if its spec lets nothing rest. What is no address is left out.
fn read(gateway: &EipGateway) -> BTreeMap<Ipv4Addr, Rest> {
    let span = rest_span(gateway);
    let status = gateway.status.as_ref().filter(|_| !span.is_zero());
    let released = status.into_iter().flat_map(|status| &status.released);
    let read = released.filter_map(|released| {
        let since = released.time.0;
        let rest = Rest {
            namespace: released.namespace.clone(),
            since,
            until: rest_end(since, span),
        };
        Some((released.address.parse().ok()?, rest))
    });
    read.collect()
}

impl Elastic {
    /// Takes in what an EipGateway's status records; returns the addresses of which it says something else now.
    pub(super) fn set_rests(&mut self, name: &str, gateway: Option<&EipGateway>) -> Vec<Ipv4Addr> {
        let new = gateway.map(read).filter(|rests| !rests.is_empty());
        let old = put(&mut self.rests, &name.to_owned(), new.clone());
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let all = old.keys().chain(new.keys());
        all.filter(|ip| old.get(ip) != new.get(ip))
            .copied()
            .collect()
    }
}

impl Snapshot {
    /// How an address of an EipGateway rests; `None`: it does not.
    pub(crate) fn eip_rest(&self, gateway: &str, ip: Ipv4Addr) -> Option<&Rest> {
        self.elastic.rests.get(gateway)?.get(&ip)
    }

    /// The addresses that rest, by an EipGateway's record; of its range or not.
    pub(crate) fn eip_rests(&self, gateway: &str) -> impl Iterator<Item = (Ipv4Addr, &Rest)> {
        let rests = self.elastic.rests.get(gateway).into_iter().flatten();
        rests.map(|(ip, rest)| (*ip, rest))
    }

    /// The EipGateway that an Eip's address was given out by. It need not exist.
    pub(crate) fn eip_gateway_of_address<'a>(&'a self, eip: &'a Eip) -> Option<&'a str> {
        let recorded = eip.status.as_ref()?.eip_gateway.as_deref();
        recorded.or_else(|| self.eip_gateway_of_eip(eip))
    }

    /// The record of an EipGateway changed for these addresses; names whom it concerns: Eips that wait for an address,
    /// those that go once theirs is recorded, and Services that name such an address themselves.
    pub(super) fn around_rests(&self, gateway: &str, changed: &[Ipv4Addr]) -> Owners {
        if changed.is_empty() {
            return Owners::new();
        }
        let waiting = self.elastic.waiting.iter().filter(|key| {
            let eip = self.elastic.eips.get(*key);
            eip.and_then(|eip| self.eip_gateway_of_eip(eip)) == Some(gateway)
        });
        let mut owners: Owners = waiting.flat_map(|eip| self.around_eip(eip)).collect();
        let holding = changed.iter().flat_map(|ip| self.eips_holding(*ip));
        owners.extend(holding.cloned().map(Owner::Eip));
        owners.extend(self.external_at(changed.iter().copied().map(IpAddr::V4)));
        owners
    }

    /// The EipGateways by whose record an address rests, which count those that nobody holds, and whom else that concerns.
    pub(super) fn where_it_rests(&self, ip: Ipv4Addr) -> Owners {
        let mut owners = Owners::new();
        for (gateway, rests) in &self.elastic.rests {
            if rests.contains_key(&ip) {
                owners.extend(self.around_rests(gateway, &[ip]));
                owners.insert(Owner::EipGateway(gateway.clone()));
            }
        }
        owners
    }

    /// The Eips that are being deleted and hold an address that this EipGateway gave out.
    pub(super) fn eips_leaving(&self, gateway: &str) -> Owners {
        let leaving = self.elastic.eips.iter().filter(|(_, eip)| {
            eip.metadata.deletion_timestamp.is_some()
                && held_address(eip).is_some()
                && self.eip_gateway_of_address(eip) == Some(gateway)
        });
        leaving.map(|(key, _)| Owner::Eip(key.clone())).collect()
    }
}
