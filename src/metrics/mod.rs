//! The metrics: one table with their names and help texts, and their output.
//!
//! The metrics of the process (`process_...`) have the names that Prometheus' client libraries share
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). Handles are created once, at the
//! start: no request looks up a name or label.

mod errors;
mod latency;
mod namespace;
mod operations;
mod shard;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;
use rustix::time::{ClockId, Timespec, clock_gettime};

pub use errors::ErrorCounts;
pub use latency::Latencies;
pub use namespace::{NamespaceFigures, NamespaceTotals, NamespaceTraffic, render_namespaces};
pub use shard::ShardMetrics;
pub use tally::Tally;

use self::operations::{Operations, REQUESTS};
use crate::model::{Answer, Operation};

const BUILD: &str = "sidecache_build_info";

macro_rules! table {
    ($($field:ident : $kind:ident, $name:literal, $unit:expr, $help:literal;)*) => {
        /// Handles of the metrics without labels, and of the operations.
        pub struct Metrics {
            $(pub $field: $kind,)*
            operations: Operations,
            /// Indexed by [`Operation`], then [`Answer`].
            requests: [[Counter; Answer::ALL.len()]; Operation::ALL.len()],
            /// Creates more handles at the start.
            recorder: Arc<PrometheusRecorder>,
            handle: PrometheusHandle,
        }

        impl Metrics {
            fn with(recorder: Arc<PrometheusRecorder>) -> Self {
                metrics::with_local_recorder(&*recorder.clone(), || {
                    $(table!(@describe $kind, $name, $unit, $help);)*
                    Self {
                        $($field: table!(@handle $kind, $name),)*
                        operations: Operations::default(),
                        requests: Operation::ALL.map(|operation| Answer::ALL.map(|answer| requests(operation, answer))),
                        handle: recorder.handle(),
                        recorder,
                    }
                })
            }

            /// Copies the tallies into the metrics.
            fn show(&self) {
                $(table!(@show $kind, self.$field);)*
            }
        }
    };
    (@show Tally, $tally:expr) => { $tally.show() };
    (@show $kind:ident, $handle:expr) => {};
    (@describe Counter, $name:literal, $unit:expr, $help:literal) => { metrics::describe_counter!($name, $unit, $help) };
    (@describe Tally, $name:literal, $unit:expr, $help:literal) => { metrics::describe_counter!($name, $unit, $help) };
    (@describe Gauge, $name:literal, $unit:expr, $help:literal) => { metrics::describe_gauge!($name, $unit, $help) };
    (@handle Counter, $name:literal) => { metrics::counter!($name) };
    (@handle Tally, $name:literal) => { Tally::new(metrics::counter!($name)) };
    (@handle Gauge, $name:literal) => { metrics::gauge!($name) };
}

table! {
    l1_hits: Tally, "sidecache_l1_hits_total", Unit::Count, "Reads answered from L1.";
    l1_entries: Gauge, "sidecache_l1_entries", Unit::Count, "Copies kept in L1.";
    l1_bytes: Gauge, "sidecache_l1_bytes", Unit::Bytes, "Bytes of L1 in use, bookkeeping included.";
    l1_unproven: Counter, "sidecache_l1_unproven_total", Unit::Count, "Reads that skipped L1 because the watermark of the shard was too old.";
    l1_void: Counter, "sidecache_l1_void_total", Unit::Count, "Reads that skipped L1 because the copy was made before messages were lost.";
    stale_answers: Counter, "sidecache_stale_answers_total", Unit::Count, "Reads answered with a stale copy because the shard did not answer and the policy allows it.";
    shard_reads: Tally, "sidecache_shard_reads_total", Unit::Count, "Keys read from the store.";
    coalesced_reads: Counter, "sidecache_coalesced_reads_total", Unit::Count, "Reads that shared one read of the store with another request.";
    invalidations_received: Counter, "sidecache_invalidations_received_total", Unit::Count, "Keys voided by invalidation messages.";
    subscription_losses: Counter, "sidecache_subscription_losses_total", Unit::Count, "Times that all copies of a shard were voided because messages may have been lost.";
    stats_lost: Counter, "sidecache_stats_lost_total", Unit::Count, "Hits and misses that may be missing from the stats.";
    accesses_lost: Counter, "sidecache_accesses_lost_total", Unit::Count, "Reads that may be missing from the metadata of their entries.";
    access_log_written: Counter, "sidecache_access_log_written_total", Unit::Count, "Rows of the access log written to the database.";
    access_log_dropped: Counter, "sidecache_access_log_dropped_total", Unit::Count, "Rows of the access log dropped because the queue was full, the database rejected them, or the process ended.";
    access_log_queued: Gauge, "sidecache_access_log_queued_rows", Unit::Count, "Rows of the access log not yet written or dropped.";
    audit_written: Counter, "sidecache_audit_written_total", Unit::Count, "Rows of the audit trail written to the database.";
    audit_dropped: Counter, "sidecache_audit_dropped_total", Unit::Count, "Rows of the audit trail dropped because the queue was full, the database rejected them, or the process ended.";
    audit_queued: Gauge, "sidecache_audit_queued_rows", Unit::Count, "Rows of the audit trail not yet written or dropped.";
    jobs_running: Gauge, "sidecache_jobs_running", Unit::Count, "Jobs that are running on this instance.";
    jobs_done: Counter, "sidecache_jobs_done_total", Unit::Count, "Jobs that finished.";
    jobs_failed: Counter, "sidecache_jobs_failed_total", Unit::Count, "Jobs that failed, including jobs of lost instances that this instance marked as failed.";
    jobs_cancelled: Counter, "sidecache_jobs_cancelled_total", Unit::Count, "Jobs that were cancelled.";
    jobs_refused: Counter, "sidecache_jobs_refused_total", Unit::Count, "Flushes refused because too many were running.";
    jobs_unsaved: Counter, "sidecache_jobs_unsaved_total", Unit::Count, "Jobs whose result could not be written to the database.";
    connections: Gauge, "sidecache_http_connections", Unit::Count, "Open HTTP connections.";
    connections_limit: Gauge, "sidecache_http_connections_limit", Unit::Count, "Maximum number of open HTTP connections: max_connections, or less if the limit on file descriptors is lower.";
    connections_refused: Counter, "sidecache_http_connections_refused_total", Unit::Count, "HTTP connections refused because too many were open.";
    connections_slow: Counter, "sidecache_http_connections_slow_total", Unit::Count, "HTTP connections closed because a request's header did not arrive completely in time.";
    body_bytes: Gauge, "sidecache_http_body_bytes", Unit::Bytes, "Memory used by the bodies of current requests.";
    bodies_refused: Counter, "sidecache_http_bodies_refused_total", Unit::Count, "Requests refused because other requests used all the memory for bodies.";
    answer_bytes: Gauge, "sidecache_http_answer_bytes", Unit::Bytes, "Memory used by large answers that are being built or sent.";
    answers_refused: Counter, "sidecache_http_answers_refused_total", Unit::Count, "Requests refused because other requests used all the memory for answers.";
    connections_stalled: Counter, "sidecache_http_connections_stalled_total", Unit::Count, "HTTP connections closed because the client did not read its answer.";
    fleet_instances: Gauge, "sidecache_fleet_instances", Unit::Count, "Living instances on these shards, including this one.";
    ring_disagreements: Gauge, "sidecache_ring_disagreements", Unit::Count, "Living instances on these shards that use another ring than this one.";
    log_lines_dropped: Counter, "sidecache_log_lines_dropped_total", Unit::Count, "Lines of the process's own log dropped because stderr was not read in time.";
    spans_exported: Counter, "sidecache_spans_exported_total", Unit::Count, "Spans that the OpenTelemetry collector accepted.";
    spans_dropped: Counter, "sidecache_spans_dropped_total", Unit::Count, "Spans dropped because the queue was full or the OpenTelemetry collector did not accept them.";
    spans_queued: Gauge, "sidecache_spans_queued", Unit::Count, "Spans not yet exported or dropped.";
    database_connected: Gauge, "sidecache_database_connected", Unit::Count, "1 if the last statement reached the database, else 0.";
    panics: Counter, "sidecache_panics_total", Unit::Count, "Requests, connections and flushes that ended in a panic.";
}

fn requests(operation: Operation, answer: Answer) -> Counter {
    metrics::counter!(REQUESTS, "operation" => operation.as_str(), "result" => answer.as_str())
}

impl Default for Metrics {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_counter!(REQUESTS, Unit::Count, "Operations by kind and result.");
            metrics::describe_gauge!(BUILD, "1, labelled with the release.");
            metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            errors::describe();
            shard::describe();
            Collector::default().describe();
        });
        Self::with(Arc::new(recorder))
    }
}

impl Metrics {
    /// Counts one operation.
    pub fn observe(&self, operation: Operation, answer: Answer, latency: Duration) {
        self.operations.observe(operation, answer, latency);
    }

    /// The latencies of all operations since the start.
    pub fn latencies(&self) -> Latencies {
        self.operations.latencies()
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        self.show();
        for (operation, requests) in Operation::ALL.into_iter().zip(&self.requests) {
            for (answer, shown) in Answer::ALL.into_iter().zip(requests) {
                shown.absolute(self.operations.answered(operation, answer));
            }
        }
        metrics::with_local_recorder(&*self.recorder, || Collector::default().collect());
        with_exact_cpu_seconds(&self.handle.render()) + &self.operations.render_latency()
    }

    /// Creates the error counters for these codes and statuses. Call it once, at the start.
    pub fn errors(&self, codes: impl Iterator<Item = (&'static str, u16)>) -> ErrorCounts {
        metrics::with_local_recorder(&*self.recorder, || ErrorCounts::new(codes))
    }

    /// Creates the metrics of the shard `name`. Call it once, at the start.
    pub fn shard(&self, name: &str) -> ShardMetrics {
        metrics::with_local_recorder(&*self.recorder, || ShardMetrics::new(name))
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
