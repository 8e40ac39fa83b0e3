//! Finds what Redis evicted of itself, so that the books follow.
//!
//! An evicted value leaves its metadata and its place in the index behind. The next read of the
//! key notices; for keys that nobody reads there is a walk over the index, only when the shard's
//! own count of evictions has moved since the last one, by one instance at a time, and without
//! haste: it rests much longer than it works.

use std::time::Duration;

use fred::types::{Resp3Frame as Frame, Value};
use tokio::time::sleep;

use super::belonging::Settled;
use super::place::PLACES;
use super::reply;
use super::scripts;
use super::server_info::field;
use super::shard::{Effect, Shard};
use super::verbs::secret;
use crate::clock::Moment;
use crate::model::Namespace;
use crate::store::Error;

/// The shard's count of evictions when the last walk over it began.
const WALKED: &str = "sidecache:walked";

/// Who walks, see `lua/become_walker.lua`.
const WALKER: &str = "sidecache:walker";

/// For how long an instance has the right to walk if it dies, and how often it renews it while it walks.
const WALKER_TTL_MS: u64 = 30_000;
const RENEWAL: Duration = Duration::from_secs(5);

/// Keys that one script looks at, the work it may do on those that are gone (see `lua/prelude.lua`), and
/// how long to rest after it, in times of its own duration.
const KEYS_PER_SCRIPT: usize = 200;
const WORK_PER_SCRIPT: usize = 100;
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_millis(100);

impl Shard {
    /// Walks over the namespaces if values were evicted since the last walk and nobody else does.
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
                        // This process stood still for so long that another one took over.
                        return Ok(());
                    }
                    renewed = started;
                }
                place = self.find_evicted_from(namespace, place).await?;
                sleep((Moment::now().since(started) * REST).min(REST_MAX)).await;
            }
        }
        let arguments = |_: &Settled| vec![Value::from(evicted.to_string())];
        self.ask(&scripts::END_WALK, Effect::Write, arguments, reply::number).await?;
        Ok(())
    }

    /// One step over a namespace; answers the place to go on from.
    async fn find_evicted_from(&self, namespace: &Namespace, place: u64) -> Result<u64, Error> {
        let numbers = [place.to_string(), KEYS_PER_SCRIPT.to_string(), WORK_PER_SCRIPT.to_string()];
        let arguments = |settled: &Settled| {
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
            // Of another type: the end of the walk overwrites it.
            Err(Error::Protocol { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Takes or keeps for `ttl_ms` the right to the walk that `walk` stands for; tells whether that worked.
    pub async fn become_walker(&self, name: &str, walk: &str, ttl_ms: u64) -> Result<bool, Error> {
        let arguments = |_: &Settled| vec![Value::from(name), Value::from(ttl_ms.to_string()), Value::from(walk)];
        Ok(self.ask(&scripts::BECOME_WALKER, Effect::Write, arguments, reply::number).await? == 1)
    }
}
