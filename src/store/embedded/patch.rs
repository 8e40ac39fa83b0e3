//! Changing the TTL or the tags of an entry, without its value.

use super::NAME;
use super::entries::{Entries, cost};
use super::space::{Space, check};
use crate::clock::Moment;
use crate::model::{EntryKey, Patch, Position, Quota, Tags, TtlChange, charge};
use crate::store::{Error, Patched};

impl Space {
    /// Changes the TTL or the tags of an entry; `None` if there is no live entry. Not a use of the entry. `most_bytes`
    /// is the memory of the store.
    ///
    /// # Errors
    /// A precondition is not met, or there is no room for the tags.
    pub fn patch(
        &self,
        key: &EntryKey,
        patch: &Patch,
        quota: Quota,
        most_bytes: u64,
    ) -> Result<Option<Patched>, Error> {
        let now = Moment::now();
        self.change(|inner| {
            inner.order_by(quota.eviction_policy);
            inner.is_live(key, now);
            check(inner, key, patch.preconditions.as_deref(), now)?;
            // An entry which says that there is no such thing is not changed.
            if inner.present(key).is_none() {
                return Ok(None);
            }
            if let Some(tags) = &patch.tags {
                inner.retag(key, tags, quota, most_bytes, now)?;
            }
            inner.change_ttl(key, patch.ttl, now);
            let item = inner.by_use.peek(key).map(|item| (item.version, item.expires_at));
            Ok(item.map(|(version, expires_at)| Patched {
                version,
                expires_in: expires_at.map(|expires_at| expires_at.since(now)),
                // The store counts the change.
                position: Position::default(),
            }))
        })
    }
}

impl Entries {
    /// Replaces the tags of an entry, after making room if there are more bytes of them than before.
    fn retag(
        &mut self,
        key: &EntryKey,
        tags: &Tags,
        quota: Quota,
        most_bytes: u64,
        now: Moment,
    ) -> Result<(), Error> {
        let Some(item) = self.by_use.peek(key) else { return Ok(()) };
        let before = item.charged(key);
        let after = charge(key.key().len(), tags.joined_len(), item.value.len());
        if after > before {
            if cost(key, after) > most_bytes {
                return Err(Error::Full { shard: NAME.to_owned() });
            }
            if !self.make_room(key, after, quota, now) {
                return Err(Error::QuotaUsedUp);
            }
        }
        if let Some(item) = self.by_use.peek_mut(key) {
            item.tags = tags.clone();
            self.cost = self.cost - before + after;
            self.totals.charged = self.totals.charged - before + after;
        }
        Ok(())
    }

    /// Changes when the freshness of an entry ends. Its grace stays. If its freshness was ended before its time, it
    /// stays ended, and the entry can only go earlier than it would.
    fn change_ttl(&mut self, key: &EntryKey, ttl: TtlChange, now: Moment) {
        let Some(item) = self.by_use.peek_mut(key) else { return };
        let end = match ttl {
            TtlChange::Keep => return,
            TtlChange::To(ttl) => Some(now + ttl.as_duration()),
            TtlChange::Never => None,
        };
        if let Some(before) = item.goes_at {
            self.expiries.remove(&(before, item.birth));
        }
        if item.extra.is_marked() {
            item.goes_at = item.goes_at.map(|goes_at| end.map_or(goes_at, |end| end.min(goes_at)));
        } else {
            item.expires_at = end;
            item.goes_at = end.map(|end| end + item.extra.grace());
        }
        if let Some(after) = item.goes_at {
            self.expiries.insert((after, item.birth));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EtagList, EvictionPolicy, Kind, Mark, Preconditions, Selection, Tag, Ttl, Version, Write};
    use crate::store::Removal;
    use bytes::Bytes;
    use std::num::NonZeroU64;
    use std::time::Duration;

    fn key(i: usize) -> EntryKey {
        EntryKey::parse("n", &format!("key_{i}")).unwrap()
    }

    fn tags(names: &[&str]) -> Tags {
        Tags::parse(names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
    }

    fn seconds(seconds: u64) -> TtlChange {
        TtlChange::To(Ttl::from_seconds(seconds).unwrap())
    }

    fn filled(count: usize) -> Space {
        let space = Space::default();
        for i in 0..count {
            let write = Write { value: Bytes::from_static(b"1"), tags: tags(&["old"]), ..Write::default() };
            space.set(&key(i), write, Quota::default()).unwrap();
        }
        space
    }

    fn patch(space: &Space, i: usize, patch: &Patch) -> Result<Option<Patched>, Error> {
        space.patch(&key(i), patch, Quota::default(), u64::MAX)
    }

    #[test]
    fn the_time_to_live_changes_and_the_version_stays() {
        let space = filled(2);
        let version = space.last_version();
        for (ttl, expected) in [
            (seconds(10), Some(10)),
            (seconds(5), Some(5)),
            (TtlChange::Never, None),
            (TtlChange::Keep, None),
            (seconds(100), Some(100)),
        ] {
            let expires_in = expected.map(Duration::from_secs);
            let patched = patch(&space, 1, &Patch { ttl, ..Patch::default() }).unwrap();
            assert_eq!(patched, Some(Patched { version, expires_in, position: Position::default() }), "{ttl:?}");
        }
        assert_eq!(patch(&space, 1, &Patch::default()).unwrap().unwrap().expires_in.unwrap().as_secs(), 99);
        assert_eq!(space.last_version(), version);
    }

    #[test]
    fn an_entry_expires_by_its_new_time() {
        let space = filled(2);
        patch(&space, 0, &Patch { ttl: seconds(1), ..Patch::default() }).unwrap();
        patch(&space, 1, &Patch { ttl: seconds(1), ..Patch::default() }).unwrap();
        patch(&space, 1, &Patch { ttl: seconds(60), ..Patch::default() }).unwrap();
        std::thread::sleep(Duration::from_millis(1_010));
        assert_eq!(space.sweep(10, None), 1);
        let totals = space.totals();
        assert_eq!((totals.keys, totals.bytes, totals.expirations), (1, 1, 1));
        assert_eq!(patch(&space, 0, &Patch { ttl: TtlChange::Never, ..Patch::default() }).unwrap(), None);
    }

    #[test]
    fn the_grace_of_an_entry_follows_its_new_ttl() {
        let space = Space::default();
        let ten = Ttl::from_seconds(10).ok();
        let write = Write {
            value: Bytes::from_static(b"1"),
            ttl: ten,
            stale_while_revalidate: Some(Duration::from_secs(10)),
            ..Write::default()
        };
        space.set(&key(0), write, Quota::default()).unwrap();
        let ends = |space: &Space| {
            space.change(|inner| inner.by_use.peek(&key(0)).map(|item| (item.expires_at, item.goes_at)).unwrap())
        };
        patch(&space, 0, &Patch { ttl: seconds(100), ..Patch::default() }).unwrap();
        let (fresh_until, goes_at) = ends(&space);
        assert_eq!(goes_at, fresh_until.map(|end| end + Duration::from_secs(10)));
        patch(&space, 0, &Patch { ttl: TtlChange::Never, ..Patch::default() }).unwrap();
        assert_eq!(ends(&space), (None, None));
        patch(&space, 0, &Patch { ttl: seconds(100), ..Patch::default() }).unwrap();
        let marked = ends(&space);
        space.change(|inner| inner.by_use.peek_mut(&key(0)).unwrap().extra.mark = Mark::WhileRevalidating);
        for ttl in [seconds(1000), TtlChange::Never] {
            patch(&space, 0, &Patch { ttl, ..Patch::default() }).unwrap();
            assert_eq!(ends(&space), marked, "a mark is never lifted");
        }
        patch(&space, 0, &Patch { ttl: seconds(50), ..Patch::default() }).unwrap();
        assert_eq!(ends(&space).0, marked.0);
        assert!(ends(&space).1 < marked.1, "it may go earlier");
        let write = Write { value: Bytes::from_static(b"null"), kind: Kind::Absent, ..Write::default() };
        space.set(&key(1), write, Quota::default()).unwrap();
        assert_eq!(patch(&space, 1, &Patch { ttl: seconds(1), ..Patch::default() }), Ok(None));
    }

    #[test]
    fn new_tags_are_charged_and_found() {
        let space = filled(3);
        let (charged, cost) = (space.totals().charged, space.cost());
        patch(&space, 1, &Patch { tags: Some(tags(&["longer", "old"])), ..Patch::default() }).unwrap();
        assert_eq!((space.totals().charged, space.cost()), (charged + 7, cost + 7));
        patch(&space, 1, &Patch { tags: Some(tags(&["x"])), ..Patch::default() }).unwrap();
        assert_eq!((space.totals().charged, space.cost()), (charged - 2, cost - 2));
        let tagged = |tag| space.list(&Selection::Tagged(Tag::parse(tag).unwrap()), 0, 10, 10).0;
        assert_eq!((tagged("old").len(), tagged("x"), tagged("longer").len()), (2, vec!["key_1".to_owned()], 0));
        space.flush(&Selection::All, 0, space.last_version(), 10, Removal::deletion(Duration::ZERO));
        assert_eq!((space.totals().charged, space.cost()), (0, 0));
    }

    #[test]
    fn tags_beyond_the_quota_evict_other_entries_or_are_refused() {
        let more = Patch { tags: Some(tags(&["old", "more"])), ..Patch::default() };
        for eviction_policy in [EvictionPolicy::Lru, EvictionPolicy::Ttl, EvictionPolicy::Fifo] {
            let space = filled(3);
            let quota = Quota { max_bytes: NonZeroU64::new(space.totals().charged), eviction_policy };
            assert!(space.patch(&key(0), &more, quota, u64::MAX).unwrap().is_some(), "{eviction_policy}");
            assert_eq!((space.totals().keys, space.totals().evictions), (2, 1), "{eviction_policy}");
        }
        let space = filled(3);
        let before = space.totals();
        let quota = Quota { max_bytes: NonZeroU64::new(before.charged), eviction_policy: EvictionPolicy::None };
        assert_eq!(space.patch(&key(0), &more, quota, u64::MAX), Err(Error::QuotaUsedUp));
        let full = space.patch(&key(0), &more, Quota::default(), 399);
        assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
        assert_eq!(space.totals(), before);
    }

    #[test]
    fn preconditions_decide_before_anything_changes() {
        let space = filled(1);
        let preconditions =
            Preconditions { if_match: Some(EtagList::Listed(vec![Version(1)])), ..Default::default() };
        let change = Patch { ttl: seconds(1), preconditions: Some(Box::new(preconditions)), ..Patch::default() };
        let present = Some(space.last_version());
        assert_eq!(patch(&space, 0, &change), Err(Error::PreconditionFailed { present }));
        assert_eq!(patch(&space, 1, &change), Err(Error::PreconditionFailed { present: None }));
        assert_eq!(patch(&space, 0, &Patch::default()).unwrap().unwrap().expires_in, None);
    }
}
