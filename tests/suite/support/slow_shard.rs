//! A shard behind a proxy that makes it slow, so that a flush of 1500 entries takes seconds.

use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::process::Signal;
use super::proxy::{Of, Proxy};
use super::redis::Redis;
use super::service::Settings;

/// How many entries [`SlowShard::fill`] stores.
pub const ENTRIES: u64 = 1500;

pub struct SlowShard {
    proxy: Proxy,
    /// The delay of each answer to a script. A flush of [`ENTRIES`] needs thirty pairs of scripts.
    late: Duration,
    redis: Redis,
}

impl SlowShard {
    /// A shard on which a flush takes about two seconds.
    pub fn start() -> SlowShard {
        SlowShard::with(Duration::from_millis(60))
    }

    /// A shard on which a flush takes longer than the request timeout of [`SlowShard::impatient`].
    pub fn very_slow() -> SlowShard {
        SlowShard::with(Duration::from_millis(200))
    }

    fn with(late: Duration) -> SlowShard {
        let redis = Redis::start();
        SlowShard { proxy: Proxy::in_front_of(&redis), late, redis }
    }

    /// These settings with only this shard, and a request timeout shorter than a flush.
    pub fn impatient(&self, settings: Settings) -> Settings {
        self.added_to(settings).set("redis_timeout_ms", 3_900).set("request_timeout_ms", 4_000)
    }

    /// These settings with only this shard.
    pub fn added_to(&self, settings: Settings) -> Settings {
        settings.set("redis_shards", format!("a={}", self.proxy.url()))
    }

    /// Fills a namespace, and then makes the shard slow.
    pub async fn fill(&self, cache: &Client, ns: &str) {
        let entries: Vec<_> = (0..ENTRIES).map(|number| json!({"key": format!("k{number}"), "value": 1})).collect();
        for batch in entries.chunks(500) {
            cache.fill(ns, &json!(batch)).await;
        }
        self.slow_down();
    }

    pub fn slow_down(&self) {
        self.proxy.delay(Of::Others, Duration::ZERO, self.late);
    }

    /// Stops the Redis with SIGSTOP: it does not answer any more.
    pub fn stop(&self) {
        self.redis.signal(Signal::Stop);
    }

    /// Removes the delay.
    pub fn speed_up(&self) {
        self.proxy.delay(Of::Others, Duration::ZERO, Duration::ZERO);
    }
}
