//! Whether operations fit a schema, before anything is sent.

use super::{BaseType, ColumnType, Kind, Schema};
use crate::operation::{Columns, Condition, Mutation, Mutator, Operation, Where};
use crate::value::{Atom, AtomSet, Datum};

/// An operation that the connected server's schema cannot carry out. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The server has no such table.
    #[error("failed to write table {table}: database {database} {version} has no such table")]
    NoTable {
        /// Table of the operation.
        table: String,
        /// Database that the schema describes.
        database: String,
        /// Version of the schema.
        version: String,
    },
    /// The server has no such column and the value is not its default (which would have been left out).
    #[error(
        "failed to write column {table}.{column}: database {database} {version} has no such column"
    )]
    NoColumn {
        /// Table of the operation.
        table: String,
        /// Column of the operation.
        column: String,
        /// Database that the schema describes.
        database: String,
        /// Version of the schema.
        version: String,
    },
    /// A value does not have its column's type, or is outside its range, enumeration or size.
    #[error("failed to write column {table}.{column}: {problem}")]
    Value {
        /// Table of the operation.
        table: String,
        /// Column of the operation.
        column: String,
        /// What is wrong, in words.
        problem: String,
    },
}

impl Schema {
    /// Checks operations against this schema and leaves out columns that it lacks where the value to write is empty (the
    /// empty set or map): a server without the column behaves as if it were so.
    ///
    /// The server checks all of this again; here it costs no round trip, and a refusal is known to have changed nothing.
    ///
    /// # Errors
    /// The first operation that does not fit.
    pub fn fit(&self, operations: &mut [Operation]) -> Result<(), Refusal> {
        operations
            .iter_mut()
            .try_for_each(|operation| self.fit_one(operation))
    }

    /// Checks the columns of a row to write.
    pub(crate) fn check_row(&self, table: &str, columns: &Columns) -> Result<(), Refusal> {
        self.known_table(table)?;
        self.check_columns(table, columns)
    }

    fn known_table(&self, table: &str) -> Result<(), Refusal> {
        match self.table(table) {
            Some(_) => Ok(()),
            None => Err(Refusal::NoTable {
                table: table.to_owned(),
                database: self.name.to_string(),
                version: self.version.to_string(),
            }),
        }
    }

    fn fit_one(&self, operation: &mut Operation) -> Result<(), Refusal> {
        let Some(table) = operation.table() else {
            return Ok(());
        };
        self.known_table(table)?;
        match operation {
            Operation::Insert { columns, .. } => self.fit_columns(table, columns),
            Operation::Update { rows, columns, .. } => {
                self.check_where(table, rows)?;
                self.fit_columns(table, columns)
            }
            Operation::Mutate {
                rows, mutations, ..
            } => {
                self.check_where(table, rows)?;
                mutations
                    .iter()
                    .try_for_each(|mutation| self.check_mutation(table, mutation))
            }
            Operation::Delete { rows, .. } => self.check_where(table, rows),
            Operation::Select { rows, columns, .. } => {
                self.check_where(table, rows)?;
                columns
                    .iter()
                    .flatten()
                    .try_for_each(|column| self.known(table, column).map(drop))
            }
            Operation::Wait {
                rows,
                columns,
                values,
                ..
            } => {
                self.check_where(table, rows)?;
                columns
                    .iter()
                    .try_for_each(|column| self.known(table, column).map(drop))?;
                values
                    .iter()
                    .try_for_each(|row| self.check_columns(table, row))
            }
            Operation::Abort | Operation::Comment(_) | Operation::Assert { .. } => Ok(()),
        }
    }

    fn known(&self, table: &str, column: &str) -> Result<ColumnType, Refusal> {
        self.column(table, column).ok_or_else(|| Refusal::NoColumn {
            table: table.to_owned(),
            column: column.to_owned(),
            database: self.name.to_string(),
            version: self.version.to_string(),
        })
    }

    fn fit_columns(&self, table: &str, columns: &mut Columns) -> Result<(), Refusal> {
        columns.retain(|column, value| !value.is_empty() || self.has_column(table, column));
        self.check_columns(table, columns)
    }

    fn check_columns(&self, table: &str, columns: &Columns) -> Result<(), Refusal> {
        for (column, value) in columns {
            let column_type = self.known(table, column)?;
            column_type
                .check(value)
                .map_err(|problem| refuse(table, column, problem))?;
        }
        Ok(())
    }

    fn check_where(&self, table: &str, rows: &Where) -> Result<(), Refusal> {
        for Condition { column, value, .. } in rows.conditions() {
            let column_type = self.known(table, column)?;
            // A part of a set or map may be compared, so sizes are not checked.
            column_type
                .check_members(value)
                .map_err(|problem| refuse(table, column, problem))?;
        }
        Ok(())
    }

    fn check_mutation(&self, table: &str, mutation: &Mutation) -> Result<(), Refusal> {
        let Mutation {
            column,
            mutator,
            value,
        } = mutation;
        let column_type = self.known(table, column)?;
        let problem = match (mutator, value) {
            // Keys alone say which pairs of a map go.
            (Mutator::Delete, Datum::Set(keys)) if column_type.value.is_some() => {
                column_type.key.check_kinds(keys)
            }
            (Mutator::Insert, _) => column_type.check_members(value),
            (Mutator::Delete, Datum::Set(members)) => column_type.key.check_kinds(members),
            (Mutator::Delete, Datum::Map(_)) => column_type.check_shape(value),
            (_, Datum::Set(number)) if number.len() == 1 => column_type.key.check_kinds(number),
            _ => Err(format!("{value} is no number to calculate with")),
        };
        problem.map_err(|problem| refuse(table, column, problem))
    }
}

fn refuse(table: &str, column: &str, problem: String) -> Refusal {
    Refusal::Value {
        table: table.to_owned(),
        column: column.to_owned(),
        problem,
    }
}

impl ColumnType {
    /// Whether a value fits: kind, range, enumeration, size.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, value: &Datum) -> Result<(), String> {
        self.check_members(value)?;
        match value.len() {
            len if len < self.min => Err(format!(
                "{value} has {len} members, at least {} are wanted",
                self.min
            )),
            len if len > self.max => Err(format!(
                "{value} has {len} members, at most {} are allowed",
                self.max
            )),
            _ => Ok(()),
        }
    }

    fn check_shape(&self, value: &Datum) -> Result<(), String> {
        match (value, &self.value) {
            (Datum::Set(_), None) | (Datum::Map(_), Some(_)) => Ok(()),
            (Datum::Set(_), Some(_)) => Err(format!("{value} is a set, a map is wanted")),
            (Datum::Map(_), None) => Err(format!("{value} is a map, a set is wanted")),
        }
    }

    fn check_members(&self, value: &Datum) -> Result<(), String> {
        self.check_shape(value)?;
        match (value, &self.value) {
            (Datum::Map(map), Some(value_type)) => map.iter().try_for_each(|(key, value)| {
                self.key.check(key)?;
                value_type.check(value)
            }),
            (Datum::Set(set), _) => set.iter().try_for_each(|atom| self.key.check(atom)),
            (Datum::Map(_), None) => Ok(()),
        }
    }
}

impl BaseType {
    fn check_kinds(&self, atoms: &AtomSet) -> Result<(), String> {
        atoms.iter().try_for_each(|atom| self.check_kind(atom))
    }

    fn check_kind(&self, atom: &Atom) -> Result<(), String> {
        match Kind::of(atom) == self.kind {
            true => Ok(()),
            false => Err(format!(
                "{atom} is {}, {} is wanted",
                Kind::of(atom),
                self.kind
            )),
        }
    }

    fn check(&self, atom: &Atom) -> Result<(), String> {
        self.check_kind(atom)?;
        if let Some(allowed) = &self.allowed
            && allowed.binary_search(atom).is_err()
        {
            return Err(format!("{atom} is none of the allowed {allowed:?}"));
        }
        match atom {
            Atom::Integer(value) => within(value, &self.integers),
            Atom::Real(value) if !value.is_finite() => {
                Err(format!("{value} cannot be written as JSON"))
            }
            Atom::Real(value) => within(value, &self.reals),
            Atom::String(value) if value.contains('\0') => Err(format!("{atom} contains NUL")),
            Atom::String(value) if self.lengths != (0, usize::MAX) => {
                within(&value.chars().count(), &self.lengths)
                    .map_err(|problem| format!("length {problem}"))
            }
            Atom::String(_) | Atom::Boolean(_) | Atom::Uuid(_) => Ok(()),
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    value: &T,
    (least, greatest): &(T, T),
) -> Result<(), String> {
    match least <= value && value <= greatest {
        true => Ok(()),
        false => Err(format!("{value} is not in {least}..={greatest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const SCHEMA: &str = r#"{"name":"D","version":"1.0.0","tables":{"T":{"columns":{
        "name":{"type":{"key":{"type":"string","maxLength":3}}},
        "tag":{"type":{"key":{"type":"integer","minInteger":1,"maxInteger":4094},"min":0,"max":1}},
        "ratio":{"type":"real"},
        "map":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
        "mode":{"type":{"key":{"type":"string","enum":["set",["on","off"]]}}}}}}}"#;

    fn refusal(operation: Operation) -> String {
        let schema = Schema::parse(SCHEMA).unwrap();
        schema.fit(&mut [operation]).unwrap_err().to_string()
    }

    fn insert(columns: Columns) -> Operation {
        Operation::insert("T", Uuid::nil(), columns)
    }

    #[test]
    fn each_misfit_is_named() {
        assert_eq!(
            refusal(Operation::delete("X", Where::all())),
            "failed to write table X: database D 1.0.0 has no such table"
        );
        assert_eq!(
            refusal(insert(Columns::new().with("gone", 1))),
            "failed to write column T.gone: database D 1.0.0 has no such column"
        );
        let cases = [
            (Columns::new().with("tag", 4095), "4095 is not in 1..=4094"),
            (
                Columns::new().with("tag", vec![1, 2]),
                "[1, 2] has 2 members, at most 1 are allowed",
            ),
            (
                Columns::new().with("name", None::<String>),
                "[] has 0 members, at least 1 are wanted",
            ),
            (
                Columns::new().with("name", "abcd"),
                "length 4 is not in 0..=3",
            ),
            (
                Columns::new().with("name", 5),
                "5 is integer, string is wanted",
            ),
            (
                Columns::new().with("map", "a"),
                "\"a\" is a set, a map is wanted",
            ),
            (
                Columns::new().with("mode", "up"),
                "\"up\" is none of the allowed [\"off\", \"on\"]",
            ),
            (
                Columns::new().with("ratio", f64::NAN),
                "NaN cannot be written as JSON",
            ),
        ];
        for (columns, problem) in cases {
            assert!(refusal(insert(columns)).ends_with(problem), "{problem}");
        }
        let sum = Operation::mutate("T", Uuid::nil(), vec![Mutation::add("tag", [("a", "b")])]);
        assert!(refusal(sum).ends_with("is no number to calculate with"));
    }

    #[test]
    fn empty_values_of_missing_columns_are_left_out() {
        let schema = Schema::parse(SCHEMA).unwrap();
        let mut operations = [insert(
            Columns::new().with("gone", None::<Uuid>).with("name", "a"),
        )];
        schema.fit(&mut operations).unwrap();
        assert_eq!(operations[0], insert(Columns::new().with("name", "a")));
    }

    #[test]
    fn parts_of_sets_and_maps_fit() {
        let schema = Schema::parse(SCHEMA).unwrap();
        let by_key = Mutation::delete("map", vec!["a", "b"]);
        let by_pair = Mutation::delete("map", [("a", "b")]);
        let mutate = Operation::mutate(
            "T",
            Condition::includes("map", [("k", "v")]),
            vec![by_key, by_pair],
        );
        assert_eq!(schema.fit(&mut [mutate]), Ok(()));
    }
}
