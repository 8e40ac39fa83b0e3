//! GET of a value of 1 MB, compared with a constant from nginx.

use super::{Definition, NS, at_rate, contestant, fill, on, peak_of_path};
use crate::bench::Bench;
use crate::contest::{Contestant, contest, expect_tier};
use crate::load::request::{VALUE_BYTES, ours, read};
use crate::meter::Part;
use crate::peers::Nginx;
use crate::peers::nginx::LARGE;
use crate::report::{Findings, counted};
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "large",
    title: "GET of 1 MB",
    about: "One key with a value of 1,000,000 bytes, from L1. nginx sends a file of that size from memory (tmpfs) \
            with `sendfile`, because `return` cannot be that large; so the kernel copies the data one time less.",
    run,
};

const MEGABYTE: usize = 1_000_000;
const RATE: f64 = 50.0;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let redis = [Redis::start()];
    let service = Service::start(on(&redis));
    fill(&service, NS, 1, MEGABYTE)?;
    let nginx = Nginx::start(VALUE_BYTES, MEGABYTE)?;
    let path = ours::path_of(NS, 0);
    expect_tier(service.address(), &path, true)?;
    let peer = |load| Contestant {
        name: "nginx, a file in memory".to_owned(),
        load,
        watched: vec![nginx.watched()],
        instances: Vec::new(),
        behind: None,
    };
    let ours = |load| contestant("sidecache", &service, &redis, load);
    let contestants = [peer(peak_of_path(nginx.address(), LARGE)), ours(peak_of_path(service.address(), &path))];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    let mut found = Findings::default();
    let throughput = series[1].over(&series[0], |sample| Some(sample.per_second()))?;
    found.ratio("throughput: sidecache / nginx", throughput);
    found.ratio(
        "CPU per request: sidecache / nginx",
        series[1].over(&series[0], |sample| sample.cpu_micros(Part::Server))?,
    );
    found.find("large.throughput", throughput.median, "");
    found.table("Closed loop:", series);

    let contestants = [
        peer(at_rate(nginx.address(), vec![read(LARGE)], RATE)),
        ours(at_rate(service.address(), vec![read(&path)], RATE)),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    found.find(
        "large.p99",
        series[1].latency(|latency| latency.p99_ms)?,
        format!("open loop at {}/s", counted(RATE)),
    );
    found.table(format!("Open loop, {} requests/s:", counted(RATE)), series);
    Ok(found)
}
