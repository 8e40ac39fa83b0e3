//! The database for policies and logs.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rustix::fs::{Access, access};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::settings::{Error, Settings};
use super::tls::TlsFiles;

/// Which database, and how long to wait for it.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub kind: DatabaseKind,
    /// Deadline of one statement.
    pub timeout: Duration,
    /// Whether a connection may keep prepared statements; behind a pooler in transaction mode it may not.
    pub keeps_statements: bool,
}

/// The kind of database, with the options to connect.
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

    /// Whether the database is a file that does not exist yet.
    pub fn is_to_be_created(&self) -> bool {
        match self {
            Self::Postgres(_) => false,
            Self::Sqlite(options) => file(options).is_some_and(|path| !path.exists()),
        }
    }
}

/// Leaves the URL out, as it may contain a password.
impl std::fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseConfig").field("kind", &self.kind.as_str()).finish_non_exhaustive()
    }
}

const URL: &str = "database_url";

/// The maximum size of the write-ahead log that SQLite keeps after a checkpoint, in bytes.
const MAX_LOG_BYTES: &str = "67108864";

/// What to do with the folder of an SQLite file while the settings are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Create the folder and the file if they are missing.
    Prepare,
    /// Change nothing.
    Inspect,
}

impl DatabaseConfig {
    pub(super) fn parse(settings: &Settings, folder: Folder) -> Result<Self, Error> {
        let timeout = settings.millis("database_timeout_ms", 10..=60_000)?;
        let files = TlsFiles::parse(settings, "database")?;
        let url = settings.text(URL).trim();
        let wrong = |error: sqlx::Error| settings.error(URL, format!("the URL does not parse: {error}"));
        let kind = match url.split(':').next() {
            Some("postgres" | "postgresql") => {
                let options = PgConnectOptions::from_str(url).map_err(wrong)?;
                DatabaseKind::Postgres(Box::new(postgres(settings, options, &files)?))
            }
            Some("sqlite") => {
                // In WAL mode readers do not wait for the writer, and a crash loses at most the last transactions,
                // never the file (<https://www.sqlite.org/wal.html>).
                let options = SqliteConnectOptions::from_str(url)
                    .map_err(wrong)?
                    .create_if_missing(true)
                    .auto_vacuum(SqliteAutoVacuum::Incremental)
                    .pragma("journal_size_limit", MAX_LOG_BYTES)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Normal)
                    .busy_timeout(timeout);
                let place = match folder {
                    Folder::Prepare => prepare_folder(&options),
                    Folder::Inspect => inspect_folder(&options),
                };
                place.map_err(|reason| settings.error(URL, reason))?;
                DatabaseKind::Sqlite(Box::new(options))
            }
            _ => return Err(settings.error(URL, "expected sqlite://<path> or postgres://<user>@<host>/<database>")),
        };
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let keeps_statements = !query.split('&').any(|pair| pair == "statement-cache-capacity=0");
        Ok(Self { kind, timeout, keeps_statements })
    }
}

/// Adds the options that every PostgreSQL connection needs.
fn postgres(settings: &Settings, options: PgConnectOptions, files: &TlsFiles) -> Result<PgConnectOptions, Error> {
    let host = options.get_host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    // Not needed, because numbers are sent in binary form; and PgBouncer refuses connections that set it.
    let mut options = options.extra_float_digits(None);
    if let Some(address) = address {
        options = options.host(&address);
    }
    if options.get_application_name().is_none() {
        options = options.application_name("sidecache");
    }
    if files.is_empty() {
        return Ok(options);
    }
    // As in libpq, a configured CA means that the certificate is checked. The host name is checked, too, unless the
    // URL says otherwise.
    let has_ca = files.ca.is_some();
    let mode = match options.get_ssl_mode() {
        PgSslMode::Disable => return Err(settings.error(URL, "sslmode=disable contradicts database_tls_*")),
        PgSslMode::Prefer | PgSslMode::Allow if has_ca => PgSslMode::VerifyFull,
        PgSslMode::Require if has_ca => PgSslMode::VerifyCa,
        PgSslMode::Prefer | PgSslMode::Allow => PgSslMode::Require,
        mode => mode,
    };
    options = options.ssl_mode(mode);
    if let Some(ca) = &files.ca {
        options = options.ssl_root_cert(ca);
    }
    if let Some(client) = &files.client {
        options = options.ssl_client_cert(&client.certificate).ssl_client_key(&client.key);
    }
    Ok(options)
}

/// The path of the file; `None` if the database is in memory or is given as an SQLite `file:` URI.
fn file(options: &SqliteConnectOptions) -> Option<&Path> {
    let path = options.get_filename();
    let text = path.to_string_lossy();
    let is_elsewhere = text.is_empty() || text.starts_with(":memory:") || text.starts_with("file:");
    (!is_elsewhere).then_some(path)
}

/// Creates the folder of the file, and checks that the file can be written.
fn prepare_folder(options: &SqliteConnectOptions) -> Result<(), String> {
    let Some(path) = file(options) else { return Ok(()) };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map(drop).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Checks whether the file can be written, or created if it does not exist.
fn inspect_folder(options: &SqliteConnectOptions) -> Result<(), String> {
    let Some(path) = file(options) else { return Ok(()) };
    match OpenOptions::new().append(true).open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot write {}: {error}", path.display())),
    }
    // The last ancestor of a relative path is empty and means the working directory.
    let ancestors = path.ancestors().skip(1).map(|folder| match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    });
    let Some(folder) = ancestors.into_iter().find(|folder| folder.exists()) else { return Ok(()) };
    let wanted = path.parent().unwrap_or(path).display();
    if !folder.is_dir() {
        return Err(format!("cannot create {wanted}: {} is not a folder", folder.display()));
    }
    access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("cannot create {wanted}: {}: {error}", folder.display()))
}
