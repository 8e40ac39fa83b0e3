//! The access log: one row an operation, written in batches behind a bounded queue.
//!
//! A request hands its record over and goes on. When the queue is full the record is dropped and
//! counted: the cache never waits for its log.

mod key_pattern;
mod postgres;
mod record;
mod sqlite;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use record::{Record, Subject};
pub use writer::Writer;

use self::record::Row;
use crate::config::AccessLogConfig;
use crate::database::{Database, Error, Pool};
use crate::metrics::Metrics;
use crate::model::UnixMillis;

/// Where requests leave their records. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    queue: mpsc::Sender<Record>,
    sampler: Arc<Sampler>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// The handle, and the writer at the other end of its queue.
    pub fn new(config: &AccessLogConfig, database: Arc<Database>, metrics: Arc<Metrics>) -> (Self, Writer) {
        let (queue, records) = mpsc::channel(config.queue_rows);
        let writer = Writer::new(records, repository(database), config.clone(), metrics.clone());
        (Self { queue, sampler: Arc::new(Sampler::new(config.sample_rate)), metrics }, writer)
    }

    /// Leaves a record, if this operation is one of the sample; never waits.
    pub fn record(&self, record: impl FnOnce() -> Record) {
        if !self.sampler.takes() {
            return;
        }
        // Counted first: the writer may be done with it at once.
        self.metrics.access_log_queued.increment(1.0);
        if self.queue.try_send(record()).is_err() {
            self.metrics.access_log_queued.decrement(1.0);
            self.metrics.access_log_dropped.increment(1);
        }
    }
}

/// Takes an even share of the operations: of `n` of them, `n * rate`, give or take one.
struct Sampler {
    /// The rate as a part of 2^32.
    step: u64,
    /// Adds up `step`; an operation is taken when it passes a multiple of 2^32.
    sum: AtomicU64,
}

impl Sampler {
    fn new(rate: f64) -> Self {
        Self { step: (rate * f64::from(u32::MAX) + rate) as u64, sum: AtomicU64::new(0) }
    }

    fn takes(&self) -> bool {
        match self.step {
            0 => false,
            step => {
                let before = self.sum.fetch_add(step, Relaxed);
                before >> 32 != before.wrapping_add(step) >> 32
            }
        }
    }
}

/// Rows in a database.
#[async_trait]
pub(crate) trait Repository: Send + Sync + 'static {
    /// Adds rows, all or none.
    async fn add(&self, rows: &[Row]) -> Result<(), Error>;

    /// Deletes up to `limit` rows older than `before`; answers how many.
    async fn prune(&self, before: UnixMillis, limit: i64) -> Result<u64, Error>;
}

fn repository(database: Arc<Database>) -> Arc<dyn Repository> {
    match database.pool().clone() {
        Pool::Postgres(pool) => Arc::new(postgres::Postgres { database, pool }),
        Pool::Sqlite(pool) => Arc::new(sqlite::Sqlite { database, pool }),
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
