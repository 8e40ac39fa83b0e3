//! How far a shard has come, and reads that need it to have come far enough. `lua/count.lua` counts the changes.

use std::sync::LazyLock;

use fred::types::{Resp3Frame as Frame, Value};
use futures_util::future::join_all;

use super::Redis;
use super::reply::{self, Unexpected};
use super::ring_state::SettledRecord;
use super::scripts::{self, Script};
use super::shard::{Effect, Sender, Shard};
use crate::model::{Position, Positions};
use crate::store::Error;

impl Redis {
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

    /// Runs a script that reads entries. With `positions`, the shard must have every change up to its own positions when
    /// it reads; then `script_at` is run, which says in the same step how far the shard has come.
    ///
    /// # Errors
    /// [`Error::PositionLost`], or the shard failed.
    pub async fn ask_at<T>(
        &self,
        [script, script_at]: [&LazyLock<Script>; 2],
        effect: Effect,
        positions: &Positions,
        arguments: impl Fn(&SettledRecord) -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, Unexpected>,
    ) -> Result<T, Error> {
        if positions.is_empty() {
            return self.ask(script, effect, arguments, read).await;
        }
        let read_at = |frame, settled: &SettledRecord| {
            let [last, found]: [Frame; 2] = reply::tuple(frame)?;
            let is_reached = settled.has_reached(positions, reply::count(last)?);
            Ok(if is_reached { Some(read(found)?) } else { None })
        };
        let found = self.ask_settled(Sender::Alone, script_at, effect, arguments, read_at).await?;
        found.ok_or_else(|| Error::PositionLost { shard: self.name.clone() })
    }
}
