//! What protects requests from a shard that does not answer: the circuit breaker, the limit on operations in flight,
//! and the retries of reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::ports;
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// A service on these servers with the default timeout of a shard, and without L1.
fn on(servers: &[Redis]) -> Service {
    Service::start(Settings::on(servers).unset("redis_timeout_ms").set("l1_max_mb", 0))
}

/// Stores 60 keys. Returns them grouped by shard, in the order of `servers`.
async fn keys_by_shard(cache: &Client, ns: &str, servers: &[Redis]) -> Vec<Vec<String>> {
    let mut keys = vec![Vec::new(); servers.len()];
    for number in 0..60 {
        let key = format!("k{number}");
        cache.set(ns, &key, "1").await.expect(201);
        let stored = format!("cache:{ns}:{key}");
        let at = servers.iter().position(|server| server.connect().command(&["EXISTS", &stored]).integer() == 1);
        keys[at.expect("the key is on one of the servers")].push(key);
    }
    keys
}

/// Checks the refusal for a shard that is unavailable: its code and its `Retry-After`.
fn is_unavailable(answer: &Answer) {
    let code = answer.json()["code"].as_str().map(str::to_owned);
    assert!(matches!(code.as_deref(), Some("shard_unavailable" | "timeout" | "overloaded")), "{}", answer.text());
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_stopped_shard_opens_the_breaker_and_is_tried_again() {
    const ASKED: u32 = 400;
    let servers = Redis::three();
    let service = on(&servers);
    let (cache, ns) = (service.client(), namespace("breaker"));
    let keys = keys_by_shard(&cache, &ns, &servers).await;
    servers[0].signal(Signal::Stop);
    let started = Instant::now();
    for round in 0..ASKED {
        let key = &keys[0][round as usize % keys[0].len()];
        let answer = if round % 2 == 0 { cache.get(&ns, key).await } else { cache.set(&ns, key, "2").await };
        if answer.status == 503 && answer.json()["code"] == "outcome_unknown" {
            assert_eq!(answer.header("retry-after"), None, "a client must not repeat a write that may have happened");
        } else {
            is_unavailable(&answer);
        }
        cache.get(&ns, &keys[1][0]).await.expect(200);
    }
    // Without the breaker, each call would wait for the timeout of 250 ms.
    let took = started.elapsed();
    println!("{ASKED} calls to a stopped shard: {took:?}");
    assert!(took < Duration::from_millis(250) * ASKED / 4, "{took:?}");
    let metrics = cache.metrics().await;
    let openings = metrics.total("sidecache_shard_breaker_openings_total");
    assert!(openings >= 1.0, "{openings}");
    assert_eq!(metrics.total_with("sidecache_shard_breaker_openings_total", &[("shard", "b")]), 0.0);
    assert_eq!(metrics.total_with("sidecache_shard_breaker_open", &[("shard", "a")]), 1.0);

    servers[0].signal(Signal::Cont);
    let back = Instant::now();
    eventually(LATER, async || {
        let answer = cache.get(&ns, &keys[0][0]).await;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
    println!("answered again after {:?}", back.elapsed());
    eventually(SOON, async || {
        let answer = cache.get(&ns, &keys[0][0]).await.expect(200);
        assert_eq!(answer.status, 200);
        let open = cache.metrics().await.total_with("sidecache_shard_breaker_open", &[("shard", "a")]);
        ensure!(open == 0.0, "{open}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn reads_are_retried_when_their_connection_breaks() {
    let servers = Redis::three();
    let service = on(&servers);
    let (cache, ns) = (service.client(), namespace("breaker"));
    for number in 0..50 {
        cache.set(&ns, &format!("k{number}"), &number.to_string()).await.expect(201);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let readers = (0..16).map(|reader| {
        let (cache, ns, is_over) = (cache.clone(), ns.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut reads, mut failed) = (0_u64, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let number = (reads + reader) % 50;
                let answer = cache.get(&ns, &format!("k{number}")).await;
                if answer.status == 200 {
                    assert_eq!(answer.value(), number.to_string());
                } else {
                    failed.push(answer.text().to_owned());
                }
                reads += 1;
            }
            (reads, failed)
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut kills = 0;
    let (begun, mut retries) = (Instant::now(), 0.0);
    // Usually no read is in flight on a connection when it is killed, so this repeats until a read was retried.
    while begun.elapsed() < Duration::from_secs(3) || (retries < 1.0 && begun.elapsed() < LATER) {
        retries = cache.metrics().await.total("sidecache_shard_retries_total");
        tokio::time::sleep(Duration::from_millis(300)).await;
        for server in &servers {
            kills += server.connect().command(&["CLIENT", "KILL", "TYPE", "normal"]).integer();
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut reads, mut failed) = (0, Vec::new());
    for reader in join_all(readers).await {
        let (done, some) = reader.expect("a reader ends");
        reads += done;
        failed.extend(some);
    }
    let retries = cache.metrics().await.total("sidecache_shard_retries_total");
    println!("{reads} reads, {kills} connections killed, {retries} reads sent again, {} failed", failed.len());
    assert!(kills >= 12 && retries >= 1.0, "{kills} kills, {retries} retries");
    assert!(failed.is_empty(), "{} of {reads} failed: {:?}", failed.len(), failed.first());
}

#[tokio::test]
async fn a_write_is_not_retried_when_its_connection_breaks() {
    let servers = Redis::three();
    let service = on(&servers);
    let (cache, ns) = (service.client(), namespace("breaker"));
    let scripts = |servers: &[Redis]| {
        let calls = |server: &Redis| {
            let stats = server.connect().command(&["INFO", "commandstats"]).text();
            let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hset:calls=")).map(str::to_owned);
            line.and_then(|line| line.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        servers.iter().map(calls).sum::<u64>()
    };
    cache.set(&ns, "k", "0").await.expect(201);
    let before = scripts(&servers);
    servers.iter().for_each(|server| server.signal(Signal::Stop));
    let writes = join_all((0..3).map(|number| cache.set(&ns, "k", if number == 0 { "1" } else { "2" }))).await;
    for write in writes {
        write.expect_error(503, "outcome_unknown");
    }
    servers.iter().for_each(|server| server.signal(Signal::Cont));
    eventually(LATER, async || {
        let answer = cache.get(&ns, "k").await;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
    let after = scripts(&servers);
    // A write calls HSET twice, for the metadata and for the totals.
    assert!(after - before <= 3 * 3, "{before} to {after} calls of HSET for three writes");
}

#[tokio::test]
async fn operations_beyond_the_limit_are_refused_at_once() {
    let servers = Redis::three();
    let settings = Settings::on(&servers).set("redis_timeout_ms", 1_000).set("redis_max_in_flight", 4);
    let service = Service::start(settings.set("l1_max_mb", 0));
    let (cache, ns) = (service.client(), namespace("breaker"));
    cache.set(&ns, "k", "1").await.expect(201);
    servers.iter().for_each(|server| server.signal(Signal::Stop));
    let started = Instant::now();
    let keys: Vec<String> = (0..64).map(|number| format!("k{number}")).collect();
    let answers = join_all(keys.iter().map(|key| async {
        let answer = cache.get(&ns, key).await;
        (started.elapsed(), answer)
    }))
    .await;
    servers.iter().for_each(|server| server.signal(Signal::Cont));
    let mut shed = 0;
    for (took, answer) in answers {
        if answer.json()["code"] == "overloaded" {
            shed += 1;
            assert!(took < Duration::from_millis(900), "shed after {took:?}");
        }
        is_unavailable(&answer);
    }
    assert!(shed >= 40, "{shed} of 64 were shed");
    eventually(LATER, async || {
        let answer = cache.mget(&ns, &["k", "k0", "k1", "k2"]).await;
        ensure!(answer.json()["errors"].is_null() || answer.json()["errors"] == json!(0), "{}", answer.text());
        Ok(())
    })
    .await;
}

/// The bug: the log said that the shard does not answer, but not why; and it had no line when the shard was back.
#[tokio::test]
async fn regression_the_log_says_why_a_shard_is_unavailable_and_when_it_is_back() {
    let locked = Redis::start();
    locked.connect().command(&["CONFIG", "SET", "requirepass", "right"]);
    let shard = format!("a=redis://:wrong@127.0.0.1:{}", locked.port());
    let wrong = Service::launch(Settings::none().set("redis_shards", shard));
    eventually(LATER, async || {
        let log = wrong.log();
        ensure!(log.contains("starting although these do not answer") && log.contains("WRONGPASS"), "{log}");
        Ok(())
    })
    .await;

    let mut server = Redis::start();
    let service = on(std::slice::from_ref(&server));
    let cache = service.client();
    server.kill();
    eventually(LATER, async || {
        cache.get("n", "k").await;
        let log = service.log();
        ensure!(log.contains("no requests until it does"), "{log}");
        Ok(())
    })
    .await;
    server.run();
    eventually(LATER, async || {
        cache.get("n", "k").await;
        let log = service.log();
        ensure!(log.contains("the shard answers again"), "{log}");
        ensure!(!log.contains("Broadcasting error"), "lines of the Redis library add nothing: {log}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn regression_the_log_says_why_the_database_is_unavailable_at_the_start() {
    let url = format!("postgres://nobody@127.0.0.1:{}/none", ports::free());
    let service = Service::launch(Settings::embedded().set("database_url", url));
    eventually(LATER, async || {
        let log = service.log();
        ensure!(log.contains("the database does not answer") && log.contains("refused"), "{log}");
        Ok(())
    })
    .await;
}

/// The bug: the answer was `outcome_unknown`, as for a write, because the statistics also sweep expired entries.
#[tokio::test]
async fn regression_the_statistics_of_a_stopped_shard_time_out_like_a_read() {
    let server = Redis::start();
    let service = on(std::slice::from_ref(&server));
    let cache = service.client();
    cache.set("n", "k", "1").await.expect(201);
    server.signal(Signal::Stop);
    cache.stats("n").await.expect_error(503, "timeout");
    server.signal(Signal::Cont);
}
