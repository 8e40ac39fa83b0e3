//! A client's connection, together with the bytes that were read but not used yet, and with a timer. The timer detects
//! that the connection must be ended, because it is idle for too long, or because the head of a request does not
//! arrive completely in time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_io_timeout::TimeoutStream;

use crate::clock::Moment;
use crate::config::HttpConfig;

pub struct Wire {
    /// A write fails if the client does not read for too long.
    pub stream: Pin<Box<TimeoutStream<TcpStream>>>,
    /// Bytes that were read but not used yet.
    pub input: Vec<u8>,
    /// Bytes that must be written before anything else.
    pub output: Vec<u8>,
    /// Fires if no request arrives in time.
    pub timer: HeadTimer,
}

impl Wire {
    /// `write_timeout` is how long a write may make no progress.
    pub fn new(stream: TcpStream, write_timeout: Duration, timeouts: HeadTimeouts) -> Self {
        let mut stream = Box::pin(TimeoutStream::new(stream));
        // A client that does not read its response must not hold the connection forever.
        stream.as_mut().set_write_timeout_pinned(Some(write_timeout));
        Self { stream, input: Vec::new(), output: Vec::new(), timer: HeadTimer::new(timeouts) }
    }

    /// Reads into `buffer`; 0 bytes at the end of the connection.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.stream.as_mut().poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Whether the client has closed its sending side, or the connection is broken. Unread bytes hide both.
    pub fn is_client_gone(&self, cx: &mut Context<'_>) -> bool {
        match self.stream.get_ref().poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
            Poll::Ready(peeked) => peeked.map_or(true, |bytes| bytes == 0),
            Poll::Pending => false,
        }
    }

    /// Writes `bytes`. The part that the system does not accept now is kept in `output`, which must be empty before.
    pub fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(self.output.is_empty(), "earlier output must be written first");
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.as_mut().poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => rest = &rest[written..],
                Poll::Pending => {
                    self.output.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes the rest of `output`.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `output` is seldom needed, so it is not kept as a buffer: an idle connection should hold little memory.
        let output = std::mem::take(&mut self.output);
        self.write(cx, &output)?;
        if self.output.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// How long a connection may take to send a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadTimeouts {
    /// From the first byte of a head to its last, and from the start of the connection to the first request.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
}

impl From<&HttpConfig> for HeadTimeouts {
    fn from(config: &HttpConfig) -> Self {
        Self { header: config.header_timeout, idle: config.idle_timeout }
    }
}

/// What a connection waits for, and what did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The first byte of a request.
    Request,
    /// The rest of a head of which a part has arrived.
    RestOfHead,
}

/// The timer of one connection.
#[derive(Debug)]
pub struct HeadTimer {
    timeouts: HeadTimeouts,
    awaited: Awaited,
    since: Moment,
    /// How long to wait from `since` on.
    timeout: Duration,
    /// Created when the connection has to wait. It can fire too early; then it is set again.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl HeadTimer {
    /// A timer for a connection that was just accepted.
    pub fn new(timeouts: HeadTimeouts) -> Self {
        Self { timeouts, awaited: Awaited::Request, since: Moment::now(), timeout: timeouts.header, alarm: None }
    }

    /// Call this when a request was answered, and while the client still reads the response. The idle time starts at
    /// `now`.
    pub fn await_request(&mut self, now: Moment) {
        (self.awaited, self.since, self.timeout) = (Awaited::Request, now, self.timeouts.idle);
    }

    /// Call this when a part of a head has arrived.
    pub fn await_rest_of_head(&mut self) {
        if self.awaited != Awaited::RestOfHead {
            (self.awaited, self.since, self.timeout) = (Awaited::RestOfHead, Moment::now(), self.timeouts.header);
            // The alarm may be set to the end of the idle time, which would be too late.
            self.alarm = None;
        }
    }

    /// Ready when the time is over.
    pub fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Awaited> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(self.timeout)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            let left = self.timeout.saturating_sub(Moment::now().since(self.since));
            if left.is_zero() {
                return Poll::Ready(self.awaited);
            }
            alarm.as_mut().reset(Instant::now() + left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const TIMEOUTS: HeadTimeouts =
        HeadTimeouts { header: Duration::from_millis(20), idle: Duration::from_millis(200) };

    /// Returns what was overdue, and after which time.
    async fn overdue(timer: &mut HeadTimer) -> (Awaited, Duration) {
        let begun = Moment::now();
        let overdue = poll_fn(|cx| timer.poll_overdue(cx)).await;
        (overdue, Moment::now().since(begun))
    }

    #[tokio::test]
    async fn the_first_request_has_the_header_timeout_and_the_next_one_the_idle_timeout() {
        let mut timer = HeadTimer::new(TIMEOUTS);
        let (what, took) = overdue(&mut timer).await;
        assert!(what == Awaited::Request && took >= Duration::from_millis(19), "{what:?} after {took:?}");
        timer.await_request(Moment::now());
        let (what, took) = overdue(&mut timer).await;
        assert!(what == Awaited::Request && took >= Duration::from_millis(199), "{what:?} after {took:?}");
    }

    #[tokio::test]
    async fn a_head_has_its_own_timeout_however_late_it_begins() {
        let mut timer = HeadTimer::new(HeadTimeouts { idle: Duration::from_secs(3600), ..TIMEOUTS });
        timer.await_request(Moment::now());
        let waiting = tokio::time::timeout(Duration::from_millis(30), overdue(&mut timer)).await;
        assert!(waiting.is_err(), "the connection is not overdue: {waiting:?}");
        timer.await_rest_of_head();
        sleep(Duration::from_millis(15)).await;
        // More bytes of the same head do not extend the time.
        timer.await_rest_of_head();
        let (what, took) = overdue(&mut timer).await;
        assert_eq!(what, Awaited::RestOfHead);
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}
