//! `mdelete`: deletes many keys, including keys that cannot be in a path. Also: conditional headers on changes are
//! refused.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::answer::Answer;
use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, cache_path, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

on_both_stores! {
    mdelete_deletes_exactly_the_named_keys,
    an_mdelete_with_an_invalid_key_deletes_nothing,
    a_condition_on_a_call_that_does_not_support_it_is_refused_and_changes_nothing,
}

async fn mdelete(cache: &Client, ns: &str, body: &Value) -> Answer {
    cache.mdelete(ns, body.to_string()).await
}

async fn mdelete_deletes_exactly_the_named_keys(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mdelete"));
    // Keys that URL libraries and proxies resolve, merge or refuse in a path.
    let awkward = [".", "..", "../a", "a//b", "/", "mdelete", "a%2Fb", "ü 1", "?", "#"];
    let entries: Vec<Value> = awkward.iter().chain(&["kept"]).map(|key| json!({"key": key, "value": 1})).collect();
    cache.fill(&ns, &json!(entries)).await;
    for key in awkward {
        cache.mget(&ns, &[key]).await.expect(200);
    }
    let twice: Vec<&str> = awkward.iter().chain(&awkward).chain(&["absent"]).copied().collect();
    let before = cache.metrics().await;
    let answer = mdelete(&cache, &ns, &json!({"keys": twice})).await;
    answer.expect_json(200, &json!({"success": true, "deleted_count": awkward.len()}));
    assert_eq!(cache.all_keys(&ns).await, ["kept"]);
    mdelete(&cache, &ns, &json!({"keys": twice}))
        .await
        .expect_json(200, &json!({"success": true, "deleted_count": 0}));
    mdelete(&cache, &ns, &json!({"keys": []})).await.expect_json(200, &json!({"success": true, "deleted_count": 0}));
    let calls = [("operation", "mdelete"), ("result", "done")];
    let counted = |metrics: &crate::support::metric::Metrics| metrics.total_with("sidecache_requests_total", &calls);
    assert!(counted(&cache.metrics().await) - counted(&before) >= 3.0);
    assert_eq!(cache.stats(&ns).await.number("total_keys"), 1);
    eventually(SOON, async || {
        let logs = cache.logs(&ns, &[("operation", "mdelete")]).await.expect(200).json();
        let rows = logs["logs"].as_array().map_or(0, Vec::len);
        anyhow::ensure!(rows == 3, "{logs}");
        Ok(())
    })
    .await;
    // With other methods, this path is the path of a key.
    cache.set(&ns, "mdelete", "1").await.expect(201);
    assert_eq!(cache.get(&ns, "mdelete").await.expect(200).value(), "1");
}

async fn an_mdelete_with_an_invalid_key_deletes_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("mdelete"));
    cache.set(&ns, "k", "1").await.expect(201);
    let many: Vec<String> = (0..1001).map(|_| "k".to_owned()).collect();
    for (body, code, named) in [
        (json!({"keys": ["k", ""]}), "invalid_key", "keys[1]"),
        (json!({"keys": ["k", "k".repeat(513)]}), "invalid_key", "keys[1]"),
        (json!({"keys": ["k", "stats"]}), "reserved_key", "keys[1]"),
        (json!({"keys": ["k", 1]}), "invalid_body", "keys[1]"),
        (json!({"keys": "k"}), "invalid_body", "keys"),
        (json!({"keys": null}), "invalid_body", "keys"),
        (json!({}), "invalid_body", "keys"),
        (json!({"keys": ["k"], "pattern": "*"}), "invalid_body", "pattern"),
        (json!({"keys": many}), "too_many_keys", "1000"),
    ] {
        let told = mdelete(&cache, &ns, &body).await.expect_error(400, code);
        assert!(told.contains(named), "{body}: {told}");
    }
    cache.mdelete("b d", "{\"keys\":[]}").await.expect_error(400, "invalid_namespace");
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "1");
}

#[tokio::test]
async fn mdelete_names_the_keys_of_a_dead_shard_and_deletes_the_others() {
    let servers = [Redis::start(), Redis::start()];
    let service = Service::start(Settings::on(&servers).set("redis_timeout_ms", 300));
    let _log = service.log_on_failure();
    let (cache, ns) = (service.client(), namespace("mdelete"));
    let keys: Vec<String> = (0..100).map(|i| format!("k{i}")).collect();
    let entries: Vec<Value> = keys.iter().map(|key| json!({"key": key, "value": 1})).collect();
    cache.fill(&ns, &json!(entries)).await;
    let [dead, _living] = servers;
    drop(dead);
    let answer = mdelete(&cache, &ns, &json!({"keys": keys})).await.expect(200);
    let failed = answer.json()["errors"].as_object().map_or(0, serde_json::Map::len) as u64;
    let told = answer.text().to_owned();
    assert_eq!(answer.json()["success"], false, "{told}");
    assert!(failed > 10 && failed + answer.number("deleted_count") == 100, "{told}");
}

/// The bug: `If-Match` was ignored. A client that wanted to change only the state it had seen changed another one.
/// `conditions` tests the calls that support it.
async fn a_condition_on_a_call_that_does_not_support_it_is_refused_and_changes_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("conditions"));
    cache.set(&ns, "k", "1").await.expect(201);
    let (space, key) = (cache_path(&ns), key_path(&ns, "k"));
    let policy = format!("/api/v1/namespaces/{ns}");
    let calls = [
        (Method::DELETE, space.clone(), ""),
        (Method::POST, format!("{space}/mset"), r#"{"entries":[{"key":"k","value":2}]}"#),
        (Method::POST, format!("{space}/mdelete"), r#"{"keys":["k"]}"#),
        (Method::PUT, policy.clone(), r#"{"default_ttl":1}"#),
        (Method::DELETE, policy, ""),
    ];
    for (name, value) in [
        ("If-Match", "\"1\""),
        ("If-Match", "*"),
        ("If-None-Match", "*"),
        ("If-None-Match", "\"1\""),
        ("If-Unmodified-Since", "Sat, 29 Oct 1994 19:43:31 GMT"),
    ] {
        let on_an_entry = [(Method::PUT, key.clone(), r#"{"value":2}"#), (Method::DELETE, key.clone(), "")];
        let on_an_entry = on_an_entry.iter().filter(|_| name == "If-Unmodified-Since");
        for (method, path, body) in calls.iter().chain(on_an_entry) {
            let body = Some(body.as_bytes().to_vec());
            let answer = cache.send(method.clone(), path, &[(name, value)], body).await;
            assert!(answer.header("retry-after").is_none(), "a retry cannot succeed");
            let told = answer.expect_error(501, "not_implemented");
            assert!(told.contains(name), "{method} {path}: {told}");
        }
        // A read is answered.
        let status = cache.get_with(&ns, "k", &[(name, value)]).await.status;
        let expected = match (name, value) {
            ("If-None-Match", "*") => 304,
            ("If-Match", "\"1\"") => 412,
            _ => 200,
        };
        assert_eq!(status, expected, "{name}: {value}");
    }
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "1");
    assert_eq!(cache.all_keys(&ns).await, ["k"]);
}
