//! Knows what is wrong with one shard, and says it: findings of its examinations (`preflight.rs`), trouble that
//! operations meet (`conditions.rs`), and a lack of memory (`pressure.rs`).
//!
//! **A shard that an examination refused is given no operation** until one passes: what would fail half way is not
//! begun. When a shard is examined is up to `examiner.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::conditions::{Conditions, Kind, Line};
use super::preflight::Examination;
use super::pressure::{Pressure, Reading};
use crate::clock::Moment;
use crate::store::{Error, Finding, Role, Severity};

/// Pauses between examinations: while nothing is wrong, while something is, and while the shard is not used.
const QUIET_PERIOD: Duration = Duration::from_secs(10);
const TROUBLED_PERIOD: Duration = Duration::from_secs(5);
const REFUSED_PERIOD: Duration = Duration::from_secs(1);

const NOT_EXAMINED: u8 = 0;
const PASSED: u8 = 1;
const REFUSED: u8 = 2;

/// What is known to be wrong with one shard.
pub struct Watch {
    /// The shard's name.
    name: String,
    /// What operations have to look at; follows `examination`.
    verdict: AtomicU8,
    examination: Mutex<Examination>,
    conditions: Mutex<Conditions>,
    pressure: Mutex<Pressure>,
    /// The findings that the log has heard of, by code and severity.
    told: Mutex<BTreeMap<(&'static str, Severity), String>>,
    /// Whether the last examination met another server than the one that the shard's record is of.
    met_another: AtomicBool,
    /// Told when an examination should not wait for its turn.
    pub due: Notify,
}

impl Watch {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            verdict: AtomicU8::new(NOT_EXAMINED),
            examination: Mutex::default(),
            conditions: Mutex::default(),
            pressure: Mutex::default(),
            told: Mutex::default(),
            met_another: AtomicBool::new(false),
            due: Notify::new(),
        }
    }

    /// Whether the shard was examined and may be used.
    pub fn is_passed(&self) -> bool {
        self.verdict.load(Ordering::Acquire) == PASSED
    }

    /// Refuses what comes while the shard may not be used, or was not examined yet.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn admit(&self) -> Result<(), Error> {
        if self.is_passed() {
            return Ok(());
        }
        let reason = self.examination.lock().refusal().map(|finding| finding.text.clone());
        let reason = reason.unwrap_or_else(|| "it was not examined yet".to_owned());
        Err(Error::Unavailable { shard: self.name.clone(), reason })
    }

    /// Whether `INFO` is answered, as far as it is known.
    pub fn has_info(&self) -> bool {
        self.is_examined() && self.examination.lock().has_info
    }

    /// The role, as the last examination found it.
    pub fn role(&self) -> Option<Role> {
        let examination = self.examination.lock();
        examination.server.role.or_else(|| examination.takes_writes.then_some(Role::Primary))
    }

    /// Notes an error reply to an operation that had no better end.
    pub fn note(&self, reply: &str) {
        let Some(kind) = Kind::of(reply) else { return };
        let shard = &*self.name;
        match self.conditions.lock().note(kind, reply, Moment::now()) {
            Line::Skipped => {}
            Line::Again { unlogged } => {
                tracing::warn!(shard, code = kind.code(), reply, unlogged, "the shard goes on refusing operations");
            }
            Line::First => {
                // What it means is seen by an examination; memory is not.
                self.due.notify_one();
                self.tell(&[kind.finding(shard, reply)]);
            }
        }
    }

    /// All that is wrong at present, the worst first.
    pub fn findings(&self) -> Vec<Finding> {
        let now = Moment::now();
        let (shard, mut findings) = (&*self.name, self.examination.lock().findings.clone());
        let mut lacks_rights = findings.iter().any(|finding| finding.code.starts_with("forbidden_"));
        let pressure = self.pressure.lock();
        for (kind, reply) in self.conditions.lock().current(now) {
            let is_known = findings.iter().any(|finding| finding.code == kind.code());
            if is_known || (kind == Kind::NoPermission && std::mem::replace(&mut lacks_rights, true)) {
                continue;
            }
            let mut finding = kind.finding(shard, reply);
            if kind == Kind::OutOfMemory {
                finding.text += &pressure.told();
            }
            findings.push(finding);
        }
        findings.extend(pressure.finding(shard, now));
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings
    }

    /// Whether there is reason to ask who holds the memory.
    pub fn lacks_memory(&self) -> bool {
        let now = Moment::now();
        let is_out = self.conditions.lock().current(now).any(|(kind, _)| kind == Kind::OutOfMemory);
        is_out || self.pressure.lock().evicts_young(now)
    }

    /// Takes a reading of the shard's memory.
    pub fn read_memory(&self, reading: Reading) {
        self.pressure.lock().read(reading, Moment::now());
    }

    /// Takes how many bytes each namespace holds.
    pub fn read_holders(&self, holders: Vec<(String, u64)>) {
        self.pressure.lock().hold(holders);
    }

    /// The last reading of the shard's memory.
    pub fn memory(&self) -> Reading {
        self.pressure.lock().reading()
    }

    /// Whether the shard was ever examined.
    pub fn is_examined(&self) -> bool {
        self.verdict.load(Ordering::Acquire) != NOT_EXAMINED
    }

    /// Takes whether an examination met another server than the connections of before lead to. Tells whether two in a
    /// row did, as one may meet the moment of a failover; after the first the next is due at once.
    pub fn meets_another(&self, is_another: bool) -> bool {
        let did = self.met_another.swap(is_another, Ordering::AcqRel);
        if is_another && !did {
            self.due.notify_one();
        }
        is_another && did
    }

    /// Takes the result of an examination that began at `began`.
    pub fn settle(&self, examination: Examination, began: Moment) {
        let verdict = if examination.refusal().is_some() { REFUSED } else { PASSED };
        if examination.takes_writes {
            self.conditions.lock().disprove(began);
        }
        *self.examination.lock() = examination;
        self.verdict.store(verdict, Ordering::Release);
    }

    /// Logs findings that are new.
    fn tell(&self, findings: &[Finding]) {
        let mut told = self.told.lock();
        for Finding { code, severity, shard, text } in findings {
            if told.insert((code, *severity), text.clone()).is_none() {
                tracing::warn!(shard = %shard, code, severity = severity.as_str(), "{text}");
            }
        }
    }

    /// Logs what has changed since the last time.
    pub fn tell_changes(&self) {
        let findings = self.findings();
        self.tell(&findings);
        let is_over = |code: &str, severity| {
            !findings.iter().any(|finding| finding.code == code && finding.severity == severity)
        };
        self.told.lock().retain(|(code, severity), text| {
            let is_over = is_over(code, *severity);
            if is_over {
                tracing::info!(shard = %self.name, code, "no longer: {text}");
            }
            !is_over
        });
    }

    /// How long the next examination may wait.
    pub fn period(&self) -> Duration {
        match self.verdict.load(Ordering::Acquire) {
            REFUSED => REFUSED_PERIOD,
            _ if self.findings().is_empty() => QUIET_PERIOD,
            _ => TROUBLED_PERIOD,
        }
    }
}
