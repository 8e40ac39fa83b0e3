//! Transactions and their statements, the same for PostgreSQL and SQLite.
//!
//! Every statement is part of a transaction. A statement with parameters takes two steps: the server parses it, then
//! it receives the parameters. A pooler in transaction mode (PgBouncer) may send the two steps to different servers
//! unless they are in one transaction, and a prepared statement of the same name there may belong to another
//! connection. Connections therefore keep prepared statements only if the settings allow it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Encode, FromRow, Type};

use super::sql::{Language, text};
use super::{Database, Error, Pool};

/// An open transaction. It is rolled back if it is dropped without a commit.
pub(crate) struct Transaction {
    connection: Connection,
    keeps_statements: bool,
}

enum Connection {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Database {
    /// Runs `work` in one transaction within the deadline, and commits it if `work` succeeds.
    pub(crate) async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.run_transaction(work, &AtomicBool::new(false)).await
    }

    /// Like [`Database::transaction`], for callers that must know whether a failed change may have happened: an error
    /// during the commit is [`Error::OutcomeUnknown`].
    pub(crate) async fn change<T>(
        &self,
        work: impl AsyncFnOnce(&mut Transaction) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let is_committing = AtomicBool::new(false);
        let result = self.run_transaction(work, &is_committing).await;
        result.map_err(|error| match is_committing.load(Relaxed) {
            true => Error::OutcomeUnknown(Box::new(error)),
            false => error,
        })
    }

    async fn run_transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut Transaction) -> Result<T, Error>,
        is_committing: &AtomicBool,
    ) -> Result<T, Error> {
        self.run(async {
            let mut transaction = self.begin().await?;
            let done = work(&mut transaction).await?;
            is_committing.store(true, Relaxed);
            match transaction.connection {
                Connection::Postgres(transaction) => transaction.commit().await?,
                Connection::Sqlite(transaction) => transaction.commit().await?,
            }
            Ok(done)
        })
        .await
    }

    pub(super) async fn begin(&self) -> Result<Transaction, Error> {
        let connection = match &self.pool {
            Pool::Postgres(pool) => Connection::Postgres(pool.begin().await?),
            Pool::Sqlite(pool) => Connection::Sqlite(pool.begin().await?),
        };
        Ok(Transaction { connection, keeps_statements: self.keeps_statements })
    }
}

impl Transaction {
    /// A statement whose text may have words of [`text`].
    pub fn query(&mut self, template: &'static str) -> Statement<'_> {
        let keeps = self.keeps_statements;
        // Safe: the texts of all statements are constants.
        match &mut self.connection {
            Connection::Postgres(connection) => {
                let sql = AssertSqlSafe(text(template, Language::Postgres));
                Statement::Postgres(sqlx::query(sql).persistent(keeps), connection)
            }
            Connection::Sqlite(connection) => {
                let sql = AssertSqlSafe(text(template, Language::Sqlite));
                Statement::Sqlite(sqlx::query(sql).persistent(keeps), connection)
            }
        }
    }
}

/// A statement and the connection on which it will run.
pub(crate) enum Statement<'t> {
    Postgres(Query<'static, Postgres, PgArguments>, &'t mut PgConnection),
    Sqlite(Query<'static, Sqlite, SqliteArguments>, &'t mut SqliteConnection),
}

impl Statement<'_> {
    /// Sets the next parameter.
    pub fn bind<'v, T>(self, value: T) -> Self
    where
        T: Encode<'v, Postgres> + Type<Postgres> + Encode<'v, Sqlite> + Type<Sqlite>,
    {
        match self {
            Self::Postgres(query, connection) => Self::Postgres(query.bind(value), connection),
            Self::Sqlite(query, connection) => Self::Sqlite(query.bind(value), connection),
        }
    }

    /// Plans the statement for the values of this call, and keeps no plan.
    pub fn planned_for_each_call(self) -> Self {
        match self {
            Self::Postgres(query, connection) => Self::Postgres(query.persistent(false), connection),
            Self::Sqlite(query, connection) => Self::Sqlite(query.persistent(false), connection),
        }
    }

    /// Returns the number of changed rows.
    pub async fn execute(self) -> Result<u64, Error> {
        Ok(match self {
            Self::Postgres(query, connection) => query.execute(connection).await?.rows_affected(),
            Self::Sqlite(query, connection) => query.execute(connection).await?.rows_affected(),
        })
    }

    pub async fn fetch_all<R>(self) -> Result<Vec<R>, Error>
    where
        R: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow>,
    {
        let rows: Result<_, sqlx::Error> = match self {
            Self::Postgres(query, connection) => query.fetch_all(connection).await?.iter().map(R::from_row).collect(),
            Self::Sqlite(query, connection) => query.fetch_all(connection).await?.iter().map(R::from_row).collect(),
        };
        Ok(rows?)
    }

    /// For a statement that returns at most one row.
    pub async fn fetch_optional<R>(self) -> Result<Option<R>, Error>
    where
        R: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow>,
    {
        Ok(self.fetch_all().await?.pop())
    }

    /// For a statement that returns one row with one column.
    pub async fn fetch_value<T>(self) -> Result<T, Error>
    where
        (T,): for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow>,
    {
        let (value,) = self.fetch_optional().await?.ok_or(sqlx::Error::RowNotFound)?;
        Ok(value)
    }
}
