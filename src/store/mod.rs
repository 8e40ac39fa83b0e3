//! The store of entries: the trait that every store implements, and its two implementations.
//!
//! A store decides nothing about policy or protocol. A write and all of its bookkeeping happen in one step, or not at
//! all.

mod cursor;
pub mod embedded;
mod error;
mod presence;
mod progress;
pub mod redis;
mod removal;

use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use cursor::Cursor;
pub use error::Error;
pub use presence::{
    Finding, LivingInstance, Presence, RING_MISMATCH, RingCount, Role, Severity, ShardHealth, Survey,
};
pub use progress::FlushProgress;
pub use removal::{Removal, Windows};

use crate::clock::Moment;
use crate::model::{
    Details, Entry, EntryKey, Key, KeyRef, LeaseToken, Namespace, Patch, Position, Positions, Preconditions, Quota,
    Selection, Version, WantedLease, Write,
};

/// Index of a shard within its store. It does not change while the process runs.
pub type ShardIndex = u16;

/// What a successful write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub outcome: Outcome,
    pub version: Version,
    /// The position of the shard after the write.
    pub position: Position,
}

/// What a deletion or a mark did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether there was a live entry.
    pub existed: bool,
    /// The position of the shard after it.
    pub position: Position,
}

/// An entry after a change that kept its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patched {
    pub version: Version,
    /// Time left; `None` for an entry that never expires.
    pub expires_in: Option<Duration>,
    /// The position of the shard after the change.
    pub position: Position,
}

/// Whether the key had a live entry before the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Replaced,
}

/// The answer to a read that asks for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// `None` also if the entry counts as missing.
    pub entry: Option<Entry>,
    pub lease: Grant,
}

/// Whether a read that asked for a lease got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    Won,
    /// Another caller has the lease for the time `left`.
    Held {
        left: Duration,
    },
    /// The store gives no lease at present.
    NotGiven,
    /// There is an entry, which should be refreshed only after the time `left`; `None`: never.
    NotDue {
        left: Option<Duration>,
    },
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Number of live keys in the whole namespace, whatever the page selects.
    pub size: u64,
    pub keys: Vec<String>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Cursor>,
    /// The errors of the shards that did not answer. Their keys are missing from `keys` and from `size`.
    pub failed: Vec<Error>,
}

/// The totals of one namespace on the shards that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownTotals {
    pub totals: Totals,
    /// The errors of the shards that did not answer. Their part is missing from `totals`.
    pub failed: Vec<Error>,
}

/// The totals of one namespace over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub hits: u64,
    pub misses: u64,
    pub keys: u64,
    /// Sum of the value sizes.
    pub bytes: u64,
    /// The bytes that count towards quotas, see [`crate::model::charge`].
    pub charged: u64,
    pub evictions: u64,
    pub expirations: u64,
    /// The part of `evictions` that happened because the server ran out of memory, not because of the quota.
    pub redis_evictions: u64,
    /// About how many of `keys` have expired but are not removed yet.
    pub unswept: u64,
    /// Whether part of the index was lost and a repair is still looking for the entries.
    pub is_in_repair: bool,
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(totals: I) -> Self {
        totals.fold(Self::default(), |sum, one| Self {
            hits: sum.hits + one.hits,
            misses: sum.misses + one.misses,
            keys: sum.keys + one.keys,
            bytes: sum.bytes + one.bytes,
            charged: sum.charged + one.charged,
            evictions: sum.evictions + one.evictions,
            expirations: sum.expirations + one.expirations,
            redis_evictions: sum.redis_evictions + one.redis_evictions,
            unswept: sum.unswept + one.unswept,
            is_in_repair: sum.is_in_repair || one.is_in_repair,
        })
    }
}

/// Hits and misses of one namespace that are not in its stats yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub hits: u64,
    pub misses: u64,
}

impl AddAssign for Reads {
    fn add_assign(&mut self, more: Self) {
        self.hits += more.hits;
        self.misses += more.misses;
    }
}

/// Called with the size in bytes of the values that were just read; returns whether the request may keep them in
/// memory.
pub type Room<'r> = &'r (dyn Fn(usize) -> bool + Sync);

/// A flush that did not complete on all shards.
#[derive(Clone, Debug)]
pub struct FlushFailure {
    /// Entries that were deleted nevertheless.
    pub deleted: u64,
    pub error: Error,
}

/// Receives what the shards report about cached copies of their entries. See `coherence`.
pub trait InvalidationSink: Send + Sync + 'static {
    /// A message on the invalidation channel of `shard`; `payload` is exactly what was published.
    fn apply(&self, shard: ShardIndex, payload: &[u8]);
    /// Messages of `shard` may have been lost, so every copy of its entries is void.
    fn lost(&self, shard: ShardIndex);
    /// Every invalidation that `shard` published before `moment` has arrived here, or was lost. `last` is the last
    /// change before `moment`.
    fn proven(&self, shard: ShardIndex, moment: Moment, last: Position);
}

/// A store of entries.
#[async_trait]
pub trait Store: Presence {
    /// The shard that owns `key`.
    fn shard_of(&self, key: &EntryKey) -> ShardIndex;

    /// The names of the shards, by index.
    fn shard_names(&self) -> &[String];

    /// Whether entries live in another process, so that local copies are worthwhile and need coherence.
    fn is_remote(&self) -> bool;

    /// A short text that is equal in all processes whose ring assigns every key to the same shard.
    fn ring_version(&self) -> &str;

    /// The share of all key hashes that each shard owns, by index. The shares add up to 1.
    fn shares(&self) -> Vec<f64>;

    async fn get(&self, key: &EntryKey) -> Result<Option<Entry>, Error>;

    /// The same answer as [`Store::get`] if the store is in this process and can answer without waiting and without
    /// failing.
    fn get_without_waiting(&self, _key: KeyRef<'_>) -> Option<Option<Entry>> {
        None
    }

    /// The entry, if the store is in this process. The read is not counted.
    fn peek(&self, _key: KeyRef<'_>) -> Option<Entry> {
        None
    }

    /// Reads many entries; the answers are in the order of `keys`. No change up to `positions` is missing from them. As
    /// soon as `room` returns false, nothing more is read and the remaining keys fail.
    ///
    /// # Errors
    /// [`Error::PositionLost`]: the key's shard does not have every change up to its positions.
    async fn get_many(
        &self,
        keys: &[EntryKey],
        positions: &Positions,
        room: Room<'_>,
    ) -> Vec<Result<Option<Entry>, Error>>;

    /// The position of each shard now, by index; `None` for a shard that does not answer.
    async fn positions(&self) -> Vec<Option<Position>>;

    /// Reads an entry with its details. The details include this process's reads so far, but not this read. No change
    /// up to `positions` is missing.
    ///
    /// # Errors
    /// [`Error::PositionLost`], or the shard failed.
    async fn describe(&self, key: &EntryKey, positions: &Positions) -> Result<Option<(Entry, Details)>, Error>;

    /// Whether a listing of this store can have issued `cursor`.
    fn may_have_issued(&self, _cursor: &Cursor) -> bool {
        true
    }

    /// Records that a read found the entry of `key`. Only for stores that do not see all reads: other stores count in
    /// [`Store::get`] and [`Store::describe`].
    fn accessed(&self, _key: KeyRef<'_>) {}

    /// Stores an entry, after making room within `quota`.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::QuotaUsedUp`] when there is no room, [`Error::PreconditionFailed`],
    /// [`Error::NewerVersionExists`]. The old entry of the key then stays.
    async fn set(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error>;

    /// Writes many entries of one namespace, each completely or not at all. No key occurs twice in `writes`. The
    /// answers are in the order of `writes`.
    async fn set_many(&self, writes: Vec<(EntryKey, Write)>, quota: Quota) -> Vec<Result<Stored, Error>>;

    /// Reads many entries of one namespace. Gives the lease on each key that has no entry, whose entry counts as
    /// missing, or whose entry should be refreshed, unless another caller has a lease on the key. The answers are in
    /// the order of `wanted`, and no change up to `positions` is missing from them. A lease may be given although the
    /// answer for its key is an error.
    async fn get_or_lease(
        &self,
        wanted: &[WantedLease],
        lease: Duration,
        positions: &Positions,
        room: Room<'_>,
    ) -> Vec<Result<Leased, Error>>;

    /// Ends a lease without a value. Returns the position of the shard after that; `None` if the lease did not stand.
    async fn release(&self, key: &EntryKey, token: &LeaseToken) -> Result<Option<Position>, Error>;

    /// Changes the TTL or the tags of an entry, after making room within `quota` for more tags. Its value and its
    /// version stay. Returns `None` if there is no live entry. Ends no lease, because the value is the same.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`], [`Error::Full`] or [`Error::QuotaUsedUp`] when there is no room for the tags. The
    /// entry then stays as it was.
    async fn patch(&self, key: &EntryKey, patch: &Patch, quota: Quota) -> Result<Option<Patched>, Error>;

    /// Deletes an entry. Its source version, or the one in `preconditions`, stays as a tombstone for `tombstone_ttl`.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`], [`Error::NewerVersionExists`], and others if the shard failed.
    async fn delete(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        tombstone_ttl: Duration,
    ) -> Result<Deleted, Error>;

    /// Ends the freshness of an entry now; if it has no window in which it may still be answered, deletes it. Ends the
    /// lease of its key.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`], and others if the shard failed.
    async fn mark(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        removal: Removal,
    ) -> Result<Deleted, Error>;

    /// Ends all leases of the namespace, and then deletes or marks, as `removal` says, the entries that `selection`
    /// matches and that were written before the call. Returns how many live entries that were. Source versions of
    /// deleted entries stay as in [`Store::delete`]. A remote store reports the keys to `on_deleted`, batch by batch.
    /// The flush updates `progress`; if it is cancelled there, it stops within one step and returns no error.
    ///
    /// # Errors
    /// [`FlushFailure`] when a shard failed. The other shards are flushed nevertheless.
    async fn flush(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        on_deleted: &(dyn for<'k> Fn(&'k str) + Sync),
        progress: &FlushProgress,
        removal: Removal,
    ) -> Result<u64, FlushFailure>;

    /// Lists live keys that `selection` matches, about `limit` per page. Shards that do not answer are skipped and
    /// reported in [`Page::failed`].
    ///
    /// # Errors
    /// No shard answers, or a shard answers but cannot list.
    async fn list(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error>;

    /// The totals of the namespace, after removing expired entries.
    async fn totals(&self, namespace: &Namespace) -> Result<Totals, Error>;

    /// The stored totals of the namespace, which may include entries that expired a moment ago. The cost does not
    /// depend on how many entries have expired.
    async fn booked_totals(&self, namespace: &Namespace) -> Result<Totals, Error>;

    /// The totals of the shards that answer.
    ///
    /// # Errors
    /// No shard answers.
    async fn known_totals(&self, namespace: &Namespace) -> Result<KnownTotals, Error> {
        Ok(KnownTotals { totals: self.totals(namespace).await?, failed: Vec::new() })
    }

    /// Adds reads to the stats of their namespaces; the answers are in the order of `reads`.
    async fn record_reads(&self, reads: &[(Namespace, Reads)]) -> Vec<Result<(), Error>>;

    /// Removes the stats and tombstones of a namespace that has no keys any more.
    async fn forget(&self, namespace: &Namespace) -> Result<(), Error>;

    /// Removes expired entries of `namespace`, and evicts entries by its eviction policy while it is over `quota`.
    async fn sweep(&self, namespace: &Namespace, quota: Quota) -> Result<(), Error>;

    /// Looks for entries that the store itself evicted since the last call, and corrects the totals. Works slowly on
    /// purpose, so that it does not disturb requests.
    async fn find_evicted(&self, namespaces: &[Namespace]) -> Result<(), Error>;

    /// The namespaces that have data or stats in the store, if the store is another process.
    async fn stored_namespaces(&self) -> Result<Vec<Namespace>, Error> {
        Ok(Vec::new())
    }

    async fn health(&self) -> Vec<ShardHealth>;

    /// Reads how much memory the shards use and whether it is enough. `namespaces` are all namespaces. Problems
    /// appear in [`Store::health`].
    async fn look_at_memory(&self, _namespaces: &[Namespace]) {}

    /// How many tombstones this process saw lost, or had to give up before their time.
    fn tombstones_dropped(&self) -> u64;

    /// Updates the gauges of the store; called before the metrics are shown.
    fn refresh_gauges(&self) {}
}

/// A store shared by the whole process.
pub type SharedStore = Arc<dyn Store>;

/// Builds an entry key from parts that were valid when they were stored; `None` if they are not valid any more.
pub(crate) fn entry_key(namespace: &Namespace, key: &str) -> Option<EntryKey> {
    Key::parse(key).ok().map(|key| EntryKey::new(namespace, &key))
}
