//! A counter that every request may touch and that this process also reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::Counter;

use crate::workers::PerWorker;

/// Counts separately on each worker. The sum is copied into the metric when the metrics are shown.
pub struct Tally {
    counts: PerWorker<AtomicU64>,
    shown: Counter,
}

impl Tally {
    pub(super) fn new(shown: Counter) -> Self {
        Self { counts: PerWorker::default(), shown }
    }

    pub fn increment(&self, by: u64) {
        self.counts.own().fetch_add(by, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.counts.all().map(|count| count.load(Relaxed)).fold(0, u64::wrapping_add)
    }

    pub(super) fn show(&self) {
        self.shown.absolute(self.value());
    }
}
