//! The SQL for SQLite; `sql.rs` uses it.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::SqlitePool;

use super::job::{Failure, Flush, Id, Job, selection_columns};
use super::repository::{Repository, SILENT_MS, StoredState};
use super::sql::{ASK_TO_CANCEL, Row, job_from_row, jobs_from_rows, repository, signed};
use crate::audit;
use crate::clock::unix_millis;
use crate::database::{Database, Error, in_transaction};

macro_rules! columns {
    () => {
        "id, kind, namespace, pattern, tag, client, forwarded_for, request_id, state, done, estimate, error, code, \
         started_at, ended_at"
    };
}

/// The current time in Unix milliseconds.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

macro_rules! insert {
    ($state:literal, $error:literal, $code:literal, $ended_at:literal) => {
        concat!(
            "INSERT INTO cache_jobs (id, kind, namespace, pattern, tag, client, forwarded_for, request_id, done, \
             estimate, started_at, state, error, code, cancel_asked, updated_at, ended_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, ",
            $state,
            ", ",
            $error,
            ", ",
            $code,
            ", FALSE, ",
            now!(),
            ", ",
            $ended_at,
            ") ON CONFLICT (id) DO UPDATE SET done = excluded.done, estimate = excluded.estimate, \
             state = excluded.state, error = excluded.error, code = excluded.code, \
             updated_at = excluded.updated_at, ended_at = excluded.ended_at WHERE cache_jobs.state = 'running'"
        )
    };
}

const BEAT: &str = concat!(insert!("'running'", "NULL", "NULL", "NULL"), " RETURNING cancel_asked");

const END: &str = insert!("$12", "$13", "$14", "$15");

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM cache_jobs WHERE id = $1 AND (ended_at IS NULL OR ended_at > ",
    now!(),
    " - 3600000)"
);

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM cache_jobs WHERE ended_at IS NULL OR ended_at > ",
    now!(),
    " - 3600000 ORDER BY started_at DESC, id DESC LIMIT $1"
);

const LOOK: &str = concat!(
    "SELECT EXISTS (SELECT 1 FROM cache_jobs WHERE ended_at <= ",
    now!(),
    " - 3600000 OR (state = 'running' AND updated_at < ",
    now!(),
    " - $1))"
);

const FAIL_SILENT: &str = concat!(
    "UPDATE cache_jobs SET state = 'failed', error = $2, code = $3, ended_at = ",
    now!(),
    " WHERE state = 'running' AND updated_at < ",
    now!(),
    " - $1 RETURNING ",
    columns!()
);

const FORGET: &str = concat!("DELETE FROM cache_jobs WHERE ended_at <= ", now!(), " - 3600000");

repository!(Sqlite, SqlitePool, audit::sqlite::add);
