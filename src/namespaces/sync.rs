//! Keeps the registry in step with the database.
//!
//! One number, the revision, shows whether another instance changed anything. Polling the revision works the same on
//! both databases. It cannot miss a change, while a notification could get lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::record::Loaded;
use super::{Registry, Repository};
use crate::database::Error;

/// The maximum number of records saved in one transaction. Each is a round trip, and all of them must fit into the
/// database's deadline for one statement, also when the database is far away.
const BATCH: usize = 20;

/// The background task that saves new namespaces and loads changes.
pub struct Synchronizer {
    pub registry: Arc<Registry>,
    pub repository: Arc<Repository>,
    pub refresh: Duration,
}

impl Synchronizer {
    /// Runs until `shutdown`, then saves what is still pending.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(self.refresh);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            // The database module logs the failure and shows it in /health.
            if let Err(error) = self.step(&mut known).await {
                tracing::debug!(%error, "cannot refresh the namespaces");
            }
        }
        if let Err(error) = self.save().await {
            tracing::warn!(%error, "namespaces created here were not saved");
        }
    }

    async fn step(&self, known: &mut Option<i64>) -> Result<(), Error> {
        let _turn = self.registry.turn().await;
        // If saving fails, the records stay pending, and changes of other instances are still loaded.
        let saved = self.save().await;
        if *known != Some(self.repository.revision().await?) {
            let Loaded { revision, records, unreadable } = self.repository.load().await?;
            for (namespace, reason) in &unreadable {
                tracing::warn!(
                    namespace,
                    reason,
                    "cannot understand this policy: writes to its namespace are refused"
                );
            }
            self.registry.replace(records, unreadable.into_keys().collect());
            *known = Some(revision);
        }
        self.registry.confirm();
        saved
    }

    async fn save(&self) -> Result<(), Error> {
        for batch in self.registry.pending().chunks(BATCH) {
            self.repository.add_missing(batch).await?;
            self.registry.saved(batch);
        }
        Ok(())
    }
}
