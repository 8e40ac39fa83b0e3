//! Finds namespaces that are in the store and in no policy.
//!
//! While a namespace is deleted another instance, which has not heard of it yet, may write to it once more. Nobody
//! would sweep what it wrote, so entries without a TTL would stay for ever. A namespace that the registry does not
//! know, and that nobody has read or written, for as long as [`GRACE_REFRESHES`] take is therefore flushed and forgotten. That takes a
//! database that all instances share and that was read just now: with a file of its own an instance does not know the
//! namespaces of the others.

use std::collections::HashMap;
use std::time::Duration;

use super::Cache;
use crate::clock::Moment;
use crate::model::{Namespace, Selection};
use crate::store::{FlushProgress, Totals};

/// For how many refreshes of the policies a namespace has to be unknown and quiet: by then every instance has heard of
/// those that exist.
const GRACE_REFRESHES: u32 = 60;

/// How recently the database must have confirmed the registry.
const CONFIRMED: Duration = Duration::from_secs(10);

/// Namespaces that are watched at once.
const MOST_WATCHED: usize = 1_000;

/// Namespaces in no policy: since when each has looked as it does.
#[derive(Default)]
pub struct Orphans(HashMap<Namespace, (Moment, Totals)>);

impl Orphans {
    /// Takes what a namespace holds at `now`; tells whether that has been so for as long as `grace`.
    fn is_quiet(&mut self, namespace: &Namespace, totals: Totals, now: Moment, grace: Duration) -> bool {
        if self.0.len() >= MOST_WATCHED && !self.0.contains_key(namespace) {
            return false;
        }
        let (since, known) = self.0.entry(namespace.clone()).or_insert((now, totals));
        if *known != totals {
            (*since, *known) = (now, totals);
        }
        now.since(*since) >= grace
    }

    /// For how long a namespace has to be unknown and quiet.
    pub fn grace(cache: &Cache) -> Duration {
        (cache.registry.refresh() * GRACE_REFRESHES).max(CONFIRMED)
    }

    /// Looks once, and removes what was quiet for long enough.
    pub async fn look(&mut self, cache: &Cache) {
        let grace = Self::grace(cache);
        if !cache.registry.was_confirmed_within(CONFIRMED) {
            self.0.clear();
            return;
        }
        let stored = match cache.store.stored_namespaces().await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::debug!(%error, "namespaces without a policy not looked for");
                return;
            }
        };
        let unknown: Vec<Namespace> =
            stored.into_iter().filter(|namespace| !cache.registry.may_exist(namespace)).collect();
        self.0.retain(|namespace, _| unknown.contains(namespace));
        for namespace in unknown {
            let Ok(totals) = cache.store.booked_totals(&namespace).await else { continue };
            if self.is_quiet(&namespace, totals, Moment::now(), grace) {
                self.0.remove(&namespace);
                match cache.flush_selected(&namespace, &Selection::All, &FlushProgress::default()).await {
                    Ok(deleted) => {
                        let forgotten = cache.store.forget(&namespace).await;
                        tracing::info!(%namespace, deleted, done = forgotten.is_ok(), "a namespace without a policy is removed");
                    }
                    Err(error) => tracing::debug!(%error, %namespace, "not removed yet"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_quiet_once_nothing_has_changed_for_the_time() {
        let (mut orphans, now, grace) = (Orphans::default(), Moment::now(), Duration::from_secs(60));
        let users = Namespace::parse("users").unwrap();
        let with = |keys, hits| Totals { keys, hits, ..Totals::default() };
        assert!(!orphans.is_quiet(&users, with(1, 0), now, grace));
        assert!(!orphans.is_quiet(&users, with(2, 0), now + grace, grace), "written to");
        assert!(!orphans.is_quiet(&users, with(2, 1), now + grace * 2, grace), "read");
        assert!(!orphans.is_quiet(&users, with(2, 1), now + grace * 5 / 2, grace));
        assert!(orphans.is_quiet(&users, with(2, 1), now + grace * 3, grace));
    }
}
