//! `GET /api/v1/cache/{ns}/stats`: the statistics of a namespace.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::extract::{NamespacePath, StrictQuery, flag};
use super::openapi::schema;
use super::state::SharedApp;
use crate::store::{self, KnownTotals};

#[derive(Serialize, ToSchema)]
pub struct StatsAnswer<'n> {
    namespace: &'n str,
    hits: u64,
    misses: u64,
    /// 0 to 1; 0 if there were no reads.
    hit_rate: f64,
    total_keys: u64,
    /// The size of the stored values in MiB.
    memory_used_mb: f64,
    /// The size of the stored values in bytes.
    memory_used_bytes: u64,
    /// The bytes that count against the quota: value, key and tags of each entry, plus 384 bytes per entry.
    memory_charged_bytes: u64,
    /// Live entries that were evicted: the sum of `evictions_quota` and `evictions_redis`.
    evictions: u64,
    /// Evicted to make room within the namespace's quota.
    evictions_quota: u64,
    /// Evicted by the server because its memory was full.
    evictions_redis: u64,
    expirations: u64,
    /// About how many of `total_keys` have expired but are not removed yet. Usually 0, except for a moment after very
    /// many entries expired at once.
    expired_not_swept: u64,
    /// True while a lost part of the index is rebuilt. `total_keys` grows meanwhile.
    repairing: bool,
    /// True if the request had `partial=true` and a shard did not answer. Its numbers are missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    partial: bool,
    /// The shards that did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    missing_shards: Vec<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// `true`: if a shard does not answer, return the numbers of the other shards instead of an error.
    #[param(schema_with = schema::partial)]
    partial: Option<String>,
}

#[utoipa::path(
    get,
    path = "/api/v1/cache/{ns}/stats",
    operation_id = "get_stats",
    tag = "namespaces",
    summary = "The statistics of a namespace",
    params(StatsQuery),
    responses((status = 200, description = "The statistics.", body = StatsAnswer))
)]
pub async fn stats(
    State(app): State<SharedApp>,
    NamespacePath(namespace): NamespacePath,
    StrictQuery(query): StrictQuery<StatsQuery>,
) -> Result<Response, Error> {
    let known = if flag("partial", query.partial.as_deref())? {
        app.cache.known_stats(&namespace).await?
    } else {
        KnownTotals { totals: app.cache.stats(&namespace).await?, failed: Vec::new() }
    };
    let stats = known.totals;
    let reads = stats.hits + stats.misses;
    let answer = StatsAnswer {
        namespace: namespace.as_str(),
        hits: stats.hits,
        misses: stats.misses,
        hit_rate: if reads == 0 { 0.0 } else { stats.hits as f64 / reads as f64 },
        total_keys: stats.keys,
        memory_used_mb: stats.bytes as f64 / f64::from(1 << 20),
        memory_used_bytes: stats.bytes,
        memory_charged_bytes: stats.charged,
        evictions: stats.evictions,
        evictions_quota: stats.evictions.saturating_sub(stats.redis_evictions),
        evictions_redis: stats.redis_evictions,
        expirations: stats.expirations,
        expired_not_swept: stats.unswept,
        repairing: stats.is_in_repair,
        partial: !known.failed.is_empty(),
        missing_shards: store::Error::shards_of(&known.failed),
    };
    Ok(answer::json(StatusCode::OK, &answer))
}
