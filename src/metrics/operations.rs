//! Counts and latencies of operations. Each worker has its own counters on its own cache lines; they are added up
//! when the metrics are shown.
//!
//! The exporter's histograms first store every sample and add it to a bucket later, which costs more than all other
//! bookkeeping of an L1 hit. Here a sample is added to its bucket at once, and the resulting lines are appended to the
//! exporter's text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::latency::{self, BUCKETS, Latencies};
use crate::model::{Answer, Operation};
use crate::workers::PerWorker;

pub(super) const REQUESTS: &str = "sidecache_requests_total";
pub(super) const DURATION: &str = "sidecache_request_duration_seconds";

/// The counters of all operations.
#[derive(Default)]
pub(super) struct Operations(PerWorker<[Counts; Operation::ALL.len()]>);

/// The counters of one operation.
#[derive(Default)]
struct Counts {
    /// By [`Answer`].
    answers: [AtomicU64; Answer::ALL.len()],
    /// Not cumulative.
    buckets: [AtomicU64; latency::COUNT],
    nanos: AtomicU64,
}

impl Operations {
    pub fn observe(&self, operation: Operation, answer: Answer, latency: Duration) {
        let counts = &self.0.own()[operation as usize];
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        counts.answers[answer as usize].fetch_add(1, Relaxed);
        counts.buckets[latency::bucket(nanos)].fetch_add(1, Relaxed);
        counts.nanos.fetch_add(nanos, Relaxed);
    }

    /// How many operations of this kind ended with this answer.
    pub fn answered(&self, operation: Operation, answer: Answer) -> u64 {
        self.sum(operation, |counts| &counts.answers[answer as usize])
    }

    /// The latencies of all operations together.
    pub fn latencies(&self) -> Latencies {
        Latencies::new(std::array::from_fn(|i| {
            Operation::ALL.map(|operation| self.sum(operation, |counts| &counts.buckets[i])).iter().sum()
        }))
    }

    fn sum(&self, operation: Operation, of: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        self.0.all().map(|all| of(&all[operation as usize]).load(Relaxed)).fold(0, u64::wrapping_add)
    }

    /// The histogram in the Prometheus text format.
    pub fn render_latency(&self) -> String {
        let mut text = format!(
            "# HELP {DURATION} Time an operation took inside this process and its store.\n# TYPE {DURATION} histogram\n"
        );
        for operation in Operation::ALL {
            let name = operation.as_str();
            let mut put = |suffix: &str, bound: Option<&str>, value: &dyn std::fmt::Display| {
                let bound = bound.map(|bound| format!(",le=\"{bound}\"")).unwrap_or_default();
                writeln!(text, "{DURATION}_{suffix}{{operation=\"{name}\"{bound}}} {value}")
                    .expect("writing to memory does not fail");
            };
            let mut count = 0;
            for (i, bound) in BUCKETS.iter().map(|(_, bound)| *bound).chain(["+Inf"]).enumerate() {
                count += self.sum(operation, |counts| &counts.buckets[i]);
                put("bucket", Some(bound), &count);
            }
            put("sum", None, &Duration::from_nanos(self.sum(operation, |counts| &counts.nanos)).as_secs_f64());
            put("count", None, &count);
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_in_every_bucket_from_its_own_on() {
        let operations = Operations::default();
        for micros in [10, 11, 10_000_000] {
            operations.observe(Operation::Get, Answer::Hit, Duration::from_micros(micros));
        }
        let text = operations.render_latency();
        for (bound, count) in [("0.00001", 1), ("0.000025", 2), ("5", 2), ("+Inf", 3)] {
            let line = format!("{DURATION}_bucket{{operation=\"get\",le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(
            text.contains("_sum{operation=\"get\"} 10.000021\n") && text.contains("_count{operation=\"get\"} 3\n")
        );
        assert_eq!(operations.answered(Operation::Get, Answer::Hit), 3);
    }
}
