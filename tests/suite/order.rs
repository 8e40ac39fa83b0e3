//! No client of one instance sees time go back while there is no fault. This includes the time between a write
//! through another instance and the arrival of its invalidation, which the tests hold back.

use std::time::Duration;

use anyhow::ensure;

use crate::support::answer::Answer;
use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::gate::Gate;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// Every invalidation message from Redis contains this.
const INVALIDATIONS: &str = "sidecache:invalidations";

/// Long enough for an answer, and short compared to the timeout of the held request.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Two instances, the second behind a gate. Its staleness bound is long enough for L1 to stay valid throughout the
/// test, and it has enough connections for some to be held.
struct Stage {
    _redis: Redis,
    gate: Gate,
    _writer: Service,
    _reader: Service,
    one: Client,
    other: Client,
    ns: String,
}

impl Stage {
    async fn set() -> Stage {
        let redis = Redis::start();
        let gate = Gate::in_front_of(&redis);
        let settings = Settings::on(std::slice::from_ref(&redis));
        let writer = Service::start(settings.clone());
        let settings = settings
            .set("redis_shards", format!("a={}", gate.url()))
            .set("redis_connections", 16)
            .set("redis_timeout_ms", 20_000)
            .set("request_timeout_ms", 25_000)
            .set("max_staleness_ms", 20_000)
            .set("stats_flush_ms", 60_000)
            .set("sweep_interval_ms", 60_000);
        let reader = Service::start(settings);
        let (one, other, ns) = (writer.client(), reader.client(), namespace("order"));
        one.set(&ns, "canary", "1").await.expect(201);
        in_memory(&other, &ns, "canary").await;
        Stage { _redis: redis, gate, _writer: writer, _reader: reader, one, other, ns }
    }

    /// The value that a plain read through the second instance returns.
    async fn said(&self, key: &str) -> Option<String> {
        let answer = unheld(async || self.other.get(&self.ns, key).await).await;
        (answer.status != 404).then(|| answer.expect(200).value().to_owned())
    }

    async fn held(&self, connections: u64) {
        eventually(SOON, async || {
            ensure!(self.gate.held() >= connections, "{} connections held", self.gate.held());
            Ok(())
        })
        .await;
    }
}

/// An answer that comes while connections are held: a request on a held connection times out, and is sent again on
/// the next one.
async fn unheld(ask: impl AsyncFn() -> Answer) -> Answer {
    eventually(SOON, async || Ok(tokio::time::timeout(GIVE_UP, ask()).await?)).await
}

async fn in_memory(cache: &Client, ns: &str, key: &str) {
    eventually(LATER, async || {
        let answer = cache.get(ns, key).await;
        ensure!(answer.is_l1_hit(), "{:?}", answer.header("cache-status"));
        Ok(())
    })
    .await;
}

/// The bug: the answer of a slow read replaced a newer copy, which a batch had brought meanwhile. If the batch had
/// found nothing, the slow read brought the deleted entry back.
#[tokio::test]
async fn regression_a_slow_read_does_not_replace_a_newer_copy() {
    for (number, new) in [(0, Some("\"the new one\"")), (1, None)] {
        let stage = Stage::set().await;
        let (one, other, ns) = (&stage.one, &stage.other, &stage.ns);
        let heard_of = async || other.metrics().await.total("sidecache_invalidations_received_total");
        let before = heard_of().await;
        one.set(ns, "k", "\"the old one\"").await.expect(201);
        // This invalidation passes, so that only the next one is held.
        eventually(SOON, async || {
            let more = heard_of().await - before;
            ensure!(more >= 1.0, "{more} invalidations received");
            Ok(())
        })
        .await;
        stage.gate.hold(INVALIDATIONS);
        stage.gate.hold("the old one");
        let slow = async { other.get(ns, "k").await.expect(200).value().to_owned() };
        let meanwhile = async {
            stage.held(1).await;
            match new {
                Some(new) => one.set(ns, "k", new).await.expect(200),
                None => one.delete(ns, "k").await.expect(200),
            };
            stage.held(2).await;
            let batch = unheld(async || other.mget(ns, &["k"]).await).await.expect(200).json();
            assert_eq!(batch["hits"], u64::from(new.is_some()), "{batch}");
            assert_eq!(stage.said("k").await.as_deref(), new, "round {number}, during the slow read");
            stage.gate.release("the old one");
        };
        let (slow, ()) = tokio::join!(slow, meanwhile);
        // The slow read started before the change.
        assert_eq!(slow, "\"the old one\"");
        for _ in 0..3 {
            assert_eq!(stage.said("k").await.as_deref(), new, "round {number}, after the slow read");
        }
    }
}

/// The bug: a read that bypassed L1 returned the new value, but the next read returned the old value from L1.
#[tokio::test]
async fn regression_a_read_from_l1_is_not_older_than_one_from_the_shard() {
    let stage = Stage::set().await;
    let (one, other, ns) = (&stage.one, &stage.other, &stage.ns);
    let keys = ["fresh", "full", "gone fresh", "gone full"];
    for key in keys {
        one.set(ns, key, "1").await.expect(201);
        in_memory(other, ns, key).await;
    }
    stage.gate.hold(INVALIDATIONS);
    for key in keys {
        if key.starts_with("gone") { one.delete(ns, key).await } else { one.set(ns, key, "2").await }.expect(200);
        assert_eq!(stage.said(key).await.as_deref(), Some("1"), "{key}: the invalidation is held");
        let asked = if key.ends_with("full") {
            other.fetch(&format!("{}?metadata=full", key_path(ns, key))).await
        } else {
            other.get_with(ns, key, &[("cache-control", "no-cache")]).await
        };
        let new = if key.starts_with("gone") { None } else { Some("2") };
        assert_eq!(asked.status, if new.is_some() { 200 } else { 404 }, "{key}");
        assert_eq!(stage.said(key).await.as_deref(), new, "{key}");
        if new.is_some() {
            assert!(other.get(ns, key).await.is_l1_hit(), "{key} is in L1 after the read from the shard");
        }
    }
}
