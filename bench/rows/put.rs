//! A PUT with its bookkeeping, compared with webdis' SET without it and with webdis calling the same script.

use super::{Definition, KEYS, NS, at_rate, contestant, fill, fill_bare, on, peak, peer, shuffled};
use crate::bench::Bench;
use crate::contest::contest;
use crate::load::request::{VALUE_BYTES, key, ours, value, webdis};
use crate::load::{CONNECTIONS, Load, RedisBenchmark};
use crate::meter::Part;
use crate::peers::script::Script;
use crate::peers::{Nutcracker, Webdis};
use crate::report::{Findings, counted};
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "put",
    title: "PUT",
    about: "10,000 existing keys in random order. With each PUT sidecache updates metadata, index, totals and \
            version and publishes an invalidation. `webdis, the same script` calls the script that a PUT of \
            sidecache was seen to call, with `EVALSHA` on its own Redis server, where nobody subscribes to the \
            invalidations.",
    run,
};

const RATE: f64 = 10_000.0;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let (one, three, bare, scripted) = ([Redis::start()], Redis::three(), [Redis::start()], [Redis::start()]);
    let (on_one, on_three) = (Service::start(on(&one)), Service::start(on(&three)));
    fill(&on_one, NS, KEYS, VALUE_BYTES)?;
    fill(&on_three, NS, KEYS, VALUE_BYTES)?;
    fill_bare(&bare[0], KEYS, VALUE_BYTES);
    let script = {
        let service = Service::start(on(&scripted));
        fill(&service, NS, KEYS, VALUE_BYTES)?;
        Script::overheard(&service, &scripted[0], NS)?
    };
    let plain = Webdis::before(&bare[0])?;
    let scripting = Webdis::before(&scripted[0])?;
    let proxy = Nutcracker::before(&bare[0])?;
    let (order, text) = (shuffled(KEYS), value(VALUE_BYTES));
    let puts: Vec<_> = order.iter().map(|number| ours::put(NS, *number, VALUE_BYTES)).collect();
    let sets: Vec<_> = order.iter().map(|number| webdis::set(*number, &text)).collect();
    let calls: Vec<_> = order.iter().map(|number| webdis::command(&script.command(*number, VALUE_BYTES))).collect();
    let benchmark = |port| {
        let command = vec!["SET".to_owned(), key(0), text.clone()];
        Load::RedisBenchmark(RedisBenchmark { port, connections: CONNECTIONS, command, numbers: 1 })
    };
    let contestants = [
        peer("webdis, SET", peak(plain.address(), &sets)?, Some(plain.watched()), &bare),
        contestant("sidecache, one shard", &on_one, &one, peak(on_one.address(), &puts)?),
        peer("webdis, the same script", peak(scripting.address(), &calls)?, Some(scripting.watched()), &scripted),
        contestant("sidecache, three shards", &on_three, &three, peak(on_three.address(), &puts)?),
    ];
    let series = contest(bench, bench.pace.rounds, bench.pace.seconds, &contestants)?;
    let mut found = Findings::default();
    let [set, ours, same, ours_on_three] = &series[..] else { unreachable!("as many as contestants") };
    let throughput = ours.over(set, |sample| Some(sample.per_second()))?;
    let script = ours.over(same, |sample| Some(sample.per_second()))?;
    found.ratio("throughput: sidecache / webdis SET", throughput);
    found.ratio("throughput: sidecache / webdis, the same script", script);
    found.ratio("CPU per request: sidecache / webdis SET", ours.over(set, |sample| sample.cpu_micros(Part::Server))?);
    found.ratio(
        "CPU per request: sidecache / webdis, the same script",
        ours.over(same, |sample| sample.cpu_micros(Part::Server))?,
    );
    found.ratio(
        "Redis' CPU per request: sidecache / the same script",
        ours.over(same, |sample| sample.cpu_micros(Part::Redis))?,
    );
    found.ratio("throughput: three shards / one", ours_on_three.over(ours, |sample| Some(sample.per_second()))?);
    found.find("put.rate", ours.throughput()?, "");
    found.find("put.throughput", throughput.median, "");
    found.find("put.script", script.median, "");
    found.find("P-06", ours.throughput()?, "one shard, closed loop");
    found.table("Closed loop:", series);
    let references = [
        peer("nutcracker, redis-benchmark", benchmark(proxy.port()), Some(proxy.watched()), &bare),
        peer("Redis, redis-benchmark", benchmark(bare[0].port()), None, &bare),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &references)?;
    found.table("For reference, without HTTP:", series);

    let contestants = [
        peer("webdis, SET", at_rate(plain.address(), sets, RATE), Some(plain.watched()), &bare),
        contestant("sidecache, three shards", &on_three, &three, at_rate(on_three.address(), puts, RATE)),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    let p99 = series[1].latency(|latency| latency.p99_ms)?;
    found.find("P-02", p99, format!("three shards, open loop at {} requests/s", counted(RATE)));
    found.table(format!("Open loop, {} requests/s:", counted(RATE)), series);
    Ok(found)
}
