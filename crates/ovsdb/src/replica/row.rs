//! One immutable row.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::operation::Columns;
use crate::schema::ColumnType;
use crate::value::Datum;

/// Which columns the rows of a table hold, in the order in which they hold them.
#[derive(Debug, PartialEq)]
pub struct Layout {
    table: Arc<str>,
    /// Sorted by name.
    columns: Box<[(Arc<str>, ColumnType)]>,
}

impl Layout {
    pub(crate) fn new(
        table: Arc<str>,
        columns: impl IntoIterator<Item = (Arc<str>, ColumnType)>,
    ) -> Self {
        let mut columns: Vec<_> = columns.into_iter().collect();
        columns.sort_by(|a, b| a.0.cmp(&b.0));
        Layout {
            table,
            columns: columns.into_boxed_slice(),
        }
    }

    /// Name of the table.
    pub fn table(&self) -> &Arc<str> {
        &self.table
    }

    /// Position of a column.
    pub(crate) fn position(&self, column: &str) -> Option<usize> {
        self.columns
            .binary_search_by(|(name, _)| (**name).cmp(column))
            .ok()
    }

    /// The columns with their types, sorted by name.
    pub fn columns(&self) -> &[(Arc<str>, ColumnType)] {
        &self.columns
    }

    /// The values of a row of which nothing is known.
    pub(crate) fn defaults(&self) -> Box<[Datum]> {
        self.columns
            .iter()
            .map(|(_, column_type)| column_type.default_datum())
            .collect()
    }
}

/// One row of the replica: its UUID and the values of the monitored columns.
///
/// Rows are equal if table, UUID, columns and values are.
#[derive(Clone)]
pub struct Row {
    uuid: Uuid,
    layout: Arc<Layout>,
    /// One value per column of the layout, in its order.
    values: Box<[Datum]>,
}

impl Row {
    pub(crate) fn new(layout: Arc<Layout>, uuid: Uuid, values: Box<[Datum]>) -> Self {
        debug_assert_eq!(layout.columns.len(), values.len());
        Row {
            uuid,
            layout,
            values,
        }
    }

    /// Columns that are not in the layout are left out.
    pub(crate) fn with_columns(layout: Arc<Layout>, uuid: Uuid, columns: Columns) -> Self {
        let mut values = layout.defaults();
        for (column, value) in columns {
            if let Some(position) = layout.position(column) {
                values[position] = value;
            }
        }
        Row::new(layout, uuid, values)
    }

    /// The row's identity, column `_uuid`.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The row's table.
    pub fn table(&self) -> &Arc<str> {
        &self.layout.table
    }

    /// The value of a column; `None` if the column is not monitored or the connected server does not have it.
    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.layout
            .position(column)
            .map(|position| &self.values[position])
    }

    /// The monitored columns in the order of their names.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Datum)> {
        self.layout
            .columns
            .iter()
            .map(|(name, _)| &**name)
            .zip(self.values.iter())
    }

    pub(crate) fn values(&self) -> &[Datum] {
        &self.values
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
            && self.values == other.values
            && (Arc::ptr_eq(&self.layout, &other.layout) || self.layout == other.layout)
    }
}

impl Eq for Row {}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.layout.table, self.uuid)?;
        f.debug_map().entries(self.columns()).finish()
    }
}
