//! What the replicas of OVN's databases tell the [`State`].

use std::sync::Arc;

use ycloud_compiler::{Event, Object, ObjectRef, Owner, OwnerIndex};
use ycloud_ovsdb::{Change, Snapshot, nb, sb};

use crate::metrics::count;
use crate::objects::default_owners;
use crate::southbound;
use crate::state::State;

impl State {
    /// Rows of the Northbound replica changed, which reads `observed` now.
    pub fn observe(&mut self, changes: &[Change], observed: Arc<Snapshot>) {
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
    pub fn observe_all(&mut self, observed: Arc<Snapshot>) {
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

    /// Rows of the Southbound replica changed, which reads `observed` now.
    pub fn observe_southbound(&mut self, changes: &[Change], observed: &Snapshot) {
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
        if southbound::concerns_claims(changes) {
            self.observe_gateways(observed);
        }
        self.advance();
    }

    /// The Southbound replica is to be looked at as a whole.
    pub fn observe_all_southbound(&mut self, observed: &Snapshot) {
        self.tracker.forget_chassis();
        for row in observed.table(sb::ChassisPrivate::TABLE) {
            let row = sb::ChassisPrivate::of(row);
            self.tracker.chassis(row.name(), Some(row.nb_cfg()));
        }
        self.observe_gateways(observed);
        self.advance();
    }

    /// Tells the snapshot which chassis there are, and who holds which group. A group that nobody holds for the moment
    /// keeps its last holder, so that priorities stay as they are until somebody takes over.
    fn observe_gateways(&mut self, observed: &Snapshot) {
        let chassis = southbound::chassis(observed);
        let mut claims = southbound::claims(observed);
        for group in sb::HaChassisGroup::all(observed) {
            if let Some(held) = self.claims.get(group.name()) {
                let claim = claims.entry(held.group.clone());
                claim.or_insert_with(|| held.clone());
            }
        }
        let mut events = Vec::new();
        for name in self
            .chassis
            .keys()
            .filter(|name| !chassis.contains_key(*name))
        {
            events.push(Event::Delete(ObjectRef::Chassis(name.clone())));
        }
        for (name, new) in &chassis {
            if self.chassis.get(name) != Some(new) {
                events.push(Event::Apply(Object::Chassis(new.clone())));
            }
        }
        for group in self
            .claims
            .keys()
            .filter(|group| !claims.contains_key(*group))
        {
            events.push(Event::Delete(ObjectRef::Claim(group.clone())));
        }
        for (group, new) in &claims {
            if self.claims.get(group) != Some(new) {
                events.push(Event::Apply(Object::Claim(new.clone())));
            }
        }
        self.chassis = chassis;
        self.claims = claims;
        events.into_iter().for_each(|event| self.take_in(event));
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

    /// Whether OVN has bound the logical port of `owner`.
    pub(crate) fn is_up(&self, owner: &Owner) -> bool {
        let mut rows = self.index.rows_of(owner);
        rows.any(|(table, uuid)| {
            let row = self.observed.row(table, uuid);
            let port = row.filter(|_| table == nb::LogicalSwitchPort::TABLE);
            port.is_some_and(|row| nb::LogicalSwitchPort::of(row).up() == Some(true))
        })
    }
}
