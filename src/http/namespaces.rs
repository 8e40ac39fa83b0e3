//! `/api/v1/namespaces`: the policies.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::Error;
use super::extract::{NamespacePath, NoParameters, RequestOrigin, StrictQuery};
use super::flush::FlushAnswer;
use super::json::{date, object};
use super::{SharedApp, answer};
use crate::model::{Invalid, Policy, whole_number};
use crate::namespaces::Record;

#[derive(Serialize)]
struct NamespaceAnswer {
    name: String,
    default_ttl: u64,
    max_size_mb: u64,
    eviction_policy: &'static str,
    stale_if_error: u64,
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
            stale_if_error: record.policy.stale_if_error_seconds(),
            created_at: date(record.created_at.0),
            updated_at: date(record.updated_at.0),
        }
    }
}

/// `GET` of all.
pub async fn list(State(app): State<SharedApp>, _: StrictQuery<NoParameters>) -> Result<Response, Error> {
    let namespaces = app.cache.namespaces()?.into_iter().map(NamespaceAnswer::from).collect();
    Ok(answer::json(StatusCode::OK, &NamespacesAnswer { namespaces }))
}

/// `GET` of one.
pub async fn get(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
) -> Result<Response, Error> {
    Ok(answer::json(StatusCode::OK, &NamespaceAnswer::from(app.cache.namespace(&namespace)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyBody<'b> {
    #[serde(borrow, default)]
    default_ttl: Option<&'b RawValue>,
    #[serde(borrow, default)]
    max_size_mb: Option<&'b RawValue>,
    #[serde(default)]
    eviction_policy: Option<String>,
    #[serde(borrow, default)]
    stale_if_error: Option<&'b RawValue>,
}

/// `PUT`: create or replace; what is absent takes the default.
pub async fn put(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    RequestOrigin(origin): RequestOrigin,
    body: Bytes,
) -> Result<Response, Error> {
    let body: PolicyBody<'_> = object(&body)?;
    let default = app.cache.default_policy();
    let policy = Policy::parse(
        number("default_ttl", body.default_ttl)?.unwrap_or(default.default_ttl_seconds()),
        number("max_size_mb", body.max_size_mb)?.unwrap_or(default.max_size_mb),
        body.eviction_policy.as_deref().unwrap_or(default.eviction_policy.as_str()),
        number("stale_if_error", body.stale_if_error)?.unwrap_or(default.stale_if_error_seconds()),
    )?;
    let stored = app.cache.put_namespace(&namespace, policy, &origin).await?;
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer::json(status, &NamespaceAnswer::from(stored.record)))
}

/// A whole number, named when it is none.
fn number(field: &str, text: Option<&RawValue>) -> Result<Option<u64>, Invalid> {
    let parse = |text: &RawValue| {
        let wrong = || Invalid::Policy(format!("`{field}` is a whole number of at least 0, not {text}"));
        whole_number(text.get()).ok_or_else(wrong)
    };
    text.map(parse).transpose()
}

/// `DELETE`: the policy, and all entries with it.
pub async fn delete(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    RequestOrigin(origin): RequestOrigin,
) -> Result<Response, Error> {
    let deleted_count = app.cache.delete_namespace(&namespace, &origin).await?;
    Ok(answer::json(StatusCode::OK, &FlushAnswer { success: true, deleted_count }))
}
