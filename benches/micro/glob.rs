//! Matching keys with patterns, as a flush or a listing does.

use std::hint::black_box;

use criterion::Criterion;
use sidecache::model::Pattern;

pub fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("glob");
    let long = "a".repeat(512);
    let cases = [
        ("prefix", "user_*", "user_123456"),
        ("prefix_of_another", "order_*", "user_123456"),
        ("suffix", "*_123456", "user_123456"),
        ("class", "user_[0-9]?3*", "user_123456"),
        // The worst case for a matcher that backtracks.
        ("many_stars", "*a*a*a*a*a*a*b", long.as_str()),
    ];
    for (name, pattern, key) in cases {
        let pattern = Pattern::parse(pattern).expect("a valid pattern");
        group.bench_function(name, |bencher| bencher.iter(|| pattern.matches(black_box(key))));
    }
    group.finish();
}
