//! Counts the operations on each namespace in memory. Hits and misses are written to the store in batches, because a
//! read must not cause a write; `trends` shows the other counts.

mod hot_keys;

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

pub use self::hot_keys::{HotKeys, Seen};
use crate::metrics::{Latencies, Metrics};
use crate::model::{Answer, Namespace, Operation};
use crate::namespaces::Registry;
use crate::store::{Reads, SharedStore};
use crate::workers::PerWorker;

/// The maximum number of namespaces that a worker counts separately. Reads of further namespaces count as lost: a
/// client may try random names.
const MAX_NAMESPACES: usize = 20_000;

/// For how many flushes the reads of an unknown namespace are kept; after that they count as lost.
const PATIENCE_FLUSHES: u32 = 600;

/// Counts of this instance that are not in the store yet.
pub struct ReadCounters {
    /// One for each worker, so that workers do not wait for each other.
    counts: PerWorker<Mutex<Counts>>,
    pub hot_keys: HotKeys,
    /// Locked during a write, so that a request for the stats waits until the write is complete.
    writing: tokio::sync::Mutex<()>,
    store: SharedStore,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
}

/// Counts by namespace.
type Counts = HashMap<String, Count>;

#[derive(Default)]
struct Count {
    reads: Reads,
    /// Traffic that `trends` has not taken yet.
    traffic: Traffic,
    /// How many flushes skipped this count because the namespace is unknown.
    waited_flushes: u32,
}

/// Operations on one namespace by one instance in a period of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Entries found.
    pub hits: u64,
    pub misses: u64,
    /// Operations that may have changed something; a batch counts as one.
    pub writes: u64,
    /// Operations that failed.
    pub failures: u64,
    pub leases: LeaseCounts,
    /// Latencies of all operations.
    pub latencies: Latencies,
}

/// What happened to leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Given to callers.
    pub won: u64,
    /// Refused, because another caller had the lease.
    pub held: u64,
    /// Ended by their values.
    pub filled: u64,
    /// Lost before their values came.
    pub lost: u64,
}

impl LeaseCounts {
    fn add(&mut self, more: Self) {
        self.won += more.won;
        self.held += more.held;
        self.filled += more.filled;
        self.lost += more.lost;
    }
}

impl Traffic {
    fn record(&mut self, reads: Reads, operation: Operation, answer: Answer, latency: Duration) {
        self.hits += reads.hits;
        self.misses += reads.misses;
        self.writes += u64::from(operation.is_write());
        self.failures += u64::from(answer == Answer::Failed);
        self.latencies.observe(latency);
    }

    pub fn add(&mut self, more: &Self) {
        self.hits += more.hits;
        self.misses += more.misses;
        self.writes += more.writes;
        self.failures += more.failures;
        self.leases.add(more.leases);
        self.latencies.add(&more.latencies);
    }

    pub fn is_empty(&self) -> bool {
        self.latencies.count() == 0 && self.leases == LeaseCounts::default()
    }
}

impl ReadCounters {
    pub fn new(store: SharedStore, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        let (counts, hot_keys, writing) = Default::default();
        Self { counts, hot_keys, writing, store, registry, metrics }
    }

    /// Counts an operation on a namespace and its `reads`.
    pub fn record(&self, namespace: &str, reads: Reads, operation: Operation, answer: Answer, latency: Duration) {
        self.count(namespace, reads, |count| {
            count.reads += reads;
            count.traffic.record(reads, operation, answer, latency);
        });
    }

    /// Counts what happened to leases on a namespace, besides [`ReadCounters::record`].
    pub fn record_leases(&self, namespace: &str, leases: LeaseCounts) {
        self.count(namespace, Reads::default(), |count| count.traffic.leases.add(leases));
    }

    /// Puts back reads that the store did not accept.
    fn put_back(&self, namespace: &str, reads: Reads) {
        self.count(namespace, reads, |count| count.reads += reads);
    }

    fn count(&self, namespace: &str, reads: Reads, add: impl FnOnce(&mut Count)) {
        let mut counts = self.counts.own().lock();
        if let Some(count) = counts.get_mut(namespace) {
            add(count);
        } else if self.is_known(namespace) || (reads != Reads::default() && counts.len() < MAX_NAMESPACES) {
            add(counts.entry(namespace.to_owned()).or_default());
        } else {
            // Operations on unknown namespaces are not counted, except reads.
            self.metrics.stats_lost.increment(reads.hits + reads.misses);
        }
    }

    fn is_known(&self, namespace: &str) -> bool {
        Namespace::parse(namespace).is_ok_and(|namespace| self.registry.get(&namespace).is_some())
    }

    /// Takes the traffic since the last call of those namespaces for which `wanted` returns true. The traffic of the
    /// other namespaces stays.
    pub fn take_traffic(&self, wanted: impl Fn(&str) -> bool) -> HashMap<String, Traffic> {
        let mut taken: HashMap<String, Traffic> = HashMap::new();
        for counts in self.counts.all() {
            for (name, count) in counts.lock().iter_mut() {
                if !count.traffic.is_empty() && wanted(name) {
                    taken.entry_ref(name.as_str()).or_default().add(&std::mem::take(&mut count.traffic));
                }
            }
        }
        taken
    }

    /// Writes all counts to the store. Counts that the store certainly did not accept are written again later. Counts
    /// that the store may have accepted are dropped, because counting twice would be worse than losing them.
    ///
    /// The write continues even if the caller is cancelled: counts that were taken out must be written.
    pub async fn flush(self: &Arc<Self>) {
        let counters = self.clone();
        if let Err(error) = tokio::spawn(async move { counters.write().await }).await {
            tracing::error!(%error, "cannot write the counts of reads");
        }
    }

    async fn write(&self) {
        let _turn = self.writing.lock().await;
        let reads = self.take();
        if reads.is_empty() {
            return;
        }
        for ((namespace, reads), result) in reads.iter().zip(self.store.record_reads(&reads).await) {
            match result {
                Ok(()) => {}
                Err(error) if error.may_have_happened() => {
                    tracing::warn!(%error, %namespace, hits = reads.hits, misses = reads.misses, "counts of reads may be lost");
                    self.metrics.stats_lost.increment(reads.hits + reads.misses);
                }
                Err(_) => self.put_back(namespace.as_str(), *reads),
            }
        }
    }

    /// Takes the counts of known namespaces out, and drops those that are not used any more.
    ///
    /// Reads of a namespace that does not exist wait for its first write, which usually follows, because programs read
    /// a key before they store it. The store keeps nothing for random names.
    fn take(&self) -> Vec<(Namespace, Reads)> {
        let mut taken: HashMap<Namespace, Reads> = HashMap::new();
        for counts in self.counts.all() {
            counts.lock().retain(|name, count| {
                let Ok(namespace) = Namespace::parse(name) else { return false };
                if self.registry.get(&namespace).is_some() {
                    let reads = std::mem::take(&mut count.reads);
                    let is_idle = reads == Reads::default();
                    if !is_idle {
                        *taken.entry(namespace).or_default() += reads;
                    }
                    return !is_idle || !count.traffic.is_empty();
                }
                count.waited_flushes += 1;
                let waits = count.waited_flushes <= PATIENCE_FLUSHES && count.reads != Reads::default();
                if !waits {
                    self.metrics.stats_lost.increment(count.reads.hits + count.reads.misses);
                }
                waits
            });
        }
        taken.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::NamespaceConfig;
    use crate::model::{Policy, PolicyFields};
    use crate::store::Store as _;
    use crate::store::embedded::Embedded;
    use std::time::Duration;

    fn counters(store: &Arc<Embedded>) -> Arc<ReadCounters> {
        let config = NamespaceConfig {
            default_policy: Policy::parse(&PolicyFields::default()).unwrap(),
            auto_create: true,
            max_namespaces: 10,
            refresh: Duration::from_secs(1),
        };
        let registry = Arc::new(Registry::new(config));
        registry.replace(Vec::new(), BTreeSet::new());
        Arc::new(ReadCounters::new(store.clone(), registry, Arc::new(Metrics::default())))
    }

    async fn totals(store: &Embedded) -> (u64, u64) {
        let totals = store.totals(&Namespace::parse("n").unwrap()).await.unwrap();
        (totals.hits, totals.misses)
    }

    #[tokio::test]
    async fn reads_from_before_the_first_write_count_once_it_came() {
        let store = Arc::new(Embedded::new(1 << 20));
        let counters = counters(&store);
        counters.put_back("n", Reads { hits: 0, misses: 1 });
        counters.flush().await;
        assert_eq!(totals(&store).await, (0, 0), "nobody wrote it yet");
        counters.registry.for_write("n").unwrap();
        counters.flush().await;
        assert_eq!(totals(&store).await, (0, 1));
    }

    #[tokio::test]
    async fn names_that_nobody_wrote_take_no_place_unless_they_are_read() {
        let store = Arc::new(Embedded::new(1 << 20));
        let counters = counters(&store);
        let record = |name: &str, reads, operation, answer| {
            counters.record(name, reads, operation, answer, Duration::from_micros(10));
        };
        for i in 0..MAX_NAMESPACES + 10 {
            record(&format!("tried-{i}"), Reads::default(), Operation::Delete, Answer::Done);
        }
        record("n", Reads { hits: 0, misses: 1 }, Operation::Get, Answer::Miss);
        counters.registry.for_write("n").unwrap();
        record("n", Reads::default(), Operation::Set, Answer::Done);
        counters.flush().await;
        assert_eq!(totals(&store).await, (0, 1));
        let taken = counters.take_traffic(|name| name == "other");
        assert!(taken.is_empty(), "{taken:?}");
        let taken = counters.take_traffic(|name| name == "n");
        assert_eq!((taken["n"].misses, taken["n"].writes, taken["n"].latencies.count()), (1, 1, 2));
        assert!(counters.take_traffic(|_| true).is_empty());
        counters.flush().await;
        assert_eq!(totals(&store).await, (0, 1), "nothing is counted twice");
    }

    #[tokio::test]
    async fn no_read_is_lost_or_counted_twice_while_counts_are_written() {
        let store = Arc::new(Embedded::new(1 << 20));
        let counters = counters(&store);
        counters.registry.for_write("n").unwrap();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let counters = counters.clone();
                tokio::spawn(async move {
                    for _ in 0..5000 {
                        counters.put_back("n", Reads { hits: 1, misses: 2 });
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
        assert_eq!(totals(&store).await, (20_000, 40_000));
    }
}
