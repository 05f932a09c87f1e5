//! What must be done so that an owner's rows in the database are the desired ones.
//!
//! # Guarantees
//! * Looking again after the operations took effect finds nothing to do.
//! * No row that is not ycloud's is touched. Where a foreign row holds one of ours by a strong reference, ours stays
//!   until that reference goes.
//! * No operation depends on a row that is not there: a row whose parent is missing, or that refers to a missing row, is
//!   left out. When that row appears, [`OwnerIndex::apply`] names the owners that may have waited for it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use ycloud_ovsdb::{Atom, Columns, Datum, Mutation, Operation};

use crate::owner::Owner;
use crate::ownerindex::OwnerIndex;
use crate::row::{MEMBERSHIPS, Parent, Row, TABLES};

/// The operations of several owners in one transaction: a row may be a member of one that an owner added before it
/// inserts. Add owners in their order ([`Owner`]'s `Ord` is that of dependence). Memberships in one column of one row
/// become one `mutate`, as the server copies the whole column for each.
#[derive(Debug)]
pub struct Batch<'a> {
    observed: &'a ycloud_ovsdb::Snapshot,
    index: &'a OwnerIndex,
    operations: Vec<Operation>,
    joins: BTreeMap<Parent, BTreeSet<Uuid>>,
    leaves: BTreeMap<Parent, BTreeSet<Uuid>>,
    inserted: BTreeSet<Uuid>,
    deleted: BTreeSet<Uuid>,
}

impl<'a> Batch<'a> {
    /// An empty transaction over the replica and its index.
    pub fn new(observed: &'a ycloud_ovsdb::Snapshot, index: &'a OwnerIndex) -> Self {
        Self {
            observed,
            index,
            operations: Vec::new(),
            joins: BTreeMap::new(),
            leaves: BTreeMap::new(),
            inserted: BTreeSet::new(),
            deleted: BTreeSet::new(),
        }
    }

    /// Adds what must be done for one more owner. Returns whether there is anything.
    pub fn add(&mut self, owner: &Owner, desired: &[Row]) -> bool {
        let before = self.len();
        let wanted: BTreeSet<Uuid> = desired.iter().map(|row| row.uuid).collect();
        let index = self.index;
        for (table, uuid) in index.rows_of(owner) {
            if !wanted.contains(&uuid) {
                self.delete(table, uuid);
            }
        }
        for row in desired {
            self.row(row);
        }
        self.len() > before
    }

    /// Number of rows and memberships that change so far: the transaction's size.
    pub fn len(&self) -> usize {
        let members = self
            .joins
            .values()
            .chain(self.leaves.values())
            .map(BTreeSet::len);
        self.operations.len() + members.sum::<usize>()
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.joins.is_empty() && self.leaves.is_empty()
    }

    /// The transaction.
    pub fn into_operations(self) -> Vec<Operation> {
        let mut operations = self.operations;
        let mutate =
            |parent: Parent, mutation| Operation::mutate(parent.table, parent.uuid, vec![mutation]);
        for (parent, members) in self.joins {
            operations.push(mutate(parent, Mutation::insert(parent.column, members)));
        }
        for (parent, members) in self.leaves {
            operations.push(mutate(parent, Mutation::delete(parent.column, members)));
        }
        operations
    }

    fn row(&mut self, row: &Row) {
        let strong = |parent: &&Parent| is_strong(parent.table, parent.column);
        let mut needed = row.parents.iter().filter(strong);
        if !needed.all(|parent| self.exists(parent.table, parent.uuid))
            || !self.references_exist(row)
        {
            return;
        }
        match self.observed.row(row.table, row.uuid) {
            None => {
                let insert = Operation::insert(row.table, row.uuid, row.columns.clone());
                self.operations.push(insert);
                self.inserted.insert(row.uuid);
            }
            Some(observed) => {
                // A column that cannot be seen is one that the server does not have.
                let differs = |(column, value): &(&&'static str, &Datum)| {
                    observed.get(column).is_some_and(|there| there != *value)
                };
                let columns = row.columns.iter().filter(differs);
                let columns: Columns = columns.map(|(c, v)| (*c, v.clone())).collect();
                if !columns.is_empty() {
                    self.operations
                        .push(Operation::update(row.table, row.uuid, columns));
                }
            }
        }
        self.memberships(row);
    }

    /// Adds the row to the parents that lack it, and takes it out of ycloud's other rows.
    fn memberships(&mut self, row: &Row) {
        let now: BTreeSet<Parent> = self.index.references(row.uuid).copied().collect();
        for parent in row.parents.difference(&now) {
            if self.exists(parent.table, parent.uuid) {
                self.joins.entry(*parent).or_default().insert(row.uuid);
            }
        }
        for parent in now.difference(&row.parents) {
            if is_shared(parent) && self.is_ours(parent) {
                self.leaves.entry(*parent).or_default().insert(row.uuid);
            }
        }
    }

    /// Deletes an owned row: a root row by `delete`, another one by taking it out of its parents, which deletes it
    /// (RFC 7047 §3.2, `isRoot`).
    fn delete(&mut self, table: &'static str, uuid: Uuid) {
        let references: Vec<Parent> = self.index.references(uuid).copied().collect();
        let strong = |parent: &&Parent| is_strong(parent.table, parent.column);
        if references
            .iter()
            .filter(strong)
            .any(|parent| !self.is_ours(parent))
        {
            return;
        }
        // The server itself takes a deleted row out of columns with weak references.
        for parent in references.iter().filter(strong) {
            self.leaves.entry(*parent).or_default().insert(uuid);
        }
        if is_root(table) {
            self.operations.push(Operation::delete(table, uuid));
        }
        self.deleted.insert(uuid);
    }

    fn exists(&self, table: &str, uuid: Uuid) -> bool {
        self.inserted.contains(&uuid)
            || (!self.deleted.contains(&uuid) && self.observed.row(table, uuid).is_some())
    }

    /// Whether the rows exist that the row's own columns refer to.
    fn references_exist(&self, row: &Row) -> bool {
        let own = MEMBERSHIPS
            .iter()
            .filter(|m| m.table == row.table && !m.shared);
        own.filter_map(|m| Some((m.member, row.columns.get(m.column)?)))
            .all(|(table, value)| {
                let Datum::Set(set) = value else {
                    return true;
                };
                set.iter().all(|atom| match atom {
                    Atom::Uuid(uuid) => self.exists(table, *uuid),
                    _ => true,
                })
            })
    }

    fn is_ours(&self, parent: &Parent) -> bool {
        self.index.owner_of(parent.uuid).is_some()
    }
}

fn is_root(table: &str) -> bool {
    TABLES.iter().any(|(name, root)| *name == table && *root)
}

fn is_strong(table: &str, column: &str) -> bool {
    MEMBERSHIPS
        .iter()
        .any(|m| m.table == table && m.column == column && m.strong)
}

fn is_shared(parent: &Parent) -> bool {
    MEMBERSHIPS
        .iter()
        .any(|m| m.table == parent.table && m.column == parent.column && m.shared)
}
