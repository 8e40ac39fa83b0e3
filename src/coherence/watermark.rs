//! What is known of one shard: the epoch of its copies and its watermark.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

/// Read by every request, written by the shard's one subscriber.
///
/// The watermark is the latest moment for which there is proof that every invalidation published
/// before it was applied.
#[derive(Default)]
pub struct ShardState {
    epoch: AtomicU64,
    /// Nanoseconds of [`Moment`]; 0 before the first proof.
    watermark_nanos: AtomicU64,
}

impl ShardState {
    // Acquire and Release pair the epoch with the fills: a fill that sees an epoch also asks the
    // shard after the loss that began it.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    pub fn watermark(&self) -> Option<Moment> {
        match self.watermark_nanos.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    /// Readings may come back out of order over two connections; the watermark never falls. A
    /// reading from the future is none of this process, and is not believed.
    pub fn raise_watermark(&self, moment: Moment) {
        if moment <= Moment::now() {
            self.watermark_nanos.fetch_max(moment.as_nanos(), Ordering::AcqRel);
        }
    }
}
