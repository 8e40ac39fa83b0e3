//! One shard: its connections, and the rules for sending commands over them.
//!
//! These rules hide the pitfalls of the client library from the rest of the project. A command is sent at most once,
//! is refused if the connection is known to be lost, never waits longer than the shard's timeout, and only a bounded
//! number of commands are in flight. A shard that does not answer gets no requests until a probe is answered (see
//! [`Breaker`]); a connection that does not answer is replaced (see [`Connection`]).
//!
//! Only reads are retried, and only if their connection broke or led to a replica: a second request does not help a
//! shard that is too slow. A retry stays within the read's own timeout and waits for a random pause first. Only a
//! bounded number of reads retry at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use fred::clients::Client;
use fred::error::ErrorKind;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Resp3Frame as Frame, Value};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::access_counts::Accesses;
use super::breaker::{Admission, Breaker, Failure, State};
use super::client::{EVENTS, LastError, MESSAGES, connect};
use super::conditions::Kind;
use super::connection::Connection;
use super::eviction_turns::EvictionTurns;
use super::pending::{InFlight, Pending, Place};
use super::problems::ShardProblems;
use super::repair_queue::Repairs;
use super::ring_state::RingState;
use super::scripts::{FENCE, Script};
use super::sentinel::Sentinels;
use crate::clock::Moment;
use crate::config::{RedisConfig, ShardConfig};
use crate::metrics::{Metrics, ShardMetrics};
use crate::model::Quotas;
use crate::store::{Error, Finding};
use crate::workers::{self, Workers};

/// The most reads that may wait for a new connection at the same time; further reads are refused at once.
const MAX_RETRYING: usize = 256;

/// How often the connections of a shard with an open breaker are checked.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// The pauses between the attempts of a read; jitter makes each up to twice as long. A broken connection is back
/// after `client::RECONNECT_MIN_MS` at the earliest.
fn pauses() -> impl Iterator<Item = Duration> {
    let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(15)).with_factor(2.0);
    pauses.with_max_times(3).with_jitter().build()
}

/// Whether a command may have changed something although it was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Read,
    Write,
}

/// Who sends a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// One operation, which counts as in flight for the duration of the command.
    Alone,
    /// This many operations, which already count as in flight, see `batching.rs`.
    Batch(usize),
    /// The instance itself. Such commands are few, because their senders limit them, and need no place in flight.
    Upkeep,
}

impl Sender {
    /// The number of operations that the command stands for. A batch has few keys, so the number fits.
    fn operations(self) -> u32 {
        match self {
            Self::Alone | Self::Upkeep => 1,
            Self::Batch(operations) => operations.try_into().unwrap_or(u32::MAX),
        }
    }
}

/// A named Redis endpoint.
pub struct Shard {
    pub name: String,
    pub connections: Vec<Arc<Connection>>,
    pub sentinels: Option<Arc<Sentinels>>,
    /// Receives pub/sub messages; sends no other commands.
    pub subscriber: Client,
    next: AtomicUsize,
    /// The connection `connections[i]` runs on worker `i % workers + 1`.
    workers: usize,
    in_flight: Arc<InFlight>,
    pub pending: Pending,
    breaker: Arc<Breaker>,
    pub last_error: LastError,
    pub problems: ShardProblems,
    /// `preflight.rs` makes the connections for examinations from these settings.
    pub config: ShardConfig,
    pub common: RedisConfig,
    retrying: Semaphore,
    /// When all connections were last replaced because they led to different servers.
    pub last_split: Mutex<Option<Moment>>,
    pub accesses: Accesses,
    pub ring_state: RingState,
    pub repairs: Repairs,
    pub eviction_turns: EvictionTurns,
    /// Tombstones that scripts of this process found lost, or gave up before their time.
    pub tombstones_dropped: AtomicU64,
    /// The quotas of the namespaces, for writes that have to free memory.
    pub quotas: Arc<dyn Quotas>,
    pub metrics: ShardMetrics,
}

impl Shard {
    /// Creates the shard and starts to connect in the background.
    ///
    /// # Errors
    /// A configuration that the client library refuses.
    pub fn start(
        config: &ShardConfig,
        common: &RedisConfig,
        metrics: Arc<Metrics>,
        workers: &Workers,
        quotas: Arc<dyn Quotas>,
    ) -> Result<Self, fred::error::Error> {
        let sentinels = Sentinels::of(config, common)?;
        let connections = (0..common.connections(workers.count())).map(|i| {
            // The connection runs on a worker, so an answer wakes the waiting request on the same thread.
            let _runtime = workers.runtime(i + 1).enter();
            connect(config.endpoint.clone(), common, EVENTS).map(|client| Connection::new(client, sentinels.clone()))
        });
        let connections = connections.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: config.name.clone(),
            last_error: connections.first().map(|connection| LastError::of(&connection.client)).unwrap_or_default(),
            problems: ShardProblems::new(&config.name),
            config: config.clone(),
            common: common.clone(),
            connections,
            sentinels,
            subscriber: connect(config.endpoint.clone(), common, MESSAGES)?,
            next: AtomicUsize::new(0),
            workers: workers.count(),
            in_flight: InFlight::new(common.max_in_flight),
            pending: Pending::default(),
            breaker: Arc::new(Breaker::new(common.timeout)),
            retrying: Semaphore::new(MAX_RETRYING),
            last_split: Mutex::default(),
            metrics: metrics.shard(&config.name),
            accesses: Accesses::new(metrics),
            ring_state: RingState::default(),
            repairs: Repairs::default(),
            eviction_turns: EvictionTurns::new(common.room_patience),
            tombstones_dropped: AtomicU64::default(),
            quotas,
        })
    }

    /// Runs a script. `arguments` is called a second time in the rare case that the shard does not know the script
    /// any more.
    pub async fn run(
        &self,
        script: &Script,
        effect: Effect,
        party: Sender,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Frame, Refusal> {
        let attempt = || self.try_run(script, effect, party, &arguments);
        if effect == Effect::Read { self.again_if_broken(party, attempt).await } else { attempt().await }
    }

    async fn try_run(
        &self,
        script: &Script,
        effect: Effect,
        party: Sender,
        arguments: &(impl Fn() -> Vec<Value> + Send + Sync),
    ) -> Result<Frame, Refusal> {
        let call = |first: Value| {
            let arguments = arguments();
            let mut all = Vec::with_capacity(3 + arguments.len());
            // Some servers refuse scripts that declare no key.
            all.extend([first, Value::from_static_str("1"), Value::from_static_str(FENCE)]);
            all.extend(arguments);
            all
        };
        match self.command("EVALSHA", effect, party, call(Value::String(script.sha1.clone()))).await {
            // The server has restarted and executed nothing. EVAL runs the script and loads it again.
            Err(Refusal::NoScript) => {
                Box::pin(self.command("EVAL", effect, party, call(Value::from_static_str(script.body)))).await
            }
            answer => answer,
        }
    }

    /// Runs the attempt, and repeats it if the connection broke or is not back yet.
    async fn again_if_broken<F>(&self, party: Sender, attempt: impl Fn() -> F) -> Result<Frame, Refusal>
    where
        F: Future<Output = Result<Frame, Refusal>>,
    {
        let started = Moment::now();
        let mut result = attempt().await;
        if !is_worth_another(&result) {
            return result;
        }
        let Ok(_places) = self.retrying.try_acquire_many(party.operations()) else { return result };
        for pause in pauses() {
            let left = self.common.timeout.saturating_sub(Moment::now().since(started));
            if pause >= left || self.breaker.state() != State::Closed {
                break;
            }
            sleep(pause).await;
            self.metrics.retries.increment(party.operations().into());
            let late = |_| Err(Refusal::NoAnswer("sent again, but not answered in the remaining time".to_owned()));
            result = timeout(left - pause, Box::pin(attempt())).await.unwrap_or_else(late);
            if !is_worth_another(&result) {
                break;
            }
        }
        result
    }

    /// Sends one command that only reads, or whose result may get lost, and parses its answer with `parse`.
    pub async fn read<T>(
        &self,
        name: &'static str,
        arguments: Vec<Value>,
        parse: impl FnOnce(Frame) -> Result<T, &'static str>,
    ) -> Result<T, Error> {
        let answer = self.command(name, Effect::Read, Sender::Upkeep, arguments).await;
        let frame = answer.map_err(|refusal| self.error(refusal, Effect::Read))?;
        parse(frame).map_err(|expected| self.unexpected(expected))
    }

    /// Runs a script without a fence, for the instance itself.
    pub async fn run_upkeep<T>(
        &self,
        script: &Script,
        effect: Effect,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, &'static str>,
    ) -> Result<T, Error> {
        let answer = self.run(script, effect, Sender::Upkeep, arguments).await;
        let frame = answer.map_err(|refusal| self.error(refusal, effect))?;
        read(frame).map_err(|expected| self.unexpected(expected))
    }

    /// The error for an answer that is not what `expected` says.
    pub fn unexpected(&self, expected: &str) -> Error {
        Error::Protocol { shard: self.name.clone(), reason: format!("expected {expected}") }
    }

    async fn command(
        &self,
        name: &'static str,
        effect: Effect,
        party: Sender,
        arguments: Vec<Value>,
    ) -> Result<Frame, Refusal> {
        let operations = party.operations();
        let refused = |refusal: Refusal| {
            self.metrics.refused.increment(operations.into());
            refusal
        };
        let _place = match party {
            Sender::Alone => Some(self.in_flight.enter().ok_or_else(|| refused(Refusal::Overloaded))?),
            Sender::Batch(_) | Sender::Upkeep => None,
        };
        let admission = self.breaker.admit(operations).ok_or_else(|| refused(Refusal::GivenUp))?;
        let Some(connection) = self.connection() else {
            self.failed(&admission, Failure::NotConnected);
            return Err(refused(Refusal::NotConnected("not connected".to_owned())));
        };
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let answer = connection.client.custom_raw(command, arguments).await;
        match answer {
            Err(error) if *error.kind() == ErrorKind::Timeout => {
                connection.doubt();
                self.metrics.silent.increment(operations.into());
                self.failed(&admission, Failure::Silent);
                Err(Refusal::NoAnswer(error.to_string()))
            }
            Err(error) => {
                connection.doubt();
                self.failed(&admission, Failure::NotConnected);
                let reason = error.to_string();
                // A read that broke off has changed nothing; a write may have been executed.
                Err(if effect == Effect::Read { Refusal::NotConnected(reason) } else { Refusal::NoAnswer(reason) })
            }
            Ok(frame) => {
                if admission.answered() {
                    tracing::info!(shard = %self.name, "the shard answers again");
                }
                let refusal = match frame {
                    Frame::SimpleError { data, .. } => refused_by(&data),
                    Frame::BlobError { data, .. } => refused_by(&String::from_utf8_lossy(&data)),
                    frame => return Ok(frame),
                };
                if let Refusal::NotPrimary(reason) = &refusal
                    && connection.replace()
                {
                    tracing::warn!(shard = %self.name, reason, "replacing a connection whose server takes no writes");
                    self.metrics.primary_changes.increment(1);
                }
                Err(refusal)
            }
        }
    }

    /// Tells the breaker about a failure. If that opens the breaker, starts the probes that will try to close it.
    fn failed(&self, admission: &Admission<'_>, failure: Failure) {
        let Some(left) = admission.failed(failure, Moment::now()) else { return };
        self.metrics.breaker_openings.increment(1);
        if left == State::Closed {
            let reason = self.last_error.last().unwrap_or_else(|| "no answers".to_owned());
            tracing::warn!(shard = %self.name, reason, "the shard does not answer; no requests until it does");
        }
        // Idle connections may be broken as well, but have not noticed it yet.
        self.connections.iter().for_each(Connection::doubt);
        tokio::spawn(probe(self.breaker.clone(), self.connections.clone()));
    }

    /// The next usable connection in turn. Prefers connections without doubts, and on a worker the worker's own
    /// connection.
    fn connection(&self) -> Option<&Arc<Connection>> {
        let count = self.connections.len();
        let start = match workers::current() {
            0 => self.next.fetch_add(1, Relaxed),
            worker if count == self.workers => worker - 1,
            worker => worker - 1 + self.next.fetch_add(1, Relaxed) * self.workers,
        };
        let in_turn = || (0..count).map(|i| &self.connections[(start + i) % count]);
        in_turn()
            .find(|connection| connection.is_sure())
            .or_else(|| in_turn().find(|connection| connection.is_usable()))
    }

    /// Whether there is a connection that can send commands.
    pub fn is_connected(&self) -> bool {
        self.connections.iter().any(|connection| connection.is_usable())
    }

    /// Whether a server is connected, even if it does not accept our commands at present.
    pub fn has_server(&self) -> bool {
        self.connections.iter().any(|connection| connection.client.is_connected())
    }

    /// Updates the gauges.
    pub fn refresh_gauges(&self) {
        self.metrics.in_flight.set(self.in_flight.count() as f64);
        let memory = self.problems.pressure.lock().reading();
        self.metrics.memory_used.set(memory.used_bytes as f64);
        self.metrics.memory_limit.set(memory.limit_bytes as f64);
        let is_degraded = self.problems.findings().iter().any(Finding::degrades);
        self.metrics.degraded.set(f64::from(u8::from(is_degraded)));
        let state = self.breaker.state();
        self.metrics.up.set(f64::from(u8::from(state == State::Closed && self.is_connected())));
        self.metrics.breaker_open.set(match state {
            State::Closed => 0.0,
            State::HalfOpen => 0.5,
            State::Open => 1.0,
        });
    }

    /// Reserves a place in flight for one operation that is combined with others.
    pub fn enter(&self) -> Result<Place, Error> {
        self.in_flight.enter().ok_or_else(|| {
            self.metrics.refused.increment(1);
            self.error(Refusal::Overloaded, Effect::Read)
        })
    }

    /// The error for a write that found no free memory and may not evict anything.
    pub fn refused_for_memory(&self) -> Error {
        self.metrics.out_of_memory.increment(1);
        self.problems.record("OOM");
        self.error(Refusal::Full, Effect::Write)
    }

    /// The error for an operation whose result will never arrive.
    pub fn abandoned(&self, effect: Effect) -> Error {
        self.error(Refusal::NoAnswer("it was given up before the answer".to_owned()), effect)
    }

    /// Whether several operations may be combined into one script.
    pub fn may_batch(&self) -> bool {
        self.breaker.state() == State::Closed
    }

    pub fn error(&self, refusal: Refusal, effect: Effect) -> Error {
        if let Refusal::NotExecuted(reply) | Refusal::NotPrimary(reply) | Refusal::Strange(reply) = &refusal {
            self.problems.record(reply);
        }
        let shard = self.name.clone();
        match refusal {
            Refusal::Overloaded => Error::Overloaded { shard },
            Refusal::GivenUp => Error::Unavailable { shard, reason: "it did not answer recent requests".to_owned() },
            Refusal::NotConnected(reason) | Refusal::NotExecuted(reason) | Refusal::NotPrimary(reason) => {
                Error::Unavailable { shard, reason }
            }
            Refusal::Fenced => Error::Unavailable { shard, reason: "its ring record changed".to_owned() },
            Refusal::NoAnswer(_) if effect == Effect::Read => Error::Timeout { shard },
            Refusal::NoAnswer(reason) => Error::OutcomeUnknown { shard, reason },
            Refusal::Full => Error::Full { shard },
            Refusal::NoScript => Error::Protocol { shard, reason: "NOSCRIPT as the answer to EVAL".to_owned() },
            Refusal::Strange(reason) => Error::Protocol { shard, reason },
        }
    }
}

/// Half-opens the breaker as soon as one of the connections answers.
async fn probe(breaker: Arc<Breaker>, connections: Vec<Arc<Connection>>) {
    // The connections send the PINGs themselves, see `connection.rs`; this loop only watches for the result.
    while !connections.iter().any(|connection| connection.is_sure()) {
        sleep(PROBE_PAUSE).await;
    }
    breaker.try_again();
}

/// Why a command has no result.
#[derive(Debug)]
pub enum Refusal {
    Overloaded,
    /// The breaker is open.
    GivenUp,
    /// The command was not sent, or it is a read whose connection broke.
    NotConnected(String),
    /// The shard answered that it does not execute commands at present.
    NotExecuted(String),
    /// The connection leads to a replica or to a server that is not ready. Nothing was executed.
    NotPrimary(String),
    /// The token of the script is not that of the shard's ring record. Nothing was executed.
    Fenced,
    NoAnswer(String),
    Full,
    NoScript,
    Strange(String),
}

/// Whether another connection may be able to answer the read.
fn is_worth_another(result: &Result<Frame, Refusal>) -> bool {
    matches!(result, Err(Refusal::NotConnected(_) | Refusal::NotPrimary(_)))
}

/// Parses an error reply. Redis begins each with a code in capitals.
fn refused_by(reply: &str) -> Refusal {
    match Kind::of(reply) {
        Some(Kind::OutOfMemory) => Refusal::Full,
        Some(Kind::Replica | Kind::Loading | Kind::MasterDown) => Refusal::NotPrimary(reply.to_owned()),
        // A script may lack a right after it has done part of its work, so do not say that nothing was executed.
        Some(Kind::NoPermission) if !reply.starts_with("NOPERM") => Refusal::Strange(reply.to_owned()),
        // Not executed: the server cannot save, lacks replicas or rights, or is busy.
        Some(_) => Refusal::NotExecuted(reply.to_owned()),
        None if reply.starts_with("NOSCRIPT") => Refusal::NoScript,
        None if reply.starts_with("FENCED") => Refusal::Fenced,
        None => Refusal::Strange(reply.to_owned()),
    }
}
