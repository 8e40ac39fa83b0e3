//! DELETE of existing keys, compared with webdis' DEL.

use super::{Definition, NS, contestant, fill, fill_bare, on, peer, shuffled};
use crate::bench::Bench;
use crate::contest::Series;
use crate::load::request::{VALUE_BYTES, ours, webdis};
use crate::load::{CONNECTIONS, Generator, Load};
use crate::meter::Part;
use crate::peers::Webdis;
use crate::report::Findings;
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "delete",
    title: "DELETE",
    about: "Deletes every key once, because only an existing key can be deleted; the keys are stored again before \
            each run. The load comes from the bench's own generator, which costs more than wrk, so compare \
            throughput only within this row. One Redis server each.",
    run,
};

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let keys = if bench.pace.quick { 20_000 } else { 60_000 };
    let (own, bare) = ([Redis::start()], [Redis::start()]);
    let service = Service::start(on(&own));
    let proxy = Webdis::before(&bare[0])?;
    let order = shuffled(keys);
    let once =
        |address, requests| Load::Once(Generator { addresses: vec![address], connections: CONNECTIONS, requests });
    let theirs = order.iter().map(|number| webdis::delete(*number)).collect();
    let deletes = order.iter().map(|number| ours::delete(NS, *number)).collect();
    let theirs = peer("webdis, DEL", once(proxy.address(), theirs), Some(proxy.watched()), &bare);
    let ours = contestant("sidecache", &service, &own, once(service.address(), deletes));
    let mut all = [Series::empty(&theirs.name), Series::empty(&ours.name)];
    for round in 1..=bench.pace.other_rounds {
        bench.progress.now(&format!("round {round}"));
        fill_bare(&bare[0], keys, VALUE_BYTES);
        all[0].samples.push(theirs.sample(1)?);
        fill(&service, NS, keys, VALUE_BYTES)?;
        all[1].samples.push(ours.sample(1)?);
    }
    all.iter().for_each(|series| bench.progress.series(series));
    let mut found = Findings::default();
    let [theirs, ours] = &all;
    found.ratio("throughput: sidecache / webdis", ours.over(theirs, |sample| Some(sample.per_second()))?);
    found.ratio("CPU per request: sidecache / webdis", ours.over(theirs, |sample| sample.cpu_micros(Part::Server))?);
    found.table(format!("Closed loop, {keys} keys:"), all.into());
    Ok(found)
}
