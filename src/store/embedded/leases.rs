//! The leases of one namespace of the embedded store.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::model::{EntryKey, EntryKeyHasher, LeaseToken};
use crate::store::{Grant, Stored};

/// The most leases of a namespace. When all are held, a read that asks for one gets none.
const MAX_LEASES: usize = 16_384;

struct Lease {
    token: LeaseToken,
    until: Moment,
    /// The answer to the write that filled the lease.
    filled: Option<Stored>,
}

/// Whether a lease allows a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    Stands,
    /// The write is already done, with this answer.
    Filled(Stored),
    Lost,
}

#[derive(Default)]
pub struct Leases {
    by_key: HashMap<EntryKey, Lease, EntryKeyHasher>,
}

impl Leases {
    /// Gives a lease on a key, unless another caller has one.
    pub fn grant(&mut self, key: &EntryKey, token: &LeaseToken, lease: Duration, now: Moment) -> Grant {
        if let Some(held) = self.by_key.get(key).filter(|held| held.filled.is_none() && held.until > now) {
            return Grant::Held { left: held.until.since(now) };
        }
        if self.by_key.len() >= MAX_LEASES && !self.by_key.contains_key(key) {
            // A filled lease is only remembered for a write that is repeated.
            self.by_key.retain(|_, lease| lease.until > now && lease.filled.is_none());
            if self.by_key.len() >= MAX_LEASES {
                return Grant::NotGiven;
            }
        }
        self.by_key.insert(key.clone(), Lease { token: token.clone(), until: now + lease, filled: None });
        Grant::Won
    }

    pub fn state(&self, key: &EntryKey, token: &LeaseToken, now: Moment) -> LeaseState {
        match self.by_key.get(key).filter(|held| held.token == *token && held.until > now) {
            Some(Lease { filled: Some(stored), .. }) => LeaseState::Filled(*stored),
            Some(_) => LeaseState::Stands,
            None => LeaseState::Lost,
        }
    }

    /// Records that the value of a lease is stored, so that the same write can be answered again.
    pub fn fill(&mut self, key: &EntryKey, stored: Stored) {
        if let Some(lease) = self.by_key.get_mut(key) {
            lease.filled = Some(stored);
        }
    }

    /// Ends the lease on a key, because the key changed.
    pub fn end(&mut self, key: &EntryKey) {
        self.by_key.remove(key);
    }

    /// Ends all leases, because any key may have changed.
    pub fn end_all(&mut self) {
        self.by_key.clear();
    }
}
