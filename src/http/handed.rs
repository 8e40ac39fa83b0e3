//! A connection as the router's server sees it: with the requests that are the router's, and no others.
//!
//! Where a request of the router's ends and the next would begin, the next is looked at. If it is one for the
//! fast path, the server is left: it has read all it was to read, and nobody reads for it any more.
//!
//! **That place is only reached when all answers are written.** The server asks for the head of a request after
//! it has written the answer to the one before into its buffer, and flushes that before it asks; where the
//! flush could not go on, nothing is given to it until it could.
//!
//! The server has no deadline for heads: it cannot tell a connection that is idle from one whose request has begun.
//! Here that is known, also of what the server reads by itself: no request is under way, and something has come.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fast_path::{Head, parse};
use super::head_timer::Overdue;
use super::hosts::Hosts;
use super::server::READ_BYTES;
use super::wire::Wire;
use crate::clock::Moment;

/// The most that is read to look at the next request.
const PEEKED_BYTES: usize = 4096;

/// The router's part of a connection.
pub struct Handed {
    wire: Wire,
    owed: Owed,
    /// Whether what was to be written last had to wait.
    is_blocked: bool,
    /// Who asked to read meanwhile: the server does not ask again by itself.
    reader: Option<Waker>,
    turn: Turn,
    /// By which the next request is told to be one for the fast path; absent if all requests are the router's.
    hosts: Option<Arc<Hosts>>,
    /// Set when the connection was ended for it.
    overdue: Option<Overdue>,
}

/// Whose turn it is on the connection, for those who cannot see it.
#[derive(Clone, Default)]
pub struct Turn(Arc<Flags>);

#[derive(Default)]
struct Flags {
    /// The next request is not the router's.
    is_left: AtomicBool,
    /// A request is being answered.
    is_serving: AtomicBool,
    /// A request was answered, and the timer has not heard of it.
    is_served: AtomicBool,
}

impl Turn {
    pub fn is_left(&self) -> bool {
        self.0.is_left.load(Relaxed)
    }

    /// A request has come, and is answered when `answer` is ready.
    pub fn serve<F: Future>(&self, answer: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.is_serving.store(true, Relaxed);
        let flags = self.0.clone();
        async move {
            let answer = answer.await;
            flags.is_served.store(true, Relaxed);
            flags.is_serving.store(false, Relaxed);
            answer
        }
    }
}

/// What the server is still to get.
enum Owed {
    /// So many bytes, then it is looked at again.
    Bytes(u64),
    /// Everything, to the end of the connection.
    All,
}

impl Handed {
    /// A connection whose next request is the router's; all of them without `hosts`.
    pub fn new(wire: Wire, hosts: Option<Arc<Hosts>>) -> Self {
        let owed = if hosts.is_some() { Owed::Bytes(0) } else { Owed::All };
        Self { wire, owed, is_blocked: false, reader: None, turn: Turn::default(), hosts, overdue: None }
    }

    pub fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// The connection, once it was left.
    pub fn into_wire(mut self) -> Wire {
        self.wire.is_unseen = true;
        self.wire
    }

    /// Whether the connection was ended as the head of a request did not become whole in time.
    pub fn is_slow(&self) -> bool {
        self.overdue == Some(Overdue::RestOfHead)
    }

    fn note_written(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
        if !self.turn.0.is_serving.load(Relaxed) {
            // A client that reads an answer is not idle.
            self.wire.timer.await_request(Moment::now());
        }
        if !is_blocked && let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Gives the server up to `most` bytes; none at the end.
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
                // A connection that is idle should hold little.
                *input = Vec::new();
            }
            given
        };
        Poll::Ready(Ok(given))
    }

    /// Looks at the next request; tells whether there is something to give, be it the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(hosts) = self.hosts.as_ref().filter(|_| !self.wire.input.is_empty()) {
                match parse(&self.wire.input, &mut String::new(), hosts) {
                    Head::Partial => {}
                    Head::Router { len: Some(len) } => {
                        self.owed = Owed::Bytes(len);
                        return Poll::Ready(Ok(()));
                    }
                    Head::Router { len: None } => {
                        self.owed = Owed::All;
                        return Poll::Ready(Ok(()));
                    }
                    Head::Entry(_) => {
                        self.turn.0.is_left.store(true, Relaxed);
                        return Poll::Pending;
                    }
                }
            }
            let mut chunk = [0; PEEKED_BYTES];
            let read = ready!(self.wire.poll_read(cx, &mut chunk))?;
            if read == 0 {
                self.owed = Owed::All;
                return Poll::Ready(Ok(()));
            }
            self.wire.input.extend_from_slice(&chunk[..read]);
        }
    }

    /// Fills the server's buffer with what it is to get.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.owed, Owed::Bytes(0)) {
            if self.is_blocked {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            ready!(self.poll_next(cx))?;
        }
        match self.owed {
            Owed::All if self.wire.input.is_empty() => self.wire.stream.as_mut().poll_read(cx, buffer),
            Owed::All => self.poll_give(cx, buffer, usize::MAX).map_ok(drop),
            Owed::Bytes(owed) => {
                let most = usize::try_from(owed).unwrap_or(usize::MAX).min(READ_BYTES);
                let given = ready!(self.poll_give(cx, buffer, most))?;
                self.owed = Owed::Bytes(owed - given as u64);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncRead for Handed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn.0.is_serving.load(Relaxed) {
            return self.poll_fill(cx, buffer);
        }
        if self.turn.0.is_served.swap(false, Relaxed) {
            self.wire.timer.await_request(Moment::now());
        }
        let before = buffer.filled().len();
        let polled = self.poll_fill(cx, buffer);
        if buffer.filled().len() > before || !self.wire.input.is_empty() {
            self.wire.timer.await_rest_of_head();
        }
        if polled.is_ready() || self.is_blocked || self.turn.is_left() {
            return polled;
        }
        // The server takes nothing for the end of the connection.
        self.overdue = Some(ready!(self.wire.timer.poll_overdue(cx)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.wire.stream.as_mut().poll_write(cx, bytes);
        self.note_written(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.stream.as_mut().poll_flush(cx)
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
        self.note_written(written.is_pending());
        written
    }
}
