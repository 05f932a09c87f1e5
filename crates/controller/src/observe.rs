//! What the replicas of OVN's databases tell the [`State`].

use std::collections::BTreeMap;
use std::sync::Arc;

use ycloud_compiler::{Claim, Event, Object, ObjectRef, Owner, OwnerIndex};
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
                if let Owner::Vpc(_) = owner {
                    // A prober may have let go of its port.
                    self.rows.push(owner.clone());
                }
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
        if changes
            .iter()
            .any(|change| &*change.table == sb::Chassis::TABLE)
        {
            self.observe_chassis(observed);
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
        self.observe_chassis(observed);
        self.advance();
    }

    /// Tells the snapshot which chassis there are.
    fn observe_chassis(&mut self, observed: &Snapshot) {
        let chassis = southbound::chassis(observed);
        let former = std::mem::replace(&mut self.chassis, chassis.clone());
        for name in former.keys().filter(|name| !chassis.contains_key(*name)) {
            self.take_in(Event::Delete(ObjectRef::Chassis(name.clone())));
        }
        for (name, new) in chassis {
            if former.get(&name) != Some(&new) {
                self.take_in(Event::Apply(Object::Chassis(new)));
            }
        }
    }

    /// Tells the snapshot who holds each `HA_Chassis_Group`, see [`southbound::Standing`].
    pub fn observe_claims(&mut self, claims: &BTreeMap<String, Claim>) {
        let former = std::mem::replace(&mut self.claims, claims.clone());
        for group in former.keys().filter(|group| !claims.contains_key(*group)) {
            self.take_in(Event::Delete(ObjectRef::Claim(group.clone())));
        }
        for (group, new) in claims {
            if former.get(group) != Some(new) {
                self.take_in(Event::Apply(Object::Claim(new.clone())));
            }
        }
    }

    /// Services that the hypervisors have now get their annotation.
    pub(crate) fn advance(&mut self) {
        for owner in self.tracker.advance() {
            self.objects.push(owner);
        }
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
