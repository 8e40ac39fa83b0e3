//! The SQL for SQLite; `sql.rs` uses it.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{SqliteConnection, SqlitePool};

use super::repository::Repository;
use super::row::{PageRow, Row, policy_to_json};
use super::sql::repository;
use crate::database::{Database, Error, in_transaction};
use crate::journal::{self, Batch};
use crate::model::{Namespace, UnixMillis};

const ADD: &str = "INSERT INTO cache_audit (namespace, at, client, forwarded_for, request_id, action, before, after, \
     pattern, tag, deleted_count, complete) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

const PRUNE: &str = "DELETE FROM cache_audit WHERE id IN (SELECT id FROM cache_audit WHERE at < $1 LIMIT $2)";

const PAGE: &str = "SELECT id, at, client, forwarded_for, request_id, action, before, after, pattern, tag, \
     deleted_count, complete FROM cache_audit WHERE namespace = $1 AND id < $2 ORDER BY id DESC LIMIT $3";

repository!(Sqlite, SqlitePool, SqliteConnection, journal::sqlite::advance);
