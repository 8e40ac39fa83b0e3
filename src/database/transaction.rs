//! Creating statements, and transactions with a single statement.
//!
//! A statement with parameters takes two steps: the server parses it, then it receives the parameters. A pooler in
//! transaction mode (PgBouncer) may send the two steps to different servers unless they are in one transaction, and a
//! prepared statement of the same name there may belong to another connection.

use sqlx::database::HasStatementCache;
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{Database as Kind, FromRow};

use super::Database;

/// Runs one statement in a transaction: `in_transaction!(pool, |connection| query.fetch_one(connection))`.
macro_rules! in_transaction {
    ($pool:expr, |$connection:ident| $statement:expr) => {{
        let mut transaction = $pool.begin().await?;
        let $connection = &mut *transaction;
        let answer = $statement.await?;
        transaction.commit().await?;
        Ok(answer)
    }};
}

pub(crate) use in_transaction;

/// All modules create their statements here, because connections may keep prepared statements only if the settings
/// allow it.
impl Database {
    pub(crate) fn query<K>(&self, sql: &'static str) -> Query<'static, K, K::Arguments>
    where
        K: Kind + HasStatementCache,
    {
        sqlx::query(sql).persistent(self.keeps_statements)
    }

    pub(crate) fn query_as<K, Row>(&self, sql: &'static str) -> QueryAs<'static, K, Row, K::Arguments>
    where
        K: Kind + HasStatementCache,
        Row: for<'r> FromRow<'r, K::Row>,
    {
        sqlx::query_as(sql).persistent(self.keeps_statements)
    }

    pub(crate) fn query_scalar<K, T>(&self, sql: &'static str) -> QueryScalar<'static, K, T, K::Arguments>
    where
        K: Kind + HasStatementCache,
        (T,): for<'r> FromRow<'r, K::Row>,
    {
        sqlx::query_scalar(sql).persistent(self.keeps_statements)
    }
}
