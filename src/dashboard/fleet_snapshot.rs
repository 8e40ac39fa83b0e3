//! The state of the whole fleet, as the pages show it. It is gathered at most once per [`crate::fleet::FRESH`],
//! however many pages need it.
//!
//! If the shards do not answer in time, the snapshot has no instances, and the state of the shards is unknown.

use std::time::Duration;

use tokio::time::timeout;

use super::condition::{Condition, Observations};
use crate::fleet::{Cluster, Instance, ShardView};
use crate::http::App;
use crate::namespaces::Record;
use crate::store::{Finding, Role, Totals};
use crate::trends::Summary;

/// How long a page waits for a source. The deadline of a shard operation is usually shorter.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// The state of the fleet at one moment.
pub struct FleetSnapshot {
    pub condition: Condition,
    pub shards: Vec<Shard>,
    /// `None` if the shards did not answer in time.
    pub instances: Option<Vec<Instance>>,
    /// The setting `max_staleness_ms`: how old a shard's watermark may be. `None` if L1 is not used.
    pub max_staleness: Option<Duration>,
}

/// The namespaces, sorted by name; `None` until the policies have been read once.
pub struct Namespaces(pub Option<Vec<NamespaceRow>>);

impl Namespaces {
    pub fn known(&self) -> &[NamespaceRow] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A shard. Numbers that it did not report are `None`.
pub struct Shard {
    pub name: String,
    /// Its URL without credentials; `None` for the embedded store.
    pub address: Option<String>,
    /// `None` if the shards did not answer in time.
    pub is_connected: Option<bool>,
    /// Whether the shard answers but cannot be used.
    pub is_refused: bool,
    pub role: Option<Role>,
    pub used_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub keys: Option<u64>,
    pub ring_share: Option<f64>,
    pub watermark_age: Option<Duration>,
}

/// A namespace with its recent numbers, if they are known.
pub struct NamespaceRow {
    pub record: Record,
    pub recent: Option<Summary>,
}

impl NamespaceRow {
    pub fn name(&self) -> &str {
        self.record.namespace.as_str()
    }

    /// The totals as last read. If some shards did not answer, the totals of the other shards.
    pub fn totals(&self) -> Option<Totals> {
        self.recent.as_ref().and_then(|recent| recent.totals.or(recent.partial_totals))
    }

    /// Adds `(partial)` to a number of the totals if they cover only a part of the shards.
    pub fn marked(&self, shown: String) -> String {
        if self.is_partial() { format!("{shown} (partial)") } else { shown }
    }

    /// Whether the totals cover only a part of the shards.
    pub fn is_partial(&self) -> bool {
        self.recent.as_ref().is_some_and(|recent| recent.totals.is_none() && recent.partial_totals.is_some())
    }
}

impl FleetSnapshot {
    pub async fn gather(app: &App) -> Self {
        let cluster = timeout(PATIENCE, app.fleet.cluster()).await.ok();
        let are_policies_loaded = app.cache.namespaces().is_ok();
        let findings: Vec<Finding> = cluster.iter().flat_map(|cluster| findings_of(cluster)).cloned().collect();
        let warnings = cluster.as_ref().map(|cluster| cluster.agreement.warnings()).unwrap_or_else(|| {
            let mut warnings = app.fleet.agreement().warnings();
            // One shard that hangs may have delayed the others' answers, so no shard is reported as down.
            warnings.push("Not all shards answered in time. It is not known yet which ones did not.".to_owned());
            warnings
        });
        let (shards, instances) = match cluster {
            Some(cluster) => {
                (cluster.shards.iter().cloned().map(Shard::from).collect(), Some(cluster.instances.clone()))
            }
            None => {
                let unknown = |name: &String| Shard::unknown(name, app.fleet.shard_address(name));
                (app.cache.shard_names().iter().map(unknown).collect(), None)
            }
        };
        let shards: Vec<Shard> = shards;
        let unusable = || shards.iter().filter(|shard| shard.is_connected == Some(false));
        let silent: Vec<_> = unusable().filter(|shard| !shard.is_refused).map(|shard| shard.name.clone()).collect();
        let refused = unusable().count() - silent.len();
        let condition = Condition::of(Observations {
            silent: &silent,
            refused,
            shards: shards.len(),
            is_database_connected: app.database.is_connected(),
            are_policies_loaded,
            warnings,
            findings: &findings,
        });
        Self { condition, shards, instances, max_staleness: app.fleet.max_staleness() }
    }
}

fn findings_of(cluster: &Cluster) -> impl Iterator<Item = &Finding> {
    cluster.shards.iter().flat_map(|shard| &shard.survey.health.findings)
}

impl Shard {
    fn unknown(name: &str, address: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            address: address.map(str::to_owned),
            is_connected: None,
            is_refused: false,
            role: None,
            used_bytes: None,
            limit_bytes: None,
            keys: None,
            ring_share: None,
            watermark_age: None,
        }
    }
}

impl From<ShardView> for Shard {
    fn from(view: ShardView) -> Self {
        let health = view.survey.health;
        Self {
            is_connected: Some(health.reachable),
            is_refused: health.is_refused(),
            role: view.survey.role,
            used_bytes: health.reachable.then_some(health.used_bytes),
            limit_bytes: health.reachable.then_some(health.limit_bytes),
            keys: view.survey.keys,
            ring_share: Some(view.ring_share),
            watermark_age: view.watermark_age,
            address: view.address,
            name: health.name,
        }
    }
}
