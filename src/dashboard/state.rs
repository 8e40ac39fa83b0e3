//! The state that all pages share, and the times at which live pages are updated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::feeds::{Feeds, MAX_STREAMS};
use super::fleet_snapshot::{FleetSnapshot, NamespaceRow, Namespaces};
use super::results::{DeleteResult, FlushResult, Results};
use crate::fleet::{FRESH, SharedResult};
use crate::http::SharedApp;
use crate::namespaces::Record;
use crate::trends::{Summary, Trends};

pub struct Dashboard {
    pub app: SharedApp,
    pub trends: Arc<Trends>,
    /// The runtime on which feeds run.
    pub runtime: Handle,
    pub latest: SharedResult<FleetSnapshot>,
    pub feeds: Feeds,
    pub flushes: Results<FlushResult>,
    pub deletions: Results<DeleteResult>,
    /// A permit for each open event stream.
    pub streams: Arc<Semaphore>,
}

/// Shared by all pages.
pub type Shared = Arc<Dashboard>;

/// The moments at which live pages are updated: after each step of the trends, or when a step is late.
pub struct Ticks(watch::Receiver<u64>);

impl Ticks {
    pub async fn next(&mut self) {
        // A step waits for the shards. If they do not answer, pages must still be updated, to show this.
        let late = Trends::STEP + Trends::STEP / 4;
        if let Ok(Err(_)) = timeout(late, self.0.changed()).await {
            // The sender no longer exists: the process is ending.
            sleep(late).await;
        }
    }
}

impl Dashboard {
    /// Call this on the runtime for background work: the feeds run on the runtime of the caller.
    pub fn new(app: SharedApp) -> Self {
        Self {
            trends: app.trends.clone(),
            app,
            runtime: Handle::current(),
            latest: SharedResult::new(FRESH),
            feeds: Feeds::default(),
            flushes: Results::default(),
            deletions: Results::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// The namespaces with their recent numbers. Reads them from memory on each call, so that a user sees a new
    /// namespace at once.
    pub fn rows(&self) -> Namespaces {
        let mut recent: HashMap<String, Summary> =
            self.trends.namespaces().into_iter().map(|summary| (summary.name.clone(), summary)).collect();
        let row = |record: Record| {
            let recent = recent.remove(record.namespace.as_str());
            NamespaceRow { record, recent }
        };
        Namespaces(self.app.cache.namespaces().ok().map(|records| records.into_iter().map(row).collect()))
    }

    /// The state of the fleet, gathered at most [`FRESH`] before this call.
    pub async fn snapshot(&self) -> Arc<FleetSnapshot> {
        self.latest.get(|| FleetSnapshot::gather(&self.app)).await
    }

    pub fn ticks(&self) -> Ticks {
        Ticks(self.trends.ticks())
    }

    /// How long a page waits for its main content. It is shorter than the request timeout, so that the page can say
    /// that the shards did not answer.
    pub fn time_of_a_request(&self) -> Duration {
        self.app.bounds.request_timeout() * 9 / 10
    }
}
