//! EndpointSlices, and which of them name an address of a node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use ycloud_api::key;

use super::apply::{Owners, key_of};
use super::{Endpoint, Held, Slice, Snapshot};
use crate::owner::{ObjectKey, Owner};

/// The slices that have an endpoint at an address, by namespace and name. A hundred thousand endpoints are a few
/// megabytes: each entry is an address and a share in its slice's name.
pub(super) type SlicesOfAddress = BTreeSet<(Ipv4Addr, Arc<ObjectKey>)>;

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
            slice
                .endpoints
                .sort_unstable_by_key(|Endpoint { ip, ready }| (*ip, *ready));
            slice
        });
        if old == new.as_ref() {
            return Owners::new();
        }
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
        before
            .into_iter()
            .chain(after)
            .map(Owner::Service)
            .collect()
    }

    /// The Services that have an endpoint at one of these addresses.
    pub(super) fn services_at<'a>(
        &'a self,
        addresses: impl IntoIterator<Item = Ipv4Addr> + 'a,
    ) -> impl Iterator<Item = Owner> + 'a {
        let first = Arc::new(ObjectKey::new("", ""));
        let slices = addresses.into_iter().flat_map(move |ip| {
            self.slices_of_address
                .range((ip, first.clone())..)
                .take_while(move |(of, _)| *of == ip)
        });
        slices.filter_map(|(_, slice)| {
            self.slice_service
                .get(&**slice)
                .cloned()
                .map(Owner::Service)
        })
    }

    /// The join address of a Node: that of its VNic. `None` while it has none.
    pub fn join_address(&self, node: &str) -> Option<Ipv4Addr> {
        let vnic = self.vnic(&ObjectKey::new(key::SYSTEM_NAMESPACE, node))?;
        Held::of(vnic).map(|held| held.ip)
    }

    /// Where the default Vpc reaches what listens on an address of a node: at that node's join address. `None` for
    /// addresses that no node has, and for those of a node that has no join address yet.
    ///
    /// A node answers on its join address from wherever it was called, so such an endpoint works from every Pod and from
    /// every node, itself included. By the node's own address it would not work from that node: the load balancer would
    /// send the node's packet back to it, from an address of its own.
    pub(crate) fn join_address_of(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let nodes = self.node_addresses.get(&ip)?;
        nodes.iter().find_map(|node| self.join_address(node))
    }
}
