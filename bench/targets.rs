//! The targets, in the order of the report. The figures come from the rows; a target without a figure in this run is
//! shown as not measured.

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    pub id: &'static str,
    /// What is measured.
    pub what: &'static str,
    pub text: &'static str,
    pub aim: Bound,
    /// The minimum requirement, weaker than the aim.
    pub must: Option<f64>,
    pub unit: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    Above(f64),
    /// There is no target; the figure is only reported.
    Reported,
}

impl Bound {
    fn holds(self, figure: f64) -> Option<bool> {
        match self {
            Bound::AtLeast(bound) => Some(figure >= bound),
            Bound::AtMost(bound) => Some(figure <= bound),
            Bound::Below(bound) => Some(figure < bound),
            Bound::Above(bound) => Some(figure > bound),
            Bound::Reported => None,
        }
    }

    /// A bound in the same direction with another figure.
    fn with(self, figure: f64) -> Bound {
        match self {
            Bound::AtLeast(_) => Bound::AtLeast(figure),
            Bound::AtMost(_) => Bound::AtMost(figure),
            Bound::Below(_) => Bound::Below(figure),
            Bound::Above(_) => Bound::Above(figure),
            Bound::Reported => Bound::Reported,
        }
    }
}

/// The figure that a row measured for a target.
pub struct Finding {
    pub id: &'static str,
    pub figure: f64,
    /// The conditions, such as the rate.
    pub note: String,
}

impl Finding {
    pub fn new(id: &'static str, figure: f64, note: impl Into<String>) -> Finding {
        Finding { id, figure, note: note.into() }
    }
}

impl Target {
    /// Compares the figure with the aim, and if that is missed, with the minimum requirement.
    pub fn verdict(&self, figure: f64) -> &'static str {
        match (self.aim.holds(figure), self.must.and_then(|must| self.aim.with(must).holds(figure))) {
            (None, _) => "reported",
            (Some(true), _) => "met",
            (Some(false), Some(true)) => "missed, minimum met",
            (Some(false), _) => "**missed**",
        }
    }
}

const fn target(id: &'static str, what: &'static str, text: &'static str, aim: Bound, unit: &'static str) -> Target {
    Target { id, what, text, aim, must: None, unit }
}

const fn at_least(target: Target, must: f64) -> Target {
    Target { must: Some(must), ..target }
}

/// All targets.
pub const TARGETS: [Target; 34] = [
    at_least(
        target(
            "hit.cpu",
            "GET, L1 hit: CPU per request over nginx's for a constant",
            "<= 1.0 (minimum: <= 1.10)",
            Bound::AtMost(1.0),
            "x",
        ),
        1.10,
    ),
    at_least(
        target(
            "hit.throughput",
            "GET, L1 hit: throughput over nginx's",
            ">= 1.0 (minimum: >= 0.9)",
            Bound::AtLeast(1.0),
            "x",
        ),
        0.9,
    ),
    at_least(
        target(
            "redis.throughput",
            "GET through Redis (L1 off): throughput over webdis GET's",
            ">= 1.0 (minimum: >= 0.85)",
            Bound::AtLeast(1.0),
            "x",
        ),
        0.85,
    ),
    target("redis.cpu", "GET through Redis: CPU per request over webdis'", "<= 1.2", Bound::AtMost(1.2), "x"),
    target("put.rate", "PUT with all bookkeeping, one shard", ">= 45,000/s", Bound::AtLeast(45_000.0), "/s"),
    target(
        "put.throughput",
        "PUT with all bookkeeping: throughput over webdis' bare SET's",
        ">= 0.75",
        Bound::AtLeast(0.75),
        "x",
    ),
    target("put.script", "PUT: throughput over webdis' calling the same script", "> 1.0", Bound::Above(1.0), "x"),
    target("mix.rate", "cache-aside mix, closed loop", "reported", Bound::Reported, "/s"),
    target(
        "mix.p99",
        "cache-aside mix: p99 at 50,000 reads/s + 5,000 writes/s, or at the highest rate held",
        "< 5 ms",
        Bound::Below(5.0),
        "ms",
    ),
    target("mget.p99", "mget of 100 keys at 200 requests/s: p99", "< 20 ms", Bound::Below(20.0), "ms"),
    target("mset.p99", "mset of 100 entries at 200 requests/s: p99", "< 30 ms", Bound::Below(30.0), "ms"),
    target("mget.l1", "mget: keys from L1", ">= 1,000,000/s", Bound::AtLeast(1e6), "/s"),
    target("mget.redis", "mget: keys through Redis", ">= 250,000/s", Bound::AtLeast(250e3), "/s"),
    target("mset.rate", "mset: entries", ">= 150,000/s", Bound::AtLeast(150e3), "/s"),
    target("large.p99", "GET of 1 MB at 50/s: p99", "< 50 ms", Bound::Below(50.0), "ms"),
    target("large.throughput", "GET of 1 MB: throughput over nginx's", ">= 0.7", Bound::AtLeast(0.7), "x"),
    target(
        "connections.1000",
        "1,000 connections, without an error: throughput over that with 64",
        ">= 0.8",
        Bound::AtLeast(0.8),
        "x",
    ),
    target(
        "connections.10000",
        "10,000 connections, without an error: throughput over that with 64",
        ">= 0.8",
        Bound::AtLeast(0.8),
        "x",
    ),
    target(
        "growth.get",
        "growth, Redis: CPU per GET (ours and Redis') with many keys over that with 10,000",
        "<= 1.3",
        Bound::AtMost(1.3),
        "x",
    ),
    target("growth.put", "growth, Redis: CPU per PUT (ours and Redis')", "<= 1.3", Bound::AtMost(1.3), "x"),
    target("growth.embedded.get", "growth, embedded: CPU per GET", "<= 1.3", Bound::AtMost(1.3), "x"),
    target("growth.embedded.put", "growth, embedded: CPU per PUT", "<= 1.3", Bound::AtMost(1.3), "x"),
    target("memory.idle", "memory: idle, nothing configured", "< 25 MB", Bound::Below(25.0), "MB"),
    target("memory.idle.shards", "memory: idle, three shards", "< 25 MB", Bound::Below(25.0), "MB"),
    target("memory.entry", "memory: L1's overhead per small entry", "<= 120 B", Bound::AtMost(120.0), "B"),
    target(
        "access_log.cpu",
        "full access logging to PostgreSQL: CPU per GET over that without",
        "<= 1.10",
        Bound::AtMost(1.10),
        "x",
    ),
    target(
        "pub_sub.get",
        "pub/sub: CPU per GET with two more instances over that without",
        "<= 1.05",
        Bound::AtMost(1.05),
        "x",
    ),
    target("pub_sub.put", "pub/sub: Redis' CPU per PUT that an instance adds", "< 1 us", Bound::Below(1.0), "us"),
    target("P-01", "P-01 GET: p99", "< 5 ms", Bound::Below(5.0), "ms"),
    target("P-02", "P-02 SET: p99", "< 10 ms", Bound::Below(10.0), "ms"),
    target("P-05", "P-05 reads", "> 50,000/s", Bound::Above(50e3), "/s"),
    target("P-06", "P-06 writes", "> 20,000/s", Bound::Above(20e3), "/s"),
    target("P-07", "P-07 Redis memory of 1,000,000 keys", "< 2 GB", Bound::Below(2.0), "GB"),
    target("P-10", "P-10 pattern scan of 100,000 keys", "< 5 s", Bound::Below(5.0), "s"),
];

/// The table P-01 to P-10: for each name the id of the target whose figure it shows.
pub const PERFORMANCE: [(&str, &str); 10] = [
    ("P-01 GET p99", "P-01"),
    ("P-02 SET p99", "P-02"),
    ("P-03 MGET of 100 p99", "mget.p99"),
    ("P-04 MSET of 100 p99", "mset.p99"),
    ("P-05 reads", "P-05"),
    ("P-06 writes", "P-06"),
    ("P-07 Redis memory of 1M keys", "P-07"),
    ("P-08 1,000 concurrent without exhaustion", "connections.1000"),
    ("P-09 GET of 1 MB p99", "large.p99"),
    ("P-10 pattern scan of 100,000 keys", "P-10"),
];

pub fn target_of(id: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.id == id)
}
