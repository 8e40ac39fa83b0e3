//! Changing the TTL or the tags of an entry. `lua/patch.lua` does it in one step.

use std::time::Duration;

use fred::types::{Resp3Frame as Frame, Value};

use super::pending::QuotaShare;
use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Sender, Shard};
use super::verbs::{Foreign, foreign};
use super::writes::preconditions;
use crate::model::{EntryKey, Patch, Position, Tags, TtlChange, Version};
use crate::store::{Error, Patched};

/// What one script did.
enum Attempt {
    Done(Option<Patched>),
    /// The script has removed some entries, but must remove more.
    MustRepeat,
    NoRoom,
    Refused(Option<Version>),
    Foreign(Foreign),
}

impl Shard {
    /// Changes an entry, with as many scripts as making room for its tags requires. Returns `None` if there is no
    /// entry.
    pub async fn patch(
        &self,
        grant: QuotaShare<'_>,
        key: &EntryKey,
        patch: &Patch,
    ) -> Result<Option<Patched>, Error> {
        let mut turn = None;
        loop {
            match self.try_patch(grant, key, patch).await {
                Ok(Attempt::Done(patched)) => return Ok(patched),
                Ok(Attempt::MustRepeat) => self.wait_for_room(grant, &mut turn).await?,
                Ok(Attempt::NoRoom) => return Err(Error::QuotaUsedUp),
                Ok(Attempt::Refused(present)) => return Err(Error::PreconditionFailed { present }),
                Ok(Attempt::Foreign(foreign)) => return Err(self.foreign(foreign)),
                Err(Error::Full { .. }) => self.free_memory(grant, &mut turn).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_patch(&self, grant: QuotaShare<'_>, key: &EntryKey, patch: &Patch) -> Result<Attempt, Error> {
        let arguments = |settled: &SettledRecord| {
            let place = settled.place_of(key.key()).to_string();
            let ttl = match patch.ttl {
                TtlChange::Keep => Value::from_static_str(""),
                TtlChange::To(ttl) => Value::from(ttl.as_millis().to_string()),
                TtlChange::Never => Value::from_static_str("never"),
            };
            let rest = [
                Value::from(grant.limit_bytes.to_string()),
                Value::from_static_str(grant.policy),
                Value::from(key.key()),
                Value::from(place),
                ttl,
                Value::from_static_str(if patch.tags.is_some() { "1" } else { "0" }),
                Value::from(patch.tags.as_ref().map(Tags::joined).unwrap_or_default()),
                preconditions(patch.preconditions.as_deref()),
            ];
            settled.arguments(key.namespace(), rest)
        };
        let read = |frame, settled: &SettledRecord| {
            let [what, one, other, taken_out, seq] = reply::tuple(frame)?;
            if reply::number(taken_out)? > 0 {
                self.accesses.mark_evicting();
            }
            attempt(what, one, other, settled.position(reply::count(seq)?))
        };
        // Only more tags need room.
        let needs_room = grant.limit_bytes > 0 && patch.tags.is_some();
        let script = if needs_room { &scripts::PATCH_WITHIN_QUOTA } else { &scripts::PATCH };
        self.ask_settled(Sender::Alone, script, Effect::Write, arguments, read).await
    }
}

/// Parses what became of the change, and its two details.
fn attempt(what: Frame, one: Frame, other: Frame, position: Position) -> Result<Attempt, Unexpected> {
    Ok(match &*reply::text(what)? {
        "patched" => Attempt::Done(Some(Patched {
            version: Version(reply::count(one)?),
            expires_in: u64::try_from(reply::number(other)?).ok().map(Duration::from_millis),
            position,
        })),
        "absent" => Attempt::Done(None),
        "again" => Attempt::MustRepeat,
        "full" => Attempt::NoRoom,
        "refused" => Attempt::Refused(Some(Version(reply::count(one)?)).filter(|version| version.0 > 0)),
        "foreign" => Attempt::Foreign(foreign(vec![one, other])?),
        _ => return Err("what became of a change"),
    })
}
