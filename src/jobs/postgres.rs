//! The SQL for PostgreSQL; `sql.rs` uses it.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgPool;

use super::job::{Failure, Flush, Id, Job, selection_columns};
use super::repository::{Repository, SILENT_MS, StoredState};
use super::sql::{ASK_TO_CANCEL, Row, job_from_row, jobs_from_rows, repository, signed};
use crate::audit;
use crate::clock::unix_millis;
use crate::database::{Database, Error, in_transaction};

macro_rules! columns {
    () => {
        "id, kind, namespace, pattern, tag, client, forwarded_for, request_id, state, done, estimate, error, code, \
         (extract(epoch FROM started_at) * 1000)::bigint, (extract(epoch FROM ended_at) * 1000)::bigint"
    };
}

macro_rules! insert {
    ($state:literal, $error:literal, $code:literal, $ended_at:literal) => {
        concat!(
            "INSERT INTO cache_jobs (id, kind, namespace, pattern, tag, client, forwarded_for, request_id, done, \
             estimate, started_at, state, error, code, cancel_asked, updated_at, ended_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, to_timestamp($11 / 1000.0), ",
            $state,
            ", ",
            $error,
            ", ",
            $code,
            ", FALSE, now(), ",
            $ended_at,
            ") ON CONFLICT (id) DO UPDATE SET done = EXCLUDED.done, estimate = EXCLUDED.estimate, \
             state = EXCLUDED.state, error = EXCLUDED.error, code = EXCLUDED.code, updated_at = now(), \
             ended_at = EXCLUDED.ended_at WHERE cache_jobs.state = 'running'"
        )
    };
}

const BEAT: &str = concat!(insert!("'running'", "NULL", "NULL", "NULL"), " RETURNING cancel_asked");

const END: &str = insert!("$12", "$13", "$14", "to_timestamp($15 / 1000.0)");

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM cache_jobs WHERE id = $1 AND (ended_at IS NULL OR ended_at > now() - interval '1 hour')"
);

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM cache_jobs WHERE ended_at IS NULL OR ended_at > now() - interval '1 hour' \
     ORDER BY started_at DESC, id DESC LIMIT $1"
);

const LOOK: &str = "SELECT EXISTS (SELECT 1 FROM cache_jobs WHERE ended_at <= now() - interval '1 hour' \
     OR (state = 'running' AND updated_at < now() - $1 * interval '1 millisecond'))";

const FAIL_SILENT: &str = concat!(
    "UPDATE cache_jobs SET state = 'failed', error = $2, code = $3, ended_at = now() \
     WHERE state = 'running' AND updated_at < now() - $1 * interval '1 millisecond' RETURNING ",
    columns!()
);

const FORGET: &str = "DELETE FROM cache_jobs WHERE ended_at <= now() - interval '1 hour'";

repository!(Postgres, PgPool, audit::postgres::add);
