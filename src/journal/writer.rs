//! The writer at the end of a queue.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use metrics::Counter;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Batch, Journal, Repository};
use crate::clock::unix_millis;
use crate::config::JournalConfig;
use crate::model::UnixMillis;

/// Pauses between attempts to write a batch.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How often old rows are deleted, how many with one statement, and the pause between two statements, in which new
/// rows are written.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
const PRUNE_ROWS: i64 = 5000;

/// Takes records from the queue and writes them in batches.
pub struct Writer<R, Row> {
    name: String,
    journal: Journal<R>,
    repository: Arc<dyn Repository<Row>>,
    config: JournalConfig,
    /// The number of the latest batch.
    batch: i64,
}

impl<R, Row: From<R> + 'static> Writer<R, Row> {
    pub(super) fn new(
        name: String,
        journal: Journal<R>,
        repository: Arc<dyn Repository<Row>>,
        config: JournalConfig,
    ) -> Self {
        Self { name, journal, repository, config, batch: 0 }
    }

    /// Writes until `shutdown`, then writes the rest of the queue, as long as the database accepts it.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let queue = self.journal.queue.clone();
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
            match self.repository.add(Batch { writer: &self.name, number, rows: part }).await {
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
        let before = UnixMillis(unix_millis().0.saturating_sub(retention.as_millis() as u64));
        match self.repository.prune(before, PRUNE_ROWS).await {
            // Continue until nothing is deleted: fewer than the limit may be deleted because rows of a wrong clock
            // are among them.
            Ok(pruned) => pruned == 0,
            Err(error) => {
                tracing::debug!(%error, writer = self.name, "cannot delete old rows");
                true
            }
        }
    }
}
