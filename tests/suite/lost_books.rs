//! Lost bookkeeping: somebody deleted the Redis keys of totals, index or tags, or Redis evicted them. A flush still
//! deletes every entry that it should, and the totals are right again after a while and never negative.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::redis::{Connection, Redis, Reply};
use crate::support::service::{Service, Settings};
use crate::support::walk::agreed;

/// `max_staleness_ms` at its default.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

const KEYS: usize = 1_000;

/// The bookkeeping of a namespace that is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Totals,
    OneBucket,
    EveryBucket,
    Due,
    Tag,
    /// The metadata of every tenth key.
    Metadata,
    Everything,
}

const LOSSES: [Loss; 7] =
    [Loss::Totals, Loss::OneBucket, Loss::EveryBucket, Loss::Due, Loss::Tag, Loss::Metadata, Loss::Everything];

impl Loss {
    /// Deletes the Redis keys of this bookkeeping.
    fn happen(self, shard: &mut Connection, ns: &str) {
        let index = || format!("cache_index:{ns}:*");
        let mut names = match self {
            Loss::Totals => vec![format!("cache_stats:{ns}")],
            Loss::OneBucket => shard.scan(&index()).into_iter().take(1).collect(),
            Loss::EveryBucket => shard.scan(&index()),
            Loss::Due => vec![format!("cache_due:{ns}")],
            Loss::Tag => vec![format!("cache_tag:{ns}:red")],
            Loss::Metadata => shard.scan(&format!("cache_meta:{ns}:*0")),
            Loss::Everything => Vec::new(),
        };
        if matches!(self, Loss::Everything) {
            for kind in ["cache_stats", "cache_index", "cache_due", "cache_tag", "cache_meta"] {
                names.extend(shard.scan(&format!("{kind}:{ns}*")));
            }
        }
        let deleted: i64 =
            shard.pipeline(names.iter().map(|name| vec!["DEL", name])).iter().map(Reply::integer).sum();
        assert!(deleted > 0, "{self:?}: there were no keys to delete");
    }
}

/// The selection of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    All,
    Pattern,
    Tag,
}

impl Flush {
    fn query(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Flush::All => &[],
            Flush::Pattern => &[("pattern", "user_*")],
            Flush::Tag => &[("tag", "red")],
        }
    }

    fn selects(self, number: usize) -> bool {
        match self {
            Flush::All => true,
            Flush::Pattern => is_user(number),
            Flush::Tag => is_red(number),
        }
    }
}

fn is_user(number: usize) -> bool {
    number % 4 == 1
}

fn is_red(number: usize) -> bool {
    number.is_multiple_of(3)
}

fn key(number: usize) -> String {
    if is_user(number) { format!("user_{number}") } else { format!("k{number}") }
}

fn entry(number: usize) -> Value {
    let tags: &[&str] = if is_red(number) { &["red", "all"] } else { &["all"] };
    let mut entry = json!({"key": key(number), "value": number, "tags": tags});
    if number.is_multiple_of(2) {
        entry["ttl"] = json!(600);
    }
    entry
}

async fn fill(cache: &Client, ns: &str) {
    cache.fill(ns, &(0..KEYS).map(entry).collect()).await;
}

/// The numbers of the readable entries.
async fn readable(cache: &Client, ns: &str) -> Vec<usize> {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let answer = cache.mget(ns, &names).await.expect(200).json();
    assert!(answer["errors"].is_null(), "{}", answer["errors"]);
    (0..KEYS).filter(|number| answer["results"][&keys[*number]]["found"] == true).collect()
}

/// Checks that the stored totals of keys and bytes are not negative.
fn expect_not_negative(shard: &mut Connection, ns: &str, when: &str) {
    let reply = shard.command(&["HMGET", &format!("cache_stats:{ns}"), "total_keys", "total_bytes"]);
    for (field, name) in reply.items().iter().zip(["total_keys", "total_bytes"]) {
        let number = if *field == Reply::Bulk(None) { 0 } else { field.integer() };
        assert!(number >= 0, "{when}: {name} is {number}");
    }
}

/// Two instances on one shard.
struct World {
    server: Redis,
    _services: [Service; 2],
    one: Client,
    other: Client,
}

impl World {
    fn start() -> World {
        let server = Redis::start();
        let settings = Settings::on(std::slice::from_ref(&server)).set("namespace_refresh_ms", 200);
        let services = [Service::start(settings.clone()), Service::start(settings)];
        let (one, other) = (services[0].client(), services[1].client());
        World { server, _services: services, one, other }
    }

    async fn agree(&self, ns: &str) {
        eventually(LATER, async || {
            agreed(&[&self.one, &self.other], std::slice::from_ref(&self.server), ns).await.map(drop)
        })
        .await;
    }
}

/// The bug: without the totals, a flush looked into only one bucket of the index. It deleted 31 of 1,000 entries; the
/// other 969 were readable, but in no listing. Without a bucket or a tag, a flush missed the entries of that bucket
/// or tag.
async fn check_flush_after_losses(flush: Flush) {
    let world = World::start();
    for loss in LOSSES {
        let ns = namespace(&format!("lost-{flush:?}-{loss:?}").to_lowercase());
        let what = format!("{flush:?} after the loss of {loss:?}");
        fill(&world.one, &ns).await;
        // Brings copies into the L1 of both instances.
        assert_eq!(readable(&world.one, &ns).await.len(), KEYS);
        assert_eq!(readable(&world.other, &ns).await.len(), KEYS);
        let mut shard = world.server.connect();
        loss.happen(&mut shard, &ns);
        let deleted = world.one.flush(&ns, flush.query()).await.expect(200).number("deleted_count");
        expect_not_negative(&mut shard, &ns, &what);
        let left = readable(&world.one, &ns).await;
        let taken = (0..KEYS).filter(|number| flush.selects(*number)).count();
        eprintln!("{what}: {deleted} of {taken} counted as deleted, {} of {} kept", left.len(), KEYS - taken);
        let missed: Vec<&usize> = left.iter().filter(|number| flush.selects(**number)).collect();
        assert!(
            missed.is_empty(),
            "{what}: {} are still readable: {:?}",
            missed.len(),
            &missed[..missed.len().min(5)]
        );
        eventually(MAX_STALENESS, async || {
            let left = readable(&world.other, &ns).await;
            let missed = left.iter().filter(|number| flush.selects(**number)).count();
            ensure!(missed == 0, "{what}: {missed} are still readable through the other instance");
            Ok(())
        })
        .await;

        // Everything works again, and the totals are right.
        fill(&world.one, &ns).await;
        assert_eq!(readable(&world.one, &ns).await.len(), KEYS, "{what}");
        world.agree(&ns).await;
        expect_not_negative(&mut shard, &ns, &what);
        world.one.flush(&ns, &[]).await.expect(200);
        world.agree(&ns).await;
    }
}

#[tokio::test]
async fn regression_a_flush_of_all_deletes_entries_with_lost_bookkeeping() {
    check_flush_after_losses(Flush::All).await;
}

#[tokio::test]
async fn regression_a_flush_by_pattern_deletes_entries_with_lost_bookkeeping() {
    check_flush_after_losses(Flush::Pattern).await;
}

#[tokio::test]
async fn regression_a_flush_by_tag_deletes_entries_with_lost_bookkeeping() {
    check_flush_after_losses(Flush::Tag).await;
}

/// The bug: totals and listings stayed wrong for ever, and further deletes drove the totals below zero.
#[tokio::test]
async fn regression_totals_and_listings_are_right_again_after_a_loss() {
    let world = World::start();
    for loss in LOSSES {
        let ns = namespace(&format!("repaired-{loss:?}").to_lowercase());
        fill(&world.one, &ns).await;
        let mut shard = world.server.connect();
        loss.happen(&mut shard, &ns);
        // Requests continue, and notice the loss.
        let mut gone = 0;
        for number in (0..KEYS).step_by(20) {
            let answer = world.one.delete(&ns, &key(number)).await;
            assert!([200, 404].contains(&answer.status), "{loss:?}: {}", answer.text());
            gone += 1;
            expect_not_negative(&mut shard, &ns, &format!("{loss:?}"));
        }
        for number in (7..KEYS).step_by(100) {
            let answer = world.one.set(&ns, &key(number), "0").await;
            assert!([200, 201].contains(&answer.status), "{loss:?}: {}", answer.text());
        }
        readable(&world.one, &ns).await;
        // If no write needed the lost bucket, a listing notices the loss.
        world.one.all_keys(&ns).await;
        world.agree(&ns).await;
        expect_not_negative(&mut shard, &ns, &format!("{loss:?}"));
        let left = readable(&world.one, &ns).await;
        assert!(left.iter().all(|number| number % 20 != 0), "{loss:?}: a deleted entry is back");
        let mut names: Vec<String> = left.iter().map(|number| key(*number)).collect();
        names.sort();
        assert_eq!(world.one.all_keys(&ns).await, names, "{loss:?}: exactly the readable entries are listed");
        println!("{loss:?}: {} of {} are left", left.len(), KEYS - gone);
    }
}

/// The bug: a Redis that may evict any key also evicts the bookkeeping, and a flush then left entries readable.
#[tokio::test]
async fn regression_a_flush_leaves_nothing_on_a_redis_that_evicts_any_key() {
    const MANY: usize = 20_000;
    for policy in ["allkeys-lru", "allkeys-random"] {
        let server = Redis::start_as(&["--maxmemory", "8mb", "--maxmemory-policy", policy]);
        let service = Service::launch(Settings::on(std::slice::from_ref(&server)).set("namespace_refresh_ms", 200));
        let (cache, ns) = (service.client(), namespace("evicting"));
        let value = "x".repeat(500);
        let keys: Vec<String> = (0..MANY).map(|number| format!("k{number}")).collect();
        // The record of the shard may be evicted as well; then writes are refused for a moment.
        let mut stored = 0;
        for some in keys.chunks(500) {
            let entries: Value = some.iter().map(|key| json!({"key": key, "value": value, "tags": ["t"]})).collect();
            stored += eventually(LATER, async || {
                let answer = cache.mset(&ns, &entries).await;
                ensure!(answer.status == 200, "{policy}: {}", answer.text());
                Ok(answer.number("stored"))
            })
            .await;
        }
        let mut shard = server.connect();
        let evicted = shard.info("stats", "evicted_keys");
        assert!(evicted > 0, "{policy}: nothing was evicted of {stored}");
        let mut deleted = 0;
        eventually(LATER, async || {
            let answer = cache.flush(&ns, &[("tag", "t")]).await;
            ensure!(answer.status == 200, "{policy}: {}", answer.text());
            deleted = answer.number("deleted_count");
            Ok(())
        })
        .await;
        let mut left = Vec::new();
        for some in keys.chunks(1_000) {
            let names: Vec<&str> = some.iter().map(String::as_str).collect();
            let answer = cache.mget(&ns, &names).await.expect(200).json();
            left.extend(some.iter().filter(|key| answer["results"][key.as_str()]["found"] == true));
        }
        println!(
            "{policy}: {stored} stored, {evicted} of Redis' keys evicted, {deleted} deleted, {} left",
            left.len()
        );
        assert!(left.is_empty(), "{policy}: {} of {stored} are still readable", left.len());

        shard.configure("maxmemory-policy", "noeviction");
        shard.configure("maxmemory", "0");
        eventually(LATER, async || {
            let answer = cache.flush(&ns, &[]).await;
            ensure!(answer.status == 200, "{policy}: {}", answer.text());
            agreed(&[&cache], std::slice::from_ref(&server), &ns).await.map(drop)
        })
        .await;
        cache.fill(&ns, &keys[..500].iter().map(|key| json!({"key": key, "value": 1})).collect()).await;
        eventually(LATER, async || agreed(&[&cache], std::slice::from_ref(&server), &ns).await.map(drop)).await;
    }
}
