//! Servers that change their role or lose their data: replicas, demoted primaries, names that lead to another server,
//! emptied shards. A copy in L1 counts as fresh only while its shard is a primary that has kept its data.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::client::{Client, namespace};
use crate::support::eventually::{INTERVAL, LATER, SOON, eventually};
use crate::support::proxy::{Of, Proxy};
use crate::support::redis::{Connection, Redis};
use crate::support::sentinel::Group;
use crate::support::service::{Service, Settings};
use crate::support::switch::Switch;

/// The default of `max_staleness_ms`.
const MAX_STALENESS: Duration = Duration::from_millis(1_000);

/// How long health may take to report that writes fail.
const HEALTH_LAG: Duration = Duration::from_secs(2);

const KEYS: usize = 20;

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("k{number}")).collect()
}

/// Settings with the default timeouts.
fn on(url: &str) -> Settings {
    Settings::shards()
        .set("redis_shards", format!("a={url}"))
        .set("redis_timeout_ms", 250)
        .set("request_timeout_ms", 5_000)
}

/// Starts a replica of another server and waits until it is in sync.
pub fn replica_of(port: u16) -> Redis {
    let replica = Redis::start_as(&["--repl-diskless-sync-delay", "0"]);
    replicate(&replica, port);
    replica
}

/// Makes a server the replica of the one on this port, and waits until it is in sync.
pub fn replicate(server: &Redis, port: u16) {
    let mut connection = server.connect();
    connection.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
    let deadline = Instant::now() + LATER;
    while !connection.command(&["INFO", "replication"]).text().contains("master_link_status:up") {
        assert!(Instant::now() < deadline, "the replica is not in sync");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn promote(server: &Redis) {
    server.connect().command(&["REPLICAOF", "NO", "ONE"]);
}

async fn fill(cache: &Client, ns: &str, keys: &[String], value: u32) {
    for some in keys.chunks(1_000) {
        cache.fill(ns, &some.iter().map(|key| json!({"key": key, "value": value})).collect()).await;
    }
}

/// Reads all keys until the instance answers each from L1.
async fn in_memory(cache: &Client, ns: &str, keys: &[String]) {
    for key in keys {
        eventually(LATER, async || {
            let answer = cache.get(ns, key).await;
            ensure!(answer.status == 200 && answer.is_l1_hit(), "{} {:?}", answer.status, answer.headers);
            Ok(())
        })
        .await;
    }
}

/// Writes values directly into the shard, so that no invalidation is sent.
fn overwrite(connection: &mut Connection, ns: &str, keys: &[String], value: &str) {
    let names: Vec<String> = keys.iter().map(|key| format!("cache:{ns}:{key}")).collect();
    connection.pipeline(names.iter().map(|name| vec!["SET", name, value, "KEEPTTL"]));
}

/// Reads all keys repeatedly. Fails if a read that started after the bound returns the old value. Every other answer
/// is allowed: a miss, the new value, an error.
async fn never_old(caches: &[&Client], ns: &str, keys: &[String], since: Instant, old: &str) {
    let bound = since + MAX_STALENESS;
    let end = bound + 2 * MAX_STALENESS;
    while Instant::now() < end {
        for (number, cache) in caches.iter().enumerate() {
            for key in keys {
                let started = Instant::now();
                let answer = cache.get(ns, key).await;
                if started > bound && answer.status == 200 {
                    let after = started - since;
                    assert_ne!(answer.value(), old, "{key} by {number} after {after:?}: {:?}", answer.headers);
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn unwell(cache: &Client) {
    eventually(SOON, async || {
        let health = cache.health().await.json();
        ensure!(health["status"] != "healthy", "{health}");
        Ok(())
    })
    .await;
}

/// The bug: a demoted primary still delivers published messages, so every copy counted as fresh and health reported
/// "healthy", for ever.
#[tokio::test]
async fn regression_a_demoted_primary_does_not_keep_copies_fresh() {
    let old = Redis::start();
    let new = replica_of(old.port());
    let settings = on(&old.url());
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns, keys) = (a.client(), b.client(), namespace("role"), keys(KEYS));
    fill(&one, &ns, &keys, 1).await;
    in_memory(&one, &ns, &keys).await;
    in_memory(&other, &ns, &keys).await;
    in_sync(&old, &new).await;

    // The replication link is stalled, so the data on the old primary stays old.
    let link = Proxy::in_front_of(&new);
    link.stall(Of::All);
    promote(&new);
    old.connect().command(&["REPLICAOF", "127.0.0.1", &link.address().port().to_string()]);
    let c = Service::start(on(&new.url()));
    let third = c.client();
    fill(&third, &ns, &keys, 2).await;
    let written = Instant::now();
    let lagging = old.connect().command(&["GET", &format!("cache:{ns}:k0")]).text();
    assert_eq!(lagging, "1", "the old primary has the new value");
    never_old(&[&one, &other], &ns, &keys, written, "1").await;
    one.set(&ns, "k0", "3").await.expect(503);
    unwell(&one).await;
    unwell(&other).await;
}

/// The bug: an instance with the address of a replica used it, cached its data, and reported itself as healthy while
/// the replication link was broken.
#[tokio::test]
async fn regression_a_replica_with_a_broken_link_does_not_keep_copies_fresh() {
    let primary = Redis::start();
    let link = Proxy::in_front_of(&primary);
    let replica = replica_of(link.address().port());
    let a = Service::start(on(&primary.url()));
    let b = Service::launch(on(&replica.url()));
    let (one, other, ns, keys) = (a.client(), b.client(), namespace("role"), keys(KEYS));
    fill(&one, &ns, &keys, 1).await;
    let warm = Instant::now() + MAX_STALENESS;
    while Instant::now() < warm {
        for key in &keys {
            other.get(&ns, key).await;
        }
    }
    link.swallow_all();
    fill(&one, &ns, &keys, 2).await;
    never_old(&[&other], &ns, &keys, Instant::now(), "1").await;
    unwell(&other).await;
}

/// How a shard loses its data, or its record.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Flushall,
    Flushdb,
    Restart,
    Record,
}

/// The bug: L1 still answered with entries that the shard had lost, since no message announced the loss.
async fn copies_are_invalid_after(loss: Loss) {
    let mut server = Redis::start();
    let settings = on(&server.url());
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns, keys) = (a.client(), b.client(), namespace("loss"), keys(KEYS));
    fill(&one, &ns, &keys, 1).await;
    in_memory(&one, &ns, &keys).await;
    in_memory(&other, &ns, &keys).await;
    match loss {
        Loss::Flushall => drop(server.connect().command(&["FLUSHALL"])),
        Loss::Flushdb => drop(server.connect().command(&["FLUSHDB"])),
        Loss::Restart => {
            server.kill();
            server.run();
        }
        Loss::Record => {
            let mut shard = server.connect();
            shard.command(&["DEL", "sidecache:ring"]);
            overwrite(&mut shard, &ns, &keys, "2");
        }
    }
    never_old(&[&one, &other], &ns, &keys, Instant::now(), "1").await;
    // Then it works again: a value written through one instance is read through the other.
    eventually(LATER, async || {
        for key in &keys {
            let stored = one.set(&ns, key, "3").await;
            ensure!([200, 201].contains(&stored.status), "{}", stored.text());
            let read = other.get(&ns, key).await;
            ensure!(read.status == 200 && read.value() == "3", "{}", read.text());
        }
        Ok(())
    })
    .await;
    in_memory(&other, &ns, &keys).await;
}

#[tokio::test]
async fn regression_flushall_invalidates_every_copy_within_the_bound() {
    copies_are_invalid_after(Loss::Flushall).await;
}

#[tokio::test]
async fn regression_flushdb_invalidates_every_copy_within_the_bound() {
    copies_are_invalid_after(Loss::Flushdb).await;
}

#[tokio::test]
async fn a_restart_without_data_invalidates_every_copy_within_the_bound() {
    copies_are_invalid_after(Loss::Restart).await;
}

#[tokio::test]
async fn regression_a_lost_record_invalidates_every_copy_within_the_bound() {
    copies_are_invalid_after(Loss::Record).await;
}

/// The bug: the subscription had moved to the new primary, but a read still used a connection to the old one. The old
/// value it returned was stored in L1 under the new epoch, and nothing invalidated it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_copies_filled_from_the_old_primary_after_a_failover_are_not_served() {
    const MANY: usize = 20_000;
    const READERS: usize = 16;
    let group = Group::start();
    // The old primary considers itself a primary for longer than the test takes.
    group.tell_every(Duration::from_secs(10));
    let service = Service::start(on(&group.url()));
    let (cache, ns, keys) = (service.client(), namespace("sentinel"), keys(MANY));
    fill(&cache, &ns, &keys, 1).await;
    let (old, new) = (group.primary(), 1 - group.primary());
    in_sync(group.node(old), group.node(new)).await;

    group.fail_over();
    let over = AtomicBool::new(false);
    let promoted = async {
        let asked = Instant::now();
        while !group.is_named(new) {
            assert!(asked.elapsed() < LATER, "the Sentinel still names the old primary");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // (1) The subscription and half of the other connections are closed, and reconnect to the new primary. (2) A
        // clock reading is published over one of these connections and arrives through the subscription. (3) A key is
        // read over one of the connections that stay on the old primary until the Sentinels are asked the next time.
        kill_half(&mut group.node(old).connect());
        overwrite(&mut group.node(new).connect(), &ns, &keys, "2");
        let overwritten = Instant::now();
        tokio::time::sleep(MAX_STALENESS).await;
        over.store(true, Ordering::Relaxed);
        overwritten
    };
    // Each key is read for the first time at some moment around the failover.
    let next = AtomicUsize::new(0);
    let reader = async || {
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            cache.get(&ns, &keys[number % MANY]).await;
        }
    };
    let readers = join_all((0..READERS).map(|_| reader()));
    let (overwritten, _) = tokio::join!(promoted, readers);
    println!("{} reads around the failover", next.load(Ordering::Relaxed));
    let role = group.node(old).connect().command(&["ROLE"]).items()[0].text();
    println!("the old primary calls itself {role} after the failover");
    let mut stale = 0;
    for some in keys.chunks(1_000) {
        let names: Vec<&str> = some.iter().map(String::as_str).collect();
        let answer = cache.mget(&ns, &names).await.expect(200).json();
        stale += names.iter().filter(|key| answer["results"][**key]["value"] == 1).count();
    }
    assert_eq!(stale, 0, "of {MANY} keys have the old primary's value {:?} after the write", overwritten.elapsed());
    eventually(LATER, async || {
        let stored = cache.set(&ns, "k0", "3").await;
        ensure!(stored.status == 200, "{}", stored.text());
        Ok(())
    })
    .await;
}

/// Closes the subscriptions of the service and every second of its other connections.
fn kill_half(server: &mut Connection) {
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let list = server.command(&["CLIENT", "LIST", "TYPE", "normal"]).text();
    let ids = list.lines().filter(|line| line.contains("cmd=evalsha"));
    let ids: Vec<&str> = ids.filter_map(|line| line.split(' ').next()?.strip_prefix("id=")).collect();
    assert!(ids.len() > 1, "the service has too few connections: {list}");
    for id in ids.iter().step_by(2) {
        server.command(&["CLIENT", "KILL", "ID", id]);
    }
}

/// Writes until a write is acknowledged. Returns how long that took, and how often health reported "healthy" between
/// two failed writes, after it had had the time to notice.
pub async fn written_again(cache: &Client, ns: &str, limit: Duration) -> (Duration, u32) {
    let (started, mut wrong) = (Instant::now(), 0);
    let mut failed_before = false;
    loop {
        let health = cache.health().await.json();
        let answer = cache.set(ns, "k0", "5").await;
        if [200, 201].contains(&answer.status) {
            return (started.elapsed(), wrong);
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        wrong += u32::from(failed_before && health["status"] == "healthy" && started.elapsed() > HEALTH_LAG);
        failed_before = true;
        assert!(started.elapsed() < limit, "no write for {limit:?}, and health says {health}: {}", answer.text());
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A failover as a managed service does it: the replica becomes the primary, the primary its replica, and the name
/// leads to the new primary. Connections stay open.
fn managed_failover(old: &Redis, new: &Redis, name: &Switch) {
    promote(new);
    old.connect().command(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    name.lead_to(new);
}

/// The bug: the old connections stayed open, and every write on them was answered with READONLY. Writes were a 503
/// for ever, while health reported "healthy".
#[tokio::test]
async fn regression_after_a_managed_failover_writes_recover_and_no_read_is_old() {
    let first = Redis::start();
    let second = replica_of(first.port());
    let name = Switch::to(&first);
    let settings = on(&name.url());
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns, keys) = (a.client(), b.client(), namespace("failover"), keys(KEYS));
    let mut value = 1;
    for (from, to) in [(&first, &second), (&second, &first)] {
        fill(&one, &ns, &keys, value).await;
        in_memory(&one, &ns, &keys).await;
        in_memory(&other, &ns, &keys).await;
        in_sync(from, to).await;
        let before = name.accepted();
        managed_failover(from, to, &name);
        for cache in [&one, &other] {
            let (took, wrong) = written_again(cache, &ns, LATER).await;
            println!("writes work again after {took:?}");
            assert_eq!(wrong, 0, "health reported healthy while writes failed");
        }
        assert!(name.accepted() > before, "no connection was replaced");
        fill(&one, &ns, &keys, value + 1).await;
        never_old(&[&one, &other], &ns, &keys, Instant::now(), &value.to_string()).await;
        for cache in [&one, &other] {
            let answer = cache.get(&ns, "k1").await.expect(200);
            assert_eq!(answer.value(), (value + 1).to_string());
        }
        value += 2;
        replicate(from, to.port());
    }
}

/// The bug: a proxy leads new connections to another server, and keeps the old ones on a server that still considers
/// itself a primary. The instance used the old server for ever.
#[tokio::test]
async fn regression_connections_that_a_proxy_keeps_on_an_old_primary_are_replaced() {
    let [first, second] = [(); 2].map(|()| Redis::start());
    let name = Switch::to(&first);
    let service = Service::start(on(&name.url()));
    let (cache, ns) = (service.client(), namespace("kept"));
    cache.set(&ns, "k", "1").await.expect(201);
    assert_eq!(second.connect().command(&["DBSIZE"]).integer(), 0);
    name.lead_to(&second);
    eventually(LATER, async || {
        let status = cache.set(&ns, "k", "2").await.status;
        ensure!(status == 201 || status == 200, "{status}");
        let there = second.connect().command(&["EXISTS", &format!("cache:{ns}:k")]).integer();
        ensure!(there == 1, "the write went to the old server");
        Ok(())
    })
    .await;
    assert!(service.log().contains("the connections of the shard lead to different servers"), "{}", service.log());
}

/// Waits until a replica has received everything from its primary.
pub async fn in_sync(primary: &Redis, replica: &Redis) {
    let offset = |server: &Redis, field: &str| server.connect().info("replication", field);
    eventually(LATER, async || {
        let (from, to) = (offset(primary, "master_repl_offset"), offset(replica, "slave_repl_offset"));
        ensure!(from == to, "the primary is at {from}, the replica at {to}");
        Ok(())
    })
    .await;
}

/// The bug: a replica without its primary answers MASTERDOWN if `replica-serve-stale-data` is off. Such a connection
/// was kept.
#[tokio::test]
async fn regression_a_connection_that_says_masterdown_is_replaced() {
    let first = Redis::start();
    let second = replica_of(first.port());
    let name = Switch::to(&first);
    let service = Service::start(on(&name.url()));
    let (cache, ns, keys) = (service.client(), namespace("masterdown"), keys(KEYS));
    fill(&cache, &ns, &keys, 1).await;
    in_memory(&cache, &ns, &keys).await;
    promote(&second);
    let mut demoted = first.connect();
    demoted.configure("replica-serve-stale-data", "no");
    // No server listens there.
    let nowhere = Redis::reserved();
    demoted.command(&["REPLICAOF", "127.0.0.1", &nowhere.port().to_string()]);
    name.lead_to(&second);
    let (took, wrong) = written_again(&cache, &ns, LATER).await;
    println!("writes work again after {took:?}");
    assert_eq!(wrong, 0, "health reported healthy while writes failed");
    fill(&cache, &ns, &keys, 2).await;
    never_old(&[&cache], &ns, &keys, Instant::now(), "1").await;
}
