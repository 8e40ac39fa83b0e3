//! Records in either database: one implementation for both, with the SQL of each in `postgres.rs` and `sqlite.rs`. It
//! is a macro because sqlx has no common type for the transactions of both databases.

/// Runs in the transaction of every change.
pub(super) const MOVE_REVISION: &str = "UPDATE cache_namespaces_revision SET revision = revision + 1";

/// Changes nothing but locks the row for this transaction.
pub(super) const LOCK: &str = "UPDATE cache_namespaces SET name = name WHERE name = $1";

pub(super) const REVISION: &str = "SELECT revision FROM cache_namespaces_revision";

pub(super) const REMOVE: &str = "DELETE FROM cache_namespaces WHERE name = $1 RETURNING default_ttl, max_size_mb, eviction_policy, stale_if_error";

/// Defines `$name`, a repository over `$pool`. The caller's file defines the statements `LOAD`, `ADD`, `BEFORE` and
/// `REPLACE`; `$audit` adds a row to the audit trail.
macro_rules! repository {
    ($name:ident, $pool:ty, $audit:path) => {
        pub(super) struct $name {
            pub database: Arc<Database>,
            pub pool: $pool,
        }

        #[async_trait]
        impl Repository for $name {
            async fn revision(&self) -> Result<i64, Error> {
                let revision = self.database.query_scalar(REVISION);
                self.database.run(async { in_transaction!(self.pool, |one| revision.fetch_one(one)) }).await
            }

            async fn load(&self) -> Result<Loaded, Error> {
                self.database
                    .run(async {
                        let mut transaction = self.pool.begin().await?;
                        // Read the revision first: a change in between is then loaded twice, never missed.
                        let revision = self.database.query_scalar(REVISION).fetch_one(&mut *transaction).await?;
                        let rows: Vec<Row> = self.database.query_as(LOAD).fetch_all(&mut *transaction).await?;
                        transaction.commit().await?;
                        Ok(Loaded::from_rows(revision, rows))
                    })
                    .await
            }

            async fn add_missing(&self, records: Vec<Record>) -> Result<(), Error> {
                self.database
                    .run(async {
                        let mut transaction = self.pool.begin().await?;
                        let mut added = 0;
                        for record in records {
                            let (name, ttl, size, eviction, stale, created_at, updated_at) = record.into_row();
                            let add =
                                self.database.query(ADD).bind(name).bind(ttl).bind(size).bind(eviction).bind(stale);
                            let done = add.bind(created_at).bind(updated_at).execute(&mut *transaction).await?;
                            added += done.rows_affected();
                        }
                        if added > 0 {
                            self.database.query(MOVE_REVISION).execute(&mut *transaction).await?;
                        }
                        Ok(transaction.commit().await?)
                    })
                    .await
            }

            async fn put(&self, mut record: Record, by: &ChangeRequest<'_>) -> Result<(Record, bool), Error> {
                let is_committing = AtomicBool::new(false);
                let result = self
                    .database
                    .run(async {
                        let mut transaction = self.pool.begin().await?;
                        let (name, ttl, size, eviction, stale, created_at, updated_at) = record.clone().into_row();
                        let before = loop {
                            let add = self.database.query(ADD).bind(&name).bind(ttl).bind(size).bind(&eviction);
                            let added =
                                add.bind(stale).bind(created_at).bind(updated_at).execute(&mut *transaction).await?;
                            if added.rows_affected() > 0 {
                                break by.unsaved;
                            }
                            let before = self.database.query_as(BEFORE).bind(&name).fetch_optional(&mut *transaction);
                            let before: Option<PolicyRow> = before.await?;
                            // If there is no row, another instance removed it between the two statements: add again.
                            let Some(before) = before else { continue };
                            let replace =
                                self.database.query_scalar(REPLACE).bind(&name).bind(ttl).bind(size).bind(&eviction);
                            let born: i64 = replace.bind(stale).bind(updated_at).fetch_one(&mut *transaction).await?;
                            record.created_at.0 = u64::try_from(born).unwrap_or(0);
                            // A policy that this release does not understand can still be replaced.
                            break policy_from_row(before).ok();
                        };
                        let after = record.policy;
                        let change = match before {
                            None => Change::PolicyCreated { after },
                            Some(before) => Change::PolicyReplaced { before, after },
                        };
                        let row = audit::Record::new(&record.namespace, by.origin, change).into();
                        $audit(&self.database, &mut transaction, &row).await?;
                        self.database.query(MOVE_REVISION).execute(&mut *transaction).await?;
                        is_committing.store(true, Relaxed);
                        transaction.commit().await?;
                        Ok((record, before.is_none()))
                    })
                    .await;
                result.map_err(|error| error.of_commit(&is_committing))
            }

            async fn patch(
                &self,
                namespace: &Namespace,
                change: &PolicyChange,
                at: UnixMillis,
                origin: &Origin,
            ) -> Result<Option<Record>, Error> {
                let is_committing = AtomicBool::new(false);
                let result = self
                    .database
                    .run(async {
                        let mut transaction = self.pool.begin().await?;
                        let lock =
                            self.database.query(LOCK).bind(namespace.as_str()).execute(&mut *transaction).await?;
                        if lock.rows_affected() == 0 {
                            return Ok(None);
                        }
                        let before = self.database.query_as(BEFORE).bind(namespace.as_str());
                        let before: PolicyRow = before.fetch_one(&mut *transaction).await?;
                        let before = policy_from_row(before)?;
                        let after = change.apply(before);
                        let mut record =
                            Record { namespace: namespace.clone(), policy: after, created_at: at, updated_at: at };
                        let (name, ttl, size, eviction, stale, _, updated_at) = record.clone().into_row();
                        let replace =
                            self.database.query_scalar(REPLACE).bind(&name).bind(ttl).bind(size).bind(&eviction);
                        let born: i64 = replace.bind(stale).bind(updated_at).fetch_one(&mut *transaction).await?;
                        record.created_at.0 = u64::try_from(born).unwrap_or(0);
                        let row =
                            audit::Record::new(namespace, origin, Change::PolicyReplaced { before, after }).into();
                        $audit(&self.database, &mut transaction, &row).await?;
                        self.database.query(MOVE_REVISION).execute(&mut *transaction).await?;
                        is_committing.store(true, Relaxed);
                        transaction.commit().await?;
                        Ok(Some(record))
                    })
                    .await;
                result.map_err(|error| error.of_commit(&is_committing))
            }

            async fn remove(
                &self,
                namespace: &Namespace,
                deleted: u64,
                by: &ChangeRequest<'_>,
            ) -> Result<bool, Error> {
                let is_committing = AtomicBool::new(false);
                let result = self
                    .database
                    .run(async {
                        let mut transaction = self.pool.begin().await?;
                        let delete = self.database.query_as(REMOVE).bind(namespace.as_str());
                        let stored: Option<PolicyRow> = delete.fetch_optional(&mut *transaction).await?;
                        let before = match stored {
                            Some(stored) => {
                                self.database.query(MOVE_REVISION).execute(&mut *transaction).await?;
                                Some(policy_from_row(stored)?)
                            }
                            None => by.unsaved,
                        };
                        if let Some(before) = before {
                            let change = Change::PolicyDeleted { before, deleted };
                            $audit(
                                &self.database,
                                &mut transaction,
                                &audit::Record::new(namespace, by.origin, change).into(),
                            )
                            .await?;
                        }
                        is_committing.store(true, Relaxed);
                        transaction.commit().await?;
                        Ok(before.is_some())
                    })
                    .await;
                result.map_err(|error| error.of_commit(&is_committing))
            }
        }
    };
}
pub(super) use repository;
