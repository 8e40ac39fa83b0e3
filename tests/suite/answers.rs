//! The memory that answers may take: `max_answers_mb` bounds the values gathered for answers together with the bytes
//! that clients have not read yet.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::answer::Answer;
use crate::support::both_stores::on_own_services;
use crate::support::client::{Client, cache_path, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::service::{Service, Settings, Store};

on_own_services! {
    an_mget_beyond_the_memory_for_answers_is_refused_before_it_uses_it,
    small_answers_still_work_while_unread_answers_fill_the_memory,
}

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 32 * MIB;
const VALUE_BYTES: usize = 4 << 20;
const VALUES: usize = 64;

/// L1 is off, because its memory does not count as memory of answers.
fn with_little_memory(settings: Settings) -> Settings {
    settings.set("max_answers_mb", BUDGET / MIB).set("embedded_max_mb", 400).set("l1_max_mb", 0)
}

async fn filled(service: &Service, values: usize) -> (Client, String, Vec<String>) {
    let (cache, ns) = (service.client(), namespace("answers"));
    let keys: Vec<String> = (0..values).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cache.set(&ns, key, &value(key)).await.expect(201);
    }
    (cache, ns, keys)
}

/// A JSON string that is different for each key.
fn value(key: &str) -> String {
    format!("\"{key}{}\"", "x".repeat(VALUE_BYTES - 2 - key.len()))
}

async fn mget(cache: &Client, ns: &str, keys: &[String]) -> Answer {
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    cache.mget(ns, &names).await
}

#[track_caller]
fn is_refused(answer: Answer) {
    assert_eq!(answer.header("retry-after"), Some("1"));
    answer.expect_error(503, "overloaded");
}

async fn no_answer_is_under_way(cache: &Client) {
    eventually(SOON, async || {
        let bytes = cache.metrics().await.total("sidecache_http_answer_bytes");
        anyhow::ensure!(bytes == 0.0, "{bytes} bytes of answers");
        Ok(())
    })
    .await;
}

/// The bug: an mget held all its values in memory, and then the whole answer too: 8 GiB for 1,000 values of 4 MiB.
async fn an_mget_beyond_the_memory_for_answers_is_refused_before_it_uses_it(settings: Settings) {
    let service = Service::start(with_little_memory(settings));
    let (cache, ns, keys) = filled(&service, VALUES).await;
    let most = BUDGET as usize / VALUE_BYTES - 1;
    let mut growth = Vec::new();
    for (asked, at_once) in [(most, 1), (VALUES, 1), (VALUES, 4)] {
        service.forget_peak();
        let before = service.resident_bytes();
        let asking: Vec<_> = (0..at_once)
            .map(|_| {
                let (cache, ns, keys) = (service.client(), ns.clone(), keys[..asked].to_vec());
                tokio::spawn(async move { mget(&cache, &ns, &keys).await })
            })
            .collect();
        for answer in asking {
            let answer = answer.await.expect("no client panics");
            if asked == VALUES {
                is_refused(answer);
                continue;
            }
            let answer = answer.expect(200).json();
            assert_eq!((&answer["hits"], &answer["misses"]), (&json!(asked), &json!(0)));
            for key in &keys[..asked] {
                assert!(
                    answer["results"][key]["value"].as_str().is_some_and(|text| value(key)[1..].starts_with(text))
                );
            }
        }
        no_answer_is_under_way(&cache).await;
        growth.push(service.peak_bytes().saturating_sub(before) / MIB);
    }
    eprintln!(
        "{:?}: memory grew by {growth:?} MiB: within the budget, beyond it, four requests beyond it",
        service.store()
    );
    // The budget, plus the values that each of three shards may still be sending for each client.
    let sending = if service.store() == Store::Shards { 3 * 2 * VALUE_BYTES as u64 / MIB } else { 0 };
    for (growth, at_once) in growth.into_iter().zip([1, 1, 4]) {
        assert!(growth <= BUDGET / MIB + at_once * sending + 32, "memory grew by {growth} MiB");
    }
    assert_eq!(cache.metrics().await.total("sidecache_http_answers_refused_total"), 5.0);
    assert_eq!(mget(&cache, &ns, &keys[..most]).await.expect(200).number("hits"), most as u64);
}

async fn small_answers_still_work_while_unread_answers_fill_the_memory(settings: Settings) {
    let service = Service::start(with_little_memory(settings).set("max_bodies_mb", 64));
    let (cache, ns, keys) = filled(&service, 8).await;
    cache.set(&ns, "small", "1").await.expect(201);
    let listed = namespace("answers");
    let entries: Vec<Value> = (0..1_000).map(|number| json!({"key": format!("{number:0500}"), "value": 1})).collect();
    cache.fill(&listed, &json!(entries)).await;
    cache.set(&ns, "rest", &format!("\"{}\"", "x".repeat(VALUE_BYTES - 200_000))).await.expect(201);

    // One answer that leaves less memory than a listing needs. A smaller answer might fit into the buffers of its
    // socket, and would then be sent although nobody reads it.
    let held: Vec<&str> = keys[..7].iter().map(String::as_str).chain(["rest"]).collect();
    let body = json!({"keys": held}).to_string();
    let path = format!("{}/mget", cache_path(&ns));
    let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let unread = send_unread(&service, &request).await;
    eventually(SOON, async || {
        let bytes = cache.metrics().await.total("sidecache_http_answer_bytes");
        anyhow::ensure!(bytes > (8 * VALUE_BYTES - 200_000) as f64, "{bytes} bytes of answers");
        Ok(())
    })
    .await;
    // On the fast path, through the router, in a batch, and in a listing.
    is_refused(cache.get(&ns, &keys[7]).await);
    is_refused(cache.get_with(&ns, &keys[7], &[("cache-control", "no-cache")]).await);
    is_refused(mget(&cache, &ns, &keys[7..]).await);
    is_refused(cache.list(&listed, &[("limit", "1000")]).await);
    assert_eq!(
        cache.list(&listed, &[("limit", "20")]).await.expect(200).json()["keys"].as_array().map(Vec::len),
        Some(20)
    );
    assert_eq!(cache.get(&ns, "small").await.expect(200).value(), "1");
    // Writes are still carried out and answered.
    cache.set(&ns, &keys[7], &value("new")).await.expect(200);
    cache.send(Method::HEAD, &key_path(&ns, "small"), &[], None).await.expect(200);

    drop(unread);
    no_answer_is_under_way(&cache).await;
    assert_eq!(cache.get(&ns, &keys[7]).await.expect(200).value(), value("new"));
    assert_eq!(
        cache.list(&listed, &[("limit", "1000")]).await.expect(200).json()["keys"].as_array().map(Vec::len),
        Some(1_000)
    );
}

/// Sends a request and returns the connection; nobody reads the answer.
async fn send_unread(service: &Service, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(service.address()).await.expect("the service listens");
    stream.write_all(request.as_bytes()).await.expect("the service reads");
    stream
}
