//! The signal that tells all connections to end when the process stops.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Tells connections to end.
#[derive(Clone, Default)]
pub struct ShutdownSignal {
    token: CancellationToken,
    /// A copy of the token's state. The token has a lock, and all connections would contend for it at every step.
    is_given: Arc<AtomicBool>,
}

impl ShutdownSignal {
    pub fn give(&self) {
        // Set the copy first, so that a task that the token wakes sees it.
        self.is_given.store(true, Relaxed);
        self.token.cancel();
    }

    /// The receiving side of the signal, for one connection.
    pub fn closing(&self) -> ShutdownReceiver {
        ShutdownReceiver {
            is_given: self.is_given.clone(),
            is_waited_for: false,
            given: Box::pin(self.token.clone().cancelled_owned()),
        }
    }
}

/// The receiving side of [`ShutdownSignal`]. Poll it from one task only: the waker of the first poll is kept.
pub struct ShutdownReceiver {
    is_given: Arc<AtomicBool>,
    is_waited_for: bool,
    given: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl ShutdownReceiver {
    pub fn is_given(&self) -> bool {
        self.is_given.load(Relaxed)
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_given() {
            return Poll::Ready(());
        }
        if self.is_waited_for {
            return Poll::Pending;
        }
        self.is_waited_for = true;
        self.given.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn a_waiting_task_is_woken_and_a_later_one_does_not_wait() {
        let signal = ShutdownSignal::default();
        let mut closing = signal.closing();
        let waiting = tokio::spawn(async move {
            assert!(poll_fn(|cx| Poll::Ready(closing.poll(cx))).await.is_pending());
            poll_fn(|cx| closing.poll(cx)).await;
        });
        tokio::task::yield_now().await;
        signal.give();
        waiting.await.unwrap();
        let mut late = signal.closing();
        poll_fn(|cx| late.poll(cx)).await;
    }
}
