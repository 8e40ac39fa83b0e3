//! `/health`, `/livez`, `/readyz` and `/metrics`: for operators and their tools.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::openapi::schema;
use super::state::SharedApp;
use crate::clock::Moment;
use crate::store::{Finding, RING_MISMATCH, ShardHealth};
use crate::trace::SPANS;

#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub struct HealthAnswer {
    #[schema(schema_with = schema::health_status)]
    status: &'static str,
    /// `connected`, `degraded`, `disconnected`, or `not_configured` for the embedded store.
    #[schema(schema_with = schema::redis_state)]
    redis: &'static str,
    /// Memory in use on the fullest shard.
    #[schema(pattern = "^[0-9]+%$")]
    memory_usage: String,
    #[schema(schema_with = schema::store_kind)]
    store: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    shards: Vec<ShardAnswer>,
    database: DatabaseAnswer,
    ring: RingAnswer,
    /// For people: problems that the states above do not show.
    warnings: Vec<String>,
}

/// The ring decides which shard owns a key.
#[derive(Serialize, ToSchema)]
#[schema(as = Ring)]
pub struct RingAnswer {
    pub version: String,
    /// Whether all instances have the same ring.
    pub agreed: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ShardHealth)]
pub struct ShardAnswer {
    name: String,
    #[schema(schema_with = schema::shard_state)]
    state: &'static str,
    used_bytes: u64,
    limit_bytes: u64,
    findings: Vec<FindingAnswer>,
}

/// One problem of a shard.
#[derive(Serialize, ToSchema)]
#[schema(as = Finding)]
pub struct FindingAnswer {
    code: &'static str,
    /// `warning`: nothing fails yet. `degraded`: something does not work. `refused`: the shard is not used.
    #[schema(schema_with = schema::severity)]
    severity: &'static str,
    /// For people: the problem, and what to do.
    text: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DatabaseHealth)]
pub struct DatabaseAnswer {
    #[schema(schema_with = schema::database_kind)]
    kind: &'static str,
    #[schema(schema_with = schema::connection_state)]
    state: &'static str,
    /// Why the database cannot be reached; null while it is connected.
    #[schema(required)]
    error: Option<String>,
    /// Whether the policies have been read since the start. Until then, writes are refused.
    policies_known: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ProbeAnswer)]
pub struct StatusAnswer {
    #[schema(schema_with = schema::probe_status)]
    status: &'static str,
    /// Why the instance is not ready; absent if it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, schema_with = schema::not_ready_reason)]
    reason: Option<&'static str>,
}

/// The state of everything that this instance depends on. Shards are checked now. The database counts as connected if
/// its last statement succeeded; the regular refresh of the policies is such a statement. The state of other
/// instances comes from their last heartbeats.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "get_health",
    tag = "operations",
    summary = "The state of everything that this instance depends on",
    responses(
        (status = 200, body = HealthAnswer,
         description = "`healthy`; or `degraded`: part of what this instance needs is down."),
        (status = 503, description = "`unhealthy`: no request can be served", body = HealthAnswer),
    )
)]
pub async fn health(State(app): State<SharedApp>) -> Response {
    let shards = app.cache.health().await;
    let reachable = shards.iter().filter(|shard| shard.reachable).count();
    let database = app.database.is_connected();
    let policies_known = app.cache.are_policies_loaded();
    let agreement = app.fleet.agreement();
    let findings = || shards.iter().flat_map(|shard| &shard.findings);
    let status = match reachable {
        0 => "unhealthy",
        n if n < shards.len() || !database || !policies_known || !agreement.is_agreed() => "degraded",
        _ if findings().any(Finding::degrades) => "degraded",
        _ => "healthy",
    };
    let redis = match reachable {
        _ if !app.cache.is_remote() => "not_configured",
        0 => "disconnected",
        n if n < shards.len() => "degraded",
        _ => "connected",
    };
    let mut warnings = agreement.warnings();
    warnings.extend(findings().map(|finding| finding.text.clone()));
    if !policies_known {
        warnings.push("the policies have not been read from the database yet: writes are refused".to_owned());
    }
    let body = HealthAnswer {
        status,
        redis,
        memory_usage: format!("{}%", shards.iter().map(percent_used).max().unwrap_or(0)),
        store: if app.cache.is_remote() { "redis" } else { "embedded" },
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: Moment::now().since(app.started).as_secs(),
        shards: shards.into_iter().map(ShardAnswer::from).collect(),
        database: DatabaseAnswer {
            kind: app.database.kind(),
            state: state(database),
            error: app.database.trouble(),
            policies_known,
        },
        ring: RingAnswer { version: app.fleet.ring_version().to_owned(), agreed: agreement.is_agreed() },
        warnings,
    };
    answer::json(if reachable == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &body)
}

fn percent_used(shard: &ShardHealth) -> u64 {
    (shard.used_bytes * 100).checked_div(shard.limit_bytes).unwrap_or(0)
}

pub fn state(connected: bool) -> &'static str {
    if connected { "connected" } else { "disconnected" }
}

/// `connected`, `disconnected`, or `refused` if the shard is not used.
pub fn shard_state(shard: &ShardHealth) -> &'static str {
    if !shard.reachable && shard.is_refused() { "refused" } else { state(shard.reachable) }
}

impl From<ShardHealth> for ShardAnswer {
    fn from(shard: ShardHealth) -> Self {
        Self {
            state: shard_state(&shard),
            name: shard.name,
            used_bytes: shard.used_bytes,
            limit_bytes: shard.limit_bytes,
            findings: shard.findings.into_iter().map(FindingAnswer::from).collect(),
        }
    }
}

impl From<Finding> for FindingAnswer {
    fn from(finding: Finding) -> Self {
        Self { code: finding.code, severity: finding.severity.as_str(), text: finding.text }
    }
}

/// Always succeeds: a process that answers is alive.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "get_livez",
    tag = "operations",
    summary = "Whether the process is alive",
    responses((status = 200, description = "The instance is alive.", body = StatusAnswer))
)]
pub async fn livez() -> Response {
    answer::json(StatusCode::OK, &StatusAnswer { status: "alive", reason: None })
}

/// Whether this instance should get requests.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readyz",
    tag = "operations",
    summary = "Whether this instance should get requests",
    responses(
        (status = 200, description = "The instance is ready.", body = StatusAnswer),
        (status = 503, description = "The instance is not ready yet, or is stopping", body = StatusAnswer),
    )
)]
pub async fn readyz(State(app): State<SharedApp>) -> Response {
    let reason = if app.draining.is_cancelled() {
        Some("draining")
    } else if !app.cache.are_policies_loaded() {
        Some("policies_unknown")
    } else {
        unusable(&app.cache.health().await)
    };
    match reason {
        Some(_) => answer::json(StatusCode::SERVICE_UNAVAILABLE, &StatusAnswer { status: "not_ready", reason }),
        None => answer::json(StatusCode::OK, &StatusAnswer { status: "ready", reason }),
    }
}

/// Why no shard can be used; `None` if one can.
fn unusable(shards: &[ShardHealth]) -> Option<&'static str> {
    let is_mismatched =
        || shards.iter().flat_map(|shard| &shard.findings).any(|finding| finding.code == RING_MISMATCH);
    if shards.iter().any(|shard| shard.reachable) {
        None
    } else if is_mismatched() {
        Some(RING_MISMATCH)
    } else {
        Some("no_shard")
    }
}

/// The metrics in the Prometheus text format
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "operations",
    summary = "The metrics, for Prometheus",
    responses((
        status = 200, description = "The metrics in the Prometheus text format.",
        body = String, content_type = "text/plain",
        example = "# TYPE sidecache_http_connections gauge\nsidecache_http_connections 3\n",
    ))
)]
pub async fn metrics(State(app): State<SharedApp>) -> Response {
    app.cache.refresh_gauges();
    app.metrics.body_bytes.set(app.bounds.bodies.used() as f64);
    app.metrics.answer_bytes.set(app.bounds.answers.used() as f64);
    app.metrics.l1_entries.set(app.l1.entries() as f64);
    app.metrics.log_lines_dropped.absolute(app.dropped_log_lines.dropped_lines() as u64);
    app.metrics.spans_exported.absolute(SPANS.exported());
    app.metrics.spans_dropped.absolute(SPANS.dropped());
    app.metrics.spans_queued.set(SPANS.queued() as f64);
    app.metrics.database_connected.set(f64::from(u8::from(app.database.is_connected())));
    let agreement = app.fleet.agreement();
    app.metrics.fleet_instances.set(agreement.instances() as f64);
    app.metrics.ring_disagreements.set(agreement.disagreeing() as f64);
    app.metrics.l1_bytes.set(app.l1.used_bytes() as f64);
    // Rendering reads /proc, which may block.
    let background = app.background.clone();
    let rendered = background.spawn_blocking(move || app.metrics.render() + &app.trends.render_metrics()).await;
    let Ok(text) = rendered else { return Error::Panic.into_response() };
    let mut response = text.into_response();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
