//! mget and mset with 100 keys.

use super::{Definition, KEYS, NS, at_rate, contestant, fill, fill_bare, on, peak, peer};
use crate::bench::Bench;
use crate::contest::{contest, expect_tier};
use crate::load::Request;
use crate::load::request::{VALUE_BYTES, ours, webdis};
use crate::peers::Webdis;
use crate::report::{Findings, counted};
use crate::support::random::Random;
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "batch",
    title: "mget and mset of 100",
    about: "100 keys drawn uniformly from 10,000, on three shards; `through Redis` with `l1_max_mb = 0`. webdis' \
            MGET asks one Redis server. A request is one mget or mset.",
    run,
};

const SIZE: usize = 100;

/// Number of different requests, sent in turn.
const REQUESTS: usize = 200;

const RATE: f64 = 200.0;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let (shards, bare) = (Redis::three(), [Redis::start()]);
    let near = Service::start(on(&shards));
    let far = Service::start(on(&shards).set("l1_max_mb", 0));
    // A separate set of shards: its writes would void the copies that the others read.
    let write_shards = Redis::three();
    let writer = Service::start(on(&write_shards));
    fill(&near, NS, KEYS, VALUE_BYTES)?;
    fill(&writer, NS, KEYS, VALUE_BYTES)?;
    fill_bare(&bare[0], KEYS, VALUE_BYTES);
    let proxy = Webdis::before(&bare[0])?;

    let mut random = Random::seeded(3);
    let mut drawn = || (0..SIZE).map(|_| (random.number() % KEYS as u64) as usize).collect::<Vec<_>>();
    let batches: Vec<Vec<usize>> = (0..REQUESTS).map(|_| drawn()).collect();
    // All keys of one mset are distinct.
    let runs = (0..REQUESTS).map(|number| number * SIZE % KEYS);
    let mgets: Vec<Request> = batches.iter().map(|batch| ours::mget(NS, batch.iter().copied())).collect();
    let theirs: Vec<Request> = batches.iter().map(|batch| webdis::mget(batch.iter().copied())).collect();
    let msets: Vec<Request> = runs.map(|first| ours::mset(NS, first..first + SIZE, VALUE_BYTES)).collect();
    let warm = ours::path_of(NS, batches[0][0]);
    expect_tier(near.address(), &warm, true)?;
    expect_tier(far.address(), &warm, false)?;

    let mut found = Findings::default();
    let contestants = [
        contestant("mget, L1", &near, &shards, peak(near.address(), &mgets)?),
        contestant("mget, through Redis", &far, &shards, peak(far.address(), &mgets)?),
        peer("webdis, MGET", peak(proxy.address(), &theirs)?, Some(proxy.watched()), &bare),
        contestant("mset", &writer, &write_shards, peak(writer.address(), &msets)?),
    ];
    // Fill L1.
    contestants[0].load.run(1)?;
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    let [l1, redis, webdis, mset] = &series[..] else { unreachable!("as many as contestants") };
    let keys = |series: &crate::contest::Series| anyhow::Ok(series.throughput()? * SIZE as f64);
    found.find("mget.l1", keys(l1)?, "closed loop");
    found.find("mget.redis", keys(redis)?, "closed loop");
    found.find("mset.rate", keys(mset)?, "closed loop");
    found.ratio(
        "throughput: mget through Redis / webdis MGET",
        redis.over(webdis, |sample| Some(sample.per_second()))?,
    );
    found.table("Closed loop:", series);

    let contestants = [
        contestant("mget, L1", &near, &shards, at_rate(near.address(), mgets.clone(), RATE)),
        contestant("mget, through Redis", &far, &shards, at_rate(far.address(), mgets, RATE)),
        peer("webdis, MGET", at_rate(proxy.address(), theirs, RATE), Some(proxy.watched()), &bare),
        contestant("mset", &writer, &write_shards, at_rate(writer.address(), msets, RATE)),
    ];
    let series = contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?;
    found.find(
        "mget.p99",
        series[1].latency(|latency| latency.p99_ms)?,
        format!("through Redis, open loop at {}/s", counted(RATE)),
    );
    found.find("mset.p99", series[3].latency(|latency| latency.p99_ms)?, format!("open loop at {}/s", counted(RATE)));
    found.table(format!("Open loop, {} requests/s:", counted(RATE)), series);
    Ok(found)
}
