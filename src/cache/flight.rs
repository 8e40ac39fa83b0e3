//! Coalescing: concurrent misses of one key share one read of the store, called a flight.
//!
//! A flight is a shared future. Every request that waits for it also polls it, so the others still get their answer
//! when the first request is cancelled. A request joins a flight only if the key's fence is the same as at the start
//! of the flight. A flight that started before a write was acknowledged here may return the value from before the
//! write, and a request that comes after the acknowledgement must not get that value.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use crate::clock::Moment;
use crate::l1::{Fence, Stamp};
use crate::model::{Entry, EntryKey, EntryKeyHasher};
use crate::store::Error;

/// The result of a flight.
pub type FlightResult = Result<Option<Entry>, Error>;

/// The state of a key's fence and shard epoch when its flight started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    pub fence: Fence,
    pub stamp: Stamp,
}

/// Whether a request started the flight or joined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
}

type Open = Mutex<HashMap<EntryKey, Flight, EntryKeyHasher>>;

/// The running flights.
pub struct Flights {
    open: Arc<Open>,
    next_id: AtomicU64,
    /// Flights that are older than this are not joined: the value may be as old as the start of the flight. A flight
    /// can get old if the process was paused.
    max_age: Duration,
}

struct Flight {
    departure: Departure,
    /// Unique among all flights.
    id: u64,
    took_off: Moment,
    landed: WeakShared<BoxFuture<'static, FlightResult>>,
}

/// Removes a flight from the list when it ends or when no request waits for it any more.
struct RemoveOnDrop {
    open: Arc<Open>,
    key: EntryKey,
    id: u64,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if open.get(&self.key).is_some_and(|flight| flight.id == self.id) {
            open.remove(&self.key);
        }
    }
}

impl Flights {
    /// An empty list. Flights older than `max_age` are not joined.
    pub fn new(max_age: Duration) -> Self {
        Self { open: Arc::default(), next_id: AtomicU64::new(0), max_age }
    }

    /// Joins the flight of `key` with the same `departure` if it started less than `max_age` ago, or starts one that
    /// runs `load`. A flight older than the limit of [`Flights::new`] is never joined.
    pub fn join<F>(
        &self,
        key: &EntryKey,
        departure: Departure,
        max_age: Duration,
        load: impl FnOnce() -> F,
    ) -> (Shared<BoxFuture<'static, FlightResult>>, Role)
    where
        F: Future<Output = FlightResult> + Send + 'static,
    {
        let now = Moment::now();
        let mut open = self.open.lock();
        let max_age = max_age.min(self.max_age);
        let joins = |flight: &&Flight| flight.departure == departure && now.since(flight.took_off) < max_age;
        if let Some(landed) = open.get(key).filter(joins).and_then(|flight| flight.landed.upgrade()) {
            return (landed, Role::Follower);
        }
        let id = self.next_id.fetch_add(1, Relaxed);
        let off_the_list = RemoveOnDrop { open: self.open.clone(), key: key.clone(), id };
        let load = load();
        let landed = async move {
            let _off_the_list = off_the_list;
            load.await
        };
        let landed = landed.boxed().shared();
        // The list holds a weak reference: a flight that no request waits for is dropped and removes itself.
        let weak = landed.downgrade().expect("the flight has not been polled");
        open.insert(key.clone(), Flight { departure, id, took_off: now, landed: weak });
        (landed, Role::Leader)
    }

    /// Keeps later requests from joining the current flight of `key`, because its result may be older than an answer
    /// that the shard has given since. Requests that already wait for the flight began before that answer.
    pub fn close(&self, key: &EntryKey) {
        self.open.lock().remove(key);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.open.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l1::L1;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::sync::oneshot;

    fn key() -> EntryKey {
        EntryKey::parse("n", "k").unwrap()
    }

    fn departure(l1: &L1) -> Departure {
        Departure { fence: l1.fence(&key()), stamp: Stamp { shard: 0, epoch: 0 } }
    }

    fn load(
        count: &Arc<AtomicUsize>,
    ) -> (oneshot::Sender<()>, impl FnOnce() -> BoxFuture<'static, FlightResult> + use<>) {
        let (release, released) = oneshot::channel::<()>();
        let count = count.clone();
        let load = move || {
            count.fetch_add(1, SeqCst);
            async move {
                let _ = released.await;
                Ok(None)
            }
            .boxed()
        };
        (release, load)
    }

    #[tokio::test]
    async fn followers_share_the_leaders_read_even_if_it_is_cancelled() {
        let (flights, l1, count) = (Flights::new(Duration::from_secs(60)), L1::new(0), Arc::new(AtomicUsize::new(0)));
        let (release, first) = load(&count);
        let (leader, role) = flights.join(&key(), departure(&l1), Duration::MAX, first);
        assert_eq!(role, Role::Leader);
        let (_unused, second) = load(&count);
        let (follower, role) = flights.join(&key(), departure(&l1), Duration::MAX, second);
        assert_eq!(role, Role::Follower);
        drop(leader);
        release.send(()).unwrap();
        assert_eq!(follower.await, Ok(None));
        assert_eq!(count.load(SeqCst), 1);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn nobody_joins_a_flight_from_before_a_write() {
        let (flights, l1, count) = (Flights::new(Duration::from_secs(60)), L1::new(0), Arc::new(AtomicUsize::new(0)));
        let (_hold, first) = load(&count);
        let (old, _) = flights.join(&key(), departure(&l1), Duration::MAX, first);
        l1.void(&key());
        let (release, second) = load(&count);
        let (new, role) = flights.join(&key(), departure(&l1), Duration::MAX, second);
        assert_eq!(role, Role::Leader);
        drop(old);
        assert!(!flights.is_empty(), "the old flight takes only itself off the list");
        release.send(()).unwrap();
        assert_eq!(new.await, Ok(None));
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn regression_nobody_joins_a_flight_behind_a_later_answer() {
        // During the flight a batch read was answered, but its value could not be kept in L1. A later read that
        // joined the flight would have got an older value than the batch read.
        let (flights, l1, count) = (Flights::new(Duration::from_secs(60)), L1::new(0), Arc::new(AtomicUsize::new(0)));
        let (release, first) = load(&count);
        let (early, _) = flights.join(&key(), departure(&l1), Duration::MAX, first);
        flights.close(&key());
        let (_hold, second) = load(&count);
        let (_late, role) = flights.join(&key(), departure(&l1), Duration::MAX, second);
        assert_eq!(role, Role::Leader);
        release.send(()).unwrap();
        assert_eq!(early.await, Ok(None));
        assert!(!flights.is_empty(), "a flight takes only itself off the list");
    }

    #[tokio::test]
    async fn nobody_joins_a_flight_that_is_too_old() {
        let (flights, l1, count) = (Flights::new(Duration::ZERO), L1::new(0), Arc::new(AtomicUsize::new(0)));
        let (_hold, first) = load(&count);
        let (_old, _) = flights.join(&key(), departure(&l1), Duration::MAX, first);
        let (_release, second) = load(&count);
        let (_new, role) = flights.join(&key(), departure(&l1), Duration::MAX, second);
        assert_eq!(role, Role::Leader);
    }

    #[tokio::test]
    async fn a_read_joins_no_flight_that_is_too_old_for_its_terms() {
        let (flights, l1, count) = (Flights::new(Duration::from_secs(60)), L1::new(0), Arc::new(AtomicUsize::new(0)));
        let (_hold, first) = load(&count);
        let (_old, _) = flights.join(&key(), departure(&l1), Duration::MAX, first);
        let (_release, second) = load(&count);
        let (_new, role) = flights.join(&key(), departure(&l1), Duration::ZERO, second);
        assert_eq!(role, Role::Leader);
    }

    #[tokio::test]
    async fn a_flight_that_everybody_left_is_gone() {
        let (flights, l1, count) = (Flights::new(Duration::from_secs(60)), L1::new(0), Arc::new(AtomicUsize::new(0)));
        let (_hold, first) = load(&count);
        let (flight, _) = flights.join(&key(), departure(&l1), Duration::MAX, first);
        drop(flight);
        assert!(flights.is_empty());
    }
}
