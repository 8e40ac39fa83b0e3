//! The histories of all keys of a run, shared by many threads, and the summary of the results.
//!
//! Each read is judged when it arrives, against what is recorded by then, so a run can be as long as needed.
//! [`super::history`] explains why this never gives a false violation.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::history::{At, Change, Found, History, Loss, Lost, Outcome, Read, Rules, Violation};

/// How many violations of one kind during one fault are described in full.
const DESCRIBED: u64 = 2;

pub struct Checker {
    began: Instant,
    bound: Duration,
    keys: Vec<Key>,
    situation: RwLock<Situation>,
    tally: Tally,
    described: Mutex<Vec<String>>,
    /// Counts by kind and by the latest fault before the violation.
    violations: Mutex<BTreeMap<(Violation, String), u64>>,
    faults: Mutex<Vec<String>>,
}

struct Key {
    name: String,
    shard: OnceLock<String>,
    history: Mutex<History>,
}

#[derive(Default)]
struct Situation {
    losses: BTreeMap<String, Vec<Loss>>,
    healthy_since: Option<At>,
}

#[derive(Default)]
struct Tally {
    reads: AtomicU64,
    unanswered: AtomicU64,
    behind: AtomicU64,
    longest_behind_micros: AtomicU64,
    of_unknown_outcome: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
}

/// Also takes a poisoned lock: the thread that failed reports its own failure.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checker {
    /// A run with these keys. It begins now.
    pub fn new(bound: Duration, keys: impl IntoIterator<Item = String>) -> Checker {
        let key = |name| Key { name, shard: OnceLock::new(), history: Mutex::default() };
        Checker {
            began: Instant::now(),
            bound,
            keys: keys.into_iter().map(key).collect(),
            situation: RwLock::default(),
            tally: Tally::default(),
            described: Mutex::default(),
            violations: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// The only clock of the run.
    pub fn now(&self) -> At {
        self.began.elapsed()
    }

    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    pub fn name(&self, key: usize) -> &str {
        &self.keys[key].name
    }

    /// Records which shard owns a key.
    pub fn place(&self, key: usize, shard: &str) {
        let known = self.keys[key].shard.get_or_init(|| shard.to_owned());
        assert_eq!(known, shard, "a key stays on its shard");
    }

    /// Records a write that is about to be sent, and returns its number.
    pub fn begin_write(&self, key: usize, change: Change) -> u64 {
        let mut history = locked(&self.keys[key].history);
        history.begin(change, self.now())
    }

    /// Records how a write ended. `found_nothing`: the answer said that the key did not exist before this write.
    pub fn end_write(&self, key: usize, number: u64, outcome: Outcome, found_nothing: bool) {
        match outcome {
            Outcome::Acknowledged(_) => &self.tally.acknowledged,
            Outcome::Refused => &self.tally.refused,
            Outcome::Unknown | Outcome::UnderWay => &self.tally.unknown,
        }
        .fetch_add(1, Relaxed);
        let mut history = locked(&self.keys[key].history);
        history.end(number, outcome);
        let (Outcome::Acknowledged(end), true) = (outcome, found_nothing) else { return };
        let start = history.write(number).expect("the write was begun").start;
        // A write reports the state that its shard had, so it also counts as a read.
        let read = Read { instance: 0, found: Found::Nothing, start, end, no_cache: true };
        let verdict = self.with_rules(key, |rules| history.judge_absence_before(number, &read, rules));
        if let Some(violation) = verdict.violation {
            self.note(violation, key, &history, &read, &format!("said by the write {number} itself"));
        }
    }

    /// Judges an answered read. `said` is what else the answer says, for the description of a violation.
    pub fn read(&self, key: usize, read: &Read, said: &str) {
        self.tally.reads.fetch_add(1, Relaxed);
        let mut history = locked(&self.keys[key].history);
        let verdict = self.with_rules(key, |rules| {
            let bound = stated(said).map_or(rules.bound, |stated| stated.min(rules.bound));
            history.judge(read, &Rules { bound, ..*rules })
        });
        if let Some(violation) = verdict.violation {
            let known = verdict.known.map_or(String::new(), |known| format!("; had answered {known} before"));
            self.note(violation, key, &history, read, &format!("{said}{known}"));
        }
        drop(history);
        if let (Some(behind), None) = (verdict.behind, verdict.violation) {
            self.tally.behind.fetch_add(1, Relaxed);
            self.tally.longest_behind_micros.fetch_max(behind.as_micros() as u64, Relaxed);
        }
        if verdict.of_unknown_outcome {
            self.tally.of_unknown_outcome.fetch_add(1, Relaxed);
        }
    }

    /// Counts a read that got an error or no answer.
    pub fn unanswered(&self) {
        self.tally.unanswered.fetch_add(1, Relaxed);
    }

    /// Reports an answer that the contract does not allow.
    pub fn unexpected(&self, answer: &str) {
        self.count(Violation::Unexpected, || format!("an unexpected answer at {:.3?}: {answer}", self.now()));
    }

    fn with_rules<T>(&self, key: usize, judge: impl FnOnce(&Rules<'_>) -> T) -> T {
        let situation = self.situation.read().unwrap_or_else(PoisonError::into_inner);
        let losses = self.keys[key].shard.get().and_then(|shard| situation.losses.get(shard));
        let losses = losses.map_or(&[][..], Vec::as_slice);
        judge(&Rules { bound: self.bound, losses, healthy_since: situation.healthy_since })
    }

    fn change(&self, change: impl FnOnce(&mut Situation)) {
        change(&mut self.situation.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Records that there is no fault from now on.
    pub fn is_healthy(&self) {
        let now = self.now();
        self.change(|situation| situation.healthy_since = Some(now));
    }

    /// Records that a fault is about to begin.
    pub fn fault(&self, name: &str) {
        self.change(|situation| situation.healthy_since = None);
        eprintln!("{:9.3} s  {name}", self.now().as_secs_f64());
        locked(&self.faults).push(name.to_owned());
    }

    /// Prints a remark about the current fault.
    pub fn remark(&self, text: &str) {
        eprintln!("{:9.3} s      {text}", self.now().as_secs_f64());
    }

    /// Records that a shard is about to lose data. The loss also covers the time `since` before now.
    pub fn begin_loss(&self, shard: &str, what: Lost, since: Duration) {
        let from = self.now().saturating_sub(since);
        let loss = Loss { from, until: None, what };
        self.change(|situation| situation.losses.entry(shard.to_owned()).or_default().push(loss));
    }

    /// Records that the shard stops losing data.
    pub fn end_loss(&self, shard: &str) {
        let now = self.now();
        self.change(|situation| {
            let losses = situation.losses.get_mut(shard).expect("begin_loss was called");
            losses.last_mut().expect("begin_loss was called").until = Some(now);
        });
    }

    pub fn reads(&self) -> u64 {
        self.tally.reads.load(Relaxed)
    }

    /// The number of writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.tally.acknowledged.load(Relaxed)
    }

    pub fn violations(&self) -> u64 {
        locked(&self.violations).values().sum()
    }

    /// The number of violations of this kind.
    pub fn violations_of(&self, kind: Violation) -> u64 {
        locked(&self.violations).iter().filter(|((other, _), _)| *other == kind).map(|(_, times)| times).sum()
    }

    fn count(&self, violation: Violation, describe: impl FnOnce() -> String) {
        let fault = locked(&self.faults).last().cloned().unwrap_or_else(|| "no fault".to_owned());
        let mut violations = locked(&self.violations);
        let times = violations.entry((violation, fault)).or_default();
        *times += 1;
        if *times <= DESCRIBED {
            locked(&self.described).push(describe());
        }
    }

    fn note(&self, violation: Violation, key: usize, history: &History, read: &Read, said: &str) {
        self.count(violation, || {
            let Key { name, shard, .. } = &self.keys[key];
            let shard = shard.get().map_or("?", String::as_str);
            let mut text = format!(
                "{violation:?}: {name} on shard {shard}: instance {} answered {:?}, asked at {:.3?}{}, answered at \
                 {:.3?}; {said}; the writes around it:",
                read.instance,
                read.found,
                read.start,
                if read.no_cache { " with no-cache" } else { "" },
                read.end,
            );
            let found = match read.found {
                Found::Value(number) if number <= history.newest() => number,
                _ => history.newest(),
            };
            let around = (found.saturating_sub(3).max(1)..=found + 2)
                .chain(history.newest().saturating_sub(2).max(found + 3)..=history.newest());
            for number in around {
                if let Some(write) = history.write(number) {
                    let _ = write!(
                        text,
                        "\n    {number}: {:?} at {:.3?}, {:.3?}",
                        write.change, write.start, write.outcome
                    );
                }
            }
            text
        });
    }
}

/// The bound that an answer of L1 states for itself in `Cache-Status`. It is at most the one of the settings.
fn stated(said: &str) -> Option<Duration> {
    let (_, rest) = said.split_once("; max-staleness-ms=")?;
    rest.split(';').next()?.parse().ok().map(Duration::from_millis)
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            reads,
            unanswered,
            behind,
            longest_behind_micros,
            of_unknown_outcome,
            acknowledged,
            refused,
            unknown,
        } = &self.tally;
        let [reads, unanswered, behind, longest, of_unknown, acknowledged, refused, unknown] =
            [reads, unanswered, behind, longest_behind_micros, of_unknown_outcome, acknowledged, refused, unknown]
                .map(|count| count.load(Relaxed));
        let seconds = self.now().as_secs_f64();
        writeln!(f, "reads checked       {reads} in {seconds:.1} s ({:.0} a second)", reads as f64 / seconds)?;
        writeln!(f, "reads unanswered    {unanswered}")?;
        let writes = acknowledged + refused + unknown;
        writeln!(
            f,
            "writes              {writes}: {acknowledged} acknowledged, {refused} refused, {unknown} of unknown outcome"
        )?;
        let faults = locked(&self.faults);
        writeln!(f, "faults injected     {}", faults.len())?;
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for fault in faults.iter() {
            *kinds.entry(fault).or_default() += 1;
        }
        for (fault, times) in kinds {
            writeln!(f, "    {times} x {fault}")?;
        }
        writeln!(f, "reads of a replaced value, within the bound  {behind}")?;
        writeln!(f, "reads of a write of unknown outcome          {of_unknown}")?;
        writeln!(f, "longest observed staleness                   {:.1} ms", longest as f64 / 1_000.0)?;
        writeln!(f, "violations          {}", self.violations())?;
        for ((violation, fault), times) in locked(&self.violations).iter() {
            writeln!(f, "    {times} x {violation:?}, in or after: {fault}")?;
        }
        for description in locked(&self.described).iter() {
            writeln!(f, "  {description}")?;
        }
        Ok(())
    }
}
