//! Reading one entry.

use super::flight::Role;
use super::lookup::{AnsweredBy, L1SkipReason, Lookup};
use super::near::Stale;
use super::observe::ReadEnd;
use super::{Cache, Error};
use crate::access_log::Tier;
use crate::clock::Moment;
use crate::l1::{CopyRef, Value};
use crate::model::{Details, Entry, EntryKey, EntryRef, KeyRef, Operation, ReadTerms};
use crate::store;

impl Cache {
    /// Reads an entry; `operation` is GET or HEAD.
    ///
    /// # Errors
    /// The owning shard failed.
    pub async fn get(&self, key: &EntryKey, terms: &ReadTerms, operation: Operation) -> Result<Lookup, Error> {
        let started = Moment::now();
        let result = self.look_up(key, terms, started).await;
        self.observe_read(operation, key.borrowed(), &ReadEnd::of(&result), started);
        result
    }

    /// Calls `show` with the entry (or with `None` for a miss) if it can be answered without waiting: from L1, or
    /// from a store in this process. A result of `None` says nothing about the entry: call [`Cache::get`]. Large
    /// values also give `None`, because they should not be copied under L1's lock.
    ///
    /// `started` must be read from the clock after the request arrived: the answer is what was true at that moment.
    pub fn get_without_waiting<R>(
        &self,
        key: KeyRef<'_>,
        started: Moment,
        show: impl FnOnce(Option<EntryRef<'_>>, &AnsweredBy) -> R,
    ) -> Option<R> {
        let (end, shown) = match &self.near {
            Some(near) => {
                let look = |copy: CopyRef<'_>, staleness| {
                    let Value::Small(value) = copy.value else { return None };
                    let trail = AnsweredBy::L1 { staleness };
                    Some(show(Some(copy.entry(value, started)), &trail))
                };
                let shown = near.with(key, started, look).ok()??;
                self.metrics.l1_hits.increment(1);
                (ReadEnd::Hit(Tier::L1), shown)
            }
            None => {
                let entry = self.store.get_without_waiting(key)?.filter(Entry::is_answerable);
                self.metrics.shard_reads.increment(1);
                let end = if entry.is_some() { ReadEnd::Hit } else { ReadEnd::Miss }(Tier::Embedded);
                (end, show(entry.as_ref().map(Entry::borrowed), &AnsweredBy::Embedded))
            }
        };
        self.observe_read(Operation::Get, key, &end, started);
        Some(shown)
    }

    /// Reads an entry with all its metadata from the owning shard.
    ///
    /// # Errors
    /// The owning shard failed.
    pub async fn describe(&self, key: &EntryKey, operation: Operation) -> Result<(Lookup, Option<Details>), Error> {
        let started = Moment::now();
        let departure = self.near.as_ref().map(|near| near.departure(key, &self.store));
        let asked_at = Moment::now();
        self.metrics.shard_reads.increment(1);
        let result = self.store.describe(key).await;
        if let (Ok(found), Some(near), Some(departure)) = (&result, &self.near, departure) {
            near.learn(key, found.as_ref().map(|(entry, _)| entry), asked_at, departure);
        }
        let shard =
            AnsweredBy::Shard { shard: self.store.shard_of(key), skipped: L1SkipReason::Request, collapsed: false };
        let trail = if self.near.is_some() { shard } else { AnsweredBy::Embedded };
        let (result, details) = match result {
            Ok(found) => {
                let (entry, details) = found.filter(|(entry, _)| entry.is_answerable()).unzip();
                (Ok(Lookup { entry, trail }), details)
            }
            Err(error) => (Err(error.into()), None),
        };
        self.observe_read(operation, key.borrowed(), &ReadEnd::of(&result), started);
        result.map(|lookup| (lookup, details))
    }

    pub(super) async fn look_up(&self, key: &EntryKey, terms: &ReadTerms, now: Moment) -> Result<Lookup, Error> {
        let Some(near) = &self.near else {
            self.metrics.shard_reads.increment(1);
            let entry = self.store.get(key).await?;
            return Ok(Lookup { entry: answerable(entry, terms), trail: AnsweredBy::Embedded });
        };
        let trail = |skipped, collapsed| AnsweredBy::Shard { shard: self.store.shard_of(key), skipped, collapsed };
        if terms.no_cache {
            let departure = near.departure(key, &self.store);
            let asked_at = Moment::now();
            self.metrics.shard_reads.increment(1);
            let entry = self.store.get(key).await?;
            near.learn(key, entry.as_ref(), asked_at, departure);
            return Ok(Lookup { entry: answerable(entry, terms), trail: trail(L1SkipReason::Request, false) });
        }
        let skipped = match near.get(key, now) {
            Ok((entry, staleness)) => {
                return Ok(Lookup { entry: Some(entry), trail: AnsweredBy::L1 { staleness } });
            }
            Err(skipped) => skipped,
        };
        let (landed, role) = near.load(key, &self.store).await;
        match landed {
            Ok(entry) => {
                let entry = answerable(entry, terms);
                Ok(Lookup { entry, trail: trail(skipped, role == Role::Follower) })
            }
            Err(error) => Ok(self.stale_lookup(key, terms, error)?),
        }
    }

    /// A stale copy in place of an error of the shard, if the policy allows it; else the error.
    pub(super) fn stale_lookup(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        error: store::Error,
    ) -> Result<Lookup, store::Error> {
        let near = self.near.as_ref().filter(|_| !terms.no_cache);
        let stale = near.and_then(|near| near.stand_in(key, &error));
        let Some(Stale { entry, overdue, staleness }) = stale else { return Err(error) };
        let trail = AnsweredBy::Stale { shard: self.store.shard_of(key), error, overdue, staleness };
        Ok(Lookup { entry: Some(entry), trail })
    }
}

/// The entry that the store found, if it may answer a read on these terms.
pub(super) fn answerable(found: Option<Entry>, terms: &ReadTerms) -> Option<Entry> {
    found.filter(|entry| entry.is_answerable() && !(terms.no_cache && entry.overdue.is_some()))
}
