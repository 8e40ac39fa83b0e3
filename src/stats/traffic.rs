//! The operations on a namespace and how they were answered.

use std::time::Duration;

use crate::metrics::{Latencies, NamespaceTraffic};
use crate::model::{Answer, Operation};
use crate::store::Reads;

/// Operations on one namespace by one instance in a period of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Entries found.
    pub hits: u64,
    pub misses: u64,
    /// Operations that may have changed something; a batch counts as one.
    pub writes: u64,
    /// Operations that failed.
    pub failures: u64,
    /// Latencies of all operations.
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
