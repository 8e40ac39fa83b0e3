//! Error pages. Status, code and text are those of the API (`http::error`), except for errors that only pages have,
//! which are defined here.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;

use super::address::OVERVIEW;
use super::page;
use crate::cache;
use crate::http::{Code, Error, Failure};
use crate::number;

/// An error in place of a page.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Http(#[from] Error),
    #[error("a page of another site sent this request")]
    CrossSite,
    #[error("the form does not match the cookie of this browser: open the page again and repeat the action")]
    StrangeForm,
    #[error("the form is too old, so nothing was deleted: start again to see what would be deleted now")]
    OldForm,
}

impl From<cache::Error> for Problem {
    fn from(error: cache::Error) -> Self {
        Self::Http(error.into())
    }
}

impl Problem {
    fn known(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Http(error) => error.known(),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross_site", "Refused: sent by another site"),
            Self::StrangeForm => (StatusCode::FORBIDDEN, "cross_site", "Refused: the form is not from this browser"),
            Self::OldForm => (StatusCode::CONFLICT, "form_expired", "Refused: the form is too old"),
        }
    }

    /// The code under which the error is counted; `None` for an error that only pages have.
    fn code(&self) -> Option<Code> {
        match self {
            Self::Http(error) => Some(error.code()),
            Self::CrossSite | Self::StrangeForm => Some(Code::CrossSite),
            Self::OldForm => None,
        }
    }

    /// How many entries a flush deleted before it failed. It may have deleted more.
    fn deleted(&self) -> Option<u64> {
        match self {
            Self::Http(Error::Cache(cache::Error::PartlyFlushed { deleted, .. })) => Some(*deleted),
            _ => None,
        }
    }

    /// Whether the request may have changed something. If so, nothing may advise to repeat it.
    fn may_have_changed(&self) -> bool {
        self.deleted().is_some() || self.code() == Some(Code::OutcomeUnknown)
    }

    /// What the user can do after an error of the service. Reloading the page would send a change again.
    fn advice(&self) -> String {
        const COUNT: &str = "The page of the namespace shows its current state. The audit trail on it shows what is \
                             known about a flush. A new flush counts the entries again.";
        match self.deleted() {
            Some(deleted) => {
                let entries = number::of(deleted, "entry", "entries");
                format!("The flush stopped before the end. It deleted at least {entries}. {COUNT}")
            }
            None if self.may_have_changed() => {
                format!("The change was sent, and may have been done partly or completely. {COUNT}")
            }
            None => "The service caused this error. The problem may be over in a few seconds: load the page again."
                .to_owned(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, text) = self.known();
        let is_ours = status.is_server_error();
        let main = html! {
            section.card.narrow #problem data-code=(code) data-deleted=[self.deleted()] {
                h1 { (text) }
                p { (if is_ours { self.advice() } else { self.to_string() }) }
                p.muted { "Status " (status.as_u16()) ", code " code { (code) } }
                p { a.button href=(OVERVIEW) { "Back to the overview" } }
            }
        };
        let mut response = page::bare(status, text, &main);
        if status == StatusCode::SERVICE_UNAVAILABLE && !self.may_have_changed() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(code) = self.code() {
            response.extensions_mut().insert(code);
        }
        if is_ours {
            response.extensions_mut().insert(Failure { code, reason: self.to_string() });
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    async fn shown(problem: Problem) -> (bool, String) {
        let answer = problem.into_response();
        let may_repeat = answer.headers().contains_key(RETRY_AFTER);
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (may_repeat, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_page_does_not_advise_to_repeat_a_flush_that_deleted_something() {
        let error = store::Error::Unavailable { shard: "a".to_owned(), reason: "gone".to_owned() };
        let (may_repeat, page) = shown(cache::Error::PartlyFlushed { deleted: 7, error }.into()).await;
        assert!(page.contains("data-deleted=\"7\"") && page.contains("at least 7 entries"), "{page}");
        assert!(!may_repeat && !page.contains("load the page again"), "{page}");
        let (may_repeat, page) = shown(Error::DeadlineExceeded { may_write: true }.into()).await;
        assert!(page.contains("may have been done"), "{page}");
        assert!(!may_repeat && !page.contains("load the page again"), "{page}");
        let (may_repeat, page) = shown(Error::DeadlineExceeded { may_write: false }.into()).await;
        assert!(may_repeat && page.contains("load the page again"), "{page}");
    }
}
