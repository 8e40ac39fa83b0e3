//! Finds and removes orphans: namespaces that have entries in the store but no policy.
//!
//! While a namespace is being deleted, another instance that does not know it yet may write to the namespace once
//! more. Namespaces without a policy are never swept, so entries without a TTL would stay for ever. Therefore a
//! namespace is flushed and forgotten if the registry did not know it, and nobody read or wrote it, during the last
//! [`GRACE_REFRESHES`] refreshes. This requires a database that all instances share and that was read recently: with
//! its own SQLite file, an instance does not know the namespaces of the others.

use std::collections::HashMap;
use std::time::Duration;

use super::{Cache, Error};
use crate::clock::Moment;
use crate::model::{Namespace, Selection};
use crate::store::{FlushProgress, Totals};

/// For how many refreshes of the policies a namespace must be unknown and unused. By then every instance knows all
/// namespaces that exist.
const GRACE_REFRESHES: u32 = 60;

/// How recently the registry must have been compared with the database.
const CONFIRMED: Duration = Duration::from_secs(10);

/// The maximum number of namespaces to watch at the same time.
const MAX_WATCHED: usize = 1_000;

/// The namespaces without a policy: their totals, and since when these totals have not changed.
#[derive(Default)]
pub struct Orphans(HashMap<Namespace, (Moment, Totals)>);

impl Orphans {
    /// Records the totals of a namespace at `now`. Returns whether they have not changed for `grace`.
    fn is_quiet(&mut self, namespace: &Namespace, totals: Totals, now: Moment, grace: Duration) -> bool {
        if self.0.len() >= MAX_WATCHED && !self.0.contains_key(namespace) {
            return false;
        }
        let (since, known) = self.0.entry(namespace.clone()).or_insert((now, totals));
        if *known != totals {
            (*since, *known) = (now, totals);
        }
        now.since(*since) >= grace
    }

    /// For how long a namespace must be unknown and unused.
    pub fn grace(cache: &Cache) -> Duration {
        (cache.registry.refresh() * GRACE_REFRESHES).max(CONFIRMED)
    }

    /// Checks once, and removes the namespaces that were unused for long enough.
    pub async fn look(&mut self, cache: &Cache) {
        let grace = Self::grace(cache);
        if !cache.registry.was_confirmed_within(CONFIRMED) {
            self.0.clear();
            return;
        }
        let stored = match cache.store.stored_namespaces().await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::debug!(%error, "cannot look for namespaces without a policy");
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
                let removal = cache.removal(namespace.as_str(), false);
                let removed = async {
                    let deleted =
                        cache.flush_selected(&namespace, &Selection::All, removal, &FlushProgress::default()).await?;
                    cache.store.forget(&namespace).await?;
                    Ok::<_, Error>(deleted)
                };
                match removed.await {
                    Ok(deleted) => tracing::info!(%namespace, deleted, "removed a namespace without a policy"),
                    Err(error) => {
                        tracing::debug!(%error, %namespace, "cannot remove a namespace without a policy yet");
                    }
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
