//! Limits the operations in flight on one shard: operations above the limit are refused, they do not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts the operations in flight.
pub struct InFlight {
    count: AtomicUsize,
    most: usize,
}

/// The place of one operation in flight; dropping it frees the place.
#[must_use]
pub struct Place(Arc<InFlight>);

impl InFlight {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), most })
    }

    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Takes a place, if one is free.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        // If no place is free, `place` is dropped, which decrements the count again.
        let place = Place(self.clone());
        (self.count.fetch_add(1, Relaxed) < self.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_above_the_limit_are_refused() {
        let in_flight = InFlight::new(2);
        let (first, second) = (in_flight.enter(), in_flight.enter());
        assert!(first.is_some() && second.is_some() && in_flight.enter().is_none());
        assert_eq!(in_flight.count(), 2, "one that was refused takes no place");
        drop(first);
        assert!(in_flight.enter().is_some());
    }
}
