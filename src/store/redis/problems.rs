//! Knows and reports what is wrong with one shard: the findings of its examinations (`preflight.rs`), problems that
//! operations meet (`conditions.rs`), and a lack of memory (`pressure.rs`).
//!
//! **A shard that failed its examination gets no operations** until an examination passes: an operation that would
//! fail half way is not started. `examiner.rs` decides when a shard is examined.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::conditions::{Conditions, Kind, Line};
use super::preflight::Examination;
use super::pressure::Pressure;
use crate::clock::Moment;
use crate::store::{Error, Finding, Role, Severity};

/// The time between examinations: while nothing is wrong, while something is wrong, and while the shard is not used.
const QUIET_PERIOD: Duration = Duration::from_secs(10);
const TROUBLED_PERIOD: Duration = Duration::from_secs(5);
const REFUSED_PERIOD: Duration = Duration::from_secs(1);

/// The known problems of one shard.
pub struct ShardProblems {
    /// The shard's name.
    name: String,
    /// Whether `examination` allows operations. A copy that operations can check quickly.
    is_passed: AtomicBool,
    /// The last examination; `None` before the first.
    examination: Mutex<Option<Examination>>,
    conditions: Mutex<Conditions>,
    pub pressure: Mutex<Pressure>,
    /// The findings that were logged, by code and severity.
    told: Mutex<BTreeMap<(&'static str, Severity), String>>,
    /// Whether the last examination met a server other than the one that the shard's ring record belongs to.
    met_another: AtomicBool,
    /// Notified when an examination is needed before the period is over.
    pub due: Notify,
}

impl ShardProblems {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_passed: AtomicBool::new(false),
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
        self.is_passed.load(Ordering::Acquire)
    }

    /// Refuses operations while the shard must not be used or was not examined yet.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn admit(&self) -> Result<(), Error> {
        if self.is_passed() {
            return Ok(());
        }
        let reason = self.examination.lock().as_ref().and_then(|last| Some(last.refusal()?.text.clone()));
        let reason = reason.unwrap_or_else(|| "it was not examined yet".to_owned());
        Err(Error::Unavailable { shard: self.name.clone(), reason })
    }

    /// Whether the server answers `INFO`, as far as that is known.
    pub fn has_info(&self) -> bool {
        self.examination.lock().as_ref().is_some_and(|last| last.has_info)
    }

    /// The role according to the last examination.
    pub fn role(&self) -> Option<Role> {
        let examination = self.examination.lock();
        let last = examination.as_ref()?;
        last.server.role.or_else(|| last.takes_writes.then_some(Role::Primary))
    }

    /// Records the error reply of an operation that failed because of it.
    pub fn record(&self, reply: &str) {
        let Some(kind) = Kind::of(reply) else { return };
        let shard = &*self.name;
        match self.conditions.lock().record(kind, reply, Moment::now()) {
            Line::Skipped => {}
            Line::Again { unlogged } => {
                tracing::warn!(shard, code = kind.code(), reply, unlogged, "the shard still refuses operations");
            }
            Line::First => {
                // An examination shows the problem in detail, except a lack of memory.
                self.due.notify_one();
                self.tell(&[kind.finding(shard, reply)]);
            }
        }
    }

    /// All current findings, the worst first.
    pub fn findings(&self) -> Vec<Finding> {
        let now = Moment::now();
        let findings = self.examination.lock().as_ref().map(|last| last.findings.clone());
        let (shard, mut findings) = (&*self.name, findings.unwrap_or_default());
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

    /// Whether memory is short, so that the largest namespaces should be looked up.
    pub fn lacks_memory(&self) -> bool {
        let now = Moment::now();
        let is_out = self.conditions.lock().current(now).any(|(kind, _)| kind == Kind::OutOfMemory);
        is_out || self.pressure.lock().evicts_young(now)
    }

    /// Whether the shard was examined at least once.
    pub fn is_examined(&self) -> bool {
        self.examination.lock().is_some()
    }

    /// Stores whether an examination met a server other than the one that the shard's ring record belongs to. Returns
    /// true at the second time in a row, because one examination may happen in the middle of a failover. After the
    /// first time the next examination is due at once.
    pub fn meets_another(&self, is_another: bool) -> bool {
        let did = self.met_another.swap(is_another, Ordering::AcqRel);
        if is_another && !did {
            self.due.notify_one();
        }
        is_another && did
    }

    /// Stores the result of an examination that began at `began`.
    pub fn settle(&self, examination: Examination, began: Moment) {
        let is_passed = examination.refusal().is_none();
        if examination.takes_writes {
            self.conditions.lock().disprove(began);
        }
        *self.examination.lock() = Some(examination);
        self.is_passed.store(is_passed, Ordering::Release);
    }

    /// Logs findings that were not logged yet.
    fn tell(&self, findings: &[Finding]) {
        let mut told = self.told.lock();
        for Finding { code, severity, shard, text } in findings {
            if told.insert((code, *severity), text.clone()).is_none() {
                tracing::warn!(shard = %shard, code, severity = severity.as_str(), "{text}");
            }
        }
    }

    /// Logs what has changed since the last call.
    pub fn tell_changes(&self) {
        let findings = self.findings();
        self.tell(&findings);
        let is_over = |code: &str, severity| {
            !findings.iter().any(|finding| finding.code == code && finding.severity == severity)
        };
        self.told.lock().retain(|(code, severity), text| {
            let is_over = is_over(code, *severity);
            if is_over {
                tracing::info!(shard = %self.name, code, "resolved: {text}");
            }
            !is_over
        });
    }

    /// How long the next examination may wait.
    pub fn period(&self) -> Duration {
        if self.is_examined() && !self.is_passed() {
            REFUSED_PERIOD
        } else if self.findings().is_empty() {
            QUIET_PERIOD
        } else {
            TROUBLED_PERIOD
        }
    }
}
