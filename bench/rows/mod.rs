//! The rows, in the order of the report. Each starts its own servers and stops them at its end.

mod access_log;
mod batch;
mod cache_aside;
mod connections;
mod delete;
mod embedded;
mod growth;
mod hit;
mod large;
mod memory;
mod pub_sub;
mod put;
mod through_redis;

use std::net::SocketAddr;
use std::ops::Range;
use std::thread;

use anyhow::bail;

use crate::bench::Bench;
use crate::contest::Contestant;
use crate::load::request::{Request, key, ours, value};
use crate::load::{CONNECTIONS, Generator, Load, Script, What, Wrk};
use crate::meter::{Part, Watched};
use crate::report::Findings;
use crate::support::line::Line;
use crate::support::random::Random;
use crate::support::redis::{self, Redis};
use crate::support::service::{Service, Settings};

/// One row: a subject and how it is measured.
pub struct Definition {
    /// For `--only`.
    pub id: &'static str,
    pub title: &'static str,
    /// Which programs run with which settings, and why.
    pub about: &'static str,
    pub run: fn(&Bench) -> anyhow::Result<Findings>,
}

pub const ALL: [Definition; 13] = [
    hit::ROW,
    through_redis::ROW,
    embedded::ROW,
    put::ROW,
    delete::ROW,
    cache_aside::ROW,
    batch::ROW,
    large::ROW,
    connections::ROW,
    growth::ROW,
    memory::ROW,
    access_log::ROW,
    pub_sub::ROW,
];

/// Number of keys over which requests are spread, where that matters.
const KEYS: usize = 10_000;

/// Number of keys stored with one request.
const BATCH: usize = 500;

/// How often such a request is tried.
const ATTEMPTS: usize = 20;

/// The namespace of the rows.
const NS: &str = "bench";

/// The default settings without an access log, because the peers write none either.
fn unlogged() -> Settings {
    Settings::none().set("access_log_sample_rate", 0)
}

/// Like [`unlogged`], on these shards.
fn on(servers: &[Redis]) -> Settings {
    unlogged().set("redis_shards", redis::shards(servers))
}

fn process(redis: &Redis) -> u32 {
    u32::try_from(redis.connect().info("server", "process_id")).expect("a process id is a small number")
}

fn watch_redis(servers: &[Redis]) -> Watched {
    Watched { part: Part::Redis, processes: servers.iter().map(process).collect() }
}

fn watch(services: &[&Service]) -> Watched {
    Watched::server(services.iter().map(|service| service.id()))
}

/// Stores the first `keys` keys, half of them over each of two connections.
///
/// # Errors
/// Some keys could not be stored, even after several attempts.
fn fill(service: &Service, namespace: &str, keys: usize, bytes: usize) -> anyhow::Result<()> {
    let part = |numbers: Range<usize>| {
        let mut line = Line::open(service.address());
        let mut batches = numbers.clone().step_by(BATCH);
        batches.try_for_each(|first| store(&mut line, namespace, first..numbers.end.min(first + BATCH), bytes))
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| part(keys / 2..keys));
        part(0..keys / 2)?;
        other.join().unwrap_or_else(|_| bail!("storing keys panicked"))
    })
}

/// Stores a batch. Nothing is measured here, so a write that fails on a busy machine's deadlines is sent again.
fn store(line: &mut Line, namespace: &str, numbers: Range<usize>, bytes: usize) -> anyhow::Result<()> {
    let request = ours::mset(namespace, numbers.clone(), bytes);
    let stored = format!("{{\"success\":true,\"stored\":{}}}", numbers.len());
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        line.send(&request.bytes)?;
        let answer = line.receive()?;
        if answer.status == 200 && answer.body == stored.as_bytes() {
            return Ok(());
        }
        said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
    }
    bail!("keys {numbers:?} are not stored: {said}")
}

/// Stores the same keys and values as plain strings.
fn fill_bare(redis: &Redis, keys: usize, bytes: usize) {
    let (value, mut connection) = (value(bytes), redis.connect());
    let names: Vec<String> = (0..keys).map(key).collect();
    for part in names.chunks(1_000) {
        connection.pipeline(part.iter().map(|name| vec!["SET", name, &value]));
    }
}

/// All key numbers in random order.
fn shuffled(keys: usize) -> Vec<usize> {
    let mut random = Random::seeded(7);
    let mut numbers: Vec<usize> = (0..keys).collect();
    for last in (1..keys).rev() {
        let other = usize::try_from(random.number() % (last as u64 + 1)).unwrap_or(last);
        numbers.swap(last, other);
    }
    numbers
}

/// A closed loop with different requests.
fn peak(address: SocketAddr, requests: &[Request]) -> anyhow::Result<Load> {
    let what = What::Script(Script::of(requests)?);
    Ok(Load::Wrk(Wrk { addresses: vec![address], connections: CONNECTIONS, what }))
}

/// A closed loop with one request.
fn peak_of_path(address: SocketAddr, path: &str) -> Load {
    Load::Wrk(Wrk { addresses: vec![address], connections: CONNECTIONS, what: What::Path(path.to_owned()) })
}

/// An open loop.
fn at_rate(address: SocketAddr, requests: Vec<Request>, rate: f64) -> Load {
    Load::Open(Generator { addresses: vec![address], connections: CONNECTIONS, requests }, rate)
}

/// An instance on these shards.
fn contestant<'s>(name: &str, service: &'s Service, shards: &[Redis], load: Load) -> Contestant<'s> {
    Contestant {
        name: name.to_owned(),
        load,
        watched: vec![watch(&[service]), watch_redis(shards)],
        instances: vec![service],
        behind: None,
    }
}

/// A peer (or none) in front of these servers.
fn peer<'s>(name: &str, load: Load, peer: Option<Watched>, servers: &'s [Redis]) -> Contestant<'s> {
    Contestant {
        name: name.to_owned(),
        load,
        watched: peer.into_iter().chain([watch_redis(servers)]).collect(),
        instances: Vec::new(),
        behind: servers.first(),
    }
}
