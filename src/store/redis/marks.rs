//! Marking entries of one shard as stale; see `lua/mark.lua`.

use fred::types::{Resp3Frame as Frame, Value};

use super::reply;
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Sender, Shard};
use super::verbs::keys_and_places;
use super::writes::{preconditions, refusal};
use crate::model::{EntryKey, Position, Preconditions};
use crate::store::{Deleted, Error, Removal, Windows};

/// Which of the given keys are marked.
#[derive(Clone, Copy)]
pub struct Marked<'m> {
    /// Only entries with a version up to this one.
    pub before: Option<u64>,
    /// Only entries with this tag; empty for all.
    pub tag: &'m str,
    /// The preconditions of the only key.
    pub conditions: Option<&'m Preconditions>,
}

impl Shard {
    /// Marks one entry if its preconditions are met.
    pub async fn mark(
        &self,
        key: &EntryKey,
        conditions: Option<&Preconditions>,
        removal: Removal,
        windows: Windows,
    ) -> Result<Deleted, Error> {
        let which = Marked { before: None, tag: "", conditions };
        let keys = [key.key().to_owned()];
        let (marked, _, position) = self.mark_some(key.namespace(), &keys, which, removal, windows).await?;
        Ok(Deleted { existed: marked > 0, position })
    }

    /// Marks entries in one script. Returns how many live entries were marked or deleted, their keys, and the shard's
    /// position after that.
    pub async fn mark_some(
        &self,
        namespace: &str,
        keys: &[String],
        which: Marked<'_>,
        removal: Removal,
        windows: Windows,
    ) -> Result<(u64, Vec<String>, Position), Error> {
        let arguments = |settled: &SettledRecord| {
            let ms = |duration: std::time::Duration| Value::from(duration.as_millis().to_string());
            let first = [
                Value::from(which.before.map_or_else(String::new, |before| before.to_string())),
                Value::from(which.tag),
                ms(removal.tombstone_ttl),
                ms(windows.stale_while_revalidate),
                ms(windows.stale_if_error),
                preconditions(which.conditions),
            ];
            let keys = keys_and_places(settled, keys.iter().map(String::as_str));
            settled.arguments(namespace, first.into_iter().chain(keys))
        };
        let read = |frame, settled: &SettledRecord| match <[Frame; 4]>::try_from(reply::array(frame)?) {
            Ok([marked, keys, dropped, seq]) => {
                self.count_dropped_tombstones(dropped)?;
                let position = settled.position(reply::count(seq)?);
                Ok(Ok((reply::count(marked)?, reply::texts(keys)?, position)))
            }
            Err(refused) => Ok(Err(refusal(refused)?)),
        };
        self.ask_settled(Sender::Alone, &scripts::MARK, Effect::Write, arguments, read).await?
    }
}
