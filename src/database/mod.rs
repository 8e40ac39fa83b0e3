//! The database: its pool, its schema, and whether it can be reached.
//!
//! Nothing here is on the path of a cache request. The service starts without its database and
//! goes on when it is lost; what needs it says so or waits in a bounded queue.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use crate::config::{DatabaseConfig, DatabaseKind};

/// How a database operation fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database did not answer in time")]
    Timeout,
    #[error("the schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A row that this program would not have written.
    #[error("a row of {table} cannot be understood: {reason}")]
    Row { table: &'static str, reason: String },
}

/// A pool of connections, made when needed.
#[derive(Debug)]
pub struct Database {
    pool: Pool,
    kind: &'static str,
    timeout: Duration,
    migrated: AtomicBool,
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
        let kind = config.kind.as_str();
        let pool = match &config.kind {
            DatabaseKind::Postgres(options) => Pool::Postgres(
                PgPoolOptions::new()
                    .max_connections(4)
                    .acquire_timeout(config.timeout)
                    .connect_lazy_with((**options).clone()),
            ),
            // SQLite has one writer; a second connection would only wait for it.
            DatabaseKind::Sqlite(options) => Pool::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(config.timeout)
                    .connect_lazy_with((**options).clone()),
            ),
        };
        Self {
            pool,
            kind,
            timeout: config.timeout,
            migrated: AtomicBool::new(false),
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
        if result.is_err() {
            // A database that failed may come back as another one, restored or empty.
            self.migrated.store(false, Relaxed);
        }
        let connected = !matches!(result, Err(Error::Timeout | Error::Migration(_) | Error::Sql(_)));
        if self.connected.swap(connected, Relaxed) != connected {
            match &result {
                Err(error) => tracing::warn!(%error, "database lost"),
                Ok(_) => tracing::info!(kind = self.kind, "database connected"),
            }
        }
        result
    }

    /// Brings the schema up to date once a process; instances that start together take turns.
    async fn migrate(&self) -> Result<(), Error> {
        if self.migrated.load(Relaxed) {
            return Ok(());
        }
        match &self.pool {
            Pool::Postgres(pool) => sqlx::migrate!("migrations/postgres").run(pool).await?,
            Pool::Sqlite(pool) => sqlx::migrate!("migrations/sqlite").run(pool).await?,
        }
        self.migrated.store(true, Relaxed);
        Ok(())
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
