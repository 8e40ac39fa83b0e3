//! Keys: parsing, hashing, and which shard owns them.

use std::hint::black_box;

use criterion::Criterion;
use sidecache::model::{EntryKey, KeyRef};
use sidecache::store::redis::Ring;

pub fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key");
    let mut text = String::new();
    group.bench_function("borrowed", |bencher| {
        bencher.iter(|| {
            KeyRef::parse(black_box("users"), black_box("user_123456"), &mut text).map(|key| key.map_hash())
        });
    });
    group.bench_function("owned", |bencher| {
        bencher.iter(|| EntryKey::parse(black_box("users"), black_box("user_123456")));
    });
    group.finish();

    let mut group = criterion.benchmark_group("ring");
    for shards in [1, 3, 100] {
        let names: Vec<String> = (0..shards).map(|i| format!("shard_{i}")).collect();
        let ring = Ring::new(&names);
        // Any sequence of hashes will do; this one visits all of them.
        let mut hash = 0u64;
        group.bench_function(format!("route_over_{shards}"), |bencher| {
            bencher.iter(|| {
                hash = hash.wrapping_add(0x9E37_79B9_7F4A_7C15);
                ring.route(hash)
            });
        });
    }
    let names = ["a", "b", "c"];
    group.bench_function("build_of_3", |bencher| bencher.iter(|| Ring::new(&names)));
    group.finish();
}
