//! Reading `<database-schema>` from JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{BaseType, ColumnType, Kind, Schema, TableSchema};
use crate::value::Atom;

#[derive(Deserialize)]
struct RawSchema {
    name: String,
    #[serde(default)]
    version: String,
    tables: BTreeMap<String, RawTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTable {
    columns: BTreeMap<String, RawColumn>,
    is_root: Option<bool>,
}

#[derive(Deserialize)]
struct RawColumn {
    #[serde(rename = "type")]
    column_type: RawType,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawType {
    Plain(Kind),
    Full {
        key: RawBase,
        value: Option<RawBase>,
        min: Option<usize>,
        max: Option<RawMax>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawMax {
    Count(usize),
    Unlimited(Unlimited),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unlimited {
    Unlimited,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawBase {
    Plain(Kind),
    Full(Box<RawBaseFull>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBaseFull {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(rename = "enum")]
    allowed: Option<Value>,
    min_integer: Option<i64>,
    max_integer: Option<i64>,
    min_real: Option<f64>,
    max_real: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    ref_table: Option<String>,
}

impl Schema {
    /// Reads a schema as `get_schema` returns it and as `.ovsschema` files hold it. Unknown members are ignored.
    ///
    /// # Errors
    /// The text is not JSON or not a schema.
    pub fn parse(json: &str) -> Result<Schema, serde_json::Error> {
        let raw: RawSchema = serde_json::from_str(json)?;
        // RFC 7047 §3.2: in a schema where no table says isRoot, every table is a root.
        let any_root = raw.tables.values().any(|table| table.is_root == Some(true));
        let tables = raw
            .tables
            .into_iter()
            .map(|(name, table)| {
                let columns = table
                    .columns
                    .into_iter()
                    .map(|(name, column)| (name.into(), column.column_type.into()));
                let is_root = table.is_root.unwrap_or(false) || !any_root;
                (
                    name.into(),
                    TableSchema {
                        columns: columns.collect(),
                        is_root,
                    },
                )
            })
            .collect();
        Ok(Schema {
            name: raw.name.into(),
            version: raw.version.into(),
            tables,
        })
    }
}

impl Schema {
    /// Reads a schema that is part of this crate.
    pub(crate) fn vendored(json: &str) -> Arc<Schema> {
        match Schema::parse(json) {
            Ok(schema) => Arc::new(schema),
            Err(error) => unreachable!("a vendored schema, checked by a test, is broken: {error}"),
        }
    }
}

impl From<RawType> for ColumnType {
    fn from(raw: RawType) -> Self {
        match raw {
            RawType::Plain(kind) => ColumnType {
                key: BaseType::of(kind),
                value: None,
                min: 1,
                max: 1,
            },
            RawType::Full {
                key,
                value,
                min,
                max,
            } => ColumnType {
                key: key.into(),
                value: value.map(Into::into),
                min: min.unwrap_or(1),
                max: match max {
                    None => 1,
                    Some(RawMax::Count(count)) => count,
                    Some(RawMax::Unlimited(Unlimited::Unlimited)) => usize::MAX,
                },
            },
        }
    }
}

impl From<RawBase> for BaseType {
    fn from(raw: RawBase) -> Self {
        match raw {
            RawBase::Plain(kind) => BaseType::of(kind),
            RawBase::Full(full) => BaseType {
                kind: full.kind,
                allowed: full
                    .allowed
                    .map(|allowed| allowed_atoms(full.kind, &allowed)),
                integers: (
                    full.min_integer.unwrap_or(i64::MIN),
                    full.max_integer.unwrap_or(i64::MAX),
                ),
                reals: (
                    full.min_real.unwrap_or(f64::NEG_INFINITY),
                    full.max_real.unwrap_or(f64::INFINITY),
                ),
                lengths: (
                    full.min_length.unwrap_or(0),
                    full.max_length.unwrap_or(usize::MAX),
                ),
                ref_table: full.ref_table.map(Into::into),
            },
        }
    }
}

/// The members of `enum`: `["set", […]]`, or a single atom.
fn allowed_atoms(kind: Kind, allowed: &Value) -> Arc<[Atom]> {
    let members = match allowed.as_array().map(Vec::as_slice) {
        Some([Value::String(tag), Value::Array(members)]) if tag == "set" => members.as_slice(),
        _ => std::slice::from_ref(allowed),
    };
    let mut atoms: Vec<Atom> = members
        .iter()
        .filter_map(|member| atom(kind, member))
        .collect();
    atoms.sort_unstable();
    atoms.into()
}

fn atom(kind: Kind, json: &Value) -> Option<Atom> {
    match kind {
        Kind::Integer => json.as_i64().map(Atom::Integer),
        Kind::Real => json.as_f64().map(Atom::Real),
        Kind::Boolean => json.as_bool().map(Atom::Boolean),
        Kind::String => json.as_str().map(Atom::from),
        Kind::Uuid => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_in_all_their_forms() {
        let schema = Schema::parse(
            r#"{"name":"D","version":"1.2.3","cksum":"1 2","tables":{"T":{"maxRows":1,"indexes":[["a"]],"columns":{
                "a":{"type":"string","mutable":false},
                "b":{"type":{"key":{"type":"integer","minInteger":1,"maxInteger":4094},"min":0,"max":1}},
                "c":{"type":{"key":"string","value":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"},"ephemeral":true},
                "d":{"type":{"key":{"type":"string","enum":["set",["x","b"]]}}},
                "e":{"type":{"key":{"type":"string","enum":"only"}}}}}}}"#,
        )
        .unwrap();
        let columns = &schema.table("T").unwrap().columns;
        assert!(schema.table("T").unwrap().is_root);
        assert_eq!(
            columns["a"],
            ColumnType {
                key: BaseType::of(Kind::String),
                value: None,
                min: 1,
                max: 1
            }
        );
        assert_eq!(
            (
                columns["b"].min,
                columns["b"].max,
                columns["b"].key.integers
            ),
            (0, 1, (1, 4094))
        );
        assert_eq!(columns["c"].max, usize::MAX);
        assert_eq!(
            columns["c"].value.as_ref().unwrap().ref_table.as_deref(),
            Some("T")
        );
        assert_eq!(
            columns["d"].key.allowed.as_deref(),
            Some([Atom::from("b"), Atom::from("x")].as_slice())
        );
        assert_eq!(
            columns["e"].key.allowed.as_deref(),
            Some([Atom::from("only")].as_slice())
        );
        assert!(Schema::parse(r#"{"name":"D"}"#).is_err());
        assert!(
            Schema::parse(r#"{"name":"D","tables":{"T":{"columns":{"a":{"type":"blob"}}}}}"#)
                .is_err()
        );
    }
}
