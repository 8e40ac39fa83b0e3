//! Metrics of each shard, labelled with its name.

use metrics::{Counter, Gauge, Unit};

macro_rules! table {
    ($($field:ident : $kind:ident, $name:literal, $help:literal;)*) => {
        /// Handles of one shard's metrics.
        #[derive(Clone)]
        pub struct ShardMetrics {
            $(pub $field: $kind,)*
        }

        impl ShardMetrics {
            /// Call it under the recorder that shows the metrics.
            pub(super) fn new(shard: &str) -> Self {
                let labels = [("shard", shard.to_owned())];
                Self { $($field: table!(@handle $kind, $name, &labels),)* }
            }
        }

        /// Registers the help texts.
        pub(super) fn describe() {
            $(table!(@describe $kind, $name, $help);)*
        }
    };
    (@describe Counter, $name:literal, $help:literal) => { metrics::describe_counter!($name, Unit::Count, $help) };
    (@describe Gauge, $name:literal, $help:literal) => { metrics::describe_gauge!($name, $help) };
    (@handle Counter, $name:literal, $labels:expr) => { metrics::counter!($name, $labels) };
    (@handle Gauge, $name:literal, $labels:expr) => { metrics::gauge!($name, $labels) };
}

table! {
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
