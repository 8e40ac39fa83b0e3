//! A million entries: the memory they need in Redis, the effect of a flush of a tenth of them on other namespaces,
//! and a listing that must contain all of them. It is one test on its own servers, since a million writes take long.
//! The measurements are printed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::answer::Answer;
use crate::support::client::{cache_path, encoded, key_path};
use crate::support::eventually::LATER;
use crate::support::line::{self, Line};
use crate::support::redis::Redis;
use crate::support::service::{Service, Settings};
use crate::support::slowlog::Watch;
use crate::support::walk::{Books, all_books};

const MILLION: usize = 1_000_000;
const NAMESPACES: usize = 10;
const OF_EACH: usize = MILLION / NAMESPACES;
const VALUE_BYTES: usize = 1_000;

/// The limits for the memory of a million entries of 1,000 bytes: in total, and relative to plain Redis.
const MAX_BYTES: u64 = 1_500_000_000;
const MAX_RATIO: f64 = 1.35;

/// How many plain entries are measured: as many as one shard stores.
const BARE: usize = 333_000;

/// The limit for the flush. The goal is one second, and the measured time is printed.
const FLUSH_BOUND: Duration = Duration::from_secs(5);

fn key(number: usize) -> String {
    format!("user:{number:06}")
}

fn value() -> String {
    format!("\"{}\"", "x".repeat(VALUE_BYTES - 2))
}

fn used_memory(servers: &[Redis]) -> u64 {
    servers.iter().map(|server| server.connect().info("memory", "used_memory")).sum()
}

fn stats(line: &mut Line, ns: &str) -> Answer {
    line.ask("GET", &key_path(ns, "stats"), "").expect(200)
}

#[test]
fn a_million_entries_are_cheap_to_keep_and_to_flush_and_are_all_listed() {
    let servers = Redis::three_preferred();
    let service = Service::start(Settings::on(&servers));
    let bare = bare_bytes_per_entry();
    let empty = used_memory(&servers);
    let watch = Watch::begin(&servers);
    let names: Vec<String> = (0..NAMESPACES).map(|number| format!("scale-{number}.")).collect();
    let started = Instant::now();
    for ns in &names {
        let value = value();
        line::fill(&service, ns, 0..OF_EACH, |number| format!(r#"{{"key":"{}","value":{value}}}"#, key(number)));
    }
    eprintln!("{MILLION} entries of {VALUE_BYTES} bytes were written in {:?}", started.elapsed());
    watch.expect_nothing_slow("while a million entries were written");
    memory(used_memory(&servers), empty, bare);
    flush_of_a_tenth(&service, &servers, &names);
    let mut line = Line::open(service.address());
    for ns in &names {
        line.ask("DELETE", &cache_path(ns), "").expect(200);
    }
    listing(&service, &servers);
}

fn memory(used: u64, empty: u64, bare: f64) {
    let each = (used - empty) as f64 / MILLION as f64;
    let ratio = each / bare;
    eprintln!("{used} bytes used, {each:.0} bytes an entry, {bare:.0} bare: {ratio:.3} times");
    assert!(used <= MAX_BYTES, "{used} bytes used");
    assert!(ratio <= MAX_RATIO, "{each:.0} bytes an entry, {bare:.0} bare: {ratio:.3} times");
}

/// The memory of plain SETs of the same names and values. Redis doubles its tables when they are full, so the number
/// of entries matters.
fn bare_bytes_per_entry() -> f64 {
    let redis = Redis::start();
    let mut connection = redis.connect();
    let before = connection.info("memory", "used_memory");
    let value = value();
    for start in (0..BARE).step_by(1_000) {
        let names: Vec<String> = (start..start + 1_000).map(|n| format!("cache:scale-0.:{}", key(n))).collect();
        connection.pipeline(names.iter().map(|name| vec!["SET", name, &value]));
    }
    let used = connection.info("memory", "used_memory") - before;
    used as f64 / BARE as f64
}

/// Reads keys of a namespace until `done`. Returns the sorted latencies.
fn reads_until(done: &AtomicBool, address: SocketAddr, ns: &str) -> Vec<Duration> {
    let (mut line, mut times) = (Line::open(address), Vec::new());
    while !done.load(Relaxed) {
        // Each read uses another key, so that the shards answer and not L1.
        let key = key(times.len() * 7 % OF_EACH);
        let asked = Instant::now();
        line.get(ns, &key).expect(200);
        times.push(asked.elapsed());
    }
    times.sort();
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Runs `work` while the neighbour is read. Returns the latencies of the reads, and the result of `work`.
fn beside<T>(address: SocketAddr, neighbour: &str, work: impl FnOnce() -> T) -> (Vec<Duration>, T) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| reads_until(&done, address, neighbour));
        let said = work();
        done.store(true, Relaxed);
        (reader.join().expect("the reader does not panic"), said)
    })
}

/// Flushes a hundred thousand of a million keys: all old keys of one of ten namespaces, selected by a pattern, while
/// other keys are written to the same namespace.
fn flush_of_a_tenth(service: &Service, servers: &[Redis], names: &[String]) {
    let address = service.address();
    let (flushed, neighbour) = (&names[3], &names[7]);
    let (quiet, ()) = beside(address, neighbour, || thread::sleep(Duration::from_millis(1_500)));
    let watch = Watch::begin(servers);
    let path = format!("{}?pattern={}", cache_path(flushed), encoded("user:*"));
    let (busy, (deleted, took, others)) = beside(address, neighbour, || {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| keep_writing(&done, address, flushed));
            let asked = Instant::now();
            let deleted = Line::open(address).ask("DELETE", &path, "").expect(200).number("deleted_count");
            let took = asked.elapsed();
            done.store(true, Relaxed);
            (deleted, took, writer.join().expect("the writer does not panic"))
        })
    });
    let (before, during) = (p99(&quiet), p99(&busy));
    eprintln!(
        "{deleted} keys flushed in {took:?}; p99 of a neighbour's reads {during:?} of {}, quiet {before:?} of {}: {:.2} times",
        busy.len(),
        quiet.len(),
        during.as_secs_f64() / before.as_secs_f64(),
    );
    watch.expect_nothing_slow("while a hundred thousand keys were flushed");
    // The writer's keys do not match, so none of them may be deleted, whenever they were written.
    assert_eq!(deleted, OF_EACH as u64);
    assert!(took <= FLUSH_BOUND, "{took:?}");
    let mut line = Line::open(address);
    for number in 0..others {
        line.get(flushed, &format!("other:{number}")).expect(200);
    }
    let left = stats(&mut line, flushed);
    assert_eq!((left.number("total_keys"), left.number("memory_used_bytes")), (others as u64, others as u64));
    let said = stats(&mut line, neighbour);
    assert_eq!(said.number("total_keys"), OF_EACH as u64);
    assert_eq!(said.number("memory_used_bytes"), (OF_EACH * VALUE_BYTES) as u64);
    // Then the same flush again, a flush of everything, and a flush of an unknown namespace.
    line.ask("DELETE", &path, "").expect_json_body(&json!({"success": true, "deleted_count": 0}));
    line.ask("DELETE", &cache_path(flushed), "").expect_json_body(&json!({"success": true, "deleted_count": others}));
    line.ask("DELETE", &cache_path("scale-unknown"), "")
        .expect_json_body(&json!({"success": true, "deleted_count": 0}));
}

/// Writes keys that the flush does not match, until `done`. Returns how many.
fn keep_writing(done: &AtomicBool, address: SocketAddr, ns: &str) -> usize {
    let (mut line, mut written) = (Line::open(address), 0);
    while !done.load(Relaxed) {
        line.set(ns, &format!("other:{written}"), "1").expect(201);
        written += 1;
    }
    written
}

/// In the listed namespace, the first 900 of each thousand keys exist throughout. The others come and go during the
/// listing.
const STAYING_OF_THOUSAND: usize = 900;
const LISTED: &str = "scale-listed.";

/// The tags of a key: one key in fifty has a tag.
fn tags(number: usize) -> &'static str {
    if number.is_multiple_of(50) { r#","tags":["fifty"]"# } else { "" }
}

fn stays(number: usize) -> bool {
    number % 1_000 < STAYING_OF_THOUSAND
}

fn listing(service: &Service, servers: &[Redis]) {
    let started = Instant::now();
    line::fill(service, LISTED, 0..MILLION, |number| {
        let tags = tags(number);
        format!(r#"{{"key":"{}","value":1{tags}}}"#, key(number))
    });
    eprintln!("{MILLION} small entries were written in {:?}", started.elapsed());
    let watch = Watch::begin(servers);
    let mut line = Line::open(service.address());
    assert_eq!(stats(&mut line, LISTED).number("total_keys"), MILLION as u64);

    let (started, mut page) = (Instant::now(), 0);
    let seen = list(&mut line, "", |line| {
        page += 1;
        if page % 20 == 0 {
            disturb(line, page / 20);
        }
    });
    eprintln!("listed in {page} pages and {:?}, including the writes in between", started.elapsed());
    let wrong: Vec<(usize, u32)> = (0..MILLION)
        .filter(|number| stays(*number))
        .map(|number| (number, seen.get(&key(number)).copied().unwrap_or(0)))
        .filter(|(_, times)| *times != 1)
        .take(10)
        .collect();
    assert!(wrong.is_empty(), "(number, times seen): {wrong:?}");
    // Keys that come or go may be listed or not, but no unknown key may be listed.
    let unknown = seen.keys().find(|key| !key.starts_with("user:") && !key.starts_with("new:"));
    assert_eq!(unknown, None);

    // Deletes the rest of the keys that come and go.
    assert!(flush(&mut line, "user:???9??") > 0);
    let tagged = list(&mut line, "&tag=fifty", |_| ());
    let expected = (0..MILLION).filter(|number| number % 50 == 0 && stays(*number));
    exactly(&tagged, expected.map(key), "tagged");
    let pattern = encoded("user:0[01]??[05]?");
    let matched = list(&mut line, &format!("&pattern={pattern}"), |_| ());
    let matches = |number: &usize| *number < 20_000 && [0, 5].contains(&(number / 10 % 10)) && stays(*number);
    exactly(&matched, (0..MILLION).filter(matches).map(key), "matched");
    watch.expect_nothing_slow("while a million keys were listed");
    eprintln!("listed again by tag and by pattern, {:?} in all", started.elapsed());
    bad_cursors(&mut line);

    let size = stats(&mut line, LISTED).number("total_keys");
    let asked = Instant::now();
    let deleted = flush_whole(&mut line, LISTED);
    eprintln!("{deleted} keys were flushed in {:?}", asked.elapsed());
    assert_eq!(deleted, size);
    let books = all_books(servers, LISTED);
    assert_eq!(books, Books { expirations: books.expirations, ..Books::default() });
}

/// Checks that exactly the expected keys were seen, each once.
fn exactly(seen: &HashMap<String, u32>, expected: impl Iterator<Item = String>, what: &str) {
    let mut count = 0;
    for key in expected {
        assert_eq!(seen.get(&key), Some(&1), "{what}: {key}");
        count += 1;
    }
    assert_eq!(seen.len(), count, "{what}: other keys were seen as well");
}

/// Follows the cursors to the end. Returns how often each key was seen.
fn list(line: &mut Line, query: &str, mut between: impl FnMut(&mut Line)) -> HashMap<String, u32> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut cursor = String::new();
    loop {
        let path = format!("{}?limit=1000{query}{cursor}", cache_path(LISTED));
        let page = line.ask("GET", &path, "").expect(200).json();
        let keys = page["keys"].as_array().expect("a list of keys");
        assert!(keys.len() <= 1_000, "{} keys on a page", keys.len());
        for key in keys {
            *seen.entry(key.as_str().expect("a key is a string").to_owned()).or_default() += 1;
        }
        match &page["cursor"] {
            Value::Null => return seen,
            next => cursor = format!("&cursor={}", encoded(next.as_str().expect("a cursor is a string"))),
        }
        between(line);
    }
}

/// Writes, overwrites and deletes keys during a listing, in a different thousand each time.
fn disturb(line: &mut Line, time: usize) {
    let thousand = time * 1_000;
    // Overwrites keys that stay, with other values and TTLs.
    let overwritten = (0..STAYING_OF_THOUSAND / 2).map(|number| {
        let ttl = ["", ",\"ttl\":1000", ",\"ttl\":50000"][(number + time) % 3];
        let number = thousand + number;
        let tags = tags(number);
        format!(r#"{{"key":"{}","value":22{ttl}{tags}}}"#, key(number))
    });
    line.mset(LISTED, overwritten);
    line.mset(LISTED, (0..500).map(|number| format!(r#"{{"key":"new:{time}:{number}","value":1}}"#)));
    match time % 16 {
        // Deletes thousands at once: a tenth of the keys that come and go, before and after the cursor.
        0 => _ = flush(line, &format!("user:{}??9??", time / 16)),
        8 => _ = flush(line, "new:*"),
        _ => {
            for number in STAYING_OF_THOUSAND..STAYING_OF_THOUSAND + 20 {
                let path = key_path(LISTED, &key(thousand + number));
                let status = line.ask("DELETE", &path, "").status;
                assert!([200, 404].contains(&status), "{status}");
            }
        }
    }
}

fn flush(line: &mut Line, pattern: &str) -> u64 {
    let path = format!("{}?pattern={}", cache_path(LISTED), encoded(pattern));
    line.ask("DELETE", &path, "").expect(200).number("deleted_count")
}

/// Flushes a whole namespace, as a job if it takes longer than a request may.
fn flush_whole(line: &mut Line, ns: &str) -> u64 {
    let answer = line.ask("DELETE", &cache_path(ns), "");
    if answer.status == 200 {
        return answer.number("deleted_count");
    }
    let id = answer.expect(202).json()["id"].as_str().expect("a job has an id").to_owned();
    // The time is measured in another place. Here a busy machine must not fail the test.
    let deadline = Instant::now() + LATER * 4;
    loop {
        let job = line.ask("GET", &format!("/api/v1/jobs/{id}"), "").expect(200).json();
        match job["state"].as_str() {
            Some("running") => assert!(Instant::now() < deadline, "{job}"),
            Some("done") => return job["result"]["deleted_count"].as_u64().expect("a number"),
            _ => panic!("{job}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn bad_cursors(line: &mut Line) {
    let page = line.ask("GET", &format!("{}?limit=10", cache_path(LISTED)), "").expect(200).json();
    let good = page["cursor"].as_str().expect("there is more").to_owned();
    let cut = &good[..good.len() - 1];
    let changed = format!("{good}A");
    for bad in ["", "0", "x", "!!!", "null", "-1", "99999999999999999999999", "MQ", "AAAA", cut, &changed] {
        let path = format!("{}?cursor={}", cache_path(LISTED), encoded(bad));
        let answer = line.ask("GET", &path, "");
        // A string that happens to be a valid cursor may be accepted. Nothing may break.
        if [cut, &changed].contains(&bad) && answer.status == 200 {
            continue;
        }
        let answer = answer.expect(400);
        assert_eq!(answer.json()["code"], "invalid_cursor", "{bad:?}: {}", answer.text());
    }
}
