//! `/api/v1/namespaces`: the policies of namespaces.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::error::Error;
use super::extract::{NamespacePath, NoParameters, RequestOrigin, StrictQuery};
use super::flush::{ClientPatience, FlushAnswer};
use super::json::object;
use super::openapi::schema;
use super::state::SharedApp;
use super::{answer, jobs};
use crate::model::{Invalid, Policy, PolicyChange, whole_number};
use crate::namespaces::Record;

#[derive(Serialize, ToSchema)]
#[schema(as = Namespace)]
pub struct NamespaceAnswer {
    name: String,
    /// In seconds; 0: entries that are written without a TTL never expire.
    default_ttl: u64,
    /// Quota in MiB; 0: no quota.
    max_size_mb: u64,
    #[schema(schema_with = schema::eviction_policy)]
    eviction_policy: &'static str,
    /// In seconds; 0: expired copies are never served.
    stale_if_error: u64,
    #[schema(schema_with = schema::date)]
    created_at: String,
    #[schema(schema_with = schema::date)]
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct NamespacesAnswer {
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
            created_at: record.created_at.to_rfc3339(),
            updated_at: record.updated_at.to_rfc3339(),
        }
    }
}

/// `GET` of all policies.
#[utoipa::path(
    get,
    path = "/api/v1/namespaces",
    operation_id = "list_namespaces",
    tag = "namespaces",
    summary = "The policies of all namespaces",
    responses((status = 200, description = "All policies, sorted by name.", body = NamespacesAnswer))
)]
pub async fn list(State(app): State<SharedApp>, _: StrictQuery<NoParameters>) -> Result<Response, Error> {
    let namespaces = app.cache.namespaces()?.into_iter().map(NamespaceAnswer::from).collect();
    Ok(answer::json(StatusCode::OK, &NamespacesAnswer { namespaces }))
}

/// `GET` of one policy.
#[utoipa::path(
    get,
    path = "/api/v1/namespaces/{ns}",
    operation_id = "get_namespace",
    tag = "namespaces",
    summary = "The policy of a namespace",
    responses((status = 200, description = "The policy.", body = NamespaceAnswer))
)]
pub async fn get(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
) -> Result<Response, Error> {
    Ok(answer::json(StatusCode::OK, &NamespaceAnswer::from(app.cache.namespace(&namespace)?)))
}

/// The fields of a policy. A PATCH distinguishes an absent field from `null`, a PUT does not.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyBody<'b> {
    #[serde(borrow, default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_default_ttl)]
    default_ttl: Option<Option<&'b RawValue>>,
    #[serde(borrow, default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_max_size_mb)]
    max_size_mb: Option<Option<&'b RawValue>>,
    #[serde(default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_eviction_policy)]
    eviction_policy: Option<Option<String>>,
    #[serde(borrow, default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_stale_if_error)]
    stale_if_error: Option<Option<&'b RawValue>>,
}

/// Deserializes a field that is present, so that `null` becomes `Some(None)` and differs from an absent field.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// `PUT`: creates or replaces a policy.
#[utoipa::path(
    put, path = "/api/v1/namespaces/{ns}", operation_id = "put_namespace", tag = "namespaces",
    summary = "Create or replace a policy", description = "A field that is absent or null gets the default.",
    request_body(content = PolicyBody, example = json!({
        "default_ttl": 3600, "max_size_mb": 100, "eviction_policy": "LRU", "stale_if_error": 60,
    })),
    responses(
        (status = 200, description = "The policy was replaced.", body = NamespaceAnswer),
        (status = 201, description = "The policy was created.", body = NamespaceAnswer),
    )
)]
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
        number("default_ttl", body.default_ttl.flatten())?.unwrap_or(default.default_ttl_seconds()),
        number("max_size_mb", body.max_size_mb.flatten())?.unwrap_or(default.max_size_mb),
        body.eviction_policy.flatten().as_deref().unwrap_or(default.eviction_policy.as_str()),
        number("stale_if_error", body.stale_if_error.flatten())?.unwrap_or(default.stale_if_error_seconds()),
    )?;
    let stored = app.cache.put_namespace(&namespace, policy, &origin).await?;
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer::json(status, &NamespaceAnswer::from(stored.record)))
}

/// `PATCH`: changes the fields in the body.
#[utoipa::path(
    patch, path = "/api/v1/namespaces/{ns}", operation_id = "patch_namespace", tag = "namespaces",
    summary = "Change fields of a policy",
    description = "Changes the fields in the body, in one transaction. `null` sets the default; absent fields do not \
                   change.",
    request_body(content = PolicyBody, example = json!({"max_size_mb": 200})),
    responses((status = 200, description = "The policy after the change.", body = NamespaceAnswer))
)]
pub async fn patch(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    RequestOrigin(origin): RequestOrigin,
    body: Bytes,
) -> Result<Response, Error> {
    let body: PolicyBody<'_> = object(&body)?;
    let default = app.cache.default_policy();
    let number = |field, named: Option<Option<&RawValue>>, default: u64| {
        named.map(|text| Ok::<_, Invalid>(number(field, text)?.unwrap_or(default))).transpose()
    };
    let eviction = body.eviction_policy.map(|named| named.unwrap_or_else(|| default.eviction_policy.to_string()));
    let change = PolicyChange::parse(
        number("default_ttl", body.default_ttl, default.default_ttl_seconds())?,
        number("max_size_mb", body.max_size_mb, default.max_size_mb)?,
        eviction.as_deref(),
        number("stale_if_error", body.stale_if_error, default.stale_if_error_seconds())?,
    )?;
    let record = app.cache.patch_namespace(&namespace, &change, &origin).await?;
    Ok(answer::json(StatusCode::OK, &NamespaceAnswer::from(record)))
}

/// Parses a whole number. The error names the field.
fn number(field: &str, text: Option<&RawValue>) -> Result<Option<u64>, Invalid> {
    let parse = |text: &RawValue| {
        let wrong = || Invalid::Policy(format!("`{field}` must be a whole number of at least 0, not {text}"));
        whole_number(text.get()).ok_or_else(wrong)
    };
    text.map(parse).transpose()
}

/// `DELETE`: deletes the policy and all entries.
#[utoipa::path(
    delete,
    path = "/api/v1/namespaces/{ns}",
    operation_id = "delete_namespace",
    tag = "namespaces",
    summary = "Delete the policy and all entries of a namespace",
    description = "A deletion that takes longer than the request's deadline continues as a job. The policy is deleted \
                   last.",
    responses(
        (status = 200, description = "The policy and all entries are deleted.", body = FlushAnswer),
        (status = 202, description = jobs::ACCEPTED, body = jobs::JobAnswer),
    )
)]
pub async fn delete(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    _: StrictQuery<NoParameters>,
    RequestOrigin(origin): RequestOrigin,
    client: ClientPatience,
) -> Result<Response, Error> {
    let deleted = app.cache.delete_namespace(&namespace, &origin, client.patience, jobs::failure).await?;
    Ok(client.answer(&deleted))
}
