//! Finds entries that Redis evicted, and corrects index and totals.
//!
//! An evicted value leaves its metadata and its index member behind. The next read of the key notices that. Keys that
//! nobody reads are found by a walk over the index. An instance walks only if the shard's count of evictions has
//! changed since the last walk, and only one instance walks at a time. It pauses much longer than it works.

use std::time::Duration;

use fred::types::{Resp3Frame as Frame, Value};
use tokio::time::sleep;

use super::place::PLACES;
use super::reply;
use super::ring_state::SettledRecord;
use super::scripts;
use super::server_info::field;
use super::shard::{Effect, Shard};
use super::verbs::secret;
use crate::clock::Moment;
use crate::model::Namespace;
use crate::store::Error;

/// The shard's count of evictions at the start of the last walk.
const WALKED: &str = "sidecache:walked";

/// The Redis key that names the instance that walks, see `lua/become_walker.lua`.
const WALKER: &str = "sidecache:walker";

/// How long an instance's claim to the walk lasts without renewal, and how often the instance renews it.
const WALKER_TTL_MS: u64 = 30_000;
const RENEWAL: Duration = Duration::from_secs(5);

/// Keys that one script looks at, and the work that it may do on entries that are gone (in the units of
/// `lua/prelude.lua`). After a script, the walk pauses for [`REST`] times the script's duration, at most
/// [`REST_MAX`].
const KEYS_PER_SCRIPT: usize = 200;
const WORK_PER_SCRIPT: usize = 100;
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_millis(100);

impl Shard {
    /// Walks over the namespaces if Redis evicted keys since the last walk and no other instance walks.
    pub async fn find_evicted(&self, instance: &str, namespaces: &[Namespace]) -> Result<(), Error> {
        let evicted = self.evicted_keys().await?;
        if evicted == self.walked().await? || !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
            return Ok(());
        }
        let mut renewed = Moment::now();
        for namespace in namespaces {
            let mut place = 0;
            while place < PLACES {
                let started = Moment::now();
                if started.since(renewed) >= RENEWAL {
                    if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
                        // This process was suspended for so long that another one took over.
                        return Ok(());
                    }
                    renewed = started;
                }
                place = self.find_evicted_from(namespace, place).await?;
                sleep((Moment::now().since(started) * REST).min(REST_MAX)).await;
            }
        }
        let arguments = |_: &SettledRecord| vec![Value::from(evicted.to_string())];
        self.ask(&scripts::END_WALK, Effect::Write, arguments, reply::number).await?;
        Ok(())
    }

    /// One step of the walk over a namespace; returns the place to continue from.
    async fn find_evicted_from(&self, namespace: &Namespace, place: u64) -> Result<u64, Error> {
        let numbers = [place.to_string(), KEYS_PER_SCRIPT.to_string(), WORK_PER_SCRIPT.to_string()];
        let arguments = |settled: &SettledRecord| {
            let numbers = numbers.iter().map(|number| Value::from(number.as_str()));
            [Value::from(namespace.as_str()), secret(settled)].into_iter().chain(numbers).collect()
        };
        self.ask(&scripts::FIND_EVICTED, Effect::Write, arguments, reply::count).await
    }

    async fn evicted_keys(&self) -> Result<u64, Error> {
        let info = self.info("stats").await;
        let count = info.and_then(|info| field(&info, "evicted_keys")?.parse().ok());
        count.ok_or_else(|| self.unexpected("`evicted_keys` in INFO"))
    }

    async fn walked(&self) -> Result<u64, Error> {
        match self.read("GET", vec![Value::from(WALKED)]).await {
            Ok(Frame::Null) => Ok(0),
            Ok(frame) => Ok(reply::count(frame).unwrap_or(0)),
            // The key holds another type; the end of the walk overwrites it.
            Err(Error::Protocol { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Claims a walk for the instance `name`, or renews its claim, for `ttl_ms`. The claim is stored in the Redis key
    /// `walk`. Returns false if another instance has the claim.
    pub async fn become_walker(&self, name: &str, walk: &str, ttl_ms: u64) -> Result<bool, Error> {
        let arguments =
            |_: &SettledRecord| vec![Value::from(name), Value::from(ttl_ms.to_string()), Value::from(walk)];
        Ok(self.ask(&scripts::BECOME_WALKER, Effect::Write, arguments, reply::number).await? == 1)
    }
}
