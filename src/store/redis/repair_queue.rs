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
pub const MAX_FOREIGN: usize = 1_000;

/// The pending repairs of one shard.
#[derive(Default)]
pub struct Repairs {
    pub waiting: Mutex<BTreeSet<String>>,
    /// Namespaces with a Redis key of another type.
    pub foreign: Mutex<HashSet<String>>,
    /// When this process last repaired each namespace.
    repaired: Mutex<HashMap<String, Moment>>,
    pub changed: Notify,
}

impl Repairs {
    pub fn was_repaired_lately(&self, namespace: &Namespace) -> bool {
        let repaired = self.repaired.lock();
        repaired.get(namespace.as_str()).is_some_and(|at| Moment::now().since(*at) < LEAST_PAUSE)
    }

    pub fn note_end(&self, namespace: &Namespace) {
        let (mut repaired, now) = (self.repaired.lock(), Moment::now());
        if repaired.len() >= MAX_REPAIRED {
            repaired.retain(|_, at| now.since(*at) < LEAST_PAUSE);
        }
        repaired.insert(namespace.as_str().to_owned(), now);
    }
}
