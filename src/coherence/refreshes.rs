//! Entries of L1 that should be refreshed: who of this instance asks their shard for the lease, and when.
//!
//! L1 may answer a hot entry thousands of times while it is due. Only one caller at a time asks the shard, and after
//! its answer nobody does until the lease that the shard gave, here or elsewhere, has ended:
//!
//! ```text
//!  begin ──> asking ──learn──> paused until the lease ends ──> begin ...
//!              └───────── changed: the key or its lease changed ──────┘
//! ```
//!
//! A pause that is forgotten, or not kept because there are too many, costs one more question. It never gives two
//! callers the lease: the shard decides that.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::model::{EntryKey, EntryKeyHasher};

/// The most keys with a pause.
const MAX_PAUSES: usize = 10_000;

/// For how long a caller may ask before another one does.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// The pauses of all keys. Pure: callers pass the time.
#[derive(Default)]
pub struct Refreshes {
    pauses: HashMap<EntryKey, Pause, EntryKeyHasher>,
    next: u64,
}

/// Until when nobody asks about a key.
struct Pause {
    until: Moment,
    turn: Turn,
}

/// The turn of one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(u64);

impl Refreshes {
    /// Whether a caller may ask the shard about this key now.
    pub fn may_begin(&self, key: &EntryKey, now: Moment) -> bool {
        self.pauses.get(key).is_none_or(|pause| pause.until <= now)
    }

    /// The right to ask the shard about this key now; `None` if another caller asks, or if the pause is not over.
    pub fn begin(&mut self, key: &EntryKey, now: Moment) -> Option<Turn> {
        if !self.may_begin(key, now) {
            return None;
        }
        let turn = Turn(self.next);
        self.next += 1;
        if self.pauses.len() >= MAX_PAUSES {
            self.pauses.retain(|_, pause| pause.until > now);
        }
        if self.pauses.len() < MAX_PAUSES || self.pauses.contains_key(key) {
            self.pauses.insert(key.clone(), Pause { until: now + LONGEST_TURN, turn });
        }
        Some(turn)
    }

    /// The shard has answered: until this moment it gives no other caller the lease. An answer from before the last
    /// change of the key says nothing.
    pub fn learn(&mut self, key: &EntryKey, turn: Turn, until: Moment) {
        if let Some(pause) = self.pauses.get_mut(key).filter(|pause| pause.turn == turn) {
            pause.until = until;
        }
    }

    /// The key or its lease changed, so the next caller may ask.
    pub fn changed(&mut self, key: &EntryKey) {
        self.pauses.remove(key);
    }

    /// Any key may have changed.
    pub fn all_changed(&mut self) {
        self.pauses.clear();
    }

    pub fn len(&self) -> usize {
        self.pauses.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: usize) -> EntryKey {
        EntryKey::parse("n", &format!("key_{i}")).unwrap()
    }

    fn later(seconds: u64) -> Moment {
        Moment::from_nanos(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn one_caller_asks_and_nobody_until_the_lease_ends() {
        let mut refreshes = Refreshes::default();
        let turn = refreshes.begin(&key(1), later(0)).unwrap();
        assert_eq!(refreshes.begin(&key(1), later(0)), None, "another caller asks");
        assert!(refreshes.begin(&key(2), later(0)).is_some(), "another key");
        refreshes.learn(&key(1), turn, later(10));
        assert_eq!(refreshes.begin(&key(1), later(9)), None);
        assert!(refreshes.begin(&key(1), later(10)).is_some());
    }

    #[test]
    fn a_caller_that_is_gone_holds_nobody_up_for_long() {
        let mut refreshes = Refreshes::default();
        refreshes.begin(&key(1), later(0)).unwrap();
        assert!(refreshes.begin(&key(1), later(1)).is_some());
    }

    #[test]
    fn a_change_ends_the_pause_and_makes_answers_on_their_way_worthless() {
        let mut refreshes = Refreshes::default();
        let early = refreshes.begin(&key(1), later(0)).unwrap();
        refreshes.changed(&key(1));
        let next = refreshes.begin(&key(1), later(0)).unwrap();
        refreshes.learn(&key(1), early, later(60));
        refreshes.learn(&key(1), next, later(5));
        assert!(refreshes.begin(&key(1), later(5)).is_some(), "the early answer was from before the change");
        refreshes.all_changed();
        assert!(refreshes.begin(&key(1), later(5)).is_some());
    }

    #[test]
    fn the_number_of_pauses_is_limited() {
        let mut refreshes = Refreshes::default();
        for i in 0..=MAX_PAUSES {
            assert!(refreshes.begin(&key(i), later(0)).is_some(), "{i}");
        }
        assert_eq!(refreshes.len(), MAX_PAUSES);
        assert!(refreshes.begin(&key(MAX_PAUSES), later(0)).is_some(), "without a pause it may ask again");
        assert!(refreshes.begin(&key(MAX_PAUSES), later(1)).is_some());
        assert_eq!(refreshes.len(), 1, "pauses that are over make room");
    }
}
