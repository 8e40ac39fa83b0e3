//! Entries that say that the source has no such thing: `"absent": true` in a PUT or in an mset.

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::both_stores::{on_both_stores, on_every_release, on_every_server};
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::service::Service;

on_every_server! {
    a_known_absence_is_a_hit_that_is_a_404,
    a_batch_stores_and_reads_known_absences,
    a_known_absence_is_no_present_entry_for_changes,
    a_known_absence_is_listed_counted_and_flushed_like_an_entry,
    a_known_absence_expires,
    a_wrong_absence_is_refused,
}

mod leases {
    use super::*;

    on_every_release! {
        a_read_of_a_known_absence_gets_no_lease,
        a_loader_fills_its_lease_with_a_known_absence,
    }

    async fn a_read_of_a_known_absence_gets_no_lease(service: &Service) {
        let (cache, ns) = (service.client(), namespace("absent-lease"));
        put_absent(&cache, &ns, "k").await.expect(201);
        for _ in 0..2 {
            let answer = cache.get_with(&ns, "k", &[("prefer", "lease=10, wait=1")]).await;
            assert_eq!(answer.header("cache-lease"), None);
            answer.expect_error(404, "known_absent");
        }
        let results = cache.mget_or_lease(&ns, &["k"], 10).await.expect(200).json()["results"].clone();
        assert_eq!(results, json!({"k": {"value": null, "found": false, "known_absent": true}}));
    }

    async fn a_loader_fills_its_lease_with_a_known_absence(service: &Service) {
        let (cache, ns) = (service.client(), namespace("absent-fill"));
        let won = cache.get_with(&ns, "k", &[("prefer", "lease=10")]).await.expect(404);
        let lease = won.header("cache-lease").expect("a lease").to_owned();
        let token = lease.split('"').nth(1).expect("a token").to_owned();
        let waits = cache.get_with(&ns, "k", &[("prefer", "lease=10, wait=4")]);
        let fills = async {
            let headers = [("cache-lease", &*token)];
            let body = br#"{"absent":true,"ttl":60}"#.to_vec();
            let filled = cache.send(Method::PUT, &key_path(&ns, "k"), &headers, Some(body.clone())).await.expect(201);
            // The same fill again, for example by a proxy, gets the same answer.
            let again = cache.send(Method::PUT, &key_path(&ns, "k"), &headers, Some(body)).await.expect(201);
            assert_eq!(filled.header("etag"), again.header("etag"));
        };
        let (waited, ()) = tokio::join!(waits, fills);
        waited.expect_error(404, "known_absent");
        cache.get(&ns, "k").await.expect_error(404, "known_absent");
    }
}

mod metadata {
    use super::*;

    on_both_stores!(the_full_metadata_of_a_known_absence_is_beside_its_code);

    async fn the_full_metadata_of_a_known_absence_is_beside_its_code(service: &Service) {
        let (cache, ns) = (service.client(), namespace("absent-full"));
        cache.put(&ns, "k", r#"{"absent":true,"ttl":60,"tags":["a"]}"#).await.expect(201);
        let answer = cache.fetch(&format!("{}?metadata=full", key_path(&ns, "k"))).await.expect(404);
        let body = answer.json();
        assert_eq!((&body["code"], &body["metadata"]["tags"]), (&json!("known_absent"), &json!(["a"])), "{body}");
        assert_eq!(body["metadata"]["size_bytes"], 4, "{body}");
        assert!(body["metadata"]["ttl_remaining"].as_u64().is_some_and(|left| (1..=60).contains(&left)), "{body}");
    }
}

async fn put_absent(cache: &Client, ns: &str, key: &str) -> Answer {
    cache.put(ns, key, r#"{"absent":true,"ttl":60}"#).await
}

/// Checks the answer to a GET or a HEAD of a known absence.
fn check_hit(answer: &Answer) {
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-cache-hit"), Some("true"));
    let left: u64 = answer.header("x-cache-ttl").and_then(|left| left.parse().ok()).expect("a TTL");
    assert!((1..=60).contains(&left), "{left}");
    assert_eq!((answer.header("etag"), answer.header("cache-control")), (None, Some("no-cache")));
    let status = answer.header("cache-status").expect("the tier");
    assert!(status.contains("; hit; ttl="), "{status}");
}

async fn a_known_absence_is_a_hit_that_is_a_404(service: &Service) {
    let (cache, ns) = (service.client(), namespace("absent"));
    let hits = || async { cache.metrics().await.total("sidecache_known_absent_hits_total") };
    let before = hits().await;
    let stored =
        put_absent(&cache, &ns, "k").await.expect_json(201, &json!({"success": true, "key": "k", "created": true}));
    assert!(stored.header("etag").is_some());
    // From the shard, and then from L1 where there is one.
    for _ in 0..3 {
        let answer = cache.get(&ns, "k").await;
        check_hit(&answer);
        answer.expect_error(404, "known_absent");
    }
    check_hit(&cache.head(&ns, "k").await);
    cache.get_with(&ns, "k", &[("if-match", "*")]).await.expect_error(412, "precondition_failed");
    cache.get_with(&ns, "k", &[("if-none-match", "*")]).await.expect_error(404, "known_absent");
    let stats = cache.stats(&ns).await.expect(200).json();
    assert_eq!((&stats["hits"], &stats["misses"]), (&json!(6), &json!(0)), "{stats}");
    assert!(hits().await >= before + 6.0);
    eventually(SOON, async || {
        let logs = cache.logs(&ns, &[("operation", "get")]).await.expect(200).json();
        let Some(line) = logs["logs"].as_array().and_then(|lines| lines.last()) else { anyhow::bail!("no line") };
        let shown = (&line["outcome"], &line["status"], &line["error_code"], &line["hit"]);
        ensure!(shown == (&json!("hit"), &json!(404), &json!("known_absent"), &json!(true)), "{line}");
        Ok(())
    })
    .await;
}

async fn a_batch_stores_and_reads_known_absences(service: &Service) {
    let (cache, ns) = (service.client(), namespace("absent-batch"));
    let entries = json!([
        {"key": "gone", "absent": true, "ttl": 60},
        {"key": "here", "value": null, "absent": false},
        {"key": "new", "absent": true, "if_none_match": "*", "tags": ["a"]},
    ]);
    cache.fill(&ns, &entries).await;
    let expected = json!({
        "results": {
            "gone": {"value": null, "found": false, "known_absent": true},
            "here": {"value": null, "found": true},
            "new": {"value": null, "found": false, "known_absent": true},
            "other": {"value": null, "found": false},
        },
        "hits": 3, "misses": 1,
    });
    for _ in 0..2 {
        cache.mget(&ns, &["gone", "here", "new", "other"]).await.expect_json(200, &expected);
    }
    let deleted = json!({"success": true, "deleted_count": 1});
    cache.mdelete(&ns, r#"{"keys":["gone","here","other"]}"#).await.expect_json(200, &deleted);
    assert_eq!(cache.all_keys(&ns).await, ["new"]);
}

async fn a_known_absence_is_no_present_entry_for_changes(service: &Service) {
    let (cache, ns) = (service.client(), namespace("absent-changes"));
    let created = |answer: Answer| answer.json()["created"] == true;
    put_absent(&cache, &ns, "k").await.expect(201);
    assert!(created(put_absent(&cache, &ns, "k").await.expect(201)), "nothing was there before");
    assert!(created(cache.set(&ns, "k", "1").await.expect(201)));
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "1");
    assert!(!created(put_absent(&cache, &ns, "k").await.expect(200)), "a value was there before");
    check_hit(&cache.get(&ns, "k").await);
    cache.delete(&ns, "k").await.expect_error(404, "key_not_found");
    cache.get(&ns, "k").await.expect_error(404, "key_not_found");
    // The same with tags, and between other entries.
    cache.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1, "tags": ["t"]}])).await;
    cache.put(&ns, "k", r#"{"absent":true,"tags":["t"]}"#).await.expect(201);
    cache.put(&ns, "k", r#"{"value":2,"tags":["u"]}"#).await.expect(201);
    cache.put(&ns, "k", r#"{"absent":true,"tags":["t"]}"#).await.expect(200);
    cache.delete(&ns, "k").await.expect(404);
    assert_eq!(cache.stats(&ns).await.number("total_keys"), 2);
    assert_eq!(cache.list(&ns, &[("tag", "t")]).await.expect(200).json()["keys"], json!(["b"]));
}

async fn a_known_absence_is_listed_counted_and_flushed_like_an_entry(service: &Service) {
    let (cache, ns) = (service.client(), namespace("absent-counted"));
    cache.put(&ns, "gone", r#"{"absent":true,"tags":["a"]}"#).await.expect(201);
    cache.put(&ns, "here", r#"{"value":"123","tags":["a"]}"#).await.expect(201);
    cache.put(&ns, "stays", r#"{"absent":true}"#).await.expect(201);
    assert_eq!(cache.all_keys(&ns).await, ["gone", "here", "stays"]);
    let stats = cache.stats(&ns).await.expect(200).json();
    // The value of a known absence is stored as `null`.
    assert_eq!((&stats["total_keys"], &stats["memory_used_bytes"]), (&json!(3), &json!(13)), "{stats}");
    cache.flush(&ns, &[("tag", "a")]).await.expect_json(200, &json!({"success": true, "deleted_count": 2}));
    cache.get(&ns, "gone").await.expect_error(404, "key_not_found");
    cache.get(&ns, "stays").await.expect_error(404, "known_absent");
    let answer = cache.get(&ns, "stays").await;
    assert_eq!(answer.header("x-cache-ttl"), None, "it never expires");
}

async fn a_known_absence_expires(service: &Service) {
    let (cache, ns) = (service.client(), namespace("absent-expires"));
    cache.put(&ns, "k", r#"{"absent":true,"ttl":1}"#).await.expect(201);
    cache.get(&ns, "k").await.expect_error(404, "known_absent");
    eventually(SOON, async || {
        let answer = cache.get(&ns, "k").await.expect(404);
        ensure!(answer.json()["code"] == "key_not_found", "{}", answer.text());
        Ok(())
    })
    .await;
    eventually(SOON, async || {
        let stats = cache.stats(&ns).await.expect(200).json();
        ensure!((&stats["total_keys"], &stats["expirations"]) == (&json!(0), &json!(1)), "{stats}");
        Ok(())
    })
    .await;
}

async fn a_wrong_absence_is_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("absent-wrong"));
    for (fields, named) in [
        (r#""absent":true,"value":1"#, ["value", "absent"]),
        (r#""value":null,"absent":true"#, ["value", "absent"]),
        (r#""absent":false"#, ["missing field", "value"]),
        (r#""absent":null"#, ["missing field", "value"]),
        (r#""absent":1,"value":1"#, ["absent", "true or false"]),
        (r#""absent":"true""#, ["absent", "true or false"]),
    ] {
        let put = cache.put(&ns, "k", format!("{{{fields}}}")).await.expect_error(400, "invalid_body");
        let batch = cache.mset_raw(&ns, format!(r#"{{"entries":[{{"key":"k",{fields}}}]}}"#)).await;
        let batch = batch.expect_error(400, "invalid_body");
        assert!(named.iter().all(|name| put.contains(name) && batch.contains(name)), "{fields}: {put}, {batch}");
        assert!(batch.contains("entries[0]"), "{batch}");
    }
    cache.put(&ns, "k", r#"{"absent":true,"ttl":0}"#).await.expect_error(400, "invalid_ttl");
    cache.get(&ns, "k").await.expect_error(404, "key_not_found");
    for (key, fields) in [("a", r#""value":1,"absent":false"#), ("b", r#""value":1,"absent":null"#)] {
        cache.put(&ns, key, format!("{{{fields}}}")).await.expect(201);
        cache.get(&ns, key).await.expect(200);
    }
}
