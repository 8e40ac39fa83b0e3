//! `/api/v1/namespaces`: the policies.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::extract::{NamespacePath, NoParameters, StrictQuery};
use super::flush::FlushAnswer;
use super::json::{date, object};
use super::{SharedApp, answer};
use crate::model::Policy;
use crate::namespaces::Record;

#[derive(Serialize)]
struct NamespaceAnswer {
    name: String,
    default_ttl: u64,
    max_size_mb: u64,
    eviction_policy: &'static str,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct NamespacesAnswer {
    namespaces: Vec<NamespaceAnswer>,
}

impl From<Record> for NamespaceAnswer {
    fn from(record: Record) -> Self {
        Self {
            name: record.namespace.to_string(),
            default_ttl: record.policy.default_ttl_seconds(),
            max_size_mb: record.policy.max_size_mb,
            eviction_policy: record.policy.eviction_policy.as_str(),
            created_at: date(record.created_at.0),
            updated_at: date(record.updated_at.0),
        }
    }
}

/// `GET` of all.
pub async fn list(State(app): State<SharedApp>, _: StrictQuery<NoParameters>) -> Response {
    let namespaces = app.cache.namespaces().into_iter().map(NamespaceAnswer::from).collect();
    answer::json(StatusCode::OK, &NamespacesAnswer { namespaces })
}

/// `GET` of one.
pub async fn get(State(app): State<SharedApp>, NamespacePath(namespace): NamespacePath) -> Result<Response, Error> {
    Ok(answer::json(StatusCode::OK, &NamespaceAnswer::from(app.cache.namespace(&namespace)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyBody {
    default_ttl: Option<u64>,
    max_size_mb: Option<u64>,
    eviction_policy: Option<String>,
}

/// `PUT`: create or replace; what is absent takes the default.
pub async fn put(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    body: Bytes,
) -> Result<Response, Error> {
    let body: PolicyBody = object(&body)?;
    let default = app.cache.default_policy();
    let policy = Policy::parse(
        body.default_ttl.unwrap_or(default.default_ttl_seconds()),
        body.max_size_mb.unwrap_or(default.max_size_mb),
        body.eviction_policy.as_deref().unwrap_or(default.eviction_policy.as_str()),
    )?;
    let stored = app.cache.put_namespace(&namespace, policy).await?;
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer::json(status, &NamespaceAnswer::from(stored.record)))
}

/// `DELETE`: the policy, and all entries with it.
pub async fn delete(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
) -> Result<Response, Error> {
    let deleted_count = app.cache.delete_namespace(&namespace).await?;
    Ok(answer::json(StatusCode::OK, &FlushAnswer { success: true, deleted_count }))
}
