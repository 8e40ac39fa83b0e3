//! Where entries live: the trait that every store keeps, and its two implementations.
//!
//! A store decides nothing about policy or protocol. It answers for whole operations: a write and
//! all its bookkeeping happen in one step or not at all.

mod cursor;
pub mod embedded;
mod error;
mod finding;
mod presence;
mod progress;
pub mod redis;

use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::Arc;

use async_trait::async_trait;

pub use cursor::Cursor;
pub use error::Error;
pub use finding::{Finding, Severity};
pub use presence::{Neighbour, Presence, RingCount, Role, Survey};
pub use progress::FlushProgress;

use crate::clock::Moment;
use crate::model::{Details, Entry, EntryKey, Key, KeyRef, Namespace, Quota, Selection, Version, Write};

/// Index of a shard within its store; stable for the life of the process.
pub type ShardIndex = u16;

/// What a successful write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub outcome: Outcome,
    pub version: Version,
}

/// Whether a live entry stood under the key before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Replaced,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Live keys of the whole namespace, whatever the page selects.
    pub size: u64,
    pub keys: Vec<String>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
    /// Why shards did not answer: their keys are missing, in `size`, too.
    pub failed: Vec<Error>,
}

/// The numbers of one namespace on the shards that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownTotals {
    pub totals: Totals,
    /// Why the others did not: what they hold is missing.
    pub failed: Vec<Error>,
}

/// The numbers of one namespace, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub hits: u64,
    pub misses: u64,
    pub keys: u64,
    /// Of values.
    pub bytes: u64,
    /// What quotas count, see [`crate::model::charge`].
    pub charged: u64,
    pub evictions: u64,
    pub expirations: u64,
    /// Those of `evictions` that were for want of the server's memory, and not of the quota.
    pub redis_evictions: u64,
    /// About how many of `keys` have expired and are not taken out yet.
    pub unswept: u64,
    /// Whether a part of the index was lost, and entries are being found again.
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

/// Reads of one namespace not yet in its stats.
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

/// Called with the bytes of the values just read; answers whether the request may hold them.
pub type Room<'r> = &'r (dyn Fn(usize) -> bool + Sync);

/// How one shard is doing.
#[derive(Clone, Debug)]
pub struct ShardHealth {
    pub name: String,
    pub reachable: bool,
    /// Bytes in use, where it answered.
    pub used_bytes: u64,
    /// The most it may use; 0 when it did not answer.
    pub limit_bytes: u64,
    /// What is wrong with it, the worst first.
    pub findings: Vec<Finding>,
}

impl ShardHealth {
    /// Whether the shard is there and cannot be used.
    pub fn is_refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Refused)
    }
}

/// A flush that did not reach everything.
#[derive(Clone, Debug)]
pub struct FlushFailure {
    /// Entries deleted all the same.
    pub deleted: u64,
    pub error: Error,
}

/// Hears from the shards what concerns copies of their entries. See `coherence`.
pub trait InvalidationSink: Send + Sync + 'static {
    /// A message of the invalidation channel of `shard`; `payload` as published.
    fn apply(&self, shard: ShardIndex, payload: &[u8]);
    /// Messages of `shard` may have been lost: every copy of its entries is void.
    fn lost(&self, shard: ShardIndex);
    /// Every invalidation that `shard` published before `moment` has been applied.
    fn proven(&self, shard: ShardIndex, moment: Moment);
}

/// A store of entries.
#[async_trait]
pub trait Store: Presence {
    /// The shard that owns `key`.
    fn shard_of(&self, key: &EntryKey) -> ShardIndex;

    /// The shards' names, by index.
    fn shard_names(&self) -> &[String];

    /// Whether entries live in another process, so that copies of them pay and need coherence.
    fn is_remote(&self) -> bool;

    /// A short text that is the same in all processes that look for a key on the same shard.
    fn ring_version(&self) -> &str;

    /// The part of all keys' hashes that each shard owns, by index; together 1.
    fn shares(&self) -> Vec<f64>;

    async fn get(&self, key: &EntryKey) -> Result<Option<Entry>, Error>;

    /// The answer of [`Store::get`] where that takes no waiting and cannot fail, as the store is in this process.
    fn get_at_hand(&self, _key: KeyRef<'_>) -> Option<Option<Entry>> {
        None
    }

    /// Reads many entries; the answers stand in the order of `keys`. Once `room` has no more, nothing more is
    /// read, and what is missing fails.
    async fn get_many(&self, keys: &[EntryKey], room: Room<'_>) -> Vec<Result<Option<Entry>, Error>>;

    /// Reads an entry with what is counted about it, this process's latest reads included. Counts
    /// as no read itself.
    async fn describe(&self, key: &EntryKey) -> Result<Option<(Entry, Details)>, Error>;

    /// Whether a listing of this store can have given `cursor`.
    fn gave(&self, _cursor: &Cursor) -> bool {
        true
    }

    /// Notes that a read found the entry of `key`, for stores that do not see all reads. Others count
    /// in [`Store::get`] and [`Store::describe`].
    fn accessed(&self, _key: KeyRef<'_>) {}

    /// Stores an entry, after making room as `quota` says.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::QuotaUsedUp`] when there is no room; what stood under the key stays.
    async fn set(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error>;

    /// Writes many entries of one namespace, each whole or not at all. No key stands in `writes`
    /// twice; the answers stand in its order.
    async fn set_many(&self, writes: Vec<(EntryKey, Write)>, quota: Quota) -> Vec<Result<Stored, Error>>;

    /// Deletes an entry and tells whether it was alive.
    async fn delete(&self, key: &EntryKey) -> Result<bool, Error>;

    /// Deletes what `selection` means and was written before the call; answers how many live
    /// entries went. `on_deleted` hears of deleted keys, batch by batch, where the store is remote.
    /// `progress` is counted up, and a flush that it cancels stops within one step, without an error.
    ///
    /// # Errors
    /// [`FlushFailure`] when a shard failed; the others were flushed all the same.
    async fn flush(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        on_deleted: &(dyn for<'k> Fn(&'k str) + Sync),
        progress: &FlushProgress,
    ) -> Result<u64, FlushFailure>;

    /// Lists live keys that `selection` means, about `limit` a page. Shards that do not answer are left out, and told
    /// in [`Page::failed`].
    ///
    /// # Errors
    /// No shard answers, or one cannot list.
    async fn list(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error>;

    /// The namespace's numbers, expired entries already taken out.
    async fn totals(&self, namespace: &Namespace) -> Result<Totals, Error>;

    /// The same as the books have it: what expired a moment ago may still be in it. Costs the same however much
    /// has expired.
    async fn booked_totals(&self, namespace: &Namespace) -> Result<Totals, Error>;

    /// The numbers of the shards that answer.
    ///
    /// # Errors
    /// No shard answers.
    async fn known_totals(&self, namespace: &Namespace) -> Result<KnownTotals, Error> {
        Ok(KnownTotals { totals: self.totals(namespace).await?, failed: Vec::new() })
    }

    /// Adds reads to the stats of their namespaces; the answers stand in the order of `reads`.
    async fn record_reads(&self, reads: &[(Namespace, Reads)]) -> Vec<Result<(), Error>>;

    /// Removes the stats of a namespace that holds no keys any more.
    async fn forget(&self, namespace: &Namespace) -> Result<(), Error>;

    /// Takes expired entries of `namespace` out of the books, and by its eviction policy those that
    /// are too many for `quota`; a bounded number of them.
    async fn sweep(&self, namespace: &Namespace, quota: Quota) -> Result<(), Error>;

    /// Takes entries out of the books that the store lost of itself, if it lost any since it was
    /// last asked; without haste.
    async fn find_evicted(&self, namespaces: &[Namespace]) -> Result<(), Error>;

    /// The namespaces that have books in the store, where that is another process.
    async fn stored_namespaces(&self) -> Result<Vec<Namespace>, Error> {
        Ok(Vec::new())
    }

    async fn health(&self) -> Vec<ShardHealth>;

    /// Looks how much memory is used and whether it is enough; `namespaces` are all there are. What it finds is
    /// told by [`Store::health`].
    async fn look_at_memory(&self, _namespaces: &[Namespace]) {}

    /// Brings the metrics that are gauges up to now, before they are shown.
    fn refresh_gauges(&self) {}
}

/// A store shared by the whole process.
pub type SharedStore = Arc<dyn Store>;

/// An entry key from parts that were valid when they were stored; `None` if they are no longer.
pub(crate) fn entry_key(namespace: &Namespace, key: &str) -> Option<EntryKey> {
    Key::parse(key).ok().map(|key| EntryKey::new(namespace, &key))
}
