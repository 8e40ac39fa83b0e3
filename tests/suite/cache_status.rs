//! `Cache-Status` and the metrics say when L1 was passed by although it had a copy, and why.

use anyhow::ensure;

use crate::support::answer::Answer;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::gate::Gate;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// In every message that proves how recent an instance's knowledge is.
const READINGS: &str = "sidecache:watermark";

fn said_of_l1(answer: &Answer) -> String {
    let status = answer.header("cache-status").unwrap_or("").to_owned();
    assert!(status.starts_with("sidecache-shard; hit") || status.starts_with("sidecache-l1; hit"), "{status}");
    status.split(", ").last().unwrap_or("").to_owned()
}

async fn reads(cache: &Client, ns: &str, key: &str, of_l1: &str) {
    eventually(LATER, async || {
        let said = said_of_l1(&cache.get(ns, key).await.expect(200));
        ensure!(said == of_l1, "{said}");
        Ok(())
    })
    .await;
}

/// The age of the only shard's watermark, as the metrics tell it.
async fn age(cache: &Client) -> f64 {
    let metrics = cache.metrics().await;
    let samples: Vec<_> =
        metrics.samples().iter().filter(|sample| sample.name == "sidecache_watermark_age_seconds").collect();
    let [sample] = samples[..] else { panic!("one shard expected: {samples:?}") };
    assert_eq!(sample.labels.get("shard").map(String::as_str), Some("a"));
    sample.value
}

#[tokio::test]
async fn l1_says_why_a_copy_was_passed_by() {
    let redis = Redis::start();
    let gate = Gate::in_front_of(&redis);
    let settings = Settings::on(std::slice::from_ref(&redis)).set("redis_shards", format!("a={}", gate.url()));
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("status"));
    for key in ["read", "left"] {
        cache.set(&ns, key, "1").await.expect(201);
        reads(&cache, &ns, key, "sidecache-l1; hit").await;
    }
    eventually(LATER, async || {
        let age = age(&cache).await;
        ensure!(age <= 1.0, "{age} s");
        Ok(())
    })
    .await;

    // Nothing is lost yet, and nothing is known any more.
    let count = async |name: &str| cache.metrics().await.total(name);
    gate.hold(READINGS);
    reads(&cache, &ns, "read", "sidecache-l1; fwd=stale; detail=unproven").await;
    assert!(count("sidecache_l1_unproven_total").await >= 1.0);
    eventually(LATER, async || {
        let age = age(&cache).await;
        ensure!(age > 1.0, "{age} s");
        Ok(())
    })
    .await;

    // The silence is taken for a loss after a while.
    let losses = count("sidecache_subscription_losses_total").await;
    eventually(LATER, async || {
        let more = count("sidecache_subscription_losses_total").await - losses;
        ensure!(more >= 1.0, "{more} losses");
        Ok(())
    })
    .await;
    let void = count("sidecache_l1_void_total").await;
    let said = said_of_l1(&cache.get(&ns, "left").await.expect(200));
    assert_eq!(said, "sidecache-l1; fwd=stale; detail=lost-messages");
    assert!(count("sidecache_l1_void_total").await > void);

    gate.release(READINGS);
    reads(&cache, &ns, "left", "sidecache-l1; hit").await;
    let age = age(&cache).await;
    assert!(age <= 30.0, "{age} s");
}
