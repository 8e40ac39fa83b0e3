//! Very many connections.

use anyhow::ensure;
use rustix::process::{Resource, getrlimit};

use super::{Definition, NS, contestant, fill, on, peak_of_path};
use crate::bench::Bench;
use crate::contest::{Contestant, Sample, contest, expect_tier};
use crate::load::request::{VALUE_BYTES, ours};
use crate::load::{CONNECTIONS, Load};
use crate::peers::Nginx;
use crate::peers::nginx::CONSTANT;
use crate::report::{Findings, shown};
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "connections",
    title: "1,000 and 10,000 connections",
    about: "GET of one key from L1; all connections are always busy. A refused or broken connection, or an answer \
            that takes 10 s, would be an error. nginx shows how much the load generator and the kernel themselves \
            lose.",
    run,
};

/// File descriptors that a server or load generator needs besides connections.
const BESIDES: u64 = 500;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    ensure!(most >= 10_000 + BESIDES, "a limit of {most} file descriptors is too low: ulimit -Hn");
    let redis = [Redis::start()];
    let service = Service::start(on(&redis));
    fill(&service, NS, 1, VALUE_BYTES)?;
    let nginx = Nginx::start(VALUE_BYTES, VALUE_BYTES)?;
    let path = ours::path_of(NS, 0);
    expect_tier(service.address(), &path, true)?;
    let with = |load, connections| match load {
        Load::Wrk(wrk) => Load::Wrk(crate::load::Wrk { connections, ..wrk }),
        other => other,
    };
    let mut contestants = Vec::new();
    for connections in [CONNECTIONS, 1_000, 10_000] {
        contestants.push(Contestant {
            name: format!("nginx, {connections}"),
            load: with(peak_of_path(nginx.address(), CONSTANT), connections),
            watched: vec![nginx.watched()],
            instances: Vec::new(),
            behind: None,
        });
        let load = with(peak_of_path(service.address(), &path), connections);
        contestants.push(contestant(&format!("sidecache, {connections}"), &service, &redis, load));
    }
    let series = contest(bench, bench.pace.other_rounds, bench.pace.connections_seconds, &contestants)?;
    let mut found = Findings::default();
    let per_second = |sample: &Sample| Some(sample.per_second());
    let [peer_few, few, peer_thousand, thousand, peer_ten_thousand, ten_thousand] = &series[..] else {
        unreachable!("as many as contestants")
    };
    for (id, name, many, peer_many) in [
        ("connections.1000", "1,000", thousand, peer_thousand),
        ("connections.10000", "10,000", ten_thousand, peer_ten_thousand),
    ] {
        let (ratio, theirs) = (many.over(few, per_second)?, peer_many.over(peer_few, per_second)?);
        found.ratio(format!("throughput: sidecache with {name} / with {CONNECTIONS}"), ratio);
        found.ratio(format!("throughput: nginx with {name} / with {CONNECTIONS}"), theirs);
        found.find(id, ratio.median, format!("closed loop; nginx {}", shown(theirs.median)));
    }
    found.table("Closed loop, by connections:", series);
    Ok(found)
}
