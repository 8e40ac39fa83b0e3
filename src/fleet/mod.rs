//! The fleet: every instance on these shards, whether they agree about the ring, and the shards' figures.
//!
//! Each instance beats once a second on every shard, in one script that costs about the same however many
//! there are, and hears from it how many live with which ring. That is all that health and metrics need.
//! Who they are is read from the shards when somebody asks for it. An instance that ends takes itself
//! back; one that dies counts until its last beat is [`LIVING`] old.

mod address;
mod agreement;
mod fresh;
mod instance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use address::advertised;
pub use agreement::Agreement;
pub use fresh::Fresh;
pub use instance::{Instance, L1Figures, LoadFigures};

use self::instance::Line;
use crate::clock::{Moment, unix_millis};
use crate::coherence::Coherence;
use crate::l1::L1;
use crate::metrics::Metrics;
use crate::model::UnixMillis;
use crate::namespaces::Registry;
use crate::store::{Neighbour, RingCount, ShardIndex, SharedStore, Survey};
use crate::trends::Trends;

/// How often an instance beats on a shard, and how soon again where it could not.
const BEAT: Duration = Duration::from_secs(1);
const BEAT_AGAIN: Duration = Duration::from_millis(250);

/// How old a beat may be: one that is late does not make an instance disappear, and one that died has
/// disappeared from every view within 5 s.
const LIVING: Duration = Duration::from_secs(3);

/// For how long what a shard said of the others is believed while it says nothing more.
const BELIEVED: Duration = Duration::from_secs(2);

/// For how long a view of the fleet is shared by all who ask for one: what it asks of the shards does not grow with
/// the number of questions.
pub const FRESH: Duration = Duration::from_millis(500);

/// What the view is made from.
pub struct Sources {
    pub store: SharedStore,
    /// Where each shard is, by its name, as it may be shown.
    pub addresses: BTreeMap<String, String>,
    pub l1: Arc<L1>,
    /// Absent where L1 is not used.
    pub coherence: Option<Arc<Coherence>>,
    pub registry: Arc<Registry>,
    pub trends: Arc<Trends>,
    pub metrics: Arc<Metrics>,
}

/// This instance among the others.
pub struct Fleet {
    id: String,
    /// Where others reach it.
    address: String,
    started_at: UnixMillis,
    sources: Sources,
    heard: Mutex<Heard>,
    view: Fresh<Cluster>,
}

#[derive(Default)]
struct Heard {
    /// The last answer to a beat, by shard, and when it was asked for.
    by_shard: Vec<Option<(Moment, Vec<RingCount>)>>,
    /// As the log has it.
    is_agreed: bool,
}

/// A shard as this instance sees it.
#[derive(Clone, Debug)]
pub struct ShardView {
    pub survey: Survey,
    /// Its URL without credentials; `None` for the embedded store.
    pub address: Option<String>,
    /// The part of all keys that it owns.
    pub ring_share: f64,
    /// How old the proof is that L1 knows of its writes; `None` without any.
    pub watermark_age: Option<Duration>,
}

/// Everything at once.
pub struct Cluster {
    pub ring_version: String,
    pub agreement: Agreement,
    /// By address and id.
    pub instances: Vec<Instance>,
    /// By name.
    pub shards: Vec<ShardView>,
}

impl Fleet {
    pub fn new(id: &str, address: String, sources: Sources) -> Self {
        let by_shard = vec![None; sources.store.shard_names().len()];
        let heard = Mutex::new(Heard { by_shard, is_agreed: true });
        Self { id: id.to_owned(), address, started_at: unix_millis(), sources, heard, view: Fresh::new(FRESH) }
    }

    /// Beats on every shard until `shutdown`, then takes this instance back.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        if !self.sources.store.is_remote() {
            return;
        }
        let shards = self.sources.store.shard_names().iter();
        // Each for itself: a shard that is slow to answer must not make this instance late on the others.
        join_all((0..).zip(shards).map(|(shard, _)| self.live_on(shard, &shutdown))).await;
    }

    async fn live_on(&self, shard: ShardIndex, shutdown: &CancellationToken) {
        let store = &self.sources.store;
        while !shutdown.is_cancelled() {
            // Never cut off: a beat that is carried out behind the leave would undo it.
            let asked_at = Moment::now();
            let beaten = store.beat(shard, &self.id, &self.line().to_text(), LIVING).await;
            let pause = if beaten.is_ok() { BEAT } else { BEAT_AGAIN };
            match beaten {
                Ok(rings) => self.hear(shard, asked_at, rings),
                Err(error) => tracing::debug!(%error, "not seen by others"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
        if let Err(error) = store.leave(shard, &self.id).await {
            tracing::debug!(%error, "others see this instance for a few seconds more");
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

    /// Whether the instances that live agree about the ring, as the last beats heard.
    pub fn agreement(&self) -> Agreement {
        self.agreement_by(&self.heard.lock(), Moment::now())
    }

    fn agreement_by(&self, heard: &Heard, now: Moment) -> Agreement {
        let believed = heard.by_shard.iter().flatten().filter(|(asked_at, _)| now.since(*asked_at) <= BELIEVED);
        Agreement::among(self.ring_version(), believed.map(|(_, rings)| rings.as_slice()))
    }

    /// How old the proof of a shard's writes may be; `None` where L1 is not used.
    pub fn max_staleness(&self) -> Option<Duration> {
        self.sources.coherence.as_ref().map(|coherence| coherence.max_staleness())
    }

    /// The address of a shard as it may be shown.
    pub fn shard_address(&self, name: &str) -> Option<&str> {
        self.sources.addresses.get(name).map(String::as_str)
    }

    /// Instances and shards, asked at most [`FRESH`] ago.
    pub async fn cluster(&self) -> Arc<Cluster> {
        self.view.get(|| self.look()).await
    }

    /// Instances and shards, asked now.
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

    /// Every instance that lives, as far as the shards that answer know; this one in any case.
    async fn instances(&self) -> Vec<Instance> {
        let mut latest = BTreeMap::new();
        for neighbour in self.sources.store.neighbours(LIVING).await.into_iter().filter_map(Result::ok).flatten() {
            if latest.get(&neighbour.id).is_none_or(|known: &Neighbour| known.age > neighbour.age) {
                latest.insert(neighbour.id.clone(), neighbour);
            }
        }
        latest.remove(&self.id);
        let mut instances: Vec<Instance> = latest.into_values().filter_map(Instance::of).collect();
        instances.push(Instance::here(self.id.clone(), self.line()));
        instances.sort_by(|one, other| (&one.address, &one.id).cmp(&(&other.address, &other.id)));
        instances
    }

    /// What this instance says of itself.
    fn line(&self) -> Line {
        let Sources { l1, coherence, trends, metrics, .. } = &self.sources;
        let load = trends.load();
        let micros = |latency: Option<Duration>| latency.map(|latency| latency.as_micros() as u64);
        Line {
            address: self.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: self.started_at.0,
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
        }
    }
}
