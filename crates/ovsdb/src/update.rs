//! `<table-updates2>` (ovsdb-server(7) §4.1.14) applied to a snapshot, straight from the JSON text.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use uuid::Uuid;

use crate::replica::{Change, Layout, Row, Snapshot, Table};
use crate::schema::ColumnType;
use crate::value::Datum;
use crate::wire::{DatumSeed, UuidSeed};

/// Applies an update to `snapshot` and returns what changed. Columns that are not in the snapshot's layout are skipped
/// without being decoded. Rows that stayed the same are no change.
///
/// # Errors
/// The update is malformed or does not fit the snapshot (it changes a row that is not there). The snapshot may then be
/// half changed and must be thrown away.
pub(crate) fn apply(snapshot: &mut Snapshot, json: &str) -> Result<Vec<Change>, serde_json::Error> {
    let mut changes = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Tables {
        snapshot,
        changes: &mut changes,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(changes)
}

struct Tables<'a> {
    snapshot: &'a mut Snapshot,
    changes: &'a mut Vec<Change>,
}

macro_rules! map_seed {
    ($seed:ident, $expecting:literal) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = <Self as Visitor<'de>>::Value;
            fn deserialize<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_map(self)
            }
        }

        impl $seed<'_> {
            fn expect(f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }
        }
    };
}

/// Reads an object's key without making a string of it.
struct Key<F>(F);

impl<'de, R, F: FnOnce(&str) -> R> DeserializeSeed<'de> for Key<F> {
    type Value = R;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<R, F: FnOnce(&str) -> R> Visitor<'_> for Key<F> {
    type Value = R;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<R, E> {
        Ok((self.0)(key))
    }
}

map_seed!(Tables, "an object of tables");
map_seed!(Updates, "an object of rows");
map_seed!(
    RowUpdate,
    "an object with initial, insert, modify or delete"
);
map_seed!(Values, "an object of columns");

impl<'de> Visitor<'de> for Tables<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::expect(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut tables: A) -> Result<(), A::Error> {
        while let Some(name) = tables.next_key::<String>()? {
            match self.snapshot.table_mut(&name) {
                Some(table) => tables.next_value_seed(Updates {
                    table,
                    changes: self.changes,
                })?,
                None => drop(tables.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Updates<'a> {
    table: &'a mut Table,
    changes: &'a mut Vec<Change>,
}

impl<'de> Visitor<'de> for Updates<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::expect(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let layout = self.table.layout_or_empty();
        while let Some(uuid) = rows.next_key_seed(UuidSeed)? {
            let old = self.table.get(uuid).cloned();
            let update = RowUpdate {
                layout: &layout,
                uuid,
                old: old.as_ref(),
            };
            let new = rows.next_value_seed(update)?;
            if old == new {
                continue;
            }
            match &new {
                Some(row) => drop(self.table.insert(row.clone())),
                None => drop(self.table.remove(uuid)),
            }
            self.changes.push(Change {
                table: layout.table().clone(),
                uuid,
                old,
                new,
            });
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Insert,
    Modify,
    Delete,
}

impl Kind {
    fn parse(key: &str) -> Option<Kind> {
        match key {
            "initial" | "insert" => Some(Kind::Insert),
            "modify" => Some(Kind::Modify),
            "delete" => Some(Kind::Delete),
            _ => None,
        }
    }
}

/// One `<row-update2>`; its value is the row afterwards.
struct RowUpdate<'a> {
    layout: &'a Arc<Layout>,
    uuid: Uuid,
    old: Option<&'a Arc<Row>>,
}

impl<'de> Visitor<'de> for RowUpdate<'_> {
    type Value = Option<Arc<Row>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::expect(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut update: A) -> Result<Self::Value, A::Error> {
        let kind = update.next_key_seed(Key(Kind::parse))?.flatten();
        let kind = kind.ok_or_else(|| A::Error::custom("a row update of no known kind"))?;
        let missing =
            || A::Error::custom(format!("{kind:?} of row {}, which is not there", self.uuid));
        let row = match kind {
            // Columns that are left out have their default.
            Kind::Insert => {
                let values = Values {
                    layout: self.layout,
                    values: self.layout.defaults(),
                    put: replace,
                };
                Some(update.next_value_seed(values)?)
            }
            Kind::Modify => {
                let old = self.old.ok_or_else(missing)?;
                let values = Values {
                    layout: self.layout,
                    values: old.values().into(),
                    put: apply_difference,
                };
                Some(update.next_value_seed(values)?)
            }
            Kind::Delete => {
                update.next_value::<IgnoredAny>()?;
                self.old.ok_or_else(missing)?;
                None
            }
        };
        if update.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("a row update of two kinds"));
        }
        Ok(row.map(|values| Arc::new(Row::new(self.layout.clone(), self.uuid, values))))
    }
}

/// The columns of a `<row>`; its value is the row's values afterwards.
struct Values<'a> {
    layout: &'a Layout,
    values: Box<[Datum]>,
    put: fn(&mut Datum, Datum, &ColumnType),
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Box<[Datum]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::expect(f)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut columns: A) -> Result<Self::Value, A::Error> {
        while let Some(position) =
            columns.next_key_seed(Key(|name: &str| self.layout.position(name)))?
        {
            match position {
                Some(position) => {
                    let column_type = &self.layout.columns()[position].1;
                    let datum = columns.next_value_seed(DatumSeed(column_type))?;
                    (self.put)(&mut self.values[position], datum, column_type);
                }
                None => drop(columns.next_value::<IgnoredAny>()?),
            }
        }
        Ok(self.values)
    }
}

fn replace(value: &mut Datum, new: Datum, _: &ColumnType) {
    *value = new;
}

/// ovsdb-server(7) §4.1.14: a column of at most one member comes whole, a set as the members that come or go, a map as
/// pairs that come, change or (if equal) go.
fn apply_difference(value: &mut Datum, difference: Datum, column_type: &ColumnType) {
    *value = match (&*value, &difference) {
        _ if column_type.is_single() => difference,
        (Datum::Set(old), Datum::Set(difference)) => {
            Datum::Set(old.symmetric_difference(difference))
        }
        (Datum::Map(old), Datum::Map(difference)) => Datum::Map(old.apply_difference(difference)),
        // The layout decided the shape of both.
        (Datum::Set(_), Datum::Map(_)) | (Datum::Map(_), Datum::Set(_)) => difference,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Columns;
    use crate::schema::Schema;

    const ONE: &str = "00000000-0000-0000-0000-000000000001";
    const TWO: &str = "00000000-0000-0000-0000-000000000002";

    fn start() -> Snapshot {
        let schema = Schema::parse(
            r#"{"name":"D","tables":{"T":{"columns":{"name":{"type":"string"},
                "tag":{"type":{"key":"integer","min":0,"max":1}},
                "set":{"type":{"key":"integer","min":0,"max":"unlimited"}},
                "map":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}}}}}"#,
        );
        let row = Columns::new()
            .with("name", "a")
            .with("tag", 1)
            .with("set", vec![1, 2])
            .with("map", [("a", "1"), ("b", "2")]);
        Snapshot::of(&Arc::new(schema.unwrap()), [("T", Uuid::from_u128(1), row)]).unwrap()
    }

    #[test]
    fn differences_apply_by_type() {
        let mut snapshot = start();
        let json = format!(
            r#"{{"T":{{"{ONE}":{{"modify":{{"name":"b","tag":["set",[]],"set":["set",[2,3]],
                "map":["map",[["a","1"],["b","3"],["c","4"]]],"unmonitored":{{"x":[1]}}}}}}}},"Other":{{"x":[]}}}}"#
        );
        let changes = apply(&mut snapshot, &json).unwrap();
        assert_eq!(changes.len(), 1);
        let row = snapshot.row("T", Uuid::from_u128(1)).unwrap();
        assert_eq!(row.get("name"), Some(&Datum::from("b")));
        assert_eq!(row.get("tag"), Some(&Datum::EMPTY_SET));
        assert_eq!(row.get("set"), Some(&Datum::from(vec![1, 3])));
        assert_eq!(row.get("map"), Some(&Datum::from([("b", "3"), ("c", "4")])));
        assert_eq!(changes[0].new.as_ref(), Some(row));
        assert_eq!(
            changes[0].old.as_ref().unwrap().get("name"),
            Some(&Datum::from("a"))
        );
    }

    #[test]
    fn rows_come_and_go() {
        let mut snapshot = start();
        let json =
            format!(r#"{{"T":{{"{ONE}":{{"delete":null}},"{TWO}":{{"insert":{{"name":"n"}}}}}}}}"#);
        let changes = apply(&mut snapshot, &json).unwrap();
        assert!(changes[0].new.is_none() && changes[1].old.is_none());
        assert_eq!(snapshot.table("T").len(), 1);
        assert_eq!(
            snapshot.row("T", Uuid::from_u128(2)).unwrap().get("set"),
            Some(&Datum::EMPTY_SET)
        );
    }

    #[test]
    fn what_changes_nothing_is_no_change() {
        let mut snapshot = start();
        let json = format!(r#"{{"T":{{"{ONE}":{{"modify":{{"name":"a"}}}}}}}}"#);
        assert_eq!(apply(&mut snapshot, &json).unwrap(), []);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for update in [
            format!(r#"{{"T":{{"{TWO}":{{"modify":{{}}}}}}}}"#),
            format!(r#"{{"T":{{"{TWO}":{{"delete":null}}}}}}"#),
            format!(r#"{{"T":{{"{TWO}":{{}}}}}}"#),
            format!(r#"{{"T":{{"{TWO}":{{"insert":{{}},"delete":null}}}}}}"#),
            format!(r#"{{"T":{{"{TWO}":{{"insert":{{"name":5}}}}}}}}"#),
            r#"{"T":{"no uuid":{"insert":{}}}}"#.to_owned(),
            "[]".to_owned(),
            "{} {}".to_owned(),
        ] {
            assert!(apply(&mut start(), &update).is_err(), "{update}");
        }
    }
}
