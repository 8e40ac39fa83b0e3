//! One shard: its connections, and the rules under which commands go over them.
//!
//! What is true here keeps the traps of the client library out of the rest of the project: a
//! command is sent at most once, is refused where the connection is known to be lost, never waits
//! longer than the shard's timeout, and never joins more than a bounded number of others. A
//! connection that stopped answering gets no more commands and is replaced (see [`Lane`]): its
//! commands would pile up in the library, and its silence would pass for the shard's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fred::clients::Client;
use fred::error::ErrorKind;
use fred::interfaces::ClientLike;
use fred::types::config::{ReconnectPolicy, TcpConfig, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, CustomCommand, Resp3Frame as Frame, Value};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::accesses::Accesses;
use super::scripts::Script;
use crate::clock::Moment;
use crate::config::{RedisConfig, ShardConfig};
use crate::metrics::Metrics;
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
    lanes: Vec<Arc<Lane>>,
    /// Receives pub/sub messages; carries no other command.
    pub subscriber: Client,
    next: AtomicUsize,
    in_flight: Semaphore,
    pub accesses: Accesses,
}

impl Shard {
    /// Sets the shard up and starts connecting in the background.
    ///
    /// # Errors
    /// A configuration that the client library refuses.
    pub fn start(
        config: &ShardConfig,
        common: &RedisConfig,
        metrics: Arc<Metrics>,
    ) -> Result<Self, fred::error::Error> {
        let lanes =
            (0..common.connections).map(|_| connect(config, common).map(|client| Arc::new(Lane::new(client))));
        Ok(Self {
            name: config.name.clone(),
            lanes: lanes.collect::<Result<_, _>>()?,
            subscriber: connect(config, common)?,
            next: AtomicUsize::new(0),
            in_flight: Semaphore::new(common.max_in_flight),
            accesses: Accesses::new(metrics),
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

    /// The shard answered something else than what `expected` says.
    pub fn unexpected(&self, expected: &str) -> Error {
        Error::Protocol { shard: self.name.clone(), reason: format!("{expected} was expected") }
    }

    async fn command(&self, name: &'static str, effect: Effect, arguments: Vec<Value>) -> Result<Frame, Refusal> {
        let _permit = self.in_flight.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let lane = self.lane().ok_or_else(|| Refusal::NotSent("not connected".to_owned()))?;
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let answer = lane.client.custom_raw(command, arguments).await;
        match answer {
            Err(error) if *error.kind() == ErrorKind::Timeout => {
                lane.missed_an_answer();
                Err(Refusal::NoAnswer(error.to_string()))
            }
            // Nothing of a read that broke off matters; a write may have been carried out.
            Err(error) if effect == Effect::Read => Err(Refusal::NotSent(error.to_string())),
            Err(error) => Err(Refusal::NoAnswer(error.to_string())),
            Ok(frame) => {
                lane.got_an_answer();
                match frame {
                    Frame::SimpleError { data, .. } => Err(refused(&data)),
                    Frame::BlobError { data, .. } => Err(refused(&String::from_utf8_lossy(&data))),
                    frame => Ok(frame),
                }
            }
        }
    }

    /// The next usable lane in turn.
    fn lane(&self) -> Option<&Arc<Lane>> {
        let start = self.next.fetch_add(1, Relaxed);
        let count = self.lanes.len();
        (0..count).map(|i| &self.lanes[(start + i) % count]).find(|lane| lane.is_usable())
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

/// How long commands may time out on a connection without any answer before it is replaced.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a new connection is waited for before the next is asked for, and how often it is looked
/// for meanwhile.
const REVIVAL: Duration = Duration::from_secs(5);
const REVIVAL_STEP: Duration = Duration::from_millis(100);

/// One connection for commands.
struct Lane {
    client: Client,
    /// When the first of the commands timed out that had no answer after them; 0 for none. In
    /// nanoseconds of [`Moment`].
    silent_since: AtomicU64,
    /// Whether a task is replacing the connection.
    is_reviving: AtomicBool,
}

impl Lane {
    fn new(client: Client) -> Self {
        Self { client, silent_since: AtomicU64::new(0), is_reviving: AtomicBool::new(false) }
    }

    fn is_usable(&self) -> bool {
        self.client.is_connected() && !self.is_reviving.load(Relaxed)
    }

    fn got_an_answer(&self) {
        if self.silent_since.load(Relaxed) != 0 {
            self.silent_since.store(0, Relaxed);
        }
    }

    fn missed_an_answer(self: &Arc<Self>) {
        let now = Moment::now();
        let first = self.silent_since.compare_exchange(0, now.as_nanos(), Relaxed, Relaxed).err();
        let silence = first.map_or(Duration::ZERO, |nanos| now.since(Moment::from_nanos(nanos)));
        if silence >= SILENCE && !self.is_reviving.swap(true, Relaxed) {
            tokio::spawn(self.clone().revive());
        }
    }

    /// Replaces the connection, again and again until it answers; nothing else is sent meanwhile.
    async fn revive(self: Arc<Self>) {
        while timeout(REVIVAL, self.reconnect()).await.is_err() {}
        self.silent_since.store(0, Relaxed);
        self.is_reviving.store(false, Relaxed);
    }

    async fn reconnect(&self) {
        // Where the library is stuck in writing this does not end; its own check for silence then
        // breaks the connection, as nothing more is written.
        if let Ok(Err(error)) = timeout(SILENCE, self.client.force_reconnection()).await {
            tracing::debug!(%error, "not reconnected yet");
        }
        while !self.client.is_connected() || self.client.ping::<()>(None).await.is_err() {
            sleep(REVIVAL_STEP).await;
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
