//! `/metrics`: the text is valid, every family is described, and counters increase.

use std::collections::BTreeMap;

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};

on_both_stores! {
    every_sample_belongs_to_a_described_family,
    requests_are_counted_by_operation,
}

async fn every_sample_belongs_to_a_described_family(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metrics"));
    cache.set(&ns, "k", "1").await.expect(201);
    cache.get(&ns, "k").await.expect(200);
    cache.get(&ns, "absent").await.expect(404);
    let answer = cache.fetch("/metrics").await.expect(200);
    let content_type = answer.header("content-type").unwrap_or("").to_owned();
    assert!(content_type.starts_with("text/plain"), "{content_type}");
    let metrics = cache.metrics().await;
    let mut seen = BTreeMap::new();
    for sample in metrics.samples() {
        let described = metrics.described_type(sample);
        assert!(described.is_some(), "{} has no HELP or no TYPE", sample.name);
        let is_ours = ["sidecache_", "process_"].iter().any(|prefix| sample.name.starts_with(prefix));
        assert!(is_ours, "{}", sample.name);
        if described == Some("counter") {
            assert!(sample.name.ends_with("_total"), "the counter {}", sample.name);
            assert!(sample.value >= 0.0);
        }
        let twice = seen.insert((sample.name.clone(), sample.labels.clone()), ());
        assert!(twice.is_none(), "{sample:?} twice");
    }
    assert!(!metrics.samples().is_empty());
}

async fn requests_are_counted_by_operation(service: &Service) {
    let (cache, ns) = (service.client(), namespace("metrics"));
    let count = async |operation: &str| {
        cache.metrics().await.total_with("sidecache_requests_total", &[("operation", operation)])
    };
    // Other tests use the same service, so a counter may grow by more than this test's requests.
    for operation in ["set", "get", "head", "patch", "delete", "mget", "mset", "mdelete", "flush", "list", "stats"] {
        let before = count(operation).await;
        for _ in 0..3 {
            call(&cache, &ns, operation).await;
        }
        eventually(SOON, async || {
            let grown = count(operation).await - before;
            ensure!(grown >= 3.0, "{operation} has grown by {grown}");
            Ok(())
        })
        .await;
    }
}

async fn call(cache: &Client, ns: &str, operation: &str) {
    match operation {
        "set" => cache.set(ns, "k", "1").await,
        "get" => cache.get(ns, "k").await,
        "head" => cache.head(ns, "k").await,
        "patch" => cache.patch(ns, "k", &json!({"ttl": 60})).await,
        "delete" => cache.delete(ns, "k").await,
        "mget" => cache.mget(ns, &["k"]).await,
        "mset" => cache.mset(ns, &json!([{"key": "k", "value": 1}])).await,
        "mdelete" => cache.mdelete(ns, json!({"keys": ["k"]}).to_string()).await,
        "flush" => cache.flush(ns, &[]).await,
        "list" => cache.list(ns, &[]).await,
        _ => cache.stats(ns).await,
    };
}

#[tokio::test]
async fn requests_are_counted_by_result() {
    for store in [Store::Embedded, Store::Shards] {
        let service = Service::start(store.settings());
        let cache = service.client();
        cache.set("metrics", "k", "1").await.expect(201);
        for _ in 0..7 {
            cache.get("metrics", "k").await.expect(200);
        }
        for _ in 0..4 {
            cache.get("metrics", "absent").await.expect(404);
        }
        let metrics = cache.metrics().await;
        let gets = |labels: &[(&str, &str)]| metrics.total_with("sidecache_requests_total", labels);
        assert!((gets(&[("operation", "get")]) - 11.0).abs() < 0.1, "{metrics:?}");
        let results: Vec<f64> = metrics
            .samples()
            .iter()
            .filter(|sample| sample.name == "sidecache_requests_total")
            .filter(|sample| sample.labels.get("operation").is_some_and(|operation| operation == "get"))
            .filter(|sample| sample.labels.contains_key("result") && sample.value > 0.0)
            .map(|sample| sample.value)
            .collect();
        assert!(
            results.contains(&7.0) && results.contains(&4.0),
            "hits and misses have their own results: {results:?}"
        );
        eventually(SOON, async || {
            let written = cache.metrics().await.total("sidecache_access_log_written_total");
            ensure!((written - 12.0).abs() < 0.1, "{written} written");
            Ok(())
        })
        .await;
    }
}

async fn results_of(cache: &Client, operation: &str) -> BTreeMap<String, u64> {
    let metrics = cache.metrics().await;
    let samples = metrics.samples().iter().filter(|sample| {
        sample.name == "sidecache_requests_total" && sample.labels.get("operation").is_some_and(|of| of == operation)
    });
    samples
        .filter(|sample| sample.value > 0.0)
        .map(|sample| (sample.labels["result"].clone(), sample.value as u64))
        .collect()
}

#[tokio::test]
async fn regression_a_write_over_the_quota_counts_as_refused_not_failed() {
    for store in [Store::Embedded, Store::Shards] {
        let service = Service::start(store.settings());
        let cache = service.client();
        let ns = namespace("full");
        let policy = json!({"max_size_mb": 1, "eviction_policy": "NONE"});
        cache.put_policy(&ns, policy.to_string()).await.expect(201);
        let value = json!("x".repeat(100_000));
        let mut results = BTreeMap::new();
        for number in 0..40 {
            let answer = cache.set(&ns, &format!("k{number}"), &value.to_string()).await;
            let result = if answer.status == 201 { "done" } else { "refused" };
            if result == "refused" {
                answer.expect_error(507, "storage_full");
            }
            *results.entry(result.to_owned()).or_insert(0) += 1;
        }
        assert!(results.contains_key("refused"), "{results:?}");
        assert_eq!(results_of(&cache, "set").await, results);
    }
}

#[tokio::test]
async fn regression_an_mset_that_failed_on_one_shard_counts_as_failed() {
    let mut servers = [Redis::start(), Redis::start()];
    let service = Service::start(Settings::on(&servers));
    let cache = service.client();
    let entries: Vec<_> = (0..50).map(|key| json!({"key": format!("key_{key}"), "value": key})).collect();
    cache.mset("n", &json!(entries)).await.expect(200);
    servers[0].kill();
    let answer = cache.mset("n", &json!(entries)).await.expect(200).json();
    assert_eq!(answer["success"], false, "{answer}");
    assert_eq!(results_of(&cache, "mset").await, BTreeMap::from([("done".into(), 1), ("failed".into(), 1)]));
}

#[tokio::test]
async fn a_limited_number_of_namespaces_have_their_own_metrics() {
    for store in [Store::Embedded, Store::Shards] {
        let service = Service::start(store.settings().set("metrics_max_namespaces", 2));
        let cache = service.client();
        // One after the other: the first two get their own labels.
        for ns in ["one", "two", "three", "other"] {
            cache.set(ns, "k", "12345").await.expect(201);
            cache.get(ns, "k").await.expect(200);
            cache.mget(ns, &["k", "absent"]).await.expect(200);
            eventually(LATER, async || {
                let metrics = cache.metrics().await;
                let label = if ns == "one" || ns == "two" { ns } else { "other" };
                let of = |name: &str, labels: &[(&str, &str)]| {
                    metrics.total_with(name, &[&[("namespace", label)], labels].concat())
                };
                let times = match ns {
                    "other" => 2.0,
                    _ => 1.0,
                };
                for (name, labels, expected) in [
                    ("sidecache_namespace_reads_total", [("result", "hit")].as_slice(), 2.0),
                    ("sidecache_namespace_reads_total", [("result", "miss")].as_slice(), 1.0),
                    ("sidecache_namespace_writes_total", [].as_slice(), 1.0),
                    ("sidecache_namespace_keys", [].as_slice(), 1.0),
                    ("sidecache_namespace_bytes", [].as_slice(), 5.0),
                    ("sidecache_namespace_charged_bytes", [].as_slice(), 390.0),
                    ("sidecache_namespace_failures_total", [].as_slice(), 0.0),
                ] {
                    let (value, expected) = (of(name, labels), expected * times);
                    ensure!((value - expected).abs() < 0.1, "{ns}: {name} is {value}, not {expected}: {metrics:?}");
                }
                Ok(())
            })
            .await;
        }
        let text = cache.fetch("/metrics").await.expect(200);
        assert!(!text.text().contains("three"), "{}", text.text());
    }
}

#[tokio::test]
async fn process_database_and_shards_have_metrics() {
    let service = Service::start(Settings::shards());
    let metrics = service.client().metrics().await;
    for (name, least) in [
        ("process_resident_memory_bytes", 1e6),
        ("process_start_time_seconds", 1e9),
        ("process_open_fds", 3.0),
        ("process_max_fds", 64.0),
        ("sidecache_build_info", 1.0),
        ("sidecache_database_connected", 1.0),
        ("sidecache_shard_up", 3.0),
    ] {
        assert!(metrics.total(name) >= least, "{name} is {}", metrics.total(name));
    }
    assert!(metrics.samples().iter().any(|sample| sample.name == "process_cpu_seconds_total"));
}

#[tokio::test]
async fn l1_hits_and_shard_reads_are_counted_separately() {
    let settings = Settings::shards();
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns) = (a.client(), b.client(), namespace("metrics"));
    one.set(&ns, "k", "1").await.expect(201);
    let before = other.metrics().await;
    eventually(LATER, async || {
        let answer = other.get(&ns, "k").await.expect(200);
        ensure!(answer.is_l1_hit(), "{:?}", answer.header("cache-status"));
        Ok(())
    })
    .await;
    other.mget(&ns, &["k", "x", "y"]).await.expect(200);
    let after = other.metrics().await;
    let grown = |name: &str| after.total(name) - before.total(name);
    assert!(grown("sidecache_l1_hits_total") >= 1.0, "{after:?}");
    assert!(grown("sidecache_shard_reads_total") >= 3.0, "{after:?}");

    let before = other.metrics().await.total("sidecache_invalidations_received_total");
    one.set(&ns, "k", "2").await.expect(200);
    eventually(SOON, async || {
        let received = other.metrics().await.total("sidecache_invalidations_received_total") - before;
        ensure!(received >= 1.0, "{received} received");
        Ok(())
    })
    .await;
}

/// The bug: a request that was refused before it reached the cache was not counted.
#[tokio::test]
async fn requests_that_end_in_an_error_are_counted_by_its_code() {
    let service = Service::start(Settings::embedded().set("max_body_bytes", 200_000).set("max_value_bytes", 1_000));
    let (cache, ns) = (service.client(), namespace("metrics"));
    let key = key_path(&ns, "k");
    let strange = ("sec-fetch-site", "cross-site");
    // Once through the fast path and once through the router.
    for headers in [vec![], vec![("cache-control", "no-transform")]] {
        let put = async |body: &str, more: &[(&str, &str)]| {
            let headers = [headers.as_slice(), more].concat();
            cache.send(Method::PUT, &key, &headers, Some(body.as_bytes().to_vec())).await
        };
        put("{", &[]).await.expect(400);
        put(&format!("{{\"value\":\"{}\"}}", "v".repeat(2_000)), &[]).await.expect_error(400, "value_too_large");
        put(&"v".repeat(300_000), &[]).await.expect(413);
        put("{\"value\":1}", &[strange]).await.expect(403);
        put("{\"value\":1}", &[("if-unmodified-since", "*")]).await.expect(501);
        put("{\"value\":1}", &[("if-match", "*")]).await.expect(412);
        cache.get_with(&ns, "k", &headers).await.expect(404);
    }
    cache.fetch("/nope").await.expect(404);
    let form = [strange, ("content-type", "application/x-www-form-urlencoded")];
    cache.send(Method::POST, "/dashboard/namespaces/n/flush", &form, Some(b"token=".to_vec())).await.expect(403);
    let metrics = cache.metrics().await;
    for (code, status, expected) in [
        ("invalid_body", "400", 2.0),
        ("value_too_large", "400", 2.0),
        ("body_too_large", "413", 2.0),
        ("cross_site", "403", 3.0),
        ("not_implemented", "501", 2.0),
        ("precondition_failed", "412", 2.0),
        ("no_such_route", "404", 1.0),
        ("misdirected_request", "421", 0.0),
        ("key_not_found", "404", 0.0),
    ] {
        let counted = metrics.total_with("sidecache_http_errors_total", &[("code", code), ("status", status)]);
        assert_eq!(counted, expected, "{code}");
    }
}
