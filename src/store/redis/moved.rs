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

use arc_swap::ArcSwapOption;
use fred::bytes_utils::Str;
use fred::types::{Resp3Frame as Frame, Value};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::generations::{FIELDS, Record, Seen};
use super::history::{ANY_VERSION, History, Rings};
use super::place::{self, PLACES};
use super::reply;
use super::scan;
use super::scripts;
use super::shard::{Effect, Party, Shard};
use super::verbs::{keys_and_places, secret};
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
    settled: ArcSwapOption<Settled>,
    /// Held to settle.
    settling: Mutex<()>,
    changed: Notify,
    /// Whether something became void under copies that this process may have.
    voided: AtomicBool,
    /// Wakes the task that keeps the record: an operation or a proof met another one, or none.
    pub doubted: Notify,
    /// Whether every instance must void its copies: the server may be another, and does not say which it is.
    is_suspect: AtomicBool,
    /// Whether living instances divide the keys otherwise, so that this one serves nothing.
    is_mismatched: AtomicBool,
}

/// A record that this process may serve under.
pub struct Settled {
    pub record: Record,
    /// When it was written, by which it is told from earlier ones.
    pub written: u64,
    pub identity: Identity,
    /// What every script passes, see `lua/fence_write.lua`.
    pub token: Str,
    /// `None` where the record is clean.
    history: Option<History>,
}

/// Which server a record is of, and how what it holds is laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Made anew when the record is lost or the server is another one: copies from before are void then.
    pub incarnation: Str,
    /// See `place.rs`; the same on all shards of a fleet.
    pub place_secret: Str,
    /// Of the server that wrote the record; empty where it may not be asked.
    pub run_id: Str,
}

impl Settled {
    pub fn new(record: Record, written: u64, identity: Identity, history: Option<History>) -> Self {
        let token = Str::from(format!("{}.{written}", identity.incarnation));
        Self { record, written, identity, token, history }
    }

    /// Whether nothing that the shard holds is void.
    pub fn is_clean(&self) -> bool {
        self.history.is_none()
    }

    /// Where a key stands in the index of its namespace.
    pub fn place_of(&self, key: &str) -> u64 {
        place::of(&self.identity.place_secret, key)
    }
}

impl Belonging {
    pub fn settled(&self) -> Option<Arc<Settled>> {
        self.settled.load_full()
    }

    /// Serves under a record from now on.
    pub fn settle(&self, new: Settled) {
        let _settling = self.settling.lock();
        let before = self.settled.load_full();
        if before.as_ref().is_some_and(|known| known.written >= new.written) {
            return;
        }
        let state = if new.history.is_some() { UNCLEAN } else { CLEAN };
        let is_another =
            before.is_some_and(|known| state == UNCLEAN || known.identity.incarnation != new.identity.incarnation);
        self.settled.store(Some(Arc::new(new)));
        self.state.store(state, Ordering::Release);
        self.changed.notify_one();
        self.is_mismatched.store(false, Ordering::Release);
        if is_another {
            self.voided.store(true, Ordering::Release);
        }
    }

    /// Whether something became void since this was last asked, of which there may be copies.
    pub fn take_voided(&self) -> bool {
        self.voided.swap(false, Ordering::AcqRel)
    }

    /// The server may be another, and cannot be told by its run.
    pub fn suspect(&self) {
        self.is_suspect.store(true, Ordering::Release);
        self.doubted.notify_one();
    }

    pub fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Acquire)
    }

    /// A new incarnation was written, or another reason for it is gone.
    pub fn trust(&self) {
        self.is_suspect.store(false, Ordering::Release);
    }

    /// Serves nothing, as living instances divide the keys otherwise; until the shard is settled.
    pub fn mismatch(&self, is_mismatched: bool) {
        self.is_mismatched.store(is_mismatched, Ordering::Release);
    }

    pub fn is_mismatched(&self) -> bool {
        self.is_mismatched.load(Ordering::Acquire)
    }

    pub fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) != UNSETTLED
    }
}

/// What a shard holds under `sidecache:ring`, and of which server it is.
pub struct Found {
    pub seen: Seen,
    /// The server's run, empty where it may not be asked.
    pub run_id: Str,
    /// `None` where there is no record.
    pub written: Option<Written>,
}

/// How a record was written.
pub struct Written {
    pub at: u64,
    /// Of what the shard stores, see [`FORM`].
    pub form: String,
    pub identity: Identity,
    /// Whether the fence has its token.
    pub is_fenced: bool,
}

/// The form of what is stored: a shard of another is emptied of our keys. `docs/ARCHITECTURE.md` has its table.
pub const FORM: &str = "3";

/// The form of a shard that is being emptied.
pub const EMPTYING: &str = "emptying";

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

    pub fn unsettled(&self) -> Error {
        if self.belonging.is_mismatched() {
            return Error::RingMismatch;
        }
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

    /// Reads the record again, as the shard has refused `settled`, and serves under it if this instance may.
    pub async fn settle_anew(&self, settled: &Settled) -> Result<Arc<Settled>, Error> {
        // Another operation may have done it.
        if let Some(known) = self.belonging.settled().filter(|known| known.token != settled.token) {
            return Ok(known);
        }
        let Found { seen, run_id, written } = self.find_record().await?;
        match (seen.record, written) {
            (Some(record), Some(written))
                if record.current.names == settled.record.current.names
                    && record.shard == settled.record.shard
                    && written.form == FORM
                    && written.is_fenced
                    && written.identity.run_id == run_id
                    && written.at >= settled.written
                    && !self.belonging.is_suspect() =>
            {
                let history = (!record.is_clean).then(|| History::new(&record, &mut Rings::default()));
                self.belonging.settle(Settled::new(record, written.at, written.identity, history));
                self.belonging.settled().ok_or_else(|| self.unsettled())
            }
            // It was lost, or is about another ring or server: the task that keeps it will see.
            _ => {
                self.belonging.doubted.notify_one();
                Err(self.unsettled())
            }
        }
    }

    /// Reads the record of rings.
    pub async fn find_record(&self) -> Result<Found, Error> {
        let arguments = || FIELDS.map(Value::from).to_vec();
        self.run_upkeep(&scripts::READ_RING, Effect::Read, arguments, |frame| {
            let mut fields = reply::array(frame)?.into_iter();
            let mut next = |expected| fields.next().ok_or(expected);
            let has_data = reply::count(next("whether there is data")?)? > 0;
            let run_id = Str::from(reply::text(next("the server's run")?)?);
            let is_fenced = reply::count(next("whether the fence has the token")?)? > 0;
            let Some(at) = fields.next().map(reply::count).transpose()? else {
                return Ok(Found { seen: Seen { record: None, has_data }, run_id, written: None });
            };
            let mut texts = fields.map(reply::text).collect::<Result<Vec<_>, _>>()?.into_iter();
            let mut next = || texts.next().ok_or("a field of the record");
            let form = next()?;
            let identity = Identity {
                incarnation: Str::from(next()?),
                place_secret: Str::from(next()?),
                run_id: Str::from(next()?),
            };
            let values: Vec<String> = texts.collect();
            let written = Some(Written { at, form, identity, is_fenced });
            Ok(Found { seen: Seen { record: Record::parse(&values), has_data }, run_id, written })
        })
        .await
    }

    /// Writes the record if it is still the one written at `expected`; answers when it was. `form` is that of what
    /// the shard stores; with `is_another` everybody's copies are void.
    pub async fn write_record(
        &self,
        expected: Option<u64>,
        record: &Record,
        form: &'static str,
        place_secret: &str,
        is_another: bool,
    ) -> Result<Option<u64>, Error> {
        let expected = expected.map_or_else(String::new, |written| written.to_string());
        let after = self.belonging.settled().map_or(0, |settled| settled.written).to_string();
        let incarnation = random_name();
        let is_another = if is_another { "1" } else { "0" };
        let arguments = || {
            let fields = FIELDS.into_iter().zip(record.values());
            let fields = fields.flat_map(|(field, value)| [Value::from(field), Value::from(value)]);
            let apart = CLOCKS_APART_US.to_string();
            let first = [&expected, &after, &apart, form, &incarnation, is_another, place_secret];
            first.map(Value::from).into_iter().chain(fields).collect()
        };
        self.run_upkeep(&scripts::WRITE_RING, Effect::Write, arguments, |frame| match frame {
            Frame::Number { .. } => Ok(None),
            frame => {
                let [written, _, _] = reply::tuple(frame)?;
                Ok(Some(reply::count(written)?))
            }
        })
        .await
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
        let namespaces = self.namespaces().await?;
        for namespace in &namespaces {
            let mut place = 0;
            while place < PLACES {
                let started = Moment::now();
                let part = self.part(namespace, &Selection::All, place, LISTED_PER_SCRIPT).await?;
                if !part.is_whole {
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

/// A name that nobody can guess.
pub fn random_name() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers for whoever may run");
    format!("{:032x}", u128::from_le_bytes(bytes))
}
