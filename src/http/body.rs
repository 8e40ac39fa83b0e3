//! Reads the whole body of a request into memory, within a limit per body and a limit for all bodies together.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::error::Error;
use crate::net::{Budget, BudgetExceeded, Share};

/// For how long the rest of a refused body is read and thrown away. If the connection were closed while the client
/// still sends, the client would lose the response.
const DISCARD: Duration = Duration::from_secs(1);

/// How many bytes a body may have in addition to its value: for the TTL, tags with every character escaped, and white
/// space.
const BESIDE_VALUE_BYTES: usize = 64 << 10;

/// The largest body of any other call, such as a policy or a form.
const SMALL_BODY_BYTES: usize = 64 << 10;

/// How large a body may be. Depends on the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit {
    /// The most bytes that are read into memory.
    bytes: usize,
    /// The limit for the value, if the body holds one value.
    value_bytes: Option<usize>,
    /// The limit for all bodies.
    max_body_bytes: usize,
}

impl BodyLimit {
    /// For a body that holds many entries or keys.
    pub fn of_batch(max_body_bytes: usize) -> Self {
        Self { bytes: max_body_bytes, value_bytes: None, max_body_bytes }
    }

    /// For a body that holds one value.
    pub fn of_entry(max_body_bytes: usize, value_bytes: usize) -> Self {
        let bytes = value_bytes.saturating_add(BESIDE_VALUE_BYTES).min(max_body_bytes);
        Self { bytes, value_bytes: Some(value_bytes), max_body_bytes }
    }

    /// For any other body.
    pub fn of_small(max_body_bytes: usize) -> Self {
        Self { bytes: SMALL_BODY_BYTES.min(max_body_bytes), value_bytes: None, max_body_bytes }
    }

    /// Checks that a body of `len` bytes is allowed.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`], [`Error::ValueTooLarge`].
    pub fn admit(&self, len: usize) -> Result<(), Error> {
        match self.value_bytes {
            _ if len <= self.bytes => Ok(()),
            Some(limit) if len <= self.max_body_bytes => Err(Error::ValueTooLarge { limit }),
            Some(_) => Err(Error::BodyTooLarge { limit: self.max_body_bytes }),
            None => Err(Error::BodyTooLarge { limit: self.bytes }),
        }
    }
}

/// Refuses a request before its body is read. Returns `error`.
pub async fn refuse(request: Request, error: Error) -> Error {
    let (parts, mut body) = request.into_parts();
    if !is_expecting(&parts.headers) {
        discard(&mut body).await;
    }
    error
}

/// Reads the body of the request into memory. `share` accounts for that memory.
///
/// # Errors
/// The body is larger than `limit` or than what is left of the budget, or could not be read to its end.
pub async fn read(request: Request, limit: BodyLimit, share: &Share<&Budget>) -> Result<Request, Error> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, mut body) = request.into_parts();
    let announced = body.size_hint().exact().map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    let admitted = match announced {
        Some(len) if limit.admit(len).is_err() => limit.admit(len),
        Some(len) if len > share.left_for_all() => Err(Error::TooManyBodies),
        _ => Ok(()),
    };
    let read = match admitted {
        // `Expect: 100-continue`: refuse before the body is sent.
        Err(refused) if is_expecting(&parts.headers) => return Err(refused),
        Err(refused) => Err(refused),
        Ok(()) => gather(&mut body, announced, limit, share).await,
    };
    match read {
        Ok(bytes) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Err(error) => {
            share.give_back();
            match error {
                // The total length decides which error the client gets.
                Error::ValueTooLarge { .. } if announced.is_none() => match discard(&mut body).await {
                    Some(rest) => limit.admit(limit.bytes + 1 + rest)?,
                    None => return Err(Error::BodyTooLarge { limit: limit.bytes }),
                },
                Error::ValueTooLarge { .. } | Error::BodyTooLarge { .. } | Error::TooManyBodies => {
                    discard(&mut body).await;
                }
                _ => {}
            }
            Err(error)
        }
    }
}

/// Collects the chunks of a body. Memory is reserved when data arrives, at most twice the received bytes, and never
/// by the announced length alone. A client that announces a large body and sends little does not block others.
async fn gather(
    body: &mut Body,
    announced: Option<usize>,
    limit: BodyLimit,
    share: &Share<&Budget>,
) -> Result<Bytes, Error> {
    let (mut kept, mut taken) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::BrokenBody)?.into_data() else { continue };
        if announced == Some(data.len()) {
            // The whole body is one chunk, as usual for small bodies: no copy.
            share.take(data.len()).map_err(used_up)?;
            return Ok(data);
        }
        let len = kept.len() + data.len();
        limit.admit(len)?;
        if len > taken {
            let capacity = (2 * len).min(announced.unwrap_or(limit.bytes)).max(len);
            share.take(capacity - taken).map_err(used_up)?;
            taken = capacity;
            kept.reserve_exact(capacity - kept.len());
        }
        kept.extend_from_slice(&data);
    }
    Ok(kept.into())
}

fn used_up(BudgetExceeded: BudgetExceeded) -> Error {
    Error::TooManyBodies
}

/// Reads the rest of a body and throws it away. Returns its length, or `None` if it did not end in time.
async fn discard(body: &mut Body) -> Option<usize> {
    let mut len = 0;
    let discarded = async {
        while let Some(Ok(frame)) = body.frame().await {
            len += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    tokio::time::timeout(DISCARD, discarded).await.is_ok().then_some(len)
}

/// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
fn is_expecting(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    const LIMIT: BodyLimit = BodyLimit { bytes: 100, value_bytes: None, max_body_bytes: 100 };

    /// A body without a `Content-Length`, in chunks of these sizes.
    fn pieces(sizes: &[usize]) -> Request {
        let pieces: Vec<_> = sizes.iter().map(|size| Ok::<_, std::io::Error>(vec![b'x'; *size])).collect();
        Request::new(Body::from_stream(stream::iter(pieces)))
    }

    fn whole(size: usize) -> Request {
        Request::new(Body::from(vec![b'x'; size]))
    }

    async fn len(request: Request) -> usize {
        request.into_body().collect().await.unwrap().to_bytes().len()
    }

    #[tokio::test]
    async fn the_memory_of_a_body_is_released_with_its_share() {
        let budget = Budget::new(60);
        let (one, other) = (budget.share(), budget.share());
        assert_eq!(len(read(whole(20), LIMIT, &one).await.unwrap()).await, 20);
        assert_eq!(len(read(pieces(&[5, 5, 10]), LIMIT, &other).await.unwrap()).await, 20);
        // A body in chunks may reserve twice what has arrived.
        assert!((40..=60).contains(&budget.used()), "{}", budget.used());
        drop(other);
        assert_eq!(budget.used(), 20);
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_body_beyond_the_budget_is_refused_and_holds_no_memory() {
        let budget = Budget::new(60);
        let held = budget.share();
        read(whole(30), LIMIT, &held).await.unwrap();
        for request in [whole(31), pieces(&[16, 16]), pieces(&[31])] {
            let share = budget.share();
            let refused = read(request, LIMIT, &share).await;
            assert!(matches!(refused, Err(Error::TooManyBodies)), "{refused:?}");
            assert_eq!(budget.used(), 30);
        }
        assert!(read(whole(30), LIMIT, &budget.share()).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_beyond_its_own_limit_is_refused_and_holds_no_memory() {
        let budget = Budget::new(1000);
        for request in [whole(101), pieces(&[50, 51])] {
            let share = budget.share();
            assert!(matches!(read(request, LIMIT, &share).await, Err(Error::BodyTooLarge { limit: 100 })));
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn a_body_of_one_value_is_limited_by_the_value_limit_and_the_error_depends_on_its_size() {
        let budget = Budget::new(usize::MAX >> 1);
        let limit = BodyLimit::of_entry(1 << 20, 1000);
        let most = 1000 + BESIDE_VALUE_BYTES;
        for request in [whole(most), pieces(&[most - 1, 1])] {
            assert_eq!(len(read(request, limit, &budget.share()).await.unwrap()).await, most);
        }
        for request in [whole(most + 1), pieces(&[most, 1]), pieces(&[most, 1, (1 << 20) - most - 1])] {
            let refused = read(request, limit, &budget.share()).await;
            assert!(matches!(refused, Err(Error::ValueTooLarge { limit: 1000 })), "{refused:?}");
        }
        for request in [whole((1 << 20) + 1), pieces(&[most, 1, (1 << 20) - most])] {
            let refused = read(request, limit, &budget.share()).await;
            assert!(matches!(refused, Err(Error::BodyTooLarge { .. })), "{refused:?}");
        }
        assert!(matches!(BodyLimit::of_entry(500, 1000).admit(501), Err(Error::BodyTooLarge { limit: 500 })));
    }

    #[tokio::test]
    async fn a_request_without_a_body_needs_no_budget() {
        let budget = Budget::new(0);
        assert!(read(whole(0), LIMIT, &budget.share()).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_half_way_releases_its_share() {
        let budget = Budget::new(100);
        let first = stream::iter([Ok::<_, std::io::Error>(vec![b'x'; 10])]);
        let endless = Body::from_stream(futures_util::StreamExt::chain(first, stream::pending()));
        let share = budget.share();
        let reading = read(Request::new(endless), LIMIT, &share);
        assert!(tokio::time::timeout(Duration::from_millis(20), reading).await.is_err());
        assert!(budget.used() >= 10);
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}
