//! A real HAProxy: in front of a pair of Redis servers, as people without Sentinels run them, and in front of instances.

#![expect(clippy::print_stdout, reason = "it prints how long writes failed")]

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use crate::support::client::{Client, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::haproxy::HaProxy;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

use super::roles::{in_sync, promote, replica_of, replicate, written_again};

/// Leads to whichever server says that it is the primary, as <https://www.haproxy.com/blog/haproxy-advanced-redis-health-check>
/// describes. Sessions to a server that failed the check stay open: that is the default.
fn to_the_primary(servers: [&Redis; 2]) -> HaProxy {
    let [first, second] = servers.map(Redis::port);
    HaProxy::start(&format!(
        "  mode tcp\n  option tcp-check\n  tcp-check send info\\ replication\\r\\n\n  tcp-check expect string role:master\n\
         \x20 default-server inter 100ms fall 1 rise 1 check\n  server a 127.0.0.1:{first}\n  server b 127.0.0.1:{second}",
    ))
}

fn two_on(proxy: &HaProxy) -> [Service; 2] {
    let settings = Settings::shards()
        .set("redis_shards", format!("a=redis://127.0.0.1:{}", proxy.port()))
        .set("redis_timeout_ms", 250)
        .set("request_timeout_ms", 5_000);
    [Service::start(settings.clone()), Service::start(settings)]
}

async fn both_write(clients: [&Client; 2], ns: &str) {
    for cache in clients {
        let (took, wrong) = written_again(cache, ns, LATER).await;
        println!("writes work again after {took:?}");
        assert_eq!(wrong, 0, "health says healthy while writes fail");
    }
    for (writer, reader) in [(clients[0], clients[1]), (clients[1], clients[0])] {
        let written = json!(format!("{ns}-{}", writer.get(ns, "written").await.status)).to_string();
        writer.set(ns, "written", &written).await;
        eventually(LATER, async || {
            let answer = reader.get(ns, "written").await;
            ensure!(answer.status == 200 && answer.value() == written, "{}", answer.text());
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_primary_behind_haproxy_that_is_demoted_or_killed_costs_seconds_of_writes() {
    let first = Redis::start();
    let mut second = replica_of(first.port());
    let proxy = to_the_primary([&first, &second]);
    let services = two_on(&proxy);
    let (one, other, ns) = (services[0].client(), services[1].client(), namespace("haproxy"));
    one.set(&ns, "k", "1").await.expect(201);
    other.get(&ns, "k").await.expect(200);

    in_sync(&first, &second).await;
    promote(&second);
    first.connect().command(&["REPLICAOF", "127.0.0.1", &second.port().to_string()]);
    both_write([&one, &other], &ns).await;

    replicate(&first, second.port());
    in_sync(&second, &first).await;
    second.kill();
    promote(&first);
    both_write([&one, &other], &ns).await;
}

/// The old server takes itself for the primary, too, and its sessions stay open.
#[tokio::test]
async fn sessions_that_haproxy_keeps_to_an_old_primary_are_left() {
    let servers = [Redis::start(), Redis::start()];
    let proxy = to_the_primary([&servers[0], &servers[1]]);
    proxy.command("set server front/b state maint");
    let services = two_on(&proxy);
    let ns = namespace("haproxy");
    for service in &services {
        service.client().set(&ns, "k", "1").await;
    }
    proxy.command("set server front/b state ready");
    proxy.command("set server front/a state maint");
    for service in &services {
        let cache = service.client();
        eventually(LATER, async || {
            servers[1].connect().command(&["DEL", &format!("cache:{ns}:k")]);
            let status = cache.set(&ns, "k", "2").await.status;
            ensure!(status < 300, "{status}");
            let there = servers[1].connect().command(&["EXISTS", &format!("cache:{ns}:k")]).integer();
            ensure!(there == 1, "it still writes to the old server");
            Ok(())
        })
        .await;
    }
}

/// HAProxy reuses connections to instances. None of them closes one under a request, however long it was idle.
#[tokio::test]
async fn haproxy_in_front_of_instances_answers_each_request() {
    let settings = Settings::shards().set("header_timeout_ms", 300);
    let instances = [Service::start(settings.clone()), Service::start(settings)];
    let [first, second] = instances.each_ref().map(Service::address);
    let proxy = HaProxy::start(&format!(
        "  mode http\n  balance roundrobin\n  http-reuse always\n  option httpchk GET /readyz\n\
         \x20 default-server inter 100ms check\n  server a {first}\n  server b {second}",
    ));
    let (cache, ns) = (proxy.client(), namespace("haproxy"));
    for round in 0..20 {
        let key = format!("a/b {round}");
        cache.set(&ns, &key, &round.to_string()).await.expect(201);
        // Once from each instance.
        for _ in 0..2 {
            assert_eq!(cache.get(&ns, &key).await.expect(200).value(), round.to_string());
        }
        cache.delete(&ns, &key).await.expect(200);
        // The other instance may have a copy until the invalidation arrives.
        for _ in 0..2 {
            eventually(LATER, async || {
                let status = cache.get(&ns, &key).await.status;
                ensure!(status == 404, "{status}");
                Ok(())
            })
            .await;
        }
        // Beyond the deadline of a request's head, now and then.
        tokio::time::sleep(Duration::from_millis(if round % 5 == 0 { 700 } else { 10 })).await;
    }
}
