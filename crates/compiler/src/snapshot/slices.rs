//! EndpointSlices, and which of them name an address of a node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use ycloud_api::VNic;

use super::apply::{Owners, key_of};
use super::{Held, Slice, Snapshot};
use crate::desired;
use crate::owner::{ObjectKey, Owner};
use crate::validate::permits;

/// The slices that have an endpoint at an address, by namespace and name. A hundred thousand endpoints are a few
/// megabytes: each entry is an address and a share in its slice's name.
pub(super) type SlicesOfAddress = BTreeSet<(IpAddr, Arc<ObjectKey>)>;

impl Snapshot {
    pub(super) fn apply_slice(&mut self, slice: &EndpointSlice) -> Owners {
        match key_of(&slice.metadata) {
            Some(key) => self.set_slice(key, Slice::of(slice)),
            None => Owners::new(),
        }
    }

    pub(super) fn set_slice(&mut self, key: ObjectKey, slice: Option<Slice>) -> Owners {
        let before = self.slice_service.get(&key).cloned();
        let old = before
            .as_ref()
            .and_then(|service| self.slices.get(service)?.get(&key.name));
        let new = slice.map(|mut slice| {
            slice.endpoints.sort_unstable();
            slice
        });
        if old == new.as_ref() {
            return Owners::new();
        }
        let mut owners = self.nodes_between(old, new.as_ref());
        owners.extend(self.released_by(old, new.as_ref()));
        let name = Arc::new(key);
        if let Some(service) = &before {
            self.slice_service.remove(&*name);
            if let Some(slices) = self.slices.get_mut(service) {
                for endpoint in slices
                    .remove(&name.name)
                    .into_iter()
                    .flat_map(|s| s.endpoints)
                {
                    self.slices_of_address.remove(&(endpoint.ip, name.clone()));
                }
                if slices.is_empty() {
                    self.slices.remove(service);
                }
            }
        }
        let after = new.as_ref().map(|slice| slice.service.clone());
        if let Some(slice) = new {
            let addresses = slice.endpoints.iter().map(|endpoint| endpoint.ip);
            self.slices_of_address
                .extend(addresses.map(|ip| (ip, name.clone())));
            self.slice_service
                .insert(name.as_ref().clone(), slice.service.clone());
            let slices = self.slices.entry(slice.service.clone()).or_default();
            slices.insert(name.name.clone(), slice);
        }
        let services: BTreeSet<ObjectKey> = before.into_iter().chain(after).collect();
        for service in &services {
            owners.extend(self.set_api_server(service));
        }
        owners.extend(services.into_iter().map(Owner::Service));
        owners
    }

    /// Whether a VNic that holds an address is an endpoint of a YusurService: it takes new connections, or has some left.
    /// Slices of others hold nothing, as nobody would take it out of them; nor do those of a Service that its Vpc does not
    /// permit.
    pub fn is_endpoint(&self, vnic: &VNic) -> bool {
        !self.services_of_endpoint(vnic).is_empty()
    }

    /// The YusurServices of which it is that, by the keys of their Services, which have the same names.
    pub fn services_of_endpoint(&self, vnic: &VNic) -> BTreeSet<ObjectKey> {
        let Some(subnet) = self.subnets.get(&vnic.spec.subnet) else {
            return BTreeSet::new();
        };
        let first = Arc::new(ObjectKey::new("", ""));
        let held = Held::all(vnic).into_iter();
        let services = held.flat_map(|held| {
            let at = self.slices_of_address.range((held.ip, first.clone())..);
            let at = at.take_while(|(ip, _)| *ip == held.ip);
            let slices = at.filter_map(|(_, name)| {
                let service = self.slice_service.get(&**name)?;
                self.slices.get(service)?.get(&name.name)
            });
            let slices = slices.filter(|slice| self.holds(slice, &subnet.spec.vpc));
            slices
                .map(|slice| slice.service.clone())
                .collect::<Vec<_>>()
        });
        services.collect()
    }

    /// Whether a slice keeps its endpoints in a Vpc from going.
    fn holds(&self, slice: &Slice, vpc: &str) -> bool {
        let service = self.services.get(&slice.service);
        let object = self.vpcs.get(vpc);
        slice.made_for.is_some()
            && service.is_some_and(|service| slice.counts(service))
            && self.vpc_of(slice) == Some(vpc)
            && object.is_some_and(|vpc| permits(self, vpc, &slice.service.namespace))
    }

    /// The Vpc of a slice's addresses.
    fn vpc_of<'a>(&'a self, slice: &'a Slice) -> Option<&'a str> {
        let of_service = || {
            let service = self.services.get(&slice.service)?;
            Some(desired::service::vpc(service))
        };
        slice.vpc.as_deref().or_else(of_service)
    }

    /// The VNics that are being deleted and are an endpoint of a slice no more.
    pub(super) fn released_by(&self, old: Option<&Slice>, new: Option<&Slice>) -> Owners {
        let mut owners = Owners::new();
        let Some(old) = old.filter(|old| old.made_for.is_some()) else {
            return owners;
        };
        let stay: BTreeSet<IpAddr> = match new {
            Some(new) if new.made_for == old.made_for && new.vpc == old.vpc => {
                new.endpoints.iter().map(|endpoint| endpoint.ip).collect()
            }
            _ => BTreeSet::new(),
        };
        let Some(vpc) = self.vpc_of(old) else {
            return owners;
        };
        let left = old.endpoints.iter().map(|endpoint| endpoint.ip);
        for ip in left.filter(|ip| !stay.contains(ip)) {
            let pools = self.subnets_of(vpc).filter_map(|subnet| self.pool(subnet));
            let holders = pools.flat_map(|pool| pool.holders(ip));
            let deleted = holders.filter(|key| {
                let vnic = self.vnics.get(key);
                vnic.is_some_and(|vnic| vnic.metadata.deletion_timestamp.is_some())
            });
            owners.extend(deleted.cloned().map(Owner::VNic));
        }
        owners
    }

    /// The Nodes whose endpoints change between two forms of a slice, where each node has its own.
    fn nodes_between(&self, old: Option<&Slice>, new: Option<&Slice>) -> Owners {
        let both = || old.into_iter().chain(new);
        if !both().any(|slice| self.local_services.contains(&slice.service)) {
            return Owners::new();
        }
        let nodes = both()
            .flat_map(|slice| &slice.endpoints)
            .filter_map(|e| e.node.as_deref());
        nodes.map(|node| Owner::Node(node.to_owned())).collect()
    }

    /// Notes whether the cluster address of a Service leads only to the client's own node; names all Nodes if it does
    /// or did.
    pub(super) fn set_local(&mut self, key: &ObjectKey, local: bool) -> Owners {
        let was = match local {
            true => !self.local_services.insert(key.clone()),
            false => self.local_services.remove(key),
        };
        if !was && !local {
            return Owners::new();
        }
        self.nodes.keys().cloned().map(Owner::Node).collect()
    }

    /// The Services whose cluster address leads only to the client's own node.
    pub(crate) fn local_services(&self) -> impl Iterator<Item = (&ObjectKey, &Service)> {
        let all = self.local_services.iter();
        all.filter_map(|key| Some((key, self.services.get(key)?.as_ref())))
    }

    /// Whom it concerns how these addresses are reached: the Services that have an endpoint there, and the Nodes, if they
    /// have rows of such a Service.
    pub(super) fn users_of(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Owners {
        let mut owners = Owners::new();
        for service in self.services_at(addresses) {
            if self.local_services.contains(service) {
                owners.extend(self.nodes.keys().cloned().map(Owner::Node));
            }
            owners.insert(Owner::Service(service.clone()));
        }
        owners
    }

    fn services_at(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> impl Iterator<Item = &ObjectKey> {
        let first = Arc::new(ObjectKey::new("", ""));
        let slices = addresses.into_iter().flat_map(move |ip| {
            self.slices_of_address
                .range((ip, first.clone())..)
                .take_while(move |(of, _)| *of == ip)
        });
        slices.filter_map(|(_, slice)| self.slice_service.get(&**slice))
    }
}
