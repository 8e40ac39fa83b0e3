//! What the verbs mean: the one door for every protocol.
//!
//! A read goes L1, then flight (coalescing), then store; a write goes to the store and voids what
//! L1 has. Nothing here knows HTTP, SQL or Redis (`tests/tidy.rs` keeps it so).

mod batch;
mod error;
mod flight;
mod flush;
mod history;
mod list;
mod namespace;
mod near;
mod observe;
mod orphans;
mod read;
mod write;

use std::sync::Arc;

pub use batch::{Fetched, MdeleteAnswer, MgetAnswer, MsetAnswer};
pub use error::Error;
pub use flush::Flushed;
pub use history::LogQuery;
pub use list::{Counted, Listing};
pub use namespace::{Stats, StoredPolicy};
pub use near::Near;
pub use observe::{InWords, Told};
pub use orphans::Orphans;
pub use read::{Consistency, Lookup, Skipped, Trail};

use crate::access_log::AccessLog;
use crate::audit::Audit;
use crate::config::Limits;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::namespaces::{Registry, Repository};
use crate::stats::ReadCounters;
use crate::store::{ShardHealth, ShardIndex, SharedStore};

/// The one key that cannot be written: its path is that of the stats.
pub const RESERVED_KEY: &str = "stats";

/// The cache, shared by every request of the process.
pub struct Cache {
    pub(crate) store: SharedStore,
    /// L1 and what keeps it true; absent in front of a store that is as near itself.
    pub(crate) near: Option<Near>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) policies: Arc<dyn Repository>,
    pub(crate) counters: Arc<ReadCounters>,
    pub(crate) access_log: AccessLog,
    pub(crate) audit: Audit,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    /// What the access log says of an answer.
    pub(crate) in_words: InWords,
}

impl Cache {
    /// Writes what is only counted in memory, before the process ends.
    pub async fn settle(&self) {
        self.counters.flush().await;
    }

    /// Whether entries live in other processes.
    pub fn is_remote(&self) -> bool {
        self.store.is_remote()
    }

    pub fn shard_name(&self, shard: ShardIndex) -> &str {
        &self.store.shard_names()[usize::from(shard)]
    }

    /// Every shard's name.
    pub fn shard_names(&self) -> &[String] {
        self.store.shard_names()
    }

    /// Brings the metrics that are gauges up to now, before they are shown.
    pub fn refresh_gauges(&self) {
        self.store.refresh_gauges();
        self.access_log.refresh_gauges();
        self.audit.refresh_gauges();
        self.jobs.refresh_gauges();
        if let Some(near) = &self.near {
            near.refresh_gauges();
        }
    }

    /// How each shard is doing, asked now.
    pub async fn health(&self) -> Vec<ShardHealth> {
        self.store.health().await
    }
}
