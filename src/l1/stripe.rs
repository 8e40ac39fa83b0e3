//! One stripe of L1: an LRU map and the generations that fence its fills.

use lru::LruCache;

use super::Copy;
use crate::model::{EntryKey, EntryKeyHasher};

/// Generations of a stripe, each that of a part of its keys; a power of two. Enough that a fill is hardly
/// ever refused for the sake of another key.
const PARTS: usize = 64;

/// What a copy costs beyond key and value, in bytes: its nodes in the map and the list.
pub const OVERHEAD_BYTES: u64 = 160;

/// Entries of one stripe; what removes some answers the bytes it freed.
///
/// **Whenever a copy goes, the generation of its key moves**, so that no fill that began before can bring
/// back what is older. Only another copy takes its place without that, and only if it is no older.
pub struct Stripe {
    generations: [u64; PARTS],
    entries: LruCache<EntryKey, Copy, EntryKeyHasher>,
}

impl Default for Stripe {
    fn default() -> Self {
        Self { generations: [0; PARTS], entries: LruCache::unbounded_with_hasher(EntryKeyHasher::default()) }
    }
}

impl Stripe {
    /// Moves with every invalidation of the key.
    pub fn generation(&self, key: &EntryKey) -> u64 {
        self.generations[part(key)]
    }

    pub fn get(&mut self, key: &EntryKey) -> Option<&Copy> {
        self.entries.get(key)
    }

    /// The copy of `key`, without that being a use of it.
    pub fn peek(&self, key: &EntryKey) -> Option<&Copy> {
        self.entries.peek(key)
    }

    /// Puts `copy` where another may be; answers what that one took.
    pub fn insert(&mut self, key: EntryKey, copy: Copy) -> Option<u64> {
        let name_bytes = key.text().len();
        self.entries.put(key, copy).map(|old| old.value.len() as u64 + name_bytes as u64 + OVERHEAD_BYTES)
    }

    /// Takes the copy of `key` out, and refuses every fill of it that is under way.
    pub fn remove(&mut self, key: &EntryKey) -> Option<u64> {
        self.generations[part(key)] += 1;
        self.entries.pop(key).map(|copy| cost(key, &copy))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn remove_least_recent(&mut self) -> Option<u64> {
        let (key, copy) = self.entries.pop_lru()?;
        self.generations[part(&key)] += 1;
        Some(cost(&key, &copy))
    }

    /// Takes all copies out whose keys are `meant`, and refuses every fill that is under way.
    pub fn remove_where(&mut self, meant: impl Fn(&EntryKey) -> bool) -> Vec<u64> {
        for generation in &mut self.generations {
            *generation += 1;
        }
        let meant: Vec<EntryKey> =
            self.entries.iter().filter(|(key, _)| meant(key)).map(|(key, _)| key.clone()).collect();
        meant.iter().filter_map(|key| self.remove(key)).collect()
    }
}

/// The bytes that L1 counts for a copy.
pub fn cost(key: &EntryKey, copy: &Copy) -> u64 {
    (key.text().len() + copy.value.len()) as u64 + OVERHEAD_BYTES
}

fn part(key: &EntryKey) -> usize {
    // Other bits than those that choose the stripe and the bucket in its map.
    (key.hash() >> 40) as usize % PARTS
}
