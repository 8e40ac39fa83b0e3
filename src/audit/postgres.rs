//! The SQL for PostgreSQL; `sql.rs` uses it.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};

use super::repository::Repository;
use super::row::{PageRow, Row, policy_to_json};
use super::sql::repository;
use crate::database::{Database, Error, in_transaction};
use crate::journal::{self, Batch};
use crate::model::{Namespace, UnixMillis};

const ADD: &str = "INSERT INTO cache_audit (namespace, at, client, forwarded_for, request_id, action, before, after, \
     pattern, tag, deleted_count, complete) \
     VALUES ($1, to_timestamp($2 / 1000.0), $3, $4, $5, $6, $7::text::jsonb, $8::text::jsonb, $9, $10, $11, $12)";

const PRUNE: &str = "DELETE FROM cache_audit WHERE (namespace, id) IN \
     (SELECT namespace, id FROM cache_audit WHERE at < to_timestamp($1 / 1000.0) LIMIT $2)";

const PAGE: &str = "SELECT id, (extract(epoch FROM at) * 1000)::bigint, client, forwarded_for, request_id, action, \
     before::text, after::text, pattern, tag, deleted_count, complete FROM cache_audit \
     WHERE namespace = $1 AND id < $2 ORDER BY id DESC LIMIT $3";

repository!(Postgres, PgPool, PgConnection, journal::postgres::advance);
