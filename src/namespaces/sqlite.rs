//! The SQL for SQLite; `sql.rs` uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use sqlx::SqlitePool;

use super::record::{Loaded, PolicyRow, Row, policy_from_row};
use super::sql::{LOCK, MOVE_REVISION, REMOVE, REVISION, repository};
use super::{ChangeRequest, Record, Repository};
use crate::audit::{self, Change};
use crate::database::{Database, Error, in_transaction};
use crate::model::{Namespace, Origin, PolicyChange, UnixMillis};

const LOAD: &str = "SELECT name, default_ttl, max_size_mb, eviction_policy, stale_if_error, created_at, \
     updated_at FROM cache_namespaces";

const ADD: &str = "INSERT INTO cache_namespaces \
     (name, default_ttl, max_size_mb, eviction_policy, stale_if_error, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING";

const BEFORE: &str =
    "SELECT default_ttl, max_size_mb, eviction_policy, stale_if_error FROM cache_namespaces WHERE name = $1";

const REPLACE: &str = "UPDATE cache_namespaces SET default_ttl = $2, max_size_mb = $3, eviction_policy = $4, \
     stale_if_error = $5, updated_at = $6 WHERE name = $1 RETURNING created_at";

repository!(Sqlite, SqlitePool, audit::sqlite::add);
