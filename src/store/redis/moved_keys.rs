//! Entries of keys that moved to another shard: they are never visible, and they are removed.
//!
//! A shard's ring record says which of its entries are void, see `generations.rs`. Until the record is settled for
//! this process, the shard gets no operations. While the record is not clean, every operation first deletes the void
//! entries of its keys, and one instance at a time walks over the index to delete the rest. Normally the record is
//! clean, and then an operation only checks one atomic value.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tokio::time::timeout;

use super::history::ANY_VERSION;
use super::place::PLACES;
use super::reply;
use super::ring_record::FORM;
use super::ring_state::SettledRecord;
use super::scan;
use super::scripts;
use super::shard::{Effect, Sender, Shard};
use super::verbs::{Index, keys_and_places};
use super::walk::{Walk, WalkKind};
use crate::model::{EntryKey, Namespace, Selection, hash};
use crate::store::Error;

const WALK: WalkKind = WalkKind {
    claim: "sidecache:ring_walker",
    claim_ttl_ms: 5_000,
    renewal: Duration::from_secs(1),
    pauses_per_step: 2,
    max_pause: Duration::from_millis(50),
};

/// Keys that one script lists, keys that one script deletes, and Redis keys that one SCAN looks at.
const LISTED_PER_SCRIPT: usize = 250;
const PURGED_PER_SCRIPT: usize = 25;
const SCANNED_PER_STEP: &str = "1000";

/// Matches the names of our entries and their bookkeeping. `lua/empty.lua` leaves keys of other programs alone.
const OURS: &str = "*cache*:*";

/// How often an operation reads the record again if it keeps changing.
const REFRESHES: usize = 3;

/// How often to check whether the walk of another instance has stopped.
const LOOK: Duration = Duration::from_secs(1);

/// Void keys by the version up to which they are void.
type Due<'k> = BTreeMap<u64, Vec<&'k str>>;

impl Shard {
    /// Deletes the void entries of `keys`, which are of one namespace, before an operation on them.
    pub async fn clear(&self, effect: Effect, keys: &[&EntryKey]) -> Result<(), Error> {
        if self.unclean()?.is_some()
            && let Some(first) = keys.first()
        {
            let keys: Vec<_> = keys.iter().map(|key| (key.key(), key.ring_hash())).collect();
            // Boxed because it is rare: it must not enlarge the future of every operation.
            Box::pin(self.remove_void(effect, first.namespace(), &keys)).await?;
        }
        Ok(())
    }

    /// Deletes those entries of `keys` that are void or whose keys the shard does not own. Returns the remaining
    /// keys.
    pub async fn without_void(&self, namespace: &Namespace, mut keys: Vec<String>) -> Result<Vec<String>, Error> {
        if self.unclean()?.is_some() {
            let hashed: Vec<_> =
                keys.iter().map(|key| (key.as_str(), hash(format!("{namespace}:{key}").as_bytes()))).collect();
            let gone = Box::pin(self.remove_void(Effect::Read, namespace.as_str(), &hashed)).await?;
            keys.retain(|key| !gone.contains(key));
        }
        Ok(keys)
    }

    /// Deletes the void entries of `keys`, which are given with their hashes. Returns the keys that are deleted or
    /// that the shard does not own.
    async fn remove_void(
        &self,
        effect: Effect,
        namespace: &str,
        keys: &[(&str, u64)],
    ) -> Result<HashSet<String>, Error> {
        for _ in 0..REFRESHES {
            let Some(known) = self.unclean()? else { return Ok(HashSet::new()) };
            let Some(history) = &known.history else { return Ok(HashSet::new()) };
            let mut due = Due::new();
            for (key, hash) in keys {
                match history.void_until(*hash) {
                    0 => {}
                    until => due.entry(until).or_default().push(key),
                }
            }
            let foreign: Vec<String> =
                due.get(&ANY_VERSION).into_iter().flatten().map(|key| (*key).to_owned()).collect();
            if let Some(mut gone) = self.purge(effect, namespace, due, &known).await? {
                gone.extend(foreign);
                return Ok(gone);
            }
            self.settle_anew(&known).await?;
        }
        Err(self.unsettled())
    }

    /// Deletes entries that are void under `settled`, before their keys are read or written. Returns the deleted
    /// keys, or `None` if the shard has another record now.
    async fn purge(
        &self,
        effect: Effect,
        namespace: &str,
        due: Due<'_>,
        settled: &Arc<SettledRecord>,
    ) -> Result<Option<HashSet<String>>, Error> {
        let mut all_gone = HashSet::new();
        let before_write = if effect == Effect::Write { "1" } else { "0" };
        for (until, keys) in due {
            let until = if until == ANY_VERSION { String::new() } else { until.to_string() };
            for keys in keys.chunks(PURGED_PER_SCRIPT) {
                let arguments = |settled: &SettledRecord| {
                    let keys = keys_and_places(settled, keys.iter().copied());
                    settled
                        .arguments(namespace, [until.as_str(), before_write].map(Value::from).into_iter().chain(keys))
                };
                let gone =
                    self.ask_under(settled, Sender::Alone, &scripts::PURGE, Effect::Write, arguments, reply::texts);
                // This is not the client's operation, so its unknown outcome is only a failure to answer in time.
                let gone = gone.await.map_err(Error::of_a_read)?;
                // Under a new record, other entries may be void: the caller checks again.
                let Some(gone) = gone else { return Ok(None) };
                self.metrics.moved_removed.increment(gone.len() as u64);
                all_gone.extend(gone);
            }
        }
        Ok(Some(all_gone))
    }

    /// Removes all of our entries and their bookkeeping, step by step. Returns how many Redis keys were removed.
    /// `written` identifies the record that marks the shard as being emptied.
    pub async fn empty(&self, written: u64) -> Result<u64, Error> {
        let (mut cursor, mut gone) = ("0".to_owned(), 0);
        let written = written.to_string();
        loop {
            let arguments = [&cursor, "MATCH", OURS, "COUNT", SCANNED_PER_STEP];
            let (next, names) = self.read("SCAN", arguments.map(Value::from).to_vec(), scan::names).await?;
            if !names.is_empty() {
                let arguments =
                    || [&written].into_iter().chain(&names).map(|text| Value::from(text.as_str())).collect();
                match self.run_upkeep(&scripts::EMPTY, Effect::Write, arguments, reply::number).await? {
                    // Another instance has taken over.
                    -1 => return Err(self.unsettled()),
                    some => gone += some.unsigned_abs(),
                }
            }
            cursor = next;
            if cursor == "0" {
                return Ok(gone);
            }
        }
    }

    /// Removes void entries whenever there are any.
    pub async fn run_cleaning(self: Arc<Self>, instance: String) {
        loop {
            // The timeout covers an instance that dies during its walk.
            let _ = timeout(LOOK, self.ring_state.changed.notified()).await;
            if self.ring_state.is_settled()
                && !self.ring_state.is_clean()
                && let Err(error) = self.clean(&instance).await
            {
                tracing::debug!(%error, "not all entries of moved keys are removed yet");
            }
        }
    }

    /// Walks over all namespaces if there are void entries and no other instance walks.
    async fn clean(&self, instance: &str) -> Result<(), Error> {
        let Some(settled) = self.unclean()? else { return Ok(()) };
        let Some(mut walk) = Walk::begin(self, instance, &WALK).await? else { return Ok(()) };
        let namespaces = self.namespaces().await?;
        for namespace in &namespaces {
            let mut place = 0;
            while place < PLACES {
                let part = self.part(namespace, &Selection::All, place, LISTED_PER_SCRIPT).await?;
                if part.index != Index::Whole {
                    // Entries that the index has lost may be void as well, so the index must be repaired first.
                    self.begin_repair(namespace).await?;
                    return Ok(());
                }
                self.without_void(namespace, part.keys).await?;
                place = part.next;
                let has_claim = walk.pause().await?;
                let is_same = self.ring_state.settled().is_some_and(|known| known.written == settled.written);
                if !has_claim || !is_same {
                    return Ok(());
                }
            }
        }
        let secret = &settled.identity.place_secret;
        let is_clean =
            self.write_record(Some(settled.written), &settled.record.cleaned(), FORM, secret, false).await?;
        walk.end().await?;
        if is_clean.is_some() {
            tracing::info!(shard = %self.name, "all entries of moved keys are removed");
            self.settle_anew(&settled).await?;
        }
        Ok(())
    }
}
