//! Marking entries as stale.

use super::entries::Entries;
use super::space::{Space, check};
use crate::clock::Moment;
use crate::model::{EntryKey, Extra, Preconditions};
use crate::store::{Error, Removal, Windows};

impl Space {
    /// Ends the freshness of an entry, or deletes it if it has no window; returns whether it was alive.
    ///
    /// # Errors
    /// A precondition is not met.
    pub fn mark(
        &self,
        key: &EntryKey,
        preconditions: Option<&Preconditions>,
        removal: Removal,
    ) -> Result<bool, Error> {
        let now = Moment::now();
        self.change(|inner| {
            let was_live = inner.is_live(key, now);
            check(inner, key, preconditions, now)?;
            inner.leases.end(key);
            if !inner.mark(key, removal.windows, now) {
                inner.bury(key, now + removal.tombstone_ttl, now);
            }
            Ok(was_live)
        })
    }
}

impl Entries {
    /// Ends the freshness of an entry and shortens its life to its window. Returns false if there is no such entry,
    /// or if it has no window and must be deleted.
    pub(super) fn mark(&mut self, key: &EntryKey, windows: Option<Windows>, now: Moment) -> bool {
        let (Some(windows), Some(item)) = (windows, self.by_use.peek_mut(key)) else { return false };
        if item.extra.is_marked() {
            return true;
        }
        let Some((mark, window)) = windows.mark(item.extra) else { return false };
        let ends = item.expires_at.map_or(now, |expires_at| expires_at.min(now));
        let goes = item.goes_at.map_or(now + window, |goes_at| goes_at.min(now + window));
        if let Some(goes_at) = item.goes_at {
            self.expiries.remove(&(goes_at, item.birth));
        }
        self.expiries.insert((goes, item.birth));
        (item.expires_at, item.goes_at) = (Some(ends), Some(goes));
        item.extra = Extra::new(item.extra.kind, mark, goes.since(ends));
        true
    }
}
