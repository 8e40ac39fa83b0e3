//! Jobs in either database: one implementation for both, with the SQL of each in `postgres.rs` and `sqlite.rs`. It is
//! a macro because sqlx has no common type for the transactions of both databases.

use super::job::{Flush, Id, Job, Kind, State, selection_from};
use crate::database::Error;
use crate::model::{Namespace, Origin, UnixMillis};

pub(super) const ASK_TO_CANCEL: &str =
    "UPDATE cache_jobs SET cancel_asked = TRUE WHERE id = $1 AND state = 'running'";

/// A row as both databases return it: id, kind, namespace, pattern, tag, client, `forwarded_for`, request id, state,
/// done, estimate, error, code, and start and end time in Unix milliseconds.
pub(super) type Row = (
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    String,
    Option<String>,
    String,
    String,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
    i64,
    Option<i64>,
);

fn strange(reason: &dyn std::fmt::Display) -> Error {
    Error::Row { table: "cache_jobs", reason: reason.to_string() }
}

fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|error| strange(&error))
}

pub(super) fn job_from_row(row: Row) -> Result<Job, Error> {
    let (id, kind, namespace, pattern, tag, client, forwarded_for, request_id, state, done, estimate, ..) = row;
    let (error, code, started_at, ended_at) = (row.11, row.12, row.13, row.14);
    let client = client.parse().map_err(|error: std::net::AddrParseError| strange(&error))?;
    Ok(Job {
        id: Id::parse(&id).ok_or_else(|| strange(&"invalid id"))?,
        flush: Flush {
            kind: Kind::parse(&kind).ok_or_else(|| strange(&"unknown kind"))?,
            namespace: Namespace::parse(&namespace).map_err(|error| strange(&error))?,
            selection: selection_from(pattern, tag).map_err(|error| strange(&error))?,
            origin: Origin::new(client, forwarded_for.as_deref(), &request_id),
        },
        state: State::from_columns(&state, error, code).ok_or_else(|| strange(&"unknown state"))?,
        done: unsigned(done)?,
        estimate: estimate.map(unsigned).transpose()?,
        started_at: UnixMillis(unsigned(started_at)?),
        ended_at: ended_at.map(unsigned).transpose()?.map(UnixMillis),
    })
}

/// The jobs in these rows. Rows that this release cannot read (a later one may have written them) are skipped.
pub(super) fn jobs_from_rows(rows: Vec<Row>) -> impl Iterator<Item = Job> {
    rows.into_iter().filter_map(|row| {
        let job = job_from_row(row);
        job.inspect_err(|error| tracing::warn!(%error, "skipping a job that this release cannot read")).ok()
    })
}

/// A number in the databases' signed type.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Defines `$name`, a repository over `$pool`. The caller's file defines the statements `BEAT`, `END`, `FIND`,
/// `LIST`, `LOOK`, `FAIL_SILENT` and `FORGET`; `$audit` adds a row to the audit trail.
macro_rules! repository {
    ($name:ident, $pool:ty, $audit:path) => {
        pub(super) struct $name {
            pub database: Arc<Database>,
            pub pool: $pool,
        }

        #[async_trait]
        impl Repository for $name {
            async fn beat(&self, job: &Job) -> Result<StoredState, Error> {
                let Flush { kind, namespace, selection, origin } = &job.flush;
                let (pattern, tag) = selection_columns(selection);
                let beat = self.database.query_scalar(BEAT).bind(job.id.as_str()).bind(kind.as_str());
                let beat = beat.bind(namespace.as_str()).bind(pattern).bind(tag).bind(origin.client().to_string());
                let beat = beat.bind(origin.forwarded_for()).bind(origin.request_id());
                let beat = beat.bind(signed(job.done)).bind(job.estimate.map(signed)).bind(signed(job.started_at.0));
                let found =
                    self.database.run(async { in_transaction!(self.pool, |one| beat.fetch_optional(one)) }).await?;
                Ok(match found {
                    Some(false) => StoredState::Running,
                    Some(true) => StoredState::CancelAsked,
                    None => StoredState::Ended,
                })
            }

            async fn end(&self, job: &Job, row: Option<&audit::Row>) -> Result<bool, Error> {
                self.database
                    .run(async {
                        let Flush { kind, namespace, selection, origin } = &job.flush;
                        let (pattern, tag) = selection_columns(selection);
                        let mut transaction = self.pool.begin().await?;
                        let end = self.database.query(END).bind(job.id.as_str()).bind(kind.as_str());
                        let end =
                            end.bind(namespace.as_str()).bind(pattern).bind(tag).bind(origin.client().to_string());
                        let end = end.bind(origin.forwarded_for()).bind(origin.request_id());
                        let end = end.bind(signed(job.done)).bind(job.estimate.map(signed));
                        let failure = job.state.failure();
                        let end = end.bind(signed(job.started_at.0)).bind(job.state.as_str());
                        let end = end.bind(failure.map(|failure| &failure.error));
                        let end = end.bind(failure.map(|failure| &failure.code));
                        let ended_at = job.ended_at.unwrap_or_else(unix_millis);
                        let end = end.bind(signed(ended_at.0));
                        let is_first = end.execute(&mut *transaction).await?.rows_affected() > 0;
                        if let Some(row) = row.filter(|_| is_first) {
                            $audit(&self.database, &mut transaction, row).await?;
                        }
                        self.database.query(FORGET).execute(&mut *transaction).await?;
                        transaction.commit().await?;
                        Ok(is_first)
                    })
                    .await
            }

            async fn find(&self, id: &Id) -> Result<Option<Job>, Error> {
                let find = self.database.query_as(FIND).bind(id.as_str());
                let row: Option<Row> =
                    self.database.run(async { in_transaction!(self.pool, |one| find.fetch_optional(one)) }).await?;
                row.map(job_from_row).transpose()
            }

            async fn list(&self, limit: i64) -> Result<Vec<Job>, Error> {
                let list = self.database.query_as(LIST).bind(limit);
                let rows: Vec<Row> =
                    self.database.run(async { in_transaction!(self.pool, |one| list.fetch_all(one)) }).await?;
                Ok(jobs_from_rows(rows).collect())
            }

            async fn ask_to_cancel(&self, id: &Id) -> Result<(), Error> {
                let ask = self.database.query(ASK_TO_CANCEL).bind(id.as_str());
                self.database.run(async { in_transaction!(self.pool, |one| ask.execute(one)) }).await.map(drop)
            }

            async fn is_any_silent_or_old(&self) -> Result<bool, Error> {
                let look = self.database.query_scalar(LOOK).bind(SILENT_MS);
                self.database.run(async { in_transaction!(self.pool, |one| look.fetch_one(one)) }).await
            }

            async fn fail_silent(&self) -> Result<u64, Error> {
                self.database
                    .run(async {
                        let Failure { error, code } = Failure::silent();
                        let mut transaction = self.pool.begin().await?;
                        let fail = self.database.query_as(FAIL_SILENT).bind(SILENT_MS).bind(error).bind(code);
                        let rows: Vec<Row> = fail.fetch_all(&mut *transaction).await?;
                        let failed = rows.len() as u64;
                        for record in jobs_from_rows(rows).filter_map(|job| job.record()) {
                            $audit(&self.database, &mut transaction, &record.into()).await?;
                        }
                        self.database.query(FORGET).execute(&mut *transaction).await?;
                        transaction.commit().await?;
                        Ok(failed)
                    })
                    .await
            }
        }
    };
}
pub(super) use repository;
