//! `GET /api/v1/cache/{ns}`: the live keys, page by page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::extract::{NamespacePath, StrictQuery, selection};
use super::{SharedApp, answer};
use crate::cache::Listing;

/// Keys a page when the request does not say, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

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
        limit: query.limit.as_deref().map_or(Ok(DEFAULT_LIMIT), limit)?,
    };
    let page = app.cache.list(&namespace, &listing).await?;
    let cursor = page.next.map(|cursor| cursor.encode());
    Ok(answer::json(StatusCode::OK, &ListAnswer { size: page.size, keys: page.keys, cursor }))
}

fn limit(text: &str) -> Result<usize, Error> {
    let wrong = || Error::InvalidQuery(format!("`limit` is a whole number from 1 to {MAX_LIMIT}, not {text:?}"));
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(wrong)
}
