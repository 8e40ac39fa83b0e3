//! `GET /api/v1/namespaces/{ns}/audit` and `/logs`: the audit trail and the access log, newest first.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::extract::{NamespacePath, StrictQuery};
use super::openapi::schema;
use super::page_limit::{PAGE, limit};
use super::state::SharedApp;
use crate::access_log;
use crate::audit;
use crate::cache::LogQuery;
use crate::model::{Operation, Policy, UnixMillis};

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditParameters {
    #[param(schema_with = schema::audit_cursor)]
    cursor: Option<String>,
    /// Rows per page.
    #[param(schema_with = schema::limit)]
    limit: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct AuditAnswer {
    audit: Vec<ChangeAnswer>,
    #[schema(required)]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Change)]
pub struct ChangeAnswer {
    #[schema(schema_with = schema::date)]
    at: String,
    /// The address of the peer: the client, or the last proxy.
    client: String,
    /// The `X-Forwarded-For` of the request. The service does not verify it.
    #[schema(required)]
    forwarded_for: Option<String>,
    request_id: String,
    action: String,
    #[schema(required)]
    before: Option<PolicyAnswer>,
    #[schema(required)]
    after: Option<PolicyAnswer>,
    #[schema(required)]
    pattern: Option<String>,
    #[schema(required)]
    tag: Option<String>,
    /// How many entries the flush or the deletion of the namespace removed, or `mark_stale` marked. Null for other changes, and for a flush
    /// that was given up.
    #[schema(required)]
    deleted_count: Option<u64>,
    /// False if the flush failed or was given up: `deleted_count` is then a lower bound.
    complete: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Policy)]
pub struct PolicyAnswer {
    default_ttl: u64,
    max_size_mb: u64,
    #[schema(schema_with = schema::eviction_policy)]
    eviction_policy: String,
    stale_if_error: u64,
    ttl_jitter: f64,
    refresh_after: f64,
    stale_while_revalidate: u64,
    tombstone_ttl: u64,
}

impl From<Policy> for PolicyAnswer {
    fn from(policy: Policy) -> Self {
        let policy = policy.fields();
        Self {
            default_ttl: policy.default_ttl,
            max_size_mb: policy.max_size_mb,
            eviction_policy: policy.eviction_policy,
            stale_if_error: policy.stale_if_error,
            ttl_jitter: policy.ttl_jitter,
            refresh_after: policy.refresh_after,
            stale_while_revalidate: policy.stale_while_revalidate,
            tombstone_ttl: policy.tombstone_ttl,
        }
    }
}

impl From<audit::Row> for ChangeAnswer {
    fn from(row: audit::Row) -> Self {
        Self {
            at: row.at.to_rfc3339_millis(),
            client: row.client,
            forwarded_for: row.forwarded_for,
            request_id: row.request_id,
            action: row.action,
            before: row.before.map(PolicyAnswer::from),
            after: row.after.map(PolicyAnswer::from),
            pattern: row.pattern,
            tag: row.tag,
            deleted_count: row.deleted_count,
            complete: row.is_complete,
        }
    }
}

/// The audit trail.
#[utoipa::path(
    get,
    path = "/api/v1/namespaces/{ns}/audit",
    operation_id = "list_audit",
    tag = "history",
    summary = "The audit trail: who changed what, newest first",
    params(AuditParameters),
    responses((status = 200, description = PAGE, body = AuditAnswer))
)]
pub async fn audit(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    StrictQuery(query): StrictQuery<AuditParameters>,
) -> Result<Response, Error> {
    let page = app.cache.audit(&namespace, query.cursor.as_deref(), limit(query.limit.as_deref())?).await?;
    let audit = page.rows.into_iter().map(ChangeAnswer::from).collect();
    let cursor = page.next.map(audit::Cursor::encode);
    Ok(answer::json(StatusCode::OK, &AuditAnswer { audit, cursor }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogParameters {
    /// Only rows from this time on (RFC 3339, with any offset).
    #[param(schema_with = schema::date)]
    since: Option<String>,
    #[param(schema_with = schema::operation)]
    operation: Option<String>,
    #[param(schema_with = schema::log_cursor)]
    cursor: Option<String>,
    /// The most rows per page.
    #[param(schema_with = schema::limit)]
    limit: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct LogAnswer {
    logs: Vec<LineAnswer>,
    #[schema(required)]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LogLine)]
pub struct LineAnswer {
    #[schema(schema_with = schema::date)]
    at: String,
    operation: String,
    key_pattern: String,
    /// Whether a read found everything. Null for other operations and for reads that failed, see `outcome`.
    #[schema(required)]
    hit: Option<bool>,
    latency_ms: f64,
    /// Null if no request id was recorded.
    #[schema(required)]
    request_id: Option<String>,
    /// The trace id in the request's `traceparent`.
    #[schema(required)]
    trace_id: Option<String>,
    /// The result: `hit`, `miss` or `stale` for reads, `won` or `held` for a miss that asked for a lease, `done` for
    /// other operations, `filled` for a write with a lease, `refused` or `failed`. Rows of an older release have null
    /// here and in the fields below.
    #[schema(required)]
    outcome: Option<String>,
    /// The status of the response. Also 200 for a read that was answered 304, and for a flush that continued as a
    /// job.
    #[schema(required)]
    status: Option<i32>,
    /// Null if the operation succeeded.
    #[schema(required)]
    error_code: Option<String>,
    /// The tier that answered: `l1`, `shard` or `embedded`; null if no tier was used.
    #[schema(required)]
    tier: Option<String>,
    /// The address of the peer; null for operations without a request.
    #[schema(required)]
    client: Option<String>,
    /// The id of the instance that answered, as in `/api/v1/cluster`.
    #[schema(required)]
    instance: Option<String>,
}

impl From<access_log::Line> for LineAnswer {
    fn from(line: access_log::Line) -> Self {
        let access_log::LoggedEnding { outcome, status, error_code, tier, client, instance } = line.ending;
        Self {
            outcome,
            status,
            error_code,
            tier,
            client,
            instance,
            at: line.at.to_rfc3339_millis(),
            operation: line.operation,
            key_pattern: line.key_pattern,
            hit: line.hit,
            // Rounded to the microsecond: more digits would only show binary rounding errors.
            latency_ms: (line.latency_ms * 1000.0).round() / 1000.0,
            request_id: line.request_id,
            trace_id: line.trace_id,
        }
    }
}

/// The access log.
#[utoipa::path(
    get,
    path = "/api/v1/namespaces/{ns}/logs",
    operation_id = "list_logs",
    tag = "history",
    summary = "The access log, newest first",
    description = "With `operation`, a page can have few rows or none although more pages follow. Continue until \
                   `cursor` is null.",
    params(LogParameters),
    responses((status = 200, description = PAGE, body = LogAnswer))
)]
pub async fn logs(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    StrictQuery(parameters): StrictQuery<LogParameters>,
) -> Result<Response, Error> {
    let query = LogQuery {
        since: parameters.since.as_deref().map(since).transpose()?,
        operation: parameters.operation.as_deref().map(operation).transpose()?,
        cursor: parameters.cursor,
        limit: limit(parameters.limit.as_deref())?,
    };
    let page = app.cache.logs(&namespace, &query).await?;
    let logs = page.lines.into_iter().map(LineAnswer::from).collect();
    let cursor = page.next.map(access_log::Cursor::encode);
    Ok(answer::json(StatusCode::OK, &LogAnswer { logs, cursor }))
}

fn since(text: &str) -> Result<UnixMillis, Error> {
    let wrong = || {
        Error::InvalidQuery(format!("`since` must be an RFC 3339 date such as 2026-11-20T12:00:00Z, not {text:?}"))
    };
    UnixMillis::parse_rfc3339(text).ok_or_else(wrong)
}

fn operation(text: &str) -> Result<Operation, Error> {
    Operation::named(text).ok_or_else(|| {
        let names = Operation::ALL.map(Operation::as_str).join(", ");
        Error::InvalidQuery(format!("`operation` must be one of {names}, not {text:?}"))
    })
}
