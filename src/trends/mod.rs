//! The numbers of the last ten minutes, in memory, for the dashboard, the fleet and `/metrics`.
//!
//! Every [`Trends::STEP`] this module reads the totals of namespaces from the store and takes this instance's traffic
//! from `stats`. Time and memory are bounded for any number of namespaces: each step reads the totals of a limited
//! number of namespaces in turn, and only a limited number of namespaces has a history. Hits, misses, keys, bytes,
//! evictions and expirations are those of the whole fleet, because the store counts them; writes, failures, latencies
//! and hot keys are those of this instance.
//!
//! These numbers are slightly old; for exact numbers ask `cache` for the stats.

mod figures;
mod hot;
mod point;
mod track;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::point::{Latency, Load, Point, Summary};
pub use crate::stats::LeaseCounts;

use self::figures::Figures;
use self::point::{MAX_POINTS, PerSecond, push};
use self::track::{Increase, RecentLatencies, Track};
use crate::clock::{Moment, unix_millis};
use crate::metrics::{Latencies, Metrics};
use crate::model::{Namespace, UnixMillis};
use crate::namespaces::{Record, Registry};
use crate::stats::{ReadCounters, Seen, Traffic};
use crate::store::{SharedStore, Totals};

/// How many namespaces' totals are read in a step, and how many at a time.
const READ_PER_STEP: usize = 200;
const READ_AT_ONCE: usize = 16;

/// The maximum number of namespaces with a history. The most recently used namespaces keep their history.
const MAX_HISTORIES: usize = 500;

/// The recent numbers of the namespaces and of this instance.
pub struct Trends {
    store: SharedStore,
    registry: Arc<Registry>,
    counters: Arc<ReadCounters>,
    metrics: Arc<Metrics>,
    /// How many namespaces have their own metrics.
    most_labels: usize,
    known: Mutex<Known>,
    ticks: watch::Sender<u64>,
}

struct Known {
    tracks: HashMap<String, Track>,
    /// The points of all namespaces together.
    overview: VecDeque<Point>,
    /// The latencies of all operations of this instance: the recent ones, and the counts at the last step.
    latencies: RecentLatencies,
    counted: Latencies,
    /// The load in the last step.
    load: Load,
    /// Traffic, evictions and expirations of the namespaces without their own metrics. Deleted namespaces stay
    /// included, so that these counters never fall.
    others: Traffic,
    others_news: Increase,
    /// The index of the namespace to read next.
    turn: usize,
    stepped_at: Moment,
}

impl Trends {
    /// The time between two points.
    pub const STEP: Duration = Duration::from_secs(2);

    /// The number of points that are kept.
    pub const POINTS: usize = MAX_POINTS;

    pub fn new(
        store: SharedStore,
        registry: Arc<Registry>,
        counters: Arc<ReadCounters>,
        metrics: Arc<Metrics>,
        most_labels: usize,
    ) -> Self {
        let known = Known::new();
        let ticks = watch::Sender::new(0);
        Self { store, registry, counters, metrics, most_labels, known: Mutex::new(known), ticks }
    }

    /// Takes a step at every interval until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        // Offset by a quarter of a step, so that a step falls between two writes of the counts. The writes begin with
        // the process and by default happen every second.
        let mut ticks = interval_at(Instant::now() + Self::STEP / 4, Self::STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let steps = async {
            loop {
                let begun = ticks.tick().await;
                self.step(begun + Self::STEP).await;
                self.ticks.send_modify(|count| *count += 1);
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(steps).await;
    }

    /// Totals that are not read by `deadline` count as unanswered.
    async fn step(&self, deadline: Instant) {
        let records = self.registry.all();
        let turn = self.known.lock().turn;
        let chosen = records.iter().cycle().skip(turn).take(READ_PER_STEP.min(records.len()));
        let chosen: Vec<Namespace> = chosen.map(|record| record.namespace.clone()).collect();
        let mut read: HashMap<Namespace, Option<Reading>> =
            chosen.iter().map(|namespace| (namespace.clone(), None)).collect();
        let readings = futures_util::stream::iter(chosen).map(|namespace| async move {
            let totals = self.store.booked_totals(&namespace).await.ok();
            let part = if totals.is_some() { None } else { self.part(&namespace).await };
            (namespace, totals.map(|totals| (Moment::now(), totals)), part)
        });
        let mut readings = std::pin::pin!(readings.buffer_unordered(READ_AT_ONCE).take_until(sleep_until(deadline)));
        let mut parts = Vec::new();
        while let Some((namespace, reading, part)) = readings.next().await {
            parts.extend(part.map(|totals| (namespace.clone(), totals)));
            read.insert(namespace, reading);
        }

        // Read the registry again: a namespace that was created in the meantime may already have traffic.
        let (records, found) = (self.registry.all(), self.counters.hot_keys.take());
        let now = Moment::now();
        let mut known = self.known.lock();
        known.turn = (turn + read.len()) % records.len().max(1);
        known.keep(&records, self.most_labels, now);
        for (namespace, totals) in parts {
            if let Some(track) = known.tracks.get_mut(namespace.as_str()) {
                track.take_part(totals);
            }
        }
        let traffic = self.counters.take_traffic(|name| known.tracks.contains_key(name));
        known.step(read, &traffic, &found, &self.metrics.operations.latencies(), now);
    }

    /// The totals on the shards that answer, for a namespace whose totals were never read completely. `None` if they
    /// were read completely before: older complete totals are better than partial ones.
    async fn part(&self, namespace: &Namespace) -> Option<Totals> {
        let is_known = self.known.lock().tracks.get(namespace.as_str()).is_some_and(|track| track.totals().is_some());
        if is_known { None } else { Some(self.store.known_totals(namespace).await.ok()?.totals) }
    }

    /// A summary of every namespace, sorted by name.
    pub fn namespaces(&self) -> Vec<Summary> {
        let known = self.known.lock();
        let mut summaries: Vec<_> = known.tracks.iter().map(|(name, track)| track.summary(name)).collect();
        drop(known);
        summaries.sort_by(|one, other| one.name.cmp(&other.name));
        summaries
    }

    /// The points of a namespace, oldest first; empty if it was not used recently.
    pub fn history(&self, namespace: &str) -> Vec<Point> {
        self.known.lock().tracks.get(namespace).map(Track::points).unwrap_or_default()
    }

    /// The longest time between two points of one namespace: many namespaces are read in turn.
    pub fn interval(&self) -> Duration {
        let turns = self.known.lock().tracks.len().div_ceil(READ_PER_STEP).max(1);
        Self::STEP * u32::try_from(turns).unwrap_or(u32::MAX)
    }

    /// The points of all namespaces together, oldest first.
    pub fn overview(&self) -> Vec<Point> {
        self.known.lock().overview.iter().copied().collect()
    }

    /// The latencies of about the last minute on this instance, for one namespace or for all.
    pub fn latency(&self, namespace: Option<&str>) -> Latency {
        let known = self.known.lock();
        match namespace {
            None => Latency::of(&known.latencies.sum()),
            Some(name) => known.tracks.get(name).map(Track::latency).unwrap_or_default(),
        }
    }

    /// What happened to leases on a namespace on this instance since its start.
    pub fn leases(&self, namespace: &str) -> LeaseCounts {
        self.known.lock().tracks.get(namespace).map(Track::leases).unwrap_or_default()
    }

    /// The recent load of this instance.
    pub fn load(&self) -> Load {
        self.known.lock().load
    }

    /// The keys of a namespace that reads on this instance found most often in the last five to ten minutes, with the
    /// approximate number of reads; the most frequent first.
    pub fn top_keys(&self, namespace: &str, most: usize) -> Vec<(String, u64)> {
        self.known.lock().tracks.get(namespace).map(|track| track.top_keys(most)).unwrap_or_default()
    }

    /// Changes with every step.
    pub fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// The metrics of the namespaces in the Prometheus text format. A limited number of namespaces has its own
    /// metrics (the oldest ones); the others are combined as `other`.
    pub fn render_metrics(&self) -> String {
        let known = self.known.lock();
        let (own, others): (Vec<_>, Vec<_>) = known.tracks.iter().partition(|(_, track)| track.has_label);
        let mut figures: Vec<_> = own.iter().map(|(name, track)| (name.as_str(), track.figures())).collect();
        figures.sort_by_key(|(name, _)| *name);
        if !others.is_empty() || !known.others.is_empty() {
            figures.push(("other", known.figures_of(&others)));
        }
        figures::render(&figures)
    }
}

/// The time of a reading and the totals.
type Reading = (Moment, Totals);

/// The namespaces with their own metrics: the oldest ones. All instances choose the same, so that sums over instances
/// count each namespace once.
fn labelled(records: &[Record], most: usize) -> HashSet<&str> {
    // A namespace with the name `other` must not be confused with the combined rest.
    let mut candidates: Vec<_> = records.iter().filter(|record| record.namespace.as_str() != "other").collect();
    if candidates.len() > most {
        candidates.sort_by_key(|record| (record.created_at.0, record.namespace.as_str()));
    }
    candidates.into_iter().take(most).map(|record| record.namespace.as_str()).collect()
}

impl Known {
    fn new() -> Self {
        Self {
            tracks: HashMap::new(),
            overview: VecDeque::new(),
            latencies: RecentLatencies::default(),
            counted: Latencies::default(),
            load: Load::default(),
            others: Traffic::default(),
            others_news: Increase::default(),
            turn: 0,
            stepped_at: Moment::now(),
        }
    }

    /// Adds new namespaces and removes deleted ones.
    fn keep(&mut self, records: &[Record], most_labels: usize, now: Moment) {
        self.tracks.retain(|name, _| records.binary_search_by(|record| record.namespace.as_str().cmp(name)).is_ok());
        let labelled = labelled(records, most_labels);
        for record in records {
            let name = record.namespace.as_str();
            let (has_label, quota) = (labelled.contains(name), record.policy.quota());
            let track = self.tracks.entry_ref(name).or_insert_with(|| Track::new(has_label, quota, now));
            (track.has_label, track.quota) = (has_label, quota);
        }
    }

    fn step(
        &mut self,
        read: HashMap<Namespace, Option<Reading>>,
        traffic: &HashMap<String, Traffic>,
        found: &[Seen],
        counted: &Latencies,
        now: Moment,
    ) {
        let elapsed = now.since(self.stepped_at);
        self.stepped_at = now;
        let writes = self.add_traffic(traffic, now);
        for (key, reads) in found {
            if let Some(track) = self.tracks.get_mut(key.namespace()) {
                track.found(key.key(), *reads);
            }
        }
        let at = unix_millis();
        let is_complete = read.values().all(Option::is_some);
        for (namespace, reading) in read {
            let Some(track) = self.tracks.get_mut(namespace.as_str()) else { continue };
            let news = track.take_point(reading.map(|(_, totals)| totals), reading.map_or(now, |(at, _)| at), at);
            if !track.has_label {
                self.others_news.add(news);
            }
        }
        self.tracks.values_mut().for_each(|track| track.age(now));
        self.add_overview(at, PerSecond::of(0, 0, writes, elapsed).writes, is_complete);

        let new = counted.since(&self.counted);
        self.counted = counted.clone();
        self.latencies.add(&new, now);
        let recent = Latency::of(&self.latencies.sum());
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        self.load = Load { operations_per_second: new.count() as f64 / seconds, p50: recent.p50, p99: recent.p99 };
        self.forget_idle();
    }

    /// Adds the traffic to its namespaces. Returns the number of writes.
    fn add_traffic(&mut self, traffic: &HashMap<String, Traffic>, now: Moment) -> u64 {
        for (name, traffic) in traffic {
            let Some(track) = self.tracks.get_mut(name) else { continue };
            track.add(traffic, now);
            if !track.has_label {
                self.others.add(traffic);
            }
        }
        traffic.values().map(|traffic| traffic.writes).sum()
    }

    /// Adds a point with the sum over all namespaces, each as last read. With many namespaces not every one is read
    /// in every step.
    fn add_overview(&mut self, at: UnixMillis, writes: f64, is_complete: bool) {
        let totals: Totals = self.tracks.values().filter_map(Track::totals).sum();
        let rates: Vec<PerSecond> = self.tracks.values().filter_map(Track::rates).collect();
        let is_known = is_complete && (!rates.is_empty() || self.tracks.is_empty());
        let sum = rates.into_iter().fold(PerSecond::default(), PerSecond::add);
        let point = PerSecond { writes, ..sum }.point(at, totals.keys, totals.bytes);
        // A shard that did not answer leaves a gap, not a drop to nothing.
        let unknown = Point { reads_per_second: None, hit_rate: None, ..point };
        push(&mut self.overview, if is_known { point } else { unknown });
    }

    /// The combined figures of the namespaces without their own metrics.
    fn figures_of(&self, others: &[(&String, &Track)]) -> Figures<'_> {
        let totals = others.iter().filter_map(|(_, track)| track.totals()).sum();
        Figures {
            traffic: &self.others,
            totals: Some(self.others_news.within(totals)),
            quota_bytes: others.iter().map(|(_, track)| track.quota_bytes()).sum(),
            // A combined quota does not say which namespace refuses writes.
            refuses_at_quota: false,
        }
    }

    /// Drops the histories of the namespaces that were used least recently.
    fn forget_idle(&mut self) {
        let mut used: Vec<(Moment, &mut Track)> = self
            .tracks
            .values_mut()
            .filter(|track| track.has_history())
            .map(|track| (track.used_at, track))
            .collect();
        if used.len() > MAX_HISTORIES {
            used.sort_by_key(|(at, _)| at.as_nanos());
            let surplus = used.len() - MAX_HISTORIES;
            used.into_iter().take(surplus).for_each(|(_, track)| track.forget_history());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Policy, PolicyFields};

    #[test]
    fn regression_all_instances_choose_the_same_namespaces_for_metrics_of_their_own() {
        // Each instance chose the namespaces that it had known first. After deletions it had chosen others than an
        // instance that started later, and sums over instances counted one namespace twice and another never.
        let policy = Policy::parse(&PolicyFields::default()).unwrap();
        let record = |name: &str, created_at| {
            let (namespace, at) = (Namespace::parse(name).unwrap(), UnixMillis(created_at));
            Record { namespace, policy, created_at: at, updated_at: at }
        };
        let chosen = |known: &mut Known, records: &[Record]| {
            known.keep(records, 2, Moment::now());
            let mut names: Vec<String> =
                known.tracks.iter().filter(|(_, track)| track.has_label).map(|(name, _)| name.clone()).collect();
            names.sort();
            names
        };
        let mut old = Known::new();
        let all = [record("a", 4), record("b", 3), record("c", 2), record("d", 1), record("other", 0)];
        assert_eq!(chosen(&mut old, &all), ["c", "d"]);
        let rest = [record("a", 4), record("b", 3), record("d", 1), record("e", 5)];
        assert_eq!(chosen(&mut old, &rest), ["b", "d"]);
        assert_eq!(chosen(&mut Known::new(), &rest), ["b", "d"]);
        assert_eq!(chosen(&mut old, &all[..2]), ["a", "b"]);
    }
}
