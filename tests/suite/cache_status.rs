//! `Cache-Status` and the metrics say when a read bypassed a copy in L1, and why.

use anyhow::ensure;

use crate::support::answer::Answer;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::gate::Gate;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// A text in every message that advances the watermark of an instance.
const READINGS: &str = "sidecache:watermark";

fn l1_status(answer: &Answer) -> String {
    let status = answer.header("cache-status").unwrap_or("").to_owned();
    assert!(status.starts_with("sidecache-shard; hit") || status.starts_with("sidecache-l1; hit"), "{status}");
    let l1 = status.split(", ").last().unwrap_or("");
    // Not the parameter of a hit, whose number always differs.
    let stated = answer.max_staleness_ms().map(|stated| format!("; max-staleness-ms={stated}"));
    assert!(answer.max_staleness_ms().is_none_or(|stated| stated <= 1_000), "{status}");
    stated.map_or(l1, |stated| l1.strip_suffix(&stated).unwrap_or(l1)).to_owned()
}

/// Reads until `Cache-Status` says this about L1.
async fn read_until(cache: &Client, ns: &str, key: &str, expected: &str) {
    eventually(LATER, async || {
        let status = l1_status(&cache.get(ns, key).await.expect(200));
        ensure!(status == expected, "{status}");
        Ok(())
    })
    .await;
}

/// The age of the only shard's watermark, from the metrics.
async fn age(cache: &Client) -> f64 {
    let metrics = cache.metrics().await;
    let samples: Vec<_> =
        metrics.samples().iter().filter(|sample| sample.name == "sidecache_watermark_age_seconds").collect();
    let [sample] = samples[..] else { panic!("one shard expected: {samples:?}") };
    assert_eq!(sample.labels.get("shard").map(String::as_str), Some("a"));
    sample.value
}

#[tokio::test]
async fn the_status_says_why_a_copy_in_l1_was_not_used() {
    let redis = Redis::start();
    let gate = Gate::in_front_of(&redis);
    let settings = Settings::on(std::slice::from_ref(&redis)).set("redis_shards", format!("a={}", gate.url()));
    let service = Service::start(settings);
    let (cache, ns) = (service.client(), namespace("status"));
    for key in ["read", "left"] {
        cache.set(&ns, key, "1").await.expect(201);
        read_until(&cache, &ns, key, "sidecache-l1; hit").await;
    }
    eventually(LATER, async || {
        let age = age(&cache).await;
        ensure!(age <= 1.0, "{age} s");
        Ok(())
    })
    .await;

    // No message counts as lost yet, but nothing proves any more that the copy is current.
    let count = async |name: &str| cache.metrics().await.total(name);
    gate.hold(READINGS);
    read_until(&cache, &ns, "read", "sidecache-l1; fwd=stale; detail=unproven").await;
    assert!(count("sidecache_l1_unproven_total").await >= 1.0);
    eventually(LATER, async || {
        let age = age(&cache).await;
        ensure!(age > 1.0, "{age} s");
        Ok(())
    })
    .await;

    // After a while the silence counts as a loss of messages.
    let losses = count("sidecache_subscription_losses_total").await;
    eventually(LATER, async || {
        let more = count("sidecache_subscription_losses_total").await - losses;
        ensure!(more >= 1.0, "{more} losses");
        Ok(())
    })
    .await;
    let void = count("sidecache_l1_void_total").await;
    let status = l1_status(&cache.get(&ns, "left").await.expect(200));
    assert_eq!(status, "sidecache-l1; fwd=stale; detail=lost-messages");
    assert!(count("sidecache_l1_void_total").await > void);

    gate.release(READINGS);
    read_until(&cache, &ns, "left", "sidecache-l1; hit").await;
    let age = age(&cache).await;
    assert!(age <= 30.0, "{age} s");
}
