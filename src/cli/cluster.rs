//! The command `cluster`: shows the shards, and the instances that share them.

use std::time::SystemTime;

use clap::Command;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::Failure;
use super::options::with_service_options;
use super::screen::Side;
use super::session::Session;
use crate::number;

pub fn command() -> Command {
    let command = Command::new("cluster")
        .about("Show all instances and shards, as one instance sees them")
        .after_help("Examples:\n  sidecache cluster\n  sidecache cluster --json | jq '.shards[] | select(.state != \"connected\")'");
    with_service_options(command)
}

#[derive(Deserialize)]
struct Cluster {
    ring: Ring,
    instances: Vec<Instance>,
    shards: Vec<Shard>,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Ring {
    version: String,
    agreed: bool,
}

#[derive(Deserialize)]
struct Instance {
    id: String,
    address: String,
    version: String,
    started_at: String,
    last_seen_ms: u64,
    ring_version: String,
    #[serde(rename = "self")]
    is_here: bool,
}

#[derive(Deserialize)]
struct Shard {
    name: String,
    /// Earlier releases do not send it.
    #[serde(default)]
    address: Option<String>,
    state: String,
    role: Option<String>,
    used_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    keys: Option<u64>,
    ring_share: f64,
    watermark_age_ms: Option<u64>,
}

/// How long ago `moment` was, in the two largest units: `2h 5m`. A text that is not a time is returned unchanged.
fn since(moment: &str) -> String {
    let Ok(moment) = humantime::parse_rfc3339(moment) else { return moment.to_owned() };
    // The clock of the other machine may be ahead of the clock here.
    let age = SystemTime::now().duration_since(moment).unwrap_or_default();
    let shown = number::seconds(age.as_secs());
    shown.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub fn run(session: &mut Session) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let answer = service.get("/api/v1/cluster")?;
    if screen.json {
        return screen.document(&answer.parse::<&RawValue>(service)?);
    }
    let Cluster { ring, instances, shards, warnings } = answer.parse(service)?;
    let (left, right) = (|name| (name, Side::Left), |name| (name, Side::Right));
    let columns = [left("instance"), left("address"), left("version"), right("up"), right("last seen"), left("ring")];
    let rows = instances.into_iter().map(|instance| {
        let id = if instance.is_here { format!("{} *", instance.id) } else { instance.id };
        let seen = format!("{} ms ago", number::count(instance.last_seen_ms));
        vec![id, instance.address, instance.version, since(&instance.started_at), seen, instance.ring_version]
    });
    screen.table(&columns, rows.collect())?;
    let note = screen.dim("* the instance that answered");
    screen.line(&note)?;
    screen.line("")?;
    let columns = [
        left("shard"),
        left("address"),
        left("state"),
        left("role"),
        right("memory"),
        right("limit"),
        right("keys"),
        right("share"),
        right("watermark"),
    ];
    let unknown = || "-".to_owned();
    let rows = shards.into_iter().map(|shard| {
        vec![
            shard.name,
            shard.address.unwrap_or_else(unknown),
            shard.state,
            shard.role.unwrap_or_else(unknown),
            shard.used_bytes.map_or_else(unknown, number::bytes),
            shard.limit_bytes.filter(|limit| *limit > 0).map_or_else(unknown, number::bytes),
            shard.keys.map_or_else(unknown, number::count),
            number::column_percent(shard.ring_share),
            shard.watermark_age_ms.map_or_else(unknown, |age| format!("{} ms", number::count(age))),
        ]
    });
    screen.table(&columns, rows.collect())?;
    screen.line("")?;
    let agreed = if ring.agreed { "all instances agree" } else { "not all instances agree" };
    screen.line(&format!("ring {}: {agreed}", ring.version))?;
    for warning in warnings {
        let line = screen.warning(&format!("warning: {warning}"));
        screen.line(&line)?;
    }
    Ok(())
}
