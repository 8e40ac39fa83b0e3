//! Valid keys and namespaces: awkward ones work in every call, invalid ones are refused, and keys that look like
//! routes are ordinary keys.

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, cache_path, encoded, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::service::Service;
use crate::support::wire;

on_both_stores! {
    awkward_keys_round_trip,
    awkward_keys_do_not_collide,
    dots_are_keys_not_path_segments,
    regression_dots_are_not_valid_namespaces,
    different_percent_encodings_are_the_same_key,
    an_unencoded_slash_is_another_route,
    a_key_of_512_bytes_is_the_longest,
    keys_with_control_characters_are_refused,
    keys_that_are_not_utf8_are_refused,
    the_empty_key_is_refused,
    a_namespace_of_100_characters_is_the_longest,
    namespaces_with_other_characters_are_refused,
    stats_is_a_reserved_key,
    names_of_routes_are_ordinary_keys,
}

const AWKWARD: &[&str] = &[
    "a/b",
    "/",
    "//a//",
    "a%b",
    "100%",
    "%2F",
    "%",
    "a b",
    " leading",
    "trailing ",
    "a:b:c",
    ":",
    "?q=1",
    "#fragment",
    "a&b=c",
    "+",
    "a+b",
    "ключ",
    "キー",
    "😀",
    "e\u{301}",
    "é",
    "\u{a0}",
    "\u{feff}",
    "\"quoted\"",
    "back\\slash",
    "it's",
    "{a}",
    "[a]*?",
    "*",
    "a,b;c",
    "~-_.!$()@",
    "...",
    ".hidden",
    "a/../b",
    "null",
    "0",
    "STATS",
    "stats/",
    "x\u{10ffff}",
];

async fn awkward_keys_round_trip(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    for (index, key) in AWKWARD.iter().enumerate() {
        let value = format!("\"value {index}\"");
        let created = cache.set(&ns, key, &value).await;
        created.expect_json(201, &json!({"success": true, "key": key, "created": true}));
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), value, "{key}");
        cache.head(&ns, key).await.expect(200);
        let batch = cache.mget(&ns, &[key]).await.expect(200).json();
        assert_eq!(batch["results"][*key]["found"], true, "{key}: {batch}");
        assert_eq!(cache.list(&ns, &[]).await.json()["keys"], json!([key]));
        cache.delete(&ns, key).await.expect(200);
        cache.get(&ns, key).await.expect(404);
        cache.fill(&ns, &json!([{"key": key, "value": index}])).await;
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), index.to_string(), "{key}");
        cache.delete(&ns, key).await.expect(200);
    }
}

async fn awkward_keys_do_not_collide(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    for (index, key) in AWKWARD.iter().enumerate() {
        cache.set(&ns, key, &index.to_string()).await.expect(201);
    }
    for (index, key) in AWKWARD.iter().enumerate() {
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), index.to_string(), "{key}");
    }
    let mut expected: Vec<&str> = AWKWARD.to_vec();
    expected.sort_unstable();
    assert_eq!(cache.all_keys(&ns).await, expected);
    assert_eq!(cache.mget(&ns, AWKWARD).await.number("hits"), AWKWARD.len() as u64);
}

async fn dots_are_keys_not_path_segments(service: &Service) {
    // Clients that follow the URL standard remove these from a path, even if they are encoded, so the test uses a
    // plain socket.
    let (cache, ns, address) = (service.client(), namespace("keys"), service.address());
    for key in [".", ".."] {
        let path = format!("{}/{key}", cache_path(&ns));
        wire::request(address, "PUT", &path, r#"{"value":1}"#).await.expect(201);
        assert_eq!(wire::request(address, "GET", &path, "").await.expect(200).value(), "1");
        assert_eq!(cache.mget(&ns, &[key]).await.number("hits"), 1);
        let encoded = format!("{}/{}", cache_path(&ns), key.replace('.', "%2E"));
        wire::request(address, "DELETE", &encoded, "").await.expect(200);
    }
}

async fn regression_dots_are_not_valid_namespaces(service: &Service) {
    // The bug: they were valid namespaces, but every client that resolves `..` requested another path.
    let (cache, address) = (service.client(), service.address());
    for ns in [".", "..", "%2E", "%2e%2E"] {
        for (method, path, body) in [
            ("PUT", format!("/api/v1/cache/{ns}/k"), r#"{"value":1}"#),
            ("GET", format!("/api/v1/cache/{ns}/k"), ""),
            ("POST", format!("/api/v1/cache/{ns}/mget"), r#"{"keys":["k"]}"#),
            ("DELETE", format!("/api/v1/cache/{ns}"), ""),
            ("PUT", format!("/api/v1/namespaces/{ns}"), "{}"),
        ] {
            wire::request(address, method, &path, body).await.expect_error(400, "invalid_namespace");
        }
    }
    for page in ["/dashboard/namespace?ns=..", "/dashboard/namespace/key?ns=..&key=k"] {
        cache.fetch(page).await.expect(404);
    }
}

async fn different_percent_encodings_are_the_same_key(service: &Service) {
    let (cache, ns, address) = (service.client(), namespace("keys"), service.address());
    cache.set(&ns, "a:b/ü", "1").await.expect(201);
    for spelling in ["a:b%2F%C3%BC", "a%3Ab%2f%c3%bc", "%61%3A%62%2F%C3%bc"] {
        let path = format!("{}/{spelling}", cache_path(&ns));
        assert_eq!(wire::request(address, "GET", &path, "").await.expect(200).value(), "1", "{spelling}");
    }
    // In a path, a plus does not mean a space.
    cache.set(&ns, "a b", "2").await.expect(201);
    let plus = format!("{}/a+b", cache_path(&ns));
    wire::request(address, "GET", &plus, "").await.expect_error(404, "key_not_found");
    wire::request(address, "PUT", &plus, r#"{"value":3}"#).await.expect(201);
    assert_eq!(cache.get(&ns, "a+b").await.expect(200).value(), "3");
    assert_eq!(cache.get(&ns, "a b").await.expect(200).value(), "2");
}

async fn an_unencoded_slash_is_another_route(service: &Service) {
    let ns = namespace("keys");
    let path = format!("{}/a/b", cache_path(&ns));
    wire::request(service.address(), "GET", &path, "").await.expect_error(404, "no_such_route");
    wire::request(service.address(), "PUT", &path, r#"{"value":1}"#).await.expect_error(404, "no_such_route");
}

/// Checks that an invalid key in an mget has an error of its own, and that the other keys are answered as usual.
async fn fails_alone_in_an_mget(cache: &Client, ns: &str, invalid: &str) {
    let error = json!({"value": null, "found": false, "error": "invalid_key"});
    let results = json!({"absent": {"value": null, "found": false}, invalid: error});
    let expected = json!({"results": results, "hits": 0, "misses": 1, "errors": 1});
    cache.mget(ns, &["absent", invalid, invalid]).await.expect_json(200, &expected);
    let expected = json!({"results": {invalid: error}, "hits": 0, "misses": 0, "errors": 1});
    cache.mget(ns, &[invalid]).await.expect_json(200, &expected);
}

async fn a_key_of_512_bytes_is_the_longest(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    let (ascii, emoji, slashes) = ("k".repeat(512), "😀".repeat(128), "/".repeat(512));
    for key in [&ascii, &emoji, &slashes] {
        cache.set(&ns, key, "1").await.expect(201);
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), "1");
        assert_eq!(cache.mget(&ns, &[key]).await.number("hits"), 1);
    }
    for key in [format!("{ascii}k"), format!("{emoji}k"), format!("{}é", "k".repeat(511))] {
        cache.set(&ns, &key, "1").await.expect_error(400, "invalid_key");
        cache.get(&ns, &key).await.expect_error(400, "invalid_key");
        cache.delete(&ns, &key).await.expect_error(400, "invalid_key");
        assert_eq!(cache.head(&ns, &key).await.status, 400);
        fails_alone_in_an_mget(&cache, &ns, &key).await;
        let entries = json!([{"key": "ok", "value": 1}, {"key": key, "value": 1}]);
        let problem = cache.mset(&ns, &entries).await.expect_error(400, "invalid_key");
        assert!(problem.contains("entries[1]"), "{problem}");
    }
    cache.get(&ns, "ok").await.expect(404);
}

async fn keys_with_control_characters_are_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    for key in ["\0", "a\nb", "a\r", "\t", "\u{1f}", "\u{7f}", "\u{85}"] {
        cache.set(&ns, key, "1").await.expect_error(400, "invalid_key");
        cache.get(&ns, key).await.expect_error(400, "invalid_key");
        cache.delete(&ns, key).await.expect_error(400, "invalid_key");
        fails_alone_in_an_mget(&cache, &ns, key).await;
        let problem = cache.mset(&ns, &json!([{"key": key, "value": 1}])).await.expect_error(400, "invalid_key");
        assert!(problem.contains("entries[0]"), "{problem}");
    }
    assert_eq!(cache.list(&ns, &[]).await.number("size"), 0);
}

async fn keys_that_are_not_utf8_are_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    for bytes in ["%FF", "a%C3%28", "%ED%A0%80", "%C0%AF", "%F4%90%80%80"] {
        let path = format!("{}/{bytes}", cache_path(&ns));
        for method in [Method::GET, Method::DELETE] {
            cache.send(method, &path, &[], None).await.expect_error(400, "invalid_key");
        }
        let body = br#"{"value":1}"#.to_vec();
        cache.send(Method::PUT, &path, &[], Some(body)).await.expect_error(400, "invalid_key");
    }
}

async fn the_empty_key_is_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    let path = format!("{}/", cache_path(&ns));
    let put = cache.send(Method::PUT, &path, &[], Some(br#"{"value":1}"#.to_vec())).await;
    assert!([400, 404].contains(&put.status), "{}", put.status);
    cache.set(&ns, "kept", "1").await.expect(201);
    let delete = cache.send(Method::DELETE, &path, &[], None).await;
    assert!([400, 404].contains(&delete.status), "{}", delete.status);
    cache.get(&ns, "kept").await.expect(200);
    fails_alone_in_an_mget(&cache, &ns, "").await;
    cache.mset(&ns, &json!([{"key": "", "value": 1}])).await.expect_error(400, "invalid_key");
}

async fn a_namespace_of_100_characters_is_the_longest(service: &Service) {
    let cache = service.client();
    let unique = namespace("Az09_.-");
    let longest = format!("{unique}{}", "n".repeat(100 - unique.len()));
    cache.set(&longest, "k", "1").await.expect(201);
    assert_eq!(cache.get(&longest, "k").await.expect(200).value(), "1");
    assert_eq!(cache.list(&longest, &[]).await.number("size"), 1);
    cache.put_policy(&longest, "{}").await;
    assert_eq!(cache.policy(&longest).await.expect(200).json()["name"], longest.as_str());
    cache.flush(&longest, &[]).await.expect(200);

    refused_everywhere(service, &format!("{longest}n")).await;
}

async fn namespaces_with_other_characters_are_refused(service: &Service) {
    for name in ["a b", "a:b", "a/b", "ü", "*", "a\0", "a\n", "{a}", "a+b", "a%b", "名"] {
        refused_everywhere(service, name).await;
    }
    // A name that is not UTF-8.
    let bad = service.client().fetch("/api/v1/cache/%FF/k").await;
    bad.expect_error(400, "invalid_namespace");
}

async fn refused_everywhere(service: &Service, name: &str) {
    let cache = service.client();
    cache.set(name, "k", "1").await.expect_error(400, "invalid_namespace");
    cache.get(name, "k").await.expect_error(400, "invalid_namespace");
    cache.delete(name, "k").await.expect_error(400, "invalid_namespace");
    cache.mget(name, &["k"]).await.expect_error(400, "invalid_namespace");
    cache.mset(name, &json!([{"key": "k", "value": 1}])).await.expect_error(400, "invalid_namespace");
    cache.list(name, &[]).await.expect_error(400, "invalid_namespace");
    cache.flush(name, &[]).await.expect_error(400, "invalid_namespace");
    cache.stats(name).await.expect_error(400, "invalid_namespace");
    cache.put_policy(name, "{}").await.expect_error(400, "invalid_namespace");
    cache.policy(name).await.expect_error(400, "invalid_namespace");
    cache.delete_policy(name).await.expect_error(400, "invalid_namespace");
}

async fn stats_is_a_reserved_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    cache.set(&ns, "stats", "1").await.expect_error(400, "reserved_key");
    cache.delete(&ns, "stats").await.expect_error(400, "reserved_key");
    let entries = json!([{"key": "ok", "value": 1}, {"key": "stats", "value": 1}]);
    let problem = cache.mset(&ns, &entries).await.expect_error(400, "reserved_key");
    assert!(problem.contains("entries[1]"), "{problem}");
    cache.get(&ns, "ok").await.expect(404);
    let encoded = format!("{}/%73t%61ts", cache_path(&ns));
    let put = cache.send(Method::PUT, &encoded, &[], Some(br#"{"value":1}"#.to_vec())).await;
    put.expect_error(400, "reserved_key");
    assert_eq!(cache.stats(&ns).await.expect(200).number("total_keys"), 0);
}

async fn names_of_routes_are_ordinary_keys(service: &Service) {
    let (cache, ns) = (service.client(), namespace("keys"));
    for key in ["mget", "mset", "health", "namespaces", "stats2"] {
        cache.get(&ns, key).await.expect_error(404, "key_not_found");
        cache.set(&ns, key, "1").await.expect(201);
        assert_eq!(cache.get(&ns, key).await.expect(200).value(), "1");
        cache.head(&ns, key).await.expect(200);
        assert_eq!(cache.mget(&ns, &[key]).await.number("hits"), 1);
        cache.delete(&ns, key).await.expect_json(200, &json!({"success": true, "deleted": true}));
        cache.delete(&ns, key).await.expect_error(404, "key_not_found");
    }
    // They are ordinary names of namespaces, too.
    for ns in ["mget", "mset", "stats", "cache", "namespaces"] {
        let key = encoded(&namespace("keys"));
        cache.send(Method::PUT, &key_path(ns, &key), &[], Some(br#"{"value":1}"#.to_vec())).await.expect(201);
        assert_eq!(cache.get(ns, &key).await.expect(200).value(), "1");
        cache.delete(ns, &key).await.expect(200);
        eventually(SOON, async || {
            let status = cache.policy(ns).await.status;
            ensure!(status == 200, "{status}");
            Ok(())
        })
        .await;
    }
}
