//! The tables of metrics, and their handles. Handles are created once, at the start: no request looks up a name or
//! label.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{Counter, Gauge};

use super::histogram::Histogram;
use crate::workers::PerWorker;

/// A counter that every request may touch and that this process also reads. It counts separately on each worker; the
/// sum is copied into the metric when the metrics are shown.
pub struct Tally {
    counts: PerWorker<AtomicU64>,
    shown: Counter,
}

impl Tally {
    fn new(shown: Counter) -> Self {
        Self { counts: PerWorker::default(), shown }
    }

    pub fn increment(&self, by: u64) {
        self.counts.own().fetch_add(by, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.counts.all().map(|count| count.load(Relaxed)).fold(0, u64::wrapping_add)
    }

    pub(super) fn show(&self) {
        self.shown.absolute(self.value());
    }
}

macro_rules! table {
    ($(#[$attribute:meta])* $type:ident { $($field:ident: $kind:ident, $name:literal, $help:literal;)* }) => {
        $(#[$attribute])*
        pub struct $type {
            $(pub $field: $kind,)*
        }

        impl $type {
            /// Call it under the recorder that shows the metrics.
            pub(super) fn new(labels: &[(&'static str, String)]) -> Self {
                Self { $($field: table!(@new $kind, $name, $help, labels),)* }
            }
        }
    };
    (@new Counter, $name:literal, $help:literal, $labels:expr) => { metrics::counter!(description: $help, $name, $labels) };
    (@new Gauge, $name:literal, $help:literal, $labels:expr) => { metrics::gauge!(description: $help, $name, $labels) };
    (@new Tally, $name:literal, $help:literal, $labels:expr) => { Tally::new(table!(@new Counter, $name, $help, $labels)) };
}

table! {
    /// Handles of the metrics without labels.
    Handles {
        l1_hits: Tally, "sidecache_l1_hits_total", "Reads answered from L1.";
        l1_entries: Gauge, "sidecache_l1_entries", "Copies kept in L1.";
        l1_bytes: Gauge, "sidecache_l1_bytes", "Bytes of L1 in use, bookkeeping included.";
        preconditions_failed: Counter, "sidecache_preconditions_failed_total", "Writes and deletions refused because If-Match or If-None-Match was not met.";
        outdated_changes: Counter, "sidecache_outdated_changes_total", "Writes and deletions refused because a newer source version is known.";
        tombstones_dropped: Counter, "sidecache_tombstones_dropped_total", "Source versions of deleted entries that were lost, or given up before their time because there were too many.";
        lease_waiting: Gauge, "sidecache_lease_waiting", "Callers that wait for a value that another caller loads.";
        known_absent_hits: Counter, "sidecache_known_absent_hits_total", "Reads answered with an entry that says that there is no such thing.";
        l1_unproven: Counter, "sidecache_l1_unproven_total", "Reads that skipped L1 because the watermark of the shard was too old.";
        l1_void: Counter, "sidecache_l1_void_total", "Reads that skipped L1 because the copy was made before messages were lost.";
        refreshes: Counter, "sidecache_refreshes_total", "Leases given to refresh an entry that is still answered.";
        overdue_answers: Counter, "sidecache_stale_while_revalidate_total", "Keys whose read was answered with an entry past the end of its freshness, while it is refreshed.";
        stale_answers: Counter, "sidecache_stale_answers_total", "Reads answered with a stale copy because the shard did not answer and the policy allows it.";
        shard_reads: Tally, "sidecache_shard_reads_total", "Keys read from the store.";
        coalesced_reads: Counter, "sidecache_coalesced_reads_total", "Reads that shared one read of the store with another request.";
        invalidations_received: Counter, "sidecache_invalidations_received_total", "Keys voided by invalidation messages.";
        subscription_losses: Counter, "sidecache_subscription_losses_total", "Times that all copies of a shard were voided because messages may have been lost.";
        stats_lost: Counter, "sidecache_stats_lost_total", "Hits and misses that may be missing from the stats.";
        accesses_lost: Counter, "sidecache_accesses_lost_total", "Reads that may be missing from the metadata of their entries.";
        access_log_written: Counter, "sidecache_access_log_written_total", "Rows of the access log written to the database.";
        access_log_dropped: Counter, "sidecache_access_log_dropped_total", "Rows of the access log dropped because the queue was full, the database rejected them, or the process ended.";
        access_log_queued: Gauge, "sidecache_access_log_queued_rows", "Rows of the access log not yet written or dropped.";
        audit_written: Counter, "sidecache_audit_written_total", "Rows of the audit trail written to the database.";
        audit_dropped: Counter, "sidecache_audit_dropped_total", "Rows of the audit trail dropped because the queue was full, the database rejected them, or the process ended.";
        audit_queued: Gauge, "sidecache_audit_queued_rows", "Rows of the audit trail not yet written or dropped.";
        jobs_running: Gauge, "sidecache_jobs_running", "Jobs that are running on this instance.";
        jobs_done: Counter, "sidecache_jobs_done_total", "Jobs that finished.";
        jobs_failed: Counter, "sidecache_jobs_failed_total", "Jobs that failed, including jobs of lost instances that this instance marked as failed.";
        jobs_cancelled: Counter, "sidecache_jobs_cancelled_total", "Jobs that were cancelled.";
        jobs_refused: Counter, "sidecache_jobs_refused_total", "Flushes refused because too many were running.";
        jobs_unsaved: Counter, "sidecache_jobs_unsaved_total", "Jobs whose result could not be written to the database.";
        connections: Gauge, "sidecache_http_connections", "Open HTTP connections.";
        connections_limit: Gauge, "sidecache_http_connections_limit", "Maximum number of open connections, those of Redis clients included: max_connections, or less if the limit on file descriptors is lower.";
        connections_refused: Counter, "sidecache_http_connections_refused_total", "Connections refused, those of Redis clients included, because too many were open.";
        connections_slow: Counter, "sidecache_http_connections_slow_total", "Connections closed because a request's header, or a command of a Redis client, did not arrive completely in time.";
        resp_connections: Gauge, "sidecache_resp_connections", "Open connections of Redis clients.";
        resp_commands: Tally, "sidecache_resp_commands_total", "Commands of Redis clients.";
        resp_errors: Counter, "sidecache_resp_errors_total", "Commands of Redis clients that were answered with an error.";
        body_bytes: Gauge, "sidecache_http_body_bytes", "Memory used by the bodies of current requests.";
        bodies_refused: Counter, "sidecache_http_bodies_refused_total", "Requests refused because other requests used all the memory for bodies.";
        answer_bytes: Gauge, "sidecache_http_answer_bytes", "Memory used by large answers that are being built or sent.";
        answers_refused: Counter, "sidecache_http_answers_refused_total", "Requests refused because other requests used all the memory for answers.";
        connections_stalled: Counter, "sidecache_http_connections_stalled_total", "Connections closed, those of Redis clients included, because the client did not read its answer.";
        fleet_instances: Gauge, "sidecache_fleet_instances", "Living instances on these shards, including this one.";
        ring_disagreements: Gauge, "sidecache_ring_disagreements", "Living instances on these shards that use another ring than this one.";
        log_lines_dropped: Counter, "sidecache_log_lines_dropped_total", "Lines of the process's own log dropped because stderr was not read in time.";
        spans_exported: Counter, "sidecache_spans_exported_total", "Spans that the OpenTelemetry collector accepted.";
        spans_dropped: Counter, "sidecache_spans_dropped_total", "Spans dropped because the queue was full or the OpenTelemetry collector did not accept them.";
        spans_queued: Gauge, "sidecache_spans_queued", "Spans not yet exported or dropped.";
        database_connected: Gauge, "sidecache_database_connected", "1 if the last statement reached the database, else 0.";
        panics: Counter, "sidecache_panics_total", "Requests, connections and flushes that ended in a panic.";
    }
}

table! {
    /// Handles of one shard's metrics, which are labelled with its name.
    #[derive(Clone)]
    ShardMetrics {
        watermark_age: Gauge, "sidecache_watermark_age_seconds", "Age of the last proof that all earlier invalidations were applied; before the first proof, time since the start.";
        up: Gauge, "sidecache_shard_up", "1 while the shard is connected and receives operations, else 0.";
        in_flight: Gauge, "sidecache_shard_in_flight", "Operations that are running on the shard.";
        breaker_open: Gauge, "sidecache_shard_breaker_open", "1 while the circuit breaker is open (the shard receives no operations because it did not answer); 0.5 while it is half-open (a few operations are tried).";
        breaker_openings: Counter, "sidecache_shard_breaker_openings_total", "Times that the circuit breaker of the shard opened.";
        silent: Counter, "sidecache_shard_timeouts_total", "Operations that the shard did not answer in time.";
        refused: Counter, "sidecache_shard_refused_total", "Operations refused without asking the shard: too many were running, it was not connected, or its circuit breaker was open.";
        repairs: Counter, "sidecache_shard_repairs_total", "Namespaces whose lost index was rebuilt.";
        retries: Counter, "sidecache_shard_retries_total", "Reads sent again after their connection broke.";
        moved_removed: Counter, "sidecache_moved_entries_removed_total", "Entries removed because their keys moved to another shard.";
        memory_used: Gauge, "sidecache_shard_memory_used_bytes", "Memory that the shard uses, as last reported; 0 if it did not report it.";
        memory_limit: Gauge, "sidecache_shard_memory_limit_bytes", "Memory that the shard may use: maxmemory, or the machine's memory if maxmemory is not set; 0 if it did not report it.";
        degraded: Gauge, "sidecache_shard_degraded", "1 while /health reports a problem of the shard as degraded or refused, else 0.";
        out_of_memory: Counter, "sidecache_shard_out_of_memory_total", "Operations that the shard refused because it was out of memory.";
        primary_changes: Counter, "sidecache_shard_primary_changes_total", "Connections replaced because they led to a server that is not the primary, or to another server than the others.";
    }
}

/// How often each thing happened to leases.
pub struct LeaseMetrics {
    pub won: Counter,
    pub held: Counter,
    pub filled: Counter,
    pub lost: Counter,
    pub released: Counter,
    pub returned: Counter,
    /// How long callers waited for values.
    pub wait: Histogram,
}

impl LeaseMetrics {
    /// Call it under the recorder that shows the metrics.
    pub(super) fn new() -> Self {
        const NAME: &str = "sidecache_leases_total";
        let help = "Leases by outcome: won and held count answers to reads; filled and lost count writes; released and returned count leases that ended without a value, by the caller or because the caller was gone.";
        let counter = |outcome: &'static str| metrics::counter!(description: help, NAME, "outcome" => outcome);
        let [won, held, filled, lost, released, returned] =
            ["won", "held", "filled", "lost", "released", "returned"].map(counter);
        Self { won, held, filled, lost, released, returned, wait: Histogram::default() }
    }

    /// What the recorder does not show.
    pub(super) fn render(&self) -> String {
        let help = "Time that reads waited for a value that another caller loads, whether it came or not.";
        self.wait.render("sidecache_lease_wait_seconds", help)
    }
}

/// How reads with positions were answered.
pub struct PositionMetrics {
    pub l1: Counter,
    pub shard: Counter,
    pub lost: Counter,
}

impl PositionMetrics {
    /// Call it under the recorder that shows the metrics.
    pub(super) fn new() -> Self {
        const NAME: &str = "sidecache_position_reads_total";
        let help = "Keys read with a position, by outcome: answered by L1 or by the shard, or refused because the shard has lost changes up to the position.";
        let counter = |outcome: &'static str| metrics::counter!(description: help, NAME, "outcome" => outcome);
        let [l1, shard, lost] = ["l1", "shard", "lost"].map(counter);
        Self { l1, shard, lost }
    }
}
