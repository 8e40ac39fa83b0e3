//! Clients that write increasing values and read them through all instances, all the time, whatever happens to the
//! servers. They report every call to a checker.
//!
//! A key has one writer. Hot keys are written many times a second. A rare key is written twice in quick succession,
//! so that the second write may invalidate a copy while a read fills L1 with the first value. Then the key is left
//! alone for longer than the bound. Otherwise the next write would replace an invalid copy before a read could notice
//! that it is stale.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::checker::Checker;
use super::client::{cache_path, key_path, namespace};
use super::history::{At, Change, Found, Outcome, Read};
use super::line::{self, Line, Received};
use super::random::Random;

/// Held by each test that loads the whole machine, so that two of them never run at the same time.
pub static WHOLE_MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How many clients there are, and what they do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub bound: Duration,
    pub readers_an_instance: usize,
    pub writers: usize,
    /// Keys of each writer.
    pub hot: usize,
    pub rare: usize,
    pub misses: Misses,
}

/// What a miss means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misses {
    /// The checker decides whether a miss is correct.
    Judged,
    /// A miss is always correct, because the clients delete keys without telling the checker.
    Expected,
}

/// The pauses in ms after a write of a hot key, between the two writes of a pair, and between two pairs.
const HOT_PAUSE: Range<usize> = 20..80;
const PAIR_PAUSE: Range<usize> = 2..20;
const RARE_PAUSE: Range<usize> = 1_300..3_500;

/// The pause before a writer tries again.
const AGAIN: Duration = Duration::from_millis(10);

/// One key in this many is also read with `no-cache`. Not every key: such a read refreshes the L1 of its instance, so
/// a copy that should be invalid would soon be gone.
const WITHOUT_CACHES: usize = 4;

/// The timeouts of readers and writers.
pub const READER_PATIENCE: Duration = Duration::from_secs(3);
pub const WRITER_PATIENCE: Duration = Duration::from_secs(1);

pub struct Load {
    pub checker: Checker,
    plan: Plan,
    namespace: String,
    instances: Vec<Instance>,
    /// By key: the request of a read, and of a read with `no-cache`.
    requests: Vec<[Vec<u8>; 2]>,
    is_over: AtomicBool,
}

struct Instance {
    address: Mutex<SocketAddr>,
    /// While this is set, writers use other instances.
    is_avoided: AtomicBool,
}

/// Reads that were sent but not answered yet, each on its own connection.
pub struct Sent {
    instance: usize,
    reads: Vec<(Line, usize, At)>,
}

impl Load {
    pub fn new(plan: Plan, instances: &[SocketAddr]) -> Load {
        let namespace = namespace("load");
        let keys: Vec<String> = (0..plan.writers * (plan.hot + plan.rare)).map(|key| format!("k{key}")).collect();
        let requests = keys.iter().map(|key| {
            let path = key_path(&namespace, key);
            ["", "cache-control: no-cache\r\n"].map(|headers| line::request("GET", &path, headers, ""))
        });
        let requests = requests.collect();
        let instance =
            |address: &SocketAddr| Instance { address: Mutex::new(*address), is_avoided: AtomicBool::new(false) };
        Load {
            checker: Checker::new(plan.bound, keys),
            plan,
            namespace,
            instances: instances.iter().map(instance).collect(),
            requests,
            is_over: AtomicBool::new(false),
        }
    }

    /// Writes every key once, learns which shard owns it, and then runs the clients until `during` returns.
    pub fn run<T>(&self, during: impl FnOnce() -> T) -> T {
        self.run_clients(&|instance| self.read_on(instance), &|keys| self.write_on(keys), during)
    }

    /// Like [`Load::run`], with other clients: `read` reads through one instance, and `write` writes these keys, both
    /// until the load is over.
    pub fn run_clients<T>(
        &self,
        read: &(dyn Fn(usize) + Sync),
        write: &(dyn Fn(Range<usize>) + Sync),
        during: impl FnOnce() -> T,
    ) -> T {
        self.prepare();
        thread::scope(|scope| {
            // Also ends the clients when `during` panics, since the scope waits for its threads.
            let _over = Over(&self.is_over);
            for instance in 0..self.instances.len() {
                for _ in 0..self.plan.readers_an_instance {
                    scope.spawn(move || read(instance));
                }
            }
            let own = self.plan.hot + self.plan.rare;
            for writer in 0..self.plan.writers {
                scope.spawn(move || write(writer * own..(writer + 1) * own));
            }
            during()
        })
    }

    /// Tells the load that an instance has a new address.
    pub fn moved(&self, instance: usize, address: SocketAddr) {
        *self.instances[instance].address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Whether writers avoid an instance, for example while it is paused and they would only wait for it.
    pub fn avoid(&self, instance: usize, is_avoided: bool) {
        self.instances[instance].is_avoided.store(is_avoided, Ordering::SeqCst);
    }

    /// The namespace of all keys.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn address(&self, instance: usize) -> SocketAddr {
        *self.instances[instance].address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens connections to an instance. Each has already received an answer.
    pub fn connections(&self, instance: usize, count: usize) -> Vec<Line> {
        let open = |key: usize| {
            let mut line = Line::open(self.address(instance));
            line.send(&self.requests[key % self.requests.len()][0]).expect("the instance takes requests");
            line.receive().expect("the instance answers");
            line
        };
        (0..count).map(open).collect()
    }

    /// Sends a read over each connection, without waiting for the answers.
    pub fn send(&self, instance: usize, lines: Vec<Line>) -> Sent {
        let mut random = Random::new();
        let reads = lines.into_iter().map(|mut line| {
            let key = random.below(self.requests.len());
            let start = self.checker.now();
            line.send(&self.requests[key][0]).expect("the kernel takes requests");
            (line, key, start)
        });
        Sent { instance, reads: reads.collect() }
    }

    /// Receives the answers and judges them.
    pub fn receive(&self, sent: Sent) {
        for (mut line, key, start) in sent.reads {
            match line.receive() {
                Ok(answer) => self.judge(key, sent.instance, start, false, answer),
                Err(_) => self.checker.unanswered(),
            }
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn prepare(&self) {
        let mut lines: Vec<Option<Line>> = self.instances.iter().map(|_| None).collect();
        for key in 0..self.checker.keys() {
            self.write(&[key], Change::Set, 0, &mut lines);
            let mut line = Line::open(self.address(0));
            line.send(&self.requests[key][1]).expect("the instance takes requests");
            let answer = line.receive().expect("the instance answers");
            let said = answer.header("cache-status").expect("an answer has a Cache-Status");
            let (_, behind) = said.split_once("; detail=").unwrap_or_else(|| panic!("no shard in {said:?}"));
            let end = behind.find([',', ';']).unwrap_or(behind.len());
            self.checker.place(key, &behind[..end]);
        }
    }

    fn read_on(&self, instance: usize) {
        let mut random = Random::new();
        let mut line: Option<Line> = None;
        while !self.is_over() {
            let Some(open) = self.connected(&mut line, instance, READER_PATIENCE) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let key = random.below(self.requests.len());
            let answered = match random.below(48) {
                0 | 1 => self.read_many(open, instance, &mut random),
                2 | 3 => self.read_one(open, instance, key - key % WITHOUT_CACHES, true),
                _ => self.read_one(open, instance, key, false),
            };
            match answered {
                Ok(true) => {}
                // A failure usually lasts longer than a moment.
                Ok(false) => thread::sleep(Duration::from_millis(2)),
                Err(_) => {
                    self.checker.unanswered();
                    line = None;
                }
            }
        }
    }

    /// The connection to an instance, opened if there is none; `None` if that fails.
    pub fn connected<'l>(
        &self,
        line: &'l mut Option<Line>,
        instance: usize,
        patience: Duration,
    ) -> Option<&'l mut Line> {
        if line.is_none() {
            *line = Line::try_open(self.address(instance), patience).ok();
        }
        line.as_mut()
    }

    /// Reads one key. Returns whether the answer was other than 503.
    fn read_one(&self, line: &mut Line, instance: usize, key: usize, no_cache: bool) -> io::Result<bool> {
        let start = self.checker.now();
        line.send(&self.requests[key][usize::from(no_cache)])?;
        let answer = line.receive()?;
        self.judge(key, instance, start, no_cache, answer);
        Ok(answer.status != 503)
    }

    /// Judges the answer to a read that was sent at `start`.
    pub fn judge(&self, key: usize, instance: usize, start: At, no_cache: bool, answer: Received<'_>) {
        let end = self.checker.now();
        let found = match answer.status {
            200 => Found::Value(self.number(key, value_text(answer.body))),
            404 if self.plan.misses == Misses::Expected => return,
            404 => Found::Nothing,
            503 => return self.checker.unanswered(),
            409 if is_foreign(answer) => return self.checker.unanswered(),
            _ => return self.checker.unexpected(&shown(answer)),
        };
        let said = answer.header("cache-status").unwrap_or("without a Cache-Status");
        self.checker.read(key, &Read { instance, found, start, end, no_cache }, said);
    }

    /// The number of the write that stored this value. For any other value, a number that no write has.
    fn number(&self, key: usize, value: Option<&str>) -> u64 {
        let number =
            value.and_then(|value| value.strip_prefix(self.checker.name(key))?.strip_prefix(' ')?.parse().ok());
        number.unwrap_or(u64::MAX)
    }

    fn read_many(&self, line: &mut Line, instance: usize, random: &mut Random) -> io::Result<bool> {
        let mut keys: Vec<usize> = (0..8).map(|_| random.below(self.requests.len())).collect();
        keys.sort_unstable();
        keys.dedup();
        let names: Vec<&str> = keys.iter().map(|key| self.checker.name(*key)).collect();
        let path = format!("{}/mget", cache_path(&self.namespace));
        let request = line::request("POST", &path, "", &json!({ "keys": names }).to_string());
        let start = self.checker.now();
        line.send(&request)?;
        let answer = line.receive()?;
        let end = self.checker.now();
        let results = match answer.status {
            200 => serde_json::from_slice::<Value>(answer.body)?,
            503 => {
                self.checker.unanswered();
                return Ok(false);
            }
            _ => {
                self.checker.unexpected(&shown(answer));
                return Ok(false);
            }
        };
        for key in keys {
            let result = &results["results"][self.checker.name(key)];
            let found = match (&result["found"], result.get("error")) {
                (Value::Bool(true), None) => Found::Value(self.number(key, result["value"].as_str())),
                (Value::Bool(false), None) => Found::Nothing,
                _ => {
                    self.checker.unanswered();
                    continue;
                }
            };
            self.checker.read(key, &Read { instance, found, start, end, no_cache: false }, "in an mget");
        }
        Ok(true)
    }

    fn write_on(&self, keys: Range<usize>) {
        let mut lines: Vec<Option<Line>> = self.instances.iter().map(|_| None).collect();
        let hot: Vec<usize> = keys.clone().take(self.plan.hot).collect();
        self.whenever_due(keys, |key, random| {
            let instance = self.writable(random);
            let (change, batch) = match random.below(10) {
                0 => (Change::Delete, vec![key]),
                // Only hot keys are written together, since rare ones have their own schedule.
                1 if hot.contains(&key) => (Change::Set, hot.iter().copied().take(3).collect()),
                _ => (Change::Set, vec![key]),
            };
            self.write(&batch, change, instance, &mut lines);
            true
        });
    }

    /// Calls `write` with each of a writer's keys whenever it is due, until the load is over. `write` returns whether
    /// the key is written; if not, it is due again soon.
    pub fn whenever_due(&self, keys: Range<usize>, mut write: impl FnMut(usize, &mut Random) -> bool) {
        let mut random = Random::new();
        let millis = |random: &mut Random, pause: Range<usize>| {
            Duration::from_millis(random.between(pause.start, pause.end) as u64)
        };
        // When each key is due, and whether the first write of its pair is done.
        let now = self.checker.now();
        let mut due: Vec<(At, bool)> = keys.clone().map(|_| (now + millis(&mut random, 0..1_000), false)).collect();
        while !self.is_over() {
            let next = (0..due.len()).min_by_key(|place| due[*place].0).expect("a writer has keys");
            let wait = due[next].0.saturating_sub(self.checker.now());
            if !wait.is_zero() {
                thread::sleep(wait.min(Duration::from_millis(20)));
                continue;
            }
            let is_hot = next < self.plan.hot;
            if !write(keys.start + next, &mut random) {
                due[next].0 = self.checker.now() + AGAIN;
                continue;
            }
            let is_first = !is_hot && !due[next].1;
            let pause = match (is_hot, is_first) {
                (true, _) => HOT_PAUSE,
                (false, true) => PAIR_PAUSE,
                (false, false) => RARE_PAUSE,
            };
            due[next] = (self.checker.now() + millis(&mut random, pause), is_first);
        }
    }

    /// An instance that writers may use now.
    pub fn writable(&self, random: &mut Random) -> usize {
        let offered: Vec<usize> = (0..self.instances.len())
            .filter(|instance| !self.instances[*instance].is_avoided.load(Ordering::SeqCst))
            .collect();
        *random.pick(&offered)
    }

    /// Writes these keys through one instance, and records the outcome.
    fn write(&self, keys: &[usize], change: Change, instance: usize, lines: &mut [Option<Line>]) {
        let open = self.connected(&mut lines[instance], instance, WRITER_PATIENCE);
        let numbers: Vec<u64> = keys.iter().map(|key| self.checker.begin_write(*key, change)).collect();
        let end_all = |outcome: Outcome| {
            for (key, number) in keys.iter().zip(&numbers) {
                self.checker.end_write(*key, *number, outcome, false);
            }
        };
        let Some(open) = open else {
            end_all(Outcome::Refused);
            thread::sleep(Duration::from_millis(2));
            return;
        };
        let name = |place: usize| self.checker.name(keys[place]);
        let value = |place: usize| format!("{} {}", name(place), numbers[place]);
        let request = match (change, keys) {
            (Change::Delete, _) => line::request("DELETE", &key_path(&self.namespace, name(0)), "", ""),
            (Change::Set, [_]) => {
                let body = json!({ "value": value(0) }).to_string();
                line::request("PUT", &key_path(&self.namespace, name(0)), "", &body)
            }
            (Change::Set, _) => {
                let entries: Vec<Value> =
                    (0..keys.len()).map(|place| json!({"key": name(place), "value": value(place)})).collect();
                let path = format!("{}/mset", cache_path(&self.namespace));
                line::request("POST", &path, "", &json!({ "entries": entries }).to_string())
            }
        };
        let answer = open.send(&request).and_then(|()| open.receive());
        let end = self.checker.now();
        let Ok(answer) = answer else {
            lines[instance] = None;
            return end_all(Outcome::Unknown);
        };
        let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
        match (answer.status, keys) {
            (200 | 201, [key]) => {
                self.checker.end_write(*key, numbers[0], Outcome::Acknowledged(end), answer.status == 201);
            }
            (404, [key]) if change == Change::Delete => {
                self.checker.end_write(*key, numbers[0], Outcome::Acknowledged(end), true);
            }
            (200 | 409 | 503, _) if body["success"].is_boolean() => {
                for (place, (key, number)) in keys.iter().zip(&numbers).enumerate() {
                    let outcome = match body["errors"].get(name(place)) {
                        None => Outcome::Acknowledged(end),
                        Some(code) => outcome(code),
                    };
                    self.checker.end_write(*key, *number, outcome, false);
                }
            }
            (503, _) => end_all(outcome(&body["code"])),
            (409, _) if is_foreign(answer) => end_all(Outcome::Refused),
            _ => {
                self.checker.unexpected(&shown(answer));
                end_all(Outcome::Unknown);
            }
        }
    }
}

/// What an error code says about the outcome of a write.
pub fn outcome(code: &Value) -> Outcome {
    match code.as_str() {
        Some("shard_unavailable" | "overloaded" | "foreign_type" | "making_room" | "ring_mismatch") => {
            Outcome::Refused
        }
        _ => Outcome::Unknown,
    }
}

/// Whether the answer says that the name in Redis has another type.
pub fn is_foreign(answer: Received<'_>) -> bool {
    String::from_utf8_lossy(answer.body).contains("\"foreign_type\"")
}

/// The text of `value` in the answer to a GET. The writers store strings without escapes.
fn value_text(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.strip_prefix("{\"value\":\"")?;
    text.split('"').next()
}

pub fn shown(answer: Received<'_>) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(answer.body))
}

/// Ends the load when dropped.
struct Over<'l>(&'l AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
