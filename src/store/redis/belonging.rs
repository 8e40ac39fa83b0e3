//! What this process knows about one shard's ring record, and how the record is read and written.
//!
//! A ring record is *settled* when this process knows it and may serve the shard under it; nothing is served before.
//! `adoption.rs` settles records. `generations.rs` and `history.rs` decide which rings a record names and which
//! entries are void. `moved.rs` removes void entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use fred::bytes_utils::Str;
use fred::types::{Resp3Frame as Frame, Value};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::generations::{FIELDS, Record, Seen};
use super::history::{History, Rings};
use super::place;
use super::reply;
use super::scripts;
use super::shard::{Effect, Shard};
use crate::store::Error;

/// How far the clocks of a shard's servers may differ, and how far a clock may step back.
const CLOCKS_APART_US: u64 = 3_600_000_000;

const UNSETTLED: u8 = 0;
const CLEAN: u8 = 1;
const UNCLEAN: u8 = 2;

/// What this process knows about one shard's ring record.
#[derive(Default)]
pub struct Belonging {
    /// A copy of the state in `settled` that operations can check quickly.
    state: AtomicU8,
    settled: ArcSwapOption<Settled>,
    /// Locked while a record is settled.
    settling: Mutex<()>,
    /// Wakes the task that removes void entries.
    pub changed: Notify,
    /// Whether entries became void of which this process may have copies.
    voided: AtomicBool,
    /// Wakes the task that keeps the record. Notified when an operation or a proof found another record, or none.
    pub doubted: Notify,
    /// How often this process suspected that the server was replaced by one that reports no run id. Every instance
    /// must then void its copies.
    suspicions: AtomicU64,
    /// How many of these suspicions led to a new incarnation.
    answered_suspicions: AtomicU64,
    /// Whether a task is emptying the shard because its data has another format.
    is_being_emptied: AtomicBool,
    /// Whether living instances use another ring, so that this instance must serve nothing.
    is_mismatched: AtomicBool,
}

/// A ring record under which this process may serve.
pub struct Settled {
    pub record: Record,
    /// When the record was written; a later record has a greater number.
    pub written: u64,
    pub identity: Identity,
    /// The token that every script passes, see `lua/fence_write.lua`.
    pub token: Str,
    /// `None` if the record is clean.
    pub history: Option<History>,
}

/// Which server a record belongs to, and how the data on it is arranged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Renewed when the record is lost or the server is another one. Copies from an earlier incarnation are void.
    pub incarnation: Str,
    /// See `place.rs`. Normally the same on all shards of a fleet.
    pub place_secret: Str,
    /// The run id of the server that wrote the record; empty if the user may not ask for it.
    pub run_id: Str,
}

impl Settled {
    pub fn new(record: Record, written: u64, identity: Identity, history: Option<History>) -> Self {
        let token = Str::from(format!("{}.{written}", identity.incarnation));
        Self { record, written, identity, token, history }
    }

    /// Whether the shard holds no void entries.
    pub fn is_clean(&self) -> bool {
        self.history.is_none()
    }

    /// The place of a key in the index of its namespace.
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

    /// Whether entries became void since the last call, of which this process may have copies.
    pub fn take_voided(&self) -> bool {
        self.voided.swap(false, Ordering::AcqRel)
    }

    /// Records the suspicion that the server was replaced by one that does not report its run id.
    pub fn suspect(&self) {
        self.suspicions.fetch_add(1, Ordering::AcqRel);
        self.doubted.notify_one();
    }

    pub fn is_suspect(&self) -> bool {
        self.answered_suspicions.load(Ordering::Acquire) < self.suspicions()
    }

    /// The number of suspicions so far.
    pub fn suspicions(&self) -> u64 {
        self.suspicions.load(Ordering::Acquire)
    }

    /// A new incarnation was written. It answers the first `suspicions` suspicions; later ones stay open.
    pub fn trust(&self, suspicions: u64) {
        self.answered_suspicions.fetch_max(suspicions, Ordering::AcqRel);
    }

    /// Claims the emptying of the shard for one task; false if another task has claimed it.
    pub fn begin_emptying(&self) -> bool {
        !self.is_being_emptied.swap(true, Ordering::AcqRel)
    }

    /// Ends the claim; the shard is checked again.
    pub fn end_emptying(&self) {
        self.is_being_emptied.store(false, Ordering::Release);
        self.doubted.notify_one();
    }

    pub fn is_being_emptied(&self) -> bool {
        self.is_being_emptied.load(Ordering::Acquire)
    }

    /// Sets whether living instances use another ring. Settling the shard resets it.
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

/// The ring record that is stored on a shard, and the run id of the server.
pub struct Found {
    pub seen: Seen,
    /// The server's run id; empty if the user may not ask for it.
    pub run_id: Str,
    /// `None` if there is no record.
    pub written: Option<Written>,
}

/// How and when a record was written.
pub struct Written {
    pub at: u64,
    /// The format of the data on the shard, see [`FORM`].
    pub form: String,
    pub identity: Identity,
    /// Whether the fence holds the token of the record.
    pub is_fenced: bool,
}

/// The format of the stored data. A shard with another format is emptied of our keys. `docs/ARCHITECTURE.md` has the
/// table of keys.
pub const FORM: &str = "3";

/// The format that marks a shard as being emptied.
pub const EMPTYING: &str = "emptying";

impl Shard {
    /// Refuses operations until the shard's ring record is settled.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::RingMismatch`] if living instances use another ring.
    pub fn admit(&self) -> Result<(), Error> {
        self.watch.admit()?;
        if self.belonging.is_settled() { Ok(()) } else { Err(self.unsettled()) }
    }

    pub fn unsettled(&self) -> Error {
        if self.belonging.is_mismatched() {
            return Error::RingMismatch;
        }
        Error::Unavailable { shard: self.name.clone(), reason: "its ring record is not known yet".to_owned() }
    }

    /// The record if the shard may hold void entries; `None` if it holds none.
    pub fn unclean(&self) -> Result<Option<Arc<Settled>>, Error> {
        self.watch.admit()?;
        match self.belonging.state.load(Ordering::Acquire) {
            CLEAN => Ok(None),
            UNSETTLED => Err(self.unsettled()),
            _ => Ok(self.belonging.settled()),
        }
    }

    pub fn is_unclean(&self) -> bool {
        self.belonging.state.load(Ordering::Acquire) == UNCLEAN
    }

    /// Reads the record again after the shard refused the token of `settled`, and serves under it if this instance
    /// may.
    pub async fn settle_anew(&self, settled: &Settled) -> Result<Arc<Settled>, Error> {
        // Another operation may already have read it.
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
            // The record is lost, or belongs to another ring or server: the task that keeps the records handles that.
            _ => {
                self.belonging.doubted.notify_one();
                Err(self.unsettled())
            }
        }
    }

    /// Reads the ring record.
    pub async fn find_record(&self) -> Result<Found, Error> {
        let arguments = || FIELDS.map(Value::from).to_vec();
        self.run_upkeep(&scripts::READ_RING, Effect::Read, arguments, |frame| {
            let mut fields = reply::array(frame)?.into_iter();
            let mut next = |expected| fields.next().ok_or(expected);
            let has_data = reply::count(next("whether the shard holds data")?)? > 0;
            let run_id = Str::from(reply::text(next("the server's run id")?)?);
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

    /// Writes the record if the stored one was written at `expected` (`None`: if there is none). Returns when it was
    /// written, `None` if it was not. `form` is the format of the shard's data. `is_another` forces a new
    /// incarnation, which voids the copies of all instances.
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
}

/// A random name that nobody can guess.
pub fn random_name() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system provides random numbers");
    format!("{:032x}", u128::from_le_bytes(bytes))
}
