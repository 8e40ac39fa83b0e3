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
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::history::ANY_VERSION;
use super::place::PLACES;
use super::reply;
use super::ring_record::FORM;
use super::ring_state::SettledRecord;
use super::scan;
use super::scripts;
use super::shard::{Effect, Sender, Shard};
use super::verbs::{Index, keys_and_places, secret};
use crate::clock::Moment;
use crate::model::{EntryKey, Namespace, Selection, hash};
use crate::store::Error;

/// The Redis key that names the instance that walks, see `lua/become_walker.lua`; how long its claim lasts without
/// renewal; and how often it renews the claim.
const WALKER: &str = "sidecache:ring_walker";
const WALKER_TTL_MS: u64 = 5_000;
const RENEWAL: Duration = Duration::from_secs(1);

/// Keys that one script lists, keys that one script deletes, and Redis keys that one SCAN looks at. After a step, the
/// walk pauses for [`REST`] times the step's duration, at most [`REST_MAX`].
const LISTED_PER_SCRIPT: usize = 250;
const PURGED_PER_SCRIPT: usize = 25;
const SCANNED_PER_STEP: usize = 1000;
const REST: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(50);

/// How often an operation reads the record again if it keeps changing.
const REFRESHES: usize = 3;

/// How often to check whether the walk of another instance has stopped.
const LOOK: Duration = Duration::from_secs(1);

/// Void keys by the version up to which they are void.
type Due<'k> = BTreeMap<u64, Vec<&'k str>>;

impl Shard {
    /// Deletes the void entries of `keys`, which are of one namespace, before an operation on them.
    pub async fn clear(&self, effect: Effect, keys: &[&EntryKey]) -> Result<(), Error> {
        let mut settled = self.unclean()?;
        for _ in 0..REFRESHES {
            let Some(known) = settled else { return Ok(()) };
            let Some(history) = &known.history else { return Ok(()) };
            let mut due = Due::new();
            for key in keys {
                match history.void_until(key.ring_hash()) {
                    0 => {}
                    until => due.entry(until).or_default().push(key.key()),
                }
            }
            let Some(key) = keys.first().filter(|_| !due.is_empty()) else { return Ok(()) };
            // Boxed because it is rare: it must not enlarge the future of every operation.
            if Box::pin(self.purge(effect, key.namespace(), due, &known)).await?.is_some() {
                return Ok(());
            }
            settled = Box::pin(self.refreshed(&known)).await?;
        }
        Err(self.unsettled())
    }

    /// Deletes those entries of `keys` that are void or whose keys the shard does not own. Returns the remaining
    /// keys.
    pub async fn without_void(&self, namespace: &Namespace, keys: Vec<String>) -> Result<Vec<String>, Error> {
        let mut settled = self.unclean()?;
        for _ in 0..REFRESHES {
            let Some(known) = settled else { return Ok(keys) };
            let Some(history) = &known.history else { return Ok(keys) };
            let (mut due, mut foreign) = (Due::new(), HashSet::new());
            for key in &keys {
                let until = history.void_until(hash(format!("{namespace}:{key}").as_bytes()));
                if until > 0 {
                    due.entry(until).or_default().push(key);
                }
                if until == ANY_VERSION {
                    foreign.insert(key.clone());
                }
            }
            if let Some(gone) = Box::pin(self.purge(Effect::Read, namespace.as_str(), due, &known)).await? {
                return Ok(keys.into_iter().filter(|key| !gone.contains(key) && !foreign.contains(key)).collect());
            }
            settled = Box::pin(self.refreshed(&known)).await?;
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
                    let mut all = vec![Value::from(namespace), secret(settled), Value::from(until.as_str())];
                    all.push(Value::from_static_str(before_write));
                    all.extend(keys_and_places(settled, keys.iter().copied()));
                    all
                };
                let gone =
                    self.ask_under(settled, Sender::Alone, &scripts::PURGE, Effect::Write, arguments, reply::texts);
                let gone = gone.await.map_err(|error| match error {
                    // This is not the client's operation, so its unknown outcome is only a failure to answer in time.
                    Error::OutcomeUnknown { shard, .. } => Error::Timeout { shard },
                    error => error,
                })?;
                // Under a new record, other entries may be void: the caller checks again.
                let Some(gone) = gone else { return Ok(None) };
                self.metrics.moved_removed.increment(gone.len() as u64);
                all_gone.extend(gone);
            }
        }
        Ok(Some(all_gone))
    }

    /// Reads the record again; returns it if the shard may hold void entries.
    async fn refreshed(&self, settled: &SettledRecord) -> Result<Option<Arc<SettledRecord>>, Error> {
        self.settle_anew(settled).await?;
        self.unclean()
    }

    /// Removes all of our entries and their bookkeeping, step by step. Returns how many Redis keys were removed.
    /// `written` identifies the record that marks the shard as being emptied.
    pub async fn empty(&self, written: u64) -> Result<u64, Error> {
        let (mut cursor, mut gone) = ("0".to_owned(), 0);
        let (written, count) = (written.to_string(), SCANNED_PER_STEP.to_string());
        loop {
            let arguments = [&cursor, "MATCH", "cache*", "COUNT", &count];
            let answer = self.read("SCAN", arguments.map(Value::from).to_vec()).await?;
            let (next, names) = scan::names(answer).map_err(|expected| self.unexpected(expected))?;
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

    /// Removes void entries whenever there are any, until `shutdown`.
    pub async fn run_cleaning(self: Arc<Self>, instance: String, shutdown: CancellationToken) {
        let cleaning = async {
            loop {
                // The timeout covers an instance that dies during its walk.
                let _ = timeout(LOOK, self.ring_state.changed.notified()).await;
                if self.is_unclean()
                    && let Err(error) = self.clean(&instance).await
                {
                    tracing::debug!(%error, "not all entries of moved keys are removed yet");
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = cleaning => {}
        }
    }

    /// Walks over all namespaces if there are void entries and no other instance walks.
    async fn clean(&self, instance: &str) -> Result<(), Error> {
        let Some(settled) = self.unclean()? else { return Ok(()) };
        if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
            return Ok(());
        }
        let mut renewed = Moment::now();
        let namespaces = self.namespaces().await?;
        for namespace in &namespaces {
            let mut place = 0;
            while place < PLACES {
                let started = Moment::now();
                let part = self.part(namespace, &Selection::All, place, LISTED_PER_SCRIPT).await?;
                if part.index != Index::Whole {
                    // Entries that the index has lost may be void as well, so the index must be repaired first.
                    self.begin_repair(namespace).await?;
                    return Ok(());
                }
                self.without_void(namespace, part.keys).await?;
                place = part.next;
                if !self.goes_on(instance, &settled, started, &mut renewed).await? {
                    return Ok(());
                }
            }
        }
        let secret = &settled.identity.place_secret;
        let is_clean =
            self.write_record(Some(settled.written), &settled.record.cleaned(), FORM, secret, false).await?;
        self.read("UNLINK", vec![Value::from(WALKER)]).await?;
        if is_clean.is_some() {
            tracing::info!(shard = %self.name, "all entries of moved keys are removed");
            self.settle_anew(&settled).await?;
        }
        Ok(())
    }

    /// Pauses after a step of the walk that began at `started`; returns whether the walk should continue.
    async fn goes_on(
        &self,
        instance: &str,
        settled: &SettledRecord,
        started: Moment,
        renewed: &mut Moment,
    ) -> Result<bool, Error> {
        let now = Moment::now();
        sleep((now.since(started) * REST).min(REST_MAX)).await;
        if now.since(*renewed) >= RENEWAL {
            *renewed = now;
            if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
                // This process was suspended for so long that another one took over.
                return Ok(false);
            }
        }
        Ok(self.ring_state.settled().is_some_and(|known| known.written == settled.written))
    }
}
