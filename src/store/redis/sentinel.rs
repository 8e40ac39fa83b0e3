//! Watches which server the Sentinels call the primary of a shard.
//!
//! A connection leads to the primary of the moment at which it was made. A primary that stood still
//! or was cut off while another took over does not know of it when it comes back: until a Sentinel
//! has told it, some ten seconds, it takes writes that will be lost and answers reads with what was.
//! So the Sentinels are asked several times within the staleness bound, and connections to any other
//! server than they name are replaced. A connection that was silent is not used again before they
//! confirmed it (see `lane`): between two questions it may have outlived a failover.
//!
//! Of several answers that with the highest configuration epoch counts, which Sentinels raise with
//! every failover
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#configuration-epochs>), and
//! one from an epoch before the last that was heard of counts for nothing.
//! While none answers, everything stays as it is: a shard must not go down with its Sentinels.

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

/// Questions within one staleness bound.
const QUESTIONS_PER_BOUND: u32 = 4;

/// Bounds of the time between two questions: not a load for the Sentinels, and not out of touch.
const PERIOD_MIN: Duration = Duration::from_millis(50);
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// How long one Sentinel is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a reconnection that was asked for is waited for.
const RECONNECT: Duration = Duration::from_secs(2);

/// The Sentinels of one shard.
pub struct Sentinels {
    clients: Vec<Client>,
    service_name: String,
    /// The highest that was heard of.
    epoch: AtomicU64,
}

/// What a Sentinel says.
pub struct Primary {
    host: String,
    port: u16,
    epoch: u64,
}

impl Sentinels {
    /// `None` for a shard that has none.
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

    /// Whom they call the primary now; `None` while none of them answers that knows the last failover.
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
        // The epoch first: an address from after it is at most newer. `MASTER` has an address as well, but
        // that of the old primary until a failover has come to its very end.
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
    /// Whether `client` went to another server.
    pub fn is_missed_by(&self, client: &Client) -> bool {
        let is_another = |server: &Server| server.port != self.port || *server.host != *self.host;
        // As of its last connection; the library's list of active ones lags behind.
        client.sentinel_primary().as_ref().is_some_and(is_another)
    }
}

/// Watches over `shard` until `shutdown`.
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

/// Replaces the connections that lead elsewhere.
fn leave_others(shard: &Shard, primary: &Primary) {
    for lane in &shard.lanes {
        if primary.is_missed_by(&lane.client) && lane.replace() {
            shard.metrics.primary_changes.increment(1);
        }
    }
    // One that is connecting asks them by itself.
    let subscriber = &shard.subscriber;
    if primary.is_missed_by(subscriber) && subscriber.is_connected() {
        let Primary { host, port, .. } = primary;
        tracing::warn!(shard = %shard.name, host, port, "the Sentinels name another primary");
        shard.metrics.primary_changes.increment(1);
        let subscriber = subscriber.clone();
        // An error shows itself at the next question.
        tokio::spawn(async move { timeout(RECONNECT, subscriber.force_reconnection()).await });
    }
}
