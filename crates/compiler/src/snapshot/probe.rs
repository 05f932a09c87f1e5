//! NetworkProbes, and the chassis that ask them: who asks each, and whom a change concerns.
//!
//! Each probe's verdict is kept, so that an event works out anew only those that it may change, and a Vpc is named only if
//! the set of its probers changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ycloud_api::address::Family;
use ycloud_api::{NetworkProbe, VNic, Vpc, key};

use super::apply::{Owners, insert, key_of, put, remove};
use super::asked::Asked;
use super::{Event, Held, Object, ObjectRef, Snapshot};
use crate::compile::Rejection;
use crate::owner::{ObjectKey, Owner};
use crate::prober::{Assignment, chassis_probe_key, is_chassis_probe};
use crate::validate::network_probe::{judge, target};

/// A chassis that asks NetworkProbes: the Lease of its ycloud-cni holds, [`ycloud_api::key::prober_lease`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prober {
    /// Name of the chassis.
    pub chassis: String,
}

/// A prober's port that stays although no NetworkProbe needs it: its chassis still has it bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaving {
    /// Name of the Vpc.
    pub vpc: String,
    /// Name of the chassis.
    pub chassis: String,
}

/// What is known of NetworkProbes.
#[derive(Debug, Clone, Default)]
pub(super) struct Probing {
    pub(super) probes: BTreeMap<ObjectKey, Arc<NetworkProbe>>,
    /// Who asks each probe, or why nobody does.
    verdicts: BTreeMap<ObjectKey, Result<Assignment, Rejection>>,
    /// The same by prober.
    asked: Asked,
    of_vpc: BTreeMap<String, BTreeSet<ObjectKey>>,
    of_target: BTreeMap<Target, BTreeSet<ObjectKey>>,
    /// Chassis whose Lease holds.
    living: BTreeSet<String>,
    /// Of those, the ones that have a join address: its lower 16 bits.
    pub(super) joined: BTreeMap<String, u16>,
    /// Of those, the ones that are dead, and why they are believed to be, in words.
    pub(super) dead: BTreeMap<String, String>,
    /// How many probes of a Vpc each chassis asks.
    ports: BTreeMap<String, BTreeMap<String, usize>>,
    leaving: BTreeMap<String, BTreeSet<String>>,
}

/// What is asked: Vpc and address.
type Target = (String, IpAddr);

/// Something that NetworkProbes depend on, as it was before an event.
pub(super) enum Before {
    Vpc(String, Option<Arc<Vpc>>),
    Namespace(String, Option<BTreeMap<String, String>>),
    VNic(ObjectKey, Option<Arc<VNic>>, Option<u16>),
    Nothing,
}

impl Snapshot {
    /// A NetworkProbe.
    pub fn probe(&self, key: &ObjectKey) -> Option<&Arc<NetworkProbe>> {
        self.probing.probes.get(key)
    }

    /// All NetworkProbes by key.
    pub fn probes(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<NetworkProbe>)> {
        self.probing.probes.iter()
    }

    /// Who asks a NetworkProbe, or why nobody does. `None` if there is no such probe.
    pub fn assignment(&self, key: &ObjectKey) -> Option<&Result<Assignment, Rejection>> {
        self.probing.verdicts.get(key)
    }

    /// Whether a chassis asks NetworkProbes: its Lease holds.
    pub fn is_prober(&self, chassis: &str) -> bool {
        self.probing.living.contains(chassis)
    }

    /// The chassis that can ask, by name; with the lower 16 bits of their join addresses.
    pub(crate) fn usable_probers(&self) -> impl Iterator<Item = (&str, u16)> {
        let at = &self.probing;
        let all = at.joined.iter();
        let all = all.filter(|(chassis, _)| !at.dead.contains_key(*chassis));
        all.map(|(chassis, offset)| (chassis.as_str(), *offset))
    }

    /// The lower 16 bits of a chassis' addresses on the probe networks, if it can ask.
    pub(crate) fn usable_prober(&self, chassis: &str) -> Option<u16> {
        let lives = !self.probing.dead.contains_key(chassis);
        self.probing.joined.get(chassis).copied().filter(|_| lives)
    }

    /// Whether a chassis asks something of a Vpc that is on the chassis itself.
    pub(crate) fn is_at_home(&self, vpc: &str, chassis: &str) -> bool {
        self.probing.asked.is_at_home(vpc, chassis)
    }

    /// Whether a chassis asks NetworkProbes of a Vpc.
    pub fn is_prober_of(&self, vpc: &str, chassis: &str) -> bool {
        let ports = self.probing.ports.get(vpc);
        ports.is_some_and(|ports| ports.contains_key(chassis))
    }

    /// The chassis that have a port on the probe network of a Vpc, with the lower 16 bits of their addresses there: those
    /// that ask, and those that have not let go of their port.
    pub(crate) fn prober_ports(&self, vpc: &str) -> BTreeMap<&str, u16> {
        let asking = self.probing.ports.get(vpc).into_iter();
        let asking = asking.flat_map(BTreeMap::keys);
        let leaving = self.probing.leaving.get(vpc).into_iter().flatten();
        let all = asking.chain(leaving);
        all.filter_map(|chassis| Some((chassis.as_str(), self.probe_offset(chassis)?)))
            .collect()
    }

    /// The lower 16 bits of a chassis' IPv4 join address.
    fn probe_offset(&self, chassis: &str) -> Option<u16> {
        match self.join_address(chassis, Family::Ipv4)? {
            IpAddr::V4(ip) => {
                let [_, _, high, low] = ip.octets();
                Some(u16::from_be_bytes([high, low]))
            }
            IpAddr::V6(_) => None,
        }
    }

    /// The chassis that an address of a Vpc is on: where OVN has bound the port of the VNic that holds it, or else where
    /// the VNic is attached.
    pub fn chassis_of(&self, vpc: &str, ip: IpAddr) -> Option<&str> {
        let pools = self
            .subnets_of(vpc)
            .filter_map(|subnet| self.pools.get(subnet));
        let mut holders = pools.flat_map(|pool| pool.holders(ip));
        holders.find_map(|holder| chassis(self.vnics.get(holder)?))
    }

    /// What NetworkProbes may depend on, before `event` changes it.
    pub(super) fn before(&self, event: &Event) -> Before {
        let name = |meta: &super::ObjectMeta| meta.name.clone().unwrap_or_default();
        let vpc = |name: String| {
            let old = self.vpcs.get(&name).cloned();
            Before::Vpc(name, old)
        };
        let namespace = |name: String| {
            let old = self.namespaces.get(&name).cloned();
            Before::Namespace(name, old)
        };
        let vnic = |key: ObjectKey| {
            let old = self.vnics.get(&key).cloned();
            let offset = self.probe_offset(&key.name);
            Before::VNic(key, old, offset)
        };
        match event {
            Event::Apply(Object::Vpc(object)) => vpc(name(&object.metadata)),
            Event::Delete(ObjectRef::Vpc(name)) => vpc(name.clone()),
            Event::Apply(Object::Namespace(object)) => namespace(name(&object.metadata)),
            Event::Delete(ObjectRef::Namespace(name)) => namespace(name.clone()),
            Event::Apply(Object::VNic(object)) => match key_of(&object.metadata) {
                Some(key) => vnic(key),
                None => Before::Nothing,
            },
            Event::Delete(ObjectRef::VNic(key)) => vnic(key.clone()),
            _ => Before::Nothing,
        }
    }

    /// Whom it concerns, among NetworkProbes and who asks them, that something is not as it was. `moved`: Subnets whose
    /// network in force is another one, and their Vpcs.
    pub(super) fn follow_probes(
        &mut self,
        before: Before,
        moved: &BTreeSet<(String, String)>,
    ) -> Owners {
        let mut owners = self.follow_before(before);
        let vpcs: BTreeSet<&String> = moved.iter().map(|(_, vpc)| vpc).collect();
        owners.extend(vpcs.into_iter().flat_map(|vpc| self.rejudge_vpc(vpc)));
        owners
    }

    fn follow_before(&mut self, before: Before) -> Owners {
        match before {
            Before::Vpc(name, old) => {
                let spec = |vpc: Option<&Arc<Vpc>>| vpc.map(|vpc| vpc.spec.clone());
                match spec(old.as_ref()) == spec(self.vpcs.get(&name)) {
                    true => Owners::new(),
                    false => self.rejudge_vpc(&name),
                }
            }
            Before::Namespace(name, old) => {
                if old.as_ref() == self.namespaces.get(&name) {
                    return Owners::new();
                }
                let first = ObjectKey::new(name.clone(), "");
                let within = self.probing.probes.range(first..);
                let within = within.map(|(key, _)| key);
                let within = within.take_while(|key| key.namespace == name);
                let probes: Vec<_> = within.cloned().collect();
                self.rejudge_probes(probes)
            }
            Before::VNic(key, old, offset) => self.follow_vnic(&key, old, offset),
            Before::Nothing => Owners::new(),
        }
    }

    fn follow_vnic(
        &mut self,
        key: &ObjectKey,
        old: Option<Arc<VNic>>,
        offset: Option<u16>,
    ) -> Owners {
        let new = self.vnics.get(key).cloned();
        let place = |vnic: &Option<Arc<VNic>>| {
            let vnic = vnic.as_ref()?;
            let ips: Vec<IpAddr> = Held::all(vnic).into_iter().map(|held| held.ip).collect();
            let chassis = chassis(vnic).map(str::to_owned);
            Some((vnic.spec.subnet.clone(), ips, chassis))
        };
        let (from, to) = (place(&old), place(&new));
        if from == to {
            return Owners::new();
        }
        let mut probes: BTreeSet<ObjectKey> = BTreeSet::new();
        for (subnet, ips, _) in from.into_iter().chain(to) {
            let Some(vpc) = self.subnets.get(&subnet).map(|s| s.spec.vpc.clone()) else {
                continue;
            };
            for ip in ips {
                let of = self.probing.of_target.get(&(vpc.clone(), ip));
                probes.extend(of.into_iter().flatten().cloned());
            }
        }
        let mut owners = self.rejudge_probes(probes);
        if key.namespace == key::SYSTEM_NAMESPACE && offset != self.probe_offset(&key.name) {
            owners.extend(self.recheck_prober(&key.name));
            owners.extend(self.vpcs_probed_by(&key.name));
        }
        owners
    }

    pub(super) fn set_probe(&mut self, key: ObjectKey, probe: Option<Arc<NetworkProbe>>) -> Owners {
        let new = probe.clone();
        let old = put(&mut self.probing.probes, &key, probe);
        let mut owners = Owners::from([Owner::NetworkProbe(key.clone())]);
        let is_chassis = |probe: &Option<Arc<NetworkProbe>>| {
            let probe = probe.as_ref();
            probe.is_some_and(|probe| is_chassis_probe(&key, probe))
        };
        let (was, is) = (is_chassis(&old), is_chassis(&new));
        let same =
            was == is && old.as_ref().map(|old| &old.spec) == new.as_ref().map(|new| &new.spec);
        if !same {
            owners.extend(self.set_probe_spec(&key, old, new));
        }
        if was || is {
            owners.extend(self.recheck_dead());
        }
        owners
    }

    fn set_probe_spec(
        &mut self,
        key: &ObjectKey,
        old: Option<Arc<NetworkProbe>>,
        new: Option<Arc<NetworkProbe>>,
    ) -> Owners {
        // The verdict that is counted is that of the old spec.
        let mut owners = self.set_verdict(key, old.as_deref(), None);
        let at = &mut self.probing;
        if let Some(old) = &old {
            remove(&mut at.of_vpc, &old.spec.target.vpc, key);
            if let Some(target) = target(old) {
                remove(&mut at.of_target, &target, key);
            }
        }
        if let Some(new) = &new {
            insert(&mut at.of_vpc, &new.spec.target.vpc, key.clone());
            if let Some(target) = target(new) {
                insert(&mut at.of_target, &target, key.clone());
            }
        }
        owners.extend(self.rejudge_probes([key.clone()]));
        owners
    }

    /// A chassis began or ceased to ask.
    pub(super) fn set_prober(&mut self, chassis: String, lives: bool) -> Owners {
        let changed = match lives {
            true => self.probing.living.insert(chassis.clone()),
            false => self.probing.living.remove(&chassis),
        };
        match changed {
            true => self.recheck_prober(&chassis),
            false => Owners::new(),
        }
    }

    pub(super) fn set_leaving(&mut self, leaving: Leaving, there: bool) -> Owners {
        let owners = Owners::from([Owner::Vpc(leaving.vpc.clone())]);
        match there {
            true => insert(&mut self.probing.leaving, &leaving.vpc, leaving.chassis),
            false => remove(&mut self.probing.leaving, &leaving.vpc, &leaving.chassis),
        }
        owners
    }

    /// Works out anew whether a chassis can ask, and with which address; names the probes that it concerns, those that ask
    /// whether chassis are there among them.
    fn recheck_prober(&mut self, chassis: &str) -> Owners {
        let lives = self.probing.living.contains(chassis);
        let new = self.probe_offset(chassis).filter(|_| lives);
        let name = chassis.to_owned();
        let mut asked: BTreeSet<ObjectKey> = self.chassis_probes().collect();
        if put(&mut self.probing.joined, &name, new) == new {
            return Owners::new();
        }
        asked.extend(self.chassis_probes());
        // Who is asked at all changes with the second chassis.
        let few = self.probing.joined.len() <= 2;
        asked.retain(|key| few || *key == chassis_probe_key(chassis));
        let mut owners: Owners = asked.iter().cloned().map(Owner::NetworkProbe).collect();
        owners.insert(Owner::Vpc(key::DEFAULT_VPC.to_owned()));
        owners.extend(self.recheck_dead());
        owners.extend(self.rejudge_probes(asked));
        owners.extend(self.reassign(chassis));
        owners
    }

    /// Works out anew who asks each probe that may be for `chassis` to ask, or no more.
    pub(super) fn reassign(&mut self, chassis: &str) -> Owners {
        let able = self.usable_prober(chassis).is_some();
        let probes = self.probing.asked.concerned(chassis, able);
        self.rejudge_probes(probes)
    }

    /// The Vpcs on whose probe network a chassis has a port.
    fn vpcs_probed_by(&self, chassis: &str) -> Owners {
        let asking = self.probing.ports.iter();
        let asking = asking.filter(|(_, ports)| ports.contains_key(chassis));
        let leaving = self.probing.leaving.iter();
        let leaving = leaving.filter(|(_, all)| all.contains(chassis));
        let vpcs = asking
            .map(|(vpc, _)| vpc)
            .chain(leaving.map(|(vpc, _)| vpc));
        vpcs.cloned().map(Owner::Vpc).collect()
    }

    fn rejudge_vpc(&mut self, vpc: &str) -> Owners {
        let probes = self.probing.of_vpc.get(vpc).cloned().unwrap_or_default();
        self.rejudge_probes(probes)
    }

    /// Works out anew who asks these probes; names those for whom the answer is another one, and the Vpcs that get or lose
    /// a prober by it. Where other chassis ask what is their own than before, so is who asks for chassis that cannot.
    fn rejudge_probes(&mut self, probes: impl IntoIterator<Item = ObjectKey>) -> Owners {
        let (mut owners, mut vpcs) = self.rejudge_each(probes);
        // It ends: who asks what is its own does not depend on who asks for others.
        while let Some(vpc) = vpcs.pop_first() {
            let all = self.probing.of_vpc.get(&vpc).into_iter().flatten();
            let others = all.filter(|key| self.probing.asked.is_taken_over(key));
            let others: Vec<ObjectKey> = others.cloned().collect();
            let (named, more) = self.rejudge_each(others);
            owners.extend(named);
            vpcs.extend(more);
        }
        owners
    }

    /// The same of these alone; with the Vpcs in which other chassis ask what is their own than before.
    fn rejudge_each(
        &mut self,
        probes: impl IntoIterator<Item = ObjectKey>,
    ) -> (Owners, BTreeSet<String>) {
        let (mut owners, mut vpcs) = (Owners::new(), BTreeSet::new());
        for key in probes {
            let probe = self.probing.probes.get(&key).cloned();
            let verdict = probe.as_ref().map(|probe| judge(self, &key, probe));
            let at = probe.as_ref().and_then(|probe| target(probe));
            let on = at.and_then(|(vpc, ip)| self.chassis_of(&vpc, ip));
            let on = on.map(str::to_owned);
            let vpc = probe.as_ref().map(|probe| probe.spec.target.vpc.clone());
            let vpc = vpc.unwrap_or_default();
            vpcs.extend(self.probing.asked.note(&key, &vpc, verdict.as_ref(), on));
            if self.probing.verdicts.get(&key) != verdict.as_ref() {
                owners.extend(self.set_verdict(&key, probe.as_deref(), verdict));
                owners.insert(Owner::NetworkProbe(key));
            }
        }
        (owners, vpcs)
    }

    /// Notes who asks a probe, whose spec is that of `probe` before and after; names its Vpc if that gets or loses a prober
    /// by it.
    fn set_verdict(
        &mut self,
        key: &ObjectKey,
        probe: Option<&NetworkProbe>,
        verdict: Option<Result<Assignment, Rejection>>,
    ) -> Owners {
        let mut owners = Owners::new();
        let prober = |verdict: &Option<Result<Assignment, Rejection>>| match verdict {
            Some(Ok(assignment)) => Some(assignment.prober.clone()),
            Some(Err(_)) | None => None,
        };
        let after = prober(&verdict);
        let before = prober(&put(&mut self.probing.verdicts, key, verdict));
        let Some(vpc) = probe.map(|probe| probe.spec.target.vpc.clone()) else {
            return owners;
        };
        if before == after {
            return owners;
        }
        let ports = self.probing.ports.entry(vpc.clone()).or_default();
        if let Some(chassis) = after {
            let count = ports.entry(chassis).or_insert(0);
            *count += 1;
            if *count == 1 {
                owners.insert(Owner::Vpc(vpc.clone()));
            }
        }
        if let Some(chassis) = before
            && let Some(count) = ports.get_mut(&chassis)
        {
            *count -= 1;
            if *count == 0 {
                ports.remove(&chassis);
                owners.insert(Owner::Vpc(vpc.clone()));
            }
        }
        if ports.is_empty() {
            self.probing.ports.remove(&vpc);
        }
        owners
    }
}

/// The chassis that a VNic is on.
fn chassis(vnic: &VNic) -> Option<&str> {
    let bound = vnic
        .status
        .as_ref()
        .and_then(|status| status.chassis.as_deref());
    bound.or(vnic.spec.attachment.chassis.as_deref())
}
