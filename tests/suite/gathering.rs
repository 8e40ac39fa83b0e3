//! Concurrent requests, whose reads and writes are combined into few script calls to a shard: each request gets its
//! own answer, whatever happens to the others.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::answer::Answer;
use crate::support::client::{key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::wire::{ask, read_answer};

/// One shard, and no L1 in front of it.
fn on(redis: &Redis) -> Settings {
    Settings::on(std::slice::from_ref(redis)).set("l1_max_mb", 0)
}

fn get(ns: &str, key: &str) -> String {
    format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", key_path(ns, key))
}

fn put(ns: &str, key: &str, value: &str) -> String {
    let body = format!("{{\"value\":{value}}}");
    let length = body.len();
    format!("PUT {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}", key_path(ns, key))
}

/// Sends each request over its own connection, while the service is stopped. The service has served all connections
/// before. Otherwise it would process the request of one connection before it accepts the next.
async fn send_at_once(service: &Service, requests: impl IntoIterator<Item = String>) -> Vec<TcpStream> {
    let address = service.address();
    let opened = requests.into_iter().map(|request| async move {
        let mut stream = TcpStream::connect(address).await.expect("the service accepts connections");
        ask(&mut stream, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect(200);
        (stream, request)
    });
    let opened = join_all(opened).await;
    service.signal(Signal::Stop);
    let sent = opened.into_iter().map(|(mut stream, request)| async move {
        stream.write_all(request.as_bytes()).await.expect("the kernel takes the request");
        stream
    });
    let sent = join_all(sent).await;
    service.signal(Signal::Cont);
    sent
}

/// The answers to requests that had all arrived when the service began to process the first.
async fn at_once(service: &Service, requests: impl IntoIterator<Item = String>) -> Vec<Answer> {
    let mut streams = send_at_once(service, requests).await;
    join_all(streams.iter_mut().map(read_answer)).await
}

/// How many scripts the server ran since the last call of this function.
fn scripts(redis: &Redis) -> u64 {
    let mut connection = redis.connect();
    let stats = connection.command(&["INFO", "commandstats"]).text();
    connection.command(&["CONFIG", "RESETSTAT"]);
    let calls = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(calls).sum()
}

/// Stores `k0`, `k1` and so on, with the number as the value.
async fn fill(service: &Service, ns: &str, keys: usize) {
    let entries: Vec<Value> = (0..keys).map(|i| json!({"key": format!("k{i}"), "value": i})).collect();
    service.client().fill(ns, &json!(entries)).await;
}

async fn total(service: &Service, ns: &str, number: &str) -> u64 {
    service.client().stats(ns).await.expect(200).number(number)
}

#[tokio::test]
async fn concurrent_requests_share_few_scripts_and_each_gets_its_own_answer() {
    const KEYS: usize = 90;
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let spaces = [namespace("gathering"), namespace("gathering"), namespace("gathering")];
    let at = |i: usize| (spaces[i % 3].as_str(), format!("key {i}"));
    scripts(&redis);
    let puts = (0..KEYS).map(|i| put(at(i).0, &at(i).1, &i.to_string()));
    for (i, answer) in at_once(&service, puts).await.into_iter().enumerate() {
        let answer = answer.expect(201).json();
        assert_eq!((&answer["created"], &answer["key"]), (&json!(true), &json!(at(i).1)));
    }
    let for_writes = scripts(&redis);
    // Every second read is a hit; the others ask for a key in a wrong namespace.
    let gets = (0..KEYS).map(|i| get(at(i + i % 2).0, &at(i).1));
    for (i, answer) in at_once(&service, gets).await.into_iter().enumerate() {
        match i % 2 {
            0 => assert_eq!(answer.expect(200).value(), i.to_string()),
            _ => assert_eq!(answer.expect(404).header("x-cache-hit"), Some("false")),
        }
    }
    let for_reads = scripts(&redis);
    println!("{KEYS} writes in {for_writes} scripts, {KEYS} reads in {for_reads}");
    assert!(for_writes < KEYS as u64 / 2 && for_reads < KEYS as u64 / 2, "{for_writes} and {for_reads}");
    for ns in &spaces {
        assert_eq!(total(&service, ns, "total_keys").await, KEYS as u64 / 3);
    }
}

#[tokio::test]
async fn one_of_concurrent_writes_creates_the_key_and_the_totals_count_it_once() {
    const WRITES: usize = 60;
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let ns = namespace("gathering");
    let value = |i: usize| format!("\"{}\"", "x".repeat(i + 1));
    let answers = at_once(&service, (0..WRITES).map(|i| put(&ns, "one", &value(i)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), WRITES - 1);
    let last = service.client().get(&ns, "one").await.expect(200);
    assert_eq!(total(&service, &ns, "total_keys").await, 1);
    assert_eq!(total(&service, &ns, "memory_used_bytes").await, last.value().len() as u64);
}

#[tokio::test]
async fn values_that_do_not_fit_into_one_script_are_all_written_and_read() {
    const VALUES: usize = 60;
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let ns = namespace("gathering");
    let value = |i: usize| format!("\"{i}{}\"", "x".repeat(40_000));
    for answer in at_once(&service, (0..VALUES).map(|i| put(&ns, &format!("k{i}"), &value(i)))).await {
        answer.expect(201);
    }
    let answers = at_once(&service, (0..VALUES).map(|i| get(&ns, &format!("k{i}")))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.expect(200).value(), value(i));
    }
}

#[tokio::test]
async fn a_read_of_a_foreign_type_fails_alone() {
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let ns = namespace("gathering");
    fill(&service, &ns, 40).await;
    let foreign = format!("cache:{ns}:k7");
    redis.connect().command(&["DEL", &foreign]);
    redis.connect().command(&["LPUSH", &foreign, "x"]);
    let answers = at_once(&service, (0..40).map(|i| get(&ns, &format!("k{i}")))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        match i {
            7 => drop(answer.expect_error(409, "foreign_type")),
            _ => assert_eq!(answer.expect(200).value(), i.to_string()),
        }
    }
}

#[tokio::test]
async fn a_write_with_foreign_metadata_fails_alone() {
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let ns = namespace("gathering");
    redis.connect().command(&["SET", &format!("cache_meta:{ns}:k7"), "x"]);
    let answers = at_once(&service, (0..40).map(|i| put(&ns, &format!("k{i}"), "1"))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        match i {
            7 => drop(answer.expect_error(409, "foreign_type")),
            _ => drop(answer.expect(201)),
        }
    }
    assert_eq!(total(&service, &ns, "total_keys").await, 39);
}

#[tokio::test]
async fn regression_requests_queued_during_a_script_are_answered() {
    // The bug: when a script call was answered, requests queued meanwhile were treated as part of it and dropped.
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let (cache, ns) = (service.client(), namespace("gathering"));
    fill(&service, &ns, 64).await;
    let readers = (0..64).map(|i| {
        let (cache, ns) = (cache.clone(), ns.clone());
        tokio::spawn(async move {
            for _ in 0..100 {
                assert_eq!(cache.get(&ns, &format!("k{i}")).await.expect(200).value(), i.to_string());
            }
        })
    });
    for reader in join_all(readers).await {
        reader.expect("each reader gets its own answers");
    }
}

#[tokio::test]
async fn clients_that_disconnect_do_not_affect_others() {
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let (cache, ns) = (service.client(), namespace("gathering"));
    fill(&service, &ns, 60).await;
    redis.signal(Signal::Stop);
    let requests = (0..60).map(|i| match i % 2 {
        0 => get(&ns, &format!("k{i}")),
        _ => put(&ns, &format!("new {i}"), "1"),
    });
    let mut streams = send_at_once(&service, requests).await;
    // The requests are in flight when half of the clients disconnect.
    eventually(LATER, async || {
        let in_flight = cache.metrics().await.total("sidecache_shard_in_flight");
        ensure!(in_flight >= 60.0, "{in_flight}");
        Ok(())
    })
    .await;
    let stay = streams.split_off(30);
    drop(streams);
    redis.signal(Signal::Cont);
    let mut stay = stay;
    for (i, answer) in join_all(stay.iter_mut().map(read_answer)).await.into_iter().enumerate() {
        answer.expect(if i % 2 == 0 { 200 } else { 201 });
    }
    eventually(LATER, async || {
        let keys = total(&service, &ns, "total_keys").await;
        ensure!(keys == 90, "{keys} keys: writes in flight must be carried out");
        let in_flight = cache.metrics().await.total("sidecache_shard_in_flight");
        ensure!(in_flight == 0.0, "{in_flight}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn each_request_of_a_script_counts_as_in_flight_and_fails_as_a_read_or_a_write() {
    const MOST: usize = 8;
    let redis = Redis::start();
    let service = Service::start(on(&redis).set("redis_max_in_flight", MOST).set("redis_timeout_ms", 1500));
    let (cache, ns) = (service.client(), namespace("gathering"));
    fill(&service, &ns, 60).await;
    redis.signal(Signal::Stop);
    let requests = (0..60).map(|i| match i % 2 {
        0 => get(&ns, &format!("k{i}")),
        _ => put(&ns, &format!("k{i}"), "1"),
    });
    let answers = at_once(&service, requests).await;
    redis.signal(Signal::Cont);
    let code = |answer: &Answer| match &answer.json()["code"] {
        Value::String(code) => code.clone(),
        other => panic!("{other}"),
    };
    let (mut silent, mut refused) = (0, 0);
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 503, "{}", answer.text());
        match code(answer).as_str() {
            "timeout" if i % 2 == 0 => silent += 1,
            "outcome_unknown" if i % 2 == 1 => silent += 1,
            "overloaded" => refused += 1,
            other => panic!("{other} for request {i}"),
        }
    }
    // The service's own operations, such as its heartbeat, count as in flight too.
    assert!((1..=MOST).contains(&silent), "{silent} in flight");
    assert_eq!(silent + refused, answers.len());
    let metrics = cache.metrics().await;
    assert!(metrics.total("sidecache_shard_timeouts_total") >= silent as f64);
    assert!(metrics.total("sidecache_shard_refused_total") >= refused as f64);
    assert!(
        metrics.total("sidecache_shard_breaker_openings_total") >= 1.0,
        "enough timeouts in a row open the breaker"
    );
    eventually(LATER, async || {
        let status = cache.get(&ns, "k0").await.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn concurrent_writes_beyond_the_quota_are_refused() {
    let redis = Redis::start();
    let service = Service::start(on(&redis));
    let (cache, ns) = (service.client(), namespace("gathering"));
    let policy = r#"{"default_ttl":0,"max_size_mb":1,"eviction_policy":"NONE"}"#;
    let made = cache.put_policy(&ns, policy).await;
    assert_eq!(made.status / 100, 2, "{}", made.text());
    tokio::time::timeout(Duration::from_secs(30), async {
        let value = format!("\"{}\"", "x".repeat(29_998));
        let answers = at_once(&service, (0..60).map(|i| put(&ns, &format!("k{i}"), &value))).await;
        let stored = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(stored, (1 << 20) / 30_000);
        assert_eq!(answers.iter().filter(|answer| answer.status == 507).count(), 60 - stored);
        assert_eq!(total(&service, &ns, "memory_used_bytes").await, stored as u64 * 30_000);
    })
    .await
    .expect("answers in time");
}
