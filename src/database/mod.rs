//! The database: its pool, its schema, and whether it can be reached.
//!
//! Nothing here is on the path of a cache request. The service starts without its database and
//! goes on when it is lost; what needs it says so or waits in a bounded queue.

mod error;
mod migrations;
mod space;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::Instant;

pub use error::Error;
pub use space::give_back;
pub(crate) use transaction::in_transaction;

use crate::config::{DatabaseConfig, DatabaseKind};

/// How long the search for the cause of a failure waits for an answer. A database that stays silent has told nothing
/// after a longer time either.
const DIAGNOSIS: Duration = Duration::from_secs(1);

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
    keeps_statements: bool,
    migrated: Arc<AtomicBool>,
    migrating: Arc<tokio::sync::Mutex<()>>,
    connected: AtomicBool,
    /// Why the last operation did not reach the database.
    trouble: Mutex<Option<String>>,
    /// Connections that were made before this moment lead to a server that takes no writes.
    read_only_until: Arc<Mutex<Option<Instant>>>,
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
            keeps_statements: config.keeps_statements,
            migrated: Arc::default(),
            migrating: Arc::default(),
            connected: AtomicBool::new(false),
            trouble: Mutex::default(),
            read_only_until,
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

    /// Why the last operation did not reach the database; `None` where it did.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
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
        let result = match tokio::time::timeout(self.timeout, within).await.unwrap_or(Err(Error::Timeout)) {
            Err(error) => {
                self.react_to(&error);
                Err(self.diagnosis(error).await)
            }
            done => done,
        };
        self.note(result.as_ref().err().filter(|error| error.is_outage()));
        result
    }

    fn react_to(&self, error: &Error) {
        if error.is_missing_table() {
            // Another database than the one that was migrated: restored, or empty.
            self.migrated.store(false, Relaxed);
        }
        if error.is_read_only() {
            // After a failover the old primary is a replica. A new connection leads to the new primary.
            *self.read_only_until.lock() = Some(Instant::now());
        }
    }

    /// Remembers whether the database was reached, and logs changes.
    fn note(&self, outage: Option<&Error>) {
        let trouble = outage.map(ToString::to_string);
        let was_connected = self.connected.swap(outage.is_none(), Relaxed);
        let before = std::mem::replace(&mut *self.trouble.lock(), trouble.clone());
        match trouble {
            Some(error) if was_connected => tracing::warn!(error, "database lost"),
            Some(error) if before.as_ref() != Some(&error) => tracing::warn!(error, "the database does not answer"),
            None if !was_connected => tracing::info!(kind = self.kind, "database connected"),
            _ => {}
        }
    }

    /// Brings the schema up to date once a process.
    ///
    /// A task of its own: who waits for it may give up, and the next one waits for the same task.
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
                    migrations::sqlite().run(pool).await?;
                    if let Err(error) = space::enable(pool).await {
                        tracing::warn!(%error, "the SQLite file goes on without giving space back");
                    }
                }
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
                Pool::Postgres(pool) => {
                    let mut transaction = pool.begin().await?;
                    self.query_as::<_, (i64, String)>(SQL).fetch_all(&mut *transaction).await
                }
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

    /// The cause of `error`, where it tells only that time ran out: the pool tries to connect again and again, and
    /// forgets why that failed. One attempt outside the pool tells.
    pub async fn diagnosis(&self, error: Error) -> Error {
        if !error.hides_its_cause() {
            return error;
        }
        let attempt = async {
            match &self.pool {
                Pool::Postgres(pool) => connect(&pool.connect_options()).await.map(drop),
                Pool::Sqlite(pool) => Ok(pool.connect_options().connect().await.map(drop)?),
            }
        };
        match tokio::time::timeout(self.timeout.min(DIAGNOSIS), attempt).await {
            Ok(Err(found)) => found,
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

/// A connection outside the pool.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    options.connect().await.map_err(|cause| {
        let server = match options.get_socket() {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        Error::Unreachable { server, cause }
    })
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
