//! The functional cases F-01 to F-13, each on both stores over real HTTP; F-14 and F-15 are in `exact_bytes.rs`.
//!
//! The number in the name of a test is the number of its case. The other files test more than this list.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;
use serde_json::json;

use crate::support::both_stores::on_every_server;
use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::service::{Service, Store};

on_every_server! {
    f01_get_cached_value,
    f01_head_has_only_headers,
    f01_a_matching_etag_is_not_modified,
    f01_cache_status_names_the_tier,
    f02_get_missing_key,
    f03_put_new_key,
    f04_put_existing_key,
    f05_delete_cached_key,
    f06_delete_missing_key,
    f07_get_after_ttl,
    f08_put_with_ttl_60,
    f09_mget_5_keys,
    f10_mset_5_entries,
    f11_delete_namespace,
    f12_delete_with_pattern,
    f13_stats,
}

async fn f01_get_cached_value(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f01"));
    let before = whole_seconds(SystemTime::now());
    cache.set_for(&ns, "user_123", r#"{"name":"Ada","langs":["en","fr"]}"#, 60).await.expect(201);

    let got = cache.get(&ns, "user_123").await.expect(200);
    assert_eq!(got.value(), r#"{"name":"Ada","langs":["en","fr"]}"#);
    assert_eq!(got.header("x-cache-hit"), Some("true"));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert!(got.header("x-request-id").is_some_and(|id| !id.is_empty()));

    let ttl = got.metadata().ttl_remaining.expect("an entry with a TTL has a remaining TTL");
    assert!((55..=60).contains(&ttl), "{ttl}");
    assert_eq!(got.header("x-cache-ttl"), Some(ttl.to_string().as_str()));

    let created_at = got.metadata().created_at;
    assert_eq!(created_at.len(), "2024-01-01T00:00:00Z".len(), "{created_at}");
    let created = humantime::parse_rfc3339(&created_at).expect("RFC 3339 in UTC");
    assert!((before..=SystemTime::now()).contains(&created), "{created_at}");

    let version = got.header("etag").and_then(|etag| etag.strip_prefix('"')?.strip_suffix('"')?.parse::<u64>().ok());
    assert!(version.is_some(), "the ETag is the version: {:?}", got.header("etag"));
}

async fn f01_head_has_only_headers(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f01"));
    cache.set_for(&ns, "k", "[1,2,3]", 60).await.expect(201);
    let got = cache.get(&ns, "k").await.expect(200);
    let head = cache.head(&ns, "k").await.expect(200);
    assert!(head.body.is_empty());
    for name in ["etag", "content-type", "content-length", "x-cache-hit"] {
        assert_eq!(head.header(name), got.header(name), "{name}");
    }
    let names = |headers: &reqwest::header::HeaderMap| {
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(names(&head.headers), names(&got.headers));

    let absent = cache.head(&ns, "absent").await.expect(404);
    assert!(absent.body.is_empty());
    assert_eq!(absent.header("x-cache-hit"), Some("false"));
}

async fn f01_a_matching_etag_is_not_modified(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f01"));
    cache.set(&ns, "k", "1").await.expect(201);
    let etag = cache.get(&ns, "k").await.header("etag").expect("an ETag").to_owned();
    for condition in [etag.clone(), format!("\"1\", {etag}"), format!("W/{etag}"), "*".to_owned()] {
        let same = cache.get_with(&ns, "k", &[("if-none-match", &condition)]).await.expect(304);
        assert!(same.body.is_empty());
        assert_eq!(same.header("etag"), Some(etag.as_str()), "{condition}");
        assert!(same.header("x-request-id").is_some());
    }
    cache.get_with(&ns, "k", &[("if-none-match", "\"1\"")]).await.expect(200);

    // Writing the same value again makes a new version.
    cache.set(&ns, "k", "1").await.expect(200);
    let again = cache.get_with(&ns, "k", &[("if-none-match", &etag)]).await.expect(200);
    let version = |etag: &str| etag.trim_matches('"').parse::<u64>().expect("a version");
    assert!(version(again.header("etag").expect("an ETag")) > version(&etag));
    cache.get_with(&ns, "absent", &[("if-none-match", &etag)]).await.expect_error(404, "key_not_found");
}

async fn f01_cache_status_names_the_tier(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f01"));
    cache.set_for(&ns, "k", "1", 3_600).await.expect(201);
    let status_of = |answer: &crate::support::answer::Answer| answer.header("cache-status").unwrap_or("").to_owned();
    match service.store() {
        Store::Embedded => {
            let status = status_of(&cache.get(&ns, "k").await.expect(200));
            assert!(status.starts_with("sidecache-embedded; hit; ttl=3"), "{status}");
            let status = status_of(&cache.get(&ns, "absent").await.expect(404));
            assert!(status.starts_with("sidecache-embedded; fwd=uri-miss"), "{status}");
        }
        Store::Shards => {
            let on_a_shard = |status: &str, why: &str| {
                let parts: Vec<&str> = status.split(", ").collect();
                let [shard, l1] = parts[..] else { panic!("two tiers expected: {status}") };
                let shard = shard.strip_suffix("; collapsed").unwrap_or(shard);
                assert!(shard.starts_with("sidecache-shard; hit; ttl=3"), "{status}");
                assert!(["a", "b", "c"].iter().any(|name| shard.ends_with(&format!("; detail={name}"))), "{status}");
                assert!(l1.starts_with(&format!("sidecache-l1; fwd={why}")), "{status}");
            };
            // With `no-cache` the shard answers; the next read may be answered by L1 again.
            let status = status_of(&cache.get_with(&ns, "k", &[("cache-control", "no-cache")]).await.expect(200));
            on_a_shard(&status, "request");
            let from_l1 = eventually(SOON, async || {
                let answer = cache.get(&ns, "k").await.expect(200);
                ensure!(answer.is_l1_hit(), "{}", status_of(&answer));
                Ok(answer)
            })
            .await;
            assert!(status_of(&from_l1).starts_with("sidecache-l1; hit; ttl=3"), "{}", status_of(&from_l1));
            let status = status_of(&cache.get_with(&ns, "k", &[("cache-control", "no-cache")]).await.expect(200));
            on_a_shard(&status, "request");
            let status = status_of(&cache.get(&ns, "absent").await.expect(404));
            assert!(status.starts_with("sidecache-shard; fwd=uri-miss; detail="), "{status}");
            assert!(status.contains(", sidecache-l1; fwd="), "{status}");
        }
    }
}

async fn f02_get_missing_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f02"));
    cache.set(&ns, "present", "1").await.expect(201);
    for (ns, key) in [(ns.as_str(), "absent"), ("f02-nobody-wrote-here", "present")] {
        let answer = cache.get(ns, key).await;
        assert_eq!(answer.header("x-cache-hit"), Some("false"));
        for name in ["etag", "x-cache-ttl"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert!(answer.header("cache-status").is_some_and(|status| status.contains("fwd=uri-miss")));
        answer.expect_error(404, "key_not_found");
    }
}

async fn f03_put_new_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f03"));
    let answer = cache.set(&ns, "user_123", r#"{"a":1}"#).await;
    answer.expect_json(201, &json!({"success": true, "key": "user_123", "created": true}));

    let got = cache.get(&ns, "user_123").await.expect(200);
    assert_eq!(got.value(), r#"{"a":1}"#);
    assert_eq!(got.metadata().ttl_remaining, None, "an entry without a ttl never expires");
    assert_eq!(got.header("x-cache-ttl"), None);
    let metadata = &got.parsed::<HashMap<String, serde_json::Value>>()["metadata"];
    assert!(
        metadata.as_object().is_some_and(|fields| fields.contains_key("ttl_remaining")),
        "the field is null, not missing"
    );
}

async fn f04_put_existing_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f04"));
    cache.set(&ns, "user_123", "1").await.expect(201);
    assert_eq!(cache.get(&ns, "user_123").await.value(), "1");
    let answer = cache.set(&ns, "user_123", "2").await;
    answer.expect_json(200, &json!({"success": true, "key": "user_123", "created": false}));
    assert_eq!(cache.get(&ns, "user_123").await.expect(200).value(), "2");
}

async fn f05_delete_cached_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f05"));
    cache.set(&ns, "gone", "1").await.expect(201);
    cache.set(&ns, "kept", "2").await.expect(201);
    cache.get(&ns, "gone").await.expect(200);
    cache.delete(&ns, "gone").await.expect_json(200, &json!({"success": true, "deleted": true}));
    cache.get(&ns, "gone").await.expect_error(404, "key_not_found");
    cache.get(&ns, "kept").await.expect(200);
    let again = cache.set(&ns, "gone", "3").await;
    again.expect_json(201, &json!({"success": true, "key": "gone", "created": true}));
}

async fn f06_delete_missing_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f06"));
    cache.delete(&ns, "absent").await.expect_error(404, "key_not_found");
    cache.set(&ns, "k", "1").await.expect(201);
    cache.delete(&ns, "k").await.expect(200);
    cache.delete(&ns, "k").await.expect_error(404, "key_not_found");
}

async fn f07_get_after_ttl(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f07"));
    let written = Instant::now();
    cache.set_for(&ns, "short", "1", 1).await.expect(201);
    let expired = eventually(SOON, async || {
        let answer = cache.get(&ns, "short").await;
        ensure!(answer.status == 404, "still {}", answer.status);
        Ok(answer)
    })
    .await;
    // The clocks of the store and of the test count whole milliseconds, so a small difference is allowed.
    assert!(written.elapsed() >= Duration::from_millis(995), "expired after {:?}", written.elapsed());
    assert_eq!(expired.header("x-cache-hit"), Some("false"));
    expired.expect_error(404, "key_not_found");
    cache.delete(&ns, "short").await.expect_error(404, "key_not_found");
    assert_eq!(cache.mget(&ns, &["short"]).await.number("misses"), 1);
    cache.set(&ns, "short", "2").await.expect(201);
}

async fn f08_put_with_ttl_60(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f08"));
    let remaining = async || cache.get(&ns, "k").await.expect(200).metadata().ttl_remaining;
    cache.set_for(&ns, "k", "1", 60).await.expect(201);
    let ttl = remaining().await.expect("a ttl");
    assert!((59..=60).contains(&ttl), "{ttl} s of 60 are left, rounded up");
    eventually(SOON, async || {
        let ttl = remaining().await.expect("a ttl");
        ensure!(ttl <= 59, "{ttl} s left");
        Ok(())
    })
    .await;

    cache.set_for(&ns, "k", "1", 3_153_600_000).await.expect(200);
    assert!(remaining().await.is_some_and(|ttl| ttl > 3_153_599_900), "a hundred years");
    cache.set(&ns, "k", "1").await.expect(200);
    assert_eq!(remaining().await, None, "a write without a TTL removes the old TTL");
    cache.put(&ns, "k", r#"{"value":1,"ttl":null}"#).await.expect(200);
    assert_eq!(remaining().await, None, "null is the same as no TTL");

    // A shortened TTL counts from the last write.
    cache.set_for(&ns, "k", "1", 1).await.expect(200);
    eventually(SOON, async || {
        let status = cache.get(&ns, "k").await.status;
        ensure!(status == 404, "still {status}");
        Ok(())
    })
    .await;
}

async fn f09_mget_5_keys(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f09"));
    cache.set(&ns, "a", "1").await.expect(201);
    cache.set_for(&ns, "b", r#"{"x":[true]}"#, 60).await.expect(201);
    cache.set(&ns, "c", "null").await.expect(201);
    let expected = json!({
        "results": {
            "a": {"value": 1, "found": true},
            "b": {"value": {"x": [true]}, "found": true},
            "c": {"value": null, "found": true},
            "d": {"value": null, "found": false},
            "e": {"value": null, "found": false},
        },
        "hits": 3,
        "misses": 2,
    });
    // The second time, L1 may answer.
    for _ in 0..2 {
        cache.mget(&ns, &["a", "b", "c", "d", "e"]).await.expect_json(200, &expected);
    }
}

async fn f10_mset_5_entries(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f10"));
    let entries = json!([
        {"key": "a", "value": 1},
        {"key": "b", "value": "two", "ttl": 60},
        {"key": "c", "value": null},
        {"key": "d", "value": [4], "tags": ["x", "y"]},
        {"key": "e", "value": {"five": 5}, "ttl": null},
    ]);
    cache.mset(&ns, &entries).await.expect_json(200, &json!({"success": true, "stored": 5}));
    for (key, value) in [("a", "1"), ("b", "\"two\""), ("c", "null"), ("d", "[4]"), ("e", "{\"five\":5}")] {
        let got = cache.get(&ns, key).await.expect(200);
        assert_eq!(got.value(), value);
        assert_eq!(got.metadata().ttl_remaining.is_some(), key == "b", "{key}");
    }
    assert_eq!(cache.mget(&ns, &["a", "b", "c", "d", "e"]).await.number("hits"), 5);
}

async fn f11_delete_namespace(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f11"));
    let (longer, other) = (format!("{ns}1"), namespace("f11"));
    for ns in [&ns, &longer, &other] {
        for key in ["a", "b:c", "d/e", "ключ"] {
            cache.set(ns, key, "1").await.expect(201);
            cache.get(ns, key).await.expect(200);
        }
    }
    cache.flush(&ns, &[]).await.expect_json(200, &json!({"success": true, "deleted_count": 4}));
    for key in ["a", "b:c", "d/e", "ключ"] {
        cache.get(&ns, key).await.expect_error(404, "key_not_found");
        cache.get(&longer, key).await.expect(200);
        cache.get(&other, key).await.expect(200);
    }
    assert_eq!(cache.list(&ns, &[]).await.number("size"), 0);
    cache.flush(&ns, &[]).await.expect_json(200, &json!({"success": true, "deleted_count": 0}));
}

async fn f12_delete_with_pattern(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f12"));
    let other = namespace("f12");
    for key in ["user_1", "user_22", "user_", "User_1", "my_user_1", "admin_1"] {
        cache.set(&ns, key, "1").await.expect(201);
        cache.get(&ns, key).await.expect(200);
    }
    cache.set(&other, "user_1", "1").await.expect(201);
    let flushed = cache.flush(&ns, &[("pattern", "user_*")]).await;
    flushed.expect_json(200, &json!({"success": true, "deleted_count": 3}));
    for key in ["user_1", "user_22", "user_"] {
        cache.get(&ns, key).await.expect_error(404, "key_not_found");
    }
    for key in ["User_1", "my_user_1", "admin_1"] {
        cache.get(&ns, key).await.expect(200);
    }
    cache.get(&other, "user_1").await.expect(200);
}

async fn f13_stats(service: &Service) {
    let (cache, ns) = (service.client(), namespace("f13"));
    let expect = async |hits: u64, misses: u64, keys: u64, bytes: u64| {
        eventually(SOON, async || {
            let stats = cache.stats(&ns).await.expect(200).json();
            let field = |name: &str| stats[name].as_u64();
            ensure!(
                field("hits") == Some(hits) && field("misses") == Some(misses),
                "{hits}/{misses} expected: {stats}"
            );
            ensure!(field("total_keys") == Some(keys), "{keys} keys expected: {stats}");
            ensure!(field("memory_used_bytes") == Some(bytes), "{bytes} bytes expected: {stats}");
            let (rate, reads) = (stats["hit_rate"].as_f64().expect("a number"), hits + misses);
            let expected = if reads == 0 { 0.0 } else { hits as f64 / reads as f64 };
            ensure!((rate - expected).abs() < 0.000_1, "hit_rate {expected} expected: {stats}");
            let mb = stats["memory_used_mb"].as_f64().expect("a number");
            ensure!((mb - bytes as f64 / 1_048_576.0).abs() < 0.01, "{bytes} bytes: {stats}");
            ensure!(stats["namespace"] == ns.as_str() && field("evictions") == Some(0), "{stats}");
            Ok(())
        })
        .await;
    };
    expect(0, 0, 0, 0).await;
    cache.set(&ns, "a", r#""12345678""#).await.expect(201); // 10 bytes
    cache.set(&ns, "b", r#"{"ü": 1}"#).await.expect(201); // 9 bytes
    cache.set(&ns, "c", "1").await.expect(201);
    expect(0, 0, 3, 20).await;
    for _ in 0..3 {
        cache.get(&ns, "a").await.expect(200);
    }
    cache.get(&ns, "absent").await.expect(404);
    cache.head(&ns, "b").await.expect(200);
    cache.head(&ns, "absent").await.expect(404);
    expect(4, 2, 3, 20).await;
    cache.mget(&ns, &["a", "b", "c", "x", "y"]).await.expect(200);
    expect(7, 4, 3, 20).await;
    cache.set(&ns, "a", "[1,2]").await.expect(200); // 5 bytes instead of 10
    cache.delete(&ns, "c").await.expect(200);
    expect(7, 4, 2, 14).await;
    cache.fill(&ns, &json!([{"key": "b", "value": 12}, {"key": "d", "value": 123}])).await;
    expect(7, 4, 3, 10).await;
    cache.flush(&ns, &[]).await.expect(200);
    cache.get(&ns, "a").await.expect(404);
    expect(7, 5, 0, 0).await;
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
