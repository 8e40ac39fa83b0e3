//! Rows in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::SqlitePool;

use super::Repository;
use super::record::Row;
use crate::database::{Database, Error};
use crate::model::UnixMillis;

pub(super) struct Sqlite {
    pub database: Arc<Database>,
    pub pool: SqlitePool,
}

const ADD: &str = "INSERT INTO cache_access_logs (namespace, key_pattern, operation, hit, latency_ms, timestamp) \
     VALUES ($1, $2, $3, $4, $5, $6)";

const PRUNE: &str = "DELETE FROM cache_access_logs WHERE id IN \
     (SELECT id FROM cache_access_logs WHERE timestamp < $1 LIMIT $2)";

#[async_trait]
impl Repository for Sqlite {
    async fn add(&self, rows: &[Row]) -> Result<(), Error> {
        self.database
            .run(async {
                let mut transaction = self.pool.begin().await?;
                for row in rows {
                    let insert = sqlx::query(ADD).bind(&row.namespace).bind(&row.key_pattern).bind(row.operation);
                    let insert = insert.bind(row.hit).bind(row.latency_ms).bind(row.timestamp_ms);
                    insert.execute(&mut *transaction).await?;
                }
                Ok(transaction.commit().await?)
            })
            .await
    }

    async fn prune(&self, before: UnixMillis, limit: i64) -> Result<u64, Error> {
        let before = i64::try_from(before.0).unwrap_or(i64::MAX);
        let delete = sqlx::query(PRUNE).bind(before).bind(limit);
        self.database.run(async { Ok(delete.execute(&self.pool).await?.rows_affected()) }).await
    }
}
