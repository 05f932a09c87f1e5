//! How events change a snapshot, and whom they concern.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ycloud_api::made::made_for;
use ycloud_api::vpc::AllowedNamespaces;
use ycloud_api::{Subnet, Vpc, key, mirror};

use super::{NodeFacts, Object, ObjectRef, PodFacts, Snapshot, age, age_of};
use crate::desired;
use crate::owner::{ObjectKey, Owner};
use crate::validate::network::Network;
use crate::validate::subnet::judge;

pub(super) type Owners = BTreeSet<Owner>;

impl Snapshot {
    pub(super) fn apply_object(&mut self, object: Object) -> Owners {
        match object {
            Object::Vpc(mut vpc) => match vpc.metadata.name.clone() {
                Some(name) => {
                    slim(&mut vpc, |vpc| &mut vpc.metadata);
                    self.set_vpc(name, Some(vpc))
                }
                None => Owners::new(),
            },
            Object::Subnet(mut subnet) => match subnet.metadata.name.clone() {
                Some(name) => {
                    slim(&mut subnet, |subnet| &mut subnet.metadata);
                    self.set_subnet(name, Some(subnet))
                }
                None => Owners::new(),
            },
            Object::VNic(mut vnic) => match key_of(&vnic.metadata) {
                Some(key) if !self.is_echo(&key, &vnic) => {
                    slim(&mut vnic, |vnic| &mut vnic.metadata);
                    self.set_vnic(key, Some(vnic))
                }
                _ => Owners::new(),
            },
            Object::Node(node) => match node.metadata.name.clone() {
                Some(name) => self.set_node(name, Some(NodeFacts::of(&node))),
                None => Owners::new(),
            },
            Object::Namespace(namespace) => self.apply_namespace(&namespace),
            Object::Pod(pod) => match PodFacts::of(&pod) {
                Some(facts) => self.set_pod(facts.key.clone(), Some(facts)),
                None => Owners::new(),
            },
            Object::Service(mut service) => match key_of(&service.metadata) {
                Some(key) => {
                    slim(&mut service, |service| &mut service.metadata);
                    self.set_service(key, Some(service))
                }
                None => Owners::new(),
            },
            Object::EndpointSlice(slice) => self.apply_slice(&slice),
            Object::ServiceCidr(cidr) => self.apply_service_cidr(&cidr),
            Object::EipGateway(mut gateway) => match gateway.metadata.name.clone() {
                Some(name) => {
                    slim(&mut gateway, |gateway| &mut gateway.metadata);
                    self.set_eip_gateway(name, Some(gateway))
                }
                None => Owners::new(),
            },
            Object::Eip(mut eip) => match key_of(&eip.metadata) {
                Some(key) => {
                    slim(&mut eip, |eip| &mut eip.metadata);
                    self.set_eip(key, Some(eip))
                }
                None => Owners::new(),
            },
            Object::NetworkProbe(mut probe) => match key_of(&probe.metadata) {
                Some(key) => {
                    slim(&mut probe, |probe| &mut probe.metadata);
                    // Kilobytes, which only the prober reads.
                    if let Some(https) = &mut Arc::make_mut(&mut probe).spec.check.https {
                        https.ca_bundle = None;
                    }
                    self.set_probe(key, Some(probe))
                }
                None => Owners::new(),
            },
            Object::Prober(prober) => self.set_prober(prober.chassis, true),
            Object::Leaving(leaving) => self.set_leaving(leaving, true),
            Object::Claim(claim) => self.set_claim(claim.group, Some(claim.chassis)),
            Object::Chassis(chassis) => self.set_chassis(chassis.name.clone(), Some(chassis)),
        }
    }

    pub(super) fn delete_object(&mut self, object: ObjectRef) -> Owners {
        match object {
            ObjectRef::Vpc(name) => self.set_vpc(name, None),
            ObjectRef::Subnet(name) => self.set_subnet(name, None),
            ObjectRef::VNic(key) => self.set_vnic(key, None),
            ObjectRef::Node(name) => self.set_node(name, None),
            ObjectRef::Namespace(name) => self.set_namespace(name, None),
            ObjectRef::Pod(key) => self.set_pod(key, None),
            ObjectRef::Service(key) => self.set_service(key, None),
            ObjectRef::EndpointSlice(key) => self.set_slice(key, None),
            ObjectRef::ServiceCidr(name) => self.set_service_cidr(name, Vec::new()),
            ObjectRef::EipGateway(name) => self.set_eip_gateway(name, None),
            ObjectRef::Eip(key) => self.set_eip(key, None),
            ObjectRef::Claim(group) => self.set_claim(group, None),
            ObjectRef::Chassis(name) => self.set_chassis(name, None),
            ObjectRef::NetworkProbe(key) => self.set_probe(key, None),
            ObjectRef::Prober(chassis) => self.set_prober(chassis, false),
            ObjectRef::Leaving(leaving) => self.set_leaving(leaving, false),
        }
    }

    fn set_vpc(&mut self, name: String, vpc: Option<Arc<Vpc>>) -> Owners {
        let new = vpc.clone();
        let old = put(&mut self.vpcs, &name, vpc);
        let age = |vpc: &Option<Arc<Vpc>>| vpc.as_ref().map(|vpc| age_of(&name, &vpc.metadata));
        let mut owners = self.set_vpc_slot(age(&old), age(&new));
        if !owners.is_empty() || age(&old) != age(&new) {
            owners.extend(self.dependents(&Owner::Vpc(name.clone())));
        }
        // An EipGateway that is being deleted waits for the last Vpc that names it.
        let named =
            |vpc: &Option<Arc<Vpc>>| vpc.as_ref().and_then(|vpc| vpc.spec.eip_gateway.clone());
        let (before, after) = (named(&old), named(&new));
        if before != after {
            owners.extend(before.into_iter().chain(after).map(Owner::EipGateway));
        }
        let leaves = |vpc: &Option<Arc<Vpc>>| {
            let vpc = vpc.as_ref();
            vpc.and_then(|vpc| vpc.metadata.deletion_timestamp.clone())
        };
        let leaving = leaves(&old) != leaves(&new);
        if leaving {
            // It takes no newcomers any more, and may have been told of after one.
            owners.extend(self.recheck(&name));
        }
        let owner = Owner::Vpc(name);
        let spec = |vpc: &Option<Arc<Vpc>>| vpc.as_ref().map(|vpc| vpc.spec.clone());
        if leaving || spec(&old) != spec(&new) {
            owners.extend(self.dependents(&owner));
            owners.extend(self.waiting_vnics());
        }
        owners.insert(owner);
        owners
    }

    fn set_subnet(&mut self, name: String, subnet: Option<Arc<Subnet>>) -> Owners {
        let new = subnet.clone();
        let old = put(&mut self.subnets, &name, subnet);
        let owner = Owner::Subnet(name.clone());
        let record = new.as_ref();
        let record = record.and_then(|new| Network::recorded(&self.settings, &name, new));
        let same = match (&old, &new) {
            (Some(old), Some(new)) => {
                old.spec == new.spec
                    && age(&name, old) == age(&name, new)
                    && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
                    && self.recorded_networks.get(&name) == record.as_ref()
            }
            _ => false,
        };
        if same {
            return Owners::from([owner]);
        }
        let mut owners = self.dependents(&owner);
        owners.insert(owner);
        if let Some(old) = &old {
            remove(&mut self.subnets_of_vpc, &old.spec.vpc, &name);
            for namespace in &old.spec.namespaces {
                remove(&mut self.claims, namespace, &age(&name, old));
            }
        }
        self.asked_networks.remove(&name);
        let mut held = ranges_of(record.as_ref());
        held.extend(ranges_of(
            put(&mut self.recorded_networks, &name, record).as_ref(),
        ));
        if let Some(new) = &new {
            insert(&mut self.subnets_of_vpc, &new.spec.vpc, name.clone());
            for namespace in &new.spec.namespaces {
                insert(&mut self.claims, namespace, age(&name, new));
            }
            let network = Network::read(&self.settings, &name, &new.spec);
            self.asked_networks.insert(name.clone(), network);
        }
        let vpcs: BTreeSet<String> = old.iter().chain(&new).map(|s| s.spec.vpc.clone()).collect();
        if new.is_none() {
            self.standings.remove(&name);
            self.recheck_missing(&name);
        }
        if new.is_none() || vpcs.len() > 1 {
            self.moved
                .extend(vpcs.iter().map(|vpc| (name.clone(), vpc.clone())));
        }
        let named = |subnet: &Option<Arc<Subnet>>| {
            let spec = subnet.as_ref().map(|subnet| subnet.spec.clone());
            let spec = spec.filter(|spec| !spec.namespaces.is_empty());
            spec.map(|spec| (spec.vpc, spec.namespaces))
        };
        if named(&old) != named(&new) {
            // Whom they permit changes with it.
            for vpc in &vpcs {
                owners.extend(self.dependents(&Owner::Vpc(vpc.clone())));
                self.moved.insert((name.clone(), vpc.clone()));
            }
        }
        let pool = self.pools.get(&name).into_iter();
        held.extend(pool.flat_map(|pool| pool.ranges()));
        for vpc in &vpcs {
            owners.extend(self.recheck(vpc));
            owners.extend(self.recheck_ranges(&name, vpc, &held));
        }
        owners.extend(vpcs.into_iter().map(Owner::Vpc));
        owners.extend(self.waiting_vnics());
        owners
    }

    /// Judges the Subnets of a Vpc anew, and names those whose standing changed, with all that hangs on them. The default
    /// Vpc's ranges concern every Vpc.
    pub(super) fn recheck(&mut self, vpc: &str) -> Owners {
        let mut owners = Owners::new();
        let others: Vec<String> = match vpc {
            key::DEFAULT_VPC => self
                .subnets_of_vpc
                .keys()
                .filter(|other| *other != vpc)
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        for vpc in std::iter::once(vpc.to_owned()).chain(others) {
            for (name, new) in judge(self, &vpc) {
                let old = self.standings.get(&name);
                if old == Some(&new) {
                    continue;
                }
                if old.and_then(|old| old.network.as_ref()) != new.network.as_ref() {
                    self.moved.insert((name.clone(), vpc.clone()));
                }
                self.standings.insert(name.clone(), new);
                self.recheck_missing(&name);
                let owner = Owner::Subnet(name);
                owners.extend(self.dependents(&owner));
                owners.insert(owner);
                owners.insert(Owner::Vpc(vpc.clone()));
            }
        }
        if !owners.is_empty() {
            owners.extend(self.waiting_vnics());
        }
        owners
    }

    /// VNics that cannot go on until something changes: not made yet, or without an address.
    pub(super) fn waiting_vnics(&self) -> impl Iterator<Item = Owner> {
        self.unattached
            .iter()
            .chain(&self.addressless)
            .cloned()
            .map(Owner::VNic)
    }

    fn apply_namespace(&mut self, namespace: &Namespace) -> Owners {
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        match namespace.metadata.name.clone() {
            Some(name) => self.set_namespace(name, Some(labels)),
            None => Owners::new(),
        }
    }

    /// Whether a Vpc or an EipGateway permits namespaces by their labels.
    fn permits_by_label(&self) -> bool {
        let by_label = |allowed: &Option<AllowedNamespaces>| {
            let allowed = allowed.as_ref();
            allowed.is_some_and(|allowed| allowed.selector.is_some())
        };
        let mut gateways = self.elastic.gateways.values();
        let mut vpcs = self.vpcs.values();
        vpcs.any(|vpc| by_label(&vpc.spec.allowed_namespaces))
            || gateways.any(|gateway| by_label(&gateway.spec.allowed_namespaces))
    }

    /// Labels decide which Vpcs and EipGateways a namespace's objects may use.
    fn set_namespace(&mut self, name: String, labels: Option<BTreeMap<String, String>>) -> Owners {
        let new = labels.clone();
        let old = put(&mut self.namespaces, &name, labels);
        if old.unwrap_or_default() == new.unwrap_or_default() || !self.permits_by_label() {
            return Owners::new();
        }
        let first = ObjectKey::new(name.clone(), "");
        let within = |key: &&ObjectKey| key.namespace == name;
        let vnics = self
            .vnics
            .range(first.clone()..)
            .map(|(key, _)| key)
            .take_while(within);
        let services = self
            .services
            .range(first.clone()..)
            .map(|(key, _)| key)
            .take_while(within);
        // What its Services' slices hold.
        let slices = self.slices.range(first.clone()..);
        let slices = slices.take_while(|(key, _)| key.namespace == name);
        let slices = slices.flat_map(|(_, slices)| slices.values());
        let released: Owners = slices
            .flat_map(|slice| self.released_by(Some(slice), None))
            .collect();
        let eips = self
            .elastic
            .eips
            .range(first.clone()..)
            .map(|(key, _)| key)
            .take_while(within);
        let eips: Owners = eips.flat_map(|eip| self.around_eip(eip)).collect();
        // A deletion waits only for those whom the Vpc permits.
        let deleted = self.vpcs.iter().filter(|(_, vpc)| {
            let allowed = vpc.spec.allowed_namespaces.as_ref();
            vpc.metadata.deletion_timestamp.is_some()
                && allowed.is_some_and(|allowed| allowed.selector.is_some())
        });
        let deleted: Owners = deleted.map(|(name, _)| Owner::Vpc(name.clone())).collect();
        let unattached = self.unattached.range(first..).take_while(within);
        let vnics = vnics.chain(unattached).cloned().map(Owner::VNic);
        let services = services.cloned().map(Owner::Service);
        vnics
            .chain(services)
            .chain(released)
            .chain(eips)
            .chain(deleted)
            .collect()
    }

    fn set_service(&mut self, key: ObjectKey, service: Option<Arc<Service>>) -> Owners {
        let new = service.clone();
        let old = put(&mut self.services, &key, service);
        if old == new {
            return Owners::new();
        }
        self.set_external(&key, old.as_deref(), new.as_deref());
        let made = |service: &Option<Arc<Service>>| {
            let service = service.as_deref()?;
            Some(made_for(&service.metadata)?.to_owned())
        };
        // Its slices may count no more.
        let slices = self.slices.get(&key).into_iter();
        let slices = slices.filter(|_| made(&old) != made(&new));
        let slices = slices.flat_map(BTreeMap::values);
        let released: Owners = slices
            .flat_map(|slice| self.released_by(Some(slice), None))
            .collect();
        let vpc = |service: &Option<Arc<Service>>| {
            let service = service.as_deref()?;
            let several = desired::service::several(service);
            (!several).then(|| desired::service::vpc(service).to_owned())
        };
        let (before, after) = (vpc(&old), vpc(&new));
        let mut owners = Owners::from([Owner::Service(key.clone())]);
        owners.extend(released);
        // One that was made for it outlives it, or not.
        if old.is_some() != new.is_some() && self.elastic.eips.contains_key(&key) {
            owners.insert(Owner::Eip(key.clone()));
        }
        owners.extend(self.set_local(&key, new.as_deref().is_some_and(desired::service::local)));
        if before != after {
            if let Some(before) = &before {
                remove(&mut self.services_of_vpc, before, &key);
            }
            if let Some(after) = &after {
                insert(&mut self.services_of_vpc, after, key);
            }
            // A Vpc that is being deleted waits for its last user.
            let leaving = |vpc: &String| {
                self.vpcs
                    .get(vpc)
                    .is_some_and(|vpc| vpc.metadata.deletion_timestamp.is_some())
            };
            owners.extend(
                before
                    .into_iter()
                    .chain(after)
                    .filter(leaving)
                    .map(Owner::Vpc),
            );
        }
        owners
    }

    fn apply_service_cidr(&mut self, cidr: &ServiceCIDR) -> Owners {
        let ranges = cidr
            .spec
            .iter()
            .flat_map(|spec| spec.cidrs.iter().flatten());
        let ranges = ranges.filter_map(|range| range.parse().ok()).collect();
        match cidr.metadata.name.clone() {
            Some(name) => self.set_service_cidr(name, ranges),
            None => Owners::new(),
        }
    }

    fn set_service_cidr(&mut self, name: String, ranges: Vec<IpNet>) -> Owners {
        let old = match ranges.is_empty() {
            true => self.service_cidrs.remove(&name),
            false => self.service_cidrs.insert(name.clone(), ranges),
        };
        if old.as_ref() == self.service_cidrs.get(&name) {
            return Owners::new();
        }
        let mut owners = self.recheck(key::DEFAULT_VPC);
        owners.insert(Owner::Vpc(key::DEFAULT_VPC.to_owned()));
        owners
    }
}

fn ranges_of(network: Option<&Network>) -> BTreeSet<IpNet> {
    let cidrs = network.into_iter().flat_map(Network::cidrs);
    cidrs.map(|cidr| cidr.range).collect()
}

pub(super) fn key_of(meta: &ObjectMeta) -> Option<ObjectKey> {
    Some(ObjectKey::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone()?,
    ))
}

/// Drops what nobody here reads of an object: more than half of its memory.
fn slim<T: Clone>(object: &mut Arc<T>, meta: impl Fn(&mut T) -> &mut ObjectMeta) {
    // Copies only if somebody else holds the object too.
    mirror::reduce(meta(Arc::make_mut(object)));
}

pub(super) fn put<K: Ord + Clone, V>(
    map: &mut BTreeMap<K, V>,
    key: &K,
    value: Option<V>,
) -> Option<V> {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    }
}

pub(super) fn insert<K: Ord + Clone, V: Ord>(
    map: &mut BTreeMap<K, BTreeSet<V>>,
    key: &K,
    value: V,
) {
    map.entry(key.clone()).or_default().insert(value);
}

pub(super) fn remove<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
