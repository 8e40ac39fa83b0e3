//! Records in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::SqlitePool;

use super::record::Row;
use super::{Record, Repository};
use crate::database::{Database, Error};
use crate::model::Namespace;

pub(super) struct Sqlite {
    pub database: Arc<Database>,
    pub pool: SqlitePool,
}

const REVISION: &str = "SELECT revision FROM cache_namespaces_revision";

const MOVE_REVISION: &str = "UPDATE cache_namespaces_revision SET revision = revision + 1";

const LOAD: &str = "SELECT name, default_ttl, max_size_mb, eviction_policy, created_at, updated_at \
     FROM cache_namespaces";

const ADD: &str = "INSERT INTO cache_namespaces VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING";

const REPLACE: &str = "UPDATE cache_namespaces SET default_ttl = $2, max_size_mb = $3, eviction_policy = $4, \
     updated_at = $5 WHERE name = $1 RETURNING created_at";

#[async_trait]
impl Repository for Sqlite {
    async fn revision(&self) -> Result<i64, Error> {
        self.database.run(async { Ok(sqlx::query_scalar(REVISION).fetch_one(&self.pool).await?) }).await
    }

    async fn load(&self) -> Result<(i64, Vec<Record>), Error> {
        self.database
            .run(async {
                // The revision first: a change in between is then loaded once too often, never missed.
                let revision = sqlx::query_scalar(REVISION).fetch_one(&self.pool).await?;
                let rows: Vec<Row> = sqlx::query_as(LOAD).fetch_all(&self.pool).await?;
                Ok((revision, rows.into_iter().map(Record::from_row).collect::<Result<_, _>>()?))
            })
            .await
    }

    async fn add_missing(&self, records: Vec<Record>) -> Result<(), Error> {
        self.database
            .run(async {
                let mut transaction = self.pool.begin().await?;
                let mut added = 0;
                for record in records {
                    let (name, ttl, size, eviction, created_at, updated_at) = record.into_row();
                    let add = sqlx::query(ADD).bind(name).bind(ttl).bind(size).bind(eviction);
                    let done = add.bind(created_at).bind(updated_at).execute(&mut *transaction).await?;
                    added += done.rows_affected();
                }
                if added > 0 {
                    sqlx::query(MOVE_REVISION).execute(&mut *transaction).await?;
                }
                Ok(transaction.commit().await?)
            })
            .await
    }

    async fn put(&self, mut record: Record) -> Result<(Record, bool), Error> {
        self.database
            .run(async {
                let mut transaction = self.pool.begin().await?;
                let (name, ttl, size, eviction, created_at, updated_at) = record.clone().into_row();
                let add = sqlx::query(ADD).bind(&name).bind(ttl).bind(size).bind(&eviction);
                let added = add.bind(created_at).bind(updated_at).execute(&mut *transaction).await?;
                let created = added.rows_affected() > 0;
                if !created {
                    let replace = sqlx::query_scalar(REPLACE).bind(name).bind(ttl).bind(size).bind(eviction);
                    let born: i64 = replace.bind(updated_at).fetch_one(&mut *transaction).await?;
                    record.created_at.0 = u64::try_from(born).unwrap_or(0);
                }
                sqlx::query(MOVE_REVISION).execute(&mut *transaction).await?;
                transaction.commit().await?;
                Ok((record, created))
            })
            .await
    }

    async fn remove(&self, namespace: &Namespace) -> Result<bool, Error> {
        self.database
            .run(async {
                let mut transaction = self.pool.begin().await?;
                let delete = sqlx::query("DELETE FROM cache_namespaces WHERE name = $1").bind(namespace.as_str());
                let removed = delete.execute(&mut *transaction).await?.rows_affected() > 0;
                if removed {
                    sqlx::query(MOVE_REVISION).execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
                Ok(removed)
            })
            .await
    }
}
