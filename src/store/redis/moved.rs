//! Entries of keys that moved to another shard: nobody sees them, and they are removed.
//!
//! What is void on a shard is told by its record of rings, see `generations.rs`. Until that record is
//! settled for this process, the shard is given no operation. While it is not clean, every operation
//! first deletes what is void under its keys, and a walk over the index deletes the rest, by one instance
//! at a time. In the ordinary state, a clean record, operations pay for one look at an atomic.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::belonging::{FORM, Settled};
use super::history::ANY_VERSION;
use super::place::PLACES;
use super::reply;
use super::scan;
use super::scripts;
use super::shard::{Effect, Party, Shard};
use super::verbs::{Index, keys_and_places, secret};
use crate::clock::Moment;
use crate::model::{EntryKey, Namespace, Selection, hash};
use crate::store::Error;

/// Who walks, see `lua/become_walker.lua`; for how long if it dies, and how often it says that it lives.
const WALKER: &str = "sidecache:ring_walker";
const WALKER_TTL_MS: u64 = 5_000;
const RENEWAL: Duration = Duration::from_secs(1);

/// Keys that one script lists and deletes, keys of Redis that one SCAN looks at, and how long to rest after
/// a step, in times of its own duration.
const LISTED_PER_SCRIPT: usize = 250;
const PURGED_PER_SCRIPT: usize = 25;
const SCANNED_PER_STEP: usize = 1000;
const REST: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(50);

/// How often an operation reads the record again, if it changes all the time.
const REFRESHES: usize = 3;

/// How often it is looked whether another instance, which had the right to walk, has given up.
const LOOK: Duration = Duration::from_secs(1);

/// Keys by the version up to which they are void.
type Due<'k> = BTreeMap<u64, Vec<&'k str>>;

impl Shard {
    /// Deletes what is void under `keys`, of one namespace, before an operation on them.
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
            // Rare, and no part of the future of every operation.
            if Box::pin(self.purge(effect, key.namespace(), due, &known)).await?.is_some() {
                return Ok(());
            }
            settled = Box::pin(self.refreshed(&known)).await?;
        }
        Err(self.unsettled())
    }

    /// Deletes those of `keys` that are void or not the shard's own; answers the others.
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

    /// Deletes entries that are void under `settled`, before something is read or written under their
    /// keys; answers which, or `None` where the shard has another record by now.
    async fn purge(
        &self,
        effect: Effect,
        namespace: &str,
        due: Due<'_>,
        settled: &Arc<Settled>,
    ) -> Result<Option<HashSet<String>>, Error> {
        let mut all_gone = HashSet::new();
        let before_write = if effect == Effect::Write { "1" } else { "0" };
        for (until, keys) in due {
            let until = if until == ANY_VERSION { String::new() } else { until.to_string() };
            for keys in keys.chunks(PURGED_PER_SCRIPT) {
                let arguments = |settled: &Settled| {
                    let mut all = vec![Value::from(namespace), secret(settled), Value::from(until.as_str())];
                    all.push(Value::from_static_str(before_write));
                    all.extend(keys_and_places(settled, keys.iter().copied()));
                    all
                };
                let gone =
                    self.ask_under(settled, Party::Alone, &scripts::PURGE, Effect::Write, arguments, reply::texts);
                let gone = gone.await.map_err(|error| match error {
                    // Of no operation that anybody asked for.
                    Error::OutcomeUnknown { shard, .. } => Error::Timeout { shard },
                    error => error,
                })?;
                // What is void under the new record has to be found out anew.
                let Some(gone) = gone else { return Ok(None) };
                self.metrics.moved_removed.increment(gone.len() as u64);
                all_gone.extend(gone);
            }
        }
        Ok(Some(all_gone))
    }

    /// What is known of void entries once the record was read again.
    async fn refreshed(&self, settled: &Settled) -> Result<Option<Arc<Settled>>, Error> {
        self.settle_anew(settled).await?;
        self.unclean()
    }

    /// Removes every entry of ours and what belongs to them, step by step; answers how many keys went. `written` names
    /// the record that says that this is done.
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

    /// Removes what is void whenever there is something, until `shutdown`.
    pub async fn run_cleaning(self: Arc<Self>, instance: String, shutdown: CancellationToken) {
        let cleaning = async {
            loop {
                // Another instance may be at it, and die.
                let _ = timeout(LOOK, self.belonging.changed.notified()).await;
                if self.is_unclean()
                    && let Err(error) = self.clean(&instance).await
                {
                    tracing::debug!(%error, "entries of moved keys are not all removed yet");
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = cleaning => {}
        }
    }

    /// Walks over all namespaces if that is to be done and nobody else does.
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
                    // What the index has lost may be void, too: it is found first.
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
            tracing::info!(shard = %self.name, "entries of moved keys are removed");
            self.settle_anew(&settled).await?;
        }
        Ok(())
    }

    /// Rests after a step of the walk that began at `started`; tells whether there is reason for another.
    async fn goes_on(
        &self,
        instance: &str,
        settled: &Settled,
        started: Moment,
        renewed: &mut Moment,
    ) -> Result<bool, Error> {
        let now = Moment::now();
        sleep((now.since(started) * REST).min(REST_MAX)).await;
        if now.since(*renewed) >= RENEWAL {
            *renewed = now;
            if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
                // This process stood still for so long that another one took over.
                return Ok(false);
            }
        }
        Ok(self.belonging.settled().is_some_and(|known| known.written == settled.written))
    }
}
