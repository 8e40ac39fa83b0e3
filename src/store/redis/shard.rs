//! One shard: its connections, and the rules under which commands go over them.
//!
//! What is true here keeps the traps of the client library out of the rest of the project: a
//! command is sent at most once, never waits for a lost connection to come back, never waits longer
//! than the shard's timeout, and never joins more than a bounded number of others in flight.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{ReconnectPolicy, TcpConfig, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, CustomCommand, Resp3Frame as Frame, Value};
use tokio::sync::Semaphore;

use super::scripts::Script;
use crate::config::{RedisConfig, ShardConfig};
use crate::store::Error;

/// Reconnects wait 50 ms at first and never more than half a second, so that a shard that came
/// back is in use at once.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 500;

/// Messages and events that may wait for a slow listener before it is told that it lost some.
const BROADCAST_CAPACITY: usize = 16 * 1024;

/// Whether a command that got no answer may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Read,
    Write,
}

/// A named Redis endpoint.
pub struct Shard {
    pub name: String,
    clients: Vec<Client>,
    /// Receives pub/sub messages; carries no other command.
    pub subscriber: Client,
    next: AtomicUsize,
    in_flight: Semaphore,
}

impl Shard {
    /// Sets the shard up and starts connecting in the background.
    ///
    /// # Errors
    /// A configuration that the client library refuses.
    pub fn start(config: &ShardConfig, common: &RedisConfig) -> Result<Self, fred::error::Error> {
        let clients = (0..common.connections).map(|_| connect(config, common)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: config.name.clone(),
            clients,
            subscriber: connect(config, common)?,
            next: AtomicUsize::new(0),
            in_flight: Semaphore::new(common.max_in_flight),
        })
    }

    /// Runs a script; `arguments` is asked again in the rare case that the shard has forgotten it.
    pub async fn run(
        &self,
        script: &Script,
        effect: Effect,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Frame, Error> {
        let call = |first: Value| {
            let mut all = Vec::with_capacity(16);
            all.extend([first, Value::from("0")]);
            all.extend(arguments());
            all
        };
        match self.command("EVALSHA", effect, call(Value::from(script.sha1.as_str()))).await {
            // The shard restarted and nothing was executed: EVAL runs the script and loads it.
            Err(Refusal::NoScript) => {
                self.command("EVAL", effect, call(Value::from(script.body))).await.map_err(|r| self.error(r, effect))
            }
            answer => answer.map_err(|refusal| self.error(refusal, effect)),
        }
    }

    /// Sends one command that reads or that may be lost.
    pub async fn read(&self, name: &'static str, arguments: Vec<Value>) -> Result<Frame, Error> {
        self.command(name, Effect::Read, arguments).await.map_err(|refusal| self.error(refusal, Effect::Read))
    }

    async fn command(&self, name: &'static str, effect: Effect, arguments: Vec<Value>) -> Result<Frame, Refusal> {
        let _permit = self.in_flight.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let client = self.client().ok_or_else(|| Refusal::NotSent("not connected".to_owned()))?;
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        match client.custom_raw(command, arguments).await {
            Ok(Frame::SimpleError { data, .. }) => Err(refused(&data)),
            Ok(Frame::BlobError { data, .. }) => Err(refused(&String::from_utf8_lossy(&data))),
            Ok(frame) => Ok(frame),
            Err(error) if effect == Effect::Read && *error.kind() != fred::error::ErrorKind::Timeout => {
                Err(Refusal::NotSent(error.to_string()))
            }
            Err(error) => Err(Refusal::NoAnswer(error.to_string())),
        }
    }

    /// The next connected client in turn.
    fn client(&self) -> Option<&Client> {
        let start = self.next.fetch_add(1, Relaxed);
        let count = self.clients.len();
        (0..count).map(|i| &self.clients[(start + i) % count]).find(|client| client.is_connected())
    }

    fn error(&self, refusal: Refusal, effect: Effect) -> Error {
        let shard = self.name.clone();
        match refusal {
            Refusal::Overloaded => Error::Overloaded { shard },
            Refusal::NotSent(reason) => Error::Unavailable { shard, reason },
            Refusal::NoAnswer(_) if effect == Effect::Read => Error::Timeout { shard },
            Refusal::NoAnswer(reason) => Error::OutcomeUnknown { shard, reason },
            Refusal::Full => Error::Full { shard },
            Refusal::NoScript => Error::Protocol { shard, reason: "NOSCRIPT for EVAL".to_owned() },
            Refusal::Strange(reason) => Error::Protocol { shard, reason },
        }
    }
}

/// Why a command has no result.
enum Refusal {
    Overloaded,
    NotSent(String),
    NoAnswer(String),
    Full,
    NoScript,
    Strange(String),
}

/// Reads an error reply. Redis opens each with a code in capitals.
fn refused(reply: &str) -> Refusal {
    // A failure inside a script is told as `ERR ... @user_script` or with the inner code in front.
    let code = reply.split_whitespace().next().unwrap_or_default();
    match code {
        "NOSCRIPT" => Refusal::NoScript,
        "OOM" => Refusal::Full,
        // Not executed: loading its data, a replica, without its disk or without rights.
        "LOADING" | "READONLY" | "MISCONF" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "NOAUTH" | "NOPERM"
        | "NOREPLICAS" => Refusal::NotSent(reply.to_owned()),
        _ => Refusal::Strange(reply.to_owned()),
    }
}

fn connect(config: &ShardConfig, common: &RedisConfig) -> Result<Client, fred::error::Error> {
    let timeout = common.timeout;
    let client = Builder::from_config(config.endpoint.clone())
        .with_performance_config(|performance| {
            performance.default_command_timeout = timeout;
            performance.broadcast_channel_capacity = BROADCAST_CAPACITY;
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
            connection.auto_client_setname = true;
            connection.reconnect_on_auth_error = true;
        })
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2))
        .build()?;
    // Runs until the process ends; an outage is seen in the client's state.
    drop(client.connect());
    Ok(client)
}
