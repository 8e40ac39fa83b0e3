//! Callers that must hear when a key changes: they wait for its value, or ask for the lease to refresh its entry.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::refreshes::{Refreshes, Turn};
use crate::clock::Moment;
use crate::model::{Entry, EntryKey, EntryKeyHasher, Version};

/// The most callers that wait at the same time.
const MAX_WAITING: usize = 10_000;

/// The callers that wait for values, by key.
#[derive(Default)]
pub struct WaitingRooms {
    rooms: Mutex<HashMap<EntryKey, Arc<Room>, EntryKeyHasher>>,
    /// Callers in all rooms.
    waiting: AtomicUsize,
    refreshes: Mutex<Refreshes>,
    /// Keys with a pause in `refreshes`.
    paused: AtomicUsize,
}

/// The callers of this instance that ask for a lease on one key.
#[derive(Default)]
pub struct Room {
    changed: Notify,
    /// The callers in the room. Changes under the lock of the map.
    callers: AtomicUsize,
    /// How often the key changed.
    changes: AtomicU64,
    /// Locked by the caller that asks the store. The latest answer of the store.
    pub turn: tokio::sync::Mutex<Option<LastAnswer>>,
}

/// An answer of the store to one caller, for the others in the room.
#[derive(Clone)]
pub struct LastAnswer {
    /// When the store was asked.
    pub asked: Moment,
    /// The value of [`Room::changes`] before the store was asked.
    pub changes: u64,
    /// The version of the entry that counted as missing for the caller that asked; `None` if the caller wanted any
    /// entry.
    pub beyond: Option<Version>,
    pub answer: SharedAnswer,
}

/// What the store said about a key.
#[derive(Clone)]
pub enum SharedAnswer {
    Entry(Entry),
    /// There is no entry, and a caller has the lease; perhaps the caller that asked.
    Held {
        until: Moment,
    },
    /// There is no entry, and the store gives no lease at present.
    NotGiven,
}

/// A caller in a room; leaves it when dropped.
pub struct Place<'r> {
    rooms: &'r WaitingRooms,
    key: &'r EntryKey,
    room: Arc<Room>,
}

impl WaitingRooms {
    /// Wakes the callers that wait for `key`, because it changed. Cheap if nobody waits.
    pub fn changed(&self, key: &EntryKey) {
        if self.paused.load(Ordering::Acquire) > 0 {
            self.change_refreshes(|refreshes| refreshes.changed(key));
        }
        if self.waiting.load(Ordering::Acquire) > 0
            && let Some(room) = self.rooms.lock().get(key)
        {
            room.wake();
        }
    }

    /// Wakes all callers, because any key may have changed.
    pub fn all_changed(&self) {
        if self.paused.load(Ordering::Acquire) > 0 {
            self.change_refreshes(Refreshes::all_changed);
        }
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.rooms.lock().values().for_each(|room| room.wake());
        }
    }

    /// Whether a caller would get the right that [`WaitingRooms::begin_turn`] gives.
    pub fn may_begin_turn(&self, key: &EntryKey, now: Moment) -> bool {
        self.refreshes.lock().may_begin(key, now)
    }

    /// The right to ask the shard for the lease of an entry that should be refreshed, see [`Refreshes::begin`].
    pub fn begin_turn(&self, key: &EntryKey, now: Moment) -> Option<Turn> {
        self.change_refreshes(|refreshes| refreshes.begin(key, now))
    }

    /// The shard has answered, see [`Refreshes::learn`].
    pub fn learn(&self, key: &EntryKey, turn: Turn, until: Moment) {
        self.change_refreshes(|refreshes| refreshes.learn(key, turn, until));
    }

    fn change_refreshes<T>(&self, change: impl FnOnce(&mut Refreshes) -> T) -> T {
        let mut refreshes = self.refreshes.lock();
        let result = change(&mut refreshes);
        self.paused.store(refreshes.len(), Ordering::Release);
        result
    }

    /// Enters the room of a key; `None` if too many callers wait.
    pub fn enter<'r>(&'r self, key: &'r EntryKey) -> Option<Place<'r>> {
        let mut rooms = self.rooms.lock();
        if self.waiting.load(Ordering::Acquire) >= MAX_WAITING {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let room = rooms.entry(key.clone()).or_default().clone();
        room.callers.fetch_add(1, Ordering::AcqRel);
        Some(Place { rooms: self, key, room })
    }
}

impl Place<'_> {
    pub fn room(&self) -> &Room {
        &self.room
    }
}

impl Room {
    /// How often the key changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Completes at the next change.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn wake(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut rooms = self.rooms.rooms.lock();
        if self.room.callers.fetch_sub(1, Ordering::AcqRel) == 1 {
            rooms.remove(self.key);
        }
        self.rooms.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_removed_with_its_last_caller() {
        let (rooms, key) = (WaitingRooms::default(), EntryKey::parse("n", "k").unwrap());
        let (first, second) = (rooms.enter(&key).unwrap(), rooms.enter(&key).unwrap());
        assert_eq!(first.room().changes(), 0);
        rooms.changed(&key);
        assert_eq!((first.room().changes(), second.room().changes()), (1, 1), "they are in the same room");
        drop(first);
        assert_eq!(rooms.rooms.lock().len(), 1);
        drop(second);
        assert!(rooms.rooms.lock().is_empty());
        assert_eq!(rooms.enter(&key).unwrap().room().changes(), 0, "the next room is a new one");
    }

    #[test]
    fn the_number_of_callers_is_limited() {
        let (rooms, key) = (WaitingRooms::default(), EntryKey::parse("n", "k").unwrap());
        let places: Vec<_> = (0..MAX_WAITING).map(|_| rooms.enter(&key).unwrap()).collect();
        assert!(rooms.enter(&key).is_none());
        drop(places);
        assert!(rooms.enter(&key).is_some());
    }
}
