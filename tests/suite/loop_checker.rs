//! The loop is safe: programs read a key, load it from its source on a miss and store it, while other programs change
//! the source and then delete or set the key, and while servers and instances fail. With leases no old value survives;
//! without them some do, which proves that the checker notices them.
//!
//! The source is a version for each key, which only grows. A change takes the next version, and is acknowledged when
//! the service acknowledges the delete or the set after it. So a change is a write in the sense of
//! `support/history.rs`, and the rule is the same: a read that starts more than the bound after the acknowledgement
//! returns this version or a newer one. A miss is always correct, and a fill adds no version.
//!
//! A set of unknown outcome may still take effect after everything else, so its writer takes the next version
//! afterwards. A delete of unknown outcome can only cause a miss, so its writer repeats it with the same version.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::staleness::{BOUND, Faults, INSTANCES, Schedule, under_faults_of_servers, under_faults_of_the_store};
use crate::support::checker::Checker;
use crate::support::client::key_path;
use crate::support::history::{At, Change, Outcome, Violation};
use crate::support::line::{self, Line, Received};
use crate::support::load::{
    Load, Misses, Plan, READER_PATIENCE, WHOLE_MACHINE, WRITER_PATIENCE, is_foreign, outcome, shown,
};
use crate::support::random::Random;

/// Enough keys that most reads are hits, although changed keys have long misses.
const PLAN: Plan =
    Plan { bound: BOUND, readers_an_instance: 4, writers: 6, hot: 1, rare: 15, misses: Misses::Expected };

/// What a read asks for.
const PREFER: &str = "prefer: lease=3, wait=1\r\n";

/// How long loading a value takes in ms: usually, and once in [`SLOW`] loads.
const LOAD_MS: Range<usize> = 0..10;
const SLOW_LOAD_MS: Range<usize> = 10..300;
const SLOW: usize = 20;

/// One lease in this many is given up, and one fill in this many is sent twice.
const GIVEN_UP: usize = 16;
const SENT_TWICE: usize = 8;

/// One change in this many is a set. The others are deletes.
const SETS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leases {
    Used,
    /// Every reader that misses a key stores it.
    Unused,
}

/// The clients of a run, and the source of the values.
struct Loop<'l> {
    load: &'l Load,
    leases: Leases,
    /// The current version of each key.
    source: Vec<AtomicU64>,
    /// By key: its path, and the request of a read.
    paths: Vec<String>,
    reads: Vec<Vec<u8>>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    hits: AtomicU64,
    won: AtomicU64,
    held: AtomicU64,
    not_given: AtomicU64,
    given_up: AtomicU64,
    filled: AtomicU64,
    lost: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
    changed: AtomicU64,
    tried_again: AtomicU64,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn count(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Every fault if `CHAOS=long`.
fn schedule(is_enough: fn(&Checker) -> bool) -> Schedule {
    let faults = if std::env::var_os("CHAOS").is_some() { Faults::All } else { Faults::Few };
    Schedule { faults, is_enough }
}

/// Runs the clients with leases, and prints what they did. Fails if a value survived a change.
fn must_be_safe(load: &Load, inject: &mut dyn FnMut()) {
    let clients = Loop::new(load, Leases::Used);
    clients.run(inject);
    eprintln!("{}{}", load.checker, clients.tally);
    assert_eq!(load.checker.violations(), 0, "violations, listed above");
    let Tally { won, filled, lost, .. } = &clients.tally;
    for (what, times) in [("won", won), ("filled", filled), ("lost", lost)] {
        assert!(count(times) > 0, "the run proves little, since no lease was {what}");
    }
}

#[test]
fn with_leases_no_old_value_survives_whatever_fails() {
    let _alone = WHOLE_MACHINE.blocking_lock();
    under_faults_of_servers(PLAN, schedule(|_| false), must_be_safe);
}

#[test]
fn with_leases_no_old_value_survives_whatever_happens_to_the_store() {
    let _alone = WHOLE_MACHINE.blocking_lock();
    under_faults_of_the_store(PLAN, schedule(|_| false), must_be_safe);
}

#[test]
fn without_leases_old_values_survive() {
    let _alone = WHOLE_MACHINE.blocking_lock();
    under_faults_of_servers(PLAN, schedule(|checker| checker.violations_of(Violation::Stale) > 0), |load, inject| {
        let clients = Loop::new(load, Leases::Unused);
        clients.run(inject);
        eprintln!("without leases:\n{}{}", load.checker, clients.tally);
        assert!(load.checker.violations_of(Violation::Stale) > 0, "no old value was noticed");
    });
}

impl<'l> Loop<'l> {
    fn new(load: &'l Load, leases: Leases) -> Self {
        let keys = 0..load.checker.keys();
        let paths: Vec<String> = keys.clone().map(|key| key_path(load.namespace(), load.checker.name(key))).collect();
        let headers = if leases == Leases::Used { PREFER } else { "" };
        let reads = paths.iter().map(|path| line::request("GET", path, headers, "")).collect();
        // The load writes the first version itself.
        let source = keys.map(|_| AtomicU64::new(1)).collect();
        Self { load, leases, source, paths, reads, tally: Tally::default() }
    }

    fn run(&self, inject: &mut dyn FnMut()) {
        self.load.run_clients(&|instance| self.read_on(instance), &|keys| self.write_on(keys), inject);
    }

    fn checker(&self) -> &Checker {
        &self.load.checker
    }

    fn read_on(&self, instance: usize) {
        let mut random = Random::new();
        let mut line: Option<Line> = None;
        while !self.load.is_over() {
            let Some(open) = self.load.connected(&mut line, instance, READER_PATIENCE) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let key = random.below(self.source.len());
            match self.read_through(open, instance, key, &mut random) {
                Ok(true) => {}
                // A failure usually lasts longer than a moment.
                Ok(false) => thread::sleep(Duration::from_millis(2)),
                Err(_) => {
                    self.checker().unanswered();
                    line = None;
                }
            }
        }
    }

    /// Reads a key, and on a miss loads and stores it. Returns whether the service answered as in good health.
    fn read_through(&self, line: &mut Line, instance: usize, key: usize, random: &mut Random) -> io::Result<bool> {
        let start = self.checker().now();
        line.send(&self.reads[key])?;
        let answer = line.receive()?;
        self.load.judge(key, instance, start, false, answer);
        match answer.status {
            200 => {
                add(&self.tally.hits);
                return Ok(true);
            }
            404 => {}
            _ => return Ok(false),
        }
        if self.leases == Leases::Unused {
            return self.fill(line, key, None, random);
        }
        let Some(lease) = answer.header("cache-lease") else {
            add(&self.tally.not_given);
            return Ok(false);
        };
        let Some(token) = lease.strip_prefix("won;token=\"").and_then(|rest| rest.split('"').next()) else {
            if !lease.starts_with("held;ttl=") {
                self.checker().unexpected(&format!("Cache-Lease: {lease}"));
            }
            // Such a program loads the value, but does not store it.
            add(&self.tally.held);
            return Ok(true);
        };
        let token = token.to_owned();
        add(&self.tally.won);
        self.fill(line, key, Some(token.as_str()), random)
    }

    /// Loads the value and stores it.
    fn fill(&self, line: &mut Line, key: usize, token: Option<&str>, random: &mut Random) -> io::Result<bool> {
        let version = self.source[key].load(Ordering::SeqCst);
        let millis = if random.one_in(SLOW) { SLOW_LOAD_MS } else { LOAD_MS };
        thread::sleep(Duration::from_millis(random.between(millis.start, millis.end) as u64));
        let header = token.map_or_else(String::new, |token| format!("cache-lease: {token}\r\n"));
        if token.is_some() && random.one_in(GIVEN_UP) {
            add(&self.tally.given_up);
            let request = line::request("DELETE", &format!("{}/lease", self.paths[key]), &header, "");
            return self.stored(line, &request);
        }
        let request = self.put(key, version, &header);
        if !self.stored(line, &request)? {
            return Ok(false);
        }
        add(&self.tally.filled);
        if token.is_some() && random.one_in(SENT_TWICE) {
            // As a proxy does that got no answer.
            add(&self.tally.repeated);
            return self.stored(line, &request);
        }
        Ok(true)
    }

    /// Sends a request that needs the lease. Returns whether it was carried out.
    fn stored(&self, line: &mut Line, request: &[u8]) -> io::Result<bool> {
        let answer = line.send(request).and_then(|()| line.receive());
        let answer = answer.inspect_err(|_| add(&self.tally.failed))?;
        match answer.status {
            200 | 201 => return Ok(true),
            412 if self.leases == Leases::Used && says(answer, "lease_lost") => add(&self.tally.lost),
            503 => add(&self.tally.failed),
            409 if is_foreign(answer) => add(&self.tally.failed),
            _ => self.checker().unexpected(&shown(answer)),
        }
        Ok(false)
    }

    fn put(&self, key: usize, version: u64, headers: &str) -> Vec<u8> {
        let value = format!("{} {version}", self.checker().name(key));
        line::request("PUT", &self.paths[key], headers, &json!({ "value": value }).to_string())
    }

    fn write_on(&self, keys: Range<usize>) {
        let mut lines: Vec<Option<Line>> = (0..INSTANCES).map(|_| None).collect();
        // By key: the version whose change is not acknowledged yet.
        let mut under_way: Vec<Option<u64>> = vec![None; keys.len()];
        let first = keys.start;
        self.load.whenever_due(keys, |key, random| {
            let version = under_way[key - first].take().unwrap_or_else(|| self.change_source(key));
            under_way[key - first] = self.tell_change(key, version, &mut lines, random);
            under_way[key - first].is_none()
        });
    }

    /// Gives the source of a key a new version. The version is also the number of the write in the history.
    fn change_source(&self, key: usize) -> u64 {
        let version = self.checker().begin_write(key, Change::Set);
        self.source[key].store(version, Ordering::SeqCst);
        version
    }

    /// Deletes or sets a key whose source has changed. Returns the version to try again with; `None` if the service
    /// has acknowledged the change.
    fn tell_change(&self, key: usize, version: u64, lines: &mut [Option<Line>], random: &mut Random) -> Option<u64> {
        let instance = self.load.writable(random);
        let line = &mut lines[instance];
        let Some(open) = self.load.connected(line, instance, WRITER_PATIENCE) else {
            add(&self.tally.tried_again);
            return Some(version);
        };
        let is_set = random.one_in(SETS);
        let request = match is_set {
            true => self.put(key, version, ""),
            false => line::request("DELETE", &self.paths[key], "", ""),
        };
        let answer = open.send(&request).and_then(|()| open.receive());
        let outcome = match answer {
            Ok(answer) => self.outcome(answer, is_set, self.checker().now()),
            Err(_) => {
                *line = None;
                Outcome::Unknown
            }
        };
        match outcome {
            Outcome::Acknowledged(_) => {
                add(&self.tally.changed);
                self.checker().end_write(key, version, outcome, false);
                return None;
            }
            Outcome::Unknown if is_set => {
                self.checker().end_write(key, version, outcome, false);
                add(&self.tally.tried_again);
                return Some(self.change_source(key));
            }
            Outcome::Unknown | Outcome::Refused | Outcome::UnderWay => {}
        }
        add(&self.tally.tried_again);
        Some(version)
    }

    /// What the answer to a change, received at `end`, says about its outcome.
    fn outcome(&self, answer: Received<'_>, is_set: bool, end: At) -> Outcome {
        match answer.status {
            200 | 201 => Outcome::Acknowledged(end),
            404 if !is_set => Outcome::Acknowledged(end),
            503 => {
                let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
                outcome(&body["code"])
            }
            409 if is_foreign(answer) => Outcome::Refused,
            _ => {
                self.checker().unexpected(&shown(answer));
                Outcome::Unknown
            }
        }
    }
}

/// Whether the body contains this error code.
fn says(answer: Received<'_>, code: &str) -> bool {
    String::from_utf8_lossy(answer.body).contains(&format!("\"{code}\""))
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { hits, won, held, not_given, given_up, filled, lost, repeated, failed, changed, tried_again } =
            self;
        let [hits, won, held, not_given, given_up, filled, lost, repeated, failed, changed, tried_again] =
            [hits, won, held, not_given, given_up, filled, lost, repeated, failed, changed, tried_again].map(count);
        writeln!(f, "hits                {hits}")?;
        writeln!(f, "leases              {won} won, {held} held by others, {not_given} misses without")?;
        writeln!(f, "fills               {filled} stored, {lost} lost, {failed} failed, {repeated} sent twice")?;
        writeln!(f, "leases given up     {given_up}")?;
        writeln!(f, "changes             {changed} acknowledged, {tried_again} attempts failed")
    }
}
