//! Keys that somebody chose so that they would fall into one bucket of the index. The place of a key on a shard
//! depends on a secret of the fleet, so nobody outside can choose it.

use std::time::Instant;

use fred::util::sha1_hash;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::redis::{Connection, Redis};
use crate::support::service::{Service, Settings};
use crate::support::walk::agreed;

/// The number of keys. Their SHA-1 begins with the same 8 bits: more than enough to share one of 32 buckets.
const CROWD: usize = 1_000;

/// Up to this size a bucket is a compact sorted set; the mean size is 32.
const MAX_IN_A_BUCKET: i64 = 128;

/// Keys that share the first bits of their SHA-1.
fn crowding() -> Vec<String> {
    let keys = (0..).map(|number: u64| format!("user:{number}"));
    keys.filter(|key| sha1_hash(key).starts_with("5a")).take(CROWD).collect()
}

/// How many keys each bucket holds, not counting its marker.
fn buckets(shard: &mut Connection, ns: &str) -> Vec<i64> {
    let names = shard.scan(&format!("cache_index:{ns}:*"));
    shard.pipeline(names.iter().map(|name| vec!["ZCARD", name])).iter().map(|size| size.integer() - 1).collect()
}

async fn fill(cache: &Client, ns: &str, keys: &[String], tag: &str) {
    for some in keys.chunks(500) {
        let entries: Value =
            some.iter().map(|key| json!({"key": key, "value": 1, "ttl": 600, "tags": [tag]})).collect();
        cache.fill(ns, &entries).await;
    }
}

/// The bug: the place of a key was the beginning of its SHA-1, which anybody can compute. A thousand chosen keys were
/// in one bucket of the index, and slowed down every script that reads a bucket.
#[tokio::test]
async fn regression_chosen_keys_do_not_crowd_a_bucket() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("crowd"));
    let started = Instant::now();
    let keys = crowding();
    println!("{CROWD} keys were found in {:?}", started.elapsed());
    fill(&cache, &ns, &keys, "t").await;
    let mut shard = server.connect();
    let sizes = buckets(&mut shard, &ns);
    assert_eq!(sizes.iter().sum::<i64>(), CROWD as i64);
    let largest = sizes.iter().copied().max().unwrap_or(0);
    println!("{} buckets, the largest with {largest} keys", sizes.len());
    assert!(largest <= MAX_IN_A_BUCKET, "{largest} of {CROWD} keys are in one bucket");
    assert!(sizes.len() >= CROWD / 64, "{} buckets", sizes.len());

    // Listings and flushes find them all.
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(cache.all_keys(&ns).await, sorted);
    assert_eq!(cache.flush(&ns, &[("tag", "t")]).await.expect(200).number("deleted_count"), CROWD as u64);
    eventually(LATER, async || agreed(&[&cache], std::slice::from_ref(&server), &ns).await.map(drop)).await;
}

/// Every shard and every instance computes the same place for a key: a listing merges the shards by place, and a
/// cursor is valid on any instance, even if its setting names the shards in another order.
#[tokio::test]
async fn regression_a_cursor_works_on_any_instance_whatever_the_order_of_its_shards() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let [a, b, c] = servers.each_ref().map(Redis::url);
    let turned = settings.clone().set("redis_shards", format!("c={c},a={a},b={b}"));
    let services = [Service::start(settings), Service::start(turned)];
    let clients = services.each_ref().map(Service::client);
    let ns = namespace("cursor");
    let keys: Vec<String> = (0..2_000).map(|number| format!("k{number}")).collect();
    fill(&clients[0], &ns, &keys, "t").await;
    let (mut seen, mut cursor): (Vec<String>, Option<String>) = (Vec::new(), None);
    for page in 0.. {
        let mut query = vec![("limit", "70")];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let answer = clients[page % 2].list(&ns, &query).await.expect(200).json();
        let names = answer["keys"].as_array().expect("a list of keys");
        seen.extend(names.iter().map(|key| key.as_str().expect("a key is text").to_owned()));
        match answer["cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    let (mut sorted, count) = (keys, seen.len());
    sorted.sort();
    seen.sort();
    assert_eq!(seen, sorted, "{count} keys in all pages");
}

/// The whole fleet has one secret. The record of each shard contains it, and a shard that lost its record gets the
/// same secret again.
#[tokio::test]
async fn all_shards_have_one_secret_and_keep_it() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let service = Service::start(settings.clone());
    let secrets = || -> Vec<String> {
        let secret = |server: &Redis| match server.connect().command(&["HGET", "sidecache:ring", "place_secret"]) {
            crate::support::redis::Reply::Bulk(None) => String::new(),
            secret => secret.text(),
        };
        servers.iter().map(secret).collect()
    };
    let first = secrets();
    assert!(!first[0].is_empty() && first.iter().all(|secret| *secret == first[0]), "{} different", first.len());
    servers[1].connect().command(&["DEL", "sidecache:ring"]);
    let same = async || {
        eventually(LATER, async || {
            let now = secrets();
            anyhow::ensure!(now == first, "the secrets have changed");
            Ok(())
        })
        .await;
    };
    same().await;
    service.stop();
    servers[2].connect().command(&["FLUSHALL"]);
    let _service = Service::start(settings);
    same().await;
}
