//! The state of one shard: the epoch of its copies and its watermark.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::sequence::Sequence;
use crate::clock::Moment;

/// How many runs of ended epochs are remembered. Epochs without a proof of their own join the run before them. So a
/// run is forgotten only after the shard has recovered this many times.
const RUNS: usize = 16;

/// Read by every request, written only by the shard's subscriber.
///
/// The watermark is the latest moment for which it is proven that every invalidation published before that moment was
/// applied.
#[derive(Default)]
pub struct ShardState {
    epoch: AtomicU64,
    /// Nanoseconds of [`Moment`]; 0 before the first proof.
    watermark_nanos: AtomicU64,
    pub sequence: Mutex<Sequence>,
    /// The oldest first. Locked to start an epoch; requests lock it only when the shard does not answer.
    ended: Mutex<VecDeque<Run>>,
}

/// Epochs that ended with the same watermark.
struct Run {
    first: u64,
    last: u64,
    watermark_nanos: u64,
}

impl ShardState {
    // Acquire and Release order the epoch before the fills: a fill that sees an epoch asks the shard after the loss
    // that started this epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn begin_epoch(&self) {
        let mut ended = self.ended.lock();
        let (epoch, watermark_nanos) = (self.epoch(), self.watermark_nanos.load(Ordering::Acquire));
        match ended.back_mut() {
            Some(run) if run.watermark_nanos == watermark_nanos => run.last = epoch,
            _ => ended.push_back(Run { first: epoch, last: epoch, watermark_nanos }),
        }
        if ended.len() > RUNS {
            ended.pop_front();
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    pub fn watermark(&self) -> Option<Moment> {
        moment(self.watermark_nanos.load(Ordering::Acquire))
    }

    /// The current watermark, or for an ended epoch its last watermark; `None` before the first proof, or if the
    /// epoch is no longer remembered.
    pub fn watermark_of(&self, epoch: u64) -> Option<Moment> {
        // The lock keeps a new epoch from starting, so a proof of the next epoch is not taken for one of this epoch.
        let ended = self.ended.lock();
        if self.epoch() == epoch {
            return self.watermark();
        }
        let run = ended.iter().find(|run| (run.first..=run.last).contains(&epoch))?;
        moment(run.watermark_nanos)
    }

    /// Raises the watermark. Readings from two connections may arrive out of order, so the watermark never goes back.
    /// A reading from the future cannot be from this process and is ignored.
    pub fn raise_watermark(&self, moment: Moment) {
        if moment <= Moment::now() {
            self.watermark_nanos.fetch_max(moment.as_nanos(), Ordering::AcqRel);
        }
    }
}

fn moment(nanos: u64) -> Option<Moment> {
    (nanos > 0).then(|| Moment::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    #[test]
    fn the_last_proof_of_an_ended_epoch_is_remembered() {
        let state = ShardState::default();
        assert_eq!(state.watermark_of(0), None, "before the first proof");
        state.begin_epoch();
        assert_eq!(state.watermark_of(0), None, "ended without a proof");
        state.raise_watermark(at(10));
        assert_eq!(state.watermark_of(1), Some(at(10)));
        // An outage may start any number of epochs: without a proof they take no space.
        for _ in 0..100 * RUNS {
            state.begin_epoch();
        }
        state.raise_watermark(at(20));
        assert_eq!((state.watermark_of(0), state.watermark_of(1)), (None, Some(at(10))));
        assert_eq!(state.watermark_of(state.epoch()), Some(at(20)), "the current epoch");
        assert_eq!(state.watermark_of(state.epoch() - 1), Some(at(10)));
    }

    #[test]
    fn only_so_many_runs_are_remembered() {
        let state = ShardState::default();
        for round in 0..=RUNS as u64 {
            state.raise_watermark(at(100 + round));
            state.begin_epoch();
        }
        assert_eq!(state.watermark_of(0), None, "forgotten");
        assert_eq!(state.watermark_of(1), Some(at(101)));
    }
}
