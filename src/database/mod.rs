//! The database: its pool, its schema, and whether it can be reached.
//!
//! Nothing here is on the path of a cache request. The service starts without its database and
//! goes on when it is lost; what needs it says so or waits in a bounded queue.

mod migrations;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::config::{DatabaseConfig, DatabaseKind};

/// How long a database may take to say why it cannot be reached; one that is silent says nothing after longer.
const DIAGNOSIS: Duration = Duration::from_secs(1);

/// How a database operation fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database did not answer in time")]
    Timeout,
    #[error("the schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A change was sent and not answered: it may or may not have happened.
    #[error("the outcome of a change is unknown: {0}")]
    OutcomeUnknown(Box<Error>),
    /// A row that this program would not have written.
    #[error("a row of {table} cannot be understood: {reason}")]
    Row { table: &'static str, reason: String },
}

/// A step of the schema's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub version: i64,
    pub name: String,
}

/// Every step that this program knows, the first one first.
pub fn known_steps() -> Vec<Step> {
    migrations::known().map(|(version, name)| Step { version, name: name.to_owned() }).collect()
}

/// A pool of connections, made when needed.
#[derive(Debug)]
pub struct Database {
    pool: Pool,
    kind: &'static str,
    timeout: Duration,
    migrated: Arc<AtomicBool>,
    migrating: Arc<tokio::sync::Mutex<()>>,
    connected: AtomicBool,
}

/// Either kind of pool; cheap to clone.
#[derive(Clone, Debug)]
pub enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Database {
    /// Sets the pool up without connecting.
    pub fn new(config: &DatabaseConfig) -> Self {
        let (kind, timeout) = (config.kind.as_str(), config.timeout);
        let pool = match &config.kind {
            DatabaseKind::Postgres(options) => Pool::Postgres(
                PgPoolOptions::new()
                    .max_connections(4)
                    .acquire_timeout(config.timeout)
                    .after_release(move |connection, _| Box::pin(still_answers(connection, timeout)))
                    .connect_lazy_with((**options).clone()),
            ),
            // SQLite has one writer; a second connection would only wait for it. The one is kept, as
            // a database in memory lives and dies with it.
            DatabaseKind::Sqlite(options) => Pool::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .acquire_timeout(config.timeout)
                    .connect_lazy_with((**options).clone()),
            ),
        };
        Self {
            pool,
            kind,
            timeout,
            migrated: Arc::default(),
            migrating: Arc::default(),
            connected: AtomicBool::new(false),
        }
    }

    /// `postgres` or `sqlite`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether the last operation reached the database.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Runs `operation` on an up-to-date schema, within the deadline, and notes how it went.
    ///
    /// # Errors
    /// What the operation answers, or [`Error::Timeout`].
    pub async fn run<T>(&self, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let within = async {
            self.migrate().await?;
            operation.await
        };
        let result = tokio::time::timeout(self.timeout, within).await.unwrap_or(Err(Error::Timeout));
        if result.as_ref().is_err_and(Error::is_missing_table) {
            // Another database than the one that was migrated: restored, or empty.
            self.migrated.store(false, Relaxed);
        }
        let connected = !result.as_ref().is_err_and(Error::is_outage);
        if self.connected.swap(connected, Relaxed) != connected {
            match &result {
                Err(error) => tracing::warn!(%error, "database lost"),
                Ok(_) => tracing::info!(kind = self.kind, "database connected"),
            }
        }
        result
    }

    /// Brings the schema up to date once a process; instances that start together take turns.
    ///
    /// A task of its own, as a migration that is given up half way would leave its lock with the
    /// connection, and the connection with the pool.
    async fn migrate(&self) -> Result<(), Error> {
        if self.migrated.load(Relaxed) {
            return Ok(());
        }
        let turn = self.migrating.clone().lock_owned().await;
        if self.migrated.load(Relaxed) {
            return Ok(());
        }
        let (pool, migrated) = (self.pool.clone(), self.migrated.clone());
        let migration = tokio::spawn(async move {
            let _turn = turn;
            match &pool {
                Pool::Postgres(pool) => migrations::postgres().run(pool).await?,
                Pool::Sqlite(pool) => migrations::sqlite().run(pool).await?,
            }
            migrated.store(true, Relaxed);
            Ok(())
        });
        migration.await.unwrap_or(Err(Error::Timeout))
    }

    /// The steps that the schema has taken, the first one first, without taking any.
    ///
    /// # Errors
    /// The database cannot be reached or used.
    pub async fn steps_taken(&self) -> Result<Vec<Step>, Error> {
        const SQL: &str = "SELECT version, description FROM _sqlx_migrations ORDER BY version";
        let asked = async {
            match &self.pool {
                Pool::Postgres(pool) => sqlx::query_as::<_, (i64, String)>(SQL).fetch_all(pool).await,
                Pool::Sqlite(pool) => sqlx::query_as::<_, (i64, String)>(SQL).fetch_all(pool).await,
            }
        };
        let rows = tokio::time::timeout(self.timeout, asked).await.map_err(|_| Error::Timeout)?.map_err(Error::Sql);
        match rows {
            Ok(rows) => Ok(rows.into_iter().map(|(version, name)| Step { version, name }).collect()),
            Err(error) if error.is_missing_table() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Brings the schema up to date, within the deadline of one statement: what takes longer goes on, and is
    /// waited for when asked again.
    ///
    /// # Errors
    /// The database cannot be reached or used, or disliked a step.
    pub async fn bring_up_to_date(&self) -> Result<(), Error> {
        self.run(async { Ok(()) }).await
    }

    /// Why the database cannot be reached, where `error` tells only that its time was over: a pool tries again and
    /// again, and forgets why. One attempt outside of it tells.
    pub async fn diagnosis(&self, error: Error) -> Error {
        use sqlx::migrate::MigrateError as M;
        let told = match &error {
            Error::Sql(told) | Error::Migration(M::Execute(told)) => Some(told),
            _ => None,
        };
        if !matches!((&error, told), (Error::Timeout, _) | (_, Some(sqlx::Error::PoolTimedOut))) {
            return error;
        }
        let attempt = async {
            match &self.pool {
                Pool::Postgres(pool) => pool.connect_options().connect().await.map(drop),
                Pool::Sqlite(pool) => pool.connect_options().connect().await.map(drop),
            }
        };
        match tokio::time::timeout(self.timeout.min(DIAGNOSIS), attempt).await {
            Ok(Err(found)) => Error::Sql(found),
            Ok(Ok(())) | Err(_) => Error::Timeout,
        }
    }

    /// Closes the pool; connections in use are waited for within the deadline.
    pub async fn close(&self) {
        let closed = async {
            match &self.pool {
                Pool::Postgres(pool) => pool.close().await,
                Pool::Sqlite(pool) => pool.close().await,
            }
        };
        if tokio::time::timeout(self.timeout, closed).await.is_err() {
            tracing::warn!("the database pool did not close in time");
        }
    }
}

/// Tells a connection that can be used again. The pool asks the same, but waits for an answer without
/// an end: a few statements whose connection went silent would use it up for good.
async fn still_answers(connection: &mut PgConnection, timeout: Duration) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(timeout, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        // As an error: then the connection is closed without asking the other side.
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

impl Error {
    /// What the error means once the change was being committed.
    pub(crate) fn of_commit(self, is_committing: &AtomicBool) -> Self {
        if is_committing.load(Relaxed) { Self::OutcomeUnknown(Box::new(self)) } else { self }
    }

    /// Whether the database could not be reached or used, rather than disliked what it was given.
    fn is_outage(&self) -> bool {
        match self {
            Self::Timeout | Self::Migration(_) => true,
            Self::OutcomeUnknown(error) => error.is_outage(),
            Self::Sql(_) => !self.is_refused_data(),
            Self::Row { .. } => false,
        }
    }

    /// Whether the data given was what the database disliked: to try again is of no use.
    /// SQLSTATE classes 22 and 23 (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
    pub fn is_refused_data(&self) -> bool {
        self.sql_state().is_some_and(|state| state.len() == 5 && (state.starts_with("22") || state.starts_with("23")))
    }

    /// Whether the same may work a moment later: the database is away, starting or full of connections.
    /// SQLSTATE 57P01 to 57P03 and 53300.
    pub fn may_pass(&self) -> bool {
        use sqlx::Error as E;
        use sqlx::migrate::MigrateError as M;
        let passes = |error: &E| match error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::WorkerCrashed => true,
            E::Database(error) => {
                error.code().is_some_and(|code| code.starts_with("57P") || code == "53300" || code == "5")
            }
            _ => false,
        };
        match self {
            Self::Timeout => true,
            Self::Sql(error) | Self::Migration(M::Execute(error) | M::ExecuteMigration(error, _)) => passes(error),
            Self::OutcomeUnknown(error) => error.may_pass(),
            Self::Migration(_) | Self::Row { .. } => false,
        }
    }

    fn is_missing_table(&self) -> bool {
        // PostgreSQL has a code for it; SQLite has only the words.
        let words = matches!(self, Self::Sql(error) if error.to_string().contains("no such table"));
        words || self.sql_state().as_deref() == Some("42P01")
    }

    fn sql_state(&self) -> Option<String> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.code().map(Into::into),
            _ => None,
        }
    }
}
