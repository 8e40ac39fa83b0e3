//! Two instances on the same shards: a write that one instance acknowledged is in the answers of the other, at the
//! latest after `max_staleness`. The tests kill and stop real Redis servers and instances.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::answer::Answer;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{INTERVAL, LATER, SOON, eventually};
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::wire;

/// The default of `max_staleness_ms`.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

/// Two instances with the same shards and the same database.
fn two(settings: &Settings) -> (Service, Service) {
    (Service::start(settings.clone()), Service::start(settings.clone()))
}

/// Reads until the instance answers from L1.
async fn warmed(cache: &Client, ns: &str, key: &str) -> Answer {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.status == 200 && answer.is_l1_hit(), "{} {:?}", answer.status, answer.header("cache-status"));
        Ok(answer)
    })
    .await
}

/// The text of the value, or nothing for a 404.
fn value_of(answer: &Answer) -> Option<String> {
    match answer.status {
        404 => None,
        _ => Some(answer.clone().expect(200).value().to_owned()),
    }
}

/// Reads until 1.5 times the bound after the write was acknowledged. Every read that begins after the bound must see
/// `new`; earlier reads may see the old value.
async fn expect_new_after_bound(cache: &Client, ns: &str, key: &str, acknowledged: Instant, new: Option<&str>) {
    let bound = acknowledged + MAX_STALENESS;
    let end = bound + MAX_STALENESS / 2;
    loop {
        let started = Instant::now();
        let answer = cache.get(ns, key).await;
        if started > bound {
            let after = started - acknowledged;
            assert_eq!(
                value_of(&answer).as_deref(),
                new,
                "{key}, asked {after:?} after the write, {:?}",
                answer.headers
            );
        }
        if started > end {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[tokio::test]
async fn a_write_through_one_instance_is_seen_through_the_other() {
    let (a, b) = two(&Settings::shards());
    let (one, other, ns) = (a.client(), b.client(), namespace("coherence"));
    one.set(&ns, "k", "0").await.expect(201);
    for round in 1..=5 {
        warmed(&other, &ns, "k").await;
        let value = round.to_string();
        one.set(&ns, "k", &value).await.expect(200);
        let acknowledged = Instant::now();
        // Without a fault this takes about one round trip, far less than the bound.
        eventually(MAX_STALENESS, async || {
            let answer = other.get(&ns, "k").await;
            ensure!(value_of(&answer).as_ref() == Some(&value), "{:?}", value_of(&answer));
            Ok(())
        })
        .await;
        if round == 5 {
            expect_new_after_bound(&other, &ns, "k", acknowledged, Some(&value)).await;
        }
        assert_eq!(value_of(&warmed(&other, &ns, "k").await), Some(value), "L1 has the new value");
    }
}

#[tokio::test]
async fn deletes_and_flushes_through_one_instance_void_copies_of_the_other() {
    let (a, b) = two(&Settings::shards());
    let (one, other) = (a.client(), b.client());
    let ways: [Option<&[(&str, &str)]>; 4] =
        [None, Some(&[]), Some(&[("pattern", "user_*")]), Some(&[("tag", "red")])];
    for way in ways {
        let ns = namespace("coherence");
        one.put(&ns, "user_1", r#"{"value":1,"tags":["red"]}"#).await.expect(201);
        one.put(&ns, "kept", r#"{"value":2,"tags":["blue"]}"#).await.expect(201);
        warmed(&other, &ns, "user_1").await;
        warmed(&other, &ns, "kept").await;
        match way {
            None => one.delete(&ns, "user_1").await.expect(200),
            Some(query) => one.flush(&ns, query).await.expect(200),
        };
        let acknowledged = Instant::now();
        expect_new_after_bound(&other, &ns, "user_1", acknowledged, None).await;
        let kept = if way == Some(&[]) { None } else { Some("2") };
        assert_eq!(value_of(&other.get(&ns, "kept").await).as_deref(), kept, "{way:?}");
    }
}

#[tokio::test]
async fn batches_through_one_instance_are_seen_in_batches_through_the_other() {
    let (a, b) = two(&Settings::shards());
    let (one, other, ns) = (a.client(), b.client(), namespace("coherence"));
    let keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    for round in 0..3 {
        let entries: Vec<_> = keys.iter().map(|key| json!({"key": key, "value": round})).collect();
        one.fill(&ns, &json!(entries)).await;
        eventually(MAX_STALENESS, async || {
            let answer = other.mget(&ns, &names).await.expect(200).json();
            let old = names.iter().filter(|key| answer["results"][**key]["value"] != round).count();
            ensure!(old == 0, "{old} of 100 are old");
            Ok(())
        })
        .await;
        for key in ["k0", "k50", "k99"] {
            assert_eq!(value_of(&warmed(&other, &ns, key).await), Some(round.to_string()));
        }
    }
}

#[tokio::test]
async fn the_bound_holds_when_subscriber_connections_are_killed() {
    const KEYS: usize = 24;
    let servers = Redis::three();
    let (a, b) = two(&Settings::on(&servers));
    let (one, other, ns) = (a.client(), b.client(), namespace("coherence"));
    let keys: Vec<String> = (0..KEYS).map(|number| format!("k{number}")).collect();
    let kill_subscribers = || {
        servers
            .iter()
            .map(|server| server.connect().command(&["CLIENT", "KILL", "TYPE", "pubsub"]).integer())
            .sum::<i64>()
    };
    let mut killed = 0;
    for round in 0..4 {
        let value = round.to_string();
        for key in &keys {
            one.set(&ns, key, &format!("\"before {round}\"")).await;
        }
        for key in &keys {
            warmed(&other, &ns, key).await;
        }
        let mut acknowledged = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            if number % 4 == 0 {
                killed += kill_subscribers();
            }
            one.set(&ns, key, &value).await.expect(200);
            acknowledged.push(Instant::now());
        }
        // The instance that wrote sees its own writes, although its subscriptions were killed as well.
        for key in &keys {
            assert_eq!(value_of(&one.get(&ns, key).await), Some(value.clone()));
        }
        let end = Instant::now() + MAX_STALENESS + MAX_STALENESS / 2;
        while Instant::now() < end {
            for (key, acknowledged) in keys.iter().zip(&acknowledged) {
                let started = Instant::now();
                let answer = other.get(&ns, key).await;
                let after = started - *acknowledged;
                if after > MAX_STALENESS {
                    assert_eq!(value_of(&answer), Some(value.clone()), "{key}, asked {after:?} after the write");
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
    assert!(killed >= 6, "only {killed} subscriber connections were there to be killed");
    for key in &keys {
        warmed(&other, &ns, key).await;
    }
}

#[tokio::test]
async fn after_a_redis_restarts_empty_reads_are_misses() {
    let mut server = Redis::start();
    let (a, b) = two(&Settings::on(std::slice::from_ref(&server)).set("redis_timeout_ms", 1_000));
    let (one, other, ns) = (a.client(), b.client(), namespace("coherence"));
    one.set(&ns, "k", "\"old\"").await.expect(201);
    warmed(&one, &ns, "k").await;
    warmed(&other, &ns, "k").await;
    server.kill();
    let killed = Instant::now();
    // While the shard is down, L1 may answer until the bound; after the bound, reads fail.
    while killed.elapsed() < MAX_STALENESS + MAX_STALENESS / 2 {
        for cache in [&one, &other] {
            let started = Instant::now();
            let answer = cache.get(&ns, "k").await;
            if answer.status == 200 {
                let after = started - killed;
                assert!(after <= MAX_STALENESS, "answered {after:?} after the shard was gone: {:?}", answer.headers);
            } else {
                answer.expect_one_of_errors(503, &["shard_unavailable", "timeout"]);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
    server.run();
    for cache in [&one, &other] {
        eventually(LATER, async || {
            let answer = cache.get(&ns, "k").await;
            assert_ne!(answer.status, 200, "the shard has lost this value: {:?}", answer.headers);
            ensure!(answer.status == 404, "{}", answer.status);
            Ok(())
        })
        .await;
    }
    // Everything works as before, including scripts and subscriptions.
    one.set(&ns, "k", "\"new\"").await.expect(201);
    let acknowledged = Instant::now();
    expect_new_after_bound(&other, &ns, "k", acknowledged, Some("\"new\"")).await;
    warmed(&other, &ns, "k").await;
}

#[tokio::test]
async fn an_instance_that_was_paused_does_not_serve_old_copies() {
    let (a, b) = two(&Settings::shards());
    let (one, other, ns) = (a.client(), b.client(), namespace("coherence"));
    one.set(&ns, "k", "\"old\"").await.expect(201);
    warmed(&other, &ns, "k").await;
    // The instance has accepted these connections. While it is stopped, half of the requests arrive before the
    // invalidation, and half after it. It may read them in any order when it continues. If its clock had stopped with
    // it, the first answers would come from L1.
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", key_path(&ns, "k"));
    let mut connections = Vec::new();
    for _ in 0..32 {
        let mut connection = TcpStream::connect(b.address()).await.expect("the service accepts connections");
        connection.write_all(request.as_bytes()).await.expect("the request is taken");
        assert_eq!(value_of(&wire::read_answer(&mut connection).await).as_deref(), Some("\"old\""));
        connections.push(connection);
    }
    b.signal(Signal::Stop);
    let (before, after) = connections.split_at_mut(16);
    for connection in before {
        connection.write_all(request.as_bytes()).await.expect("the request is taken");
    }
    one.set(&ns, "k", "\"new\"").await.expect(200);
    let acknowledged = Instant::now();
    for connection in after {
        connection.write_all(request.as_bytes()).await.expect("the request is taken");
    }
    tokio::time::sleep_until((acknowledged + MAX_STALENESS).into()).await;
    b.signal(Signal::Cont);
    for connection in &mut connections {
        assert_eq!(value_of(&wire::read_answer(connection).await).as_deref(), Some("\"new\""));
    }
    assert_eq!(value_of(&other.get(&ns, "k").await).as_deref(), Some("\"new\""));
}

#[tokio::test]
async fn while_redis_is_stopped_l1_answers_only_up_to_the_bound() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("redis_timeout_ms", 500));
    let (cache, ns) = (service.client(), namespace("coherence"));
    cache.set(&ns, "k", "1").await.expect(201);
    warmed(&cache, &ns, "k").await;
    server.signal(Signal::Stop);
    let stopped = Instant::now();
    // Nothing stalls: each answer comes within the timeout of a shard operation, plus some time for load.
    eventually(SOON, async || {
        let started = Instant::now();
        let answer = cache.get(&ns, "k").await;
        assert!(started.elapsed() < Duration::from_secs(3), "an answer after {:?}", started.elapsed());
        if answer.status == 200 {
            assert!(started - stopped <= MAX_STALENESS, "L1 answered after the bound: {:?}", answer.headers);
        }
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(())
    })
    .await;
    server.signal(Signal::Cont);
    eventually(LATER, async || {
        let answer = cache.get(&ns, "k").await;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    })
    .await;
    warmed(&cache, &ns, "k").await;
}

#[tokio::test]
async fn without_l1_the_shard_answers_every_read() {
    let (a, b) = two(&Settings::shards().set("l1_max_mb", 0));
    let (one, other, ns) = (a.client(), b.client(), namespace("coherence"));
    for round in 0..20 {
        one.set(&ns, "k", &round.to_string()).await;
        for cache in [&one, &other] {
            let answer = cache.get(&ns, "k").await;
            assert_eq!(value_of(&answer), Some(round.to_string()), "without L1 no read is stale");
            let status = answer.header("cache-status").unwrap_or("").to_owned();
            assert!(status.starts_with("sidecache-shard; hit"), "{status}");
            assert!(status.contains("sidecache-l1; fwd=bypass"), "{status}");
            assert_eq!(cache.mget(&ns, &["k"]).await.json()["results"]["k"]["value"], round);
        }
    }
    other.delete(&ns, "k").await.expect(200);
    one.get(&ns, "k").await.expect(404);
}
