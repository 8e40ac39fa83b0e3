//! The pending repairs of one shard.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Moment;
use crate::model::Namespace;

/// The least time between two repairs of a namespace. Without it, repairs would run all the time while Redis keeps
/// evicting bookkeeping.
const LEAST_PAUSE: Duration = Duration::from_secs(10);

/// The most namespaces whose last repair is remembered.
const MAX_REPAIRED: usize = 1_000;

/// The most namespaces that are remembered because one of their Redis keys holds another type.
const MAX_FOREIGN: usize = 1_000;

/// The pending repairs of one shard.
#[derive(Default)]
pub struct Repairs {
    waiting: Mutex<BTreeSet<Namespace>>,
    /// Namespaces with a Redis key of another type.
    foreign: Mutex<HashSet<String>>,
    /// When this process last repaired each namespace.
    repaired: Mutex<HashMap<String, Moment>>,
    changed: Notify,
}

impl Repairs {
    /// Requests a repair of a namespace.
    pub fn request(&self, namespace: &Namespace) {
        if self.waiting.lock().insert(namespace.clone()) {
            self.changed.notify_one();
        }
    }

    /// Waits for a requested repair and takes it.
    pub async fn next(&self) -> Namespace {
        loop {
            if let Some(namespace) = self.waiting.lock().pop_first() {
                return namespace;
            }
            self.changed.notified().await;
        }
    }

    /// Remembers that this Redis key of ours holds another type.
    pub fn remember_foreign(&self, name: &str) {
        let namespace = name.split(':').nth(1).map(|scope| scope.split('@').next().unwrap_or(scope));
        let mut foreign = self.foreign.lock();
        if let Some(namespace) = namespace.filter(|_| foreign.len() < MAX_FOREIGN) {
            foreign.insert(namespace.to_owned());
        }
    }

    /// Whether a Redis key of this namespace was found to hold another type.
    pub fn has_foreign(&self, namespace: &Namespace) -> bool {
        self.foreign.lock().contains(namespace.as_str())
    }

    /// Forgets that a Redis key of this namespace held another type, because the whole shard was searched.
    pub fn forget_foreign(&self, namespace: &Namespace) {
        self.foreign.lock().remove(namespace.as_str());
    }

    pub fn was_repaired_lately(&self, namespace: &Namespace) -> bool {
        let repaired = self.repaired.lock();
        repaired.get(namespace.as_str()).is_some_and(|at| Moment::now().since(*at) < LEAST_PAUSE)
    }

    pub fn record_end(&self, namespace: &Namespace) {
        let (mut repaired, now) = (self.repaired.lock(), Moment::now());
        if repaired.len() >= MAX_REPAIRED {
            repaired.retain(|_, at| now.since(*at) < LEAST_PAUSE);
        }
        repaired.insert(namespace.as_str().to_owned(), now);
    }
}
