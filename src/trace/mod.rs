//! Who asks: the request's name and its place in a trace, known to all that is done for it.
//!
//! Both belong to no verb of the cache and to no protocol, and are wanted where an operation ends: in the access
//! log, in the log, in an exported span. So they go along with the task, as in every tracing library, instead of
//! through every signature: whoever takes a request in opens a [`scope`], whoever tells of it asks [`with`].

mod context;
#[cfg(feature = "otel")]
mod counted;
mod counts;
#[cfg(feature = "otel")]
mod export;

use std::net::IpAddr;
use std::time::Duration;

pub use self::context::TraceContext;
pub use self::counts::SPANS;
#[cfg(feature = "otel")]
pub use self::export::Export;
use crate::model::{Answer, Operation};

/// The longest name of a request that is kept, in bytes; of a longer one its beginning.
const MOST_ID_BYTES: usize = 128;

/// A request, as its client names it. Small enough to be copied along.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    id: [u8; MOST_ID_BYTES],
    id_len: u8,
    /// The address of the connection's other end, where it is one.
    pub client: Option<IpAddr>,
    pub trace: Option<TraceContext>,
}

tokio::task_local! {
    static CALLER: Caller;
}

impl Caller {
    /// `request_id` and `traceparent` as the headers have them. A `traceparent` that is none is no error: the
    /// trace begins here then (W3C Trace Context, 4.3).
    pub fn new(request_id: &[u8], traceparent: Option<&[u8]>) -> Self {
        Self::within(request_id, traceparent.and_then(TraceContext::parse))
    }

    pub fn within(request_id: &[u8], trace: Option<TraceContext>) -> Self {
        let len = request_id.len().min(MOST_ID_BYTES);
        let mut id = [0; MOST_ID_BYTES];
        id[..len].copy_from_slice(&request_id[..len]);
        Self { id, id_len: len as u8, client: None, trace }
    }

    /// The same caller, whose connection comes from `client`.
    pub fn at(self, client: Option<IpAddr>) -> Self {
        Self { client, ..self }
    }

    /// Any bytes but control characters, tabs excepted.
    pub fn request_id(&self) -> &[u8] {
        &self.id[..usize::from(self.id_len)]
    }
}

/// What is done for this caller.
pub async fn scope<F: Future>(caller: Caller, work: F) -> F::Output {
    CALLER.scope(caller, work).await
}

/// The same for what takes no waiting.
pub fn scope_sync<R>(caller: Caller, work: impl FnOnce() -> R) -> R {
    CALLER.sync_scope(caller, work)
}

/// Tells who asks; `None` where nobody does, as for what the process does of itself.
pub fn with<R>(tell: impl FnOnce(Option<&Caller>) -> R) -> R {
    let mut tell = Some(tell);
    let told = CALLER.try_with(|caller| tell.take().map(|tell| tell(Some(caller))));
    told.ok().flatten().unwrap_or_else(|| tell.take().map(|tell| tell(None)).expect("it was told to nobody yet"))
}

/// An operation that ended.
pub struct Ended<'a> {
    pub namespace: &'a str,
    pub operation: Operation,
    pub answer: Answer,
    pub latency: Duration,
}

/// Exports a span of this operation, where that is built in and asked for.
#[cfg(feature = "otel")]
pub fn note(ended: &Ended<'_>) {
    with(|caller| export::note(ended, caller));
}

/// What is not built in takes nothing.
#[cfg(not(feature = "otel"))]
pub fn note(_: &Ended<'_>) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> String {
        with(|caller| {
            caller.map_or("nobody".to_owned(), |caller| String::from_utf8_lossy(caller.request_id()).into())
        })
    }

    #[tokio::test]
    async fn what_is_done_for_a_caller_knows_it_and_nothing_else_does() {
        let one = scope(Caller::new(b"one", None), async {
            tokio::task::yield_now().await;
            let within = scope_sync(Caller::new(b"two", None), id);
            (within, id())
        });
        let (told, other) = tokio::join!(one, async { id() });
        assert_eq!((told, other), (("two".to_owned(), "one".to_owned()), "nobody".to_owned()));
    }

    #[test]
    fn a_long_name_is_kept_in_part() {
        let caller = Caller::new(&[b'x'; 1000], Some(b"none of ours"));
        assert_eq!((caller.request_id().len(), caller.trace), (MOST_ID_BYTES, None));
    }
}
