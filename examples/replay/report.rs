//! The result of a replay, as a table for people and as JSON for programs.

use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;
use serde::Serialize;

use crate::Replay;
use crate::client::Counts;
use crate::workload::Workload;

/// The figures of one replay. The field names are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The namespaces in the service; for people only.
    #[serde(skip)]
    namespaces: String,
    records: usize,
    /// Number of different keys in the records.
    distinct: usize,
    /// Counted by the client, like `misses` and `hit_ratio`.
    hits: u64,
    misses: u64,
    hit_ratio: f64,
    source_reads: usize,
    /// From the service's `stats`, summed over the namespaces used.
    service_hits: u64,
    service_misses: u64,
    /// The hits of a cache that starts empty and never evicts.
    expected_hits: usize,
    source_read_us: Option<Summary>,
    /// Hits only.
    cache_read_us: Option<Summary>,
    elapsed_seconds: f64,
}

impl Report {
    pub fn new(namespace_prefix: &str, workload: &Workload, replay: Replay, service: Counts) -> Self {
        Self {
            namespaces: format!("{namespace_prefix}type_<n>, {} in all", workload.types().len()),
            records: workload.records().len(),
            distinct: workload.distinct().len(),
            hits: replay.counts.hits,
            misses: replay.counts.misses,
            hit_ratio: replay.counts.hit_ratio(),
            source_reads: replay.source_reads.len(),
            service_hits: service.hits,
            service_misses: service.misses,
            expected_hits: workload.expected_hits(),
            source_read_us: replay.source_reads.summary(),
            cache_read_us: replay.cache_reads.summary(),
            elapsed_seconds: replay.elapsed.as_secs_f64(),
        }
    }

    /// Whether the service counted what the client saw.
    pub fn agrees(&self) -> bool {
        (self.service_hits, self.service_misses) == (self.hits, self.misses)
    }

    /// # Errors
    /// A figure cannot be written as a JSON number.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: usize| HumanCount(count as u64).to_string();
        let reads_per_second = self.records as f64 / self.elapsed_seconds;
        let verdict = if self.agrees() { "agrees" } else { "DISAGREES" };
        let rows = [
            ("namespaces", self.namespaces.clone()),
            ("records", count(self.records)),
            ("distinct keys", count(self.distinct)),
            ("hits", HumanCount(self.hits).to_string()),
            ("misses", HumanCount(self.misses).to_string()),
            ("hit ratio", format!("{:.4}", self.hit_ratio)),
            ("expected hits", format!("{} if nothing is evicted", count(self.expected_hits))),
            ("source reads", count(self.source_reads)),
            ("source read", describe(self.source_read_us.as_ref())),
            ("cache read (hit)", describe(self.cache_read_us.as_ref())),
            ("elapsed", format!("{:.2} s, {reads_per_second:.0} records/s", self.elapsed_seconds)),
            (
                "service stats",
                format!(
                    "{} hits, {} misses: {verdict}",
                    HumanCount(self.service_hits),
                    HumanCount(self.service_misses)
                ),
            ),
        ];
        for (name, value) in rows {
            writeln!(f, "{name:<18}{value}")?;
        }
        Ok(())
    }
}

fn describe(times: Option<&Summary>) -> String {
    times.map_or_else(|| "none".to_owned(), ToString::to_string)
}

/// All durations of one kind of operation.
#[derive(Debug, Default)]
pub struct Times {
    micros: Vec<f64>,
}

impl Times {
    pub fn push(&mut self, took: Duration) {
        self.micros.push(took.as_secs_f64() * 1e6);
    }

    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// `None` without durations.
    pub fn summary(mut self) -> Option<Summary> {
        self.micros.sort_by(f64::total_cmp);
        let count = self.micros.len();
        let mean = self.micros.iter().sum::<f64>() / count as f64;
        // The nearest-rank percentile: the smallest duration that p % of all durations do not exceed.
        let percentile = |p: usize| self.micros.get((count * p).div_ceil(100).checked_sub(1)?).copied();
        Some(Summary { mean: tenths(mean), p50: tenths(percentile(50)?), p99: tenths(percentile(99)?) })
    }
}

/// Times in microseconds, rounded to a tenth.
#[derive(Debug, PartialEq, Serialize)]
pub struct Summary {
    mean: f64,
    p50: f64,
    p99: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, p50, p99 } = self;
        write!(f, "mean {mean:.1} µs, p50 {p50:.1} µs, p99 {p99:.1} µs")
    }
}

fn tenths(micros: f64) -> f64 {
    (micros * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut times = Times::default();
        for micros in (1..=200).rev() {
            times.push(Duration::from_micros(micros));
        }
        assert_eq!(times.summary(), Some(Summary { mean: 100.5, p50: 100.0, p99: 198.0 }));
    }

    #[test]
    fn one_time_is_every_percentile_and_none_is_no_summary() {
        let mut times = Times::default();
        times.push(Duration::from_micros(7));
        assert_eq!(times.summary(), Some(Summary { mean: 7.0, p50: 7.0, p99: 7.0 }));
        assert_eq!(Times::default().summary(), None);
    }
}
