//! Work that may take longer than its request: a flush, or the deletion of a namespace, which starts with a flush.
//!
//! A flush runs in a separate task ([`driver`]). If it ends while its request waits, it is not visible as a job and
//! no SQL runs for it. Otherwise it becomes a job: this instance remembers it ([`board`]), and the database has a row
//! for it ([`repository`]), so that any instance can show and cancel it. Without a database the job still runs, and
//! its own instance can show and cancel it.
//!
//! **A job writes one row to the audit trail**, in the transaction that writes its end. Two instances may try to
//! write the end: the one that ran the job, and another one that found it silent. The first of these transactions
//! wins.

mod board;
mod driver;
mod job;
mod repository;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::driver::Answer;
pub use self::job::{Failure, Flush, Id, Job, Kind, State};
pub use self::shared::{Jobs, Patience};

use self::board::StopReason;
use self::driver::Task;
use self::repository::SILENT_MS;
use self::shared::PATIENCE;
use crate::clock::unix_millis;
use crate::database;
use crate::store::FlushProgress;
use crate::trace;

/// How often to look for silent jobs.
const LOOK: Duration = Duration::from_secs(3);

/// The maximum number of jobs in a listing.
const LISTED: i64 = 100;

/// Why a flush has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many flushes are running; nothing was deleted.
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

impl Jobs {
    /// Runs `work` in a separate task, which continues when the caller is gone. `failure` converts an error into what
    /// a job shows.
    ///
    /// # Errors
    /// Too many flushes are running, or the work panicked.
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
        let saved = CancellationToken::new();
        let progress = Arc::<FlushProgress>::default();
        let work = work(progress.clone());
        let task = Task {
            jobs: self.clone(),
            place,
            flush,
            patience,
            failure,
            progress,
            work,
            answer,
            saved: saved.clone(),
        }
        .run();
        // The task keeps the caller, for the logs.
        let mut caller = None;
        trace::with(|current| caller = current.copied());
        match caller {
            Some(caller) => self.tasks.spawn_on(trace::scope(caller, task), &self.runtime),
            None => self.tasks.spawn_on(task, &self.runtime),
        };
        match answered.await.map_err(|_| Refused::Panicked)? {
            Answer::Ended(result) => Ok(Answer::Ended(result)),
            Answer::Job(job) => {
                // The client may ask another instance next, so wait for the row; but a failing database must not
                // delay the answer for long.
                let _ = timeout(PATIENCE, saved.cancelled()).await;
                let now = self.board.lock().job(&job.id, unix_millis());
                Ok(Answer::Job(now.map_or(job, Box::new)))
            }
        }
    }

    /// A job of any instance.
    ///
    /// # Errors
    /// There is no such job, or the database failed.
    pub async fn job(&self, id: &Id) -> Result<Job, Error> {
        let own = self.board.lock().job(id, unix_millis());
        match own {
            Some(job) => Ok(job),
            None => self.repository.find(id).await?.ok_or(Error::NotFound),
        }
    }

    /// The latest jobs of all instances, newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn list(&self) -> Result<Vec<Job>, Error> {
        let mut jobs = self.repository.list(LISTED).await?;
        let (board, now) = (self.board.lock(), unix_millis());
        for job in &mut jobs {
            // For its own jobs this instance has the current state.
            if let Some(own) = board.job(&job.id, now) {
                *job = own;
            }
        }
        Ok(jobs)
    }

    /// Asks a job to stop and returns its current state. A job of another instance stops when that instance reads the
    /// request, within about a second. A job that has ended stays unchanged.
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

    /// Looks for jobs of silent instances until `shutdown`.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let silent = Duration::from_millis(SILENT_MS.unsigned_abs());
        // Since when the database has answered every time. While it does not answer, no instance can give a sign of
        // life, so silence means nothing.
        let mut answered_since = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            let since = *answered_since.get_or_insert_with(Instant::now);
            if let Err(error) = self.fail_silent(since.elapsed() >= silent).await {
                tracing::debug!(%error, "cannot look for silent jobs");
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
            tracing::warn!(failed, "marked jobs as failed because their instances are silent");
            self.metrics.jobs_failed.increment(failed);
            self.metrics.audit_written.increment(failed);
        }
        Ok(())
    }

    /// Ends all running flushes, and waits until their ends are written or the database has refused them.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Updates the gauges before the metrics are shown.
    pub fn refresh_gauges(&self) {
        self.metrics.jobs_running.set(self.board.lock().running() as f64);
    }
}
