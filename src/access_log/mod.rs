//! The access log: one row an operation, a journal in the background.
//!
//! A request hands its record over and goes on. When the queue is full the record is dropped and
//! counted: the cache never waits for its log.

mod key_pattern;
mod page;
mod postgres;
mod record;
mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;

pub use page::{Cursor, Line, LoggedEnding, Page, Query};
pub use record::{AskedBy, Ending, Outcome, Record, Row, Subject, Tier};

use crate::config::AccessLogConfig;
use crate::database::{Database, Error, Pool};
use crate::journal::{self, Journal, Meters};
use crate::metrics::Metrics;
use crate::model::Namespace;
use crate::workers::PerWorker;

/// The writer at the end of the queue.
pub type Writer = journal::Writer<Record, Row>;

/// Where requests leave their records, and where they are found again. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    journal: Journal<Record>,
    sampler: Arc<Sampler>,
    repository: Arc<dyn Repository>,
}

impl AccessLog {
    /// The handle, and the writer at the other end of its queue. `instance` is a name that no other
    /// process has.
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
        let repository = repository(database, instance);
        let name = format!("access_log-{instance}");
        let (journal, writer) = Journal::new(name, &config.journal, repository.clone(), meters);
        (Self { journal, sampler: Arc::new(Sampler::new(config.sample_rate)), repository }, writer)
    }

    /// Leaves a record, if this operation is one of the sample; never waits.
    pub fn record(&self, record: impl FnOnce() -> Record) {
        if self.sampler.takes() {
            self.journal.leave(record());
        }
    }

    /// Brings the metrics that are gauges up to now, before they are shown.
    pub fn refresh_gauges(&self) {
        self.journal.refresh_gauge();
    }

    /// What is written of `namespace`, the newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn page(&self, namespace: &Namespace, query: &Query) -> Result<Page, Error> {
        self.repository.page(namespace, query).await
    }
}

/// Takes an even share of the operations: of `n` of them, `n * rate`, give or take one a worker.
struct Sampler {
    /// The rate as a part of 2^32.
    step: u64,
    /// Each worker's own, so that none waits for another. Adds up `step`; an operation is taken when it
    /// passes a multiple of 2^32.
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

/// Rows in a database, which can be read as well.
#[async_trait]
trait Repository: journal::Repository<Row> {
    async fn page(&self, namespace: &Namespace, query: &Query) -> Result<Page, Error>;
}

fn repository(database: Arc<Database>, instance: &str) -> Arc<dyn Repository> {
    let instance = instance.to_owned();
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(postgres::Postgres { database, pool, instance }),
        Pool::Sqlite(pool) => Arc::new(sqlite::Sqlite { database, pool, instance }),
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
