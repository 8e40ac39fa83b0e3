//! A counter that this process reads itself, too.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::Counter;

/// Counts here and is copied into its metric when that is shown.
pub struct Tally {
    count: AtomicU64,
    shown: Counter,
}

impl Tally {
    pub(super) fn new(shown: Counter) -> Self {
        Self { count: AtomicU64::new(0), shown }
    }

    pub fn increment(&self, by: u64) {
        self.count.fetch_add(by, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(super) fn show(&self) {
        self.shown.absolute(self.value());
    }
}
