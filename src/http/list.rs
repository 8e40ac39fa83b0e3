//! `GET /api/v1/cache/{ns}`: the live keys, page by page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::extract::{NamespacePath, StrictQuery, limit, selection};
use super::{SharedApp, answer};
use crate::cache::Listing;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    pattern: Option<String>,
    tag: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

#[derive(Serialize)]
struct ListAnswer {
    size: u64,
    keys: Vec<String>,
    cursor: Option<String>,
}

pub async fn list(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Response, Error> {
    let listing = Listing {
        selection: selection(query.pattern, query.tag)?,
        cursor: query.cursor,
        limit: limit(query.limit.as_deref())?,
    };
    let page = app.cache.list(&namespace, &listing).await?;
    let cursor = page.next.map(|cursor| cursor.encode());
    Ok(answer::json(StatusCode::OK, &ListAnswer { size: page.size, keys: page.keys, cursor }))
}
