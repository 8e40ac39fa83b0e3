//! The memory of responses, which all requests share.
//!
//! A response holds its part of the budget until it has been sent. Responses smaller than [`COUNTED_FROM`] are not
//! counted, because the limit on connections also limits their memory. Values from a store count as soon as they
//! arrive, so an mget stops reading when the budget is used up.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::vec;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::metrics::Metrics;
use crate::net::{Budget, Share};

/// Responses of at least this many bytes are counted.
pub const COUNTED_FROM: usize = 16 * 1024;

/// The memory that one response holds. Dropping the last clone gives it back.
#[derive(Clone)]
pub struct ResponseMemory(Arc<Held>);

struct Held {
    share: Share<Arc<Budget>>,
    /// Set after a refusal. Nothing more is admitted then.
    is_refused: AtomicBool,
    metrics: Arc<Metrics>,
}

impl ResponseMemory {
    /// Holds no memory yet.
    pub fn of(budget: &Arc<Budget>, metrics: &Arc<Metrics>) -> Self {
        let is_refused = AtomicBool::new(false);
        Self(Arc::new(Held { share: Share::of(budget.clone()), is_refused, metrics: metrics.clone() }))
    }

    /// Takes `bytes` more from the budget and returns whether there was enough. After a refusal it holds no memory
    /// and admits nothing more.
    pub fn admits(&self, bytes: usize) -> bool {
        !self.0.is_refused.load(Relaxed) && (self.0.share.take(bytes).is_ok() || self.refuse())
    }

    /// Changes the held memory to `bytes` in total and returns whether there was enough.
    pub fn admits_in_all(&self, bytes: usize) -> bool {
        !self.0.is_refused.load(Relaxed) && (self.0.share.resize(bytes).is_ok() || self.refuse())
    }

    /// Gives all memory back and counts the refusal. Always returns false.
    fn refuse(&self) -> bool {
        if !self.0.is_refused.swap(true, Relaxed) {
            self.0.metrics.answers_refused.increment(1);
        }
        self.0.share.give_back();
        false
    }

    /// Returns `body` such that the memory is held until the last byte is written to the client.
    pub fn hold(self, body: Body) -> Body {
        Body::new(CountedBody { body, room: self })
    }
}

/// A body whose chunks hold the memory of the response.
struct CountedBody {
    body: Body,
    room: ResponseMemory,
}

/// A chunk of a response. The server keeps the chunk until it is written, so the memory is held until then.
struct CountedBytes {
    bytes: Bytes,
    _room: ResponseMemory,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let room = self.room.clone();
        let hold = |bytes| Bytes::from_owner(CountedBytes { bytes, _room: room });
        Pin::new(&mut self.body).poll_frame(cx).map_ok(|frame| frame.map_data(hold))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body of several pieces, which are sent without copying them into one buffer.
pub struct Pieces {
    pieces: vec::IntoIter<Bytes>,
    left: u64,
}

impl Pieces {
    pub fn body(pieces: Vec<Bytes>) -> Body {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Body::new(Self { pieces: pieces.into_iter(), left })
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces.next();
        self.left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn room_is_held_until_the_last_byte_is_written() {
        let (budget, metrics) = (Arc::new(Budget::new(100)), Arc::new(Metrics::default()));
        let room = ResponseMemory::of(&budget, &metrics);
        assert!(room.admits(30) && room.admits(40) && room.admits_in_all(60));
        let body = room.hold(Pieces::body(vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")]));
        assert_eq!(body.size_hint().exact(), Some(3));
        let sent = body.collect().await.unwrap().to_bytes();
        assert_eq!((&sent[..], budget.used()), (b"abc".as_slice(), 0));

        let room = ResponseMemory::of(&budget, &metrics);
        assert!(room.admits(60));
        let mut body = room.hold(Body::from("abc"));
        let frame = body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(budget.used(), 60, "the server has not written it yet");
        drop(frame);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_refused_response_holds_no_memory_and_is_counted_once() {
        let (budget, metrics) = (Arc::new(Budget::new(100)), Arc::new(Metrics::default()));
        let room = ResponseMemory::of(&budget, &metrics);
        assert!(room.admits(60) && !room.admits(41) && !room.admits(1) && !room.admits_in_all(1));
        assert_eq!(budget.used(), 0);
        assert!(metrics.render().contains("sidecache_http_answers_refused_total 1"), "{}", metrics.render());
    }
}
