//! Deletes the entries that a selection matches, step by step.
//!
//! Normally the index says which entries exist. If part of the index is lost, or one of its keys holds another type,
//! the whole shard is searched instead. Every entry has metadata under a name that contains its namespace, so no
//! entry that should be deleted stays readable. The search takes longer the more the shard holds, and it is rare.

use fred::types::Value;
use futures_util::future::join_all;

use super::marks::Marked;
use super::place::PLACES;
use super::repair::{Kind, kind_of, pattern_of};
use super::reply;
use super::ring_state::SettledRecord;
use super::scan::Scan;
use super::scripts;
use super::shard::{Effect, Shard};
use super::verbs::{Index, keys_and_places, tag_of};
use crate::model::{Namespace, Selection};
use crate::store::{Error, FlushProgress, Removal};

/// Keys that one script lists, and keys that one script deletes. Small, so that a script never blocks other clients
/// for long.
const FETCHED_PER_SCRIPT: usize = 100;
const FLUSHED_PER_SCRIPT: usize = 25;

/// A running flush of one shard.
pub struct Flush<'f> {
    pub namespace: &'f Namespace,
    pub selection: &'f Selection,
    pub on_deleted: &'f (dyn for<'k> Fn(&'k str) + Sync),
    /// Counts deleted entries, so that they are known even after a failure. The flush may be cancelled between two
    /// steps.
    pub progress: &'f FlushProgress,
    pub removal: Removal,
}

impl Flush<'_> {
    /// Deletes all matching entries of `shard` that were written before the call.
    pub async fn run(&self, shard: &Shard) -> Result<(), Error> {
        shard.admit()?;
        // First of all: nobody knows all keys that leases are on, nor the tags of a value to come.
        shard.end_leases(self.namespace).await?;
        let index = if shard.repairs.has_foreign(self.namespace) {
            Index::Lost
        } else {
            match self.follow_index(shard).await {
                // A key of the index holds another type.
                Err(error) if error.is_foreign() => Index::Lost,
                index => index?,
            }
        };
        if index == Index::Lost {
            shard.begin_repair(self.namespace).await?;
        }
        if index == Index::Whole { Ok(()) } else { self.search(shard).await }
    }

    /// Deletes the entries that the index lists, as long as the index is whole. Returns the state of the index.
    async fn follow_index(&self, shard: &Shard) -> Result<Index, Error> {
        let count = self.selection.step(FETCHED_PER_SCRIPT);
        let mut part = shard.part(self.namespace, self.selection, 0, count).await?;
        // Entries that are written from now on stay.
        let before = part.version;
        let mut walked = 0;
        loop {
            if part.index != Index::Whole {
                return Ok(part.index);
            }
            part.keys.retain(|key| self.selection.matches(key));
            part.keys = shard.without_void(self.namespace, part.keys).await?;
            if part.next >= PLACES {
                self.delete(shard, &part.keys, before).await?;
                self.progress.add_walked(PLACES.saturating_sub(walked));
                return Ok(Index::Whole);
            }
            // A key's place never changes, so the next part can be listed at the same time.
            let (namespace, selection) = (self.namespace, self.selection);
            let next = shard.part(namespace, selection, part.next, count);
            let (done, next) = tokio::join!(self.delete(shard, &part.keys, before), next);
            done?;
            if self.progress.is_cancelled() {
                return Ok(Index::Whole);
            }
            self.progress.add_walked(part.next.saturating_sub(walked));
            walked = part.next;
            part = next?;
        }
    }

    /// Searches the whole shard for entries and deletes them.
    async fn search(&self, shard: &Shard) -> Result<(), Error> {
        let before = shard.part(self.namespace, &Selection::All, PLACES - 1, 1).await?.version;
        let mut scan = Scan::new(shard, pattern_of(self.namespace))?;
        while let Some(names) = scan.next(shard).await? {
            let mut keys: Vec<String> = names
                .iter()
                .filter_map(|name| match kind_of(name, self.namespace) {
                    Some(Kind::Entry(key)) if self.selection.matches(key) => Some(key.to_owned()),
                    _ => None,
                })
                .collect();
            keys.sort_unstable();
            keys.dedup();
            self.delete(shard, &keys, before).await?;
            if self.progress.is_cancelled() {
                return Ok(());
            }
        }
        if matches!(self.selection, Selection::All) {
            shard.repairs.forget_foreign(self.namespace);
        }
        Ok(())
    }

    /// Deletes those of `keys` whose version is at most `before`. Two scripts are in flight at a time, so that the
    /// shard need not wait for the next one. Scripts of other clients run in between.
    async fn delete(&self, shard: &Shard, keys: &[String], before: u64) -> Result<(), Error> {
        let scripts: Vec<&[String]> = keys.chunks(FLUSHED_PER_SCRIPT).collect();
        for pair in scripts.chunks(2) {
            if self.progress.is_cancelled() {
                break;
            }
            let done = pair.iter().map(|keys| self.delete_older(shard, keys, before));
            let mut result = Ok(());
            for step in join_all(done).await {
                match step {
                    Ok((live, gone)) => {
                        self.progress.add_deleted(live);
                        gone.iter().for_each(|key| (self.on_deleted)(key));
                    }
                    Err(error) => result = Err(error),
                }
            }
            result?;
        }
        Ok(())
    }

    /// Deletes or marks those of `keys` that are selected and whose version is at most `before`, in one script. Returns
    /// how many were alive, and the keys whose copies are void.
    async fn delete_older(&self, shard: &Shard, keys: &[String], before: u64) -> Result<(u64, Vec<String>), Error> {
        if let Some(windows) = self.removal.windows {
            let which = Marked { before: Some(before), tag: tag_of(self.selection), conditions: None };
            let (marked, gone, _) =
                shard.mark_some(self.namespace.as_str(), keys, which, self.removal, windows).await?;
            return Ok((marked, gone));
        }
        let (before, tombstone_ttl) = (before.to_string(), self.removal.tombstone_ttl.as_millis().to_string());
        let arguments = |settled: &SettledRecord| {
            let keys = keys_and_places(settled, keys.iter().map(String::as_str));
            let first = [before.as_str(), tag_of(self.selection), &tombstone_ttl].map(Value::from);
            settled.arguments(self.namespace.as_str(), first.into_iter().chain(keys))
        };
        shard
            .ask(&scripts::FLUSH, Effect::Write, arguments, |frame| {
                let [deleted, gone, dropped] = reply::tuple(frame)?;
                shard.count_dropped_tombstones(dropped)?;
                Ok((reply::count(deleted)?, reply::texts(gone)?))
            })
            .await
    }
}
