//! Counts of exported, dropped and queued spans; all 0 in a build without the feature `otel`.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Every span is counted in exactly one of the three.
pub struct SpanCounts {
    exported: AtomicU64,
    dropped: AtomicU64,
    queued: AtomicU64,
}

/// Global, because the export is global, too.
pub static SPANS: SpanCounts = SpanCounts::new();

impl SpanCounts {
    const fn new() -> Self {
        Self { exported: AtomicU64::new(0), dropped: AtomicU64::new(0), queued: AtomicU64::new(0) }
    }

    /// Spans that the collector accepted.
    pub fn exported(&self) -> u64 {
        self.exported.load(Relaxed)
    }

    /// Spans dropped because the queue was full or the collector did not accept them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Spans that wait or are being sent.
    pub fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }
}

#[cfg(feature = "otel")]
impl SpanCounts {
    /// Reserves a place for a span if fewer than `most` are taken; otherwise counts the span as dropped. Returns
    /// whether there was a place.
    pub(super) fn admit(&self, most: u64) -> bool {
        let place = self.queued.fetch_update(Relaxed, Relaxed, |queued| (queued < most).then_some(queued + 1));
        if place.is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        place.is_ok()
    }

    /// Records the end of the export of `spans` spans, and frees their places.
    pub(super) fn settle(&self, spans: u64, were_taken: bool) {
        let ended = if were_taken { &self.exported } else { &self.dropped };
        ended.fetch_add(spans, Relaxed);
        self.queued.fetch_sub(spans, Relaxed);
    }
}

#[cfg(all(test, feature = "otel"))]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_queued_then_exported_or_dropped() {
        let counts = SpanCounts::new();
        let admitted = [(); 5].map(|()| counts.admit(3));
        assert_eq!(admitted, [true, true, true, false, false]);
        assert_eq!((counts.exported(), counts.dropped(), counts.queued()), (0, 2, 3));
        counts.settle(2, true);
        counts.settle(1, false);
        assert_eq!((counts.exported(), counts.dropped(), counts.queued()), (2, 3, 0));
        assert!(counts.admit(1));
    }
}
