//! A page of a listing, merged from all shards, and the totals of the shards that answer.
//!
//! A shard that does not answer is skipped for the rest of the page and reported: the keys of the other shards are
//! shown.
//!
//! A key has the same place on every shard, and keys are listed by place and name. So a cursor names a place and not
//! a shard, and means the same to every instance, whatever the order of the shards in its settings.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::place::PLACES;
use super::verbs::Index;
use super::{Cursor, Error, Redis};
use crate::model::{Namespace, Selection};
use crate::store::{KnownTotals, Page};

/// About how many keys one script returns at most.
const LISTED_PER_SCRIPT: usize = 250;

/// The most steps for one page. After that the page is returned as it is, with a cursor: perhaps few keys match.
const STEPS_PER_PAGE: usize = 20;

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
        let asked = self.shards.iter().enumerate().filter(|(index, _)| !missing.contains(index));
        let asked = asked.map(|(index, shard)| async move {
            let totals = async {
                shard.admit()?;
                shard.swept_totals(namespace).await
            };
            (index, totals.await)
        });
        let mut failed = Missing { shards: missing.clone(), errors: Vec::new() };
        let known = failed.sort_out(join_all(asked).await, self.shards.len())?;
        Ok(KnownTotals { totals: known.into_iter().sum(), failed: failed.errors })
    }

    /// The keys of all shards except the missing ones, from `place` up to the place that is returned with them. Each
    /// key comes with its place.
    async fn step(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        place: u64,
        count: usize,
        missing: &mut Missing,
    ) -> Result<(u64, Vec<(u64, String)>), Error> {
        let asked = self.shards.iter().enumerate().filter(|(index, _)| !missing.shards.contains(index));
        let asked = asked.map(|(index, shard)| async move {
            let part = async {
                shard.admit()?;
                let part = shard.part(namespace, selection, place, count).await?;
                if part.index == Index::Lost {
                    shard.begin_repair(namespace).await?;
                }
                let visible = shard.without_void(namespace, part.keys).await?;
                let settled = shard.ring_state.settled().ok_or_else(|| shard.unsettled())?;
                let placed: Vec<_> = visible.into_iter().map(|key| (settled.place_of(&key), key)).collect();
                Ok::<_, Error>((part.next, placed))
            };
            (index, part.await)
        });
        let answers = join_all(asked).await;
        let parts = missing.sort_out(answers, self.shards.len())?;
        let frontier = parts.iter().map(|(next, _)| *next).min().unwrap_or(PLACES);
        let keys = parts.into_iter().flat_map(|(_, keys)| keys).filter(|(place, _)| *place < frontier);
        Ok((frontier, keys.collect()))
    }
}

/// Shards that did not answer.
#[derive(Default)]
struct Missing {
    /// By index.
    shards: BTreeSet<usize>,
    errors: Vec<Error>,
}

impl Missing {
    /// Returns the answers, and records the shards that did not answer.
    ///
    /// # Errors
    /// None of the `all` shards answered, or a shard answered with an error.
    fn sort_out<T>(&mut self, answers: Vec<(usize, Result<T, Error>)>, all: usize) -> Result<Vec<T>, Error> {
        let mut given = Vec::with_capacity(answers.len());
        for (index, answer) in answers {
            match answer {
                Ok(answer) => given.push(answer),
                Err(error) if error.is_unanswered() && self.shards.len() + 1 < all => {
                    self.shards.insert(index);
                    self.errors.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(given)
    }
}
