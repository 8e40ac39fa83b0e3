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

use super::reply;
use super::ring_state::SettledRecord;
use super::scan::Scan;
use super::scripts;
use super::shard::{Effect, Shard};
use super::verbs::keys_and_places;
use super::walk::{Walk, WalkKind};
use crate::model::Namespace;
use crate::store::Error;

const WALK: WalkKind = WalkKind {
    claim: "sidecache:repairer",
    claim_ttl_ms: 5_000,
    renewal: Duration::from_secs(1),
    pauses_per_step: 2,
    max_pause: Duration::from_millis(50),
};

/// Entries that one script adds.
const ADOPTED_PER_SCRIPT: usize = 25;

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
    /// Starts to rebuild the index of a namespace, unless a repair is running already. Returns the new scope.
    pub async fn begin_repair(&self, namespace: &Namespace) -> Result<String, Error> {
        let occasion = if self.repairs.has_foreign(namespace) { "foreign" } else { "lost" };
        self.begin_scope(namespace, occasion).await
    }

    async fn begin_scope(&self, namespace: &Namespace, occasion: &'static str) -> Result<String, Error> {
        let arguments =
            |settled: &SettledRecord| settled.arguments(namespace.as_str(), [Value::from_static_str(occasion)]);
        let scope = self.ask(&scripts::BEGIN_REPAIR, Effect::Write, arguments, reply::text).await?;
        if !scope.is_empty() {
            self.repairs.request(namespace);
        }
        Ok(scope)
    }

    /// Does the requested repairs.
    pub async fn run_repairs(self: Arc<Self>, instance: String) {
        loop {
            // If the repair does not finish, the next sweep requests it again.
            let namespace = self.repairs.next().await;
            let repaired = self.repair(&instance, &namespace).await;
            if let Err(error) = &repaired {
                tracing::debug!(%error, %namespace, "not all lost entries are found yet");
            }
            if !matches!(repaired, Ok(true)) {
                sleep(AGAIN).await;
            }
        }
    }

    /// Walks over the shard for one namespace; returns whether the repair is done.
    async fn repair(&self, instance: &str, namespace: &Namespace) -> Result<bool, Error> {
        let part = self.totals(namespace).await;
        if part.as_ref().is_ok_and(|totals| !totals.is_in_repair) {
            return Ok(true);
        }
        if self.repairs.was_repaired_lately(namespace) {
            return Ok(false);
        }
        let Some(mut walk) = Walk::begin(self, instance, &WALK).await? else { return Ok(false) };
        let scope = self.begin_scope(namespace, "walk").await?;
        if scope.is_empty() {
            // Another instance has just finished it.
            walk.end().await?;
            return Ok(true);
        }
        tracing::warn!(shard = %self.name, %namespace, "part of the index is lost; searching for its entries");
        let (mut found, mut dropped) = (0, 0);
        let mut scan = Scan::new(self, pattern_of(namespace))?;
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
            if !walk.pause().await? {
                return Ok(false);
            }
        }
        let (is_over, keys) = self.end_repair(namespace, &scope).await?;
        walk.end().await?;
        self.repairs.record_end(namespace);
        if is_over {
            self.metrics.repairs.increment(1);
            tracing::warn!(shard = %self.name, %namespace, found, dropped, keys, "the index is whole again");
        }
        Ok(is_over)
    }

    async fn adopt(&self, namespace: &Namespace, keys: &[&str]) -> Result<u64, Error> {
        let arguments = |settled: &SettledRecord| {
            settled.arguments(namespace.as_str(), keys_and_places(settled, keys.iter().copied()))
        };
        self.ask(&scripts::ADOPT, Effect::Write, arguments, reply::count).await
    }

    async fn drop_scopes(&self, namespace: &Namespace, names: &[&str]) -> Result<u64, Error> {
        let arguments =
            |settled: &SettledRecord| settled.arguments(namespace.as_str(), names.iter().copied().map(Value::from));
        self.ask(&scripts::DROP_SCOPES, Effect::Write, arguments, reply::count).await
    }

    async fn end_repair(&self, namespace: &Namespace, scope: &str) -> Result<(bool, u64), Error> {
        let arguments = |settled: &SettledRecord| settled.arguments(namespace.as_str(), [Value::from(scope)]);
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
