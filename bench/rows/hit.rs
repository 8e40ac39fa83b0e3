//! A GET that L1 answers, compared with a constant from nginx.

use super::{Definition, KEYS, NS, at_rate, fill, on, peak, peak_of_path, watch};
use crate::bench::Bench;
use crate::contest::{Contestant, contest, expect_tier};
use crate::load::request::{VALUE_BYTES, ours, read};
use crate::meter::Part;
use crate::peers::Nginx;
use crate::peers::nginx::CONSTANT;
use crate::report::{Findings, counted};
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "hit",
    title: "GET, L1 hit",
    about: "One key, or 1,000 keys in turn, on one Redis shard. nginx: `return 200` with a constant of 1,000 bytes, \
            `worker_processes auto`, `access_log off`. `logged`: every hit is logged to SQLite, which is the \
            default; the target applies to the run without the log, because nginx writes none either.",
    run,
};

/// Requests a second of the open loop.
const RATE: f64 = 20_000.0;

/// Number of keys, read in turn; all fit into L1.
const SOME: usize = KEYS / 10;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let redis = [Redis::start()];
    let logged = Service::start(on(&redis).set("access_log_sample_rate", 1));
    let silent = Service::start(on(&redis));
    fill(&logged, NS, SOME, VALUE_BYTES)?;
    let nginx = Nginx::start(VALUE_BYTES, VALUE_BYTES)?;
    let path = ours::path_of(NS, 0);
    for service in [&logged, &silent] {
        expect_tier(service.address(), &path, true)?;
    }
    let keys: Vec<_> = (0..SOME).map(|number| ours::get(NS, number)).collect();
    let of = |name: &str, service, load| Contestant {
        name: name.to_owned(),
        load,
        watched: vec![watch(&[service])],
        instances: vec![service],
        behind: None,
    };
    let peer = |load| Contestant {
        name: "nginx, constant".to_owned(),
        load,
        watched: vec![nginx.watched()],
        instances: Vec::new(),
        behind: None,
    };
    let contestants = [
        peer(peak_of_path(nginx.address(), CONSTANT)),
        of("sidecache", &silent, peak_of_path(silent.address(), &path)),
        of("sidecache, 1,000 keys", &silent, peak(silent.address(), &keys)?),
        of("sidecache, logged", &logged, peak_of_path(logged.address(), &path)),
    ];
    let series = contest(bench, bench.pace.rounds, bench.pace.seconds, &contestants)?;
    for service in [&logged, &silent] {
        expect_tier(service.address(), &path, true)?;
    }
    let mut found = Findings::default();
    let [constant, ours, many, noted] = &series[..] else { unreachable!("as many as contestants") };
    let throughput = ours.over(constant, |sample| Some(sample.per_second()))?;
    let cpu = ours.over(constant, |sample| sample.cpu_micros(Part::Server))?;
    found.ratio("throughput: sidecache / nginx", throughput);
    found.ratio("CPU per request: sidecache / nginx", cpu);
    found.ratio(
        "CPU per request: sidecache with 1,000 keys / nginx",
        many.over(constant, |sample| sample.cpu_micros(Part::Server))?,
    );
    let logged_cpu = noted.over(constant, |sample| sample.cpu_micros(Part::Server))?;
    found.ratio("CPU per request: sidecache, logged / nginx", logged_cpu);
    let note = format!("neither writes an access log; {:.2} with every hit logged to SQLite", logged_cpu.median);
    found.find("hit.cpu", cpu.median, note);
    found.find("hit.throughput", throughput.median, "");
    found.find("P-05", ours.throughput()?, "L1 hits, closed loop");
    found.table("Closed loop:", series);

    let contestants = [
        peer(at_rate(nginx.address(), vec![read(CONSTANT)], RATE)),
        of("sidecache", &silent, at_rate(silent.address(), keys, RATE)),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    found.table(format!("Open loop, {} requests/s, 1,000 keys:", counted(RATE)), series);
    Ok(found)
}
