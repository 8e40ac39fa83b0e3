//! One namespace over time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::hot::HotKeys;
use super::point::{Latency, Point, Rates, Summary, rates_of};
use super::push;
use crate::clock::Moment;
use crate::metrics::{Latencies, NamespaceFigures};
use crate::model::UnixMillis;
use crate::stats::Traffic;
use crate::store::Totals;

/// The points that the hit rate of a summary is of: a minute.
const SUMMARY_POINTS: usize = 30;

/// For how long found keys are counted together.
const HOT_SPAN: Duration = Duration::from_secs(300);

/// What is known of a namespace.
pub(super) struct Track {
    pub has_label: bool,
    /// 0 for none.
    pub quota_bytes: u64,
    /// When it was last read or written, here or elsewhere.
    pub used_at: Moment,
    /// As last read, and when.
    totals: Option<(Moment, Totals)>,
    points: VecDeque<Point>,
    latencies: RecentLatencies,
    /// This instance's since its start.
    traffic: Traffic,
    /// Not in a point yet.
    writes: u64,
    hot: [HotKeys; 2],
    hot_since: Moment,
}

impl Track {
    pub fn new(has_label: bool, quota_bytes: u64) -> Self {
        let now = Moment::now();
        Self {
            has_label,
            quota_bytes,
            used_at: now,
            totals: None,
            points: VecDeque::new(),
            latencies: RecentLatencies::default(),
            traffic: Traffic::default(),
            writes: 0,
            hot: Default::default(),
            hot_since: now,
        }
    }

    pub fn add(&mut self, traffic: &Traffic) {
        self.traffic.add(traffic);
        self.writes += traffic.writes;
        self.used_at = Moment::now();
        self.latencies.add(&traffic.latencies, self.used_at);
    }

    pub fn found(&mut self, key: &str, reads: u32) {
        let now = Moment::now();
        if now.since(self.hot_since) > HOT_SPAN {
            self.hot[1] = std::mem::take(&mut self.hot[0]);
            self.hot_since = now;
        }
        self.hot[0].add(key, reads.into());
    }

    /// Adds a point with these totals, and tells what happened since the last one.
    pub fn take_point(&mut self, totals: Totals, read_at: Moment, at: UnixMillis) -> Rates {
        let writes = std::mem::take(&mut self.writes);
        let before = self.totals.replace((read_at, totals));
        let Some((before_at, before)) = before else { return Rates { writes, ..Rates::default() } };
        let rates = Rates {
            // They begin anew when the namespace was deleted meanwhile, or a shard lost its memory.
            hits: totals.hits.saturating_sub(before.hits),
            misses: totals.misses.saturating_sub(before.misses),
            writes,
        };
        if totals != before || writes > 0 {
            self.used_at = read_at;
        }
        // One that nobody uses has no history.
        if self.has_history() || totals != before || writes > 0 {
            let seconds = read_at.since(before_at).as_secs_f64().max(f64::EPSILON);
            push(&mut self.points, Point { at, keys: totals.keys, bytes: totals.bytes, ..rates_of(rates, seconds) });
        }
        rates
    }

    pub fn totals(&self) -> Option<Totals> {
        self.totals.map(|(_, totals)| totals)
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
        let last = self.points.back();
        let recent = self.points.iter().rev().take(SUMMARY_POINTS);
        let (found, all) = recent.fold((0.0, 0.0), |(found, all), point| {
            let reads = point.reads_per_second.unwrap_or_default();
            (found + reads * point.hit_rate.unwrap_or_default(), all + reads)
        });
        Summary {
            name: name.to_owned(),
            totals: self.totals(),
            reads_per_second: last.and_then(|point| point.reads_per_second),
            hit_rate: (all > 0.0).then(|| found / all),
            writes_per_second: last.map(|point| point.writes_per_second).unwrap_or_default(),
            quota_bytes: self.quota_bytes,
        }
    }

    pub fn figures(&self) -> NamespaceFigures {
        let totals = self.totals().unwrap_or_default();
        NamespaceFigures {
            traffic: (&self.traffic).into(),
            keys: totals.keys,
            bytes: totals.bytes,
            quota_bytes: self.quota_bytes,
            evictions: totals.evictions,
            expirations: totals.expirations,
        }
    }
}

/// Latencies of the last 45 to 60 s.
#[derive(Default)]
pub(super) struct RecentLatencies {
    /// The newest first, each of [`RecentLatencies::SPAN`].
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
