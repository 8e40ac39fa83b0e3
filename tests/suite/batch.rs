//! mget and mset: duplicates, large batches, nulls, and counts that stay exact.

use std::collections::HashMap;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_every_server;
use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::service::Service;

on_every_server! {
    a_key_that_is_requested_twice_counts_once,
    the_last_of_two_entries_of_a_key_wins,
    a_thousand_entries_are_stored_and_read_in_one_call_each,
    an_mset_over_existing_keys_replaces_them,
    null_is_a_value,
    entries_have_their_own_ttl_and_tags,
    batches_carry_large_values,
    a_batch_sees_what_single_calls_wrote,
    regression_an_invalid_key_in_an_mget_fails_alone,
}

/// The bug: one invalid key among a thousand valid ones was a 400 for the whole batch.
async fn regression_an_invalid_key_in_an_mget_fails_alone(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    cache.set(&ns, "a", "1").await.expect(201);
    let (long, error) = ("k".repeat(513), json!({"value": null, "found": false, "error": "invalid_key"}));
    let expected = json!({
        "results": {
            "a": {"value": 1, "found": true},
            "x": {"value": null, "found": false},
            "": error,
            "b\nc": error,
            &long: error,
        },
        "hits": 1,
        "misses": 1,
        "errors": 3,
    });
    cache.mget(&ns, &["", "a", "b\nc", &long, "x", ""]).await.expect_json(200, &expected);
    eventually(SOON, async || {
        let stats = cache.stats(&ns).await.expect(200).json();
        ensure!(stats["hits"] == 1 && stats["misses"] == 1, "{stats}");
        Ok(())
    })
    .await;
    // Invalid keys count towards the size of the batch. A key that is not a string is a 400.
    let many = vec![""; 1_001];
    cache.mget(&ns, &many).await.expect_error(400, "too_many_keys");
    cache.mget_raw(&ns, r#"{"keys":["a",1]}"#).await.expect_error(400, "invalid_body");
}

async fn a_key_that_is_requested_twice_counts_once(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    cache.set(&ns, "a", "1").await.expect(201);
    let expected = json!({
        "results": {"a": {"value": 1, "found": true}, "x": {"value": null, "found": false}},
        "hits": 1,
        "misses": 1,
    });
    cache.mget(&ns, &["a", "x", "a", "a", "x"]).await.expect_json(200, &expected);
    eventually(SOON, async || {
        let stats = cache.stats(&ns).await.expect(200).json();
        ensure!(stats["hits"] == 1 && stats["misses"] == 1, "{stats}");
        Ok(())
    })
    .await;
}

async fn the_last_of_two_entries_of_a_key_wins(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    let entries = json!([
        {"key": "a", "value": "first, and longer", "ttl": 5, "tags": ["old"]},
        {"key": "b", "value": 1},
        {"key": "a", "value": "second", "tags": ["older"]},
        {"key": "a", "value": "last"},
    ]);
    cache.mset(&ns, &entries).await.expect_json(200, &json!({"success": true, "stored": 2}));
    let got = cache.get(&ns, "a").await.expect(200);
    assert_eq!(got.value(), "\"last\"");
    assert_eq!(got.metadata().ttl_remaining, None, "the last entry also decides the TTL");
    for tag in ["old", "older"] {
        assert_eq!(cache.flush(&ns, &[("tag", tag)]).await.expect(200).number("deleted_count"), 0, "{tag}");
    }
    let stats = cache.stats(&ns).await.expect(200);
    assert_eq!((stats.number("total_keys"), stats.number("memory_used_bytes")), (2, 7));
}

async fn a_thousand_entries_are_stored_and_read_in_one_call_each(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    let keys: Vec<String> = (0..1_000).map(|number| format!("key:{number}")).collect();
    let entries: Vec<Value> =
        (0..1_000).map(|number| json!({"key": keys[number], "value": {"number": number}})).collect();
    cache.mset(&ns, &json!(entries)).await.expect_json(200, &json!({"success": true, "stored": 1_000}));
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    for _ in 0..2 {
        let answer = cache.mget(&ns, &names).await.expect(200).json();
        assert_eq!((&answer["hits"], &answer["misses"]), (&json!(1_000), &json!(0)));
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(answer["results"][key], json!({"value": {"number": number}, "found": true}));
        }
    }
    let stats = cache.stats(&ns).await.expect(200);
    let bytes: usize = (0..1_000).map(|number| format!("{{\"number\":{number}}}").len()).sum();
    assert_eq!((stats.number("total_keys"), stats.number("memory_used_bytes")), (1_000, bytes as u64));
    assert_eq!(cache.list(&ns, &[]).await.number("size"), 1_000);
    for number in [0, 1, 499, 998, 999] {
        let got = cache.get(&ns, &keys[number]).await.expect(200);
        assert_eq!(got.value(), format!("{{\"number\":{number}}}"));
    }
}

async fn an_mset_over_existing_keys_replaces_them(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    for key in ["a", "b", "c"] {
        cache.set_for(&ns, key, "\"a longer value\"", 60).await.expect(201);
        cache.get(&ns, key).await.expect(200);
    }
    let entries = json!([{"key": "b", "value": 2}, {"key": "c", "value": 3}, {"key": "d", "value": 4}]);
    cache.mset(&ns, &entries).await.expect_json(200, &json!({"success": true, "stored": 3}));
    for (key, value, has_ttl) in
        [("a", "\"a longer value\"", true), ("b", "2", false), ("c", "3", false), ("d", "4", false)]
    {
        let got = cache.get(&ns, key).await.expect(200);
        assert_eq!((got.value(), got.metadata().ttl_remaining.is_some()), (value, has_ttl), "{key}");
    }
    let stats = cache.stats(&ns).await.expect(200);
    assert_eq!((stats.number("total_keys"), stats.number("memory_used_bytes")), (4, 19));
}

async fn null_is_a_value(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    cache.set(&ns, "a", "null").await.expect(201);
    cache.fill(&ns, &json!([{"key": "b", "value": null}])).await;
    let expected = json!({
        "results": {
            "a": {"value": null, "found": true},
            "b": {"value": null, "found": true},
            "c": {"value": null, "found": false},
        },
        "hits": 2,
        "misses": 1,
    });
    cache.mget(&ns, &["a", "b", "c"]).await.expect_json(200, &expected);
    assert_eq!(cache.get(&ns, "b").await.expect(200).value(), "null");
}

async fn entries_have_their_own_ttl_and_tags(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    let entries = json!([
        {"key": "short", "value": 1, "ttl": 1},
        {"key": "long", "value": 2, "ttl": 60, "tags": ["t"]},
        {"key": "ever", "value": 3, "tags": ["t", "u"]},
    ]);
    cache.fill(&ns, &entries).await;
    let ttl = cache.get(&ns, "long").await.expect(200).metadata().ttl_remaining;
    assert!(ttl.is_some_and(|ttl| (55..=60).contains(&ttl)), "{ttl:?}");
    eventually(SOON, async || {
        let answer = cache.mget(&ns, &["short", "long", "ever"]).await.expect(200).json();
        let found: HashMap<&str, bool> =
            ["short", "long", "ever"].map(|key| (key, answer["results"][key]["found"] == true)).into();
        ensure!(found == HashMap::from([("short", false), ("long", true), ("ever", true)]), "{answer}");
        Ok(())
    })
    .await;
    assert_eq!(cache.flush(&ns, &[("tag", "t")]).await.expect(200).number("deleted_count"), 2);
}

async fn batches_carry_large_values(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    let values: Vec<String> = (0..6).map(|number| format!("\"{}\"", number.to_string().repeat(1_000_000))).collect();
    let entries: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(number, value)| format!(r#"{{"key":"k{number}","value":{value}}}"#))
        .collect();
    let stored = cache.mset_raw(&ns, format!("{{\"entries\":[{}]}}", entries.join(","))).await;
    stored.expect_json(200, &json!({"success": true, "stored": 6}));
    let answer = cache.mget(&ns, &["k0", "k1", "k2", "k3", "k4", "k5"]).await.expect(200);
    assert_eq!(answer.number("hits"), 6);
    for value in &values {
        assert!(answer.text().contains(value.as_str()), "every value comes back complete");
    }
    cache.flush(&ns, &[]).await.expect(200);
}

async fn a_batch_sees_what_single_calls_wrote(service: &Service) {
    let (cache, ns) = (service.client(), namespace("batch"));
    let found = async |key: &str| cache.mget(&ns, &[key]).await.expect(200).json()["results"][key]["value"].clone();
    for round in 0..50 {
        cache.set(&ns, "k", &round.to_string()).await;
        assert_eq!(found("k").await, json!(round));
        cache.fill(&ns, &json!([{"key": "k", "value": -round}])).await;
        assert_eq!(cache.get(&ns, "k").await.expect(200).value(), (-round).to_string());
    }
    cache.delete(&ns, "k").await.expect(200);
    assert_eq!(found("k").await, Value::Null);
}
