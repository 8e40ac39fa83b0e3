//! The service over HTTP: GET, PUT, stats and health.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::record::Record;

/// Longer than the service's own limit of 5 s for a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One keep-alive connection to one service. Every namespace gets the prefix of this run.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    namespace_prefix: String,
}

/// A read that was answered, with 200 or 404.
pub struct Read {
    /// The bytes of the value; `None` for a miss.
    pub value: Option<Box<RawValue>>,
    /// From the request to the last byte of the answer.
    pub took: Duration,
}

/// Reads that were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    pub hits: u64,
    pub misses: u64,
}

impl Counts {
    /// The counts since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self { hits: self.hits.saturating_sub(earlier.hits), misses: self.misses.saturating_sub(earlier.misses) }
    }

    /// The fraction of reads that were hits, 0 to 1; 0 without reads.
    pub fn hit_ratio(self) -> f64 {
        let reads = self.hits + self.misses;
        if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 }
    }
}

impl Client {
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(base: &Url, namespace_prefix: &str) -> anyhow::Result<Self> {
        // No proxy from the environment: a sidecar runs next to its program.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).timeout(TIMEOUT).build()?;
        Ok(Self { http, base: base.clone(), namespace_prefix: namespace_prefix.to_owned() })
    }

    /// Asks `/health` whether the service is `healthy` or `degraded`.
    ///
    /// # Errors
    /// There is no answer, or its status is not 200; the text says what to do.
    pub async fn check_health(&self) -> anyhow::Result<()> {
        let response = self.send(self.http.get(self.url(&["health"]))).await?;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let answer = response.text().await.unwrap_or_default();
            bail!("the service at {} is not healthy; its log says why: {answer}", self.base);
        }
        if response.status() != StatusCode::OK {
            return Err(refused("GET /health", response).await)
                .with_context(|| format!("the server at {} does not seem to be sidecache", self.base));
        }
        Ok(())
    }

    /// # Errors
    /// Any answer but 200 with an entry and 404.
    pub async fn get(&self, record: Record) -> anyhow::Result<Read> {
        let request = self.http.get(self.entry_url(record));
        let asked = Instant::now();
        let response = self.send(request).await?;
        let status = response.status();
        if status != StatusCode::OK && status != StatusCode::NOT_FOUND {
            return Err(refused(&format!("GET {record}"), response).await);
        }
        let body = response.bytes().await.with_context(|| format!("the answer to GET {record} ended too early"))?;
        let took = asked.elapsed();
        let value = match status {
            StatusCode::OK => Some(parse_entry(&body).with_context(|| format!("GET {record}"))?),
            _ => None,
        };
        Ok(Read { value, took })
    }

    /// Stores `value`, a JSON text, unchanged.
    ///
    /// # Errors
    /// Any answer but 200 and 201.
    pub async fn put(&self, record: Record, value: &str) -> anyhow::Result<()> {
        let request = self
            .http
            .put(self.entry_url(record))
            .header(CONTENT_TYPE, "application/json")
            .body(format!(r#"{{"value":{value}}}"#));
        let response = self.send(request).await?;
        if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            return Err(refused(&format!("PUT {record}"), response).await);
        }
        // Read the whole answer, because only then can the connection be used for the next request.
        response.bytes().await.with_context(|| format!("the answer to PUT {record} ended too early"))?;
        Ok(())
    }

    /// The service's counts, summed over the namespaces of these types.
    ///
    /// # Errors
    /// Any answer but 200 with `hits` and `misses`.
    pub async fn total_counts(&self, types: &BTreeSet<u32>) -> anyhow::Result<Counts> {
        let mut total = Counts::default();
        for number in types {
            let namespace = format!("{}type_{number}", self.namespace_prefix);
            let url = self.url(&["api", "v1", "cache", &namespace, "stats"]);
            let response = self.send(self.http.get(url)).await?;
            if response.status() != StatusCode::OK {
                return Err(refused(&format!("stats of {namespace}"), response).await);
            }
            let counts: Counts = response.json().await.with_context(|| format!("stats of {namespace}"))?;
            total.hits += counts.hits;
            total.misses += counts.misses;
        }
        Ok(total)
    }

    fn entry_url(&self, record: Record) -> Url {
        let namespace = format!("{}{}", self.namespace_prefix, record.type_name());
        self.url(&["api", "v1", "cache", &namespace, &record.key()])
    }

    /// The URL of a path, whose segments are percent-encoded here.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("http URLs have a path").pop_if_empty().extend(segments);
        url
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.with_context(|| {
            format!(
                "no answer from {}: is the service running? Start it with `cargo run --release`, \
                 or give its address with --url",
                self.base
            )
        })
    }
}

/// Extracts the bytes of the value from an entry, without parsing the value.
fn parse_entry(body: &[u8]) -> anyhow::Result<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Entry {
        value: Box<RawValue>,
    }
    let entry: Entry =
        serde_json::from_slice(body).with_context(|| format!("not an entry: {}", String::from_utf8_lossy(body)))?;
    Ok(entry.value)
}

/// The error for an answer that ends the replay, with advice.
async fn refused(what: &str, response: Response) -> anyhow::Error {
    let status = response.status();
    let answer = response.text().await.unwrap_or_default();
    let advice = match status {
        StatusCode::BAD_REQUEST => {
            ": does the service allow such values (SIDECACHE_MAX_VALUE_BYTES) and new namespaces \
             (SIDECACHE_AUTO_CREATE_NAMESPACES)?"
        }
        StatusCode::NOT_FOUND => ": is it sidecache, and is --url its root?",
        StatusCode::INSUFFICIENT_STORAGE => {
            ": give the service more memory (SIDECACHE_EMBEDDED_MAX_MB, or maxmemory of the shards) or \
             use a smaller --value-bytes"
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            ": a shard is down or too slow; GET /health shows which. Counts are only exact without \
             failures, so start again when the shard works"
        }
        _ => "; the service's log says more",
    };
    anyhow::anyhow!("{what} was answered with {status}{advice}\n{answer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_bytes() {
        let body = br#"{"value": {"b":0.10,"a":1e400, "b":"\u00e9"}, "metadata": {"ttl_remaining": null}}"#;
        let value = parse_entry(body).expect("an entry");
        assert_eq!(value.get(), r#"{"b":0.10,"a":1e400, "b":"\u00e9"}"#);
    }

    #[test]
    fn a_base_url_may_have_a_path_and_segments_are_encoded() {
        for (base, expected) in [
            ("http://h:1", "http://h:1/api/a%2Fb%25"),
            ("http://h:1/", "http://h:1/api/a%2Fb%25"),
            ("http://h:1/proxy/", "http://h:1/proxy/api/a%2Fb%25"),
        ] {
            let client = Client::new(&Url::parse(base).expect("a URL"), "").expect("a client");
            assert_eq!(client.url(&["api", "a/b%"]).as_str(), expected);
        }
    }
}
