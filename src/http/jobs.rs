//! `/api/v1/jobs`: flushes and deletions of namespaces that take longer than their requests.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer;
use super::error::{Error, cache_code};
use super::extract::{JobPath, NoParameters, StrictQuery};
use super::openapi::schema;
use super::state::SharedApp;
use crate::cache;
use crate::jobs::{Failure, Job, Kind, State as JobState};
use crate::model::UnixMillis;

/// A job.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobAnswer {
    id: String,
    #[schema(schema_with = schema::job_kind)]
    kind: &'static str,
    #[schema(schema_with = schema::job_state)]
    state: &'static str,
    namespace: String,
    /// The pattern of the flush. If `pattern` and `tag` are null, the job deletes all entries.
    pattern: Option<String>,
    tag: Option<String>,
    /// How many entries are deleted, or marked as stale, so far.
    done: u64,
    /// About how many entries will be deleted or marked in total; null while that is unknown.
    estimate: Option<u64>,
    #[schema(schema_with = schema::date)]
    started_at: String,
    #[schema(schema_with = schema::date_or_null)]
    ended_at: Option<String>,
    /// Null while the job runs.
    result: Option<JobResult>,
}

/// The result of a job.
#[derive(Serialize, ToSchema)]
pub struct JobResult {
    /// False if the job failed or was cancelled.
    success: bool,
    /// How many entries were deleted, also if the job failed or was cancelled. Absent for the kind `mark_stale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    deleted_count: Option<u64>,
    /// Only for the kind `mark_stale`: how many entries were marked, also if the job failed or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    marked_count: Option<u64>,
    /// Why the job failed, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    /// Why the job failed, for programs: an error code, `instance_lost` or `instance_stopped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<String>,
}

/// A list of jobs, newest first.
#[derive(Serialize, ToSchema)]
pub struct JobsAnswer {
    jobs: Vec<JobAnswer>,
}

impl From<&Job> for JobAnswer {
    fn from(job: &Job) -> Self {
        let (pattern, tag) = job.flush.selection.pattern_and_tag();
        let (error, code) = match &job.state {
            JobState::Failed(Failure { error, code }) => (Some(error.clone()), Some(code.clone())),
            JobState::Running | JobState::Done | JobState::Cancelled => (None, None),
        };
        let success = job.state == JobState::Done;
        let (deleted_count, marked_count) = match job.flush.kind {
            Kind::MarkStale => (None, Some(job.done)),
            Kind::Flush | Kind::DeleteNamespace => (Some(job.done), None),
        };
        let result = JobResult { success, deleted_count, marked_count, error, code };
        Self {
            id: job.id.to_string(),
            kind: job.flush.kind.as_str(),
            state: job.state.as_str(),
            namespace: job.flush.namespace.to_string(),
            pattern: pattern.map(str::to_owned),
            tag: tag.map(str::to_owned),
            done: job.done,
            estimate: job.estimate,
            started_at: job.started_at.to_rfc3339_millis(),
            ended_at: job.ended_at.map(UnixMillis::to_rfc3339_millis),
            result: (!job.state.is_running()).then_some(result),
        }
    }
}

/// Converts an error of the cache to the failure that a job reports.
pub fn failure(error: &cache::Error) -> Failure {
    let code = cache_code(error);
    Failure { code: code.as_str().to_owned(), error: code.text().to_owned() }
}

/// The description of the answer below.
pub const ACCEPTED: &str = "The request continues as a job, even if the client disconnects.";

/// The 202 response to a request that continues as this job.
pub fn accepted(job: &Job) -> Response {
    let mut response = answer::json(StatusCode::ACCEPTED, &JobAnswer::from(job));
    let location = HeaderValue::try_from(format!("/api/v1/jobs/{}", job.id));
    response.headers_mut().insert(LOCATION, location.expect("an id has letters, digits and dashes"));
    response
}

/// `GET` of all jobs.
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    operation_id = "list_jobs",
    tag = "jobs",
    summary = "The jobs of all instances, newest first",
    description = "Running jobs, and jobs that ended within the last hour. At most 100.",
    responses((status = 200, description = "The jobs.", body = JobsAnswer))
)]
pub async fn list(State(app): State<SharedApp>, _: StrictQuery<NoParameters>) -> Result<Response, Error> {
    let jobs = app.jobs.list().await?.iter().map(JobAnswer::from).collect();
    Ok(answer::json(StatusCode::OK, &JobsAnswer { jobs }))
}

/// `GET` of one job.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}",
    operation_id = "get_job",
    tag = "jobs",
    summary = "The progress of a job",
    description = "Any instance can answer, not only the one that runs the job. A job is kept for an hour after its \
                   end.",
    responses((status = 200, description = "The job.", body = JobAnswer))
)]
pub async fn show(
    State(app): State<SharedApp>,
    JobPath(id): JobPath,
    _: StrictQuery<NoParameters>,
) -> Result<Response, Error> {
    Ok(answer::json(StatusCode::OK, &JobAnswer::from(&app.jobs.job(&id).await?)))
}

/// `DELETE`: cancels the job.
#[utoipa::path(
    delete,
    path = "/api/v1/jobs/{id}",
    operation_id = "cancel_job",
    tag = "jobs",
    summary = "Cancel a job",
    description = "Entries that the job has deleted stay deleted, and those that it has marked stay marked. A job on \
                   another instance stops within about a second, so the response may still say `running`. A job that has ended does not change.",
    responses((status = 200, description = "The current state of the job.", body = JobAnswer))
)]
pub async fn cancel(
    State(app): State<SharedApp>,
    JobPath(id): JobPath,
    _: StrictQuery<NoParameters>,
) -> Result<Response, Error> {
    Ok(answer::json(StatusCode::OK, &JobAnswer::from(&app.jobs.cancel(&id).await?)))
}
