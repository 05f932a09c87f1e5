//! Operations of a `transact` request, RFC 7047 §5.2, and the rows and conditions in them.

mod json;

use std::collections::BTreeMap;
use std::collections::btree_map;

use uuid::Uuid;

use crate::value::Datum;

/// The columns of a row to write: column name → value. Columns that are not in it keep their value (`update`) or get
/// their type's default (`insert`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(BTreeMap<&'static str, Datum>);

impl Columns {
    /// No columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one column and returns the columns, for chaining.
    pub fn with(mut self, column: &'static str, value: impl Into<Datum>) -> Self {
        self.set(column, value);
        self
    }

    /// Sets one column; a former value is replaced.
    pub fn set(&mut self, column: &'static str, value: impl Into<Datum>) {
        self.0.insert(column, value.into());
    }

    /// Removes one column and returns its value.
    pub fn remove(&mut self, column: &str) -> Option<Datum> {
        self.0.remove(column)
    }

    /// The value of a column.
    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.0.get(column)
    }

    /// The columns in the order of their names.
    pub fn iter(&self) -> btree_map::Iter<'_, &'static str, Datum> {
        self.0.iter()
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&&'static str, &mut Datum) -> bool) {
        self.0.retain(keep);
    }
}

impl FromIterator<(&'static str, Datum)> for Columns {
    fn from_iter<I: IntoIterator<Item = (&'static str, Datum)>>(columns: I) -> Self {
        Columns(columns.into_iter().collect())
    }
}

impl IntoIterator for Columns {
    type Item = (&'static str, Datum);
    type IntoIter = btree_map::IntoIter<&'static str, Datum>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Columns {
    type Item = (&'a &'static str, &'a Datum);
    type IntoIter = btree_map::Iter<'a, &'static str, Datum>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// `<function>` of a condition, RFC 7047 §5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `<`, of integers and reals.
    Less,
    /// `<=`, of integers and reals.
    LessOrEqual,
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `>=`, of integers and reals.
    GreaterOrEqual,
    /// `>`, of integers and reals.
    Greater,
    /// `includes`: the column holds all members (or pairs) of the value.
    Includes,
    /// `excludes`: the column holds none of them.
    Excludes,
}

impl Function {
    fn as_str(self) -> &'static str {
        match self {
            Function::Less => "<",
            Function::LessOrEqual => "<=",
            Function::Equal => "==",
            Function::NotEqual => "!=",
            Function::GreaterOrEqual => ">=",
            Function::Greater => ">",
            Function::Includes => "includes",
            Function::Excludes => "excludes",
        }
    }
}

/// One `<condition>`: column, function, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The column; `_uuid` is one too.
    pub column: &'static str,
    /// How it is compared.
    pub function: Function,
    /// With what.
    pub value: Datum,
}

impl Condition {
    /// A condition of any function.
    pub fn new(column: &'static str, function: Function, value: impl Into<Datum>) -> Self {
        Condition {
            column,
            function,
            value: value.into(),
        }
    }

    /// `column == value`.
    pub fn equal(column: &'static str, value: impl Into<Datum>) -> Self {
        Condition::new(column, Function::Equal, value)
    }

    /// `column includes value`.
    pub fn includes(column: &'static str, value: impl Into<Datum>) -> Self {
        Condition::new(column, Function::Includes, value)
    }
}

/// Which rows an operation is about: those that fulfil all conditions. No condition means every row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Where(Vec<Condition>);

impl Where {
    /// Every row of the table.
    pub fn all() -> Self {
        Where::default()
    }

    /// The conditions.
    pub fn conditions(&self) -> &[Condition] {
        &self.0
    }
}

impl From<Uuid> for Where {
    fn from(uuid: Uuid) -> Self {
        Where(vec![Condition::equal("_uuid", uuid)])
    }
}

impl From<Condition> for Where {
    fn from(condition: Condition) -> Self {
        Where(vec![condition])
    }
}

impl From<Vec<Condition>> for Where {
    fn from(conditions: Vec<Condition>) -> Self {
        Where(conditions)
    }
}

/// `<mutator>`, RFC 7047 §5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutator {
    /// `+=`, each number of the column.
    Add,
    /// `-=`.
    Subtract,
    /// `*=`.
    Multiply,
    /// `/=`.
    Divide,
    /// `%=`, integers only.
    Modulo,
    /// `insert`: members or pairs that are not there yet; a key that is there keeps its value.
    Insert,
    /// `delete`: members; of a map, keys (a set) or exact pairs (a map).
    Delete,
}

impl Mutator {
    fn as_str(self) -> &'static str {
        match self {
            Mutator::Add => "+=",
            Mutator::Subtract => "-=",
            Mutator::Multiply => "*=",
            Mutator::Divide => "/=",
            Mutator::Modulo => "%=",
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        }
    }
}

/// One `<mutation>`: column, mutator, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The column.
    pub column: &'static str,
    /// How it changes.
    pub mutator: Mutator,
    /// By what.
    pub value: Datum,
}

impl Mutation {
    /// A mutation of any kind.
    pub fn new(column: &'static str, mutator: Mutator, value: impl Into<Datum>) -> Self {
        Mutation {
            column,
            mutator,
            value: value.into(),
        }
    }

    /// Adds members to a set or pairs to a map.
    pub fn insert(column: &'static str, value: impl Into<Datum>) -> Self {
        Mutation::new(column, Mutator::Insert, value)
    }

    /// Removes members of a set, or keys or pairs of a map.
    pub fn delete(column: &'static str, value: impl Into<Datum>) -> Self {
        Mutation::new(column, Mutator::Delete, value)
    }

    /// Adds a number.
    pub fn add(column: &'static str, value: impl Into<Datum>) -> Self {
        Mutation::new(column, Mutator::Add, value)
    }
}

/// One operation of a transaction, RFC 7047 §5.2. A transaction applies all of its operations or none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are those of the operation that the variant names"
)]
pub enum Operation {
    /// §5.2.1. `uuid` chosen by the client is an extension of Open vSwitch 2.13 (ovsdb-server(7) §5.2.1): other operations
    /// of the transaction can refer to it, and a second try of the same insert fails instead of making a second row.
    Insert {
        table: &'static str,
        uuid: Option<Uuid>,
        columns: Columns,
    },
    /// §5.2.2.
    Select {
        table: &'static str,
        rows: Where,
        columns: Option<Vec<&'static str>>,
    },
    /// §5.2.3.
    Update {
        table: &'static str,
        rows: Where,
        columns: Columns,
    },
    /// §5.2.4.
    Mutate {
        table: &'static str,
        rows: Where,
        mutations: Vec<Mutation>,
    },
    /// §5.2.5.
    Delete { table: &'static str, rows: Where },
    /// §5.2.6 with timeout 0: the transaction is refused ([`Conflict`](crate::Outcome::Conflict)) unless the rows that `rows`
    /// selects have exactly (`equal`) or have not exactly (`!equal`) these values in `columns`.
    Wait {
        table: &'static str,
        rows: Where,
        columns: Vec<&'static str>,
        equal: bool,
        values: Vec<Columns>,
    },
    /// §5.2.8: always aborts the transaction; for dry runs.
    Abort,
    /// §5.2.9: a remark for the database's log.
    Comment(String),
    /// §5.2.10: refuses the transaction unless this client holds the lock.
    Assert { lock: String },
}

impl Operation {
    /// Inserts a row with a UUID of the caller's choice.
    pub fn insert(table: &'static str, uuid: Uuid, columns: impl Into<Columns>) -> Self {
        Operation::Insert {
            table,
            uuid: Some(uuid),
            columns: columns.into(),
        }
    }

    /// Inserts a row whose UUID the server chooses.
    pub fn insert_anew(table: &'static str, columns: impl Into<Columns>) -> Self {
        Operation::Insert {
            table,
            uuid: None,
            columns: columns.into(),
        }
    }

    /// Sets the given columns in the selected rows.
    pub fn update(
        table: &'static str,
        rows: impl Into<Where>,
        columns: impl Into<Columns>,
    ) -> Self {
        Operation::Update {
            table,
            rows: rows.into(),
            columns: columns.into(),
        }
    }

    /// Changes columns of the selected rows in place.
    pub fn mutate(table: &'static str, rows: impl Into<Where>, mutations: Vec<Mutation>) -> Self {
        Operation::Mutate {
            table,
            rows: rows.into(),
            mutations,
        }
    }

    /// Deletes the selected rows.
    pub fn delete(table: &'static str, rows: impl Into<Where>) -> Self {
        Operation::Delete {
            table,
            rows: rows.into(),
        }
    }

    /// Refuses the transaction unless the row is there and has exactly these values.
    pub fn expect(table: &'static str, uuid: Uuid, columns: impl Into<Columns>) -> Self {
        let values: Columns = columns.into();
        let columns = values.iter().map(|(column, _)| *column).collect();
        Operation::Wait {
            table,
            rows: uuid.into(),
            columns,
            equal: true,
            values: vec![values],
        }
    }

    /// Refuses the transaction unless no row is selected.
    pub fn expect_none(table: &'static str, rows: impl Into<Where>) -> Self {
        Operation::Wait {
            table,
            rows: rows.into(),
            columns: vec!["_uuid"],
            equal: true,
            values: Vec::new(),
        }
    }

    /// Reads all columns of the selected rows.
    pub fn select(table: &'static str, rows: impl Into<Where>) -> Self {
        Operation::Select {
            table,
            rows: rows.into(),
            columns: None,
        }
    }

    /// Leaves a remark in the database's log, shown by `ovsdb-tool show-log`.
    pub fn comment(text: impl Into<String>) -> Self {
        Operation::Comment(text.into())
    }

    /// The table, of operations that have one.
    pub fn table(&self) -> Option<&'static str> {
        match self {
            Operation::Insert { table, .. }
            | Operation::Select { table, .. }
            | Operation::Update { table, .. }
            | Operation::Mutate { table, .. }
            | Operation::Delete { table, .. }
            | Operation::Wait { table, .. } => Some(table),
            Operation::Abort | Operation::Comment(_) | Operation::Assert { .. } => None,
        }
    }
}
