//! The SQL for PostgreSQL; `sql.rs` uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use sqlx::PgPool;

use super::record::{Loaded, PolicyRow, Row, policy_from_row};
use super::sql::{LOCK, MOVE_REVISION, REMOVE, REVISION, repository};
use super::{ChangeRequest, Record, Repository};
use crate::audit::{self, Change};
use crate::database::{Database, Error, in_transaction};
use crate::model::{Namespace, Origin, PolicyChange, UnixMillis};

const LOAD: &str = "SELECT name, default_ttl, max_size_mb, eviction_policy, stale_if_error, \
     (extract(epoch FROM created_at) * 1000)::bigint, (extract(epoch FROM updated_at) * 1000)::bigint \
     FROM cache_namespaces";

const ADD: &str = "INSERT INTO cache_namespaces \
     (name, default_ttl, max_size_mb, eviction_policy, stale_if_error, created_at, updated_at) VALUES \
     ($1, $2, $3, $4, $5, to_timestamp($6 / 1000.0), to_timestamp($7 / 1000.0)) ON CONFLICT (name) DO NOTHING";

const BEFORE: &str = "SELECT default_ttl, max_size_mb, eviction_policy, stale_if_error FROM cache_namespaces \
     WHERE name = $1 FOR UPDATE";

const REPLACE: &str = "UPDATE cache_namespaces SET default_ttl = $2, max_size_mb = $3, eviction_policy = $4, \
     stale_if_error = $5, updated_at = to_timestamp($6 / 1000.0) WHERE name = $1 RETURNING (extract(epoch FROM created_at) * 1000)::bigint";

repository!(Postgres, PgPool, audit::postgres::add);
