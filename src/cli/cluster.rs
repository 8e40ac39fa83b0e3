//! The command `cluster`: shows the shards, and the instances that share them.

use std::time::SystemTime;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::Failure;
use super::screen::Screen;
use super::screen::Side::{Left, Right};
use super::service::Service;
use crate::number;

/// Show all instances and shards, as one instance sees them
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache cluster
  sidecache cluster --json | jq '.shards[] | select(.state != \"connected\")'")]
pub struct Cluster;

#[derive(Deserialize)]
struct Answer {
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

impl Cluster {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        let answer = service.get("/api/v1/cluster")?;
        if screen.json {
            return screen.document(&answer.parse::<&RawValue>(service)?);
        }
        let Answer { ring, instances, shards, warnings } = answer.parse(service)?;
        let columns = [
            ("instance", Left),
            ("address", Left),
            ("version", Left),
            ("up", Right),
            ("last seen", Right),
            ("ring", Left),
        ];
        let rows = instances.into_iter().map(|instance| {
            let id = if instance.is_here { format!("{} *", instance.id) } else { instance.id };
            let seen = format!("{} ms ago", number::count(instance.last_seen_ms));
            vec![id, instance.address, instance.version, since(&instance.started_at), seen, instance.ring_version]
        });
        screen.table(&columns, rows.collect())?;
        screen.line(&screen.dim("* the instance that answered"))?;
        screen.line("")?;
        let columns = [
            ("shard", Left),
            ("address", Left),
            ("state", Left),
            ("role", Left),
            ("memory", Right),
            ("limit", Right),
            ("keys", Right),
            ("share", Right),
            ("watermark", Right),
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
        let agreed = if ring.agreed { "all instances agree" } else { "not all instances agree" };
        screen.line(&format!("\nring {}: {agreed}", ring.version))?;
        for warning in warnings {
            screen.line(&screen.warning(&format!("warning: {warning}")))?;
        }
        Ok(())
    }
}
