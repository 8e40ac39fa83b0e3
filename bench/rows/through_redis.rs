//! A GET that goes to Redis, compared with webdis and with Redis itself.

use super::{Definition, KEYS, NS, at_rate, contestant, fill, fill_bare, on, peak, peer, shuffled};
use crate::bench::Bench;
use crate::contest::{Sample, contest, expect_tier};
use crate::load::request::{VALUE_BYTES, key, ours, webdis};
use crate::load::{CONNECTIONS, Load, RedisBenchmark};
use crate::meter::Part;
use crate::peers::{Nutcracker, Webdis};
use crate::report::{Findings, counted};
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "through-redis",
    title: "GET through Redis",
    about: "10,000 keys in random order, on one Redis server each. sidecache with `l1_max_mb = 0`; with so many keys \
            there are almost never concurrent reads of one key, which sidecache would combine. redis-benchmark talks \
            to Redis without HTTP and reads one key.",
    run,
};

const RATE: f64 = 10_000.0;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let (own, bare) = ([Redis::start()], [Redis::start()]);
    let service = Service::start(on(&own).set("l1_max_mb", 0));
    fill(&service, NS, KEYS, VALUE_BYTES)?;
    fill_bare(&bare[0], KEYS, VALUE_BYTES);
    let http = Webdis::before(&bare[0])?;
    let proxy = Nutcracker::before(&bare[0])?;
    expect_tier(service.address(), &ours::path_of(NS, 0), false)?;
    let order = shuffled(KEYS);
    let gets: Vec<_> = order.iter().map(|number| ours::get(NS, *number)).collect();
    let theirs: Vec<_> = order.iter().map(|number| webdis::get(*number)).collect();
    let benchmark = |port| {
        let command = vec!["GET".to_owned(), key(0)];
        Load::RedisBenchmark(RedisBenchmark { port, connections: CONNECTIONS, command, numbers: 1 })
    };
    let contestants = [
        peer("webdis", peak(http.address(), &theirs)?, Some(http.watched()), &bare),
        contestant("sidecache", &service, &own, peak(service.address(), &gets)?),
    ];
    let series = contest(bench, bench.pace.rounds, bench.pace.seconds, &contestants)?;
    let mut found = Findings::default();
    let [webdis, ours] = &series[..] else { unreachable!("as many as contestants") };
    let throughput = ours.over(webdis, |sample| Some(sample.per_second()))?;
    let cpu = ours.over(webdis, |sample| sample.cpu_micros(Part::Server))?;
    found.ratio("throughput: sidecache / webdis", throughput);
    found.ratio("CPU per request: sidecache / webdis", cpu);
    found.ratio("CPU per request with Redis': sidecache / webdis", ours.over(webdis, Sample::cpu_micros_with_redis)?);
    found.find("redis.throughput", throughput.median, "");
    found.find("redis.cpu", cpu.median, "");
    found.table("Closed loop:", series);
    let references = [
        peer("nutcracker, redis-benchmark", benchmark(proxy.port()), Some(proxy.watched()), &bare),
        peer("Redis, redis-benchmark", benchmark(bare[0].port()), None, &bare),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &references)?;
    found.table("For reference, without HTTP:", series);

    let contestants = [
        peer("webdis", at_rate(http.address(), theirs, RATE), Some(http.watched()), &bare),
        contestant("sidecache", &service, &own, at_rate(service.address(), gets, RATE)),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    let p99 = series[1].latency(|latency| latency.p99_ms)?;
    found.find("P-01", p99, format!("through Redis, open loop at {} requests/s", counted(RATE)));
    found.table(format!("Open loop, {} requests/s:", counted(RATE)), series);
    Ok(found)
}
