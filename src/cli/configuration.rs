//! The commands `check-config` and `print-config`: check and print the settings without starting the service.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::options::with_json_option;
use super::screen::{Screen, Side};
use super::session::runtime;
use super::settings;
use crate::config::{Config, Layer, MemoryNeed, Settings, StoreConfig};
use crate::database::{Database, known_steps};
use crate::store::redis::{Examination, probe};

/// How long `--connect` waits for a shard.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn commands() -> [Command; 2] {
    let connect = Arg::new("connect")
        .long("connect")
        .action(ArgAction::SetTrue)
        .help("Also check that the shards and the database can be reached and used");
    let changed =
        Arg::new("changed").long("changed").action(ArgAction::SetTrue).help("Only settings that are not the default");
    let check = Command::new("check-config")
        .about("Check the settings, and name the first one that is wrong")
        .arg(connect)
        .after_help(
            "Examples:\n  sidecache check-config --config /etc/sidecache.toml\n  sidecache check-config --connect\n\n\
             Exit code: 2 if a setting is wrong, 3 if --connect cannot reach or cannot use a shard or the database. \
             --connect tries all Redis commands on keys of its own, and deletes those keys.",
        );
    let print = Command::new("print-config")
        .about("Print the effective settings and where each one comes from; passwords are masked")
        .arg(changed)
        .after_help("Examples:\n  sidecache print-config --changed\n  sidecache print-config --json | jq '.settings[] | select(.layer != \"default\")'");
    [check, print].map(|command| with_json_option(command).defer(settings::flags))
}

#[derive(Default, Serialize)]
struct CheckDocument {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    setting: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
    /// How much memory the settings may use, and how much is available.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryDocument>,
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

impl From<&MemoryNeed> for MemoryDocument {
    fn from(need: &MemoryNeed) -> Self {
        Self { needed_bytes: need.bytes(), available_bytes: need.available.map(|available| available.bytes) }
    }
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

pub fn check(settings: &Settings, matches: &ArgMatches, mut screen: Screen) -> Result<(), Failure> {
    let config = match Config::check(settings) {
        Ok(config) => config,
        Err(error) => {
            if screen.json {
                let (setting, error) = (Some(error.origin.clone()), Some(error.reason.clone()));
                let document = CheckDocument { setting, error, ..CheckDocument::default() };
                // An error of writing is ignored: it matters more to report the invalid setting, on stderr.
                let _ = screen.document(&document).and_then(|()| screen.flush());
            }
            return Err(error.into());
        }
    };
    let database = config.database.kind.as_str();
    let (store, described) = match &config.store {
        StoreConfig::Embedded { .. } => ("embedded", "embedded store".to_owned()),
        StoreConfig::Redis(redis) => ("redis", format!("{} Redis shards", redis.shards.len())),
    };
    let memory = MemoryNeed::of(&config);
    let warnings: Vec<String> = memory.warning().into_iter().collect();
    let connections = if matches.get_flag("connect") { connect(&config)? } else { Vec::new() };
    let failed = |is_reached: bool| {
        let failed = connections.iter().filter(move |one| !one.ok && one.findings.is_empty() != is_reached);
        failed.map(|one| &*one.name).collect::<Vec<_>>().join(", ")
    };
    let failures = [("not reached", failed(false)), ("not usable", failed(true))];
    let failures: Vec<String> = failures
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {names}"))
        .collect();
    if screen.json {
        let (store, database) = (Some(store), Some(database));
        let (ok, memory) = (failures.is_empty(), Some((&memory).into()));
        let document =
            CheckDocument { ok, store, database, memory, warnings, connections, ..CheckDocument::default() };
        let written = screen.document(&document).and_then(|()| screen.flush());
        return if document.ok { written } else { Err(Failure::silent(Exit::Unreachable)) };
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
    let written = screen.line(&lines.join("\n")).and_then(|()| screen.flush());
    if failures.is_empty() { written } else { Err(Failure::new(Exit::Unreachable, failures.join("; "))) }
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

#[derive(Serialize)]
struct SettingsDocument<'a> {
    settings: Vec<SettingDocument<'a>>,
}

pub fn print(settings: &Settings, matches: &ArgMatches, mut screen: Screen) -> Result<(), Failure> {
    let mut effective = settings.effective();
    if matches.get_flag("changed") {
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
        screen.document(&SettingsDocument { settings: settings.collect() })?;
    } else {
        let left = |name| (name, Side::Left);
        let rows = effective.into_iter().map(|one| {
            let origin = match one.layer {
                Layer::Default => "default".to_owned(),
                layer => format!("{}: {}", layer.as_str(), one.origin),
            };
            vec![one.setting.name.clone(), one.text, origin]
        });
        screen.table(&[left("setting"), left("value"), left("from")], rows.collect())?;
    }
    screen.flush()
}
