//! One namespace over time.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::time::Duration;

use super::figures::Figures;
use super::hot::HotKeys;
use super::point::{Latency, PerSecond, Point, Summary, push};
use crate::clock::Moment;
use crate::metrics::Latencies;
use crate::model::{EvictionPolicy, Quota, UnixMillis};
use crate::stats::{LeaseCounts, Traffic};
use crate::store::Totals;

/// The period of the hit rate in a summary, in milliseconds.
const SUMMARY_MS: u64 = 60_000;

/// The period over which hot keys are counted.
const HOT_SPAN: Duration = Duration::from_secs(300);

/// The recent numbers of a namespace.
pub(super) struct Track {
    pub has_label: bool,
    pub quota: Quota,
    /// When it was last read or written, on any instance.
    pub used_at: Moment,
    /// The last reading and its time.
    totals: Option<(Moment, Totals)>,
    /// The totals on some of the shards, until all have answered once.
    partial: Option<Totals>,
    /// The rates between the last two readings; `None` if one of them failed.
    rates: Option<PerSecond>,
    /// The totals of the first reading, plus all increases since then. They never fall.
    news: Increase,
    points: VecDeque<Point>,
    latencies: RecentLatencies,
    /// The traffic of this instance since its start.
    traffic: Traffic,
    /// Writes that are not in a point yet.
    writes: u64,
    /// The current period and the previous one.
    hot: [HotKeys; 2],
    hot_since: Moment,
}

/// The difference between a reading and the previous one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Increase {
    evictions: u64,
    redis_evictions: u64,
    expirations: u64,
}

impl Increase {
    fn between(before: &Totals, totals: &Totals) -> Self {
        Self {
            evictions: totals.evictions.saturating_sub(before.evictions),
            redis_evictions: totals.redis_evictions.saturating_sub(before.redis_evictions),
            expirations: totals.expirations.saturating_sub(before.expirations),
        }
    }

    /// `totals` with these counts.
    pub fn within(self, totals: Totals) -> Totals {
        let Self { evictions, redis_evictions, expirations } = self;
        Totals { evictions, redis_evictions, expirations, ..totals }
    }

    pub fn add(&mut self, more: Self) {
        self.evictions += more.evictions;
        self.redis_evictions += more.redis_evictions;
        self.expirations += more.expirations;
    }
}

impl Track {
    pub fn new(has_label: bool, quota: Quota, now: Moment) -> Self {
        Self {
            has_label,
            quota,
            used_at: now,
            totals: None,
            partial: None,
            rates: None,
            news: Increase::default(),
            points: VecDeque::new(),
            latencies: RecentLatencies::default(),
            traffic: Traffic::default(),
            writes: 0,
            hot: Default::default(),
            hot_since: now,
        }
    }

    /// 0: no quota.
    pub fn quota_bytes(&self) -> u64 {
        self.quota.max_bytes.map_or(0, NonZeroU64::get)
    }

    /// Whether writes over the quota are refused.
    pub fn refuses_at_quota(&self) -> bool {
        self.quota.max_bytes.is_some() && self.quota.eviction_policy == EvictionPolicy::None
    }

    pub fn add(&mut self, traffic: &Traffic, now: Moment) {
        self.traffic.add(traffic);
        self.writes += traffic.writes;
        self.used_at = now;
        self.latencies.add(&traffic.latencies, now);
    }

    /// Counts a key that reads found, unless the namespace has no history, because then nobody sees the keys.
    pub fn found(&mut self, key: &str, reads: u32) {
        if self.has_history() {
            self.hot[0].add(key, reads.into());
        }
    }

    /// Drops keys that were found too long ago.
    pub fn age(&mut self, now: Moment) {
        let age = now.since(self.hot_since);
        if age >= HOT_SPAN {
            let last = std::mem::take(&mut self.hot[0]);
            self.hot[1] = if age < 2 * HOT_SPAN { last } else { HotKeys::default() };
            self.hot_since = now;
        }
    }

    /// Adds a point with these totals; `None` if they could not be read.
    pub fn take_point(&mut self, totals: Option<Totals>, read_at: Moment, at: UnixMillis) -> Increase {
        let Some(totals) = totals else {
            self.rates = None;
            if self.has_history() {
                push(&mut self.points, Point { at, ..Point::default() });
            }
            return Increase::default();
        };
        let Some((before_at, before)) = self.totals.replace((read_at, totals)) else {
            self.news = Increase::between(&Totals::default(), &totals);
            return Increase::default();
        };
        // These are sums over shards. The sum falls when a shard loses its memory; what the other shards counted in
        // that time is then not visible.
        let news = Increase::between(&before, &totals);
        self.news.add(news);
        // Hits and misses are stored on one shard. They start again at 0 when that shard loses its memory or the
        // namespace was deleted.
        let is_new = totals.hits < before.hits || totals.misses < before.misses;
        let before = if is_new { Totals { hits: 0, misses: 0, ..before } } else { before };
        let writes = std::mem::take(&mut self.writes);
        let rates =
            PerSecond::of(totals.hits - before.hits, totals.misses - before.misses, writes, read_at.since(before_at));
        self.rates = Some(rates);
        let is_used = totals != before || writes > 0;
        if is_used && read_at.as_nanos() > self.used_at.as_nanos() {
            self.used_at = read_at;
        }
        // A namespace that is not used gets no history.
        if self.has_history() || is_used {
            push(&mut self.points, rates.point(at, totals.keys, totals.bytes));
        }
        news
    }

    /// Sets the totals of some of the shards, which are shown until complete totals are known.
    pub fn take_part(&mut self, totals: Totals) {
        self.partial = Some(totals);
    }

    pub fn totals(&self) -> Option<Totals> {
        self.totals.map(|(_, totals)| totals)
    }

    pub fn rates(&self) -> Option<PerSecond> {
        self.rates
    }

    pub fn points(&self) -> Vec<Point> {
        self.points.iter().copied().collect()
    }

    pub fn has_history(&self) -> bool {
        !self.points.is_empty()
    }

    pub fn forget_history(&mut self) {
        self.points = VecDeque::new();
        self.hot = Default::default();
    }

    pub fn latency(&self) -> Latency {
        Latency::of(&self.latencies.sum())
    }

    /// What happened to leases on this instance since its start.
    pub fn leases(&self) -> LeaseCounts {
        self.traffic.leases
    }

    pub fn top_keys(&self, most: usize) -> Vec<(String, u64)> {
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for (key, count) in self.hot.iter().flat_map(HotKeys::counts) {
            *sums.entry(key).or_default() += count;
        }
        let mut keys: Vec<_> = sums.into_iter().map(|(key, count)| (key.to_owned(), count)).collect();
        keys.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        keys.truncate(most);
        keys
    }

    pub fn summary(&self, name: &str) -> Summary {
        let since = self.points.back().map_or(0, |last| last.at.0.saturating_sub(SUMMARY_MS));
        let recent = self.points.iter().rev().take_while(|point| point.at.0 > since);
        let (found, all) = recent.fold((0.0, 0.0), |(found, all), point| {
            let reads = point.reads_per_second.unwrap_or_default();
            (found + reads * point.hit_rate.unwrap_or_default(), all + reads)
        });
        Summary {
            name: name.to_owned(),
            totals: self.totals(),
            partial_totals: self.partial,
            reads_per_second: self.rates.map(PerSecond::reads),
            hit_rate: (all > 0.0).then(|| found / all),
            writes_per_second: self.rates.map(|rates| rates.writes).unwrap_or_default(),
            quota_bytes: self.quota_bytes(),
        }
    }

    pub fn figures(&self) -> Figures<'_> {
        Figures {
            traffic: &self.traffic,
            totals: self.totals().map(|totals| self.news.within(totals)),
            quota_bytes: self.quota_bytes(),
            refuses_at_quota: self.refuses_at_quota(),
        }
    }
}

/// Latencies of the last 45 to 60 s.
#[derive(Default)]
pub(super) struct RecentLatencies {
    /// Newest first, each covering [`RecentLatencies::SPAN`].
    spans: VecDeque<(Moment, Latencies)>,
}

impl RecentLatencies {
    const SPAN: Duration = Duration::from_secs(15);
    const SPANS: u32 = 4;

    pub fn add(&mut self, latencies: &Latencies, now: Moment) {
        match self.spans.front_mut() {
            Some((since, span)) if now.since(*since) < Self::SPAN => span.add(latencies),
            _ => self.spans.push_front((now, latencies.clone())),
        }
        self.spans.truncate(Self::SPANS as usize);
    }

    pub fn sum(&self) -> Latencies {
        let now = Moment::now();
        let mut sum = Latencies::default();
        let recent = self.spans.iter().filter(|(since, _)| now.since(*since) < Self::SPAN * Self::SPANS);
        recent.for_each(|(_, span)| sum.add(span));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(hits: u64, misses: u64, expirations: u64) -> Option<Totals> {
        Some(Totals { hits, misses, keys: 7, bytes: 70, charged: 80, evictions: 0, expirations, ..Totals::default() })
    }

    /// A track after readings one second apart.
    fn read(readings: &[Option<Totals>]) -> Track {
        let start = Moment::now();
        let mut track = Track::new(true, Quota::default(), start);
        for (second, totals) in (0..).zip(readings) {
            track.take_point(*totals, start + Duration::from_secs(second), UnixMillis(1_000_000 + 1000 * second));
        }
        track
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let track = read(&[totals(1000, 0, 0), totals(1003, 1, 0)]);
        let [point] = track.points()[..] else { panic!("{:?}", track.points()) };
        assert_eq!((point.reads_per_second, point.hit_rate, point.keys), (Some(4.0), Some(0.75), Some(7)));
        assert_eq!(track.summary("n").reads_per_second, Some(4.0));
    }

    #[test]
    fn a_shard_that_does_not_answer_is_a_gap_and_no_leap_afterwards() {
        let track = read(&[totals(0, 0, 0), totals(10, 0, 0), None, None, totals(40, 0, 0)]);
        let rates: Vec<_> = track.points().iter().map(|point| point.reads_per_second).collect();
        assert_eq!(rates, [Some(10.0), None, None, Some(10.0)]);
        let keys: Vec<_> = track.points().iter().map(|point| point.keys).collect();
        assert_eq!(keys, [Some(7), None, None, Some(7)], "what was before is not repeated");
        assert_eq!(read(&[totals(0, 0, 0), totals(10, 0, 0), None]).summary("n").reads_per_second, None);
    }

    #[test]
    fn what_is_counted_never_falls_though_the_namespace_begins_anew() {
        let track = read(&[totals(1000, 10, 5), totals(1000, 10, 8), totals(50, 30, 1), totals(50, 30, 2)]);
        // After the sum over shards fell, its new value may have been counted before.
        assert_eq!(track.figures().totals.unwrap().expirations, 5 + 3 + 1);
        assert_eq!(track.points()[1].hit_rate, Some(50.0 / 80.0));
    }

    #[test]
    fn a_namespace_that_nobody_uses_has_no_history() {
        assert!(!read(&[totals(5, 5, 0), totals(5, 5, 0), None]).has_history());
    }

    #[test]
    fn keys_are_forgotten_when_they_were_found_too_long_ago() {
        let mut track = read(&[totals(0, 0, 0), totals(1, 0, 0)]);
        track.found("k", 3);
        let start = track.hot_since;
        track.age(start + HOT_SPAN);
        track.found("k", 2);
        assert_eq!(track.top_keys(9), [("k".to_owned(), 5)]);
        track.age(start + 2 * HOT_SPAN);
        assert_eq!(track.top_keys(9), [("k".to_owned(), 2)]);
        track.age(start + 9 * HOT_SPAN);
        assert_eq!(track.top_keys(9), []);
    }
}
