//! `GET /api/v1/cluster`: all instances that use these shards, and the shards.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::error::Error;
use super::extract::{NoParameters, StrictQuery};
use super::health::{FindingAnswer, RingAnswer, shard_state};
use super::openapi::schema;
use super::state::SharedApp;
use crate::fleet::{Instance, L1Figures, LoadFigures, ShardView};
use crate::store::Role;

#[derive(Serialize, ToSchema)]
pub struct ClusterAnswer {
    ring: RingAnswer,
    instances: Vec<InstanceAnswer>,
    shards: Vec<ShardAnswer>,
    warnings: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Instance)]
pub struct InstanceAnswer {
    id: String,
    address: String,
    version: String,
    #[schema(schema_with = schema::date)]
    started_at: String,
    last_seen_ms: u64,
    ring_version: String,
    /// Whether this is the instance that answers the request.
    #[serde(rename = "self")]
    is_here: bool,
    #[schema(schema_with = schema::l1)]
    l1: L1Figures,
    #[schema(schema_with = schema::load)]
    load: LoadFigures,
}

/// A number is null if the shard did not report it.
#[derive(Serialize, ToSchema)]
#[schema(as = Shard)]
pub struct ShardAnswer {
    name: String,
    /// The URL without user and password; null for the embedded store.
    #[schema(required)]
    address: Option<String>,
    #[schema(schema_with = schema::shard_state)]
    state: &'static str,
    #[schema(schema_with = schema::role, required)]
    role: Option<&'static str>,
    #[schema(required)]
    used_bytes: Option<u64>,
    #[schema(required)]
    limit_bytes: Option<u64>,
    #[schema(required)]
    keys: Option<u64>,
    /// The part of the ring that the shard owns, 0 to 1.
    ring_share: f64,
    #[schema(required)]
    watermark_age_ms: Option<u64>,
    findings: Vec<FindingAnswer>,
}

#[utoipa::path(
    get,
    path = "/api/v1/cluster",
    operation_id = "get_cluster",
    tag = "operations",
    summary = "All instances that use these shards, and the shards",
    description = "The answer may be up to half a second old.",
    responses((status = 200, description = "All live instances, and the shards.", body = ClusterAnswer))
)]
pub async fn cluster(State(app): State<SharedApp>, _: StrictQuery<NoParameters>) -> Result<Response, Error> {
    let cluster = app.fleet.cluster().await;
    let mut warnings = cluster.agreement.warnings();
    for ShardView { survey, .. } in &cluster.shards {
        if !survey.health.reachable && survey.health.findings.is_empty() {
            warnings.push(format!("shard {} does not answer", survey.health.name));
        }
        warnings.extend(survey.health.findings.iter().map(|finding| finding.text.clone()));
    }
    let answer = ClusterAnswer {
        ring: RingAnswer { version: cluster.ring_version.clone(), agreed: cluster.agreement.is_agreed() },
        instances: cluster.instances.iter().cloned().map(InstanceAnswer::from).collect(),
        shards: cluster.shards.iter().cloned().map(ShardAnswer::from).collect(),
        warnings,
    };
    Ok(answer::json(StatusCode::OK, &answer))
}

impl From<Instance> for InstanceAnswer {
    fn from(instance: Instance) -> Self {
        Self {
            id: instance.id,
            address: instance.address,
            version: instance.version,
            started_at: instance.started_at.to_rfc3339_millis(),
            last_seen_ms: instance.last_seen.as_millis() as u64,
            ring_version: instance.ring_version,
            is_here: instance.is_here,
            l1: instance.l1,
            load: instance.load,
        }
    }
}

impl From<ShardView> for ShardAnswer {
    fn from(shard: ShardView) -> Self {
        let health = shard.survey.health;
        Self {
            state: shard_state(&health),
            role: shard.survey.role.map(|role| match role {
                Role::Primary => "primary",
                Role::Replica => "replica",
            }),
            used_bytes: health.reachable.then_some(health.used_bytes),
            limit_bytes: health.reachable.then_some(health.limit_bytes),
            name: health.name,
            address: shard.address,
            keys: shard.survey.keys,
            ring_share: shard.ring_share,
            watermark_age_ms: shard.watermark_age.map(|age| age.as_millis() as u64),
            findings: health.findings.into_iter().map(FindingAnswer::from).collect(),
        }
    }
}
