//! One value, two doors: what HTTP clients see of values of Redis clients, and the other way round.

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::resp::{Connection, Reply, bulk, ok};
use crate::support::service::Service;

on_both_stores! {
    redis_clients_read_the_bytes_of_json,
    http_clients_read_bytes_in_base64_or_as_they_are,
    an_entry_is_tagged_and_flushed_by_http,
    writes_of_one_door_are_seen_by_the_other,
    a_known_absence_is_no_value,
    an_entry_that_is_kept_for_errors_is_no_value,
    a_marked_entry_that_is_answered_exists,
    an_entry_past_its_ttl_that_is_answered_exists,
    a_new_expiry_and_a_counter_keep_the_grace,
    regression_a_mark_keeps_the_kind_of_a_value,
}

const OCTETS: &[(&str, &str)] = &[("accept", "application/octet-stream")];

async fn redis_clients_read_the_bytes_of_json(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    cache.set(&ns, "k", r#"{"a": 1.50, "b":"\u00fc"}"#).await.expect(201);
    for _ in 0..2 {
        assert_eq!(redis.call(&["GET", "k"]).await, bulk(r#"{"a": 1.50, "b":"\u00fc"}"#));
    }
    cache.set(&ns, "n", "41").await.expect(201);
    assert_eq!(redis.call(&["INCR", "n"]).await.integer(), 42);
    assert_eq!(cache.get(&ns, "n").await.expect(200).value(), "42", "a counter stays JSON");
    let octets = cache.send(Method::GET, &key_path(&ns, "k"), OCTETS, None).await;
    assert_eq!(&octets.expect(200).body[..], br#"{"a": 1.50, "b":"\u00fc"}"#);
}

async fn http_clients_read_bytes_in_base64_or_as_they_are(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    let large: Vec<u8> = (0..100_000).map(|i: u32| (i % 251) as u8).collect();
    for (value, encoded) in [(b"".as_slice(), Some("")), (b"\xff\0x", Some("/wB4")), (&large, None)] {
        assert_eq!(redis.call(&[b"SET".as_slice(), b"k", value]).await, ok());
        // From the shard, and then from L1; by the fast path, and by the router.
        for path in [key_path(&ns, "k"), key_path(&ns, "k"), key_path(&ns, "k") + "?metadata=full"] {
            let answer = cache.send(Method::GET, &path, &[], None).await.expect(200).json();
            assert_eq!(answer["encoding"], "base64", "{path}");
            if let Some(encoded) = encoded {
                assert_eq!(answer["value"], encoded, "{path}");
            } else {
                assert_eq!(answer["value"].as_str().expect("a string").len(), large.len().div_ceil(3) * 4);
            }
        }
        let octets = cache.send(Method::GET, &key_path(&ns, "k"), OCTETS, None).await.expect(200);
        assert_eq!((&octets.body[..], octets.header("content-type")), (value, Some("application/octet-stream")));
        let read = cache.mget(&ns, &["k"]).await.expect(200).json();
        assert_eq!(read["results"]["k"]["encoding"], "base64");
    }
    let stats = cache.stats(&ns).await.json();
    assert_eq!(stats["memory_used_bytes"], large.len());
    cache.set(&ns, "k", "1").await.expect(200);
    let answer = cache.get(&ns, "k").await.expect(200).json();
    assert_eq!((&answer["value"], answer.get("encoding")), (&json!(1), None), "JSON again");
    // Keys that HTTP does not allow have the percent form.
    assert_eq!(redis.call(&[b"SET".as_slice(), b"\0\xff", b"x"]).await, ok());
    assert_eq!(cache.get(&ns, "%:%00%FF").await.expect(200).json()["value"], "eA==");
    cache.get(&ns, "%:plain").await.expect_error(400, "invalid_key");
    cache.set(&ns, "%:%00%ff", "1").await.expect_error(400, "invalid_key");
}

async fn an_entry_is_tagged_and_flushed_by_http(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    let tagged = json!({"value": "a", "tags": ["t"]}).to_string();
    cache.send(Method::PUT, &key_path(&ns, "k"), &[], Some(tagged.into_bytes())).await.expect(201);
    assert_eq!(redis.call(&["EXPIRE", "k", "100"]).await.integer(), 1);
    assert_eq!(redis.call(&["APPEND", "k", "b"]).await.integer(), 4, "the JSON text has its quotes");
    let full = cache.send(Method::GET, &(key_path(&ns, "k") + "?metadata=full"), &[], None).await.expect(200).json();
    assert_eq!(full["metadata"]["tags"], json!(["t"]), "tags stay when a value is modified");
    cache.send(Method::DELETE, &format!("/api/v1/cache/{ns}?tag=t"), &[], None).await.expect(200);
    assert_eq!(redis.call(&["GET", "k"]).await, Reply::Null);
}

async fn writes_of_one_door_are_seen_by_the_other(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    for i in 0..50 {
        cache.set(&ns, "k", &i.to_string()).await;
        assert_eq!(redis.call(&["GET", "k"]).await, bulk(i.to_string()));
        assert_eq!(redis.call(&["SET", "k", &format!("r{i}")]).await, ok());
        let octets = cache.send(Method::GET, &key_path(&ns, "k"), OCTETS, None).await;
        assert_eq!(octets.expect(200).body, format!("r{i}"));
    }
    assert_eq!(redis.call(&["DEL", "k"]).await.integer(), 1);
    cache.get(&ns, "k").await.expect(404);
}

/// The commands that change an entry find none: they begin with nothing, or do nothing.
async fn is_no_value(redis: &mut Connection, key: &str, put: impl AsyncFn()) {
    put().await;
    assert_eq!(redis.call(&["GET", key]).await, Reply::Null);
    for words in [["EXISTS", key], ["PERSIST", key], ["DEL", key]] {
        assert_eq!(redis.call(&words).await.integer(), 0, "{words:?}");
    }
    put().await;
    assert_eq!(redis.call(&["OBJECT", "ENCODING", key]).await.error(), "ERR no such key");
    assert_eq!(redis.call(&["EXPIRE", key, "100"]).await.integer(), 0);
    assert_eq!(redis.call(&["EXPIRE", key, "100", "NX"]).await.integer(), 0);
    for words in [&["GETDEL", key][..], &["GETEX", key, "EX", "9"], &["SET", key, "v", "XX"]] {
        assert_eq!(redis.call(words).await, Reply::Null, "{words:?}");
    }
    assert_eq!(redis.call(&["INCR", key]).await.integer(), 1);
    put().await;
    assert_eq!(redis.call(&["APPEND", key, "zz"]).await.integer(), 2);
    put().await;
    assert_eq!(redis.call(&["SETRANGE", key, "1", "z"]).await.integer(), 2);
    put().await;
    assert_eq!(redis.call(&["GETSET", key, "v"]).await, Reply::Null);
    put().await;
    assert_eq!(redis.call(&["SET", key, "v", "KEEPTTL", "NX", "GET"]).await, Reply::Null);
    assert_eq!(redis.call(&["GET", key]).await, bulk("v"));
}

async fn a_known_absence_is_no_value(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors-absent"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    let put = async || {
        cache.delete(&ns, "k").await;
        cache.put(&ns, "k", r#"{"absent":true,"ttl":600}"#).await.expect(201);
    };
    is_no_value(&mut redis, "k", put).await;
    // A value that is over at once is written as well, so the absence is no longer known.
    put().await;
    assert_eq!(redis.call(&["SET", "k", "v", "PXAT", "1"]).await, ok());
    cache.get(&ns, "k").await.expect_error(404, "key_not_found");
}

async fn an_entry_that_is_kept_for_errors_is_no_value(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors-kept"));
    cache.put_policy(&ns, r#"{"stale_if_error":600}"#).await.expect(201);
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    let put = async || {
        cache.delete(&ns, "k").await;
        cache.put(&ns, "k", r#"{"value":5,"ttl":600}"#).await.expect(201);
        mark(&cache, &ns, "k").await;
    };
    is_no_value(&mut redis, "k", put).await;
}

async fn mark(cache: &Client, ns: &str, key: &str) {
    let marked = json!({"success": true, "marked_count": 1});
    cache.send(Method::DELETE, &(key_path(ns, key) + "?mode=stale"), &[], None).await.expect_json(200, &marked);
}

/// Waits until HTTP answers with the entry, past the end of its freshness.
async fn is_answered_as_stale(cache: &Client, ns: &str, key: &str) {
    eventually(SOON, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.status == 200 && answer.header("x-cache-ttl") == Some("0"), "{answer:?}");
        Ok(())
    })
    .await;
}

/// All commands find the entry, whose value is 5 and which is past its freshness.
async fn exists(redis: &mut Connection, key: &str) {
    assert_eq!(redis.call(&["GET", key]).await, bulk("5"));
    assert_eq!(redis.call(&["EXISTS", key]).await.integer(), 1);
    assert_eq!(redis.call(&["OBJECT", "ENCODING", key]).await, bulk("int"));
    assert_eq!(redis.call(&["TTL", key]).await.integer(), 0);
    assert_eq!(redis.call(&["SET", key, "9", "NX"]).await, Reply::Null);
    assert_eq!(redis.call(&["SET", key, "9", "NX", "GET"]).await, bulk("5"));
    assert_eq!(redis.call(&["SETRANGE", key, "0", ""]).await.integer(), 1);
    assert_eq!(redis.call(&["EXPIRE", key, "100", "NX"]).await.integer(), 0);
}

/// A value that depends on the stale one is stale, too, and lives as long.
async fn changes_of_a_stale_value_are_stale(cache: &Client, ns: &str, redis: &mut Connection, key: &str) {
    assert_eq!(redis.call(&["INCR", key]).await.integer(), 6);
    assert_eq!(redis.call(&["APPEND", key, "0"]).await.integer(), 2);
    is_answered_as_stale(cache, ns, key).await;
    assert_eq!(redis.call(&["GET", key]).await, bulk("60"));
    assert_eq!(redis.call(&["SET", key, "7", "XX", "GET"]).await, bulk("60"));
    assert_ne!(redis.call(&["TTL", key]).await.integer(), 0, "a value that replaces it is fresh");
    assert_eq!(redis.call(&["GETDEL", key]).await, bulk("7"));
    assert_eq!(redis.call(&["GET", key]).await, Reply::Null);
}

async fn a_marked_entry_that_is_answered_exists(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors-marked"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    for key in ["changed", "deleted"] {
        cache.put(&ns, key, r#"{"value":5,"ttl":600,"stale_while_revalidate":600}"#).await.expect(201);
        mark(&cache, &ns, key).await;
    }
    exists(&mut redis, "changed").await;
    // A mark is never lifted.
    assert_eq!(redis.call(&["PERSIST", "changed"]).await.integer(), 0);
    assert_eq!(redis.call(&["GETEX", "changed", "PERSIST"]).await, bulk("5"));
    assert_eq!(redis.call(&["GETEX", "changed", "EX", "1000"]).await, bulk("5"));
    assert_eq!(redis.call(&["EXPIRE", "changed", "1000", "XX"]).await.integer(), 1);
    assert_eq!(redis.call(&["TTL", "changed"]).await.integer(), 0);
    changes_of_a_stale_value_are_stale(&cache, &ns, &mut redis, "changed").await;
    assert_eq!(redis.call(&["GETDEL", "deleted"]).await, bulk("5"));
    assert_eq!(redis.call(&["GETDEL", "deleted"]).await, Reply::Null);
}

async fn an_entry_past_its_ttl_that_is_answered_exists(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors-grace"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    for key in ["changed", "kept"] {
        cache.put(&ns, key, r#"{"value":5,"ttl":1,"stale_while_revalidate":600}"#).await.expect(201);
    }
    for key in ["changed", "kept"] {
        is_answered_as_stale(&cache, &ns, key).await;
        exists(&mut redis, key).await;
    }
    changes_of_a_stale_value_are_stale(&cache, &ns, &mut redis, "changed").await;
    assert_eq!(redis.call(&["PERSIST", "kept"]).await.integer(), 1);
    assert_eq!(redis.call(&["TTL", "kept"]).await.integer(), -1);
}

async fn a_new_expiry_and_a_counter_keep_the_grace(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors-keep"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    for key in ["plain", "option", "counter"] {
        cache.put(&ns, key, r#"{"value":5,"ttl":100,"stale_while_revalidate":600}"#).await.expect(201);
    }
    assert_eq!(redis.call(&["INCR", "counter"]).await.integer(), 6);
    assert!(redis.call(&["TTL", "counter"]).await.integer() > 90);
    assert_eq!(redis.call(&["EXPIRE", "counter", "1"]).await.integer(), 1);
    assert_eq!(redis.call(&["EXPIRE", "plain", "1"]).await.integer(), 1);
    assert_eq!(redis.call(&["PEXPIRE", "option", "1", "LT"]).await.integer(), 1);
    for (key, value) in [("plain", "5"), ("option", "5"), ("counter", "6")] {
        is_answered_as_stale(&cache, &ns, key).await;
        assert_eq!(redis.call(&["GET", key]).await, bulk(value));
    }
}

/// The bug: after a mark, the bytes of a Redis client were answered as JSON, which they are not.
async fn regression_a_mark_keeps_the_kind_of_a_value(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    cache.put_policy(&ns, r#"{"stale_while_revalidate":60}"#).await.expect(201);
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    assert_eq!(redis.call(&["SET", "bytes", "no JSON", "EX", "600"]).await, ok());
    cache.set(&ns, "json", "[1]").await.expect(201);
    cache.put(&ns, "absent", r#"{"absent":true}"#).await.expect(201);
    for key in ["bytes", "json", "absent"] {
        cache.send(Method::DELETE, &format!("{}?mode=stale", key_path(&ns, key)), &[], None).await.expect(200);
    }
    // From the shard, and then from L1.
    for _ in 0..2 {
        let bytes = cache.get(&ns, "bytes").await.expect(200);
        assert_eq!(bytes.header("x-cache-ttl"), Some("0"));
        let bytes = bytes.json();
        assert_eq!((&bytes["value"], &bytes["encoding"]), (&json!("bm8gSlNPTg=="), &json!("base64")));
        let found = cache.get(&ns, "json").await.expect(200).json();
        assert_eq!((&found["value"], found.get("encoding")), (&json!([1]), None));
        cache.get(&ns, "absent").await.expect_error(404, "known_absent");
    }
    assert_eq!(redis.call(&["GET", "bytes"]).await, bulk("no JSON"));
}
