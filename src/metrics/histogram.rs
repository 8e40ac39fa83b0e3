//! A histogram without labels, for what happens far less often than requests do.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::exposition::Exposition;
use super::latency;

/// Times in the buckets of the latencies.
#[derive(Default)]
pub struct Histogram {
    /// Not cumulative.
    buckets: [AtomicU64; latency::COUNT],
    nanos: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[latency::bucket(nanos)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// The histogram in the Prometheus text format.
    pub(super) fn render(&self, name: &'static str, help: &str) -> String {
        let mut shown = Exposition::default();
        shown.metric(name, "histogram", help);
        let mut count = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            shown.sample(name, Some("bucket"), &[("le", &latency::bound(i))], count);
        }
        shown.sample(name, Some("sum"), &[], Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64());
        shown.sample(name, Some("count"), &[], count);
        shown.end_metric();
        shown.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_every_bucket_from_its_own_on() {
        let histogram = Histogram::default();
        for millis in [1, 200, 60_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let text = histogram.render("times_seconds", "Times.");
        for (bound, count) in [("0.0005", 0), ("0.001", 1), ("0.25", 2), ("5", 2), ("+Inf", 3)] {
            let line = format!("times_seconds_bucket{{le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.contains("times_seconds_sum 60.201\n") && text.contains("times_seconds_count 3\n"), "{text}");
    }
}
