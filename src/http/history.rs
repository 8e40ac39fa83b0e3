//! `GET /api/v1/namespaces/{ns}/audit` and `/logs`: what happened, the newest first.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::extract::{NamespacePath, StrictQuery, limit};
use super::json::{date_to_the_millisecond, parse_date};
use super::{SharedApp, answer};
use crate::access_log;
use crate::audit;
use crate::cache::LogQuery;
use crate::model::{Operation, Policy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditParameters {
    cursor: Option<String>,
    limit: Option<String>,
}

#[derive(Serialize)]
struct AuditAnswer {
    audit: Vec<ChangeAnswer>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct ChangeAnswer {
    at: String,
    client: String,
    forwarded_for: Option<String>,
    request_id: String,
    action: String,
    before: Option<PolicyAnswer>,
    after: Option<PolicyAnswer>,
    pattern: Option<String>,
    tag: Option<String>,
    deleted_count: Option<u64>,
    complete: bool,
}

#[derive(Serialize)]
struct PolicyAnswer {
    default_ttl: u64,
    max_size_mb: u64,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogParameters {
    since: Option<String>,
    operation: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

#[derive(Serialize)]
struct LogAnswer {
    logs: Vec<LineAnswer>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct LineAnswer {
    at: String,
    operation: String,
    key_pattern: String,
    hit: Option<bool>,
    latency_ms: f64,
    request_id: Option<String>,
    trace_id: Option<String>,
}

impl From<access_log::Line> for LineAnswer {
    fn from(line: access_log::Line) -> Self {
        Self {
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
