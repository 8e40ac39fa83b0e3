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

/// The figures of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceFigures {
    pub traffic: NamespaceTraffic,
    pub keys: u64,
    pub bytes: u64,
    /// 0 for none.
    pub quota_bytes: u64,
    pub evictions: u64,
    pub expirations: u64,
}

impl NamespaceFigures {
    /// Adds all but the traffic.
    pub fn add_totals(&mut self, more: &Self) {
        self.keys += more.keys;
        self.bytes += more.bytes;
        self.quota_bytes += more.quota_bytes;
        self.evictions += more.evictions;
        self.expirations += more.expirations;
    }
}

/// One line of the exposition: further labels and the value.
type Series = (&'static str, fn(&NamespaceFigures) -> u64);

/// Name, type, help, and the series of a namespace.
const TABLE: [(&str, &str, &str, &[Series]); 8] = [
    (
        "sidecache_namespace_reads_total",
        "counter",
        "Keys that this instance was asked for, by namespace and result.",
        &[(",result=\"hit\"", |f| f.traffic.hits), (",result=\"miss\"", |f| f.traffic.misses)],
    ),
    (
        "sidecache_namespace_writes_total",
        "counter",
        "Requests to this instance that may have changed entries, by namespace; a batch is one.",
        &[("", |f| f.traffic.writes)],
    ),
    (
        "sidecache_namespace_failures_total",
        "counter",
        "Requests to this instance that the store failed, by namespace.",
        &[("", |f| f.traffic.failures)],
    ),
    (
        "sidecache_namespace_keys",
        "gauge",
        "Entries of the namespace, on all shards; every instance tells the same.",
        &[("", |f| f.keys)],
    ),
    (
        "sidecache_namespace_bytes",
        "gauge",
        "Bytes of the values of the namespace, on all shards; every instance tells the same.",
        &[("", |f| f.bytes)],
    ),
    (
        "sidecache_namespace_quota_bytes",
        "gauge",
        "Bytes of values that the namespace may have; 0: no limit of its own.",
        &[("", |f| f.quota_bytes)],
    ),
    (
        "sidecache_namespace_evictions_total",
        "counter",
        "Entries that made room for others, on all shards; every instance tells the same.",
        &[("", |f| f.evictions)],
    ),
    (
        "sidecache_namespace_expirations_total",
        "counter",
        "Entries that expired, on all shards; every instance tells the same.",
        &[("", |f| f.expirations)],
    ),
];

/// The figures of namespaces in the Prometheus text format. A namespace's name needs no escaping.
pub fn render_namespaces(figures: &[(&str, NamespaceFigures)]) -> String {
    let mut text = String::new();
    for (name, kind, help, series) in TABLE {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (namespace, figures) in figures {
            for (labels, value) in series {
                let _ = writeln!(text, "{name}{{namespace=\"{namespace}\"{labels}}} {}", value(figures));
            }
        }
        text.push('\n');
    }
    text
}
