//! Latencies in buckets, so that the cost of a sample does not depend on the number of samples.

use std::time::Duration;

/// Upper bounds of the buckets, in nanoseconds: from an L1 hit to a timeout.
const BUCKETS: [u64; 16] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// The number of buckets, including one above the last bound.
pub(super) const COUNT: usize = BUCKETS.len() + 1;

/// The bucket of a sample.
pub(super) fn bucket(nanos: u64) -> usize {
    BUCKETS.iter().position(|bound| nanos <= *bound).unwrap_or(BUCKETS.len())
}

/// The upper bound of a bucket in seconds, as the metrics show it.
pub(super) fn bound(bucket: usize) -> String {
    BUCKETS.get(bucket).map_or("+Inf".to_owned(), |nanos| (*nanos as f64 / 1e9).to_string())
}

/// Samples by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Not cumulative.
    counts: [u64; COUNT],
}

impl Latencies {
    pub(super) fn new(counts: [u64; COUNT]) -> Self {
        Self { counts }
    }

    pub fn observe(&mut self, latency: Duration) {
        self.counts[bucket(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX))] += 1;
    }

    pub fn add(&mut self, more: &Self) {
        self.counts.iter_mut().zip(more.counts).for_each(|(count, more)| *count += more);
    }

    /// The samples since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self { counts: std::array::from_fn(|i| self.counts[i].saturating_sub(before.counts[i])) }
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latency that the fraction `part` (0 to 1) of the samples does not exceed. It is interpolated within its
    /// bucket as if the samples were evenly distributed, as Prometheus' `histogram_quantile` does; `None` without
    /// samples.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = part * self.count() as f64;
        let mut below = 0.0;
        for (i, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = count as f64;
            if below + count >= rank {
                let low = if i == 0 { 0 } else { BUCKETS[i - 1] };
                // Above the last bound, the bound itself is returned.
                let high = BUCKETS.get(i).copied().unwrap_or(low);
                let within = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(Duration::from_nanos(low + ((high - low) as f64 * within) as u64));
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_the_bucket_of_its_sample() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        for micros in [5, 5, 5, 5, 5, 5, 5, 5, 700, 20_000] {
            latencies.observe(Duration::from_micros(micros));
        }
        let micros = |part| latencies.quantile(part).unwrap().as_micros();
        assert!((1..=10).contains(&micros(0.5)), "{}", micros(0.5));
        assert!((500..=1000).contains(&micros(0.9)), "{}", micros(0.9));
        assert!((10_000..=25_000).contains(&micros(0.99)), "{}", micros(0.99));
        assert_eq!(micros(1.0), 25_000);
    }

    #[test]
    fn what_is_beyond_all_bounds_is_said_to_be_at_the_last() {
        let mut latencies = Latencies::default();
        latencies.observe(Duration::from_secs(60));
        assert_eq!(latencies.quantile(0.5), Some(Duration::from_secs(5)));
        let before = latencies.clone();
        latencies.observe(Duration::from_micros(1));
        assert_eq!(latencies.since(&before).count(), 1);
        let mut sum = before.clone();
        sum.add(&before);
        assert_eq!(sum.count(), 2);
    }
}
