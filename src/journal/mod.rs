//! Writes rows to the database in the background: a bounded queue with one writer at its end. The access log and the
//! audit rows of flushes use it.
//!
//! Adding a record never waits. A record is dropped and counted if the queue is full, if the database rejects it, or
//! if the process ends while the database does not answer. No record is written twice: batches are numbered, and the
//! database stores the number of each writer's last batch in the same transaction as the batch.

mod cursor;
mod queue;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use metrics::{Counter, Gauge};

pub(crate) use cursor::{decode, encode};
pub use writer::Writer;

use self::queue::Queue;
use crate::config::JournalConfig;
use crate::database::{Database, Error, Transaction};

/// Takes records.
pub(crate) struct Journal<R> {
    queue: Queue<R>,
    /// Records taken out of the queue and neither written nor dropped yet.
    in_hand: AtomicUsize,
    meters: Meters,
}

/// Metrics about the records.
pub(crate) struct Meters {
    pub written: Counter,
    pub dropped: Counter,
    /// Neither written nor dropped yet.
    pub queued: Gauge,
}

impl<R> Journal<R> {
    /// The handle, and the writer at the other end of its queue. `name` must be unique among all writers to this
    /// database.
    pub fn new<Row: From<R> + Sync + 'static>(
        name: String,
        config: &JournalConfig,
        database: Arc<Database>,
        table: impl Table<Row>,
        meters: Meters,
    ) -> (Arc<Self>, Writer<R, Row>) {
        let queue = Queue::new(config.queue_rows);
        let journal = Arc::new(Self { queue, in_hand: AtomicUsize::new(0), meters });
        let (config, table) = (config.clone(), Box::new(table));
        (journal.clone(), Writer { name, journal, database, table, config, batch: 0 })
    }

    /// Queues a record; never waits.
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

    /// Updates the gauge before the metrics are shown.
    pub fn refresh_gauge(&self) {
        let queued = self.queue.len() + self.in_hand.load(Relaxed);
        self.meters.queued.set(queued as f64);
    }
}

/// The table that a journal writes to.
#[async_trait]
pub(crate) trait Table<Row>: Send + Sync + 'static {
    /// Adds rows within a transaction.
    async fn add(&self, transaction: &mut Transaction, rows: &[Row]) -> Result<(), Error>;

    /// The statement that deletes up to `$2` rows older than `$1` (Unix ms).
    fn prune(&self) -> &'static str;
}
