//! An HTTP client with a method for every call of the contract. It sends bodies exactly as given.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::answer::Answer;
use super::metric::Metrics;

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// A namespace that no other test uses.
pub fn namespace(subject: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{subject}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Percent-encodes everything but letters, digits, `-`, `_`, `.` and `~`.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The path of a key.
pub fn key_path(namespace: &str, key: &str) -> String {
    format!("{}/{}", cache_path(namespace), encoded(key))
}

/// The path of a namespace's entries.
pub fn cache_path(namespace: &str) -> String {
    format!("/api/v1/cache/{}", encoded(namespace))
}

fn policy_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{}", encoded(namespace))
}

fn with_query(path: String, query: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    match pairs.is_empty() {
        true => path,
        false => format!("{path}?{}", pairs.join("&")),
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client without TLS builds");
        Client { http, base: format!("http://{address}") }
    }

    /// Sends any request. If no answer comes, the test fails.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Answer {
        let shown = format!("{method} {path}");
        self.try_send(method, path, headers, body).await.unwrap_or_else(|error| panic!("{shown}: {error:?}"))
    }

    /// Sends any request. No answer is an error, which the test may expect.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> reqwest::Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await? })
    }

    pub async fn get(&self, namespace: &str, key: &str) -> Answer {
        self.get_with(namespace, key, &[]).await
    }

    pub async fn get_with(&self, namespace: &str, key: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, &key_path(namespace, key), headers, None).await
    }

    pub async fn head(&self, namespace: &str, key: &str) -> Answer {
        self.send(Method::HEAD, &key_path(namespace, key), &[], None).await
    }

    /// PUT with this body.
    pub async fn put(&self, namespace: &str, key: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::PUT, &key_path(namespace, key), &[], Some(body.into())).await
    }

    /// PUT of a value given as JSON text.
    pub async fn set(&self, namespace: &str, key: &str, value: &str) -> Answer {
        self.put(namespace, key, format!("{{\"value\":{value}}}")).await
    }

    /// PUT of a value for `ttl` seconds.
    pub async fn set_for(&self, namespace: &str, key: &str, value: &str, ttl: u64) -> Answer {
        self.put(namespace, key, format!("{{\"value\":{value},\"ttl\":{ttl}}}")).await
    }

    /// PATCH with this body.
    pub async fn patch(&self, namespace: &str, key: &str, body: &Value) -> Answer {
        self.patch_with(namespace, key, &[], body).await
    }

    pub async fn patch_with(&self, namespace: &str, key: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.send(Method::PATCH, &key_path(namespace, key), headers, Some(body.to_string().into_bytes())).await
    }

    pub async fn delete(&self, namespace: &str, key: &str) -> Answer {
        self.send(Method::DELETE, &key_path(namespace, key), &[], None).await
    }

    pub async fn mget(&self, namespace: &str, keys: &[&str]) -> Answer {
        self.mget_raw(namespace, json!({ "keys": keys }).to_string()).await
    }

    /// mget that asks for a lease of `lease` seconds on each missing key.
    pub async fn mget_or_lease(&self, namespace: &str, keys: &[&str], lease: u64) -> Answer {
        self.mget_raw(namespace, json!({ "keys": keys, "lease": lease }).to_string()).await
    }

    /// mget with this body.
    pub async fn mget_raw(&self, namespace: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::POST, &format!("{}/mget", cache_path(namespace)), &[], Some(body.into())).await
    }

    /// mset of entries given as JSON.
    pub async fn mset(&self, namespace: &str, entries: &Value) -> Answer {
        self.mset_raw(namespace, json!({ "entries": entries }).to_string()).await
    }

    /// mset of entries with different keys. The test fails unless every one is stored.
    pub async fn fill(&self, namespace: &str, entries: &Value) {
        let stored = entries.as_array().map_or(0, Vec::len);
        let all = json!({"success": true, "stored": stored});
        self.mset(namespace, entries).await.expect_json(200, &all);
    }

    /// mset with this body.
    pub async fn mset_raw(&self, namespace: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::POST, &format!("{}/mset", cache_path(namespace)), &[], Some(body.into())).await
    }

    /// mdelete with this body.
    pub async fn mdelete(&self, namespace: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::POST, &format!("{}/mdelete", cache_path(namespace)), &[], Some(body.into())).await
    }

    pub async fn flush(&self, namespace: &str, query: &[(&str, &str)]) -> Answer {
        self.send(Method::DELETE, &with_query(cache_path(namespace), query), &[], None).await
    }

    pub async fn list(&self, namespace: &str, query: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, &with_query(cache_path(namespace), query), &[], None).await
    }

    /// Every key of the namespace, sorted, page by page.
    pub async fn all_keys(&self, namespace: &str) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = vec![("limit", "1000")];
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = self.list(namespace, &query).await.expect(200).json();
            let names = page["keys"].as_array().expect("a list of keys").iter();
            keys.extend(names.map(|key| key.as_str().expect("a key is a string").to_owned()));
            match page["cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        keys.sort();
        keys
    }

    pub async fn stats(&self, namespace: &str) -> Answer {
        self.send(Method::GET, &key_path(namespace, "stats"), &[], None).await
    }

    pub async fn policies(&self) -> Answer {
        self.send(Method::GET, "/api/v1/namespaces", &[], None).await
    }

    pub async fn policy(&self, namespace: &str) -> Answer {
        self.send(Method::GET, &policy_path(namespace), &[], None).await
    }

    pub async fn put_policy(&self, namespace: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::PUT, &policy_path(namespace), &[], Some(body.into())).await
    }

    pub async fn patch_policy(&self, namespace: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::PATCH, &policy_path(namespace), &[], Some(body.into())).await
    }

    pub async fn delete_policy(&self, namespace: &str) -> Answer {
        self.send(Method::DELETE, &policy_path(namespace), &[], None).await
    }

    /// A page of the audit trail.
    pub async fn audit(&self, namespace: &str, query: &[(&str, &str)]) -> Answer {
        self.fetch(&with_query(format!("{}/audit", policy_path(namespace)), query)).await
    }

    /// A page of the access log.
    pub async fn logs(&self, namespace: &str, query: &[(&str, &str)]) -> Answer {
        self.fetch(&with_query(format!("{}/logs", policy_path(namespace)), query)).await
    }

    /// GET of a path that has no method here.
    pub async fn fetch(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn health(&self) -> Answer {
        self.fetch("/health").await
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(self.fetch("/metrics").await.expect(200).text())
    }
}
