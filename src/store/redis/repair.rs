//! Finds entries again whose place in the books is lost.
//!
//! A part of the bookkeeping may vanish: a person deletes a key of ours, or Redis evicts it under an `allkeys` policy.
//! The scripts notice (see `lua/index.lua`) and begin a new scope, in which nothing is yet. A walk over the shard then
//! puts every entry in again, removes what is left of the lost index, and so makes the totals right. One instance
//! walks at a time, and rests twice as long as it works. Until it is over a flush searches the shard itself.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::moved::Settled;
use super::reply::{self, Unexpected};
use super::scripts;
use super::shard::{Effect, Shard};
use super::verbs::{keys_and_places, secret};
use crate::clock::Moment;
use crate::model::Namespace;
use crate::store::Error;

/// Who walks, see `lua/become_walker.lua`; for how long if it dies, and how often it says that it lives.
const WALKER: &str = "sidecache:repairer";
const WALKER_TTL_MS: u64 = 5_000;
const RENEWAL: Duration = Duration::from_secs(1);

/// Keys of Redis that one SCAN looks at, entries that one script puts in, and how long to rest after a step, in times
/// of its own duration.
const SCANNED_PER_STEP: usize = 500;
const ADOPTED_PER_SCRIPT: usize = 25;
const REST: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(50);

/// How long to wait until a failed repair, or one that another instance had begun, is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Namespaces with something of another type under a name of theirs that are remembered.
const MOST_DOUBTED: usize = 1_000;

/// What is to be repaired on one shard.
#[derive(Default)]
pub struct Repairs {
    waiting: Mutex<BTreeSet<String>>,
    /// Namespaces in whose names something of another type was met.
    doubted: Mutex<HashSet<String>>,
    changed: Notify,
}

/// What a Redis key with a namespace in its name is.
pub enum Kind<'n> {
    /// Value or metadata of this key.
    Entry(&'n str),
    /// A part of an index.
    Index,
}

/// `None` where `name` is not of this namespace, or of its statistics.
pub fn kind_of<'n>(name: &'n str, namespace: &Namespace) -> Option<Kind<'n>> {
    let (prefix, rest) = name.split_once(':')?;
    let rest = rest.strip_prefix(namespace.as_str())?;
    match prefix {
        "cache" | "cache_meta" => rest.strip_prefix(':').map(Kind::Entry),
        "cache_index" | "cache_due" | "cache_tag" | "cache_tags" => {
            (rest.is_empty() || rest.starts_with([':', '@'])).then_some(Kind::Index)
        }
        _ => None,
    }
}

impl Shard {
    /// Notes that a namespace has entries to be found again.
    pub fn ask_for_repair(&self, namespace: &Namespace) {
        if self.repairs.waiting.lock().insert(namespace.as_str().to_owned()) {
            self.repairs.changed.notify_one();
        }
    }

    /// Notes that something of another type stands under this name of ours.
    pub fn note_foreign(&self, name: &str) {
        let namespace = name.split(':').nth(1).map(|scope| scope.split('@').next().unwrap_or(scope));
        let mut doubted = self.repairs.doubted.lock();
        if let Some(namespace) = namespace.filter(|_| doubted.len() < MOST_DOUBTED) {
            doubted.insert(namespace.to_owned());
        }
    }

    /// Whether something of another type was met under a name of this namespace.
    pub fn is_doubted(&self, namespace: &Namespace) -> bool {
        self.repairs.doubted.lock().contains(namespace.as_str())
    }

    /// All of it was searched.
    pub fn trust(&self, namespace: &Namespace) {
        self.repairs.doubted.lock().remove(namespace.as_str());
    }

    /// Has the index of a namespace made anew, unless that is under way; answers its scope.
    pub async fn begin_repair(&self, namespace: &Namespace) -> Result<String, Error> {
        let is_anew = if self.is_doubted(namespace) { "1" } else { "0" };
        let arguments = |settled: &Settled| {
            vec![Value::from(namespace.as_str()), secret(settled), Value::from_static_str(is_anew)]
        };
        let scope = self.ask(&scripts::BEGIN_REPAIR, Effect::Write, arguments, reply::text).await?;
        self.ask_for_repair(namespace);
        Ok(scope)
    }

    /// One step over the names of Redis keys that have a namespace in them; answers where to go on, `0` at the end.
    pub async fn scan_namespace(&self, cursor: &str, namespace: &Namespace) -> Result<(String, Vec<String>), Error> {
        let pattern = format!("cache*:{namespace}*");
        let count = SCANNED_PER_STEP.to_string();
        let arguments = [cursor, "MATCH", &pattern, "COUNT", &count];
        let answer = self.read("SCAN", arguments.map(Value::from).to_vec()).await?;
        let read = |answer| -> Result<_, Unexpected> {
            let [cursor, names] = reply::tuple(answer)?;
            // What is not UTF-8 is not ours.
            let names = reply::array(names)?.into_iter().filter_map(|name| reply::text(name).ok()).collect();
            Ok((reply::text(cursor)?, names))
        };
        read(answer).map_err(|expected| self.unexpected(expected))
    }

    /// Repairs what there is to repair, until `shutdown`.
    pub async fn run_repairs(self: Arc<Self>, instance: String, shutdown: CancellationToken) {
        let repairing = async {
            loop {
                let next = self.repairs.waiting.lock().first().cloned();
                let Some(namespace) = next.as_deref().and_then(|name| Namespace::parse(name).ok()) else {
                    self.repairs.changed.notified().await;
                    continue;
                };
                match self.repair(&instance, &namespace).await {
                    Ok(true) => {
                        self.repairs.waiting.lock().remove(namespace.as_str());
                    }
                    Ok(false) => sleep(AGAIN).await,
                    Err(error) => {
                        tracing::debug!(%error, %namespace, "lost entries are not all found yet");
                        // The sweep notes it again.
                        self.repairs.waiting.lock().remove(namespace.as_str());
                        let _ = timeout(AGAIN, self.repairs.changed.notified()).await;
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = repairing => {}
        }
    }

    /// Walks over the shard for one namespace; tells whether that is done.
    async fn repair(&self, instance: &str, namespace: &Namespace) -> Result<bool, Error> {
        let part = self.totals(namespace).await;
        if part.as_ref().is_ok_and(|totals| !totals.is_in_repair) {
            return Ok(true);
        }
        if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
            return Ok(false);
        }
        let scope = self.begin_repair(namespace).await?;
        tracing::warn!(shard = %self.name, %namespace, "part of the index is lost; its entries are looked for");
        let (mut renewed, mut cursor, mut found, mut dropped) = (Moment::now(), "0".to_owned(), 0, 0);
        loop {
            let started = Moment::now();
            let (next, names) = self.scan_namespace(&cursor, namespace).await?;
            let mut keys = BTreeSet::new();
            let mut index = Vec::new();
            for name in &names {
                match kind_of(name, namespace) {
                    Some(Kind::Entry(key)) => drop(keys.insert(key)),
                    Some(Kind::Index) => index.push(name.as_str()),
                    None => {}
                }
            }
            let keys: Vec<&str> = keys.into_iter().collect();
            for some in keys.chunks(ADOPTED_PER_SCRIPT) {
                found += self.adopt(namespace, some).await?;
            }
            for some in index.chunks(SCANNED_PER_STEP) {
                dropped += self.drop_scopes(namespace, some).await?;
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
            let now = Moment::now();
            sleep((now.since(started) * REST).min(REST_MAX)).await;
            if now.since(renewed) >= RENEWAL {
                renewed = now;
                if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
                    // This process stood still for so long that another one took over.
                    return Ok(false);
                }
            }
        }
        let (is_over, keys) = self.end_repair(namespace, &scope).await?;
        self.read("UNLINK", vec![Value::from(WALKER)]).await?;
        if is_over {
            self.metrics.repairs.increment(1);
            tracing::warn!(shard = %self.name, %namespace, found, dropped, keys, "the index is whole again");
        }
        Ok(is_over)
    }

    async fn adopt(&self, namespace: &Namespace, keys: &[&str]) -> Result<u64, Error> {
        let arguments = |settled: &Settled| {
            let first = [Value::from(namespace.as_str()), secret(settled)];
            first.into_iter().chain(keys_and_places(settled, keys.iter().copied())).collect()
        };
        self.ask(&scripts::ADOPT, Effect::Write, arguments, reply::count).await
    }

    async fn drop_scopes(&self, namespace: &Namespace, names: &[&str]) -> Result<u64, Error> {
        let arguments = |settled: &Settled| {
            let first = [Value::from(namespace.as_str()), secret(settled)];
            first.into_iter().chain(names.iter().copied().map(Value::from)).collect()
        };
        self.ask(&scripts::DROP_SCOPES, Effect::Write, arguments, reply::count).await
    }

    async fn end_repair(&self, namespace: &Namespace, scope: &str) -> Result<(bool, u64), Error> {
        let arguments =
            |settled: &Settled| vec![Value::from(namespace.as_str()), secret(settled), Value::from(scope)];
        self.ask(&scripts::END_REPAIR, Effect::Write, arguments, |frame| {
            let [is_over, keys] = reply::tuple(frame)?;
            Ok((reply::count(is_over)? > 0, reply::count(keys)?))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_it_is_of_which_namespace() {
        let users = Namespace::parse("users").unwrap();
        let entry = |name| match kind_of(name, &users) {
            Some(Kind::Entry(key)) => Some(key.to_owned()),
            _ => None,
        };
        assert_eq!(entry("cache:users:a:b"), Some("a:b".to_owned()));
        assert_eq!(entry("cache_meta:users:k"), Some("k".to_owned()));
        assert_eq!(entry("cache:users2:k"), None);
        for name in ["cache_index:users:0", "cache_index:users@7:0", "cache_due:users", "cache_tag:users@7:t"] {
            assert!(matches!(kind_of(name, &users), Some(Kind::Index)), "{name}");
        }
        for name in ["cache_index:users2:0", "cache_stats:users", "cachet:users:k", "cache_due:users.x", "cache"] {
            assert!(kind_of(name, &users).is_none(), "{name}");
        }
    }
}
