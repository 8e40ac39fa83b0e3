//! Metrics of each namespace, labelled with its name. The caller (`trends`) bounds the number of labels.

use std::fmt::Write as _;

/// Operations on a namespace by this instance since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceTraffic {
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
    pub failures: u64,
}

/// Totals of a namespace in the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceTotals {
    pub keys: u64,
    pub bytes: u64,
    pub charged: u64,
    pub evictions: u64,
    /// The part of `evictions` that happened because a server's memory was full.
    pub redis_evictions: u64,
    pub expirations: u64,
}

/// The figures of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceFigures {
    pub traffic: NamespaceTraffic,
    /// `None` before the first read. A counter that started at 0 would then jump.
    pub totals: Option<NamespaceTotals>,
    /// 0: no quota.
    pub quota_bytes: u64,
    /// Whether writes over the quota are refused instead of evicting other entries.
    pub refuses_at_quota: bool,
}

/// One line of the output: additional labels and the value.
type Series = (&'static str, fn(&NamespaceFigures) -> Option<u64>);

/// Name, type, help text, and the series of a namespace.
const TABLE: [(&str, &str, &str, &[Series]); 10] = [
    (
        "sidecache_namespace_reads_total",
        "counter",
        "Keys that this instance was asked to read, by namespace and result.",
        &[(",result=\"hit\"", |f| Some(f.traffic.hits)), (",result=\"miss\"", |f| Some(f.traffic.misses))],
    ),
    (
        "sidecache_namespace_writes_total",
        "counter",
        "Requests to this instance that may have changed entries, by namespace. A batch counts as one.",
        &[("", |f| Some(f.traffic.writes))],
    ),
    (
        "sidecache_namespace_failures_total",
        "counter",
        "Requests to this instance that failed because of the store, by namespace.",
        &[("", |f| Some(f.traffic.failures))],
    ),
    (
        "sidecache_namespace_keys",
        "gauge",
        "Entries of the namespace on all shards. Every instance reports the same value.",
        &[("", |f| Some(f.totals?.keys))],
    ),
    (
        "sidecache_namespace_bytes",
        "gauge",
        "Bytes of the values of the namespace on all shards. Every instance reports the same value.",
        &[("", |f| Some(f.totals?.bytes))],
    ),
    (
        "sidecache_namespace_charged_bytes",
        "gauge",
        "Bytes that count towards the quota of the namespace on all shards. Every instance reports the same value.",
        &[("", |f| Some(f.totals?.charged))],
    ),
    (
        "sidecache_namespace_quota_bytes",
        "gauge",
        "Quota of the namespace in bytes; 0: no quota.",
        &[("", |f| Some(f.quota_bytes))],
    ),
    (
        "sidecache_namespace_quota_refuses",
        "gauge",
        "1 if the eviction policy is NONE, so that writes over the quota are refused.",
        &[("", |f| Some(u64::from(f.refuses_at_quota)))],
    ),
    (
        "sidecache_namespace_evictions_total",
        "counter",
        "Entries evicted on all shards, because of the quota or because the memory of a Redis server was full. Every instance reports the same value.",
        &[
            (",cause=\"quota\"", |f| Some(f.totals?.evictions.saturating_sub(f.totals?.redis_evictions))),
            (",cause=\"redis\"", |f| Some(f.totals?.redis_evictions)),
        ],
    ),
    (
        "sidecache_namespace_expirations_total",
        "counter",
        "Entries that expired on all shards. Every instance reports the same value.",
        &[("", |f| Some(f.totals?.expirations))],
    ),
];

/// The figures of namespaces in the Prometheus text format. A namespace's name needs no escaping.
pub fn render_namespaces(figures: &[(&str, NamespaceFigures)]) -> String {
    let mut text = String::new();
    for (name, kind, help, series) in TABLE {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (namespace, figures) in figures {
            for (labels, value) in series {
                if let Some(value) = value(figures) {
                    let _ = writeln!(text, "{name}{{namespace=\"{namespace}\"{labels}}} {value}");
                }
            }
        }
        text.push('\n');
    }
    text
}
