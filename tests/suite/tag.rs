//! Tags: an entry has the tags of its latest write, on whichever shard it is, and no tag outlives it. Other flushes
//! are tested in `flush`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::both_stores::on_every_server;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::walk::{Books, agreed};

on_every_server! {
    a_flush_by_tag_counts_exactly_what_it_deletes,
    every_way_of_overwriting_replaces_the_tags,
    the_tags_of_an_entry_end_with_it,
    a_flush_by_any_tag_of_an_entry_deletes_it,
}

/// An entry for a batch.
fn entry(key: &str, tags: &[&str]) -> Value {
    json!({"key": key, "value": key, "tags": tags})
}

async fn tagged(cache: &Client, ns: &str, tag: &str) -> BTreeSet<String> {
    let page = cache.list(ns, &[("tag", tag), ("limit", "1000")]).await.expect(200).json();
    assert_eq!(page["cursor"], Value::Null);
    let keys = page["keys"].as_array().expect("a list of keys");
    keys.iter().map(|key| key.as_str().expect("a key is a string").to_owned()).collect()
}

async fn flush_tag(cache: &Client, ns: &str, tag: &str) -> u64 {
    cache.flush(ns, &[("tag", tag)]).await.expect(200).number("deleted_count")
}

fn keys(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

async fn a_flush_by_tag_counts_exactly_what_it_deletes(service: &Service) {
    let (cache, ns) = (service.client(), namespace("tag"));
    for thousand in 0..3 {
        let entries: Value = (0..1_000)
            .map(|number| {
                let (third, tenth) = (format!("third {}", number % 3), format!("tenth:{}", number % 10));
                json!({"key": format!("{thousand}/{number}"), "value": number, "tags": [third, tenth, "all", "all"]})
            })
            .collect();
        cache.fill(&ns, &entries).await;
    }
    assert_eq!(flush_tag(&cache, &ns, "tenth:3").await, 300);
    assert_eq!(flush_tag(&cache, &ns, "tenth:3").await, 0);
    // 0, 3, 6, ... 999 are 334 of a thousand keys. 34 of them end with a 3 and are already deleted.
    assert_eq!(flush_tag(&cache, &ns, "third 0").await, 3 * 300);
    assert_eq!(cache.list(&ns, &[]).await.number("size"), 1_800);
    // A glob is not a tag, and a prefix of a tag is not the tag.
    for tag in ["*", "third*", "third", "tenth:", "ALL", "tenth:10"] {
        assert_eq!(flush_tag(&cache, &ns, tag).await, 0, "{tag}");
    }
    assert_eq!(flush_tag(&cache, &ns, "all").await, 1_800);
    assert_eq!(Books::said(&cache, &ns).await, Books::default());
    assert_eq!(cache.all_keys(&ns).await, Vec::<String>::new());
}

async fn every_way_of_overwriting_replaces_the_tags(service: &Service) {
    let (cache, ns) = (service.client(), namespace("tag"));
    let all = ["put", "put without", "mset", "mset without", "same", "stays"];
    cache.fill(&ns, &all.iter().map(|key| entry(key, &["old", "both"])).collect()).await;
    cache.put(&ns, "put", r#"{"value":1,"tags":["new","both"]}"#).await.expect(200);
    cache.put(&ns, "put without", r#"{"value":1}"#).await.expect(200);
    cache.put(&ns, "same", r#"{"value":1,"tags":["both","old"]}"#).await.expect(200);
    cache.fill(&ns, &json!([entry("mset", &["new"]), {"key": "mset without", "value": 1}])).await;
    assert_eq!(tagged(&cache, &ns, "old").await, keys(&["same", "stays"]));
    assert_eq!(tagged(&cache, &ns, "both").await, keys(&["put", "same", "stays"]));
    assert_eq!(tagged(&cache, &ns, "new").await, keys(&["put", "mset"]));
    assert_eq!(flush_tag(&cache, &ns, "old").await, 2);
    assert_eq!(flush_tag(&cache, &ns, "new").await, 2);
    assert_eq!(flush_tag(&cache, &ns, "both").await, 0, "all entries with this tag are deleted");
    assert_eq!(cache.all_keys(&ns).await, ["mset without", "put without"]);
}

async fn the_tags_of_an_entry_end_with_it(service: &Service) {
    let (cache, ns) = (service.client(), namespace("tag"));
    let short = json!({"key": "expires", "value": 1, "ttl": 1, "tags": ["t"]});
    cache.fill(&ns, &json!([entry("deleted", &["t"]), entry("flushed", &["t", "u"]), short])).await;
    cache.delete(&ns, "deleted").await.expect(200);
    assert_eq!(flush_tag(&cache, &ns, "u").await, 1);
    eventually(SOON, async || {
        let status = cache.head(&ns, "expires").await.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await;
    // The same keys are written again without a tag. Their old tags must have no effect.
    cache
        .fill(&ns, &["deleted", "flushed", "expires"].iter().map(|key| json!({"key": key, "value": 1})).collect())
        .await;
    assert_eq!(tagged(&cache, &ns, "t").await, BTreeSet::new());
    assert_eq!(flush_tag(&cache, &ns, "t").await, 0);
    assert_eq!(Books::said(&cache, &ns).await, Books { keys: 3, bytes: 3, evictions: 0, expirations: 1 });
}

async fn a_flush_by_any_tag_of_an_entry_deletes_it(service: &Service) {
    let (cache, ns) = (service.client(), namespace("tag"));
    let tags: Vec<String> = (0..8).map(|number| format!("t {number}/ü:*")).collect();
    for tag in &tags {
        cache.fill(&ns, &json!([{"key": "k", "value": 1, "tags": tags}, {"key": "other", "value": 1}])).await;
        assert_eq!(flush_tag(&cache, &ns, tag).await, 1, "{tag}");
        assert_eq!(cache.all_keys(&ns).await, ["other"]);
        for tag in &tags {
            assert_eq!(tagged(&cache, &ns, tag).await, BTreeSet::new());
        }
    }
}

#[tokio::test]
async fn a_flush_by_tag_invalidates_l1_on_every_instance_and_leaves_no_set_behind() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let services = [0; 3].map(|_| Service::start(settings.clone()));
    let clients = services.each_ref().map(Service::client);
    let ns = namespace("tag");
    let names: Vec<String> = (0..60).map(|number| format!("k{number}")).collect();
    let entries =
        names.iter().enumerate().map(|(number, key)| entry(key, [&["red", "all"], &["blue", "all"]][number % 2]));
    clients[0].fill(&ns, &entries.collect()).await;
    for client in &clients {
        for key in &names {
            eventually(SOON, async || {
                let answer = client.get(&ns, key).await.expect(200);
                ensure!(answer.is_l1_hit(), "{:?}", answer.headers);
                Ok(())
            })
            .await;
        }
    }
    assert_eq!(flush_tag(&clients[1], &ns, "red").await, 30);
    for client in &clients {
        // The promise is `max_staleness_ms`. Healthy instances need only one round trip.
        eventually(Duration::from_secs(1), async || {
            for (number, key) in names.iter().enumerate() {
                let (status, expected) =
                    (client.head(&ns, key).await.status, if number % 2 == 0 { 404 } else { 200 });
                ensure!(status == expected, "{key}: {status}");
            }
            Ok(())
        })
        .await;
    }
    let asked: Vec<&Client> = clients.iter().collect();
    let walk = eventually(SOON, async || agreed(&asked, &servers, &ns).await).await;
    assert_eq!(walk.tags.keys().collect::<Vec<_>>(), ["all", "blue"]);
    assert_eq!((walk.tags["all"].len(), walk.tags["blue"].len()), (30, 30));
    assert_eq!(flush_tag(&clients[2], &ns, "all").await, 30);
    let walk = eventually(SOON, async || agreed(&asked, &servers, &ns).await).await;
    assert_eq!(walk.names, Vec::<String>::new());
}
