//! Whether an operation costs more when more is stored; and how much memory a million keys need, and how long a scan
//! takes.

use std::time::Instant;

use anyhow::ensure;

use super::{Definition, KEYS, NS, contestant, fill, on, peak, unlogged, watch};
use crate::bench::Bench;
use crate::contest::{Contestant, Sample, Series, contest};
use crate::load::Request;
use crate::load::request::{VALUE_BYTES, ours};
use crate::meter::memory_available;
use crate::report::{Findings, counted, shown};
use crate::support::client::{cache_path, encoded};
use crate::support::line::Line;
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "growth",
    title: "Growth",
    about: "The same operations with 10,000 stored keys and with very many; keys are drawn uniformly. Redis: three \
            shards each, `l1_max_mb = 0`. The embedded store: `embedded_max_mb = 8192`.",
    run,
};

/// Numbers of different requests, sent in turn.
const GETS: usize = 100_000;
const PUTS: usize = 20_000;

/// Number of keys in the scanned namespace.
const SCANNED: usize = 100_000;

/// The maximum memory of a key in Redis, roughly, in bytes.
const BYTES_A_KEY: u64 = 1_700;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    redis(bench, &mut found)?;
    embedded(bench, &mut found)?;
    Ok(found)
}

fn redis(bench: &Bench, found: &mut Findings) -> anyhow::Result<()> {
    let keys = bench.pace.keys;
    let (wanted, free) = (keys as u64 * BYTES_A_KEY, memory_available());
    ensure!(wanted < free, "{keys} keys need {wanted} bytes of memory, but only {free} are free");
    let (few_shards, many_shards) = (Redis::three(), Redis::three());
    let few = Service::start(on(&few_shards).set("l1_max_mb", 0));
    let many = Service::start(on(&many_shards).set("l1_max_mb", 0));
    let empty = used_bytes(&many_shards);
    fill(&few, NS, KEYS, VALUE_BYTES)?;
    bench.progress.now(&format!("storing {keys} keys"));
    let begun = Instant::now();
    fill(&many, NS, keys, VALUE_BYTES)?;
    let (took, used) = (begun.elapsed().as_secs_f64(), used_bytes(&many_shards) - empty);
    let of_a_million = used as f64 / keys as f64 * 1e6;
    found.note(format!(
        "mset stored {} keys in {} s; each uses {} bytes of Redis' memory",
        counted(keys as f64),
        shown(took),
        counted(of_a_million / 1e6)
    ));
    found.find("P-07", of_a_million / 1e9, format!("measured with {} keys", counted(keys as f64)));

    let requests = |keys| requests(keys);
    let ((get_few, put_few), (get_many, put_many)) = (requests(KEYS), requests(keys));
    let number = counted(keys as f64);
    let contestants = [
        contestant("GET, 10,000 keys", &few, &few_shards, peak(few.address(), &get_few)?),
        contestant(&format!("GET, {number} keys"), &many, &many_shards, peak(many.address(), &get_many)?),
        contestant("PUT, 10,000 keys", &few, &few_shards, peak(few.address(), &put_few)?),
        contestant(&format!("PUT, {number} keys"), &many, &many_shards, peak(many.address(), &put_many)?),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    compare(found, &series, "Redis, CPU of both", ["growth.get", "growth.put"], &number)?;
    found.table("Redis, closed loop:", series);
    scan(bench, &many, found)
}

/// Lists and then flushes the keys that match a pattern, while many other keys are stored.
fn scan(bench: &Bench, service: &Service, found: &mut Findings) -> anyhow::Result<()> {
    const SCANNED_NS: &str = "scanned";
    bench.progress.now("scanning by pattern");
    fill(service, SCANNED_NS, SCANNED, VALUE_BYTES)?;
    let (path, pattern) = (cache_path(SCANNED_NS), encoded("key:*"));
    let mut line = Line::open(service.address());
    let begun = Instant::now();
    let (mut listed, mut cursor) = (0, String::new());
    loop {
        let page = line.ask("GET", &format!("{path}?pattern={pattern}&limit=1000{cursor}"), "").expect(200).json();
        listed += page["keys"].as_array().map_or(0, Vec::len);
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", encoded(next)),
            None => break,
        }
    }
    let listing = begun.elapsed().as_secs_f64();
    ensure!(listed == SCANNED, "{listed} keys were listed, not {SCANNED}");
    let begun = Instant::now();
    let deleted = line.ask("DELETE", &format!("{path}?pattern={pattern}"), "").expect(200).number("deleted_count");
    let flushing = begun.elapsed().as_secs_f64();
    ensure!(deleted == SCANNED as u64, "{deleted} keys were flushed, not {SCANNED}");
    let words = format!("listed in {} s, flushed in {} s; the slower one counts", shown(listing), shown(flushing));
    found.find("P-10", listing.max(flushing), words);
    Ok(())
}

fn embedded(bench: &Bench, found: &mut Findings) -> anyhow::Result<()> {
    let keys = bench.pace.embedded_keys;
    let settings = unlogged().set("embedded_max_mb", 8_192);
    let (few, many) = (Service::start(settings.clone()), Service::start(settings));
    fill(&few, NS, KEYS, VALUE_BYTES)?;
    bench.progress.now(&format!("storing {keys} keys in the embedded store"));
    fill(&many, NS, keys, VALUE_BYTES)?;
    let ((get_few, put_few), (get_many, put_many)) = (requests(KEYS), requests(keys));
    let number = counted(keys as f64);
    let of = |name: &str, service, requests: &[Request]| -> anyhow::Result<Contestant<'_>> {
        let load = peak(Service::address(service), requests)?;
        let watched = vec![watch(&[service])];
        Ok(Contestant { name: name.to_owned(), load, watched, instances: vec![service], behind: None })
    };
    let contestants = [
        of("GET, 10,000 keys", &few, &get_few)?,
        of(&format!("GET, {number} keys"), &many, &get_many)?,
        of("PUT, 10,000 keys", &few, &put_few)?,
        of(&format!("PUT, {number} keys"), &many, &put_many)?,
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    compare(found, &series, "embedded, CPU", ["growth.embedded.get", "growth.embedded.put"], &number)?;
    found.table("The embedded store, closed loop:", series);
    Ok(())
}

/// Compares many keys with few keys, for GET and for PUT.
fn compare(
    found: &mut Findings,
    series: &[Series],
    of: &str,
    ids: [&'static str; 2],
    keys: &str,
) -> anyhow::Result<()> {
    let [get_few, get_many, put_few, put_many] = series else { unreachable!("as many as contestants") };
    for (id, verb, many, few) in [(ids[0], "GET", get_many, get_few), (ids[1], "PUT", put_many, put_few)] {
        let ratio = many.over(few, Sample::cpu_micros_with_redis)?;
        found.ratio(format!("{of} per {verb}: {keys} keys / 10,000"), ratio);
        found.find(id, ratio.median, format!("{keys} keys"));
    }
    Ok(())
}

/// GETs and PUTs of uniformly drawn keys.
fn requests(keys: usize) -> (Vec<Request>, Vec<Request>) {
    let mut random = Random::seeded(5);
    let mut drawn = || (random.number() % keys as u64) as usize;
    let gets = (0..GETS).map(|_| ours::get(NS, drawn())).collect();
    let puts = (0..PUTS).map(|_| ours::put(NS, drawn(), VALUE_BYTES)).collect();
    (gets, puts)
}

fn used_bytes(shards: &[Redis]) -> u64 {
    shards.iter().map(|shard| shard.connect().info("memory", "used_memory")).sum()
}
