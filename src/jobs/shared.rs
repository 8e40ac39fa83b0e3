//! The state behind all calls of [`Jobs`]: the flushes that run here, and how many may run.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::job::Id;
use super::repository::Repository;
use crate::audit::Audit;
use crate::database::Database;
use crate::metrics::Metrics;

/// The maximum number of flushes that run on an instance at a time, including jobs, since each of them may become a
/// job. Further flushes wait for their turn as long as their requests do.
const MAX_UNDER_WAY: usize = 32;

/// The maximum number of ended jobs that wait for the database to record their end.
const MAX_UNSAVED: usize = 256;

/// How long a response waits until the row of a new job is written, or until a cancelled job ends.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// How long the caller of a flush waits.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// It does not wait: the flush is a job from the start.
    None,
    /// It waits until this moment; an unfinished flush becomes a job.
    Until(Instant),
}

/// The jobs of this instance, and access to those of the others.
pub struct Jobs {
    /// The unique name of this process.
    pub(super) instance: String,
    pub(super) runtime: Runtime,
    pub(super) repository: Repository,
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: Mutex<Board>,
    pub(super) next_number: AtomicU64,
    /// One permit for each running flush.
    pub(super) places: Arc<Semaphore>,
    /// One permit for each ended job that waits for the database.
    pub(super) unsaved: Arc<Semaphore>,
    /// Cancelled when the process is asked to stop. Jobs then end.
    pub(super) draining: CancellationToken,
    /// Cancelled when no requests are left. All flushes then end, and so do the retries of writes.
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Jobs {
    /// Call it on the runtime on which the jobs should run. The jobs end when `draining` is cancelled.
    pub fn new(
        instance: &str,
        database: Arc<Database>,
        audit: Audit,
        metrics: Arc<Metrics>,
        draining: CancellationToken,
    ) -> Self {
        Self {
            instance: instance.to_owned(),
            runtime: Runtime::current(),
            repository: Repository { database },
            audit,
            metrics,
            board: Mutex::default(),
            next_number: AtomicU64::new(1),
            places: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            unsaved: Arc::new(Semaphore::new(MAX_UNSAVED)),
            draining,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn report_panic(&self, panic: &(dyn Any + Send)) {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        tracing::error!(panic = text.unwrap_or("of an unknown kind"), "a flush panicked");
        self.metrics.panics.increment(1);
    }

    pub(super) fn new_id(&self) -> Id {
        Id::new(&self.instance, self.next_number.fetch_add(1, Relaxed))
    }
}
