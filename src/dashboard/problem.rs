//! What went wrong, as a page. Status, code and text are those of the API (`http::error`); the codes that
//! only pages have are here.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;

use super::page;
use crate::cache;
use crate::http::{Error, Failure};
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
    #[error("there are {limit} live pages already, which is the most allowed")]
    TooManyStreams { limit: usize },
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
            Self::TooManyStreams { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many live pages are open")
            }
            Self::TookTooLong { may_write } => Error::DeadlineExceeded { may_write: *may_write }.known(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, text) = self.known();
        let is_ours = status.is_server_error();
        let main = html! {
            section.card.narrow #problem data-code=(code) {
                h1 { (text) }
                @if is_ours {
                    p { "This is not your doing. What is behind it may be back within seconds: load the page again." }
                } @else {
                    p { (self.to_string()) }
                }
                p.muted { "Status " (status.as_u16()) ", code " code { (code) } }
                p { a.button href="/dashboard" { "To the overview" } }
            }
        };
        let mut response = page::bare(status, text, &main);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // That a browser keeps more pages open than it may is no failure.
        if is_ours && !matches!(self, Self::TooManyStreams { .. }) {
            response.extensions_mut().insert(Failure { code, reason: self.to_string() });
        }
        response
    }
}
