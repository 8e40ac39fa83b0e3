//! Finds entries that Redis evicted, and corrects index and totals.
//!
//! An evicted value leaves its metadata and its index member behind. The next read of the key notices that. Keys that
//! nobody reads are found by a walk over the index. An instance walks only if the shard's count of evictions has
//! changed since the last walk, and only one instance walks at a time. It pauses much longer than it works.

use std::time::Duration;

use fred::types::Value;

use super::place::PLACES;
use super::reply;
use super::ring_state::SettledRecord;
use super::scripts;
use super::server_info::field;
use super::shard::{Effect, Shard};
use super::walk::{Walk, WalkKind};
use crate::model::Namespace;
use crate::store::Error;

/// The shard's count of evictions at the start of the last walk.
const WALKED: &str = "sidecache:walked";

const WALK: WalkKind = WalkKind {
    claim: "sidecache:walker",
    claim_ttl_ms: 30_000,
    renewal: Duration::from_secs(5),
    pauses_per_step: 4,
    max_pause: Duration::from_millis(100),
};

/// Keys that one script looks at, and the work that it may do on entries that are gone (in the units of
/// `lua/prelude.lua`).
const KEYS_PER_SCRIPT: &str = "200";
const WORK_PER_SCRIPT: &str = "100";

impl Shard {
    /// Walks over the namespaces if Redis evicted keys since the last walk and no other instance walks.
    pub async fn find_evicted(&self, instance: &str, namespaces: &[Namespace]) -> Result<(), Error> {
        let evicted = self.evicted_keys().await?;
        if evicted == self.walked().await? {
            return Ok(());
        }
        let Some(mut walk) = Walk::begin(self, instance, &WALK).await? else { return Ok(()) };
        for namespace in namespaces {
            let mut place = 0;
            while place < PLACES {
                place = self.find_evicted_from(namespace, place).await?;
                if !walk.pause().await? {
                    return Ok(());
                }
            }
        }
        // This also gives up the claim.
        let arguments = |_: &SettledRecord| vec![Value::from(evicted.to_string())];
        self.ask(&scripts::END_WALK, Effect::Write, arguments, reply::number).await?;
        Ok(())
    }

    /// One step of the walk over a namespace; returns the place to continue from.
    async fn find_evicted_from(&self, namespace: &Namespace, place: u64) -> Result<u64, Error> {
        let place = place.to_string();
        let arguments = |settled: &SettledRecord| {
            settled.arguments(namespace.as_str(), [&place, KEYS_PER_SCRIPT, WORK_PER_SCRIPT].map(Value::from))
        };
        self.ask(&scripts::FIND_EVICTED, Effect::Write, arguments, reply::count).await
    }

    async fn evicted_keys(&self) -> Result<u64, Error> {
        let info = self.info("stats").await;
        let count = info.and_then(|info| field(&info, "evicted_keys")?.parse().ok());
        count.ok_or_else(|| self.unexpected("`evicted_keys` in INFO"))
    }

    async fn walked(&self) -> Result<u64, Error> {
        match self.read("GET", vec![Value::from(WALKED)], reply::count).await {
            // There is no such key, or it holds something else; the end of the walk overwrites it.
            Err(Error::Protocol { .. }) => Ok(0),
            walked => walked,
        }
    }
}
