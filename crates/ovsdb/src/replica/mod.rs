//! The local copy of the monitored tables: immutable rows in immutable snapshots that share what did not change.

mod row;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

pub use row::{Layout, Row};
pub use table::{Rows, Table};

use crate::operation::Columns;
use crate::schema::{Refusal, Schema};

/// The monitored tables at one moment. Cheap to clone and to keep: later snapshots share all rows that stayed the same.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    schema: Option<Arc<Schema>>,
    tables: BTreeMap<Arc<str>, Table>,
}

/// What happened to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row's table.
    pub table: Arc<str>,
    /// The row.
    pub uuid: Uuid,
    /// Before; `None` if the row is new.
    pub old: Option<Arc<Row>>,
    /// After; `None` if the row is gone.
    pub new: Option<Arc<Row>>,
}

static NO_ROWS: Table = Table::EMPTY;

impl Snapshot {
    /// A snapshot of given rows, for pure code and its tests. Columns that are not given have their type's default.
    ///
    /// # Errors
    /// A table, column or value that does not fit the schema.
    pub fn of<'a>(
        schema: &Arc<Schema>,
        rows: impl IntoIterator<Item = (&'a str, Uuid, Columns)>,
    ) -> Result<Snapshot, Refusal> {
        let mut snapshot = Snapshot {
            schema: Some(schema.clone()),
            tables: BTreeMap::new(),
        };
        for (name, table) in &schema.tables {
            let columns = table
                .columns
                .iter()
                .map(|(name, column_type)| (name.clone(), column_type.clone()));
            let layout = Arc::new(Layout::new(name.clone(), columns));
            snapshot.tables.insert(name.clone(), Table::new(layout));
        }
        for (name, uuid, columns) in rows {
            schema.check_row(name, &columns)?;
            if let Some(table) = snapshot.tables.get_mut(name) {
                let row = Row::with_columns(table.layout_or_empty(), uuid, columns);
                table.insert(Arc::new(row));
            }
        }
        Ok(snapshot)
    }

    /// An empty snapshot of the given tables.
    pub(crate) fn empty(
        schema: Arc<Schema>,
        layouts: impl IntoIterator<Item = Arc<Layout>>,
    ) -> Snapshot {
        let tables = layouts
            .into_iter()
            .map(|layout| (layout.table().clone(), Table::new(layout)))
            .collect();
        Snapshot {
            schema: Some(schema),
            tables,
        }
    }

    /// The schema of the connected server; `None` before the first sync.
    pub fn schema(&self) -> Option<&Arc<Schema>> {
        self.schema.as_ref()
    }

    /// True if the connected server's schema has the column, monitored or not. False before the first sync.
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.schema
            .as_ref()
            .is_some_and(|schema| schema.has_column(table, column))
    }

    /// The rows of a table; none if it is not monitored or the server does not have it.
    pub fn table(&self, table: &str) -> &Table {
        self.tables.get(table).unwrap_or(&NO_ROWS)
    }

    /// One row of a table.
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Arc<Row>> {
        self.table(table).get(uuid)
    }

    /// All monitored tables that the server has, by name.
    pub fn tables(&self) -> impl Iterator<Item = (&Arc<str>, &Table)> {
        self.tables.iter()
    }

    pub(crate) fn table_mut(&mut self, table: &str) -> Option<&mut Table> {
        self.tables.get_mut(table)
    }

    /// Another schema that has the monitored tables and columns in common with the old one.
    pub(crate) fn set_schema(&mut self, schema: Arc<Schema>) {
        if self.schema.is_some() {
            self.schema = Some(schema);
        }
    }

    /// What must change in `self` to get `new`, in the order of tables and UUIDs. Rows that are equal in both are no
    /// change, even if they were read twice.
    pub fn difference(&self, new: &Snapshot) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, table) in &self.tables {
            table.difference(new.table(name), name, &mut changes);
        }
        for (name, table) in new
            .tables
            .iter()
            .filter(|(name, _)| !self.tables.contains_key(*name))
        {
            NO_ROWS.difference(table, name, &mut changes);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    fn schema() -> Arc<Schema> {
        let json = r#"{"name":"D","version":"1.0.0","tables":{
            "A":{"columns":{"name":{"type":"string"},"n":{"type":"integer"}}},
            "B":{"columns":{"set":{"type":{"key":"string","min":0,"max":"unlimited"}}}}}}"#;
        Arc::new(Schema::parse(json).unwrap())
    }

    fn snapshot(rows: &std::collections::BTreeMap<u8, i64>) -> Snapshot {
        // The high byte chooses the shard; spread over some of them.
        let rows = rows.iter().map(|(id, n)| {
            (
                "A",
                Uuid::from_u128(u128::from(*id) << 121),
                Columns::new().with("n", *n),
            )
        });
        Snapshot::of(&schema(), rows).unwrap()
    }

    #[test]
    fn absent_columns_have_their_default() {
        let uuid = Uuid::from_u128(1);
        let snapshot = Snapshot::of(&schema(), [("A", uuid, Columns::new().with("n", 5))]).unwrap();
        let row = snapshot.row("A", uuid).unwrap();
        assert_eq!(row.get("name").unwrap().as_str(), Some(""));
        assert_eq!(row.get("n").unwrap().as_integer(), Some(5));
        assert_eq!(row.get("nothing"), None);
        assert_eq!((&**row.table(), row.uuid()), ("A", uuid));
        assert!(snapshot.has_column("B", "set") && !snapshot.has_column("B", "n"));
        assert_eq!(snapshot.table("nothing").len(), 0);
        assert!(Snapshot::of(&schema(), [("A", uuid, Columns::new().with("n", "x"))]).is_err());
    }

    proptest! {
        #[test]
        fn difference_leads_from_old_to_new(old in btree_map(any::<u8>(), 0i64..3, 0..40), new in btree_map(any::<u8>(), 0i64..3, 0..40)) {
            let (mut at, new) = (snapshot(&old), snapshot(&new));
            let before = at.clone();
            for change in at.clone().difference(&new) {
                prop_assert!(change.old != change.new);
                let table = at.table_mut(&change.table).unwrap();
                let old = match &change.new {
                    Some(row) => table.insert(row.clone()),
                    None => table.remove(change.uuid),
                };
                prop_assert_eq!(&old, &change.old);
            }
            let rows = |snapshot: &Snapshot| snapshot.table("A").iter().cloned().collect::<Vec<_>>();
            prop_assert_eq!(rows(&at), rows(&new));
            prop_assert!(rows(&at).is_sorted_by(|a, b| a.uuid() < b.uuid()));
            prop_assert_eq!(at.table("A").len(), rows(&new).len());
            // The earlier snapshot did not change with the later one.
            prop_assert_eq!(rows(&before), rows(&snapshot(&old)));
        }
    }
}
