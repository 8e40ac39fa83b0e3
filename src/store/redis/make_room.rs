//! Makes room, one operation at a time: in a namespace that is over its quota, and on a shard that is full.
//!
//! Many writes may find at the same time that there is no room for them. If each of them made room, they would do the
//! same work many times and block the shard for other clients. So one write at a time has the *turn* of its
//! namespace: it runs the script repeatedly, with pauses, and the others wait for the turn. Then each of them finds
//! room.

use std::time::Duration;

use fred::types::Value;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::eviction_turns::{Scope, Turn};
use super::pending::QuotaShare;
use super::reply;
use super::ring_state::SettledRecord;
use super::scripts;
use super::server_info::field;
use super::shard::{Effect, Sender, Shard};
use crate::clock::Moment;
use crate::model::{EvictionPolicy, Namespace};
use crate::store::Error;

/// The pause between two scripts that make room. A script runs for about as long.
const PAUSE: Duration = Duration::from_millis(2);

/// A namespace on a full shard gives up 1/[`PART`] of its bytes at a time, at least one entry.
const PART: u64 = 16;

/// The most scripts for one such part, and how often a write may request another part.
const SCRIPTS: usize = 50;
const MAX_ROUNDS: usize = 64;

/// The most namespaces of a full shard that are considered, and how many are read at a time.
const MAX_NAMESPACES: usize = 1_000;
const AT_ONCE: usize = 8;

/// Another namespace that may give up entries.
struct Other {
    namespace: Namespace,
    policy: EvictionPolicy,
    /// The bytes that its entries are charged on the shard.
    charged: u64,
}

impl Shard {
    /// Waits until a write that found no room within its quota may try again: the first time until it has the turn,
    /// later for a pause.
    ///
    /// # Errors
    /// [`Error::MakingRoom`] when its time is over.
    pub async fn wait_for_room(&self, grant: QuotaShare<'_>, turn: &mut Option<Turn>) -> Result<(), Error> {
        let making_room = || Error::MakingRoom { shard: self.name.clone() };
        match turn {
            None => {
                let waited = self.eviction_turns.wait(Scope::Namespace, grant.namespace, None).await;
                *turn = Some(waited.ok_or_else(making_room)?);
            }
            Some(turn) if Moment::now() >= turn.until => return Err(making_room()),
            Some(_) => sleep(PAUSE).await,
        }
        Ok(())
    }

    /// Frees memory on a full shard for a write. Entries of the write's own namespace go first, then entries of the
    /// namespace that is furthest above its share, each by the policy of its namespace. Namespaces with policy `NONE`
    /// give up nothing.
    ///
    /// # Errors
    /// [`Error::Full`] if nothing may be evicted, or [`Error::MakingRoom`] when its time is over.
    pub async fn free_memory(&self, grant: QuotaShare<'_>, turn: &mut Option<Turn>) -> Result<(), Error> {
        let making_room = || Error::MakingRoom { shard: self.name.clone() };
        // A write returns the turn of its namespace before it waits for the turn of the shard: no write holds a turn
        // while it waits for another turn.
        let until = turn.take_if(|turn| turn.scope == Scope::Namespace).map(|turn| turn.until);
        match turn {
            // Another write has freed memory meanwhile, perhaps enough: try again first.
            None => {
                *turn = Some(
                    self.eviction_turns.wait(Scope::Shard, grant.namespace, until).await.ok_or_else(making_room)?,
                );
                return Ok(());
            }
            Some(turn) if Moment::now() >= turn.until => return Err(making_room()),
            Some(turn) if turn.rounds >= MAX_ROUNDS => return Err(self.refused_for_memory()),
            Some(turn) => turn.rounds += 1,
        }
        // If evicting everything possible would not be enough, nothing is evicted.
        let missing = self.missing_memory().await;
        let own = Namespace::parse(grant.namespace).map_err(|_| self.refused_for_memory())?;
        let policy = grant.policy.parse().unwrap_or_default();
        let others = self.by_excess(&own).await?;
        let own_bytes =
            if policy == EvictionPolicy::None { 0 } else { self.totals_for(Sender::Upkeep, &own).await?.charged };
        let evictable = own_bytes + others.iter().map(|other| other.charged).sum::<u64>();
        if missing > evictable {
            return Err(self.refused_for_memory());
        }
        if own_bytes > 0 && self.give_up_part(&own, policy, missing).await? {
            return Ok(());
        }
        for Other { namespace, policy, .. } in others {
            if turn.as_ref().is_some_and(|turn| Moment::now() >= turn.until) {
                return Err(making_room());
            }
            if self.give_up_part(&namespace, policy, missing).await? {
                return Ok(());
            }
        }
        Err(self.refused_for_memory())
    }

    /// How many bytes the server uses above its limit; 0 if it does not report this.
    async fn missing_memory(&self) -> u64 {
        let info = self.info("memory").await.unwrap_or_default();
        let number = |name| field(&info, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        match number("maxmemory") {
            0 => 0,
            limit => number("used_memory").saturating_sub(limit),
        }
    }

    /// Evicts part of what a namespace holds on this shard, at least `missing` bytes if it has them. Returns whether
    /// anything was evicted.
    async fn give_up_part(&self, namespace: &Namespace, policy: EvictionPolicy, missing: u64) -> Result<bool, Error> {
        let before = self.totals_for(Sender::Upkeep, namespace).await?;
        if before.keys == 0 {
            return Ok(false);
        }
        let part = (before.charged / PART).max(missing);
        let limit = before.charged.saturating_sub(part).saturating_sub(1).max(1).to_string();
        let arguments = |settled: &SettledRecord| {
            settled.arguments(namespace.as_str(), ["100", &limit, policy.as_str(), "memory"].map(Value::from))
        };
        for _ in 0..SCRIPTS {
            let more = self.ask_for(Sender::Upkeep, &scripts::SWEEP, Effect::Write, arguments, |frame| {
                let [more, _, dropped] = reply::tuple(frame)?;
                self.count_dropped_tombstones(dropped)?;
                reply::count(more)
            });
            if more.await? == 0 {
                break;
            }
            sleep(PAUSE).await;
        }
        let after = self.totals_for(Sender::Upkeep, namespace).await?;
        Ok(after.charged < before.charged)
    }

    /// The other namespaces of the shard that may give up entries, the one furthest above its share first.
    async fn by_excess(&self, own: &Namespace) -> Result<Vec<Other>, Error> {
        let mut namespaces = self.namespaces().await?;
        namespaces.retain(|namespace| namespace != own);
        namespaces.truncate(MAX_NAMESPACES);
        let mut held = Vec::with_capacity(namespaces.len());
        for some in namespaces.chunks(AT_ONCE) {
            let asked = some.iter().map(|namespace| self.totals_for(Sender::Upkeep, namespace));
            let totals = join_all(asked).await;
            held.extend(some.iter().zip(totals).filter_map(|(namespace, totals)| Some((namespace, totals.ok()?))));
        }
        let total: u64 = held.iter().map(|(_, totals)| totals.charged).sum();
        let even_share = (total / held.len().max(1) as u64).max(1);
        let mut excess: Vec<(f64, Other)> = Vec::new();
        for (namespace, totals) in held {
            let quota = self.quotas.quota(namespace.as_str());
            let share = match quota.share(self.common.shards.len()) {
                0 => even_share,
                share => share.min(even_share),
            };
            if quota.eviction_policy != EvictionPolicy::None && totals.keys > 0 {
                let policy = quota.eviction_policy;
                let other = Other { namespace: namespace.clone(), policy, charged: totals.charged };
                excess.push((totals.charged as f64 / share as f64, other));
            }
        }
        excess.sort_by(|one, other| other.0.total_cmp(&one.0));
        Ok(excess.into_iter().map(|(_, other)| other).collect())
    }
}
