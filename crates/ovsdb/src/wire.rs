//! Reading `<value>`s from JSON by their column's type, straight from the bytes or from a parsed [`Value`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;
use uuid::Uuid;

use crate::schema::{BaseType, ColumnType, Kind};
use crate::value::{Atom, AtomMap, AtomSet, Datum};

/// Reads a value of a column. Ranges and sizes are the server's business and not checked.
pub(crate) fn datum_of(json: &Value, column_type: &ColumnType) -> Result<Datum, serde_json::Error> {
    DatumSeed(column_type).deserialize(json)
}

/// Reads `["uuid", "…"]`.
pub(crate) fn uuid_of(json: &Value) -> Option<Uuid> {
    match json.as_array()?.as_slice() {
        [Value::String(tag), Value::String(uuid)] if tag == "uuid" => Uuid::try_parse(uuid).ok(),
        _ => None,
    }
}

/// Reads one `<value>` of the given type.
#[derive(Clone, Copy)]
pub(crate) struct DatumSeed<'t>(pub(crate) &'t ColumnType);

impl<'de> DeserializeSeed<'de> for DatumSeed<'_> {
    type Value = Datum;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl DatumSeed<'_> {
    fn scalar<E: Error>(self, atom: Result<Atom, E>) -> Result<Datum, E> {
        match &self.0.value {
            None => Ok(Datum::Set(AtomSet::one(atom?))),
            Some(_) => Err(E::custom("an atom where a map is wanted")),
        }
    }
}

impl<'de> Visitor<'de> for DatumSeed<'_> {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.value {
            None => write!(f, "{} or a set of them", self.0.key.kind),
            Some(value) => write!(f, "a map of {} to {}", self.0.key.kind, value.kind),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Datum, E> {
        self.scalar(AtomSeed(&self.0.key).visit_bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Datum, E> {
        self.scalar(AtomSeed(&self.0.key).visit_i64(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Datum, E> {
        self.scalar(AtomSeed(&self.0.key).visit_u64(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Datum, E> {
        self.scalar(AtomSeed(&self.0.key).visit_f64(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Datum, E> {
        self.scalar(AtomSeed(&self.0.key).visit_str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
        let missing = || A::Error::custom("an array with less than two members");
        let tag = seq.next_element_seed(TagSeed)?.ok_or_else(missing)?;
        let datum = match (tag, &self.0.value) {
            (Tag::Uuid, None) => AtomSet::one(uuid(&self.0.key, &mut seq)?).into(),
            (Tag::Set, None) => Datum::Set(
                seq.next_element_seed(Members(&self.0.key))?
                    .ok_or_else(missing)?,
            ),
            (Tag::Map, Some(value)) => {
                let pairs = Pairs {
                    key: &self.0.key,
                    value,
                };
                Datum::Map(seq.next_element_seed(pairs)?.ok_or_else(missing)?)
            }
            (tag, _) => {
                return Err(A::Error::custom(format!(
                    "{tag:?} in a column of another shape"
                )));
            }
        };
        end(&mut seq)?;
        Ok(datum)
    }
}

#[derive(Clone, Copy, Debug)]
enum Tag {
    Uuid,
    Set,
    Map,
}

struct TagSeed;

impl<'de> DeserializeSeed<'de> for TagSeed {
    type Value = Tag;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tag, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for TagSeed {
    type Value = Tag;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"uuid\", \"set\" or \"map\"")
    }
    fn visit_str<E: Error>(self, tag: &str) -> Result<Tag, E> {
        match tag {
            "uuid" => Ok(Tag::Uuid),
            "set" => Ok(Tag::Set),
            "map" => Ok(Tag::Map),
            _ => Err(E::custom("an array that is neither uuid, set nor map")),
        }
    }
}

/// Reads one `<atom>` of the given type.
struct AtomSeed<'t>(&'t BaseType);

impl AtomSeed<'_> {
    fn wrong<E: Error, T: fmt::Display>(&self, value: T) -> E {
        E::custom(format!("{value} where {} is wanted", self.0.kind))
    }
}

impl<'de> DeserializeSeed<'de> for AtomSeed<'_> {
    type Value = Atom;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Atom, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtomSeed<'_> {
    type Value = Atom;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.kind)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Atom, E> {
        match self.0.kind {
            Kind::Boolean => Ok(Atom::Boolean(value)),
            _ => Err(self.wrong(value)),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Atom, E> {
        match self.0.kind {
            Kind::Integer => Ok(Atom::Integer(value)),
            // The server writes a real without a fraction as an integer.
            Kind::Real => Ok(Atom::Real(value as f64)),
            _ => Err(self.wrong(value)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Atom, E> {
        match (i64::try_from(value), self.0.kind) {
            (Ok(value), _) => self.visit_i64(value),
            (Err(_), Kind::Real) => Ok(Atom::Real(value as f64)),
            (Err(_), _) => Err(self.wrong(value)),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Atom, E> {
        match self.0.kind {
            Kind::Real => Ok(Atom::Real(value)),
            _ => Err(self.wrong(value)),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Atom, E> {
        match (self.0.kind, &self.0.allowed) {
            // Enumerated strings share the schema's copy.
            (Kind::String, Some(allowed)) => {
                let known = allowed.iter().find(|atom| atom.as_str() == Some(value));
                Ok(known.cloned().unwrap_or_else(|| Atom::from(value)))
            }
            (Kind::String, None) => Ok(Atom::String(Arc::from(value))),
            _ => Err(self.wrong(format!("{value:?}"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Atom, A::Error> {
        match seq.next_element_seed(TagSeed)? {
            Some(Tag::Uuid) => {}
            _ => {
                return Err(A::Error::custom(
                    "an array that is no uuid where an atom is wanted",
                ));
            }
        }
        let atom = uuid(self.0, &mut seq)?;
        end(&mut seq)?;
        Ok(atom)
    }
}

/// The second member of `["uuid", "…"]`.
fn uuid<'de, A: SeqAccess<'de>>(base: &BaseType, seq: &mut A) -> Result<Atom, A::Error> {
    if base.kind != Kind::Uuid {
        return Err(A::Error::custom(format!(
            "a uuid where {} is wanted",
            base.kind
        )));
    }
    let uuid: Option<Uuid> = seq.next_element_seed(UuidSeed)?;
    uuid.map(Atom::Uuid)
        .ok_or_else(|| A::Error::custom("a uuid without its value"))
}

/// Reads a UUID from a string without allocating.
pub(crate) struct UuidSeed;

impl<'de> DeserializeSeed<'de> for UuidSeed {
    type Value = Uuid;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Uuid, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for UuidSeed {
    type Value = Uuid;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a uuid")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Uuid, E> {
        Uuid::try_parse(text).map_err(E::custom)
    }
}

fn end<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<(), A::Error> {
    match seq.next_element_seed(PhantomData::<serde::de::IgnoredAny>)? {
        None => Ok(()),
        Some(_) => Err(A::Error::custom("an array with more than two members")),
    }
}

/// The members of a set.
struct Members<'t>(&'t BaseType);

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = AtomSet;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<AtomSet, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = AtomSet;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", self.0.kind)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AtomSet, A::Error> {
        let mut atoms = Vec::new();
        while let Some(atom) = seq.next_element_seed(AtomSeed(self.0))? {
            atoms.push(atom);
        }
        Ok(atoms.into_iter().collect())
    }
}

/// The pairs of a map.
struct Pairs<'t> {
    key: &'t BaseType,
    value: &'t BaseType,
}

impl<'de> DeserializeSeed<'de> for Pairs<'_> {
    type Value = AtomMap;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<AtomMap, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Pairs<'_> {
    type Value = AtomMap;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pairs")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AtomMap, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = seq.next_element_seed(Pair {
            key: self.key,
            value: self.value,
        })? {
            pairs.push(pair);
        }
        Ok(pairs.into_iter().collect())
    }
}

struct Pair<'t> {
    key: &'t BaseType,
    value: &'t BaseType,
}

impl<'de> DeserializeSeed<'de> for Pair<'_> {
    type Value = (Atom, Atom);
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(Atom, Atom), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Pair<'_> {
    type Value = (Atom, Atom);
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(Atom, Atom), A::Error> {
        let missing = || A::Error::custom("a pair of less than two");
        let key = seq
            .next_element_seed(AtomSeed(self.key))?
            .ok_or_else(missing)?;
        let value = seq
            .next_element_seed(AtomSeed(self.value))?
            .ok_or_else(missing)?;
        end(&mut seq)?;
        Ok((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn column(kind: Kind, value: Option<Kind>) -> ColumnType {
        ColumnType {
            key: BaseType::of(kind),
            value: value.map(BaseType::of),
            min: 0,
            max: usize::MAX,
        }
    }

    fn read(json: &str, column_type: &ColumnType) -> Result<Datum, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let datum = DatumSeed(column_type).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(datum)
    }

    #[test]
    fn forms_of_the_rfc() {
        let integers = column(Kind::Integer, None);
        assert_eq!(read("5", &integers).unwrap(), Datum::from(5));
        assert_eq!(read(r#"["set",[]]"#, &integers).unwrap(), Datum::EMPTY_SET);
        assert_eq!(
            read(r#"["set",[2,1,2]]"#, &integers).unwrap(),
            Datum::from(vec![1, 2])
        );
        let reals = column(Kind::Real, None);
        assert_eq!(read("5", &reals).unwrap(), Datum::from(5.0));
        assert_eq!(read("-0.25", &reals).unwrap(), Datum::from(-0.25));
        let map = column(Kind::String, Some(Kind::Integer));
        assert_eq!(
            read(r#"["map",[["a",1],["b",2]]]"#, &map).unwrap(),
            Datum::from([("a", 1), ("b", 2)])
        );
    }

    #[test]
    fn other_shapes_are_refused() {
        let integers = column(Kind::Integer, None);
        let map = column(Kind::String, Some(Kind::Integer));
        for json in [
            "\"5\"",
            "1.5",
            "true",
            "null",
            "{}",
            "[]",
            r#"["set"]"#,
            r#"["set",1]"#,
            r#"["set",[],1]"#,
            r#"["map",[]]"#,
            r#"["uuid","x"]"#,
            "18446744073709551615",
            r#"["set",[["set",[]]]]"#,
        ] {
            assert!(read(json, &integers).is_err(), "{json}");
        }
        for json in [
            "5",
            r#"["set",[]]"#,
            r#"["map",[["a"]]]"#,
            r#"["map",[["a",1,2]]]"#,
            r#"["map",[[1,1]]]"#,
        ] {
            assert!(read(json, &map).is_err(), "{json}");
        }
        assert!(read(r#"["uuid","not one"]"#, &column(Kind::Uuid, None)).is_err());
    }

    fn atom(kind: Kind) -> BoxedStrategy<Atom> {
        match kind {
            Kind::Integer => any::<i64>().prop_map(Atom::Integer).boxed(),
            Kind::Real => any::<f64>()
                .prop_filter("finite", |real| real.is_finite())
                .prop_map(Atom::Real)
                .boxed(),
            Kind::Boolean => any::<bool>().prop_map(Atom::Boolean).boxed(),
            Kind::String => ".*".prop_map(|text: String| Atom::from(text)).boxed(),
            Kind::Uuid => any::<u128>()
                .prop_map(|bits| Atom::Uuid(Uuid::from_u128(bits)))
                .boxed(),
        }
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Integer),
            Just(Kind::Real),
            Just(Kind::Boolean),
            Just(Kind::String),
            Just(Kind::Uuid)
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (column_type, datum) in (kind(), proptest::option::of(kind())).prop_flat_map(|(key, value)| {
                let column_type = column(key, value);
                let datum = match value {
                    None => proptest::collection::vec(atom(key), 0..6).prop_map(|atoms| Datum::Set(atoms.into_iter().collect())).boxed(),
                    Some(value) => proptest::collection::vec((atom(key), atom(value)), 0..6)
                        .prop_map(|pairs| Datum::Map(pairs.into_iter().collect())).boxed(),
                };
                (Just(column_type), datum)
            })
        ) {
            let json = serde_json::to_string(&datum).unwrap();
            prop_assert_eq!(read(&json, &column_type).unwrap(), datum.clone());
            prop_assert_eq!(datum_of(&serde_json::from_str(&json).unwrap(), &column_type).unwrap(), datum);
        }
    }
}
