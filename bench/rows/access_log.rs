//! The cost of logging every GET to PostgreSQL.

use super::{Definition, KEYS, NS, at_rate, fill, on, peak, watch};
use crate::bench::Bench;
use crate::contest::{Contestant, contest, expect_tier};
use crate::load::Load;
use crate::load::request::{VALUE_BYTES, ours};
use crate::meter::{Part, Watched};
use crate::report::{Findings, counted};
use crate::support::line::Line;
use crate::support::metric::Metrics;
use crate::support::postgres::Postgres;
use crate::support::process;
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "access-log",
    title: "Access log to PostgreSQL",
    about: "GETs of 1,000 keys from L1, with `access_log_sample_rate` 1 (every operation is logged, the default) and \
            0. In the closed loop there are more reads than PostgreSQL can store, so rows are dropped and counted. \
            The target applies to the open loop, at a rate at which every row should be written. PostgreSQL runs \
            without `fsync`; its CPU is shown separately.",
    run,
};

const RATE: f64 = 10_000.0;
const SOME: usize = KEYS / 10;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let (redis, (database, server)) = ([Redis::start()], postgres());
    let start = |rate: u8| {
        let url = database.fresh_database();
        Service::start(on(&redis).set("database_url", url).set("access_log_sample_rate", rate))
    };
    let (silent, logged) = (start(0), start(1));
    fill(&silent, NS, SOME, VALUE_BYTES)?;
    for service in [&silent, &logged] {
        expect_tier(service.address(), &ours::path_of(NS, 0), true)?;
    }
    let gets: Vec<_> = (0..SOME).map(|number| ours::get(NS, number)).collect();
    let postgres = Watched { part: Part::PostgreSql, processes: server };
    let of = |name: &str, service, load: Load| Contestant {
        name: name.to_owned(),
        load,
        watched: vec![watch(&[service]), postgres.clone()],
        instances: vec![service],
        behind: None,
    };
    let mut found = Findings::default();
    let contestants = [
        of("no access log", &silent, at_rate(silent.address(), gets.clone(), RATE)),
        of("every GET logged", &logged, at_rate(logged.address(), gets.clone(), RATE)),
    ];
    let before = rows(&logged);
    let series = contest(bench, bench.pace.rounds, bench.pace.seconds, &contestants)?;
    let words = told(before, rows(&logged));
    let ratio = series[1].over(&series[0], |sample| sample.cpu_micros(Part::Server))?;
    found.ratio("CPU per GET, open loop: logged / not", ratio);
    found.find("access_log.cpu", ratio.median, format!("open loop at {}/s, {words}", counted(RATE)));
    found.note(format!("open loop: {words}"));
    found.table(format!("Open loop, {} requests/s:", counted(RATE)), series);

    let contestants = [
        of("no access log", &silent, peak(silent.address(), &gets)?),
        of("every GET logged", &logged, peak(logged.address(), &gets)?),
    ];
    let before = rows(&logged);
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    found.note(format!("closed loop: {}", told(before, rows(&logged))));
    let ratio = series[1].over(&series[0], |sample| sample.cpu_micros(Part::Server))?;
    found.ratio("CPU per GET, closed loop: logged / not", ratio);
    found.table("Closed loop:", series);
    Ok(found)
}

/// A server and its process: the child process that is new after the start.
fn postgres() -> (Postgres, Vec<u32>) {
    let ours = std::process::id();
    let before = process::children(ours);
    let server = Postgres::start();
    let named =
        |id: &u32| std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "postgres");
    (server, process::children(ours).into_iter().filter(|id| !before.contains(id) && named(id)).collect())
}

/// The numbers of rows written and rows dropped.
fn rows(service: &Service) -> [f64; 2] {
    let answer = Line::open(service.address()).ask("GET", "/metrics", "").expect(200);
    let metrics = Metrics::parse(answer.text());
    ["sidecache_access_log_written_total", "sidecache_access_log_dropped_total"].map(|name| metrics.total(name))
}

fn told(before: [f64; 2], after: [f64; 2]) -> String {
    format!(
        "{} rows written and {} dropped by the end of the runs",
        counted(after[0] - before[0]),
        counted(after[1] - before[1])
    )
}
