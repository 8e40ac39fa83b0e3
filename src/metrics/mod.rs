//! The metrics: tables with their names and help texts, and their output.
//!
//! The metrics of the process (`process_...`) have the names that Prometheus' client libraries share
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).

mod exposition;
mod handles;
mod histogram;
mod latency;
mod operations;

use std::ops::Deref;

use metrics::Counter;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use metrics_process::Collector;
use rustix::time::{ClockId, Timespec, clock_gettime};

pub use exposition::{Exposition, LabelRef};
pub use handles::{Handles, LeaseMetrics, PositionMetrics, ShardMetrics, Tally};
pub use latency::Latencies;
pub use operations::Operations;

const BUILD: &str = "sidecache_build_info";
const ERRORS: &str = "sidecache_http_errors_total";

/// All metrics of this process.
pub struct Metrics {
    handles: Handles,
    pub leases: LeaseMetrics,
    pub position_reads: PositionMetrics,
    pub operations: Operations,
    recorder: PrometheusRecorder,
}

/// A handle is a field: `metrics.panics`.
impl Deref for Metrics {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.handles
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (handles, leases, position_reads) = metrics::with_local_recorder(&recorder, || {
            let help = "1, labelled with the release.";
            metrics::gauge!(description: help, BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            Collector::default().describe();
            (Handles::new(&[]), LeaseMetrics::new(), PositionMetrics::new())
        });
        Self { handles, leases, position_reads, operations: Operations::default(), recorder }
    }
}

impl Metrics {
    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        [&self.l1_hits, &self.shard_reads, &self.resp_commands].into_iter().for_each(Tally::show);
        metrics::with_local_recorder(&self.recorder, || Collector::default().collect());
        with_exact_cpu_seconds(&self.recorder.handle().render()) + &self.operations.render() + &self.leases.render()
    }

    /// Creates a counter for each error code, from the codes and their statuses. Call it once, at the start.
    pub fn errors(&self, codes: impl Iterator<Item = (&'static str, u16)>) -> Vec<Counter> {
        let help = "Requests answered with an error, by error code. A read that finds no entry is not an error.";
        let counter = |(code, status): (&'static str, u16)| metrics::counter!(description: help, ERRORS, "code" => code, "status" => status.to_string());
        metrics::with_local_recorder(&self.recorder, || codes.map(counter).collect())
    }

    /// Creates the metrics of the shard `name`. Call it once, at the start.
    pub fn shard(&self, name: &str) -> ShardMetrics {
        metrics::with_local_recorder(&self.recorder, || ShardMetrics::new(&[("shard", name.to_owned())]))
    }
}

/// Replaces the CPU seconds by an exact value: the exporter's counters are whole numbers, and a whole second is too
/// coarse here.
fn with_exact_cpu_seconds(text: &str) -> String {
    const NAME: &str = "\nprocess_cpu_seconds_total ";
    let Some((before, after)) = text.split_once(NAME) else { return text.to_owned() };
    let rest = after.find('\n').map_or("", |end| &after[end..]);
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    format!("{before}{NAME}{tv_sec}.{tv_nsec:09}{rest}")
}
