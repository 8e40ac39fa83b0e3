//! `GET /dashboard/jobs/{id}`: the progress of a job, with a button that cancels it.

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::time::timeout;

use super::address;
use super::extract::JobPath;
use super::flush;
use super::form_token::{Token, is_own_form};
use super::page::{Page, part};
use super::problem::Problem;
use super::state::{Dashboard, Shared};
use super::topic::{Region, Topic};
use crate::http::Error;
use crate::jobs::{Id, Job, Kind, State as JobState};
use crate::number;

pub async fn get(
    State(dashboard): State<Shared>,
    JobPath(id): JobPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = timeout(dashboard.time_of_a_request(), dashboard.app.jobs.job(&id));
    let (job, snapshot) = tokio::join!(job, dashboard.snapshot());
    let job = job.map_err(|_| Problem::TookTooLong { may_write: false })?.map_err(Error::from)?;
    let (name, token) = (job.flush.namespace.as_str(), Token::of(&headers));
    let trail = [(name, address::namespace(name)), (title(job.flush.kind), String::new())];
    let main = html! {
        section.card.narrow {
            (shown(&job))
            // The style sheet hides this form when the region above shows that the job has ended.
            form.actions #cancel method="post" action=(address::cancel(&id)) {
                input type="hidden" name="token" value=(token.as_str());
                button.danger type="submit" { "Cancel the job" }
                p.muted { "Entries that it has deleted stay deleted." }
            }
            p { a.button href=(address::namespace(name)) { "Back to the namespace" } }
        }
    };
    let condition = &snapshot.condition;
    let title = title(job.flush.kind);
    let page = Page { title, events: Topic::Job(id).path(), condition, trail: &trail, main };
    Ok(page.respond_with_forms(StatusCode::OK, &token))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelForm {
    token: String,
}

/// `POST /dashboard/jobs/{id}/cancel`.
pub async fn cancel(
    State(dashboard): State<Shared>,
    JobPath(id): JobPath,
    headers: HeaderMap,
    form: Result<Form<CancelForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form.map_err(|rejection| Error::InvalidBody(rejection.body_text()))?;
    if !is_own_form(&headers, &form.token) {
        return Err(Problem::StrangeForm);
    }
    let cancelled = timeout(dashboard.time_of_a_request(), dashboard.app.jobs.cancel(&id)).await;
    cancelled.map_err(|_| Problem::TookTooLong { may_write: true })?.map_err(Error::from)?;
    Ok(Redirect::to(&address::job(&id)).into_response())
}

/// The region that is updated on the page of a job. Empty while the state of the job cannot be read.
pub async fn regions(dashboard: &Dashboard, id: &Id) -> Vec<Region> {
    let job = timeout(dashboard.time_of_a_request(), dashboard.app.jobs.job(id)).await;
    match job {
        Ok(Ok(job)) => vec![("job", shown(&job))],
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn shown(job: &Job) -> Markup {
    let state = job.state.as_str();
    html! {
        div #job data-state=(state) data-done=(job.done) {
            h1 { (heading(job.flush.kind, &job.state)) }
            p.figure { (number::of(job.done, "entry", "entries")) }
            p { "deleted from " strong { (job.flush.namespace.as_str()) } ": " (flush::selected(&job.flush.selection)) "." }
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
                    "To delete the rest, start again. The entries are then counted again."
                }
            }
        }
    }
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Flush => "Flush",
        Kind::DeleteNamespace => "Deletion",
    }
}

fn heading(kind: Kind, state: &JobState) -> &'static str {
    match (kind, state) {
        (Kind::Flush, JobState::Running) => "Flushing",
        (Kind::Flush, JobState::Done) => "Flushed",
        (Kind::Flush, JobState::Failed(_)) => "The flush failed",
        (Kind::Flush, JobState::Cancelled) => "The flush was cancelled",
        (Kind::DeleteNamespace, JobState::Running) => "Deleting the namespace",
        (Kind::DeleteNamespace, JobState::Done) => "The namespace is deleted",
        (Kind::DeleteNamespace, JobState::Failed(_)) => "The deletion of the namespace failed",
        (Kind::DeleteNamespace, JobState::Cancelled) => "The deletion of the namespace was cancelled",
    }
}
