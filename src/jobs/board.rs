//! The running and recently ended jobs of this instance, which it can show without a database. Pure data without a
//! clock: every call gets the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use super::job::{Flush, Id, Job, State};
use crate::model::UnixMillis;
use crate::store::FlushProgress;

/// The maximum number of ended jobs that are remembered here; the database has the others.
const MAX_ENDED: usize = 256;

/// How long an ended job is kept, here and in the database.
pub const KEPT_MS: u64 = 3_600_000;

/// Why a job was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Cancelled,
    /// The process is stopping.
    Stopping,
    /// Another instance found this one silent and has written the end of the job.
    Overruled,
}

/// The state shared between a job's task and requests about the job.
#[derive(Debug)]
pub struct Handle {
    pub progress: Arc<FlushProgress>,
    reason: OnceLock<StopReason>,
    /// Cancelled when the job has ended.
    pub ended: CancellationToken,
}

impl Handle {
    pub fn new(progress: Arc<FlushProgress>) -> Self {
        Self { progress, reason: OnceLock::new(), ended: CancellationToken::new() }
    }

    /// Asks the job to stop. Only the first reason counts.
    pub fn stop(&self, reason: StopReason) {
        self.reason.get_or_init(|| reason);
        self.progress.cancel();
    }

    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }
}

/// The jobs of this instance.
#[derive(Debug, Default)]
pub struct Board {
    jobs: BTreeMap<Id, (Job, Arc<Handle>)>,
    /// Ended jobs in the order of their ends.
    ended: VecDeque<(Id, UnixMillis)>,
}

impl Board {
    /// Adds a running job.
    pub fn open(&mut self, id: Id, flush: Flush, handle: Arc<Handle>, now: UnixMillis) {
        let state = State::Running;
        let job = Job { id: id.clone(), flush, state, done: 0, estimate: None, started_at: now, ended_at: None };
        self.jobs.insert(id, (job, handle));
    }

    /// Records the end of a job, and returns its final state.
    pub fn end(&mut self, id: &Id, state: State, now: UnixMillis) -> Option<Job> {
        let (job, handle) = self.jobs.get_mut(id)?;
        job.done = handle.progress.deleted();
        job.estimate = if state == State::Done { Some(job.done) } else { handle.progress.estimate() };
        job.state = state;
        job.ended_at = Some(now);
        let job = job.clone();
        self.ended.push_back((id.clone(), now));
        self.forget_old(now);
        Some(job)
    }

    /// The current state of a job.
    pub fn job(&self, id: &Id, now: UnixMillis) -> Option<Job> {
        let (job, handle) = self.jobs.get(id)?;
        let mut job = job.clone();
        if job.state.is_running() {
            job.done = handle.progress.deleted();
            job.estimate = handle.progress.estimate();
        }
        Some(job).filter(|job| job.ended_at.is_none_or(|ended| ended.0 + KEPT_MS > now.0))
    }

    pub fn handle(&self, id: &Id) -> Option<Arc<Handle>> {
        self.jobs.get(id).map(|(_, handle)| handle.clone())
    }

    /// Forgets a job, because the database has its true end.
    pub fn forget(&mut self, id: &Id) {
        self.jobs.remove(id);
        self.ended.retain(|(ended, _)| ended != id);
    }

    pub fn running(&self) -> usize {
        self.jobs.len() - self.ended.len()
    }

    fn forget_old(&mut self, now: UnixMillis) {
        let is_old = |at: UnixMillis| at.0 + KEPT_MS <= now.0;
        while self.ended.len() > MAX_ENDED || self.ended.front().is_some_and(|(_, at)| is_old(*at)) {
            if let Some((id, _)) = self.ended.pop_front() {
                self.jobs.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Kind;
    use crate::model::{Namespace, Origin, Selection};

    fn open(board: &mut Board, number: u64, now: u64) -> (Id, Arc<Handle>) {
        let origin = Origin::new([127, 0, 0, 1].into(), None, "r");
        let namespace = Namespace::parse("n").unwrap();
        let flush = Flush { kind: Kind::Flush, namespace, selection: Selection::All, origin };
        let (id, handle) = (Id::new("test", number), Arc::new(Handle::new(Arc::default())));
        board.open(id.clone(), flush, handle.clone(), UnixMillis(now));
        (id, handle)
    }

    #[test]
    fn a_job_that_ended_is_remembered_for_an_hour() {
        let mut board = Board::default();
        let (id, _) = open(&mut board, 1, 1000);
        assert_eq!((board.running(), board.job(&id, UnixMillis(1001)).unwrap().state), (1, State::Running));
        let ended = board.end(&id, State::Done, UnixMillis(2000)).unwrap();
        assert_eq!((ended.estimate, ended.ended_at, board.running()), (Some(0), Some(UnixMillis(2000)), 0));
        assert_eq!(board.job(&id, UnixMillis(2000 + KEPT_MS - 1)), Some(ended));
        assert_eq!(board.job(&id, UnixMillis(2000 + KEPT_MS)), None);
    }

    #[test]
    fn a_bounded_number_of_ended_jobs_is_remembered() {
        let mut board = Board::default();
        for number in 0..300 {
            let (id, _) = open(&mut board, number, 1000);
            board.end(&id, State::Cancelled, UnixMillis(1000 + number));
        }
        let (running, _) = open(&mut board, 300, 2000);
        assert_eq!((board.jobs.len(), board.running()), (MAX_ENDED + 1, 1));
        assert!(board.job(&Id::new("test", 0), UnixMillis(2000)).is_none());
        board.forget(&Id::new("test", 299));
        assert_eq!((board.jobs.len(), board.running()), (MAX_ENDED, 1));
        assert!(board.job(&running, UnixMillis(2000)).is_some());
    }

    #[test]
    fn the_first_reason_to_stop_counts() {
        let (_, handle) = open(&mut Board::default(), 1, 1000);
        assert_eq!((handle.reason(), handle.progress.is_cancelled()), (None, false));
        handle.stop(StopReason::Cancelled);
        handle.stop(StopReason::Stopping);
        assert_eq!((handle.reason(), handle.progress.is_cancelled()), (Some(StopReason::Cancelled), true));
    }
}
