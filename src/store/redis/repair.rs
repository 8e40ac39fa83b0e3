//! Repairs the index: finds entries that are missing from it.
//!
//! Part of the bookkeeping may vanish: a person deletes one of our keys, or Redis evicts it under an `allkeys`
//! policy. The scripts notice this (see `lua/index.lua`) and begin a new, empty scope. Then a walk over the shard
//! adds every entry to the new scope and removes the rest of the lost index, which also corrects the totals. One
//! instance at a time walks, and it pauses for twice as long as it works. Until the walk is done, a flush searches
//! the shard itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::repair_queue::MAX_FOREIGN;
use super::reply;
use super::ring_state::SettledRecord;
use super::scan::Scan;
use super::scripts;
use super::shard::{Effect, Shard};
use super::verbs::{keys_and_places, secret};
use crate::clock::Moment;
use crate::model::Namespace;
use crate::store::Error;

/// The Redis key that names the instance that walks, see `lua/become_walker.lua`; how long its claim lasts without
/// renewal; and how often it renews the claim.
const WALKER: &str = "sidecache:repairer";
const WALKER_TTL_MS: u64 = 5_000;
const RENEWAL: Duration = Duration::from_secs(1);

/// Entries that one script adds. After a step, the walk pauses for [`REST`] times the step's duration, at most
/// [`REST_MAX`].
const ADOPTED_PER_SCRIPT: usize = 25;
const REST: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(50);

/// How long to wait before trying a repair again that failed, or that another instance is doing.
const AGAIN: Duration = Duration::from_secs(1);

/// The pattern of the Redis keys that may belong to a namespace; [`kind_of`] decides which do.
pub fn pattern_of(namespace: &Namespace) -> String {
    format!("cache*:{namespace}*")
}

/// The kind of a Redis key with a namespace in its name.
pub enum Kind<'n> {
    /// Value or metadata of the entry with this key.
    Entry(&'n str),
    /// Part of an index.
    Index,
}

/// `None` if `name` is not of this namespace, or holds its stats.
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
    /// Requests a repair of a namespace.
    pub fn ask_for_repair(&self, namespace: &Namespace) {
        if self.repairs.waiting.lock().insert(namespace.as_str().to_owned()) {
            self.repairs.changed.notify_one();
        }
    }

    /// Remembers that this Redis key of ours holds another type.
    pub fn note_foreign(&self, name: &str) {
        let namespace = name.split(':').nth(1).map(|scope| scope.split('@').next().unwrap_or(scope));
        let mut foreign = self.repairs.foreign.lock();
        if let Some(namespace) = namespace.filter(|_| foreign.len() < MAX_FOREIGN) {
            foreign.insert(namespace.to_owned());
        }
    }

    /// Whether a Redis key of this namespace was found to hold another type.
    pub fn has_foreign(&self, namespace: &Namespace) -> bool {
        self.repairs.foreign.lock().contains(namespace.as_str())
    }

    /// Forgets that a Redis key of this namespace held another type, because the whole shard was searched.
    pub fn forget_foreign(&self, namespace: &Namespace) {
        self.repairs.foreign.lock().remove(namespace.as_str());
    }

    /// Starts to rebuild the index of a namespace, unless a repair is running already. Returns the new scope.
    pub async fn begin_repair(&self, namespace: &Namespace) -> Result<String, Error> {
        let occasion = if self.has_foreign(namespace) { "foreign" } else { "lost" };
        self.begin_scope(namespace, occasion).await
    }

    async fn begin_scope(&self, namespace: &Namespace, occasion: &'static str) -> Result<String, Error> {
        let arguments = |settled: &SettledRecord| {
            vec![Value::from(namespace.as_str()), secret(settled), Value::from_static_str(occasion)]
        };
        let scope = self.ask(&scripts::BEGIN_REPAIR, Effect::Write, arguments, reply::text).await?;
        if !scope.is_empty() {
            self.ask_for_repair(namespace);
        }
        Ok(scope)
    }

    /// Does the requested repairs, until `shutdown`.
    pub async fn run_repairs(self: Arc<Self>, instance: String, shutdown: CancellationToken) {
        let repairing = async {
            loop {
                let next = self.repairs.waiting.lock().first().cloned();
                let Some(namespace) = next.as_deref().and_then(|name| Namespace::parse(name).ok()) else {
                    self.repairs.changed.notified().await;
                    continue;
                };
                // If the repair does not finish, the next sweep requests it again.
                self.repairs.waiting.lock().remove(namespace.as_str());
                match self.repair(&instance, &namespace).await {
                    Ok(true) => {}
                    Ok(false) => sleep(AGAIN).await,
                    Err(error) => {
                        tracing::debug!(%error, %namespace, "not all lost entries are found yet");
                        sleep(AGAIN).await;
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = repairing => {}
        }
    }

    /// Walks over the shard for one namespace; returns whether the repair is done.
    async fn repair(&self, instance: &str, namespace: &Namespace) -> Result<bool, Error> {
        let part = self.totals(namespace).await;
        if part.as_ref().is_ok_and(|totals| !totals.is_in_repair) {
            return Ok(true);
        }
        if self.repairs.was_repaired_lately(namespace) || !self.become_walker(instance, WALKER, WALKER_TTL_MS).await?
        {
            return Ok(false);
        }
        let scope = self.begin_scope(namespace, "walk").await?;
        if scope.is_empty() {
            // Another instance has just finished it.
            self.read("UNLINK", vec![Value::from(WALKER)]).await?;
            return Ok(true);
        }
        tracing::warn!(shard = %self.name, %namespace, "part of the index is lost; searching for its entries");
        let (mut renewed, mut found, mut dropped) = (Moment::now(), 0, 0);
        let mut scan = Scan::new(self, pattern_of(namespace))?;
        let mut started = renewed;
        while let Some(names) = scan.next(self).await? {
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
            if !index.is_empty() {
                dropped += self.drop_scopes(namespace, &index).await?;
            }
            let now = Moment::now();
            sleep((now.since(started) * REST).min(REST_MAX)).await;
            if now.since(renewed) >= RENEWAL {
                renewed = now;
                if !self.become_walker(instance, WALKER, WALKER_TTL_MS).await? {
                    // This process was suspended for so long that another one took over.
                    return Ok(false);
                }
            }
            started = Moment::now();
        }
        let (is_over, keys) = self.end_repair(namespace, &scope).await?;
        self.read("UNLINK", vec![Value::from(WALKER)]).await?;
        self.repairs.note_end(namespace);
        if is_over {
            self.metrics.repairs.increment(1);
            tracing::warn!(shard = %self.name, %namespace, found, dropped, keys, "the index is whole again");
        }
        Ok(is_over)
    }

    async fn adopt(&self, namespace: &Namespace, keys: &[&str]) -> Result<u64, Error> {
        let arguments = |settled: &SettledRecord| {
            let first = [Value::from(namespace.as_str()), secret(settled)];
            first.into_iter().chain(keys_and_places(settled, keys.iter().copied())).collect()
        };
        self.ask(&scripts::ADOPT, Effect::Write, arguments, reply::count).await
    }

    async fn drop_scopes(&self, namespace: &Namespace, names: &[&str]) -> Result<u64, Error> {
        let arguments = |settled: &SettledRecord| {
            let first = [Value::from(namespace.as_str()), secret(settled)];
            first.into_iter().chain(names.iter().copied().map(Value::from)).collect()
        };
        self.ask(&scripts::DROP_SCOPES, Effect::Write, arguments, reply::count).await
    }

    async fn end_repair(&self, namespace: &Namespace, scope: &str) -> Result<(bool, u64), Error> {
        let arguments =
            |settled: &SettledRecord| vec![Value::from(namespace.as_str()), secret(settled), Value::from(scope)];
        self.ask(&scripts::END_REPAIR, Effect::Write, arguments, |frame| {
            let [is_over, keys] = reply::tuple(frame)?;
            Ok((reply::count(is_over)? == 1, reply::count(keys)?))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_its_kind_and_its_namespace() {
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
