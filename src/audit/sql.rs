//! Rows in either database: one implementation for both, with the SQL of each in `postgres.rs` and `sqlite.rs`. It is
//! a macro because sqlx has no common type for the transactions of both databases.

/// Defines `$name`, a repository over `$pool`, and `add`, which adds a row within another transaction. The caller's
/// file defines the statements `ADD`, `PRUNE` and `PAGE`; `$advance` returns whether a batch is new.
macro_rules! repository {
    ($name:ident, $pool:ty, $connection:ty, $advance:path) => {
        pub(super) struct $name {
            pub database: Arc<Database>,
            pub pool: $pool,
        }

        /// Adds a row within the transaction of the change that it records.
        pub async fn add(database: &Database, connection: &mut $connection, row: &Row) -> Result<(), Error> {
            let millis = i64::try_from(row.at.0).unwrap_or(i64::MAX);
            let deleted = row.deleted_count.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
            let insert =
                database.query(ADD).bind(&row.namespace).bind(millis).bind(&row.client).bind(&row.forwarded_for);
            let insert = insert.bind(&row.request_id).bind(&row.action);
            let insert = insert.bind(policy_to_json(row.before.as_ref())).bind(policy_to_json(row.after.as_ref()));
            let insert = insert.bind(&row.pattern).bind(&row.tag).bind(deleted).bind(row.is_complete);
            insert.execute(connection).await?;
            Ok(())
        }

        #[async_trait]
        impl journal::Repository<Row> for $name {
            async fn add(&self, batch: Batch<'_, Row>) -> Result<(), Error> {
                self.database
                    .run(async {
                        let mut transaction = self.pool.begin().await?;
                        if $advance(&self.database, &mut transaction, batch.writer, batch.number).await? {
                            for row in batch.rows {
                                add(&self.database, &mut transaction, row).await?;
                            }
                        }
                        Ok(transaction.commit().await?)
                    })
                    .await
            }

            async fn prune(&self, before: UnixMillis, limit: i64) -> Result<u64, Error> {
                let before = i64::try_from(before.0).unwrap_or(i64::MAX);
                let delete = self.database.query(PRUNE).bind(before).bind(limit);
                let deleted =
                    self.database.run(async { in_transaction!(self.pool, |one| delete.execute(one)) }).await?;
                Ok(deleted.rows_affected())
            }
        }

        #[async_trait]
        impl Repository for $name {
            async fn page(&self, namespace: &Namespace, before: i64, limit: i64) -> Result<Vec<(i64, Row)>, Error> {
                let select = self.database.query_as(PAGE).bind(namespace.as_str()).bind(before).bind(limit);
                let found: Vec<PageRow> =
                    self.database.run(async { in_transaction!(self.pool, |one| select.fetch_all(one)) }).await?;
                found.into_iter().map(|found| Row::from_found(namespace.as_str(), found)).collect()
            }
        }
    };
}
pub(super) use repository;
