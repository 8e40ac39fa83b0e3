//! A mixed load while PostgreSQL and the shards are killed and restarted in turn: memory, descriptors, threads and
//! files of the service must not grow.
//!
//! `make soak` runs this for an hour at half of the throughput that the machine can do, and prints a sample every
//! minute. `make test` runs it for twenty seconds at an eighth, since other tests run at the same time.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::support::client::{Client, cache_path, key_path, namespace};
use crate::support::load::WHOLE_MACHINE;
use crate::support::postgres::Postgres;
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// The durations and the load of a run.
struct Pace {
    whole: Duration,
    /// The time between two samples.
    sample: Duration,
    /// The time between the starts of two outages.
    outage: Duration,
    /// The duration of an outage.
    away: Duration,
    /// The load, as the divisor of the highest throughput that the machine can do.
    part: u32,
}

impl Pace {
    fn of_this_run() -> Self {
        let seconds = Duration::from_secs;
        match std::env::var("SOAK_MINUTES") {
            Ok(minutes) => {
                let minutes: u64 = minutes.parse().expect("SOAK_MINUTES must be a whole number");
                Self {
                    whole: seconds(60 * minutes),
                    sample: seconds(60),
                    outage: seconds(150),
                    away: seconds(30),
                    part: 2,
                }
            }
            Err(_) => Self {
                whole: seconds(20),
                sample: seconds(1),
                outage: seconds(4),
                away: Duration::from_millis(1_500),
                part: 8,
            },
        }
    }
}

/// The clients of each service.
const CLIENTS: usize = 8;
/// How long the clients run without a pause, to measure the highest throughput.
const MEASUREMENT: Duration = Duration::from_secs(2);

const KEYS: usize = 5_000;
const NAMESPACES: usize = 5;
const VALUE_BYTES: Range<usize> = 10..8_000;

/// The resources of a service at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident_bytes: u64,
    descriptors: usize,
    threads: usize,
    /// The size of all files in its folder.
    file_bytes: u64,
    /// How many outages had begun or ended.
    phase: u64,
}

impl Sample {
    fn of(service: &Service, phase: u64) -> Self {
        let entries = |what: &str| {
            let folder = format!("/proc/{}/{what}", service.id());
            std::fs::read_dir(folder).expect("the service runs").count()
        };
        Self {
            resident_bytes: service.resident_bytes(),
            descriptors: entries("fd"),
            threads: entries("task"),
            file_bytes: bytes_below(service.folder()),
            phase,
        }
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder of the service").flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // SQLite may delete a journal in the meantime.
        Err(_) => 0,
    });
    bytes.sum()
}

/// What the clients of one service share.
struct Load {
    cache: Client,
    namespaces: Vec<String>,
    is_over: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    async fn new(service: &Service) -> Self {
        let cache = service.client();
        let namespaces: Vec<String> = (0..NAMESPACES).map(|_| namespace("soak")).collect();
        for namespace in &namespaces {
            cache.put_policy(namespace, r#"{"max_size_mb": 8, "default_ttl": 600}"#).await.expect(201);
        }
        let zero = AtomicU64::default;
        Self { cache, namespaces, is_over: AtomicBool::default(), done: zero(), refused: zero() }
    }

    /// Sends requests until the load is over, one every `pause`.
    async fn ask(&self, pause: Duration) {
        let mut random = Random::new();
        let mut due = tokio::time::Instant::now();
        while !self.is_over.load(Relaxed) {
            sleep_until(due).await;
            due = (due + pause).max(tokio::time::Instant::now() - pause);
            let (method, path, body) = self.request(&mut random);
            let body = body.map(|body| body.to_string().into_bytes());
            let status = self.cache.send(method.clone(), &path, &[], body).await.status;
            match status {
                200 | 201 | 202 | 404 => self.done.fetch_add(1, Relaxed),
                503 => self.refused.fetch_add(1, Relaxed),
                _ => panic!("{method} {path}: {status}"),
            };
        }
    }

    fn request(&self, random: &mut Random) -> (Method, String, Option<Value>) {
        let namespace = &**random.pick(&self.namespaces);
        let key = |random: &mut Random| format!("key-{}", random.below(KEYS));
        let value = |random: &mut Random| "v".repeat(random.between(VALUE_BYTES.start, VALUE_BYTES.end));
        let tag = |random: &mut Random| format!("tag-{}", random.below(20));
        match random.below(100) {
            0..60 => (Method::GET, key_path(namespace, &key(random)), None),
            60..78 => {
                let ttl = random.between(1, 120);
                let body = json!({"value": value(random), "ttl": ttl, "tags": [tag(random)]});
                (Method::PUT, key_path(namespace, &key(random)), Some(body))
            }
            78..84 => {
                let keys: Vec<String> = (0..20).map(|_| key(random)).collect();
                (Method::POST, format!("{}/mget", cache_path(namespace)), Some(json!({ "keys": keys })))
            }
            84..90 => {
                let entries: Vec<Value> =
                    (0..10).map(|_| json!({"key": key(random), "value": value(random)})).collect();
                (Method::POST, format!("{}/mset", cache_path(namespace)), Some(json!({ "entries": entries })))
            }
            90..94 => (Method::DELETE, key_path(namespace, &key(random)), None),
            94..96 => (Method::GET, format!("{}?limit=100", cache_path(namespace)), None),
            96..98 => (Method::GET, format!("{}/stats", cache_path(namespace)), None),
            98 => (Method::GET, "/metrics".to_owned(), None),
            _ => (Method::DELETE, format!("{}?tag={}", cache_path(namespace), tag(random)), None),
        }
    }

    /// Measures the service and returns the pause between two requests of a client for 1/`part` of its highest
    /// throughput.
    async fn pause_for(&self, part: u32) -> Duration {
        let before = self.done.load(Relaxed);
        let ended = async {
            sleep(MEASUREMENT).await;
            self.is_over.store(true, Relaxed);
        };
        tokio::join!(join_all((0..CLIENTS).map(|_| self.ask(Duration::ZERO))), ended);
        self.is_over.store(false, Relaxed);
        let done = (self.done.load(Relaxed) - before).max(1);
        MEASUREMENT * part * u32::try_from(CLIENTS).expect("few") / u32::try_from(done).expect("a small number")
    }
}

/// Kills PostgreSQL and a shard in turn, and starts each again. `phase` counts the beginnings and the ends.
async fn outages(pace: &Pace, phase: &AtomicU64, database: &mut Postgres, shards: &mut [Redis], end: Instant) {
    for turn in 0.. {
        sleep(pace.outage - pace.away).await;
        if Instant::now() + pace.away * 2 > end {
            return;
        }
        phase.fetch_add(1, Relaxed);
        let shard = &mut shards[turn / 2 % 3];
        if turn % 2 == 0 {
            database.kill();
        } else {
            shard.kill();
        }
        sleep(pace.away).await;
        if turn % 2 == 0 {
            database.run();
        } else {
            shard.run();
        }
        phase.fetch_add(1, Relaxed);
    }
}

async fn sampled(
    pace: &Pace,
    phase: &AtomicU64,
    services: [(&str, &Service, &Load); 2],
    end: Instant,
) -> [Vec<Sample>; 2] {
    let mut samples = [Vec::new(), Vec::new()];
    let mut ticks = interval(pace.sample);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < end {
        ticks.tick().await;
        for ((name, service, load), samples) in services.iter().zip(&mut samples) {
            let sample = Sample::of(service, phase.load(Relaxed));
            let (done, refused) = (load.done.load(Relaxed), load.refused.load(Relaxed));
            eprintln!(
                "{name:9} {:3}: {:6.1} MiB resident, {:3} descriptors, {:3} threads, {:7.1} KiB in files; \
                 {done} answered, {refused} refused",
                samples.len(),
                sample.resident_bytes as f64 / 1_048_576.0,
                sample.descriptors,
                sample.threads,
                sample.file_bytes as f64 / 1024.0,
            );
            samples.push(sample);
        }
    }
    services.iter().for_each(|(.., load)| load.is_over.store(true, Relaxed));
    samples
}

/// The maximum of a number in the middle third and in the last third of the samples.
fn thirds(samples: &[Sample], number: impl Fn(&Sample) -> u64) -> (u64, u64) {
    let third = samples.len() / 3;
    let most = |samples: &[Sample]| samples.iter().map(&number).max().expect("there are samples");
    (most(&samples[third..2 * third]), most(&samples[2 * third..]))
}

fn is_flat(name: &str, samples: &[Sample]) {
    let (before, after) = thirds(samples, |sample| sample.resident_bytes);
    assert!(after <= before * 5 / 4 + (32 << 20), "{name}: {before} and then {after} bytes of memory");
    let (before, after) = thirds(samples, |sample| sample.descriptors as u64);
    assert!(after <= before * 5 / 4 + 16, "{name}: {before} and then {after} descriptors");
    // The end of an outage closes connections, and so hides a leak from the comparison of thirds.
    for calm in samples.chunk_by(|one, next| one.phase == next.phase) {
        let (first, last) = (calm[0].descriptors, calm[calm.len() - 1].descriptors);
        assert!(last <= first + 16, "{name}: {first} and then {last} descriptors between two outages");
    }
    let (before, after) = thirds(samples, |sample| sample.threads as u64);
    assert!(after <= before + 4, "{name}: {before} and then {after} threads");
    let (before, after) = thirds(samples, |sample| sample.file_bytes);
    assert!(after <= before * 3 / 2 + (32 << 20), "{name}: {before} and then {after} bytes in files");
}

#[tokio::test]
async fn memory_descriptors_threads_and_files_stay_flat_through_outages() {
    let _alone = WHOLE_MACHINE.lock().await;
    let pace = Pace::of_this_run();
    let mut database = Postgres::start();
    let mut shards = Redis::three();
    // Rows of the access log stay for at least a day, so the file grows with them. Therefore only a part is logged.
    let common = |settings: Settings| {
        settings.set("access_log_sample_rate", 0.01).set("redis_timeout_ms", 250).set("namespace_refresh_ms", 200)
    };
    let on_shards = Service::launch(common(Settings::on(&shards).set("database_url", database.fresh_database())));
    let embedded = Service::launch(common(Settings::embedded().set("embedded_max_mb", 32)));
    let loads = [Load::new(&on_shards).await, Load::new(&embedded).await];
    let pauses = join_all(loads.iter().map(|load| load.pause_for(pace.part))).await;
    let end = Instant::now() + pace.whole;
    let clients = loads.iter().zip(&pauses).flat_map(|(load, pause)| (0..CLIENTS).map(|_| load.ask(*pause)));
    let names = [("on shards", &on_shards, &loads[0]), ("embedded", &embedded, &loads[1])];
    let phase = AtomicU64::default();
    let (_, (), samples) = tokio::join!(
        join_all(clients),
        outages(&pace, &phase, &mut database, &mut shards, end),
        sampled(&pace, &phase, names, end),
    );
    for ((name, service, load), samples) in names.iter().zip(&samples) {
        is_flat(name, samples);
        let done = load.done.load(Relaxed);
        assert!(done > 1_000, "{name}: {done} answered");
        service.client().health().await.expect(200);
    }
}
