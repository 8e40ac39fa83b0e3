//! The access log: one row for each operation, written by a journal in the background.
//!
//! A request hands over its record and continues. If the queue is full, the record is dropped and counted: the cache
//! never waits for its log.

mod key_pattern;
mod page;
mod record;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use page::{Cursor, Line, LoggedEnding, Page, Query};
pub use record::{CallerIds, Ending, Outcome, Record, Row, Subject, Tier};

use crate::config::AccessLogConfig;
use crate::database::{Database, Error};
use crate::journal::{self, Journal, Meters};
use crate::metrics::Metrics;
use crate::model::Namespace;
use crate::workers::PerWorker;

/// The writer at the end of the queue.
pub type Writer = journal::Writer<Record, Row>;

/// Takes the records of requests, and reads rows back. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    journal: Arc<Journal<Record>>,
    sampler: Arc<Sampler>,
    database: Arc<Database>,
}

impl AccessLog {
    /// The handle, and the writer at the other end of its queue. `instance` is unique among all processes.
    pub fn new(
        config: &AccessLogConfig,
        instance: &str,
        database: Arc<Database>,
        metrics: &Metrics,
    ) -> (Self, Writer) {
        let meters = Meters {
            written: metrics.access_log_written.clone(),
            dropped: metrics.access_log_dropped.clone(),
            queued: metrics.access_log_queued.clone(),
        };
        let name = format!("access_log-{instance}");
        let table = table::Table { instance: instance.to_owned() };
        let (journal, writer) = Journal::new(name, &config.journal, database.clone(), table, meters);
        (Self { journal, sampler: Arc::new(Sampler::new(config.sample_rate)), database }, writer)
    }

    /// Queues a record if this operation is in the sample; never waits.
    pub fn record(&self, record: impl FnOnce() -> Record) {
        if self.sampler.takes() {
            self.journal.leave(record());
        }
    }

    /// Updates the gauges before the metrics are shown.
    pub fn refresh_gauges(&self) {
        self.journal.refresh_gauge();
    }

    /// The rows of `namespace`, newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn page(&self, namespace: &Namespace, query: &Query) -> Result<Page, Error> {
        page::read(&self.database, namespace, query).await
    }
}

/// Selects an evenly spread sample: of `n` operations about `n * rate`, with an error of at most one for each worker.
struct Sampler {
    /// The rate as a fraction of 2^32.
    step: u64,
    /// One sum for each worker, so that workers do not wait for each other. Every operation adds `step`; it is in the
    /// sample if the sum passes a multiple of 2^32.
    sums: PerWorker<AtomicU64>,
}

impl Sampler {
    fn new(rate: f64) -> Self {
        Self { step: (rate * f64::from(u32::MAX) + rate) as u64, sums: PerWorker::default() }
    }

    fn takes(&self) -> bool {
        match self.step {
            0 => false,
            step => {
                let before = self.sums.own().fetch_add(step, Relaxed);
                before >> 32 != before.wrapping_add(step) >> 32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sampler;

    #[test]
    fn the_sample_is_the_rate_give_or_take_one() {
        for (rate, expected) in [(0.0, 0), (0.1, 1000), (0.5, 5000), (0.999, 9990), (1.0, 10_000)] {
            let sampler = Sampler::new(rate);
            let taken = (0..10_000).filter(|_| sampler.takes()).count();
            assert!(taken.abs_diff(expected) <= 1, "{rate}: {taken}");
        }
    }
}
