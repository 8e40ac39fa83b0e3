//! The commands `check-config` and `print-config`: check and print the settings without starting the service.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::runtime::runtime;
use super::screen::Screen;
use super::screen::Side::Left;
use super::settings::SettingFlags;
use crate::config::{Config, Layer, MemoryNeed, StoreConfig};
use crate::database::{Database, known_steps};
use crate::store::redis::{Examination, probe};

/// How long `--connect` waits for a shard.
const PATIENCE: Duration = Duration::from_secs(3);

/// Check the settings, and name the first one that is wrong
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache check-config --config /etc/sidecache.toml
  sidecache check-config --connect

Exit code: 2 if a setting is wrong, 3 if --connect cannot reach or cannot use a shard or the database. --connect tries \
all Redis commands on keys of its own, and deletes those keys.")]
pub struct CheckConfig {
    /// Also check that the shards and the database can be reached and used
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Print the effective settings and where each one comes from; passwords are masked
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache print-config --changed
  sidecache print-config --json | jq '.settings[] | select(.layer != \"default\")'")]
pub struct PrintConfig {
    /// Only settings that are not the default
    #[arg(long)]
    changed: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

#[derive(Serialize)]
struct CheckDocument {
    ok: bool,
    store: &'static str,
    database: &'static str,
    /// How much memory the settings may use, and how much is available.
    memory: MemoryDocument,
    /// Problems that do not stop the service from starting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Absent without `--connect`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connections: Vec<Connection>,
}

#[derive(Serialize)]
struct MemoryDocument {
    needed_bytes: u64,
    /// Null if the system does not report it.
    available_bytes: Option<u64>,
}

/// The result of a check that found an invalid setting.
#[derive(Serialize)]
struct InvalidDocument<'a> {
    ok: bool,
    setting: &'a str,
    error: &'a str,
}

/// The result of `--connect` for a shard or the database.
#[derive(Serialize)]
struct Connection {
    /// `shard a` or `database`.
    name: String,
    ok: bool,
    /// The error, or a description of the connection.
    text: String,
    /// Problems of a shard that was reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingDocument>,
}

#[derive(Serialize)]
struct FindingDocument {
    code: &'static str,
    severity: &'static str,
    text: String,
}

impl CheckConfig {
    /// `settings` are those before the command's name.
    pub fn run(self, settings: SettingFlags, screen: &mut Screen) -> Result<(), Failure> {
        let config = match Config::check(&settings.gather(self.settings)?) {
            Ok(config) => config,
            Err(invalid) => {
                if screen.json {
                    let document = InvalidDocument { ok: false, setting: &invalid.origin, error: &invalid.reason };
                    // An error of writing is ignored: it matters more to report the invalid setting, on stderr.
                    let _ = screen.document(&document);
                }
                return Err(invalid.into());
            }
        };
        let database = config.database.kind.as_str();
        let (store, described) = match &config.store {
            StoreConfig::Embedded { .. } => ("embedded", "embedded store".to_owned()),
            StoreConfig::Redis(redis) => ("redis", format!("{} Redis shards", redis.shards.len())),
        };
        let need = MemoryNeed::of(&config);
        let warnings: Vec<String> = need.warning().into_iter().collect();
        let connections = if self.connect { connect(&config)? } else { Vec::new() };
        let failures = failures(&connections);
        if screen.json {
            let available_bytes = need.available.map(|available| available.bytes);
            let memory = MemoryDocument { needed_bytes: need.bytes(), available_bytes };
            let ok = failures.is_empty();
            let written = screen.document(&CheckDocument { ok, store, database, memory, warnings, connections });
            return if ok { written } else { Err(Failure::silent(Exit::Unreachable)) };
        }
        let mut lines = vec![format!("the settings are valid: {described}, database {database}")];
        lines.extend(warnings.iter().map(|warning| screen.warning(&format!("warning: {warning}"))));
        for Connection { name, ok, text, findings } in &connections {
            let line = format!("{name}: {text}");
            lines.push(if *ok { line } else { screen.warning(&line) });
            for FindingDocument { severity, text, .. } in findings {
                lines.push(screen.warning(&format!("  {severity}: {text}")));
            }
        }
        let written = screen.line(&lines.join("\n"));
        if failures.is_empty() { written } else { Err(Failure::new(Exit::Unreachable, failures.join("; "))) }
    }
}

/// The connections that failed: those that were not reached, and those that were reached but cannot be used.
fn failures(connections: &[Connection]) -> Vec<String> {
    let named = |what: &str, is_reached: bool| {
        let failed = connections.iter().filter(|one| !one.ok && one.findings.is_empty() != is_reached);
        let names = failed.map(|one| &*one.name).collect::<Vec<_>>().join(", ");
        (!names.is_empty()).then(|| format!("{what}: {names}"))
    };
    named("not reached", false).into_iter().chain(named("not usable", true)).collect()
}

fn connect(config: &Config) -> Result<Vec<Connection>, Failure> {
    let runtime = runtime()?;
    let mut connections = runtime.block_on(async {
        let StoreConfig::Redis(redis) = &config.store else { return Vec::new() };
        let answers = probe(redis, PATIENCE).await.into_iter();
        answers.map(|(name, answer)| shard(&name, answer)).collect()
    });
    // Connecting would create a database file that does not exist yet.
    let steps = match config.database.kind.is_to_be_created() {
        true => Ok(None),
        false => runtime.block_on(async {
            let database = Database::new(&config.database);
            match database.steps_taken().await {
                Ok(steps) => Ok(Some(steps)),
                Err(error) => Err(database.diagnosis(error).await),
            }
        }),
    };
    let known = known_steps().len();
    connections.push(Connection {
        name: "database".to_owned(),
        ok: steps.is_ok(),
        findings: Vec::new(),
        text: match steps {
            Ok(None) => "the file will be created when the service starts".to_owned(),
            Ok(Some(steps)) if steps.len() >= known => "connected, its schema is up to date".to_owned(),
            Ok(Some(steps)) => {
                let pending = known - steps.len();
                format!("connected, {pending} migrations are pending; the service runs them when it starts")
            }
            Err(error) => error.to_string(),
        },
    });
    // Do not wait for DNS lookups that may still be running.
    runtime.shutdown_background();
    Ok(connections)
}

/// The result of probing a shard.
fn shard(name: &str, answer: Result<Examination, String>) -> Connection {
    let name = format!("shard {name}");
    let examination = match answer {
        Ok(examination) => examination,
        Err(text) => return Connection { name, ok: false, text, findings: Vec::new() },
    };
    let ok = examination.refusal().is_none();
    let server = examination.server.name.map_or_else(String::new, |name| format!(" to {name}"));
    let text = format!("connected{server}{}", if ok { "" } else { ", but it cannot be used" });
    let findings = examination.findings.into_iter().map(|finding| FindingDocument {
        code: finding.code,
        severity: finding.severity.as_str(),
        text: finding.text,
    });
    Connection { name, ok, text, findings: findings.collect() }
}

#[derive(Serialize)]
struct SettingDocument<'a> {
    name: &'a str,
    value: &'a str,
    /// `default`, `file`, `environment` or `flag`.
    layer: &'static str,
    /// The file, the variable or the flag that set it; null for a default.
    origin: Option<&'a str>,
    default: &'a str,
}

impl PrintConfig {
    /// `settings` are those before the command's name.
    pub fn run(self, settings: SettingFlags, screen: &mut Screen) -> Result<(), Failure> {
        let mut effective = settings.gather(self.settings)?.effective();
        if self.changed {
            effective.retain(|one| !one.is_default());
        }
        if screen.json {
            let settings = effective.iter().map(|one| SettingDocument {
                name: &one.setting.name,
                value: &one.text,
                layer: one.layer.as_str(),
                origin: (one.layer != Layer::Default).then_some(&*one.origin),
                default: &one.setting.default,
            });
            return screen.document(&BTreeMap::from([("settings", settings.collect::<Vec<_>>())]));
        }
        let rows = effective.into_iter().map(|one| {
            let origin = match one.layer {
                Layer::Default => "default".to_owned(),
                layer => format!("{}: {}", layer.as_str(), one.origin),
            };
            vec![one.setting.name.clone(), one.text, origin]
        });
        screen.table(&[("setting", Left), ("value", Left), ("from", Left)], rows.collect())
    }
}
