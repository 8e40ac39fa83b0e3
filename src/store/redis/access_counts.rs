//! Reads of a shard's entries, counted in memory until they are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::unix_millis_of_last_tick;
use crate::metrics::Metrics;
use crate::model::{EntryKey, EntryKeyHasher, KeyRef, UnixMillis};
use crate::workers::PerWorker;

/// The most entries whose reads are kept in memory. Reads of further entries are dropped and counted as lost.
const MAX_ENTRIES: usize = 65_536;

/// With this many entries, the reads are written before the interval ends.
const MANY_ENTRIES: usize = 16_384;

/// While the shard evicts entries, the reads are written as soon as there are this many entries.
const FEW_ENTRIES: usize = 32;

/// Reads of one shard's entries that are not in the metadata yet.
pub struct Accesses {
    /// One map per worker, so that workers do not wait for each other.
    pending: PerWorker<Mutex<Pending>>,
    /// The number of entries in all maps.
    pub entries: AtomicUsize,
    /// Wakes the task that writes.
    pub due: Notify,
    /// Whether the shard has evicted entries since the last interval began.
    pub is_evicting: AtomicBool,
    /// Locked while a batch is being written.
    pub writing: tokio::sync::Mutex<()>,
    pub metrics: Arc<Metrics>,
}

type Pending = HashMap<EntryKey, Access, EntryKeyHasher>;

/// The reads of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub reads: u64,
    pub last: UnixMillis,
}

impl Accesses {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            pending: PerWorker::default(),
            entries: AtomicUsize::new(0),
            due: Notify::new(),
            is_evicting: AtomicBool::new(false),
            writing: tokio::sync::Mutex::default(),
            metrics,
        }
    }

    /// Counts a read of `key` now.
    pub fn add(&self, key: KeyRef<'_>) {
        self.merge(key, Access { reads: 1, last: unix_millis_of_last_tick() });
        let threshold = if self.is_evicting.load(Relaxed) { FEW_ENTRIES } else { MANY_ENTRIES };
        if self.entries.load(Relaxed) >= threshold {
            self.due.notify_one();
        }
    }

    /// Adds to the pending reads.
    pub fn merge(&self, key: KeyRef<'_>, access: Access) {
        let mut pending = self.pending.own().lock();
        if let Some(known) = pending.get_mut(&key) {
            known.add(access);
        } else if self.entries.load(Relaxed) < MAX_ENTRIES {
            pending.insert(key.to_key(), access);
            self.entries.fetch_add(1, Relaxed);
        } else {
            self.metrics.accesses_lost.increment(access.reads);
        }
    }

    /// Drops the pending reads of an entry that is gone: a new entry with the same key starts at 0.
    pub fn forget(&self, key: &EntryKey) {
        if self.entries.load(Relaxed) == 0 {
            return;
        }
        for pending in self.pending.all() {
            if pending.lock().remove(key).is_some() {
                self.entries.fetch_sub(1, Relaxed);
            }
        }
    }

    /// The pending reads of `key`.
    pub fn of(&self, key: &EntryKey) -> Option<Access> {
        let known = self.pending.all().filter_map(|pending| pending.lock().get(key).copied());
        known.reduce(|mut sum, access| {
            sum.add(access);
            sum
        })
    }

    /// Records that the shard is evicting entries, so the metadata must soon include the latest reads.
    pub fn mark_evicting(&self) {
        if !self.is_evicting.swap(true, Relaxed) {
            self.due.notify_one();
        }
    }

    /// Takes up to `most` entries from the pending reads.
    pub fn take(&self, most: usize) -> Vec<(EntryKey, Access)> {
        let mut taken: Vec<(EntryKey, Access)> = Vec::new();
        for pending in self.pending.all() {
            let mut pending = pending.lock();
            let keys: Vec<EntryKey> = pending.keys().take(most - taken.len()).cloned().collect();
            taken.extend(keys.iter().filter_map(|key| pending.remove_entry(key)));
        }
        self.entries.fetch_sub(taken.len(), Relaxed);
        taken
    }
}

impl Access {
    fn add(&mut self, more: Self) {
        self.reads += more.reads;
        self.last = self.last.max(more.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: usize) -> EntryKey {
        EntryKey::parse("n", &format!("key_{i}")).unwrap()
    }

    #[test]
    fn reads_of_one_entry_are_counted_together_until_it_is_forgotten() {
        let accesses = Accesses::new(Arc::default());
        for _ in 0..3 {
            accesses.add(key(1).borrowed());
        }
        accesses.add(key(2).borrowed());
        accesses.forget(&key(2));
        let pending = accesses.take(10);
        assert_eq!(pending.iter().map(|(key, access)| (key.key(), access.reads)).collect::<Vec<_>>(), [("key_1", 3)]);
        assert!(accesses.take(10).is_empty());
    }

    #[test]
    fn reads_of_more_and_more_keys_use_bounded_memory() {
        let accesses = Accesses::new(Arc::default());
        for i in 0..MAX_ENTRIES + 1000 {
            accesses.add(key(i).borrowed());
        }
        assert_eq!(accesses.take(usize::MAX).len(), MAX_ENTRIES);
    }
}
