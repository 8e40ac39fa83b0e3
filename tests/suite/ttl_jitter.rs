//! `ttl_jitter` in a namespace's policy: TTLs are shortened at random, by at most that part.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, namespace};
use crate::support::service::Service;

on_both_stores! {
    ttls_are_shortened_at_random_within_the_bounds,
    without_jitter_ttls_are_exact,
}

const WRITES: usize = 100;

/// So long that the time of the test itself does not matter.
const TTL: u64 = 100_000;

/// Writes entries by PUT and by mset, with a TTL and with the default one, and returns the remaining seconds of each.
async fn remaining(cache: &Client, ns: &str) -> Vec<u64> {
    for i in 0..WRITES {
        match i % 2 {
            0 => cache.set(ns, &format!("put-{i}"), "1").await.expect(201),
            _ => cache.set_for(ns, &format!("put-{i}"), "1", TTL).await.expect(201),
        };
    }
    let entry = |i: usize| match i % 2 {
        0 => json!({"key": format!("mset-{i}"), "value": 1}),
        _ => json!({"key": format!("mset-{i}"), "value": 1, "ttl": TTL}),
    };
    cache.fill(ns, &Value::Array((0..WRITES).map(entry).collect())).await;
    let mut all = Vec::new();
    for key in cache.all_keys(ns).await {
        let answer = cache.get(ns, &key).await.expect(200);
        let left = answer.metadata().ttl_remaining.expect("it expires");
        assert_eq!(answer.header("x-cache-ttl"), Some(&*left.to_string()));
        all.push(left);
    }
    assert_eq!(all.len(), 2 * WRITES);
    all
}

async fn ttls_are_shortened_at_random_within_the_bounds(service: &Service) {
    let (cache, ns) = (service.client(), namespace("jitter"));
    cache.put_policy(&ns, json!({"default_ttl": TTL, "ttl_jitter": 0.1}).to_string()).await.expect(201);
    let all = remaining(&cache, &ns).await;
    let (least, most) = (TTL * 9 / 10 - 100, TTL);
    assert!(all.iter().all(|left| (least..=most).contains(left)), "{all:?}");
    // 200 numbers out of 10,000 are nearly all different, and reach both ends of the range.
    assert!(all.iter().collect::<BTreeSet<_>>().len() > WRITES, "{all:?}");
    assert!(
        all.iter().any(|left| *left < TTL * 92 / 100) && all.iter().any(|left| *left > TTL * 98 / 100),
        "{all:?}"
    );
}

async fn without_jitter_ttls_are_exact(service: &Service) {
    let (cache, ns) = (service.client(), namespace("jitter"));
    cache.put_policy(&ns, json!({"default_ttl": TTL}).to_string()).await.expect(201);
    let all = remaining(&cache, &ns).await;
    assert!(all.iter().all(|left| (TTL - 100..=TTL).contains(left)), "{all:?}");
}
