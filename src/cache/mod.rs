//! The cache operations (get, set, delete, mget, flush, ...). Every protocol calls them here.
//!
//! A read asks L1, then joins a read of the same key that is already running (a flight), then asks the store. A write
//! goes to the store and voids the copy in L1. This module does not depend on HTTP, SQL or Redis (`tests/tidy.rs`
//! checks this).

mod batch;
mod batch_lease;
mod error;
mod flight;
mod flush;
mod jitter;
mod lease;
mod list;
mod lookup;
mod mark;
mod namespace;
mod near;
mod observe;
mod orphans;
mod patch;
mod positions;
mod read;
mod refresh;
mod update;
mod won_lease;
mod write;

use std::sync::Arc;

pub use batch::{MdeleteAnswer, MgetAnswer, MsetAnswer};
pub use error::Error;
pub use flush::Flushed;
pub use lease::LeasedLookup;
pub use list::{Counted, Listing};
pub use lookup::{AnsweredBy, Fetched, L1SkipReason, Lookup};
pub use namespace::{LogQuery, Stats, StoredPolicy};
pub use near::Near;
pub use observe::{Reply, StatusOf};
pub use orphans::Orphans;
pub use read::Wanted;
pub use update::{Change, Lifetime, Put};
pub use won_lease::{Lease, WonLease};

pub(crate) use crate::model::RESERVED_KEY;

use crate::access_log::AccessLog;
use crate::audit::Audit;
use crate::coherence::WaitingRooms;
use crate::config::Limits;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::namespaces::{Registry, Repository};
use crate::stats::ReadCounters;
use crate::store::{ShardHealth, ShardIndex, SharedStore};

/// The cache, shared by every request of the process.
pub struct Cache {
    pub(crate) store: SharedStore,
    /// L1 and what keeps it consistent; `None` with the embedded store, which is in this process anyway.
    pub(crate) near: Option<Near>,
    /// The callers that wait for the value of a key that another caller loads.
    pub(crate) waiting: Arc<WaitingRooms>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) policies: Arc<Repository>,
    pub(crate) counters: Arc<ReadCounters>,
    pub(crate) access_log: AccessLog,
    pub(crate) audit: Audit,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    /// Maps an answer to its status and error code for the access log.
    pub(crate) status_of: StatusOf,
}

impl Cache {
    /// Writes the counts of reads that are only in memory to the store.
    pub async fn settle(&self) {
        self.counters.flush().await;
    }

    /// Whether the entries are stored in other processes (Redis).
    pub fn is_remote(&self) -> bool {
        self.store.is_remote()
    }

    pub fn shard_name(&self, shard: ShardIndex) -> &str {
        &self.store.shard_names()[usize::from(shard)]
    }

    /// The names of all shards.
    pub fn shard_names(&self) -> &[String] {
        self.store.shard_names()
    }

    /// Updates the gauges before the metrics are shown.
    pub fn refresh_gauges(&self) {
        self.store.refresh_gauges();
        self.metrics.tombstones_dropped.absolute(self.store.tombstones_dropped());
        self.access_log.refresh_gauges();
        self.audit.refresh_gauges();
        self.jobs.refresh_gauges();
        if let Some(near) = &self.near {
            near.refresh_gauges();
        }
    }

    /// Asks each shard for its health now.
    pub async fn health(&self) -> Vec<ShardHealth> {
        self.store.health().await
    }
}
