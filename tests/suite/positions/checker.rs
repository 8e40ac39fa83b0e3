//! Very many reads with positions, across three instances and under faults, each compared with the write whose position
//! it carries.
//!
//! Every key has one writer, which counts upwards. When a write is acknowledged, its number and its position go to the
//! readers. A reader takes the latest one, asks any instance with the position, and must get this number or a higher
//! one, or an error. Only after a shard lost its data may an answer be `position_lost`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{key_path, namespace};
use crate::support::line::{Line, request};
use crate::support::proxy::{Of, Proxy};
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};

/// With `TEST_POSITION_READS` more.
const READS: u64 = 100_000;

const KEYS: usize = 48;
const READERS: usize = 6;
const WRITERS: usize = 3;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The latest acknowledged write of a key.
#[derive(Clone, Default)]
struct Latest {
    number: u64,
    position: String,
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    from_l1: AtomicU64,
    lost: AtomicU64,
    errors: AtomicU64,
    behind: AtomicU64,
    writes: AtomicU64,
}

struct Checker {
    ns: String,
    instances: Vec<SocketAddr>,
    latest: Vec<Mutex<Latest>>,
    counts: Counts,
    wanted: u64,
    /// Whether a shard has lost its data so far.
    has_lost: AtomicBool,
    /// The first reads that were behind.
    examples: Mutex<Vec<String>>,
}

/// Connections to all instances, opened again when they break.
struct Lines<'c> {
    instances: &'c [SocketAddr],
    open: Vec<Option<Line>>,
}

impl Lines<'_> {
    fn new(instances: &[SocketAddr]) -> Lines<'_> {
        Lines { instances, open: instances.iter().map(|_| None).collect() }
    }

    /// Asks an instance. Returns the status, the position in the answer, whether L1 answered, and the body.
    fn ask(&mut self, instance: usize, bytes: &[u8]) -> Option<(u16, String, bool, String)> {
        let mut line = match self.open[instance].take() {
            Some(line) => line,
            None => Line::try_open(self.instances[instance], PATIENCE).ok()?,
        };
        line.send(bytes).ok()?;
        let answer = line.receive().ok()?;
        let position = answer.header("cache-position").unwrap_or("").to_owned();
        let from_l1 = answer.header("cache-status").is_some_and(|status| status.contains("sidecache-l1; hit"));
        let found = (answer.status, position, from_l1, String::from_utf8_lossy(answer.body).into_owned());
        self.open[instance] = Some(line);
        Some(found)
    }
}

impl Checker {
    fn is_over(&self) -> bool {
        self.counts.reads.load(Ordering::Relaxed) >= self.wanted
    }

    /// Writes the keys of one writer again and again.
    fn write(&self, writer: usize) {
        let (mut random, mut lines) = (Random::new(), Lines::new(&self.instances));
        let mut numbers = vec![0_u64; KEYS];
        while !self.is_over() {
            let key = random.below(KEYS / WRITERS) * WRITERS + writer;
            numbers[key] += 1;
            let path = key_path(&self.ns, &format!("k{key}"));
            let bytes = request("PUT", &path, "", &format!("{{\"value\":{}}}", numbers[key]));
            let answer = lines.ask(random.below(self.instances.len()), &bytes);
            if let Some((200 | 201, position, ..)) = answer {
                assert!(!position.is_empty(), "a write without a position");
                *self.latest[key].lock().expect("no thread panics") = Latest { number: numbers[key], position };
                self.counts.writes.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_micros(random.below(4_000) as u64));
        }
    }

    fn read(&self) {
        let (mut random, mut lines) = (Random::new(), Lines::new(&self.instances));
        while !self.is_over() {
            let key = random.below(KEYS);
            let latest = self.latest[key].lock().expect("no thread panics").clone();
            if latest.number == 0 {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let (instance, header) = (random.below(self.instances.len()), &latest.position);
            let bytes =
                request("GET", &key_path(&self.ns, &format!("k{key}")), &format!("cache-position: {header}\r\n"), "");
            let Some((status, _, from_l1, body)) = lines.ask(instance, &bytes) else {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.counts.reads.fetch_add(1, Ordering::Relaxed);
            match status {
                200 => {
                    self.counts.from_l1.fetch_add(u64::from(from_l1), Ordering::Relaxed);
                    let number = body.split(&[':', ','][..]).nth(1).and_then(|number| number.parse::<u64>().ok());
                    if number.is_none_or(|number| number < latest.number) {
                        self.behind(key, instance, &latest, &body);
                    }
                }
                503 if body.contains("position_lost") && self.has_lost.load(Ordering::Relaxed) => {
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    // The writer writes it again, and this position is never of use again.
                    thread::sleep(Duration::from_micros(200));
                }
                503 if !body.contains("position_lost") => drop(self.counts.errors.fetch_add(1, Ordering::Relaxed)),
                _ => self.behind(key, instance, &latest, &body),
            }
        }
    }

    fn behind(&self, key: usize, instance: usize, latest: &Latest, body: &str) {
        self.counts.behind.fetch_add(1, Ordering::Relaxed);
        let mut examples = self.examples.lock().expect("no thread panics");
        if examples.len() < 10 {
            let mut text = String::new();
            let _ = write!(text, "k{key} by {instance}: wanted {} at {}, got {body}", latest.number, latest.position);
            examples.push(text);
        }
    }
}

/// What goes wrong, again and again, until all reads are done.
fn faults(checker: &Checker, servers: &mut [Redis], proxies: &[Proxy]) {
    let mut random = Random::new();
    let calm = || thread::sleep(Duration::from_millis(300));
    let none = Duration::ZERO;
    for round in 0.. {
        if checker.is_over() {
            return;
        }
        let shard = random.below(proxies.len());
        match round % 6 {
            0 => proxies[shard].cut(Of::Subscribers),
            1 => {
                proxies[shard].delay(Of::Subscribers, none, Duration::from_millis(80));
                calm();
                proxies[shard].delay(Of::Subscribers, none, none);
            }
            2 => proxies[shard].swallow(Of::Subscribers),
            3 => {
                // A message is lost on an unbroken connection.
                servers[shard].connect().command(&["INCR", "sidecache:seq"]);
            }
            4 => {
                checker.has_lost.store(true, Ordering::Relaxed);
                servers[shard].connect().command(&["FLUSHALL"]);
            }
            _ => {
                checker.has_lost.store(true, Ordering::Relaxed);
                servers[shard].kill();
                servers[shard].run();
            }
        }
        calm();
    }
}

#[test]
fn no_read_with_a_position_is_behind_it() {
    let mut servers = Redis::three();
    let proxies: Vec<Proxy> = servers.iter().map(Proxy::in_front_of).collect();
    let shards: Vec<String> =
        ["a", "b", "c"].iter().zip(&proxies).map(|(name, proxy)| format!("{name}={}", proxy.url())).collect();
    let settings = Settings::on(&servers).set("redis_shards", shards.join(","));
    let services: Vec<Service> = (0..3).map(|_| Service::start(settings.clone())).collect();
    let wanted = std::env::var("TEST_POSITION_READS").map_or(READS, |text| text.parse().expect("a whole number"));
    let checker = Checker {
        ns: namespace("positions"),
        instances: services.iter().map(Service::address).collect(),
        latest: (0..KEYS).map(|_| Mutex::default()).collect(),
        counts: Counts::default(),
        wanted,
        has_lost: AtomicBool::new(false),
        examples: Mutex::default(),
    };
    let began = Instant::now();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let checker = &checker;
            scope.spawn(move || checker.write(writer));
        }
        for _ in 0..READERS {
            scope.spawn(|| checker.read());
        }
        faults(&checker, &mut servers, &proxies);
    });
    let Counts { reads, from_l1, lost, errors, behind, writes } = checker.counts;
    let [reads, from_l1, lost, errors, behind, writes] =
        [reads, from_l1, lost, errors, behind, writes].map(AtomicU64::into_inner);
    eprintln!(
        "{reads} reads with positions in {:.0?}, {writes} writes: {behind} behind, {:.1} % answered from L1, {lost} lost, {errors} errors",
        began.elapsed(),
        from_l1 as f64 * 100.0 / reads as f64
    );
    let examples = checker.examples.into_inner().expect("no thread panics");
    assert_eq!(behind, 0, "{examples:#?}");
    assert!(from_l1 > reads / 20, "only {from_l1} of {reads} from L1");
    assert!(lost < reads / 2 && errors < reads / 2, "{lost} lost, {errors} errors");
}
