//! The connections of the client library: how they are made, and why they fail. Without the reason in the log, a wrong
//! password would look like a shard that is silent.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike as _, EventInterface as _};
use fred::types::config::{Config as Endpoint, ReconnectPolicy, TcpConfig, UnresponsiveConfig};
use fred::types::{Builder, ConnectHandle};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;

use crate::config::RedisConfig;

/// The pause before a reconnect is 50 ms at first and at most half a second, so that a shard is used again soon after
/// it comes back.
pub const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 500;

/// How many messages may wait for a slow subscriber before some are dropped and the subscriber is notified.
/// [`EVENTS`] is the limit for connections that receive only events. The library allocates the memory at once.
pub const MESSAGES: usize = 4 * 1024;
pub const EVENTS: usize = 32;

/// A client that connects in the background and stays until the process ends. `capacity` is the number of messages and
/// events that may wait for their receiver.
pub fn connect(endpoint: Endpoint, common: &RedisConfig, capacity: usize) -> Result<Client, fred::error::Error> {
    // The result of the connection task is not needed: the client's state shows an outage.
    connect_for_now(endpoint, common, capacity).map(|(client, _)| client)
}

/// Like [`connect`], with the task that has the connection. Abort it to close the connection: the client alone only
/// asks the server to close it, and a server may not answer while the connection is subscribed.
pub fn connect_for_now(
    endpoint: Endpoint,
    common: &RedisConfig,
    capacity: usize,
) -> Result<(Client, ConnectHandle), fred::error::Error> {
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
    let task = client.connect();
    Ok((client, task))
}

/// The last error of a shard's connections, as a text.
#[derive(Clone, Default)]
pub struct LastError(Arc<Mutex<Option<String>>>);

impl LastError {
    /// Watches one connection. That is enough, because all connections of a shard lead to the same place.
    pub fn of(client: &Client) -> Self {
        let last_error = Self::default();
        let (mut errors, mut reconnects, told) = (client.error_rx(), client.reconnect_rx(), last_error.clone());
        // Runs until the process ends, like the client.
        tokio::spawn(async move {
            loop {
                let last = tokio::select! {
                    // If an error and a reconnect are both waiting, the error came first.
                    biased;
                    error = errors.recv() => error.map(|(error, _)| Some(words(error.details()))),
                    // An error before the reconnect does not explain later trouble.
                    server = reconnects.recv() => server.map(|_| None),
                };
                match last {
                    Ok(last) => *told.0.lock() = last,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        last_error
    }

    /// `None` if there was no error since the last connect.
    pub fn last(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// The readable text of an error. For errors of the operating system the library keeps only the debug format, such as
/// `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
pub fn words(details: &str) -> String {
    // A kind without its own message gets the text of the standard library.
    const KINDS: [ErrorKind; 6] = [
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::BrokenPipe,
        ErrorKind::TimedOut,
        ErrorKind::UnexpectedEof,
    ];
    if let Some(name) = details.strip_prefix("Kind(").and_then(|rest| rest.strip_suffix(')')) {
        let kind = KINDS.iter().find(|kind| format!("{kind:?}") == name);
        return kind.map_or_else(|| name.to_owned(), ToString::to_string);
    }
    let is_of_the_system = ["Os {", "Custom {", "Error {"].iter().any(|start| details.starts_with(start));
    let said = ["message: ", "error: "].iter().find_map(|field| Some(details.split_once(field)?.1));
    let Some(said) = said.and_then(|said| said.strip_suffix(" }")).filter(|_| is_of_the_system) else {
        return details.to_owned();
    };
    match said.strip_prefix('"').and_then(|said| said.strip_suffix('"')) {
        Some(text) => text.replace("\\\"", "\""),
        // An error inside the error.
        None => words(said),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use fred::error::Error;

    use super::*;

    fn words_of(error: io::Error) -> String {
        words(Error::from(error).details())
    }

    #[test]
    fn errors_of_the_operating_system_have_readable_texts() {
        assert_eq!(words_of(io::Error::from_raw_os_error(111)), "Connection refused");
        assert_eq!(words_of(ErrorKind::UnexpectedEof.into()), "unexpected end of file");
        assert_eq!(words_of(ErrorKind::NotConnected.into()), "NotConnected");
        let lookup = "failed to lookup address information: Name or service not known";
        assert_eq!(words_of(io::Error::other(lookup)), lookup);
        assert_eq!(words_of(io::Error::other("a \"quoted\" word")), "a \"quoted\" word");
        // Errors without a text keep their debug format.
        assert_eq!(words_of(io::Error::other(io::Error::other("x"))), "x");
    }

    #[test]
    fn error_texts_of_a_server_stay_unchanged() {
        for text in ["WRONGPASS invalid username-password pair", "ERR error: { \"a\" }", "Kind of a failure", ""] {
            assert_eq!(words(text), text);
        }
    }
}
