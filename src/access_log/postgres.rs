//! The rows in PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgPool;

use super::page::{Page, PageRow, Parameters, Query};
use super::record::Row;
use crate::database::{Database, Error, in_transaction};
use crate::journal::{self, Batch};
use crate::model::{Namespace, UnixMillis};

pub(super) struct Postgres {
    pub database: Arc<Database>,
    pub pool: PgPool,
    /// The name of this instance, stored in each row.
    pub instance: String,
}

// One array for each column, so that one statement with one plan inserts any number of rows.
const ADD: &str = "INSERT INTO cache_access_logs \
     (namespace, key_pattern, operation, hit, latency_ms, timestamp, request_id, trace_id, outcome, status, \
     error_code, tier, client, instance) \
     SELECT namespace, key_pattern, operation, hit, latency_ms, to_timestamp(timestamp_ms / 1000.0), request_id, \
     trace_id, outcome, status, error_code, tier, client, $14 FROM unnest($1::text[], $2::text[], $3::text[], \
     $4::boolean[], $5::float8[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::integer[], $11::text[], \
     $12::text[], $13::text[]) AS row (namespace, key_pattern, operation, hit, latency_ms, timestamp_ms, request_id, \
     trace_id, outcome, status, error_code, tier, client)";

// The oldest rows have the lowest ids. Rows with a future date come from a wrong clock; they are deleted, too,
// because otherwise they would stay first in this order until their date.
const PRUNE: &str = "DELETE FROM cache_access_logs WHERE id IN (SELECT id FROM \
     (SELECT id, timestamp FROM cache_access_logs ORDER BY id LIMIT $2) AS oldest WHERE timestamp < to_timestamp($1 / 1000.0) OR timestamp > now() + interval '1 day')";

// The innermost query walks the index (namespace, timestamp) backwards and stops at its limit.
const PAGE: &str = "SELECT id, (extract(epoch FROM timestamp) * 1000)::bigint, operation, key_pattern, hit, \
     latency_ms, request_id, trace_id, place, outcome, status, error_code, tier, client, instance FROM \
     (SELECT *, row_number() OVER (ORDER BY timestamp DESC, id DESC) AS place FROM \
     (SELECT * FROM cache_access_logs \
     WHERE namespace = $1 AND timestamp >= to_timestamp($2 / 1000.0) AND timestamp <= to_timestamp($3 / 1000.0) \
     AND (timestamp < to_timestamp($3 / 1000.0) OR id < $4) \
     ORDER BY timestamp DESC, id DESC LIMIT $5) AS looked_at) AS numbered \
     WHERE $6::text IS NULL OR operation = $6 OR place = $5 ORDER BY place LIMIT $7";

#[async_trait]
impl journal::Repository<Row> for Postgres {
    async fn add(&self, batch: Batch<'_, Row>) -> Result<(), Error> {
        let rows = batch.rows;
        let insert = self
            .database
            .query(ADD)
            .bind(rows.iter().map(|row| row.namespace.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.key_pattern.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.operation).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.hit).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.latency_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.timestamp_ms).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.request_id.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.trace_id.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.outcome).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.status).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.error_code).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.tier).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.client.as_deref()).collect::<Vec<_>>())
            .bind(&self.instance);
        self.database
            .run(async {
                let mut transaction = self.pool.begin().await?;
                if journal::postgres::advance(&self.database, &mut transaction, batch.writer, batch.number).await? {
                    insert.execute(&mut *transaction).await?;
                }
                Ok(transaction.commit().await?)
            })
            .await
    }

    async fn prune(&self, before: UnixMillis, limit: i64) -> Result<u64, Error> {
        let before = i64::try_from(before.0).unwrap_or(i64::MAX);
        let delete = self.database.query(PRUNE).bind(before).bind(limit);
        let deleted = self.database.run(async { in_transaction!(self.pool, |one| delete.execute(one)) }).await?;
        Ok(deleted.rows_affected())
    }
}

#[async_trait]
impl super::repository::Repository for Postgres {
    async fn page(&self, namespace: &Namespace, query: &Query) -> Result<Page, Error> {
        let Parameters { since_ms, before_ms, before_id, scanned, operation, limit } = query.parameters();
        // The plan is made for each call's values: a generic plan for any limit may sort the whole table.
        let select = sqlx::query_as(PAGE).persistent(false).bind(namespace.as_str()).bind(since_ms).bind(before_ms);
        let select = select.bind(before_id).bind(scanned).bind(operation).bind(limit);
        let found: Vec<PageRow> =
            self.database.run(async { in_transaction!(self.pool, |one| select.fetch_all(one)) }).await?;
        Ok(query.page(found))
    }
}
