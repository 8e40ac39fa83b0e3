//! The project's nginx configuration in a real nginx, in front of two real instances.
//!
//! Only addresses are replaced in the files: the port that nginx listens on, and the instances of the upstream.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::support::client::{Client, cache_path, encoded, key_path, namespace};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::nginx::Nginx;
use crate::support::ports;
use crate::support::service::{Service, Settings};
use crate::support::wire;

use super::dashboard::{Forms, attribute, events_at, now, number};

/// Sends requests to the instances in turn.
const IN_TURN: &str = "upstream.conf";
/// Sends each URI to the same instance.
const BY_URI: &str = "upstream-hash.conf";

/// An nginx in front of these instances. The files name two instances.
fn front(upstream: &str, instances: [SocketAddr; 2]) -> Nginx {
    Nginx::start(|port| {
        let mut upstream = file(upstream);
        for (name, address) in ["sidecache-1:8080", "sidecache-2:8080"].into_iter().zip(instances) {
            upstream = replaced(&upstream, &format!("server {name}"), &format!("server {address}"));
        }
        let server = replaced(&file("sidecache.conf"), "listen 8080;", &format!("listen 127.0.0.1:{port};"));
        format!("{upstream}\n{server}")
    })
}

/// A file of the project's `nginx/` folder.
fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old} must be in the file exactly once");
    text.replace(old, new)
}

fn two() -> (Service, Service) {
    let settings = Settings::shards();
    (Service::start(settings.clone()), Service::start(settings))
}

/// How many GETs an instance has answered. Asks the instance directly, not through nginx.
async fn gets(instance: &Client) -> f64 {
    instance.metrics().await.total_with("sidecache_requests_total", &[("operation", "get")])
}

#[tokio::test]
async fn requests_are_spread_over_both_instances() {
    let (a, b) = two();
    let nginx = front(IN_TURN, [a.address(), b.address()]);
    let (cache, ns) = (nginx.client(), namespace("nginx"));
    cache.set(&ns, "k", "1").await.expect(201);
    for _ in 0..40 {
        cache.get(&ns, "k").await.expect(200);
    }
    for instance in [&a, &b] {
        let share = gets(&instance.client()).await;
        assert!((10.0..=30.0).contains(&share), "{share} of 40");
    }
    for path in ["/health", "/livez", "/readyz", "/api/v1/namespaces", "/api/v1/cluster"] {
        cache.fetch(path).await.expect(200);
    }
    // nginx does not pass on /metrics, since the metrics belong to one instance.
    cache.fetch("/metrics").await.expect_error(404, "not_found");
    for path in ["/openapi.json", "/docs", "/docs/page.js", "/docs/swagger-ui-bundle.js"] {
        let direct = a.client().fetch(path).await.expect(200);
        let passed = cache.fetch(path).await.expect(200);
        assert!(passed.body == direct.body, "{path}");
        for header in ["content-type", "content-encoding", "content-security-policy"] {
            assert_eq!(passed.header(header), direct.header(header), "{path}: {header}");
        }
    }
}

#[tokio::test]
async fn every_call_and_every_byte_passes_through() {
    let (a, b) = two();
    let nginx = front(IN_TURN, [a.address(), b.address()]);
    let (cache, ns) = (nginx.client(), namespace("nginx"));
    let keys = [
        "a/b", "/", "//a//", "%2F", "%", "a b", "a:b", "?q=1&r", "#f", "+", "ключ", "😀", "a\\b", "\"", "a/../b",
        "mget", "x/mget",
    ];
    for (index, key) in keys.iter().enumerate() {
        let value = format!("{{\"n\": {index}, \"big\": 9223372036854775809}}");
        let created = cache.set(&ns, key, &value).await;
        created.expect_json(201, &json!({"success": true, "key": key, "created": true}));
        // Twice through nginx, so once from each instance, and once from each instance directly.
        for from in [&cache, &cache, &a.client(), &b.client()] {
            assert_eq!(from.get(&ns, key).await.expect(200).value(), value, "{key}");
        }
        cache.head(&ns, key).await.expect(200);
    }
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    assert_eq!(cache.all_keys(&ns).await, expected);
    assert_eq!(cache.mget(&ns, &keys).await.expect(200).number("hits"), keys.len() as u64);
    for key in keys {
        cache.delete(&ns, key).await.expect(200);
    }
    // Other spellings of a path also reach the service unchanged.
    cache.set(&ns, "a/b", "1").await.expect(201);
    for spelling in ["a%2Fb", "a%2fb", "%61%2F%62"] {
        let path = format!("{}/{spelling}", cache_path(&ns));
        assert_eq!(wire::request(nginx.address(), "GET", &path, "").await.expect(200).value(), "1", "{spelling}");
    }

    let large = format!("\"{}\"", "large ".repeat(200_000));
    cache.set(&ns, "large", &large).await.expect(201);
    assert!(cache.get(&ns, "large").await.expect(200).value() == large);
    let entries = json!([{"key": "x", "value": 1}, {"key": "y", "value": 2}]);
    cache.mset(&ns, &entries).await.expect_json(200, &json!({"success": true, "stored": 2}));
    cache.flush(&ns, &[("pattern", "[xy]")]).await.expect_json(200, &json!({"success": true, "deleted_count": 2}));

    // nginx passes on the errors and headers of the service.
    cache.get(&ns, "absent").await.expect_error(404, "key_not_found");
    cache.put(&ns, "k", "{").await.expect_error(400, "invalid_body");
    cache.set("bad namespace", "k", "1").await.expect_error(400, "invalid_namespace");
    let path = key_path(&ns, "a/b");
    let answer = cache.send(Method::GET, &path, &[("x-request-id", "from-outside")], None).await.expect(200);
    assert_eq!(answer.header("x-request-id"), Some("from-outside"));
    let etag = answer.header("etag").expect("an ETag").to_owned();
    cache.get_with(&ns, "a/b", &[("if-none-match", &etag)]).await.expect(304);
}

#[tokio::test]
async fn the_dashboard_works_behind_nginx() {
    let (a, b) = two();
    let nginx = front(IN_TURN, [a.address(), b.address()]);
    let (front, ns) = (nginx.client(), namespace("nginx"));
    front.fill(&ns, &json!([{"key": "a", "value": 1}, {"key": "b", "value": 1}])).await;
    let page = format!("/dashboard/namespaces/{ns}");
    let (passed, direct) = (front.fetch(&page).await.expect(200), a.client().fetch(&page).await.expect(200));
    for header in ["content-type", "content-security-policy", "cache-control"] {
        assert_eq!(passed.header(header), direct.header(header), "{header}");
    }
    let links: Vec<_> = passed.text().split(" href=\"/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links {
        front.fetch(&format!("/{}", link.replace("&amp;", "&"))).await.expect(200);
    }

    // A change appears while the event stream is open.
    let keys = |count: u32| format!("data-stat=\"total_keys\" data-value=\"{count}\"");
    let query = format!("page=namespace&ns={ns}");
    let change = events_at(nginx.address(), &query, |text| text.contains(&keys(3)));
    let write = async {
        events_at(nginx.address(), &query, |text| text.contains(&keys(2))).await;
        front.set(&ns, "c", "1").await.expect(201);
    };
    tokio::join!(change, write);

    // One instance made the form, and each instance gets it, with the headers that browsers send for the page's
    // origin.
    let (flush, forms) = (format!("{page}/flush"), Forms::of(&front, &page).await);
    let origin = format!("http://{}", nginx.address());
    for own in [("sec-fetch-site", "same-origin"), ("origin", origin.as_str())] {
        for _ in 0..2 {
            let asked = forms.post_with(&flush, &[("pattern", "a")], &[own]).await.expect(200);
            assert_eq!(number(asked.text(), "id=\"dry-run\"", "data-count"), 1.0);
        }
    }
    for strange in [a.address(), b.address()].map(|address| format!("http://{address}")) {
        let refused = forms.post_with(&flush, &[("announced", "3")], &[("origin", &strange)]).await.expect(403);
        assert_eq!(attribute(refused.text(), "id=\"problem\"", "data-code").as_deref(), Some("cross_site"));
    }
    let cross_site = [("sec-fetch-site", "cross-site")];
    let mset = format!("{}/mset", cache_path(&ns));
    front.send(Method::POST, &mset, &cross_site, Some(b"{}".to_vec())).await.expect_error(403, "cross_site");
    let issued = now();
    let confirmed = [("pattern", "a"), ("announced", "1"), ("issued", issued.as_str())];
    let done = forms.post_with(&flush, &confirmed, &[("origin", &origin)]).await.expect(303);
    let done = front.fetch(done.header("location").expect("a redirect to the result")).await;
    match done.status {
        200 => assert_eq!(number(done.text(), "id=\"flushed\"", "data-count"), 1.0),
        // The request went to the other instance, which redirects to the page with the audit trail.
        _ => assert_eq!(done.expect(303).header("location"), Some(page.as_str())),
    }
    assert_eq!(front.all_keys(&ns).await, ["b", "c"]);
}

#[tokio::test]
async fn reads_continue_when_an_instance_is_killed_under_load() {
    let (mut a, b) = two();
    let nginx = front(IN_TURN, [a.address(), b.address()]);
    let (cache, ns) = (nginx.client(), namespace("nginx"));
    cache.set(&ns, "k", "1").await.expect(201);
    let readers = (0..8).map(|_| {
        let (cache, ns) = (cache.clone(), ns.clone());
        tokio::spawn(async move {
            for _ in 0..100 {
                assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "1");
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    // The instance is killed in the middle: some of the reads are done, most are not.
    let instance = a.client();
    eventually(SOON, async || {
        let done = gets(&instance).await;
        ensure!(done >= 40.0, "{done} reads");
        Ok(())
    })
    .await;
    a.kill();
    for reader in join_all(readers).await {
        reader.expect("every read answers 200");
    }
    // Writes also go to the other instance: nginx retries those that the dead one never received.
    for round in 0..20 {
        cache.set(&ns, "k", &round.to_string()).await.expect(200);
        assert_eq!(cache.get(&ns, "k").await.expect(200).value(), round.to_string());
        cache.mget(&ns, &["k"]).await.expect(200);
        cache.fill(&ns, &json!([{"key": "m", "value": 1}])).await;
    }
    drop(b);
    let answer = cache.get(&ns, "k").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    answer.expect_error(502, "no_upstream");
}

#[tokio::test]
async fn the_hash_variant_sends_each_uri_to_one_instance() {
    let (a, b) = two();
    let nginx = front(BY_URI, [a.address(), b.address()]);
    let (cache, ns) = (nginx.client(), namespace("nginx"));
    let (one, other) = (a.client(), b.client());
    let (mut to_one, mut to_other) = (0, 0);
    for number in 0..24 {
        let key = format!("user/{number}");
        cache.set(&ns, &key, "1").await.expect(201);
        let (before_one, before_other) = (gets(&one).await, gets(&other).await);
        for _ in 0..5 {
            cache.get(&ns, &key).await.expect(200);
        }
        let grown = (gets(&one).await - before_one, gets(&other).await - before_other);
        match grown {
            (5.0, 0.0) => to_one += 1,
            (0.0, 5.0) => to_other += 1,
            _ => panic!("{} went to both: {grown:?}", encoded(&key)),
        }
    }
    assert!(to_one >= 3 && to_other >= 3, "{to_one} keys at one, {to_other} at the other");
}

const CLIENTS: usize = 8;

/// What the clients saw while instances ended and started.
struct Seen {
    /// When each read was answered.
    reads: Vec<Instant>,
    writes: usize,
}

/// Clients that read, write and delete through nginx until `during` ends. Every request must succeed. Each client has
/// its own key, so it knows what it must read.
async fn under_load(cache: &Client, ns: &str, during: impl Future<Output = ()>) -> Seen {
    let is_over = AtomicBool::new(false);
    let clients = (0..CLIENTS).map(async |client| {
        let (mut reads, mut writes, mut round) = (Vec::new(), 0, 0);
        let key = format!("own{client}");
        while !is_over.load(Ordering::SeqCst) {
            round += 1;
            // If nginx sends a write twice, the second attempt may find the effect of the first.
            let put = cache.set(ns, &key, &round.to_string()).await;
            assert!([200, 201].contains(&put.status), "PUT: {} {}", put.status, put.text());
            for _ in 0..4 {
                // Within the bound, the other instance may answer with an earlier state.
                let get = cache.get(ns, &key).await;
                assert!([200, 404].contains(&get.status), "GET: {} {}", get.status, get.text());
                reads.push(Instant::now());
            }
            let fresh = cache.get_with(ns, &key, &[("cache-control", "no-cache")]).await.expect(200);
            assert_eq!(fresh.value(), round.to_string());
            reads.push(Instant::now());
            let deleted = cache.delete(ns, &key).await;
            assert!([200, 404].contains(&deleted.status), "DELETE: {} {}", deleted.status, deleted.text());
            writes += 2;
        }
        (reads, writes)
    });
    let during = async {
        during.await;
        is_over.store(true, Ordering::SeqCst);
    };
    let (seen, ()) = futures_util::join!(join_all(clients), during);
    let mut all = Seen { reads: Vec::new(), writes: 0 };
    for (reads, writes) in seen {
        all.reads.extend(reads);
        all.writes += writes;
    }
    all
}

/// The reads of a namespace in the stats, once they stop changing.
async fn counted(cache: &Client, ns: &str) -> usize {
    let mut last = None;
    eventually(LATER, async || {
        let stats = cache.stats(ns).await.expect(200);
        let count = (stats.number("hits") + stats.number("misses")) as usize;
        // Counts are written once a second.
        let (since, seen) = *last.get_or_insert((Instant::now(), count));
        if seen != count {
            last = None;
        }
        ensure!(seen == count && since.elapsed() > Duration::from_millis(2_500), "{seen}, then {count}");
        Ok(count)
    })
    .await
}

/// C-09, first half.
#[tokio::test]
async fn an_instance_killed_under_load_fails_no_idempotent_request_and_loses_a_second_of_counts() {
    let (mut a, b) = two();
    let nginx = front(IN_TURN, [a.address(), b.address()]);
    let (cache, ns) = (nginx.client(), namespace("nginx"));
    let mut killed = None;
    let seen = under_load(&cache, &ns, async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        a.kill();
        killed = Some(Instant::now());
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    })
    .await;
    let killed = killed.expect("it was killed");
    let (answered, counted) = (seen.reads.len(), counted(&b.client(), &ns).await);
    // Counts are written once a second, which takes a moment.
    let interval = Duration::from_millis(1_500);
    let latest = seen.reads.iter().filter(|at| **at <= killed && killed - **at <= interval).count();
    eprintln!("{answered} reads answered, {counted} counted; {latest} within {interval:?} before the end");
    assert!(answered > 100 && seen.writes > 40, "{answered} reads, {} writes", seen.writes);
    // The dead instance may have counted reads without answering them, which the other instance then answered and
    // counted again.
    assert!(counted <= answered + CLIENTS, "{counted} counted, {answered} answered");
    assert!(
        counted + latest >= answered,
        "{counted} counted, {answered} answered, {latest} of them shortly before the kill"
    );
}

/// C-09, second half.
#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_request_and_loses_no_count() {
    let shared = Settings::shards();
    let own = |port| shared.clone().set("listen", format!("127.0.0.1:{port}"));
    let settings = [ports::free(), ports::free()].map(own);
    let mut services = settings.clone().map(|settings| Some(Service::start(settings)));
    let addresses = services.each_ref().map(|service| service.as_ref().expect("it was started").address());
    let nginx = front(IN_TURN, addresses);
    let (cache, ns) = (nginx.client(), namespace("nginx"));
    let seen = under_load(&cache, &ns, async {
        for (service, settings) in services.iter_mut().zip(&settings) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (old, settings) = (service.take().expect("it runs"), settings.clone());
            // These calls block, so they run on another thread and the load continues.
            let new = tokio::task::spawn_blocking(move || {
                assert!(old.stop().success(), "a graceful stop");
                Service::start(settings)
            });
            *service = Some(new.await.expect("an instance that starts again"));
            // nginx sends no requests to a failed instance for 5 s.
            eventually(LATER, async || {
                let asked = gets(&service.as_ref().expect("it was started").client()).await;
                ensure!(asked > 0.0, "the restarted instance got no read yet");
                Ok(())
            })
            .await;
        }
    })
    .await;
    let counted = counted(&cache, &ns).await;
    eprintln!("{} reads answered, {counted} counted, {} writes", seen.reads.len(), seen.writes);
    assert_eq!(counted, seen.reads.len(), "a graceful stop loses no count");
}
