//! The fleet: all instances on these shards, whether they agree about the ring, and the shards' figures.
//!
//! Each instance sends a heartbeat (a *beat*) to every shard once a second, with one script whose cost hardly depends
//! on the number of instances. The answer says how many living instances use each ring; health and metrics need no
//! more. Details about the instances are read from the shards only on request. An instance that stops removes itself;
//! an instance that crashes is counted until its last beat is [`LIVING`] old.

mod agreement;
mod instance;
mod shared_result;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use rustix::system::uname;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use agreement::Agreement;
pub use instance::{Instance, L1Figures, LoadFigures};
pub use shared_result::SharedResult;

use crate::clock::{Moment, unix_millis};
use crate::coherence::Coherence;
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::model::UnixMillis;
use crate::namespaces::Registry;
use crate::store::{LivingInstance, RingCount, ShardIndex, SharedStore, Survey};
use crate::trends::Trends;

/// The pause between two beats on a shard, and the pause after a failed beat.
const BEAT: Duration = Duration::from_secs(1);
const BEAT_AGAIN: Duration = Duration::from_millis(250);

/// The age up to which a beat counts. A late beat does not make an instance disappear, and a crashed instance has
/// disappeared everywhere after 5 s.
const LIVING: Duration = Duration::from_secs(3);

/// For how long the last answer of a shard is used when no newer one comes.
const BELIEVED: Duration = Duration::from_secs(2);

/// For how long a view of the fleet is shared by all requests for it, so that the load on the shards does not grow
/// with the number of requests.
pub const FRESH: Duration = Duration::from_millis(500);

/// The sources of the view.
pub struct Sources {
    pub store: SharedStore,
    /// The address of each shard for display, by its name.
    pub addresses: BTreeMap<String, String>,
    pub l1: Arc<L1>,
    /// `None` if L1 is not used.
    pub coherence: Option<Arc<Coherence>>,
    pub registry: Arc<Registry>,
    pub trends: Arc<Trends>,
    pub metrics: Arc<Metrics>,
}

/// This instance as a member of the fleet.
pub struct Fleet {
    id: String,
    /// The address at which others reach it.
    address: String,
    started_at: UnixMillis,
    sources: Sources,
    heard: Mutex<Beats>,
    view: SharedResult<Cluster>,
}

#[derive(Default)]
struct Beats {
    /// For each shard the last answer to a beat, and when that beat was sent.
    by_shard: Vec<Option<(Moment, Vec<RingCount>)>>,
    /// Whether the instances agreed when this was last logged.
    is_agreed: bool,
}

/// A shard as this instance sees it.
#[derive(Clone, Debug)]
pub struct ShardView {
    pub survey: Survey,
    /// Its URL without credentials; `None` for the embedded store.
    pub address: Option<String>,
    /// The fraction of all keys that it owns.
    pub ring_share: f64,
    /// Age of the last proof that the shard's invalidations were applied to L1; `None` before the first proof, and if
    /// L1 is not used.
    pub watermark_age: Option<Duration>,
}

/// The whole cluster.
pub struct Cluster {
    pub ring_version: String,
    pub agreement: Agreement,
    /// Sorted by address and id.
    pub instances: Vec<Instance>,
    /// Sorted by name.
    pub shards: Vec<ShardView>,
}

impl Fleet {
    pub fn new(id: &str, address: String, sources: Sources) -> Self {
        let by_shard = vec![None; sources.store.shard_names().len()];
        let heard = Mutex::new(Beats { by_shard, is_agreed: true });
        Self { id: id.to_owned(), address, started_at: unix_millis(), sources, heard, view: SharedResult::new(FRESH) }
    }

    /// Sends beats to every shard until `shutdown`, then removes this instance.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        if !self.sources.store.is_remote() {
            return;
        }
        let shards = self.sources.store.shard_names().iter();
        // One loop for each shard: a slow shard must not make this instance late on the others.
        join_all((0..).zip(shards).map(|(shard, _)| self.live_on(shard, &shutdown))).await;
    }

    async fn live_on(&self, shard: ShardIndex, shutdown: &CancellationToken) {
        let store = &self.sources.store;
        while !shutdown.is_cancelled() {
            // A beat is never cancelled: if it ran on the shard after the removal, it would undo the removal.
            let asked_at = Moment::now();
            let beaten = store.beat(shard, &self.id, &self.here().to_text(), LIVING).await;
            let pause = if beaten.is_ok() { BEAT } else { BEAT_AGAIN };
            match beaten {
                Ok(rings) => self.hear(shard, asked_at, rings),
                Err(error) => tracing::debug!(%error, "cannot write a beat: other instances may not see this one"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
        if let Err(error) = store.leave(shard, &self.id).await {
            tracing::debug!(%error, "cannot remove this instance: others will see it for a few more seconds");
        }
    }

    fn hear(&self, shard: ShardIndex, asked_at: Moment, rings: Vec<RingCount>) {
        let mut heard = self.heard.lock();
        heard.by_shard[usize::from(shard)] = Some((asked_at, rings));
        let agreement = self.agreement_by(&heard, Moment::now());
        let was_agreed = std::mem::replace(&mut heard.is_agreed, agreement.is_agreed());
        drop(heard);
        let ring = self.ring_version();
        match (was_agreed, agreement.is_agreed()) {
            (true, false) => {
                tracing::warn!(%ring, others = %agreement.others(), "instances disagree about the ring");
            }
            (false, true) => tracing::info!(%ring, "instances agree about the ring again"),
            _ => {}
        }
    }

    pub fn ring_version(&self) -> &str {
        self.sources.store.ring_version()
    }

    /// Whether the living instances agree about the ring, according to the last beats.
    pub fn agreement(&self) -> Agreement {
        self.agreement_by(&self.heard.lock(), Moment::now())
    }

    fn agreement_by(&self, heard: &Beats, now: Moment) -> Agreement {
        let believed = heard.by_shard.iter().flatten().filter(|(asked_at, _)| now.since(*asked_at) <= BELIEVED);
        Agreement::among(self.ring_version(), believed.map(|(_, rings)| rings.as_slice()))
    }

    /// The staleness bound; `None` if L1 is not used.
    pub fn max_staleness(&self) -> Option<Duration> {
        self.sources.coherence.as_ref().map(|coherence| coherence.max_staleness())
    }

    /// The address of a shard, for display.
    pub fn shard_address(&self, name: &str) -> Option<&str> {
        self.sources.addresses.get(name).map(String::as_str)
    }

    /// Instances and shards; the answer may be [`FRESH`] old.
    pub async fn cluster(&self) -> Arc<Cluster> {
        self.view.get(|| self.look()).await
    }

    /// Asks for instances and shards now.
    async fn look(&self) -> Cluster {
        let Sources { store, registry, coherence, .. } = &self.sources;
        let namespaces = registry.is_loaded().then(|| registry.names());
        let (instances, surveys) = tokio::join!(self.instances(), store.survey(namespaces.as_deref()));
        let now = Moment::now();
        let shares = store.shares();
        let mut shards: Vec<ShardView> = (0..)
            .zip(surveys.into_iter().zip(shares))
            .map(|(index, (survey, ring_share))| ShardView {
                address: self.shard_address(&survey.health.name).map(str::to_owned),
                survey,
                ring_share,
                watermark_age: coherence.as_ref().and_then(|coherence| coherence.watermark_age(index, now)),
            })
            .collect();
        shards.sort_by(|one, other| one.survey.health.name.cmp(&other.survey.health.name));
        let agreement = Agreement::of(self.ring_version(), &instances);
        Cluster { ring_version: self.ring_version().to_owned(), agreement, instances, shards }
    }

    /// Every living instance that an answering shard knows, and always this one.
    async fn instances(&self) -> Vec<Instance> {
        let mut latest = BTreeMap::new();
        for neighbour in self.sources.store.neighbours(LIVING).await.into_iter().filter_map(Result::ok).flatten() {
            if latest.get(&neighbour.id).is_none_or(|known: &LivingInstance| known.age > neighbour.age) {
                latest.insert(neighbour.id.clone(), neighbour);
            }
        }
        latest.remove(&self.id);
        let mut instances: Vec<Instance> = latest.into_values().filter_map(Instance::of).collect();
        instances.push(self.here());
        instances.sort_by(|one, other| (&one.address, &one.id).cmp(&(&other.address, &other.id)));
        instances
    }

    /// This instance.
    fn here(&self) -> Instance {
        let Sources { l1, coherence, trends, metrics, .. } = &self.sources;
        let load = trends.load();
        let micros = |latency: Option<Duration>| latency.map(|latency| latency.as_micros() as u64);
        Instance {
            id: self.id.clone(),
            address: self.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            ring_version: self.ring_version().to_owned(),
            l1: L1Figures {
                entries: l1.entries(),
                bytes: l1.used_bytes(),
                max_bytes: if coherence.is_some() { l1.max_bytes() } else { 0 },
                hits: metrics.l1_hits.value(),
            },
            load: LoadFigures {
                operations_per_second: load.operations_per_second,
                p50_us: micros(load.p50),
                p99_us: micros(load.p99),
            },
            last_seen: Duration::ZERO,
            is_here: true,
        }
    }
}

/// The address to tell others: the configured one, otherwise the listen address. If that is `0.0.0.0` or `[::]`, it
/// is replaced by the machine's name.
pub fn advertised(configured: Option<&str>, listening: SocketAddr) -> String {
    match configured {
        Some(address) => address.to_owned(),
        None if listening.ip().is_unspecified() => of_host(uname().nodename().to_string_lossy().as_ref(), listening),
        None => listening.to_string(),
    }
}

fn of_host(name: &str, listening: SocketAddr) -> String {
    if name.is_empty() { listening.to_string() } else { format!("{name}:{}", listening.port()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn what_was_configured_goes_first() {
        assert_eq!(advertised(Some("cache-1:80"), listening("0.0.0.0:8080")), "cache-1:80");
        assert_eq!(advertised(None, listening("10.0.0.1:8080")), "10.0.0.1:8080");
    }

    #[test]
    fn every_address_is_told_by_the_machines_name() {
        assert_eq!(of_host("cache-1", listening("[::]:8080")), "cache-1:8080");
        assert_eq!(of_host("", listening("[::]:8080")), "[::]:8080");
        for address in ["0.0.0.0:8080", "[::]:8080"] {
            assert!(advertised(None, listening(address)).ends_with(":8080"));
        }
    }
}
