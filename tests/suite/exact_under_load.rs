//! The stats of a namespace under concurrent load: several instances and many clients, an instance that is killed,
//! and a Redis that evicts entries by itself. The order of events is unknown here, but nothing may get lost: every
//! entry that was created is still stored, or was deleted, flushed, expired or evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::{Client, cache_path, key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};
use crate::support::walk::{Books, Walk, agreed};

const TASKS: u64 = 12;

/// The sums of what the answers reported.
#[derive(Default)]
struct Tally {
    created: AtomicU64,
    deleted: AtomicU64,
    flushed: AtomicU64,
}

impl Tally {
    /// The number of entries that were created and not deleted by a client.
    fn left(&self) -> u64 {
        self.created.load(Relaxed) - self.deleted.load(Relaxed) - self.flushed.load(Relaxed)
    }
}

/// Whether the instance of a client may be killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instance {
    Stays,
    MayDie,
}

/// One of many clients: sends random writes, deletes and flushes, and some reads.
async fn random_requests(
    client: Client,
    ns: String,
    seed: u64,
    operations: usize,
    tally: Arc<Tally>,
    instance: Instance,
) {
    let mut random = Random::seeded(seed);
    for _ in 0..operations {
        let key = format!("{}:{}", random.below(10), random.below(60));
        let answer = match random.below(100) {
            0..60 => {
                let value = "x".repeat(random.below(16_000));
                let mut body = json!({"value": value});
                if random.one_in(4) {
                    body["ttl"] = json!(random.between(1, 2));
                }
                if random.one_in(3) {
                    body["tags"] = json!([format!("t{}", random.below(4))]);
                }
                let path = key_path(&ns, &key);
                client.try_send(Method::PUT, &path, &[], Some(body.to_string().into_bytes())).await
            }
            60..75 => {
                let path = key_path(&ns, &key);
                client.try_send(Method::DELETE, &path, &[], None).await
            }
            75..83 => {
                let ttl = *random.pick(&[None, Some(1), Some(600)]);
                let body = json!({"ttl": ttl, "tags": [format!("t{}", random.below(4))]});
                let path = key_path(&ns, &key);
                client.try_send(Method::PATCH, &path, &[], Some(body.to_string().into_bytes())).await
            }
            83..99 => {
                let path = key_path(&ns, &key);
                client.try_send(Method::GET, &path, &[], None).await
            }
            99 if random.one_in(2) => {
                let path = cache_path(&ns);
                let path = format!("{path}?pattern={}:*", random.below(10));
                client.try_send(Method::DELETE, &path, &[], None).await
            }
            _ => {
                let path = cache_path(&ns);
                let path = format!("{path}?tag=t{}", random.below(4));
                client.try_send(Method::DELETE, &path, &[], None).await
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if instance == Instance::MayDie => return,
            Err(error) => panic!("no answer: {error:?}"),
        };
        if answer.status == 404 {
            continue;
        }
        assert!([200, 201].contains(&answer.status), "{}", answer.text());
        let said: Value = answer.json();
        tally.created.fetch_add(u64::from(said["created"] == true), Relaxed);
        tally.deleted.fetch_add(u64::from(said["deleted"] == true), Relaxed);
        tally.flushed.fetch_add(said["deleted_count"].as_u64().unwrap_or(0), Relaxed);
    }
}

/// Runs [`TASKS`] clients at once, spread over the instances.
async fn load(services: &[&Service], ns: &str, operations: usize) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let service = services[task as usize % services.len()];
            let tally = Arc::clone(&tally);
            tokio::spawn(random_requests(service.client(), ns.to_owned(), task, operations, tally, Instance::Stays))
        })
        .collect();
    for task in tasks {
        task.await.expect("a client that fails says why");
    }
    tally
}

/// Waits until every created entry is stored or accounted for, and the stats agree with the shards.
async fn conserved(clients: &[&Client], servers: &[Redis], ns: &str, tally: &Tally) -> Walk {
    eventually(LATER, async || {
        let walk = agreed(clients, servers, ns).await?;
        let books = walk.books;
        let accounted = books.keys + books.expirations + books.evictions;
        ensure!(accounted == tally.left(), "{books:?} account for {accounted} of {} entries", tally.left());
        Ok(walk)
    })
    .await
}

#[tokio::test]
async fn no_entry_gets_lost_with_three_instances_and_twelve_clients() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let services = [0; 3].map(|_| Service::start(settings.clone()));
    let clients = services.each_ref().map(Service::client);
    let (free, tight) = (format!("{}.", namespace("load")), format!("{}.", namespace("load")));
    clients[0].put_policy(&tight, r#"{"max_size_mb":1,"eviction_policy":"LRU"}"#).await.expect(201);
    // All instances must know the quota before they write.
    for client in &clients {
        eventually(LATER, async || {
            let status = client.policy(&tight).await.status;
            ensure!(status == 200, "{status}");
            Ok(())
        })
        .await;
    }
    let all: Vec<&Service> = services.iter().collect();
    let (in_free, in_tight) = tokio::join!(load(&all, &free, 300), load(&all, &tight, 300));
    let asked: Vec<&Client> = clients.iter().collect();
    let walk = conserved(&asked, &servers, &free, &in_free).await;
    assert_eq!(walk.books.evictions, 0, "there was no quota");
    let walk = conserved(&asked, &servers, &tight, &in_tight).await;
    assert!(walk.books.evictions > 0, "the entries do not fit: {:?}", walk.books);
    assert!(walk.bytes() <= 1 << 20, "{} bytes in a MiB", walk.bytes());
    for ns in [&free, &tight] {
        clients[1].flush(ns, &[]).await.expect(200);
        let walk = eventually(LATER, async || agreed(&asked, &servers, ns).await).await;
        assert_eq!(walk.names, Vec::<String>::new());
    }
}

#[tokio::test]
async fn no_entry_gets_lost_with_twelve_clients_of_the_embedded_store() {
    let service = Service::start(Store::Embedded.settings());
    let (client, ns) = (service.client(), namespace("load"));
    client.put_policy(&ns, r#"{"max_size_mb":1,"eviction_policy":"LRU"}"#).await.expect(201);
    let tally = load(&[&service], &ns, 400).await;
    let books = eventually(LATER, async || {
        let books = Books::said(&client, &ns).await;
        let accounted = books.keys + books.expirations + books.evictions;
        ensure!(accounted == tally.left(), "{books:?} account for {accounted} of {} entries", tally.left());
        // Entries with a TTL of one or two seconds are gone as well.
        let listed = client.all_keys(&ns).await.len() as u64;
        ensure!(listed == books.keys, "{listed} listed, {books:?}");
        Ok(books)
    })
    .await;
    assert!(books.evictions > 0, "the entries do not fit: {books:?}");
    assert!(books.bytes <= 1 << 20, "{books:?}");
}

#[tokio::test]
async fn an_instance_killed_during_writes_leaves_exact_stats() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let survivor = Service::start(settings.clone());
    let (client, ns) = (survivor.client(), namespace("load"));
    for round in 0..3 {
        let mut victim = Service::start(settings.clone());
        let tally = Arc::new(Tally::default());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (service, instance) =
                    if task % 3 == 0 { (&survivor, Instance::Stays) } else { (&victim, Instance::MayDie) };
                let operations = if instance == Instance::Stays { 200 } else { usize::MAX };
                let seed = round * 100 + task;
                tokio::spawn(random_requests(
                    service.client(),
                    ns.clone(),
                    seed,
                    operations,
                    Arc::clone(&tally),
                    instance,
                ))
            })
            .collect();
        eventually(LATER, async || {
            let created = tally.created.load(Relaxed);
            ensure!(created >= 300, "{created} created");
            Ok(())
        })
        .await;
        victim.kill();
        for task in tasks {
            task.await.expect("a client that fails says why");
        }
        let walk = eventually(LATER, async || agreed(&[&client], &servers, &ns).await).await;
        assert!(!walk.sizes.is_empty());
    }
    client.flush(&ns, &[]).await.expect(200);
    let walk = eventually(LATER, async || agreed(&[&client], &servers, &ns).await).await;
    assert_eq!(walk.names, Vec::<String>::new());
}

#[tokio::test]
async fn entries_that_redis_evicts_count_as_evicted() {
    const KEYS: u64 = 30_000;
    let servers = Redis::three_with(&["--maxmemory", "9mb", "--maxmemory-policy", "volatile-lru"]);
    let service = Service::start(Settings::on(&servers));
    let (client, ns) = (service.client(), namespace("evicted"));
    let value = "x".repeat(998);
    for start in (0..KEYS).step_by(500) {
        let entries: Vec<Value> = (start..start + 500)
            .map(|number| json!({"key": format!("k{number}"), "value": value, "ttl": 10_000, "tags": ["t"]}))
            .collect();
        client.fill(&ns, &json!(entries)).await;
    }
    let gone = || servers.iter().map(|server| server.connect().info("stats", "evicted_keys")).sum::<u64>();
    assert!(gone() > 1_000, "{} keys evicted by Redis", gone());
    // No client reads the evicted keys: the service must find them by itself.
    let walk = eventually(LATER, async || {
        let walk = agreed(&[&client], &servers, &ns).await?;
        let books = walk.books;
        ensure!(books.keys + books.evictions == KEYS, "{books:?} of {KEYS}");
        Ok(walk)
    })
    .await;
    assert_eq!(walk.books.expirations, 0);
    assert_eq!(walk.tags["t"].len() as u64, walk.books.keys);
    assert_eq!(walk.books.evictions, gone(), "Redis evicts values only");

    // A key that Redis evicted can be created again, and counts once.
    let missing = (0..KEYS).map(|number| format!("k{number}")).find(|key| !walk.sizes.contains_key(key));
    let missing = missing.expect("some were evicted");
    client.get(&ns, &missing).await.expect_error(404, "key_not_found");
    client.set_for(&ns, &missing, "1", 10_000).await.expect(201);
    let deleted = client.flush(&ns, &[]).await.expect(200).number("deleted_count");
    let walk = eventually(LATER, async || {
        let walk = agreed(&[&client], &servers, &ns).await?;
        ensure!(walk.books.keys == 0, "{:?}", walk.books);
        Ok(walk)
    })
    .await;
    assert_eq!(deleted + walk.books.evictions, KEYS + 1, "{:?}", walk.books);
    assert_eq!(walk.names, Vec::<String>::new());
}

#[tokio::test]
async fn a_read_that_misses_an_evicted_entry_counts_the_eviction() {
    let servers = Redis::three();
    let service = Service::start(Settings::on(&servers).set("l1_max_mb", 0));
    let (client, ns) = (service.client(), namespace("evicted"));
    client
        .fill(&ns, &json!([{"key": "k", "value": "xx", "ttl": 100, "tags": ["t"]}, {"key": "stays", "value": 1}]))
        .await;
    // For the service, UNLINK looks like an eviction: the value is gone before it expires.
    let dropped: i64 =
        servers.iter().map(|s| s.connect().command(&["UNLINK", &format!("cache:{ns}:k")]).integer()).sum();
    assert_eq!(dropped, 1);
    client.get(&ns, "k").await.expect_error(404, "key_not_found");
    let books = eventually(Duration::from_secs(2), async || Ok(agreed(&[&client], &servers, &ns).await?.books)).await;
    assert_eq!(books, Books { keys: 1, bytes: 1, evictions: 1, expirations: 0 });
}
