//! The `replay` example against the real service, with a generated workload and, if it lies beside the checkout, a
//! recorded trace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use crate::support::client::Client;
use crate::support::eventually::{SOON, eventually};
use crate::support::postgres;
use crate::support::process::{self, Process, Signal};
use crate::support::scratch;
use crate::support::service::{Service, Store};

/// The path of the trace, relative to the project. The trace is other people's data and not part of the project.
const TRACE: &str = "../shared/traces/web12.trace.xz";

const LIMIT: Duration = Duration::from_secs(150);

/// The fields of the `--json` output that the tests check.
#[derive(Debug, Deserialize)]
struct Report {
    records: u64,
    distinct: u64,
    hits: u64,
    misses: u64,
    hit_ratio: f64,
    source_reads: u64,
    service_hits: u64,
    service_misses: u64,
    expected_hits: u64,
}

/// The path of the example, which `cargo test` builds beside the binary.
fn example() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_sidecache")).parent().expect("a binary lies in a folder");
    let path = folder.join("examples/replay");
    assert!(path.is_file(), "{} is not built; `cargo build --example replay` does it", path.display());
    path
}

/// Runs the example against a service, with an own source database. Checks everything that is true for any workload
/// that fits into the cache.
async fn replay(service: &Service, prefix: &str, workload: &[&str]) -> Report {
    let folder = scratch::folder("replay");
    let output = |name: &str| File::create(folder.path().join(name)).expect("a temporary file can be made");
    let said = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let source = match service.store() {
        Store::Embedded => format!("sqlite:{}", folder.path().join("rows.db").display()),
        Store::Shards => postgres::shared().fresh_database(),
    };
    let mut command = process::dying_with_us(&example(), Signal::Kill);
    command
        .args(["--url", &format!("http://{}", service.address()), "--json"])
        .args(["--namespace-prefix", prefix, "--source", &source])
        .args(workload)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(output("stdout"))
        .stderr(output("stderr"));
    let mut process = Process::spawn(command, Signal::Kill);
    let status = process.wait(LIMIT).unwrap_or_else(|| panic!("the replay takes longer than {LIMIT:?}"));
    assert!(status.success(), "{status}\n{}\n{}", said("stdout"), said("stderr"));

    let report: Report = serde_json::from_str(&said("stdout")).expect("one JSON object");
    assert_eq!(report.hits + report.misses, report.records, "{report:?}");
    // In the model of a cache with room for everything, each key misses exactly once.
    assert_eq!(report.hits, report.records - report.distinct, "{report:?}");
    assert_eq!(report.expected_hits, report.hits, "{report:?}");
    assert_eq!(report.source_reads, report.misses, "{report:?}");
    assert_eq!((report.service_hits, report.service_misses), (report.hits, report.misses), "{report:?}");
    assert!((report.hit_ratio - report.hits as f64 / report.records as f64).abs() < 0.001, "{report:?}");
    the_service_agrees(&service.client(), prefix, &report).await;
    report
}

/// Compares the report with the service's own numbers.
async fn the_service_agrees(cache: &Client, prefix: &str, report: &Report) {
    eventually(SOON, async || {
        let all = cache.policies().await.expect(200).json();
        let policies = all["namespaces"].as_array().expect("a list of namespaces");
        let names = policies.iter().filter_map(|policy| policy["name"].as_str());
        let (mut hits, mut misses, mut keys, mut size) = (0, 0, 0, 0);
        for name in names.filter(|name| name.starts_with(prefix)) {
            let stats = cache.stats(name).await.expect(200);
            hits += stats.number("hits");
            misses += stats.number("misses");
            keys += stats.number("total_keys");
            size += cache.list(name, &[]).await.expect(200).number("size");
        }
        ensure!((hits, misses) == (report.hits, report.misses), "{hits} hits, {misses} misses: {report:?}");
        ensure!((keys, size) == (report.distinct, report.distinct), "{keys} keys, {size} listed: {report:?}");
        Ok(())
    })
    .await;
}

async fn a_generated_workload(store: Store) {
    let service = Service::start(store.settings());
    let small = ["--records", "12000", "--distinct", "2000", "--value-bytes", "300"];
    let first = replay(&service, "first_", &[&small[..], &["--seed", "7"]].concat()).await;
    assert_eq!(first.records, 12_000);
    assert!((1_000..=2_000).contains(&first.distinct), "{first:?}");
    // The same seed gives the same workload. In new namespaces the cache is cold again.
    let again = replay(&service, "again_", &[&small[..], &["--seed", "7"]].concat()).await;
    assert_eq!((again.hits, again.distinct), (first.hits, first.distinct));
    let skewed = replay(&service, "skewed_", &[&small[..], &["--seed", "8", "--skew", "1.3"]].concat()).await;
    assert!(skewed.hits > first.hits, "{skewed:?}");
}

async fn the_recorded_trace(store: Store) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(TRACE);
    if !path.is_file() {
        eprintln!("{TRACE} does not exist: the recorded trace was not replayed on {store:?}");
        return;
    }
    let service = Service::start(store.settings());
    let report = replay(&service, "web12_", &["--trace", &path.display().to_string()]).await;
    assert_eq!((report.records, report.distinct), (95_607, 13_756));
    assert_eq!((report.hits, report.service_hits), (81_851, 81_851));
}

#[tokio::test]
async fn a_generated_workload_hits_as_often_as_the_model_on_the_embedded_store() {
    a_generated_workload(Store::Embedded).await;
}

#[tokio::test]
async fn a_generated_workload_hits_as_often_as_the_model_on_three_shards() {
    a_generated_workload(Store::Shards).await;
}

#[tokio::test]
async fn the_recorded_trace_hits_81851_times_on_the_embedded_store() {
    the_recorded_trace(Store::Embedded).await;
}

#[tokio::test]
async fn the_recorded_trace_hits_81851_times_on_three_shards() {
    the_recorded_trace(Store::Shards).await;
}
