//! One shard: its connections, and the rules under which commands go over them.
//!
//! What is true here keeps the traps of the client library out of the rest of the project: a
//! command is sent at most once, is refused where the connection is known to be lost, never waits
//! longer than the shard's timeout, and never joins more than a bounded number of others. A shard
//! that does not answer is given up for a moment (see [`Breaker`]), a connection that does not is
//! replaced (see [`Lane`]).
//!
//! Only a read is tried again, and only where its connection broke: a shard that is too slow is not
//! helped by asking it twice. It is tried within its own deadline, after a pause by chance, and by a
//! bounded number of reads at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use fred::clients::Client;
use fred::error::ErrorKind;
use fred::interfaces::ClientLike;
use fred::types::config::{Config as Endpoint, ReconnectPolicy, TcpConfig, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, CustomCommand, Resp3Frame as Frame, Value};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::accesses::Accesses;
use super::belonging::Belonging;
use super::breaker::{Admission, Breaker, Failure, State};
use super::conditions::Kind;
use super::gather::Gathering;
use super::in_flight::{InFlight, Place};
use super::lane::Lane;
use super::repair::Repairs;
use super::room::Rooms;
use super::scripts::{FENCE, Script};
use super::sentinel::Sentinels;
use super::trouble::Trouble;
use super::watch::Watch;
use crate::clock::Moment;
use crate::config::{RedisConfig, ShardConfig};
use crate::metrics::{Metrics, ShardMetrics};
use crate::model::Quotas;
use crate::store::{Error, Finding};
use crate::workers::{self, Workers};

/// Reconnects wait 50 ms at first and never more than half a second, so that a shard that came
/// back is in use at once.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 500;

/// Messages that may wait for a slow listener before it is told that it lost some, and events of
/// connections that have no messages. The library sets the memory aside at once.
const MESSAGES: usize = 4 * 1024;
pub const EVENTS: usize = 32;

/// Reads that may wait for a new connection at a time; more are refused at once.
const MAX_RETRYING: usize = 256;

/// How often the connections of a shard that was given up are looked at.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// Pauses between the attempts of a read, each up to twice as long by chance: a connection that
/// broke is back after [`RECONNECT_MIN_MS`] at the earliest.
fn pauses() -> impl Iterator<Item = Duration> {
    let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(15)).with_factor(2.0);
    pauses.with_max_times(3).with_jitter().build()
}

/// Whether a command that got no answer may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Read,
    Write,
}

/// For whom a command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// One operation, which takes its place among those in flight.
    Alone,
    /// So many operations, which have their places already, see `gather`.
    Gathered(usize),
    /// The instance itself: few commands, bounded in number by who sends them, that must not wait for operations.
    Upkeep,
}

impl Party {
    /// At most as many as a script has keys, which is few.
    fn operations(self) -> u32 {
        match self {
            Self::Alone | Self::Upkeep => 1,
            Self::Gathered(operations) => operations.try_into().unwrap_or(u32::MAX),
        }
    }
}

/// A named Redis endpoint.
pub struct Shard {
    pub name: String,
    pub lanes: Vec<Arc<Lane>>,
    pub sentinels: Option<Arc<Sentinels>>,
    /// Receives pub/sub messages; carries no other command.
    pub subscriber: Client,
    next: AtomicUsize,
    /// Lane `i` lives on worker `i` modulo this, plus 1.
    workers: usize,
    in_flight: Arc<InFlight>,
    pub gathering: Gathering,
    breaker: Arc<Breaker>,
    pub trouble: Trouble,
    pub watch: Watch,
    /// Of what `probe.rs` makes the connections for examinations.
    pub config: ShardConfig,
    pub common: RedisConfig,
    retrying: Semaphore,
    /// When all connections were replaced last because they led to different servers.
    pub left_apart: Mutex<Option<Moment>>,
    /// Deadline of one operation.
    pub timeout: Duration,
    pub accesses: Accesses,
    pub belonging: Belonging,
    pub repairs: Repairs,
    pub rooms: Rooms,
    /// What the namespaces may hold, for whoever has to free memory.
    pub quotas: Arc<dyn Quotas>,
    /// Among how many shards a quota is divided.
    pub shard_count: usize,
    pub metrics: ShardMetrics,
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
        workers: &Workers,
        quotas: Arc<dyn Quotas>,
    ) -> Result<Self, fred::error::Error> {
        let sentinels = Sentinels::of(config, common)?;
        let lanes = (0..common.lanes(workers.count())).map(|i| {
            // It lives on a worker: an answer wakes the request that waits for it on its own thread.
            let _runtime = workers.runtime(i + 1).enter();
            connect(config.endpoint.clone(), common, EVENTS).map(|client| Lane::new(client, sentinels.clone()))
        });
        let lanes = lanes.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: config.name.clone(),
            trouble: lanes.first().map(|lane| Trouble::of(&lane.client)).unwrap_or_default(),
            watch: Watch::new(&config.name),
            config: config.clone(),
            common: common.clone(),
            lanes,
            sentinels,
            subscriber: connect(config.endpoint.clone(), common, MESSAGES)?,
            next: AtomicUsize::new(0),
            workers: workers.count(),
            in_flight: InFlight::new(common.max_in_flight),
            gathering: Gathering::default(),
            breaker: Arc::new(Breaker::new(common.timeout)),
            retrying: Semaphore::new(MAX_RETRYING),
            left_apart: Mutex::default(),
            timeout: common.timeout,
            metrics: metrics.shard(&config.name),
            accesses: Accesses::new(metrics),
            belonging: Belonging::default(),
            repairs: Repairs::default(),
            rooms: Rooms::new(common.room_patience),
            quotas,
            shard_count: common.shards.len(),
        })
    }

    /// Runs a script; `arguments` is asked again in the rare case that the shard has forgotten it.
    pub async fn run(
        &self,
        script: &Script,
        effect: Effect,
        party: Party,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Frame, Refusal> {
        let attempt = || self.try_run(script, effect, party, &arguments);
        if effect == Effect::Read { self.again_if_broken(party, attempt).await } else { attempt().await }
    }

    async fn try_run(
        &self,
        script: &Script,
        effect: Effect,
        party: Party,
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
            // The shard restarted and nothing was executed: EVAL runs the script and loads it.
            Err(Refusal::NoScript) => {
                self.command("EVAL", effect, party, call(Value::from_static_str(script.body))).await
            }
            answer => answer,
        }
    }

    /// Makes the attempt, and more of them where the connection broke or is not back yet.
    async fn again_if_broken<F>(&self, party: Party, attempt: impl Fn() -> F) -> Result<Frame, Refusal>
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
            let left = self.timeout.saturating_sub(Moment::now().since(started));
            if pause >= left || self.breaker.state() != State::Closed {
                break;
            }
            sleep(pause).await;
            self.metrics.retries.increment(party.operations().into());
            let late = |_| Err(Refusal::NoAnswer("sent again, and not answered in the time left".to_owned()));
            result = timeout(left - pause, attempt()).await.unwrap_or_else(late);
            if !is_worth_another(&result) {
                break;
            }
        }
        result
    }

    /// Sends one command that reads or that may be lost.
    pub async fn read(&self, name: &'static str, arguments: Vec<Value>) -> Result<Frame, Error> {
        let answer = self.command(name, Effect::Read, Party::Upkeep, arguments).await;
        answer.map_err(|refusal| self.error(refusal, Effect::Read))
    }

    /// Runs a script that stands under no fence, for the instance itself.
    pub async fn run_upkeep<T>(
        &self,
        script: &Script,
        effect: Effect,
        arguments: impl Fn() -> Vec<Value> + Send + Sync,
        read: impl FnOnce(Frame) -> Result<T, &'static str>,
    ) -> Result<T, Error> {
        let answer = self.run(script, effect, Party::Upkeep, arguments).await;
        let frame = answer.map_err(|refusal| self.error(refusal, effect))?;
        read(frame).map_err(|expected| self.unexpected(expected))
    }

    /// The shard answered something else than what `expected` says.
    pub fn unexpected(&self, expected: &str) -> Error {
        Error::Protocol { shard: self.name.clone(), reason: format!("{expected} was expected") }
    }

    async fn command(
        &self,
        name: &'static str,
        effect: Effect,
        party: Party,
        arguments: Vec<Value>,
    ) -> Result<Frame, Refusal> {
        let operations = party.operations();
        let refused = |refusal: Refusal| {
            self.metrics.refused.increment(operations.into());
            refusal
        };
        let _place = match party {
            Party::Alone => Some(self.in_flight.enter().ok_or_else(|| refused(Refusal::Overloaded))?),
            Party::Gathered(_) | Party::Upkeep => None,
        };
        let admission = self.breaker.admit(operations).ok_or_else(|| refused(Refusal::GivenUp))?;
        let Some(lane) = self.lane() else {
            self.failed(&admission, Failure::NotConnected);
            return Err(refused(Refusal::NotConnected("not connected".to_owned())));
        };
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let answer = lane.client.custom_raw(command, arguments).await;
        match answer {
            Err(error) if *error.kind() == ErrorKind::Timeout => {
                lane.doubt();
                self.metrics.silent.increment(operations.into());
                self.failed(&admission, Failure::Silent);
                Err(Refusal::NoAnswer(error.to_string()))
            }
            Err(error) => {
                lane.doubt();
                self.failed(&admission, Failure::NotConnected);
                let reason = error.to_string();
                // Nothing of a read that broke off matters; a write may have been carried out.
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
                    && lane.replace()
                {
                    tracing::warn!(shard = %self.name, reason, "a connection leads to a server that takes no writes and is replaced");
                    self.metrics.primary_changes.increment(1);
                }
                Err(refusal)
            }
        }
    }

    /// Tells the breaker, and sees that an open one is opened again for probes.
    fn failed(&self, admission: &Admission<'_>, failure: Failure) {
        let Some(left) = admission.failed(failure, Moment::now()) else { return };
        self.metrics.breaker_openings.increment(1);
        if left == State::Closed {
            let reason = self.trouble.last().unwrap_or_else(|| "its answers stay away".to_owned());
            tracing::warn!(shard = %self.name, reason, "the shard does not answer and is not asked for now");
        }
        // One that was not used lately knows no better.
        self.lanes.iter().for_each(Lane::doubt);
        tokio::spawn(probe(self.breaker.clone(), self.lanes.clone()));
    }

    /// The next usable lane in turn, one that answers before one that may not; on a worker its own first.
    fn lane(&self) -> Option<&Arc<Lane>> {
        let count = self.lanes.len();
        let start = match workers::current() {
            0 => self.next.fetch_add(1, Relaxed),
            worker if count == self.workers => worker - 1,
            worker => worker - 1 + self.next.fetch_add(1, Relaxed) * self.workers,
        };
        let in_turn = || (0..count).map(|i| &self.lanes[(start + i) % count]);
        in_turn().find(|lane| lane.is_sure()).or_else(|| in_turn().find(|lane| lane.is_usable()))
    }

    /// Whether a command has a connection to go over.
    pub fn is_connected(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_usable())
    }

    /// Whether a server is there, be it one that takes no commands of ours at present.
    pub fn has_server(&self) -> bool {
        self.lanes.iter().any(|lane| lane.client.is_connected())
    }

    /// Brings the gauges up to now.
    pub fn refresh_gauges(&self) {
        self.metrics.in_flight.set(self.in_flight.count() as f64);
        let memory = self.watch.memory();
        self.metrics.memory_used.set(memory.used_bytes as f64);
        self.metrics.memory_limit.set(memory.limit_bytes as f64);
        let is_degraded = self.watch.findings().iter().any(Finding::degrades);
        self.metrics.degraded.set(f64::from(u8::from(is_degraded)));
        let state = self.breaker.state();
        self.metrics.up.set(f64::from(u8::from(state == State::Closed && self.is_connected())));
        self.metrics.breaker_open.set(match state {
            State::Closed => 0.0,
            State::HalfOpen => 0.5,
            State::Open => 1.0,
        });
    }

    /// A place for one operation that is gathered with others.
    pub fn enter(&self) -> Result<Place, Error> {
        self.in_flight.enter().ok_or_else(|| {
            self.metrics.refused.increment(1);
            self.overloaded()
        })
    }

    /// A write found no memory, and nothing may go for it.
    pub fn refused_for_memory(&self) -> Error {
        self.metrics.out_of_memory.increment(1);
        self.watch.note("OOM");
        self.error(Refusal::Full, Effect::Write)
    }

    pub fn overloaded(&self) -> Error {
        self.error(Refusal::Overloaded, Effect::Read)
    }

    /// An operation of which nobody will hear any more.
    pub fn abandoned(&self, effect: Effect) -> Error {
        self.error(Refusal::NoAnswer("it was abandoned".to_owned()), effect)
    }

    /// Whether several operations may go as one script.
    pub fn may_gather(&self) -> bool {
        self.breaker.state() == State::Closed
    }

    pub fn error(&self, refusal: Refusal, effect: Effect) -> Error {
        if let Refusal::NotExecuted(reply) | Refusal::NotPrimary(reply) | Refusal::Strange(reply) = &refusal {
            self.watch.note(reply);
        }
        let shard = self.name.clone();
        match refusal {
            Refusal::Overloaded => Error::Overloaded { shard },
            Refusal::GivenUp => Error::Unavailable { shard, reason: "it did not answer lately".to_owned() },
            Refusal::NotConnected(reason) | Refusal::NotExecuted(reason) | Refusal::NotPrimary(reason) => {
                Error::Unavailable { shard, reason }
            }
            Refusal::Fenced => Error::Unavailable { shard, reason: "its record changed".to_owned() },
            Refusal::NoAnswer(_) if effect == Effect::Read => Error::Timeout { shard },
            Refusal::NoAnswer(reason) => Error::OutcomeUnknown { shard, reason },
            Refusal::Full => Error::Full { shard },
            Refusal::NoScript => Error::Protocol { shard, reason: "NOSCRIPT for EVAL".to_owned() },
            Refusal::Strange(reason) => Error::Protocol { shard, reason },
        }
    }
}

/// Opens the way to the shard again as soon as one of its connections answers.
async fn probe(breaker: Arc<Breaker>, lanes: Vec<Arc<Lane>>) {
    // The connections ask for themselves, see `lane`; here it is only noticed.
    while !lanes.iter().any(|lane| lane.is_sure()) {
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
    /// Not sent, or a read that broke off.
    NotConnected(String),
    /// The shard answered that it does not carry out commands at present.
    NotExecuted(String),
    /// The connection leads to a replica, or to a server that is not ready: nothing was executed.
    NotPrimary(String),
    /// The shard has another record than the script's token names: nothing was executed.
    Fenced,
    NoAnswer(String),
    Full,
    NoScript,
    Strange(String),
}

/// Whether a read may be answered over another connection.
fn is_worth_another(result: &Result<Frame, Refusal>) -> bool {
    matches!(result, Err(Refusal::NotConnected(_) | Refusal::NotPrimary(_)))
}

/// Reads an error reply. Redis opens each with a code in capitals.
fn refused_by(reply: &str) -> Refusal {
    match Kind::of(reply) {
        Some(Kind::OutOfMemory) => Refusal::Full,
        Some(Kind::Replica | Kind::Loading | Kind::MasterDown) => Refusal::NotPrimary(reply.to_owned()),
        // A right that a script lacks half way is no reason to say that nothing was executed.
        Some(Kind::NoPermission) if !reply.starts_with("NOPERM") => Refusal::Strange(reply.to_owned()),
        // Not executed: without its disk, its replicas or rights, or busy.
        Some(_) => Refusal::NotExecuted(reply.to_owned()),
        None if reply.starts_with("NOSCRIPT") => Refusal::NoScript,
        None if reply.starts_with("FENCED") => Refusal::Fenced,
        None => Refusal::Strange(reply.to_owned()),
    }
}

/// A client that connects in the background, now or when its server comes up; `capacity` messages and
/// events may wait for who listens.
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
            // CLIENT is among the dangerous commands of Redis 6.2, which a user may lack.
            connection.auto_client_setname = false;
            connection.reconnect_on_auth_error = true;
        })
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2))
        .build()?;
    // Runs until the process ends; an outage is seen in the client's state.
    drop(client.connect());
    Ok(client)
}
