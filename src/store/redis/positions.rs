//! How far a shard has come, and reads that need it to have come far enough. `lua/count.lua` counts the changes.

use std::collections::BTreeSet;

use fred::types::{Resp3Frame as Frame, Value};
use futures_util::future::join_all;

use super::Redis;
use super::reply;
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Sender, Shard};
use super::verbs::{FoundEntry, entries};
use crate::model::{EntryKey, Position, Positions};
use crate::store::Error;

impl Redis {
    /// Checks that the shards that own `keys` have every change up to their own `positions`.
    pub(super) async fn reach_on_owners(&self, keys: &[EntryKey], positions: &Positions) -> Result<(), Error> {
        let owners: BTreeSet<usize> = keys.iter().map(|key| usize::from(self.ring.route(key.ring_hash()))).collect();
        let asked = owners.into_iter().map(|index| async move {
            self.shards[index].admit()?;
            self.shards[index].reach(positions).await
        });
        join_all(asked).await.into_iter().collect()
    }

    /// The position of each shard now; `None` for a shard that does not answer.
    pub(super) async fn present_positions(&self) -> Vec<Option<Position>> {
        let asked = self.shards.iter().map(|shard| async move {
            shard.admit().ok()?;
            shard.position().await.ok()
        });
        join_all(asked).await
    }
}

impl Shard {
    /// The position of the last change.
    pub async fn position(&self) -> Result<Position, Error> {
        let read = |frame, settled: &SettledRecord| {
            let [last] = reply::tuple(frame)?;
            Ok(settled.position(reply::count(last)?))
        };
        self.ask_settled(Sender::Alone, &scripts::POSITION, Effect::Read, |_| Vec::new(), read).await
    }

    /// Checks that the shard has every change up to its own `positions`.
    ///
    /// # Errors
    /// [`Error::PositionLost`], or the shard failed.
    pub async fn reach(&self, positions: &Positions) -> Result<(), Error> {
        let read = |frame, settled: &SettledRecord| {
            let [last] = reply::tuple(frame)?;
            Ok(settled.has_reached(positions, reply::count(last)?))
        };
        let reached = self.ask_settled(Sender::Alone, &scripts::POSITION, Effect::Read, |_| Vec::new(), read);
        if reached.await? { Ok(()) } else { Err(self.position_lost()) }
    }

    /// Like [`Shard::get_some`], but the shard must have every change up to its own `positions` when it reads.
    pub async fn get_some_at(&self, keys: &[&EntryKey], positions: &Positions) -> Result<Vec<FoundEntry>, Error> {
        let arguments = |_: &SettledRecord| keys.iter().map(|key| Value::from(key.text())).collect();
        let read = |frame, settled: &SettledRecord| {
            let [last, found]: [Frame; 2] = reply::tuple(frame)?;
            let is_reached = settled.has_reached(positions, reply::count(last)?);
            Ok(if is_reached { Some(entries(found, keys.len())?) } else { None })
        };
        let found = self.ask_settled(Sender::Alone, &scripts::GET_AT, Effect::Read, arguments, read).await?;
        found.ok_or_else(|| self.position_lost())
    }

    fn position_lost(&self) -> Error {
        Error::PositionLost { shard: self.name.clone() }
    }
}
