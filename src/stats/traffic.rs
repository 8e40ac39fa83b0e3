//! What was asked of a namespace, and how it was answered.

use std::time::Duration;

use crate::metrics::{Latencies, NamespaceTraffic};
use crate::model::{Answer, Operation};
use crate::store::Reads;

/// Operations of a span of time on one namespace, by one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Entries found.
    pub hits: u64,
    pub misses: u64,
    /// Operations that may have changed something: a batch is one.
    pub writes: u64,
    /// Operations that the store failed.
    pub failures: u64,
    /// Of all operations.
    pub latencies: Latencies,
}

impl Traffic {
    pub(super) fn note(&mut self, reads: Reads, operation: Operation, answer: Answer, latency: Duration) {
        self.hits += reads.hits;
        self.misses += reads.misses;
        self.writes += u64::from(operation.is_write());
        self.failures += u64::from(answer == Answer::Failed);
        self.latencies.observe(latency);
    }

    pub fn add(&mut self, more: &Self) {
        self.hits += more.hits;
        self.misses += more.misses;
        self.writes += more.writes;
        self.failures += more.failures;
        self.latencies.add(&more.latencies);
    }

    pub fn is_empty(&self) -> bool {
        self.latencies.count() == 0
    }
}

impl From<&Traffic> for NamespaceTraffic {
    fn from(traffic: &Traffic) -> Self {
        let Traffic { hits, misses, writes, failures, .. } = *traffic;
        Self { hits, misses, writes, failures }
    }
}
