//! How connections of the client library are made.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::Builder;
use fred::types::config::{Config as Endpoint, ReconnectPolicy, TcpConfig, UnresponsiveConfig};

use crate::config::RedisConfig;

/// The pause before a reconnect is 50 ms at first and at most half a second, so that a shard is used again soon after
/// it comes back.
pub const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 500;

/// How many messages may wait for a slow subscriber before some are dropped and the subscriber is notified.
/// [`EVENTS`] is the limit for connections that receive only events. The library allocates the memory at once.
pub const MESSAGES: usize = 4 * 1024;
pub const EVENTS: usize = 32;

/// A client that connects in the background. `capacity` is the number of messages and events that may wait for their
/// receiver.
pub fn connect(endpoint: Endpoint, common: &RedisConfig, capacity: usize) -> Result<Client, fred::error::Error> {
    let timeout = common.timeout;
    let client = Builder::from_config(endpoint)
        .with_performance_config(|performance| {
            performance.default_command_timeout = timeout;
            performance.broadcast_channel_capacity = capacity;
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = Duration::from_secs(2);
            connection.internal_command_timeout = Duration::from_secs(2);
            connection.max_command_attempts = 1;
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some((timeout * 4).max(Duration::from_secs(1))),
                interval: timeout,
            };
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            // In Redis 6.2 CLIENT is a dangerous command, which the user may not be allowed to run.
            connection.auto_client_setname = false;
            connection.reconnect_on_auth_error = true;
        })
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2))
        .build()?;
    // The connection task runs until the process ends. Its result is not needed: the client's state shows an outage.
    drop(client.connect());
    Ok(client)
}
