//! The rows, in the order of the report. Each starts its own servers, which end with it.

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

use crate::bench::Bench;
use crate::contest::Contestant;
use crate::load::request::{Request, key, value};
use crate::load::{CONNECTIONS, Generator, Load, Script, What, Wrk};
use crate::meter::{Part, Watched};
use crate::report::Findings;
use crate::support::line;
use crate::support::random::Random;
use crate::support::redis::{self, Redis};
use crate::support::service::{Service, Settings};

/// One subject and how it is measured.
pub struct Definition {
    /// For `--only`.
    pub id: &'static str,
    pub title: &'static str,
    /// What runs with which settings, and why so.
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

/// Keys that requests are spread over, where it matters that they differ.
const KEYS: usize = 10_000;

/// The namespace of the rows.
const NS: &str = "bench";

/// The defaults, on these shards.
fn on(servers: &[Redis]) -> Settings {
    Settings::none().set("redis_shards", redis::shards(servers))
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

/// Stores the first keys.
fn fill(service: &Service, namespace: &str, keys: usize, bytes: usize) {
    let value = value(bytes);
    line::fill(service, namespace, 0..keys, |number| format!(r#"{{"key":"{}","value":{value}}}"#, key(number)));
}

/// The same keys and values as bare strings.
fn fill_bare(redis: &Redis, keys: usize, bytes: usize) {
    let (value, mut connection) = (value(bytes), redis.connect());
    let names: Vec<String> = (0..keys).map(key).collect();
    for part in names.chunks(1_000) {
        connection.pipeline(part.iter().map(|name| vec!["SET", name, &value]));
    }
}

/// Every key once, in an order without order.
fn shuffled(keys: usize) -> Vec<usize> {
    let mut random = Random::seeded(7);
    let mut numbers: Vec<usize> = (0..keys).collect();
    for last in (1..keys).rev() {
        let other = usize::try_from(random.number() % (last as u64 + 1)).unwrap_or(last);
        numbers.swap(last, other);
    }
    numbers
}

/// A closed loop of different requests.
fn peak(address: SocketAddr, requests: &[Request]) -> anyhow::Result<Load> {
    let what = What::Script(Script::of(requests)?);
    Ok(Load::Wrk(Wrk { addresses: vec![address], connections: CONNECTIONS, what }))
}

/// A closed loop of one request.
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

/// A peer, or none, before these servers.
fn peer<'s>(name: &str, load: Load, peer: Option<Watched>, servers: &'s [Redis]) -> Contestant<'s> {
    Contestant {
        name: name.to_owned(),
        load,
        watched: peer.into_iter().chain([watch_redis(servers)]).collect(),
        instances: Vec::new(),
        behind: servers.first(),
    }
}
