//! Counts reads of entries in memory and writes the counts into the metadata in batches: a read never causes a write
//! of its own.
//!
//! Eviction by use decides by the metadata. So while a shard evicts, a batch is written as soon as a few reads have
//! been collected, and not only once per interval: a namespace may replace all its entries several times a second.
//!
//! A known inaccuracy: if a key is deleted and created again, reads of the old entry that another instance has not
//! written yet may count for the new entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fred::types::Value;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::belonging::Settled;
use super::reply;
use super::scripts;
use super::shard::{Effect, Shard};
use crate::clock::{unix_millis, unix_millis_of_last_tick};
use crate::metrics::Metrics;
use crate::model::{Details, Entry, EntryKey, EntryKeyHasher, KeyRef, UnixMillis};
use crate::store::Error;
use crate::workers::PerWorker;

/// The most entries whose reads are kept in memory. Reads of further entries are dropped and counted as lost.
const MAX_ENTRIES: usize = 65_536;

/// With this many entries, the reads are written before the interval ends.
const MANY_ENTRIES: usize = 16_384;

/// While the shard evicts by use, this many entries are enough.
const FEW_ENTRIES: usize = 32;

/// Entries that one script writes to.
const ENTRIES_PER_SCRIPT: usize = 100;

/// Reads of one shard's entries that are not in the metadata yet.
pub struct Accesses {
    /// One map per worker, so that workers do not wait for each other.
    pending: PerWorker<Mutex<Pending>>,
    /// The number of entries in all maps.
    entries: AtomicUsize,
    /// Wakes the task that writes.
    due: Notify,
    /// Whether the shard has evicted entries since the last interval began.
    is_evicting: AtomicBool,
    /// Locked while a batch is being written.
    writing: tokio::sync::Mutex<()>,
    metrics: Arc<Metrics>,
}

type Pending = HashMap<EntryKey, Access, EntryKeyHasher>;

/// The reads of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    reads: u64,
    last: UnixMillis,
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
    fn merge(&self, key: KeyRef<'_>, access: Access) {
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
    fn of(&self, key: &EntryKey) -> Option<Access> {
        let known = self.pending.all().filter_map(|pending| pending.lock().get(key).copied());
        known.reduce(|mut sum, access| {
            sum.add(access);
            sum
        })
    }

    /// The shard is evicting entries: the metadata must include the latest reads.
    pub fn note_eviction(&self) {
        if !self.is_evicting.swap(true, Relaxed) {
            self.due.notify_one();
        }
    }

    /// Takes up to `most` entries from the pending reads.
    fn take(&self, most: usize) -> Vec<(EntryKey, Access)> {
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

impl Shard {
    /// Writes the pending reads every `period` and whenever there are many, until `shutdown`, and then once more.
    pub async fn run_accesses(self: Arc<Self>, period: Duration, shutdown: CancellationToken) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut went_well = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => self.accesses.is_evicting.store(false, Relaxed),
                () = self.accesses.due.notified(), if went_well => {}
            }
            went_well = self.record_accesses().await.is_ok();
        }
        if let Err(error) = self.record_accesses().await {
            tracing::warn!(%error, "could not write the latest reads into the metadata of their entries");
        }
    }

    /// Reads an entry with its details, including the pending reads.
    pub async fn describe(&self, key: &EntryKey) -> Result<Option<(Entry, Details)>, Error> {
        // While a batch is being written, its reads are no longer pending and not certainly stored.
        let _quiet = self.accesses.writing.lock().await;
        let pending = self.accesses.of(key);
        let mut described = self.describe_stored(key).await?;
        if let (Some((_, details)), Some(access)) = (&mut described, pending) {
            details.access_count += access.reads;
            details.last_accessed = details.last_accessed.max(access.last);
        }
        Ok(described)
    }

    /// Writes all reads that are pending now. Reads that were certainly not written become pending again. Reads that
    /// may have been written are dropped, because losing them is better than counting them twice.
    async fn record_accesses(&self) -> Result<(), Error> {
        let batches = self.accesses.entries.load(Relaxed).div_ceil(ENTRIES_PER_SCRIPT);
        for _ in 0..batches {
            let _writing = self.accesses.writing.lock().await;
            let batch = self.accesses.take(ENTRIES_PER_SCRIPT);
            let arguments = |_: &Settled| {
                let now = unix_millis();
                let all = batch.iter().flat_map(|(key, access)| {
                    let age_ms = now.0.saturating_sub(access.last.0);
                    [key.text().to_owned(), access.reads.to_string(), age_ms.to_string()]
                });
                all.map(Value::from).collect()
            };
            let written = self.ask(&scripts::RECORD_ACCESSES, Effect::Write, arguments, reply::number).await;
            let Err(error) = written else { continue };
            for (key, access) in &batch {
                if error.may_have_happened() {
                    self.accesses.metrics.accesses_lost.increment(access.reads);
                } else {
                    self.accesses.merge(key.borrowed(), *access);
                }
            }
            return Err(error);
        }
        Ok(())
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
