//! Decides when a shard is examined: when it is connected, before its ring record is settled, after every reconnect,
//! when an operation finds a problem, and regularly (see `ShardProblems::period`). Also reads how much memory the
//! shard uses. The results go to `problems.rs`.

use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::EventInterface as _;
use fred::types::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::preflight::{self, Examination};
use super::pressure::Reading;
use super::reply;
use super::shard::Shard;
use crate::clock::Moment;
use crate::model::Namespace;
use crate::store::Error;

/// How long an examination may take.
const EXAMINATION_TIMEOUT: Duration = Duration::from_secs(3);

/// The least time between two examinations, whatever requests them.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// How often to check whether an examination is due: before the first examination, and later.
const FIRST_STEP: Duration = Duration::from_millis(5);
const STEP: Duration = Duration::from_millis(500);

/// The most namespaces whose bytes are read by one script, and in all.
const NAMESPACES_PER_SCRIPT: usize = 500;
const MAX_NAMESPACES: usize = 10_000;

/// Returns the stored `total_bytes` of namespaces. It only reads, so it needs no fence. ARGV: the namespaces.
const BYTES_OF_NAMESPACES: &str = "local bytes = {} \
    for i = 1, #ARGV do bytes[i] = redis.call('HGET', 'cache_stats:' .. ARGV[i], 'total_bytes') or '0' end \
    return bytes";

impl Shard {
    /// Examines the shard repeatedly.
    pub async fn run_examinations(self: Arc<Self>) {
        let mut reconnects = self.subscriber.reconnect_rx();
        let mut examined: Option<Moment> = None;
        let mut is_due = true;
        loop {
            let now = Moment::now();
            let age = examined.map(|at| now.since(at));
            let is_allowed = age.is_none_or(|age| age >= LEAST_PAUSE);
            is_due |= age.is_some_and(|age| age >= self.problems.period());
            if is_due && is_allowed && self.has_server() {
                is_due = !self.examine(now).await;
                examined = Some(now);
            }
            self.problems.tell_changes();
            let step = if examined.is_none() { FIRST_STEP } else { STEP };
            tokio::select! {
                () = sleep(step) => {}
                () = self.problems.due.notified() => is_due = true,
                reconnected = reconnects.recv() => match reconnected {
                    Err(RecvError::Closed) => return,
                    Ok(_) | Err(RecvError::Lagged(_)) => is_due = true,
                },
            }
        }
    }

    /// Examines the shard; returns whether it answered.
    async fn examine(&self, now: Moment) -> bool {
        let reason = match preflight::visit(&self.config, &self.common, EXAMINATION_TIMEOUT).await {
            Ok(examination) => {
                let is_another = self.is_of_another_server(&examination);
                self.problems.settle(examination, now);
                if self.problems.meets_another(is_another) {
                    self.replace_split_connections();
                }
                return true;
            }
            Err(reason) => reason,
        };
        tracing::debug!(shard = %self.name, reason, "could not examine the shard");
        // The shard's other connections still work, so the results of the last examination stay.
        if !self.problems.is_examined() {
            self.problems.settle(Examination::default(), now);
        }
        false
    }

    /// Whether the examination met another server than the one that the shard's ring record belongs to. A proxy may
    /// lead new connections to another server and keep the old connections.
    fn is_of_another_server(&self, examination: &Examination) -> bool {
        let Some(settled) = self.ring_state.settled() else { return false };
        let known = &settled.identity.run_id;
        !known.is_empty() && examination.server.run_id.as_deref().is_some_and(|run_id| *run_id != **known)
    }

    /// Reads how much memory the shard uses; if memory is short, also which of `namespaces` are the largest.
    pub async fn look_at_memory(&self, namespaces: &[Namespace]) {
        let sections =
            async { Some((self.info("memory").await?, self.info("stats").await?, self.info("keyspace").await?)) };
        if let Some((memory, stats, keyspace)) = sections.await {
            let reading = Reading::parse(&format!("{memory}\n{stats}\n{keyspace}"));
            self.problems.pressure.lock().read(reading, Moment::now());
        }
        if self.problems.lacks_memory() && namespaces.len() <= MAX_NAMESPACES {
            match self.bytes_of(namespaces).await {
                Ok(bytes) => self.problems.pressure.lock().hold(bytes),
                Err(error) => tracing::debug!(%error, "could not read how much memory the namespaces use"),
            }
        }
    }

    async fn bytes_of(&self, namespaces: &[Namespace]) -> Result<Vec<(String, u64)>, Error> {
        let mut all = Vec::with_capacity(namespaces.len());
        for some in namespaces.chunks(NAMESPACES_PER_SCRIPT) {
            let names = some.iter().map(|namespace| Value::from(namespace.as_str()));
            let script = [Value::from_static_str(BYTES_OF_NAMESPACES), Value::from_static_str("0")];
            let bytes = self.read("EVAL", script.into_iter().chain(names).collect(), reply::counts).await?;
            all.extend(some.iter().map(Namespace::to_string).zip(bytes));
        }
        Ok(all)
    }
}
