//! VNics and those that need one, Pods and Nodes: how their changes move addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use ycloud_api::address::Family;
use ycloud_api::{VNic, key};

use super::apply::{Owners, insert, put, remove};
use super::{Held, NodeFacts, PodFacts, Snapshot, Source};
use crate::owner::{ObjectKey, Owner};
use crate::validate::subnet::{check, meet};

impl Snapshot {
    /// Whether this VNic is what the API server had before an allocation that the snapshot knows of.
    pub(super) fn is_echo(&self, key: &ObjectKey, new: &VNic) -> bool {
        let Some(old) = self.vnics.get(key) else {
            return false;
        };
        if old.metadata.uid != new.metadata.uid {
            return false;
        }
        let version = |vnic: &VNic| vnic.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        match (version(old), version(new)) {
            (Some(old_version), Some(new_version)) => {
                let loses_address = Held::of(old).is_some() && Held::of(new).is_none();
                new_version < old_version || (new_version == old_version && loses_address)
            }
            _ => false,
        }
    }

    pub(super) fn set_vnic(&mut self, key: ObjectKey, vnic: Option<Arc<VNic>>) -> Owners {
        let new = vnic.clone();
        let old = put(&mut self.vnics, &key, vnic);
        let mut owners = Owners::from([Owner::VNic(key.clone())]);
        if let (Some(old), Some(new)) = (&old, &new)
            && old.spec == new.spec
            && Held::of(old) == Held::of(new)
        {
            return owners;
        }
        let both = || old.iter().chain(&new);
        let subnets: BTreeSet<String> = both().map(|vnic| vnic.spec.subnet.clone()).collect();
        let standings: Vec<_> = subnets.iter().map(|subnet| self.standing(subnet)).collect();
        let ranges: BTreeSet<Ipv4Net> = both().filter_map(|v| Some(Held::of(v)?.range)).collect();
        let used = |all: &Self, subnet: &String| -> BTreeSet<Ipv4Net> {
            let pool = all.pools.get(subnet);
            let is_used = |range: &&Ipv4Net| pool.is_some_and(|pool| pool.uses(range));
            ranges.iter().filter(is_used).copied().collect()
        };
        let used_before: Vec<_> = subnets.iter().map(|s| used(self, s)).collect();
        // Everybody who may look at an address that somebody else had until now.
        let mut rivals: BTreeSet<ObjectKey> = BTreeSet::new();
        if let Some(old) = &old {
            rivals.extend(self.unindex_vnic(&key, old));
        }
        if let Some(new) = &new {
            rivals.extend(self.index_vnic(&key, new));
        }
        if self.wanted.contains_key(&key) {
            match new {
                Some(_) => self.unattached.remove(&key),
                None => self.unattached.insert(key.clone()),
            };
        }
        owners.extend(rivals.into_iter().map(Owner::VNic));
        for (subnet, standing) in subnets.iter().zip(standings) {
            let owner = Owner::Subnet(subnet.clone());
            if self.standing(subnet) != standing {
                owners.extend(self.dependents(&owner));
                owners.extend(self.waiting_vnics());
            }
            owners.insert(owner);
        }
        if key.namespace == key::SYSTEM_NAMESPACE {
            owners.insert(Owner::Node(key.name.clone()));
            let node = self.nodes.get(&key.name).into_iter();
            let addresses = node.flat_map(|node| node.addresses.iter().copied());
            owners.extend(self.users_of(addresses));
        }
        for (subnet, before) in subnets.iter().zip(used_before) {
            let changed = &before ^ &used(self, subnet);
            if let Some(vpc) = self.subnets.get(subnet).map(|s| s.spec.vpc.clone()) {
                owners.extend(self.recheck_ranges(subnet, &vpc, &changed));
            }
        }
        owners
    }

    /// Whether a Subnet is accepted (`Ok`), or refused, and then whether it keeps its rows. VNics decide on it too: one
    /// that holds an address keeps them.
    fn standing(&self, subnet: &str) -> Result<(), bool> {
        check(self, subnet)
            .map(|_| ())
            .map_err(|rejection| rejection.keep)
    }

    /// Ranges came into use by VNics of a Subnet of `vpc`, or went out of it: others are kept away from them, see
    /// [`overlaps`](crate::validate::subnet::overlaps). The default Vpc's concern every Vpc, and the other way round.
    pub(super) fn recheck_ranges(
        &mut self,
        subnet: &str,
        vpc: &str,
        changed: &BTreeSet<Ipv4Net>,
    ) -> Owners {
        let meets = |name: &str| match self.networks.get(name) {
            Some(Ok(network)) if name != subnet => {
                changed.iter().any(|range| meet(*range, network.cidr))
            }
            _ => false,
        };
        let concerns_all = match vpc {
            key::DEFAULT_VPC => self.subnets.keys().any(|name| meets(name)),
            _ => self.subnets_of(key::DEFAULT_VPC).any(meets),
        };
        if concerns_all {
            self.recheck(key::DEFAULT_VPC)
        } else if self.subnets_of(vpc).any(meets) {
            self.recheck(vpc)
        } else {
            Owners::new()
        }
    }

    /// Takes a VNic out of the indexes; returns the VNics that may profit from it.
    fn unindex_vnic(&mut self, key: &ObjectKey, vnic: &VNic) -> Vec<ObjectKey> {
        let subnet = &vnic.spec.subnet;
        let chassis = vnic.spec.attachment.chassis.as_ref();
        remove(&mut self.vnics_of_subnet, subnet, key);
        self.addressless.remove(key);
        if let Some(chassis) = chassis {
            remove(&mut self.vnics_of_chassis, chassis, key);
        }
        let held = Held::of(vnic);
        let Some(ip) = held.map(|held| held.ip).or_else(|| asked(vnic)) else {
            return Vec::new();
        };
        if let Some(pool) = self.pools.get_mut(subnet) {
            match held {
                Some(held) => pool.release(held, key),
                None => pool.forget(ip, key),
            }
        }
        if let Some(chassis) = chassis
            && let Some(addresses) = self.chassis_addresses.get_mut(chassis)
        {
            remove(addresses, &ip, key);
            if addresses.is_empty() {
                self.chassis_addresses.remove(chassis);
            }
        }
        let waits = |other: &&ObjectKey| {
            self.vnics.get(*other).is_some_and(|other| {
                other.spec.subnet == *subnet
                    || (chassis.is_some() && other.spec.attachment.chassis.as_ref() == chassis)
            })
        };
        let waiting = self.addressless.iter().filter(waits);
        let holders = self
            .pools
            .get(subnet)
            .into_iter()
            .flat_map(|pool| pool.holders(ip));
        waiting.chain(holders).cloned().collect()
    }

    /// Puts a VNic into the indexes; returns those who hold the same address.
    fn index_vnic(&mut self, key: &ObjectKey, vnic: &VNic) -> Vec<ObjectKey> {
        let subnet = &vnic.spec.subnet;
        insert(&mut self.vnics_of_subnet, subnet, key.clone());
        let chassis = vnic.spec.attachment.chassis.as_ref();
        if let Some(chassis) = chassis {
            insert(&mut self.vnics_of_chassis, chassis, key.clone());
        }
        match (Held::of(vnic), asked(vnic)) {
            (Some(held), _) => {
                let ip = held.ip;
                let pool = self.pools.entry(subnet.clone()).or_default();
                pool.hold(held, key);
                let holders = pool
                    .holders(ip)
                    .filter(|holder| *holder != key)
                    .cloned()
                    .collect();
                if let Some(chassis) = chassis {
                    let addresses = self.chassis_addresses.entry(chassis.clone()).or_default();
                    addresses.entry(ip).or_default().insert(key.clone());
                }
                holders
            }
            (None, asked) => {
                self.addressless.insert(key.clone());
                if let Some(ip) = asked {
                    self.pools.entry(subnet.clone()).or_default().ask(ip, key);
                }
                Vec::new()
            }
        }
    }

    pub(super) fn set_node(&mut self, name: String, facts: Option<NodeFacts>) -> Owners {
        let new = facts.clone();
        let old = put(&mut self.nodes, &name, facts);
        if old == new {
            return Owners::new();
        }
        let vnic = ObjectKey::new(key::SYSTEM_NAMESPACE, name.clone());
        let owner = Owner::Node(name.clone());
        let mut owners = Owners::from([owner.clone(), Owner::VNic(vnic.clone())]);
        if old.is_some() != new.is_some() {
            self.set_wanted(vnic, new.as_ref().map(|_| Source::Node(name.clone())));
            // Its Pods' ports are in its port group.
            owners.extend(self.dependents(&owner));
        }
        let addresses = |facts: &Option<NodeFacts>| -> BTreeSet<IpAddr> {
            facts
                .iter()
                .flat_map(|facts| facts.addresses.iter().copied())
                .collect()
        };
        let (before, after) = (addresses(&old), addresses(&new));
        for ip in before.difference(&after) {
            remove(&mut self.node_addresses, ip, &name);
        }
        for ip in after.difference(&before) {
            insert(&mut self.node_addresses, ip, name.clone());
        }
        if before != after {
            owners.extend(self.recheck(key::DEFAULT_VPC));
            owners.extend(self.users_of(&before ^ &after));
        }
        owners
    }

    pub(super) fn set_pod(&mut self, key: ObjectKey, facts: Option<PodFacts>) -> Owners {
        let vnic = |facts: &Option<PodFacts>| {
            let facts = facts.as_ref().filter(|facts| facts.wants_vnic());
            facts.map(PodFacts::vnic_key)
        };
        let new = facts.clone();
        let old = put(&mut self.pods, &key, facts);
        if old == new {
            return Owners::new();
        }
        let (before, after) = (vnic(&old), vnic(&new));
        if before != after {
            if let Some(before) = before.clone() {
                self.set_wanted(before, None);
            }
            if let Some(after) = after.clone() {
                self.set_wanted(after, Some(Source::Pod(key)));
            }
        }
        before.into_iter().chain(after).map(Owner::VNic).collect()
    }

    /// The join address of a Node in a family: that of its VNic. `None` while it has none.
    pub fn join_address(&self, node: &str, family: Family) -> Option<IpAddr> {
        let vnic = self.vnic(&ObjectKey::new(key::SYSTEM_NAMESPACE, node))?;
        let mut addresses = vnic
            .status
            .iter()
            .flat_map(|status| status.links())
            .filter_map(|link| link.ip.parse().ok());
        addresses.find(|ip: &IpAddr| Family::of(*ip) == family)
    }

    /// Where the default Vpc reaches what listens on an address of a node: at that node's join address of the same
    /// family. `None` for addresses that no node has, and for those of a node that has no such join address yet.
    ///
    /// A node answers on its join address from wherever it was called, so such an endpoint works from every Pod and from
    /// every node, itself included. By the node's own address it would not work from that node: the load balancer would
    /// send the node's packet back to it, from an address of its own.
    pub(crate) fn join_address_of(&self, ip: IpAddr) -> Option<IpAddr> {
        let nodes = self.node_addresses.get(&ip)?;
        let family = Family::of(ip);
        nodes
            .iter()
            .find_map(|node| self.join_address(node, family))
    }

    /// As [`Self::join_address_of`], for what is IPv4 only.
    pub(crate) fn join_ipv4_of(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        match self.join_address_of(ip.into())? {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }
    }

    fn set_wanted(&mut self, vnic: ObjectKey, source: Option<Source>) {
        match source {
            Some(source) => {
                if !self.vnics.contains_key(&vnic) {
                    self.unattached.insert(vnic.clone());
                }
                self.wanted.insert(vnic, source);
            }
            None => {
                self.unattached.remove(&vnic);
                self.wanted.remove(&vnic);
            }
        }
    }
}

/// The address that a VNic asks for.
fn asked(vnic: &VNic) -> Option<Ipv4Addr> {
    vnic.spec.ip.as_deref()?.parse().ok()
}
