//! How long connections stay open, between requests and while the head of a request arrives; and the headers that
//! tell proxies how long to keep connections and what they may cache.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{key_path, namespace};
use crate::support::service::{Service, Settings, Store};
use crate::support::wire;

const HEADER: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(1600);

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address()).await.expect("the service accepts connections")
}

/// Requests after which a connection is idle: one for the fast path, one for the router, and one with a chunked body,
/// whose length only the router can tell.
fn requests(path: &str) -> [String; 3] {
    let chunked = "5\r\n{\"val\r\n6\r\nue\":1}\r\n0\r\n\r\n";
    [
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
        format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
    ]
}

/// The bug: the deadline for a head also closed idle connections, so a proxy that kept them longer lost requests.
#[tokio::test]
async fn idle_connections_and_request_heads_have_separate_timeouts() {
    let settings =
        Settings::embedded().set("header_timeout_ms", HEADER.as_millis()).set("idle_timeout_ms", IDLE.as_millis());
    let service = Service::start(settings);
    let path = key_path(&namespace("keep-alive"), "k");
    let cases = requests(&path).into_iter().flat_map(|request| [(request.clone(), ""), (request, "GET /li")]);
    let all = cases.map(async |(request, begun)| {
        let mut stream = connect(&service).await;
        let answer = wire::ask(&mut stream, &request).await;
        assert!(answer.status < 500, "{request}");
        assert_eq!(answer.header("keep-alive"), Some("timeout=1"), "{request}");
        // Longer than the deadline for a head.
        tokio::time::sleep(2 * HEADER).await;
        let answer = wire::ask(&mut stream, &request).await;
        assert!(answer.status < 500, "{request}");
        stream.write_all(begun.as_bytes()).await.expect("an open connection");
        let since = Instant::now();
        assert_eq!(wire::read_to_end(&mut stream).await, "", "{request}");
        (request, begun, since.elapsed())
    });
    for (request, begun, took) in futures_util::future::join_all(all).await {
        let expected = if begun.is_empty() { IDLE } else { HEADER };
        assert!(took >= expected.mul_f32(0.9), "{request:?}, then {begun:?}: closed after {took:?}");
        assert!(begun.is_empty() || took < IDLE.mul_f32(0.9), "{request:?}, then {begun:?}: closed after {took:?}");
    }
    let slow = service.client().metrics().await.total("sidecache_http_connections_slow_total");
    assert_eq!(slow, 3.0, "the connections with a started request");
}

#[tokio::test]
async fn connections_are_kept_longer_than_proxies_keep_them() {
    let service = Store::Embedded.shared_service();
    let path = key_path(&namespace("keep-alive"), "k");
    for request in requests(&path) {
        let mut stream = connect(service).await;
        assert_eq!(wire::ask(&mut stream, &request).await.header("keep-alive"), Some("timeout=75"), "{request}");
        let last = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        assert_eq!(wire::ask(&mut stream, &last).await.header("keep-alive"), None, "{last}");
    }
}

/// Without `Cache-Control`, a shared cache in front of the service may store a 404, and some store a 200 as well.
#[tokio::test]
async fn a_shared_cache_in_front_is_told_to_revalidate() {
    let service = Store::Embedded.shared_service();
    let (cache, ns) = (service.client(), namespace("keep-alive"));
    cache.set(&ns, "k", "1").await.expect(201);
    let etag = cache.get(&ns, "k").await.header("etag").expect("an ETag").to_owned();
    let router = ("cache-control", "no-transform");
    for (key, headers, status) in [
        ("k", vec![], 200),
        ("k", vec![router], 200),
        ("k", vec![("if-none-match", etag.as_str())], 304),
        ("absent", vec![], 404),
        ("absent", vec![router], 404),
    ] {
        let answer = cache.get_with(&ns, key, &headers).await.expect(status);
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{key} {headers:?}");
    }
    for key in ["k", "absent"] {
        assert_eq!(cache.head(&ns, key).await.header("cache-control"), Some("no-cache"), "{key}");
    }
    for path in [format!("/api/v1/namespaces/{ns}-none"), "/nope".to_owned(), "/health".to_owned()] {
        assert_eq!(cache.fetch(&path).await.header("cache-control"), Some("no-cache"), "{path}");
    }
}
