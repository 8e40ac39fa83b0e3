//! `/health`, `/livez`, `/readyz` and `/metrics`: what operators and their programs ask.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::error::Error;
use super::{SharedApp, answer};
use crate::clock::Moment;
use crate::store::ShardHealth;

#[derive(Serialize)]
struct HealthAnswer {
    status: &'static str,
    /// `connected`, `degraded`, `disconnected`, or `not_configured` for the embedded store.
    redis: &'static str,
    /// Of the fullest shard.
    memory_usage: String,
    store: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    shards: Vec<ShardAnswer>,
    database: DatabaseAnswer,
    ring: RingAnswer,
    /// For people: what is wrong that no state above tells.
    warnings: Vec<String>,
}

/// Which shard owns a key, in short.
#[derive(Serialize)]
pub struct RingAnswer {
    pub version: String,
    /// Whether all instances have the same.
    pub agreed: bool,
}

#[derive(Serialize)]
struct ShardAnswer {
    name: String,
    state: &'static str,
    used_bytes: u64,
    limit_bytes: u64,
}

#[derive(Serialize)]
struct DatabaseAnswer {
    kind: &'static str,
    state: &'static str,
}

#[derive(Serialize)]
struct StatusAnswer {
    status: &'static str,
}

/// Everything this instance depends on: the shards are asked now, the database is as its last
/// statement found it, which is at most a refresh ago, and the other instances are as the last beats
/// heard of them.
pub async fn health(State(app): State<SharedApp>) -> Response {
    let shards = app.cache.health().await;
    let reachable = shards.iter().filter(|shard| shard.reachable).count();
    let database = app.database.is_connected();
    let agreement = app.fleet.agreement();
    let status = match reachable {
        0 => "unhealthy",
        n if n < shards.len() || !database || !agreement.is_agreed() => "degraded",
        _ => "healthy",
    };
    let redis = match reachable {
        _ if !app.cache.is_remote() => "not_configured",
        0 => "disconnected",
        n if n < shards.len() => "degraded",
        _ => "connected",
    };
    let body = HealthAnswer {
        status,
        redis,
        memory_usage: format!("{}%", shards.iter().map(percent_used).max().unwrap_or(0)),
        store: if app.cache.is_remote() { "redis" } else { "embedded" },
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: Moment::now().since(app.started).as_secs(),
        shards: shards.into_iter().map(ShardAnswer::from).collect(),
        database: DatabaseAnswer { kind: app.database.kind(), state: state(database) },
        ring: RingAnswer { version: app.fleet.ring_version().to_owned(), agreed: agreement.is_agreed() },
        warnings: agreement.warnings(),
    };
    answer::json(if reachable == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &body)
}

fn percent_used(shard: &ShardHealth) -> u64 {
    (shard.used_bytes * 100).checked_div(shard.limit_bytes).unwrap_or(0)
}

pub fn state(connected: bool) -> &'static str {
    if connected { "connected" } else { "disconnected" }
}

impl From<ShardHealth> for ShardAnswer {
    fn from(shard: ShardHealth) -> Self {
        Self {
            name: shard.name,
            state: state(shard.reachable),
            used_bytes: shard.used_bytes,
            limit_bytes: shard.limit_bytes,
        }
    }
}

/// Whether the process lives: it answers.
pub async fn livez() -> Response {
    answer::json(StatusCode::OK, &StatusAnswer { status: "alive" })
}

/// Whether requests should be sent here.
pub async fn readyz(State(app): State<SharedApp>) -> Response {
    let is_reachable = || async { app.cache.health().await.iter().any(|shard| shard.reachable) };
    if app.draining.is_cancelled() || !is_reachable().await {
        return answer::json(StatusCode::SERVICE_UNAVAILABLE, &StatusAnswer { status: "not_ready" });
    }
    answer::json(StatusCode::OK, &StatusAnswer { status: "ready" })
}

/// The metrics in the Prometheus text format
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
pub async fn metrics(State(app): State<SharedApp>) -> Response {
    app.cache.refresh_gauges();
    app.metrics.body_bytes.set(app.bounds.bodies.used() as f64);
    app.metrics.l1_entries.set(app.l1.entries() as f64);
    app.metrics.log_lines_dropped.absolute((app.dropped_log_lines)());
    app.metrics.database_connected.set(f64::from(u8::from(app.database.is_connected())));
    let agreement = app.fleet.agreement();
    app.metrics.fleet_instances.set(agreement.instances() as f64);
    app.metrics.ring_disagreements.set(agreement.disagreeing() as f64);
    app.metrics.l1_bytes.set(app.l1.used_bytes() as f64);
    // Looks into /proc, which may take a while.
    let rendered = tokio::task::spawn_blocking(move || app.metrics.render() + &app.trends.render_metrics()).await;
    let Ok(text) = rendered else { return Error::Panic.into_response() };
    let mut response = text.into_response();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
