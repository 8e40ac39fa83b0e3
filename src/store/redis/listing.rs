//! A page of a listing, merged from all shards, and the totals of the shards that answer.
//!
//! A shard that does not answer is skipped for the rest of the page and reported: the keys of the other shards are
//! shown.
//!
//! A key has the same place on every shard, and keys are listed by place and name. So a cursor names a place and not
//! a shard, and means the same to every instance, whatever the order of the shards in its settings.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use super::place::PLACES;
use super::shard::Shard;
use super::verbs::Index;
use super::{Cursor, Error, Redis};
use crate::clock::Moment;
use crate::model::{EvictionPolicy, Namespace, Selection};
use crate::store::{KnownTotals, Page, Totals};

/// About how many keys one script returns at most.
const LISTED_PER_SCRIPT: usize = 250;

/// The most steps for one page. After that the page is returned as it is, with a cursor: perhaps few keys match.
const STEPS_PER_PAGE: usize = 20;

/// How long a request for totals may spend on removing expired entries before it is answered.
const SWEEP_FOR_TOTALS: Duration = Duration::from_millis(100);

impl Redis {
    /// Up to `limit` live keys after `cursor`, and the cursor of the next page.
    pub(super) async fn page(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        mut cursor: Cursor,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut keys = Vec::new();
        let mut missing = Missing::default();
        for _ in 0..STEPS_PER_PAGE {
            let room = limit - keys.len();
            if room == 0 || cursor.place >= PLACES {
                break;
            }
            let count = match selection {
                Selection::Matching(_) => selection.step(LISTED_PER_SCRIPT),
                // A little more than the shard's share, because shares vary.
                Selection::All | Selection::Tagged(_) => {
                    (room / self.shards.len() + room / 8 + 8).min(LISTED_PER_SCRIPT)
                }
            };
            let (frontier, mut step) = self.step(namespace, selection, cursor.place, count, &mut missing).await?;
            step.sort_unstable();
            step.retain(|(place, key)| (*place, key) > (cursor.place, &cursor.after) && selection.matches(key));
            if step.len() > room {
                step.truncate(room);
                if let Some((place, after)) = step.last().cloned() {
                    cursor = Cursor { place, after };
                }
            } else {
                cursor = Cursor::at(frontier);
            }
            keys.extend(step.into_iter().map(|(_, key)| key));
        }
        let known = self.totals_without(&missing.shards, namespace).await?;
        let next = (cursor.place < PLACES).then_some(cursor);
        Ok(Page { size: known.totals.keys, keys, next, failed: [missing.errors, known.failed].concat() })
    }

    /// The totals of the shards that answer, without the `missing` shards, which are not asked.
    pub(super) async fn totals_without(
        &self,
        missing: &BTreeSet<usize>,
        namespace: &Namespace,
    ) -> Result<KnownTotals, Error> {
        let mut failed = Missing { shards: missing.clone(), errors: Vec::new() };
        let known = self.ask_others(&mut failed, |shard| shard.swept_totals(namespace)).await?;
        Ok(KnownTotals { totals: known.into_iter().sum(), failed: failed.errors })
    }

    /// The keys of all shards except the missing ones, from `place` up to the place that is returned with them. Each
    /// key comes with its place.
    async fn step<'s>(
        &'s self,
        namespace: &Namespace,
        selection: &Selection,
        place: u64,
        count: usize,
        missing: &mut Missing,
    ) -> Result<(u64, Vec<(u64, String)>), Error> {
        let part = |shard: &'s Shard| async move {
            let part = shard.part(namespace, selection, place, count).await?;
            if part.index == Index::Lost {
                shard.begin_repair(namespace).await?;
            }
            let visible = shard.without_void(namespace, part.keys).await?;
            let settled = shard.ring_state.settled().ok_or_else(|| shard.unsettled())?;
            let placed: Vec<_> = visible.into_iter().map(|key| (settled.place_of(&key), key)).collect();
            Ok((part.next, placed))
        };
        let parts = self.ask_others(missing, part).await?;
        let frontier = parts.iter().map(|(next, _)| *next).min().unwrap_or(PLACES);
        let keys = parts.into_iter().flat_map(|(_, keys)| keys).filter(|(place, _)| *place < frontier);
        Ok((frontier, keys.collect()))
    }

    /// Asks all shards except the missing ones, and adds those that do not answer to the missing ones.
    ///
    /// # Errors
    /// No shard answers, or a shard answers with an error.
    async fn ask_others<'s, T, F>(
        &'s self,
        missing: &mut Missing,
        ask: impl Fn(&'s Shard) -> F,
    ) -> Result<Vec<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (ask, absent) = (&ask, &missing.shards);
        let others = self.shards.iter().enumerate().filter(|(index, _)| !absent.contains(index));
        let asked = others.map(|(index, shard)| async move {
            let answer = async {
                shard.admit()?;
                ask(shard).await
            };
            (index, answer.await)
        });
        let mut given = Vec::new();
        for (index, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => given.push(answer),
                Err(error) if error.is_unanswered() && missing.shards.len() + 1 < self.shards.len() => {
                    missing.shards.insert(index);
                    missing.errors.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(given)
    }
}

/// Shards that did not answer.
#[derive(Default)]
struct Missing {
    /// By index.
    shards: BTreeSet<usize>,
    errors: Vec<Error>,
}

impl Shard {
    /// The totals of a namespace, after removing expired entries for a bounded time.
    pub async fn swept_totals(&self, namespace: &Namespace) -> Result<Totals, Error> {
        let started = Moment::now();
        // If very many entries expired at once, the totals say how many of them are still counted.
        while self.sweep(namespace, 0, EvictionPolicy::None).await.map_err(Error::of_a_read)?.has_more
            && Moment::now().since(started) < SWEEP_FOR_TOTALS
        {}
        self.totals(namespace).await
    }
}
