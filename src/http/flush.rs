//! `DELETE /api/v1/cache/{ns}`: a whole namespace, or what `?pattern=` or `?tag=` selects; with
//! `?dry_run=true` only counted.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Error;
use super::extract::{FlushQuery, Flushing, NamespacePath, RequestOrigin, StrictQuery};
use super::openapi::{answers, params};
use super::{SharedApp, answer};

/// What a flush did.
#[derive(Serialize, ToSchema)]
pub struct FlushAnswer {
    pub success: bool,
    pub deleted_count: u64,
}

/// What a flush would do.
#[derive(Serialize, ToSchema)]
pub struct DryRunAnswer {
    success: bool,
    /// Always 0.
    deleted_count: u64,
    matched_count: u64,
}

#[utoipa::path(
    delete,
    path = "/api/v1/cache/{ns}",
    operation_id = "flush",
    tag = "namespaces",
    summary = "Delete what a pattern or a tag selects, or all",
    params(params::InNamespace, FlushQuery, params::ChangeHeaders),
    responses(answers::Flush)
)]
pub async fn flush(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    StrictQuery(query): StrictQuery<FlushQuery>,
    RequestOrigin(origin): RequestOrigin,
) -> Result<Response, Error> {
    match query.parse()? {
        (selection, Flushing::Delete) => {
            let deleted_count = app.cache.flush(&namespace, &selection, &origin).await?;
            Ok(answer::json(StatusCode::OK, &FlushAnswer { success: true, deleted_count }))
        }
        (selection, Flushing::DryRun) => {
            let matched_count = app.cache.count(&namespace, &selection).await?;
            Ok(answer::json(StatusCode::OK, &DryRunAnswer { success: true, deleted_count: 0, matched_count }))
        }
    }
}
