//! Many clients at once: no value is torn, no write is lost, and many misses of a key cause one read of the shard.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::ensure;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::support::both_stores::on_both_stores;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

on_both_stores! {
    clients_on_the_same_keys_see_no_torn_or_lost_write,
    only_one_of_concurrent_writers_creates_the_key,
    counts_stay_exact_under_concurrent_writes,
}

const CLIENTS: usize = 64;
const KEYS: usize = 8;
const ROUNDS: usize = 30;

/// A value that can be checked for completeness: `fill` repeats `write` exactly `length` times.
#[derive(Debug, Serialize, Deserialize)]
struct Stamped {
    key: String,
    write: u64,
    length: usize,
    fill: Vec<u64>,
}

impl Stamped {
    fn new(key: &str, write: u64) -> Stamped {
        // The sizes differ, so that a mixture of two values is detected.
        let length = usize::try_from(write % 97).expect("below 97") * 8;
        Stamped { key: key.to_owned(), write, length, fill: vec![write; length] }
    }

    fn check(&self, key: &str) {
        assert_eq!(self.key, key, "the value belongs to another key");
        assert_eq!(self.fill.len(), self.length, "a torn value: {self:?}");
        assert!(self.fill.iter().all(|write| *write == self.write), "a torn value: {self:?}");
    }
}

/// When a write was sent and when it was acknowledged.
struct Write {
    started: Instant,
    acknowledged: Instant,
}

/// A read, and the write it saw, if any.
struct Read {
    key: String,
    write: Option<u64>,
    started: Instant,
}

async fn clients_on_the_same_keys_see_no_torn_or_lost_write(service: &Service) {
    let (cache, ns) = (service.client(), namespace("concurrency"));
    let next = Arc::new(AtomicU64::new(1));
    let clients = (0..CLIENTS).map(|client| {
        let (cache, ns, next) = (cache.clone(), ns.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let (mut writes, mut reads) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                let key = format!("key {}", (client * 7 + round) % KEYS);
                if (client + round) % 3 == 0 {
                    let stamped = Stamped::new(&key, next.fetch_add(1, Ordering::Relaxed));
                    let value = serde_json::to_string(&stamped).expect("plain data");
                    let started = Instant::now();
                    let answer = cache.set(&ns, &key, &value).await;
                    assert!([200, 201].contains(&answer.status), "{}", answer.text());
                    let write = Write { started, acknowledged: Instant::now() };
                    writes.push(((key, stamped.write), write));
                } else {
                    let started = Instant::now();
                    let write = read(&cache, &ns, &key).await.map(|stamped| stamped.write);
                    reads.push(Read { key, write, started });
                }
            }
            (writes, reads)
        })
    });
    let (mut writes, mut reads) = (HashMap::new(), Vec::new());
    for finished in join_all(clients).await {
        let (some_writes, some_reads) = finished.expect("no client gets a wrong answer");
        writes.extend(some_writes);
        reads.extend(some_reads);
    }
    // Reads after the end of all writes are checked like the others: each must see a last write.
    for number in 0..KEYS {
        let key = format!("key {number}");
        let started = Instant::now();
        let write = read(&cache, &ns, &key).await.map(|stamped| stamped.write);
        reads.push(Read { key, write, started });
    }
    for read in &reads {
        let seen = read.write.map(|write| &writes[&(read.key.clone(), write)]);
        let lost = writes.iter().find(|((key, _), newer)| {
            let after_what_was_seen = seen.is_none_or(|seen| newer.started > seen.acknowledged);
            *key == read.key && after_what_was_seen && newer.acknowledged < read.started
        });
        if let Some(((key, newer), _)) = lost {
            panic!("{key}: write {newer} was acknowledged, and a read after that saw {:?}", read.write);
        }
    }
}

async fn read(cache: &Client, ns: &str, key: &str) -> Option<Stamped> {
    let answer = cache.get(ns, key).await;
    match answer.status {
        404 => None,
        _ => {
            let stamped: Stamped = serde_json::from_str(answer.expect(200).value()).expect("a whole value");
            stamped.check(key);
            Some(stamped)
        }
    }
}

async fn only_one_of_concurrent_writers_creates_the_key(service: &Service) {
    let (cache, ns) = (service.client(), namespace("concurrency"));
    for round in 0..10 {
        let key = format!("k{round}");
        let writers = (0..16).map(|writer| {
            let (cache, ns, key) = (cache.clone(), ns.clone(), key.clone());
            async move { cache.set(&ns, &key, &writer.to_string()).await.status }
        });
        let mut statuses = join_all(writers).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![200; 15], vec![201]].concat());
        let deleters = (0..16).map(|_| async { cache.delete(&ns, &key).await.status });
        let mut statuses = join_all(deleters).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![200], vec![404; 15]].concat());
    }
}

async fn counts_stay_exact_under_concurrent_writes(service: &Service) {
    let (cache, ns) = (service.client(), namespace("concurrency"));
    let clients = (0..32).map(|client: usize| {
        let (cache, ns) = (cache.clone(), ns.clone());
        async move {
            for round in 0..20 {
                let key = format!("k{}", (client + round * 3) % 10);
                match (client + round) % 4 {
                    0 => cache.delete(&ns, &key).await,
                    _ => cache.set(&ns, &key, &format!("\"{}\"", "x".repeat(client * round))).await,
                };
            }
        }
    });
    join_all(clients).await;
    let (mut keys, mut bytes) = (0, 0);
    for number in 0..10 {
        let answer = cache.get(&ns, &format!("k{number}")).await;
        if answer.status == 200 {
            keys += 1;
            bytes += answer.value().len() as u64;
        }
    }
    let stats = cache.stats(&ns).await.expect(200);
    assert_eq!((stats.number("total_keys"), stats.number("memory_used_bytes")), (keys, bytes));
    assert_eq!(cache.list(&ns, &[]).await.number("size"), keys);
    cache.flush(&ns, &[]).await.expect(200);
}

#[tokio::test]
async fn concurrent_misses_of_one_key_share_reads_of_the_shard() {
    const READERS: usize = 200;
    let server = Redis::start();
    let proxy = Proxy::in_front_of(&server);
    // The first read of the shard is held until all readers have sent their requests, however long that takes.
    let patient = Settings::on(std::slice::from_ref(&server))
        .set("redis_shards", format!("a={}", proxy.url()))
        .set("redis_timeout_ms", 20_000)
        .set("request_timeout_ms", 25_000)
        .set("max_staleness_ms", 20_000);
    let (writer, reader) = (Service::start(Settings::on(std::slice::from_ref(&server))), Service::start(patient));
    let ns = namespace("concurrency");
    let value = format!("\"{}\"", "0123456789abcdef".repeat(62_500));
    writer.client().set(&ns, "cold", &value).await.expect(201);

    let cache = reader.client();
    let before = cache.metrics().await;
    proxy.hold("cold");
    let all_asked = eventually(SOON, async || {
        let open = reader.client().metrics().await.total("sidecache_http_connections");
        ensure!(open > READERS as f64, "{open} connections");
        Ok(())
    });
    let release = async {
        all_asked.await;
        proxy.release();
    };
    let readers = join_all((0..READERS).map(|_| {
        let (cache, ns, value) = (cache.clone(), ns.clone(), value.as_str());
        async move {
            let answer = cache.get(&ns, "cold").await.expect(200);
            assert!(answer.value() == value, "every reader gets the complete value");
            answer.header("cache-status").is_some_and(|status| status.contains("collapsed"))
        }
    }));
    let (answers, ()) = tokio::join!(readers, release);
    let after = cache.metrics().await;
    let grown = |name: &str| after.total(name) - before.total(name);
    let (shard_reads, coalesced) = (grown("sidecache_shard_reads_total"), grown("sidecache_coalesced_reads_total"));
    assert!(coalesced > 0.0, "no read was coalesced");
    assert!(shard_reads + coalesced <= READERS as f64, "{shard_reads} shard reads, {coalesced} coalesced");
    assert!((1.0..READERS as f64).contains(&shard_reads), "{shard_reads} shard reads");
    let collapsed = answers.iter().filter(|collapsed| **collapsed).count();
    assert_eq!(collapsed as f64, coalesced, "Cache-Status says which answers were collapsed");
}
