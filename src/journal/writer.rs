//! The writer at the end of a queue.
//!
//! The database stores the number of each writer's last batch, in the transaction of the batch. A batch that is sent
//! again after a lost answer is therefore not written twice.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use metrics::Counter;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Journal, Table};
use crate::clock::unix_millis;
use crate::config::JournalConfig;
use crate::database::{Database, Error, Transaction, signed};

/// Pauses between attempts to write a batch.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How often old rows are deleted, how many with one statement, and the pause between two statements, in which new
/// rows are written.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
const PRUNE_ROWS: i64 = 5000;

const ADVANCE: &str = "INSERT INTO cache_journal_positions VALUES ($1, $2, {now}) \
     ON CONFLICT (writer) DO UPDATE SET batch = EXCLUDED.batch, updated_at = EXCLUDED.updated_at \
     WHERE cache_journal_positions.batch < EXCLUDED.batch";

/// Deletes the positions of writers that have been silent for 30 days.
const FORGET: &str = "DELETE FROM cache_journal_positions WHERE updated_at < {ago 2592000000}";

/// Takes records from the queue and writes them in batches.
pub struct Writer<R, Row> {
    pub(super) name: String,
    pub(super) journal: Arc<Journal<R>>,
    pub(super) database: Arc<Database>,
    pub(super) table: Box<dyn Table<Row>>,
    pub(super) config: JournalConfig,
    /// The number of the latest batch.
    pub(super) batch: i64,
}

impl<R, Row: From<R> + Sync + 'static> Writer<R, Row> {
    /// Writes until `shutdown`, then writes the rest of the queue, as long as the database accepts it.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let journal = self.journal.clone();
        let queue = &journal.queue;
        // When the oldest record must be written.
        let mut due = None;
        let mut next_prune = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = queue.news() => {
                    due.get_or_insert_with(|| Instant::now() + self.config.flush);
                }
                () = sleep_until(due.unwrap_or(next_prune)), if due.is_some() => {}
                () = sleep_until(next_prune) => {
                    let is_done = self.prune().await;
                    next_prune = Instant::now() + if is_done { PRUNE_INTERVAL } else { PRUNE_PAUSE };
                }
            }
            while queue.len() >= self.config.batch_rows || due.is_some_and(|due| due <= Instant::now()) {
                self.write(&shutdown).await;
                // Records that arrived during the write start a new waiting time.
                due = (queue.len() > 0).then(|| Instant::now() + self.config.flush);
            }
        }
        queue.close();
        while queue.len() > 0 {
            self.write(&shutdown).await;
        }
    }

    /// Writes one batch and retries until it is written or the process ends.
    async fn write(&mut self, shutdown: &CancellationToken) {
        let batch = self.journal.take(self.config.batch_rows);
        let rows: Vec<Row> = batch.into_iter().map(Row::from).collect();
        // If the database rejects the data, the batch is halved until the bad row is alone. A part gets its number at
        // its first attempt, because numbers must grow in the order of writing.
        let mut parts = vec![(None, rows.as_slice())];
        let mut pause = RETRY_MIN;
        while let Some((number, part)) = parts.pop() {
            let number = number.unwrap_or_else(|| self.next_number());
            match self.add(number, part).await {
                Ok(()) => self.finished(part, &self.journal.meters.written),
                Err(error) if error.is_refused_data() && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([(None, second), (None, first)]);
                }
                Err(error) if error.is_refused_data() || shutdown.is_cancelled() => {
                    tracing::warn!(%error, writer = self.name, rows = part.len(), "rows dropped");
                    self.finished(part, &self.journal.meters.dropped);
                }
                Err(error) => {
                    tracing::debug!(%error, writer = self.name, "cannot write rows yet");
                    parts.push((Some(number), part));
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                    }
                }
            }
        }
    }

    /// Adds all rows of a batch or none. Does nothing if the batch was written before.
    async fn add(&self, number: i64, rows: &[Row]) -> Result<(), Error> {
        self.database
            .transaction(async |transaction| match advance(transaction, &self.name, number).await? {
                true => self.table.add(transaction, rows).await,
                false => Ok(()),
            })
            .await
    }

    fn next_number(&mut self) -> i64 {
        self.batch += 1;
        self.batch
    }

    fn finished(&self, rows: &[Row], counter: &Counter) {
        counter.increment(rows.len() as u64);
        self.journal.in_hand.fetch_sub(rows.len(), Relaxed);
    }

    /// Deletes some old rows. Returns whether all old rows are deleted.
    async fn prune(&self) -> bool {
        let Some(retention) = self.config.retention else { return true };
        let before = signed(unix_millis().0.saturating_sub(retention.as_millis() as u64));
        match self.delete_older(before).await {
            // Continue until nothing is deleted: fewer than the limit may be deleted because rows of a wrong clock
            // are among them.
            Ok(pruned) => pruned == 0,
            Err(error) => {
                tracing::debug!(%error, writer = self.name, "cannot delete old rows");
                true
            }
        }
    }

    /// Deletes some rows and frees their space. Returns 0 when nothing is left to delete or to free.
    async fn delete_older(&self, before: i64) -> Result<u64, Error> {
        let delete = async |transaction: &mut Transaction| {
            transaction.query(self.table.prune()).bind(before).bind(PRUNE_ROWS).execute().await
        };
        Ok(self.database.transaction(delete).await? + self.database.give_back().await?)
    }
}

/// Stores in this transaction that `writer` wrote `batch`. Returns false if it was written before. The first batch of
/// a writer deletes the rows of writers that are long gone.
async fn advance(transaction: &mut Transaction, writer: &str, batch: i64) -> Result<bool, Error> {
    if batch == 1 {
        transaction.query(FORGET).execute().await?;
    }
    Ok(transaction.query(ADVANCE).bind(writer).bind(batch).execute().await? > 0)
}
