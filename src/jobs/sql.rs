//! Jobs in either database: one implementation, with the statements of each in `postgres.rs` and
//! `sqlite.rs`. A macro, as the two libraries' types have no common form that carries a transaction.

use super::job::{Flush, Id, Job, State, selection_from};
use crate::database::Error;
use crate::model::{Namespace, Origin, UnixMillis};

pub(super) const ASK_TO_CANCEL: &str =
    "UPDATE cache_jobs SET cancel_asked = TRUE WHERE id = $1 AND state = 'running'";

/// A row as both databases give it: id, namespace, pattern, tag, client, `forwarded_for`, request id, state,
/// done, estimate, error, code, and the two dates in Unix milliseconds.
pub(super) type Row = (
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

pub(super) fn note_strange_row(error: &Error) {
    tracing::warn!(%error, "the job is left out");
}

fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|error| strange(&error))
}

pub(super) fn job_from_row(row: Row) -> Result<Job, Error> {
    let (id, namespace, pattern, tag, client, forwarded_for, request_id, state, done, estimate, error, code, ..) =
        row;
    let (started_at, ended_at) = (row.12, row.13);
    let client = client.parse().map_err(|error: std::net::AddrParseError| strange(&error))?;
    Ok(Job {
        id: Id::parse(&id).ok_or_else(|| strange(&"the id is none"))?,
        flush: Flush {
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

/// A number as the databases take it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes `$name` a repository over `$pool`; `BEAT`, `END`, `FIND`, `LIST`, `LOOK`, `FAIL_SILENT` and `FORGET`
/// are the caller's statements, `$audit` adds a row to the audit trail.
macro_rules! repository {
    ($name:ident, $pool:ty, $audit:path) => {
        pub(super) struct $name {
            pub database: Arc<Database>,
            pub pool: $pool,
        }

        #[async_trait]
        impl Repository for $name {
            async fn beat(&self, job: &Job) -> Result<Standing, Error> {
                let Flush { namespace, selection, origin } = &job.flush;
                let (pattern, tag) = selection_columns(selection);
                let beat = sqlx::query_scalar(BEAT).bind(job.id.as_str()).bind(Job::KIND).bind(namespace.as_str());
                let beat = beat.bind(pattern).bind(tag).bind(origin.client().to_string());
                let beat = beat.bind(origin.forwarded_for()).bind(origin.request_id());
                let beat = beat.bind(signed(job.done)).bind(job.estimate.map(signed)).bind(signed(job.started_at.0));
                let found = self.database.run(async { Ok(beat.fetch_optional(&self.pool).await?) }).await?;
                Ok(match found {
                    Some(false) => Standing::Running,
                    Some(true) => Standing::CancelAsked,
                    None => Standing::Ended,
                })
            }

            async fn end(&self, job: &Job, row: &audit::Row) -> Result<bool, Error> {
                self.database
                    .run(async {
                        let Flush { namespace, selection, origin } = &job.flush;
                        let (pattern, tag) = selection_columns(selection);
                        let mut transaction = self.pool.begin().await?;
                        let end = sqlx::query(END).bind(job.id.as_str()).bind(Job::KIND).bind(namespace.as_str());
                        let end = end.bind(pattern).bind(tag).bind(origin.client().to_string());
                        let end = end.bind(origin.forwarded_for()).bind(origin.request_id());
                        let end = end.bind(signed(job.done)).bind(job.estimate.map(signed));
                        let failure = job.state.failure();
                        let end = end.bind(signed(job.started_at.0)).bind(job.state.as_str());
                        let end = end.bind(failure.map(|failure| &failure.error));
                        let end = end.bind(failure.map(|failure| &failure.code));
                        let ended_at = job.ended_at.unwrap_or_else(unix_millis);
                        let end = end.bind(signed(ended_at.0));
                        let is_first = end.execute(&mut *transaction).await?.rows_affected() > 0;
                        if is_first {
                            $audit(&mut transaction, row).await?;
                        }
                        sqlx::query(FORGET).execute(&mut *transaction).await?;
                        transaction.commit().await?;
                        Ok(is_first)
                    })
                    .await
            }

            async fn find(&self, id: &Id) -> Result<Option<Job>, Error> {
                let find = sqlx::query_as(FIND).bind(id.as_str());
                let row: Option<Row> =
                    self.database.run(async { Ok(find.fetch_optional(&self.pool).await?) }).await?;
                row.map(job_from_row).transpose()
            }

            async fn list(&self, limit: i64) -> Result<Vec<Job>, Error> {
                let list = sqlx::query_as(LIST).bind(limit);
                let rows: Vec<Row> = self.database.run(async { Ok(list.fetch_all(&self.pool).await?) }).await?;
                // A row that cannot be understood costs its job alone.
                Ok(rows.into_iter().filter_map(|row| job_from_row(row).inspect_err(note_strange_row).ok()).collect())
            }

            async fn ask_to_cancel(&self, id: &Id) -> Result<(), Error> {
                let ask = sqlx::query(ASK_TO_CANCEL).bind(id.as_str());
                self.database.run(async { Ok(ask.execute(&self.pool).await.map(drop)?) }).await
            }

            async fn is_any_silent_or_old(&self) -> Result<bool, Error> {
                let look = sqlx::query_scalar(LOOK).bind(SILENT_MS);
                self.database.run(async { Ok(look.fetch_one(&self.pool).await?) }).await
            }

            async fn fail_silent(&self) -> Result<u64, Error> {
                self.database
                    .run(async {
                        let Failure { error, code } = Failure::silent();
                        let mut transaction = self.pool.begin().await?;
                        let fail = sqlx::query_as(FAIL_SILENT).bind(SILENT_MS).bind(error).bind(code);
                        let rows: Vec<Row> = fail.fetch_all(&mut *transaction).await?;
                        let failed = rows.len() as u64;
                        for row in rows {
                            let Ok(job) = job_from_row(row).inspect_err(note_strange_row) else { continue };
                            $audit(&mut transaction, &job.record().into()).await?;
                        }
                        sqlx::query(FORGET).execute(&mut *transaction).await?;
                        transaction.commit().await?;
                        Ok(failed)
                    })
                    .await
            }
        }
    };
}
pub(super) use repository;
