//! VNics and those that need one, Pods and Nodes: how their changes move addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use ycloud_api::address::Family;
use ycloud_api::vnic::AttachmentKind;
use ycloud_api::{VNic, key};

use super::apply::{Owners, insert, put, remove};
use super::{Held, NodeFacts, PodFacts, Snapshot, Source};
use crate::owner::{ObjectKey, Owner};
use crate::validate::network::Network;
use crate::validate::subnet::conflict;

/// The MAC of a VNic that holds an address.
fn held_mac(vnic: &VNic) -> Option<String> {
    let status = vnic.status.as_ref()?;
    let mac = status.mac.as_ref().filter(|mac| !mac.is_empty())?;
    (!Held::all(vnic).is_empty()).then(|| mac.clone())
}

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
                let kept = Held::all(new);
                let lost = |held: &Held| kept.iter().all(|kept| kept.ip != held.ip);
                let loses_address = Held::all(old).iter().any(lost);
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
            && Held::all(old) == Held::all(new)
            && held_mac(old) == held_mac(new)
        {
            return owners;
        }
        let both = || old.iter().chain(&new);
        let subnets: BTreeSet<String> = both().map(|vnic| vnic.spec.subnet.clone()).collect();
        let records: Vec<_> = subnets.iter().map(|subnet| self.record(subnet)).collect();
        let held = both().flat_map(|vnic| Held::all(vnic));
        let ranges: BTreeSet<IpNet> = held.map(|held| held.range).collect();
        let used = |all: &Self, subnet: &String| -> BTreeSet<IpNet> {
            let pool = all.pools.get(subnet);
            let is_used = |range: &&IpNet| pool.is_some_and(|pool| pool.uses(range));
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
        owners.extend(subnets.iter().cloned().map(Owner::Subnet));
        if key.namespace == key::SYSTEM_NAMESPACE {
            owners.insert(Owner::Node(key.name.clone()));
            let node = self.nodes.get(&key.name).into_iter();
            let addresses = node.flat_map(|node| node.addresses.iter().copied());
            owners.extend(self.users_of(addresses));
        }
        for ((subnet, before), record) in subnets.iter().zip(used_before).zip(records) {
            let Some(vpc) = self.subnets.get(subnet).map(|s| s.spec.vpc.clone()) else {
                continue;
            };
            let mut changed = &before ^ &used(self, subnet);
            let now = self.record(subnet);
            if record != now {
                let both = record.iter().chain(&now);
                changed.extend(both.flat_map(Network::cidrs).map(|cidr| cidr.range));
            }
            if record != now || self.conflict_changed(subnet) {
                owners.extend(self.recheck(&vpc));
            }
            owners.extend(self.recheck_ranges(subnet, &vpc, &changed));
        }
        owners
    }

    /// Whether the holders of a Subnet's addresses have something else against its spec than when it was judged.
    fn conflict_changed(&self, subnet: &str) -> bool {
        let asked = self.asked_networks.get(subnet);
        let asked = asked.and_then(|asked| asked.as_ref().ok());
        let now = asked.and_then(|network| conflict(self, subnet, network));
        let standing = self.standings.get(subnet);
        standing.is_some_and(|standing| standing.conflict != now)
    }

    /// Ranges of a Subnet of `vpc` came into force or into use by VNics, or went out of it: others are kept away from them,
    /// see [`judge`](crate::validate::subnet::judge). The default Vpc's concern every Vpc, and the other way round.
    pub(super) fn recheck_ranges(
        &mut self,
        subnet: &str,
        vpc: &str,
        changed: &BTreeSet<IpNet>,
    ) -> Owners {
        let meets = |name: &str| match self.asked_networks.get(name) {
            Some(Ok(network)) if name != subnet => {
                changed.iter().any(|range| network.meets(*range))
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
        let (held, asked) = (Held::all(vnic), asked(vnic));
        if let Some(pool) = self.pools.get_mut(subnet) {
            held.iter().for_each(|held| pool.release(*held, key));
            asked.iter().for_each(|ip| pool.forget(*ip, key));
            held_mac(vnic)
                .iter()
                .for_each(|mac| pool.release_mac(mac, key));
        }
        if let Some(chassis) = chassis
            && let Some(addresses) = self.chassis_addresses.get_mut(chassis)
        {
            for held in &held {
                remove(addresses, &held.ip, key);
            }
            if addresses.is_empty() {
                self.chassis_addresses.remove(chassis);
            }
        }
        let mut freed: Vec<IpAddr> = held.into_iter().map(|held| held.ip).collect();
        freed.extend(asked);
        if freed.is_empty() {
            return Vec::new();
        }
        let waits = |other: &&ObjectKey| {
            self.vnics.get(*other).is_some_and(|other| {
                other.spec.subnet == *subnet
                    || (chassis.is_some() && other.spec.attachment.chassis.as_ref() == chassis)
            })
        };
        let waiting = self.addressless.iter().filter(waits);
        let pool = self.pools.get(subnet);
        let holders = pool
            .into_iter()
            .flat_map(|pool| freed.iter().flat_map(|ip| pool.holders(*ip)));
        waiting.chain(holders).cloned().collect()
    }

    /// Puts a VNic into the indexes; returns those who hold the same addresses.
    fn index_vnic(&mut self, key: &ObjectKey, vnic: &VNic) -> Vec<ObjectKey> {
        let subnet = &vnic.spec.subnet;
        insert(&mut self.vnics_of_subnet, subnet, key.clone());
        let chassis = vnic.spec.attachment.chassis.as_ref();
        if let Some(chassis) = chassis {
            insert(&mut self.vnics_of_chassis, chassis, key.clone());
        }
        if self.lacks_address(vnic) {
            self.addressless.insert(key.clone());
        }
        let (held, asked) = (Held::all(vnic), asked(vnic));
        if held.is_empty() && asked.is_empty() {
            return Vec::new();
        }
        let pool = self.pools.entry(subnet.clone()).or_default();
        asked.into_iter().for_each(|ip| pool.ask(ip, key));
        held_mac(vnic)
            .iter()
            .for_each(|mac| pool.hold_mac(mac, key));
        let mut others = Vec::new();
        for held in held {
            pool.hold(held, key);
            let holders = pool.holders(held.ip);
            others.extend(holders.filter(|holder| *holder != key).cloned());
            if let Some(chassis) = chassis {
                let addresses = self.chassis_addresses.entry(chassis.clone()).or_default();
                insert(addresses, &held.ip, key.clone());
            }
        }
        others
    }

    /// Whether a VNic is to get an address: it has none at all, or [lacks](Self::missing) one.
    pub fn lacks_address(&self, vnic: &VNic) -> bool {
        Held::all(vnic).is_empty() || !self.missing(vnic).is_empty()
    }

    /// The families in which a VNic is to get an address: those that its Subnet has and the VNic has not. A Pod's interface is configured once, so a Pod keeps the families it has; whatever else is
    /// attached gets the other one when its Subnet does.
    pub(crate) fn missing(&self, vnic: &VNic) -> Vec<Family> {
        let held = Held::all(vnic);
        let Some(network) = self.network(&vnic.spec.subnet) else {
            return Vec::new();
        };
        if !held.is_empty() && vnic.spec.attachment.kind == AttachmentKind::Pod {
            return Vec::new();
        }
        let has = |family: Family| held.iter().any(|held| Family::of(held.ip) == family);
        let families = network.cidrs().map(|cidr| cidr.family());
        families.filter(|family| !has(*family)).collect()
    }

    /// Notes anew which VNics of a Subnet lack an address: its families may be others than before.
    pub(super) fn recheck_missing(&mut self, subnet: &str) {
        let vnics = self.vnics_of_subnet.get(subnet).into_iter().flatten();
        for key in vnics {
            match self.vnics.get(key) {
                Some(vnic) if self.lacks_address(vnic) => self.addressless.insert(key.clone()),
                _ => self.addressless.remove(key),
            };
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
        let mut owners = Owners::from([owner.clone(), Owner::VNic(vnic)]);
        if old.is_some() != new.is_some() {
            self.want_join(&name);
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
            owners.extend(self.external_at(&before ^ &after));
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
        let addresses = Held::all(vnic).into_iter().map(|held| held.ip);
        addresses.into_iter().find(|ip| Family::of(*ip) == family)
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

    /// Notes whether there must be a VNic on the join switch under this name: for a Node, or for a chassis without one, if
    /// an object can have its name.
    pub(super) fn want_join(&mut self, name: &str) {
        let wanted = self.nodes.contains_key(name) || self.has_chassis(name);
        let vnic = ObjectKey::new(key::SYSTEM_NAMESPACE, name);
        self.set_wanted(vnic, wanted.then(|| Source::Node(name.to_owned())));
    }

    /// Whether OVN has a chassis whose name an object can have: lower-case letters, digits, dashes and dots, each part
    /// beginning and ending with a letter or a digit, at most 253 characters (RFC 1123 subdomain).
    pub fn has_chassis(&self, name: &str) -> bool {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let part = |part: &str| {
            part.starts_with(plain)
                && part.ends_with(plain)
                && part.chars().all(|c| plain(c) || c == '-')
        };
        name.len() <= 253 && name.split('.').all(part) && self.physical_networks(name).is_some()
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

/// The addresses that a VNic asks for and that it may still get: at most one of each family, IPv4 first.
fn asked(vnic: &VNic) -> Vec<IpAddr> {
    let held = Held::all(vnic);
    if !held.is_empty() && vnic.spec.attachment.kind == AttachmentKind::Pod {
        return Vec::new();
    }
    let has = |ip: &IpAddr| {
        held.iter()
            .any(|held| Family::of(held.ip) == Family::of(*ip))
    };
    let fixed = vnic.spec.ip.iter().chain(&vnic.spec.ipv6);
    let fixed = fixed.filter_map(|text| text.parse().ok());
    fixed.filter(|ip| !has(ip)).collect()
}
