//! Listing a namespace: its size and its live keys, page by page.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::service::Service;

on_both_stores! {
    an_empty_namespace_has_one_empty_page,
    paging_sees_every_key_exactly_once,
    a_page_holds_100_keys_by_default,
    a_pattern_narrows_the_listing,
    keys_that_stay_are_listed_once_while_others_come_and_go,
    expired_keys_are_not_listed,
}

/// Follows the cursors and counts how often each key was seen.
async fn pages(
    cache: &Client,
    ns: &str,
    query: &[(&str, &str)],
    mut between: impl AsyncFnMut(),
) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    let mut cursor: Option<String> = None;
    let limit =
        query.iter().find(|(name, _)| *name == "limit").map_or(100, |(_, limit)| limit.parse().expect("a number"));
    for _ in 0..10_000 {
        let mut query = query.to_vec();
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = cache.list(ns, &query).await.expect(200).json();
        let keys = page["keys"].as_array().expect("a list of keys");
        assert!(keys.len() <= limit, "{} keys on a page of {limit}", keys.len());
        for key in keys {
            *seen.entry(key.as_str().expect("a key is a string").to_owned()).or_default() += 1;
        }
        match &page["cursor"] {
            Value::Null => return seen,
            next => cursor = Some(next.as_str().expect("a cursor is a string").to_owned()),
        }
        between().await;
    }
    panic!("the listing does not end");
}

async fn fill(cache: &Client, ns: &str, keys: &[String]) {
    for batch in keys.chunks(1_000) {
        let entries: Vec<Value> = batch.iter().map(|key| json!({"key": key, "value": 1})).collect();
        cache.fill(ns, &json!(entries)).await;
    }
}

async fn an_empty_namespace_has_one_empty_page(service: &Service) {
    let (cache, ns) = (service.client(), namespace("listing"));
    cache.list(&ns, &[]).await.expect_json(200, &json!({"size": 0, "keys": [], "cursor": null}));
    cache.list(&ns, &[("pattern", "*"), ("limit", "7")]).await.expect(200);
    cache.set(&ns, "k", "1").await.expect(201);
    cache.delete(&ns, "k").await.expect(200);
    let page = cache.list(&ns, &[]).await.expect(200).json();
    assert_eq!((&page["size"], &page["keys"]), (&json!(0), &json!([])));
}

async fn paging_sees_every_key_exactly_once(service: &Service) {
    let (cache, ns) = (service.client(), namespace("listing"));
    let keys: Vec<String> = (0..2_500).map(|number| format!("key {number}/ü")).collect();
    fill(&cache, &ns, &keys).await;
    let expected: BTreeMap<String, u32> = keys.iter().map(|key| (key.clone(), 1)).collect();
    for limit in ["100", "999", "1000"] {
        assert!(pages(&cache, &ns, &[("limit", limit)], async || ()).await == expected, "with pages of {limit}");
    }
    let page = cache.list(&ns, &[("limit", "3")]).await.expect(200);
    assert_eq!(page.number("size"), 2_500, "the size is that of the namespace, not of the page");
}

async fn a_page_holds_100_keys_by_default(service: &Service) {
    let (cache, ns) = (service.client(), namespace("listing"));
    let keys: Vec<String> = (0..250).map(|number| format!("k{number}")).collect();
    fill(&cache, &ns, &keys).await;
    let seen = pages(&cache, &ns, &[], async || ()).await;
    assert_eq!(seen.len(), 250);
    assert!(seen.values().all(|times| *times == 1));
    let one_by_one = pages(&cache, &ns, &[("limit", "1")], async || ()).await;
    assert_eq!(one_by_one, seen);
}

async fn a_pattern_narrows_the_listing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("listing"));
    let mut keys: Vec<String> = (0..600).map(|number| format!("user_{number}")).collect();
    keys.extend((0..600).map(|number| format!("order_{number}")));
    fill(&cache, &ns, &keys).await;
    let expected: BTreeMap<String, u32> =
        keys.iter().filter(|key| key.starts_with("user_1")).map(|key| (key.clone(), 1)).collect();
    assert_eq!(pages(&cache, &ns, &[("pattern", "user_1*"), ("limit", "50")], async || ()).await, expected);
    assert_eq!(pages(&cache, &ns, &[("pattern", "user_[12]?")], async || ()).await.len(), 20);
    assert_eq!(pages(&cache, &ns, &[("pattern", "nobody*")], async || ()).await.len(), 0);
    assert_eq!(cache.list(&ns, &[("pattern", "user_1*")]).await.number("size"), 1_200);
}

async fn keys_that_stay_are_listed_once_while_others_come_and_go(service: &Service) {
    let (cache, ns) = (service.client(), namespace("listing"));
    // The names are mixed, so that in any order the keys that stay are among the others.
    let named = |numbers: Range<u32>, end: &str| -> Vec<String> {
        numbers.map(|number| format!("{:08x} {end}", number.wrapping_mul(0x9E37_79B9))).collect()
    };
    let stay = named(0..400, "stays");
    fill(&cache, &ns, &stay).await;
    fill(&cache, &ns, &named(0..6_000, "goes")).await;
    let mut page = 0;
    let seen = pages(&cache, &ns, &[("limit", "20")], async || {
        page += 1;
        match page {
            // The hash tables of the store shrink, and grow again, during the listing.
            2 => drop(cache.flush(&ns, &[("pattern", "*goes")]).await.expect(200)),
            5..8 => fill(&cache, &ns, &named(page * 1_000..(page + 1) * 1_000, "comes")).await,
            _ => {}
        }
    })
    .await;
    let wrong: Vec<_> = stay.iter().filter(|key| seen.get(*key) != Some(&1)).collect();
    assert!(wrong.is_empty(), "not seen exactly once, although stored all the time: {wrong:?}");
}

async fn expired_keys_are_not_listed(service: &Service) {
    let (cache, ns) = (service.client(), namespace("listing"));
    let short: Vec<Value> =
        (0..50).map(|number| json!({"key": format!("short {number}"), "value": 1, "ttl": 1})).collect();
    cache.fill(&ns, &json!(short)).await;
    cache.fill(&ns, &json!([{"key": "ever", "value": 1}, {"key": "long", "value": 1, "ttl": 60}])).await;
    eventually(SOON, async || {
        let status = cache.get(&ns, "short 0").await.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await;
    // The keys expire at about the same moment; expired keys are in no listing.
    eventually(SOON, async || {
        let page = cache.list(&ns, &[]).await.expect(200).json();
        ensure!(page["size"] == 2, "{page}");
        Ok(())
    })
    .await;
    assert_eq!(cache.all_keys(&ns).await, ["ever", "long"]);
}
