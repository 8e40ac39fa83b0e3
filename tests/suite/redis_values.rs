//! One value, two doors: what HTTP clients see of values of Redis clients, and the other way round.

use reqwest::Method;
use serde_json::json;

use crate::support::both_stores::on_both_stores;
use crate::support::client::{key_path, namespace};
use crate::support::resp::{Connection, Reply, bulk, ok};
use crate::support::service::Service;

on_both_stores! {
    redis_clients_read_the_bytes_of_json,
    http_clients_read_bytes_in_base64_or_as_they_are,
    an_entry_is_tagged_and_flushed_by_http,
    writes_of_one_door_are_seen_by_the_other,
}

const OCTETS: &[(&str, &str)] = &[("accept", "application/octet-stream")];

async fn redis_clients_read_the_bytes_of_json(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    cache.set(&ns, "k", r#"{"a": 1.50, "b":"\u00fc"}"#).await.expect(201);
    for _ in 0..2 {
        assert_eq!(redis.call(&["GET", "k"]).await, bulk(r#"{"a": 1.50, "b":"\u00fc"}"#));
    }
    cache.set(&ns, "n", "41").await.expect(201);
    assert_eq!(redis.call(&["INCR", "n"]).await.integer(), 42);
    assert_eq!(cache.get(&ns, "n").await.expect(200).value(), "42", "a counter stays JSON");
    let octets = cache.send(Method::GET, &key_path(&ns, "k"), OCTETS, None).await;
    assert_eq!(&octets.expect(200).body[..], br#"{"a": 1.50, "b":"\u00fc"}"#);
}

async fn http_clients_read_bytes_in_base64_or_as_they_are(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    let large: Vec<u8> = (0..100_000).map(|i: u32| (i % 251) as u8).collect();
    for (value, encoded) in [(b"".as_slice(), Some("")), (b"\xff\0x", Some("/wB4")), (&large, None)] {
        assert_eq!(redis.call(&[b"SET".as_slice(), b"k", value]).await, ok());
        // From the shard, and then from L1; by the fast path, and by the router.
        for path in [key_path(&ns, "k"), key_path(&ns, "k"), key_path(&ns, "k") + "?metadata=full"] {
            let answer = cache.send(Method::GET, &path, &[], None).await.expect(200).json();
            assert_eq!(answer["encoding"], "base64", "{path}");
            if let Some(encoded) = encoded {
                assert_eq!(answer["value"], encoded, "{path}");
            } else {
                assert_eq!(answer["value"].as_str().expect("a string").len(), large.len().div_ceil(3) * 4);
            }
        }
        let octets = cache.send(Method::GET, &key_path(&ns, "k"), OCTETS, None).await.expect(200);
        assert_eq!((&octets.body[..], octets.header("content-type")), (value, Some("application/octet-stream")));
        let read = cache.mget(&ns, &["k"]).await.expect(200).json();
        assert_eq!(read["results"]["k"]["encoding"], "base64");
    }
    let stats = cache.stats(&ns).await.json();
    assert_eq!(stats["memory_used_bytes"], large.len());
    cache.set(&ns, "k", "1").await.expect(200);
    let answer = cache.get(&ns, "k").await.expect(200).json();
    assert_eq!((&answer["value"], answer.get("encoding")), (&json!(1), None), "JSON again");
    // Keys that HTTP does not allow have the percent form.
    assert_eq!(redis.call(&[b"SET".as_slice(), b"\0\xff", b"x"]).await, ok());
    assert_eq!(cache.get(&ns, "%:%00%FF").await.expect(200).json()["value"], "eA==");
    cache.get(&ns, "%:plain").await.expect_error(400, "invalid_key");
    cache.set(&ns, "%:%00%ff", "1").await.expect_error(400, "invalid_key");
}

async fn an_entry_is_tagged_and_flushed_by_http(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    let tagged = json!({"value": "a", "tags": ["t"]}).to_string();
    cache.send(Method::PUT, &key_path(&ns, "k"), &[], Some(tagged.into_bytes())).await.expect(201);
    assert_eq!(redis.call(&["EXPIRE", "k", "100"]).await.integer(), 1);
    assert_eq!(redis.call(&["APPEND", "k", "b"]).await.integer(), 4, "the JSON text has its quotes");
    let full = cache.send(Method::GET, &(key_path(&ns, "k") + "?metadata=full"), &[], None).await.expect(200).json();
    assert_eq!(full["metadata"]["tags"], json!(["t"]), "tags stay when a value is modified");
    cache.send(Method::DELETE, &format!("/api/v1/cache/{ns}?tag=t"), &[], None).await.expect(200);
    assert_eq!(redis.call(&["GET", "k"]).await, Reply::Null);
}

async fn writes_of_one_door_are_seen_by_the_other(service: &Service) {
    let (cache, ns) = (service.client(), namespace("doors"));
    let mut redis = Connection::to(service.redis_address(), &ns).await;
    for i in 0..50 {
        cache.set(&ns, "k", &i.to_string()).await;
        assert_eq!(redis.call(&["GET", "k"]).await, bulk(i.to_string()));
        assert_eq!(redis.call(&["SET", "k", &format!("r{i}")]).await, ok());
        let octets = cache.send(Method::GET, &key_path(&ns, "k"), OCTETS, None).await;
        assert_eq!(octets.expect(200).body, format!("r{i}"));
    }
    assert_eq!(redis.call(&["DEL", "k"]).await.integer(), 1);
    cache.get(&ns, "k").await.expect(404);
}
