//! The task of one flush: at first it is part of its request; if it takes longer, it becomes a job.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::board::{Handle, StopReason};
use super::job::{Failure, Flush, Id, Job, Kind, State};
use super::repository::StoredState;
use super::shared::{Jobs, PATIENCE, Patience};
use crate::audit::{self, FlushNote, Outcome};
use crate::clock::unix_millis;
use crate::store::FlushProgress;

/// How often a job writes its progress and checks whether it should stop.
const BEAT: Duration = Duration::from_secs(1);

/// The pause between attempts to write the end of a job.
const RETRY: Duration = Duration::from_secs(1);

/// How a flush was answered.
#[derive(Debug)]
pub enum Answer<E> {
    /// It ended before the caller's patience did.
    Ended(Result<u64, E>),
    Job(Box<Job>),
}

/// A flush and everything that it needs.
pub struct Task<E, W> {
    pub jobs: Arc<Jobs>,
    /// Released when the flush has ended.
    pub place: OwnedSemaphorePermit,
    pub flush: Flush,
    pub patience: Patience,
    pub failure: fn(&E) -> Failure,
    pub progress: Arc<FlushProgress>,
    pub work: W,
    pub answer: oneshot::Sender<Answer<E>>,
    /// Cancelled after the first attempt to write the row of a job to the database.
    pub saved: CancellationToken,
}

impl<E, W: Future<Output = Result<u64, E>>> Task<E, W> {
    pub async fn run(self) {
        let Self { jobs, place, flush, patience, failure, progress, work, answer, saved } = self;
        let Flush { kind, namespace, selection, origin } = &flush;
        // Writes its row to the audit trail when it is dropped.
        let mut note = jobs.audit.flush(namespace, selection, *kind == Kind::MarkStale, origin);
        let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
        if let Patience::Until(end) = patience {
            let ended = tokio::select! {
                biased;
                ended = &mut work => Some(ended),
                () = sleep_until(end) => None,
                () = jobs.stopping.cancelled() => {
                    progress.cancel();
                    Some(work.as_mut().await)
                }
            };
            if let Some(ended) = ended {
                let deleted = progress.deleted();
                let is_complete = matches!(&ended, Ok(Ok(_))) && !progress.is_cancelled();
                if is_complete && *kind == Kind::DeleteNamespace {
                    // The record of the deleted policy already covers the flush.
                    note.discard();
                } else {
                    note.ended(if is_complete {
                        Outcome::Complete { deleted }
                    } else {
                        Outcome::Partial { deleted }
                    });
                    drop(note);
                }
                match ended {
                    // The request may be gone.
                    Ok(result) => drop(answer.send(Answer::Ended(result))),
                    Err(panic) => jobs.report_panic(&*panic),
                }
                return;
            }
        }
        let (id, handle) = (jobs.new_id(), Arc::new(Handle::new(progress)));
        let job = jobs.open(&id, flush, &handle);
        let _ = answer.send(Answer::Job(Box::new(job)));
        let ended = tokio::select! {
            biased;
            ended = &mut work => ended,
            never = jobs.attend(&id, &handle, &saved) => match never {},
        };
        drop(place);
        if !matches!(ended, Ok(Ok(_))) {
            // If the process was paused, its scripts have failed, and another instance may have ended the job.
            jobs.look_for_end(&id, &handle).await;
        }
        let state = match (ended, handle.reason()) {
            (_, Some(StopReason::Overruled)) => State::Failed(Failure::silent()),
            (Err(panic), _) => {
                jobs.report_panic(&*panic);
                State::Failed(Failure::panicked())
            }
            (Ok(_), Some(StopReason::Cancelled)) => State::Cancelled,
            (Ok(_), Some(StopReason::Stopping)) => State::Failed(Failure::stopped()),
            (Ok(Ok(_)), None) => State::Done,
            (Ok(Err(error)), None) => State::Failed(failure(&error)),
        };
        jobs.close(&id, &handle, state, note).await;
        saved.cancel();
    }
}

impl Jobs {
    fn open(&self, id: &Id, flush: Flush, handle: &Arc<Handle>) -> Job {
        let (mut board, now) = (self.board.lock(), unix_millis());
        board.open(id.clone(), flush, handle.clone(), now);
        let job = board.job(id, now).expect("it was added under this lock");
        let Flush { kind, namespace, selection, .. } = &job.flush;
        tracing::info!(job = %id, kind = kind.as_str(), %namespace, ?selection, deleted = job.done, "a flush continues as a job");
        job
    }

    /// Writes the progress of a job regularly, and tells the job to stop when it should. Never returns.
    async fn attend(&self, id: &Id, handle: &Handle, saved: &CancellationToken) -> Infallible {
        let beats = async {
            loop {
                let Some(job) = self.board.lock().job(id, unix_millis()) else { return };
                match self.repository.beat(&job).await {
                    Ok(StoredState::Running) => {}
                    Ok(StoredState::CancelAsked) => handle.stop(StopReason::Cancelled),
                    Ok(StoredState::Ended) => handle.stop(StopReason::Overruled),
                    // The next beat writes it, and the job continues anyway.
                    Err(error) => tracing::debug!(job = %id, %error, "cannot write the progress of a job"),
                }
                saved.cancel();
                sleep(BEAT).await;
            }
        };
        let draining = async {
            self.draining.cancelled().await;
            handle.stop(StopReason::Stopping);
        };
        tokio::join!(beats, draining);
        std::future::pending().await
    }

    /// Asks the database (with a short timeout) whether another instance has written the end of a job.
    async fn look_for_end(&self, id: &Id, handle: &Handle) {
        let Some(job) = self.board.lock().job(id, unix_millis()) else { return };
        if let Ok(Ok(StoredState::Ended)) = timeout(PATIENCE, self.repository.beat(&job)).await {
            handle.stop(StopReason::Overruled);
        }
    }

    /// Records the end of a job here, in the database and in the audit trail.
    async fn close(&self, id: &Id, handle: &Handle, state: State, mut note: FlushNote) {
        let counter = match state {
            State::Done => &self.metrics.jobs_done,
            State::Cancelled => &self.metrics.jobs_cancelled,
            State::Failed(_) | State::Running => &self.metrics.jobs_failed,
        };
        let ended = self.board.lock().end(id, state, unix_millis());
        handle.ended.cancel();
        let Some(job) = ended else { return };
        let code = job.state.failure().map(|failure| &*failure.code);
        tracing::info!(job = %id, state = job.state.as_str(), code, deleted = job.done, "a job ended");
        if handle.reason() == Some(StopReason::Overruled) {
            // The instance that wrote the end has also counted it and written the audit row.
            note.discard();
            self.board.lock().forget(id);
            return;
        }
        counter.increment(1);
        note.ended(job.outcome());
        if self.save(&job).await {
            note.discard();
        } else {
            tracing::warn!(job = %id, "could not write the end of a job to the database");
            self.metrics.jobs_unsaved.increment(1);
        }
    }

    /// Writes the end of a job and its audit row. Retries until the database accepts them, the process ends, or too
    /// many jobs wait. Returns whether the database has both.
    async fn save(&self, job: &Job) -> bool {
        let Ok(_place) = self.unsaved.try_acquire() else { return false };
        let row = job.record().map(audit::Row::from);
        loop {
            match self.repository.end(job, row.as_ref()).await {
                Ok(true) => {
                    self.metrics.audit_written.increment(row.iter().len() as u64);
                    return true;
                }
                Ok(false) => {
                    // The end was written before: by another instance, or by an attempt whose answer was lost.
                    self.board.lock().forget(&job.id);
                    return true;
                }
                Err(error) if error.is_refused_data() || self.stopping.is_cancelled() => {
                    tracing::debug!(job = %job.id, %error, "giving up writing the end of a job");
                    return false;
                }
                Err(error) => tracing::debug!(job = %job.id, %error, "cannot write the end of a job yet"),
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}
