//! GET and PUT with the embedded store, for which there is no peer.

use super::{Definition, KEYS, NS, fill, peak, shuffled, unlogged, watch};
use crate::bench::Bench;
use crate::contest::{Contestant, contest};
use crate::load::request::{VALUE_BYTES, ours};
use crate::report::Findings;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "embedded",
    title: "The embedded store",
    about: "Default settings. 10,000 keys in random order.",
    run,
};

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let service = Service::start(unlogged());
    fill(&service, NS, KEYS, VALUE_BYTES)?;
    let order = shuffled(KEYS);
    let gets: Vec<_> = order.iter().map(|number| ours::get(NS, *number)).collect();
    let puts: Vec<_> = order.iter().map(|number| ours::put(NS, *number, VALUE_BYTES)).collect();
    let contestant = |name: &str, load| Contestant {
        name: name.to_owned(),
        load,
        watched: vec![watch(&[&service])],
        instances: vec![&service],
        behind: None,
    };
    let contestants =
        [contestant("GET", peak(service.address(), &gets)?), contestant("PUT", peak(service.address(), &puts)?)];
    let mut found = Findings::default();
    found.table("Closed loop:", contest(bench, bench.pace.other_rounds, bench.pace.other_seconds, &contestants)?);
    Ok(found)
}
