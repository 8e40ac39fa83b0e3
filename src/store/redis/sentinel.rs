//! The Sentinels of a shard: which server they report as the primary.
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
use tokio::time::timeout;

use super::client::{EVENTS, connect};
use super::reply;
use crate::config::{RedisConfig, ShardConfig};

/// How long to wait for one Sentinel.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// The Sentinels of one shard.
pub struct Sentinels {
    clients: Vec<Client>,
    service_name: String,
    /// The highest configuration epoch known so far.
    epoch: AtomicU64,
}

/// The primary that a Sentinel reports.
pub struct Primary {
    pub host: String,
    pub port: u16,
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

    /// The present primary; `None` if there is no answer from a Sentinel that knows about the last failover.
    pub async fn primary(&self) -> Option<Primary> {
        let asked = self.clients.iter().map(|sentinel| timeout(ANSWER_TIMEOUT, self.ask(sentinel)));
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
        // well, but until a failover has completely ended, it is the address of the old primary.
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
