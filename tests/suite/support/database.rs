//! Queries on the database of a service, SQLite or PostgreSQL.

use std::time::Duration;

use anyhow::Context;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use super::service::{Service, Settings};
use super::{postgres, scratch};

/// The database of a service. It outlives the service.
pub enum Database {
    /// The SQLite file at its default place in this working folder.
    Sqlite(TempDir),
    Postgres(String),
}

/// One service on each database, started with settings that `change` adjusts, and its database.
pub fn both(change: impl Fn(Settings) -> Settings) -> [(Service, Database); 2] {
    both_settings().map(|(settings, database)| (Service::start(change(settings)), database))
}

/// The settings of the services of [`both`], for tests that start a service more than once.
pub fn both_settings() -> [(Settings, Database); 2] {
    let folder = scratch::folder("database");
    let url = postgres::shared().fresh_database();
    let embedded = Settings::embedded().folder(folder.path());
    let shards = Settings::shards().set("database_url", &url);
    [(embedded, Database::Sqlite(folder)), (shards, Database::Postgres(url))]
}

impl Database {
    pub async fn sqlite(&self) -> anyhow::Result<SqliteConnection> {
        let Database::Sqlite(folder) = self else { anyhow::bail!("this is a PostgreSQL") };
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("data/sidecache.db"))
            .busy_timeout(Duration::from_secs(10))
            .disable_statement_logging();
        options.connect().await.context("the SQLite file")
    }

    pub async fn postgres(&self) -> anyhow::Result<PgConnection> {
        let Database::Postgres(url) = self else { anyhow::bail!("this is a SQLite file") };
        Ok(PgConnection::connect(url).await?)
    }

    /// The number of rows of a table.
    pub async fn count(&self, table: &str) -> anyhow::Result<i64> {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }

    /// The number that a query returns.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql));
        Ok(match self {
            Database::Sqlite(_) => query.fetch_one(&mut self.sqlite().await?).await?,
            Database::Postgres(_) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.postgres().await?).await?
            }
        })
    }

    /// The text that a query returns.
    pub async fn text(&self, sql: &str) -> anyhow::Result<String> {
        Ok(match self {
            Database::Sqlite(_) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.sqlite().await?).await?
            }
            Database::Postgres(_) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.postgres().await?).await?
            }
        })
    }

    /// Executes one of the two statements, depending on the database.
    pub async fn execute(&self, sqlite: &str, postgres: &str) {
        match self {
            Database::Sqlite(_) => {
                let mut connection = self.sqlite().await.expect("the file");
                sqlx::raw_sql(AssertSqlSafe(sqlite)).execute(&mut connection).await.expect("SQLite runs it");
            }
            Database::Postgres(_) => {
                let mut connection = self.postgres().await.expect("the server");
                sqlx::raw_sql(AssertSqlSafe(postgres)).execute(&mut connection).await.expect("PostgreSQL runs it");
            }
        }
    }
}
