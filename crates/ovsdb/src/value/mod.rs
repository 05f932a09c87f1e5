//! The values of RFC 7047 §5.1: atoms, and the sets and maps that columns hold.

mod collection;
mod convert;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

pub use collection::{AtomMap, AtomSet};
pub use convert::WrongType;

/// One `<atom>` of RFC 7047 §5.1.
///
/// Atoms have a total order (kinds in the order below; reals by [`f64::total_cmp`]), so that sets and maps of them are
/// sorted and equal values are equal byte for byte.
#[derive(Clone)]
pub enum Atom {
    /// `integer`: 64 bits, signed.
    Integer(i64),
    /// `real`: a double. NaN and infinities exist in Rust only; JSON cannot carry them and the client refuses them.
    Real(f64),
    /// `boolean`.
    Boolean(bool),
    /// `string`: UTF-8 without NUL.
    String(Arc<str>),
    /// `uuid`: the identity of a row.
    Uuid(Uuid),
}

impl Atom {
    fn rank(&self) -> u8 {
        match self {
            Atom::Integer(_) => 0,
            Atom::Real(_) => 1,
            Atom::Boolean(_) => 2,
            Atom::String(_) => 3,
            Atom::Uuid(_) => 4,
        }
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Atom::String(value) => Some(value),
            _ => None,
        }
    }

    /// The integer, if this is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Atom::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The real, if this is one. An integer is not converted.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Atom::Real(value) => Some(*value),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    pub fn as_boolean(&self) -> Option<bool> {
        match self {
            Atom::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// The UUID, if this is one.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Atom::Uuid(value) => Some(*value),
            _ => None,
        }
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Atom {}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Atom::Integer(a), Atom::Integer(b)) => a.cmp(b),
            (Atom::Real(a), Atom::Real(b)) => a.total_cmp(b),
            (Atom::Boolean(a), Atom::Boolean(b)) => a.cmp(b),
            (Atom::String(a), Atom::String(b)) => a.cmp(b),
            (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl Hash for Atom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Atom::Integer(value) => value.hash(state),
            Atom::Real(value) => value.to_bits().hash(state),
            Atom::Boolean(value) => value.hash(state),
            Atom::String(value) => value.hash(state),
            Atom::Uuid(value) => value.hash(state),
        }
    }
}

/// Reads as in `ovs-vsctl list`: strings quoted, the rest bare.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Integer(value) => write!(f, "{value}"),
            Atom::Real(value) => write!(f, "{value}"),
            Atom::Boolean(value) => write!(f, "{value}"),
            Atom::String(value) => write!(f, "{value:?}"),
            Atom::Uuid(value) => write!(f, "{value}"),
        }
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The `<value>` of one column, RFC 7047 §5.1.
///
/// A scalar is a set of exactly one atom, an absent optional value the empty set; the wire makes no difference either.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// An atom (a set of one) or a `<set>`.
    Set(AtomSet),
    /// A `<map>`.
    Map(AtomMap),
}

impl Datum {
    /// The empty set.
    pub const EMPTY_SET: Datum = Datum::Set(AtomSet::EMPTY);
    /// The empty map.
    pub const EMPTY_MAP: Datum = Datum::Map(AtomMap::EMPTY);

    /// The members, if this is a set.
    pub fn as_set(&self) -> Option<&AtomSet> {
        match self {
            Datum::Set(set) => Some(set),
            Datum::Map(_) => None,
        }
    }

    /// The pairs, if this is a map.
    pub fn as_map(&self) -> Option<&AtomMap> {
        match self {
            Datum::Map(map) => Some(map),
            Datum::Set(_) => None,
        }
    }

    /// The atom, if this is a set of exactly one.
    pub fn as_atom(&self) -> Option<&Atom> {
        match self.as_set()?.as_slice() {
            [atom] => Some(atom),
            _ => None,
        }
    }

    /// The string, if this is exactly one.
    pub fn as_str(&self) -> Option<&str> {
        self.as_atom()?.as_str()
    }

    /// The integer, if this is exactly one.
    pub fn as_integer(&self) -> Option<i64> {
        self.as_atom()?.as_integer()
    }

    /// The real, if this is exactly one.
    pub fn as_real(&self) -> Option<f64> {
        self.as_atom()?.as_real()
    }

    /// The boolean, if this is exactly one.
    pub fn as_boolean(&self) -> Option<bool> {
        self.as_atom()?.as_boolean()
    }

    /// The UUID, if this is exactly one.
    pub fn as_uuid(&self) -> Option<Uuid> {
        self.as_atom()?.as_uuid()
    }

    /// Number of atoms or pairs.
    pub fn len(&self) -> usize {
        match self {
            Datum::Set(set) => set.len(),
            Datum::Map(map) => map.len(),
        }
    }

    /// True for the empty set and the empty map.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads as in `ovs-vsctl list`: a set of one as its atom, `[a, b]`, `{k=v}`.
impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Datum::Set(set) => match set.as_slice() {
                [atom] => write!(f, "{atom}"),
                atoms => {
                    f.write_str("[")?;
                    for (i, atom) in atoms.iter().enumerate() {
                        write!(f, "{}{atom}", if i == 0 { "" } else { ", " })?;
                    }
                    f.write_str("]")
                }
            },
            Datum::Map(map) => {
                f.write_str("{")?;
                for (i, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{key}={value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Debug for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_small() {
        assert!(size_of::<Atom>() <= 24, "{}", size_of::<Atom>());
        assert!(size_of::<Datum>() <= 24, "{}", size_of::<Datum>());
    }

    #[test]
    fn order_is_total() {
        let nan = Atom::Real(f64::NAN);
        assert_eq!(nan, nan.clone());
        assert!(Atom::Real(-0.0) < Atom::Real(0.0));
        assert!(Atom::Integer(5) < Atom::Real(1.0));
        assert!(Atom::from("a") < Atom::from("b"));
    }

    #[test]
    fn displays_like_the_tools() {
        assert_eq!(Datum::from("a").to_string(), "\"a\"");
        assert_eq!(Datum::from(vec![2, 1, 2]).to_string(), "[1, 2]");
        assert_eq!(Datum::from([("k", "v")]).to_string(), "{\"k\"=\"v\"}");
    }
}
