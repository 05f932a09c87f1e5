//! EipGateways, Eips, and what the data plane says of chassis: how their changes concern others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use ycloud_api::{Eip, EipGateway};

use super::apply::{Owners, insert, put, remove};
use super::eip_rest::Rest;
use super::eip_use::{EipUse, Wish};
use super::{Age, Snapshot, age_of};
use crate::compile::Rejection;
use crate::desired::eip_gateway::gateway_of_group;
use crate::layout::{ALIASES, VPCS};
use crate::owner::{ObjectKey, Owner};
use crate::slot::{self, Slots};
use crate::validate::eip_gateway::{Gateway, eligible_nodes, judge};
use crate::validate::service::has_sctp;

/// The chassis that holds the chassisredirect ports of an `HA_Chassis_Group`: `Port_Binding:chassis`, ovn-sb(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Name of the `HA_Chassis_Group`.
    pub group: String,
    /// Name of the chassis, which is its node's.
    pub chassis: String,
}

/// What is kept of a chassis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chassis {
    /// Its name, which is its node's.
    pub name: String,
    /// The physical networks that it has a bridge for: `Chassis:other_config:ovn-bridge-mappings`, ovn-sb(5).
    pub physical_networks: BTreeSet<String>,
    /// Of a packet of SCTP, it translates the address alone: Open vSwitch in user space before 3.2.
    pub without_sctp_ports: bool,
    /// A connection that came by an equal-cost route is forgotten after half a minute, and ICMP errors about it at once: OVN before
    /// 23.03.3 (`commit_ecmp_nh` of ovn-sb(5) Logical_Flow).
    pub forgets_connections: bool,
}

/// A backend of a Service over several Vpcs: Vpc and address there.
pub(crate) type Backend = (String, Ipv4Addr);

impl slot::Key for Age {
    fn text(&self) -> String {
        self.1.clone()
    }
}

impl slot::Key for Backend {
    fn text(&self) -> String {
        format!("{} {}", self.0, self.1)
    }
}

/// What is known of elastic addresses.
#[derive(Debug, Clone)]
pub(super) struct Elastic {
    pub gateways: BTreeMap<String, Arc<EipGateway>>,
    /// Each EipGateway's spec, read; or why it is refused.
    pub verdicts: BTreeMap<String, Result<Gateway, Rejection>>,
    pub eips: BTreeMap<ObjectKey, Arc<Eip>>,
    /// Eips by the address that they hold.
    pub held: BTreeMap<Ipv4Addr, BTreeSet<ObjectKey>>,
    /// Eips that hold no address, by the one that they ask for.
    pub asked: BTreeMap<Ipv4Addr, BTreeSet<ObjectKey>>,
    /// Eips that hold no address.
    pub waiting: BTreeSet<ObjectKey>,
    /// The addresses that rest, by EipGateway.
    pub rests: BTreeMap<String, BTreeMap<Ipv4Addr, Rest>>,
    /// The chassis that holds its ports, by `HA_Chassis_Group`.
    pub active_chassis: BTreeMap<String, String>,
    /// By name.
    pub chassis: BTreeMap<String, Chassis>,
    /// The EipGateway that a Vpc stays on which names none: see [`Snapshot::eip_gateway_of`].
    pub kept: BTreeMap<String, String>,
    pub vpc_slots: Slots<Age>,
    pub aliases: Slots<Backend>,
    /// The Services that have the backend.
    pub alias_users: BTreeMap<Backend, BTreeSet<ObjectKey>>,
    /// What Services with an EIP ask for.
    pub uses: BTreeMap<ObjectKey, EipUse>,
    /// Of those: by namespace and wish.
    pub uses_by_wish: BTreeMap<(String, Wish), BTreeSet<ObjectKey>>,
    /// Of those: by Vpc.
    pub uses_of_vpc: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Of those: Services over several Vpcs.
    pub several: BTreeSet<ObjectKey>,
}

impl Default for Elastic {
    fn default() -> Self {
        Self {
            gateways: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            eips: BTreeMap::new(),
            held: BTreeMap::new(),
            asked: BTreeMap::new(),
            waiting: BTreeSet::new(),
            rests: BTreeMap::new(),
            active_chassis: BTreeMap::new(),
            chassis: BTreeMap::new(),
            kept: BTreeMap::new(),
            vpc_slots: Slots::new(VPCS),
            aliases: Slots::new(ALIASES),
            alias_users: BTreeMap::new(),
            uses: BTreeMap::new(),
            uses_by_wish: BTreeMap::new(),
            uses_of_vpc: BTreeMap::new(),
            several: BTreeSet::new(),
        }
    }
}

/// The address that an Eip holds.
pub(crate) fn held_address(eip: &Eip) -> Option<Ipv4Addr> {
    eip.status.as_ref()?.address.as_ref()?.parse().ok()
}

/// The address that an Eip asks for.
pub(crate) fn asked_address(eip: &Eip) -> Option<Ipv4Addr> {
    eip.spec.address.as_ref()?.parse().ok()
}

/// What an EipGateway's status records of the spec that was accepted last: range, and number of service gateways.
pub(crate) fn recorded(gateway: &EipGateway) -> (Option<Ipv4Net>, usize) {
    let status = gateway.status.as_ref();
    let cidr = status.and_then(|status| status.cidr.as_ref()?.parse().ok());
    (
        cidr,
        status.map_or(0, |status| status.service_gateways.len()),
    )
}

impl Snapshot {
    /// An EipGateway.
    pub fn eip_gateway(&self, name: &str) -> Option<&Arc<EipGateway>> {
        self.elastic.gateways.get(name)
    }

    /// All EipGateways by name.
    pub fn eip_gateways(&self) -> impl Iterator<Item = (&str, &Arc<EipGateway>)> {
        let all = self.elastic.gateways.iter();
        all.map(|(name, gateway)| (name.as_str(), gateway))
    }

    /// The default EipGateway: the oldest that is marked, or else the oldest. So a new one that is not marked, whether it is
    /// accepted or not, changes nothing for those that work.
    pub fn default_eip_gateway(&self) -> Option<&str> {
        let oldest =
            self.elastic.gateways.iter().min_by_key(|(name, gateway)| {
                (!gateway.spec.default, age_of(name, &gateway.metadata))
            });
        oldest.map(|(name, _)| name.as_str())
    }

    /// The EipGateway of a Vpc: the one that it names, or that it hung on before (`status.eipGateway`) while a Service of it
    /// has an EIP of that one, or else the default one. The first need not exist, none need be accepted. So whoever marks
    /// another EipGateway as the default one moves nobody who is reached from outside.
    pub fn eip_gateway_of(&self, vpc: &str) -> Option<&str> {
        let named = self.vpcs.get(vpc)?.spec.eip_gateway.as_deref();
        let kept = || {
            let kept = self.elastic.kept.get(vpc)?;
            let exists = self.elastic.gateways.contains_key(kept);
            exists.then_some(kept.as_str())
        };
        named.or_else(kept).or_else(|| self.default_eip_gateway())
    }

    /// The EipGateway that a Vpc's status records, if a Service with backends in the Vpc means an Eip that holds an
    /// address of it.
    fn kept_gateway(&self, vpc: &str) -> Option<String> {
        let recorded = self.vpcs.get(vpc)?.status.as_ref()?.eip_gateway.as_ref()?;
        let holds = |service: &ObjectKey| {
            let eip = self.eip_of_service(service)?;
            let eip = self.elastic.eips.get(&eip)?;
            held_address(eip)?;
            Some(self.eip_gateway_of_eip(eip)? == recorded)
        };
        let mut services = self.eip_uses_of(vpc);
        let kept = services.any(|service| holds(service) == Some(true));
        kept.then(|| recorded.clone())
    }

    /// An event concerned these; names whom else it concerns that a Vpc stays on its EipGateway by it, or does so no
    /// more.
    pub(super) fn keep_gateways(&mut self, owners: &Owners) -> Owners {
        let mut more = Owners::new();
        for owner in owners {
            let Owner::Vpc(vpc) = owner else { continue };
            let new = self.kept_gateway(vpc);
            if put(&mut self.elastic.kept, vpc, new.clone()) != new {
                more.extend(self.dependents(owner));
            }
        }
        more
    }

    /// The EipGateway of an Eip: the one that it names, or whose address it holds, or else the default one; it need not
    /// exist or be accepted.
    pub fn eip_gateway_of_eip<'a>(&'a self, eip: &'a Eip) -> Option<&'a str> {
        let recorded = || {
            let status = eip
                .status
                .as_ref()
                .filter(|status| status.address.is_some());
            status?.eip_gateway.as_deref()
        };
        let named = eip.spec.eip_gateway.as_deref();
        named
            .or_else(recorded)
            .or_else(|| self.default_eip_gateway())
    }

    /// An Eip.
    pub fn eip(&self, key: &ObjectKey) -> Option<&Arc<Eip>> {
        self.elastic.eips.get(key)
    }

    /// All Eips by key.
    pub fn eips(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Eip>)> {
        self.elastic.eips.iter()
    }

    /// The chassis that holds the ports of an `HA_Chassis_Group`.
    pub fn claim(&self, group: &str) -> Option<&str> {
        self.elastic.active_chassis.get(group).map(String::as_str)
    }

    pub(crate) fn gateway(&self, name: &str) -> Option<&Result<Gateway, Rejection>> {
        self.elastic.verdicts.get(name)
    }

    /// The physical networks of a chassis; `None` while nothing is known of it.
    pub(crate) fn physical_networks(&self, chassis: &str) -> Option<&BTreeSet<String>> {
        Some(&self.elastic.chassis.get(chassis)?.physical_networks)
    }

    /// A chassis that does not translate ports of SCTP, if there is one.
    pub(crate) fn without_sctp_ports(&self) -> Option<&str> {
        let mut all = self.elastic.chassis.values();
        let found = all.find(|chassis| chassis.without_sctp_ports)?;
        Some(&found.name)
    }

    /// Whether some chassis forgets connections.
    pub(super) fn forgets_connections(&self) -> bool {
        let mut all = self.elastic.chassis.values();
        all.any(|chassis| chassis.forgets_connections)
    }

    /// The Eips that hold an address of an EipGateway.
    pub(crate) fn eips_held_of(
        &self,
        gateway: &str,
    ) -> impl Iterator<Item = (Ipv4Addr, &ObjectKey)> {
        let of = move |eip: &&Arc<Eip>| self.eip_gateway_of_eip(eip) == Some(gateway);
        let all = self.elastic.eips.iter().filter(move |(_, eip)| of(eip));
        all.filter_map(|(key, eip)| Some((held_address(eip)?, key)))
    }

    /// The Eips that hold an address.
    pub(crate) fn eips_holding(&self, ip: Ipv4Addr) -> impl Iterator<Item = &ObjectKey> {
        self.elastic.held.get(&ip).into_iter().flatten()
    }

    /// The Eips that hold no address and ask for this one.
    pub(crate) fn eips_asking(&self, ip: Ipv4Addr) -> impl Iterator<Item = &ObjectKey> {
        self.elastic.asked.get(&ip).into_iter().flatten()
    }

    /// The slot of a Vpc, from which its addresses on shared switches follow.
    pub(crate) fn vpc_slot(&self, vpc: &str) -> Option<u32> {
        let object = self.vpcs.get(vpc)?;
        self.elastic.vpc_slots.get(&age_of(vpc, &object.metadata))
    }

    /// Gives a Vpc its slot, or takes it away; names the others that move by it.
    pub(super) fn set_vpc_slot(&mut self, old: Option<Age>, new: Option<Age>) -> Owners {
        if old == new {
            return Owners::new();
        }
        let slots = &mut self.elastic.vpc_slots;
        let mut moved = old.map_or_else(Vec::new, |old| slots.remove(&old));
        moved.extend(new.map_or_else(Vec::new, |new| slots.insert(new)));
        let mut owners = Owners::new();
        for (_, vpc) in moved {
            let owner = Owner::Vpc(vpc);
            owners.extend(self.dependents(&owner));
            owners.insert(owner);
        }
        owners
    }

    pub(super) fn set_eip_gateway(
        &mut self,
        name: String,
        gateway: Option<Arc<EipGateway>>,
    ) -> Owners {
        let matters = |gateway: &EipGateway| {
            let metadata = &gateway.metadata;
            let record = recorded(gateway);
            let deleting = metadata.deletion_timestamp.is_some();
            (age_of(&name, metadata), deleting, record)
        };
        let same = match (self.elastic.gateways.get(&name), &gateway) {
            (Some(old), Some(new)) => old.spec == new.spec && matters(old) == matters(new),
            _ => false,
        };
        // Who is the default one may change, and with it whose everybody is.
        let before = if same {
            Owners::new()
        } else {
            self.all_of_gateways()
        };
        let ranges = |all: &Self| {
            let gateway = all.elastic.gateways.get(&name)?;
            let asked = Gateway::read(&all.settings, &name, gateway).ok();
            let asked = asked.into_iter().flat_map(|gateway| gateway.ranges());
            Some(asked.chain(recorded(gateway).0))
        };
        let mut changed: Vec<Ipv4Net> = ranges(self).into_iter().flatten().collect();
        let rests = self.elastic.set_rests(&name, gateway.as_deref());
        put(&mut self.elastic.gateways, &name, gateway);
        changed.extend(ranges(self).into_iter().flatten());
        let mut owners = self.around_rests(&name, &rests);
        if !same {
            // They wait until their addresses are recorded there, or for nothing.
            owners.extend(self.eips_leaving(&name));
        }
        owners.insert(Owner::EipGateway(name));
        if same {
            return owners;
        }
        owners.extend(before);
        owners.extend(self.rejudge());
        owners.extend(self.all_of_gateways());
        owners.extend(self.external_services());
        let concerns_subnets = self
            .asked_networks
            .values()
            .flatten()
            .any(|network| changed.iter().any(|range| network.meets(*range)));
        if concerns_subnets {
            owners.extend(self.recheck(ycloud_api::key::DEFAULT_VPC));
        }
        owners
    }

    /// All EipGateways and what hangs on them.
    fn all_of_gateways(&self) -> Owners {
        let names: Vec<_> = self.elastic.gateways.keys().cloned().collect();
        let mut owners = self.waiting_eips();
        for owner in names.into_iter().map(Owner::EipGateway) {
            owners.extend(self.dependents(&owner));
            owners.insert(owner);
        }
        owners
    }

    /// Eips that cannot go on until something changes, and who waits for them.
    fn waiting_eips(&self) -> Owners {
        let waiting = self.elastic.waiting.iter();
        waiting.flat_map(|eip| self.around_eip(eip)).collect()
    }

    /// Works out anew which EipGateways are accepted, and names those whose verdict changed, with all that hangs on
    /// them.
    pub(super) fn rejudge(&mut self) -> Owners {
        let gateways = self.elastic.gateways.iter();
        let verdicts: BTreeMap<_, _> = gateways
            .map(|(name, object)| (name.clone(), judge(self, name, object)))
            .collect();
        let mut owners = Owners::new();
        for (name, verdict) in &verdicts {
            if self.elastic.verdicts.get(name) != Some(verdict) {
                let owner = Owner::EipGateway(name.clone());
                owners.extend(self.dependents(&owner));
                owners.insert(owner);
            }
        }
        if !owners.is_empty() {
            owners.extend(self.waiting_eips());
            owners.extend(self.external_services());
        }
        self.elastic.verdicts = verdicts;
        owners
    }

    /// Whether this Eip is what the API server had before an allocation that the snapshot knows of.
    fn is_eip_echo(&self, key: &ObjectKey, new: &Eip) -> bool {
        let Some(old) = self.elastic.eips.get(key) else {
            return false;
        };
        let version = |eip: &Eip| eip.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        match (version(old), version(new)) {
            (Some(before), Some(after)) if old.metadata.uid == new.metadata.uid => {
                let loses_address = held_address(old).is_some() && held_address(new).is_none();
                after < before || (after == before && loses_address)
            }
            _ => false,
        }
    }

    pub(super) fn set_eip(&mut self, key: ObjectKey, eip: Option<Arc<Eip>>) -> Owners {
        if eip.as_ref().is_some_and(|eip| self.is_eip_echo(&key, eip)) {
            return Owners::new();
        }
        let owner = Owner::Eip(key.clone());
        let new = eip.clone();
        let matters = |eip: &Option<Arc<Eip>>| {
            let eip = eip.as_ref()?;
            let gateway = self.eip_gateway_of_eip(eip).map(str::to_owned);
            Some((
                eip.spec.clone(),
                held_address(eip),
                gateway,
                age_of("", &eip.metadata),
                eip.status
                    .as_ref()
                    .map(|status| (status.ports.clone(), status.vpc.clone())),
            ))
        };
        let old = self.elastic.eips.get(&key).cloned();
        let (before, after) = (matters(&old), matters(&new));
        if before == after {
            put(&mut self.elastic.eips, &key, eip);
            return Owners::from([owner]);
        }
        let mut owners = self.around_eip(&key);
        if let Some(old) = &old {
            let stays = new.as_deref();
            let stays = stays.and_then(|new| held_address(new).or(asked_address(new)));
            owners.extend(self.unindex_eip(&key, old, stays));
        }
        put(&mut self.elastic.eips, &key, eip);
        if let Some(new) = &new {
            owners.extend(self.index_eip(&key, new));
        }
        owners.extend(self.around_eip(&key));
        let held = [&old, &new].into_iter().flatten();
        let held: BTreeSet<_> = held.filter_map(|eip| held_address(eip)).collect();
        owners.extend(self.external_at(held.iter().copied().map(IpAddr::V4)));
        owners.extend(held.iter().flat_map(|ip| self.where_it_rests(*ip)));
        owners.insert(owner);
        for (_, held, gateway, ..) in before.iter().chain(&after) {
            let Some(gateway) = gateway else { continue };
            let fits = match (self.elastic.verdicts.get(gateway), held) {
                (Some(Ok(gateway)), Some(ip)) => gateway.reserved(*ip).is_none(),
                (Some(Ok(_)), None) => true,
                (Some(Err(_)), _) => false,
                (None, _) => continue,
            };
            if !fits {
                owners.extend(self.rejudge());
            }
            owners.insert(Owner::EipGateway(gateway.clone()));
        }
        owners
    }

    /// Takes an Eip out of the indexes, which then holds or asks for the address `stays`; returns those who may profit
    /// from it.
    fn unindex_eip(&mut self, key: &ObjectKey, eip: &Eip, stays: Option<Ipv4Addr>) -> Owners {
        self.elastic.waiting.remove(key);
        let (held, asked) = (held_address(eip), asked_address(eip));
        let Some(ip) = held.or(asked) else {
            return Owners::new();
        };
        match held {
            Some(_) => remove(&mut self.elastic.held, &ip, key),
            None => remove(&mut self.elastic.asked, &ip, key),
        }
        let mut owners = match stays == Some(ip) {
            true => Owners::new(),
            false => self.waiting_eips(),
        };
        for rival in self.eips_holding(ip) {
            owners.extend(self.around_eip(rival));
        }
        owners
    }

    /// Puts an Eip into the indexes; returns those who hold or ask for the same address.
    fn index_eip(&mut self, key: &ObjectKey, eip: &Eip) -> Owners {
        let (held, asked) = (held_address(eip), asked_address(eip));
        if held.is_none() {
            self.elastic.waiting.insert(key.clone());
        }
        let Some(ip) = held.or(asked) else {
            return Owners::new();
        };
        match held {
            Some(_) => insert(&mut self.elastic.held, &ip, key.clone()),
            None => insert(&mut self.elastic.asked, &ip, key.clone()),
        }
        let rivals = self.eips_holding(ip).chain(self.eips_asking(ip));
        rivals.flat_map(|rival| self.around_eip(rival)).collect()
    }

    pub(super) fn chassis_names(&self) -> impl Iterator<Item = String> {
        self.elastic.chassis.keys().cloned()
    }

    pub(super) fn set_claim(&mut self, group: String, chassis: Option<String>) -> Owners {
        let new = chassis.clone();
        if put(&mut self.elastic.active_chassis, &group, chassis) == new {
            return Owners::new();
        }
        // Its Eips say where they are.
        let of = gateway_of_group(&group);
        let eips = of.into_iter().flat_map(|name| self.eips_held_of(name));
        let eips = eips.map(|(_, eip)| Owner::Eip(eip.clone()));
        self.gateway_owners().chain(eips).collect()
    }

    pub(super) fn set_chassis(&mut self, name: String, chassis: Option<Chassis>) -> Owners {
        let new = chassis.clone();
        let without = self.without_sctp_ports().map(str::to_owned);
        let forgets = self.forgets_connections();
        let old = put(&mut self.elastic.chassis, &name, chassis);
        if old == new {
            return Owners::new();
        }
        let mut owners = self.around_nodes();
        if old.is_some() != new.is_some() {
            // Those attached there are told whether there is such a chassis.
            owners.extend(self.dependents(&Owner::Node(name.clone())));
        }
        if self.without_sctp_ports() != without.as_deref() {
            let sctp = self.services().filter(|(_, service)| has_sctp(service));
            owners.extend(sctp.map(|(key, _)| Owner::Service(key.clone())));
        }
        if self.forgets_connections() != forgets {
            // By it the ways back of the default Vpc are chosen.
            owners.insert(Owner::Vpc(ycloud_api::key::DEFAULT_VPC.to_owned()));
        }
        self.want_join(&name);
        let vnic = ObjectKey::new(ycloud_api::key::SYSTEM_NAMESPACE, name.clone());
        owners.insert(Owner::VNic(vnic));
        // A chassis has a row even when its Node is gone.
        owners.insert(Owner::Node(name));
        owners
    }

    /// Whom it concerns that one node may have become able to carry EipGateways, or ceased to be: where it is the first
    /// one or was the last one, also those who wait for a node.
    pub(super) fn around_nodes(&self) -> Owners {
        let mut owners = Owners::new();
        for (name, gateway) in &self.elastic.gateways {
            let owner = Owner::EipGateway(name.clone());
            if eligible_nodes(self, gateway).len() <= 1 {
                owners.extend(self.dependents(&owner));
            }
            owners.insert(owner);
        }
        owners
    }

    pub(super) fn gateway_owners(&self) -> impl Iterator<Item = Owner> {
        self.elastic.gateways.keys().cloned().map(Owner::EipGateway)
    }
}
