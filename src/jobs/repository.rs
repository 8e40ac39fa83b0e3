//! The jobs in the database. An ended job is kept for an hour.

use std::sync::Arc;

use super::job::{Failure, Flush, Id, Job, Kind, State, selection_from};
use crate::audit;
use crate::database::{Database, Error, Transaction, signed};
use crate::model::{Namespace, Origin, UnixMillis};

/// After this time without a sign of life an instance is silent.
pub const SILENT_MS: i64 = 15_000;

/// Adds a job, or updates one that is running. Returns no row if the end of the job was written before.
const SAVE: &str = "INSERT INTO cache_jobs (id, kind, namespace, pattern, tag, client, forwarded_for, request_id, \
     done, estimate, started_at, state, error, code, cancel_asked, updated_at, ended_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, {date $11}, $12, $13, $14, FALSE, {now}, {date $15}) \
     ON CONFLICT (id) DO UPDATE SET done = EXCLUDED.done, estimate = EXCLUDED.estimate, state = EXCLUDED.state, \
     error = EXCLUDED.error, code = EXCLUDED.code, updated_at = EXCLUDED.updated_at, ended_at = EXCLUDED.ended_at \
     WHERE cache_jobs.state = 'running' RETURNING cancel_asked";

/// The columns of a [`Row`].
macro_rules! columns {
    () => {
        "id, kind, namespace, pattern, tag, client, forwarded_for, request_id, state, done, estimate, error, code, \
         {millis started_at}, {millis ended_at}"
    };
}

const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM cache_jobs WHERE id = $1 AND (ended_at IS NULL OR ended_at > {ago 3600000})"
);

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM cache_jobs WHERE ended_at IS NULL OR ended_at > {ago 3600000} ORDER BY started_at DESC, id DESC LIMIT $1"
);

const ASK_TO_CANCEL: &str = "UPDATE cache_jobs SET cancel_asked = TRUE WHERE id = $1 AND state = 'running'";

const IS_ANY_SILENT_OR_OLD: &str = "SELECT EXISTS (SELECT 1 FROM cache_jobs WHERE ended_at <= {ago 3600000} \
     OR (state = 'running' AND updated_at < {ago $1}))";

const FAIL_SILENT: &str = concat!(
    "UPDATE cache_jobs SET state = 'failed', error = $2, code = $3, ended_at = {now} \
     WHERE state = 'running' AND updated_at < {ago $1} RETURNING ",
    columns!()
);

const FORGET: &str = "DELETE FROM cache_jobs WHERE ended_at <= {ago 3600000}";

/// What the database says about a job when its progress is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredState {
    Running,
    /// It is running, and a client asked to cancel it.
    CancelAsked,
    /// Its end was already written, by another instance.
    Ended,
}

/// The jobs in a database.
pub struct Repository {
    pub database: Arc<Database>,
}

impl Repository {
    /// Writes the progress of a running job; adds the job if it is not there.
    pub async fn beat(&self, job: &Job) -> Result<StoredState, Error> {
        let is_cancel_asked = self.database.transaction(async |transaction| save(transaction, job).await).await?;
        Ok(match is_cancel_asked {
            Some(false) => StoredState::Running,
            Some(true) => StoredState::CancelAsked,
            None => StoredState::Ended,
        })
    }

    /// Writes the end of a job and its audit row in one transaction, and removes old jobs. Returns whether this was
    /// the first end to be written. With `None` no audit row is added.
    pub async fn end(&self, job: &Job, row: Option<&audit::Row>) -> Result<bool, Error> {
        self.database
            .transaction(async |transaction| {
                let is_first = save(transaction, job).await?.is_some();
                if let Some(row) = row.filter(|_| is_first) {
                    audit::add(transaction, row).await?;
                }
                transaction.query(FORGET).execute().await?;
                Ok(is_first)
            })
            .await
    }

    pub async fn find(&self, id: &Id) -> Result<Option<Job>, Error> {
        let find = async |transaction: &mut Transaction| {
            transaction.query(FIND).bind(id.as_str()).fetch_optional::<Row>().await
        };
        self.database.transaction(find).await?.map(job_from_row).transpose()
    }

    /// Up to `limit` jobs, newest first.
    pub async fn list(&self, limit: i64) -> Result<Vec<Job>, Error> {
        let list = async |transaction: &mut Transaction| transaction.query(LIST).bind(limit).fetch_all().await;
        Ok(jobs_from_rows(self.database.transaction(list).await?).collect())
    }

    /// Stores a request to cancel, which the job's instance reads.
    pub async fn ask_to_cancel(&self, id: &Id) -> Result<(), Error> {
        let ask =
            async |transaction: &mut Transaction| transaction.query(ASK_TO_CANCEL).bind(id.as_str()).execute().await;
        self.database.transaction(ask).await.map(drop)
    }

    /// Whether [`Repository::fail_silent`] has anything to do. Usually it has nothing to do, and this check avoids a
    /// write.
    pub async fn is_any_silent_or_old(&self) -> Result<bool, Error> {
        let look = async |transaction: &mut Transaction| {
            transaction.query(IS_ANY_SILENT_OR_OLD).bind(SILENT_MS).fetch_value().await
        };
        self.database.transaction(look).await
    }

    /// Marks jobs as failed if their instances gave no sign of life for [`SILENT_MS`], adds their audit rows, and
    /// removes old jobs. Returns how many jobs it marked.
    pub async fn fail_silent(&self) -> Result<u64, Error> {
        self.database
            .transaction(async |transaction| {
                let Failure { error, code } = Failure::silent();
                let fail = transaction.query(FAIL_SILENT).bind(SILENT_MS).bind(error).bind(code);
                let rows = fail.fetch_all().await?;
                let failed = rows.len() as u64;
                for record in jobs_from_rows(rows).filter_map(|job| job.record()) {
                    audit::add(transaction, &record.into()).await?;
                }
                transaction.query(FORGET).execute().await?;
                Ok(failed)
            })
            .await
    }
}

/// Writes the state of a job, unless its end was written before. Returns whether a client asked to cancel it; `None`
/// if its end was written before.
async fn save(transaction: &mut Transaction, job: &Job) -> Result<Option<bool>, Error> {
    let Flush { kind, namespace, selection, origin } = &job.flush;
    let (pattern, tag) = selection.pattern_and_tag();
    let failure = job.state.failure();
    let save = transaction.query(SAVE).bind(job.id.as_str()).bind(kind.as_str()).bind(namespace.as_str());
    let save = save.bind(pattern).bind(tag).bind(origin.client().to_string()).bind(origin.forwarded_for());
    let save = save.bind(origin.request_id()).bind(signed(job.done)).bind(job.estimate.map(signed));
    let save = save.bind(signed(job.started_at.0)).bind(job.state.as_str());
    let save = save.bind(failure.map(|failure| &failure.error)).bind(failure.map(|failure| &failure.code));
    let saved = save.bind(job.ended_at.map(|at| signed(at.0))).fetch_optional::<(bool,)>().await?;
    Ok(saved.map(|(is_cancel_asked,)| is_cancel_asked))
}

/// A row as both databases return it: id, kind, namespace, pattern, tag, client, `forwarded_for`, request id, state,
/// done, estimate, error, code, and start and end time in Unix milliseconds.
type Row = (
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

fn unreadable(reason: impl std::fmt::Display) -> Error {
    Error::Row { table: "cache_jobs", reason: reason.to_string() }
}

fn job_from_row(row: Row) -> Result<Job, Error> {
    let (id, kind, namespace, pattern, tag, client, forwarded_for, request_id, state, done, estimate, ..) = row;
    let (error, code, started_at, ended_at) = (row.11, row.12, row.13, row.14);
    let client = client.parse().map_err(|error: std::net::AddrParseError| unreadable(error))?;
    let unsigned = |number: i64| u64::try_from(number).map_err(unreadable);
    Ok(Job {
        id: Id::parse(&id).ok_or_else(|| unreadable("invalid id"))?,
        flush: Flush {
            kind: Kind::parse(&kind).ok_or_else(|| unreadable("unknown kind"))?,
            namespace: Namespace::parse(&namespace).map_err(unreadable)?,
            selection: selection_from(pattern, tag).map_err(unreadable)?,
            origin: Origin::new(client, forwarded_for.as_deref(), &request_id),
        },
        state: State::from_columns(&state, error, code).ok_or_else(|| unreadable("unknown state"))?,
        done: unsigned(done)?,
        estimate: estimate.map(unsigned).transpose()?,
        started_at: UnixMillis(unsigned(started_at)?),
        ended_at: ended_at.map(unsigned).transpose()?.map(UnixMillis),
    })
}

/// The jobs in these rows. Rows that this release cannot read (a later one may have written them) are skipped.
fn jobs_from_rows(rows: Vec<Row>) -> impl Iterator<Item = Job> {
    rows.into_iter().filter_map(|row| {
        let job = job_from_row(row);
        job.inspect_err(|error| tracing::warn!(%error, "skipping a job that this release cannot read")).ok()
    })
}
