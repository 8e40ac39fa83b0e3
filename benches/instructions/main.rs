//! Instructions per request, as callgrind counts them: a figure that other load on the machine hardly moves, so
//! that a regression of a few percent shows.
//!
//! Each row runs the built service, and Redis behind it, under callgrind, warms them up, and counts what they
//! execute for requests over one connection on loopback, and then for as long a time without requests: the
//! difference is what the requests cost, without what is done by the clock. As each request finds everything
//! asleep, it wakes up more than one of many at once does.
//!
//! ```text
//! make instructions                                                      # the rows, for the release build
//! INSTRUCTIONS_PROGRAM=target/dist/sidecache make instructions           # for another build
//! INSTRUCTIONS_REQUESTS=20000 cargo bench --locked --bench instructions  # closer
//! ```
//!
//! What callgrind wrote is kept, for `callgrind_annotate`: the second file of each program is of the requests.

#![expect(clippy::print_stdout, reason = "it prints its table")]

mod callgrind;
mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use self::callgrind::{Program, free_port};
use self::wire::Connection;

/// Bytes of a value, with its quotes.
const VALUE_BYTES: usize = 1000;

/// Keys that are asked for in turn.
const KEYS: usize = 100;

/// Until what was begun is done, and what is done by the clock has found its pace.
const SETTLING: Duration = Duration::from_secs(3);

/// What is counted.
struct Row {
    name: &'static str,
    l1_max_mb: &'static str,
    /// Whether each request is a row in the access log.
    log: &'static str,
    verb: Verb,
    /// What the answers' `Cache-Status` has to say, so that the row is what it claims to be.
    answered_by: &'static str,
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    Put,
}

const ROWS: [Row; 4] = [
    Row { name: "GET, L1 hit", l1_max_mb: "64", log: "0", verb: Verb::Get, answered_by: "sidecache-l1; hit" },
    Row { name: "the same, logged", l1_max_mb: "64", log: "1", verb: Verb::Get, answered_by: "sidecache-l1; hit" },
    Row { name: "GET through Redis", l1_max_mb: "0", log: "0", verb: Verb::Get, answered_by: "sidecache-shard; hit" },
    Row { name: "PUT", l1_max_mb: "64", log: "0", verb: Verb::Put, answered_by: "" },
];

/// Instructions a request.
struct Counts {
    service: u64,
    redis: u64,
}

fn main() {
    let requests: u64 = env::var("INSTRUCTIONS_REQUESTS").map_or(3000, |text| {
        text.parse().unwrap_or_else(|_| panic!("INSTRUCTIONS_REQUESTS is a number, not {text:?}"))
    });
    let service = env::var_os("INSTRUCTIONS_PROGRAM").map_or(env!("CARGO_BIN_EXE_sidecache").into(), PathBuf::from);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    println!("instructions per request, from {requests} requests, values of {VALUE_BYTES} bytes");
    println!("service: {}; callgrind's files: {}", service.display(), folder.display());
    println!("{:<20}{:>12}{:>12}", "", "sidecache", "Redis");
    for (number, row) in ROWS.iter().enumerate() {
        let each = run(row, &service, &folder.join(number.to_string()), requests);
        println!("{:<20}{:>12}{:>12}", row.name, each.service, each.redis);
    }
}

/// Starts everything, and counts after a warm-up.
fn run(row: &Row, service: &Path, files: &Path, requests: u64) -> Counts {
    let folder = tempfile::tempdir().expect("a folder for the database");
    let (redis_port, port) = (free_port(), free_port());
    let mut redis = Program::start("redis-server", files.with_extension("redis"), |command| {
        // Its own work by the clock once a second, the least there is.
        command.args(["--port", &redis_port.to_string(), "--save", "", "--hz", "1", "--activerehashing", "no"]);
    });
    let mut redis_commands = Connection::open(&mut redis, redis_port);
    redis_commands.expect(b"PING\r\n", b"+PONG");
    let mut service = Program::start(service, files.with_extension("sidecache"), |command| {
        command
            .current_dir(folder.path())
            .env("SIDECACHE_LISTEN", format!("127.0.0.1:{port}"))
            .env("SIDECACHE_REDIS_SHARDS", format!("a=redis://127.0.0.1:{redis_port}"))
            .env("SIDECACHE_L1_MAX_MB", row.l1_max_mb)
            .env("SIDECACHE_ACCESS_LOG_SAMPLE_RATE", row.log)
            // A policy that does not change with the defaults, so that the counts of two versions compare.
            .env("SIDECACHE_DEFAULT_TTL", "0")
            .env("SIDECACHE_DEFAULT_MAX_SIZE_MB", "0")
            // Callgrind makes all of it some fifty times slower.
            .env("SIDECACHE_REDIS_TIMEOUT_MS", "10000")
            .env("SIDECACHE_REQUEST_TIMEOUT_MS", "60000")
            .env("SIDECACHE_HEADER_TIMEOUT_MS", "60000")
            .env("SIDECACHE_MAX_STALENESS_MS", "30000")
            .env("SIDECACHE_LOG", "error");
    });
    let mut connection = Connection::open(&mut service, port);
    connection.until_ready();
    let value = format!("\"{}\"", "v".repeat(VALUE_BYTES - 2));
    let put = |key: usize| wire::put(&path(key), &format!("{{\"value\":{value}}}"));
    for key in 0..KEYS {
        connection.ask(&put(key));
    }
    let questions: Vec<String> = match row.verb {
        Verb::Get => (0..KEYS).map(|key| wire::get(&path(key))).collect(),
        Verb::Put => (0..KEYS).map(put).collect(),
    };
    for question in &questions {
        connection.ask_until(question, row.answered_by);
    }
    std::thread::sleep(SETTLING);
    let mut count = || (service.count(), redis.count());
    count();
    let began = Instant::now();
    for question in questions.iter().cycle().take(requests as usize) {
        connection.ask(question);
    }
    // What a request leaves to be done later, such as a line in a batch, is done about a second later.
    std::thread::sleep(SETTLING);
    let (with_service, with_redis) = count();
    std::thread::sleep(began.elapsed());
    let (without_service, without_redis) = count();
    let each = |with: u64, without: u64| with.saturating_sub(without) / requests;
    Counts { service: each(with_service, without_service), redis: each(with_redis, without_redis) }
}

fn path(key: usize) -> String {
    format!("/api/v1/cache/bench/user_{key}")
}
