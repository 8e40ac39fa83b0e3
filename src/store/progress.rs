//! The progress of a flush. The store counts; observers read the counts and may ask the flush to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Shared by one flush and its observers.
#[derive(Debug, Default)]
pub struct FlushProgress {
    /// Live entries deleted so far.
    deleted: AtomicU64,
    /// How many of the `places` in the index were walked, over all shards.
    walked: AtomicU64,
    places: AtomicU64,
    is_cancelled: AtomicBool,
}

impl FlushProgress {
    /// Live entries deleted so far.
    pub fn deleted(&self) -> u64 {
        self.deleted.load(Relaxed)
    }

    /// Estimates how many entries the flush will have deleted at its end, from the part of the index that it has
    /// walked; `None` while that is unknown. A key's place is a hash, so equal parts of the index hold about equally
    /// many keys.
    pub fn estimate(&self) -> Option<u64> {
        let (walked, places) = (self.walked.load(Relaxed), self.places.load(Relaxed));
        let deleted = u128::from(self.deleted());
        let whole = (deleted * u128::from(places)).checked_div(u128::from(walked))?;
        Some(u64::try_from(whole.max(deleted)).unwrap_or(u64::MAX))
    }

    /// Asks the flush to stop before its next step.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Relaxed)
    }

    /// Sets how many places there are to walk.
    pub(super) fn begin(&self, places: u64) {
        self.places.store(places, Relaxed);
    }

    pub(super) fn add_deleted(&self, entries: u64) {
        self.deleted.fetch_add(entries, Relaxed);
    }

    pub(super) fn add_walked(&self, places: u64) {
        self.walked.fetch_add(places, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_part_that_was_walked() {
        let progress = FlushProgress::default();
        assert_eq!(progress.estimate(), None);
        progress.begin(1 << 34);
        assert_eq!(progress.estimate(), None);
        progress.add_deleted(500);
        progress.add_walked(1 << 33);
        assert_eq!((progress.deleted(), progress.estimate()), (500, Some(1000)));
        progress.add_deleted(u64::MAX - 600);
        assert_eq!(progress.estimate(), Some(u64::MAX));
    }
}
