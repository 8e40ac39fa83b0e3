//! Writing and deleting entries of one shard, with their preconditions.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fred::types::{Resp3Frame as Frame, Value};

use super::pending::QuotaShare;
use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Sender, Shard};
use super::verbs::{Foreign, foreign};
use crate::model::{EntryKey, Extra, Position, Preconditions, Version, Write};
use crate::store::{Deleted, Error, Outcome, Stored};

/// The preconditions of a write, as a script argument.
pub fn preconditions(preconditions: Option<&Preconditions>) -> Value {
    preconditions.map_or(Value::from_static_str(""), |preconditions| Value::from(preconditions.to_script()))
}

impl Shard {
    /// Writes entries, with as many scripts as making room requires.
    pub async fn set(
        &self,
        grant: QuotaShare<'_>,
        writes: &[(&EntryKey, &Write)],
    ) -> Result<Vec<Result<Stored, Error>>, Error> {
        let mut answers = Vec::with_capacity(writes.len());
        let mut turn = None;
        while answers.len() < writes.len() {
            let rest = &writes[answers.len()..];
            match self.set_some(Sender::Alone, grant, rest).await {
                Ok(done) if done.is_empty() => match self.wait_for_room(grant, &mut turn).await {
                    Ok(()) => {}
                    Err(error) => answers.resize(writes.len(), Err(error)),
                },
                Ok(done) => answers.extend(done),
                Err(Error::Full { .. }) => {
                    if let Err(error) = self.free_memory(grant, &mut turn).await {
                        answers.resize(writes.len(), Err(error));
                    }
                }
                // Entries stored by an earlier script stay stored: only the rest has failed.
                Err(error) if !answers.is_empty() => answers.resize(writes.len(), Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    /// Writes the first of `writes`, in their order: as many as one script finds or makes room for. The result is
    /// empty if the script must be sent again to make more room.
    pub async fn set_some(
        &self,
        party: Sender,
        grant: QuotaShare<'_>,
        writes: &[(&EntryKey, &Write)],
    ) -> Result<Vec<Result<Stored, Error>>, Error> {
        let script = if grant.limit_bytes == 0 { &scripts::SET } else { &scripts::SET_WITHIN_QUOTA };
        let arguments = |settled: &SettledRecord| {
            let quota = [Value::from(grant.limit_bytes.to_string()), Value::from_static_str(grant.policy)];
            let mut all = settled.arguments(grant.namespace, quota);
            all.reserve(7 * writes.len());
            for (key, write) in writes {
                all.push(Value::from(key.key()));
                all.push(Value::from(write.value.clone()));
                all.push(match write.ttl {
                    Some(ttl) => Value::from(ttl.as_millis().to_string()),
                    None => Value::from_static_str(""),
                });
                all.push(Value::from(write.tags.joined()));
                all.push(Value::from(settled.place_of(key.key()).to_string()));
                all.push(preconditions(write.preconditions.as_deref()));
                all.push(match write.extra() {
                    ordinary if ordinary == Extra::default() => Value::from_static_str(""),
                    extra => Value::from(extra.to_text()),
                });
            }
            all
        };
        let read = |frame, settled: &SettledRecord| {
            let mut answers = reply::array(frame)?;
            let seq = reply::count(answers.pop().ok_or("the number of the change")?)?;
            let taken_out = answers.pop().ok_or("the number of evicted entries")?;
            if reply::number(taken_out)? > 0 {
                self.accesses.mark_evicting();
            }
            if answers.len() != writes.len() {
                return Err("one answer per entry");
            }
            let mut done = Vec::with_capacity(answers.len());
            for answer in answers {
                done.push(match written(answer, settled.position(seq))? {
                    Written::Stored(stored) => Ok(stored),
                    Written::NoRoom => Err(Error::QuotaUsedUp),
                    Written::Refused(error) => Err(error),
                    Written::Foreign(foreign) => Err(self.foreign(foreign)),
                    Written::AskAgain => break,
                });
            }
            Ok(done)
        };
        self.ask_settled(party, script, Effect::Write, arguments, read).await
    }

    /// Deletes an entry if its preconditions are met. Its source version stays for `tombstone_ttl`.
    pub async fn delete(
        &self,
        key: &EntryKey,
        conditions: Option<&Preconditions>,
        tombstone_ttl: Duration,
    ) -> Result<Deleted, Error> {
        let arguments = |settled: &SettledRecord| {
            let place = Value::from(settled.place_of(key.key()).to_string());
            let ttl = Value::from(tombstone_ttl.as_millis().to_string());
            settled.arguments(key.namespace(), [Value::from(key.key()), place, preconditions(conditions), ttl])
        };
        let read = |frame, settled: &SettledRecord| match <[Frame; 3]>::try_from(reply::array(frame)?) {
            Ok([existed, seq, dropped]) => {
                self.count_dropped_tombstones(dropped)?;
                let position = settled.position(reply::count(seq)?);
                Ok(Ok(Deleted { existed: reply::number(existed)? == 1, position }))
            }
            Err(refused) => Ok(Err(refusal(refused)?)),
        };
        self.ask_settled(Sender::Alone, &scripts::DELETE, Effect::Write, arguments, read).await?
    }

    /// Counts the tombstones that a script dropped, by its answer.
    pub fn count_dropped_tombstones(&self, dropped: Frame) -> Result<(), Unexpected> {
        self.tombstones_dropped.fetch_add(reply::count(dropped)?, Relaxed);
        Ok(())
    }
}

/// The answer of a script that preconditions refused: `lease`, or the version of the present entry, 0 for none, after
/// `newer:` if a source version refused it.
pub fn refusal(data: Vec<Frame>) -> Result<Error, Unexpected> {
    let [reason]: [Frame; 1] = data.try_into().map_err(|_| "one version")?;
    let reason = reply::text(reason)?;
    if reason == "lease" {
        return Ok(Error::LeaseLost);
    }
    let newer = reason.strip_prefix("newer:");
    let version: u64 = newer.unwrap_or(&reason).parse().map_err(|_| "a version")?;
    let present = Some(Version(version)).filter(|_| version > 0);
    Ok(if newer.is_some() { Error::NewerVersionExists { present } } else { Error::PreconditionFailed { present } })
}

/// The result of writing one entry.
enum Written {
    Stored(Stored),
    NoRoom,
    /// The preconditions are not met, or the lease is lost.
    Refused(Error),
    Foreign(Foreign),
    AskAgain,
}

fn written(frame: Frame, position: Position) -> Result<Written, Unexpected> {
    let number = match frame {
        Frame::Array { data, .. } if data.len() == 1 => return Ok(Written::Refused(refusal(data)?)),
        Frame::Array { data, .. } => return Ok(Written::Foreign(foreign(data)?)),
        frame => reply::number(frame)?,
    };
    let outcome = if number > 0 { Outcome::Created } else { Outcome::Replaced };
    Ok(match number {
        0 => Written::AskAgain,
        -1 => Written::NoRoom,
        number => Written::Stored(Stored { outcome, version: Version(number.unsigned_abs()), position }),
    })
}
