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
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#configuration-epochs>).
//! While none answers, everything stays as it is: a shard must not go down with its Sentinels.

use std::sync::Arc;
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

/// How long a reconnection that was asked for is waited for.
const RECONNECT: Duration = Duration::from_secs(2);

/// The Sentinels of one shard.
pub struct Sentinels {
    clients: Vec<Client>,
    service_name: String,
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
        Ok(Some(Arc::new(Self { clients, service_name: service_name.clone() })))
    }

    /// Whom they call the primary now; `None` while none of them answers.
    pub async fn primary(&self) -> Option<Primary> {
        let named = join_all(self.clients.iter().map(|sentinel| self.ask(sentinel))).await;
        named.into_iter().flatten().max_by_key(|primary| primary.epoch)
    }

    /// Bounded by the deadline of every command.
    async fn ask(&self, sentinel: &Client) -> Option<Primary> {
        if !sentinel.is_connected() {
            return None;
        }
        let command = CustomCommand::new_static("SENTINEL", ClusterHash::FirstKey, false);
        let arguments = vec!["MASTER".to_owned(), self.service_name.clone()];
        let answer = sentinel.custom_raw(command, arguments).await.ok()?;
        let answer = reply::texts(answer).ok()?;
        let field = |name: &str| answer.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
        Some(Primary {
            host: field("ip")?.to_owned(),
            port: field("port")?.parse().ok()?,
            epoch: field("config-epoch")?.parse().ok()?,
        })
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
                leave_others(&shard, &primary).await;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watching => {}
    }
}

/// Replaces the connections that lead elsewhere.
async fn leave_others(shard: &Shard, primary: &Primary) {
    for lane in &shard.lanes {
        if primary.is_missed_by(&lane.client) && lane.replace() {
            shard.metrics.primary_changes.increment(1);
        }
    }
    if primary.is_missed_by(&shard.subscriber) {
        let Primary { host, port, .. } = primary;
        tracing::warn!(shard = %shard.name, host, port, "the Sentinels name another primary");
        shard.metrics.primary_changes.increment(1);
        // An error shows itself at the next question.
        let _ = timeout(RECONNECT, shard.subscriber.force_reconnection()).await;
    }
}
