//! Invalid requests: each changes nothing and gets an error in the common format, which names the problem.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::both_stores::on_both_stores;
use crate::support::client::{cache_path, key_path, namespace};
use crate::support::service::{Service, Settings};
use crate::support::wire;

on_both_stores! {
    a_put_without_a_proper_body_is_refused,
    a_put_names_the_field_that_is_wrong,
    a_ttl_is_a_whole_number_from_1_to_a_hundred_years,
    regression_a_whole_number_may_have_a_fraction_of_zeros,
    regression_a_date_before_1970_is_valid,
    regression_a_policys_number_that_is_too_large_names_the_limit,
    tags_are_a_list_of_names,
    a_body_needs_no_content_type,
    an_mget_without_proper_keys_is_refused,
    an_mset_with_a_wrong_entry_stores_nothing_and_names_it,
    a_batch_of_1001_keys_is_refused,
    unknown_query_parameters_are_refused_before_anything_is_flushed,
    listing_limits_and_cursors_are_checked,
    unknown_routes_and_methods_are_answered_in_json,
    a_request_id_of_the_client_comes_back,
    requests_that_another_site_makes_a_browser_send_change_nothing,
}

async fn a_put_without_a_proper_body_is_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    let broken: &[&[u8]] = &[
        b"",
        b"  ",
        b"{",
        br#"{"value""#,
        br#"{"value":}"#,
        br#"{"value":1"#,
        br#"{"value":1,}"#,
        br#"{"value":01}"#,
        br#"{"value":1.}"#,
        br#"{"value":.5}"#,
        br#"{"value":+1}"#,
        br#"{"value":nul}"#,
        br#"{"value":NaN}"#,
        br#"{"value":'a'}"#,
        br#"{"value":"a}"#,
        br#"{"value":"\x"}"#,
        br#"{"value":[1,]}"#,
        br#"{"value":[1}"#,
        br#"{value:1}"#,
        br#"{"value":1} x"#,
        br#"{"value":1}{"value":2}"#,
        b"{\"value\":\"\xff\"}",
        b"{\"value\":\"\xed\xa0\x80\"}",
        b"{\"value\":\"a\nb\"}",
        b"\xef\xbb\xbf{\"value\":1}",
        b"[]",
        b"null",
        b"1",
        br#""value""#,
        br#"[{"value":1}]"#,
        b"value=1",
    ];
    for body in broken {
        let answer = cache.put(&ns, "k", *body).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!(answer.status, 400, "{shown}");
        answer.expect_error(400, "invalid_body");
    }
    cache.get(&ns, "k").await.expect_error(404, "key_not_found");
}

async fn a_put_names_the_field_that_is_wrong(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    cache.set(&ns, "k", "\"before\"").await.expect(201);
    for (body, field) in [
        (r#"{}"#, "value"),
        (r#"{"ttl":5}"#, "value"),
        (r#"{"value":1,"tll":5}"#, "tll"),
        (r#"{"Value":1}"#, "Value"),
        (r#"{"value":1,"ttl":5,"tag":"a"}"#, "tag"),
        (r#"{"value":1,"key":"k"}"#, "key"),
    ] {
        let problem = cache.put(&ns, "k", body).await.expect_error(400, "invalid_body");
        assert!(problem.contains(field), "{body}: {problem}");
    }
    assert_eq!(cache.get(&ns, "k").await.expect(200).value(), "\"before\"");
}

async fn a_ttl_is_a_whole_number_from_1_to_a_hundred_years(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    let out_of_range = ["0", "-1", "1.5", "3153600001", "9223372036854775808", "18446744073709551616"];
    for ttl in out_of_range {
        let put = cache.put(&ns, "k", format!("{{\"value\":1,\"ttl\":{ttl}}}")).await;
        let problem = put.expect_error(400, "invalid_ttl");
        assert!(problem.contains("ttl"), "{ttl}: {problem}");
        let mset = cache.mset_raw(&ns, format!(r#"{{"entries":[{{"key":"k","value":1,"ttl":{ttl}}}]}}"#)).await;
        let problem = mset.expect_error(400, "invalid_ttl");
        assert!(problem.contains("entries[0]") && problem.contains("ttl"), "{ttl}: {problem}");
    }
    for ttl in ["1e400", "\"60\"", "true", "[]", "{}"] {
        let put = cache.put(&ns, "k", format!("{{\"value\":1,\"ttl\":{ttl}}}")).await;
        let problem = put.expect_one_of_errors(400, &["invalid_ttl", "invalid_body"]);
        assert!(problem.contains("ttl"), "{ttl}: {problem}");
    }
    cache.get(&ns, "k").await.expect_error(404, "key_not_found");
    for ttl in ["1", "3153600000", "null"] {
        let key = format!("ttl {ttl}");
        cache.put(&ns, &key, format!("{{\"value\":1,\"ttl\":{ttl}}}")).await.expect(201);
    }
}

/// The bug: `60.0` was refused. For JSON Schema it is an integer, and programs that have only floats write 60 so.
async fn regression_a_whole_number_may_have_a_fraction_of_zeros(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    cache.put(&ns, "k", r#"{"value":1,"ttl":60.0}"#).await.expect(201);
    cache.mset_raw(&ns, r#"{"entries":[{"key":"l","value":1,"ttl":60.00}]}"#).await.expect(200);
    for key in ["k", "l"] {
        let left = cache.get(&ns, key).await.expect(200).metadata().ttl_remaining;
        assert!(left.is_some_and(|left| (1..=60).contains(&left)), "{left:?}");
    }
    let policy = r#"{"default_ttl":30.0,"max_size_mb":1.0,"stale_if_error":0.0,"tombstone_ttl":2.0}"#;
    let stored = cache.put_policy(&ns, policy).await;
    assert_eq!((stored.number("default_ttl"), stored.number("max_size_mb")), (30, 1));
    cache.put_policy(&ns, r#"{"default_ttl":30.5}"#).await.expect_error(400, "invalid_policy");
}

/// The bug: a policy's number that is far too large was called "not at least 0".
async fn regression_a_policys_number_that_is_too_large_names_the_limit(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    for (field, limit) in [
        ("stale_while_revalidate", "3153600000"),
        ("default_ttl", "3153600000"),
        ("tombstone_ttl", "3153600000"),
        ("max_size_mb", "1073741824"),
    ] {
        for number in ["100000000000000000000", "3153600001"] {
            let refused = cache.put_policy(&ns, format!("{{\"{field}\":{number}}}")).await;
            let said = refused.expect_error(400, "invalid_policy");
            assert!(said.contains(field) && said.contains(limit), "{said}");
        }
    }
}

/// The bug: such a date was refused. It is valid, and selects everything.
async fn regression_a_date_before_1970_is_valid(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    for date in ["1969-12-31T23:59:59Z", "0913-11-09T13:04:11.503Z"] {
        cache.logs(&ns, &[("since", date)]).await.expect(200);
    }
    cache.logs(&ns, &[("since", "1900-02-29T00:00:00Z")]).await.expect_error(400, "invalid_query");
}

async fn tags_are_a_list_of_names(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    for tags in ["\"a\"", "1", "{}", "[1]", "[null]", "[[\"a\"]]", "[\"\"]", "[\"a\\u0000\"]", "[\"ok\",\"a\\nb\"]"] {
        let put = cache.put(&ns, "k", format!("{{\"value\":1,\"tags\":{tags}}}")).await;
        let problem = put.expect_one_of_errors(400, &["invalid_tag", "invalid_body"]);
        assert!(problem.contains("tag"), "{tags}: {problem}");
    }
    cache.put(&ns, "k", r#"{"value":1,"tags":[""]}"#).await.expect_error(400, "invalid_tag");
    cache.get(&ns, "k").await.expect_error(404, "key_not_found");
    for tags in ["[]", "[\"a\"]", "[\"a\",\"a\"]", "[\"with space\",\"ü\",\"a:b\",\"a/b\"]"] {
        cache.put(&ns, tags, format!("{{\"value\":1,\"tags\":{tags}}}")).await.expect(201);
    }
}

async fn a_body_needs_no_content_type(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    let types = ["application/x-www-form-urlencoded", "application/json; charset=utf-8", "text/plain"];
    for (index, content_type) in types.iter().enumerate() {
        let path = key_path(&ns, &index.to_string());
        let body = Some(br#"{"value":1}"#.to_vec());
        cache.send(Method::PUT, &path, &[("content-type", content_type)], body).await.expect(201);
    }
}

async fn an_mget_without_proper_keys_is_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    for (body, field) in [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        (r#"["a"]"#, ""),
        ("{}", "keys"),
        (r#"{"keys":"a"}"#, ""),
        (r#"{"keys":null}"#, ""),
        (r#"{"keys":[1]}"#, ""),
        (r#"{"keys":[["a"]]}"#, ""),
        (r#"{"keys":["a"],"ttl":1}"#, "ttl"),
        (r#"{"key":["a"]}"#, "key"),
    ] {
        let problem = cache.mget_raw(&ns, body).await.expect_error(400, "invalid_body");
        assert!(problem.contains(field), "{body}: {problem}");
    }
    let none = cache.mget(&ns, &[]).await;
    none.expect_json(200, &json!({"results": {}, "hits": 0, "misses": 0}));
}

async fn an_mset_with_a_wrong_entry_stores_nothing_and_names_it(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    for (body, field) in [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        ("{}", "entries"),
        (r#"{"entries":{}}"#, ""),
        (r#"{"entries":[],"ttl":1}"#, "ttl"),
    ] {
        let problem = cache.mset_raw(&ns, body).await.expect_error(400, "invalid_body");
        assert!(problem.contains(field), "{body}: {problem}");
    }
    let cases: &[(&str, &[&str], &str)] = &[
        (r#"{"value":1}"#, &["invalid_body", "invalid_key"], "key"),
        (r#"{"key":"b"}"#, &["invalid_body"], "value"),
        (r#"{"key":"b","value":1,"tll":1}"#, &["invalid_body"], "tll"),
        (r#"{"key":1,"value":1}"#, &["invalid_body", "invalid_key"], ""),
        (r#"{"key":"b","value":1,"ttl":0}"#, &["invalid_ttl"], "ttl"),
        (r#"{"key":"b","value":1,"ttl":"60"}"#, &["invalid_ttl", "invalid_body"], "ttl"),
        (r#"{"key":"b","value":1,"tags":[""]}"#, &["invalid_tag"], "tag"),
        (r#"{"key":"b","value":1,"tags":"x"}"#, &["invalid_tag", "invalid_body"], "tag"),
        (r#"{"key":"stats","value":1}"#, &["reserved_key"], "stats"),
        ("null", &["invalid_body"], ""),
        ("[]", &["invalid_body"], ""),
    ];
    for (wrong, codes, field) in cases {
        let body = format!(r#"{{"entries":[{{"key":"a","value":1}},{wrong},{{"key":"c","value":1}}]}}"#);
        let problem = cache.mset_raw(&ns, body).await.expect_one_of_errors(400, codes);
        assert!(problem.contains("entries[1]") && problem.contains(field), "{wrong}: {problem}");
    }
    // If several entries are wrong, the error names the first.
    let two = r#"{"entries":[{"key":"a","value":1},{"key":"b","value":1,"ttl":0},{"key":"stats","value":1}]}"#;
    let problem = cache.mset_raw(&ns, two).await.expect_error(400, "invalid_ttl");
    assert!(problem.contains("entries[1]"), "{problem}");
    assert_eq!(cache.list(&ns, &[]).await.number("size"), 0);
    cache.mset(&ns, &json!([])).await.expect_json(200, &json!({"success": true, "stored": 0}));
}

async fn a_batch_of_1001_keys_is_refused(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    let keys: Vec<String> = (0..1_001).map(|number| format!("k{number}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let problem = cache.mget(&ns, &names).await.expect_error(400, "too_many_keys");
    assert!(problem.contains("1000"), "the error names the limit: {problem}");
    let entries: Vec<Value> = names.iter().map(|key| json!({"key": key, "value": 1})).collect();
    cache.mset(&ns, &json!(entries)).await.expect_error(400, "too_many_keys");
    assert_eq!(cache.list(&ns, &[]).await.number("size"), 0);
    cache.mget(&ns, &names[..1_000]).await.expect(200);
    cache.fill(&ns, &json!(entries[..1_000])).await;
}

async fn unknown_query_parameters_are_refused_before_anything_is_flushed(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    cache.set(&ns, "k", "1").await.expect(201);
    for query in [vec![("patern", "user_*")], vec![("pattern", "x*"), ("foo", "1")], vec![("limit", "5")]] {
        let name = query.last().expect("a parameter").0;
        let problem = cache.flush(&ns, &query).await.expect_error(400, "invalid_query");
        assert!(problem.contains(name), "{problem}");
    }
    let both = cache.flush(&ns, &[("pattern", "*"), ("tag", "x")]).await;
    both.expect_error(400, "invalid_query");
    // An empty pattern must not select everything.
    let empty = cache.flush(&ns, &[("pattern", "")]).await;
    assert!([200, 400].contains(&empty.status), "{}", empty.status);
    let problem = cache.list(&ns, &[("patern", "k")]).await.expect_error(400, "invalid_query");
    assert!(problem.contains("patern"), "{problem}");
    cache.get(&ns, "k").await.expect(200);
}

async fn listing_limits_and_cursors_are_checked(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    cache.set(&ns, "k", "1").await.expect(201);
    for limit in ["0", "1001", "-1", "1.5", "abc", "", "18446744073709551616"] {
        let problem = cache.list(&ns, &[("limit", limit)]).await.expect_error(400, "invalid_query");
        assert!(problem.contains("limit"), "{problem}");
    }
    cache.list(&ns, &[("limit", "1")]).await.expect(200);
    cache.list(&ns, &[("limit", "1000")]).await.expect(200);
    for cursor in ["nonsense", "!", "99999999999999999999", "e30", "ü"] {
        cache.list(&ns, &[("cursor", cursor)]).await.expect_error(400, "invalid_cursor");
    }
}

async fn unknown_routes_and_methods_are_answered_in_json(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    for path in ["/nope", "/api", "/api/v1", "/api/v1/nope", "/api/v2/cache/a/b", "/api/v1/cache/a/b/c", "/health/x"]
    {
        cache.fetch(path).await.expect_error(404, "no_such_route");
        cache.send(Method::POST, path, &[], Some(b"{}".to_vec())).await.expect_error(404, "no_such_route");
    }
    let key = key_path(&ns, "k");
    let space = cache_path(&ns);
    for (method, path, allowed) in [
        (Method::POST, key.as_str(), "PATCH"),
        (Method::PATCH, space.as_str(), "DELETE"),
        (Method::POST, space.as_str(), "DELETE"),
        (Method::PUT, space.as_str(), "GET"),
        (Method::POST, "/health", "GET"),
        (Method::DELETE, "/metrics", "GET"),
        (Method::PUT, "/livez", "GET"),
        (Method::POST, "/api/v1/namespaces", "GET"),
        (Method::POST, "/api/v1/cluster", "GET"),
        (Method::POST, "/api/v1/namespaces/x", "PUT"),
    ] {
        let answer = cache.send(method.clone(), path, &[], Some(b"{}".to_vec())).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        let allow = answer.header("allow").unwrap_or("").to_owned();
        assert!(allow.contains(allowed), "{method} {path} allows {allow:?}");
        answer.expect_error(405, "method_not_allowed");
    }
}

async fn a_request_id_of_the_client_comes_back(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    cache.set(&ns, "k", "1").await.expect(201);
    let mut made = Vec::new();
    for path in [key_path(&ns, "k"), key_path(&ns, "absent"), "/health".to_owned(), "/nope".to_owned()] {
        let answer = cache.send(Method::GET, &path, &[("x-request-id", "Abc-123_x.y")], None).await;
        assert_eq!(answer.header("x-request-id"), Some("Abc-123_x.y"), "{path}");
        made.push(cache.fetch(&path).await.header("x-request-id").expect("the service makes an id").to_owned());
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 4, "ids are unique");
}

/// The service reads a body as JSON whatever its content type is, so a browser sends such a POST without a preflight.
async fn requests_that_another_site_makes_a_browser_send_change_nothing(service: &Service) {
    let (cache, ns) = (service.client(), namespace("input"));
    cache.set(&ns, "k", "1").await.expect(201);
    let (entries, key) = (cache_path(&ns), key_path(&ns, "k"));
    let (mget, mset, policy) =
        (format!("{entries}/mget"), format!("{entries}/mset"), format!("/api/v1/namespaces/{ns}"));
    cache.send(Method::PUT, &policy, &[], Some(br#"{"default_ttl":60}"#.to_vec())).await;
    let calls = [
        (Method::POST, &mset, r#"{"entries":[{"key":"k","value":2},{"key":"new","value":2}]}"#),
        (Method::POST, &mget, r#"{"keys":["k"]}"#),
        (Method::PUT, &key, r#"{"value":2}"#),
        (Method::DELETE, &key, ""),
        (Method::DELETE, &entries, ""),
        (Method::PUT, &policy, r#"{"default_ttl":1}"#),
        (Method::DELETE, &policy, ""),
    ];
    let send = async |site: &str, (method, path, body): &(Method, &String, &str), more: &[(&str, &str)]| {
        let mut headers = vec![("sec-fetch-site", site), ("content-type", "text/plain")];
        headers.extend_from_slice(more);
        cache.send(method.clone(), path, &headers, Some(body.as_bytes().to_vec())).await
    };
    for site in ["cross-site", "same-site", "?"] {
        for call in &calls {
            send(site, call, &[]).await.expect_error(403, "cross_site");
        }
        // The router refuses a write as well. A read is allowed.
        send(site, &calls[2], &[("cache-control", "max-age=0")]).await.expect_error(403, "cross_site");
        let seen = cache.get_with(&ns, "k", &[("sec-fetch-site", site)]).await.expect(200);
        assert_eq!(seen.value(), "1");
    }
    assert_eq!(cache.all_keys(&ns).await, ["k"]);
    assert_eq!(cache.policy(&ns).await.expect(200).number("default_ttl"), 60);
    // The values for requests of the service's own pages, and for requests that no page made.
    for site in ["same-origin", "none"] {
        for call in &calls {
            let status = send(site, call, &[]).await.status;
            assert!([200, 201].contains(&status), "{site}: {} {}: {status}", call.0, call.1);
        }
    }
}

/// One store is enough: the body is refused before the store is involved.
#[tokio::test]
async fn a_body_over_32_mib_is_refused_cleanly() {
    const LIMIT: usize = 32 * 1024 * 1024;
    let service = Service::start(Settings::embedded());
    let ns = namespace("input");
    let path = key_path(&ns, "k");
    for framing in [format!("content-length: {}", LIMIT + 1), "transfer-encoding: chunked".to_owned()] {
        let stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
        let (mut reader, mut writer) = stream.into_split();
        // The service may answer and close the connection before it has read the whole body. Then writing fails, but
        // the answer can still be read.
        let path_sent = path.clone();
        let sender = tokio::spawn(async move {
            let head = format!("PUT {path_sent} HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n");
            let block = vec![b' '; 1024 * 1024];
            let chunked = framing.contains("chunked");
            writer.write_all(head.as_bytes()).await?;
            for _ in 0..LIMIT / block.len() + 1 {
                if chunked {
                    writer.write_all(format!("{:x}\r\n", block.len()).as_bytes()).await?;
                }
                writer.write_all(&block).await?;
                if chunked {
                    writer.write_all(b"\r\n").await?;
                }
            }
            Ok::<_, std::io::Error>(writer)
        });
        let answer = wire::read_answer(&mut reader).await;
        sender.abort();
        assert!([400, 413].contains(&answer.status), "{}: {}", answer.status, answer.text());
        let status = answer.status;
        answer.expect_error(status, "body_too_large");
        service.client().fetch(&path).await.expect_error(404, "key_not_found");
    }
}

#[tokio::test]
async fn a_request_head_that_does_not_end_is_cut_off() {
    let service = Service::start(Settings::embedded().set("header_timeout_ms", 300));
    let started = Instant::now();
    let mut stream = TcpStream::connect(service.address()).await.expect("the service accepts connections");
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        .await
        .expect("the service accepts half a head");
    let mut rest = Vec::new();
    // The connection may end normally or with a reset, and an answer such as 408 may come first.
    let _ = timeout(wire::PATIENCE, stream.read_to_end(&mut rest)).await.expect("the service closes the connection");
    assert!(started.elapsed() >= Duration::from_millis(290), "closed after {:?}", started.elapsed());
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    service.client().fetch("/livez").await.expect(200);
}
