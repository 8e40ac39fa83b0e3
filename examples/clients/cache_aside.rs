//! A cache-aside client of sidecache, with `reqwest`, `tokio`, `serde` and `serde_json`.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The sidecar is on this machine or next to it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
/// More than the service's `redis_timeout_ms`, so that it can report a dead shard before our timeout.
const WHOLE_TIMEOUT: Duration = Duration::from_millis(400);
/// Longer than a load takes.
const LEASE: Duration = Duration::from_secs(10);
/// How long to wait for a value that another program loads.
const WAIT: Duration = Duration::from_secs(2);
/// If the cache does not answer, reads use the source for this long.
const REST: Duration = Duration::from_secs(1);

/// Use one for the whole program: it keeps its connections open between calls.
pub struct Cache {
    http: Client,
    namespace: Url,
    ttl: Duration,
    resume: Mutex<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Cache,
    Source,
}

/// An answer about a key.
struct Answer {
    status: StatusCode,
    /// The header `Cache-Lease`.
    lease: String,
    body: Vec<u8>,
}

/// The cache did not answer, or its answer says nothing about the key.
type Unavailable = String;

impl Cache {
    pub fn new(url: &str, namespace: &str, ttl: Duration) -> anyhow::Result<Cache> {
        let http = Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(4)) // less than the service's idle_timeout_ms
            .build()?;
        let namespace = Url::parse(url)?.join(&format!("/api/v1/cache/{}/", encoded(namespace)))?;
        Ok(Cache { http, namespace, ttl, resume: Mutex::new(Instant::now()) })
    }

    /// Returns the value of the key and where it came from. An error of `load` is returned and not stored.
    pub async fn read<T: Serialize + DeserializeOwned, E>(
        &self,
        key: &str,
        load: impl AsyncFnOnce(&str) -> Result<T, E>,
    ) -> Result<(T, Origin), E> {
        let lease = match self.get(key).await {
            Ok((Some(value), _)) => return Ok((value, Origin::Cache)),
            Ok((None, lease)) => lease,
            Err(problem) => {
                eprintln!("reading {key} from the source: {problem}");
                return Ok((load(key).await?, Origin::Source)); // do not store it: the cache would not answer either
            }
        };
        let token = lease.strip_prefix("won;token=\"").and_then(|rest| Some(rest.split_once('"')?.0));
        let with_lease = |request: RequestBuilder| match token {
            Some(token) => request.header("Cache-Lease", token),
            None => request,
        };
        let loaded = match load(key).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // Give the lease up: the next program need not wait until it ends.
                if token.is_some() {
                    self.succeeds(key, with_lease(self.request(Method::DELETE, key, "/lease"))).await;
                }
                return Err(error);
            }
        };
        // If another program has the lease, it stores the value.
        if !lease.starts_with("held") {
            let body = serde_json::json!({ "value": loaded, "ttl": self.ttl.as_secs() }).to_string();
            // 412 `lease_lost` means that the key changed during the load. Then nothing is stored, which is right.
            self.succeeds(key, with_lease(self.request(Method::PUT, key, "").body(body))).await;
        }
        Ok((loaded, Origin::Source))
    }

    /// Call this after the source has changed. False: the cache may serve the old value until its TTL ends.
    pub async fn changed(&self, key: &str) -> bool {
        for attempt in 0..3 {
            if self.succeeds(key, self.request(Method::DELETE, key, "")).await {
                return true; // 200 or 404
            }
            // Also after `outcome_unknown`: deleting again is safe and makes the outcome clear.
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
        false
    }

    /// The value, and the answer's `Cache-Lease`, which names the state of the lease on the key.
    async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<(Option<T>, String), Unavailable> {
        #[derive(Deserialize)]
        struct Entry<T> {
            value: T,
        }
        if Instant::now() < *self.resume.lock().expect("no code panics while it holds this lock") {
            return Err("the cache did not answer a moment ago".to_owned());
        }
        let prefer = format!("lease={}", LEASE.as_secs());
        let mut answer = self.call(self.request(Method::GET, key, "").header("Prefer", &prefer)).await?;
        if answer.lease.starts_with("held") {
            // Another program is loading the value. The service answers, so waiting may take longer than the timeout.
            let prefer = format!("{prefer}, wait={}", WAIT.as_secs());
            let waiting = self.request(Method::GET, key, "").header("Prefer", prefer).timeout(WAIT + WHOLE_TIMEOUT);
            answer = self.call(waiting).await?;
        }
        if answer.status == StatusCode::NOT_FOUND {
            return Ok((None, answer.lease));
        }
        let entry: Entry<T> = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        Ok((Some(entry.value), answer.lease))
    }

    fn request(&self, method: Method, key: &str, suffix: &str) -> RequestBuilder {
        let url = self.namespace.join(&format!("{}{suffix}", encoded(key))).expect("an encoded key is a valid path");
        self.http.request(method, url).timeout(WHOLE_TIMEOUT)
    }

    async fn succeeds(&self, key: &str, request: RequestBuilder) -> bool {
        let result = self.call(request).await;
        result.inspect_err(|problem| eprintln!("{key}: {problem}")).is_ok()
    }

    async fn call(&self, request: RequestBuilder) -> Result<Answer, Unavailable> {
        let exchange = async {
            let response = request.send().await?;
            let lease = response.headers().get("Cache-Lease").and_then(|lease| lease.to_str().ok());
            let (status, lease) = (response.status(), lease.unwrap_or_default().to_owned());
            // Read all of it, otherwise the connection cannot be reused.
            Ok::<_, reqwest::Error>(Answer { status, lease, body: response.bytes().await?.to_vec() })
        };
        match exchange.await {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                let is_miss = answer.status == StatusCode::NOT_FOUND && text.contains("\"key_not_found\"");
                let is_useful = answer.status.is_success() || is_miss;
                if is_useful { Ok(answer) } else { Err(format!("{} {text}", answer.status)) }
            }
            Err(problem) => {
                *self.resume.lock().expect("no code panics while it holds this lock") = Instant::now() + REST;
                Err(format!("{problem:?}"))
            }
        }
    }
}

/// Percent-encodes every character that may be special in a path, as the crate `percent-encoding` does.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Reads lines from stdin: `read KEY`, or `change KEY VALUE` with a value in JSON.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, namespace] = arguments.as_slice() else { anyhow::bail!("usage: cache_aside ADDRESS NAMESPACE") };
    let cache = Cache::new(&format!("http://{address}"), namespace, Duration::from_secs(300))?;
    let mut source: HashMap<String, serde_json::Value> = HashMap::new(); // in your program: the database
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let answer = match words[..] {
            ["change", key, value] => {
                source.insert(key.to_owned(), serde_json::from_str(value)?);
                if cache.changed(key).await { "changed" } else { "changed, and the cache does not know" }.to_owned()
            }
            ["read", key] => {
                let load = async |key: &str| source.get(key).cloned().ok_or("not in the source");
                match cache.read(key, load).await {
                    Ok((value, Origin::Cache)) => format!("cache {value}"),
                    Ok((value, Origin::Source)) => format!("source {value}"),
                    Err(problem) => format!("error: {problem}"),
                }
            }
            _ => anyhow::bail!("read KEY or change KEY VALUE expected"),
        };
        writeln!(std::io::stdout(), "{answer}")?;
    }
    Ok(())
}
