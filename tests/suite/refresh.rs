//! Refreshing ahead of expiry, and entries that are answered after it (`refresh_after`, `stale_while_revalidate`): one
//! program of the fleet loads, and all others are answered meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::support::answer::Answer;
use crate::support::both_stores::{on_confined, on_every_release};
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{SOON, eventually};
use crate::support::redis;
use crate::support::service::{Service, Settings, Store};
use crate::support::walk::{Books, agreed};

on_every_release! {
    an_entry_is_answered_during_its_grace_and_gone_after_it,
    a_read_that_wants_a_fresh_answer_gets_none_during_the_grace,
    the_grace_of_a_write_counts_and_else_that_of_the_policy,
    one_reader_gets_the_lease_of_an_entry_in_its_grace,
    one_reader_gets_the_lease_before_an_entry_expires,
    a_refresh_that_was_given_up_goes_to_the_next_reader,
    every_change_ends_a_refresh,
    a_grace_must_be_a_number_of_seconds,
}

mod least_rights {
    // Without INFO no lease is given, see `leases.rs`.
    super::on_confined!(an_entry_is_answered_during_its_grace_and_gone_after_it);
    super::on_confined!(the_grace_of_a_write_counts_and_else_that_of_the_policy);
}

const LEASE: &[(&str, &str)] = &[("prefer", "lease=10")];

/// The token, if the answer gives the lease.
fn token_of(answer: &Answer) -> Option<String> {
    let lease = answer.header("cache-lease")?.strip_prefix("won;token=\"")?;
    Some(lease.split('"').next().expect("text before a quote").to_owned())
}

async fn fill(cache: &Client, ns: &str, token: &str, body: &str) -> Answer {
    cache.send(Method::PUT, &key_path(ns, "k"), &[("cache-lease", token)], Some(body.into())).await
}

/// Whether an answer says that the entry is past its freshness.
fn is_overdue(answer: &Answer) -> bool {
    let status = answer.header("cache-status").unwrap_or_default();
    let is_overdue = status.contains("; hit; ttl=-");
    if is_overdue {
        assert_eq!((answer.status, answer.header("x-cache-ttl")), (200, Some("0")), "{status}");
        assert_eq!(answer.metadata().ttl_remaining, Some(0));
        assert_eq!(answer.header("x-cache-hit"), Some("true"));
    }
    is_overdue
}

/// Waits until the entry `k` is past its freshness.
async fn until_overdue(cache: &Client, ns: &str) {
    eventually(SOON, async || {
        let answer = cache.get(ns, "k").await.expect(200);
        ensure!(is_overdue(&answer), "{:?}", answer.header("cache-status"));
        // L1 counts from before it asked the shard, so its copy is past its freshness a little earlier.
        let from_shard = cache.get_with(ns, "k", &[("cache-control", "no-cache")]).await;
        ensure!(from_shard.status == 404, "fresh on the shard");
        Ok(())
    })
    .await;
}

async fn until_gone(cache: &Client, ns: &str) {
    eventually(SOON, async || {
        let status = cache.get(ns, "k").await.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await;
}

async fn an_entry_is_answered_during_its_grace_and_gone_after_it(service: &Service) {
    let (cache, ns) = (service.client(), namespace("grace"));
    let body = r#"{"value":"1","ttl":1,"stale_while_revalidate":2,"tags":["a"]}"#;
    cache.put(&ns, "k", body).await.expect(201);
    assert!(!is_overdue(&cache.get(&ns, "k").await.expect(200)), "it is fresh");
    until_overdue(&cache, &ns).await;
    // It is still an entry: in the listing, the totals, a batch and for conditions.
    assert_eq!(cache.list(&ns, &[("pattern", "k*")]).await.expect(200).json()["keys"], json!(["k"]));
    assert_eq!(cache.mget(&ns, &["k"]).await.expect(200).json()["results"]["k"]["value"], "1");
    let one = Books { keys: 1, bytes: 3, evictions: 0, expirations: 0 };
    assert_eq!(Books::said(&cache, &ns).await, one);
    let create = [("if-none-match", "*")];
    cache.send(Method::PUT, &key_path(&ns, "k"), &create, Some(b"{\"value\":2}".to_vec())).await.expect(412);
    until_gone(&cache, &ns).await;
    eventually(SOON, async || {
        let said = Books::said(&cache, &ns).await;
        ensure!(said == Books { keys: 0, bytes: 0, evictions: 0, expirations: 1 }, "{said:?}");
        Ok(())
    })
    .await;
}

async fn a_read_that_wants_a_fresh_answer_gets_none_during_the_grace(service: &Service) {
    let (cache, ns) = (service.client(), namespace("grace-fresh"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":1,"stale_while_revalidate":60}"#).await.expect(201);
    until_overdue(&cache, &ns).await;
    cache.get_with(&ns, "k", &[("cache-control", "no-cache")]).await.expect_error(404, "key_not_found");
    let miss = cache.get_with(&ns, "k", &[("cache-control", "no-cache"), ("prefer", "lease=10")]).await.expect(404);
    let token = token_of(&miss).expect("a miss gets the lease");
    fill(&cache, &ns, &token, r#"{"value":2}"#).await.expect(200);
}

async fn the_grace_of_a_write_counts_and_else_that_of_the_policy(service: &Service) {
    let (cache, ns) = (service.client(), namespace("grace-policy"));
    cache.put_policy(&ns, r#"{"stale_while_revalidate":60}"#).await.expect(201);
    let entries = json!([
        {"key": "k", "value": 1, "ttl": 1},
        {"key": "none", "value": 1, "ttl": 1, "stale_while_revalidate": 0},
        {"key": "null", "value": 1, "ttl": 1, "stale_while_revalidate": null},
    ]);
    cache.fill(&ns, &entries).await;
    until_overdue(&cache, &ns).await;
    // The entries are on different shards, and were not written in the same millisecond.
    eventually(SOON, async || {
        let answer = cache.get(&ns, "none").await;
        ensure!(answer.status == 404, "{}", answer.status);
        Ok(())
    })
    .await;
    cache.get(&ns, "null").await.expect(200);
    // A write without a TTL and without a grace of its own.
    cache.put_policy(&ns, r#"{"default_ttl":0}"#).await.expect(200);
    cache.set(&ns, "k", "2").await.expect(200);
    let found = cache.get(&ns, "k").await.expect(200);
    assert_eq!((found.value(), found.header("x-cache-ttl")), ("2", None));
}

async fn one_reader_gets_the_lease_of_an_entry_in_its_grace(service: &Service) {
    let (cache, ns) = (service.client(), namespace("refresh-grace"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":1,"stale_while_revalidate":60}"#).await.expect(201);
    assert_eq!(cache.get_with(&ns, "k", LEASE).await.expect(200).header("cache-lease"), None, "it is fresh");
    until_overdue(&cache, &ns).await;
    let won = cache.get_with(&ns, "k", LEASE).await.expect(200);
    assert!(is_overdue(&won), "{:?}", won.header("cache-status"));
    assert_eq!(won.header("preference-applied"), Some("lease=10"));
    assert_eq!(won.header("cache-control"), Some("no-store"));
    let token = token_of(&won).expect("the first one refreshes");
    for _ in 0..3 {
        let other = cache.get_with(&ns, "k", LEASE).await.expect(200);
        assert!(is_overdue(&other) && other.header("cache-lease").is_none(), "the others are answered");
        assert!(is_overdue(&cache.get(&ns, "k").await.expect(200)));
    }
    fill(&cache, &ns, &token, r#"{"value":2,"ttl":60}"#).await.expect(200);
    let found = cache.get_with(&ns, "k", LEASE).await.expect(200);
    assert_eq!((found.value(), found.header("cache-lease"), is_overdue(&found)), ("2", None, false));
}

async fn one_reader_gets_the_lease_before_an_entry_expires(service: &Service) {
    let (cache, ns) = (service.client(), namespace("refresh-ahead"));
    cache.put_policy(&ns, r#"{"refresh_after":0.01}"#).await.expect(201);
    cache.put(&ns, "k", r#"{"value":1,"ttl":60}"#).await.expect(201);
    cache.put(&ns, "ever", r#"{"value":1}"#).await.expect(201);
    let token = eventually(SOON, async || {
        let answer = cache.get_with(&ns, "k", LEASE).await.expect(200);
        assert!(!is_overdue(&answer));
        token_of(&answer).ok_or_else(|| anyhow::anyhow!("not due yet"))
    })
    .await;
    assert_eq!(cache.get_with(&ns, "k", LEASE).await.expect(200).header("cache-lease"), None);
    fill(&cache, &ns, &token, r#"{"value":2,"ttl":60}"#).await.expect(200);
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "2");
    let metrics = cache.metrics().await;
    assert!(metrics.total("sidecache_refreshes_total") >= 1.0);
}

async fn a_refresh_that_was_given_up_goes_to_the_next_reader(service: &Service) {
    let (cache, ns) = (service.client(), namespace("refresh-release"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":1,"stale_while_revalidate":60}"#).await.expect(201);
    until_overdue(&cache, &ns).await;
    let token = token_of(&cache.get_with(&ns, "k", LEASE).await).expect("the lease");
    let path = format!("{}/lease", key_path(&ns, "k"));
    cache.send(Method::DELETE, &path, &[("cache-lease", &token)], None).await.expect(200);
    let next = eventually(SOON, async || {
        let answer = cache.get_with(&ns, "k", LEASE).await.expect(200);
        token_of(&answer).ok_or_else(|| anyhow::anyhow!("{:?}", answer.header("cache-status")))
    })
    .await;
    fill(&cache, &ns, &token, r#"{"value":2}"#).await.expect_error(412, "lease_lost");
    fill(&cache, &ns, &next, r#"{"value":2}"#).await.expect(200);
}

async fn every_change_ends_a_refresh(service: &Service) {
    let (cache, ns) = (service.client(), namespace("refresh-ends"));
    for change in ["set", "delete", "flush"] {
        cache.put(&ns, "k", r#"{"value":1,"ttl":1,"stale_while_revalidate":60}"#).await;
        until_overdue(&cache, &ns).await;
        let token = token_of(&cache.get_with(&ns, "k", LEASE).await).expect("the lease");
        match change {
            "set" => drop(cache.set(&ns, "k", "2").await.expect(200)),
            "delete" => drop(cache.delete(&ns, "k").await.expect(200)),
            _ => drop(cache.flush(&ns, &[]).await.expect(200)),
        }
        fill(&cache, &ns, &token, r#"{"value":"old"}"#).await.expect_error(412, "lease_lost");
        cache.delete(&ns, "k").await;
    }
}

async fn a_grace_must_be_a_number_of_seconds(service: &Service) {
    let (cache, ns) = (service.client(), namespace("grace-wrong"));
    for wrong in ["-1", "1.5", "\"30\"", "3153600001", "true"] {
        let body = format!("{{\"value\":1,\"stale_while_revalidate\":{wrong}}}");
        let said = cache.put(&ns, "k", body).await.expect_error(400, "invalid_ttl");
        assert!(said.contains("stale_while_revalidate"), "{said}");
        let entries = format!("{{\"entries\":[{{\"key\":\"k\",\"value\":1,\"stale_while_revalidate\":{wrong}}}]}}");
        cache.mset_raw(&ns, entries).await.expect_error(400, "invalid_ttl");
    }
}

#[tokio::test]
async fn the_books_of_entries_in_their_grace_are_exact() {
    let (service, servers) = (Store::Shards.shared_service(), redis::shared());
    let (cache, ns) = (service.client(), namespace("grace-books"));
    let entry = |number: usize, ttl: u64, grace: u64| json!({"key": format!("k{number}"), "value": "0123456789", "ttl": ttl, "stale_while_revalidate": grace, "tags": ["t"]});
    let many: Vec<_> = (0..200).map(|number| entry(number, 1, if number % 2 == 0 { 2 } else { 600 })).collect();
    cache.fill(&ns, &json!(many)).await;
    let walk = agreed(&[&cache], servers, &ns).await.expect("everything agrees");
    assert_eq!(walk.books, Books { keys: 200, bytes: 2400, evictions: 0, expirations: 0 });
    // Overwritten: an ordinary entry by one with a grace, and the other way round.
    cache.put(&ns, "k1", r#"{"value":1,"ttl":600}"#).await.expect(200);
    cache.put(&ns, "k1", r#"{"value":1,"ttl":1,"stale_while_revalidate":600}"#).await.expect(200);
    cache.put(&ns, "k3", r#"{"value":1}"#).await.expect(200);
    eventually(SOON, async || {
        let walk = agreed(&[&cache], servers, &ns).await?;
        let expected = Books { keys: 100, bytes: 98 * 12 + 2, evictions: 0, expirations: 100 };
        ensure!(walk.books == expected, "{:?}", walk.books);
        Ok(())
    })
    .await;
    assert!(is_overdue(&cache.get(&ns, "k1").await.expect(200)));
    let flushed = cache.flush(&ns, &[("tag", "t")]).await.expect(200);
    assert_eq!(flushed.number("deleted_count"), 98);
    cache.flush(&ns, &[]).await.expect(200);
    let walk = agreed(&[&cache], servers, &ns).await.expect("everything agrees");
    assert_eq!((walk.books.keys, walk.books.bytes, walk.names), (0, 0, Vec::new()));
}

#[tokio::test]
async fn every_key_of_an_mget_counts_as_an_answer_past_its_freshness() {
    let service = Service::start(Settings::embedded());
    let (cache, ns) = (service.client(), namespace("grace-counted"));
    let entry = |key: &str| json!({"key": key, "value": 1, "ttl": 600, "stale_while_revalidate": 60, "tags": [key]});
    cache.fill(&ns, &json!([entry("a"), entry("b"), entry("fresh")])).await;
    for tag in ["a", "b"] {
        cache.flush(&ns, &[("tag", tag), ("mode", "stale")]).await.expect(200);
    }
    assert_eq!(cache.mget(&ns, &["a", "b", "fresh", "missing"]).await.expect(200).number("hits"), 3);
    assert_eq!(cache.metrics().await.total("sidecache_stale_while_revalidate_total"), 2.0);
}

/// What the readers of one hot key share.
struct HotKey {
    ns: String,
    is_loading: AtomicBool,
    loads: AtomicU64,
    reads: AtomicU64,
    from_l1: AtomicU64,
    end: Instant,
}

impl HotKey {
    /// Reads as a program does: with the lease it loads, which takes 100 ms, and stores.
    async fn read(&self, cache: &Client) {
        while Instant::now() < self.end {
            let answer = cache.get_with(&self.ns, "k", LEASE).await.expect(200);
            self.reads.fetch_add(1, Ordering::SeqCst);
            self.from_l1.fetch_add(u64::from(answer.is_l1_hit()), Ordering::SeqCst);
            let Some(token) = token_of(&answer) else { continue };
            assert!(!self.is_loading.swap(true, Ordering::SeqCst), "two programs refresh at once");
            self.loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.is_loading.store(false, Ordering::SeqCst);
            fill(cache, &self.ns, &token, BODY).await.expect(200);
        }
    }
}

const BODY: &str = r#"{"value":"0123456789","ttl":2,"stale_while_revalidate":60}"#;

#[tokio::test]
async fn a_hot_key_is_refreshed_once_a_period_while_all_read_from_l1() {
    let settings = Settings::shards();
    let services: Vec<Service> = (0..3).map(|_| Service::start(settings.clone())).collect();
    let clients: Vec<Client> = services.iter().map(Service::client).collect();
    let ns = namespace("hot");
    clients[0].put_policy(&ns, r#"{"refresh_after":0.25}"#).await.expect(201);
    for client in &clients {
        eventually(SOON, async || {
            let policy = client.policy(&ns).await;
            ensure!(policy.status == 200 && policy.json()["refresh_after"] == 0.25, "{policy:?}");
            Ok(())
        })
        .await;
    }
    clients[0].put(&ns, "k", BODY).await.expect(201);
    let asked_before = shard_reads(&clients).await;
    let lasts = Duration::from_secs(6);
    let hot = Arc::new(HotKey {
        ns,
        is_loading: AtomicBool::new(false),
        loads: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        from_l1: AtomicU64::new(0),
        end: Instant::now() + lasts,
    });
    let readers = clients.iter().cycle().take(9).map(|client| {
        let (hot, client) = (hot.clone(), client.clone());
        tokio::spawn(async move { hot.read(&client).await })
    });
    for reader in join_all(readers).await {
        reader.expect("no read failed");
    }
    let asked = shard_reads(&clients).await - asked_before;
    let [loads, reads, from_l1] = [&hot.loads, &hot.reads, &hot.from_l1].map(|count| count.load(Ordering::SeqCst));
    eprintln!("{reads} reads in {lasts:?}, {from_l1} from L1, {loads} loads, {asked} questions to the shard");
    // A period is at least 0.5 s until it is due, and 0.1 s to load.
    assert!((3..=10).contains(&loads), "{loads} loads");
    // In each period, an instance reads the new value once, and asks for the lease once; some answers come too late.
    assert!(asked <= loads as f64 * 3.0 * 6.0 + 20.0, "{asked} questions for {loads} loads");
    assert!(from_l1 * 10 >= reads * 9, "{from_l1} of {reads} reads from L1");
}

/// How often the instances asked a shard for an entry.
async fn shard_reads(clients: &[Client]) -> f64 {
    let metrics = join_all(clients.iter().map(Client::metrics)).await;
    metrics.iter().map(|metrics| metrics.total("sidecache_shard_reads_total")).sum()
}

#[tokio::test]
async fn a_reader_that_dies_costs_the_rest_of_its_lease_only() {
    let settings = Settings::shards();
    let (one, other) = (Service::start(settings.clone()), Service::start(settings));
    let (cache, there, ns) = (one.client(), other.client(), namespace("refresh-dies"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":1,"stale_while_revalidate":600}"#).await.expect(201);
    until_overdue(&cache, &ns).await;
    let won = cache.get_with(&ns, "k", &[("prefer", "lease=1")]).await.expect(200);
    let (token, began) = (token_of(&won).expect("the lease"), Instant::now());
    let next = eventually(SOON, async || {
        let answer = there.get_with(&ns, "k", LEASE).await.expect(200);
        token_of(&answer).ok_or_else(|| anyhow::anyhow!("held"))
    })
    .await;
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    fill(&cache, &ns, &token, r#"{"value":2}"#).await.expect_error(412, "lease_lost");
    fill(&there, &ns, &next, r#"{"value":3}"#).await.expect(200);
}
