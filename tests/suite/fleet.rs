//! Instances that know each other: which instances are alive, with which ring, and the state of the shards. Every
//! test has its own servers, because other tests start instances on the shared ones.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually::{INTERVAL, LATER, SOON, eventually};
use crate::support::process::Signal;
use crate::support::redis::{Connection, Redis};
use crate::support::service::{Service, Settings};

/// How soon a dead instance disappears, and the extra time for a loaded machine.
const DISAPPEARS: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_secs(3);

/// Longer than a heartbeat counts: an instance that is listed for so long has sent another heartbeat.
const LONGER_THAN_A_HEARTBEAT: Duration = Duration::from_secs(4);

const PATH: &str = "/api/v1/cluster";

async fn cluster(cache: &Client) -> Value {
    cache.fetch(PATH).await.expect(200).json()
}

/// The addresses of the instances, in the order of the answer.
fn addresses(cluster: &Value) -> Vec<&str> {
    let instances = cluster["instances"].as_array().expect("a list of instances");
    instances.iter().map(|instance| instance["address"].as_str().expect("an address")).collect()
}

/// Waits until an instance knows exactly these instances, including itself.
async fn sees(cache: &Client, limit: Duration, services: &[&Service]) {
    let mut expected: Vec<String> = services.iter().map(|service| service.address().to_string()).collect();
    expected.sort();
    eventually(limit, async || {
        let cluster = cluster(cache).await;
        ensure!(addresses(&cluster) == expected, "{expected:?} expected: {cluster}");
        let counted = cache.metrics().await.total("sidecache_fleet_instances");
        ensure!((counted - expected.len() as f64).abs() < 0.1, "{counted} counted of {expected:?}");
        Ok(())
    })
    .await;
}

/// Waits until each of these shards knows `instances` instances.
async fn known_on(servers: &[Redis], instances: i64) {
    eventually(SOON, async || {
        for server in servers {
            let known = server.connect().command(&["HLEN", "sidecache:instances"]).integer();
            ensure!(known == instances, "{known} of {instances} are known");
        }
        Ok(())
    })
    .await;
}

/// The shard of this name.
fn shard<'c>(cluster: &'c Value, name: &str) -> &'c Value {
    let shards = cluster["shards"].as_array().expect("a list of shards");
    shards.iter().find(|shard| shard["name"] == name).unwrap_or_else(|| panic!("no shard {name}: {cluster}"))
}

/// The number of records about instances on a shard, by the name of the Redis key.
fn records(connection: &mut Connection) -> BTreeMap<String, i64> {
    let mut records = BTreeMap::new();
    for key in connection.scan("sidecache:*") {
        let count = if key == "sidecache:instances" { "HLEN" } else { "ZCARD" };
        if key == "sidecache:instances" || key.starts_with("sidecache:heartbeats") {
            records.insert(key.clone(), connection.command(&[count, &key]).integer());
        }
    }
    records
}

#[tokio::test]
async fn two_instances_know_each_other() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other) = (a.client(), b.client());
    for cache in [&one, &other] {
        sees(cache, SOON, &[&a, &b]).await;
    }
    one.set("fleet", "k", "\"0123456789\"").await.expect(201);
    eventually(LATER, async || {
        let hit = one.get("fleet", "k").await.expect(200).is_l1_hit();
        ensure!(hit, "not from L1");
        Ok(())
    })
    .await;
    // The second instance reports the first one's L1 after the next heartbeat.
    eventually(SOON, async || {
        let cluster = cluster(&other).await;
        let instances = cluster["instances"].as_array().expect("a list of instances");
        let first = instances.iter().find(|instance| instance["address"] == a.address().to_string());
        let l1 = &first.expect("the first instance is listed")["l1"];
        ensure!(l1["entries"] == 1 && l1["hits"].as_u64() >= Some(1), "{l1}");
        ensure!(l1["bytes"].as_u64() > Some(10) && l1["max_bytes"] == 64 << 20, "{l1}");
        Ok(())
    })
    .await;

    let (seen, seen_by_other) = (cluster(&one).await, cluster(&other).await);
    for (cluster, service) in [(&seen, &a), (&seen_by_other, &b)] {
        assert_eq!(cluster["ring"]["agreed"], true, "{cluster}");
        assert_eq!(cluster["warnings"], json!([]));
        for instance in cluster["instances"].as_array().expect("a list of instances") {
            let is_here = instance["address"] == service.address().to_string();
            assert_eq!(instance["self"], is_here, "{cluster}");
            assert_eq!(instance["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(instance["ring_version"], cluster["ring"]["version"]);
            assert!(instance["last_seen_ms"].as_u64().is_some_and(|age| age <= 3_000), "{cluster}");
            let started = instance["started_at"].as_str().expect("a date");
            let started = humantime::parse_rfc3339(started).expect("a date as in RFC 3339");
            assert!(started.elapsed().is_ok_and(|age| age < Duration::from_secs(300)), "{cluster}");
        }
    }
    let facts = |cluster: &Value| -> Vec<Value> {
        let instances = cluster["instances"].as_array().expect("a list of instances").iter();
        instances.map(|one| json!([one["id"], one["address"], one["started_at"], one["ring_version"]])).collect()
    };
    assert_eq!(facts(&seen), facts(&seen_by_other), "both answers have the same instances in the same order");
    assert_ne!(seen["instances"][0]["id"], seen["instances"][1]["id"]);
}

#[tokio::test]
async fn a_killed_instance_disappears_within_5_seconds() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let (a, mut b) = (Service::start(settings.clone()), Service::start(settings));
    let one = a.client();
    sees(&one, SOON, &[&a, &b]).await;
    b.kill();
    let killed = Instant::now();
    assert_eq!(addresses(&cluster(&one).await).len(), 2, "the heartbeat still counts");
    eventually(DISAPPEARS + MARGIN, async || {
        let cluster = cluster(&one).await;
        ensure!(addresses(&cluster) == [a.address().to_string()], "{cluster}");
        Ok(())
    })
    .await;
    let listed = killed.elapsed();
    sees(&one, (DISAPPEARS + MARGIN).saturating_sub(listed), &[&a]).await;
    println!("a killed instance was listed for {listed:?} and counted for {:?}", killed.elapsed());
    // The shards have no records of it any more.
    eventually(SOON, async || {
        for server in &servers {
            let records = records(&mut server.connect());
            ensure!(records.values().all(|count| *count == 1) && records.len() == 3, "{records:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_stops_removes_its_records() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let one = a.client();
    sees(&one, SOON, &[&a, &b]).await;
    assert!(b.stop().success());
    let cluster = cluster(&one).await;
    assert_eq!(addresses(&cluster), [a.address().to_string()], "{cluster}");
    assert!(a.stop().success());
    for server in &servers {
        assert_eq!(records(&mut server.connect()), BTreeMap::new(), "the last one leaves nothing behind");
    }
}

#[tokio::test]
async fn a_paused_instance_disappears_and_comes_back() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let one = a.client();
    sees(&one, SOON, &[&a, &b]).await;
    b.signal(Signal::Stop);
    sees(&one, DISAPPEARS + MARGIN, &[&a]).await;
    b.signal(Signal::Cont);
    sees(&one, SOON, &[&a, &b]).await;
    sees(&b.client(), SOON, &[&a, &b]).await;
}

#[tokio::test]
async fn the_figures_of_the_shards_match_redis() {
    const LIMIT: u64 = 100 << 20;
    let servers = Redis::three_with(&["--maxmemory", &LIMIT.to_string()]);
    let service = Service::start(Settings::on(&servers));
    let cache = service.client();
    for (ns, count) in [("fleet-a", 700), ("fleet-b", 400), ("fleet-c", 1)] {
        let entries: Vec<Value> = (0..count).map(|n| json!({"key": format!("k{n}"), "value": n})).collect();
        cache.fill(ns, &json!(entries)).await;
    }
    cache.delete("fleet-c", "k0").await.expect(200);
    let seen = eventually(SOON, async || {
        let cluster = cluster(&cache).await;
        let is_fresh = |shard: &Value| shard["watermark_age_ms"].as_u64().is_some_and(|age| age <= 1_000);
        ensure!(cluster["shards"].as_array().is_some_and(|shards| shards.iter().all(is_fresh)), "{cluster}");
        Ok(cluster)
    })
    .await;
    let (mut keys, mut shares) = (0, 0.0);
    for (name, server) in ["a", "b", "c"].iter().zip(&servers) {
        let (shard, mut connection) = (shard(&seen, name), server.connect());
        assert_eq!((&shard["state"], &shard["role"]), (&json!("connected"), &json!("primary")), "{seen}");
        assert_eq!(shard["limit_bytes"], LIMIT);
        let used = connection.info("memory", "used_memory") as f64;
        let told = shard["used_bytes"].as_f64().expect("a number");
        assert!((0.5..2.0).contains(&(told / used)), "{told} told, {used} used");
        let here = connection.scan("cache:*").len() as u64;
        assert_eq!(shard["keys"], here, "{seen}");
        let share = shard["ring_share"].as_f64().expect("a number");
        assert!((share - 1.0 / 3.0).abs() < 0.04 && (share - here as f64 / 1_100.0).abs() < 0.1, "{seen}");
        keys += here;
        shares += share;
    }
    assert_eq!(keys, 1_100);
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    let names: Vec<&Value> = seen["shards"].as_array().expect("a list").iter().map(|shard| &shard["name"]).collect();
    assert_eq!(names, ["a", "b", "c"]);

    // A shard that somebody turned into a replica is reported.
    let primary = Redis::start();
    let (_, port) =
        primary.url().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).expect("a port");
    servers[1].connect().command(&["REPLICAOF", "127.0.0.1", &port]);
    eventually(SOON, async || {
        let cluster = cluster(&cache).await;
        ensure!(shard(&cluster, "b")["role"] == "replica", "{cluster}");
        ensure!(
            cluster["warnings"][0].as_str().is_some_and(|text| text.contains("shard b is a replica")),
            "{cluster}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_dead_shard_hides_no_instance() {
    let mut servers = Redis::three();
    let settings = Settings::on(&servers);
    let (a, mut b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other) = (a.client(), b.client());
    sees(&one, SOON, &[&a, &b]).await;
    known_on(&servers, 2).await;
    servers[1].kill();
    let killed = Instant::now();
    while killed.elapsed() < LONGER_THAN_A_HEARTBEAT {
        for cache in [&one, &other] {
            let cluster = cluster(cache).await;
            assert_eq!(addresses(&cluster).len(), 2, "{:?}: {cluster}", killed.elapsed());
        }
        tokio::time::sleep(INTERVAL * 10).await;
    }
    let seen = cluster(&one).await;
    let dead = json!({
        "name": "b", "address": format!("redis://127.0.0.1:{}", servers[1].port()), "state": "disconnected", "role": null, "used_bytes": null, "limit_bytes": null, "keys": null,
        "ring_share": shard(&seen, "b")["ring_share"], "watermark_age_ms": shard(&seen, "b")["watermark_age_ms"],
        "findings": shard(&seen, "b")["findings"],
    });
    assert_eq!(shard(&seen, "b"), &dead);
    assert!(shard(&seen, "b")["watermark_age_ms"].as_u64() > Some(1_000), "{seen}");
    assert_eq!(seen["warnings"], json!(["shard b cannot be reached: Connection refused"]));
    assert_eq!(shard(&seen, "a")["state"], "connected");
    b.kill();
    sees(&one, DISAPPEARS + MARGIN, &[&a]).await;
}

#[tokio::test]
async fn a_silent_shard_costs_one_timeout_and_hides_no_instance() {
    let servers = Redis::three();
    let settings = Settings::on(&servers).set("redis_timeout_ms", 300);
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let one = a.client();
    sees(&one, SOON, &[&a, &b]).await;
    known_on(&servers, 2).await;
    servers[2].signal(Signal::Stop);
    let stopped = Instant::now();
    let mut longest = Duration::ZERO;
    while stopped.elapsed() < LONGER_THAN_A_HEARTBEAT {
        let asked = Instant::now();
        let cluster = cluster(&one).await;
        longest = longest.max(asked.elapsed());
        assert_eq!(addresses(&cluster).len(), 2, "{:?}: {cluster}", stopped.elapsed());
        // The answer may use a result that is half a second old.
        if asked.duration_since(stopped) > Duration::from_millis(600) {
            assert_eq!(shard(&cluster, "c")["state"], "disconnected");
        }
        tokio::time::sleep(INTERVAL * 10).await;
    }
    println!("with a silent shard an answer took {longest:?} at most");
    // The timeout of the shard, plus time for a loaded machine. Without that timeout the answer would take as long as
    // the request's deadline, 20 s.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    servers[2].signal(Signal::Cont);
    sees(&one, SOON, &[&a, &b]).await;
}

#[tokio::test]
async fn different_rings_are_reported_until_one_instance_is_gone() {
    let servers = Redis::three();
    let [first, second, third] = servers.each_ref().map(Redis::url);
    let settings = Settings::on(&servers);
    let a = Service::start(settings.clone().set("redis_shards", format!("a={first},b={second}")));
    let one = a.client();
    assert_eq!(one.health().await.expect(200).json()["ring"]["agreed"], true);
    // Each names two of the three servers. They have one server in common, under the same name.
    let settings = settings.set("accept_ring_change", true);
    let mut b = Service::launch(settings.set("redis_shards", format!("b={second},c={third}")));
    let other = b.client();
    let mut versions = Vec::new();
    for cache in [&one, &other] {
        let health = eventually(SOON, async || {
            let health = cache.health().await.expect(200).json();
            ensure!(health["status"] == "degraded" && health["redis"] == "connected", "{health}");
            let metrics = cache.metrics().await;
            let told = ["sidecache_ring_disagreements", "sidecache_fleet_instances"].map(|name| metrics.total(name));
            ensure!((told[0] - 1.0).abs() < 0.1 && (told[1] - 2.0).abs() < 0.1, "{told:?}");
            Ok(health)
        })
        .await;
        assert_eq!(health["ring"]["agreed"], false, "{health}");
        versions.push(health["ring"]["version"].as_str().expect("a version").to_owned());
        let warning = health["warnings"][0].as_str().expect("a warning").to_owned();
        assert!(warning.contains("disagree about the ring"), "{warning}");
        let cluster = cluster(cache).await;
        assert_eq!(addresses(&cluster).len(), 2, "{cluster}");
        assert_eq!(cluster["ring"]["agreed"], false, "{cluster}");
        assert_eq!(cluster["warnings"], json!([warning]));
        // The service is degraded, not down: it still takes requests.
        cache.fetch("/readyz").await.expect(200);
    }
    let seen = cluster(&one).await;
    let of = |service: &Service| {
        let instances = seen["instances"].as_array().expect("a list of instances").iter();
        let mut found = instances.filter(|instance| instance["address"] == service.address().to_string());
        found.next().expect("the instance is listed")["ring_version"].clone()
    };
    assert_eq!([of(&a), of(&b)], [json!(versions[0]), json!(versions[1])]);
    assert_ne!(versions[0], versions[1]);
    assert!(one.health().await.text().contains(&versions[1]), "the other ring is named");

    b.kill();
    eventually(DISAPPEARS + MARGIN, async || {
        let health = one.health().await.expect(200).json();
        ensure!(health["status"] == "healthy" && health["ring"]["agreed"] == true, "{health}");
        ensure!(health["warnings"] == json!([]), "{health}");
        let metrics = one.metrics().await;
        ensure!(metrics.total("sidecache_ring_disagreements") < 0.1, "{metrics:?}");
        let cluster = cluster(&one).await;
        ensure!(cluster["ring"]["agreed"] == true && cluster["warnings"] == json!([]), "{cluster}");
        Ok(())
    })
    .await;
    // The log has one line for the beginning and one for the end, not one every second.
    eventually(SOON, async || {
        let log = a.log();
        let told = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        let told = [told("instances disagree about the ring"), told("instances agree about the ring again")];
        ensure!(told == [1, 1], "{told:?} in\n{log}");
        Ok(())
    })
    .await;
    // The records of the other ring are removed as well.
    eventually(SOON, async || {
        let records = records(&mut servers[1].connect());
        ensure!(records.len() == 3 && records.values().all(|count| *count == 1), "{records:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn all_instances_are_listed_although_redis_has_no_memory() {
    let servers = Redis::three();
    let settings = Settings::on(&servers);
    let (a, mut b) = (Service::start(settings.clone()), Service::start(settings.clone()));
    let one = a.client();
    sees(&one, SOON, &[&a, &b]).await;
    for policy in ["noeviction", "volatile-lru"] {
        for server in &servers {
            let mut connection = server.connect();
            connection.configure("maxmemory-policy", policy);
            connection.configure("maxmemory", "1");
        }
        one.set("fleet", "k", "1").await.expect_error(507, "storage_full");
        let newcomer = Service::start(settings.clone());
        sees(&one, SOON, &[&a, &b, &newcomer]).await;
        assert!(newcomer.stop().success());
        sees(&one, SOON, &[&a, &b]).await;
        // Redis never evicts the service's own keys.
        let evicted: u64 = servers.iter().map(|server| server.connect().info("stats", "evicted_keys")).sum();
        assert_eq!(evicted, 0);
    }
    b.kill();
    sees(&one, DISAPPEARS + MARGIN, &[&a]).await;
}

#[tokio::test]
async fn leftover_records_in_the_shards_are_removed_and_do_no_harm() {
    const LEFT: usize = 1_200;
    let servers = Redis::three();
    let service = Service::start(Settings::on(&servers[..1]));
    let cache = service.client();
    let ring = cluster(&cache).await["ring"]["version"].as_str().expect("a version").to_owned();
    let mut connection = servers[0].connect();
    let time = connection.command(&["TIME"]);
    let now_ms: i64 = time.items()[0].integer() * 1_000;
    let ids: Vec<String> = (0..LEFT).map(|number| format!("left-{number}")).collect();
    let own = format!("sidecache:heartbeats:{ring}");
    // Three kinds of leftovers: long dead with this ring; long dead with another ring; and with a heartbeat in the
    // future, because the shard's clock was set back since.
    let moments =
        [(own.as_str(), now_ms - 60_000), ("sidecache:heartbeats:old", 1), (own.as_str(), now_ms + 3_600_000)];
    let texts = moments.map(|(key, moment)| (key, moment.to_string()));
    let mut commands = vec![vec!["ZADD", "sidecache:heartbeats", "1", "old"]];
    for (number, id) in ids.iter().enumerate() {
        let (key, moment) = &texts[number % texts.len()];
        commands.push(vec!["ZADD", key, moment, id]);
        commands.push(vec!["HSET", "sidecache:instances", id, "{}"]);
    }
    connection.pipeline(commands);
    assert_eq!(addresses(&cluster(&cache).await).len(), 1, "the leftovers are not listed as alive");
    eventually(LATER, async || {
        let records = records(&mut connection);
        ensure!(records.len() == 3 && records.values().all(|count| *count == 1), "{records:?}");
        Ok(())
    })
    .await;

    // Now as many with a current heartbeat: all are counted, but only as many are listed as fit into a listing. One
    // of the records is invalid.
    let now = connection.command(&["TIME"]).items()[0].integer() * 1_000 + 1_500;
    let now = now.to_string();
    let mut commands = Vec::new();
    for id in &ids {
        commands.push(vec!["ZADD", &own, &now, id]);
        commands.push(vec!["HSET", "sidecache:instances", id, "{}"]);
    }
    commands.push(vec!["HSET", "sidecache:instances", &ids[0], "\u{1}"]);
    connection.pipeline(commands);
    eventually(SOON, async || {
        let counted = cache.metrics().await.total("sidecache_fleet_instances");
        ensure!(counted > LEFT as f64, "{counted} counted");
        Ok(())
    })
    .await;
    let listed = addresses(&cluster(&cache).await).len();
    assert!((1..=1_001).contains(&listed), "{listed} listed");
    sees(&cache, LATER, &[&service]).await;
    connection.command(&["FLUSHALL"]);
    sees(&cache, SOON, &[&service]).await;
    eventually(SOON, async || {
        let records = records(&mut connection);
        ensure!(records.len() == 3, "{records:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_embedded_store_is_a_fleet_of_one() {
    let service = Service::start(Settings::embedded().set("advertise", "cache-1.example:80"));
    let cache = service.client();
    cache.set("fleet", "k", "1").await.expect(201);
    let seen = cluster(&cache).await;
    let instance = &seen["instances"][0];
    assert_eq!(addresses(&seen), ["cache-1.example:80"]);
    assert_eq!((&instance["self"], &instance["last_seen_ms"]), (&json!(true), &json!(0)));
    assert_eq!(instance["l1"], json!({"entries": 0, "bytes": 0, "max_bytes": 0, "hits": 0}));
    assert_eq!(seen["ring"]["agreed"], true);
    let shards = json!([{
        "name": "embedded", "address": null, "state": "connected", "role": "primary", "used_bytes": seen["shards"][0]["used_bytes"],
        "limit_bytes": 256 << 20, "keys": 1, "ring_share": 1.0, "watermark_age_ms": null,
        "findings": [],
    }]);
    assert_eq!(seen["shards"], shards);
    assert_eq!(seen["warnings"], json!([]));
    let health = cache.health().await.expect(200).json();
    assert_eq!((&health["ring"], &health["warnings"]), (&seen["ring"], &json!([])));
    assert!((cache.metrics().await.total("sidecache_fleet_instances") - 1.0).abs() < 0.1);
    let detail = cache.fetch(&format!("{PATH}?verbose=1")).await.expect_error(400, "invalid_query");
    assert!(detail.contains("verbose"), "{detail}");
    assert_eq!(cache.send(Method::HEAD, PATH, &[], None).await.expect(200).body.len(), 0);
}

#[tokio::test]
async fn an_instance_that_listens_on_all_addresses_is_listed_by_host_name() {
    let service = Service::start(Settings::embedded().set("listen", "0.0.0.0:0"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("the machine has a name");
    let expected = format!("{}:{}", host.trim(), service.address().port());
    assert_eq!(addresses(&cluster(&service.client()).await), [expected]);
}
