//! The numbers of a moment.

use std::time::Duration;

use crate::metrics::Latencies;
use crate::model::UnixMillis;
use crate::store::Totals;

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub at: UnixMillis,
    /// By the whole fleet since the point before; `None` where that is not known.
    pub reads_per_second: Option<f64>,
    /// 0 to 1; `None` where nothing was read.
    pub hit_rate: Option<f64>,
    /// By this instance.
    pub writes_per_second: f64,
    pub keys: u64,
    pub bytes: u64,
}

/// A namespace in short.
#[derive(Clone, Debug)]
pub struct Summary {
    pub name: String,
    /// The fleet's, as last read; `None` before the first time.
    pub totals: Option<Totals>,
    /// By the fleet; `None` where that is not known.
    pub reads_per_second: Option<f64>,
    /// Of the last minute, 0 to 1; `None` where nothing was read.
    pub hit_rate: Option<f64>,
    /// By this instance.
    pub writes_per_second: f64,
    /// 0 for none.
    pub quota_bytes: u64,
}

/// Latencies of about the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub count: u64,
    pub p50: Option<Duration>,
    pub p90: Option<Duration>,
    pub p99: Option<Duration>,
    pub p999: Option<Duration>,
}

impl Latency {
    pub(super) fn of(latencies: &Latencies) -> Self {
        Self {
            count: latencies.count(),
            p50: latencies.quantile(0.5),
            p90: latencies.quantile(0.9),
            p99: latencies.quantile(0.99),
            p999: latencies.quantile(0.999),
        }
    }
}

/// What an instance was asked lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    pub operations_per_second: f64,
    /// Of the last minute.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

/// What happened between two points.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
}

impl Rates {
    pub fn add(&mut self, more: Self) {
        self.hits += more.hits;
        self.misses += more.misses;
        self.writes += more.writes;
    }
}

/// A point of what happened in so many seconds, but for what stands at its end.
pub(super) fn rates_of(rates: Rates, seconds: f64) -> Point {
    let reads = rates.hits + rates.misses;
    Point {
        at: UnixMillis(0),
        reads_per_second: Some(reads as f64 / seconds),
        hit_rate: (reads > 0).then(|| rates.hits as f64 / reads as f64),
        writes_per_second: rates.writes as f64 / seconds,
        keys: 0,
        bytes: 0,
    }
}
