//! What went wrong, as a page. Status, code and text are those of the API (`http::error`); the codes that
//! only pages have are here.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;

use super::{number, page};
use crate::cache;
use crate::http::{Code, Error, Failure};
use crate::model::Invalid;

/// Whatever ends a request for a page without the page.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Http(#[from] Error),
    #[error("another site made the browser send this request")]
    CrossSite,
    #[error("the form was not given to this browser, or its cookie is gone: open the page again")]
    StrangeForm,
    #[error("the form is too old: nothing was deleted; begin again to see what would go now")]
    OldForm,
    #[error("the shards did not answer within the time of a request")]
    TookTooLong { may_write: bool },
}

impl From<cache::Error> for Problem {
    fn from(error: cache::Error) -> Self {
        Self::Http(error.into())
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::Http(invalid.into())
    }
}

impl Problem {
    fn known(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Http(error) => error.known(),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross_site", "Refused: sent by another site"),
            Self::StrangeForm => (StatusCode::FORBIDDEN, "cross_site", "Refused: the form is not this browser's"),
            Self::OldForm => (StatusCode::CONFLICT, "form_expired", "Refused: the form is too old"),
            Self::TookTooLong { may_write } => Error::DeadlineExceeded { may_write: *may_write }.known(),
        }
    }

    /// What it is counted as; what only pages meet is not.
    fn code(&self) -> Option<Code> {
        match self {
            Self::Http(error) => Some(error.code()),
            Self::CrossSite | Self::StrangeForm => Some(Code::CrossSite),
            Self::OldForm => None,
            Self::TookTooLong { may_write } => Some(Error::DeadlineExceeded { may_write: *may_write }.code()),
        }
    }

    /// Entries that went before a flush failed; what came after them is not known.
    fn deleted(&self) -> Option<u64> {
        match self {
            Self::Http(Error::Cache(cache::Error::PartlyFlushed { deleted, .. })) => Some(*deleted),
            _ => None,
        }
    }

    /// What to say of a fault that is not the reader's. Nobody is told to load a page again whose request was to
    /// change something: that would send it again.
    fn advice(&self, code: &str) -> String {
        const COUNT: &str = "The page of the namespace shows what is there, and its audit \
                             trail what is known of a flush; another flush begins with a new count.";
        match self.deleted() {
            Some(deleted) => {
                let entries = number::of(deleted, "entry", "entries");
                format!("The flush stopped on the way. It deleted at least {entries}. {COUNT}")
            }
            None if code == OUTCOME_UNKNOWN => {
                format!("It was sent, and may have been done in part or as a whole. {COUNT}")
            }
            None => "This is not your doing. What is behind it may be back within seconds: load the page again."
                .to_owned(),
        }
    }
}

/// The API's code for a write that may have happened.
const OUTCOME_UNKNOWN: &str = "outcome_unknown";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, text) = self.known();
        let is_ours = status.is_server_error();
        let deleted = self.deleted();
        let main = html! {
            section.card.narrow #problem data-code=(code) data-deleted=[deleted] {
                h1 { (text) }
                @if is_ours {
                    p { (self.advice(code)) }
                } @else {
                    p { (self.to_string()) }
                }
                p.muted { "Status " (status.as_u16()) ", code " code { (code) } }
                p { a.button href="/dashboard" { "To the overview" } }
            }
        };
        let mut response = page::bare(status, text, &main);
        // Not after what may have changed something, as in the API.
        let may_repeat = deleted.is_none() && code != OUTCOME_UNKNOWN;
        if status == StatusCode::SERVICE_UNAVAILABLE && may_repeat {
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
    async fn nobody_is_told_to_send_a_flush_again_that_deleted_something() {
        let error = store::Error::Unavailable { shard: "a".to_owned(), reason: "gone".to_owned() };
        let (may_repeat, page) = shown(cache::Error::PartlyFlushed { deleted: 7, error }.into()).await;
        assert!(page.contains("data-deleted=\"7\"") && page.contains("at least 7 entries"), "{page}");
        assert!(!may_repeat && !page.contains("load the page again"), "{page}");
        let (may_repeat, page) = shown(Problem::TookTooLong { may_write: true }).await;
        assert!(page.contains("may have been done"), "{page}");
        assert!(!may_repeat && !page.contains("load the page again"), "{page}");
        let (may_repeat, page) = shown(Problem::TookTooLong { may_write: false }).await;
        assert!(may_repeat && page.contains("load the page again"), "{page}");
    }
}
