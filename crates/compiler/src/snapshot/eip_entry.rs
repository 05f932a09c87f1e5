//! How EIPs lead into the default Vpc: all that the nodes' ways back depend on.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net};
use ycloud_api::address::Family;
use ycloud_api::key;

use super::Snapshot;
use super::apply::Owners;
use crate::desired::attachment::Attachment;
use crate::eip::bound;
use crate::layout::Layout;
use crate::owner::Owner;

/// How EIPs lead into the default Vpc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EipEntry {
    /// The EipGateway that the default Vpc is attached to.
    pub gateway: String,
    /// The IPv4 ranges of the default Vpc's Subnets in force, but the join network.
    pub ranges: BTreeSet<Ipv4Net>,
    /// Some Eip leads there now.
    pub used: bool,
    /// How the system range is divided.
    pub layout: Layout,
}

impl Snapshot {
    /// `None` while the default Vpc is not attached to an EipGateway, or some chassis forgets connections.
    pub(crate) fn eip_entry(&self) -> Option<&EipEntry> {
        self.eip_entry.as_ref()
    }

    /// Looks anew if an event concerned the default Vpc, and names the Nodes if it changed by it.
    pub(super) fn follow_eip_entry(&mut self, owners: &Owners) -> Owners {
        if !owners.contains(&Owner::Vpc(key::DEFAULT_VPC.to_owned())) {
            return Owners::new();
        }
        let new = self.read_eip_entry();
        if self.eip_entry == new {
            return Owners::new();
        }
        let mut more: Owners = self.nodes.keys().cloned().map(Owner::Node).collect();
        if self.eip_entry.is_some() != new.is_some() {
            let services = self.eip_uses_of(key::DEFAULT_VPC).cloned();
            more.extend(services.map(Owner::Service));
        }
        self.eip_entry = new;
        more
    }

    fn read_eip_entry(&self) -> Option<EipEntry> {
        let vpc = key::DEFAULT_VPC;
        let attachment = Attachment::of(self, vpc).filter(|_| !self.forgets_connections())?;
        let subnets = self
            .subnets_of(vpc)
            .filter(|name| *name != key::JOIN_SUBNET);
        let networks = subnets.filter_map(|name| self.network(name));
        let ranges = networks.filter_map(|network| match network.cidr(Family::Ipv4)?.range {
            IpNet::V4(range) => Some(range.trunc()),
            IpNet::V6(_) => None,
        });
        let mut eips = self
            .eip_uses_of(vpc)
            .filter_map(|service| self.eip_of_service(service));
        Some(EipEntry {
            ranges: ranges.collect(),
            used: eips.any(|eip| {
                let binding = bound(self, &eip).map(|(_, binding)| binding);
                binding.is_some_and(|binding| binding.vpc.as_deref() == Some(vpc))
            }),
            gateway: attachment.gateway,
            layout: attachment.layout,
        })
    }
}
