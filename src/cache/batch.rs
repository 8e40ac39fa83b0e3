//! Many entries in one request.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::lookup::Fetched;
use super::observe::{Reply, StartedOperation};
use super::won_lease::Lease;
use super::write::completed;
use super::{Cache, Error, RESERVED_KEY};
use crate::access_log::Subject;
use crate::clock::Moment;
use crate::model::{Answer, EntryKey, Namespace, Operation, Positions, ReadTerms, Write};
use crate::store::{self, Deleted, Room};

/// The answer to an mget: each distinct key once, in the order of the request.
#[derive(Debug)]
pub struct MgetAnswer {
    pub results: Vec<(EntryKey, Fetched)>,
    pub hits: u64,
    pub misses: u64,
    pub errors: u64,
}

impl MgetAnswer {
    /// The leases that were given or refused.
    pub fn into_leases(self) -> impl Iterator<Item = Lease> {
        self.results.into_iter().filter_map(|(_, fetched)| match fetched {
            Fetched::Leased(lease) => Some(lease),
            _ => None,
        })
    }
}

/// A key of a batch of changes that failed.
pub type FailedKey = (EntryKey, store::Error);

/// How many deletions of one batch run on a shard at the same time.
const DELETIONS_AT_ONCE: usize = 8;

/// The answer to an mdelete.
#[derive(Debug)]
pub struct MdeleteAnswer {
    /// Distinct keys that had an entry.
    pub deleted: u64,
    /// Distinct keys that had no entry.
    pub absent: u64,
    pub failed: Vec<FailedKey>,
    /// The positions of the shards after the changes.
    pub positions: Positions,
}

/// The answer to an mset.
#[derive(Debug)]
pub struct MsetAnswer {
    /// Distinct keys stored.
    pub stored: u64,
    pub failed: Vec<FailedKey>,
    /// The positions of the shards after the changes.
    pub positions: Positions,
}

impl Cache {
    /// Reads many entries of one namespace, each on these terms. With `lease`, gets a lease of that duration on each
    /// key without an entry. `room` says whether there is memory for the values.
    ///
    /// # Errors
    /// The batch is too large, or there is no memory for its values. A failing shard affects only its own keys.
    pub async fn mget(
        &self,
        namespace: &Namespace,
        keys: Vec<EntryKey>,
        terms: &ReadTerms,
        lease: Option<Duration>,
        room: Room<'_>,
    ) -> Result<MgetAnswer, Error> {
        let begun = StartedOperation::now(namespace.as_str(), Operation::Mget);
        self.check_batch(keys.len())?;
        let keys = distinct(keys);
        let subject = || Subject::batch(namespace, &keys);
        let (results, is_near) = match self.read_many(&keys, terms, lease, room, begun.at).await {
            Ok(results) => results,
            Err(error) => {
                self.observe(&begun, Err(&error), subject);
                return Err(error);
            }
        };
        for (key, _) in keys.iter().zip(&results).filter(|(_, fetched)| fetched.is_hit()) {
            self.store.accessed(key.borrowed());
            self.counters.hot_keys.found(key.borrowed());
        }
        let reads = self.observe_reads(&begun, subject, &results, is_near);
        self.count_leases(namespace.as_str(), results.iter().filter_map(Fetched::lease));
        let errors = keys.len() as u64 - reads.hits - reads.misses;
        let results = keys.into_iter().zip(results).collect();
        Ok(MgetAnswer { results, hits: reads.hits, misses: reads.misses, errors })
    }

    /// The entries of `keys`, in their order, and whether L1 had all of them.
    async fn read_many(
        &self,
        keys: &[EntryKey],
        terms: &ReadTerms,
        lease: Option<Duration>,
        room: Room<'_>,
        now: Moment,
    ) -> Result<(Vec<Fetched>, bool), Error> {
        let mut hits = Vec::with_capacity(keys.len());
        for key in keys {
            let hit = self
                .near
                .as_ref()
                .and_then(|near| near.get(key, terms, now).ok())
                .map(|(entry, _)| Fetched::Hit(entry));
            if !room(hit.as_ref().map_or(0, Fetched::bytes)) {
                return Err(Error::NoRoom);
            }
            hits.push(hit);
        }
        let absent: Vec<EntryKey> =
            keys.iter().zip(&hits).filter(|(_, hit)| hit.is_none()).map(|(key, _)| key.clone()).collect();
        let fetched = match lease {
            _ if absent.is_empty() => Vec::new(),
            _ if terms.only_if_cached && self.near.is_some() => {
                absent.iter().map(|_| Fetched::Failed(store::Error::NotInMemory)).collect()
            }
            None => self.fetch(&absent, terms, room).await,
            Some(lease) => self.fetch_or_lease(&absent, terms, lease, room).await,
        };
        let mut fetched = fetched.into_iter();
        // `room` may have refused bytes during the fetch, and then it also refuses 0 bytes.
        if !room(0) {
            return Err(Error::NoRoom);
        }
        let one = |hit: Option<Fetched>| {
            hit.or_else(|| fetched.next()).expect("every key that L1 did not have was fetched")
        };
        Ok((hits.into_iter().map(one).collect(), absent.is_empty()))
    }

    /// Fetches entries from the store and keeps copies. The answers are in the order of `keys`.
    async fn fetch(&self, keys: &[EntryKey], terms: &ReadTerms, room: Room<'_>) -> Vec<Fetched> {
        let departure = |key| self.near.as_ref().map(|near| near.departure(key, &self.store));
        let departures: Vec<_> = keys.iter().map(departure).collect();
        let asked_at = Moment::now();
        self.metrics.shard_reads.increment(keys.len() as u64);
        let answers = self.store.get_many(keys, &terms.positions, room).await;
        self.count_position_reads(terms, &answers);
        let fetched = keys.iter().zip(departures).zip(answers).map(|((key, departure), answer)| {
            if let (Ok(found), Some(near), Some(departure)) = (&answer, &self.near, departure) {
                near.learn(key, found.as_ref(), asked_at, departure);
            }
            match answer {
                Ok(found) => Fetched::of(found, terms),
                Err(error) => self.stale_or_failed(key, terms, error),
            }
        });
        fetched.collect()
    }

    /// A stale copy in place of an error of the shard, if the policy and the terms allow it.
    pub(super) fn stale_or_failed(&self, key: &EntryKey, terms: &ReadTerms, error: store::Error) -> Fetched {
        match self.near.as_ref().and_then(|near| near.stand_in(key, terms, &error)) {
            Some(stale) => Fetched::Stale(stale.entry),
            None => Fetched::Failed(error),
        }
    }

    /// Stores many entries of one namespace. All entries are checked before the first is stored. If a key occurs
    /// twice, the last entry wins.
    ///
    /// # Errors
    /// The batch or one of its entries is refused; nothing was stored.
    pub async fn mset(&self, namespace: &Namespace, writes: Vec<(EntryKey, Write)>) -> Result<MsetAnswer, Error> {
        let begun = StartedOperation::now(namespace.as_str(), Operation::Mset);
        let keys: Vec<EntryKey> = writes.iter().map(|(key, _)| key.clone()).collect();
        let result = self.store_many(namespace, writes).await;
        let changes = result.as_ref().map(|answer| (answer.stored, &*answer.failed));
        self.observe_changes(&begun, changes, || Subject::batch(namespace, &keys));
        result
    }

    async fn store_many(&self, namespace: &Namespace, writes: Vec<(EntryKey, Write)>) -> Result<MsetAnswer, Error> {
        self.check_batch(writes.len())?;
        let quota = self.registry.for_check(namespace.as_str())?.quota();
        for (index, (key, write)) in writes.iter().enumerate() {
            self.check_write(key, write, quota).map_err(|error| Error::Entry {
                list: "entries",
                index,
                error: Box::new(error),
            })?;
        }
        if writes.is_empty() {
            return Ok(MsetAnswer { stored: 0, failed: Vec::new(), positions: Positions::default() });
        }
        let policy = self.registry.for_write(namespace.as_str())?;
        let last: HashMap<EntryKey, usize> =
            writes.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
        let writes: Vec<(EntryKey, Write)> = writes
            .into_iter()
            .enumerate()
            .filter(|(i, (key, _))| last[key] == *i)
            .map(|(_, (key, write))| (key, completed(write, &policy)))
            .collect();
        let keys: Vec<EntryKey> = writes.iter().map(|(key, _)| key.clone()).collect();
        let fill_leases: Vec<bool> = writes.iter().map(|(_, write)| write.fills_lease()).collect();
        let _voids: Vec<_> = keys.iter().map(|key| self.void_when_over(key)).collect();
        let answers = self.store.set_many(writes, policy.quota()).await;
        let mut answer = MsetAnswer { stored: 0, failed: Vec::new(), positions: Positions::default() };
        for ((key, fills_lease), result) in keys.iter().zip(fill_leases).zip(answers) {
            self.count_conditions(namespace.as_str(), fills_lease, &result);
            match result {
                Ok(stored) => {
                    answer.stored += 1;
                    answer.positions.add(self.shard_of(key), stored.position);
                }
                Err(error) => answer.failed.push((key.clone(), error)),
            }
        }
        Ok(answer)
    }

    /// Deletes many entries of one namespace.
    ///
    /// # Errors
    /// The batch or one of its keys is refused; nothing was deleted.
    pub async fn mdelete(&self, namespace: &Namespace, keys: Vec<EntryKey>) -> Result<MdeleteAnswer, Error> {
        let begun = StartedOperation::now(namespace.as_str(), Operation::Mdelete);
        let refused = self.check_deletions(&keys);
        let keys = distinct(keys);
        let result = match refused {
            Ok(()) => Ok(self.delete_many(&keys).await),
            Err(error) => Err(error),
        };
        let changes = result.as_ref().map(|answer| (answer.deleted + answer.absent, &*answer.failed));
        self.observe_changes(&begun, changes, || Subject::batch(namespace, &keys));
        result
    }

    /// Records a batch of changes: how many keys succeeded and which failed, or why the whole batch was refused.
    fn observe_changes(
        &self,
        begun: &StartedOperation<'_>,
        changes: Result<(u64, &[FailedKey]), &Error>,
        subject: impl FnOnce() -> Subject,
    ) {
        match changes {
            Ok((done, failed)) => self.observe_as(begun, answer_of(failed), told(done > 0, failed), subject),
            Err(error) => self.observe(begun, Err(error), subject),
        }
    }

    fn check_deletions(&self, keys: &[EntryKey]) -> Result<(), Error> {
        self.check_batch(keys.len())?;
        match keys.iter().position(|key| key.key() == RESERVED_KEY) {
            Some(index) => Err(Error::Entry { list: "keys", index, error: Box::new(Error::ReservedKey) }),
            None => Ok(()),
        }
    }

    /// Deletes the entries of distinct keys: all shards at once, and a few keys at a time on each.
    async fn delete_many(&self, keys: &[EntryKey]) -> MdeleteAnswer {
        let _voids: Vec<_> = keys.iter().map(|key| self.void_when_over(key)).collect();
        let mut by_shard: Vec<Vec<&EntryKey>> = vec![Vec::new(); self.store.shard_names().len()];
        for key in keys {
            by_shard[usize::from(self.store.shard_of(key))].push(key);
        }
        // All keys are of one namespace.
        let tombstone_ttl = keys.first().map(|key| self.tombstone_ttl(key.namespace())).unwrap_or_default();
        let deletions = by_shard.into_iter().map(|keys| async move {
            let mut answers = Vec::with_capacity(keys.len());
            for some in keys.chunks(DELETIONS_AT_ONCE) {
                let delete = |key| self.store.delete(key, None, tombstone_ttl);
                let deleted = join_all(some.iter().copied().map(delete)).await;
                answers.extend(some.iter().copied().zip(deleted));
            }
            answers
        });
        let mut answer = MdeleteAnswer { deleted: 0, absent: 0, failed: Vec::new(), positions: Positions::default() };
        for (key, deleted) in join_all(deletions).await.into_iter().flatten() {
            match deleted {
                Ok(Deleted { existed, position }) => {
                    *(if existed { &mut answer.deleted } else { &mut answer.absent }) += 1;
                    answer.positions.add(self.shard_of(key), position);
                }
                Err(error) => answer.failed.push((key.clone(), error)),
            }
        }
        answer
    }

    /// The maximum number of keys in a batch, repeated keys included.
    pub fn max_batch_keys(&self) -> usize {
        self.limits.batch_keys
    }

    /// Checks the number of keys in a batch.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`].
    pub(super) fn check_batch(&self, count: usize) -> Result<(), Error> {
        let limit = self.limits.batch_keys;
        if count > limit { Err(Error::TooManyKeys { limit }) } else { Ok(()) }
    }
}

/// How a batch of changes is counted: as failed if any entry failed, like a batch of reads; as refused if all failed
/// entries were refused by the policy.
fn answer_of(failed: &[FailedKey]) -> Answer {
    match failed {
        [] => Answer::Done,
        failed if failed.iter().all(|(_, error)| error.is_refusal()) => Answer::Refused,
        _ => Answer::Failed,
    }
}

/// What the client is told about a batch of changes, some of which may have failed.
fn told(is_any_done: bool, failed: &[FailedKey]) -> Reply<'_> {
    match failed.first() {
        None => Reply::Done,
        Some((_, error)) if is_any_done => Reply::InPart(error),
        Some((_, error)) => Reply::Nothing(error),
    }
}

/// The distinct keys, in the order of their first occurrence.
fn distinct(keys: Vec<EntryKey>) -> Vec<EntryKey> {
    let mut seen = std::collections::HashSet::with_capacity(keys.len());
    keys.into_iter().filter(|key| seen.insert(key.clone())).collect()
}
