//! Answers two calls without the router: GET and PUT of one entry.
//!
//! Nearly all requests to a cache are these two. The router, its layers and a header map per message cost several
//! times as much as a lookup in L1. So every connection starts on the fast path. A request is parsed, answered and
//! written here if it has arrived completely and asks for nothing special. Any other request goes to the router (see
//! [`Head`]). When the router has answered it, the fast path gets the connection back (`http::router_stream`).
//!
//! Responses have the same content as those of the router, because the same code decides it: `http::read_answer`,
//! `http::entry` and `http::error`.
//!
//! A connection is in one of the states of [`State`]; [`FastPath::serve`] shows how they follow each other.
//!
//! A read that L1 or the embedded store can answer does not have to wait. All such requests that have arrived are
//! answered one after another, and their responses are sent with one write. A request that has to wait is answered
//! alone, within the request deadline.
//!
//! Buffers belong to the thread, not to the connection: an idle connection holds no buffer.

mod field;
mod head;
mod reply;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

pub use self::head::{EntryRequest, Head, MAX_HEADER_BYTES, parse};
use self::reply::{LastHeaders, UnwrittenPart};
use super::entry;
use super::error::Error;
use super::hosts::Hosts;
use super::memory::COUNTED_FROM;
use super::state::SharedApp;
use crate::cache::{AnsweredBy, Lookup, Wanted};
use crate::clock::Moment;
use crate::model::{EntryKey, EntryRef, Operation, ReadTerms};
use crate::net::{Awaited, BudgetExceeded, RequestIds, ShutdownReceiver, Wire};
use crate::trace::{self, Caller, TraceContext};

/// How many bytes are read at a time, in addition to an incomplete head from earlier reads.
const READ_BYTES: usize = 16 * 1024;

/// Responses are collected until they have this many bytes, and then sent.
const SENT_BYTES: usize = 64 * 1024;

/// How often one connection may read in a row before other connections get their turn.
const ROUNDS: usize = 16;

/// Answers plain reads and writes of entries.
pub struct FastPath {
    app: SharedApp,
    ids: RequestIds,
    /// The `Keep-Alive` header line, which tells clients how long a connection stays open without a request, behind its
    /// line break.
    keep_alive: Box<[u8]>,
    /// The same for the answer to a GET that asks for a lease: such an answer varies.
    keep_alive_varying: Box<[u8]>,
}

/// Why the fast path stopped.
#[derive(Debug)]
pub enum End {
    /// The next request is for the router.
    Router,
    /// The client closed the connection, no request came in time, or the process stops.
    Closed,
    /// The head of a request did not arrive completely in time.
    Slow,
}

/// What happens next on a connection.
enum State {
    /// Read. Answer the requests that have then arrived completely.
    Read,
    /// `Wire::input` may contain complete requests: answer them without reading.
    Examine,
    /// Wait for the result of this request, and answer it.
    Wait(WaitingRequest),
    End(End),
}

impl State {
    /// The state after a response. Nobody has examined the bytes in `input`.
    fn after_response(input: &[u8]) -> Self {
        if input.is_empty() { Self::Read } else { Self::Examine }
    }
}

/// A request that cannot be answered without waiting.
struct WaitingRequest {
    key: EntryKey,
    /// The body of a PUT; `None` for a GET.
    body: Option<Bytes>,
    /// The complete request id, which the response repeats.
    request_id: Vec<u8>,
    trace: Option<TraceContext>,
}

/// The result of a request that had to wait.
enum Answer {
    Lookup(Lookup),
    Response(Response),
}

thread_local! {
    static BUFFERS: RefCell<Buffers> =
        const { RefCell::new(Buffers { input: Vec::new(), output: Vec::new(), key: String::new() }) };
}

struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
    /// The decoded key of the current request.
    key: String,
}

impl FastPath {
    pub fn new(app: SharedApp, ids: RequestIds) -> Self {
        let hint = app.bounds.keep_alive.as_ref();
        let keep_alive = hint.map(|hint| [b"\r\nkeep-alive: ", hint.as_bytes()].concat()).unwrap_or_default();
        let keep_alive_varying = [&keep_alive[..], b"\r\nvary: prefer"].concat();
        Self { app, ids, keep_alive: keep_alive.into(), keep_alive_varying: keep_alive_varying.into() }
    }

    /// The hosts of this service.
    pub fn hosts(&self) -> Arc<Hosts> {
        self.app.hosts.clone()
    }

    /// Answers requests until one is for the router, or the connection ends.
    ///
    /// # Errors
    /// The connection broke, or the client does not read.
    pub async fn serve(&self, wire: &mut Wire, client: IpAddr, closing: &mut ShutdownReceiver) -> io::Result<End> {
        let mut state = State::after_response(&wire.input);
        let mut rounds = 0;
        loop {
            state = match state {
                State::Read | State::Examine => {
                    let reads = matches!(state, State::Read);
                    let next = poll_fn(|cx| {
                        if rounds == ROUNDS {
                            // A client that never stops sending must not block the other connections of this worker.
                            rounds = 0;
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        let polled = self.poll_requests(cx, wire, client, closing, reads);
                        rounds = if polled.is_ready() { rounds + 1 } else { 0 };
                        polled
                    });
                    next.await?
                }
                State::Wait(request) => self.answer(wire, request, client, closing).await?,
                State::End(end) => {
                    // The router must not write before the rest of this output.
                    poll_fn(|cx| wire.poll_flush(cx)).await?;
                    return Ok(end);
                }
            };
        }
    }

    /// Sends what is left of earlier responses, reads if `reads`, and answers the requests that have arrived
    /// completely. Pending while it waits for the client.
    fn poll_requests(
        &self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        client: IpAddr,
        closing: &mut ShutdownReceiver,
        reads: bool,
    ) -> Poll<io::Result<State>> {
        if !wire.output.is_empty() {
            ready!(wire.poll_flush(cx))?;
            // A client that reads a response is not idle.
            wire.timer.await_request(Moment::now());
        }
        let is_closing = closing.is_given();
        let examined = BUFFERS.with_borrow_mut(|buffers| {
            let kept = wire.input.len();
            // The buffer is never shrunk, so it grows only until it fits the longest head.
            if buffers.input.len() < kept + READ_BYTES {
                buffers.input.resize(kept + READ_BYTES, 0);
            }
            let read = if reads { ready!(wire.poll_read(cx, &mut buffers.input[kept..]))? } else { 0 };
            if reads && read == 0 {
                return Poll::Ready(Ok(State::End(End::Closed)));
            }
            buffers.input[..kept].copy_from_slice(&wire.input);
            Poll::Ready(self.examine(cx, wire, client, buffers, kept + read, is_closing))
        });
        if examined.is_ready() {
            return examined;
        }
        if !wire.input.is_empty() {
            wire.timer.await_rest_of_head();
        }
        if let Poll::Ready(overdue) = wire.timer.poll_overdue(cx) {
            let end = if overdue == Awaited::RestOfHead { End::Slow } else { End::Closed };
            return Poll::Ready(Ok(State::End(end)));
        }
        if closing.poll(cx).is_ready() {
            // A request that has partly arrived is still answered, by the router.
            let end = if wire.input.is_empty() { End::Closed } else { End::Router };
            return Poll::Ready(Ok(State::End(end)));
        }
        Poll::Pending
    }

    /// Answers the complete requests in the first `len` bytes of the input buffer. The rest stays in `Wire::input`.
    fn examine(
        &self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        client: IpAddr,
        buffers: &mut Buffers,
        len: usize,
        is_closing: bool,
    ) -> io::Result<State> {
        let Buffers { input, output, key } = buffers;
        let bytes = &input[..len];
        output.clear();
        let now = Moment::now();
        let (mut used, mut next) = (0, None);
        while used < len && next.is_none() && output.len() < SENT_BYTES {
            match parse(&bytes[used..], key, &self.app.hosts) {
                Head::Partial => next = Some(State::Read),
                Head::Router { .. } => next = Some(State::End(End::Router)),
                // When the process stops, the router answers, because it tells the client that the connection ends.
                Head::Entry(_) if is_closing => next = Some(State::End(End::Router)),
                Head::Entry(request) => {
                    next = match request.request_id {
                        Some(id) => self.begin(id, &request, client, now, output),
                        None => self.ids.with_next(|id| self.begin(id, &request, client, now, output)),
                    };
                    // The router gets the whole of a request that `begin` did not answer.
                    if !matches!(next, Some(State::End(End::Router))) {
                        used += request.len;
                    }
                }
            }
        }
        let rest = &bytes[used..];
        if rest.is_empty() {
            // An idle connection should hold little memory.
            wire.input = Vec::new();
        } else {
            wire.input.clear();
            wire.input.extend_from_slice(rest);
        }
        wire.write(cx, output)?;
        if output.capacity() > 4 * SENT_BYTES {
            *output = Vec::new();
        }
        if used > 0 {
            wire.timer.await_request(now);
        }
        Ok(next.unwrap_or_else(|| State::after_response(rest)))
    }

    /// Writes the response to `output`. If the request has to wait, returns the next state instead.
    fn begin(
        &self,
        request_id: &[u8],
        request: &EntryRequest<'_>,
        client: IpAddr,
        now: Moment,
        output: &mut Vec<u8>,
    ) -> Option<State> {
        let EntryRequest { key, body, trace, asks_for_lease, .. } = *request;
        let wait = || {
            let (key, body) = (key.to_key(), body.map(Bytes::copy_from_slice));
            Some(State::Wait(WaitingRequest { key, body, request_id: request_id.to_vec(), trace }))
        };
        if body.is_some() {
            return wait();
        }
        let caller = Caller::within(request_id, trace).at(Some(client));
        let (wanted, connection) = match asks_for_lease {
            true => (Wanted::NothingToLoad, &self.keep_alive_varying),
            false => (Wanted::Any, &self.keep_alive),
        };
        let last = LastHeaders { request_id, connection };
        let (cache, begun) = (&self.app.cache, output.len());
        let show =
            |found: Option<EntryRef<'_>>, trail: &AnsweredBy| reply::put_read(output, cache, found, trail, last);
        let look = || trace::scope_sync(caller, || cache.get_without_waiting(key, now, wanted, show));
        match catch_unwind(AssertUnwindSafe(look)) {
            Ok(Some(())) => None,
            // Only the router gives leases.
            Ok(None) if asks_for_lease => Some(State::End(End::Router)),
            Ok(None) => wait(),
            Err(panic) => {
                output.truncate(begun);
                let error = self.app.bounds.panicked(&*panic);
                reply::put_response(output, self.app.bounds.failed(error, &caller), last);
                None
            }
        }
    }

    /// Waits for the result of a request and sends the response.
    async fn answer(
        &self,
        wire: &mut Wire,
        request: WaitingRequest,
        client: IpAddr,
        closing: &ShutdownReceiver,
    ) -> io::Result<State> {
        let WaitingRequest { key, body, request_id, trace } = request;
        let caller = Caller::within(&request_id, trace).at(Some(client));
        let (cache, bounds) = (&self.app.cache, &self.app.bounds);
        let may_write = body.is_some();
        // Both are held until the response is sent.
        let (body_memory, mut response_memory) = (bounds.bodies.share(), None);
        let work = async {
            let Some(body) = body else {
                let lookup = cache.get(&key, &ReadTerms::default(), Operation::Get).await?;
                let len = lookup.entry.as_ref().map_or(0, |entry| entry.value.len());
                if len >= COUNTED_FROM && !response_memory.insert(bounds.room()).admits(len) {
                    return Err(Error::TooManyAnswers);
                }
                return Ok(Answer::Lookup(lookup));
            };
            bounds.put_limit().admit(body.len())?;
            body_memory.take(body.len()).map_err(|BudgetExceeded| Error::TooManyBodies)?;
            entry::store(cache, &key, entry::set_body(&body)?).await.map(Answer::Response)
        };
        let in_time = async {
            let done = timeout(bounds.request_timeout(), work).await;
            done.unwrap_or(Err(Error::DeadlineExceeded { may_write }))
        };
        let answer = bounds.run(caller, in_time).await;
        let is_closing = closing.is_given();
        let connection = if is_closing { b"\r\nconnection: close" } else { &*self.keep_alive };
        let last = LastHeaders { request_id: &request_id, connection };
        // The responses to earlier requests are sent first.
        let (mut output, mut rest) = (std::mem::take(&mut wire.output), UnwrittenPart::default());
        match answer {
            Ok(Answer::Lookup(lookup)) => rest = reply::put_lookup(&mut output, cache, &lookup, last),
            Ok(Answer::Response(response)) => reply::put_response(&mut output, response, last),
            Err(error) => reply::put_response(&mut output, bounds.failed(error, &caller), last),
        }
        let mut all = output.as_slice().chain(&rest.value[..]).chain(rest.after.as_slice());
        wire.stream.write_all_buf(&mut all).await?;
        if is_closing {
            return Ok(State::End(End::Closed));
        }
        wire.timer.await_request(Moment::now());
        Ok(State::after_response(&wire.input))
    }
}
