//! The embedded store: entries live in this process, so there is nothing to install.
//!
//! Each namespace is a [`space::Space`] behind its own lock, with exact totals and an exact order of eviction. The
//! memory limit is for all namespaces together: when it is reached, the namespace that uses the most memory evicts
//! entries by its policy, so a small namespace never pays for a large one.

mod entries;
mod leased_reads;
mod leases;
mod mark;
mod patch;
mod space;
mod tombstones;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;

use self::space::Space;
use super::{
    Cursor, Deleted, Error, FlushFailure, FlushProgress, Leased, LivingInstance, Page, Patched, Presence, Reads,
    Removal, RingCount, Role, Room, ShardHealth, ShardIndex, Store, Stored, Survey, Totals,
};
use crate::clock::Moment;
use crate::model::{
    Details, Entry, EntryKey, KeyRef, LeaseToken, Namespace, Patch, Position, Positions, Preconditions, Quota,
    Selection, WantedLease, Write,
};

/// The name of the store's only shard.
pub const NAME: &str = "embedded";

/// Entries that a flush, a listing or a sweep looks at while it holds a namespace's lock.
const BATCH: usize = 512;

/// How long a request for totals may spend on removing expired entries.
const SWEEP_FOR_TOTALS: Duration = Duration::from_millis(100);

/// Largest value in bytes that is answered without waiting. Larger values count towards the memory of answers.
const LARGEST_WITHOUT_WAITING: usize = 16 * 1024 - 1;

/// An in-process store bounded by memory.
pub struct Embedded {
    spaces: RwLock<HashMap<String, Arc<Space>>>,
    /// Sum of the namespaces' costs.
    used: Arc<AtomicU64>,
    limit_bytes: u64,
    names: [String; 1],
    /// Names this life of the store in positions. Nothing of an earlier life is left.
    incarnation: u64,
    /// The number of the last change.
    changes: AtomicU64,
}

impl Embedded {
    /// A store that holds about `limit_bytes` of keys, values and bookkeeping.
    pub fn new(limit_bytes: u64) -> Self {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the system provides random numbers");
        Self {
            spaces: RwLock::default(),
            used: Arc::default(),
            limit_bytes,
            names: [NAME.to_owned()],
            incarnation: u64::from_le_bytes(bytes),
            changes: AtomicU64::new(0),
        }
    }

    /// Counts a change that was made, and returns its position.
    fn count_change(&self) -> Position {
        let seq = self.changes.fetch_add(1, Relaxed) + 1;
        Position { seq, ..self.present_position() }
    }

    fn present_position(&self) -> Position {
        Position { incarnation: self.incarnation, ring: 1, seq: self.changes.load(Relaxed) }
    }

    /// Checks that the store has every change up to its own `positions`. Nothing of an earlier start is left.
    fn check(&self, positions: &Positions) -> Result<(), Error> {
        let present = self.present_position();
        let has = |position: Position| position.incarnation == present.incarnation && position.seq <= present.seq;
        if positions.of(NAME).all(has) { Ok(()) } else { Err(Error::PositionLost { shard: NAME.to_owned() }) }
    }

    fn space(&self, namespace: &str) -> Option<Arc<Space>> {
        self.spaces.read().get(namespace).cloned()
    }

    fn space_or_new(&self, namespace: &str) -> Arc<Space> {
        if let Some(space) = self.space(namespace) {
            return space;
        }
        let new = || Arc::new(Space::new(self.used.clone()));
        self.spaces.write().entry(namespace.to_owned()).or_insert_with(new).clone()
    }

    fn read(&self, key: &EntryKey, most: usize) -> Option<Option<Entry>> {
        self.space(key.namespace()).map_or(Some(None), |space| space.get(key, most))
    }

    fn put(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error> {
        if entries::cost(key, space::charged(key, &write)) > self.limit_bytes {
            return Err(Error::Full { shard: NAME.to_owned() });
        }
        let stored = self.space_or_new(key.namespace()).set(key, write, quota);
        self.make_room(key);
        Ok(Stored { position: self.count_change(), ..stored? })
    }

    /// Sweeps a namespace in steps of up to [`BATCH`] entries, until nothing is left to do or for about `patience`.
    async fn sweep_in_steps(&self, namespace: &Namespace, quota: Option<Quota>, patience: Duration) {
        let Some(space) = self.space(namespace.as_str()) else { return };
        let started = Moment::now();
        while space.sweep(BATCH, quota) == BATCH && Moment::now().since(started) < patience {
            tokio::task::yield_now().await;
        }
    }

    /// Evicts from the largest namespace until everything fits again. The entry that was just written goes last.
    fn make_room(&self, written: &EntryKey) {
        while self.used.load(Relaxed) > self.limit_bytes {
            let largest = self.spaces.read().values().max_by_key(|space| space.cost()).cloned();
            let Some(largest) = largest else { return };
            let excess = self.used.load(Relaxed).saturating_sub(self.limit_bytes);
            if !largest.evict(excess, written) {
                // Another task has removed the entries meanwhile.
                return;
            }
        }
    }
}

/// The error of a change whose preconditions need an entry, in a namespace that has none.
fn refused_without_entry(preconditions: Option<&Preconditions>) -> Option<Error> {
    let is_refused = preconditions.is_some_and(|preconditions| !preconditions.allow(None));
    is_refused.then_some(Error::PreconditionFailed { present: None })
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
        Ok(self.read(key, usize::MAX).flatten())
    }

    fn get_without_waiting(&self, key: KeyRef<'_>) -> Option<Option<Entry>> {
        self.read(&key.to_key(), LARGEST_WITHOUT_WAITING)
    }

    fn peek(&self, key: KeyRef<'_>) -> Option<Entry> {
        self.space(key.namespace())?.peek(&key.to_key())
    }

    async fn get_many(
        &self,
        keys: &[EntryKey],
        positions: &Positions,
        room: Room<'_>,
    ) -> Vec<Result<Option<Entry>, Error>> {
        if let Err(error) = self.check(positions) {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        let overloaded = || Error::Overloaded { shard: NAME.to_owned() };
        let mut has_room = true;
        let read = |key| {
            let found = if has_room { self.read(key, usize::MAX).flatten() } else { None };
            has_room = has_room && found.as_ref().is_none_or(|entry| room(entry.value.len()));
            if has_room { Ok(found) } else { Err(overloaded()) }
        };
        keys.iter().map(read).collect()
    }

    async fn positions(&self) -> Vec<Option<Position>> {
        vec![Some(self.present_position())]
    }

    async fn describe(&self, key: &EntryKey, positions: &Positions) -> Result<Option<(Entry, Details)>, Error> {
        self.check(positions)?;
        Ok(self.space(key.namespace()).and_then(|space| space.describe(key)))
    }

    async fn set(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error> {
        self.put(key, write, quota)
    }

    async fn set_many(&self, writes: Vec<(EntryKey, Write)>, quota: Quota) -> Vec<Result<Stored, Error>> {
        writes.into_iter().map(|(key, write)| self.put(&key, write, quota)).collect()
    }

    async fn get_or_lease(
        &self,
        wanted: &[WantedLease],
        lease: Duration,
        positions: &Positions,
        room: Room<'_>,
    ) -> Vec<Result<Leased, Error>> {
        if let Err(error) = self.check(positions) {
            return wanted.iter().map(|_| Err(error.clone())).collect();
        }
        let mut has_room = true;
        let get_or_lease = |wanted: &WantedLease| {
            let leased = has_room.then(|| self.space_or_new(wanted.key.namespace()).get_or_lease(wanted, lease));
            if let Some(Leased { entry: Some(entry), .. }) = &leased {
                has_room = room(entry.value.len());
            }
            leased.filter(|_| has_room).ok_or_else(|| Error::Overloaded { shard: NAME.to_owned() })
        };
        wanted.iter().map(get_or_lease).collect()
    }

    async fn release(&self, key: &EntryKey, token: &LeaseToken) -> Result<Option<Position>, Error> {
        let stood = self.space(key.namespace()).is_some_and(|space| space.release(key, token));
        Ok(stood.then(|| self.count_change()))
    }

    async fn patch(&self, key: &EntryKey, patch: &Patch, quota: Quota) -> Result<Option<Patched>, Error> {
        let Some(space) = self.space(key.namespace()) else {
            return refused_without_entry(patch.preconditions.as_deref()).map_or(Ok(None), Err);
        };
        let patched = space.patch(key, patch, quota, self.limit_bytes);
        self.make_room(key);
        Ok(patched?.map(|patched| Patched { position: self.count_change(), ..patched }))
    }

    async fn delete(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        tombstone_ttl: Duration,
    ) -> Result<Deleted, Error> {
        let existed = match self.space(key.namespace()) {
            _ if preconditions.is_some_and(|preconditions| preconditions.source_version.is_some()) => {
                let existed = self.space_or_new(key.namespace()).delete(key, preconditions, tombstone_ttl);
                self.make_room(key);
                existed
            }
            Some(space) => space.delete(key, preconditions, tombstone_ttl),
            None => refused_without_entry(preconditions).map_or(Ok(false), Err),
        }?;
        Ok(Deleted { existed, position: self.count_change() })
    }

    async fn mark(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        removal: Removal,
    ) -> Result<Deleted, Error> {
        let existed = match self.space(key.namespace()) {
            Some(space) => space.mark(key, preconditions, removal),
            None if preconditions.is_none_or(|preconditions| preconditions.allow(None)) => Ok(false),
            None => Err(Error::PreconditionFailed { present: None }),
        }?;
        Ok(Deleted { existed, position: self.count_change() })
    }

    async fn flush(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        _on_deleted: &(dyn for<'k> Fn(&'k str) + Sync),
        progress: &FlushProgress,
        removal: Removal,
    ) -> Result<u64, FlushFailure> {
        let Some(space) = self.space(namespace.as_str()) else { return Ok(0) };
        space.end_leases();
        let before = space.last_version();
        let mut position = Some(0);
        while let Some(from) = position.filter(|_| !progress.is_cancelled()) {
            let (deleted, next) = space.flush(selection, from, before, selection.step(BATCH), removal);
            progress.add_deleted(deleted);
            position = next;
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
        self.sweep_in_steps(namespace, None, SWEEP_FOR_TOTALS).await;
        let from = cursor.map_or(0, |cursor| cursor.place);
        let (keys, next) = space.list(selection, from, limit, selection.step(BATCH.max(limit)));
        let next = next.map(Cursor::at);
        Ok(Page { size: space.totals().keys, keys, next, failed: Vec::new() })
    }

    async fn totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        self.sweep_in_steps(namespace, None, SWEEP_FOR_TOTALS).await;
        self.booked_totals(namespace).await
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
        self.sweep_in_steps(namespace, Some(quota), Duration::MAX).await;
        Ok(())
    }

    fn tombstones_dropped(&self) -> u64 {
        self.spaces.read().values().map(|space| space.tombstones_dropped()).sum()
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
    use bytes::Bytes;

    fn key(namespace: &str, i: usize) -> EntryKey {
        EntryKey::parse(namespace, &format!("key_{i}")).unwrap()
    }

    fn kilobyte() -> Write {
        Write { value: Bytes::from(vec![b'1'; 1024]), ..Write::default() }
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
        store.delete(&key("n", 1), None, Duration::ZERO).await.unwrap();
        let deleted = store
            .flush(
                &Namespace::parse("n").unwrap(),
                &Selection::All,
                &|_| {},
                &FlushProgress::default(),
                Removal::deletion(Duration::ZERO),
            )
            .await;
        assert_eq!(deleted.unwrap(), 99);
        assert_eq!(store.used.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_value_larger_than_the_store_is_refused() {
        let store = Embedded::new(1000);
        assert!(matches!(store.set(&key("n", 1), kilobyte(), Quota::default()).await, Err(Error::Full { .. })));
    }
}
