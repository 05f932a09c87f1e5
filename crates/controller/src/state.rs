//! What ycloud-controller knows, and whose turn it is: owned by one task, no input or output.
//!
//! ```text
//!   watches ── Event ────► take_in ──► Snapshot ─┐            ┌─► rows: Queue<Owner> ──── plan (apply.rs)
//!                                                ├─ owners ───┤
//!   replica ── Changes ──► observe ──► OwnerIndex┘            └─► objects: Chores<Owner> ─ next_write (objects.rs)
//! ```
//!
//! Both queues carry owners only; whoever takes one from them reads everything again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ycloud_api::vnic::AttachmentKind;
use ycloud_api::{VNic, VNicStatus};
use ycloud_compiler::{Event, Object, ObjectKey, ObjectRef, Owner, OwnerIndex, Settings, Snapshot};
use ycloud_ovsdb::{Change, nb, sb};

use crate::chores::Chores;
use crate::metrics::{Metrics, count};
use crate::objects::default_owners;
use crate::programmed::Tracker;
use crate::queue::Queue;
use crate::status::RowState;
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
    /// Addresses that were given out and that the API server has not confirmed.
    pub(crate) unconfirmed: BTreeMap<ObjectKey, Unconfirmed>,
    /// UIDs of objects that ended while a write on an object of their name was under way.
    ended: HashMap<Owner, BTreeSet<Option<String>>>,
    /// What was last reported of Pods that cannot have a VNic.
    pub(crate) reported: HashMap<ObjectKey, ycloud_compiler::Rejection>,
    /// Events to publish that belong to no write.
    pub(crate) notes: Vec<Report>,
    /// The replica of the Northbound database as it was last looked at.
    pub(crate) observed: Arc<ycloud_ovsdb::Snapshot>,
    /// Commits in a row of an owner that is not settled by them.
    pub(crate) unsettled: HashMap<Owner, u32>,
    pub(crate) metrics: Metrics,
}

/// An address that was given out and that the API server has not confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Unconfirmed {
    /// UID of the VNic.
    pub uid: Option<String>,
    /// The status to be written.
    pub status: VNicStatus,
    /// Whose rows follow from the address: compared once it is confirmed.
    pub owners: BTreeSet<Owner>,
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
            unconfirmed: BTreeMap::new(),
            ended: HashMap::new(),
            reported: HashMap::new(),
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
            Event::Delete(ObjectRef::Node(name)) => Some(name.clone()),
            _ => None,
        };
        let owners = self.snapshot.apply(event);
        if let Some(name) = node {
            let ready = self.snapshot.node(&name).is_some_and(|node| node.ready);
            self.tracker.node(&name, ready);
            self.advance();
        }
        for owner in owners {
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
        if let Some((owner, metadata)) = written(&object) {
            let held = self
                .metadata(&owner)
                .filter(|held| held.uid == metadata.uid);
            if held.is_some_and(|held| version(held) > version(metadata)) {
                return None;
            }
        }
        Some(match object {
            Object::VNic(vnic) => Object::VNic(self.with_unconfirmed_address(vnic)),
            other => other,
        })
    }

    /// An answer that is under way must not bring back what has ended.
    fn note_deletion(&mut self, reference: &ObjectRef) {
        let owner = match reference.clone() {
            ObjectRef::EipGateway(name) => Owner::EipGateway(name),
            ObjectRef::Eip(key) => Owner::Eip(key),
            ObjectRef::Vpc(name) => Owner::Vpc(name),
            ObjectRef::Subnet(name) => Owner::Subnet(name),
            ObjectRef::VNic(key) => {
                self.unconfirmed.remove(&key);
                Owner::VNic(key)
            }
            ObjectRef::Service(key) => Owner::Service(key),
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
            Owner::Node(_) => None,
        }
    }

    /// An address that was given out stays in the snapshot until the API server has confirmed it, whatever older
    /// version of its VNic comes by.
    fn with_unconfirmed_address(&mut self, vnic: Arc<VNic>) -> Arc<VNic> {
        let Some(key) = key_of(&vnic) else {
            return vnic;
        };
        let Some(unconfirmed) = self.unconfirmed.remove(&key) else {
            return vnic;
        };
        let status = vnic.status.as_ref();
        let addressed = status.is_some_and(|status| status.ip.is_some());
        if addressed || unconfirmed.uid != vnic.metadata.uid {
            for owner in unconfirmed.owners {
                self.rows.push(owner);
            }
            return vnic;
        }
        let mut vnic = Arc::unwrap_or_clone(vnic);
        vnic.status = Some(unconfirmed.status.clone());
        self.unconfirmed.insert(key, unconfirmed);
        Arc::new(vnic)
    }

    /// Rows of the Northbound replica changed, which reads `observed` now.
    pub fn observe(&mut self, changes: &[Change], observed: Arc<ycloud_ovsdb::Snapshot>) {
        self.observed = observed;
        let owners = self.index.apply(changes, &self.snapshot);
        for owner in owners {
            self.rows.push(owner);
        }
        for change in changes {
            let up = &*change.table == nb::LogicalSwitchPort::TABLE;
            if up && let Some(owner) = self.index.owner_of(change.uuid) {
                self.objects.push(owner.clone());
            }
        }
        self.metrics.owned_rows.set(count(self.index.len()));
    }

    /// The Northbound replica is to be looked at as a whole: at the start, and after changes were missed.
    pub fn observe_all(&mut self, observed: Arc<ycloud_ovsdb::Snapshot>) {
        let former: Vec<Owner> = self.index.owners().cloned().collect();
        self.index = OwnerIndex::build(&observed);
        self.observed = observed;
        former.into_iter().for_each(|owner| self.rows.push(owner));
        self.everything();
    }

    /// Every object, and every owner that has rows, is to be looked at.
    pub fn everything(&mut self) {
        let mut owners = self.snapshot.owners();
        owners.extend(self.index.owners().cloned());
        owners.extend(default_owners());
        for owner in owners {
            self.rows.push(owner.clone());
            self.objects.push(owner);
        }
        self.metrics.owned_rows.set(count(self.index.len()));
    }

    /// Rows of the Southbound replica changed.
    pub fn observe_chassis(&mut self, changes: &[Change]) {
        for change in changes {
            if &*change.table != sb::ChassisPrivate::TABLE {
                continue;
            }
            if let Some(old) = &change.old {
                self.tracker
                    .chassis(sb::ChassisPrivate::of(old).name(), None);
            }
            if let Some(new) = &change.new {
                let row = sb::ChassisPrivate::of(new);
                self.tracker.chassis(row.name(), Some(row.nb_cfg()));
            }
        }
        self.advance();
    }

    /// The Southbound replica is to be looked at as a whole.
    pub fn observe_all_chassis(&mut self, observed: &ycloud_ovsdb::Snapshot) {
        self.tracker.forget_chassis();
        for row in observed.table(sb::ChassisPrivate::TABLE) {
            let row = sb::ChassisPrivate::of(row);
            self.tracker.chassis(row.name(), Some(row.nb_cfg()));
        }
        self.advance();
    }

    /// Services that the hypervisors have now get their annotation.
    pub(crate) fn advance(&mut self) {
        for owner in self.tracker.advance() {
            self.objects.push(owner);
        }
        self.metrics
            .reached
            .set(self.tracker.reached().unwrap_or(-1));
        self.metrics.unprogrammed.set(count(self.tracker.waiting()));
    }

    /// What is known of the rows of `owner`.
    pub fn row_state(&self, owner: &Owner) -> &RowState {
        self.states.get(owner).unwrap_or(&RowState::Pending)
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
            self.metrics.subnet_addresses(name, None);
        }
    }

    fn count_state(&self, state: &RowState, by: i64) {
        match state {
            RowState::Refused(_) => self.metrics.refused.inc_by(by),
            RowState::Failing(_) => self.metrics.failing.inc_by(by),
            RowState::Settled | RowState::Pending => 0,
        };
    }

    /// Whether OVN has bound the logical port of `owner`.
    pub(crate) fn is_up(&self, owner: &Owner) -> bool {
        let mut rows = self.index.rows_of(owner);
        rows.any(|(table, uuid)| {
            let row = self.observed.row(table, uuid);
            let port = row.filter(|_| table == nb::LogicalSwitchPort::TABLE);
            port.is_some_and(|row| nb::LogicalSwitchPort::of(row).up() == Some(true))
        })
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
        }
    }

    /// Removes and returns the Events to publish.
    pub(crate) fn take_notes(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.notes)
    }

    /// Shows the lengths of the queues.
    pub fn show_queues(&self) {
        self.metrics.queue_length("rows", self.rows.len());
        self.metrics.queue_length("objects", self.objects.len());
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
        _ => Owner::Service(key()),
    };
    Some((owner, metadata))
}

/// Resource versions of one object grow; an unreadable one counts as 0. Source: KEP-5504, comparable resource versions.
fn version(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref();
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The key of a VNic; `None` without a name.
pub(crate) fn key_of(vnic: &VNic) -> Option<ObjectKey> {
    let name = vnic.metadata.name.clone()?;
    let namespace = vnic.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, name))
}

/// Whether a VNic was made for a Pod or a Node by this controller, and not by somebody else.
pub(crate) fn is_made_here(vnic: &VNic) -> bool {
    let kind = match vnic.spec.attachment.kind {
        AttachmentKind::Pod => "Pod",
        AttachmentKind::Node => "Node",
        AttachmentKind::VM | AttachmentKind::BM | AttachmentKind::None => return false,
    };
    let references = vnic.metadata.owner_references.iter().flatten();
    references
        .into_iter()
        .any(|reference| reference.kind == kind && reference.api_version == "v1")
}
