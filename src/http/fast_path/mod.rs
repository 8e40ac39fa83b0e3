//! Answers two calls without the router: GET and PUT of one entry.
//!
//! Nearly all requests to a cache are these two. The router, its layers and a header map per message cost several
//! times as much as a lookup in L1. So every connection starts on the fast path. A request is parsed, answered and
//! written here if it has arrived completely and asks for nothing special. Any other request goes to the router (see
//! [`Head`]). When the router has answered it, the fast path gets the connection back (`http::router_stream`).
//!
//! Responses have the same content as those of the router, because the same code decides it: `http::entry` and
//! `http::error`. A read that L1 or the embedded store can answer does not have to wait. All such requests that have
//! arrived are answered one after another, and their responses are sent with one write. A request that has to wait is
//! answered alone, within the request deadline.
//!
//! Buffers belong to the thread, not to the connection: an idle connection holds no buffer.

mod field;
mod head;
mod reply;

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

pub use self::head::{EntryRequest, Head, Verb, parse};
use self::reply::{AfterResponse, LastHeaders, Tier, UnwrittenPart};
use super::body::BodyLimit;
use super::budget::BudgetExceeded;
use super::entry;
use super::error::{self, Error};
use super::head_timer::{Overdue, keep_alive_hint};
use super::hosts::Hosts;
use super::request_id::RequestIds;
use super::response_memory::COUNTED_FROM;
use super::shutdown::ShutdownReceiver;
use super::state::SharedApp;
use super::wire::Wire;
use crate::cache::{AnsweredBy, Consistency, Lookup};
use crate::clock::Moment;
use crate::config::HttpConfig;
use crate::model::{EntryKey, EntryRef, Operation};
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
    /// The deadline of a request, as a duration.
    request_timeout: Duration,
    /// The `Keep-Alive` header line, which tells clients how long a connection stays open without a request.
    keep_alive: Box<[u8]>,
    put_limit: BodyLimit,
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

/// A request that cannot be answered without waiting.
enum PendingRequest {
    Get(EntryKey),
    Put(EntryKey, Bytes),
    /// The request panicked; the response is a 500.
    Failed,
}

/// The caller of a waiting request: the complete request id, which the response repeats, the trace, and the client's
/// address.
struct RequestIdentity {
    request_id: Vec<u8>,
    trace: Option<TraceContext>,
    client: Option<IpAddr>,
}

/// Why [`FastPath::poll_step`] returned.
enum StepResult {
    Waits(PendingRequest, RequestIdentity),
    End(End),
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
    pub fn new(app: SharedApp, ids: RequestIds, config: &HttpConfig) -> Self {
        let keep_alive = keep_alive_hint(config).map(|hint| format!("keep-alive: {hint}\r\n")).unwrap_or_default();
        Self {
            ids,
            request_timeout: config.request_timeout,
            keep_alive: keep_alive.into_bytes().into(),
            put_limit: app.bounds.put_limit(),
            app,
        }
    }

    /// Answers requests until one is for the router, or the connection ends.
    ///
    /// # Errors
    /// The connection broke, or the client does not read.
    pub async fn serve(&self, wire: &mut Wire, client: IpAddr, closing: &mut ShutdownReceiver) -> io::Result<End> {
        loop {
            match poll_fn(|cx| self.poll_step(cx, wire, client, closing)).await? {
                StepResult::End(end) => {
                    // The router must not write before the rest of this output.
                    poll_fn(|cx| wire.poll_flush(cx)).await?;
                    return Ok(end);
                }
                StepResult::Waits(waiting, asked_by) => {
                    if self.answer(wire, waiting, &asked_by, closing).await? == AfterResponse::Close {
                        return Ok(End::Closed);
                    }
                    wire.timer.await_request(Moment::now());
                }
            }
        }
    }

    /// The hosts of this service.
    pub fn hosts(&self) -> Arc<Hosts> {
        self.app.hosts.clone()
    }

    /// Reads, answers and writes until a request has to wait, or the fast path stops. Pending while it waits for the
    /// client, and after [`ROUNDS`] reads, so that other connections get their turn.
    fn poll_step(
        &self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        client: IpAddr,
        closing: &mut ShutdownReceiver,
    ) -> Poll<io::Result<StepResult>> {
        for _ in 0..ROUNDS {
            if !wire.output.is_empty() {
                ready!(wire.poll_flush(cx))?;
                // A client that reads a response is not idle.
                wire.timer.await_request(Moment::now());
            }
            let is_closing = closing.is_given();
            match BUFFERS.with_borrow_mut(|buffers| self.poll_read(cx, wire, client, buffers, is_closing)) {
                Poll::Ready(Ok(ReadResult::StepResult(step))) => return Poll::Ready(Ok(step)),
                Poll::Ready(Ok(ReadResult::Served(at))) => {
                    wire.timer.await_request(at);
                    continue;
                }
                Poll::Ready(Ok(ReadResult::Partial)) => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            if !wire.input.is_empty() {
                wire.timer.await_rest_of_head();
            }
            if let Poll::Ready(overdue) = wire.timer.poll_overdue(cx) {
                let end = if overdue == Overdue::RestOfHead { End::Slow } else { End::Closed };
                return Poll::Ready(Ok(StepResult::End(end)));
            }
            if closing.poll(cx).is_ready() {
                // A request that has partly arrived is still answered, by the router.
                let end = if wire.input.is_empty() { End::Closed } else { End::Router };
                return Poll::Ready(Ok(StepResult::End(end)));
            }
            return Poll::Pending;
        }
        // A client that never stops sending must not block the other connections of this worker.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once and answers the complete requests.
    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        client: IpAddr,
        buffers: &mut Buffers,
        is_closing: bool,
    ) -> Poll<io::Result<ReadResult>> {
        let Buffers { input, output, key } = buffers;
        let kept = wire.input.len();
        // The buffer is never shrunk, so it grows only until it fits the longest head.
        if input.len() < kept + READ_BYTES {
            input.resize(kept + READ_BYTES, 0);
        }
        // The bytes that were read earlier may already contain a complete request.
        let is_unseen = std::mem::take(&mut wire.is_unseen);
        let read = if is_unseen { 0 } else { ready!(wire.poll_read(cx, &mut input[kept..]))? };
        if read == 0 && !is_unseen {
            return Poll::Ready(Ok(ReadResult::StepResult(StepResult::End(End::Closed))));
        }
        input[..kept].copy_from_slice(&wire.input);
        let bytes = &input[..kept + read];

        output.clear();
        let now = Moment::now();
        let (mut used, mut step) = (0, None);
        while used < bytes.len() && step.is_none() && output.len() < SENT_BYTES {
            match parse(&bytes[used..], key, &self.app.hosts) {
                Head::Partial => break,
                Head::Router { .. } => step = Some(StepResult::End(End::Router)),
                // When the process stops, the router answers, because it tells the client that the connection ends.
                Head::Entry(_) if is_closing => step = Some(StepResult::End(End::Router)),
                Head::Entry(request) => {
                    step = self.begin(&bytes[used..], &request, client, now, output);
                    used += request.len;
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
        // The rest may contain further complete requests.
        wire.is_unseen =
            !rest.is_empty() && (output.len() >= SENT_BYTES || matches!(step, Some(StepResult::Waits(..))));
        wire.write(cx, output)?;
        if output.capacity() > 4 * SENT_BYTES {
            *output = Vec::new();
        }
        Poll::Ready(Ok(match step {
            Some(step) => ReadResult::StepResult(step),
            None if used > 0 => ReadResult::Served(now),
            None => ReadResult::Partial,
        }))
    }

    /// Writes the response to `output`. If the request has to wait, returns it instead.
    fn begin(
        &self,
        bytes: &[u8],
        request: &EntryRequest<'_>,
        client: IpAddr,
        now: Moment,
        output: &mut Vec<u8>,
    ) -> Option<StepResult> {
        let caller = |id: &[u8]| Caller::within(id, request.trace).at(Some(client));
        match request.request_id {
            Some(id) => self.begin_as(id, bytes, request, caller(id), now, output),
            None => self.ids.with_next(|id| self.begin_as(id, bytes, request, caller(id), now, output)),
        }
    }

    fn begin_as(
        &self,
        request_id: &[u8],
        bytes: &[u8],
        request: &EntryRequest<'_>,
        caller: Caller,
        now: Moment,
        output: &mut Vec<u8>,
    ) -> Option<StepResult> {
        let EntryRequest { key, verb, .. } = request;
        let Caller { trace, client, .. } = caller;
        let ending = LastHeaders { request_id, keep_alive: &self.keep_alive, then: AfterResponse::Stay };
        let waits = |waiting| {
            Some(StepResult::Waits(waiting, RequestIdentity { request_id: request_id.to_vec(), trace, client }))
        };
        match verb {
            Verb::Put(body) => waits(PendingRequest::Put(key.to_key(), Bytes::copy_from_slice(&bytes[body.clone()]))),
            Verb::Get => {
                let (cache, begun) = (&self.app.cache, output.len());
                let show = |found: Option<EntryRef<'_>>, trail: &AnsweredBy| match (found, trail) {
                    (Some(entry), AnsweredBy::L1) => reply::put_hit(output, entry, Tier::L1, ending),
                    (Some(entry), AnsweredBy::Embedded) => reply::put_hit(output, entry, Tier::Embedded, ending),
                    _ => reply::put_read(output, cache, found, trail, ending),
                };
                let look = || trace::scope_sync(caller, || cache.get_without_waiting(*key, now, show));
                match catch_unwind(AssertUnwindSafe(look)) {
                    Ok(Some(())) => None,
                    Ok(None) => waits(PendingRequest::Get(key.to_key())),
                    Err(panic) => {
                        output.truncate(begun);
                        error::note_panic(&*panic, &self.app.metrics);
                        waits(PendingRequest::Failed)
                    }
                }
            }
        }
    }

    /// Waits for the result of a request and writes the response.
    async fn answer(
        &self,
        wire: &mut Wire,
        waiting: PendingRequest,
        asked_by: &RequestIdentity,
        closing: &ShutdownReceiver,
    ) -> io::Result<AfterResponse> {
        let request_id = asked_by.request_id.as_slice();
        let caller = Caller::within(request_id, asked_by.trace).at(asked_by.client);
        // The responses to earlier requests are written first.
        let mut output = std::mem::take(&mut wire.output);
        let share = self.app.bounds.bodies.share();
        let may_write = matches!(waiting, PendingRequest::Put(..));
        let answer = async {
            match waiting {
                PendingRequest::Failed => Err(Error::Panic),
                PendingRequest::Get(key) => {
                    Ok(Answer::Lookup(self.app.cache.get(&key, Consistency::Bounded, Operation::Get).await?))
                }
                PendingRequest::Put(key, body) => {
                    self.put_limit.admit(body.len())?;
                    share.take(body.len()).map_err(|BudgetExceeded| Error::TooManyBodies)?;
                    entry::store(&self.app.cache, &key, &body).await.map(Answer::Response)
                }
            }
        };
        let answer = trace::scope(caller, AssertUnwindSafe(answer).catch_unwind());
        let answer = timeout(self.request_timeout, answer).await;
        let answer = match answer {
            Err(_) => Err(Error::DeadlineExceeded { may_write }),
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => {
                let panic: &(dyn Any + Send) = &*panic;
                error::note_panic(panic, &self.app.metrics);
                Err(Error::Panic)
            }
        };
        // Held until the response is written.
        let counted = answer.as_ref().map_or(0, Answer::counted_bytes);
        let room = (counted > 0).then(|| self.app.bounds.room());
        let has_room = room.as_ref().is_none_or(|room| room.admits(counted));
        let answer = if has_room { answer } else { Err(Error::TooManyAnswers) };
        let then = if closing.is_given() { AfterResponse::Close } else { AfterResponse::Stay };
        let ending = LastHeaders { request_id, keep_alive: &self.keep_alive, then };
        let rest = match answer {
            Ok(Answer::Lookup(lookup)) => reply::put_lookup(&mut output, &self.app.cache, &lookup, ending),
            Ok(Answer::Response(response)) => {
                reply::put_response(&mut output, response, ending).await;
                UnwrittenPart::default()
            }
            Err(error) => {
                self.app.bounds.note_refusal(&error);
                let response = error.into_response();
                self.app.bounds.note_error(&response, &caller);
                reply::put_response(&mut output, response, ending).await;
                UnwrittenPart::default()
            }
        };
        let mut all = output.as_slice().chain(&rest.value[..]).chain(rest.after.as_slice());
        wire.stream.write_all_buf(&mut all).await?;
        Ok(then)
    }
}

/// The result of a request that had to wait.
enum Answer {
    Lookup(Lookup),
    Response(Response),
}

impl Answer {
    /// How many bytes count against the memory for responses.
    fn counted_bytes(&self) -> usize {
        match self {
            Self::Lookup(Lookup { entry: Some(entry), .. }) if entry.value.len() >= COUNTED_FROM => entry.value.len(),
            _ => 0,
        }
    }
}

enum ReadResult {
    /// The requests that were read at this moment were answered.
    Served(Moment),
    /// The head of the next request has not arrived completely.
    Partial,
    StepResult(StepResult),
}
