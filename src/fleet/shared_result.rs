//! A result that is computed once for all requests that come at about the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Moment;

/// The last result, and when its computation began.
pub struct SharedResult<T> {
    /// How long before the request the computation may have begun.
    fresh: Duration,
    latest: Mutex<Option<(Moment, Arc<T>)>>,
}

impl<T> SharedResult<T> {
    pub fn new(fresh: Duration) -> Self {
        Self { fresh, latest: Mutex::default() }
    }

    /// Returns the last result if it is fresh enough, otherwise computes a new one. Callers that wait during a
    /// computation reuse its result if it is fresh enough for them. If the computing caller is cancelled, the next
    /// caller computes.
    pub async fn get<F: Future<Output = T>>(&self, gather: impl FnOnce() -> F) -> Arc<T> {
        let asked_at = Moment::now();
        let mut latest = self.latest.lock().await;
        if let Some((begun_at, result)) = &*latest
            && asked_at.since(*begun_at) <= self.fresh
        {
            return result.clone();
        }
        let begun_at = Moment::now();
        let result = Arc::new(gather().await);
        *latest = Some((begun_at, result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use tokio::time::{sleep, timeout};

    #[tokio::test]
    async fn all_who_ask_at_once_share_one_result() {
        let (fresh, gathered) = (SharedResult::new(Duration::from_secs(60)), AtomicUsize::new(0));
        let gather = || async {
            sleep(Duration::from_millis(5)).await;
            gathered.fetch_add(1, Relaxed)
        };
        let all = futures_util::future::join_all((0..50).map(|_| fresh.get(gather))).await;
        assert!(all.iter().all(|result| **result == 0));
        assert_eq!(gathered.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn an_old_result_and_one_that_was_given_up_are_gathered_anew() {
        let fresh = SharedResult::new(Duration::ZERO);
        assert_eq!(*fresh.get(|| async { 1 }).await, 1);
        sleep(Duration::from_millis(1)).await;
        assert!(timeout(Duration::from_millis(1), fresh.get(std::future::pending)).await.is_err());
        assert_eq!(*fresh.get(|| async { 2 }).await, 2);
    }
}
