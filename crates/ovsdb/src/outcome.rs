//! What became of a transaction, RFC 7047 §4.1.3, told honestly.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::operation::Operation;
use crate::schema::Schema;
use crate::value::Datum;
use crate::wire;

/// What became of a transaction that was sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is in the database, and at least one operation inserted or selected a row for change. One result per operation.
    ///
    /// When this is returned the replica already holds the effect on all monitored columns.
    Committed(Vec<OperationResult>),
    /// It was accepted and changed nothing: no operation inserted a row or matched one to change. Also the answer to an
    /// empty list of operations, which is not sent.
    Unchanged(Vec<OperationResult>),
    /// A `wait` did not hold: someone else changed what this transaction was computed from. Nothing was changed; read the
    /// snapshot again and try again.
    Conflict {
        /// Index of the operation.
        operation: usize,
    },
    /// The transaction breaks a rule of the schema (a duplicate index, a dangling reference, a range, a row too many).
    /// Nothing was changed, and the same transaction will be refused again.
    Constraint(Failure),
    /// The server cannot commit now because it is not, or no longer, the leader of its cluster. Nothing was changed; try
    /// again once the client is connected to the leader.
    NotLeader(Failure),
    /// Refused for another reason (syntax, permission, resources, a lock, `abort`). Nothing was changed.
    Failed(Failure),
    /// Unknown: the connection broke, or the cluster lost its leader, after the transaction was sent. It may or may not be
    /// in the database. Wait for the client to be synced again and compare the snapshot.
    Indeterminate {
        /// Why, in words.
        reason: String,
    },
}

/// An `<error>` of the server, RFC 7047 §3.1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Failure {
    /// Index of the operation; `None` if the whole transaction failed when it was to be committed.
    pub operation: Option<usize>,
    /// The error's tag, for example `constraint violation`.
    pub error: String,
    /// The server's explanation; may be empty.
    pub details: String,
}

/// The result of one operation, RFC 7047 §5.2.
#[derive(Clone, Debug, PartialEq)]
pub enum OperationResult {
    /// `insert`: the new row.
    Inserted(Uuid),
    /// `update`, `mutate`, `delete`: number of rows matched.
    Count(u64),
    /// `select`: the rows, each column name → value, `_uuid` and `_version` among them.
    Rows(Vec<BTreeMap<String, Datum>>),
    /// `wait`, `comment`, `assert`: it held.
    Done,
}

impl OperationResult {
    fn changes_nothing(&self) -> bool {
        match self {
            OperationResult::Inserted(_) => false,
            OperationResult::Count(count) => *count == 0,
            OperationResult::Rows(_) | OperationResult::Done => true,
        }
    }
}

impl Outcome {
    /// True if the transaction is in the database as a whole (or had nothing to change).
    pub fn is_committed(&self) -> bool {
        matches!(self, Outcome::Committed(_) | Outcome::Unchanged(_))
    }

    /// Reads the results of a `transact` reply. `Err` says how the reply breaks the protocol.
    pub(crate) fn of_results(
        results: &Value,
        operations: &[Operation],
        schema: &Schema,
    ) -> Result<Outcome, String> {
        let results = results
            .as_array()
            .ok_or("the result of transact is not an array")?;
        // The server stops at the first operation that fails (null follows), and an error of the commit itself comes as
        // one element more than there were operations: all of them must be looked at.
        for (index, result) in results.iter().enumerate() {
            if let Some(error) = result.get("error").filter(|error| !error.is_null()) {
                let operation = (index < operations.len()).then_some(index);
                return Ok(Outcome::of_error(error, result.get("details"), operation));
            }
        }
        if results.len() != operations.len() {
            return Err(format!(
                "{} results for {} operations",
                results.len(),
                operations.len()
            ));
        }
        let pairs = results.iter().zip(operations);
        let results: Vec<_> = pairs
            .map(|(result, operation)| one(result, operation, schema))
            .collect::<Result<_, _>>()?;
        Ok(match results.iter().all(OperationResult::changes_nothing) {
            true => Outcome::Unchanged(results),
            false => Outcome::Committed(results),
        })
    }

    /// Reads an error, of one operation, of the commit, or of the whole request.
    pub(crate) fn of_error(
        error: &Value,
        details: Option<&Value>,
        operation: Option<usize>,
    ) -> Outcome {
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        // An error of the request as a whole may be an object with tag and details.
        let (tag, details) = match error.get("error") {
            Some(tag) => (text(tag), error.get("details")),
            None => (text(error), details),
        };
        let details = details.map(text).unwrap_or_default();
        let failure = Failure {
            operation,
            error: tag,
            details,
        };
        match (failure.error.as_str(), operation) {
            ("timed out", Some(operation)) => Outcome::Conflict { operation },
            (
                "constraint violation"
                | "referential integrity violation"
                | "duplicate uuid"
                | "range error",
                _,
            )
            | ("domain error" | "ovsdb error", _) => Outcome::Constraint(failure),
            ("not leader", _) => Outcome::NotLeader(failure),
            ("cluster error", _) if failure.details.contains("not leader") => {
                Outcome::NotLeader(failure)
            }
            // The entry may have reached the cluster's log before the leader was lost or the time ran out; a cancelled
            // request may have been under way as well.
            ("cluster error" | "canceled" | "I/O error", _) => Outcome::Indeterminate {
                reason: failure.to_string(),
            },
            _ => Outcome::Failed(failure),
        }
    }
}

fn one(result: &Value, operation: &Operation, schema: &Schema) -> Result<OperationResult, String> {
    let lacks = |what: &str| format!("a result of {operation:?} lacks {what}");
    match operation {
        Operation::Insert { .. } => {
            let uuid = result
                .get("uuid")
                .and_then(wire::uuid_of)
                .ok_or_else(|| lacks("the uuid"))?;
            Ok(OperationResult::Inserted(uuid))
        }
        Operation::Update { .. } | Operation::Mutate { .. } | Operation::Delete { .. } => {
            let count = result
                .get("count")
                .and_then(Value::as_u64)
                .ok_or_else(|| lacks("the count"))?;
            Ok(OperationResult::Count(count))
        }
        Operation::Select { table, .. } => {
            let rows = result
                .get("rows")
                .and_then(Value::as_array)
                .ok_or_else(|| lacks("the rows"))?;
            let rows = rows.iter().map(|row| selected(row, table, schema));
            Ok(OperationResult::Rows(rows.collect::<Result<_, _>>()?))
        }
        Operation::Wait { .. }
        | Operation::Abort
        | Operation::Comment(_)
        | Operation::Assert { .. } => Ok(OperationResult::Done),
    }
}

fn selected(row: &Value, table: &str, schema: &Schema) -> Result<BTreeMap<String, Datum>, String> {
    let columns = row.as_object().ok_or("a selected row is not an object")?;
    let columns = columns.iter().map(|(name, value)| {
        let column_type = schema
            .column(table, name)
            .ok_or_else(|| format!("unknown column {table}.{name} selected"))?;
        let value = wire::datum_of(value, &column_type)
            .map_err(|error| format!("{table}.{name}: {error}"))?;
        Ok((name.clone(), value))
    });
    columns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Columns, Where};
    use serde_json::json;

    fn outcome(results: Value, operations: &[Operation]) -> Outcome {
        let schema =
            Schema::parse(r#"{"name":"D","tables":{"T":{"columns":{"n":{"type":"integer"}}}}}"#)
                .unwrap();
        Outcome::of_results(&results, operations, &schema).unwrap()
    }

    fn insert() -> Operation {
        Operation::insert_anew("T", Columns::new())
    }

    fn delete() -> Operation {
        Operation::delete("T", Where::all())
    }

    #[test]
    fn commits_count_rows() {
        let uuid = Uuid::from_u128(5);
        let results = json!([{"uuid": ["uuid", uuid.to_string()]}, {"count": 2}]);
        let expected = vec![OperationResult::Inserted(uuid), OperationResult::Count(2)];
        assert_eq!(
            outcome(results, &[insert(), delete()]),
            Outcome::Committed(expected)
        );
        assert_eq!(
            outcome(json!([{"count": 0}]), &[delete()]),
            Outcome::Unchanged(vec![OperationResult::Count(0)])
        );
    }

    #[test]
    fn the_commit_s_own_error_is_one_element_more() {
        let results =
            json!([{"count": 1}, {"error": "referential integrity violation", "details": "x"}]);
        let Outcome::Constraint(failure) = outcome(results, &[delete()]) else {
            panic!("not refused")
        };
        assert_eq!(failure.operation, None);
        assert_eq!(failure.to_string(), "referential integrity violation: x");
    }

    #[test]
    fn an_operation_s_error_names_it() {
        let results = json!([{"count": 1}, {"error": "timed out", "details": "y"}, null]);
        assert_eq!(
            outcome(results, &[delete(), delete(), delete()]),
            Outcome::Conflict { operation: 1 }
        );
        let results = json!([{"error": "syntax error"}, null]);
        assert!(
            matches!(outcome(results, &[delete(), delete()]), Outcome::Failed(failure) if failure.operation == Some(0))
        );
    }

    #[test]
    fn cluster_errors_are_told_apart() {
        let error =
            |details: &str| Outcome::of_error(&json!("cluster error"), Some(&json!(details)), None);
        assert!(matches!(error("not leader"), Outcome::NotLeader(_)));
        assert!(matches!(
            error("lost leadership"),
            Outcome::Indeterminate { .. }
        ));
        assert!(matches!(error("timeout"), Outcome::Indeterminate { .. }));
        let whole = Outcome::of_error(
            &json!({"error": "unknown database", "details": "no D"}),
            None,
            None,
        );
        assert!(
            matches!(whole, Outcome::Failed(failure) if failure.to_string() == "unknown database: no D")
        );
    }

    #[test]
    fn selected_rows_are_typed() {
        let results = json!([{"rows": [{"n": 4, "_uuid": ["uuid", Uuid::nil().to_string()]}]}]);
        let Outcome::Unchanged(results) = outcome(results, &[Operation::select("T", Where::all())])
        else {
            panic!()
        };
        let [OperationResult::Rows(rows)] = results.as_slice() else {
            panic!("{results:?}")
        };
        assert_eq!(rows[0]["n"], Datum::from(4));
    }

    #[test]
    fn rubbish_is_no_outcome() {
        let schema = Schema::parse(r#"{"name":"D","tables":{}}"#).unwrap();
        for rubbish in [
            json!(null),
            json!([]),
            json!([{}]),
            json!([{"count": -1}]),
            json!([{"count": 1}, {"count": 1}]),
        ] {
            assert!(
                Outcome::of_results(&rubbish, &[delete()], &schema).is_err(),
                "{rubbish}"
            );
        }
    }
}
