//! `/api/v1/namespaces`: the policies of namespaces.

use std::ops::RangeInclusive;

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
use crate::model::{Invalid, Policy, PolicyChange, PolicyFields, SomePolicyFields, Ttl, whole_number};
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
    eviction_policy: String,
    /// In seconds; 0: expired copies are never served.
    stale_if_error: u64,
    /// The part of a TTL by which it is shortened at random, at most; 0: off.
    ttl_jitter: f64,
    /// The part of its TTL after which an entry is refreshed; 1: off.
    refresh_after: f64,
    /// In seconds; 0: expired entries are never served while they are refreshed.
    stale_while_revalidate: u64,
    /// In seconds.
    tombstone_ttl: u64,
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
        let policy = record.policy.fields();
        Self {
            name: record.namespace.to_string(),
            default_ttl: policy.default_ttl,
            max_size_mb: policy.max_size_mb,
            eviction_policy: policy.eviction_policy,
            stale_if_error: policy.stale_if_error,
            ttl_jitter: policy.ttl_jitter,
            refresh_after: policy.refresh_after,
            stale_while_revalidate: policy.stale_while_revalidate,
            tombstone_ttl: policy.tombstone_ttl,
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
    #[serde(borrow, default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_ttl_jitter)]
    ttl_jitter: Option<Option<&'b RawValue>>,
    #[serde(borrow, default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_refresh_after)]
    refresh_after: Option<Option<&'b RawValue>>,
    #[serde(borrow, default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_stale_while_revalidate)]
    stale_while_revalidate: Option<Option<&'b RawValue>>,
    #[serde(borrow, default, deserialize_with = "named")]
    #[schema(schema_with = schema::asked_tombstone_ttl)]
    tombstone_ttl: Option<Option<&'b RawValue>>,
}

/// Deserializes a field that is present, so that `null` becomes `Some(None)` and differs from an absent field.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl PolicyBody<'_> {
    /// The fields of the body. A field that is `null` has its value in `default`.
    fn fields(self, default: &PolicyFields) -> Result<SomePolicyFields, Invalid> {
        let eviction = |named: Option<String>| named.unwrap_or_else(|| default.eviction_policy.clone());
        Ok(SomePolicyFields {
            default_ttl: number("default_ttl", SECONDS, self.default_ttl, default.default_ttl)?,
            max_size_mb: number("max_size_mb", 0..=Policy::MAX_SIZE_MB, self.max_size_mb, default.max_size_mb)?,
            eviction_policy: self.eviction_policy.map(eviction),
            stale_if_error: number("stale_if_error", SECONDS, self.stale_if_error, default.stale_if_error)?,
            ttl_jitter: part("ttl_jitter", Policy::TTL_JITTER, self.ttl_jitter, default.ttl_jitter)?,
            refresh_after: part("refresh_after", Policy::REFRESH_AFTER, self.refresh_after, default.refresh_after)?,
            stale_while_revalidate: number(
                "stale_while_revalidate",
                SECONDS,
                self.stale_while_revalidate,
                default.stale_while_revalidate,
            )?,
            tombstone_ttl: number("tombstone_ttl", 1..=Ttl::MAX_SECONDS, self.tombstone_ttl, default.tombstone_ttl)?,
        })
    }
}

/// `PUT`: creates or replaces a policy.
#[utoipa::path(
    put, path = "/api/v1/namespaces/{ns}", operation_id = "put_namespace", tag = "namespaces",
    summary = "Create or replace a policy", description = "A field that is absent or null gets the default.",
    request_body(content = PolicyBody, example = json!({
        "default_ttl": 3600, "max_size_mb": 100, "eviction_policy": "LRU", "stale_if_error": 60, "ttl_jitter": 0.1,
        "refresh_after": 0.8, "stale_while_revalidate": 30, "tombstone_ttl": 60,
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
    let default = app.cache.default_policy().fields();
    let policy = Policy::parse(&body.fields(&default)?.over(default))?;
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
    let change = PolicyChange::parse(body.fields(&app.cache.default_policy().fields())?)?;
    let record = app.cache.patch_namespace(&namespace, &change, &origin).await?;
    Ok(answer::json(StatusCode::OK, &NamespaceAnswer::from(record)))
}

/// The range of fields that are seconds and can be 0.
const SECONDS: RangeInclusive<u64> = 0..=Ttl::MAX_SECONDS;

/// Parses a whole number that a body names; `null` means `default`. The error names the field and its range, which
/// [`Policy::parse`] checks.
fn number(
    field: &str,
    range: RangeInclusive<u64>,
    named: Option<Option<&RawValue>>,
    default: u64,
) -> Result<Option<u64>, Invalid> {
    let parse = |text: &RawValue| {
        let (least, most) = (range.start(), range.end());
        let wrong =
            || Invalid::Policy(format!("`{field}` must be a whole number from {least} to {most}, not {text}"));
        whole_number(text.get()).ok_or_else(wrong)
    };
    named.map(|text| text.map_or(Ok(default), parse)).transpose()
}

/// Like [`number`], for a decimal number. Its range is checked by [`Policy::parse`].
fn part(
    field: &str,
    range: RangeInclusive<f64>,
    named: Option<Option<&RawValue>>,
    default: f64,
) -> Result<Option<f64>, Invalid> {
    let parse = |text: &RawValue| {
        let (least, most) = (range.start(), range.end());
        let wrong = |_| Invalid::Policy(format!("`{field}` must be a number from {least} to {most}, not {text}"));
        text.get().parse().map_err(wrong)
    };
    named.map(|text| text.map_or(Ok(default), parse)).transpose()
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
