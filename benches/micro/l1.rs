//! L1: hits, fills, fills that evict, and voids.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use sidecache::clock::Moment;
use sidecache::l1::{Copy, L1, Stamp};
use sidecache::model::{EntryKey, Extra, KeyRef, UnixMillis, Version};

/// The number of keys, used in turn; so many that neither they nor the copies fit into the processor's caches.
const KEYS: usize = 100_000;

/// The number of keys for the benchmarks with hot keys.
const HOT_KEYS: usize = 1000;

/// The step from key to key: an odd prime, so that all keys are visited.
const STRIDE: usize = 7919;

const MIB: u64 = 1 << 20;

pub fn benches(criterion: &mut Criterion) {
    hits(criterion);
    changes(criterion);
}

fn keys(count: usize) -> Vec<EntryKey> {
    (0..count).map(|i| EntryKey::parse("users", &format!("user_{i}")).expect("a valid key")).collect()
}

fn copy(value: &Bytes) -> Copy {
    Copy {
        value: value.clone(),
        version: Version(1),
        created_at: UnixMillis(0),
        expires_at: None,
        stale_seconds: 0,
        extra: Extra::default(),
        stamp: Stamp { shard: 0, epoch: 0 },
    }
}

fn value(bytes: usize) -> Bytes {
    Bytes::from(vec![b'1'; bytes])
}

fn fill(l1: &L1, key: &EntryKey, value: &Bytes) -> bool {
    l1.insert(key, copy(value), l1.fence(key))
}

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("l1/hit");
    for (name, count, bytes) in
        [("hot_1000_bytes", HOT_KEYS, 1000), ("spread_1000_bytes", KEYS, 1000), ("hot_100_kilobytes", 10, 100_000)]
    {
        let (l1, keys, value) = (L1::new(1024 * MIB), keys(count), value(bytes));
        for key in &keys {
            assert!(fill(&l1, key, &value));
        }
        let now = Moment::now();
        let mut i = 0;
        let mut next = || {
            i = (i + STRIDE) % count;
            &keys[i]
        };
        // As in a request: the key is parsed from names, and the value is copied into the answer.
        group.throughput(Throughput::Elements(1));
        let (mut text, mut answer) = (String::new(), Vec::new());
        group.bench_function(format!("{name}/looked_at"), |bencher| {
            bencher.iter(|| {
                let key = next();
                let key = KeyRef::parse(key.namespace(), key.key(), &mut text).expect("a valid key");
                l1.with(key, now, |copy| {
                    answer.clear();
                    answer.extend_from_slice(&copy.value.as_bytes()[..bytes.min(4096)]);
                })
            });
        });
        group.bench_function(format!("{name}/taken"), |bencher| bencher.iter(|| l1.get(next(), now)));
    }
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let (keys, value) = (keys(KEYS), value(1000));
    let mut i = 0;
    let mut next = || {
        i = (i + STRIDE) % KEYS;
        &keys[i]
    };
    let mut group = criterion.benchmark_group("l1");
    let roomy = L1::new(1024 * MIB);
    for key in &keys {
        assert!(fill(&roomy, key, &value));
    }
    group.bench_function("refill", |bencher| bencher.iter(|| fill(&roomy, next(), &value)));
    let full = L1::new(16 * MIB);
    group.bench_function("fill_that_evicts", |bencher| bencher.iter(|| fill(&full, next(), &value)));
    group.bench_function("void_and_fill", |bencher| {
        bencher.iter(|| {
            let key = next();
            roomy.void(key);
            fill(&roomy, key, &value)
        });
    });
    group.bench_function("miss", |bencher| {
        let absent = EntryKey::parse("users", "nobody").expect("a valid key");
        bencher.iter(|| black_box(roomy.get(&absent, Moment::now())));
    });
    group.finish();
}
