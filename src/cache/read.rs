//! Reading one entry.

use super::flight::Role;
use super::lookup::{AnsweredBy, L1SkipReason, Lookup};
use super::near::{Near, Stale};
use super::observe::ReadEnd;
use super::{Cache, Error};
use crate::access_log::Tier;
use crate::clock::Moment;
use crate::l1::{CopyRef, Value};
use crate::model::{Details, Entry, EntryKey, EntryRef, KeyRef, Operation, ReadTerms, Unmet};
use crate::store;

/// Which answers [`Cache::get_without_waiting`] may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Any,
    /// An entry that nobody needs to load again. Everything else is for [`Cache::get_or_lease`].
    NothingToLoad,
}

impl Cache {
    /// Reads an entry; `operation` is GET or HEAD.
    ///
    /// # Errors
    /// The owning shard failed, or the terms want an answer from memory, and the entry is not in memory.
    pub async fn get(&self, key: &EntryKey, terms: &ReadTerms, operation: Operation) -> Result<Lookup, Error> {
        let started = Moment::now();
        let result = self.look_up(key, terms, started).await;
        self.count_position_read(terms, result.as_ref());
        let result = result.map_err(Error::from);
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
        wanted: Wanted,
        show: impl FnOnce(Option<EntryRef<'_>>, &AnsweredBy) -> R,
    ) -> Option<R> {
        let is_wanted = |found: Option<EntryRef<'_>>| {
            wanted == Wanted::Any || found.is_some_and(|entry| !self.may_refresh(key, entry, started))
        };
        // An embedded store counts each read, so look first whether this will be one.
        let is_refused = || wanted != Wanted::Any && !is_wanted(self.store.peek(key).as_ref().map(Entry::borrowed));
        let (end, shown) = match &self.near {
            Some(near) => {
                let look = |copy: CopyRef<'_>, staleness| {
                    let Value::Small(value) = copy.value else { return None };
                    let (entry, trail) = (copy.entry(value, started), AnsweredBy::L1 { staleness });
                    is_wanted(Some(entry))
                        .then(|| (ReadEnd::answered(Some(&entry), Tier::L1), show(Some(entry), &trail)))
                };
                let answered = near.with(key, started, look).ok()??;
                self.metrics.l1_hits.increment(1);
                answered
            }
            None if is_refused() => return None,
            None => {
                let entry = self.store.get_without_waiting(key)?.filter(Entry::is_answerable);
                if !is_wanted(entry.as_ref().map(Entry::borrowed)) {
                    return None;
                }
                self.metrics.shard_reads.increment(1);
                let entry = entry.as_ref().map(Entry::borrowed);
                let end = ReadEnd::answered(entry.as_ref(), Tier::Embedded);
                (end, show(entry, &AnsweredBy::Embedded))
            }
        };
        self.observe_read(Operation::Get, key, &end, started);
        Some(shown)
    }

    /// Reads an entry with all its metadata from the owning shard.
    ///
    /// # Errors
    /// The owning shard failed, or the terms do not allow to ask it.
    pub async fn describe(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        operation: Operation,
    ) -> Result<(Lookup, Option<Details>), Error> {
        let started = Moment::now();
        let (result, details) = match self.look_up_details(key, terms).await {
            Ok((lookup, details)) => (Ok(lookup), details),
            Err(error) => (Err(error), None),
        };
        self.count_position_read(terms, result.as_ref());
        let result = result.map_err(Error::from);
        self.observe_read(operation, key.borrowed(), &ReadEnd::of(&result), started);
        result.map(|lookup| (lookup, details))
    }

    async fn look_up_details(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
    ) -> Result<(Lookup, Option<Details>), store::Error> {
        if terms.only_if_cached && self.near.is_some() {
            return Err(store::Error::NotInMemory);
        }
        let departure = self.near.as_ref().map(|near| near.departure(key, &self.store));
        let asked_at = Moment::now();
        self.metrics.shard_reads.increment(1);
        let (entry, details) = self.store.describe(key, &terms.positions).await?.unzip();
        let mut trail = AnsweredBy::Embedded;
        if let (Some(near), Some(departure)) = (&self.near, departure) {
            near.learn(key, entry.as_ref(), asked_at, departure);
            let skipped = L1SkipReason::Terms(Unmet::NoCache);
            trail = AnsweredBy::Shard { shard: self.store.shard_of(key), skipped, collapsed: false };
        }
        Ok((Lookup::of_store(entry, terms, trail), details))
    }

    pub(super) async fn look_up(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        now: Moment,
    ) -> Result<Lookup, store::Error> {
        let Some(near) = &self.near else {
            self.metrics.shard_reads.increment(1);
            return Ok(Lookup::of_store(self.read_one_stored(key, terms).await?, terms, AnsweredBy::Embedded));
        };
        let skipped = match near.get(key, terms, now) {
            Ok((entry, staleness)) => return Ok(Lookup::hit(entry, AnsweredBy::L1 { staleness })),
            Err(skipped) => skipped,
        };
        if terms.only_if_cached {
            return Err(store::Error::NotInMemory);
        }
        let (landed, role) = match terms.no_cache || !terms.positions.is_empty() {
            true => (self.read_alone(near, key, terms).await, Role::Leader),
            false => near.load(key, terms, &self.store).await,
        };
        match landed {
            Ok(found) => {
                let collapsed = role == Role::Follower;
                let trail = AnsweredBy::Shard { shard: self.store.shard_of(key), skipped, collapsed };
                Ok(Lookup::of_store(found, terms, trail))
            }
            Err(error) => self.stale_lookup(key, terms, error),
        }
    }

    /// Reads `key` from the store for this request alone, and keeps a copy.
    async fn read_alone(
        &self,
        near: &Near,
        key: &EntryKey,
        terms: &ReadTerms,
    ) -> Result<Option<Entry>, store::Error> {
        let departure = near.departure(key, &self.store);
        let asked_at = Moment::now();
        self.metrics.shard_reads.increment(1);
        let found = self.read_one_stored(key, terms).await?;
        near.learn(key, found.as_ref(), asked_at, departure);
        Ok(found)
    }

    /// A stale copy in place of an error of the shard, if the policy and the terms allow it; else the error.
    pub(super) fn stale_lookup(
        &self,
        key: &EntryKey,
        terms: &ReadTerms,
        error: store::Error,
    ) -> Result<Lookup, store::Error> {
        let stale = self.near.as_ref().and_then(|near| near.stand_in(key, terms, &error));
        let Some(Stale { entry, overdue, staleness }) = stale else { return Err(error) };
        let trail = AnsweredBy::Stale { shard: self.store.shard_of(key), error, overdue, staleness };
        Ok(Lookup::hit(entry, trail))
    }
}
