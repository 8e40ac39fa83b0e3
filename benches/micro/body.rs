//! Bodies: building the body of a GET's answer from an entry, and parsing the body of a PUT.

use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use sidecache::http::{input, output};
use sidecache::model::{Entry, Extra, UnixMillis, Version};

const SIZES: [(&str, usize); 3] = [("100_bytes", 100), ("1000_bytes", 1000), ("1_megabyte", 1_000_000)];

pub fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("body/of_a_get");
    for (name, bytes) in SIZES {
        let entry = Entry {
            value: value(bytes).into(),
            version: Version(1_700_000_000_000_000),
            created_at: UnixMillis(1_700_000_000_000),
            expires_in: Some(Duration::from_secs(3600)),
            overdue: None,
            extra: Extra::default(),
        };
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| output::entry(&entry, output::ttl_remaining(entry.borrowed()), None));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("body/of_a_put");
    for (name, bytes) in SIZES {
        let body = Bytes::from(format!("{{\"value\":{},\"ttl\":3600,\"tags\":[\"a\"]}}", value(bytes)));
        assert!(input::set_body(&body).is_ok());
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| bencher.iter(|| input::set_body(&body)));
    }
    group.finish();
}

/// A JSON string with this many bytes.
fn value(bytes: usize) -> String {
    format!("\"{}\"", "v".repeat(bytes - 2))
}
