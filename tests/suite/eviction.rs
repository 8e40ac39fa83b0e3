//! Which entries are evicted when a namespace is full. The embedded store is exact. Shards choose among samples, so
//! there the tests expect only that nearly all evicted entries are the right ones.
//!
//! Eight batches of a hundred entries are written one after another, then used so that each policy evicts other
//! entries, then evicted by newer ones.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_own_services;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::redis::{self, Connection, Redis};
use crate::support::service::{Service, Settings, Store};
use crate::support::walk::{Books, ENTRY_OVERHEAD};

on_own_services! {
    lru_evicts_the_least_recently_used,
    lfu_evicts_the_least_read,
    fifo_evicts_the_oldest_write,
    ttl_evicts_the_next_to_expire,
}

/// With 7 bytes of key and tag, and the overhead charged for each entry, 1,024 of these values make a MiB.
const VALUE_BYTES: usize = 1_024 - 7 - ENTRY_OVERHEAD as usize;
const BATCHES: usize = 8;
const BATCH: usize = 100;
const NEW: usize = 600;
/// How many entries must be evicted.
const EVICTED: usize = BATCHES * BATCH + NEW - 1_024;

/// A namespace with a quota of 1 MiB, on a service that writes the counts of reads to the shards after 100 ms.
struct Space {
    service: Service,
    cache: Client,
    ns: String,
    policy: &'static str,
}

/// How many entries of each batch, and of the new entries, are still stored.
#[derive(Debug)]
struct Kept {
    batches: [usize; BATCHES],
    new: usize,
}

impl Space {
    async fn new(settings: Settings, policy: &'static str) -> Space {
        let service = Service::start(settings.set("stats_flush_ms", 100));
        let (cache, ns) = (service.client(), namespace("eviction"));
        let body = json!({"max_size_mb": 1, "eviction_policy": policy}).to_string();
        cache.put_policy(&ns, body).await.expect(201);
        Space { service, cache, ns, policy }
    }

    fn keys(batch: usize) -> Vec<String> {
        (0..BATCH).map(|number| format!("b{batch}:{number:02}")).collect()
    }

    /// Writes a batch, with a TTL in seconds if one is given.
    async fn write(&self, batch: usize, ttl: Option<usize>) {
        let entry = |key: &String| {
            let mut entry = json!({"key": key, "value": "x".repeat(VALUE_BYTES - 2), "tags": [format!("b{batch}")]});
            if let Some(ttl) = ttl {
                entry["ttl"] = json!(ttl);
            }
            entry
        };
        let entries: Value = Space::keys(batch).iter().map(entry).collect();
        self.cache.fill(&self.ns, &entries).await;
    }

    async fn write_all(&self) {
        for batch in 0..BATCHES {
            self.write(batch, None).await;
        }
        self.nothing_is_evicted().await;
    }

    async fn nothing_is_evicted(&self) {
        let books = Books::said(&self.cache, &self.ns).await;
        assert_eq!((books.keys, books.evictions), ((BATCHES * BATCH) as u64, 0), "{books:?}");
    }

    /// Reads every entry of a batch.
    async fn read(&self, batch: usize) {
        let keys = Space::keys(batch);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(self.cache.mget(&self.ns, &keys).await.expect(200).number("hits"), BATCH as u64);
    }

    /// Waits until the shards have counted `times` reads of every entry of a batch. The embedded store counts
    /// immediately.
    async fn has_been_read(&self, batch: usize, times: i64) {
        if self.service.store() == Store::Embedded {
            return;
        }
        let mut shards: Vec<Connection> = redis::shared().iter().map(Redis::connect).collect();
        let names: Vec<String> =
            Space::keys(batch).iter().map(|key| format!("cache_meta:{}:{key}", self.ns)).collect();
        eventually(SOON, async || {
            let mut counted = 0;
            for shard in &mut shards {
                let counts = shard.pipeline(names.iter().map(|name| vec!["HGET", name, "access_count"]));
                let counts = counts.iter().filter(|count| **count != redis::Reply::Bulk(None));
                counted += counts.filter(|count| count.integer() >= times).count();
            }
            ensure!(counted == BATCH, "{counted} of batch {batch} have {times} reads");
            Ok(())
        })
        .await;
    }

    /// Writes the new entries and counts which entries are left.
    async fn pushed_out(self) -> Kept {
        for part in 0..NEW / BATCH {
            let entry =
                |number| json!({"key": format!("new{part}:{number:02}"), "value": "x".repeat(VALUE_BYTES - 2)});
            let entries: Value = (0..BATCH).map(entry).collect();
            self.cache.fill(&self.ns, &entries).await;
        }
        let keys = self.cache.all_keys(&self.ns).await;
        let count = |start: &str| keys.iter().filter(|key| key.starts_with(start)).count();
        let mut batches = [0; BATCHES];
        for (batch, kept) in batches.iter_mut().enumerate() {
            *kept = count(&format!("b{batch}:"));
            let tagged = self.cache.list(&self.ns, &[("tag", &format!("b{batch}")), ("limit", "1000")]).await;
            let tagged = tagged.expect(200).json()["keys"].as_array().map(Vec::len);
            assert_eq!(tagged, Some(*kept), "an evicted entry leaves no tag behind");
        }
        let kept = Kept { batches, new: count("new") };
        eprintln!("{} on {:?} keeps {kept:?}", self.policy, self.service.store());
        let books = Books::said(&self.cache, &self.ns).await;
        assert_eq!(books.keys, keys.len() as u64);
        assert_eq!(books.keys + books.evictions, (BATCHES * BATCH + NEW) as u64, "{books:?}");
        assert_eq!((books.bytes, books.expirations), (books.keys * VALUE_BYTES as u64, 0));
        match self.service.store() {
            Store::Embedded => assert_eq!(books.evictions, EVICTED as u64, "only as many as necessary"),
            // Each shard has a third of the quota, but not exactly a third of the keys.
            Store::Shards => assert!((EVICTED as u64..=EVICTED as u64 + 60).contains(&books.evictions), "{books:?}"),
        }
        kept
    }
}

/// Checks that the embedded store evicted the batches in this order.
fn expect_exact_order(kept: &Kept, order: &[usize]) {
    let mut left = EVICTED;
    for batch in order {
        let gone = left.min(BATCH);
        assert_eq!(kept.batches[*batch], BATCH - gone, "batch {batch} in {kept:?}");
        left -= gone;
    }
    assert_eq!(kept.new, NEW, "{kept:?}");
}

async fn lru_evicts_the_least_recently_used(settings: Settings) {
    let space = Space::new(settings, "LRU").await;
    let store = space.service.store();
    space.write_all().await;
    // The oldest batch is read, and the second oldest is overwritten.
    space.read(0).await;
    space.has_been_read(0, 1).await;
    space.write(1, None).await;
    let kept = space.pushed_out().await;
    match store {
        Store::Embedded => expect_exact_order(&kept, &[2, 3, 4, 5, 6, 7, 0, 1]),
        Store::Shards => {
            // Near the end, only one entry of thirty is an old one.
            assert!(kept.batches[0] >= 80 && kept.batches[1] >= 80, "{kept:?}");
            assert!(kept.batches[2] <= 45 && kept.new >= NEW * 9 / 10, "{kept:?}");
        }
    }
}

async fn lfu_evicts_the_least_read(settings: Settings) {
    let space = Space::new(settings, "LFU").await;
    let store = space.service.store();
    space.write_all().await;
    // The first batch was read most often, but longest ago. The others were read once, and the new entries never.
    for _ in 0..3 {
        space.read(0).await;
    }
    space.has_been_read(0, 3).await;
    for batch in 1..BATCHES {
        space.read(batch).await;
    }
    for batch in 1..BATCHES {
        space.has_been_read(batch, 1).await;
    }
    let kept = space.pushed_out().await;
    match store {
        Store::Embedded => assert_eq!((kept.batches, kept.new), ([BATCH; BATCHES], NEW - EVICTED)),
        Store::Shards => {
            assert!(kept.batches[0] >= 98, "{kept:?}");
            assert!(kept.batches.iter().sum::<usize>() >= BATCHES * BATCH * 3 / 4, "{kept:?}");
            assert!(kept.new <= NEW * 7 / 10, "{kept:?}");
        }
    }
}

async fn fifo_evicts_the_oldest_write(settings: Settings) {
    let space = Space::new(settings, "FIFO").await;
    let store = space.service.store();
    space.write_all().await;
    // Overwriting moves the first batch to the end. Reading changes nothing.
    space.write(0, None).await;
    for _ in 0..3 {
        space.read(1).await;
    }
    space.has_been_read(1, 3).await;
    let kept = space.pushed_out().await;
    match store {
        Store::Embedded => expect_exact_order(&kept, &[1, 2, 3, 4, 5, 6, 7, 0]),
        Store::Shards => {
            assert!(kept.batches[0] >= 80 && kept.new >= NEW * 9 / 10, "{kept:?}");
            assert!(kept.batches[1] <= 45, "{kept:?}");
        }
    }
}

async fn ttl_evicts_the_next_to_expire(settings: Settings) {
    let space = Space::new(settings, "TTL").await;
    let store = space.service.store();
    // The later a batch is written, the sooner it expires. The first batch and the new entries never expire.
    for batch in 0..BATCHES {
        space.write(batch, (batch > 0).then(|| 10_000 - batch * 1_000)).await;
    }
    space.nothing_is_evicted().await;
    space.read(7).await;
    space.has_been_read(7, 1).await;
    let kept = space.pushed_out().await;
    match store {
        Store::Embedded => expect_exact_order(&kept, &[7, 6, 5, 4, 3, 2, 1, 0]),
        Store::Shards => {
            assert_eq!(
                (kept.batches[0], kept.new),
                (BATCH, NEW),
                "entries that never expire stay while others can be evicted: {kept:?}"
            );
            assert!(kept.batches[7] <= 45 && kept.batches[1] >= 80, "{kept:?}");
        }
    }
}

/// The shard does not see a read that L1 answers until the instance sends the counts.
#[tokio::test]
async fn lru_keeps_entries_that_only_l1_reads() {
    let space = Space::new(Settings::shards(), "LRU").await;
    space.write(0, None).await;
    // Brings copies into L1 before the other batches are written.
    for key in Space::keys(0) {
        eventually(SOON, async || {
            let answer = space.cache.get(&space.ns, &key).await.expect(200);
            ensure!(answer.is_l1_hit(), "{:?}", answer.headers);
            Ok(())
        })
        .await;
    }
    space.has_been_read(0, 2).await;
    for batch in 1..BATCHES {
        space.write(batch, None).await;
    }
    space.nothing_is_evicted().await;
    // On a busy machine the copies may be unproven for a moment.
    for key in Space::keys(0) {
        eventually(SOON, async || {
            let answer = space.cache.get(&space.ns, &key).await.expect(200);
            ensure!(answer.is_l1_hit(), "{:?}", answer.headers);
            Ok(())
        })
        .await;
    }
    space.has_been_read(0, 3).await;
    let kept = space.pushed_out().await;
    // A shard that does not hear of these reads evicts the first batch first.
    assert!(kept.batches[0] >= 80 && kept.batches[1] <= 45, "{kept:?}");
}
