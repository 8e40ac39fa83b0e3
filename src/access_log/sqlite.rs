//! The rows in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::SqlitePool;

use super::page::{Page, PageRow, Parameters, Query};
use super::record::Row;
use crate::database::{Database, Error, give_back};
use crate::journal::{self, Batch};
use crate::model::{Namespace, UnixMillis};

pub(super) struct Sqlite {
    pub database: Arc<Database>,
    pub pool: SqlitePool,
    /// The name of this instance, stored in each row.
    pub instance: String,
}

const ADD: &str = "INSERT INTO cache_access_logs \
     (namespace, key_pattern, operation, hit, latency_ms, timestamp, request_id, trace_id, outcome, status, \
     error_code, tier, client, instance) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

// The oldest rows have the lowest ids. Rows with a future date come from a wrong clock and are deleted, too.
const PRUNE: &str = "DELETE FROM cache_access_logs WHERE id IN (SELECT id FROM \
     (SELECT id, timestamp FROM cache_access_logs ORDER BY id LIMIT $2) \
     WHERE timestamp < $1 OR timestamp > (unixepoch() + 86400) * 1000)";

// The innermost query walks the index (namespace, timestamp) backwards and stops at its limit.
const PAGE: &str = "SELECT id, timestamp, operation, key_pattern, hit, latency_ms, request_id, \
     trace_id, place, outcome, status, error_code, tier, client, instance FROM \
     (SELECT *, row_number() OVER (ORDER BY timestamp DESC, id DESC) AS place FROM \
     (SELECT * FROM cache_access_logs WHERE namespace = $1 AND timestamp >= $2 AND timestamp <= $3 \
     AND (timestamp < $3 OR id < $4) ORDER BY timestamp DESC, id DESC LIMIT $5)) \
     WHERE $6 IS NULL OR operation = $6 OR place = $5 ORDER BY place LIMIT $7";

#[async_trait]
impl journal::Repository<Row> for Sqlite {
    async fn add(&self, batch: Batch<'_, Row>) -> Result<(), Error> {
        self.database
            .run(async {
                let mut transaction = self.pool.begin().await?;
                if journal::sqlite::advance(&self.database, &mut transaction, batch.writer, batch.number).await? {
                    for row in batch.rows {
                        let insert =
                            self.database.query(ADD).bind(&row.namespace).bind(&row.key_pattern).bind(row.operation);
                        let insert = insert.bind(row.hit).bind(row.latency_ms).bind(row.timestamp_ms);
                        let insert = insert.bind(&row.request_id).bind(&row.trace_id).bind(row.outcome);
                        let insert = insert.bind(row.status).bind(row.error_code).bind(row.tier);
                        let insert = insert.bind(&row.client).bind(&self.instance);
                        insert.execute(&mut *transaction).await?;
                    }
                }
                Ok(transaction.commit().await?)
            })
            .await
    }

    async fn prune(&self, before: UnixMillis, limit: i64) -> Result<u64, Error> {
        let before = i64::try_from(before.0).unwrap_or(i64::MAX);
        let delete = self.database.query(PRUNE).bind(before).bind(limit);
        // Deleted rows leave free pages, which are given back to the file system.
        let freed = async { Ok(delete.execute(&self.pool).await?.rows_affected() + give_back(&self.pool).await?) };
        self.database.run(freed).await
    }
}

#[async_trait]
impl super::repository::Repository for Sqlite {
    async fn page(&self, namespace: &Namespace, query: &Query) -> Result<Page, Error> {
        let Parameters { since_ms, before_ms, before_id, scanned, operation, limit } = query.parameters();
        let select = self.database.query_as(PAGE).bind(namespace.as_str()).bind(since_ms).bind(before_ms);
        let select = select.bind(before_id).bind(scanned).bind(operation).bind(limit);
        let found: Vec<PageRow> = self.database.run(async { Ok(select.fetch_all(&self.pool).await?) }).await?;
        Ok(query.page(found))
    }
}
