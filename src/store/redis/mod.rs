//! The store on Redis shards: the ring chooses the shard, and a script on that shard does the work.
//!
//! Only this room talks to Redis; `config/redis.rs` uses the client library only to parse shard URLs. The scripts in
//! `lua/` define what is stored and under which names.

mod access_counts;
mod accesses;
mod batching;
mod breaker;
mod client;
mod conditions;
mod connection;
mod evicted;
mod eviction_turns;
mod examiner;
mod flush;
mod generations;
mod history;
mod leases;
mod listing;
mod load;
mod make_room;
mod marks;
mod moved_keys;
mod patching;
mod pending;
mod place;
mod positions;
mod preflight;
mod presence;
mod pressure;
mod problems;
mod repair;
mod repair_queue;
mod reply;
mod ring;
mod ring_keeper;
mod ring_record;
mod ring_state;
mod scan;
mod scripts;
mod sentinel;
mod server_info;
mod server_watch;
mod shard;
mod subscriber;
mod verbs;
mod walk;
mod writes;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::flush::Flush;
use self::load::{KEYS_PER_SCRIPT, Load, scripts_of};
use self::pending::QuotaShare;
use self::place::PLACES;
pub use self::preflight::{Examination, probe};
pub use self::ring::Ring;
use self::ring_state::SettledRecord;
use self::shard::{Effect, Shard};
use self::subscriber::Subscriber;
use super::{
    Cursor, Deleted, Error, FlushFailure, FlushProgress, InvalidationSink, KnownTotals, Leased, Outcome, Page,
    Patched, Reads, Removal, Room, ShardHealth, ShardIndex, Store, Stored, Totals, entry_key,
};
use crate::config::RedisConfig;
use crate::metrics::Metrics;
use crate::model::{
    Details, Entry, EntryKey, KeyRef, LeaseToken, Namespace, Patch, Position, Positions, Preconditions, Quota,
    Quotas, Selection, WantedLease, Write,
};
use crate::workers::Workers;

/// The most scripts that one sweep runs on a shard for one namespace, with pauses between them.
const SCRIPTS_PER_SWEEP: usize = 500;

/// The pause between two scripts of a sweep. A script runs for about as long.
const PAUSE: Duration = Duration::from_millis(2);

/// A pool of Redis shards.
pub struct Redis {
    ring: Ring,
    shards: Vec<Arc<Shard>>,
    names: Vec<String>,
    /// Distinguishes this process from the others on the same shards.
    instance: String,
    accepts_ring_change: bool,
}

impl Redis {
    /// Creates the shards; they connect in the background.
    ///
    /// # Errors
    /// A configuration that the client library refuses.
    pub fn start(
        config: &RedisConfig,
        instance: &str,
        metrics: &Arc<Metrics>,
        workers: &Workers,
        quotas: &Arc<impl Quotas>,
    ) -> Result<Self, fred::error::Error> {
        let quotas: Arc<dyn Quotas> = quotas.clone();
        let shards = config
            .shards
            .iter()
            .map(|shard| Shard::start(shard, config, metrics.clone(), workers, quotas.clone()).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = shards.iter().map(|shard| shard.name.clone()).collect();
        Ok(Self {
            ring: Ring::new(&names),
            shards,
            names,
            instance: instance.to_owned(),
            accepts_ring_change: config.accept_ring_change,
        })
    }

    /// Starts the tasks that work in the background until `shutdown`. Nothing is served before they run. `sink`
    /// receives the invalidations, and the reads of entries are written into their metadata every `record_period`.
    pub fn start_tasks(
        &self,
        config: &RedisConfig,
        sink: &Arc<dyn InvalidationSink>,
        max_staleness: Duration,
        record_period: Duration,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        let spawn = |task: BoxFuture<'static, ()>| {
            tasks.spawn(shutdown.clone().run_until_cancelled_owned(task));
        };
        spawn(self.ring_keeper(sink.clone(), shutdown.clone()).run().boxed());
        for ((index, shard), config) in (0..).zip(&self.shards).zip(&config.shards) {
            let (sink, instance) = (sink.clone(), self.instance.clone());
            let subscriber = Subscriber { shard: shard.clone(), index, sink, instance, max_staleness };
            spawn(subscriber.run().boxed());
            spawn(shard.clone().run_examinations().boxed());
            spawn(shard.clone().run_cleaning(self.instance.clone()).boxed());
            spawn(shard.clone().run_repairs(self.instance.clone()).boxed());
            if let Some(name) = server_watch::name_of(config) {
                spawn(shard.clone().watch_address(name).boxed());
            }
            if let Some(sentinels) = &shard.sentinels {
                spawn(shard.clone().watch_primary(sentinels.clone(), max_staleness).boxed());
            }
            // This task ends by itself, after it has written the last reads.
            tasks.spawn(shard.clone().run_accesses(record_period, shutdown.clone()));
        }
    }

    fn owner(&self, hash: u64) -> &Arc<Shard> {
        &self.shards[usize::from(self.ring.route(hash))]
    }

    /// Calls `ask` for the keys of each shard, in batches that are small enough for one script. The answers are in the
    /// order of `keys`.
    ///
    /// A request has at most one batch in flight per shard. So other requests run between the scripts of a large
    /// request, and no batch reaches its timeout because it waits behind other batches of the same request.
    async fn ask_each<'s, T, F>(
        &'s self,
        keys: impl Iterator<Item = (&EntryKey, Load)>,
        ask: impl Fn(&'s Shard, Vec<usize>) -> F,
    ) -> Vec<Result<T, Error>>
    where
        F: Future<Output = Result<Vec<Result<T, Error>>, Error>>,
    {
        let mut by_shard: Vec<Vec<(usize, Load)>> = vec![Vec::new(); self.shards.len()];
        let mut ordered: Vec<Option<Result<T, Error>>> = Vec::new();
        for (i, (key, load)) in keys.enumerate() {
            by_shard[usize::from(self.ring.route(key.ring_hash()))].push((i, load));
            ordered.push(None);
        }
        let ask = &ask;
        let asked = self.shards.iter().zip(by_shard).map(|(shard, keys)| async move {
            let mut answered: Vec<(usize, Result<T, Error>)> = Vec::with_capacity(keys.len());
            for batch in scripts_of(keys, KEYS_PER_SCRIPT, |(_, load)| *load, |_, _| true) {
                let indices: Vec<usize> = batch.into_iter().map(|(i, _)| i).collect();
                match ask(shard, indices.clone()).await {
                    Ok(answers) => answered.extend(indices.into_iter().zip(answers)),
                    Err(error) => answered.extend(indices.into_iter().map(|i| (i, Err(error.clone())))),
                }
            }
            answered
        });
        for (i, answer) in join_all(asked).await.into_iter().flatten() {
            ordered[i] = Some(answer);
        }
        ordered.into_iter().map(|answer| answer.expect("every index is in one batch")).collect()
    }
}

/// Runs `operation` on all shards at once. If any shard fails, returns the first error.
async fn on_all<'s, T, F>(shards: &'s [Arc<Shard>], operation: impl Fn(&'s Shard) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let operation = &operation;
    let asked = shards.iter().map(|shard| async move {
        shard.admit()?;
        operation(shard).await
    });
    join_all(asked).await.into_iter().collect()
}

#[async_trait]
impl Store for Redis {
    fn shard_of(&self, key: &EntryKey) -> ShardIndex {
        self.ring.route(key.ring_hash())
    }

    fn shard_names(&self) -> &[String] {
        &self.names
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn ring_version(&self) -> &str {
        self.ring.version()
    }

    fn shares(&self) -> Vec<f64> {
        self.ring.shares()
    }

    async fn get(&self, key: &EntryKey) -> Result<Option<Entry>, Error> {
        let shard = self.owner(key.ring_hash());
        shard.clear(Effect::Read, &[key]).await?;
        shard.get_batched(key).await
    }

    async fn get_many(
        &self,
        keys: &[EntryKey],
        positions: &Positions,
        room: Room<'_>,
    ) -> Vec<Result<Option<Entry>, Error>> {
        let loads = keys.iter().map(|key| (key, Load::READ));
        self.ask_each(loads, |shard, indices| async move {
            let wanted: Vec<&EntryKey> = indices.iter().map(|i| &keys[*i]).collect();
            shard.clear(Effect::Read, &wanted).await?;
            shard.get(&wanted, positions, room).await
        })
        .await
    }

    async fn positions(&self) -> Vec<Option<Position>> {
        self.present_positions().await
    }

    async fn describe(&self, key: &EntryKey, positions: &Positions) -> Result<Option<(Entry, Details)>, Error> {
        let shard = self.owner(key.ring_hash());
        shard.clear(Effect::Read, &[key]).await?;
        shard.describe(key, positions).await
    }

    fn may_have_issued(&self, cursor: &Cursor) -> bool {
        cursor.place < PLACES
    }

    fn accessed(&self, key: KeyRef<'_>) {
        self.owner(key.ring_hash()).accesses.add(key);
    }

    async fn set(&self, key: &EntryKey, write: Write, quota: Quota) -> Result<Stored, Error> {
        let shard = self.owner(key.ring_hash());
        let share = quota.share(self.shards.len());
        shard.clear(Effect::Write, &[key]).await?;
        let stored = shard.set_batched(key, write, share, quota.eviction_policy).await?;
        if stored.outcome == Outcome::Created {
            shard.accesses.forget(key);
        }
        Ok(stored)
    }

    async fn set_many(&self, writes: Vec<(EntryKey, Write)>, quota: Quota) -> Vec<Result<Stored, Error>> {
        let namespace = writes.first().map_or("", |(key, _)| key.namespace());
        let loads = writes.iter().map(|(key, write)| (key, Load::of(write)));
        let (limit_bytes, policy) = (quota.share(self.shards.len()), quota.eviction_policy.as_str());
        let grant = QuotaShare { namespace, limit_bytes, policy };
        let writes = &writes;
        let answers = self.ask_each(loads, |shard, indices| async move {
            let batch: Vec<(&EntryKey, &Write)> = indices.iter().map(|i| (&writes[*i].0, &writes[*i].1)).collect();
            let keys: Vec<&EntryKey> = batch.iter().map(|(key, _)| *key).collect();
            shard.clear(Effect::Write, &keys).await?;
            shard.set(grant, &batch).await
        });
        let answers = answers.await;
        for ((key, _), answer) in writes.iter().zip(&answers) {
            if matches!(answer, Ok(stored) if stored.outcome == Outcome::Created) {
                self.owner(key.ring_hash()).accesses.forget(key);
            }
        }
        answers
    }

    async fn get_or_lease(
        &self,
        wanted: &[WantedLease],
        lease: Duration,
        positions: &Positions,
        room: Room<'_>,
    ) -> Vec<Result<Leased, Error>> {
        let loads = wanted.iter().map(|wanted| (&wanted.key, Load::READ));
        self.ask_each(loads, |shard, indices| async move {
            let wanted: Vec<&WantedLease> = indices.iter().map(|i| &wanted[*i]).collect();
            let names: Vec<&EntryKey> = wanted.iter().map(|wanted| &wanted.key).collect();
            shard.clear(Effect::Read, &names).await?;
            shard.get_or_lease(&wanted, lease, positions, room).await
        })
        .await
    }

    async fn release(&self, key: &EntryKey, token: &LeaseToken) -> Result<Option<Position>, Error> {
        let shard = self.owner(key.ring_hash());
        shard.admit()?;
        shard.release(key, token).await
    }

    async fn patch(&self, key: &EntryKey, patch: &Patch, quota: Quota) -> Result<Option<Patched>, Error> {
        let shard = self.owner(key.ring_hash());
        let (limit_bytes, policy) = (quota.share(self.shards.len()), quota.eviction_policy.as_str());
        shard.clear(Effect::Write, &[key]).await?;
        shard.patch(QuotaShare { namespace: key.namespace(), limit_bytes, policy }, key, patch).await
    }

    async fn delete(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        tombstone_ttl: Duration,
    ) -> Result<Deleted, Error> {
        let shard = self.owner(key.ring_hash());
        shard.clear(Effect::Write, &[key]).await?;
        let deleted = shard.delete(key, preconditions, tombstone_ttl).await?;
        shard.accesses.forget(key);
        Ok(deleted)
    }

    async fn mark(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        removal: Removal,
    ) -> Result<Deleted, Error> {
        let Some(windows) = removal.windows else {
            return self.delete(key, preconditions, removal.tombstone_ttl).await;
        };
        let shard = self.owner(key.ring_hash());
        shard.clear(Effect::Write, &[key]).await?;
        shard.mark(key, preconditions, removal, windows).await
    }

    async fn flush(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        on_deleted: &(dyn for<'k> Fn(&'k str) + Sync),
        progress: &FlushProgress,
        removal: Removal,
    ) -> Result<u64, FlushFailure> {
        progress.begin(self.shards.len() as u64 * PLACES);
        let flushed = join_all(self.shards.iter().map(|shard| async move {
            let flush = Flush { namespace, selection, on_deleted, progress, removal };
            flush.run(shard).await
        }))
        .await;
        let deleted = progress.deleted();
        match flushed.into_iter().find_map(Result::err) {
            None => Ok(deleted),
            Some(error) => Err(FlushFailure { deleted, error }),
        }
    }

    async fn list(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.page(namespace, selection, cursor.unwrap_or(Cursor::at(0)), limit).await
    }

    async fn totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        Ok(on_all(&self.shards, |shard| shard.swept_totals(namespace)).await?.into_iter().sum())
    }

    async fn known_totals(&self, namespace: &Namespace) -> Result<KnownTotals, Error> {
        self.totals_without(&BTreeSet::new(), namespace).await
    }

    async fn booked_totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        Ok(on_all(&self.shards, |shard| shard.totals(namespace)).await?.into_iter().sum())
    }

    async fn record_reads(&self, reads: &[(Namespace, Reads)]) -> Vec<Result<(), Error>> {
        // The reads of a namespace are counted on one shard, the owner of its reserved key `stats`.
        let homes: Vec<EntryKey> =
            reads.iter().map(|(namespace, _)| entry_key(namespace, "stats").expect("`stats` is a key")).collect();
        let loads = homes.iter().map(|key| (key, Load::READ));
        self.ask_each(loads, |shard, indices| async move {
            let arguments = |_: &SettledRecord| {
                let fields = indices.iter().flat_map(|i| {
                    let (namespace, reads) = &reads[*i];
                    [namespace.to_string(), reads.hits.to_string(), reads.misses.to_string()]
                });
                fields.map(Value::from).collect()
            };
            shard.admit()?;
            shard.ask(&scripts::RECORD_READS, Effect::Write, arguments, reply::number).await?;
            Ok(vec![Ok(()); indices.len()])
        })
        .await
    }

    async fn forget(&self, namespace: &Namespace) -> Result<(), Error> {
        let arguments = |_: &SettledRecord| vec![Value::from(namespace.as_str())];
        // Reading the totals sweeps first: until then expired entries still count as keys.
        self.totals(namespace).await?;
        on_all(&self.shards, |shard| shard.ask(&scripts::FORGET, Effect::Write, arguments, reply::number)).await?;
        Ok(())
    }

    async fn sweep(&self, namespace: &Namespace, quota: Quota) -> Result<(), Error> {
        let share = quota.share(self.shards.len());
        on_all(&self.shards, |shard| async move {
            for _ in 0..SCRIPTS_PER_SWEEP {
                let swept = shard.sweep(namespace, share, quota.eviction_policy).await?;
                if swept.is_in_repair {
                    shard.repairs.request(namespace);
                }
                if !swept.has_more {
                    break;
                }
                sleep(PAUSE).await;
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn find_evicted(&self, namespaces: &[Namespace]) -> Result<(), Error> {
        on_all(&self.shards, |shard| shard.find_evicted(&self.instance, namespaces)).await?;
        Ok(())
    }

    async fn stored_namespaces(&self) -> Result<Vec<Namespace>, Error> {
        let mut all = on_all(&self.shards, Shard::namespaces).await?.concat();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn tombstones_dropped(&self) -> u64 {
        self.shards.iter().map(|shard| shard.tombstones_dropped.load(Relaxed)).sum()
    }

    fn refresh_gauges(&self) {
        self.shards.iter().for_each(|shard| shard.refresh_gauges());
    }

    async fn health(&self) -> Vec<ShardHealth> {
        join_all(self.shards.iter().map(|shard| shard.health())).await
    }

    async fn look_at_memory(&self, namespaces: &[Namespace]) {
        join_all(self.shards.iter().map(|shard| shard.look_at_memory(namespaces))).await;
    }
}
