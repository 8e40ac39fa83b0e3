//! Hits and misses, counted in memory and written to the store in batches: a read never causes a
//! write of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::metrics::Metrics;
use crate::model::Namespace;
use crate::store::{Error, Reads, SharedStore};

/// Namespaces counted apart between two writes. Reads of more are counted as lost: nobody has
/// that many, but a client may try names at random.
const MAX_NAMESPACES: usize = 100_000;

/// Counts of this instance that are not in the store yet.
pub struct ReadCounters {
    counts: RwLock<HashMap<String, Arc<Counts>>>,
    /// One write at a time, so that whoever asks for the stats finds none half written.
    writing: tokio::sync::Mutex<()>,
    store: SharedStore,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Counts {
    fn add(&self, reads: Reads) {
        self.hits.fetch_add(reads.hits, Relaxed);
        self.misses.fetch_add(reads.misses, Relaxed);
    }
}

impl ReadCounters {
    pub fn new(store: SharedStore, metrics: Arc<Metrics>) -> Self {
        Self { counts: RwLock::default(), writing: tokio::sync::Mutex::default(), store, metrics }
    }

    /// Counts reads of a namespace.
    pub fn add(&self, namespace: &str, reads: Reads) {
        if let Some(counts) = self.counts.read().get(namespace) {
            return counts.add(reads);
        }
        let mut all = self.counts.write();
        if all.len() >= MAX_NAMESPACES && !all.contains_key(namespace) {
            return self.metrics.stats_lost.increment(reads.hits + reads.misses);
        }
        // Under the lock, so that a write cannot take the counter out before this is in it.
        all.entry(namespace.to_owned()).or_default().add(reads);
    }

    /// Writes everything counted so far to the store. What the store did not take for certain is
    /// counted again later; what it may have taken is not, as twice would be worse than lost.
    pub async fn flush(&self) {
        let _turn = self.writing.lock().await;
        let reads = self.take();
        if reads.is_empty() {
            return;
        }
        for ((namespace, reads), result) in reads.iter().zip(self.store.record_reads(&reads).await) {
            match result {
                Ok(()) => {}
                Err(error) if error.may_have_happened() => self.lost(*reads, &error),
                Err(_) => self.add(namespace.as_str(), *reads),
            }
        }
    }

    fn lost(&self, reads: Reads, error: &Error) {
        tracing::warn!(%error, hits = reads.hits, misses = reads.misses, "counts of reads may be lost");
        self.metrics.stats_lost.increment(reads.hits + reads.misses);
    }

    /// Takes all counts out, and forgets the namespaces that nobody reads any more.
    fn take(&self) -> Vec<(Namespace, Reads)> {
        let mut taken = Vec::new();
        self.counts.write().retain(|namespace, counts| {
            let reads = Reads { hits: counts.hits.swap(0, Relaxed), misses: counts.misses.swap(0, Relaxed) };
            let idle = reads == Reads::default();
            if let (false, Ok(namespace)) = (idle, Namespace::parse(namespace)) {
                taken.push((namespace, reads));
            }
            !idle
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store as _;
    use crate::store::embedded::Embedded;

    #[tokio::test]
    async fn no_read_is_lost_or_counted_twice_while_counts_are_written() {
        let store = Arc::new(Embedded::new(1 << 20));
        let counters = Arc::new(ReadCounters::new(store.clone(), Arc::new(Metrics::default())));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let counters = counters.clone();
                tokio::spawn(async move {
                    for _ in 0..5000 {
                        counters.add("n", Reads { hits: 1, misses: 2 });
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            counters.flush().await;
            tokio::task::yield_now().await;
        }
        counters.flush().await;
        let totals = store.totals(&Namespace::parse("n").unwrap()).await.unwrap();
        assert_eq!((totals.hits, totals.misses), (20_000, 40_000));
    }
}
