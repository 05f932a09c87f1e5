//! Sorted sets and maps of atoms.
//!
//! Most columns hold one atom or none, and a replica holds very many columns: a `BTreeSet` of one costs a node of eleven
//! slots (about 280 bytes), these cost their members only.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use uuid::Uuid;

use super::Atom;

/// A sorted set of atoms without duplicates. Building one sorts; changing one copies.
#[derive(Clone, Debug, Default)]
pub struct AtomSet(Repr);

#[derive(Clone, Debug, Default)]
enum Repr {
    #[default]
    Empty,
    One(Atom),
    Many(Box<[Atom]>),
}

impl AtomSet {
    /// No members.
    pub const EMPTY: AtomSet = AtomSet(Repr::Empty);

    /// The set of one atom.
    pub fn one(atom: impl Into<Atom>) -> Self {
        AtomSet(Repr::One(atom.into()))
    }

    /// The members in order.
    pub fn as_slice(&self) -> &[Atom] {
        match &self.0 {
            Repr::Empty => &[],
            Repr::One(atom) => std::slice::from_ref(atom),
            Repr::Many(atoms) => atoms,
        }
    }

    /// The members in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Atom> {
        self.as_slice().iter()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Repr::Empty)
    }

    /// True if `atom` is a member.
    pub fn contains(&self, atom: &Atom) -> bool {
        self.as_slice().binary_search(atom).is_ok()
    }

    /// True if the string `value` is a member; does not allocate.
    pub fn contains_str(&self, value: &str) -> bool {
        self.as_slice()
            .binary_search_by(|atom| compare_str(atom, value))
            .is_ok()
    }

    /// True if the UUID is a member.
    pub fn contains_uuid(&self, uuid: Uuid) -> bool {
        self.contains(&Atom::Uuid(uuid))
    }

    /// From atoms that are already sorted and unique.
    fn from_sorted(mut atoms: Vec<Atom>) -> Self {
        debug_assert!(atoms.is_sorted_by(|a, b| a < b));
        match atoms.len() {
            0 => AtomSet::EMPTY,
            1 => atoms.pop().map_or(AtomSet::EMPTY, AtomSet::one),
            _ => AtomSet(Repr::Many(atoms.into_boxed_slice())),
        }
    }

    /// The members of exactly one of both: how an `update2` difference changes a set (ovsdb-server(7) §4.1.14).
    pub fn symmetric_difference(&self, other: &AtomSet) -> AtomSet {
        let (mut left, mut right) = (self.as_slice(), other.as_slice());
        let mut merged = Vec::with_capacity(left.len() + right.len());
        while let ([a, rest_left @ ..], [b, rest_right @ ..]) = (left, right) {
            match a.cmp(b) {
                Ordering::Less => {
                    merged.push(a.clone());
                    left = rest_left;
                }
                Ordering::Greater => {
                    merged.push(b.clone());
                    right = rest_right;
                }
                Ordering::Equal => (left, right) = (rest_left, rest_right),
            }
        }
        merged.extend_from_slice(left);
        merged.extend_from_slice(right);
        AtomSet::from_sorted(merged)
    }
}

impl<A: Into<Atom>> FromIterator<A> for AtomSet {
    fn from_iter<I: IntoIterator<Item = A>>(atoms: I) -> Self {
        let mut atoms: Vec<Atom> = atoms.into_iter().map(Into::into).collect();
        atoms.sort_unstable();
        atoms.dedup();
        AtomSet::from_sorted(atoms)
    }
}

impl<'a> IntoIterator for &'a AtomSet {
    type Item = &'a Atom;
    type IntoIter = std::slice::Iter<'a, Atom>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<BTreeSet<Atom>> for AtomSet {
    fn from(set: BTreeSet<Atom>) -> Self {
        AtomSet::from_sorted(set.into_iter().collect())
    }
}

impl PartialEq for AtomSet {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for AtomSet {}

impl PartialOrd for AtomSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AtomSet {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for AtomSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

/// A map of atoms, sorted by key. Building one sorts; changing one copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomMap(Option<Box<[(Atom, Atom)]>>);

impl AtomMap {
    /// No pairs.
    pub const EMPTY: AtomMap = AtomMap(None);

    /// The pairs in the order of their keys.
    pub fn as_slice(&self) -> &[(Atom, Atom)] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The pairs in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Atom, &Atom)> + Clone {
        self.as_slice().iter().map(|(key, value)| (key, value))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of `key`.
    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        let pairs = self.as_slice();
        let at = pairs.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        Some(&pairs[at].1)
    }

    /// The value of a string key; does not allocate.
    pub fn get_by_str(&self, key: &str) -> Option<&Atom> {
        let pairs = self.as_slice();
        let at = pairs.binary_search_by(|(k, _)| compare_str(k, key)).ok()?;
        Some(&pairs[at].1)
    }

    /// The string value of a string key; does not allocate.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get_by_str(key)?.as_str()
    }

    fn from_sorted(pairs: Vec<(Atom, Atom)>) -> Self {
        debug_assert!(pairs.is_sorted_by(|a, b| a.0 < b.0));
        AtomMap((!pairs.is_empty()).then(|| pairs.into_boxed_slice()))
    }

    /// What an `update2` difference makes of this map (ovsdb-server(7) §4.1.14): an equal pair is deleted, a pair with
    /// another value replaces, an unknown key is added.
    pub fn apply_difference(&self, difference: &AtomMap) -> AtomMap {
        let (mut left, mut right) = (self.as_slice(), difference.as_slice());
        let mut merged = Vec::with_capacity(left.len() + right.len());
        while let ([a, rest_left @ ..], [b, rest_right @ ..]) = (left, right) {
            match a.0.cmp(&b.0) {
                Ordering::Less => {
                    merged.push(a.clone());
                    left = rest_left;
                }
                Ordering::Greater => {
                    merged.push(b.clone());
                    right = rest_right;
                }
                Ordering::Equal => {
                    if a.1 != b.1 {
                        merged.push(b.clone());
                    }
                    (left, right) = (rest_left, rest_right);
                }
            }
        }
        merged.extend_from_slice(left);
        merged.extend_from_slice(right);
        AtomMap::from_sorted(merged)
    }
}

/// Of several pairs with one key the last wins.
impl<K: Into<Atom>, V: Into<Atom>> FromIterator<(K, V)> for AtomMap {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(Atom, Atom)> = pairs
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        // dedup_by removes the later of two; the later one is to stay.
        pairs.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        AtomMap::from_sorted(pairs)
    }
}

impl From<BTreeMap<Atom, Atom>> for AtomMap {
    fn from(map: BTreeMap<Atom, Atom>) -> Self {
        AtomMap::from_sorted(map.into_iter().collect())
    }
}

fn compare_str(atom: &Atom, value: &str) -> Ordering {
    match atom {
        Atom::String(string) => {
            let string: &str = string.borrow();
            string.cmp(value)
        }
        Atom::Uuid(_) => Ordering::Greater,
        _ => Ordering::Less,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    #[test]
    fn the_last_of_equal_keys_wins() {
        let map: AtomMap = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]
            .into_iter()
            .collect();
        assert_eq!(map.len(), 2);
        assert_eq!(map.get_str("a"), Some("4"));
        assert_eq!(map.get_str("c"), None);
    }

    proptest! {
        #[test]
        fn set_difference_leads_from_old_to_new(old in btree_set(0i64..50, 0..20), new in btree_set(0i64..50, 0..20)) {
            let difference: AtomSet = old.symmetric_difference(&new).copied().collect();
            let (old, new): (AtomSet, AtomSet) = (old.into_iter().collect(), new.into_iter().collect());
            prop_assert_eq!(old.symmetric_difference(&difference), new);
        }

        #[test]
        fn map_difference_leads_from_old_to_new(
            old in btree_map(0i64..20, 0i64..4, 0..15), new in btree_map(0i64..20, 0i64..4, 0..15)
        ) {
            // As the server computes it: pairs to delete as they were, pairs to add or change as they will be.
            let mut difference: BTreeMap<i64, i64> = BTreeMap::new();
            difference.extend(old.iter().filter(|(k, _)| !new.contains_key(k)).map(|(k, v)| (*k, *v)));
            difference.extend(new.iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, v)| (*k, *v)));
            let (old, new, difference): (AtomMap, AtomMap, AtomMap) =
                (old.into_iter().collect(), new.into_iter().collect(), difference.into_iter().collect());
            prop_assert_eq!(old.apply_difference(&difference), new);
        }

        #[test]
        fn lookup_finds_what_is_there(members in btree_set("[a-e]{0,3}", 0..20), probe in "[a-e]{0,3}") {
            let set: AtomSet = members.iter().map(String::as_str).collect();
            prop_assert_eq!(set.contains_str(&probe), members.contains(&probe));
        }
    }
}
