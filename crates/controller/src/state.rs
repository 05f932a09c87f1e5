//! What ycloud-controller knows, and whose turn it is: owned by one task, no input or output.
//!
//! ```text
//!   watches ── Event ────► take_in ──► Snapshot ─┐            ┌─► rows: Queue<Owner> ──── plan (apply.rs)
//!                                                ├─ owners ───┤
//!   replicas ─ Changes ──► observe.rs ► OwnerIndex┘            └─► objects: Chores<Owner> ─ next_write (objects.rs)
//! ```
//!
//! Both queues carry owners only; whoever takes one from them reads everything again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use ycloud_api::address::Family;
use ycloud_api::vnic::AttachmentKind;
use ycloud_api::{Eip, VNic, key};
use ycloud_compiler::{
    Chassis, Claim, Event, Leaving, Object, ObjectKey, ObjectRef, Owner, OwnerIndex, Settings,
    Snapshot, hindrance,
};

use crate::apply;
use crate::chores::Chores;
use crate::metrics::Metrics;
use crate::prober::Leases;
use crate::probing::Returning;
use crate::programmed::Tracker;
use crate::queue::Queue;
use crate::status::RowState;
use crate::unconfirmed::Unconfirmed;
use crate::write::Report;

/// See the module.
#[derive(Debug)]
pub struct State {
    /// The Kubernetes objects.
    pub snapshot: Snapshot,
    /// Whose rows the replica of the Northbound database has.
    pub index: OwnerIndex,
    /// Owners whose rows are to be compared.
    pub rows: Queue<Owner>,
    /// Owners whose objects are to be brought in line.
    pub objects: Chores<Owner>,
    /// What is known of the rows of owners that exist; absent: [`RowState::Pending`].
    pub(crate) states: HashMap<Owner, RowState>,
    /// Which Services the hypervisors have.
    pub tracker: Tracker<Owner>,
    /// Owners that are not settled, and the Services that are programmed only once they are.
    pub(crate) awaiting: HashMap<Owner, BTreeSet<Owner>>,
    /// The chassis of the Southbound database, as the snapshot was told of them.
    pub(crate) chassis: BTreeMap<String, Chassis>,
    /// Who holds each `HA_Chassis_Group`, as the snapshot was told of it.
    pub(crate) claims: BTreeMap<String, Claim>,
    /// Addresses of VNics that were given out and that the API server has not confirmed.
    pub(crate) unconfirmed: Unconfirmed<VNic>,
    /// Likewise, of Eips.
    pub(crate) unconfirmed_eips: Unconfirmed<Eip>,
    /// Eips of YusurServices that their Services do not want, and since when.
    pub(crate) unwanted_eips: BTreeMap<ObjectKey, Time>,
    /// UIDs of objects that ended while a write on an object of their name was under way.
    ended: HashMap<Owner, BTreeSet<Option<String>>>,
    /// The Leases of probers.
    pub(crate) leases: Leases,
    /// Chassis whose prober's Lease has ended here.
    pub(crate) ended_probers: BTreeSet<String>,
    /// Of those, the ones whose Lease holds again, and which ask nothing yet.
    pub(crate) returning: BTreeMap<String, Returning>,
    /// Ports of probers that stay although nobody needs them, and until when; `None`: no longer, as soon as the database is
    /// told. See `State::linger`.
    pub(crate) leaving: BTreeMap<Leaving, Option<Instant>>,
    /// Chassis that are gone from OVN and whose VNic on the join switch stays for a while, and since when.
    pub(crate) chassis_gone: BTreeMap<ObjectKey, Time>,
    /// What Pods were told last of what they lack to have an address, reason and message, by their VNics; `None`: that nothing
    /// is lacking any more.
    pub(crate) reported: HashMap<ObjectKey, Option<(String, String)>>,
    /// Owners of which the API server refuses a write, with its words.
    pub(crate) refusals: HashMap<Owner, String>,
    /// Events to publish that belong to no write.
    pub(crate) notes: Vec<Report>,
    /// The replica of the Northbound database as it was last looked at.
    pub(crate) observed: Arc<ycloud_ovsdb::Snapshot>,
    /// Commits in a row of an owner that is not settled by them, although nothing happened to its objects.
    pub(crate) unsettled: HashMap<Owner, u32>,
    pub(crate) metrics: Metrics,
}

impl State {
    /// Knows nothing yet.
    pub fn new(settings: Settings, metrics: Metrics) -> Self {
        Self {
            snapshot: Snapshot::new(settings),
            index: OwnerIndex::default(),
            rows: Queue::default(),
            objects: Chores::default(),
            states: HashMap::new(),
            tracker: Tracker::default(),
            awaiting: HashMap::new(),
            chassis: BTreeMap::new(),
            claims: BTreeMap::new(),
            unconfirmed: Unconfirmed::default(),
            unconfirmed_eips: Unconfirmed::default(),
            unwanted_eips: BTreeMap::new(),
            ended: HashMap::new(),
            leases: Leases::default(),
            ended_probers: BTreeSet::new(),
            returning: BTreeMap::new(),
            leaving: BTreeMap::new(),
            chassis_gone: BTreeMap::new(),
            reported: HashMap::new(),
            refusals: HashMap::new(),
            notes: Vec::new(),
            observed: Arc::default(),
            unsettled: HashMap::new(),
            metrics,
        }
    }

    /// An object changed: told by a watch, or by the API server's answer to a write.
    pub fn take_in(&mut self, event: Event) {
        let event = match event {
            Event::Apply(object) => match self.newest(object) {
                Some(object) => Event::Apply(object),
                None => return,
            },
            Event::Delete(reference) => {
                self.note_deletion(&reference);
                Event::Delete(reference)
            }
        };
        let node = match &event {
            Event::Apply(Object::Node(node)) => node.metadata.name.clone(),
            Event::Apply(Object::Prober(prober)) => Some(prober.chassis.clone()),
            Event::Delete(ObjectRef::Node(name) | ObjectRef::Prober(name)) => Some(name.clone()),
            _ => None,
        };
        let owners = self.snapshot.apply(event);
        if let Some(name) = node {
            self.tracker.lives(&name, self.chassis_lives(&name));
            self.advance();
        }
        for owner in owners {
            // Whatever differs next follows from this, and not from somebody who undoes what is written.
            self.unsettled.remove(&owner);
            self.rows.push(owner.clone());
            self.objects.push(owner);
        }
    }

    /// The API server's answer to a write on the object of `owner`: the object as it was then. A watch may have told
    /// of later things already, its end among them.
    pub fn take_answer(&mut self, owner: &Owner, event: Option<Event>) {
        let Some(Event::Apply(object)) = event else {
            return;
        };
        let Some((_, metadata)) = written(&object) else {
            return;
        };
        let vanishing = metadata.deletion_timestamp.is_some()
            && metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
        let ended = self.ended.get(owner);
        let ended = ended.is_some_and(|uids| uids.contains(&metadata.uid));
        let held = self.metadata(owner).filter(|held| held.uid == metadata.uid);
        let known = held.is_some_and(|held| version(held) >= version(metadata));
        if !vanishing && !ended && !known {
            self.take_in(Event::Apply(object));
        }
    }

    /// The API server says that the object of `owner` with this UID does not exist.
    pub fn take_absence(&mut self, owner: &Owner, uid: Option<String>) {
        let held = self.metadata(owner);
        if held.is_none_or(|held| held.uid != uid) {
            return;
        }
        let reference = match owner.clone() {
            Owner::EipGateway(name) => ObjectRef::EipGateway(name),
            Owner::Vpc(name) => ObjectRef::Vpc(name),
            Owner::Subnet(name) => ObjectRef::Subnet(name),
            Owner::VNic(key) => ObjectRef::VNic(key),
            Owner::Eip(key) => ObjectRef::Eip(key),
            Owner::Service(key) => ObjectRef::Service(key),
            Owner::NetworkProbe(key) => ObjectRef::NetworkProbe(key),
            Owner::Node(name) => ObjectRef::Node(name),
        };
        self.take_in(Event::Delete(reference));
    }

    /// The write on the object of `owner` has ended, and its answer was taken in.
    pub fn answered(&mut self, owner: &Owner) {
        self.ended.remove(owner);
    }

    /// The object as it is to be taken in; `None` if a newer version of it is held already.
    fn newest(&mut self, object: Object) -> Option<Object> {
        let mut key = None;
        if let Some((owner, metadata)) = written(&object) {
            let held = self
                .metadata(&owner)
                .filter(|held| held.uid == metadata.uid);
            if held.is_some_and(|held| version(held) > version(metadata)) {
                return None;
            }
            if let Owner::VNic(name) | Owner::Eip(name) = owner {
                key = Some(name);
            }
        }
        let (object, owners) = match (object, key) {
            (Object::VNic(vnic), Some(key)) => {
                let (vnic, owners) = self.unconfirmed.restore(&key, vnic);
                (Object::VNic(vnic), owners)
            }
            (Object::Eip(eip), Some(key)) => {
                let (eip, owners) = self.unconfirmed_eips.restore(&key, eip);
                (Object::Eip(eip), owners)
            }
            (other, _) => (other, BTreeSet::new()),
        };
        owners.into_iter().for_each(|owner| self.rows.push(owner));
        Some(object)
    }

    /// An answer that is under way must not bring back what has ended.
    fn note_deletion(&mut self, reference: &ObjectRef) {
        let owner = match reference.clone() {
            ObjectRef::EipGateway(name) => Owner::EipGateway(name),
            ObjectRef::Eip(key) => {
                self.unconfirmed_eips.forget(&key);
                self.unwanted_eips.remove(&key);
                Owner::Eip(key)
            }
            ObjectRef::Vpc(name) => Owner::Vpc(name),
            ObjectRef::Subnet(name) => Owner::Subnet(name),
            ObjectRef::VNic(key) => {
                self.unconfirmed.forget(&key);
                Owner::VNic(key)
            }
            ObjectRef::Service(key) => Owner::Service(key),
            ObjectRef::NetworkProbe(key) => Owner::NetworkProbe(key),
            _ => return,
        };
        if self.objects.is_busy(&owner)
            && let Some(uid) = self.metadata(&owner).map(|metadata| metadata.uid.clone())
        {
            self.ended.entry(owner).or_default().insert(uid);
        }
    }

    /// UID of the object of `owner`.
    pub(crate) fn uid(&self, owner: &Owner) -> Option<String> {
        self.metadata(owner)?.uid.clone()
    }

    fn metadata(&self, owner: &Owner) -> Option<&ObjectMeta> {
        match owner {
            Owner::EipGateway(name) => Some(&self.snapshot.eip_gateway(name)?.metadata),
            Owner::Eip(key) => Some(&self.snapshot.eip(key)?.metadata),
            Owner::Vpc(name) => Some(&self.snapshot.vpc(name)?.metadata),
            Owner::Subnet(name) => Some(&self.snapshot.subnet(name)?.metadata),
            Owner::VNic(key) => Some(&self.snapshot.vnic(key)?.metadata),
            Owner::Service(key) => Some(&self.snapshot.service(key)?.metadata),
            Owner::NetworkProbe(key) => Some(&self.snapshot.probe(key)?.metadata),
            Owner::Node(_) => None,
        }
    }

    /// What is known of the rows of `owner`.
    pub fn row_state(&self, owner: &Owner) -> &RowState {
        self.states.get(owner).unwrap_or(&RowState::Pending)
    }

    /// What is to be said of `owner`: what is known of its rows, or what hinders it although they are right.
    pub(crate) fn said(&self, owner: &Owner) -> RowState {
        let state = self.row_state(owner);
        match hindrance(&self.snapshot, owner) {
            Some(rejection) if matches!(state, RowState::Settled) => RowState::Hindered(rejection),
            _ => state.clone(),
        }
    }

    /// Notes what is known of the rows of `owner`; if that is news, its object is to be looked at.
    pub(crate) fn set_row_state(&mut self, owner: &Owner, state: RowState) {
        if self.states.get(owner) == Some(&state) {
            return;
        }
        if !matches!(state, RowState::Settled) {
            self.tracker.unsettle(owner);
        }
        self.count_state(&state, 1);
        if let Some(former) = self.states.insert(owner.clone(), state) {
            self.count_state(&former, -1);
        }
        self.objects.push(owner.clone());
    }

    /// The rows of `owner` differ from what they must be. What was refused stays so until it is settled.
    pub(crate) fn unsettle(&mut self, owner: &Owner) {
        if matches!(self.row_state(owner), RowState::Settled) {
            self.set_row_state(owner, RowState::Pending);
        }
    }

    /// `owner` does not exist and has no rows.
    pub(crate) fn forget(&mut self, owner: &Owner) {
        self.tracker.unsettle(owner);
        self.unsettled.remove(owner);
        if let Some(former) = self.states.remove(owner) {
            self.count_state(&former, -1);
        }
        if let Owner::Subnet(name) = owner {
            for family in Family::ALL {
                self.metrics.subnet_addresses(name, family, None);
            }
        }
    }

    fn count_state(&self, state: &RowState, by: i64) {
        match state {
            RowState::Refused(_) => self.metrics.refused.inc_by(by),
            RowState::Failing(_) => self.metrics.failing.inc_by(by),
            RowState::Settled | RowState::Pending | RowState::Hindered(_) => 0,
        };
    }

    /// Whether `owner` is an object that exists.
    pub(crate) fn exists(&self, owner: &Owner) -> bool {
        match owner {
            Owner::EipGateway(name) => self.snapshot.eip_gateway(name).is_some(),
            Owner::Eip(key) => self.snapshot.eip(key).is_some(),
            Owner::Vpc(name) => self.snapshot.vpc(name).is_some(),
            Owner::Subnet(name) => self.snapshot.subnet(name).is_some(),
            Owner::Node(name) => self.snapshot.node(name).is_some(),
            Owner::VNic(key) => self.snapshot.vnic(key).is_some(),
            Owner::Service(key) => self.snapshot.service(key).is_some(),
            Owner::NetworkProbe(key) => self.snapshot.probe(key).is_some(),
        }
    }

    /// Removes and returns the Events to publish.
    pub(crate) fn take_notes(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.notes)
    }

    /// Shows how far the work is: what waits, and what the chassis have. Not to be called by a standby.
    pub fn show_progress(&self) {
        self.metrics.queue_length("rows", self.rows.len());
        self.metrics.queue_length("objects", self.objects.len());
        let nb_cfg = apply::nb_cfg(&self.observed);
        let (reached, waiting) = (self.tracker.reached(), self.tracker.waiting());
        self.metrics.progress(nb_cfg, reached, waiting);
    }
}

/// The owner and the metadata of an object of a kind that this controller writes.
fn written(object: &Object) -> Option<(Owner, &ObjectMeta)> {
    let metadata = match object {
        Object::EipGateway(gateway) => &gateway.metadata,
        Object::Eip(eip) => &eip.metadata,
        Object::Vpc(vpc) => &vpc.metadata,
        Object::Subnet(subnet) => &subnet.metadata,
        Object::VNic(vnic) => &vnic.metadata,
        Object::Service(service) => &service.metadata,
        Object::NetworkProbe(probe) => &probe.metadata,
        _ => return None,
    };
    let name = metadata.name.clone()?;
    let key = || ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), name.clone());
    let owner = match object {
        Object::EipGateway(_) => Owner::EipGateway(name),
        Object::Eip(_) => Owner::Eip(key()),
        Object::Vpc(_) => Owner::Vpc(name),
        Object::Subnet(_) => Owner::Subnet(name),
        Object::VNic(_) => Owner::VNic(key()),
        Object::NetworkProbe(_) => Owner::NetworkProbe(key()),
        _ => Owner::Service(key()),
    };
    Some((owner, metadata))
}

/// Resource versions of one object grow; an unreadable one counts as 0. Source: KEP-5504, comparable resource versions.
fn version(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref();
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Whether a VNic was made for a Pod, a Node or a chassis by this controller, and not by somebody else. That of a chassis
/// without a Node has no owner reference, but a place that is nobody else's.
pub(crate) fn is_made_here(vnic: &VNic) -> bool {
    let kind = match vnic.spec.attachment.kind {
        AttachmentKind::Pod => "Pod",
        AttachmentKind::Node => "Node",
        AttachmentKind::VM | AttachmentKind::BM | AttachmentKind::None => return false,
    };
    let references = vnic.metadata.owner_references.iter().flatten();
    let of_chassis = vnic.spec.attachment.kind == AttachmentKind::Node
        && vnic.metadata.namespace.as_deref() == Some(key::SYSTEM_NAMESPACE)
        && vnic.metadata.name == vnic.spec.attachment.chassis;
    if of_chassis && references.clone().next().is_none() {
        return true;
    }
    references
        .into_iter()
        .any(|reference| reference.kind == kind && reference.api_version == "v1")
}
