//! One stripe of L1: an LRU map and the generation that fences its fills.

use lru::LruCache;

use super::Copy;
use crate::model::{EntryKey, EntryKeyHasher};

/// Entries of one stripe; every method answers the bytes it freed.
pub struct Stripe {
    /// Moves with every invalidation of a key of this stripe.
    pub generation: u64,
    entries: LruCache<EntryKey, (Copy, u64), EntryKeyHasher>,
}

impl Default for Stripe {
    fn default() -> Self {
        Self { generation: 0, entries: LruCache::unbounded_with_hasher(EntryKeyHasher::default()) }
    }
}

impl Stripe {
    pub fn get(&mut self, key: &EntryKey) -> Option<&Copy> {
        self.entries.get(key).map(|(copy, _)| copy)
    }

    pub fn insert(&mut self, key: EntryKey, copy: Copy, cost: u64) -> Option<u64> {
        self.entries.put(key, (copy, cost)).map(|(_, cost)| cost)
    }

    pub fn remove(&mut self, key: &EntryKey) -> Option<u64> {
        self.entries.pop(key).map(|(_, cost)| cost)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn remove_least_recent(&mut self) -> Option<u64> {
        self.entries.pop_lru().map(|(_, (_, cost))| cost)
    }

    pub fn remove_where(&mut self, meant: impl Fn(&EntryKey) -> bool) -> Vec<u64> {
        let meant: Vec<EntryKey> =
            self.entries.iter().filter(|(key, _)| meant(key)).map(|(key, _)| key.clone()).collect();
        meant.iter().filter_map(|key| self.remove(key)).collect()
    }
}
