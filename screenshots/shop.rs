//! A small web shop that uses the cache, to have something to show in the pictures.

use std::f64::consts::TAU;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::{Client, key_path};
use crate::support::random::Random;

/// How one kind of data is read.
pub struct Kind {
    pub namespace: &'static str,
    /// The beginning of its keys.
    prefix: &'static str,
    /// The number of keys.
    things: f64,
    /// The larger, the more reads use only a few of the keys.
    skew: f64,
    /// Average reads per second, and the fraction by which this varies.
    rate: f64,
    swing: f64,
    /// The period of this variation, in seconds.
    period: f64,
    ttl_seconds: u64,
    /// The policy, as JSON.
    pub policy: &'static str,
    tags: &'static [&'static str],
    /// Length of the text in a value, in bytes.
    text: usize,
}

pub const KINDS: [Kind; 6] = [
    Kind {
        namespace: "products",
        prefix: "product",
        things: 6_000.0,
        skew: 2.2,
        rate: 120.0,
        swing: 0.35,
        period: 240.0,
        ttl_seconds: 3_600,
        policy: r#"{"default_ttl": 3600, "max_size_mb": 12, "eviction_policy": "LRU"}"#,
        tags: &["kitchen", "garden", "office", "books"],
        text: 900,
    },
    Kind {
        namespace: "prices",
        prefix: "price",
        things: 2_000.0,
        skew: 2.0,
        rate: 80.0,
        swing: 0.2,
        period: 170.0,
        ttl_seconds: 40,
        policy: r#"{"default_ttl": 60, "max_size_mb": 6, "eviction_policy": "TTL"}"#,
        tags: &[],
        text: 0,
    },
    Kind {
        namespace: "sessions",
        prefix: "session",
        things: 1_500.0,
        skew: 1.3,
        rate: 60.0,
        swing: 0.5,
        period: 400.0,
        ttl_seconds: 1_800,
        policy: r#"{"default_ttl": 1800, "max_size_mb": 6, "eviction_policy": "NONE", "stale_if_error": 30}"#,
        tags: &[],
        text: 300,
    },
    Kind {
        namespace: "search",
        prefix: "q",
        things: 30_000.0,
        skew: 2.6,
        rate: 40.0,
        swing: 0.4,
        period: 130.0,
        ttl_seconds: 600,
        policy: r#"{"default_ttl": 600, "max_size_mb": 3, "eviction_policy": "LFU"}"#,
        tags: &[],
        text: 1_800,
    },
    Kind {
        namespace: "carts",
        prefix: "cart",
        things: 600.0,
        skew: 1.2,
        rate: 16.0,
        swing: 0.3,
        period: 210.0,
        ttl_seconds: 86_400,
        policy: r#"{"default_ttl": 86400, "max_size_mb": 6, "eviction_policy": "NONE"}"#,
        tags: &[],
        text: 150,
    },
    Kind {
        namespace: "images.thumbnails",
        prefix: "image",
        things: 900.0,
        skew: 2.4,
        rate: 24.0,
        swing: 0.3,
        period: 300.0,
        ttl_seconds: 7_200,
        policy: r#"{"default_ttl": 7200, "max_size_mb": 24, "eviction_policy": "LRU"}"#,
        tags: &["webp"],
        text: 7_000,
    },
];

/// The product whose page is in the pictures.
pub const SHOWN: &str = "product:17";

impl Kind {
    /// Reads until the future is dropped, and fills each miss with a made-up value.
    pub async fn visit(&self, caches: &[Client], seed: u64) {
        let (mut random, begun) = (Random::seeded(seed), Instant::now());
        let (mut owed, mut last) = (0.0, begun);
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let at = begun.elapsed().as_secs_f64();
            let rate = self.rate * (1.0 + self.swing * (at * TAU / self.period).sin());
            owed += rate * last.elapsed().as_secs_f64();
            last = Instant::now();
            // After a delay, do not send all missed reads at once.
            owed = f64::min(owed, self.rate);
            while owed >= 1.0 {
                owed -= 1.0;
                let cache = &random.pick(caches);
                self.read(cache, &mut random).await;
            }
        }
    }

    async fn read(&self, cache: &Client, random: &mut Random) {
        let place = unit(random).powf(self.skew) * self.things;
        let number = place as u64 + 1;
        let key = format!("{}:{number}", self.prefix);
        let path = key_path(self.namespace, &key);
        // The service may close an idle connection while a request is being sent. Such a failure is ignored.
        let found = cache.try_send(Method::GET, &path, &[], None).await;
        if found.is_ok_and(|answer| answer.status == 404) {
            let body = self.entry(number, random).to_string().into_bytes();
            let _ = cache.try_send(Method::PUT, &path, &[], Some(body)).await;
        }
    }

    fn entry(&self, number: u64, random: &mut Random) -> Value {
        let jitter = 0.9 + 0.2 * unit(random);
        let ttl = (self.ttl_seconds as f64 * jitter) as u64;
        let mut entry = json!({"value": self.value(number), "ttl": ttl});
        if !self.tags.is_empty() {
            entry["tags"] = json!([self.tags[number as usize % self.tags.len()]]);
        }
        entry
    }

    fn value(&self, number: u64) -> Value {
        let names = ["Mug", "Teapot", "Lamp", "Notebook", "Watering can", "Stool", "Vase"];
        let words = "dishwasher safe, stackable, made of stoneware in four colours, ";
        let about: String = words.chars().cycle().take(self.text).collect();
        json!({
            "id": number,
            "name": names[number as usize % names.len()],
            "price": {"amount": format!("{}.90", 4 + number % 60), "currency": "EUR"},
            "stock": number * 7 % 120,
            "about": about,
        })
    }

    /// Stores the entry [`SHOWN`], which is short enough for a picture.
    pub async fn put_shown(cache: &Client) {
        let value = r#"{"id": 17, "name": "Watering can", "price": {"amount": "21.90", "currency": "EUR"}, "stock": 119, "colours": ["sage", "brick", "slate"], "rating": 4.75, "sizes": [{"litres": 2, "weight_g": 410}, {"litres": 5, "weight_g": 655}]}"#;
        let body = format!("{{\"value\": {value}, \"ttl\": 3600, \"tags\": [\"garden\", \"sale\"]}}");
        cache.put("products", SHOWN, body).await;
    }
}

/// A random number from 0 to 1.
fn unit(random: &mut Random) -> f64 {
    random.below(1 << 30) as f64 / f64::from(1 << 30)
}
