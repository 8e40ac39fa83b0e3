//! Reads a request's body whole, within a bound of its own and one for all bodies together.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::budget::{Budget, Share, UsedUp};
use super::error::Error;

/// How long the rest of a body that is refused is read and thrown away: a connection closed on a sender
/// that is busy sending loses the answer.
const DISCARD: Duration = Duration::from_secs(1);

/// The request with its body in memory, which `share` then accounts for.
///
/// # Errors
/// The body is larger than `limit` or than what is left of the budget, or broke off.
pub async fn read(request: Request, limit: usize, share: &Share<&Budget>) -> Result<Request, Error> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, mut body) = request.into_parts();
    let announced = body.size_hint().exact().map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    let admitted = match announced {
        Some(len) if len > limit => Err(Error::BodyTooLarge { limit }),
        Some(len) if len > share.left_for_all() => Err(Error::TooManyBodies),
        _ => Ok(()),
    };
    let read = match admitted {
        // Who asks first has not sent it yet, and is told before it does.
        Err(refused) if is_expecting(&parts.headers) => return Err(refused),
        Err(refused) => Err(refused),
        Ok(()) => gather(&mut body, announced, limit, share).await,
    };
    match read {
        Ok(bytes) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Err(error) => {
            share.give_back();
            if matches!(error, Error::BodyTooLarge { .. } | Error::TooManyBodies) {
                discard(&mut body).await;
            }
            Err(error)
        }
    }
}

/// Gathers the pieces of a body. Memory is taken as they come, never on the sender's word, and at most
/// twice what has come, so that who announces much and sends little keeps nobody else out.
async fn gather(
    body: &mut Body,
    announced: Option<usize>,
    limit: usize,
    share: &Share<&Budget>,
) -> Result<Bytes, Error> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::BrokenBody)?.into_data() else { continue };
        if announced == Some(data.len()) {
            // All of it in one piece, as small bodies are: nothing to copy.
            share.take(data.len()).map_err(used_up)?;
            return Ok(data);
        }
        let len = kept.len() + data.len();
        if len > limit {
            return Err(Error::BodyTooLarge { limit });
        }
        if len > kept.capacity() {
            let capacity = (2 * len).min(announced.unwrap_or(limit)).max(len);
            share.take(capacity - kept.capacity()).map_err(used_up)?;
            kept.reserve_exact(capacity - kept.len());
        }
        kept.extend_from_slice(&data);
    }
    Ok(kept.into())
}

fn used_up(UsedUp: UsedUp) -> Error {
    Error::TooManyBodies
}

async fn discard(body: &mut Body) {
    let discarded = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whether the end was reached in time or not, the answer is the same.
    let _ = tokio::time::timeout(DISCARD, discarded).await;
}

/// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
fn is_expecting(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    const LIMIT: usize = 100;

    /// A body without a length, in pieces of these sizes.
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
    async fn what_a_body_takes_is_given_back_with_its_share() {
        let budget = Budget::new(60);
        let (one, other) = (budget.share(), budget.share());
        assert_eq!(len(read(whole(20), LIMIT, &one).await.unwrap()).await, 20);
        assert_eq!(len(read(pieces(&[5, 5, 10]), LIMIT, &other).await.unwrap()).await, 20);
        // In pieces it may take twice what has come.
        assert!((40..=60).contains(&budget.used()), "{}", budget.used());
        drop(other);
        assert_eq!(budget.used(), 20);
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_body_beyond_the_budget_is_refused_and_holds_nothing() {
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
    async fn a_body_beyond_its_own_limit_is_refused_and_holds_nothing() {
        let budget = Budget::new(1000);
        for request in [whole(101), pieces(&[50, 51])] {
            let share = budget.share();
            assert!(matches!(read(request, LIMIT, &share).await, Err(Error::BodyTooLarge { limit: LIMIT })));
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn a_request_without_a_body_takes_nothing() {
        let budget = Budget::new(0);
        assert!(read(whole(0), LIMIT, &budget.share()).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_half_way_gives_its_share_back() {
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
