//! Rows that the database gets in the background: a bounded queue, and the one writer at its end.
//! The access log and the audit trail of flushes are journals.
//!
//! Whoever leaves a record never waits. A record that finds the queue full is dropped and counted;
//! one that was taken is written once, as batches are numbered and the database keeps, in the same
//! transaction, how far each writer has come.

mod cursor;
pub(crate) mod postgres;
mod queue;
pub(crate) mod sqlite;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use metrics::{Counter, Gauge};

pub(crate) use cursor::{decode, encode};
pub use writer::Writer;

use self::queue::Queue;
use crate::config::JournalConfig;
use crate::database::Error;
use crate::model::UnixMillis;

/// Where records are left. Cheap to clone.
pub(crate) struct Journal<R> {
    queue: Arc<Queue<R>>,
    /// Taken out of the queue, and neither written nor dropped yet.
    in_hand: Arc<AtomicUsize>,
    meters: Meters,
}

impl<R> Clone for Journal<R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), in_hand: self.in_hand.clone(), meters: self.meters.clone() }
    }
}

/// What becomes of the records.
#[derive(Clone)]
pub(crate) struct Meters {
    pub written: Counter,
    pub dropped: Counter,
    /// Neither yet.
    pub queued: Gauge,
}

impl<R> Journal<R> {
    /// The handle, and the writer at the other end of its queue; `name` is one that no other writer
    /// to the same database has.
    pub fn new<Row: From<R> + 'static>(
        name: String,
        config: &JournalConfig,
        repository: Arc<dyn Repository<Row>>,
        meters: Meters,
    ) -> (Self, Writer<R, Row>) {
        let journal = Self { queue: Arc::new(Queue::new(config.queue_rows)), in_hand: Arc::default(), meters };
        let writer = Writer::new(name, journal.clone(), repository, config.clone());
        (journal, writer)
    }

    /// Leaves a record; never waits.
    pub fn leave(&self, record: R) {
        if !self.queue.leave(record) {
            self.meters.dropped.increment(1);
        }
    }

    /// Takes up to `most` records out of the queue.
    fn take(&self, most: usize) -> Vec<R> {
        let taken = self.queue.take(most);
        self.in_hand.fetch_add(taken.len(), Relaxed);
        taken
    }

    /// Brings the gauge up to now, before it is shown.
    pub fn refresh_gauge(&self) {
        let queued = self.queue.len() + self.in_hand.load(Relaxed);
        self.meters.queued.set(queued as f64);
    }
}

/// Rows that go together.
pub(crate) struct Batch<'r, Row> {
    pub writer: &'r str,
    /// Grows from batch to batch of a writer; stays when the batch is tried again.
    pub number: i64,
    pub rows: &'r [Row],
}

/// Rows in a database.
#[async_trait]
pub(crate) trait Repository<Row>: Send + Sync + 'static {
    /// Adds the rows of a batch, all or none, unless they are there already.
    async fn add(&self, batch: Batch<'_, Row>) -> Result<(), Error>;

    /// Deletes up to `limit` rows older than `before`, and tidies up behind them; 0 when nothing is left to do.
    async fn prune(&self, before: UnixMillis, limit: i64) -> Result<u64, Error>;
}
