//! The rows of one table, shared between snapshots.

use std::cmp::Ordering;
use std::sync::Arc;

use uuid::Uuid;

use super::{Change, Layout, Row};

/// Shards of a table; a row is in the one that the first byte of its UUID names. 10⁵ rows make about 400 per shard.
const SHARDS: usize = 256;

type Shard = Arc<Vec<Arc<Row>>>;

/// The rows of one table, ordered by UUID.
///
/// A clone shares everything. A change then copies the list of shards and the one shard of the row: some microseconds at
/// 10⁵ rows, which is why each update can have its own snapshot.
#[derive(Clone, Debug)]
pub struct Table {
    layout: Option<Arc<Layout>>,
    /// Empty, or [`SHARDS`] long; each sorted by UUID.
    shards: Option<Arc<[Shard]>>,
    len: usize,
}

impl Table {
    pub(super) const EMPTY: Table = Table {
        layout: None,
        shards: None,
        len: 0,
    };

    pub(super) fn new(layout: Arc<Layout>) -> Self {
        Table {
            layout: Some(layout),
            ..Table::EMPTY
        }
    }

    pub(crate) fn layout_or_empty(&self) -> Arc<Layout> {
        self.layout
            .clone()
            .unwrap_or_else(|| Arc::new(Layout::new(Arc::default(), [])))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One row.
    pub fn get(&self, uuid: Uuid) -> Option<&Arc<Row>> {
        let shard = &self.shards.as_ref()?[shard_of(uuid)];
        let at = shard.binary_search_by_key(&uuid, |row| row.uuid()).ok()?;
        Some(&shard[at])
    }

    /// The rows in the order of their UUIDs.
    pub fn iter(&self) -> Rows<'_> {
        let shards = self.shards.as_deref().unwrap_or_default();
        Rows {
            shards: shards.iter(),
            rows: [].iter(),
            left: self.len,
        }
    }

    /// Adds or replaces a row; returns the one that was there.
    pub(crate) fn insert(&mut self, row: Arc<Row>) -> Option<Arc<Row>> {
        let shard = self.shard_mut(row.uuid());
        match shard.binary_search_by_key(&row.uuid(), |row| row.uuid()) {
            Ok(at) => Some(std::mem::replace(&mut shard[at], row)),
            Err(at) => {
                shard.insert(at, row);
                self.len += 1;
                None
            }
        }
    }

    /// Removes a row and returns it.
    pub(crate) fn remove(&mut self, uuid: Uuid) -> Option<Arc<Row>> {
        self.get(uuid)?;
        let shard = self.shard_mut(uuid);
        let at = shard.binary_search_by_key(&uuid, |row| row.uuid()).ok()?;
        let row = shard.remove(at);
        self.len -= 1;
        Some(row)
    }

    fn shard_mut(&mut self, uuid: Uuid) -> &mut Vec<Arc<Row>> {
        let shards = self.shards.get_or_insert_with(|| {
            let empty = Shard::default();
            (0..SHARDS).map(|_| empty.clone()).collect()
        });
        Arc::make_mut(&mut Arc::make_mut(shards)[shard_of(uuid)])
    }

    /// Appends what must change in `self` to get `new`.
    pub(super) fn difference(&self, new: &Table, name: &Arc<str>, changes: &mut Vec<Change>) {
        let none: &[Shard] = &[];
        let (old, new) = (
            self.shards.as_deref().unwrap_or(none),
            new.shards.as_deref().unwrap_or(none),
        );
        for shard in 0..old.len().max(new.len()) {
            let (old, new) = (old.get(shard), new.get(shard));
            if let (Some(old), Some(new)) = (old, new)
                && Arc::ptr_eq(old, new)
            {
                continue;
            }
            merge(rows(old), rows(new), |old, new| {
                let Some(uuid) = old.or(new).map(|row| row.uuid()) else {
                    return;
                };
                if old != new {
                    changes.push(Change {
                        table: name.clone(),
                        uuid,
                        old: old.cloned(),
                        new: new.cloned(),
                    });
                }
            });
        }
    }
}

fn rows(shard: Option<&Shard>) -> &[Arc<Row>] {
    shard.map_or(&[], |shard| shard.as_slice())
}

/// Calls `visit` with the rows of equal UUID of two sorted lists.
fn merge(
    mut old: &[Arc<Row>],
    mut new: &[Arc<Row>],
    mut visit: impl FnMut(Option<&Arc<Row>>, Option<&Arc<Row>>),
) {
    while let ([a, rest_old @ ..], [b, rest_new @ ..]) = (old, new) {
        match a.uuid().cmp(&b.uuid()) {
            Ordering::Less => {
                visit(Some(a), None);
                old = rest_old;
            }
            Ordering::Greater => {
                visit(None, Some(b));
                new = rest_new;
            }
            Ordering::Equal => {
                visit(Some(a), Some(b));
                (old, new) = (rest_old, rest_new);
            }
        }
    }
    old.iter().for_each(|row| visit(Some(row), None));
    new.iter().for_each(|row| visit(None, Some(row)));
}

fn shard_of(uuid: Uuid) -> usize {
    usize::from(uuid.as_bytes()[0])
}

impl<'a> IntoIterator for &'a Table {
    type Item = &'a Arc<Row>;
    type IntoIter = Rows<'a>;
    fn into_iter(self) -> Rows<'a> {
        self.iter()
    }
}

/// The rows of a [`Table`] in the order of their UUIDs.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    shards: std::slice::Iter<'a, Shard>,
    rows: std::slice::Iter<'a, Arc<Row>>,
    left: usize,
}

impl<'a> Iterator for Rows<'a> {
    type Item = &'a Arc<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                self.left -= 1;
                return Some(row);
            }
            self.rows = self.shards.next()?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Rows<'_> {}
