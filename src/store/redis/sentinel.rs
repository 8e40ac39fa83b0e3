//! Watches which server is the primary of a shard according to its Sentinels.
//!
//! A connection leads to the server that was the primary when the connection was made. A primary that was suspended
//! or cut off while another one took over does not know that when it returns. Until a Sentinel tells it, after about
//! ten seconds, it accepts writes that will be lost, and answers reads with old values. So the Sentinels are asked
//! several times within the staleness bound, and connections to any other server than the one they report are
//! replaced. A connection that was silent is not used again before the Sentinels confirm it (see `lane`): a failover
//! may have happened since the last question.
//!
//! If the Sentinels give different answers, the one with the highest configuration epoch counts, because Sentinels
//! raise the epoch with every failover
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#configuration-epochs>). An answer with
//! an epoch lower than the highest known one is ignored. If no Sentinel answers, nothing changes: a shard must not
//! fail together with its Sentinels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, ServerInterface as _};
use fred::types::config::{Config, Server, ServerConfig};
use fred::types::{ClusterHash, CustomCommand};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::reply;
use super::shard::{EVENTS, Shard, connect};
use crate::config::{RedisConfig, ShardConfig};

/// How often the Sentinels are asked within one staleness bound.
const QUESTIONS_PER_BOUND: u32 = 4;

/// Limits of the time between two questions: not too often for the Sentinels, and not too late for us.
const PERIOD_MIN: Duration = Duration::from_millis(50);
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// How long to wait for one Sentinel.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long to wait for a requested reconnection.
const RECONNECT: Duration = Duration::from_secs(2);

/// The Sentinels of one shard.
pub struct Sentinels {
    clients: Vec<Client>,
    service_name: String,
    /// The highest configuration epoch known so far.
    epoch: AtomicU64,
}

/// The primary that a Sentinel reports.
pub struct Primary {
    host: String,
    port: u16,
    epoch: u64,
}

impl Sentinels {
    /// Connects to the Sentinels of a shard; `None` for a shard without Sentinels.
    ///
    /// # Errors
    /// A configuration that the client library refuses.
    pub fn of(config: &ShardConfig, common: &RedisConfig) -> Result<Option<Arc<Self>>, fred::error::Error> {
        let ServerConfig::Sentinel { hosts, service_name, username, password } = &config.endpoint.server else {
            return Ok(None);
        };
        let clients = hosts.iter().map(|host| {
            let endpoint = Config {
                server: ServerConfig::Centralized { server: host.clone() },
                username: username.clone(),
                password: password.clone(),
                tls: config.endpoint.tls.clone(),
                fail_fast: false,
                ..Config::default()
            };
            connect(endpoint, common, EVENTS)
        });
        let clients = clients.collect::<Result<_, _>>()?;
        Ok(Some(Arc::new(Self { clients, service_name: service_name.clone(), epoch: AtomicU64::new(0) })))
    }

    /// The present primary; `None` if no Sentinel answers that knows about the last failover.
    pub async fn primary(&self) -> Option<Primary> {
        let asked = self.clients.iter().map(|sentinel| timeout(PATIENCE, self.ask(sentinel)));
        let named = join_all(asked).await.into_iter().filter_map(|answer| answer.ok().flatten());
        let primary = named.max_by_key(|primary| primary.epoch)?;
        let last = self.epoch.fetch_max(primary.epoch, Relaxed);
        (primary.epoch >= last).then_some(primary)
    }

    async fn ask(&self, sentinel: &Client) -> Option<Primary> {
        if !sentinel.is_connected() {
            return None;
        }
        // Ask for the epoch first, so that the address cannot be older than the epoch. `MASTER` returns an address as
        // well, but that of the old primary until a failover has completely ended.
        let master = self.sentinel(sentinel, "MASTER").await?;
        let field = |name: &str| master.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
        let epoch = field("config-epoch")?.parse().ok()?;
        let [host, port] = self.sentinel(sentinel, "GET-MASTER-ADDR-BY-NAME").await?.try_into().ok()?;
        Some(Primary { host, port: port.parse().ok()?, epoch })
    }

    async fn sentinel(&self, sentinel: &Client, verb: &'static str) -> Option<Vec<String>> {
        let command = CustomCommand::new_static("SENTINEL", ClusterHash::FirstKey, false);
        let answer = sentinel.custom_raw(command, vec![verb, self.service_name.as_str()]).await.ok()?;
        reply::texts(answer).ok()
    }
}

impl Primary {
    /// Whether `client` is connected to another server.
    pub fn is_missed_by(&self, client: &Client) -> bool {
        let is_another = |server: &Server| server.port != self.port || *server.host != *self.host;
        // The server of its last connection. The library's list of active connections is updated too late.
        client.sentinel_primary().as_ref().is_some_and(is_another)
    }
}

/// Watches `shard` until `shutdown`.
pub async fn watch(
    shard: Arc<Shard>,
    sentinels: Arc<Sentinels>,
    max_staleness: Duration,
    shutdown: CancellationToken,
) {
    let mut ticks = interval((max_staleness / QUESTIONS_PER_BOUND).clamp(PERIOD_MIN, PERIOD_MAX));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = async {
        loop {
            ticks.tick().await;
            if let Some(primary) = sentinels.primary().await {
                leave_others(&shard, &primary);
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watching => {}
    }
}

/// Replaces the connections that lead to another server than the primary.
fn leave_others(shard: &Shard, primary: &Primary) {
    for lane in &shard.lanes {
        if primary.is_missed_by(&lane.client) && lane.replace() {
            shard.metrics.primary_changes.increment(1);
        }
    }
    // A subscriber that is connecting asks the Sentinels itself.
    let subscriber = &shard.subscriber;
    if primary.is_missed_by(subscriber) && subscriber.is_connected() {
        let Primary { host, port, .. } = primary;
        tracing::warn!(shard = %shard.name, host, port, "the Sentinels report another primary");
        shard.metrics.primary_changes.increment(1);
        let subscriber = subscriber.clone();
        // If this fails, the next question shows it.
        tokio::spawn(async move { timeout(RECONNECT, subscriber.force_reconnection()).await });
    }
}
