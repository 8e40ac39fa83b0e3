//! Instructions per request, counted by callgrind. Other load on the machine hardly changes this figure, so it shows
//! a regression of a few percent.
//!
//! Each row runs the built service and Redis under callgrind, warms them up, and counts their instructions while
//! requests are sent over one connection on loopback. Then it counts for the same time without requests; the
//! difference is the cost of the requests, without periodic work. Each request finds idle threads, so it causes more
//! wake-ups than one of many concurrent requests.
//!
//! ```text
//! make instructions                                                      # all rows, for the release build
//! INSTRUCTIONS_PROGRAM=target/dist/sidecache make instructions           # for another build
//! INSTRUCTIONS_REQUESTS=20000 cargo bench --locked --bench instructions  # more precise
//! ```
//!
//! callgrind's files are kept for `callgrind_annotate`; the second file of each program covers the requests.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod callgrind;
mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use self::callgrind::{Program, free_port};
use self::wire::Connection;

/// Length of a value in bytes, including its quotes.
const VALUE_BYTES: usize = 1000;

/// Number of keys, requested in turn.
const KEYS: usize = 100;

/// Time until all started work has ended and periodic work is regular.
const SETTLING: Duration = Duration::from_secs(3);

/// One measurement.
struct Row {
    name: &'static str,
    l1_max_mb: &'static str,
    /// `access_log_sample_rate`: 1 logs each request.
    log: &'static str,
    verb: Verb,
    /// Header lines of the requests, each with its line break.
    headers: &'static str,
    /// What `Cache-Status` must contain, to make sure that the row measures what it claims.
    answered_by: &'static str,
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    Put,
}

const ROWS: [Row; 6] = [
    HIT,
    Row { name: "the same, logged", log: "1", ..HIT },
    Row { name: "Prefer: lease", headers: "prefer: lease=10\r\n", ..HIT },
    Row { name: "GET through Redis", l1_max_mb: "0", answered_by: "sidecache-shard; hit", ..HIT },
    PUT,
    Row { name: "PUT, If-Match", headers: "if-match: *\r\n", ..PUT },
];

const HIT: Row = Row {
    name: "GET, L1 hit",
    l1_max_mb: "64",
    log: "0",
    verb: Verb::Get,
    headers: "",
    answered_by: "sidecache-l1; hit",
};

const PUT: Row = Row { name: "PUT", verb: Verb::Put, answered_by: "", ..HIT };

/// Instructions per request.
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

/// Starts everything, warms it up, and counts.
fn run(row: &Row, service: &Path, files: &Path, requests: u64) -> Counts {
    let folder = tempfile::tempdir().expect("a folder for the database");
    let (redis_port, port) = (free_port(), free_port());
    let mut redis = Program::start("redis-server", files.with_extension("redis"), |command| {
        // Redis' periodic work only once a second, the minimum.
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
            // A fixed policy, so that counts of two versions can be compared even if the defaults changed.
            .env("SIDECACHE_DEFAULT_TTL", "0")
            .env("SIDECACHE_DEFAULT_MAX_SIZE_MB", "0")
            // Callgrind slows everything down about fifty times.
            .env("SIDECACHE_REDIS_TIMEOUT_MS", "10000")
            .env("SIDECACHE_REQUEST_TIMEOUT_MS", "60000")
            .env("SIDECACHE_HEADER_TIMEOUT_MS", "60000")
            .env("SIDECACHE_MAX_STALENESS_MS", "30000")
            .env("SIDECACHE_LOG", "error");
    });
    let mut connection = Connection::open(&mut service, port);
    connection.until_ready();
    let value = format!("\"{}\"", "v".repeat(VALUE_BYTES - 2));
    let put = |key: usize, headers: &str| wire::put(&path(key), &format!("{{\"value\":{value}}}"), headers);
    for key in 0..KEYS {
        connection.ask(&put(key, ""));
    }
    let questions: Vec<String> = match row.verb {
        Verb::Get => (0..KEYS).map(|key| wire::get(&path(key), row.headers)).collect(),
        Verb::Put => (0..KEYS).map(|key| put(key, row.headers)).collect(),
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
    // Wait for work that a request starts but that is done about a second later, such as writing a batch of the
    // access log.
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
