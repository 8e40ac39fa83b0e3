//! `DELETE /api/v1/cache/{ns}`: a whole namespace, or what `?pattern=` or `?tag=` selects.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::error::Error;
use super::extract::{NamespacePath, RequestOrigin, SelectionQuery, StrictQuery};
use super::{SharedApp, answer};

/// What a flush did.
#[derive(Serialize)]
pub struct FlushAnswer {
    pub success: bool,
    pub deleted_count: u64,
}

pub async fn flush(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    StrictQuery(query): StrictQuery<SelectionQuery>,
    RequestOrigin(origin): RequestOrigin,
) -> Result<Response, Error> {
    let deleted_count = app.cache.flush(&namespace, &query.try_into()?, &origin).await?;
    Ok(answer::json(StatusCode::OK, &FlushAnswer { success: true, deleted_count }))
}
