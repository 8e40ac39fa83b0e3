//! Entries that expire while nobody reads them: the stats are right within seconds, and the sweep does not slow down
//! a shard.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::support::both_stores::on_every_server;
use crate::support::client::namespace;
use crate::support::eventually::{SOON, eventually};
use crate::support::line;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::slowlog::Watch;
use crate::support::walk::{Books, agreed, all_books};

on_every_server! {
    an_expired_entry_counts_once_however_it_is_noticed,
    an_expired_key_can_be_created_again,
}

const KEYS: u64 = 100_000;
const TTL: Duration = Duration::from_secs(4);

/// How long the stats may take to be right after the last expiry.
const BOUND: Duration = Duration::from_secs(5);

/// Writes [`KEYS`] entries and returns the moment at which the last of them has expired.
fn filled(service: &Service, ns: &str) -> Instant {
    let ttl = TTL.as_secs();
    line::fill(service, ns, 0..KEYS as usize, |number| {
        format!(r#"{{"key":"k{number}","value":"0123456789","ttl":{ttl},"tags":["t{}"]}}"#, number % 7)
    });
    Instant::now() + TTL
}

const ALL_EXPIRED: Books = Books { keys: 0, bytes: 0, evictions: 0, expirations: KEYS };

#[tokio::test]
async fn a_hundred_thousand_unread_entries_are_swept_within_5_seconds_by_two_instances() {
    let servers = Redis::three_preferred();
    let settings = Settings::on(&servers);
    let (one, other) = (Service::start(settings.clone()), Service::start(settings));
    let (ns, witness) = (namespace("expiry"), namespace("witness"));
    let client = one.client();
    client.fill(&witness, &json!([{"key": "ever", "value": 1}, {"key": "long", "value": 1, "ttl": 1_000}])).await;
    let watch = Watch::begin(&servers);
    let expired = filled(&one, &ns);
    // A new client: the service may have closed the idle connections of the first one.
    let client = one.client();
    let bound = (expired + BOUND).saturating_duration_since(Instant::now());
    // The service gets no request meanwhile: it must sweep by itself.
    eventually(bound, async || {
        let books = all_books(&servers, &ns);
        ensure!(books == ALL_EXPIRED, "{books:?}");
        Ok(())
    })
    .await;
    eprintln!("the totals of {KEYS} entries were right {:?} after the last expiry", Instant::now() - expired);
    assert_eq!(Books::said(&other.client(), &ns).await, ALL_EXPIRED);
    watch.expect_nothing_slow("while 100,000 entries were written and expired");
    let walk = agreed(&[&client, &other.client()], &servers, &ns).await.expect("everything agrees");
    assert_eq!((walk.books, walk.names), (ALL_EXPIRED, Vec::new()));
    assert_eq!(Books::said(&client, &witness).await, Books { keys: 2, bytes: 2, evictions: 0, expirations: 0 });
}

#[tokio::test]
async fn a_hundred_thousand_unread_entries_of_the_embedded_store_are_swept_within_5_seconds() {
    let service = Service::start(Settings::embedded());
    let ns = namespace("expiry");
    let expired = filled(&service, &ns);
    let client = service.client();
    let bound = (expired + BOUND).saturating_duration_since(Instant::now());
    eventually(bound, async || {
        let books = Books::said(&client, &ns).await;
        ensure!(books == ALL_EXPIRED, "{books:?}");
        Ok(())
    })
    .await;
    assert_eq!(client.all_keys(&ns).await, Vec::<String>::new());
}

async fn an_expired_entry_counts_once_however_it_is_noticed(service: &Service) {
    let (cache, ns) = (service.client(), namespace("expiry"));
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    let entries: Vec<_> = keys.iter().map(|key| json!({"key": key, "value": "x", "ttl": 1, "tags": ["t"]})).collect();
    cache.fill(&ns, &json!(entries)).await;
    cache.set(&ns, "stays", "12345").await.expect(201);
    // One request wrote all entries, but not at the same moment: wait until all have expired.
    eventually(SOON, async || {
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let hits = cache.mget(&ns, &names).await.expect(200).number("hits");
        ensure!(hits == 0, "{hits} alive");
        Ok(())
    })
    .await;
    for key in &keys {
        cache.get(&ns, key).await.expect_error(404, "key_not_found");
        cache.head(&ns, key).await.expect(404);
    }
    cache.delete(&ns, "k0").await.expect_error(404, "key_not_found");
    cache.set_for(&ns, "k1", "1", 100).await.expect(201);
    assert_eq!(cache.flush(&ns, &[("tag", "t")]).await.expect(200).number("deleted_count"), 0);
    assert_eq!(cache.flush(&ns, &[("pattern", "k?")]).await.expect(200).number("deleted_count"), 1);
    eventually(SOON, async || {
        let books = Books::said(&cache, &ns).await;
        ensure!(books == Books { keys: 1, bytes: 5, evictions: 0, expirations: 40 }, "{books:?}");
        Ok(())
    })
    .await;
}

async fn an_expired_key_can_be_created_again(service: &Service) {
    let (cache, ns) = (service.client(), namespace("expiry"));
    for round in 1..=2 {
        cache.set_for(&ns, "k", "\"xxxx\"", 1).await.expect(201);
        eventually(SOON, async || {
            // Only read: repeated writes would keep the entry alive.
            let status = cache.head(&ns, "k").await.status;
            ensure!(status == 404, "{status}");
            Ok(())
        })
        .await;
        let books = Books { keys: 0, bytes: 0, evictions: 0, expirations: round };
        assert_eq!(Books::said(&cache, &ns).await, books);
    }
    cache.set(&ns, "k", "1").await.expect(201);
    assert_eq!(Books::said(&cache, &ns).await, Books { keys: 1, bytes: 1, evictions: 0, expirations: 2 });
}
