//! What pages show of the whole fleet, gathered at most once in [`crate::fleet::FRESH`] however many pages ask.
//!
//! Every source has a deadline of its own: a page comes without what did not answer, and says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Dashboard;
use super::condition::{Condition, Signs};
use crate::fleet::{Cluster, Instance, ShardView};
use crate::namespaces::Record;
use crate::store::{Finding, Role, Totals};
use crate::trends::Summary;

/// How long a page waits for a source; shards have a deadline of their own that is usually shorter.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// The fleet at a moment.
pub struct Facts {
    pub condition: Condition,
    pub shards: Vec<Shard>,
    /// `None` where nobody told in time.
    pub instances: Option<Vec<Instance>>,
    /// How old the proof of a shard's writes may be; `None` where nothing needs one.
    pub max_staleness: Option<Duration>,
}

/// The namespaces by name; `None` while the policies were never read.
pub struct Rows(pub Option<Vec<Row>>);

impl Rows {
    pub fn known(&self) -> &[Row] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A shard; numbers are `None` where it did not tell.
pub struct Shard {
    pub name: String,
    /// Its URL without credentials; `None` for the embedded store.
    pub address: Option<String>,
    /// `None` where it is not known.
    pub is_connected: Option<bool>,
    /// Whether it is there and cannot be used.
    pub is_refused: bool,
    pub role: Option<Role>,
    pub used_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub keys: Option<u64>,
    pub ring_share: Option<f64>,
    pub watermark_age: Option<Duration>,
}

/// A namespace with what is known of it.
pub struct Row {
    pub record: Record,
    pub lately: Option<Summary>,
}

impl Row {
    pub fn name(&self) -> &str {
        self.record.namespace.as_str()
    }

    /// As last read; of the shards that answer where that is all that is known.
    pub fn totals(&self) -> Option<Totals> {
        self.lately.as_ref().and_then(|lately| lately.totals.or(lately.partial_totals))
    }

    /// A number of the totals, with a mark where it is that of a part of the shards.
    pub fn marked(&self, shown: String) -> String {
        if self.is_partial() { format!("{shown} (partial)") } else { shown }
    }

    /// Whether the totals are those of a part of the shards.
    pub fn is_partial(&self) -> bool {
        self.lately.as_ref().is_some_and(|lately| lately.totals.is_none() && lately.partial_totals.is_some())
    }
}

impl Dashboard {
    /// The namespaces as they are now: who just wrote one wants to see it, and nobody has to be asked.
    pub fn rows(&self) -> Rows {
        let mut lately: std::collections::HashMap<String, Summary> =
            self.trends.namespaces().into_iter().map(|summary| (summary.name.clone(), summary)).collect();
        let row = |record: Record| {
            let lately = lately.remove(record.namespace.as_str());
            Row { record, lately }
        };
        Rows(self.app.cache.namespaces().ok().map(|records| records.into_iter().map(row).collect()))
    }

    /// Facts of a moment ago.
    pub async fn facts(&self) -> Arc<Facts> {
        self.latest.get(|| self.gather()).await
    }

    async fn gather(&self) -> Facts {
        let app = &self.app;
        let cluster = timeout(PATIENCE, app.fleet.cluster()).await.ok();
        let are_policies_loaded = app.cache.namespaces().is_ok();
        let findings: Vec<Finding> = cluster.iter().flat_map(|cluster| findings_of(cluster)).cloned().collect();
        let warnings = cluster.as_ref().map(|cluster| cluster.agreement.warnings()).unwrap_or_else(|| {
            let mut warnings = app.fleet.agreement().warnings();
            // One that stands still may have kept the others from being heard: none is called dead for it.
            warnings.push("Not all shards answered in time; which ones is not known yet.".to_owned());
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
        let condition = Condition::of(Signs {
            silent: &silent,
            refused,
            shards: shards.len(),
            is_database_connected: app.database.is_connected(),
            are_policies_loaded,
            warnings,
            findings: &findings,
        });
        Facts { condition, shards, instances, max_staleness: app.fleet.max_staleness() }
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
