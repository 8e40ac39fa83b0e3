//! The caller of the current work: the request's id, its client and its trace.
//!
//! These belong to no particular operation or protocol, and are needed where an operation ends: in the access log, in
//! the log, in an exported span. Therefore they are a task-local value, as in every tracing library, instead of a
//! parameter of every function. The code that receives a request opens a [`scope`]; the code that reports about it
//! calls [`with`].

mod caller;
#[cfg(feature = "otel")]
mod counted;
mod counts;
#[cfg(feature = "otel")]
mod export;

pub use self::caller::{Caller, EndedOperation, TraceContext};
pub use self::counts::SPANS;
#[cfg(feature = "otel")]
pub use self::export::Export;

tokio::task_local! {
    static CALLER: Caller;
}

/// Runs `work` for this caller.
pub async fn scope<F: Future>(caller: Caller, work: F) -> F::Output {
    CALLER.scope(caller, work).await
}

/// Like [`scope`], for synchronous work.
pub fn scope_sync<R>(caller: Caller, work: impl FnOnce() -> R) -> R {
    CALLER.sync_scope(caller, work)
}

/// Calls `report` with the current caller; `None` for background work.
pub fn with<R>(report: impl FnOnce(Option<&Caller>) -> R) -> R {
    let mut report = Some(report);
    let mut call = |caller: Option<&Caller>| report.take().map(|report| report(caller));
    let reported = CALLER.try_with(|caller| call(Some(caller))).unwrap_or_else(|_| call(None));
    reported.expect("`report` is called once")
}

/// Exports a span of this operation, if the export is on.
#[cfg(feature = "otel")]
pub fn export_span(ended: &EndedOperation<'_>) {
    with(|caller| export::span(ended, caller));
}

/// Does nothing in a build without the feature `otel`.
#[cfg(not(feature = "otel"))]
pub fn export_span(_: &EndedOperation<'_>) {}

#[cfg(test)]
mod tests {
    use super::caller::MAX_ID_BYTES;
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
        let (within, without) = tokio::join!(one, async { id() });
        assert_eq!((within, without), (("two".to_owned(), "one".to_owned()), "nobody".to_owned()));
    }

    #[test]
    fn a_long_name_is_kept_in_part() {
        let caller = Caller::new(&[b'x'; 1000], Some(b"none of ours"));
        assert_eq!((caller.request_id().len(), caller.trace), (MAX_ID_BYTES, None));
    }
}
