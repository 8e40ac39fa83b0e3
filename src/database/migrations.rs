//! The migrations of the schema, compiled into the program. Each step has one file for each database, under the same
//! number. A released step must never be edited (checksums).
//!
//! In PostgreSQL the steps run on a separate connection, which is always closed afterwards, so that no lock outlives
//! an attempt. First the schema is read. If steps are missing, each runs in one transaction that holds an advisory
//! lock and waits for it at most for the deadline of one statement. So several instances take turns, a role with
//! rights on the tables only can start on a complete schema, and a pooler in transaction mode works.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqlSafeStr as _};
use tokio::time::timeout;

use super::error::Error;
use super::sql::Language;

/// The table of applied steps. It is the library's own table, because the library applies the steps of SQLite, and in
/// earlier releases it also applied the steps of PostgreSQL.
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (\
     version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), \
     success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)";

const IS_TABLE_THERE: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

const STEPS_TAKEN: &str = "SELECT version, checksum FROM _sqlx_migrations";

const NOTE_STEP: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
     VALUES ($1, $2, TRUE, $3, (extract(epoch FROM clock_timestamp() - now()) * 1e9)::bigint)";

/// The key of the advisory lock for a step: "sidecach" in ASCII.
const LOCK: i64 = 0x7369_6465_6361_6368;

/// The time limit for all missing steps together: a dead connection must not block the next attempt for ever.
const LONGEST: Duration = Duration::from_secs(600);

/// How long closing a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

macro_rules! step {
    ($number:literal, $prefix:literal, $name:literal) => {
        (
            $number,
            $name,
            include_str!(concat!("../../migrations/postgres/", $prefix, "_", $name, ".sql")),
            include_str!(concat!("../../migrations/sqlite/", $prefix, "_", $name, ".sql")),
        )
    };
}

/// Number, name, and the SQL for PostgreSQL and for SQLite.
const STEPS: [(i64, &str, &str, &str); 8] = [
    step!(1, "0001", "foundation"),
    step!(2, "0002", "audit"),
    step!(3, "0003", "stale_if_error"),
    step!(4, "0004", "asked_by"),
    step!(5, "0005", "jobs"),
    step!(6, "0006", "namespace_id"),
    step!(7, "0007", "outcome"),
    step!(8, "0008", "refresh_and_jitter"),
];

/// A migration step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub version: i64,
    pub name: String,
}

/// Every step that this program knows, the first one first.
pub fn known_steps() -> Vec<Step> {
    STEPS.map(|(version, name, ..)| Step { version, name: name.to_owned() }).into()
}

/// Brings a schema in PostgreSQL up to date. Waits up to half of `patience` for a lock that another session holds.
///
/// # Errors
/// The database cannot be reached or used, another session holds a lock, or a step fails.
pub async fn migrate_postgres(options: &PgConnectOptions, patience: Duration) -> Result<(), Error> {
    let attempt = async {
        let mut connection = connect(options).await?;
        let taken = take_missing_steps(&mut connection, patience).await;
        // Dropping the connection closes it, too, but without telling the server.
        let _ = timeout(GOODBYE, connection.close()).await;
        taken
    };
    timeout(LONGEST, attempt).await.unwrap_or(Err(Error::Timeout))
}

/// Connects outside the pool.
///
/// # Errors
/// [`Error::Unreachable`] names the server and the cause.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    options.connect().await.map_err(|cause| {
        let server = match options.get_socket() {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        Error::Unreachable { server, cause }
    })
}

async fn take_missing_steps(connection: &mut PgConnection, patience: Duration) -> Result<(), Error> {
    let taken = steps_taken(connection).await?;
    for step in migrator(Language::Postgres).iter() {
        if !is_taken(step, &taken)? {
            take(connection, step, patience).await?;
        }
    }
    Ok(())
}

/// A step's number and the checksum of its SQL.
type Taken = (i64, Vec<u8>);

/// Reads which steps were applied. Needs only the right to read.
async fn steps_taken(connection: &mut PgConnection) -> Result<Vec<Taken>, Error> {
    let mut transaction = connection.begin().await?;
    let is_there: bool = sqlx::query_scalar(IS_TABLE_THERE).persistent(false).fetch_one(&mut *transaction).await?;
    let taken = if is_there { list_steps(&mut transaction).await? } else { Vec::new() };
    transaction.commit().await?;
    Ok(taken)
}

async fn list_steps(connection: &mut PgConnection) -> Result<Vec<Taken>, Error> {
    Ok(sqlx::query_as(STEPS_TAKEN).persistent(false).fetch_all(connection).await?)
}

/// Whether a step was applied.
///
/// # Errors
/// Another step has this number.
fn is_taken(step: &Migration, taken: &[Taken]) -> Result<bool, MigrateError> {
    match taken.iter().find(|(version, _)| *version == step.version) {
        Some((_, checksum)) if *checksum != *step.checksum => Err(MigrateError::VersionMismatch(step.version)),
        found => Ok(found.is_some()),
    }
}

async fn take(connection: &mut PgConnection, step: &Migration, patience: Duration) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    let lock = format!(
        "SET LOCAL lock_timeout = {}; SELECT pg_advisory_xact_lock({LOCK})",
        // Shorter than the caller's own timeout: otherwise the caller would see a timeout instead of the lock error.
        (patience / 2).as_millis().clamp(1, 60_000)
    );
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
    sqlx::raw_sql(CREATE_TABLE).execute(&mut *transaction).await?;
    // Another instance may have applied it while this one waited for the lock.
    if !is_taken(step, &list_steps(&mut transaction).await?)? {
        let failed = |error| MigrateError::ExecuteMigration(error, step.version);
        sqlx::raw_sql(step.sql.clone()).execute(&mut *transaction).await.map_err(failed)?;
        let note = sqlx::query(NOTE_STEP).persistent(false).bind(step.version).bind(&*step.description);
        note.bind(&*step.checksum).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}

/// All steps in the form of the library.
pub fn migrator(language: Language) -> Migrator {
    let migrations = STEPS.map(|(number, name, postgres, sqlite)| {
        let sql = if language == Language::Postgres { postgres } else { sqlite };
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    // During a rolling upgrade an older instance sees migrations that it does not know.
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::STEPS;

    #[test]
    fn every_file_of_the_folder_is_a_step() {
        for folder in ["postgres", "sqlite"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut files: Vec<String> = names.collect();
            files.sort();
            assert_eq!(files, STEPS.map(|(number, name, ..)| format!("{number:04}_{name}.sql")));
        }
    }
}
