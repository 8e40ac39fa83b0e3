//! A page of a listing, merged from all shards.
//!
//! A key has the same place on every shard, and keys are listed by place and name. So a cursor names a place and no
//! shard: it means the same to every instance, whatever the order of the shards in its setting.

use futures_util::future::try_join_all;

use super::place::PLACES;
use super::verbs::Index;
use super::{Cursor, Error, Redis};
use crate::model::{Namespace, Selection};

/// Keys that one script gives at most, about.
const LISTED_PER_SCRIPT: usize = 250;

/// Steps taken for one page before it is given as it is, with a cursor: few of the keys may match.
const STEPS_PER_PAGE: usize = 20;

impl Redis {
    /// Up to `limit` live keys behind `cursor`, and where to go on; `None` at the end.
    pub(super) async fn page(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        mut cursor: Cursor,
        limit: usize,
    ) -> Result<(Vec<String>, Option<Cursor>), Error> {
        let mut keys = Vec::new();
        for _ in 0..STEPS_PER_PAGE {
            let room = limit - keys.len();
            if room == 0 || cursor.place >= PLACES {
                break;
            }
            let count = match selection {
                Selection::Matching(_) => selection.step(LISTED_PER_SCRIPT),
                // A little more than the shard's part, as parts differ.
                Selection::All | Selection::Tagged(_) => {
                    (room / self.shards.len() + room / 8 + 8).min(LISTED_PER_SCRIPT)
                }
            };
            let (frontier, mut step) = self.step(namespace, selection, cursor.place, count).await?;
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
        Ok((keys, (cursor.place < PLACES).then_some(cursor)))
    }

    /// What all shards have from `place` on, each key with its place, up to the place that is answered with them.
    async fn step(
        &self,
        namespace: &Namespace,
        selection: &Selection,
        place: u64,
        count: usize,
    ) -> Result<(u64, Vec<(u64, String)>), Error> {
        let parts = self.shards.iter().map(|shard| async move {
            shard.admit()?;
            let part = shard.part(namespace, selection, place, count).await?;
            if part.index == Index::Lost {
                shard.begin_repair(namespace).await?;
            }
            let visible = shard.without_void(namespace, part.keys).await?;
            let settled = shard.belonging.settled().ok_or_else(|| shard.unsettled())?;
            let placed: Vec<_> = visible.into_iter().map(|key| (settled.place_of(&key), key)).collect();
            Ok::<_, Error>((part.next, placed))
        });
        let parts = try_join_all(parts).await?;
        let frontier = parts.iter().map(|(next, _)| *next).min().unwrap_or(PLACES);
        let keys = parts.into_iter().flat_map(|(_, keys)| keys).filter(|(place, _)| *place < frontier);
        Ok((frontier, keys.collect()))
    }
}
