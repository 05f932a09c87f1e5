//! Conversions between Rust's types and OVSDB's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{Atom, AtomMap, AtomSet, Datum};

/// A datum does not have the shape that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read {datum} as {wanted}")]
pub struct WrongType {
    /// What was asked for, in words.
    pub wanted: &'static str,
    /// What was there.
    pub datum: Datum,
}

macro_rules! atom_from {
    ($($source:ty => $variant:ident by $convert:expr;)+) => {$(
        impl From<$source> for Atom {
            fn from(value: $source) -> Self {
                #[allow(clippy::redundant_closure_call, reason = "the closure is the macro's argument")]
                Atom::$variant(($convert)(value))
            }
        }

        impl From<$source> for Datum {
            fn from(value: $source) -> Self {
                Datum::Set(AtomSet::one(value))
            }
        }
    )+};
}

atom_from! {
    i64 => Integer by |value| value;
    i32 => Integer by i64::from;
    u32 => Integer by i64::from;
    u16 => Integer by i64::from;
    u8 => Integer by i64::from;
    f64 => Real by |value| value;
    bool => Boolean by |value| value;
    &str => String by Arc::<str>::from;
    &String => String by |value: &String| Arc::from(value.as_str());
    String => String by Arc::from;
    Arc<str> => String by |value| value;
    Uuid => Uuid by |value| value;
    &Uuid => Uuid by |value: &Uuid| *value;
}

impl From<&Atom> for Atom {
    fn from(atom: &Atom) -> Self {
        atom.clone()
    }
}

impl From<Atom> for Datum {
    fn from(atom: Atom) -> Self {
        Datum::Set(AtomSet::one(atom))
    }
}

impl From<AtomSet> for Datum {
    fn from(set: AtomSet) -> Self {
        Datum::Set(set)
    }
}

impl From<AtomMap> for Datum {
    fn from(map: AtomMap) -> Self {
        Datum::Map(map)
    }
}

impl<T: Into<Atom>> From<Option<T>> for Datum {
    fn from(value: Option<T>) -> Self {
        value.map_or(Datum::EMPTY_SET, |value| Datum::Set(AtomSet::one(value)))
    }
}

impl<T: Into<Atom>> From<BTreeSet<T>> for Datum {
    fn from(values: BTreeSet<T>) -> Self {
        Datum::Set(values.into_iter().collect())
    }
}

impl<T: Into<Atom>> From<Vec<T>> for Datum {
    fn from(values: Vec<T>) -> Self {
        Datum::Set(values.into_iter().collect())
    }
}

impl<K: Into<Atom>, V: Into<Atom>> From<BTreeMap<K, V>> for Datum {
    fn from(pairs: BTreeMap<K, V>) -> Self {
        Datum::Map(pairs.into_iter().collect())
    }
}

impl<K: Into<Atom>, V: Into<Atom>, const N: usize> From<[(K, V); N]> for Datum {
    fn from(pairs: [(K, V); N]) -> Self {
        Datum::Map(pairs.into_iter().collect())
    }
}

macro_rules! scalar_try_from {
    ($($target:ty, $wanted:literal, $read:expr;)+) => {$(
        impl TryFrom<&Datum> for $target {
            type Error = WrongType;
            fn try_from(datum: &Datum) -> Result<Self, WrongType> {
                let read: fn(&Atom) -> Option<$target> = $read;
                datum.as_atom().and_then(read).ok_or_else(|| wrong($wanted, datum))
            }
        }

        impl TryFrom<&Datum> for Option<$target> {
            type Error = WrongType;
            fn try_from(datum: &Datum) -> Result<Self, WrongType> {
                let read: fn(&Atom) -> Option<$target> = $read;
                match datum.as_set().map(AtomSet::as_slice) {
                    Some([]) => Ok(None),
                    Some([atom]) => read(atom).map(Some).ok_or_else(|| wrong(concat!("optional ", $wanted), datum)),
                    _ => Err(wrong(concat!("optional ", $wanted), datum)),
                }
            }
        }
    )+};
}

macro_rules! set_try_from {
    ($($target:ty, $wanted:literal, $read:expr;)+) => {$(
        impl TryFrom<&Datum> for BTreeSet<$target> {
            type Error = WrongType;
            fn try_from(datum: &Datum) -> Result<Self, WrongType> {
                let read: fn(&Atom) -> Option<$target> = $read;
                datum
                    .as_set()
                    .and_then(|set| set.iter().map(read).collect::<Option<BTreeSet<$target>>>())
                    .ok_or_else(|| wrong($wanted, datum))
            }
        }
    )+};
}

fn wrong(wanted: &'static str, datum: &Datum) -> WrongType {
    WrongType {
        wanted,
        datum: datum.clone(),
    }
}

scalar_try_from! {
    i64, "an integer", Atom::as_integer;
    f64, "a real", Atom::as_real;
    bool, "a boolean", Atom::as_boolean;
    String, "a string", |atom| atom.as_str().map(str::to_owned);
    Uuid, "a uuid", Atom::as_uuid;
}

set_try_from! {
    i64, "a set of integers", Atom::as_integer;
    bool, "a set of booleans", Atom::as_boolean;
    String, "a set of strings", |atom| atom.as_str().map(str::to_owned);
    Uuid, "a set of uuids", Atom::as_uuid;
}

impl TryFrom<&Datum> for BTreeMap<String, String> {
    type Error = WrongType;
    fn try_from(datum: &Datum) -> Result<Self, WrongType> {
        let pair = |(key, value): (&Atom, &Atom)| {
            Some((key.as_str()?.to_owned(), value.as_str()?.to_owned()))
        };
        datum
            .as_map()
            .and_then(|map| map.iter().map(pair).collect())
            .ok_or_else(|| wrong("a map of strings to strings", datum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        assert_eq!(i64::try_from(&Datum::from(7i64)), Ok(7));
        assert_eq!(
            Option::<String>::try_from(&Datum::from(None::<String>)),
            Ok(None)
        );
        assert_eq!(
            Option::<bool>::try_from(&Datum::from(Some(true))),
            Ok(Some(true))
        );
        let map = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(BTreeMap::try_from(&Datum::from(map.clone())), Ok(map));
        let set = BTreeSet::from([Uuid::from_u128(1), Uuid::from_u128(2)]);
        assert_eq!(BTreeSet::try_from(&Datum::from(set.clone())), Ok(set));
    }

    #[test]
    fn wrong_shapes_are_refused_in_words() {
        let error = i64::try_from(&Datum::from("x")).unwrap_err();
        assert_eq!(error.to_string(), "failed to read \"x\" as an integer");
        assert!(bool::try_from(&Datum::from(vec![true, false])).is_err());
        assert!(BTreeMap::<String, String>::try_from(&Datum::from(1i64)).is_err());
        assert!(Option::<i64>::try_from(&Datum::from(vec![1i64, 2])).is_err());
    }
}
