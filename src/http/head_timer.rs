//! Ends a connection on which no request comes: one that is idle for too long, and one whose request has begun and
//! whose head does not become whole in time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::clock::Moment;
use crate::config::HttpConfig;

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct HeadTimeouts {
    /// From the first byte of a head to its last, and from the beginning of a connection to its first head.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
}

impl From<&HttpConfig> for HeadTimeouts {
    fn from(config: &HttpConfig) -> Self {
        Self { header: config.header_timeout, idle: config.idle_timeout }
    }
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Nothing of a request has come.
    Request,
    /// A part of a head has come.
    RestOfHead,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    FirstRequest,
    NextRequest,
    RestOfHead,
}

/// The time of one connection.
#[derive(Debug)]
pub struct HeadTimer {
    timeouts: HeadTimeouts,
    awaited: Awaited,
    since: Moment,
    /// Made when there is something to wait for. It may ring too early, and is then set anew.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl HeadTimer {
    /// For a connection that was accepted now.
    pub fn new(timeouts: HeadTimeouts) -> Self {
        Self { timeouts, awaited: Awaited::FirstRequest, since: Moment::now(), alarm: None }
    }

    /// Notes that a request was answered, or that its answer is still being read: the next one is awaited from `now` on.
    pub fn await_request(&mut self, now: Moment) {
        (self.awaited, self.since) = (Awaited::NextRequest, now);
    }

    /// Notes that a part of a head is there.
    pub fn await_rest_of_head(&mut self) {
        if self.awaited != Awaited::RestOfHead {
            // The alarm may be set to the end of the idle time, which is later.
            (self.awaited, self.since, self.alarm) = (Awaited::RestOfHead, Moment::now(), None);
        }
    }

    /// Ready when it took too long.
    pub fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        let (timeout, overdue) = match self.awaited {
            Awaited::FirstRequest => (self.timeouts.header, Overdue::Request),
            Awaited::NextRequest => (self.timeouts.idle, Overdue::Request),
            Awaited::RestOfHead => (self.timeouts.header, Overdue::RestOfHead),
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(timeout)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            let left = timeout.saturating_sub(Moment::now().since(self.since));
            if left.is_zero() {
                return Poll::Ready(overdue);
            }
            alarm.as_mut().reset(Instant::now() + left);
        }
    }
}

/// The `Keep-Alive` of answers, by which clients know how long a connection stays open without a request; `None` where
/// that is less than a second.
pub fn keep_alive_hint(config: &HttpConfig) -> Option<String> {
    let seconds = config.idle_timeout.as_secs();
    (seconds > 0).then(|| format!("timeout={seconds}"))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const TIMEOUTS: HeadTimeouts =
        HeadTimeouts { header: Duration::from_millis(20), idle: Duration::from_millis(200) };

    /// What was overdue, and after which time.
    async fn overdue(timer: &mut HeadTimer) -> (Overdue, Duration) {
        let begun = Moment::now();
        let overdue = poll_fn(|cx| timer.poll_overdue(cx)).await;
        (overdue, Moment::now().since(begun))
    }

    #[tokio::test]
    async fn a_first_request_has_the_time_of_a_head_and_a_next_one_the_idle_time() {
        let mut timer = HeadTimer::new(TIMEOUTS);
        let (what, took) = overdue(&mut timer).await;
        assert!(what == Overdue::Request && took >= Duration::from_millis(19), "{what:?} after {took:?}");
        timer.await_request(Moment::now());
        let (what, took) = overdue(&mut timer).await;
        assert!(what == Overdue::Request && took >= Duration::from_millis(199), "{what:?} after {took:?}");
    }

    #[tokio::test]
    async fn a_head_that_begins_late_has_its_own_time() {
        let mut timer = HeadTimer::new(HeadTimeouts { idle: Duration::from_secs(3600), ..TIMEOUTS });
        timer.await_request(Moment::now());
        let waiting = tokio::time::timeout(Duration::from_millis(30), overdue(&mut timer)).await;
        assert!(waiting.is_err(), "it is not overdue: {waiting:?}");
        timer.await_rest_of_head();
        sleep(Duration::from_millis(15)).await;
        // More of the same head wins no time.
        timer.await_rest_of_head();
        let (what, took) = overdue(&mut timer).await;
        assert_eq!(what, Overdue::RestOfHead);
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}
