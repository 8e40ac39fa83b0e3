//! The fast path answers plain reads and writes of entries before the router. Clients see no difference: the answers
//! are the same, and both kinds of requests can follow each other on a connection, split into pieces anywhere.

use anyhow::ensure;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::answer::Answer;
use crate::support::both_stores::on_both_stores;
use crate::support::client::{key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::wire;

on_both_stores! {
    answers_are_the_same_with_and_without_the_router,
    a_request_id_of_the_client_comes_back,
    requests_of_both_kinds_in_one_write_are_answered_in_order,
    requests_may_be_split_anywhere,
    many_pipelined_answers_wait_for_a_slow_reader,
    a_connection_closes_when_its_client_asks_for_it,
    reads_count_once_on_both_paths,
}

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).await.expect("the service accepts connections")
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")
}

fn put(path: &str, body: &str, headers: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// A header without an effect, which the fast path leaves to the router.
const BY_ROUTER: &str = "cache-control: no-transform\r\n";

/// The parts of an answer that must be the same on both paths: status, headers and body.
fn shown(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let varies = |name: &str| ["date", "x-request-id"].contains(&name);
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| !varies(name.as_str()))
        .map(|(name, value)| {
            let value = value.to_str().unwrap_or_default();
            let value = match name.as_str() {
                "x-cache-ttl" => without_number("", value),
                // The age of the watermark is another one for every answer.
                "cache-status" => without_number("max-staleness-ms=", &without_number("ttl=", value)),
                _ => value.to_owned(),
            };
            (name.to_string(), value)
        })
        .collect();
    headers.sort();
    assert!(header("date").ends_with(" GMT") && !header("x-request-id").is_empty(), "{:?}", answer.headers);
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    (answer.status, headers, without_number("\"ttl_remaining\":", &body))
}

/// The text with `N` for the digits after `marker`: the seconds left may differ by one.
fn without_number(marker: &str, text: &str) -> String {
    match text.split_once(marker) {
        Some((before, after)) if after.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("{before}{marker}N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => text.to_owned(),
    }
}

async fn answers_are_the_same_with_and_without_the_router(service: &Service) {
    let (cache, ns) = (service.client(), namespace("same"));
    let long = format!("\"{}\"", "v".repeat(100_000));
    for (key, value) in [("plain", "[1e400, 0.10]"), ("a/b c", "null"), ("long", long.as_str())] {
        cache.set(&ns, key, value).await.expect(201);
    }
    cache.put(&ns, "mortal", r#"{"value": 1, "ttl": 1000}"#).await.expect(201);
    cache.put(&ns, "known absent", r#"{"absent": true}"#).await.expect(201);
    cache.put(&ns, "known absent for a while", r#"{"absent": true, "ttl": 1000}"#).await.expect(201);
    for key in ["plain", "a/b c", "long", "mortal", "absent", "known absent", "known absent for a while"] {
        let path = key_path(&ns, key);
        let mut stream = connect(service).await;
        // An extra request first, so that both compared answers come from the same tier.
        wire::ask(&mut stream, &get(&path, "")).await;
        let fast = wire::ask(&mut stream, &get(&path, "")).await;
        let routed = wire::ask(&mut stream, &get(&path, BY_ROUTER)).await;
        assert_eq!(shown(&fast), shown(&routed), "{key}");
        // The router answers both if there is no entry.
        if key != "absent" {
            let answers = ["", BY_ROUTER].map(|more| get(&path, &format!("prefer: lease=10\r\n{more}")));
            let fast = wire::ask(&mut stream, &answers[0]).await;
            assert_eq!(fast.header("vary"), Some("prefer"), "{key}");
            assert_eq!(shown(&fast), shown(&wire::ask(&mut stream, &answers[1]).await), "{key}");
        }
    }
    for (i, body) in
        [r#"{"value": 1}"#, r#"{"value": }"#, r#"{"value": 1, "ttl": 0}"#, r#"{"absent": true}"#, "[]", ""]
            .iter()
            .enumerate()
    {
        let mut stream = connect(service).await;
        let answers = [("", "f"), (BY_ROUTER, "r")].map(|(headers, name)| (headers, format!("{name}{i}")));
        let mut seen = Vec::new();
        for (headers, key) in answers {
            let answer = wire::ask(&mut stream, &put(&key_path(&ns, &key), body, headers)).await;
            let (status, mut headers, body) = shown(&answer);
            headers.retain(|(name, _)| !["etag", "cache-position"].contains(&&**name));
            seen.push((status, headers, body.replace(&key, "key")));
        }
        assert_eq!(seen[0], seen[1], "{body:?}");
    }
}

async fn a_request_id_of_the_client_comes_back(service: &Service) {
    let (ns, mut stream) = (namespace("id"), connect(service).await);
    for text in [
        put(&key_path(&ns, "k"), r#"{"value":1}"#, "X-Request-Id: mine\r\n"),
        get(&key_path(&ns, "k"), "x-request-id: mine\r\n"),
        get(&key_path(&ns, "other"), "X-REQUEST-ID: mine\r\n"),
    ] {
        let answer = wire::ask(&mut stream, &text).await;
        assert_eq!(answer.headers["x-request-id"], "mine", "{text}");
    }
}

/// Requests of both kinds, with the status and a part of the body that each answer must have.
fn mixture(ns: &str) -> Vec<(String, u16, String)> {
    let batch = |call: &str, body: &str| {
        let length = body.len();
        format!(
            "POST /api/v1/cache/{ns}/{call} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let chunked = format!(
        "PUT {} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{{\"value\":7}}\r\n0\r\n\r\n",
        key_path(ns, "chunked")
    );
    let (one, two) = (key_path(ns, "one"), key_path(ns, "two"));
    vec![
        (put(&one, r#"{"value":"first"}"#, ""), 201, "\"created\":true".into()),
        (get(&one, ""), 200, "{\"value\":\"first\"".into()),
        (get(&two, ""), 404, "key_not_found".into()),
        (batch("mset", r#"{"entries":[{"key":"two","value":"second"}]}"#), 200, "\"stored\":1".into()),
        (get(&two, ""), 200, "{\"value\":\"second\"".into()),
        (get(&one, ""), 200, "{\"value\":\"first\"".into()),
        (batch("mget", r#"{"keys":["one","two"]}"#), 200, "\"hits\":2".into()),
        (batch("mget", r#"{"keys":["two"]}"#), 200, "\"hits\":1".into()),
        (format!("DELETE {one} HTTP/1.1\r\nhost: localhost\r\n\r\n"), 200, "\"deleted\":true".into()),
        (get(&one, ""), 404, "key_not_found".into()),
        (get("/api/v1/cache/!/k", ""), 400, "invalid_namespace".into()),
        (get(&format!("/api/v1/cache/{ns}/stats"), ""), 200, "\"hit_rate\"".into()),
        (put(&two, r#"{"value":"third"}"#, ""), 200, "\"created\":false".into()),
        (get(&two, ""), 200, "{\"value\":\"third\"".into()),
        (chunked, 201, "\"created\":true".into()),
        (get(&key_path(ns, "chunked"), ""), 200, "{\"value\":7".into()),
        (get(&two, ""), 200, "{\"value\":\"third\"".into()),
    ]
}

fn check(answers: &[Answer], expected: &[(String, u16, String)]) {
    for (answer, (text, status, part)) in answers.iter().zip(expected) {
        let body = String::from_utf8_lossy(&answer.body);
        assert!(answer.status == *status && body.contains(part.as_str()), "{text}: {} {body}", answer.status);
    }
    assert_eq!(answers.len(), expected.len());
}

async fn requests_of_both_kinds_in_one_write_are_answered_in_order(service: &Service) {
    let (expected, mut stream) = (mixture(&namespace("whole")), connect(service).await);
    let all: String = expected.iter().map(|(text, ..)| text.as_str()).collect();
    stream.write_all(all.as_bytes()).await.expect("an open connection");
    check(&wire::read_answers(&mut stream, expected.len()).await, &expected);
}

async fn requests_may_be_split_anywhere(service: &Service) {
    for piece in [1, 2, 3, 7, 50, 111] {
        let (expected, stream) = (mixture(&namespace(&format!("pieces_{piece}"))), connect(service).await);
        stream.set_nodelay(true).expect("a TCP socket");
        let all: String = expected.iter().map(|(text, ..)| text.as_str()).collect();
        let (mut reader, mut writer) = stream.into_split();
        let writing = async {
            for piece in all.as_bytes().chunks(piece) {
                writer.write_all(piece).await.expect("an open connection");
                // Lets the service read some of the pieces separately.
                tokio::task::yield_now().await;
            }
        };
        let (answers, ()) = tokio::join!(wire::read_answers(&mut reader, expected.len()), writing);
        check(&answers, &expected);
    }
}

async fn many_pipelined_answers_wait_for_a_slow_reader(service: &Service) {
    let (cache, ns) = (service.client(), namespace("slow"));
    let sizes = [10, 5_000, 20_000, 300_000];
    for size in sizes {
        cache.set(&ns, &size.to_string(), &format!("\"{}\"", "v".repeat(size))).await.expect(201);
    }
    let mut stream = connect(service).await;
    let rounds = 20;
    let asked: String = sizes.map(|size| get(&key_path(&ns, &size.to_string()), "")).concat().repeat(rounds);
    stream.write_all(asked.as_bytes()).await.expect("an open connection");
    // The answers are far larger than the buffers of the sockets: the service must wait in the middle of them.
    let answers = wire::read_answers(&mut stream, sizes.len() * rounds).await;
    for (answer, size) in answers.iter().zip(sizes.iter().cycle()) {
        let value = answer.json()["value"].as_str().map(str::len);
        assert_eq!((answer.status, value), (200, Some(*size)));
    }
}

async fn a_connection_closes_when_its_client_asks_for_it(service: &Service) {
    let (cache, ns) = (service.client(), namespace("end"));
    cache.set(&ns, "k", "1").await.expect(201);
    let path = key_path(&ns, "k");
    for text in [get(&path, "connection: close\r\n"), format!("GET {path} HTTP/1.0\r\n\r\n")] {
        let mut stream = connect(service).await;
        // First a request for the fast path.
        assert_eq!(wire::ask(&mut stream, &get(&path, "")).await.status, 200);
        stream.write_all(text.as_bytes()).await.expect("an open connection");
        let answer = wire::read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 OK"), "{answer}");
    }
}

async fn reads_count_once_on_both_paths(service: &Service) {
    let (cache, ns) = (service.client(), namespace("counted"));
    cache.set(&ns, "k", "1").await.expect(201);
    let mut stream = connect(service).await;
    for headers in ["", BY_ROUTER, "", "", BY_ROUTER] {
        assert_eq!(wire::ask(&mut stream, &get(&key_path(&ns, "k"), headers)).await.status, 200);
        assert_eq!(wire::ask(&mut stream, &get(&key_path(&ns, "absent"), headers)).await.status, 404);
    }
    // Reads that ask for a lease: the fast path answers hits, and leaves misses to the router.
    for headers in ["prefer: lease=10\r\n", "Prefer: lease=10, wait=0\r\n"] {
        assert_eq!(wire::ask(&mut stream, &get(&key_path(&ns, "k"), headers)).await.status, 200);
        let miss = wire::ask(&mut stream, &get(&key_path(&ns, "absent"), headers)).await;
        assert!(miss.status == 404 && miss.header("cache-lease").is_some(), "{miss:?}");
    }
    let stats = cache.stats(&ns).await.expect(200).json();
    assert_eq!((&stats["hits"], &stats["misses"]), (&7.into(), &7.into()), "{stats}");
}

#[tokio::test]
async fn an_answer_during_shutdown_has_connection_close() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)).set("redis_timeout_ms", 4000));
    let _log = service.log_on_failure();
    let (cache, ns) = (service.client(), namespace("ending"));
    let (mut idle, mut waiting) = (connect(&service).await, connect(&service).await);
    for stream in [&mut idle, &mut waiting] {
        assert_eq!(wire::ask(stream, &get(&key_path(&ns, "absent"), "")).await.status, 404);
    }
    server.signal(Signal::Stop);
    waiting.write_all(get(&key_path(&ns, "other"), "").as_bytes()).await.expect("an open connection");
    eventually(LATER, async || {
        let in_flight = cache.metrics().await.total("sidecache_shard_in_flight");
        ensure!(in_flight >= 1.0, "{in_flight} in flight");
        Ok(())
    })
    .await;
    service.signal(Signal::Term);
    // Idle connections are closed first.
    assert_eq!(wire::read_to_end(&mut idle).await, "");
    server.signal(Signal::Cont);
    let answer = wire::read_to_end(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("\r\nconnection: close\r\n"), "{answer:?}");
}
