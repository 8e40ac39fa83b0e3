//! Rows in PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgPool;

use super::Repository;
use super::record::Row;
use crate::database::{Database, Error};
use crate::model::UnixMillis;

pub(super) struct Postgres {
    pub database: Arc<Database>,
    pub pool: PgPool,
}

// One array a column: a single statement and a single plan, whatever the number of rows.
const ADD: &str = "INSERT INTO cache_access_logs (namespace, key_pattern, operation, hit, latency_ms, timestamp) \
     SELECT namespace, key_pattern, operation, hit, latency_ms, to_timestamp(timestamp_ms / 1000.0) \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::float8[], $6::bigint[]) \
     AS row (namespace, key_pattern, operation, hit, latency_ms, timestamp_ms)";

const PRUNE: &str = "DELETE FROM cache_access_logs WHERE id IN \
     (SELECT id FROM cache_access_logs WHERE timestamp < to_timestamp($1 / 1000.0) LIMIT $2)";

#[async_trait]
impl Repository for Postgres {
    async fn add(&self, rows: &[Row]) -> Result<(), Error> {
        let insert = sqlx::query(ADD)
            .bind(rows.iter().map(|row| row.namespace.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.key_pattern.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.operation).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.hit).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.latency_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.timestamp_ms).collect::<Vec<_>>());
        self.database
            .run(async {
                insert.execute(&self.pool).await?;
                Ok(())
            })
            .await
    }

    async fn prune(&self, before: UnixMillis, limit: i64) -> Result<u64, Error> {
        let before = i64::try_from(before.0).unwrap_or(i64::MAX);
        let delete = sqlx::query(PRUNE).bind(before).bind(limit);
        self.database.run(async { Ok(delete.execute(&self.pool).await?.rows_affected()) }).await
    }
}
