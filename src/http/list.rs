//! `GET /api/v1/cache/{ns}`: lists the live keys, page by page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::extract::{NamespacePath, StrictQuery, selection};
use super::openapi::schema;
use super::page_limit::{PAGE, limit};
use super::state::SharedApp;
use crate::cache::Listing;
use crate::store;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only keys that match. Cannot be combined with `tag`.
    #[param(schema_with = schema::pattern)]
    pattern: Option<String>,
    /// Only keys of entries that have this tag.
    #[param(schema_with = schema::tag)]
    tag: Option<String>,
    #[param(schema_with = schema::list_cursor)]
    cursor: Option<String>,
    /// Keys per page.
    #[param(schema_with = schema::limit)]
    limit: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ListAnswer {
    /// How many entries the namespace has.
    size: u64,
    keys: Vec<String>,
    /// Pass it to get the next page; null on the last page.
    #[schema(required)]
    cursor: Option<String>,
    /// True if a shard did not answer. Its keys are then missing in `keys` and `size`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    partial: bool,
    /// The shards that did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    missing_shards: Vec<String>,
}

#[utoipa::path(
    get,
    path = "/api/v1/cache/{ns}",
    operation_id = "list_keys",
    tag = "namespaces",
    summary = "List the live keys",
    description = "A key that exists during the whole listing is listed exactly once, whatever is written meanwhile. \
                   If a shard does not answer, `partial` is true.",
    params(ListQuery),
    responses((status = 200, description = PAGE, body = ListAnswer))
)]
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
    let (partial, missing_shards) = (!page.failed.is_empty(), store::Error::shards_of(&page.failed));
    let answer = ListAnswer { size: page.size, keys: page.keys, cursor, partial, missing_shards };
    Ok(answer::json(StatusCode::OK, &answer))
}
