//! A shard's name starts to resolve to another address, while the server at the old address keeps running and keeps
//! its connections. This is a managed failover behind DNS in which the old primary is not demoted.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{INTERVAL, LATER, eventually};
use crate::support::redis::Redis;
use crate::support::scratch;
use crate::support::service::{Service, Settings};
use crate::support::switch::Switch;

/// The default of `max_staleness_ms`.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

/// The limit for all connections to move to the new address.
const FOLLOWED: Duration = Duration::from_secs(10);

const KEYS: usize = 20;

async fn fill(cache: &Client, ns: &str, value: u32) {
    let entries: Value = (0..KEYS).map(|number| json!({"key": format!("k{number}"), "value": value})).collect();
    cache.fill(ns, &entries).await;
}

/// The bug: connections stayed for ever on the address that the name had once resolved to. The instance read and
/// wrote data that no other instance saw, and reported itself as healthy.
#[tokio::test]
async fn regression_connections_follow_the_name_of_a_shard() {
    let servers = [Redis::start(), Redis::start()];
    let switches = Switch::two_to(&servers);
    let folder = scratch::folder("hosts");
    let hosts = scratch::file(folder.path(), "hosts", "127.0.0.1 localhost shard.test\n");
    let url = format!("redis://shard.test:{}", switches[0].port());
    let settings = Settings::shards().set("redis_timeout_ms", 250).set("request_timeout_ms", 5_000);
    let follower = Service::start(settings.clone().set("redis_shards", format!("a={url}")).hosts(&hosts));
    let (cache, ns) = (follower.client(), namespace("name"));
    fill(&cache, &ns, 1).await;
    for number in 0..KEYS {
        eventually(LATER, async || {
            let answer = cache.get(&ns, &format!("k{number}")).await;
            ensure!(answer.status == 200 && answer.is_l1_hit(), "{} {:?}", answer.status, answer.headers);
            Ok(())
        })
        .await;
    }
    assert_eq!(switches[1].accepted(), 0);

    // Both servers run, and the new one has none of the old one's data.
    let other = Service::start(settings.set("redis_shards", format!("a={}", servers[1].url())));
    fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.2 shard.test\n").expect("the file can be written to");
    let moved = Instant::now();
    fill(&other.client(), &ns, 2).await;
    eventually(FOLLOWED, async || {
        // Enough in a row that every connection is used.
        for round in 0..20 {
            cache.set(&ns, "mine", &round.to_string()).await;
            let stored = servers[1].connect().command(&["EXISTS", &format!("cache:{ns}:mine")]).integer();
            ensure!(stored == 1, "the write went to the old server");
            let answer = cache.get(&ns, "mine").await;
            ensure!(answer.status == 200 && answer.value() == round.to_string(), "{}", answer.text());
            servers[1].connect().command(&["DEL", &format!("cache:{ns}:mine")]);
        }
        Ok(())
    })
    .await;
    println!("all connections moved within {:?}", moved.elapsed());
    let followed = Instant::now();
    while followed.elapsed() < 3 * MAX_STALENESS {
        for number in 0..KEYS {
            let (key, asked) = (format!("k{number}"), followed.elapsed());
            let answer = cache.get(&ns, &key).await;
            if asked > MAX_STALENESS {
                assert_eq!(answer.expect(200).value(), "2", "{key} after {asked:?}");
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
    let health = cache.health().await.json();
    assert_eq!(health["status"], "healthy", "{health}");
}
