//! The database for policies and logs.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::settings::{Error, Settings};

/// Which database, and how long to wait for it.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub kind: DatabaseKind,
    /// Deadline of one statement.
    pub timeout: Duration,
}

/// The two kinds of database, with how to reach it.
#[derive(Clone)]
pub enum DatabaseKind {
    Postgres(Box<PgConnectOptions>),
    Sqlite(Box<SqliteConnectOptions>),
}

impl DatabaseKind {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseConfig").field("kind", &self.kind.as_str()).finish_non_exhaustive()
    }
}

const URL: &str = "database_url";

impl DatabaseConfig {
    pub(super) fn parse(settings: &Settings) -> Result<Self, Error> {
        let timeout = Duration::from_millis(settings.number("database_timeout_ms", 10..=60_000)?);
        let url = settings.text(URL).trim();
        let kind = match url.split(':').next() {
            Some("postgres" | "postgresql") => {
                let options = PgConnectOptions::from_str(url)
                    .map_err(|error| settings.error(URL, format!("the URL does not parse: {error}")))?;
                DatabaseKind::Postgres(Box::new(options.application_name("sidecache")))
            }
            Some("sqlite") => {
                let options = SqliteConnectOptions::from_str(url)
                    .map_err(|error| settings.error(URL, format!("the URL does not parse: {error}")))?;
                // Readers do not wait for the writer, and a crash loses at most the last
                // transactions, never the file (<https://www.sqlite.org/wal.html>).
                let options = options
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Normal)
                    .busy_timeout(timeout);
                prepare_folder(&options).map_err(|reason| settings.error(URL, reason))?;
                DatabaseKind::Sqlite(Box::new(options))
            }
            _ => return Err(settings.error(URL, "expected sqlite://<path> or postgres://<user>@<host>/<database>")),
        };
        Ok(Self { kind, timeout })
    }
}

/// Creates the folder of the file, and sees that the file can be written.
fn prepare_folder(options: &SqliteConnectOptions) -> Result<(), String> {
    let path = options.get_filename();
    let text = path.to_string_lossy();
    if text.is_empty() || text.starts_with(":memory:") || text.starts_with("file:") {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    }
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    opened.map(drop).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
