//! Positions: a read that carries the position of a change gets nothing older, on every instance, or is refused because
//! the change is lost. And the numbers behind them: a message that is lost on an unbroken connection is noticed.

mod checker;

use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use crate::roles::{promote, replica_of};
use crate::support::answer::Answer;
use crate::support::both_stores::on_every_server;
use crate::support::client::{Client, cache_path, key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::gate::Gate;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::switch::Switch;

on_every_server! {
    every_change_answers_with_its_position,
    what_changes_nothing_has_no_position,
    a_read_with_positions_is_answered,
    a_malformed_position_is_refused,
    a_position_that_the_shard_does_not_have_is_lost,
}

const HEADER: &str = "cache-position";

/// The only position in an answer: the shard's name, what comes before the number, and the number.
#[track_caller]
fn position(answer: &Answer) -> (String, String, u64) {
    let text = answer.header(HEADER).unwrap_or_else(|| panic!("no position: {:?}", answer.headers));
    let (name, rest) = text.split_once("=\"").expect("name and position");
    let (before, seq) = rest.trim_end_matches('"').rsplit_once('.').expect("parts of a position");
    (name.to_owned(), before.to_owned(), seq.parse().expect("a number"))
}

async fn every_change_answers_with_its_position(service: &Service) {
    let (cache, ns) = (service.client(), namespace("positions"));
    let path = key_path(&ns, "k");
    let first = position(&cache.set(&ns, "k", "1").await.expect(201));
    let mut last = first.2;
    let mut grows = |answer: &Answer, what: &str| {
        let (name, before, seq) = position(answer);
        assert_eq!((&name, &before), (&first.0, &first.1), "{what}");
        assert!(seq > last, "{what}: {seq} after {last}");
        last = seq;
    };
    grows(&cache.set(&ns, "k", "2").await.expect(200), "replaced");
    let condition = cache.send(Method::PUT, &path, &[("if-match", "*")], Some(br#"{"value":3}"#.to_vec())).await;
    grows(&condition.expect(200), "with a condition");
    grows(&cache.put(&ns, "k", r#"{"value":4,"ttl":100,"tags":["t"]}"#).await.expect(200), "with tags");
    let patched = cache.send(Method::PATCH, &path, &[], Some(br#"{"ttl":50}"#.to_vec())).await;
    grows(&patched.expect(200), "another TTL");
    grows(&cache.mset(&ns, &json!([{"key": "k", "value": 5}])).await.expect(200), "mset");
    let marked = cache.send(Method::DELETE, &format!("{path}?mode=stale"), &[], None).await;
    grows(&marked.expect(200), "marked");
    cache.set(&ns, "k", "6").await;
    grows(&cache.delete(&ns, "k").await.expect(200), "deleted");
    grows(&cache.delete(&ns, "k").await.expect(404), "deleted nothing");
    grows(&cache.mdelete(&ns, r#"{"keys":["k"]}"#).await.expect(200), "mdelete of nothing");
    let leased = cache.get_with(&ns, "k", &[("prefer", "lease=10")]).await.expect(404);
    if let Some(token) = leased.header("cache-lease").and_then(|lease| lease.split('"').nth(1)) {
        let given_up = cache.send(Method::DELETE, &format!("{path}/lease"), &[("cache-lease", token)], None).await;
        grows(&given_up.expect(200), "given up");
    }
    // Calls that change several shards name each of them.
    let entries: Vec<_> = (0..60).map(|number| json!({"key": format!("k{number}"), "value": 1})).collect();
    let shards = |answer: &Answer| answer.header(HEADER).expect("positions").split(", ").count();
    let all = shards(&cache.mset(&ns, &json!(entries)).await.expect(200));
    assert!(all == 1 || all == 3, "{all} shards");
    assert_eq!(shards(&cache.flush(&ns, &[("pattern", "k1*")]).await.expect(200)), all);
    assert_eq!(shards(&cache.flush(&ns, &[]).await.expect(200)), all);
}

async fn what_changes_nothing_has_no_position(service: &Service) {
    let (cache, ns) = (service.client(), namespace("positions"));
    cache.set(&ns, "k", "1").await.expect(201);
    let refused = [("if-none-match", "*")];
    let answers = [
        cache.get(&ns, "k").await.expect(200),
        cache.get(&ns, "missing").await.expect(404),
        cache.mget(&ns, &["k"]).await.expect(200),
        cache.send(Method::PUT, &key_path(&ns, "k"), &refused, Some(br#"{"value":2}"#.to_vec())).await.expect(412),
        cache.flush(&ns, &[("dry_run", "true")]).await.expect(200),
    ];
    for answer in answers {
        assert_eq!(answer.header(HEADER), None, "{}", answer.text());
    }
}

async fn a_read_with_positions_is_answered(service: &Service) {
    let (cache, ns) = (service.client(), namespace("positions"));
    let mut all = String::new();
    for round in 0..5 {
        let written = cache.set(&ns, "k", &round.to_string()).await;
        let text = written.header(HEADER).expect("a position").to_owned();
        all = if all.is_empty() { text.clone() } else { format!("{all},\t{text}") };
        // The positions of several writes, and one of a shard that is not there.
        for header in [text.clone(), all.clone(), format!("{text}, nowhere=\"8f14e45fceea167a.1.4711\"")] {
            let positions: &[(&str, &str)] = &[(HEADER, &header)];
            assert_eq!(cache.get_with(&ns, "k", positions).await.expect(200).value(), round.to_string());
            cache.send(Method::HEAD, &key_path(&ns, "k"), positions, None).await.expect(200);
            let full =
                cache.send(Method::GET, &format!("{}?metadata=full", key_path(&ns, "k")), positions, None).await;
            assert_eq!(full.expect(200).json()["value"], round);
            let path = format!("{}/mget", cache_path(&ns));
            let body = br#"{"keys":["k","missing"]}"#.to_vec();
            let many = cache.send(Method::POST, &path, positions, Some(body)).await.expect(200).json();
            assert_eq!((&many["results"]["k"]["value"], &many["misses"]), (&json!(round), &json!(1)), "{many}");
            let with_lease: &[(&str, &str)] = &[(HEADER, &header), ("prefer", "lease=1")];
            assert_eq!(cache.get_with(&ns, "k", with_lease).await.expect(200).value(), round.to_string());
            cache.get_with(&ns, "missing", with_lease).await.expect(404);
        }
    }
    let gone = cache.delete(&ns, "k").await.expect(200);
    cache.get_with(&ns, "k", &[(HEADER, gone.header(HEADER).expect("a position"))]).await.expect(404);
}

async fn a_malformed_position_is_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("positions"));
    cache.set(&ns, "k", "1").await.expect(201);
    for wrong in [
        "",
        "a",
        "a=1",
        "a=\"1\"",
        "a=\"8f14e45fceea167a.1\"",
        "a=\"8f14e45fceea167a.1.x\"",
        "A=\"8f14e45fceea167a.1.1\"",
    ] {
        let header = [(HEADER, wrong)];
        let answer = cache.get_with(&ns, "k", &header).await;
        assert!(answer.text().contains("Cache-Position"), "{}", answer.text());
        answer.expect_error(400, "invalid_position");
        cache.send(Method::HEAD, &key_path(&ns, "k"), &header, None).await.expect(400);
        let path = format!("{}/mget", cache_path(&ns));
        let answer = cache.send(Method::POST, &path, &header, Some(br#"{"keys":["k"]}"#.to_vec())).await;
        answer.expect_error(400, "invalid_position");
    }
}

async fn a_position_that_the_shard_does_not_have_is_lost(service: &Service) {
    let (cache, ns) = (service.client(), namespace("positions"));
    let (name, before, seq) = position(&cache.set(&ns, "k", "1").await.expect(201));
    // A key without an entry on the same shard.
    let mut number = 0;
    let missing = loop {
        let key = format!("missing{number}");
        if position(&cache.delete(&ns, &key).await.expect(404)).0 == name {
            break key;
        }
        number += 1;
    };
    let other = format!("{name}=\"8f14e45fceea167a.1.1\"");
    for lost in [format!("{name}=\"{before}.{}\"", seq + 1_000_000), other] {
        let header = [(HEADER, &*lost)];
        let answer = cache.get_with(&ns, "k", &header).await;
        assert_eq!(answer.header("retry-after"), None, "a retry does not help");
        answer.expect_error(503, "position_lost");
        let path = format!("{}/mget", cache_path(&ns));
        let answer = cache.send(Method::POST, &path, &header, Some(br#"{"keys":["k"]}"#.to_vec())).await.expect(200);
        assert_eq!(answer.json()["results"]["k"]["error"], "position_lost", "{}", answer.text());
        let full = format!("{}?metadata=full", key_path(&ns, "k"));
        cache.send(Method::GET, &full, &header, None).await.expect_error(503, "position_lost");
        for key in ["k", &missing] {
            expect_lost_with_lease(&cache, &ns, key, &lost).await;
        }
    }
}

/// Reads that ask for a lease are refused because of the position, and nobody keeps the lease, which would last longer
/// than the wait here.
async fn expect_lost_with_lease(cache: &Client, ns: &str, key: &str, lost: &str) {
    let header = [(HEADER, lost), ("prefer", "lease=60")];
    cache.get_with(ns, key, &header).await.expect_error(503, "position_lost");
    let body = json!({"keys": [key], "lease": 60}).to_string().into_bytes();
    let path = format!("{}/mget", cache_path(ns));
    let answer = cache.send(Method::POST, &path, &header[..1], Some(body)).await.expect(200);
    assert_eq!(answer.json()["results"][key]["error"], "position_lost", "{}", answer.text());
    eventually(LATER, async || {
        let answer = cache.get_with(ns, key, &[("prefer", "lease=1")]).await;
        let lease = answer.header("cache-lease").unwrap_or("");
        ensure!(answer.status == 200 || !lease.starts_with("held"), "{lease}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_mget_fails_only_for_the_keys_of_the_shard_that_lost_a_position() {
    let service = Service::start(Settings::shards());
    let (cache, ns) = (service.client(), namespace("positions"));
    let mut keys = Vec::new();
    for number in 0..40 {
        let key = format!("k{number}");
        let (shard, before, seq) = position(&cache.set(&ns, &key, "1").await.expect(201));
        keys.push((key, shard, format!("{before}.{}", seq + 1_000_000)));
    }
    let (_, lost, far) = keys[0].clone();
    let header = format!("{lost}=\"{far}\"");
    let of_lost = keys.iter().filter(|(_, shard, _)| *shard == lost).count();
    assert!(of_lost < keys.len(), "one shard has all keys");
    let names: Vec<&str> = keys.iter().map(|(key, _, _)| &**key).collect();
    for body in [json!({"keys": names}), json!({"keys": names, "lease": 5})] {
        let before = cache.metrics().await.total_with("sidecache_position_reads_total", &[("outcome", "lost")]);
        let path = format!("{}/mget", cache_path(&ns));
        let body = Some(body.to_string().into_bytes());
        let answer = cache.send(Method::POST, &path, &[(HEADER, &*header)], body).await.expect(200).json();
        for (key, shard, _) in &keys {
            let result = &answer["results"][key];
            if *shard == lost {
                assert_eq!(result["error"], "position_lost", "{key}: {answer}");
            } else {
                assert_eq!(result["value"], 1, "{key}: {answer}");
            }
        }
        let after = cache.metrics().await.total_with("sidecache_position_reads_total", &[("outcome", "lost")]);
        assert_eq!(after - before, of_lost as f64, "keys are counted");
    }
}

/// The key of Redis that counts the changes of a shard.
const SEQ: &str = "sidecache:seq";

/// Reads until L1 answers.
async fn in_memory(cache: &Client, ns: &str, key: &str) {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.is_l1_hit(), "{} {:?}", answer.status, answer.header("cache-status"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_lost_on_an_unbroken_connection_voids_the_copies() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("positions"));
    for round in 1..=3 {
        let (old, new) = (format!("\"old {round}\""), format!("\"new {round}\""));
        cache.set(&ns, "k", &old).await;
        in_memory(&cache, &ns, "k").await;
        let losses = cache.metrics().await.total("sidecache_subscription_losses_total");
        // A change whose message does not arrive. With one more change after it, a message shows that; without, only
        // the next clock reading does.
        let mut redis = server.connect();
        redis.command(&["SET", &format!("cache:{ns}:k"), &new, "KEEPTTL"]);
        redis.command(&["INCR", SEQ]);
        if round == 2 {
            cache.set(&ns, "other", "1").await;
        }
        let changed = Instant::now();
        eventually(LATER, async || {
            let answer = cache.get(&ns, "k").await.expect(200);
            ensure!(answer.value() == new, "{}", answer.value());
            Ok(())
        })
        .await;
        assert!(changed.elapsed() < Duration::from_secs(2), "noticed after {:?}", changed.elapsed());
        let lost = cache.metrics().await.total("sidecache_subscription_losses_total") - losses;
        assert!(lost >= 1.0, "{lost} losses counted");
    }
    // Without a gap there is no loss.
    let losses = cache.metrics().await.total("sidecache_subscription_losses_total");
    for number in 0..100 {
        let key = format!("k{number}");
        cache.put(&ns, &key, r#"{"value":1,"tags":["t"]}"#).await.expect(201);
        cache.delete(&ns, &format!("k{}", number / 2)).await;
    }
    cache.flush(&ns, &[("tag", "t")]).await.expect(200);
    in_memory(&cache, &ns, "other").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cache.metrics().await.total("sidecache_subscription_losses_total"), losses);
}

/// Changes an entry on the shard without the message.
fn change_silently(server: &Redis, ns: &str, key: &str, value: &str) {
    let mut redis = server.connect();
    redis.command(&["SET", &format!("cache:{ns}:{key}"), value, "KEEPTTL"]);
    redis.command(&["INCR", SEQ]);
}

#[tokio::test]
async fn regression_a_burst_of_lost_messages_is_noticed() {
    // After a gap every number was accepted until the next reading, so a copy that was made in between, and whose own
    // message was lost, was served until its TTL.
    let server = Redis::start();
    let settings = Settings::on(std::slice::from_ref(&server));
    // Readings are rare, so that all of this happens between two of them.
    let service = Service::start(settings.set("max_staleness_ms", 16_000));
    let (cache, ns) = (service.client(), namespace("positions"));
    for _ in 0..3 {
        cache.set(&ns, "k", "\"old\"").await;
        in_memory(&cache, &ns, "k").await;
        change_silently(&server, &ns, "k", "\"new\"");
        // The message of this change shows the loss, and a copy is made.
        cache.set(&ns, "other", "1").await;
        eventually(LATER, async || {
            let answer = cache.get(&ns, "k").await.expect(200);
            ensure!(answer.value() == "\"new\"" && answer.is_l1_hit(), "{}", answer.value());
            Ok(())
        })
        .await;
        change_silently(&server, &ns, "k", "\"newest\"");
        eventually(LATER, async || {
            let answer = cache.get(&ns, "k").await.expect(200);
            ensure!(answer.value() == "\"newest\"", "{}", answer.value());
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_lost_count_of_changes_begins_a_new_incarnation() {
    let server = Redis::start();
    let settings = Settings::on(std::slice::from_ref(&server));
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns) = (a.client(), b.client(), namespace("positions"));
    one.set(&ns, "k", "1").await.expect(201);
    in_memory(&other, &ns, "k").await;
    let mut redis = server.connect();
    for round in 0..4 {
        let before = redis.command(&["HGET", "sidecache:ring", "incarnation"]).text();
        redis.command(&["DEL", SEQ]);
        if round % 2 == 1 {
            redis.command(&["SADD", SEQ, "another type"]);
        }
        // A write finds out at once, or the next clock reading.
        eventually(LATER, async || {
            let answer = one.set(&ns, "k", &round.to_string()).await;
            ensure!(answer.status == 200, "{}", answer.status);
            Ok(())
        })
        .await;
        assert_ne!(redis.command(&["HGET", "sidecache:ring", "incarnation"]).text(), before);
        eventually(LATER, async || {
            let answer = other.get(&ns, "k").await;
            ensure!(answer.status == 200, "{}", answer.status);
            ensure!(answer.value() == round.to_string(), "{}", answer.value());
            Ok(())
        })
        .await;
        in_memory(&other, &ns, "k").await;
    }
}

/// Every invalidation message contains this.
const INVALIDATIONS: &str = "sidecache:invalidations";

#[tokio::test]
async fn a_read_with_the_position_of_a_write_sees_it_before_the_message_arrives() {
    let redis = Redis::start();
    let gate = Gate::in_front_of(&redis);
    let settings = Settings::on(std::slice::from_ref(&redis));
    let writer = Service::start(settings.clone());
    let reader =
        Service::start(settings.set("redis_shards", format!("a={}", gate.url())).set("max_staleness_ms", 20_000));
    let (one, other, ns) = (writer.client(), reader.client(), namespace("positions"));
    let keys = ["got", "gone", "batch", "full", "leased"];
    for key in keys {
        let written = one.set(&ns, key, "1").await.expect(201);
        in_memory(&other, &ns, key).await;
        // Once its message has arrived, L1 answers for the position.
        let header = [(HEADER, written.header(HEADER).expect("a position"))];
        eventually(LATER, async || {
            let answer = other.get_with(&ns, key, &header).await.expect(200);
            ensure!(answer.is_l1_hit(), "{:?}", answer.header("cache-status"));
            Ok(())
        })
        .await;
    }
    gate.hold(INVALIDATIONS);
    for key in keys {
        let written = match key {
            "gone" => one.delete(&ns, key).await.expect(200),
            _ => one.set(&ns, key, "2").await.expect(200),
        };
        let header = [(HEADER, written.header(HEADER).expect("a position"))];
        let plain = other.get(&ns, key).await.expect(200);
        assert_eq!((plain.value(), plain.is_l1_hit()), ("1", true), "{key}: the message is held");
        match key {
            "gone" => drop(other.get_with(&ns, key, &header).await.expect(404)),
            "batch" => {
                let path = format!("{}/mget", cache_path(&ns));
                let body = Some(br#"{"keys":["batch"]}"#.to_vec());
                let many = other.send(Method::POST, &path, &header, body).await.expect(200).json();
                assert_eq!(many["results"]["batch"]["value"], 2);
            }
            "full" => {
                let path = format!("{}?metadata=full", key_path(&ns, key));
                assert_eq!(other.send(Method::GET, &path, &header, None).await.expect(200).json()["value"], 2);
            }
            "leased" => {
                let header = [header[0], ("prefer", "lease=1")];
                assert_eq!(other.get_with(&ns, key, &header).await.expect(200).value(), "2");
            }
            _ => {
                let answer = other.get_with(&ns, key, &header).await.expect(200);
                assert_eq!(answer.value(), "2");
                let status = answer.header("cache-status").unwrap_or("");
                assert!(status.contains("fwd=request; detail=position"), "{status}");
            }
        }
        // The copy was replaced, so a plain read sees the write, too.
        assert_eq!(other.get(&ns, key).await.status, if key == "gone" { 404 } else { 200 });
    }
    let metrics = other.metrics().await;
    let counted = |outcome| metrics.total_with("sidecache_position_reads_total", &[("outcome", outcome)]);
    assert!(counted("l1") >= 5.0 && counted("shard") >= 4.0, "{} {}", counted("l1"), counted("shard"));
    assert_eq!(counted("lost"), 0.0);
}

/// Reads with a position until it is lost. Until then the shard may be unavailable, but never answers.
async fn until_lost(cache: &Client, ns: &str, lost: &str) {
    eventually(LATER, async || {
        let answer = cache.get_with(ns, "k", &[(HEADER, lost)]).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let code = answer.json()["code"].clone();
        ensure!(code == "position_lost", "{code}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_positions_of_a_shard_that_lost_its_data_are_lost() {
    let mut server = Redis::start();
    let settings = Settings::on(std::slice::from_ref(&server));
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns) = (a.client(), b.client(), namespace("positions"));
    for round in 0..3 {
        let written = eventually(LATER, async || {
            let answer = one.set(&ns, "k", "1").await;
            ensure!(answer.status < 300, "{}", answer.status);
            Ok(answer)
        })
        .await;
        let before = written.header(HEADER).expect("a position").to_owned();
        other.get_with(&ns, "k", &[(HEADER, &before)]).await.expect(200);
        if round == 1 {
            server.kill();
            server.run();
        } else {
            server.connect().command(&["FLUSHALL"]);
        }
        // L1 may have the copy until it notices, and the copy has everything up to the position.
        eventually(LATER, async || {
            let answer = other.get_with(&ns, "k", &[(HEADER, &before)]).await;
            ensure!(answer.status == 503, "{}", answer.status);
            Ok(())
        })
        .await;
        for cache in [&one, &other] {
            until_lost(cache, &ns, &before).await;
        }
        let written = one.set(&ns, "k", "2").await;
        let after = written.header(HEADER).expect("a position");
        assert_eq!(other.get_with(&ns, "k", &[(HEADER, after)]).await.expect(200).value(), "2");
        until_lost(&one, &ns, &format!("{before}, {after}")).await;
    }
}

#[tokio::test]
async fn after_a_failover_positions_of_lost_writes_are_lost_and_others_are_not() {
    let old = Redis::start();
    let new = replica_of(old.port());
    let switch = Switch::to(&old);
    let settings = Settings::shards()
        .set("redis_shards", format!("a={}", switch.url()))
        .set("redis_timeout_ms", 250)
        .set("request_timeout_ms", 5_000);
    let (a, b) = (Service::start(settings.clone()), Service::start(settings));
    let (one, other, ns) = (a.client(), b.client(), namespace("positions"));
    let kept = one.set(&ns, "k", "\"kept\"").await.expect(201);
    let kept = kept.header(HEADER).expect("a position").to_owned();
    // A clock reading tells the servers that everything up to here is from this server.
    let seq: u64 = kept.trim_end_matches('"').rsplit_once('.').expect("a number").1.parse().expect("a number");
    eventually(LATER, async || {
        let sure = new.connect().command(&["HGET", "sidecache:ring", "sure"]).text();
        ensure!(sure.parse::<u64>().is_ok_and(|sure| sure >= seq), "{sure} of {seq}");
        Ok(())
    })
    .await;
    promote(&new);
    let lost = one.set(&ns, "k", "\"lost\"").await.expect(200);
    let lost = lost.header(HEADER).expect("a position").to_owned();
    switch.lead_to(&new);
    drop(old);
    // Before anybody has noticed, writes of the new server may have got the numbers of the lost ones.
    for number in 0..20 {
        one.set(&ns, &format!("other {number}"), "1").await;
    }
    for cache in [&one, &other] {
        eventually(LATER, async || {
            let answer = cache.get_with(&ns, "k", &[(HEADER, &lost), ("cache-control", "no-cache")]).await;
            assert_eq!(answer.status, 503, "{}", answer.text());
            ensure!(answer.json()["code"] == "position_lost", "{}", answer.text());
            Ok(())
        })
        .await;
        for key in ["k", "missing"] {
            expect_lost_with_lease(cache, &ns, key, &lost).await;
        }
        let full = format!("{}?metadata=full", key_path(&ns, "k"));
        cache.send(Method::GET, &full, &[(HEADER, &*lost)], None).await.expect_error(503, "position_lost");
        assert_eq!(cache.get_with(&ns, "k", &[(HEADER, &kept)]).await.expect(200).value(), "\"kept\"");
        let kept = [(HEADER, &*kept), ("prefer", "lease=1")];
        assert_eq!(cache.get_with(&ns, "k", &kept).await.expect(200).value(), "\"kept\"");
    }
}

#[tokio::test]
async fn positions_of_an_embedded_store_that_started_again_are_lost() {
    let service = Service::start(Settings::embedded());
    let written = service.client().set("n", "k", "1").await.expect(201);
    let before = written.header(HEADER).expect("a position").to_owned();
    service.client().get_with("n", "k", &[(HEADER, &before)]).await.expect(200);
    service.stop();
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    cache.set("n", "k", "2").await.expect(201);
    cache.get_with("n", "k", &[(HEADER, &before)]).await.expect_error(503, "position_lost");
    // A read that asks for a lease was answered before the position was compared.
    for key in ["k", "missing"] {
        expect_lost_with_lease(&cache, "n", key, &before).await;
    }
    let full = format!("{}?metadata=full", key_path("n", "k"));
    cache.send(Method::GET, &full, &[(HEADER, &*before)], None).await.expect_error(503, "position_lost");
}
