//! The connection as the router's HTTP server (hyper) sees it: it contains only the requests for the router.
//!
//! When a request for the router has ended, this stream examines the next request. If that request is for the fast
//! path, hyper gets no more input, and the fast path takes the connection back.
//!
//! **The fast path gets the connection only after all responses are written.** Hyper writes a response into its
//! buffer and flushes the buffer before it reads the head of the next request. If the flush is blocked, this stream
//! gives hyper no input until a write succeeds again.
//!
//! **A lease is delivered when the response that names it is written.** The leases of a response wait here until hyper
//! flushes it. If the write fails, or the client has closed its side by then, they are given back.
//!
//! Hyper has no deadline for heads, because it cannot tell an idle connection from one on which a request has begun.
//! This stream can: a request has begun if bytes have arrived while no request is being answered. This also works
//! when hyper gets all bytes until the end of the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};

use axum::response::Response;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::delivery;
use super::fast_path::{Head, parse};
use super::hosts::Hosts;
use crate::cache::WonLease;
use crate::clock::Moment;
use crate::net::{Awaited, Wire};

/// The most bytes that the router's HTTP server (hyper) reads at a time. A connection that sent a large body keeps up
/// to twice this much memory.
pub const READ_BYTES: usize = 32 * 1024;

/// How many bytes are read at a time while the next request is examined.
const PEEKED_BYTES: usize = 4096;

/// A stream with the router's part of a connection.
pub struct RouterStream {
    wire: Wire,
    /// How many bytes hyper may still get. After them, the next request is examined. `None`: all bytes until the end
    /// of the connection.
    bytes_left: Option<u64>,
    /// Whether the next request is for the router whatever its head says, because the fast path did not answer it.
    is_refused: bool,
    /// Whether the last write was blocked.
    is_blocked: bool,
    /// The waker of a read during a blocked write. It must be woken, because hyper does not read again by itself.
    reader: Option<Waker>,
    state: StreamState,
    /// Needed to recognize requests for the fast path; absent if all requests are for the router.
    hosts: Option<Arc<Hosts>>,
    /// What did not arrive in time, if the timer ended the connection.
    overdue: Option<Awaited>,
}

/// The state of the connection, for code that has no access to the stream while hyper owns it.
#[derive(Clone, Default)]
pub struct StreamState(Arc<Flags>);

#[derive(Default)]
struct Flags {
    /// The next request is for the fast path.
    is_left: AtomicBool,
    /// A request is being answered.
    is_serving: AtomicBool,
    /// A request was answered, and the timer has not been reset yet.
    is_served: AtomicBool,
    /// The leases that responses give which are not written yet.
    leases: Mutex<Vec<WonLease>>,
}

impl StreamState {
    pub fn is_left(&self) -> bool {
        self.0.is_left.load(Relaxed)
    }

    /// Marks a request as being answered until `answer` is ready.
    pub fn serve<F, E>(&self, answer: F) -> impl Future<Output = F::Output> + use<F, E>
    where
        F: Future<Output = Result<Response, E>>,
    {
        self.0.is_serving.store(true, Relaxed);
        let flags = self.0.clone();
        async move {
            let mut answer = answer.await;
            if let Ok(response) = &mut answer {
                flags.leases.lock().extend(delivery::take(response));
            }
            flags.is_served.store(true, Relaxed);
            flags.is_serving.store(false, Relaxed);
            answer
        }
    }
}

impl RouterStream {
    /// A stream for a connection whose next request is for the router. Without `hosts`, all further requests are for
    /// the router, too.
    pub fn new(wire: Wire, hosts: Option<Arc<Hosts>>) -> Self {
        let bytes_left = hosts.is_some().then_some(0);
        Self {
            wire,
            bytes_left,
            is_refused: true,
            is_blocked: false,
            reader: None,
            state: StreamState::default(),
            hosts,
            overdue: None,
        }
    }

    pub fn state(&self) -> StreamState {
        self.state.clone()
    }

    /// Takes the connection back for the fast path.
    pub fn into_wire(self) -> Wire {
        self.wire
    }

    /// Whether the connection was ended because the head of a request did not arrive completely in time.
    pub fn is_slow(&self) -> bool {
        self.overdue == Some(Awaited::RestOfHead)
    }

    fn after_write(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
        if !self.state.0.is_serving.load(Relaxed) {
            // A client that reads a response is not idle.
            self.wire.timer.await_request(Moment::now());
        }
        if !is_blocked && let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Copies up to `most` bytes into hyper's buffer; 0 bytes at the end of the connection.
    fn poll_give(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<usize>> {
        let most = most.min(buffer.remaining());
        let input = &mut self.wire.input;
        let given = if input.is_empty() {
            let given = ready!(self.wire.poll_read(cx, buffer.initialize_unfilled_to(most)))?;
            buffer.advance(given);
            given
        } else {
            let given = most.min(input.len());
            buffer.put_slice(&input[..given]);
            input.drain(..given);
            if input.is_empty() {
                // An idle connection should hold little memory.
                *input = Vec::new();
            }
            given
        };
        Poll::Ready(Ok(given))
    }

    /// Reads and examines the next request. Ready if hyper may get more input, including the end of the connection.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(hosts) = self.hosts.as_ref().filter(|_| !self.wire.input.is_empty()) {
                match parse(&self.wire.input, &mut String::new(), hosts) {
                    Head::Partial => {}
                    Head::Router { len } => {
                        self.bytes_left = len;
                        self.is_refused = false;
                        return Poll::Ready(Ok(()));
                    }
                    Head::Entry(request) if self.is_refused => {
                        self.bytes_left = Some(request.len as u64);
                        self.is_refused = false;
                        return Poll::Ready(Ok(()));
                    }
                    Head::Entry(_) => {
                        self.state.0.is_left.store(true, Relaxed);
                        return Poll::Pending;
                    }
                }
            }
            let mut chunk = [0; PEEKED_BYTES];
            let read = ready!(self.wire.poll_read(cx, &mut chunk))?;
            if read == 0 {
                self.bytes_left = None;
                return Poll::Ready(Ok(()));
            }
            self.wire.input.extend_from_slice(&chunk[..read]);
        }
    }

    /// Fills hyper's buffer with its input.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.bytes_left == Some(0) {
            if self.is_blocked {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            ready!(self.poll_next(cx))?;
        }
        match self.bytes_left {
            None if self.wire.input.is_empty() => self.wire.stream.as_mut().poll_read(cx, buffer),
            None => self.poll_give(cx, buffer, usize::MAX).map_ok(drop),
            Some(left) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES);
                let given = ready!(self.poll_give(cx, buffer, most))?;
                self.bytes_left = Some(left - given as u64);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncRead for RouterStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.state.0.is_serving.load(Relaxed) {
            return self.poll_fill(cx, buffer);
        }
        if self.state.0.is_served.swap(false, Relaxed) {
            self.wire.timer.await_request(Moment::now());
        }
        let before = buffer.filled().len();
        let polled = self.poll_fill(cx, buffer);
        if buffer.filled().len() > before || !self.wire.input.is_empty() {
            self.wire.timer.await_rest_of_head();
        }
        if polled.is_ready() || self.is_blocked || self.state.is_left() {
            return polled;
        }
        // An empty read makes hyper end the connection.
        self.overdue = Some(ready!(self.wire.timer.poll_overdue(cx)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RouterStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.wire.stream.as_mut().poll_write(cx, bytes);
        self.after_write(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.stream.as_mut().poll_flush(cx))?;
        // Hyper flushes this stream when it has written all that it has.
        let leases = std::mem::take(&mut *self.state.0.leases.lock());
        if !leases.is_empty() && !self.wire.is_client_gone(cx) {
            leases.into_iter().for_each(WonLease::delivered);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.stream.as_mut().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.wire.stream.as_mut().poll_write_vectored(cx, parts);
        self.after_write(written.is_pending());
        written
    }
}
