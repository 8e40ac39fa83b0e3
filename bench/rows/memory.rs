//! The memory of an idle instance, and the memory that L1 uses for an entry in addition to its key and value.

use std::time::Duration;

use anyhow::ensure;

use super::{Definition, NS, fill, on, unlogged};
use crate::bench::Bench;
use crate::load::request::key;
use crate::report::{Findings, counted, shown};
use crate::support::line::{self, Line};
use crate::support::metric::Metrics;
use crate::support::redis::Redis;
use crate::support::service::Service;

pub const ROW: Definition = Definition {
    id: "memory",
    title: "Memory",
    about: "Idle: some seconds after the start. L1: `l1_max_mb = 1024` and `access_log_sample_rate = 0`, so that the \
            log's queue is not counted with the entries; mget reads values of 16 bytes from one shard until all \
            of them are in L1. The overhead is the growth of the resident memory from a tenth of the entries to all, \
            minus keys (without their namespace) and values.",
    run,
};

const SMALL_VALUE: usize = 16;

/// Time for work that a process does after its start.
const REST: Duration = Duration::from_secs(2);

fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    idle(bench, &mut found);
    per_entry(bench, &mut found)?;
    Ok(found)
}

fn idle(bench: &Bench, found: &mut Findings) {
    bench.progress.now("idle");
    let shards = Redis::three();
    let (alone, sharded) = (Service::start(unlogged()), Service::start(on(&shards)));
    std::thread::sleep(REST);
    found.find("memory.idle", alone.resident_bytes() as f64 / 1e6, "");
    found.find("memory.idle.shards", sharded.resident_bytes() as f64 / 1e6, "");
}

fn per_entry(bench: &Bench, found: &mut Findings) -> anyhow::Result<()> {
    let entries = bench.pace.small_entries;
    bench.progress.now(&format!("{entries} entries in L1"));
    let redis = [Redis::start()];
    let service = Service::start(on(&redis).set("l1_max_mb", 1_024).set("access_log_sample_rate", 0));
    fill(&service, NS, entries, SMALL_VALUE)?;
    let (first, mut line) = (entries / 10, Line::open(service.address()));
    read(&mut line, 0..first);
    let before = service.resident_bytes();
    read(&mut line, first..entries);
    let after = service.resident_bytes();
    let metrics = line.ask("GET", "/metrics", "").expect(200);
    let metrics = Metrics::parse(metrics.text());
    let (kept, by_itself) = (metrics.total("sidecache_l1_entries"), metrics.total("sidecache_l1_bytes"));
    ensure!(kept == entries as f64, "{kept} of {entries} entries are in L1");
    let data = (key(0).len() + SMALL_VALUE) as f64;
    let each = after.saturating_sub(before) as f64 / (entries - first) as f64;
    found.note(format!(
        "{} entries with {data} bytes of key and value needed {} bytes each; L1 itself counts {} bytes per entry",
        counted(entries as f64),
        shown(each),
        shown(by_itself / kept)
    ));
    found.find("memory.entry", each - data, format!("{} entries", counted(entries as f64)));
    Ok(())
}

/// Reads these entries into L1.
fn read(line: &mut Line, numbers: std::ops::Range<usize>) {
    let mut next = numbers.start;
    while next < numbers.end {
        let end = numbers.end.min(next + line::BATCH);
        line.mget(NS, (next..end).map(key));
        next = end;
    }
}
