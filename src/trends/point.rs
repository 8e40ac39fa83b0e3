//! The numbers at one moment.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metrics::Latencies;
use crate::model::UnixMillis;
use crate::store::Totals;

/// The numbers of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    pub at: UnixMillis,
    /// By the whole fleet, since the previous point; `None` if unknown.
    pub reads_per_second: Option<f64>,
    /// 0 to 1; `None` without reads.
    pub hit_rate: Option<f64>,
    /// By this instance; `None`, like keys and bytes, if they could not be read.
    pub writes_per_second: Option<f64>,
    pub keys: Option<u64>,
    pub bytes: Option<u64>,
}

/// The most points of a history.
pub(super) const MAX_POINTS: usize = 300;

/// Appends a point and drops the oldest if the history is full.
pub(super) fn push(points: &mut VecDeque<Point>, point: Point) {
    if points.len() == MAX_POINTS {
        points.pop_front();
    }
    points.push_back(point);
}

/// A summary of a namespace.
#[derive(Clone, Debug)]
pub struct Summary {
    pub name: String,
    /// The totals of the whole fleet, as last read; `None` before the first read.
    pub totals: Option<Totals>,
    /// The totals on the shards that answered, until all of them have answered once.
    pub partial_totals: Option<Totals>,
    /// By the whole fleet; `None` if unknown.
    pub reads_per_second: Option<f64>,
    /// Of the last minute, 0 to 1; `None` without reads.
    pub hit_rate: Option<f64>,
    /// By this instance.
    pub writes_per_second: f64,
    /// 0: no quota.
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

/// The recent load of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    pub operations_per_second: f64,
    /// Of the last minute.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

/// Rates between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PerSecond {
    pub hits: f64,
    pub misses: f64,
    pub writes: f64,
}

impl PerSecond {
    pub fn of(hits: u64, misses: u64, writes: u64, time: Duration) -> Self {
        let seconds = time.as_secs_f64().max(f64::EPSILON);
        Self { hits: hits as f64 / seconds, misses: misses as f64 / seconds, writes: writes as f64 / seconds }
    }

    pub fn add(self, more: Self) -> Self {
        Self { hits: self.hits + more.hits, misses: self.misses + more.misses, writes: self.writes + more.writes }
    }

    pub fn reads(self) -> f64 {
        self.hits + self.misses
    }

    pub fn point(self, at: UnixMillis, keys: u64, bytes: u64) -> Point {
        let reads = self.reads();
        Point {
            at,
            reads_per_second: Some(reads),
            hit_rate: (reads > 0.0).then(|| self.hits / reads),
            writes_per_second: Some(self.writes),
            keys: Some(keys),
            bytes: Some(bytes),
        }
    }
}
