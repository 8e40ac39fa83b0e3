//! The database: the connection pool, the schema, and whether the database can be reached.
//!
//! Cache requests never wait for this module. The service starts without its database and continues when the database
//! is lost; parts that need it report an error or wait in a bounded queue.

mod error;
mod migrations;
mod space;
mod sql;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::Instant;

pub use error::Error;
pub use migrations::{Step, known_steps};
pub(crate) use transaction::{Statement, Transaction};

use crate::config::{DatabaseConfig, DatabaseKind};

/// How long [`Database::diagnosis`] waits for an answer. Waiting longer for a silent database would not tell more.
const DIAGNOSIS: Duration = Duration::from_secs(1);

/// A pool of connections, which are opened when needed.
#[derive(Debug)]
pub struct Database {
    pool: Pool,
    kind: &'static str,
    timeout: Duration,
    keeps_statements: bool,
    migrated: Arc<AtomicBool>,
    migrating: Arc<tokio::sync::Mutex<()>>,
    reach: Mutex<Reach>,
    /// Connections opened before this moment lead to a read-only server.
    read_only_until: Arc<Mutex<Option<Instant>>>,
}

/// Whether the last operation reached the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    NotTried,
    Reached,
    /// With the reason.
    Unreachable(String),
}

/// The pool of either database; cheap to clone.
#[derive(Clone, Debug)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Database {
    /// Creates the pool without connecting.
    pub fn new(config: &DatabaseConfig) -> Self {
        let (kind, timeout) = (config.kind.as_str(), config.timeout);
        let read_only_until: Arc<Mutex<Option<Instant>>> = Arc::default();
        let pool = match &config.kind {
            DatabaseKind::Postgres(options) => {
                let read_only_until = read_only_until.clone();
                Pool::Postgres(
                    PgPoolOptions::new()
                        .max_connections(4)
                        .acquire_timeout(config.timeout)
                        .before_acquire(move |_, connection| {
                            let made_at = Instant::now().checked_sub(connection.age);
                            let is_read_only = read_only_until.lock().is_some_and(|until| made_at <= Some(until));
                            Box::pin(async move { Ok(!is_read_only) })
                        })
                        .after_release(move |connection, _| Box::pin(still_answers(connection, timeout)))
                        .connect_lazy_with((**options).clone()),
                )
            }
            // SQLite allows one writer, so a second connection would only wait. The connection is never closed,
            // because a database in memory exists only as long as its connection.
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
            keeps_statements: config.keeps_statements,
            migrated: Arc::default(),
            migrating: Arc::default(),
            reach: Mutex::default(),
            read_only_until,
        }
    }

    /// `postgres` or `sqlite`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether the last operation reached the database.
    pub fn is_connected(&self) -> bool {
        *self.reach.lock() == Reach::Reached
    }

    /// Why the last operation could not reach the database; `None` if it did.
    pub fn trouble(&self) -> Option<String> {
        match &*self.reach.lock() {
            Reach::Unreachable(reason) => Some(reason.clone()),
            Reach::NotTried | Reach::Reached => None,
        }
    }

    /// Brings the schema up to date, runs `operation` within the deadline, and records whether the database was
    /// reached.
    ///
    /// # Errors
    /// The error of the operation, or [`Error::Timeout`].
    pub async fn run<T>(&self, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let within = async {
            self.migrate().await?;
            operation.await
        };
        let result = match tokio::time::timeout(self.timeout, within).await.unwrap_or(Err(Error::Timeout)) {
            Err(error) => {
                self.react_to(&error);
                Err(self.diagnosis(error).await)
            }
            done => done,
        };
        self.report(result.as_ref().err().filter(|error| error.is_outage()));
        result
    }

    fn react_to(&self, error: &Error) {
        if error.is_missing_table() {
            // This is not the database that was migrated: it was restored or is empty.
            self.migrated.store(false, Relaxed);
        }
        if error.is_read_only() {
            // After a failover the old primary is a replica. New connections reach the new primary.
            *self.read_only_until.lock() = Some(Instant::now());
        }
    }

    /// Records whether the database was reached, and logs changes.
    fn report(&self, outage: Option<&Error>) {
        let now = outage.map_or(Reach::Reached, |error| Reach::Unreachable(error.to_string()));
        let before = std::mem::replace(&mut *self.reach.lock(), now.clone());
        match (before, now) {
            (before, now) if before == now => {}
            (_, Reach::Reached) => tracing::info!(kind = self.kind, "database connected"),
            (Reach::Reached, Reach::Unreachable(error)) => {
                tracing::warn!(error, "lost the connection to the database");
            }
            (_, Reach::Unreachable(error)) => tracing::warn!(error, "the database does not answer"),
            (_, Reach::NotTried) => {}
        }
    }

    /// Brings the schema up to date, once for each process.
    ///
    /// Runs in a separate task: a caller may stop waiting, and the next caller waits for the same task.
    async fn migrate(&self) -> Result<(), Error> {
        if self.migrated.load(Relaxed) {
            return Ok(());
        }
        let turn = self.migrating.clone().lock_owned().await;
        if self.migrated.load(Relaxed) {
            return Ok(());
        }
        let (pool, migrated, patience) = (self.pool.clone(), self.migrated.clone(), self.timeout);
        let migration = tokio::spawn(async move {
            let _turn = turn;
            match &pool {
                Pool::Postgres(pool) => migrations::migrate_postgres(&pool.connect_options(), patience).await?,
                Pool::Sqlite(pool) => {
                    migrations::migrator(sql::Language::Sqlite).run(pool).await?;
                    if let Err(error) = space::enable(pool).await {
                        tracing::warn!(%error, "the SQLite file will not give free space back to the file system");
                    }
                }
            }
            migrated.store(true, Relaxed);
            Ok(())
        });
        migration.await.unwrap_or(Err(Error::Timeout))
    }

    /// The steps that were applied to the schema, in order. Applies no step itself.
    ///
    /// # Errors
    /// The database cannot be reached or used.
    pub async fn steps_taken(&self) -> Result<Vec<Step>, Error> {
        const SQL: &str = "SELECT version, description FROM _sqlx_migrations ORDER BY version";
        let read = async { self.begin().await?.query(SQL).fetch_all::<(i64, String)>().await };
        match tokio::time::timeout(self.timeout, read).await.unwrap_or(Err(Error::Timeout)) {
            Ok(rows) => Ok(rows.into_iter().map(|(version, name)| Step { version, name }).collect()),
            Err(error) if error.is_missing_table() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Brings the schema up to date, within the deadline of one statement. A longer migration continues, and the next
    /// call waits for it.
    ///
    /// # Errors
    /// The database cannot be reached or used, or a step failed.
    pub async fn bring_up_to_date(&self) -> Result<(), Error> {
        self.run(async { Ok(()) }).await
    }

    /// Gives some free space of an SQLite file back to the file system. Returns how many pages; 0 for PostgreSQL,
    /// which does this itself.
    pub(crate) async fn give_back(&self) -> Result<u64, Error> {
        match &self.pool {
            Pool::Postgres(_) => Ok(0),
            Pool::Sqlite(pool) => self.run(space::give_back(pool)).await,
        }
    }

    /// The cause of a timeout: the pool retries connecting and forgets why that failed, so this makes one attempt to
    /// connect outside the pool. Other errors are returned unchanged.
    pub async fn diagnosis(&self, error: Error) -> Error {
        if !error.hides_its_cause() {
            return error;
        }
        let attempt = async {
            match &self.pool {
                Pool::Postgres(pool) => migrations::connect(&pool.connect_options()).await.map(drop),
                Pool::Sqlite(pool) => Ok(pool.connect_options().connect().await.map(drop)?),
            }
        };
        match tokio::time::timeout(self.timeout.min(DIAGNOSIS), attempt).await {
            Ok(Err(found)) => found,
            Ok(Ok(())) | Err(_) => Error::Timeout,
        }
    }

    /// Closes the pool. Waits for connections in use, within the deadline.
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

/// A number in the databases' signed type.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether a connection can be used again. The pool itself checks this, too, but without a timeout: a few statements
/// on dead connections would block the whole pool for ever.
async fn still_answers(connection: &mut PgConnection, timeout: Duration) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(timeout, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        // Return an error: then the pool closes the connection without telling the server.
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
