//! The metrics of namespaces, labelled with their names. The caller bounds the number of labels.

use crate::metrics::{Exposition, LabelRef};
use crate::stats::Traffic;
use crate::store::Totals;

/// The figures of a namespace.
pub(super) struct Figures<'t> {
    /// The operations on this instance since its start.
    pub traffic: &'t Traffic,
    /// `None` before the first read. A counter that started at 0 would then jump.
    pub totals: Option<Totals>,
    /// 0: no quota.
    pub quota_bytes: u64,
    /// Whether writes over the quota are refused instead of evicting other entries.
    pub refuses_at_quota: bool,
}

/// One line of the output: additional labels and the value.
type Series = (&'static [LabelRef<'static>], fn(&Figures<'_>) -> Option<u64>);

/// Name, type, help text, and the lines of a namespace, each with its own label in brackets.
macro_rules! table {
    ($($name:literal $kind:ident $help:literal: $([$($label:ident = $value:literal)?] $figure:expr),+;)*) => {
        const TABLE: &[(&str, &str, &str, &[Series])] = &[$(
            ($name, stringify!($kind), $help, &[$((&[$((stringify!($label), $value))?], $figure)),+]),
        )*];
    };
}

table! {
    "sidecache_namespace_reads_total" counter "Keys that this instance was asked to read, by namespace and result.":
        [result = "hit"] |f| Some(f.traffic.hits),
        [result = "miss"] |f| Some(f.traffic.misses);
    "sidecache_namespace_writes_total" counter "Requests to this instance that may have changed entries, by namespace. A batch counts as one.": [] |f| Some(f.traffic.writes);
    "sidecache_namespace_failures_total" counter "Requests to this instance that failed because of the store, by namespace.": [] |f| Some(f.traffic.failures);
    "sidecache_namespace_keys" gauge "Entries of the namespace on all shards. Every instance reports the same value.": [] |f| Some(f.totals?.keys);
    "sidecache_namespace_bytes" gauge "Bytes of the values of the namespace on all shards. Every instance reports the same value.": [] |f| Some(f.totals?.bytes);
    "sidecache_namespace_charged_bytes" gauge "Bytes that count towards the quota of the namespace on all shards. Every instance reports the same value.": [] |f| Some(f.totals?.charged);
    "sidecache_namespace_quota_bytes" gauge "Quota of the namespace in bytes; 0: no quota.": [] |f| Some(f.quota_bytes);
    "sidecache_namespace_quota_refuses" gauge "1 if the eviction policy is NONE, so that writes over the quota are refused.": [] |f| Some(u64::from(f.refuses_at_quota));
    "sidecache_namespace_evictions_total" counter "Entries evicted on all shards, because of the quota or because the memory of a Redis server was full. Every instance reports the same value.":
        [cause = "quota"] |f| Some(f.totals?.evictions.saturating_sub(f.totals?.redis_evictions)),
        [cause = "redis"] |f| Some(f.totals?.redis_evictions);
    "sidecache_namespace_expirations_total" counter "Entries that expired on all shards. Every instance reports the same value.": [] |f| Some(f.totals?.expirations);
}

/// The figures of namespaces in the Prometheus text format.
pub(super) fn render(figures: &[(&str, Figures<'_>)]) -> String {
    let mut shown = Exposition::default();
    for &(name, kind, help, series) in TABLE {
        shown.metric(name, kind, help);
        for (namespace, figures) in figures {
            for (labels, value) in series {
                if let Some(value) = value(figures) {
                    shown.sample(name, None, &[&[("namespace", *namespace)][..], *labels].concat(), value);
                }
            }
        }
        shown.end_metric();
    }
    shown.into_text()
}
