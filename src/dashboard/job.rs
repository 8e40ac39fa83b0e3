//! `GET /dashboard/jobs/{id}`: the progress of a job, with a button that cancels it.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::address::{self, job_of};
use super::figure::part;
use super::flush;
use super::form::{self, PostedForm};
use super::page::Page;
use super::problem::Problem;
use super::state::{Dashboard, Shared};
use super::topic::{Region, Topic};
use crate::http::Error;
use crate::jobs::{Id, Job, Kind, State as JobState};
use crate::number;

/// Reading the state of a job took too long.
const LATE: Error = Error::DeadlineExceeded { may_write: false };

pub async fn get(State(dashboard): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let id = job_of(&uri)?;
    let job = dashboard.in_time(dashboard.app.jobs.job(&id), LATE);
    let (job, snapshot) = tokio::join!(job, dashboard.snapshot());
    let job = job?;
    let (name, token) = (job.flush.namespace.as_str(), form::token(&headers));
    let done = done(job.flush.kind);
    let main = html! {
        section.card.narrow {
            (shown(&job))
            // The style sheet hides this form when the region above shows that the job has ended.
            form.actions #cancel method="post" action={ (address::job(&id)) "/cancel" } {
                input type="hidden" name="token" value=(token);
                button.danger type="submit" { "Cancel the job" }
                p.muted { "Entries that it has " (done) " stay " (done) "." }
            }
            p { a.button href=(address::namespace(name)) { "Back to the namespace" } }
        }
    };
    let title = match job.flush.kind {
        Kind::Flush => "Flush",
        Kind::MarkStale => "Marking as stale",
        Kind::DeleteNamespace => "Deletion",
    };
    let (topic, condition) = (Topic::Job(id), &snapshot.condition);
    let page = Page { title, topic, condition, namespace: Some(name), main };
    Ok(form::with_cookie(page.respond(StatusCode::OK), &token))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelForm {
    token: String,
}

/// `POST /dashboard/jobs/{id}/cancel`.
pub async fn cancel(
    State(dashboard): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    form: PostedForm<CancelForm>,
) -> Result<Response, Problem> {
    let id = job_of(&uri)?;
    form::accept(form, &headers, |form| &form.token)?;
    dashboard.in_time(dashboard.app.jobs.cancel(&id), Error::DeadlineExceeded { may_write: true }).await?;
    Ok(Redirect::to(&address::job(&id)).into_response())
}

/// The region that is updated on the page of a job. Empty while the state of the job cannot be read.
pub async fn regions(dashboard: &Dashboard, id: &Id) -> Vec<Region> {
    let job = dashboard.in_time(dashboard.app.jobs.job(id), LATE).await;
    job.map_or_else(|_| Vec::new(), |job| vec![("job", shown(&job))])
}

fn shown(job: &Job) -> Markup {
    let (state, is_mark) = (job.state.as_str(), job.flush.kind == Kind::MarkStale);
    html! {
        div #job data-state=(state) data-done=(job.done) {
            h1 { (heading(job.flush.kind, &job.state)) }
            p.figure { (number::of(job.done, "entry", "entries")) }
            p { (done(job.flush.kind)) @if is_mark { " in " } @else { " from " } strong { (job.flush.namespace.as_str()) } ": " (flush::selected(&job.flush.selection)) "." }
            @if job.state.is_running() {
                @match job.estimate {
                    Some(estimate) => {
                        (part(job.done, estimate))
                        p.muted { "Of about " (number::of(estimate, "entry", "entries")) ". You can leave this page." }
                    }
                    None => { p.muted { "The number of entries is not known yet. You can leave this page." } }
                }
                noscript { p { a href=(address::job(&job.id)) { "Reload" } } }
            }
            @if let JobState::Failed(failure) = &job.state {
                p.notice {
                    (failure.error) " (" code { (failure.code) } "). "
                    "For the rest, start again. The entries are then counted again."
                }
            }
        }
    }
}

/// What a job of this kind does to entries, as a participle.
fn done(kind: Kind) -> &'static str {
    match kind {
        Kind::Flush | Kind::DeleteNamespace => "deleted",
        Kind::MarkStale => "marked as stale",
    }
}

fn heading(kind: Kind, state: &JobState) -> &'static str {
    match (kind, state) {
        (Kind::Flush, JobState::Running) => "Flushing",
        (Kind::Flush, JobState::Done) => "Flushed",
        (Kind::Flush, JobState::Failed(_)) => "The flush failed",
        (Kind::Flush, JobState::Cancelled) => "The flush was cancelled",
        (Kind::MarkStale, JobState::Running) => "Marking as stale",
        (Kind::MarkStale, JobState::Done) => "Marked as stale",
        (Kind::MarkStale, JobState::Failed(_)) => "Marking as stale failed",
        (Kind::MarkStale, JobState::Cancelled) => "Marking as stale was cancelled",
        (Kind::DeleteNamespace, JobState::Running) => "Deleting the namespace",
        (Kind::DeleteNamespace, JobState::Done) => "The namespace is deleted",
        (Kind::DeleteNamespace, JobState::Failed(_)) => "The deletion of the namespace failed",
        (Kind::DeleteNamespace, JobState::Cancelled) => "The deletion of the namespace was cancelled",
    }
}
