//! How a shard's ring record is read and written, and what a shard refuses until its record is settled.
//!
//! `generations.rs` and `history.rs` decide which rings a record names and which entries are void. `moved_keys.rs`
//! removes void entries.

use std::sync::Arc;

use fred::bytes_utils::Str;
use fred::types::{Resp3Frame as Frame, Value};

use super::generations::{FIELDS, Record, Seen};
use super::history::{History, Rings};
use super::reply;
use super::ring_state::{Identity, SettledRecord, earlier_incarnations};
use super::scripts;
use super::shard::{Effect, Shard};
use crate::store::Error;

/// How far the clocks of a shard's servers may differ, and how far a clock may step back.
const CLOCKS_APART_US: u64 = 3_600_000_000;

/// The ring record that is stored on a shard, and the run id of the server.
pub struct StoredRecord {
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
    /// Whether there is a count of changes.
    pub has_count: bool,
}

/// The format of the stored data. A shard with another format is emptied of our keys. `docs/ARCHITECTURE.md` has the
/// table of keys.
pub const FORM: &str = "5";

/// The format that marks a shard as being emptied.
pub const EMPTYING: &str = "emptying";

impl Shard {
    /// Refuses operations until the shard's ring record is settled.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::RingMismatch`] if living instances use another ring.
    pub fn admit(&self) -> Result<(), Error> {
        self.problems.admit()?;
        if self.ring_state.is_settled() { Ok(()) } else { Err(self.unsettled()) }
    }

    pub fn unsettled(&self) -> Error {
        if self.ring_state.is_mismatched() {
            return Error::RingMismatch;
        }
        Error::Unavailable { shard: self.name.clone(), reason: "its ring record is not known yet".to_owned() }
    }

    /// The record if the shard may hold void entries; `None` if it holds none.
    pub fn unclean(&self) -> Result<Option<Arc<SettledRecord>>, Error> {
        self.problems.admit()?;
        if self.ring_state.is_clean() {
            return Ok(None);
        }
        self.ring_state.settled().map(Some).ok_or_else(|| self.unsettled())
    }

    /// Reads the record again after the shard refused the token of `settled`, and serves under it if this instance
    /// may.
    pub async fn settle_anew(&self, settled: &SettledRecord) -> Result<Arc<SettledRecord>, Error> {
        // Another operation may already have read it.
        if let Some(known) = self.ring_state.settled().filter(|known| known.token != settled.token) {
            return Ok(known);
        }
        let StoredRecord { seen, run_id, written } = self.find_record().await?;
        match (seen.record, written) {
            (Some(record), Some(written))
                if record.current.names == settled.record.current.names
                    && record.shard == settled.record.shard
                    && written.form == FORM
                    && written.is_fenced
                    && written.has_count
                    && written.identity.run_id == run_id
                    && written.at >= settled.written
                    && !self.ring_state.is_suspect() =>
            {
                let history = (!record.is_clean).then(|| History::new(&record, &mut Rings::default()));
                self.ring_state.settle(SettledRecord::new(record, written.at, written.identity, history));
                self.ring_state.settled().ok_or_else(|| self.unsettled())
            }
            // The record is lost, or belongs to another ring or server: the task that keeps the records handles that.
            _ => {
                self.ring_state.doubted.notify_one();
                Err(self.unsettled())
            }
        }
    }

    /// Reads the ring record.
    pub async fn find_record(&self) -> Result<StoredRecord, Error> {
        let arguments = || FIELDS.map(Value::from).to_vec();
        self.run_upkeep(&scripts::READ_RING, Effect::Read, arguments, |frame| {
            let mut fields = reply::array(frame)?.into_iter();
            let mut next = |expected| fields.next().ok_or(expected);
            let has_data = reply::count(next("whether the shard holds data")?)? > 0;
            let run_id = Str::from(reply::text(next("the server's run id")?)?);
            let fence = reply::count(next("whether the fence has the token")?)?;
            let (is_fenced, has_count) = (fence > 0, fence > 1);
            let Some(at) = fields.next().map(reply::count).transpose()? else {
                return Ok(StoredRecord { seen: Seen { record: None, has_data }, run_id, written: None });
            };
            let mut texts = fields.map(reply::text).collect::<Result<Vec<_>, _>>()?.into_iter();
            let mut next = || texts.next().ok_or("a field of the record");
            let form = next()?;
            let identity = Identity {
                incarnation: Str::from(next()?),
                place_secret: Str::from(next()?),
                run_id: Str::from(next()?),
                earlier: earlier_incarnations(&next()?),
            };
            let values: Vec<String> = texts.collect();
            let written = Some(Written { at, form, identity, is_fenced, has_count });
            Ok(StoredRecord { seen: Seen { record: Record::parse(&values), has_data }, run_id, written })
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
        let after = self.ring_state.settled().map_or(0, |settled| settled.written).to_string();
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
