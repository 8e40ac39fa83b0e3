//! The tombstones of one namespace of the embedded store: the source versions of deleted entries, until their time is
//! over.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Moment;
use crate::model::{EntryKey, EntryKeyHasher, SourceVersion};

/// The most tombstones of a namespace; `redis/lua/burial.lua` has the same limit.
const MAX_TOMBSTONES: usize = 16_384;

/// The memory of a tombstone besides its key, in bytes.
const OVERHEAD: u64 = 192;

struct Tombstone {
    version: SourceVersion,
    /// Its end and its number, by which `due` is ordered.
    due: (Moment, u64),
}

#[derive(Default)]
pub struct Tombstones {
    by_key: HashMap<EntryKey, Tombstone, EntryKeyHasher>,
    due: BTreeMap<(Moment, u64), EntryKey>,
    next_number: u64,
    cost: u64,
    dropped: u64,
}

fn cost_of(key: &EntryKey) -> u64 {
    // The key is in both maps.
    2 * key.text().len() as u64 + OVERHEAD
}

impl Tombstones {
    /// The source version of a deleted entry, if its tombstone still stands.
    pub fn version(&self, key: &EntryKey, now: Moment) -> Option<SourceVersion> {
        self.by_key.get(key).filter(|tombstone| tombstone.due.0 > now).map(|tombstone| tombstone.version)
    }

    /// Leaves a tombstone until `ends`. If there are too many, the one that ends first makes room.
    pub fn bury(&mut self, key: &EntryKey, version: SourceVersion, ends: Moment, now: Moment) {
        self.remove(key);
        self.prune(2, now);
        if self.by_key.len() >= MAX_TOMBSTONES {
            self.drop_first();
        }
        let due = (ends, self.next_number);
        self.next_number += 1;
        self.due.insert(due, key.clone());
        self.by_key.insert(key.clone(), Tombstone { version, due });
        self.cost += cost_of(key);
    }

    pub fn remove(&mut self, key: &EntryKey) {
        if let Some(tombstone) = self.by_key.remove(key) {
            self.due.remove(&tombstone.due);
            self.cost -= cost_of(key);
        }
    }

    /// Gives up the tombstone that ends first; returns whether there was one.
    pub fn drop_first(&mut self) -> bool {
        let Some(key) = self.due.first_key_value().map(|(_, key)| key.clone()) else { return false };
        self.remove(&key);
        self.dropped += 1;
        true
    }

    /// Removes up to `most` tombstones whose time is over. Returns how many.
    pub fn prune(&mut self, most: usize, now: Moment) -> usize {
        let over: Vec<EntryKey> = self
            .due
            .iter()
            .take(most)
            .take_while(|((ends, _), _)| *ends <= now)
            .map(|(_, key)| key.clone())
            .collect();
        over.iter().for_each(|key| self.remove(key));
        over.len()
    }

    pub fn clear(&mut self) {
        *self = Self { dropped: self.dropped, ..Self::default() };
    }

    /// The memory of all tombstones in bytes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// How many tombstones made room for others before their time.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(i: usize) -> EntryKey {
        EntryKey::parse("n", &format!("key_{i}")).unwrap()
    }

    fn version(number: u64) -> SourceVersion {
        SourceVersion::parse(&number.to_string()).unwrap()
    }

    #[test]
    fn a_tombstone_stands_until_its_end() {
        let (mut tombstones, now) = (Tombstones::default(), Moment::now());
        tombstones.bury(&key(1), version(7), now + SECOND, now);
        tombstones.bury(&key(1), version(8), now + SECOND * 2, now);
        assert_eq!(tombstones.version(&key(1), now + SECOND), Some(version(8)));
        assert_eq!(tombstones.version(&key(1), now + SECOND * 2), None);
        assert_eq!(tombstones.prune(10, now + SECOND), 0);
        assert_eq!(tombstones.prune(10, now + SECOND * 2), 1);
        assert_eq!((tombstones.cost(), tombstones.dropped(), tombstones.due.len()), (0, 0, 0));
    }

    #[test]
    fn the_number_is_bounded_and_the_first_to_end_makes_room() {
        let (mut tombstones, now) = (Tombstones::default(), Moment::now());
        for i in 0..MAX_TOMBSTONES + 3 {
            // The later ones end first.
            tombstones.bury(&key(i), version(1), now + SECOND * (1_000_000 - i as u32), now);
        }
        assert_eq!((tombstones.by_key.len(), tombstones.due.len()), (MAX_TOMBSTONES, MAX_TOMBSTONES));
        assert_eq!(tombstones.dropped(), 3);
        assert_eq!(tombstones.version(&key(MAX_TOMBSTONES - 1), now), None);
        assert_eq!(tombstones.version(&key(0), now), Some(version(1)));
        tombstones.clear();
        assert_eq!((tombstones.cost(), tombstones.dropped()), (0, 3));
    }
}
