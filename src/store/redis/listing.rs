//! A page of a listing, over the shards one after the other.

use super::place::{self, PLACES};
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
            let Some(shard) = self.shards.get(usize::from(cursor.shard)).filter(|_| room > 0) else { break };
            let count = match selection {
                Selection::Matching(_) => selection.step(LISTED_PER_SCRIPT),
                Selection::All | Selection::Tagged(_) => room.min(LISTED_PER_SCRIPT),
            };
            let part = shard.part(namespace, selection, cursor.place, count).await?;
            let visible = shard.without_void(namespace, part.keys).await?;
            let mut step: Vec<(u64, String)> = visible.into_iter().map(|key| (place::of(&key), key)).collect();
            step.sort_unstable();
            step.retain(|(place, key)| (*place, key) > (cursor.place, &cursor.after) && selection.matches(key));
            if step.len() > room {
                step.truncate(room);
                if let Some((place, after)) = step.last().cloned() {
                    cursor = Cursor { place, after, ..cursor };
                }
            } else if part.next < PLACES {
                cursor = Cursor::at(cursor.shard, part.next);
            } else {
                cursor = Cursor::at(cursor.shard + 1, 0);
            }
            keys.extend(step.into_iter().map(|(_, key)| key));
        }
        let more = usize::from(cursor.shard) < self.shards.len();
        Ok((keys, more.then_some(cursor)))
    }
}
