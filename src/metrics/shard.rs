//! What is counted of each shard, labelled with its name.

use metrics::{Counter, Gauge, Unit};

macro_rules! table {
    ($($field:ident : $kind:ident, $name:literal, $help:literal;)*) => {
        /// Handles of one shard's metrics.
        #[derive(Clone)]
        pub struct ShardMetrics {
            $(pub $field: $kind,)*
        }

        impl ShardMetrics {
            /// To be called under the recorder that shows them.
            pub(super) fn new(shard: &str) -> Self {
                let labels = [("shard", shard.to_owned())];
                Self { $($field: table!(@handle $kind, $name, &labels),)* }
            }
        }

        /// Tells the help texts.
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
    watermark_age: Gauge, "sidecache_watermark_age_seconds", "Time since the latest moment of which it is proven that all invalidations before it were applied; since the start where there is none yet.";
    up: Gauge, "sidecache_shard_up", "1 while the shard is connected and given operations, else 0.";
    in_flight: Gauge, "sidecache_shard_in_flight", "Operations under way on the shard.";
    breaker_open: Gauge, "sidecache_shard_breaker_open", "1 while the shard is given no operations, as it did not answer; 0.5 while it is tried with a few.";
    breaker_openings: Counter, "sidecache_shard_breaker_openings_total", "Times that the shard was given up for a moment.";
    silent: Counter, "sidecache_shard_timeouts_total", "Operations that the shard did not answer in time.";
    refused: Counter, "sidecache_shard_refused_total", "Operations refused without asking the shard: too many under way, not connected, or given up for a moment.";
    repairs: Counter, "sidecache_shard_repairs_total", "Namespaces whose lost index was made anew.";
    retries: Counter, "sidecache_shard_retries_total", "Reads sent again after their connection broke.";
    moved_removed: Counter, "sidecache_moved_entries_removed_total", "Entries removed as their keys moved to another shard.";
    memory_used: Gauge, "sidecache_shard_memory_used_bytes", "Memory that the shard uses, as it told last; 0 where it did not tell.";
    memory_limit: Gauge, "sidecache_shard_memory_limit_bytes", "Memory that the shard may use: maxmemory, or the machine's where that is not set; 0 where it did not tell.";
    degraded: Gauge, "sidecache_shard_degraded", "1 while something is wrong with the shard that /health tells as degraded or refused, else 0.";
    out_of_memory: Counter, "sidecache_shard_out_of_memory_total", "Operations that the shard refused as it was out of memory.";
    primary_changes: Counter, "sidecache_shard_primary_changes_total", "Connections replaced as the Sentinels name another primary.";
}
