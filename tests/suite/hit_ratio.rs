//! The hit ratio of the eviction policies on recorded traffic: a cache-aside client with room for a tenth of the
//! distinct keys. The embedded store has exactly as many hits as a simple simulation of the policy; shards choose
//! among samples, and their LRU stays within two percentage points of the exact LRU.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::thread;
use std::time::Instant;

use serde_json::json;

use crate::support::client::namespace;
use crate::support::line::Line;
use crate::support::random::Random;
use crate::support::service::{Service, Store};
use crate::support::walk::ENTRY_OVERHEAD;

/// The path of the trace, relative to the project. The trace is somebody else's data and not part of the project.
const TRACE: &str = "../shared/traces/web12.trace.xz";

/// The hit ratio of an exact LRU with room for a tenth of the keys, from the description of the trace.
const EXACT_LRU_OF_TRACE: f64 = 0.6848;

const QUOTA_MB: usize = 2;

/// All keys have the same length, so that all entries are charged equally.
const KEY_BYTES: usize = 10;
const POLICIES: [&str; 3] = ["LRU", "LFU", "FIFO"];

/// The requested keys, in order.
struct Traffic {
    keys: Vec<u32>,
    /// How many entries fit: a tenth of the distinct keys.
    places: usize,
    /// The size of each value, so that exactly `places` entries with their keys and overhead fill the quota.
    value_bytes: usize,
}

impl Traffic {
    /// The trace if it is next to the checkout, else a generated workload.
    fn load() -> Traffic {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TRACE);
        if path.is_file() {
            let mut packed = BufReader::new(File::open(&path).expect("the trace can be read"));
            let mut bytes = Vec::new();
            lzma_rs::xz_decompress(&mut packed, &mut bytes).expect("the trace is an .xz file");
            let (records, rest) = bytes.as_chunks::<4>();
            assert!(rest.is_empty(), "the trace ends with a complete record");
            let traffic = Traffic::new(records.iter().map(|record| u32::from_be_bytes(*record)).collect());
            assert_eq!((traffic.keys.len(), traffic.places), (95_607, 1_375));
            let ratio = traffic.ratio(traffic.exact_lru());
            assert!((ratio - EXACT_LRU_OF_TRACE).abs() < 0.0005, "the simulated LRU hits {ratio:.4}");
            return traffic;
        }
        eprintln!("{TRACE} is not next to this checkout: replaying a generated workload instead");
        Traffic::new(zipf(60_000, 10_000))
    }

    fn new(keys: Vec<u32>) -> Traffic {
        let places = keys.iter().collect::<HashSet<_>>().len() / 10;
        let charged = (QUOTA_MB << 20) / places;
        assert_eq!((QUOTA_MB << 20) / charged, places, "entries of whole bytes fill the quota");
        let value_bytes = charged - KEY_BYTES - ENTRY_OVERHEAD as usize;
        Traffic { keys, places, value_bytes }
    }

    fn ratio(&self, hits: usize) -> f64 {
        hits as f64 / self.keys.len() as f64
    }

    fn exact(&self, policy: &str) -> usize {
        match policy {
            "LRU" => self.exact_lru(),
            "LFU" => self.exact_lfu(),
            "FIFO" => self.exact_fifo(),
            other => panic!("no simulation of {other}"),
        }
    }

    fn exact_lru(&self) -> usize {
        self.simulated(|_, now| (0, now), |_, now| (0, now))
    }

    /// Evicts the entry with the fewest reads since it was created; among equals, the least recently used.
    fn exact_lfu(&self) -> usize {
        self.simulated(|_, now| (0, now), |(reads, _), now| (reads + 1, now))
    }

    fn exact_fifo(&self) -> usize {
        self.simulated(|_, now| (0, now), |rank, _| rank)
    }

    /// The hits of a cache that evicts the entry with the lowest rank. `written` and `read` give the rank of an entry
    /// after a write and after a read.
    fn simulated(
        &self,
        written: impl Fn(u32, usize) -> (usize, usize),
        read: impl Fn((usize, usize), usize) -> (usize, usize),
    ) -> usize {
        let mut ranks: HashMap<u32, (usize, usize)> = HashMap::new();
        let mut order: BTreeSet<((usize, usize), u32)> = BTreeSet::new();
        let mut hits = 0;
        for (now, key) in self.keys.iter().enumerate() {
            let rank = if let Some(rank) = ranks.get(key) {
                hits += 1;
                order.remove(&(*rank, *key));
                read(*rank, now)
            } else {
                if ranks.len() == self.places {
                    let (_, victim) = order.pop_first().expect("the cache is full");
                    ranks.remove(&victim);
                }
                written(*key, now)
            };
            ranks.insert(*key, rank);
            order.insert((rank, *key));
        }
        hits
    }

    /// Sends a GET for each key, and a PUT after each miss. Returns the number of hits.
    fn replay(&self, service: &Service, ns: &str) -> usize {
        let mut line = Line::open(service.address());
        let value = format!("\"{}\"", "x".repeat(self.value_bytes - 2));
        let mut hits = 0;
        for key in &self.keys {
            let key = format!("{key:0KEY_BYTES$}");
            let answer = line.get(ns, &key);
            if answer.status == 404 {
                line.set(ns, &key, &value).expect(201);
            } else {
                answer.expect(200);
                hits += 1;
            }
        }
        hits
    }
}

/// Random keys with a Zipf distribution: the r-th key is drawn in proportion to 1 / r.
fn zipf(draws: usize, distinct: u32) -> Vec<u32> {
    let mut random = Random::seeded(12);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=distinct)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        })
        .collect();
    let draw = |random: &mut Random| {
        let point = sum * (random.number() >> 11) as f64 / (1_u64 << 53) as f64;
        sums.partition_point(|sum| *sum <= point) as u32
    };
    (0..draws).map(|_| draw(&mut random)).collect()
}

/// The hits by policy, in the order of [`POLICIES`]. Each policy has its own namespace and connection.
async fn hits(store: Store, traffic: &Traffic) -> [usize; 3] {
    let service = Service::start(store.settings());
    let cache = service.client();
    let names = POLICIES.map(namespace);
    for (policy, ns) in POLICIES.iter().zip(&names) {
        let body = json!({"max_size_mb": QUOTA_MB, "eviction_policy": policy}).to_string();
        cache.put_policy(ns, body).await.expect(201);
    }
    let started = Instant::now();
    let hits = thread::scope(|scope| {
        let service = &service;
        let replays = names.each_ref().map(|ns| scope.spawn(move || traffic.replay(service, ns)));
        replays.map(|replay| replay.join().expect("a replay that fails says why"))
    });
    let took = started.elapsed();
    // A new client: the service may have closed the idle connections of the first one.
    let cache = service.client();
    for ((policy, ns), hits) in POLICIES.iter().zip(&names).zip(hits) {
        let (exact, stats) = (traffic.exact(policy), cache.stats(ns).await.expect(200));
        eprintln!(
            "{policy} on {store:?}: hit ratio {:.4}, exact {:.4}, room for {} values of {} bytes; all took {took:?}",
            traffic.ratio(hits),
            traffic.ratio(exact),
            traffic.places,
            traffic.value_bytes,
        );
        let keys = stats.number("total_keys");
        assert!(keys <= traffic.places as u64 && keys >= traffic.places as u64 - 3, "{policy}: {keys} keys");
        assert_eq!(keys + stats.number("evictions"), (traffic.keys.len() - hits) as u64, "{policy}");
    }
    hits
}

#[tokio::test]
async fn the_embedded_store_has_exactly_as_many_hits_as_the_exact_policies() {
    let traffic = Traffic::load();
    let found = hits(Store::Embedded, &traffic).await;
    assert_eq!(found, POLICIES.map(|policy| traffic.exact(policy)), "{POLICIES:?}");
}

#[tokio::test]
async fn three_shards_are_within_two_points_of_the_exact_lru() {
    let traffic = Traffic::load();
    let [lru, lfu, fifo] = hits(Store::Shards, &traffic).await;
    let off = traffic.ratio(lru) - traffic.ratio(traffic.exact_lru());
    assert!(off.abs() <= 0.02, "LRU is {off:+.4} off");
    let off = traffic.ratio(fifo) - traffic.ratio(traffic.exact_fifo());
    assert!(off.abs() <= 0.05, "FIFO is {off:+.4} off");
    // Exact LFU evicts the newest entry again and again. Samples do not always contain it, so the ratio may be
    // better.
    let off = traffic.ratio(lfu) - traffic.ratio(traffic.exact_lfu());
    assert!(off >= -0.02, "LFU is {off:+.4} off");
}

#[test]
fn the_simulations_are_right_on_traffic_checked_by_hand() {
    let traffic = Traffic { keys: vec![1, 2, 1, 3, 1, 2, 3, 2], places: 2, value_bytes: 1 };
    // LRU: 1 hits, 3 evicts 2, 1 hits, 2 evicts 3, 3 evicts 1, 2 hits.
    assert_eq!(traffic.exact_lru(), 3);
    // FIFO: 1 hits, 3 evicts 1, 1 evicts 2, 2 evicts 3, 3 evicts 1, 2 hits.
    assert_eq!(traffic.exact_fifo(), 2);
    // LFU: 1 hits, 3 evicts 2, 1 hits, 2 evicts 3, 3 evicts 2, 2 evicts 3.
    assert_eq!(traffic.exact_lfu(), 2);
}
