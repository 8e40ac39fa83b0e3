//! The table of rows: adding rows, and deleting old ones.

use async_trait::async_trait;

use super::record::Row;
use crate::database::{Error, Statement, Transaction};
use crate::journal;

const ADD: &str = "INSERT INTO cache_access_logs \
     (namespace, key_pattern, operation, hit, latency_ms, timestamp, request_id, trace_id, outcome, status, \
     error_code, tier, client, instance) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

/// For PostgreSQL: one array for each column, so that one statement with one plan inserts any number of rows.
const ADD_ALL: &str = "INSERT INTO cache_access_logs \
     (namespace, key_pattern, operation, hit, latency_ms, timestamp, request_id, trace_id, outcome, status, \
     error_code, tier, client, instance) \
     SELECT namespace, key_pattern, operation, hit, latency_ms, {date timestamp_ms}, request_id, trace_id, outcome, \
     status, error_code, tier, client, $14 FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], \
     $5::float8[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::integer[], $11::text[], $12::text[], \
     $13::text[]) AS row (namespace, key_pattern, operation, hit, latency_ms, timestamp_ms, request_id, trace_id, \
     outcome, status, error_code, tier, client)";

// The oldest rows have the lowest ids. Rows with a future date (more than a day ahead) come from a wrong clock; they
// are deleted, too, because otherwise they would stay first in this order until their date.
const PRUNE: &str = "DELETE FROM cache_access_logs WHERE id IN (SELECT id FROM \
     (SELECT id, timestamp FROM cache_access_logs ORDER BY id LIMIT $2) AS oldest \
     WHERE timestamp < {date $1} OR timestamp > {ago -86400000})";

pub(super) struct Table {
    /// The name of this instance, stored in each row.
    pub instance: String,
}

#[async_trait]
impl journal::Table<Row> for Table {
    async fn add(&self, transaction: &mut Transaction, rows: &[Row]) -> Result<(), Error> {
        if let Statement::Postgres(insert, connection) = transaction.query(ADD_ALL) {
            let insert = insert
                .bind(column(rows, |row| row.namespace.as_str()))
                .bind(column(rows, |row| row.key_pattern.as_str()))
                .bind(column(rows, |row| row.operation))
                .bind(column(rows, |row| row.hit))
                .bind(column(rows, |row| row.latency_ms))
                .bind(column(rows, |row| row.timestamp_ms))
                .bind(column(rows, |row| row.request_id.as_deref()))
                .bind(column(rows, |row| row.trace_id.as_deref()))
                .bind(column(rows, |row| row.outcome))
                .bind(column(rows, |row| row.status))
                .bind(column(rows, |row| row.error_code))
                .bind(column(rows, |row| row.tier))
                .bind(column(rows, |row| row.client.as_deref()))
                .bind(&self.instance);
            insert.execute(connection).await?;
            return Ok(());
        }
        for row in rows {
            let insert = transaction.query(ADD).bind(&row.namespace).bind(&row.key_pattern).bind(row.operation);
            let insert = insert.bind(row.hit).bind(row.latency_ms).bind(row.timestamp_ms);
            let insert = insert.bind(&row.request_id).bind(&row.trace_id).bind(row.outcome).bind(row.status);
            let insert = insert.bind(row.error_code).bind(row.tier).bind(&row.client).bind(&self.instance);
            insert.execute().await?;
        }
        Ok(())
    }

    fn prune(&self) -> &'static str {
        PRUNE
    }
}

/// The values of one column.
fn column<'r, T>(rows: &'r [Row], value: impl Fn(&'r Row) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
