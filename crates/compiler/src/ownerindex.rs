//! Which rows of the replica belong to which owner, and which rows they are members of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;
use ycloud_ovsdb::{Atom, AtomSet, Change, Datum, Row, nb};

use crate::desired::service::backends_that_drain;
use crate::owner::{OWNER_KEY, Owner};
use crate::row::{MEMBERSHIPS, MONITORED, Membership, Parent, TABLES};
use crate::snapshot::Snapshot;

/// Name of a `Load_Balancer_Group` of ours, before the Vpc's name. The table has no `external_ids`.
pub const GROUP_PREFIX: &str = "ycloud/";

/// Name of the `Load_Balancer_Group` on the router of a Vpc, before the Vpc's name.
pub const ROUTER_GROUP_PREFIX: &str = "ycloud-router/";

/// Name of the `Load_Balancer_Group` on the service gateways of an EipGateway, before the EipGateway's name.
pub const SERVICE_GROUP_PREFIX: &str = "ycloud-sg/";

/// Columns that others write and no desired row names; their change is no reason to reconcile.
const OTHERS_COLUMNS: &[&str] = &["up"];

/// Owner → rows, row → owner, and member → the rows that refer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerIndex {
    rows: BTreeMap<Arc<Owner>, BTreeSet<(&'static str, Uuid)>>,
    owners: BTreeMap<Uuid, Arc<Owner>>,
    references: BTreeMap<Uuid, BTreeSet<Parent>>,
    /// The load balancers at which a backend of that address drains.
    draining: BTreeSet<(IpAddr, Uuid)>,
}

impl OwnerIndex {
    /// The index of a whole replica.
    pub fn build(observed: &ycloud_ovsdb::Snapshot) -> Self {
        let mut index = Self::default();
        for (table, _) in TABLES {
            for row in observed.table(table) {
                index.add(table, row);
            }
        }
        index
    }

    /// Takes in changes of the replica, and returns the owners to reconcile: those whose rows changed, or became or
    /// ceased to be members of others, those that may have waited for a row that is new (found in `snapshot`), and those
    /// of load balancers at which somebody drains whose port is gone.
    pub fn apply(&mut self, changes: &[Change], snapshot: &Snapshot) -> BTreeSet<Owner> {
        let mut touched: BTreeSet<Arc<Owner>> = BTreeSet::new();
        let mut parents: BTreeSet<Arc<Owner>> = BTreeSet::new();
        for change in changes {
            let Some((table, _)) = TABLES.iter().find(|(table, _)| **table == *change.table) else {
                continue;
            };
            // Owners of members are looked up before and after, as the member's own change may stand on either side.
            self.members_owners(table, change, &mut touched);
            let before = self.owners.get(&change.uuid).cloned();
            self.update(table, change);
            self.drained(change, &mut touched);
            let after = self.owners.get(&change.uuid).cloned();
            self.members_owners(table, change, &mut touched);
            if before != after || compared_columns_differ(table, change) {
                touched.extend(before.clone());
                touched.extend(after.clone());
            }
            if before != after {
                // Whether a member can be deleted depends on whose its parent is.
                self.all_members_owners(table, change, &mut touched);
            }
            if change.old.is_none() && MEMBERSHIPS.iter().any(|m| m.table == *table) {
                parents.extend(after);
            }
        }
        let mut owners: BTreeSet<Owner> = touched.iter().map(|o| Owner::clone(o)).collect();
        for owner in parents {
            owners.extend(snapshot.dependents(&owner));
        }
        owners
    }

    /// All owners that have rows.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.rows.keys().map(Arc::as_ref)
    }

    /// Table and UUID of an owner's rows.
    pub fn rows_of(&self, owner: &Owner) -> impl Iterator<Item = (&'static str, Uuid)> {
        self.rows.get(owner).into_iter().flatten().copied()
    }

    /// The owner of a row; `None` for rows that are not ycloud's.
    pub fn owner_of(&self, row: Uuid) -> Option<&Owner> {
        self.owners.get(&row).map(Arc::as_ref)
    }

    /// Number of rows that ycloud owns.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// True if ycloud owns no row.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// The rows, owned or not, that refer to this one.
    pub fn references(&self, row: Uuid) -> impl Iterator<Item = &Parent> {
        self.references.get(&row).into_iter().flatten()
    }

    /// Takes a change in: of the members only those that came or went, as a group of ten thousand load balancers
    /// changes by one at a time.
    fn update(&mut self, table: &'static str, change: &Change) {
        if let Some(old) = &change.old {
            self.disown(table, old);
        }
        if let Some(new) = &change.new {
            self.own(table, new);
        }
        for membership in memberships(table) {
            let parent = parent(membership, change.uuid);
            let column = membership.column;
            let now = change.new.as_ref().and_then(|row| row.get(column));
            for member in difference(change, column) {
                let is_there = match now {
                    Some(Datum::Set(set)) => set.contains(&Atom::Uuid(member)),
                    _ => false,
                };
                if is_there {
                    self.references.entry(member).or_default().insert(parent);
                } else {
                    self.unrefer(member, &parent);
                }
            }
        }
    }

    fn add(&mut self, table: &'static str, row: &Row) {
        self.own(table, row);
        for membership in memberships(table) {
            for member in members(row, membership.column) {
                let parent = parent(membership, row.uuid());
                self.references.entry(member).or_default().insert(parent);
            }
        }
    }

    /// Owners of load balancers at which drains what has lost its port, or an address of it.
    fn drained(&self, change: &Change, owners: &mut BTreeSet<Arc<Owner>>) {
        let Some(old) = &change.old else { return };
        if &*change.table != nb::LogicalSwitchPort::TABLE {
            return;
        }
        let now: Vec<IpAddr> = change.new.as_deref().map(addresses).unwrap_or_default();
        for ip in addresses(old).into_iter().filter(|ip| !now.contains(ip)) {
            let at = self.draining.range((ip, Uuid::nil())..=(ip, Uuid::max()));
            let at = at.filter_map(|(_, row)| self.owners.get(row));
            owners.extend(at.cloned());
        }
    }

    fn own(&mut self, table: &'static str, row: &Row) {
        if table == nb::LoadBalancer::TABLE {
            let drains = backends_that_drain(row).map(|ip| (ip, row.uuid()));
            self.draining.extend(drains);
        }
        if let Some(owner) = owner_in(table, row) {
            let owner = match self.rows.get_key_value(&owner) {
                Some((known, _)) => known.clone(),
                None => Arc::new(owner),
            };
            self.owners.insert(row.uuid(), owner.clone());
            self.rows
                .entry(owner)
                .or_default()
                .insert((table, row.uuid()));
        }
    }

    fn disown(&mut self, table: &'static str, row: &Row) {
        if table == nb::LoadBalancer::TABLE {
            for ip in backends_that_drain(row) {
                self.draining.remove(&(ip, row.uuid()));
            }
        }
        let row = row.uuid();
        if let Some(owner) = self.owners.remove(&row)
            && let Some(rows) = self.rows.get_mut(&owner)
        {
            rows.remove(&(table, row));
            if rows.is_empty() {
                self.rows.remove(&owner);
            }
        }
    }

    fn unrefer(&mut self, member: Uuid, parent: &Parent) {
        if let Some(parents) = self.references.get_mut(&member) {
            parents.remove(parent);
            if parents.is_empty() {
                self.references.remove(&member);
            }
        }
    }

    /// Owners of the members of a row.
    fn all_members_owners(&self, table: &str, change: &Change, owners: &mut BTreeSet<Arc<Owner>>) {
        for row in change.old.iter().chain(&change.new) {
            for membership in memberships(table) {
                let known =
                    members(row, membership.column).filter_map(|uuid| self.owners.get(&uuid));
                owners.extend(known.cloned());
            }
        }
    }

    /// Owners of rows that became or ceased to be members by this change.
    fn members_owners(&self, table: &str, change: &Change, owners: &mut BTreeSet<Arc<Owner>>) {
        for membership in memberships(table) {
            for uuid in difference(change, membership.column) {
                owners.extend(self.owners.get(&uuid).cloned());
            }
        }
    }
}

/// The IP addresses of a `Logical_Switch_Port`.
fn addresses(port: &Row) -> Vec<IpAddr> {
    let set = port.get("addresses").and_then(Datum::as_set);
    let texts = set.into_iter().flat_map(AtomSet::as_slice);
    let words = texts
        .filter_map(Atom::as_str)
        .flat_map(str::split_whitespace);
    words.filter_map(|word| word.parse().ok()).collect()
}

fn parent(membership: &Membership, uuid: Uuid) -> Parent {
    Parent {
        table: membership.table,
        uuid,
        column: membership.column,
    }
}

fn memberships(table: &str) -> impl Iterator<Item = &'static Membership> {
    MEMBERSHIPS
        .iter()
        .filter(move |membership| membership.table == table)
}

fn members<'a>(row: &'a Row, column: &str) -> impl Iterator<Item = Uuid> + 'a {
    uuids(row.get(column))
}

fn uuids(datum: Option<&Datum>) -> impl Iterator<Item = Uuid> {
    let atoms = match datum {
        Some(Datum::Set(set)) => set.as_slice(),
        _ => &[],
    };
    atoms.iter().filter_map(|atom| match atom {
        Atom::Uuid(uuid) => Some(*uuid),
        _ => None,
    })
}

/// The members that a change added or removed. Both sides are sorted.
fn difference(change: &Change, column: &str) -> Vec<Uuid> {
    let side = |row: &Option<Arc<Row>>| row.as_ref().and_then(|row| row.get(column)).cloned();
    match (side(&change.old), side(&change.new)) {
        (Some(Datum::Set(old)), Some(Datum::Set(new))) => {
            uuids(Some(&Datum::Set(old.symmetric_difference(&new)))).collect()
        }
        (one, None) | (None, one) => uuids(one.as_ref()).collect(),
        _ => Vec::new(),
    }
}

/// Whether a column differs that a desired row may name.
fn compared_columns_differ(table: &str, change: &Change) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    let columns = MONITORED.iter().find(|(name, _)| *name == table);
    let columns = columns.map_or(&[][..], |(_, columns)| columns);
    columns.iter().any(|column| {
        let shared = memberships(table).any(|m| m.column == *column && m.shared);
        !shared && !OTHERS_COLUMNS.contains(column) && old.get(column) != new.get(column)
    })
}

/// Whose the row is, by what stands in it.
fn owner_in(table: &str, row: &Row) -> Option<Owner> {
    if table == "Load_Balancer_Group" {
        let Some(Datum::Set(name)) = row.get("name") else {
            return None;
        };
        let name = name.as_slice().first()?.as_str()?;
        let after = |prefix| {
            name.strip_prefix(prefix)
                .filter(|rest: &&str| !rest.is_empty())
        };
        let vpc = after(GROUP_PREFIX).or_else(|| after(ROUTER_GROUP_PREFIX));
        let gateway = || after(SERVICE_GROUP_PREFIX).map(|name| Owner::EipGateway(name.to_owned()));
        return vpc.map(|name| Owner::Vpc(name.to_owned())).or_else(gateway);
    }
    match row.get("external_ids") {
        Some(Datum::Map(ids)) => ids.get_str(OWNER_KEY)?.parse().ok(),
        _ => None,
    }
}
