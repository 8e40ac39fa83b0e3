//! The turns of the writes that make room on a shard, so that they do not all do it at the same time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::clock::Moment;

/// The turns for making room on one shard.
pub struct EvictionTurns {
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// How long a write may wait for room.
    patience: Duration,
}

/// The turn of a write: it makes room now.
pub struct Turn {
    _guard: OwnedMutexGuard<()>,
    pub scope: Scope,
    pub until: Moment,
    pub rounds: usize,
}

/// Where a write makes room: within the quota of its namespace, or in the memory of the whole shard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Namespace,
    Shard,
}

impl EvictionTurns {
    pub fn new(patience: Duration) -> Self {
        Self { turns: Mutex::default(), patience }
    }

    /// The turn of `namespace`; an empty name means the turn of the whole shard.
    fn of(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(namespace) {
            return turn.clone();
        }
        // Remove turns that nobody uses or waits for.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(namespace.to_owned()).or_default().clone()
    }

    /// Waits for a turn until `until`, or for as long as a write may wait. `None` if that time is over.
    pub async fn wait(&self, scope: Scope, namespace: &str, until: Option<Moment>) -> Option<Turn> {
        let until = until.unwrap_or_else(|| Moment::now() + self.patience);
        let key = match scope {
            Scope::Namespace => namespace,
            Scope::Shard => "",
        };
        let patience = until.since(Moment::now());
        let guard = timeout(patience, self.of(key).lock_owned()).await.ok()?;
        Some(Turn { _guard: guard, scope, until, rounds: 0 })
    }
}
