//! The shards: `a=redis://127.0.0.1:6379,b=redis://127.0.0.1:6380`.

use std::time::Duration;

use fred::types::config::Config as Endpoint;

use super::DAY_MS;
use super::mask;
use super::settings::{Error, Settings};

/// The pool of shards and the rules for all of them.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    pub shards: Vec<ShardConfig>,
    pub timeout: Duration,
    connections: usize,
    pub max_in_flight: usize,
    /// How long a write may wait for room that is being made.
    pub room_patience: Duration,
    /// Whether this instance may divide the keys otherwise than living ones do.
    pub accept_ring_change: bool,
}

/// One shard.
#[derive(Clone)]
pub struct ShardConfig {
    /// Decides which keys are here; `[A-Za-z0-9_.-]{1,100}`.
    pub name: String,
    /// Its URL as it may be shown: without credentials.
    pub address: String,
    /// Address, credentials and TLS as the client library has them.
    pub endpoint: Endpoint,
}

/// Without the endpoint, which holds the password.
impl std::fmt::Debug for ShardConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("ShardConfig");
        shown.field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

const SHARDS: &str = "redis_shards";

impl RedisConfig {
    /// Connections to each shard: as many as were asked for, and as many on one worker as on another.
    pub fn lanes(&self, workers: usize) -> usize {
        self.connections.next_multiple_of(workers)
    }

    /// `None` when no shard is configured.
    pub(super) fn parse(settings: &Settings) -> Result<Option<Self>, Error> {
        let timeout = Duration::from_millis(settings.number("redis_timeout_ms", 1..=60_000)?);
        let connections = settings.number("redis_connections", 1..=256)? as usize;
        let max_in_flight = settings.number("redis_max_in_flight", 1..=1_000_000)? as usize;
        let accept_ring_change = settings.switch("accept_ring_change")?;
        let text = settings.text(SHARDS).trim();
        if text.is_empty() {
            return Ok(None);
        }
        let mut shards: Vec<ShardConfig> = Vec::new();
        for part in text.split(',') {
            let shard = shard(part.trim()).map_err(|reason| settings.error(SHARDS, reason))?;
            if shards.iter().any(|other| other.name == shard.name) {
                return Err(settings.error(SHARDS, format!("two shards are named {:?}", shard.name)));
            }
            // Each would take the entries of the other for its own, moved away, and remove them.
            if let Some(other) = shards.iter().find(|other| is_same_place(&other.endpoint, &shard.endpoint)) {
                let reason = format!("the shards {} and {} have the same address", other.name, shard.name);
                return Err(settings.error(SHARDS, reason));
            }
            shards.push(shard);
        }
        // So that it is answered before the request's deadline.
        let room_patience = Duration::from_millis(settings.number("request_timeout_ms", 10..=DAY_MS)? * 3 / 4);
        Ok(Some(Self { shards, timeout, connections, max_in_flight, room_patience, accept_ring_change }))
    }
}

fn is_same_place(one: &Endpoint, other: &Endpoint) -> bool {
    one.server == other.server && one.database.unwrap_or(0) == other.database.unwrap_or(0)
}

/// Parses `name=URL`. A reason never repeats the URL, which may hold a password.
fn shard(part: &str) -> Result<ShardConfig, String> {
    let (name, url) = part
        .split_once('=')
        .filter(|(name, url)| url.contains("://") && !name.contains("://"))
        .ok_or("expected name=URL, separated by commas, each URL with its redis:// or rediss://")?;
    let (name, url) = (name.trim(), url.trim());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > 100 || !name.bytes().all(allowed) {
        return Err(format!("a shard's name is [A-Za-z0-9_.-]{{1,100}}, not {name:?}"));
    }
    let scheme = url.split("://").next().unwrap_or_default();
    let known = ["redis", "rediss", "redis-sentinel", "rediss-sentinel", "redis+unix"];
    if !known.contains(&scheme) {
        return Err(format!("shard {name}: the URL begins with one of {}, not {scheme:?}", known.join(", ")));
    }
    let mut endpoint = Endpoint::from_url(url).map_err(|error| {
        // What the library says behind a colon is a part of the URL.
        let reason = error.details().split(": ").next().unwrap_or_default();
        format!("shard {name}: the URL does not parse: {reason}")
    })?;
    // Connect when the shard is there, not only if it is there now.
    endpoint.fail_fast = false;
    Ok(ShardConfig { name: name.to_owned(), address: mask::location(url), endpoint })
}
