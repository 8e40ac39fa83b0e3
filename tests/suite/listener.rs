//! The listener and clients that use a connection in odd ways. `connections.rs` has tests with very many and with
//! slow clients, `input.rs` has the deadline of a request head.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, key_path, namespace};
use crate::support::eventually::{LATER, eventually};
use crate::support::process::Signal;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings, Store};
use crate::support::wire;

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).await.expect("the service accepts connections")
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("the service accepts the bytes");
}

/// Waits until `right` accepts the value of a metric.
async fn until(cache: &Client, metric: &str, right: impl Fn(f64) -> bool) {
    eventually(LATER, async || {
        let value = cache.metrics().await.total(metric);
        ensure!(right(value), "{metric} is {value}");
        Ok(())
    })
    .await;
}

/// The client closes its sending half while the shard is stopped. The service must still answer the request.
#[tokio::test]
async fn a_half_closed_connection_gets_its_answer() {
    let server = Redis::start();
    let service = Service::start(Settings::on(std::slice::from_ref(&server)));
    let (cache, ns) = (service.client(), namespace("listener"));
    cache.set(&ns, "k", "1").await.expect(201);
    let path = key_path(&ns, "k");
    server.signal(Signal::Stop);
    let mut streams = Vec::new();
    for text in [
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ncache-control: no-cache\r\n\r\n"),
        format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 11\r\n\r\n{{\"value\":2}}"),
    ] {
        let mut stream = connect(&service).await;
        send(&mut stream, &text).await;
        stream.shutdown().await.expect("an open socket");
        streams.push(stream);
    }
    until(&cache, "sidecache_http_connections", |open| open >= 3.0).await;
    server.signal(Signal::Cont);
    for mut stream in streams {
        let answer = wire::read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "2");
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_their_order() {
    let service = Store::Embedded.shared_service();
    let ns = namespace("listener");
    let mut text = String::new();
    for number in 0..50 {
        let (path, body) = (key_path(&ns, &format!("k{number}")), format!("{{\"value\":{number}}}"));
        let length = body.len();
        text += &format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
        text += &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    }
    text += "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut stream = connect(service).await;
    send(&mut stream, &text).await;
    let answers = wire::read_to_end(&mut stream).await;
    let statuses: Vec<&str> = answers.matches("HTTP/1.1 20").collect();
    assert_eq!(statuses.len(), 101, "{answers}");
    let values: Vec<&str> = answers.match_indices("{\"value\":").map(|(at, _)| &answers[at + 9..]).collect();
    for (number, value) in values.iter().enumerate() {
        assert!(value.starts_with(&format!("{number},")), "{number}: {value}");
    }
    assert_eq!(values.len(), 50);
}

#[tokio::test]
async fn http_1_0_connections_close_unless_they_ask_for_keep_alive() {
    let service = Store::Embedded.shared_service();
    let mut stream = connect(service).await;
    send(&mut stream, "GET /livez HTTP/1.0\r\n\r\n").await;
    let answer = wire::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("{\"status\":\"alive\"}"), "{answer:?}");

    let mut stream = connect(service).await;
    for _ in 0..2 {
        let answer =
            wire::ask(&mut stream, "GET /livez HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await.expect(200);
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
}

#[tokio::test]
async fn headers_too_long_or_too_many_are_a_431() {
    let service = Store::Embedded.shared_service();
    let long = format!("x-long: {}\r\n", "x".repeat(40 * 1024));
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    for headers in [long, many] {
        let mut stream = connect(service).await;
        // The service may answer before the whole head was sent.
        let _ = stream.write_all(format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes()).await;
        let answer = wire::read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
    let fair = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx-fair: {}\r\n\r\n", "x".repeat(16 * 1024));
    wire::ask(&mut connect(service).await, &fair).await.expect(200);
}

#[tokio::test]
async fn a_too_large_body_is_refused_before_it_is_sent() {
    let service = Store::Embedded.shared_service();
    let path = key_path(&namespace("listener"), "k");
    let text = format!(
        "PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\nexpect: 100-continue\r\n\r\n"
    );
    let mut stream = connect(service).await;
    send(&mut stream, &text).await;
    // The first line belongs to the final answer: there is no `100 Continue` before it.
    let answer = wire::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"body_too_large\""), "{answer:?}");
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let service = Service::start(Settings::embedded().set("request_timeout_ms", 1_000));
    let (cache, ns) = (service.client(), namespace("listener"));
    let large = format!("\"{}\"", "x".repeat(4_000_000));
    cache.set(&ns, "k", &large).await.expect(201);
    let mut stream = connect(&service).await;
    // The answers are larger than the kernel's buffers on both ends.
    let text = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", key_path(&ns, "k")).repeat(20);
    send(&mut stream, &text).await;
    until(&cache, "sidecache_http_connections_stalled_total", |stalled| stalled == 1.0).await;
    cache.get(&ns, "k").await.expect(200);
}

/// A service with room for one large body.
fn one_body() -> Settings {
    Settings::embedded().set("max_body_bytes", 1_000_000).set("max_value_bytes", 1_000_000).set("max_bodies_mb", 1)
}

#[tokio::test]
async fn bodies_beyond_the_memory_limit_are_refused_until_there_is_room() {
    const LARGE: usize = 900_000;
    let service = Service::start(one_body());
    let (cache, ns) = (service.client(), namespace("listener"));
    let large = format!("\"{}\"", "x".repeat(LARGE));
    let path = key_path(&ns, "first");
    for end in ["answered", "gone"] {
        let body = format!("{{\"value\":{large}}}");
        let mut first = connect(&service).await;
        let head = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        send(&mut first, &head).await;
        let (most, rest) = body.split_at(LARGE - 1_000);
        send(&mut first, most).await;
        until(&cache, "sidecache_http_body_bytes", |bytes| bytes >= most.len() as f64).await;

        let refused = cache.set(&ns, "second", &large).await;
        assert_eq!(refused.header("retry-after"), Some("1"));
        refused.expect_error(503, "overloaded");
        // Without a length, the service notices the size only while it reads the body.
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let chunked = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        wire::ask(&mut connect(&service).await, &chunked).await.expect_error(503, "overloaded");
        // There is room for small bodies.
        assert!(cache.set(&ns, "small", "1").await.status < 300);
        cache.get(&ns, "small").await.expect(200);

        if end == "answered" {
            send(&mut first, rest).await;
            wire::read_answer(&mut first).await.expect(201);
        } else {
            drop(first);
        }
        until(&cache, "sidecache_http_body_bytes", |bytes| bytes == 0.0).await;
        assert!(cache.set(&ns, "second", &large).await.status < 300);
    }
    let refused = cache.metrics().await.total("sidecache_http_bodies_refused_total");
    assert_eq!(refused, 4.0);
}

#[tokio::test]
async fn sigterm_ends_the_service_within_the_drain_timeout_whatever_clients_do() {
    const DRAIN: Duration = Duration::from_secs(4);
    let settings = Settings::embedded().set("drain_timeout_ms", DRAIN.as_millis()).set("header_timeout_ms", 60_000);
    let mut service = Service::start(settings.clone());
    let (cache, ns) = (service.client(), namespace("listener"));
    cache.set(&ns, "other", "1").await.expect(201);
    let path = key_path(&ns, "k");

    let mut idle = connect(&service).await;
    wire::ask(&mut idle, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect(200);
    let mut slow = connect(&service).await;
    send(&mut slow, "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await;
    let body = r#"{"value":"written while draining"}"#;
    let length = body.len();
    let head =
        format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n");
    let (mut under_way, mut never) = (connect(&service).await, connect(&service).await);
    for stream in [&mut under_way, &mut never] {
        send(stream, &head).await;
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.expect("an interim answer");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    service.signal(Signal::Term);
    let signalled = Instant::now();
    assert_eq!(wire::read_to_end(&mut idle).await, "", "an idle connection is closed");
    eventually(LATER, async || {
        ensure!(TcpStream::connect(service.address()).await.is_err(), "still accepting");
        Ok(())
    })
    .await;
    send(&mut under_way, body).await;
    wire::read_answer(&mut under_way).await.expect(201);
    assert_eq!(service.ended().code(), Some(0));
    let took = signalled.elapsed();
    // On a loaded machine the service may end a little late, but not much later than the drain timeout.
    assert!(took < 3 * DRAIN, "ended after {took:?}");
    eprintln!("ended {took:?} after the signal, with {DRAIN:?} to drain");

    // The operations that were answered are in the access log after the next start.
    let again = Service::start(settings.folder(service.folder()));
    let logs = again.client().logs(&ns, &[]).await.expect(200).json();
    let operations: Vec<&str> =
        logs["logs"].as_array().expect("rows").iter().filter_map(|row| row["operation"].as_str()).collect();
    assert_eq!(operations.len(), 2, "{logs}");
}

/// The bug: the waits for connections and requests took half a second of any drain time, so with less nothing was left
/// to write the rows that were in memory.
#[tokio::test]
async fn regression_a_short_drain_time_leaves_time_to_write_rows() {
    let settings = Settings::embedded().set("drain_timeout_ms", 500);
    let mut service = Service::start(settings.clone());
    let (cache, ns) = (service.client(), namespace("listener"));
    for number in 0..10 {
        cache.set(&ns, &format!("k{number}"), "1").await.expect(201);
    }
    service.signal(Signal::Term);
    assert_eq!(service.ended().code(), Some(0));
    let again = Service::start(settings.folder(service.folder()));
    let logs = again.client().logs(&ns, &[]).await.expect(200).json();
    assert_eq!(logs["logs"].as_array().map(Vec::len), Some(10), "{logs}");
}
