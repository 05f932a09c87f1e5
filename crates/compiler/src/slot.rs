//! Numbers that follow from names: which address of a shared range a Vpc or a backend has.
//!
//! # Guarantees
//! * No two keys have one slot.
//! * The slots depend on the set of keys alone, not on the order in which they came.
//! * A key has the slot of its hash unless a key before it in the order has that one; so a newcomer moves nobody who is
//!   before it, and one that goes moves only those whom it had displaced.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::owner::UUID_NAMESPACE;

/// What has a slot. The order decides who is displaced.
pub trait Key: Ord + Clone {
    /// What is hashed: the same for the same thing for ever.
    fn text(&self) -> String;
}

/// Keys and their slots, `0..size`. Linear probing where the lesser key keeps its place (ordered hashing: Amble and
/// Knuth, 1974), which makes the layout one of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots<K> {
    size: u32,
    by_slot: BTreeMap<u32, K>,
    by_key: BTreeMap<K, u32>,
}

impl<K: Key> Slots<K> {
    /// No keys, and room for `size`.
    pub fn new(size: u32) -> Self {
        Self {
            size,
            by_slot: BTreeMap::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// The slot of a key. `None`: it is unknown, or there was no room.
    pub fn get(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// Adds a key; returns the others whose slots changed.
    pub fn insert(&mut self, key: K) -> Vec<K> {
        let mut moved = Vec::new();
        if self.by_key.contains_key(&key) || self.by_key.len() >= self.size as usize {
            return moved;
        }
        let mut slot = self.home(&key);
        let mut placing = key;
        loop {
            match self.by_slot.get(&slot) {
                None => break,
                Some(there) if *there > placing => {
                    let there = there.clone();
                    self.put(slot, placing);
                    moved.push(there.clone());
                    placing = there;
                }
                Some(_) => {}
            }
            slot = self.next(slot);
        }
        self.put(slot, placing);
        moved
    }

    /// Takes a key out; returns the others whose slots changed.
    pub fn remove(&mut self, key: &K) -> Vec<K> {
        let Some(gone) = self.by_key.remove(key) else {
            return Vec::new();
        };
        self.by_slot.remove(&gone);
        // All of the run behind it are placed anew: each may have been displaced.
        let mut run = Vec::new();
        let mut slot = self.next(gone);
        while let Some(there) = self.by_slot.remove(&slot) {
            self.by_key.remove(&there);
            run.push((there, slot));
            slot = self.next(slot);
        }
        for (key, _) in &run {
            self.insert(key.clone());
        }
        run.retain(|(key, before)| self.get(key) != Some(*before));
        run.into_iter().map(|(key, _)| key).collect()
    }

    fn put(&mut self, slot: u32, key: K) {
        self.by_key.insert(key.clone(), slot);
        self.by_slot.insert(slot, key);
    }

    fn home(&self, key: &K) -> u32 {
        let hash = Uuid::new_v5(&UUID_NAMESPACE, key.text().as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        u32::from_be_bytes([a, b, c, d]) % self.size
    }

    fn next(&self, slot: u32) -> u32 {
        if slot + 1 == self.size { 0 } else { slot + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Key for u16 {
        fn text(&self) -> String {
            self.to_string()
        }
    }

    fn built(keys: &[u16], size: u32) -> Slots<u16> {
        let mut slots = Slots::new(size);
        for key in keys {
            slots.insert(*key);
        }
        slots
    }

    /// Some keys in some order, some of which go again.
    fn history() -> impl Strategy<Value = (Vec<u16>, Vec<u16>)> {
        proptest::collection::btree_set(0u16..200, 0..30).prop_flat_map(|keys| {
            let keys: Vec<u16> = keys.into_iter().collect();
            let gone = proptest::sample::subsequence(keys.clone(), 0..=keys.len());
            (Just(keys).prop_shuffle(), gone.prop_shuffle())
        })
    }

    proptest! {
        #[test]
        fn the_layout_depends_on_the_set_alone((keys, gone) in history()) {
            let mut slots = built(&keys, 37);
            for key in &gone {
                slots.remove(key);
            }
            let mut left: Vec<u16> = keys.into_iter().filter(|key| !gone.contains(key)).collect();
            left.sort_unstable();
            prop_assert_eq!(&slots, &built(&left, 37));
            prop_assert_eq!(slots.by_slot.len(), left.len());
            prop_assert!(slots.by_key.values().all(|slot| *slot < 37));
        }

        #[test]
        fn those_who_move_are_named_and_nobody_before_the_newcomer_moves((keys, gone) in history()) {
            let mut slots = Slots::new(37);
            for (key, comes) in keys.iter().map(|k| (k, true)).chain(gone.iter().map(|k| (k, false))) {
                let before = slots.by_key.clone();
                let mut moved = if comes { slots.insert(*key) } else { slots.remove(key) };
                moved.sort_unstable();
                let differs = |(other, slot): (&u16, &u32)| {
                    (other != key && slots.get(other) != Some(*slot)).then_some(*other)
                };
                let expected: Vec<u16> = before.iter().filter_map(differs).collect();
                prop_assert_eq!(&moved, &expected);
                prop_assert!(!comes || moved.iter().all(|other| other > key));
            }
        }
    }

    #[test]
    fn a_full_table_takes_nobody_more() {
        let mut slots = built(&[1, 2, 3], 3);
        assert!(slots.insert(4).is_empty());
        assert_eq!(slots.get(&4), None);
        slots.remove(&2);
        slots.insert(4);
        assert!(slots.get(&4).is_some());
    }
}
