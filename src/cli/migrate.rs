//! The command `migrate`: runs the database migrations without starting the service.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::failure::{Exit, Failure};
use super::runtime::runtime;
use super::screen::{Screen, with_spinner};
use super::settings::SettingFlags;
use crate::config::Config;
use crate::database::{Database, Error, Step};
use crate::number;

/// The pause between two attempts to run the migrations.
const PAUSE: Duration = Duration::from_millis(200);

/// Run the pending database migrations, and list them
#[derive(Args)]
#[command(after_help = "\
Examples:
  sidecache migrate --database-url postgres://cache@db/sidecache --wait 2m

The service also runs pending migrations when it starts; instances take turns. Exit code: 3 if the database cannot be \
reached in time, 5 if a migration fails.")]
pub struct Migrate {
    /// Longest time to wait for the database and to run the migrations
    #[arg(long, value_name = "TIME", value_parser = number::parse_wait, default_value = "30s")]
    wait: Duration,
    #[command(flatten)]
    settings: SettingFlags,
}

#[derive(Serialize)]
struct StepDocument {
    version: i64,
    name: String,
}

#[derive(Serialize)]
struct MigrateDocument {
    database: &'static str,
    /// The version of the schema after the run.
    version: i64,
    /// The migrations that this run applied.
    applied: Vec<StepDocument>,
}

impl Migrate {
    /// `settings` are those before the command's name.
    pub fn run(self, settings: SettingFlags, screen: &mut Screen) -> Result<(), Failure> {
        let config = Config::parse(&settings.gather(self.settings)?)?;
        let runtime = runtime()?;
        let migrated = with_spinner("migrating", || runtime.block_on(migrate(&config, self.wait)));
        runtime.shutdown_background();
        let (before, now) = migrated.map_err(|error| failed(&error, self.wait))?;
        let version = now.iter().map(|step| step.version).max().unwrap_or(0);
        let applied: Vec<Step> = now.into_iter().filter(|step| !before.contains(step)).collect();
        let database = config.database.kind.as_str();
        if screen.json {
            let applied = applied.into_iter().map(|Step { version, name }| StepDocument { version, name }).collect();
            return screen.document(&MigrateDocument { database, version, applied });
        }
        for Step { version, name } in &applied {
            screen.line(&format!("applied {version} {name}"))?;
        }
        let already = if applied.is_empty() { " already" } else { "" };
        screen.line(&format!("the schema of {database} is{already} at version {version}"))
    }
}

/// Runs the migrations. Returns those that were applied before this run, and all that are applied now.
async fn migrate(config: &Config, wait: Duration) -> Result<(Vec<Step>, Vec<Step>), Error> {
    let deadline = Instant::now() + wait;
    let database = Database::new(&config.database);
    let mut before = None;
    loop {
        let attempt = async {
            if before.is_none() {
                before = Some(database.steps_taken().await?);
            }
            database.bring_up_to_date().await?;
            database.steps_taken().await
        };
        let ended = match tokio::time::timeout_at(deadline, attempt).await {
            Ok(ended) => ended,
            Err(_) => Err(Error::Timeout),
        };
        match ended {
            Ok(now) => {
                database.close().await;
                return Ok((before.unwrap_or_default(), now));
            }
            Err(error) if !error.may_pass() || Instant::now() + PAUSE >= deadline => {
                return Err(database.diagnosis(error).await);
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

fn failed(error: &Error, wait: Duration) -> Failure {
    match error.may_pass() {
        true => Failure::new(
            Exit::Unreachable,
            format!(
                "the database was not usable within {}: {error}; see database_url in `sidecache print-config`",
                humantime::format_duration(wait)
            ),
        ),
        false => Failure::new(Exit::Failed, error),
    }
}
