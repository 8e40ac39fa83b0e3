//! `DELETE /api/v1/cache/{ns}`: deletes all entries of a namespace, or those that `?pattern=` or `?tag=` selects.
//! With `?dry_run=true` it only counts them. A flush that takes longer than its request continues as a job, see
//! `http::jobs`.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::bounds::JobDeadline;
use super::error::Error;
use super::extract::{FlushMode, FlushQuery, NamespacePath, RequestOrigin, StrictQuery};
use super::prefer::{PREFERENCE_APPLIED, preference};
use super::state::SharedApp;
use super::{answer, jobs, positions};
use crate::cache::Flushed;
use crate::jobs::{Flush, Kind, Patience};
use crate::model::Positions;

const RESPOND_ASYNC: &str = "respond-async";

/// How long a client waits for a flush. With `Prefer: respond-async` the client does not wait and gets a job at once.
pub struct ClientPatience {
    is_async: bool,
    pub patience: Patience,
}

impl ClientPatience {
    /// The response for the client.
    pub fn answer(&self, flushed: &Flushed) -> Response {
        self.completed(match flushed {
            Flushed::Done { deleted, positions } => {
                done(&FlushAnswer { deleted_count: Some(*deleted), ..FlushAnswer::SUCCESS }, positions)
            }
            Flushed::Job(job) => jobs::accepted(job),
        })
    }

    /// The response for the client of a flush that marks entries.
    fn answer_marked(&self, flushed: &Flushed) -> Response {
        self.completed(match flushed {
            Flushed::Done { deleted: marked, positions } => done(&FlushAnswer::marked(*marked), positions),
            Flushed::Job(job) => jobs::accepted(job),
        })
    }

    fn completed(&self, mut response: Response) -> Response {
        if self.is_async {
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
        }
        response
    }
}

impl<S: Sync> FromRequestParts<S> for ClientPatience {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let is_async = prefers_async(&parts.headers);
        let patience = match parts.extensions.get() {
            Some(JobDeadline(last_moment)) if !is_async => Patience::Until(*last_moment),
            _ => Patience::None,
        };
        Ok(Self { is_async, patience })
    }
}

/// The result of a flush.
#[derive(Serialize, ToSchema)]
pub struct FlushAnswer {
    success: bool,
    /// How many entries were deleted: 0 with `dry_run=true`. Absent with `mode=stale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    deleted_count: Option<u64>,
    /// Only with `mode=stale`: how many entries were marked, 0 with `dry_run=true`; entries that may not be answered stale were deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    marked_count: Option<u64>,
    /// Only with `dry_run=true`: how many entries the flush would delete or mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    matched_count: Option<u64>,
}

impl FlushAnswer {
    const SUCCESS: Self = Self { success: true, deleted_count: None, marked_count: None, matched_count: None };

    /// The result of marking entries as stale.
    pub fn marked(count: u64) -> Self {
        Self { marked_count: Some(count), ..Self::SUCCESS }
    }
}

#[utoipa::path(
    delete,
    path = "/api/v1/cache/{ns}",
    operation_id = "flush",
    tag = "namespaces",
    summary = "Delete all entries, or those that a pattern or a tag selects",
    description = "A flush that takes longer than the request's deadline continues as a job.",
    params(FlushQuery),
    responses(
        (status = 200, description = "The selected entries are deleted, or only counted.", body = FlushAnswer),
        (status = 202, description = jobs::ACCEPTED, body = jobs::JobAnswer),
    )
)]
pub async fn flush(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    StrictQuery(query): StrictQuery<FlushQuery>,
    RequestOrigin(origin): RequestOrigin,
    client: ClientPatience,
) -> Result<Response, Error> {
    match query.parse()? {
        (selection, FlushMode::Delete) => {
            let flush = Flush { kind: Kind::Flush, namespace, selection, origin };
            let flushed = app.cache.flush(flush, client.patience, jobs::failure).await?;
            Ok(client.answer(&flushed))
        }
        (selection, FlushMode::MarkStale) => {
            let flush = Flush { kind: Kind::MarkStale, namespace, selection, origin };
            let flushed = app.cache.flush(flush, client.patience, jobs::failure).await?;
            Ok(client.answer_marked(&flushed))
        }
        (selection, FlushMode::DryRun { is_mark }) => {
            let matched_count = Some(app.cache.count(&namespace, &selection, None).await?.count);
            let nothing = match is_mark {
                false => FlushAnswer { deleted_count: Some(0), ..FlushAnswer::SUCCESS },
                true => FlushAnswer::marked(0),
            };
            Ok(answer::json(StatusCode::OK, &FlushAnswer { matched_count, ..nothing }))
        }
    }
}

/// The response for a flush that is finished.
fn done(answer: &FlushAnswer, positions: &Positions) -> Response {
    let mut response = answer::json(StatusCode::OK, answer);
    positions::put(&mut response, positions);
    response
}

/// Whether the client prefers a job at once (RFC 7240, 4.1).
fn prefers_async(headers: &HeaderMap) -> bool {
    preference(headers, RESPOND_ASYNC).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    #[test]
    fn a_preference_is_found_in_a_list_with_parameters() {
        let prefers = |values: &[&str]| {
            let headers = values.iter().map(|value| (HeaderName::from_static("prefer"), value.parse().unwrap()));
            prefers_async(&headers.collect::<HeaderMap>())
        };
        assert!(prefers(&["respond-async"]) && prefers(&["wait=10, Respond-Async"]));
        assert!(prefers(&["return=minimal", "respond-async; foo=bar"]));
        assert!(!prefers(&[]) && !prefers(&["wait=10"]) && !prefers(&["respond-asynchronously"]));
    }
}
