//! What this process knows of one shard's record of rings, and how that is read and written.
//!
//! Nothing is served from a shard before its record is settled. Who settles it is `adoption.rs`; which rings it names and
//! what is void for that is decided in `generations.rs` and `history.rs`; what is void is removed by `moved.rs`.

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

/// How far the clocks of a shard's servers may be apart, or one may step back.
const CLOCKS_APART_US: u64 = 3_600_000_000;

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
    /// Wakes the task that removes what is void.
    pub changed: Notify,
    /// Whether something became void under copies that this process may have.
    voided: AtomicBool,
    /// Wakes the task that keeps the record: an operation or a proof met another one, or none.
    pub doubted: Notify,
    /// How often the server came under suspicion of being another that does not say which it is. Every instance must
    /// then void its copies.
    suspicions: AtomicU64,
    /// How many of them a new incarnation has answered.
    answered_suspicions: AtomicU64,
    /// Whether a task removes what the shard holds in another form.
    is_being_emptied: AtomicBool,
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
    pub history: Option<History>,
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
        self.suspicions.fetch_add(1, Ordering::AcqRel);
        self.doubted.notify_one();
    }

    pub fn is_suspect(&self) -> bool {
        self.answered_suspicions.load(Ordering::Acquire) < self.suspicions()
    }

    /// How often the server came under suspicion so far.
    pub fn suspicions(&self) -> u64 {
        self.suspicions.load(Ordering::Acquire)
    }

    /// A new incarnation was written, which was asked for after so many suspicions; later ones stay.
    pub fn trust(&self, suspicions: u64) {
        self.answered_suspicions.fetch_max(suspicions, Ordering::AcqRel);
    }

    /// Claims the shard for one task that empties it; false where another has it.
    pub fn begin_emptying(&self) -> bool {
        !self.is_being_emptied.swap(true, Ordering::AcqRel)
    }

    /// That task has ended; its shard is to be looked at.
    pub fn end_emptying(&self) {
        self.is_being_emptied.store(false, Ordering::Release);
        self.doubted.notify_one();
    }

    pub fn is_being_emptied(&self) -> bool {
        self.is_being_emptied.load(Ordering::Acquire)
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
}

/// A name that nobody can guess.
pub fn random_name() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers for whoever may run");
    format!("{:032x}", u128::from_le_bytes(bytes))
}
