//! The state that all pages share.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::fleet_snapshot::FleetSnapshot;
use super::form::Results;
use super::table_query::NamespaceRow;
use super::topic::{Region, Topic};
use crate::fleet::{FRESH, SharedResult};
use crate::http::{Error, SharedApp};
use crate::namespaces::Record;
use crate::trends::Summary;

/// The most event streams that may be open at a time.
const MAX_STREAMS: usize = 64;

/// The regions that a feed rendered last.
pub type Regions = Arc<Vec<Region>>;

pub struct Dashboard {
    pub app: SharedApp,
    latest: SharedResult<FleetSnapshot>,
    /// The running feeds, by the page that each one renders. `events` runs them. A feed ends soon after its last
    /// stream, so the limit on streams also limits the feeds.
    pub feeds: Mutex<HashMap<Topic, Weak<watch::Sender<Regions>>>>,
    /// A permit for each event stream that may be opened.
    pub streams: Arc<Semaphore>,
    pub results: Results,
}

/// Shared by all pages.
pub type Shared = Arc<Dashboard>;

impl Dashboard {
    pub fn new(app: SharedApp) -> Self {
        Self {
            app,
            latest: SharedResult::new(FRESH),
            feeds: Mutex::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            results: Results::default(),
        }
    }

    /// The namespaces with their recent numbers, sorted by name; `None` until the policies have been read once. Reads
    /// them from memory on each call, so that a user sees a new namespace at once.
    pub fn namespaces(&self) -> Option<Vec<NamespaceRow>> {
        let recent = self.app.trends.namespaces().into_iter();
        let mut recent: HashMap<String, Summary> = recent.map(|summary| (summary.name.clone(), summary)).collect();
        let row = |record: Record| {
            let recent = recent.remove(record.namespace.as_str());
            NamespaceRow { record, recent }
        };
        Some(self.app.cache.namespaces().ok()?.into_iter().map(row).collect())
    }

    /// The state of the fleet, gathered at most [`FRESH`] before this call.
    pub async fn snapshot(&self) -> Arc<FleetSnapshot> {
        self.latest.get(|| FleetSnapshot::gather(&self.app)).await
    }

    /// How long a page waits for its main content. It is shorter than the request timeout, so that the page can say
    /// that the shards did not answer.
    pub fn time_of_a_request(&self) -> Duration {
        self.app.bounds.request_timeout() * 9 / 10
    }

    /// Waits for the main content of a page.
    ///
    /// # Errors
    /// The error of `work`, or `late` if it takes too long.
    pub async fn in_time<T, E>(&self, work: impl Future<Output = Result<T, E>>, late: Error) -> Result<T, Error>
    where
        Error: From<E>,
    {
        Ok(timeout(self.time_of_a_request(), work).await.map_err(|_| late)??)
    }
}
