//! What additional instances cost the measured instance and Redis.

use super::{Definition, KEYS, NS, contestant, fill, on, peak, shuffled};
use crate::bench::Bench;
use crate::contest::{Series, Spread, expect_tier};
use crate::load::request::{VALUE_BYTES, ours};
use crate::load::{Arrivals, CONNECTIONS, Generator};
use crate::meter::Part;
use crate::report::Findings;
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "pub-sub",
    title: "Pub/sub",
    about: "One instance on one shard gets the load, alone and together with two more instances, which are started \
            and stopped in each round. GETs of 1,000 keys from L1; PUTs of 10,000 keys, each published to every \
            instance.",
    run,
};

const SOME: usize = KEYS / 10;

/// Number of additional instances.
const MORE: usize = 2;

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let redis = [Redis::start()];
    let asked = Service::start(on(&redis));
    fill(&asked, NS, KEYS, VALUE_BYTES)?;
    let gets: Vec<_> = (0..SOME).map(|number| ours::get(NS, number)).collect();
    let puts: Vec<_> = shuffled(KEYS).iter().map(|number| ours::put(NS, *number, VALUE_BYTES)).collect();
    let get = contestant("GET", &asked, &redis, peak(asked.address(), &gets)?);
    let put = contestant("PUT", &asked, &redis, peak(asked.address(), &puts)?);
    let again = Generator { addresses: vec![asked.address()], connections: CONNECTIONS, requests: gets };
    let names = ["GET, alone", "PUT, alone", "GET, two more instances", "PUT, two more instances"];
    let mut all = names.map(Series::empty);
    let seconds = bench.pace.other_seconds;
    let rounds = if bench.pace.quick { 1 } else { bench.pace.rounds };
    for round in 1..=rounds {
        bench.progress.now(&format!("round {round} of {rounds}"));
        for beside in [0, MORE] {
            let more: Vec<Service> = (0..beside).map(|_| Service::start(on(&redis))).collect();
            for instance in more.iter().chain([&asked]) {
                expect_tier(instance.address(), &ours::path_of(NS, 0), true)?;
            }
            // Read the keys that the PUTs have voided into L1 again.
            again.run(Arrivals::Closed { count: 3 * SOME as u64 })?.traffic()?;
            let first = if beside == 0 { 0 } else { 2 };
            all[first].samples.push(get.sample(seconds)?);
            all[first + 1].samples.push(put.sample(seconds)?);
        }
    }
    all.iter().for_each(|series| bench.progress.series(series));
    let [get_alone, put_alone, get_more, put_more] = &all;
    let mut found = Findings::default();
    let cpu = get_more.over(get_alone, |sample| sample.cpu_micros(Part::Server))?;
    found.ratio("CPU per GET: with two more instances / alone", cpu);
    found.ratio(
        "Redis' CPU per PUT: with two more instances / alone",
        put_more.over(put_alone, |sample| sample.cpu_micros(Part::Redis))?,
    );
    let pairs = put_more.samples.iter().zip(&put_alone.samples);
    let added = pairs.filter_map(|(more, alone)| {
        Some((more.cpu_micros(Part::Redis)? - alone.cpu_micros(Part::Redis)?) / MORE as f64)
    });
    if let Some(added) = Spread::of(added.collect()) {
        found.ratio("Redis' CPU per PUT that an instance adds, us", added);
        found.find("pub_sub.put", added.median, "");
    }
    found.find("pub_sub.get", cpu.median, "");
    found.table("Closed loop:", all.into());
    Ok(found)
}
