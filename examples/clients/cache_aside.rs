//! A cache-aside client of sidecache, with `reqwest`, `tokio`, `serde` and `serde_json`.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The sidecar is on this machine or next to it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);
/// More than the service's `redis_timeout_ms`, so that it can report a dead shard before our timeout.
const WHOLE_TIMEOUT: Duration = Duration::from_millis(400);
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

/// The cache did not answer, or its answer says nothing about the key.
type Unavailable = String;

impl Cache {
    pub fn new(url: &str, namespace: &str, ttl: Duration) -> anyhow::Result<Cache> {
        let http = Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(WHOLE_TIMEOUT)
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
        match self.get(key).await {
            Ok(Some(value)) => return Ok((value, Origin::Cache)),
            Ok(None) => {}
            Err(problem) => {
                eprintln!("reading {key} from the source: {problem}");
                return Ok((load(key).await?, Origin::Source)); // do not store it: the cache would not answer either
            }
        }
        let loaded = load(key).await?;
        // Jitter: values that are stored at the same time should not expire at the same time.
        let ttl = self.ttl.mul_f64(0.9 + 0.2 * random_fraction()).as_secs().max(1);
        let body = serde_json::json!({ "value": loaded, "ttl": ttl }).to_string();
        if let Err(problem) = self.call(Method::PUT, key, body).await {
            eprintln!("{key} is not cached: {problem}");
        }
        Ok((loaded, Origin::Source))
    }

    /// Call this after the source has changed. False: the cache may serve the old value until its TTL ends.
    pub async fn changed(&self, key: &str) -> bool {
        for attempt in 0..3 {
            match self.call(Method::DELETE, key, String::new()).await {
                Ok(_) => return true, // 200 or 404
                // Also after `outcome_unknown`: deleting again is safe and makes the outcome clear.
                Err(problem) => eprintln!("{key}, attempt {}: {problem}", attempt + 1),
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
        false
    }

    async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Unavailable> {
        #[derive(Deserialize)]
        struct Entry<T> {
            value: T,
        }
        if Instant::now() < *self.resume.lock().expect("no code panics while it holds this lock") {
            return Err("the cache did not answer a moment ago".to_owned());
        }
        let (status, body) = self.call(Method::GET, key, String::new()).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let entry: Entry<T> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(Some(entry.value))
    }

    async fn call(&self, method: Method, key: &str, body: String) -> Result<(StatusCode, Vec<u8>), Unavailable> {
        let url = self.namespace.join(&encoded(key)).map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = self.http.request(method, url).body(body).send().await?;
            // Read all of it, otherwise the connection cannot be reused.
            Ok::<_, reqwest::Error>((answer.status(), answer.bytes().await?))
        };
        match exchange.await {
            Ok((status, body)) => {
                let text = String::from_utf8_lossy(&body);
                let is_miss = status == StatusCode::NOT_FOUND && text.contains("\"key_not_found\"");
                if status.is_success() || is_miss {
                    Ok((status, body.to_vec()))
                } else {
                    Err(format!("{status} {text}"))
                }
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

/// A random number from 0 to 1, from std's random seed for hash maps; the crate `rand` is a better choice.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
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
