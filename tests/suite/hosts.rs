//! Which host names the service answers for. With DNS rebinding, a page's own name resolves to the service's address,
//! so the page can make a browser send requests to the service. These must be refused, while requests of programs,
//! probes and proxies work.

use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::answer::Answer;
use crate::support::client::{Client, encoded, key_path, namespace};
use crate::support::nginx::Nginx;
use crate::support::service::{Service, Settings};
use crate::support::wire;

use super::dashboard::{Forms, attribute};

/// Sends a request with this head, after a request that the fast path answers.
async fn ask(service: &Service, request_line: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    let first = "GET /api/v1/cache/hosts/absent HTTP/1.1\r\nhost: localhost\r\n\r\n";
    wire::ask(&mut stream, first).await.expect(404);
    stream.write_all(format!("{request_line}\r\n{headers}\r\n").as_bytes()).await.expect("an open connection");
    wire::read_answer(&mut stream).await
}

/// Paths of one request that the fast path answers, and of others that the router answers.
async fn targets(cache: &Client) -> [String; 4] {
    let ns = namespace("hosts");
    cache.set(&ns, "k", "1").await.expect(201);
    [
        key_path(&ns, "k"),
        format!("{}?metadata=full", key_path(&ns, "k")),
        "/livez".to_owned(),
        "/dashboard".to_owned(),
    ]
}

#[tokio::test]
async fn on_loopback_a_page_under_another_name_can_read_and_change_nothing() {
    let service = Service::start(Settings::embedded().set("advertise", "Cache-1:8080"));
    let cache = service.client();
    let paths = targets(&cache).await;
    for path in &paths {
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1", "10.1.2.3:80", "[::1]:8080", "cache-1", "cache-1:8080"]
        {
            ask(&service, &format!("GET {path} HTTP/1.1"), &format!("Host: {host}\r\n")).await.expect(200);
        }
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example"] {
            let answer = ask(&service, &format!("GET {path} HTTP/1.1"), &format!("Host: {host}\r\n")).await;
            assert!(answer.header("set-cookie").is_none(), "a cookie for forms: {:?}", answer.headers);
            let told = answer.expect_error(421, "misdirected_request");
            assert!(told.contains(host) && told.contains("hosts"), "{told}");
        }
    }
    // The requests of such a page: the browser believes that they go to the page's own site.
    let page =
        "host: evil.example\r\norigin: http://evil.example\r\nsec-fetch-site: same-origin\r\ncontent-length: 11\r\n";
    let key = &paths[0];
    for (method, path) in [("PUT", key.as_str()), ("DELETE", key), ("DELETE", key.rsplit_once('/').expect("a key").0)]
    {
        let body = if method == "PUT" { "{\"value\":2}" } else { "" };
        let headers = page.replace("content-length: 11", &format!("content-length: {}", body.len()));
        let answer = ask(&service, &format!("{method} {path} HTTP/1.1"), &(headers + "\r\n" + body)).await;
        answer.expect_error(421, "misdirected_request");
    }
    assert_eq!(cache.fetch(key).await.expect(200).value(), "1");
    let refused = cache.metrics().await.total_with("sidecache_http_errors_total", &[("code", "misdirected_request")]);
    assert_eq!(refused, 15.0, "12 reads and 3 changes");
}

#[tokio::test]
async fn a_request_without_a_host_or_with_two_is_refused() {
    let service = Service::start(Settings::embedded());
    let cache = service.client();
    for path in targets(&cache).await {
        let line = format!("GET {path} HTTP/1.1");
        for headers in [
            "",
            "host: localhost\r\nhost: localhost\r\n",
            "host: localhost\r\nx: y\r\nHost: evil.example\r\n",
            "host: \r\n",
            "host: a b\r\n",
            "host: user@localhost\r\n",
        ] {
            ask(&service, &line, headers).await.expect_error(400, "invalid_host");
        }
        // HTTP/1.0 does not require the header, and load balancers still send such probes.
        ask(&service, &format!("GET {path} HTTP/1.0"), "").await.expect(200);
        ask(&service, &format!("GET {path} HTTP/1.0"), "host: evil.example\r\n").await.expect(421);
        // A full URI in the request line takes precedence.
        ask(&service, &format!("GET http://localhost{path} HTTP/1.1"), "host: localhost\r\n").await.expect(200);
        ask(&service, &format!("GET http://evil.example{path} HTTP/1.1"), "host: localhost\r\n").await.expect(421);
        ask(&service, &format!("GET http://localhost{path} HTTP/1.1"), "").await.expect(400);
    }
    // The next request on the connection of a refused one is answered.
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    let refused =
        "PUT /api/v1/cache/hosts/k HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 11\r\n\r\n{\"value\":2}";
    wire::ask(&mut stream, refused).await.expect_error(421, "misdirected_request");
    wire::ask(&mut stream, "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect(200);
    let metrics = cache.metrics().await;
    let code = |code| metrics.total_with("sidecache_http_errors_total", &[("code", code)]);
    assert_eq!((code("invalid_host"), code("misdirected_request")), (28.0, 9.0));
}

#[tokio::test]
async fn on_other_addresses_programs_may_use_any_name_and_browsers_only_known_names() {
    let open = Settings::embedded().set("listen", "0.0.0.0:0");
    let service = Service::start(open.clone());
    let listed = Service::start(open.set("hosts", "sidecache.default.svc, cache.example"));
    let cache = service.client();
    let [entry, full, live, dashboard] = targets(&cache).await;
    for path in [&entry, &full, &live, &dashboard] {
        let line = format!("GET {path} HTTP/1.1");
        // A scrape uses the name of a service, a probe the address of a pod.
        for host in ["sidecache:8080", "10.0.0.7:8080"] {
            ask(&service, &line, &format!("host: {host}\r\n")).await.expect(200);
        }
        for sign in ["origin: http://sidecache:8080", "Sec-Fetch-Mode: navigate", "sec-fetch-site: none"] {
            ask(&service, &line, &format!("host: sidecache:8080\r\n{sign}\r\n")).await.expect(421);
            ask(&service, &line, &format!("{sign}\r\nhost: 10.0.0.7\r\n")).await.expect(200);
        }
    }
    let line = "GET /livez HTTP/1.1";
    for host in ["cache.example", "Sidecache.Default.Svc:8080", "localhost", "10.0.0.7:8080"] {
        ask(&listed, line, &format!("host: {host}\r\n")).await.expect(200);
        ask(&listed, line, &format!("host: {host}\r\nsec-fetch-site: none\r\n")).await.expect(200);
    }
    ask(&listed, line, "host: sidecache:8080\r\n").await.expect_error(421, "misdirected_request");
    ask(&listed, "GET /livez HTTP/1.0", "").await.expect_error(400, "invalid_host");
}

/// A browser sends no `Sec-Fetch-Site` to an address that it considers insecure: only `Origin` shows the other site.
#[tokio::test]
async fn a_call_from_a_page_of_another_site_is_recognised_by_its_origin() {
    let service = Service::start(Settings::embedded().set("listen", "0.0.0.0:0"));
    let (cache, ns) = (service.client(), namespace("hosts"));
    let path = format!("/api/v1/cache/{ns}/mset");
    let body = Some(br#"{"entries":[{"key":"k","value":1}]}"#.to_vec());
    let send = async |origin: &str| {
        cache.send(Method::POST, &path, &[("origin", origin), ("content-type", "text/plain")], body.clone()).await
    };
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        send(origin).await.expect_error(403, "cross_site");
    }
    cache.get(&ns, "k").await.expect(404);
    send(&format!("http://{}", service.address())).await.expect(200);
}

/// A proxy like one that terminates TLS: it sends another `Host` than the one that the browser used.
fn front(service: &Service) -> Nginx {
    let port = service.address().port();
    Nginx::start(|listen| {
        format!(
            "server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://127.0.0.1:{port};\n\
             proxy_http_version 1.1; proxy_set_header Host sidecache; proxy_set_header Connection \"\"; }} }}"
        )
    })
}

#[tokio::test]
async fn forms_work_behind_a_proxy_whose_names_are_set() {
    let settings = Settings::embedded().set("hosts", "sidecache").set("public_url", "https://Cache.example/");
    let service = Service::start(settings);
    let nginx = front(&service);
    let (client, ns) = (nginx.client(), namespace("hosts"));
    client.set(&ns, "k", "1").await.expect(201);
    let page = format!("/dashboard/namespaces/{}", encoded(&ns));
    let forms = Forms::of(&client, &page).await;
    let flush = format!("{page}/flush");
    for origin in ["https://evil.example", "http://cache.example", "null"] {
        forms.post_with(&flush, &[], &[("origin", origin)]).await.expect(403);
    }
    let shown = forms.post_with(&flush, &[], &[("origin", "https://cache.example")]).await.expect(200);
    assert_eq!(attribute(shown.text(), "id=\"dry-run\"", "data-count").as_deref(), Some("1"));

    // Without the settings, the service knows neither the proxy's name for it nor its public name.
    let plain = Service::start(Settings::embedded());
    let nginx = front(&plain);
    nginx.client().fetch("/dashboard").await.expect_error(421, "misdirected_request");
}
