//! A counter that every request touches, and that this process reads itself, too.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::Counter;

use crate::workers::PerWorker;

/// Counts here, on each worker apart, and is copied into its metric when that is shown.
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
