//! Walks over a shard that only one instance may do at a time. An instance claims the walk, renews its claim, and
//! pauses after every step, so that the walk does not disturb requests.

use std::time::Duration;

use fred::types::Value;
use tokio::time::sleep;

use super::reply;
use super::ring_state::SettledRecord;
use super::scripts;
use super::shard::{Effect, Shard};
use crate::clock::Moment;
use crate::store::Error;

/// A kind of walk.
pub struct WalkKind {
    /// The Redis key that names the instance that walks, see `lua/become_walker.lua`.
    pub claim: &'static str,
    /// How long a claim lasts without renewal, and how often the instance renews it.
    pub claim_ttl_ms: u64,
    pub renewal: Duration,
    /// After a step, the walk pauses for this many times the step's duration, at most `max_pause`.
    pub pauses_per_step: u32,
    pub max_pause: Duration,
}

/// The walk of this instance over one shard.
pub struct Walk<'s> {
    shard: &'s Shard,
    instance: &'s str,
    kind: &'static WalkKind,
    renewed: Moment,
    step_began: Moment,
}

impl<'s> Walk<'s> {
    /// Claims the walk; `None` if another instance has the claim.
    pub async fn begin(shard: &'s Shard, instance: &'s str, kind: &'static WalkKind) -> Result<Option<Self>, Error> {
        let is_claimed = claim(shard, instance, kind).await?;
        let now = Moment::now();
        Ok(is_claimed.then_some(Self { shard, instance, kind, renewed: now, step_began: now }))
    }

    /// Pauses after a step. Returns whether this instance still has the claim: if the process was suspended for long,
    /// another instance has taken over.
    pub async fn pause(&mut self) -> Result<bool, Error> {
        let step = Moment::now().since(self.step_began);
        sleep((step * self.kind.pauses_per_step).min(self.kind.max_pause)).await;
        self.step_began = Moment::now();
        if self.step_began.since(self.renewed) < self.kind.renewal {
            return Ok(true);
        }
        self.renewed = self.step_began;
        claim(self.shard, self.instance, self.kind).await
    }

    /// Gives up the claim.
    pub async fn end(self) -> Result<(), Error> {
        self.shard.read("UNLINK", vec![Value::from_static_str(self.kind.claim)], Ok).await.map(drop)
    }
}

/// Claims the walk or renews the claim; false if another instance has it.
async fn claim(shard: &Shard, instance: &str, kind: &WalkKind) -> Result<bool, Error> {
    let ttl_ms = kind.claim_ttl_ms.to_string();
    let arguments = |_: &SettledRecord| [instance, &ttl_ms, kind.claim].map(Value::from).to_vec();
    Ok(shard.ask(&scripts::BECOME_WALKER, Effect::Write, arguments, reply::number).await? == 1)
}
