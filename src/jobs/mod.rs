//! Work that may outlive its request: a flush, and the deletion of a namespace, which flushes it first.
//!
//! A flush runs in a task of its own ([`driver`]). If it ends while its request waits, nobody hears of a job and
//! no SQL runs for it. Otherwise it becomes a job: this instance remembers it ([`board`]), and the database has a
//! row of it ([`repository`]), so that any instance shows and cancels it. Without a database the job still runs,
//! and its own instance still answers for it.
//!
//! **A job leaves one row in the audit trail**, in the transaction that writes its end. That transaction is the
//! first of two: that of the instance that ran the job, and that of another one which found it silent.

mod board;
mod driver;
mod job;
mod postgres;
mod repository;
mod sql;
mod sqlite;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::job::{Failure, Flush, Id, Job, Kind, State};

use self::board::{Board, Handle, StopReason};
use self::driver::{Started, Task};
use self::repository::{Repository, SILENT_MS, Standing, repository};
use crate::audit::Audit;
use crate::clock::unix_millis;
use crate::database::{self, Database};
use crate::metrics::Metrics;
use crate::store::FlushProgress;
use crate::trace;

/// Flushes under way on an instance at a time, jobs included: each of them may become a job. Others wait for their
/// turn as long as their requests do.
const MOST_UNDER_WAY: usize = 32;

/// Ended jobs whose ends wait for the database.
const MOST_UNSAVED: usize = 256;

/// How often silent jobs are looked for.
const LOOK: Duration = Duration::from_secs(3);

/// How long an answer waits for the row of a job, or for its end after it was cancelled.
const PATIENCE: Duration = Duration::from_millis(500);

/// Jobs that a listing shows.
const LISTED: i64 = 100;

/// How long the caller of a flush waits.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Not at all: it is a job from the start.
    None,
    /// Until then; what is not done becomes a job.
    Until(Instant),
}

/// How a flush was answered.
#[derive(Debug)]
pub enum Answer<E> {
    /// It ended within the patience of its caller.
    Ended(Result<u64, E>),
    Job(Box<Job>),
}

/// Why a flush has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many are under way; nothing was deleted.
    TooMany,
    Panicked,
}

/// Why a job cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such job, or it ended more than an hour ago")]
    NotFound,
    #[error(transparent)]
    Database(#[from] database::Error),
}

/// The jobs of all instances, as this one knows them.
pub struct Jobs {
    /// A name that no other process has.
    instance: String,
    runtime: Runtime,
    repository: Arc<dyn Repository>,
    audit: Audit,
    metrics: Arc<Metrics>,
    board: Mutex<Board>,
    next_number: AtomicU64,
    /// Places for flushes under way.
    places: Arc<Semaphore>,
    /// Places for ends that wait for the database.
    unsaved: Arc<Semaphore>,
    /// Set when the process is asked to stop: jobs end then.
    draining: CancellationToken,
    /// Set when no request is under way any more: everything ends then.
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Jobs {
    /// To be called within the runtime that the jobs are to run on; they end when `draining` is set.
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
            repository: repository(database),
            audit,
            metrics,
            board: Mutex::default(),
            next_number: AtomicU64::new(1),
            places: Arc::new(Semaphore::new(MOST_UNDER_WAY)),
            unsaved: Arc::new(Semaphore::new(MOST_UNSAVED)),
            draining,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Does `work` in a task of its own, which goes on when the caller is gone. `failure` says what a job tells of
    /// an error.
    ///
    /// # Errors
    /// There is no place for it, or it panicked.
    pub async fn flush<E, W>(
        self: &Arc<Self>,
        flush: Flush,
        patience: Patience,
        failure: fn(&E) -> Failure,
        work: impl FnOnce(Arc<FlushProgress>) -> W,
    ) -> Result<Answer<E>, Refused>
    where
        E: Send + 'static,
        W: Future<Output = Result<u64, E>> + Send + 'static,
    {
        let place = match patience {
            Patience::None => self.places.clone().try_acquire_owned().ok(),
            Patience::Until(end) => {
                timeout_at(end, self.places.clone().acquire_owned()).await.ok().and_then(Result::ok)
            }
        };
        let Some(place) = place else {
            self.metrics.jobs_refused.increment(1);
            return Err(Refused::TooMany);
        };
        let (answer, answered) = oneshot::channel();
        let progress = Arc::<FlushProgress>::default();
        let work = work(progress.clone());
        let task = Task { jobs: self.clone(), place, flush, patience, failure, progress, work, answer }.run();
        // Who asks goes along, for the logs.
        let mut asks = None;
        trace::with(|caller| asks = caller.copied());
        match asks {
            Some(caller) => self.tasks.spawn_on(trace::scope(caller, task), &self.runtime),
            None => self.tasks.spawn_on(task, &self.runtime),
        };
        match answered.await {
            Ok(Started::Ended(result)) => Ok(Answer::Ended(result)),
            Ok(Started::Job { job, saved }) => {
                // Another instance may be asked next; a database that is away does not hold up the answer.
                let _ = timeout(PATIENCE, saved.cancelled()).await;
                let now = self.board.lock().job(&job.id, unix_millis());
                Ok(Answer::Job(now.map_or(job, Box::new)))
            }
            Err(_) => Err(Refused::Panicked),
        }
    }

    /// A job of any instance.
    ///
    /// # Errors
    /// There is no such job, or only the database could tell.
    pub async fn job(&self, id: &Id) -> Result<Job, Error> {
        let own = self.board.lock().job(id, unix_millis());
        match own {
            Some(job) => Ok(job),
            None => self.repository.find(id).await?.ok_or(Error::NotFound),
        }
    }

    /// The newest jobs of all instances, the newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn list(&self) -> Result<Vec<Job>, Error> {
        let mut jobs = self.repository.list(LISTED).await?;
        let (board, now) = (self.board.lock(), unix_millis());
        for job in &mut jobs {
            // What this instance runs it knows to the moment.
            if let Some(own) = board.job(&job.id, now) {
                *job = own;
            }
        }
        Ok(jobs)
    }

    /// Asks a job to stop and answers it as it is then. A job of another instance stops when that instance reads
    /// the word, within about a second; one that has ended stays as it is.
    ///
    /// # Errors
    /// There is no such job, or the database failed.
    pub async fn cancel(&self, id: &Id) -> Result<Job, Error> {
        let own = self.board.lock().handle(id);
        match own {
            Some(handle) if !handle.ended.is_cancelled() => {
                handle.stop(StopReason::Cancelled);
                let _ = timeout(PATIENCE, handle.ended.cancelled()).await;
            }
            Some(_) => {}
            None => self.repository.ask_to_cancel(id).await?,
        }
        self.job(id).await
    }

    /// Finds jobs whose instances went silent, until `shutdown`.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let silent = Duration::from_millis(SILENT_MS.unsigned_abs());
        // Since when each look was answered: a database that was away has heard nobody.
        let mut answered_since = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            let since = *answered_since.get_or_insert_with(Instant::now);
            if let Err(error) = self.fail_silent(since.elapsed() >= silent).await {
                tracing::debug!(%error, "silent jobs not looked for");
                answered_since = None;
            }
        }
    }

    async fn fail_silent(&self, may_judge: bool) -> Result<(), database::Error> {
        if !self.repository.is_any_silent_or_old().await? || !may_judge {
            return Ok(());
        }
        let failed = self.repository.fail_silent().await?;
        if failed > 0 {
            tracing::warn!(failed, "jobs failed, as the instances that ran them went silent");
            self.metrics.jobs_failed.increment(failed);
            self.metrics.audit_written.increment(failed);
        }
        Ok(())
    }

    /// Ends everything that is still under way, and waits until the ends are written or the database refused them.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Brings the metrics that are gauges up to now, before they are shown.
    pub fn refresh_gauges(&self) {
        self.metrics.jobs_running.set(self.board.lock().running() as f64);
    }

    fn note_panic(&self, panic: &(dyn Any + Send)) {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        tracing::error!(panic = text.unwrap_or("of an unknown kind"), "a flush panicked");
        self.metrics.panics.increment(1);
    }

    fn new_id(&self) -> Id {
        Id::new(&self.instance, self.next_number.fetch_add(1, Relaxed))
    }
}
