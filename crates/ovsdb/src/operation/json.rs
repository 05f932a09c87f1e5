//! Operations and values written as JSON, RFC 7047 §5.

use serde::ser::{Serialize, SerializeMap as _, SerializeTuple as _, Serializer};

use super::{Columns, Condition, Mutation, Operation, Where};
use crate::value::{Atom, AtomMap, AtomSet, Datum};

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Atom::Integer(value) => serializer.serialize_i64(*value),
            Atom::Real(value) => serializer.serialize_f64(*value),
            Atom::Boolean(value) => serializer.serialize_bool(*value),
            Atom::String(value) => serializer.serialize_str(value),
            Atom::Uuid(value) => {
                let mut pair = serializer.serialize_tuple(2)?;
                pair.serialize_element("uuid")?;
                pair.serialize_element(&value.hyphenated())?;
                pair.end()
            }
        }
    }
}

impl Serialize for AtomSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_slice() {
            [atom] => atom.serialize(serializer),
            atoms => ("set", atoms).serialize(serializer),
        }
    }
}

impl Serialize for AtomMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ("map", self.as_slice()).serialize(serializer)
    }
}

impl Serialize for Datum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Datum::Set(set) => set.serialize(serializer),
            Datum::Map(map) => map.serialize(serializer),
        }
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.column, self.function.as_str(), &self.value).serialize(serializer)
    }
}

impl Serialize for Where {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for Mutation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.column, self.mutator.as_str(), &self.value).serialize(serializer)
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("op", self.name())?;
        if let Some(table) = self.table() {
            map.serialize_entry("table", table)?;
        }
        match self {
            Operation::Insert { uuid, columns, .. } => {
                if let Some(uuid) = uuid {
                    map.serialize_entry("uuid", &uuid.hyphenated())?;
                }
                map.serialize_entry("row", columns)?;
            }
            Operation::Select { rows, columns, .. } => {
                map.serialize_entry("where", rows)?;
                if let Some(columns) = columns {
                    map.serialize_entry("columns", columns)?;
                }
            }
            Operation::Update { rows, columns, .. } => {
                map.serialize_entry("where", rows)?;
                map.serialize_entry("row", columns)?;
            }
            Operation::Mutate {
                rows, mutations, ..
            } => {
                map.serialize_entry("where", rows)?;
                map.serialize_entry("mutations", mutations)?;
            }
            Operation::Delete { rows, .. } => map.serialize_entry("where", rows)?,
            Operation::Wait {
                rows,
                columns,
                equal,
                values,
                ..
            } => {
                map.serialize_entry("timeout", &0)?;
                map.serialize_entry("where", rows)?;
                map.serialize_entry("columns", columns)?;
                map.serialize_entry("until", if *equal { "==" } else { "!=" })?;
                map.serialize_entry("rows", values)?;
            }
            Operation::Abort => {}
            Operation::Comment(text) => map.serialize_entry("comment", text)?,
            Operation::Assert { lock } => map.serialize_entry("lock", lock)?,
        }
        map.end()
    }
}

impl Operation {
    fn name(&self) -> &'static str {
        match self {
            Operation::Insert { .. } => "insert",
            Operation::Select { .. } => "select",
            Operation::Update { .. } => "update",
            Operation::Mutate { .. } => "mutate",
            Operation::Delete { .. } => "delete",
            Operation::Wait { .. } => "wait",
            Operation::Abort => "abort",
            Operation::Comment(_) => "comment",
            Operation::Assert { .. } => "assert",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn json(operation: &Operation) -> String {
        serde_json::to_string(operation).unwrap()
    }

    #[test]
    fn operations_read_as_the_rfc_writes_them() {
        let uuid = Uuid::from_u128(7);
        let insert = Operation::insert(
            "T",
            uuid,
            Columns::new().with("name", "a").with("set", vec![1, 2]),
        );
        assert_eq!(
            json(&insert),
            r#"{"op":"insert","table":"T","uuid":"00000000-0000-0000-0000-000000000007","row":{"name":"a","set":["set",[1,2]]}}"#
        );
        let mutate = Operation::mutate("T", uuid, vec![Mutation::insert("m", [("k", "v")])]);
        assert_eq!(
            json(&mutate),
            r#"{"op":"mutate","table":"T","where":[["_uuid","==",["uuid","00000000-0000-0000-0000-000000000007"]]],"mutations":[["m","insert",["map",[["k","v"]]]]]}"#
        );
        let wait = Operation::expect(
            "T",
            uuid,
            Columns::new().with("r", 1.0).with("none", None::<bool>),
        );
        assert_eq!(
            json(&wait),
            r#"{"op":"wait","table":"T","timeout":0,"where":[["_uuid","==",["uuid","00000000-0000-0000-0000-000000000007"]]],"columns":["none","r"],"until":"==","rows":[{"none":["set",[]],"r":1.0}]}"#
        );
        let delete = Operation::delete("T", Condition::includes("ports", uuid));
        assert_eq!(
            json(&delete),
            r#"{"op":"delete","table":"T","where":[["ports","includes",["uuid","00000000-0000-0000-0000-000000000007"]]]}"#
        );
        assert_eq!(
            json(&Operation::comment("hi")),
            r#"{"op":"comment","comment":"hi"}"#
        );
    }
}
