//! A look into what a service wrote into its database, SQLite or PostgreSQL.

use std::time::Duration;

use anyhow::Context;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use super::service::{Service, Settings};
use super::{postgres, scratch};

/// Where a service keeps its rows; outlives it.
pub enum Database {
    /// In this working folder, at its default place.
    Sqlite(TempDir),
    Postgres(String),
}

/// A service on each database, with these settings added, and where its rows are.
pub fn both(change: impl Fn(Settings) -> Settings) -> [(Service, Database); 2] {
    both_settings().map(|(settings, database)| (Service::start(change(settings)), database))
}

/// What [`both`] starts its services with, for services that are started more than once.
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

    /// The number that a query of this test gives.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql));
        Ok(match self {
            Database::Sqlite(_) => query.fetch_one(&mut self.sqlite().await?).await?,
            Database::Postgres(_) => {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.postgres().await?).await?
            }
        })
    }

    /// The text that a query of this test gives.
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

    /// Carries out a statement of this test, the one for the database that it is.
    pub async fn execute(&self, sqlite: &str, postgres: &str) {
        match self {
            Database::Sqlite(_) => {
                let mut connection = self.sqlite().await.expect("the file");
                sqlx::raw_sql(AssertSqlSafe(sqlite)).execute(&mut connection).await.expect("SQLite takes it");
            }
            Database::Postgres(_) => {
                let mut connection = self.postgres().await.expect("the server");
                sqlx::raw_sql(AssertSqlSafe(postgres)).execute(&mut connection).await.expect("PostgreSQL takes it");
            }
        }
    }
}
