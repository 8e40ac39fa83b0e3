//! Entries of keys that moved to another shard: nobody sees them, and they are removed.
//!
//! What is void on a shard is told by its record of rings, see `generations.rs`. Until that record is
//! settled for this process, the shard is given no operation. While it is not clean, every operation
//! first deletes what is void under its keys, and a walk over the index deletes the rest, by one instance
//! at a time. In the ordinary state, a clean record, operations pay for one look at an atomic.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use fred::types::{Resp3Frame as Frame, Value};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::generations::{FIELDS, Record, Seen};
use super::history::{ANY_VERSION, History, Rings};
use super::place::{self, PLACES};
use super::reply;
use super::scripts;
use super::shard::{Effect, Shard};
use crate::clock::Moment;
use crate::model::{EntryKey, Namespace, Selection, hash};
use crate::store::Error;

/// How far the clocks of a shard's servers may be apart, or one may step back.
const CLOCKS_APART_US: u64 = 3_600_000_000;

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

const UNSETTLED: u8 = 0;
const CLEAN: u8 = 1;
const UNCLEAN: u8 = 2;

/// What this process knows of one shard's record of rings.
#[derive(Default)]
pub struct Belonging {
    /// What an operation has to look at; follows `settled`.
    state: AtomicU8,
    settled: RwLock<Option<Arc<Settled>>>,
    changed: Notify,
    /// Whether something became void under copies that this process may have.
    voided: AtomicBool,
    /// Whether an operation met another record than the one known.
    doubted: AtomicBool,
}

/// A record that this process may serve under.
pub struct Settled {
    pub record: Record,
    /// When it was written, by which it is told from earlier ones.
    pub written: u64,
    /// `None` where the record is clean.
    history: Option<History>,
}

impl Belonging {
    pub fn settled(&self) -> Option<Arc<Settled>> {
        self.settled.read().clone()
    }

    /// Serves under `record` from now on; `history` is there if it is not clean.
    pub fn settle(&self, record: Record, written: u64, history: Option<History>) {
        let mut settled = self.settled.write();
        if settled.as_ref().is_some_and(|known| known.written >= written) {
            return;
        }
        let state = if history.is_some() { UNCLEAN } else { CLEAN };
        let before = settled.replace(Arc::new(Settled { record, written, history }));
        self.state.store(state, Ordering::Release);
        self.changed.notify_one();
        if before.is_some() && state == UNCLEAN {
            self.voided.store(true, Ordering::Release);
        }
    }

    /// Whether something became void since this was last asked, of which there may be copies.
    pub fn take_voided(&self) -> bool {
        self.voided.swap(false, Ordering::AcqRel)
    }

    /// Whether the record should be looked at, as an operation met another one.
    pub fn take_doubt(&self) -> bool {
        self.doubted.swap(false, Ordering::AcqRel)
    }

    pub fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) != UNSETTLED
    }
}

/// What a shard holds under `sidecache:ring`, and when that was written, if it was.
pub struct Found {
    pub seen: Seen,
    pub written: Option<u64>,
}

/// Keys by the version up to which they are void.
type Due<'k> = BTreeMap<u64, Vec<&'k str>>;

impl Shard {
    /// Refuses what comes before the shard's record of rings is settled.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    pub fn admit(&self) -> Result<(), Error> {
        self.watch.admit()?;
        if self.belonging.is_settled() { Ok(()) } else { Err(self.unsettled()) }
    }

    fn unsettled(&self) -> Error {
        Error::Unavailable { shard: self.name.clone(), reason: "its ring is not known yet".to_owned() }
    }

    /// What is known of void entries while there may be any.
    fn unclean(&self) -> Result<Option<Arc<Settled>>, Error> {
        self.watch.admit()?;
        match self.belonging.state.load(Ordering::Acquire) {
            CLEAN => Ok(None),
            UNSETTLED => Err(self.unsettled()),
            _ => Ok(self.belonging.settled()),
        }
    }

    /// Deletes what is void under `keys`, of one namespace, before an operation on them.
    pub async fn clear(&self, effect: Effect, keys: &[&EntryKey]) -> Result<(), Error> {
        let mut settled = self.unclean()?;
        for _ in 0..REFRESHES {
            let Some(known) = settled else { return Ok(()) };
            let Some(history) = &known.history else { return Ok(()) };
            let mut due = Due::new();
            for key in keys {
                match history.void_until(key.hash()) {
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
        settled: &Settled,
    ) -> Result<Option<HashSet<String>>, Error> {
        let mut all_gone = HashSet::new();
        let before_write = if effect == Effect::Write { "1" } else { "0" };
        let written = settled.written.to_string();
        for (until, keys) in due {
            let until = if until == ANY_VERSION { String::new() } else { until.to_string() };
            for keys in keys.chunks(PURGED_PER_SCRIPT) {
                let places: Vec<String> = keys.iter().map(|key| place::of(key).to_string()).collect();
                let arguments = || {
                    let keys = keys.iter().zip(&places).flat_map(|(key, place)| [*key, place]);
                    [namespace, &until, before_write, &written].into_iter().chain(keys).map(Value::from).collect()
                };
                let read = |frame| match frame {
                    Frame::Number { .. } => Ok(None),
                    frame => reply::texts(frame).map(Some),
                };
                let gone = self.ask(&scripts::PURGE, Effect::Write, arguments, read).await;
                let gone = gone.map_err(|error| match error {
                    // Of no operation that anybody asked for.
                    Error::OutcomeUnknown { shard, .. } => Error::Timeout { shard },
                    error => error,
                })?;
                let Some(gone) = gone else { return Ok(None) };
                self.metrics.moved_removed.increment(gone.len() as u64);
                all_gone.extend(gone);
            }
        }
        Ok(Some(all_gone))
    }

    /// What is known of void entries once the record was read again.
    async fn refreshed(&self, settled: &Settled) -> Result<Option<Arc<Settled>>, Error> {
        let Found { seen, written } = self.find_record().await?;
        match (seen.record, written) {
            (Some(record), Some(written)) if record.current.names == settled.record.current.names => {
                let history = (!record.is_clean).then(|| History::new(&record, &mut Rings::default()));
                self.belonging.settle(record, written, history);
                self.unclean()
            }
            // It was lost, or is about another ring: the task that keeps it will see.
            _ => {
                self.belonging.doubted.store(true, Ordering::Release);
                Err(self.unsettled())
            }
        }
    }

    /// Reads the record of rings.
    pub async fn find_record(&self) -> Result<Found, Error> {
        let arguments = || FIELDS.map(Value::from).to_vec();
        self.ask(&scripts::READ_RING, Effect::Read, arguments, |frame| {
            let mut fields = reply::array(frame)?.into_iter();
            let has_data = reply::count(fields.next().ok_or("whether there is data")?)? > 0;
            let written = fields.next().map(reply::count).transpose()?;
            let values = fields.map(reply::text).collect::<Result<Vec<_>, _>>()?;
            Ok(Found { seen: Seen { record: Record::parse(&values), has_data }, written })
        })
        .await
    }

    /// Writes the record if it is still the one written at `expected`; tells whether it was.
    pub async fn write_record(&self, expected: Option<u64>, record: &Record) -> Result<bool, Error> {
        let expected = expected.map_or_else(String::new, |written| written.to_string());
        let after = self.belonging.settled().map_or(0, |settled| settled.written).to_string();
        let arguments = || {
            let fields = FIELDS.into_iter().zip(record.values());
            let fields = fields.flat_map(|(field, value)| [Value::from(field), Value::from(value)]);
            let first = [expected.clone(), after.clone(), CLOCKS_APART_US.to_string()];
            first.map(Value::from).into_iter().chain(fields).collect()
        };
        Ok(self.ask(&scripts::WRITE_RING, Effect::Write, arguments, reply::number).await? == 1)
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

    fn is_unclean(&self) -> bool {
        self.belonging.state.load(Ordering::Acquire) == UNCLEAN
    }

    /// Walks over all namespaces if that is to be done and nobody else does.
    async fn clean(&self, instance: &str) -> Result<(), Error> {
        let Some(settled) = self.unclean()? else { return Ok(()) };
        if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
            return Ok(());
        }
        let mut renewed = Moment::now();
        let mut namespaces = Vec::new();
        let (mut cursor, mut is_done) = ("0".to_owned(), false);
        while !is_done {
            let started = Moment::now();
            cursor = self.find_namespaces(&cursor, &mut namespaces).await?;
            is_done = cursor == "0";
            if !self.goes_on(instance, &settled, started, &mut renewed).await? {
                return Ok(());
            }
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        for namespace in namespaces.iter().filter_map(|name| Namespace::parse(name).ok()) {
            let mut place = 0;
            while place < PLACES {
                let started = Moment::now();
                let part = self.part(&namespace, &Selection::All, place, LISTED_PER_SCRIPT).await?;
                self.without_void(&namespace, part.keys).await?;
                place = part.next;
                if !self.goes_on(instance, &settled, started, &mut renewed).await? {
                    return Ok(());
                }
            }
        }
        let is_clean = self.write_record(Some(settled.written), &settled.record.cleaned()).await?;
        self.read("UNLINK", vec![Value::from(WALKER)]).await?;
        if is_clean {
            tracing::info!(shard = %self.name, "entries of moved keys are removed");
            self.refreshed(&settled).await?;
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

    /// Adds the names of namespaces that a part of the shard's keys tell; answers where to go on.
    async fn find_namespaces(&self, cursor: &str, names: &mut Vec<String>) -> Result<String, Error> {
        let count = SCANNED_PER_STEP.to_string();
        let arguments = [cursor, "MATCH", "cache_stats:*", "COUNT", &count, "TYPE", "hash"];
        let answer = self.read("SCAN", arguments.map(Value::from).to_vec()).await?;
        let mut read = |answer| {
            let [cursor, keys] = reply::tuple(answer)?;
            let keys = reply::texts(keys)?;
            names.extend(keys.iter().filter_map(|key| key.strip_prefix("cache_stats:")).map(str::to_owned));
            reply::text(cursor)
        };
        read(answer).map_err(|expected: reply::Unexpected| self.unexpected(expected))
    }
}
