//! The embedded store: entries live in this process, so there is nothing to install.
//!
//! Each namespace is a [`space::Space`] behind its own lock, with exact totals and an exact order of eviction. The
//! memory limit is for all namespaces together: when it is reached, the namespace that uses the most memory evicts
//! entries by its policy, so a small namespace never pays for a large one.

mod entries;
mod space;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;

use self::entries::Removed;
use self::space::Space;
use super::{
    Cursor, Error, FlushFailure, FlushProgress, LivingInstance, Page, Presence, Reads, RingCount, Role, Room,
    ShardHealth, ShardIndex, Store, Stored, Survey, Totals,
};
use crate::clock::Moment;
use crate::model::{Details, Entry, EntryKey, KeyRef, Namespace, Quota, Selection, Write};

/// The name of the store's only shard.
pub const NAME: &str = "embedded";

/// Entries that a flush, a listing or a sweep looks at while it holds a namespace's lock.
const BATCH: usize = 512;

/// How long a request for totals may spend on removing expired entries.
const SWEEP_FOR_TOTALS: Duration = Duration::from_millis(100);

/// Largest value in bytes that is answered without waiting. Larger values count towards the memory of answers.
const LARGEST_AT_HAND: usize = 16 * 1024 - 1;

/// An in-process store bounded by memory.
pub struct Embedded {
    spaces: RwLock<HashMap<String, Arc<Space>>>,
    /// Sum of the namespaces' costs.
    used: AtomicU64,
    limit_bytes: u64,
    names: [String; 1],
}

impl Embedded {
    /// A store that holds about `limit_bytes` of keys, values and bookkeeping.
    pub fn new(limit_bytes: u64) -> Self {
        Self { spaces: RwLock::default(), used: AtomicU64::new(0), limit_bytes, names: [NAME.to_owned()] }
    }

    fn space(&self, namespace: &str) -> Option<Arc<Space>> {
        self.spaces.read().get(namespace).cloned()
    }

    fn space_or_new(&self, namespace: &str) -> Arc<Space> {
        if let Some(space) = self.space(namespace) {
            return space;
        }
        self.spaces.write().entry(namespace.to_owned()).or_default().clone()
    }

    fn read(&self, key: &EntryKey) -> Option<Entry> {
        let (entry, removed) = self.space(key.namespace())?.get(key);
        self.release(removed);
        entry
    }

    fn put(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error> {
        let cost = entries::cost(key, space::charged(key, &write));
        if cost > self.limit_bytes {
            return Err(Error::Full { shard: NAME.to_owned() });
        }
        // Count the entry before it is stored: another task may delete it at once and subtract its cost.
        self.used.fetch_add(cost, Relaxed);
        let (stored, removed) = self.space_or_new(key.namespace()).set(key, write, quota);
        self.release(removed);
        if stored.is_none() {
            self.used.fetch_sub(cost, Relaxed);
        }
        self.make_room(key);
        stored.ok_or(Error::QuotaUsedUp)
    }

    /// Repeats a step that removes up to [`BATCH`] entries until nothing is left to do.
    async fn take_out(&self, namespace: &Namespace, step: impl Fn(&Space) -> Removed + Send) {
        let Some(space) = self.space(namespace.as_str()) else { return };
        loop {
            let removed = step(&space);
            self.release(removed);
            if removed.entries < BATCH as u64 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Removes expired entries for at most [`SWEEP_FOR_TOTALS`]. If very many entries expired at once, the totals say
    /// how many of them are still counted.
    async fn sweep_expired(&self, namespace: &Namespace) {
        let Some(space) = self.space(namespace.as_str()) else { return };
        let started = Moment::now();
        loop {
            let removed = space.sweep_expired(BATCH);
            self.release(removed);
            if removed.entries < BATCH as u64 || Moment::now().since(started) >= SWEEP_FOR_TOTALS {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn release(&self, removed: Removed) {
        self.used.fetch_sub(removed.cost, Relaxed);
    }

    /// Evicts from the largest namespace until everything fits again. The entry that was just written goes last.
    fn make_room(&self, written: &EntryKey) {
        while self.used.load(Relaxed) > self.limit_bytes {
            let largest = self.spaces.read().values().max_by_key(|space| space.cost()).cloned();
            let Some(largest) = largest else { return };
            let excess = self.used.load(Relaxed).saturating_sub(self.limit_bytes);
            let removed = largest.evict(excess, written);
            if removed.entries == 0 {
                // Another writer's entry is counted but not stored yet: that writer will evict.
                return;
            }
            self.release(removed);
        }
    }
}

#[async_trait]
impl Store for Embedded {
    fn shard_of(&self, _key: &EntryKey) -> ShardIndex {
        0
    }

    fn shard_names(&self) -> &[String] {
        &self.names
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn ring_version(&self) -> &str {
        NAME
    }

    fn shares(&self) -> Vec<f64> {
        vec![1.0]
    }

    async fn get(&self, key: &EntryKey) -> Result<Option<Entry>, Error> {
        Ok(self.read(key))
    }

    fn get_at_hand(&self, key: KeyRef<'_>) -> Option<Option<Entry>> {
        let key = key.to_key();
        let Some(space) = self.space(key.namespace()) else { return Some(None) };
        let (entry, removed) = space.get_at_most(&key, LARGEST_AT_HAND)?;
        self.release(removed);
        Some(entry)
    }

    async fn get_many(&self, keys: &[EntryKey], room: Room<'_>) -> Vec<Result<Option<Entry>, Error>> {
        let overloaded = || Error::Overloaded { shard: NAME.to_owned() };
        let mut has_room = true;
        let read = |key| {
            let found = if has_room { self.read(key) } else { None };
            has_room = has_room && found.as_ref().is_none_or(|entry| room(entry.value.len()));
            if has_room { Ok(found) } else { Err(overloaded()) }
        };
        keys.iter().map(read).collect()
    }

    async fn describe(&self, key: &EntryKey) -> Result<Option<(Entry, Details)>, Error> {
        let Some(space) = self.space(key.namespace()) else { return Ok(None) };
        let (description, removed) = space.describe(key);
        self.release(removed);
        Ok(description)
    }

    async fn set(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error> {
        self.put(key, write, quota)
    }

    async fn set_many(&self, writes: Vec<(EntryKey, Write)>, quota: Quota) -> Vec<Result<Stored, Error>> {
        writes.into_iter().map(|(key, write)| self.put(&key, write, quota)).collect()
    }

    async fn delete(&self, key: &EntryKey) -> Result<bool, Error> {
        let Some(space) = self.space(key.namespace()) else { return Ok(false) };
        let (deleted, removed) = space.delete(key);
        self.release(removed);
        Ok(deleted)
    }

    async fn flush(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        _on_deleted: &(dyn for<'k> Fn(&'k str) + Sync),
        progress: &FlushProgress,
    ) -> Result<u64, FlushFailure> {
        let Some(space) = self.space(namespace.as_str()) else { return Ok(0) };
        let before = space.last_version();
        let mut position = Some(0);
        while let Some(from) = position.filter(|_| !progress.is_cancelled()) {
            let batch = space.flush(selection, from, before, selection.step(BATCH));
            progress.add_deleted(batch.deleted);
            position = batch.next;
            self.release(batch.removed);
            tokio::task::yield_now().await;
        }
        Ok(progress.deleted())
    }

    async fn list(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let Some(space) = self.space(namespace.as_str()) else {
            return Ok(Page { size: 0, keys: Vec::new(), next: None, failed: Vec::new() });
        };
        self.sweep_expired(namespace).await;
        let from = cursor.map_or(0, |cursor| cursor.place);
        let (keys, next) = space.list(selection, from, limit, selection.step(BATCH.max(limit)));
        let next = next.map(Cursor::at);
        Ok(Page { size: space.totals().keys, keys, next, failed: Vec::new() })
    }

    async fn totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        self.sweep_expired(namespace).await;
        Ok(self.space(namespace.as_str()).map(|space| space.totals()).unwrap_or_default())
    }

    async fn booked_totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        Ok(self.space(namespace.as_str()).map(|space| space.totals()).unwrap_or_default())
    }

    async fn record_reads(&self, reads: &[(Namespace, Reads)]) -> Vec<Result<(), Error>> {
        for (namespace, reads) in reads {
            self.space_or_new(namespace.as_str()).record_reads(*reads);
        }
        reads.iter().map(|_| Ok(())).collect()
    }

    async fn forget(&self, namespace: &Namespace) -> Result<(), Error> {
        if let Some(space) = self.space(namespace.as_str()) {
            space.forget();
        }
        Ok(())
    }

    async fn sweep(&self, namespace: &Namespace, quota: Quota) -> Result<(), Error> {
        self.take_out(namespace, |space| space.sweep(BATCH, quota)).await;
        Ok(())
    }

    async fn find_evicted(&self, _namespaces: &[Namespace]) -> Result<(), Error> {
        Ok(())
    }

    async fn health(&self) -> Vec<ShardHealth> {
        vec![ShardHealth {
            name: NAME.to_owned(),
            reachable: true,
            used_bytes: self.used.load(Relaxed),
            limit_bytes: self.limit_bytes,
            findings: Vec::new(),
        }]
    }
}

/// No other process can use this store.
#[async_trait]
impl Presence for Embedded {
    async fn beat(&self, _: ShardIndex, _: &str, _: &str, _: Duration) -> Result<Vec<RingCount>, Error> {
        Ok(Vec::new())
    }

    async fn leave(&self, _: ShardIndex, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn neighbours(&self, _: Duration) -> Vec<Result<Vec<LivingInstance>, Error>> {
        Vec::new()
    }

    async fn survey(&self, _: Option<&[Namespace]>) -> Vec<Survey> {
        let keys = self.spaces.read().values().map(|space| space.totals().keys).sum();
        let one = |health| Survey { health, role: Some(Role::Primary), keys: Some(keys) };
        self.health().await.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tags;
    use bytes::Bytes;

    fn key(namespace: &str, i: usize) -> EntryKey {
        EntryKey::parse(namespace, &format!("key_{i}")).unwrap()
    }

    fn kilobyte() -> Write {
        Write { value: Bytes::from(vec![b'1'; 1024]), ttl: None, tags: Tags::default() }
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_largest_namespace_evicts() {
        let store = Embedded::new(1 << 20);
        for i in 0..10 {
            store.set(&key("small", i), kilobyte(), Quota::default()).await.unwrap();
        }
        for i in 0..5000 {
            store.set(&key("large", i), kilobyte(), Quota::default()).await.unwrap();
            assert!(store.used.load(Relaxed) <= 1 << 20);
        }
        let small = store.totals(&Namespace::parse("small").unwrap()).await.unwrap();
        let large = store.totals(&Namespace::parse("large").unwrap()).await.unwrap();
        assert_eq!((small.keys, small.evictions), (10, 0));
        assert_eq!(large.keys + large.evictions, 5000);
        assert_eq!(large.bytes, large.keys * 1024);
        assert!(store.get(&key("large", 4999)).await.unwrap().is_some(), "the newest stays");
        assert!(store.get(&key("large", 0)).await.unwrap().is_none(), "the oldest went");
    }

    #[tokio::test]
    async fn no_memory_is_counted_after_everything_was_deleted() {
        let store = Embedded::new(1 << 20);
        for i in 0..100 {
            store.set(&key("n", i), kilobyte(), Quota::default()).await.unwrap();
            store.set(&key("n", i), kilobyte(), Quota::default()).await.unwrap();
        }
        store.delete(&key("n", 1)).await.unwrap();
        let deleted =
            store.flush(&Namespace::parse("n").unwrap(), &Selection::All, &|_| {}, &FlushProgress::default()).await;
        assert_eq!(deleted.unwrap(), 99);
        assert_eq!(store.used.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_value_larger_than_the_store_is_refused() {
        let store = Embedded::new(1000);
        assert!(matches!(store.set(&key("n", 1), kilobyte(), Quota::default()).await, Err(Error::Full { .. })));
    }
}
