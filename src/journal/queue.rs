//! The queue of a journal. Each worker has its own part, so that workers do not wait for each other.
//!
//! The number of records in all parts together is bounded. A part reserves several free places at a time, so that the
//! shared counter is not touched for every record.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::workers::PerWorker;

/// The maximum number of places that a part reserves at a time.
const MAX_PLACES: usize = 64;

pub(super) struct Queue<R> {
    parts: PerWorker<Mutex<Part<R>>>,
    /// Places that no part has reserved.
    free: AtomicUsize,
    /// Places that a part reserves at a time.
    step: usize,
    /// Checked under the lock of a part.
    is_closed: AtomicBool,
    /// Wakes the writer.
    news: Notify,
    /// The number of calls of `take`. Each call starts one part further than the call before, so that no part starves.
    takes: AtomicUsize,
}

struct Part<R> {
    records: Vec<R>,
    /// Reserved places that are still free.
    places: usize,
}

impl<R> Default for Part<R> {
    fn default() -> Self {
        Self { records: Vec::new(), places: 0 }
    }
}

impl<R> Queue<R> {
    /// A queue of at most `capacity` records.
    pub fn new(capacity: usize) -> Self {
        Self {
            parts: PerWorker::default(),
            free: AtomicUsize::new(capacity),
            step: (capacity / 64).clamp(1, MAX_PLACES),
            is_closed: AtomicBool::new(false),
            news: Notify::new(),
            takes: AtomicUsize::new(0),
        }
    }

    /// Queues a record. Returns false if the queue is full or closed.
    pub fn leave(&self, record: R) -> bool {
        let mut part = self.parts.own().lock();
        if self.is_closed.load(Relaxed) || (part.places == 0 && !self.take_places(&mut part)) {
            return false;
        }
        part.places -= 1;
        part.records.push(record);
        // The first record starts the waiting time of a batch; after that the writer is woken once for every `step`
        // records.
        let is_news = part.records.len().is_multiple_of(self.step) || part.records.len() == 1;
        drop(part);
        if is_news {
            self.news.notify_one();
        }
        true
    }

    fn take_places(&self, part: &mut Part<R>) -> bool {
        let taken = |free: usize| free.checked_sub(self.step.min(free)).filter(|_| free > 0);
        let Ok(free) = self.free.fetch_update(Relaxed, Relaxed, taken) else { return false };
        part.places = self.step.min(free);
        true
    }

    /// Waits until new records may have arrived.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    pub fn len(&self) -> usize {
        self.parts.all().map(|part| part.lock().records.len()).sum()
    }

    /// Removes and returns up to `most` records.
    pub fn take(&self, most: usize) -> Vec<R> {
        let (mut taken, first) = (Vec::new(), self.takes.fetch_add(1, Relaxed));
        for i in 0..PerWorker::<Part<R>>::PARTS {
            let records = &mut self.parts.at((first.wrapping_add(i)) % PerWorker::<Part<R>>::PARTS).lock().records;
            let count = records.len().min(most - taken.len());
            taken.extend(records.drain(..count));
        }
        self.free.fetch_add(taken.len(), Relaxed);
        taken
    }

    /// Closes the queue: further records are refused.
    pub fn close(&self) {
        self.is_closed.store(true, Relaxed);
        // Taking each lock once makes sure that every record is either queued by now or will be refused.
        self.parts.all().for_each(|part| drop(part.lock()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_no_more_until_some_went() {
        for capacity in [1, 100, 5000] {
            let queue = Queue::new(capacity);
            let left = (0..capacity + 10).filter(|i| queue.leave(*i)).count();
            assert_eq!((left, queue.len()), (capacity, capacity));
            assert_eq!(queue.take(1), [0]);
            assert!(queue.leave(0) && !queue.leave(0));
            assert_eq!(queue.take(usize::MAX).len(), capacity);
            queue.close();
            assert!(!queue.leave(0) && queue.len() == 0);
        }
    }

    #[test]
    fn every_record_left_is_taken_once() {
        let queue = Queue::new(10_000);
        let mut taken = std::thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || (0..1000).for_each(|i| assert!(queue.leave(thread * 1000 + i))));
            }
            let mut taken = Vec::new();
            while taken.len() < 4000 {
                taken.extend(queue.take(77));
            }
            taken
        });
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..4000));
    }
}
