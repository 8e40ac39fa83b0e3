//! Keeps the registry and the database in step.
//!
//! A look at one number, the revision, tells whether anything changed elsewhere. That works the
//! same on both databases and cannot miss a change, as a notification can.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::record::Loaded;
use super::{Registry, Repository};
use crate::database::Error;

/// Records created here that are saved in one transaction at most. Each is a round trip, and all of them
/// must fit into one deadline of the database, however far away it is.
const BATCH: usize = 20;

/// The task between registry and database.
pub struct Synchronizer {
    pub registry: Arc<Registry>,
    pub repository: Arc<dyn Repository>,
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
            // The failure is logged and shown in health where the database is run.
            if let Err(error) = self.step(&mut known).await {
                tracing::debug!(%error, "namespaces not refreshed");
            }
        }
        if let Err(error) = self.save().await {
            tracing::warn!(%error, "namespaces created here were not saved");
        }
    }

    async fn step(&self, known: &mut Option<i64>) -> Result<(), Error> {
        let _turn = self.registry.turn().await;
        // What cannot be saved stays pending, and keeps nobody from hearing of changes elsewhere.
        let saved = self.save().await;
        if *known != Some(self.repository.revision().await?) {
            let Loaded { revision, records, strange } = self.repository.load().await?;
            for (namespace, reason) in &strange {
                tracing::warn!(
                    namespace,
                    reason,
                    "a policy cannot be understood: writes to its namespace are refused"
                );
            }
            self.registry.replace(records, strange.into_keys().collect());
            *known = Some(revision);
        }
        self.registry.confirm();
        saved
    }

    async fn save(&self) -> Result<(), Error> {
        for batch in self.registry.pending().chunks(BATCH) {
            self.repository.add_missing(batch.to_vec()).await?;
            self.registry.saved(batch);
        }
        Ok(())
    }
}
