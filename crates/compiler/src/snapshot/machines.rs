//! Addresses of the cluster's own machines, which no range of ycloud's may have: its nodes', and the API server's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use ycloud_api::key;

use super::apply::Owners;
use super::{Slice, Snapshot};
use crate::owner::ObjectKey;

impl Snapshot {
    /// A machine that has an address in the range: the address, and whose it is in words.
    pub(crate) fn machine_within(&self, range: IpNet) -> Option<(IpAddr, String)> {
        let range = range.network()..=range.broadcast();
        let nodes = self.node_addresses.range(range.clone());
        let mut of_nodes = nodes.filter_map(|(ip, nodes)| {
            let node = nodes.first()?;
            Some((*ip, format!("the address of Node {node}")))
        });
        let mut of_api_server = self.api_server.range(range);
        of_nodes.next().or_else(|| {
            let words = "an address of the API server, as Service default/kubernetes has it";
            Some((*of_api_server.next()?, words.to_owned()))
        })
    }

    /// The endpoints of the API server may have changed.
    pub(super) fn set_api_server(&mut self, service: &ObjectKey) -> Owners {
        if (service.namespace.as_str(), service.name.as_str()) != key::API_SERVER {
            return Owners::new();
        }
        let slices = self.slices.get(service).into_iter().flatten();
        let endpoints = slices.flat_map(|(_, slice): (_, &Slice)| &slice.endpoints);
        let after: BTreeSet<IpAddr> = endpoints.map(|endpoint| endpoint.ip).collect();
        let before = std::mem::replace(&mut self.api_server, after);
        let changed = &before ^ &self.api_server;
        if changed.is_empty() {
            return Owners::new();
        }
        let mut owners = self.recheck(key::DEFAULT_VPC);
        owners.extend(self.rejudge());
        owners.extend(self.external_at(changed));
        owners
    }
}
