//! `GET /api/v1/namespaces/{ns}/audit` and `/logs`: what happened, the newest first.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::Error;
use super::extract::{NamespacePath, StrictQuery, limit};
use super::json::{date_to_the_millisecond, parse_date};
use super::openapi::{answers, params, schema};
use super::{SharedApp, answer};
use crate::access_log;
use crate::audit;
use crate::cache::LogQuery;
use crate::model::{Operation, Policy};

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditParameters {
    #[param(schema_with = schema::audit_cursor)]
    cursor: Option<String>,
    /// Rows a page.
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
    /// The address of the connection's other end.
    client: String,
    /// `X-Forwarded-For`, as it was claimed.
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
    /// Null: not a flush, or one that was given up.
    #[schema(required)]
    deleted_count: Option<u64>,
    /// False: the least that was deleted is known.
    complete: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Policy)]
pub struct PolicyAnswer {
    default_ttl: u64,
    max_size_mb: u64,
    #[schema(schema_with = schema::eviction_policy)]
    eviction_policy: &'static str,
    stale_if_error: u64,
}

impl From<Policy> for PolicyAnswer {
    fn from(policy: Policy) -> Self {
        Self {
            default_ttl: policy.default_ttl_seconds(),
            max_size_mb: policy.max_size_mb,
            eviction_policy: policy.eviction_policy.as_str(),
            stale_if_error: policy.stale_if_error_seconds(),
        }
    }
}

impl From<audit::Row> for ChangeAnswer {
    fn from(row: audit::Row) -> Self {
        Self {
            at: date_to_the_millisecond(row.at),
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

/// Who changed what.
#[utoipa::path(
    get,
    path = "/api/v1/namespaces/{ns}/audit",
    operation_id = "list_audit",
    tag = "history",
    summary = "Who changed what, the newest first",
    params(params::InNamespace, AuditParameters),
    responses(answers::Audit)
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
    /// Nothing older (RFC 3339, at any offset).
    #[param(schema_with = schema::date)]
    since: Option<String>,
    #[param(schema_with = schema::operation)]
    operation: Option<String>,
    #[param(schema_with = schema::log_cursor)]
    cursor: Option<String>,
    /// Rows a page at most.
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
    /// Null for what is no read, and for a read that failed: see `outcome`.
    #[schema(required)]
    hit: Option<bool>,
    latency_ms: f64,
    /// Null where none was noted.
    #[schema(required)]
    request_id: Option<String>,
    /// Of the `traceparent` that the request came with.
    #[schema(required)]
    trace_id: Option<String>,
    /// How it ended: hit, miss or stale for reads, done, refused, failed; null, with the fields below, in rows of an
    /// earlier release.
    #[schema(required)]
    outcome: Option<String>,
    /// Of the answer; 200 as well where `If-None-Match` made it 304, or a flush went on as a job.
    #[schema(required)]
    status: Option<i32>,
    /// Null where it went well.
    #[schema(required)]
    error_code: Option<String>,
    /// Where it was answered: l1, shard or embedded; null where no store was asked.
    #[schema(required)]
    tier: Option<String>,
    /// The address of the connection's other end; null for what no request asked for.
    #[schema(required)]
    client: Option<String>,
    /// The instance that answered, as in `/api/v1/cluster`.
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
            at: date_to_the_millisecond(line.at),
            operation: line.operation,
            key_pattern: line.key_pattern,
            hit: line.hit,
            // To the microsecond: what is behind it are the traces of binary fractions.
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
    summary = "The access log, the newest first",
    description = "With `operation` a page may hold few lines, or none, and still have a cursor.",
    params(params::InNamespace, LogParameters),
    responses(answers::Logs)
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

fn since(text: &str) -> Result<crate::model::UnixMillis, Error> {
    let wrong =
        || Error::InvalidQuery(format!("`since` is a date of RFC 3339 such as 2026-11-20T12:00:00Z, not {text:?}"));
    parse_date(text).ok_or_else(wrong)
}

fn operation(text: &str) -> Result<Operation, Error> {
    Operation::named(text).ok_or_else(|| {
        let names = Operation::ALL.map(Operation::as_str).join(", ");
        Error::InvalidQuery(format!("`operation` is one of {names}, not {text:?}"))
    })
}
