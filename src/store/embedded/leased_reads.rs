//! Reads that ask for a lease, and leases that are given up.

use std::time::Duration;

use super::leases::LeaseState;
use super::space::Space;
use crate::clock::{Moment, unix_millis};
use crate::model::{Entry, EntryKey, LeaseToken, WantedLease};
use crate::store::{Grant, Leased};

impl Space {
    /// Reads an entry. If the key has no entry, or one that counts as missing or should be refreshed, gives a lease on
    /// the key.
    pub fn get_or_lease(&self, wanted: &WantedLease, lease: Duration) -> Leased {
        let WantedLease { key, token, beyond, refresh_after } = wanted;
        let (now, today) = (Moment::now(), unix_millis());
        self.change(|inner| {
            let found = inner.access(key, now, usize::MAX).flatten().map(|item| item.entry(now));
            let entry = found.filter(|entry| entry.is_answerable() && *beyond != Some(entry.version));
            let refresh_in = |entry: &Entry| refresh_after.and_then(|part| entry.refresh_in(part, today));
            let lease = match entry.as_ref().map(refresh_in) {
                None | Some(Some(Duration::ZERO)) => inner.leases.grant(key, token, lease, now),
                Some(left) => Grant::NotDue { left },
            };
            Leased { entry, lease }
        })
    }

    /// Ends a lease without a value; returns whether it stood.
    pub fn release(&self, key: &EntryKey, token: &LeaseToken) -> bool {
        let now = Moment::now();
        self.change(|inner| {
            let stands = inner.leases.state(key, token, now) == LeaseState::Stands;
            if stands {
                inner.leases.end(key);
            }
            stands
        })
    }

    /// Ends all leases.
    pub fn end_leases(&self) {
        self.change(|inner| inner.leases.end_all());
    }
}
