//! The rows in the database.

use async_trait::async_trait;

use super::row::{PageRow, Row, policy_to_json};
use crate::database::{Database, Error, Transaction, signed};
use crate::journal;
use crate::model::Namespace;

const ADD: &str = "INSERT INTO cache_audit (namespace, at, client, forwarded_for, request_id, action, before, after, \
     pattern, tag, deleted_count, complete) \
     VALUES ($1, {date $2}, $3, $4, $5, $6, {json $7}, {json $8}, $9, $10, $11, $12)";

const PRUNE: &str = "DELETE FROM cache_audit WHERE (namespace, id) IN \
     (SELECT namespace, id FROM cache_audit WHERE at < {date $1} LIMIT $2)";

const PAGE: &str = "SELECT id, {millis at}, client, forwarded_for, request_id, action, CAST(before AS text), \
     CAST(after AS text), pattern, tag, deleted_count, complete FROM cache_audit \
     WHERE namespace = $1 AND id < $2 ORDER BY id DESC LIMIT $3";

/// Adds a row within the transaction of the change that it records.
pub(crate) async fn add(transaction: &mut Transaction, row: &Row) -> Result<(), Error> {
    let insert = transaction.query(ADD).bind(&row.namespace).bind(signed(row.at.0)).bind(&row.client);
    let insert = insert.bind(&row.forwarded_for).bind(&row.request_id).bind(&row.action);
    let insert = insert.bind(policy_to_json(row.before.as_ref())).bind(policy_to_json(row.after.as_ref()));
    let insert = insert.bind(&row.pattern).bind(&row.tag).bind(row.deleted_count.map(signed)).bind(row.is_complete);
    insert.execute().await?;
    Ok(())
}

/// The rows of the journal.
pub(super) struct Table;

#[async_trait]
impl journal::Table<Row> for Table {
    async fn add(&self, transaction: &mut Transaction, rows: &[Row]) -> Result<(), Error> {
        for row in rows {
            add(transaction, row).await?;
        }
        Ok(())
    }

    fn prune(&self) -> &'static str {
        PRUNE
    }
}

/// Up to `limit` rows with ids below `before`, the highest first.
pub(super) async fn page(
    database: &Database,
    namespace: &Namespace,
    before: i64,
    limit: i64,
) -> Result<Vec<(i64, Row)>, Error> {
    let select = async |transaction: &mut Transaction| {
        transaction.query(PAGE).bind(namespace.as_str()).bind(before).bind(limit).fetch_all::<PageRow>().await
    };
    let found = database.transaction(select).await?;
    found.into_iter().map(|found| Row::from_found(namespace.as_str(), found)).collect()
}
