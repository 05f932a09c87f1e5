//! What is known of Services, EndpointSlices and Nodes, and the rules of each Service. Pure.
//!
//! A change marks the Services that it concerns; [`World::settle`] looks at those again and at no others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ycloud_api::key::API_SERVER;

use super::facts::{NodeAddresses, Service, Slice, Surroundings};
use super::rules::{self, ServiceRules};
use super::table::Table;
use crate::agent::family::Family;
use crate::agent::objects::Key;

/// A change of one kind of objects.
#[derive(Debug, Clone)]
pub enum Delta<T> {
    /// These are all.
    All(BTreeMap<Key, T>),
    /// One is now so; `None`: it is gone, or the node has no part in it.
    One(Key, Option<T>),
}

/// A change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Of Services.
    Services(Delta<Service>),
    /// Of EndpointSlices.
    Slices(Delta<Slice>),
    /// Of Nodes: their addresses, see [`super::facts::node`].
    Nodes(Delta<NodeAddresses>),
}

/// All that is known.
#[derive(Debug, Default)]
pub struct World {
    services: BTreeMap<Key, Service>,
    slices: BTreeMap<Key, Slice>,
    /// Service → its EndpointSlices.
    slices_of: BTreeMap<Key, BTreeSet<Key>>,
    around: Surroundings,
    /// Services, EndpointSlices and Nodes have been listed.
    listed: [bool; 3],
    changed: BTreeSet<Key>,
    rules: BTreeMap<Key, ServiceRules>,
}

impl World {
    /// Nothing is known but the node's own name.
    pub fn new(node: &str) -> Self {
        let around = Surroundings {
            node: node.to_owned(),
            ..Default::default()
        };
        Self {
            around,
            ..Default::default()
        }
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Services(delta) => {
                let (listed, touched) = put(&mut self.services, delta);
                self.listed[0] |= listed;
                self.changed.extend(touched);
            }
            Change::Slices(delta) => self.apply_slices(delta),
            Change::Nodes(delta) => {
                let before = self.around.nodes.clone();
                match delta {
                    Delta::All(nodes) => {
                        let nodes = nodes.into_iter();
                        self.around.nodes = nodes.map(|((_, name), ips)| (name, ips)).collect();
                        self.listed[2] = true;
                    }
                    Delta::One((_, name), Some(ips)) => {
                        self.around.nodes.insert(name, ips);
                    }
                    Delta::One((_, name), None) => {
                        self.around.nodes.remove(&name);
                    }
                }
                if self.around.nodes != before {
                    self.changed.extend(self.services.keys().cloned());
                }
            }
        }
    }

    fn apply_slices(&mut self, delta: Delta<Slice>) {
        let mut touched = BTreeSet::new();
        if let Delta::All(_) = &delta {
            touched.extend(self.slices_of.keys().cloned());
            self.slices_of.clear();
        }
        if let Delta::One(key, _) = &delta
            && let Some(old) = self.slices.get(key)
        {
            touched.insert(old.service.clone());
            if let Some(slices) = self.slices_of.get_mut(&old.service) {
                slices.remove(key);
            }
        }
        let (listed, keys) = put(&mut self.slices, delta);
        for key in keys {
            let Some(slice) = self.slices.get(&key) else {
                continue;
            };
            touched.insert(slice.service.clone());
            let slices = self.slices_of.entry(slice.service.clone()).or_default();
            slices.insert(key);
        }
        self.slices_of.retain(|_, slices| !slices.is_empty());
        self.listed[1] |= listed;
        let (namespace, name) = API_SERVER;
        let of_api_server = (namespace.to_owned(), name.to_owned());
        if touched.contains(&of_api_server) {
            let slices = self.slices_of.get(&of_api_server).into_iter().flatten();
            let slices = slices.filter_map(|slice| self.slices.get(slice));
            let endpoints = slices.flat_map(|slice| &slice.endpoints);
            let addresses = endpoints.map(|endpoint| endpoint.ip).collect();
            if self.around.api_server != addresses {
                self.around.api_server = addresses;
                self.touch_external();
            }
        }
        self.changed.extend(touched);
    }

    /// Those with `spec.externalIPs` are looked at again.
    fn touch_external(&mut self) {
        let external = self.services.iter();
        let external = external.filter(|(_, service)| !service.external_ips.is_empty());
        self.changed.extend(external.map(|(key, _)| key.clone()));
    }

    /// Says which ranges the default Vpc has.
    pub fn set_default_vpc(&mut self, ranges: BTreeSet<IpNet>) {
        if self.around.default_vpc != ranges {
            self.around.default_vpc = ranges;
            self.changed.extend(self.services.keys().cloned());
        }
    }

    /// Says within which other ranges the node translates no `spec.externalIPs`: of ycloud's own networks, Services' cluster
    /// addresses and elastic addresses, by way of which its packets enter OVN, and what EipGateways have besides; and the
    /// servers that the node itself uses.
    pub fn set_reserved(&mut self, ranges: BTreeSet<IpNet>) {
        if self.around.reserved != ranges {
            self.around.reserved = ranges;
            self.touch_external();
        }
    }

    /// Whether everything has been listed, so that what is missing does not exist.
    pub fn is_complete(&self) -> bool {
        self.listed == [true; 3]
    }

    /// Looks again at the Services that changes concern. Returns whether any rule is another now.
    pub fn settle(&mut self) -> bool {
        let mut different = false;
        for key in std::mem::take(&mut self.changed) {
            let rules = self.services.get(&key).map(|service| {
                let slices = self.slices_of.get(&key).into_iter().flatten();
                let slices = slices.filter_map(|slice| self.slices.get(slice));
                let slices: Vec<&Slice> = slices.filter(|slice| slice.counts(service)).collect();
                rules::rules(&key, service, &slices, &self.around)
            });
            let rules = rules.filter(|r| !r.rules.is_empty() || r.health.is_some());
            if self.rules.get(&key) == rules.as_ref() {
                continue;
            }
            different = true;
            match rules {
                Some(rules) => self.rules.insert(key, rules),
                None => self.rules.remove(&key),
            };
        }
        different
    }

    /// The table of all rules.
    pub fn table(&self) -> Table {
        Table::new(self.rules.iter(), &self.around.default_vpc)
    }

    /// Cluster addresses that the node itself serves.
    pub fn outside(&self) -> BTreeSet<IpAddr> {
        self.rules
            .values()
            .flat_map(|rules| rules.outside.iter().copied())
            .collect()
    }

    /// The addresses by which this node is known in the cluster: the first of each family.
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.around.nodes.get(&self.around.node);
        let ips = own.into_iter().flat_map(NodeAddresses::all);
        let first = |family| ips.clone().find(|ip| Family::of(*ip) == family);
        Family::ALL.into_iter().filter_map(first).collect()
    }

    /// Service → port of its health check and number of its ready endpoints on this node.
    pub fn health_checks(&self) -> BTreeMap<Key, (u16, usize)> {
        let checks = self.rules.iter();
        let checks = checks.filter_map(|(key, rules)| Some((key.clone(), rules.health?)));
        checks.collect()
    }
}

/// Returns whether these are all, and the keys that may be concerned.
fn put<T>(all: &mut BTreeMap<Key, T>, delta: Delta<T>) -> (bool, BTreeSet<Key>) {
    match delta {
        Delta::All(new) => {
            let keys = all.keys().chain(new.keys()).cloned().collect();
            *all = new;
            (true, keys)
        }
        Delta::One(key, object) => {
            match object {
                Some(object) => all.insert(key.clone(), object),
                None => all.remove(&key),
            };
            (false, BTreeSet::from([key]))
        }
    }
}
