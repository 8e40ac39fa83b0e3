//! Leases over HTTP: the headers of a read that asks for one, of its answer, and of the write that fills it.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Error;
use super::extract::{EntryPath, NoParameters, StrictQuery};
use super::prefer::{PREFERENCE_APPLIED, preference, preference_in};
use super::reader::Reader;
use super::state::SharedApp;
use super::{answer, delivery, positions};
use crate::cache::{self, Lease};
use crate::model::{Invalid, LeaseRequest, LeaseToken, whole_number};
use crate::store;

const CACHE_LEASE: HeaderName = HeaderName::from_static("cache-lease");

/// What `Prefer: lease=10, wait=2` asks for (RFC 7240); `None` without `lease`. The lease is brought into its limits,
/// and a wait is at most `longest_wait`. A preference that is not a number is ignored, as the RFC demands.
pub fn request(headers: &HeaderMap, longest_wait: Duration) -> Option<LeaseRequest> {
    let seconds = |name| preference(headers, name).and_then(seconds);
    let lease = seconds("lease")?.clamp(LeaseRequest::SHORTEST, LeaseRequest::LONGEST);
    Some(LeaseRequest { lease, wait: seconds("wait").unwrap_or_default().min(longest_wait) })
}

/// Whether the only value of `Prefer` asks for a lease, as [`request`] understands it.
pub fn is_asked_for(prefer: &[u8]) -> bool {
    let text = std::str::from_utf8(prefer).ok().filter(|text| text.is_ascii());
    preference_in(text.into_iter(), "lease").and_then(seconds).is_some()
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs)
}

/// The lease that a write fills; `None` if it names none.
pub fn token(headers: &HeaderMap) -> Option<LeaseToken> {
    let token = headers.get(CACHE_LEASE)?.to_str().ok().and_then(LeaseToken::parse);
    Some(token.unwrap_or_else(LeaseToken::never_given))
}

/// Reads the duration of the leases that a batch asks for; null is `None`.
///
/// # Errors
/// [`Error::InvalidBody`].
pub fn duration(reader: &mut Reader<'_>) -> Result<Option<Duration>, Error> {
    const LIMITS: RangeInclusive<Duration> = LeaseRequest::SHORTEST..=LeaseRequest::LONGEST;
    let Some(value) = reader.optional()? else { return Ok(None) };
    let duration = whole_number(value.get()).map(Duration::from_secs).filter(|duration| LIMITS.contains(duration));
    let invalid = || Error::InvalidBody("expected a whole number of seconds from 1 to 60".to_owned());
    duration.map(Some).ok_or_else(invalid)
}

/// Completes the answer of a read that asked for a lease: adds what became of the lease, and gives it back if the
/// answer is not written to the client.
pub fn complete(mut response: Response, request: LeaseRequest, lease: Option<Lease>) -> Response {
    let headers = response.headers_mut();
    // The fast path writes the same line.
    headers.insert(VARY, HeaderValue::from_static("prefer"));
    let value = match &lease {
        None => return response,
        Some(Lease::Won(won)) => format!("won;token=\"{}\";ttl={}", won.token().as_str(), won.duration().as_secs()),
        Some(Lease::Held { left }) => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            format!("held;ttl={}", left.as_millis().div_ceil(1000).max(1))
        }
    };
    let text = |text: String| HeaderValue::try_from(text).expect("numbers and tokens are valid in headers");
    headers.insert(CACHE_LEASE, text(value));
    headers.insert(PREFERENCE_APPLIED, text(format!("lease={}", request.lease.as_secs())));
    // A token must reach one client only.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    deliver(response, lease)
}

/// Completes the answer of a batch that asked for leases.
pub fn complete_batch(mut response: Response, leases: impl Iterator<Item = Lease>) -> Response {
    let mut leases = leases.peekable();
    if leases.peek().is_some() {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    deliver(response, leases)
}

/// Gives the leases back if the answer is not written to the client.
fn deliver(mut response: Response, leases: impl IntoIterator<Item = Lease>) -> Response {
    let won = leases.into_iter().filter_map(|lease| match lease {
        Lease::Won(won) => Some(won),
        Lease::Held { .. } => None,
    });
    delivery::attach(&mut response, won.collect());
    response
}

#[derive(Serialize, ToSchema)]
pub struct ReleaseAnswer {
    success: bool,
    released: bool,
}

/// `DELETE .../lease`.
#[utoipa::path(
    delete,
    path = "/api/v1/cache/{ns}/{key}/lease",
    operation_id = "release_lease",
    tag = "entries",
    summary = "Give a lease up without a value",
    description = "The next caller that misses the key can get a lease at once, and callers that wait ask again.",
    responses((status = 200, description = "The lease is released.", body = ReleaseAnswer))
)]
pub async fn release(
    State(app): State<SharedApp>,
    EntryPath(key): EntryPath,
    _: StrictQuery<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let missing = || Invalid::Precondition("the header `Cache-Lease` is missing: it names the lease".to_owned());
    let token = token(&headers).ok_or_else(missing)?;
    match app.cache.release(&key, &token).await? {
        Some(position) => {
            let mut response = answer::json(StatusCode::OK, &ReleaseAnswer { success: true, released: true });
            positions::put_one(&mut response, app.cache.shard_of(&key), position);
            Ok(response)
        }
        None => Err(cache::Error::from(store::Error::LeaseLost).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::HeaderName;

    fn asked(prefer: &'static str) -> Option<LeaseRequest> {
        let headers = [(HeaderName::from_static("prefer"), HeaderValue::from_static(prefer))].into_iter().collect();
        request(&headers, Duration::from_secs(4))
    }

    #[test]
    fn a_lease_is_asked_for_within_its_limits() {
        let seconds = Duration::from_secs;
        for (prefer, expected) in [
            ("lease=10, wait=2", Some((10, 2))),
            ("lease=10", Some((10, 0))),
            ("respond-async, LEASE=\"5\";x=1 , wait=60", Some((5, 4))),
            ("lease=0", Some((1, 0))),
            ("lease=3600", Some((60, 0))),
            ("lease=soon", None),
            ("lease", None),
            ("wait=2", None),
        ] {
            let expected = expected.map(|(lease, wait)| LeaseRequest { lease: seconds(lease), wait: seconds(wait) });
            assert_eq!(asked(prefer), expected, "{prefer}");
            assert_eq!(is_asked_for(prefer.as_bytes()), expected.is_some(), "{prefer}");
        }
    }
}
