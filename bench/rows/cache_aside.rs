//! A typical use of a cache: mostly reads, some keys much more often than others, through more than one instance.

use std::net::SocketAddr;

use anyhow::Context;

use super::{Definition, NS, fill, on, watch, watch_redis};
use crate::bench::Bench;
use crate::contest::{Contestant, contest};
use crate::load::generator::{Outcome, latency};
use crate::load::request::{Request, VALUE_BYTES, Zipf, ours};
use crate::load::{Arrivals, CONNECTIONS, Generator, Load, Script, What, Wrk};
use crate::report::{Findings, counted, shown};
use crate::support::postgres;
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "mix",
    title: "Cache-aside mix",
    about: "90 % GET and 10 % PUT (closed loop), 10 GETs for each PUT (open loop). The keys follow Zipf's law with \
            exponent 1.0 over 100,000 existing keys. Two instances on three shards and one PostgreSQL, each with \
            half of the connections. `no access log` means `access_log_sample_rate = 0`.",
    run,
};

/// Number of keys to draw from.
const DRAWN: usize = 100_000;

/// Number of requests, sent in turn.
const REQUESTS: usize = 110_000;

/// The open loop: the wanted rate, and the fractions of it to try, in descending order.
const READS: f64 = 50_000.0;
const WRITES: f64 = 5_000.0;
const PARTS: [f64; 8] = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
const QUICK_PARTS: [f64; 4] = [1.0, 0.5, 0.25, 0.1];

/// A rate is held if the last answer comes at most this long after the last request was due.
const HELD_S: f64 = 0.1;

/// The wanted p99, in ms.
const WANTED_P99: f64 = 5.0;

/// Two instances with their own Redis servers and database.
struct Pair {
    name: &'static str,
    shards: [Redis; 3],
    instances: [Service; 2],
}

impl Pair {
    fn start(name: &'static str, sample_rate: f64) -> anyhow::Result<Pair> {
        let (shards, database) = (Redis::three(), postgres::shared().fresh_database());
        let settings = on(&shards).set("database_url", database).set("access_log_sample_rate", sample_rate);
        let instances = [Service::start(settings.clone()), Service::start(settings)];
        fill(&instances[0], NS, DRAWN, VALUE_BYTES)?;
        Ok(Pair { name, shards, instances })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.instances.iter().map(Service::address).collect()
    }
}

/// Requests of which one in `one_in` is a write.
fn requests(one_in: usize) -> Vec<Request> {
    let mut zipf = Zipf::over(DRAWN);
    let request = |at: usize| match at % one_in {
        0 => ours::put(NS, zipf.draw(), VALUE_BYTES),
        _ => ours::get(NS, zipf.draw()),
    };
    (0..REQUESTS).map(request).collect()
}

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let pairs = [Pair::start("sidecache x 2", 1.0)?, Pair::start("sidecache x 2, no access log", 0.0)?];
    let script = Script::of(&requests(10))?;
    let contestants = pairs.each_ref().map(|pair| Contestant {
        name: pair.name.to_owned(),
        load: Load::Wrk(Wrk {
            addresses: pair.addresses(),
            connections: CONNECTIONS,
            what: What::Script(script.clone()),
        }),
        watched: vec![watch(&pair.instances.each_ref()), watch_redis(&pair.shards)],
        instances: pair.instances.iter().collect(),
        behind: None,
    });
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    let mut found = Findings::default();
    found.find("mix.rate", series[0].throughput()?, "two instances, all logged to PostgreSQL");
    found.table("Closed loop:", series);
    let requests = requests(11);
    // A quick run only tries the default settings.
    let searched = if bench.pace.quick { 1 } else { pairs.len() };
    for (number, pair) in pairs.iter().take(searched).enumerate() {
        let generator =
            Generator { addresses: pair.addresses(), connections: CONNECTIONS, requests: requests.clone() };
        let held = search(bench, pair.name, &generator, &mut found)?;
        if number == 0 {
            let (rate, p99) = held.first.context("not even the lowest rate is held")?;
            let low = held.low.map_or("with no rate".to_owned(), |rate| format!("< {WANTED_P99} ms {rate}"));
            found.find("mix.p99", p99, format!("{rate}; {low}"));
        }
    }
    Ok(found)
}

/// The result of a search, with the rates as text.
#[derive(Default)]
struct Held {
    /// The highest rate that was held, and its p99.
    first: Option<(String, f64)>,
    /// The highest rate that was held with the wanted p99.
    low: Option<String>,
}

/// Tries the rates in descending order until one is held with the wanted p99.
fn search(bench: &Bench, name: &str, generator: &Generator, found: &mut Findings) -> anyhow::Result<Held> {
    let mut all = Held::default();
    let parts = if bench.pace.quick { &QUICK_PARTS[..] } else { &PARTS[..] };
    for part in parts {
        let (reads, writes) = (READS * part, WRITES * part);
        let (rate, seconds) = (reads + writes, bench.pace.other_seconds as f64);
        let words = format!("at {}/s + {}/s", counted(reads), counted(writes));
        bench.progress.now(&format!("{name}, {words}"));
        let outcome = generator.run(Arrivals::Open { rate, count: (rate * seconds) as u64 })?;
        let held = outcome.is_whole() && outcome.elapsed.as_secs_f64() < seconds + HELD_S;
        let p99 = p99(&outcome);
        found.note(described(name, &words, held, &outcome));
        bench.progress.line(&format!("        {}", described(name, &words, held, &outcome)));
        if held && all.first.is_none() {
            all.first = Some((words.clone(), p99));
        }
        if held && p99 < WANTED_P99 {
            all.low = Some(words);
            break;
        }
    }
    Ok(all)
}

/// The higher p99 of reads and writes, in ms.
fn p99(outcome: &Outcome) -> f64 {
    [&outcome.reads, &outcome.writes]
        .map(|histogram| latency(histogram).p99_ms.unwrap_or(0.0))
        .into_iter()
        .fold(0.0, f64::max)
}

fn described(name: &str, rate: &str, held: bool, outcome: &Outcome) -> String {
    let times = [("reads", &outcome.reads), ("writes", &outcome.writes)].map(|(kind, histogram)| {
        let latency = latency(histogram);
        let [p50, p99, p999] =
            [latency.p50_ms, latency.p99_ms, latency.p999_ms].map(|ms| ms.map_or("-".to_owned(), shown));
        format!("{kind} p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms")
    });
    let kept = if held { "held" } else { "not held" };
    let lost = match outcome.is_whole() {
        true => String::new(),
        false => format!(
            "; {} not sent, {} unanswered, {} refused, {} broken",
            outcome.unsent, outcome.unanswered, outcome.refused, outcome.broken
        ),
    };
    let late = latency(&outcome.lateness).p99_ms.map_or("-".to_owned(), shown);
    format!("{name}, open loop {rate}: {kept}; {}; the generator was late by {late} ms (p99){lost}", times.join("; "))
}
