//! Counts and latencies of operations. Each worker has its own counters on its own cache lines; they are added up
//! when the metrics are shown.
//!
//! The exporter's histograms first store every sample and add it to a bucket later, which costs more than all other
//! bookkeeping of an L1 hit. Here a sample is added to its bucket at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::exposition::Exposition;
use super::latency::{self, Latencies};
use crate::model::{Answer, Operation};
use crate::workers::PerWorker;

const REQUESTS: &str = "sidecache_requests_total";
const DURATION: &str = "sidecache_request_duration_seconds";

/// The counters of all operations.
#[derive(Default)]
pub struct Operations(PerWorker<[Counts; Operation::ALL.len()]>);

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
    /// Counts one operation.
    pub fn observe(&self, operation: Operation, answer: Answer, latency: Duration) {
        let counts = &self.0.own()[operation as usize];
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        counts.answers[answer as usize].fetch_add(1, Relaxed);
        counts.buckets[latency::bucket(nanos)].fetch_add(1, Relaxed);
        counts.nanos.fetch_add(nanos, Relaxed);
    }

    /// How many operations of this kind ended with this answer.
    fn answered(&self, operation: Operation, answer: Answer) -> u64 {
        self.sum(operation, |counts| &counts.answers[answer as usize])
    }

    /// The latencies of all operations together, since the start.
    pub fn latencies(&self) -> Latencies {
        Latencies::new(std::array::from_fn(|i| {
            Operation::ALL.map(|operation| self.sum(operation, |counts| &counts.buckets[i])).iter().sum()
        }))
    }

    fn sum(&self, operation: Operation, of: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        self.0.all().map(|all| of(&all[operation as usize]).load(Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Counts and latencies in the Prometheus text format.
    pub(super) fn render(&self) -> String {
        let mut shown = Exposition::default();
        shown.metric(REQUESTS, "counter", "Operations by kind and result.");
        for operation in Operation::ALL {
            for answer in Answer::ALL {
                let labels = [("operation", operation.as_str()), ("result", answer.as_str())];
                shown.sample(REQUESTS, None, &labels, self.answered(operation, answer));
            }
        }
        shown.end_metric();
        shown.metric(DURATION, "histogram", "Time an operation took inside this process and its store.");
        for operation in Operation::ALL {
            let label = ("operation", operation.as_str());
            let mut count = 0;
            for i in 0..latency::COUNT {
                count += self.sum(operation, |counts| &counts.buckets[i]);
                shown.sample(DURATION, Some("bucket"), &[label, ("le", &latency::bound(i))], count);
            }
            let sum = Duration::from_nanos(self.sum(operation, |counts| &counts.nanos));
            shown.sample(DURATION, Some("sum"), &[label], sum.as_secs_f64());
            shown.sample(DURATION, Some("count"), &[label], count);
        }
        shown.end_metric();
        shown.into_text()
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
        let text = operations.render();
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
