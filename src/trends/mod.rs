//! What the numbers were lately: ten minutes of them, in memory, for the dashboard, the fleet and `/metrics`.
//!
//! Every [`Trends::STEP`] the totals of the namespaces are read from the store and what this instance was asked
//! is taken from `stats`. Both are bounded, however many namespaces there are: so many totals a step, in turn, and
//! so many namespaces with a history. Hits, misses, keys, bytes, evictions and expirations are the fleet's, as
//! they are counted in the store; writes, failures, latencies and hot keys are this instance's.
//!
//! Nothing here is exact at the moment it is read: who needs that asks `cache` for the stats.

mod hot;
mod point;
mod track;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use self::point::{Latency, Load, Point, Summary};

use self::point::{Rates, rates_of};
use self::track::{RecentLatencies, Track};
use crate::clock::{Moment, unix_millis};
use crate::metrics::{Latencies, Metrics, NamespaceFigures, render_namespaces};
use crate::model::Namespace;
use crate::namespaces::{Record, Registry};
use crate::stats::{ReadCounters, Traffic};
use crate::store::{SharedStore, Totals};

/// Namespaces whose totals are read in a step, and how many at a time.
const READ_PER_STEP: usize = 200;
const READ_AT_ONCE: usize = 16;

/// Namespaces with a history; of more, those that were used last.
const MOST_HISTORIES: usize = 500;

/// What lately happened to namespaces, and to this instance.
pub struct Trends {
    store: SharedStore,
    registry: Arc<Registry>,
    counters: Arc<ReadCounters>,
    metrics: Arc<Metrics>,
    /// Namespaces with metrics of their own.
    most_labels: usize,
    known: Mutex<Known>,
    ticks: watch::Sender<u64>,
}

struct Known {
    tracks: BTreeMap<String, Track>,
    /// Of all namespaces together.
    overview: VecDeque<Point>,
    /// Of all operations of this instance, and as they were counted at the last step.
    latencies: RecentLatencies,
    counted: Latencies,
    /// Of the last step.
    load: Load,
    /// What was asked of namespaces that have no metrics of their own.
    others: Traffic,
    /// The namespace to go on with.
    turn: usize,
    stepped_at: Moment,
}

impl Trends {
    /// The time between two points.
    pub const STEP: Duration = Duration::from_secs(2);

    /// Points that are kept.
    pub const POINTS: usize = 300;

    pub fn new(
        store: SharedStore,
        registry: Arc<Registry>,
        counters: Arc<ReadCounters>,
        metrics: Arc<Metrics>,
        most_labels: usize,
    ) -> Self {
        let known = Known {
            tracks: BTreeMap::new(),
            overview: VecDeque::new(),
            latencies: RecentLatencies::default(),
            counted: Latencies::default(),
            load: Load::default(),
            others: Traffic::default(),
            turn: 0,
            stepped_at: Moment::now(),
        };
        let ticks = watch::Sender::new(0);
        Self { store, registry, counters, metrics, most_labels, known: Mutex::new(known), ticks }
    }

    /// Takes a step at every interval until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = interval(Self::STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let steps = async {
            loop {
                ticks.tick().await;
                self.step().await;
                self.ticks.send_modify(|count| *count += 1);
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = steps => {}
        }
    }

    async fn step(&self) {
        // What was read here is in the totals then.
        self.counters.flush().await;
        let records = self.registry.all();
        let turn = self.known.lock().turn;
        let chosen = records.iter().cycle().skip(turn).take(READ_PER_STEP.min(records.len()));
        let chosen: Vec<Namespace> = chosen.map(|record| record.namespace.clone()).collect();
        let read = futures_util::stream::iter(chosen).map(|namespace| async move {
            let totals = self.store.totals(&namespace).await;
            (namespace, totals.ok(), Moment::now())
        });
        let read: Vec<_> = read.buffer_unordered(READ_AT_ONCE).collect().await;

        let mut known = self.known.lock();
        known.turn = (turn + read.len()) % records.len().max(1);
        known.keep(&records, self.most_labels);
        known.add_traffic(self.counters.take_traffic());
        for (key, reads) in self.counters.take_found() {
            if let Some(track) = known.tracks.get_mut(key.namespace()) {
                track.found(key.key(), reads);
            }
        }
        known.step(read, &self.metrics.latencies());
    }

    /// Every namespace with what is known of it, by name.
    pub fn namespaces(&self) -> Vec<Summary> {
        self.known.lock().tracks.iter().map(|(name, track)| track.summary(name)).collect()
    }

    /// The points of a namespace, the oldest first; empty for one that nobody used lately.
    pub fn history(&self, namespace: &str) -> Vec<Point> {
        self.known.lock().tracks.get(namespace).map(Track::points).unwrap_or_default()
    }

    /// The points of all namespaces together, the oldest first.
    pub fn overview(&self) -> Vec<Point> {
        self.known.lock().overview.iter().copied().collect()
    }

    /// How long operations took here in about the last minute, on one namespace or on all.
    pub fn latency(&self, namespace: Option<&str>) -> Latency {
        let known = self.known.lock();
        match namespace {
            None => Latency::of(&known.latencies.sum()),
            Some(name) => known.tracks.get(name).map(Track::latency).unwrap_or_default(),
        }
    }

    /// What this instance was asked lately.
    pub fn load(&self) -> Load {
        self.known.lock().load
    }

    /// The keys of a namespace that reads found most often here in the last five to ten minutes, with about how
    /// many reads; the most first.
    pub fn top_keys(&self, namespace: &str, most: usize) -> Vec<(String, u64)> {
        self.known.lock().tracks.get(namespace).map(|track| track.top_keys(most)).unwrap_or_default()
    }

    /// Changes with every step.
    pub fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// The metrics of the namespaces in the Prometheus text format. A bounded number of namespaces has metrics of
    /// its own, those that were known first; the rest is `other`.
    pub fn render_metrics(&self) -> String {
        let known = self.known.lock();
        let (own, others): (Vec<_>, Vec<_>) = known.tracks.iter().partition(|(_, track)| track.has_label);
        let mut figures: Vec<_> = own.iter().map(|(name, track)| (name.as_str(), track.figures())).collect();
        if !others.is_empty() || !known.others.is_empty() {
            let mut rest = NamespaceFigures { traffic: (&known.others).into(), ..NamespaceFigures::default() };
            others.iter().for_each(|(_, track)| rest.add_totals(&track.figures()));
            figures.push(("other", rest));
        }
        render_namespaces(&figures)
    }
}

impl Known {
    /// Takes in new namespaces and lets go of those that are no more.
    fn keep(&mut self, records: &[Record], most_labels: usize) {
        let mut labels = 0;
        self.tracks.retain(|name, track| {
            let at = records.binary_search_by(|record| record.namespace.as_str().cmp(name));
            let quota = at.ok().map(|at| records[at].policy.max_size_mb << 20);
            track.quota_bytes = quota.unwrap_or_default();
            labels += usize::from(quota.is_some() && track.has_label);
            quota.is_some()
        });
        for record in records {
            if !self.tracks.contains_key(record.namespace.as_str()) {
                // A namespace that is called so must not be taken for the rest.
                let has_label = labels < most_labels && record.namespace.as_str() != "other";
                labels += usize::from(has_label);
                let track = Track::new(has_label, record.policy.max_size_mb << 20);
                self.tracks.insert(record.namespace.to_string(), track);
            }
        }
    }

    fn add_traffic(&mut self, traffic: impl IntoIterator<Item = (String, Traffic)>) {
        for (name, traffic) in traffic {
            // One that came into being this moment has none yet: the next step would be late for nothing.
            let Some(track) = self.tracks.get_mut(&name) else { continue };
            track.add(&traffic);
            if !track.has_label {
                self.others.add(&traffic);
            }
        }
    }

    fn step(&mut self, read: Vec<(Namespace, Option<Totals>, Moment)>, counted: &Latencies) {
        let (now, at) = (Moment::now(), unix_millis());
        let elapsed = now.since(self.stepped_at).as_secs_f64().max(f64::EPSILON);
        self.stepped_at = now;
        let mut sum = Rates::default();
        let is_complete = read.iter().all(|(_, totals, _)| totals.is_some());
        for (namespace, totals, read_at) in read {
            if let (Some(track), Some(totals)) = (self.tracks.get_mut(namespace.as_str()), totals) {
                sum.add(track.take_point(totals, read_at, at));
            }
        }
        let totals = self.tracks.values().filter_map(Track::totals);
        let (keys, bytes) = totals.fold((0, 0), |(keys, bytes), more| (keys + more.keys, bytes + more.bytes));
        // A shard that did not answer leaves a gap, not a drop to nothing.
        let point = Point { at, keys, bytes, ..rates_of(sum, elapsed) };
        let unknown = Point { reads_per_second: None, hit_rate: None, ..point };
        push(&mut self.overview, if is_complete { point } else { unknown });

        let new = counted.since(&self.counted);
        self.counted = counted.clone();
        self.latencies.add(&new, now);
        let recent = Latency::of(&self.latencies.sum());
        self.load = Load { operations_per_second: new.count() as f64 / elapsed, p50: recent.p50, p99: recent.p99 };
        self.forget_idle();
    }

    /// Drops the histories of the namespaces that were used least recently.
    fn forget_idle(&mut self) {
        let mut used: Vec<(Moment, &mut Track)> = self
            .tracks
            .values_mut()
            .filter(|track| track.has_history())
            .map(|track| (track.used_at, track))
            .collect();
        if used.len() > MOST_HISTORIES {
            used.sort_by_key(|(at, _)| at.as_nanos());
            let surplus = used.len() - MOST_HISTORIES;
            used.into_iter().take(surplus).for_each(|(_, track)| track.forget_history());
        }
    }
}

/// Appends a point, at the cost of the oldest.
fn push(points: &mut VecDeque<Point>, point: Point) {
    if points.len() == Trends::POINTS {
        points.pop_front();
    }
    points.push_back(point);
}
