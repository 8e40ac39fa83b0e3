//! What is counted of each namespace, labelled with its name. How many have a label of their own is bounded by
//! whoever hands the figures over (`trends`).

use std::fmt::Write as _;

/// What an instance was asked since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceTraffic {
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
    pub failures: u64,
}

/// What stands in the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceTotals {
    pub keys: u64,
    pub bytes: u64,
    pub charged: u64,
    pub evictions: u64,
    /// Those of them that were for want of a server's memory.
    pub redis_evictions: u64,
    pub expirations: u64,
}

/// The figures of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceFigures {
    pub traffic: NamespaceTraffic,
    /// `None` before they were first read: a counter that begins at nothing would leap.
    pub totals: Option<NamespaceTotals>,
    /// 0 for none.
    pub quota_bytes: u64,
    /// Whether writes beyond the quota are refused, instead of others making room.
    pub refuses_at_quota: bool,
}

/// One line of the exposition: further labels and the value.
type Series = (&'static str, fn(&NamespaceFigures) -> Option<u64>);

/// Name, type, help, and the series of a namespace.
const TABLE: [(&str, &str, &str, &[Series]); 10] = [
    (
        "sidecache_namespace_reads_total",
        "counter",
        "Keys that this instance was asked for, by namespace and result.",
        &[(",result=\"hit\"", |f| Some(f.traffic.hits)), (",result=\"miss\"", |f| Some(f.traffic.misses))],
    ),
    (
        "sidecache_namespace_writes_total",
        "counter",
        "Requests to this instance that may have changed entries, by namespace; a batch is one.",
        &[("", |f| Some(f.traffic.writes))],
    ),
    (
        "sidecache_namespace_failures_total",
        "counter",
        "Requests to this instance that the store failed, by namespace.",
        &[("", |f| Some(f.traffic.failures))],
    ),
    (
        "sidecache_namespace_keys",
        "gauge",
        "Entries of the namespace, on all shards; every instance tells the same.",
        &[("", |f| Some(f.totals?.keys))],
    ),
    (
        "sidecache_namespace_bytes",
        "gauge",
        "Bytes of the values of the namespace, on all shards; every instance tells the same.",
        &[("", |f| Some(f.totals?.bytes))],
    ),
    (
        "sidecache_namespace_charged_bytes",
        "gauge",
        "Bytes that the quota of the namespace counts, on all shards; every instance tells the same.",
        &[("", |f| Some(f.totals?.charged))],
    ),
    (
        "sidecache_namespace_quota_bytes",
        "gauge",
        "Bytes that the entries of the namespace may be charged; 0: no limit of its own.",
        &[("", |f| Some(f.quota_bytes))],
    ),
    (
        "sidecache_namespace_quota_refuses",
        "gauge",
        "1 where the eviction policy is NONE, so that writes beyond the quota are refused.",
        &[("", |f| Some(u64::from(f.refuses_at_quota)))],
    ),
    (
        "sidecache_namespace_evictions_total",
        "counter",
        "Entries that made room for others, on all shards: within the quota, or for want of a Redis' memory; every instance tells the same.",
        &[
            (",cause=\"quota\"", |f| Some(f.totals?.evictions.saturating_sub(f.totals?.redis_evictions))),
            (",cause=\"redis\"", |f| Some(f.totals?.redis_evictions)),
        ],
    ),
    (
        "sidecache_namespace_expirations_total",
        "counter",
        "Entries that expired, on all shards; every instance tells the same.",
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
